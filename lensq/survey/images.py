"""From the pixels of a file to what a network sees: size, normalisation, augmentation.

Every image travels with a mask, True where the pixel is real and finite. Pixels behind the mask
(padding, NaN borders) never reach a normalisation or a noise estimate, whatever their value.

Torch is imported inside the functions that need it: the processes that read files use
`fit_to_size` and should not pay for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from lensq.survey.survey import Survey

NO_FLUX = 1e30
"""Numbers of this size or more are fill values or overflows, and masked like NaN."""

BORDER = 0.3
"""Distance from the centre, along either axis and in units of the side, where the border begins."""

MINIMUM_BORDER = 64
"""Fewest real border pixels to measure noise on; with fewer, all real pixels are used."""

PIXEL_SCALE = 0.168
"""Arcseconds a pixel of HSC's coadds."""

SAME_SCALE = 0.005
"""Pixel scales that differ by a smaller fraction count as one: a tenth of a pixel at the edge of a stamp."""

# A lens of 4 arcsec then has its images within half a pixel of where a model expects them.
_MODEL_SCALE = 0.02

SATURATION_IN_NOISE = 1000.0
"""Flux, in units of the survey's noise, that the asinh stretch maps to one."""

SOFTENING_IN_NOISE = 3.0
"""Flux, in units of the survey's noise, at which the asinh stretch turns from linear to logarithmic."""


def fit_to_size(
    image: np.ndarray, size: int, resize: bool = False, zoom: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Bring an image of any shape to `size` x `size` pixels.

    The centre pixel of an axis of n pixels is pixel `n // 2`, counted from 0: the middle one when n is odd;
    when n is even, the middle lies between two pixels, and it is the upper one of these. Cropping and
    padding put it on pixel `size // 2`. An image with an even side in an even frame (or odd in odd) so
    keeps its middle; odd in even moves it up by half a pixel, even in odd down.

    Args:
        image: (height, width) numbers; NaN and infinities mark pixels without data. So do rows and columns
            at its edges in which every pixel has the same value, as fill values leave them.
        size: side of the result in pixels.
        resize: False keeps the native pixel scale, crops about the centre pixel and pads what is too
            small; True crops the image to a square and interpolates it bilinearly to the new size
            (with the interpolation kernel widened when shrinking, so that nothing aliases).
        zoom: pixels of the result a pixel of the image, along an axis. Unless it is one (to `SAME_SCALE`),
            the flux of each pixel of the result is the integral of the bilinear interpolation of the image
            over it, so that flux is conserved, whatever the zoom.

    Returns:
        pixels: (size, size) float32, 0 where masked.
        mask: (size, size) bool, True where the pixel holds data. After interpolation, a pixel is real only
            if every input pixel that it draws on is.
    """
    if resize:
        side = min(image.shape)
        cut, real = _taken(image, _overlap(image.shape, side)[1])
        return _interpolated(cut, real, *[_bilinear_weights(side, size)] * 2)
    if abs(zoom - 1) > SAME_SCALE:
        cut, real = _taken(image, (slice(None), slice(None)))
        return _interpolated(cut, real, *(_integral_weights(n, size, zoom) for n in image.shape))
    pixels = np.zeros((size, size), np.float32)
    mask = np.zeros((size, size), bool)
    place, part = _overlap(image.shape, size)
    cut, real = _taken(image, part)
    np.copyto(pixels[place], cut, where=real)
    mask[place] = real
    return pixels, mask


@lru_cache(maxsize=1024)
def _overlap(shape: tuple[int, int], size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where in the frame which part of the image goes, so that pixel n // 2 falls on pixel size // 2."""
    place, part = [], []
    for n in shape:
        shift = n // 2 - size // 2
        first, last = max(shift, 0), min(shift + size, n)
        place.append(slice(first - shift, last - shift))
        part.append(slice(first, last))
    return tuple(place), tuple(part)


def _taken(image: np.ndarray, part: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    """A part of an image in single precision, and where it holds data."""
    with np.errstate(over="ignore"):
        cut = image[part].astype(np.float32, copy=False)
    real = np.abs(cut) < NO_FLUX
    pairs = ((0, 0), (0, 1)), ((-1, 0), (-1, 1)), ((0, 0), (1, 0)), ((0, -1), (1, -1))
    if min(image.shape) > 1 and any(image[one] == image[other] for one, other in pairs):  # hardly ever
        real &= _inside_fill(image)[part]
    return cut, real


def _inside_fill(image: np.ndarray) -> np.ndarray:
    """False in rows and columns at the edges that hold one value alone; True all over in a constant image."""
    inside = np.ones(image.shape, bool)
    flux = image[np.abs(image) < NO_FLUX]
    if not flux.size or flux.min() == flux.max():
        return inside
    for turns in range(4):  # rot90 gives views
        for line, kept in zip(np.rot90(image, turns), np.rot90(inside, turns), strict=True):
            known = line[np.abs(line) < NO_FLUX]
            if (known != known[:1]).any():
                break
            kept[:] = False
    return inside


def _interpolated(
    image: np.ndarray, real: np.ndarray, down: np.ndarray, across: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums along both axes; a pixel is real if all that it draws on is, and it draws on enough."""
    pixels = down @ np.where(real, image, 0.0) @ across.T
    fake = [(weights > 0).astype(np.float32) for weights in (down, across)]
    mask = fake[0] @ (~real).astype(np.float32) @ fake[1].T == 0
    for axis, weights in enumerate((down, across)):
        total = weights.sum(1)
        mask &= np.expand_dims(total > (1 - 1e-6) * total.max(), 1 - axis)
    pixels[~mask] = 0
    return pixels.astype(np.float32), mask


@lru_cache(maxsize=256)
def _bilinear_weights(n: int, size: int) -> np.ndarray:
    """(size, n) interpolation weights, pixel edges aligned, rows summing to one."""
    scale = n / size
    centres = (np.arange(size) + 0.5) * scale
    distance = np.abs(np.arange(n) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.clip(1 - distance, 0, None)
    weights[weights < 1e-9] = 0
    return weights / weights.sum(axis=1, keepdims=True)


@lru_cache(maxsize=256)
def _integral_weights(n: int, size: int, zoom: float) -> np.ndarray:
    """(size, n) integrals over each pixel of the result of the hat functions of linear interpolation."""
    edges = n // 2 + (np.arange(size + 1) - size // 2 - 0.5) / zoom
    distance = np.clip(edges[:, None] - np.arange(n), -1, 1)
    weights = np.diff(distance - np.sign(distance) * distance**2 / 2, axis=0)
    weights[weights < 1e-9] = 0
    return weights


def noise_level(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Estimate each image's sky noise from its real pixels away from the centre.

    Sources only add light, so the lower half of the pixel distribution is used: the noise is the median
    distance of the pixels below the median, scaled to the standard deviation of a Gaussian, after three
    rounds of dropping what lies more than three such deviations above the median.

    Args:
        images: (B, S, S) flux, or (B, C, S, S) of several bands.
        mask: bool, as large, True where the pixel is real.

    Returns:
        (B,) or (B, C) standard deviation of the sky, in the units of the images; 0 where the sky is constant
        or no pixel is real. A function of each image alone.
    """
    import torch

    if images.dim() == 4:
        return noise_level(images.flatten(0, 1), mask.flatten(0, 1)).view(images.shape[:2])
    size = images.shape[-1]
    offset = (torch.arange(size, device=images.device) - size // 2).abs()
    border = mask & (torch.maximum(offset[:, None], offset[None, :]) > BORDER * size)
    enough = border.flatten(1).sum(1) >= MINIMUM_BORDER
    used = torch.where(enough[:, None, None], border, mask).flatten(1)
    values = torch.where(used, images.flatten(1), torch.inf).sort(dim=1).values
    count = used.sum(1)
    for _ in range(4):
        centre = _median_of_first(values, count)[:, None]
        below = values <= centre
        distance = torch.where(below, centre - values, torch.inf).sort(dim=1).values
        sigma = 1.4826 * _median_of_first(distance, below.sum(1))
        count = (values <= centre + 3 * sigma[:, None]).sum(1)
    return torch.where(used.any(1), sigma, 0.0)


def _median_of_first(values: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """(B,) median of the first count[i] entries of each row of `values` (B, P), sorted along the row."""
    upper = (count // 2).clamp(max=values.shape[1] - 1)
    lower = ((count - 1) // 2).clamp(min=0)
    return (values.gather(1, lower[:, None]) + values.gather(1, upper[:, None]))[:, 0] / 2


def channels(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels or masks as networks take them, (B, C, S, S); those of one band may be (B, S, S)."""
    return pixels if pixels.dim() == 4 else pixels[:, None]


def band_weights(noise: torch.Tensor, reference: int) -> tuple[float, ...]:
    """Factors that give all bands the noise of the reference band.

    Args:
        noise: (n, C) sky noise of objects in each band; NaN or 0 where it is not known.
        reference: the channel of the reference band.

    Returns:
        C numbers: the reference band's median noise over each band's; 1 for a band whose noise is not known.
    """
    import torch

    level = torch.where(noise > 0, noise, torch.nan).nanmedian(0).values
    return tuple((level[reference] / level).nan_to_num(1.0).tolist())


@dataclass(frozen=True)
class Preprocessing:
    """How flux becomes the input of a network. Each image by itself, padding left out.

    The bands of an image share one scale, so that its colour survives. Before that, each is multiplied by a
    constant of the survey, its weight, which gives all bands the same sky noise: a squared residual then
    means as much in one band as in another, and no band outweighs the others by being noisy.

    Attributes:
        normalisation: "minmax" maps the least and greatest real pixel of an image, of all its bands, to 0
            and 1, as the published study did, and so forgets the flux; "asinh" keeps it:
            asinh(I / 3 noise) / asinh(1000 / 3) with one noise for the whole survey (the stretch of
            Lupton, Gunn and Szalay 1999, AJ 118, 1406, eq. 3, scaled so that 1000 noise becomes 1).
        noise: sky noise of the survey, in the units of the images: the median of
            `lensq.models.batches.sky_noise` over the training images, of the reference band. Only "asinh"
            uses it.
        weights: C factors, `band_weights` of the training images; empty for one band.
    """

    normalisation: str = "minmax"
    noise: float = 1.0
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.normalisation not in ("minmax", "asinh"):
            raise ValueError(f"normalisation: expected 'minmax' or 'asinh', got {self.normalisation!r}")
        if not (np.isfinite(self.noise) and self.noise > 0):
            raise ValueError(f"noise: expected a positive flux, got {self.noise}")
        object.__setattr__(self, "weights", tuple(self.weights))  # JSON has lists

    def __call__(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Normalise a batch.

        Args:
            images: (B, S, S) flux, or (B, C, S, S) of several bands.
            mask: bool, as large, True where the pixel is real.

        Returns:
            (B, C, S, S) finite network input in the dtype of the images, 0 where masked; all 0 for a
            constant image under "minmax".

        Raises:
            ValueError: there are other numbers of bands than weights.
        """
        import torch

        images, mask = channels(images), channels(mask)
        if images.shape[1] != max(len(self.weights), 1):
            raise ValueError(f"images of {images.shape[1]} bands, but {len(self.weights)} weights of bands")
        if self.weights:
            images = images * images.new_tensor(self.weights)[:, None, None]
        if self.normalisation == "asinh":
            softening = SOFTENING_IN_NOISE * self.noise
            scaled = torch.asinh(images / softening) / np.arcsinh(SATURATION_IN_NOISE / SOFTENING_IN_NOISE)
        else:
            low = torch.where(mask, images, torch.inf).amin((1, 2, 3), keepdim=True)
            high = torch.where(mask, images, -torch.inf).amax((1, 2, 3), keepdim=True)
            varies = high > low
            scaled = torch.where(varies, (images - low) / torch.where(varies, high - low, 1.0), 0.0)
        return torch.where(mask, scaled, 0.0)


def symmetries(images: torch.Tensor) -> torch.Tensor:
    """The eight symmetries of the square: four turns, and the four turns of the mirror image.

    Args:
        images: (..., S, S), pixels or masks.

    Returns:
        (8, ..., S, S), the identity first.
    """
    import torch

    mirrored = images.flip(-1)
    turns = [torch.rot90(each, k, (-2, -1)) for each in (images, mirrored) for k in range(4)]
    return torch.stack(turns)


@cache
def _pixels(side: int, device: torch.device) -> torch.Tensor:
    """(8, S^2): which pixel comes where in each of the `symmetries`."""
    import torch

    return symmetries(torch.arange(side**2, device=device).view(side, side)).flatten(1)


def apply_symmetries(images: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Images (B, C, S, S), each by its own of the `symmetries`, whose places are (B,) numbers."""
    pixels = _pixels(images.shape[-1], images.device)[which]
    return images.flatten(2).gather(2, pixels[:, None].expand(-1, images.shape[1], -1)).view_as(images)


AUGMENTATIONS = (1, 3, 2, 4, 6)
"""Quarter turn, its inverse, half turn, left-right and up-down mirror: their places in `symmetries`."""


def draw_symmetries(n: int, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Draw how images are rotated or mirrored at random.

    With the given probability an image undergoes one of five operations, all equally likely: a quarter
    turn either way, a half turn, a left-right or an up-down mirroring (the published study's choice).

    Args:
        n: number of images.
        probability: chance that an image is changed, 0 to 1.
        generator: source of the random numbers; it advances by the same amount for any probability.

    Returns:
        (n,) int64 places in `symmetries`, on the generator's device.
    """
    import torch

    device = generator.device
    choice = torch.randint(len(AUGMENTATIONS), (n,), generator=generator, device=device)
    changed = torch.rand(n, generator=generator, device=device) < probability
    return torch.where(changed, torch.tensor(AUGMENTATIONS, device=device)[choice], 0)


def same_scale(survey: Survey, trained: Mapping[str, Any]) -> bool:
    """Whether the pixels of a survey are as large as those that a model was trained on."""
    return abs(survey.pixel_scale / trained.get("pixel_scale", PIXEL_SCALE) - 1) <= _MODEL_SCALE


def check_pixels(survey: Survey, trained: Mapping[str, Any]) -> None:
    """Hold a survey to the pixels that a model was trained on.

    Args:
        survey: to be scored.
        trained: settings of the model: `size`, `resized`, `pixel_scale` (arcsec) and `bands`.

    Raises:
        ValueError: size, resizing, pixel scale or bands differ; names the call that makes them agree. Another
            band instead of the one trained on is taken.
    """
    how = {"size": trained["size"], "resize": trained.get("resized", False)}
    agrees = how == {"size": survey.size, "resize": survey.resized}
    bands = tuple(trained.get("bands", ("i",)))
    if bands != survey.bands and (len(bands), len(survey.bands)) != (1, 1):
        how["bands"], agrees = list(bands), False
    if not survey.resized and not same_scale(survey, trained):
        how["scale"], agrees = round(trained.get("pixel_scale", PIXEL_SCALE), 4), False
    if not agrees:
        asked = ", ".join(f"{name}={value}" for name, value in how.items())
        said = f", bands {' '.join(survey.bands)}" * ("bands" in how)
        raise ValueError(
            f"the survey was read with size={survey.size}, resize={survey.resized}, {survey.pixel_scale:.3g} "
            f"arcsec a pixel{said}, not as the model: call read_survey({str(survey.folder)!r}, {asked})"
        )

"""Pictures of cutouts: galleries, reconstructions with residuals.

Images of three bands or more, (N, C, S, S), are drawn in colour: in the bands `rgb`, for red, green and blue.
By default these are i, r and g; where they are not all there, the band of the longest wavelength, the middle
one and that of the shortest. Two bands are drawn in grey, in i or else the first.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from astropy.visualization import make_lupton_rgb
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lensq.figures.style import COLOURS, WIDTH, panels, readable, styled
from lensq.survey.planes import band_names

_SOFTENING = 3.0  # in units of the sky noise
_MASKED = "#c9b8a8"
_BY_WAVELENGTH = ("u", "g", "r", "VIS", "i", "z", "NIR_Y", "y", "Y", "NIR_J", "J", "NIR_H", "H", "K")


def shown_channels(bands: Sequence[str], rgb: str | Sequence[str] = "") -> list[int]:
    """The channels that are drawn: of red, green and blue, or of the one that is drawn in grey.

    Args:
        bands: names of the channels.
        rgb: names of the bands for red, green and blue; the default is that of this module.

    Raises:
        ValueError: `rgb` names other than three bands, or one that is not there.
    """
    bands = list(bands)
    if rgb:
        names = band_names(rgb)
        if len(names) != 3 or not set(names) <= set(bands):
            raise ValueError(f"rgb={rgb!r}: expected three of the bands {', '.join(bands)}")
        return [bands.index(name) for name in names]
    if {"g", "r", "i"} <= set(bands):
        return [bands.index(name) for name in "irg"]
    if len(bands) < 3:
        return [bands.index("i") if "i" in bands else 0]
    order = list(range(len(bands)))
    if set(bands) <= set(_BY_WAVELENGTH):
        order.sort(key=lambda k: _BY_WAVELENGTH.index(bands[k]))
    return [order[-1], order[len(order) // 2], order[0]]


def _drawn(images: np.ndarray, bands: Sequence[str] = (), rgb: str | Sequence[str] = "") -> np.ndarray:
    """Images (..., S, S) of one band as they are; of several, (..., C, S, S), in three bands or in one."""
    chosen = shown_channels(bands or [str(k) for k in range(images.shape[-3])], rgb)
    drawn = np.asarray(images)[..., chosen, :, :]
    return drawn if len(chosen) == 3 else drawn[..., 0, :, :]


def _filled(planes: np.ndarray) -> np.ndarray:
    """Planes (..., 3, S, S) in which the mean of the others stands where one is NaN, and 0 where all are."""
    real = np.isfinite(planes)
    total = np.where(real, planes, 0).sum(-3, keepdims=True)
    return np.where(real, planes, total / np.maximum(real.sum(-3, keepdims=True), 1))


def in_colour(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colour pictures after Lupton et al. (2004, PASP 116, 133), stretched as `stretch` does.

    Args:
        images: (N, 3, S, S) flux in the bands for red, green and blue.
        mask: (N, 3, S, S) bool, True for real pixels.

    Returns:
        (N, S, S, 4) from 0 to 1: red, green, blue, and 0 where no band has a real pixel, else 1. Where a band
        is masked, the mean of the others stands for it.
    """
    sky, noise = np.moveaxis(sky_and_noise(images, mask), -1, 0)
    light = _filled(np.where(mask, images - sky[..., None, None], np.nan))
    noise = np.sqrt((noise**2).sum(1)) / 3
    softening = _SOFTENING * noise
    brightest = np.maximum(light.mean(1).max((1, 2)), 10 * noise) / softening
    steepness = 10 * np.sinh(np.arcsinh(brightest) / 10)  # which brings the brightest pixel to one
    pictures = np.ones((len(images), *images.shape[2:], 4))
    for i, planes in enumerate(light):
        how = {"minimum": -noise[i], "stretch": steepness[i] * softening[i], "Q": steepness[i]}
        pictures[i, ..., :3] = make_lupton_rgb(*planes, **how) / 255
    pictures[..., 3] = mask.any(1)
    return pictures


def drawn(
    images: np.ndarray,
    mask: np.ndarray | None = None,
    bands: Sequence[str] = (),
    rgb: str | Sequence[str] = "",
) -> np.ndarray:
    """Pictures of cutouts: in colour of three bands or more, else in grey.

    Args:
        images: (N, S, S) or (N, C, S, S) flux.
        mask: bool, as large, True for real pixels; all finite ones by default.
        bands: names of the channels; by default they count as ordered by wavelength.
        rgb: see `shown_channels`.

    Returns:
        (N, S, S) of `stretch`, or (N, S, S, 4) of `in_colour`.
    """
    mask = np.isfinite(images) if mask is None else np.asarray(mask, bool)
    if images.ndim == 4:
        images, mask = (_drawn(values, bands, rgb) for values in (images, mask))
    return stretch(images, mask) if images.ndim == 3 else in_colour(images, mask)


def stretch(images: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Bring cutouts to 0..1 so that faint and bright light show: asinh in units of the sky noise.

    Sky level and noise of each image are median and 1.48 median absolute deviations of the pixels in its
    outer quarter; one is the brightest pixel, or ten times the noise where there is none so bright.

    Args:
        images: (N, S, S) flux.
        mask: (N, S, S) bool, True for real pixels; all real by default.

    Returns:
        (N, S, S) float64, NaN where masked.
    """
    images = np.asarray(images, np.float64)
    real = np.isfinite(images) if mask is None else np.asarray(mask, bool)
    sky, noise = sky_and_noise(images, real).T[:, :, None, None]
    light = (np.where(real, images, np.nan) - sky) / (_SOFTENING * noise)
    brightest = light.max(axis=(1, 2), where=real, initial=10 / _SOFTENING, keepdims=True)
    darkest = np.arcsinh(-2 / _SOFTENING)
    return np.clip((np.arcsinh(light) - darkest) / (np.arcsinh(brightest) - darkest), 0, 1)


def sky_and_noise(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Sky level and noise of each image: median, and 1.48 median absolute deviations, of its outer quarter.

    Args:
        images: (..., S, S) flux.
        mask: bool, as large.

    Returns:
        (..., 2); the noise is 1 where the sky is constant.
    """
    offset = np.abs(np.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2)
    border = mask & (np.maximum(offset[:, None], offset) >= 0.375 * images.shape[-1])
    used = np.where(border.any(axis=(-2, -1), keepdims=True), border, mask)
    pixels = np.ma.masked_array(images, ~used).reshape(*images.shape[:-2], offset.size**2)
    sky = np.ma.filled(np.ma.median(pixels, axis=-1), 0)
    noise = 1.4826 * np.ma.filled(np.ma.median(np.abs(pixels - sky[..., None]), axis=-1), 0)
    return np.stack([sky, np.where(noise > 0, noise, 1.0)], axis=-1, dtype=np.float64)


def _show(axis: Axes, picture: np.ndarray, **options):
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.set_facecolor(_MASKED)
    for spine in axis.spines.values():
        spine.set(visible=True, color="0.75", linewidth=0.6)
    picture = picture if picture.ndim == 3 else np.ma.masked_invalid(picture)
    return axis.imshow(picture, **({"vmin": 0, "vmax": 1} | options))


def _square_root(pictures: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Square root of brightness on the scale of some pictures, from their darkest 0.5% to their brightest."""
    low, high = np.nanquantile(of, [0.005, 1])
    return np.sqrt(np.clip((pictures - low) / max(high - low, 1e-12), 0, 1))


def _coloured(planes: np.ndarray) -> np.ndarray:
    """Planes (S, S), or (3, S, S) as red, green, blue and clear (S, S, 4), from 0 to 1."""
    if planes.ndim == 2:
        return planes
    real = np.isfinite(planes).any(0, keepdims=True)
    return np.moveaxis(np.concatenate([_filled(planes), real]), 0, -1)


def _scale_bar(axis: Axes, size: int, pixel_scale: float | None) -> None:
    """Two arcseconds; nothing where the scale is not known."""
    if pixel_scale is not None:
        x, y, length = 0.07 * size, 0.07 * size, 2 / pixel_scale
        axis.plot([x, x + length], [y, y], color="white", linewidth=2, solid_capstyle="butt")
        axis.text(x + length / 2, y + 0.03 * size, '2"', color="white", fontsize=8, ha="center")


@styled
def gallery(
    images: np.ndarray, *, columns: int = 8, pixel_scale: float | None = None, **shown: Any
) -> Figure:
    """Cutouts in rows, stretched by `stretch`, with a scale bar of 2 arcsec in the first.

    Args:
        images: (N, S, S) or (N, C, S, S) flux.
        columns: cutouts in a row.
        pixel_scale: arcsec a pixel of the images, `survey.pixel_scale`; without it there is no scale bar.
        shown: `mask` (masked pixels are drawn in beige), `bands` and `rgb`: see `drawn`.
    """
    width = WIDTH * min(len(images) / columns, 1)
    figure, axes = panels(len(images), columns, WIDTH / columns, width)
    for axis, picture in zip(axes, drawn(images, **shown), strict=True):
        _show(axis, picture)
    _scale_bar(axes[0], images.shape[-1], pixel_scale)
    return figure


@styled
def class_gallery(
    images: np.ndarray, classes: Sequence[str], *, columns: int = 8, pixel_scale=None, **shown: Any
) -> Figure:
    """The first cutouts of each class, a row a class, in the order in which classes first appear.

    Args:
        images: (N, S, S) or (N, C, S, S) flux.
        classes: class of each.
        columns: cutouts in a row.
        pixel_scale: arcsec a pixel of the images, `survey.pixel_scale`; without it there is no scale bar.
        shown: `mask`, `bands` and `rgb`: see `drawn`.
    """
    classes = np.asarray(classes)
    names = list(dict.fromkeys(classes.tolist()))
    pictures = drawn(images, **shown)
    figure, axes = panels(len(names) * columns, columns, WIDTH / (columns + 0.5))
    for row, name in enumerate(names):
        members = np.flatnonzero(classes == name)[:columns]
        for axis, i in zip(axes[row * columns : (row + 1) * columns], members, strict=False):
            _show(axis, pictures[i])
        for axis in axes[row * columns + len(members) : (row + 1) * columns]:
            axis.remove()
        label, colour = readable(name).replace(" ", "\n"), COLOURS.get(name, "black")
        look = {"rotation": 0, "ha": "right", "va": "center", "color": colour, "parse_math": False}
        axes[row * columns].set_ylabel(label, **look)
    _scale_bar(axes[0], images.shape[-1], pixel_scale)
    return figure


@styled
def reconstruction_grid(
    images: np.ndarray,
    reconstructions: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    captions: Sequence[str] = (),
    **shown: Any,
) -> Figure:
    """Input, reconstruction and residual below one another, a column an object.

    Inputs and reconstructions share one scale an object; residuals share one scale in the figure. In colour
    the square root of brightness is taken in each band, and a residual of nothing is grey.

    Args:
        images: (N, S, S) or (N, C, S, S) network inputs.
        reconstructions: as large, in the same units.
        mask: bool, as large.
        captions: a line above each column.
        shown: `bands` and `rgb`: see `drawn`.
    """
    n, real = len(images), True if mask is None else np.asarray(mask, bool)
    inputs, made = (np.where(real, np.asarray(a, np.float64), np.nan) for a in (images, reconstructions))
    if inputs.ndim == 4:
        inputs, made = (_drawn(values, **shown) for values in (inputs, made))
    residual = inputs - made
    limit = np.nanquantile(np.abs(residual), 0.998)
    figure, axes = panels(3 * n, n, (WIDTH - 0.3) / n + 0.22)
    rows = axes[:n], axes[n : 2 * n], axes[2 * n :]
    for i in range(n):
        for row, picture in zip(rows, (inputs[i], made[i]), strict=False):
            _show(row[i], _coloured(_square_root(picture, inputs[i])))
        if inputs.ndim == 4:
            last = _show(rows[2][i], _coloured(np.clip(0.5 + residual[i] / (2 * limit), 0, 1)))
        else:
            last = _show(rows[2][i], residual[i], cmap="RdBu_r", vmin=-limit, vmax=limit)
    for axis, caption in zip(rows[0], captions, strict=False):
        axis.set_title(caption, fontsize=8.5, pad=3, parse_math=False)
    for row, name in zip(rows, ("input", "reconstruction", "residual"), strict=True):
        row[0].set_ylabel(name)
    label = "residual (input units)"
    if inputs.ndim == 4:
        ends = f"black and white are \N{MINUS SIGN}{limit:.2g} and {limit:.2g} in a band"
        figure.supxlabel(f"{label}: grey is 0, {ends}", fontsize="medium")
    else:
        figure.colorbar(last, ax=axes, location="bottom", label=label, shrink=0.5, aspect=40, pad=0.02)
    return figure


@styled
def picture_rows(pictures: np.ndarray, labels: Sequence[str] = (), **shown: Any) -> Figure:
    """Rows of drawn images, such as samples of a prior, or a latent dimension changed step by step.

    Grey is the square root of brightness on one scale a row, from its darkest 0.5% to its brightest pixel;
    so is each colour.

    Args:
        pictures: (R, A, S, S) or (R, A, C, S, S) images in one unit.
        labels: a word or two before each row.
        shown: `bands` and `rgb`: see `drawn`.
    """
    pictures = pictures if pictures.ndim == 4 else _drawn(pictures, **shown)
    rows, across = pictures.shape[:2]
    figure, axes = panels(rows * across, across, (WIDTH - 0.8) / across + 0.03)
    for i, row in enumerate(pictures):
        for axis, picture in zip(axes[i * across : (i + 1) * across], _square_root(row, row), strict=True):
            _show(axis, _coloured(picture))
    for axis, label in zip(axes[::across], labels, strict=False):
        axis.set_ylabel(label, rotation=0, ha="right", va="center")
    return figure

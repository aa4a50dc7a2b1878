"""Pictures of cutouts: galleries, reconstructions with residuals, ranked candidates."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lensq.figures.style import COLOURS, LENS, ORDINARY, WIDTH, panels, readable, styled

_FONT_FIT = 105.0  # points of font size that fit one letter to an inch of caption
_SOFTENING = 3.0  # in units of the sky noise
_MASKED = "#c9b8a8"


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
    pixels = np.where(real, images, np.nan)
    for image, picture, shown, (sky, noise) in zip(
        images, pixels, real, sky_and_noise(images, real), strict=True
    ):
        light = (image - sky) / (_SOFTENING * noise)
        brightest = max(np.max(light, where=shown, initial=0.0), 10 / _SOFTENING)
        floor = np.arcsinh(-2 / _SOFTENING)
        picture[shown] = np.clip((np.arcsinh(light) - floor) / (np.arcsinh(brightest) - floor), 0, 1)[shown]
    return pixels


def sky_and_noise(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Sky level and noise of each image: median, and 1.48 median absolute deviations, of its outer quarter.

    Args:
        images: (N, S, S) flux.
        mask: (N, S, S) bool.

    Returns:
        (N, 2); the noise is 1 where the sky is constant.
    """
    offset = np.abs(np.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2)
    border = np.maximum(offset[:, None], offset) >= 0.375 * images.shape[-1]
    result = np.empty((len(images), 2))
    for i, (image, real) in enumerate(zip(images, mask, strict=True)):
        edge = image[border & real] if (border & real).any() else image[real]
        sky = np.median(edge) if len(edge) else 0.0
        noise = 1.4826 * np.median(np.abs(edge - sky)) if len(edge) else 0.0
        result[i] = sky, noise if noise > 0 else 1.0
    return result


def _show(axis: Axes, picture: np.ndarray, frame: str | None = None, **options):
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.set_facecolor(_MASKED)
    for spine in axis.spines.values():
        spine.set(visible=True, color=frame or "0.75", linewidth=2.2 if frame else 0.6)
    return axis.imshow(np.ma.masked_invalid(picture), **({"vmin": 0, "vmax": 1} | options))


def _scale_bar(axis: Axes, size: int, pixel_scale: float | None) -> None:
    """Two arcseconds; nothing where the scale is not known."""
    if pixel_scale is not None:
        x, y, length = 0.07 * size, 0.07 * size, 2 / pixel_scale
        axis.plot([x, x + length], [y, y], color="white", linewidth=2, solid_capstyle="butt")
        axis.text(x + length / 2, y + 0.03 * size, '2"', color="white", fontsize=8, ha="center")


@styled
def gallery(
    images: np.ndarray,
    captions: Sequence[str] | None = None,
    *,
    mask: np.ndarray | None = None,
    frames: Sequence[str | None] | None = None,
    columns: int = 8,
    pixel_scale: float | None = None,
) -> Figure:
    """Cutouts in rows, stretched by `stretch`, with a scale bar of 2 arcsec in the first.

    Args:
        images: (N, S, S) flux.
        captions: a line above each.
        mask: (N, S, S) bool; masked pixels are drawn in beige.
        frames: colour of each frame; None for a thin grey one.
        columns: cutouts in a row.
        pixel_scale: arcsec a pixel of the images, `survey.pixel_scale`; without it there is no scale bar.
    """
    width = WIDTH / columns
    written = [line for caption in captions or () for line in str(caption).split("\n")]
    fontsize = min([8.5, *(_FONT_FIT * width / max(len(line), 1) for line in written)])
    lines = len(written) / len(images)
    figure, axes = panels(len(images), columns, width + 1.5 * lines * fontsize / 72)
    if len(images) < columns:
        figure.set_figwidth(width * len(images))
    for i, (axis, picture) in enumerate(zip(axes, stretch(images, mask), strict=True)):
        _show(axis, picture, frames[i] if frames is not None else None)
        if captions is not None:
            axis.set_title(captions[i], fontsize=fontsize, pad=3, parse_math=False)
    _scale_bar(axes[0], images.shape[-1], pixel_scale)
    return figure


@styled
def class_gallery(
    images: np.ndarray,
    classes: Sequence[str],
    *,
    mask: np.ndarray | None = None,
    columns: int = 8,
    pixel_scale: float | None = None,
) -> Figure:
    """The first cutouts of each class, a row a class, in the order in which classes first appear.

    Args:
        images: (N, S, S) flux.
        classes: class of each.
        mask: (N, S, S) bool.
        columns: cutouts in a row.
        pixel_scale: arcsec a pixel of the images, `survey.pixel_scale`; without it there is no scale bar.
    """
    classes = np.asarray(classes)
    names = list(dict.fromkeys(classes.tolist()))
    pictures = stretch(images, mask)
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
    captions: Sequence[str] | None = None,
    noise: Sequence[float] | None = None,
) -> Figure:
    """Input, reconstruction and residual below one another, a column an object.

    Inputs and reconstructions share one grey scale an object; residuals share one colour scale in the figure.

    Args:
        images: (N, S, S) network inputs.
        reconstructions: (N, S, S) in the same units.
        mask: (N, S, S) bool.
        captions: a line above each column.
        noise: noise of each input in its own units; residuals are then in units of it.
    """
    n = len(images)
    real = np.ones(images.shape, bool) if mask is None else np.asarray(mask, bool)
    inputs, drawn = (np.where(real, np.asarray(a, np.float64), np.nan) for a in (images, reconstructions))
    residual = inputs - drawn
    if noise is not None:
        residual = residual / np.asarray(noise, float)[:, None, None]
    limit = np.nanquantile(np.abs(residual), 0.998)
    figure, axes = panels(3 * n, n, (WIDTH - 0.3) / n + 0.22)
    rows = axes[:n], axes[n : 2 * n], axes[2 * n :]
    for i in range(n):
        low, high = np.nanquantile(inputs[i], [0.005, 1])
        for axis, picture in ((rows[0][i], inputs[i]), (rows[1][i], drawn[i])):
            _show(axis, np.sqrt(np.clip((picture - low) / max(high - low, 1e-12), 0, 1)))
        last = _show(rows[2][i], residual[i], cmap="RdBu_r", vmin=-limit, vmax=limit)
        if captions is not None:
            rows[0][i].set_title(captions[i], fontsize=8.5, pad=3, parse_math=False)
    for row, name in zip(rows, ("input", "reconstruction", "residual"), strict=True):
        row[0].set_ylabel(name)
    label = f"residual ({'input units' if noise is None else 'sky noise'})"
    figure.colorbar(last, ax=axes, location="bottom", label=label, shrink=0.5, aspect=40, pad=0.02)
    return figure


@styled
def picture_rows(
    pictures: np.ndarray,
    labels: Sequence[str] | None = None,
    *,
    columns: Sequence[str] | None = None,
    height: float | None = None,
) -> Figure:
    """Rows of drawn images, such as samples of a prior, or a latent dimension changed step by step.

    Grey is the square root of brightness on one scale a row, from its darkest 0.5% to its brightest pixel.

    Args:
        pictures: (R, C, S, S) images in one unit.
        labels: a word or two before each row.
        columns: a word above each column.
        height: of a row in inches; by default such that the images touch.
    """
    rows, across = pictures.shape[:2]
    figure, axes = panels(rows * across, across, height or (WIDTH - 0.8) / across + 0.03)
    for i, row in enumerate(pictures):
        low, high = np.nanquantile(row, [0.005, 1])
        for axis, picture in zip(axes[i * across : (i + 1) * across], row, strict=True):
            _show(axis, np.sqrt(np.clip((picture - low) / max(high - low, 1e-12), 0, 1)))
        if labels is not None:
            axes[i * across].set_ylabel(labels[i], rotation=0, ha="right", va="center")
    for axis, word in zip(axes, columns if columns is not None else (), strict=False):
        axis.set_title(word, fontsize=8.5, pad=3)
    return figure


@styled
def ranked_gallery(
    images: np.ndarray,
    candidates: pd.DataFrame,
    *,
    mask: np.ndarray | None = None,
    columns: int = 6,
    pixel_scale: float | None = None,
) -> Figure:
    """Candidates in the order of the table, framed by what is known of them.

    Frames: lens colour where `label` is 1, the ordinary colour where it is 0, grey where unknown.

    Args:
        images: (N, S, S) flux, in the order of the table.
        candidates: table with `name`, and if there `rank` (else the place in the table), `score` and `q`,
            written beneath the name, and `label`.
        mask: (N, S, S) bool.
        columns: cutouts in a row.
        pixel_scale: arcsec a pixel of the images, `survey.pixel_scale`; without it there is no scale bar.
    """
    captions = []
    for position, row in enumerate(candidates.itertuples(index=False), start=1):
        second = [f"{getattr(row, 'rank', position)}."] + [
            f"{key} {getattr(row, key):.3g}" for key in ("score", "q") if hasattr(row, key)
        ]
        captions.append(f"{row.name}\n{'  '.join(second)}")
    labels = candidates["label"] if "label" in candidates else np.full(len(candidates), -1)
    frames = [{1: LENS, 0: ORDINARY}.get(label) for label in labels]
    return gallery.__wrapped__(
        images, captions, mask=mask, frames=frames, columns=columns, pixel_scale=pixel_scale
    )

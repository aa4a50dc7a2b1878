"""Artefacts of detector and sky, as opposed to light that came through the optics.

A cutout without data near its object, a straight line across it, light sharper than a star's, a saturated
core: each is a rule on one image alone, with a reason to read. Lines are found by the probabilistic Hough
transform (Galamhos, Matas and Kittler 1999, CVPR, 1:554) of scikit-image.
"""

import numpy as np
import torch
from scipy import ndimage
from skimage.measure import block_reduce
from skimage.transform import probabilistic_hough_line

from lensq.survey.images import noise_level

MISSING = 0.03
"""Share of a cutout without data from which it is set apart; frames that pad small cutouts do not count."""

LINE = 0.7
"""Length of a line, in sides of the cutout, from which it is no galaxy."""

_BRIGHT = 10.0  # in units of the noise, what a track must exceed
_SHARP = 0.5  # share of a pixel's light that its neighbours lack, in one direction; 0.3 for a star
_SHARP_PIXELS = 3  # that make a track
_SATURATED, _PLATEAU = 300.0, 12  # signal to noise of a saturated core, and its pixels of one brightness
_WINDOW = 7  # pairs of pixels; what is narrower than half of it may be a line


def find_artefacts(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Find the cutouts that an artefact spoils.

    Args:
        images: (N, S, S) flux.
        mask: (N, S, S) bool, True where the pixel is real.

    Returns:
        (N,) str, the reason in a few words, "" where there is none. A function of each image alone.
    """
    images, mask = np.array(images, np.float32), np.array(mask, bool)
    signal = _in_noise(images, mask)
    return np.array([_reason(*pixels) for pixels in zip(signal, mask, strict=True)], dtype=str)


def _reason(light: np.ndarray, real: np.ndarray) -> str:
    if (missing := _missing(real)) >= MISSING:
        return f"no data in {missing:.0%} of the cutout"
    if _sharp_pixels(light, real) >= _SHARP_PIXELS:
        return "sharper than a star: cosmic ray or bleed"
    if _is_saturated(light):
        return "saturated star"
    if _longest_line(light, real) >= LINE:
        return "straight line: trail or bleed"
    return ""


def _in_noise(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Light above the median of the real pixels, in units of each image's sky noise; 0 where masked."""
    noise = noise_level(torch.from_numpy(images), torch.from_numpy(mask)).numpy()
    pixels = np.where(mask, images, np.nan).reshape(len(images), -1)
    empty = ~mask.any(axis=(1, 2))
    pixels[empty] = 0
    sky = np.nanmedian(pixels, axis=1)
    noise = np.where(noise > 0, noise, 1.0)
    return np.where(mask, (images - sky[:, None, None]) / noise[:, None, None], 0)


def _missing(real: np.ndarray) -> float:
    """Share of pixels without data, but for a frame of the same width on both sides, which is padding."""
    for axis in (0, 1):
        lines = np.flatnonzero(real.any(axis=1 - axis))
        if not len(lines):
            return 1.0
        frame = min(lines[0], real.shape[axis] - 1 - lines[-1])
        odd = frame > 0  # an even side in an odd frame, or odd in even, leaves one line more on one side
        real = np.take(real, range(frame + odd, real.shape[axis] - frame - odd), axis=axis)
    return 1 - real.mean()


def _sharp_pixels(light: np.ndarray, real: np.ndarray) -> int:
    """Pixels that fall off, in one direction at least, more steeply than the optics and the noise allow."""
    padded = np.pad(light, 1, mode="edge")
    pairs = [((1, 0), (1, 2)), ((0, 1), (2, 1)), ((0, 0), (2, 2)), ((0, 2), (2, 0))]
    n = len(light)
    beside = [sum(padded[y : y + n, x : x + n] for y, x in pair) / 2 for pair in pairs]
    excess = light - np.min(beside, axis=0) - 3  # less three times the noise
    inside = ndimage.binary_erosion(real, iterations=2)
    return int((inside & (light > _BRIGHT) & (excess > _SHARP * np.maximum(light, _BRIGHT))).sum())


def _is_saturated(light: np.ndarray) -> bool:
    brightest = light.max()
    return brightest > _SATURATED and (light > 0.85 * brightest).sum() >= _PLATEAU


def _longest_line(light: np.ndarray, real: np.ndarray) -> float:
    """Length of the longest straight line among the narrow features, in sides of the cutout."""
    binned, whole = block_reduce(light, (2, 2), np.mean), block_reduce(real, (2, 2), np.min)
    if not whole.any():
        return 0.0
    narrow = binned - ndimage.median_filter(binned, _WINDOW)
    noise = 1.4826 * np.median(np.abs(narrow[whole] - np.median(narrow[whole])))
    parts, _ = ndimage.label((narrow > 3 * noise) & whole, structure=np.ones((3, 3)))
    spans = [max(side.stop - side.start for side in part) for part in ndimage.find_objects(parts)]
    long = np.flatnonzero(np.array(spans) >= 0.5 * len(binned)) + 1
    if not len(long):  # most cutouts, without the cost of a transform
        return 0.0
    length = len(binned) // 2
    how = {"threshold": length // 2, "line_length": length, "line_gap": 2, "rng": 0}
    lines = probabilistic_hough_line(np.isin(parts, long), **how)
    return max((float(np.hypot(*np.subtract(*line))) for line in lines), default=0.0) / len(binned)

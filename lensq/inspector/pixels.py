"""Pixels on their way into a browser: two bytes each, without losing faint light beside bright."""

import numpy as np

from lensq.survey.images import SATURATION_IN_NOISE, SOFTENING_IN_NOISE, Preprocessing

MASKED = -32768
_TOP = 32767


def encode(images: np.ndarray, softening: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Write images as 16-bit integers of their inverse hyperbolic sine.

    Args:
        images: (N, P, S, S), P planes that share a scale; not finite where masked.
        softening: (N,) value up to which the scale is about linear; a few times the noise.

    Returns:
        The integers in rows, little-endian, -32768 where masked; and (N,) the integers' unit `u`: a value is
        softening sinh(u integer).
    """
    values = np.arcsinh(np.asarray(images, np.float64) / softening[:, None, None, None])
    unit = np.where(np.isfinite(values), np.abs(values), 0).max(axis=(1, 2, 3)) / _TOP
    unit = np.where(unit > 0, unit, 1.0)
    whole = np.rint(values / unit[:, None, None, None])
    return np.where(np.isfinite(whole), whole, MASKED).astype("<i2").tobytes(), unit


def flux_of(
    preprocessing: Preprocessing, images: np.ndarray, mask: np.ndarray
) -> list[tuple[float, float, bool]]:
    """How a network's input becomes flux again, for each image.

    Args:
        preprocessing: of the model.
        images: (N, S, S) or (N, C, S, S) flux.
        mask: bool, as large, True where real.

    Returns:
        For each image a, b and whether it is asinh: flux = a + b x, or a sinh(b x); of several bands the flux
        times the band's weight.
    """
    if preprocessing.weights:
        images = images * np.array(preprocessing.weights, np.float32)[:, None, None]
    if preprocessing.normalisation == "asinh":
        softening = SOFTENING_IN_NOISE * preprocessing.noise
        scale = float(np.arcsinh(SATURATION_IN_NOISE / SOFTENING_IN_NOISE))
        return [(float(softening), scale, True)] * len(images)
    light = [image[real] for image, real in zip(images, mask, strict=True)]
    bounds = [(float(pixels.min()), float(pixels.max())) for pixels in light]
    return [(low, high - low if high > low else 1.0, False) for low, high in bounds]

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
    unit = np.nanmax(np.abs(np.where(np.isfinite(values), values, np.nan)), axis=(1, 2, 3)) / _TOP
    unit = np.where(unit > 0, unit, 1.0)
    whole = np.rint(values / unit[:, None, None, None])
    return np.where(np.isfinite(whole), whole, MASKED).astype("<i2").tobytes(), unit


def decode(pixels: bytes, softening: np.ndarray, unit: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What `encode` wrote, NaN where masked: what the browser does.

    Args:
        pixels: integers.
        softening: (N,).
        unit: (N,).
        shape: (N, P, S, S).
    """
    whole = np.frombuffer(pixels, "<i2").reshape(shape).astype(np.float64)
    whole[whole == MASKED] = np.nan
    return softening[:, None, None, None] * np.sinh(unit[:, None, None, None] * whole)


def flux_of(
    preprocessing: Preprocessing, images: np.ndarray, mask: np.ndarray
) -> list[tuple[float, float, bool]]:
    """How a network's input becomes flux again, for each image.

    Args:
        preprocessing: of the model.
        images: (N, S, S) flux.
        mask: (N, S, S) bool, True where real.

    Returns:
        For each image a, b and whether it is asinh: flux = a + b x, or a sinh(b x).
    """
    if preprocessing.normalisation == "asinh":
        softening = SOFTENING_IN_NOISE * preprocessing.noise
        scale = float(np.arcsinh(SATURATION_IN_NOISE / SOFTENING_IN_NOISE))
        return [(float(softening), scale, True)] * len(images)
    bounds = [
        (float(image[real].min()), float(image[real].max())) for image, real in zip(images, mask, strict=True)
    ]
    return [(low, high - low if high > low else 1.0, False) for low, high in bounds]


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

"""FITS cutouts for tests: the plain kind that HSC's archive gives."""

from pathlib import Path

import numpy as np
from astropy.io import fits


def pixels(side: int | tuple[int, int] = 47, seed: int = 0) -> np.ndarray:
    """Noise with a source in the middle, float32."""
    shape = (side, side) if isinstance(side, int) else side
    image = np.random.default_rng(seed).normal(0, 0.05, shape)
    y, x = np.indices(shape)
    image += 5 * np.exp(-((y - shape[0] // 2) ** 2 + (x - shape[1] // 2) ** 2) / 8)
    return image.astype(np.float32)


def hdus(image: np.ndarray, **primary_cards) -> fits.HDUList:
    """A header-only HDU 0 and an image with a WCS in HDU 1."""
    second = fits.ImageHDU(image)
    for keyword, value in {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 150.0,
        "CRVAL2": 2.0,
    }.items():
        second.header[keyword] = value
    second.header["CRPIX1"] = image.shape[-1] // 2 + 1.0
    second.header["CRPIX2"] = image.shape[-2] // 2 + 1.0
    second.header["CD1_1"], second.header["CD2_2"] = -4.67e-5, 4.67e-5
    first = fits.PrimaryHDU()
    for keyword, value in ({"FLUXMAG0": 10**10.8, "FILTER": "i"} | primary_cards).items():
        first.header[keyword] = value
    return fits.HDUList([first, second])


def write(path: Path, image: np.ndarray, **primary_cards) -> Path:
    """Write such a file, and its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hdus(image, **primary_cards).writeto(path, overwrite=True)
    return path

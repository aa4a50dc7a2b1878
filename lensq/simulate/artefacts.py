"""Detector artefacts, laid over a finished image: saturation, bleeding, gaps, edges, hits and trails.

Each function takes the image (size, size) in counts and a generator, and returns the spoilt image;
`spoil` chooses one of them and gives the light that it adds its photon noise.
"""

from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter

from lensq.simulate.light import counts


def saturated_star(image: np.ndarray, rng: np.random.Generator, bleeding: bool = False) -> np.ndarray:
    """A bright star, clipped at the full well; with a bleed trail along rows or columns if asked."""
    y, x = np.indices(image.shape)
    size = len(image)
    low, high = (0, size) if rng.random() < 0.7 else (0.4 * size, 0.6 * size)
    cx, cy = rng.uniform(low, high, 2)
    r = np.hypot(x - cx, y - cy)
    flux, a = counts(rng.uniform(13.2, 17.8)), 3.5 * rng.lognormal(0, 0.1)
    core = 2 / (np.pi * a**2) / (1 + (r / a) ** 2) ** 3
    wing = 0.5 / (np.pi * 144) / (1 + (r / 12) ** 2) ** 1.5
    star = flux * (0.97 * core + 0.03 * wing)
    spoilt = np.minimum(image + star * (1 + rng.normal(0, 0.02, image.shape)), rng.normal(270, 30))
    if bleeding:
        half = rng.integers(1, 3)
        trail = np.zeros_like(image)
        profile = rng.uniform(5, 80) * np.exp(-np.abs(y[:, :1] - cy) / rng.uniform(8, 60))
        trail[:, max(0, int(cx) - half) : int(cx) + half] = profile
        spoilt = spoilt + (trail if rng.random() < 0.5 else trail.T)
    return spoilt


def nan_gap(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rectangle without data."""
    size = len(image)
    height, width = rng.integers(6, max(7, size // 2), 2)
    y, x = rng.integers(0, int(0.8 * size), 2)
    spoilt = image.copy()
    spoilt[y : y + height, x : x + width] = np.nan
    return spoilt


def edge(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The edge of the survey: a side without data, NaN or zero."""
    size = len(image)
    depth = rng.integers(size // 8, int(0.44 * size))
    rotated = np.rot90(image, quarters := rng.integers(4)).copy()
    rotated[:depth] = rng.choice([0.0, np.nan])
    return np.rot90(rotated, -quarters).copy()


def cosmic_rays(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One to three short straight tracks, softened by the resampling of the coadd."""
    hits, size = np.zeros_like(image), len(image)
    for _ in range(rng.integers(1, 4)):
        angle, length = rng.uniform(0, np.pi), rng.integers(2, 12)
        x0, y0 = rng.uniform(0.15 * size, 0.85 * size, 2)
        steps = np.arange(0, length, 0.25)
        x, y = (x0 + steps * np.cos(angle)).astype(int), (y0 + steps * np.sin(angle)).astype(int)
        inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
        hits[y[inside], x[inside]] = rng.uniform(1, 10)
    return image + gaussian_filter(hits, 0.5)


def satellite_trail(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A straight trail across the cutout."""
    y, x = np.indices(image.shape)
    centre, angle = len(image) / 2, rng.uniform(0, np.pi)
    distance = (x - centre - rng.normal(0, 0.2 * len(image))) * np.sin(angle) - (y - centre) * np.cos(angle)
    return image + 10 ** rng.uniform(-0.9, 0.5) * np.exp(-(distance**2) / 2 / rng.uniform(1.2, 1.9) ** 2)


def halo(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The halo of a very bright star outside the cutout."""
    y, x = np.indices(image.shape)
    centre, angle = len(image) / 2, rng.uniform(0, 2 * np.pi)
    reach = 1.4 * len(image)
    r = np.hypot(x - centre - reach * np.cos(angle), y - centre - reach * np.sin(angle))
    return image + rng.uniform(2, 40) * np.exp(-r / rng.uniform(15, 40))


ARTEFACTS = {
    "saturated": saturated_star,
    "bleed": partial(saturated_star, bleeding=True),
    "gap": nan_gap,
    "edge": edge,
    "cosmic ray": cosmic_rays,
    "trail": satellite_trail,
    "halo": halo,
}


IN_ONE_BAND = ("gap", "cosmic ray", "trail")
"""What spoils the exposures of one band alone; the others are on the sky or at the survey's edge."""


def spoil(
    image: np.ndarray, gain: float, rng: np.random.Generator, noise: np.random.Generator | None = None
) -> tuple[np.ndarray, str]:
    """Lay one artefact over an image.

    Args:
        image: (size, size) counts.
        gain: Electrons a count, for the photon noise of the added light.
        rng: Draws the kind and everything about it.
        noise: Draws the photon noise; `rng` by default.

    Returns:
        The spoilt image and the kind, a key of `ARTEFACTS`.
    """
    kind = str(rng.choice(list(ARTEFACTS)))
    spoilt = ARTEFACTS[kind](image, rng)
    added = np.clip(np.nan_to_num(spoilt - image), 0, None)
    return spoilt + (noise or rng).standard_normal(image.shape) * np.sqrt(added / gain), kind

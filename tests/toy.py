"""A small survey of point sources, and of pairs as its anomalies, with a packed store of its own."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.coordinates import SkyCoord

from lensq.survey.survey import Survey

SHARES = {"train": 0.5, "validation": 0.1, "selection": 0.1, "conformal": 0.1, "test": 0.2}


def toy_survey(folder: Path, n: int = 160, size: int = 20, seed: int = 0) -> Survey:
    """Write and open a survey, its images memory-mapped, of varied noise; a quarter has two rows masked."""
    random = np.random.default_rng(seed)
    labels = (random.random(n) < 0.15).astype(np.int8)
    y, x = np.mgrid[:size, :size] - size / 2
    angle, width = random.uniform(0, 2 * np.pi, n), random.uniform(1.2, 1.8, n)
    images = random.normal(0, 1, (n, size, size)) * 10 ** random.uniform(-1.5, 0, (n, 1, 1))
    for i in range(n):
        for sign in (-1, 1) if labels[i] else (0,):
            dx, dy = 3 * sign * np.cos(angle[i]), 3 * sign * np.sin(angle[i])
            images[i] += 5 * np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * width[i] ** 2))
    mask = np.ones((n, size, size), bool)
    mask[: n // 4, :2] = False
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", np.where(mask, images, 0).astype(np.float32))
    np.save(folder / "mask.npy", mask)
    return Survey(
        folder=folder,
        names=np.array([f"toy{i:05d}" for i in range(n)]),
        coordinates=SkyCoord(random.uniform(0, 360, n), random.uniform(-60, 60, n), unit="deg"),
        labels=labels,
        graded=(labels == 1) & (random.random(n) < 0.3),
        images=np.load(folder / "images.npy", mmap_mode="r"),
        mask=np.load(folder / "mask.npy", mmap_mode="r"),
        group=np.arange(n),
        split=random.choice(list(SHARES), n, p=list(SHARES.values())),
        quarantine=pd.DataFrame(columns=["name", "file", "reason", "detail"]),
        truth=None,
        size=size,
        resized=False,
        native_side=size,
        fingerprint=hashlib.sha256(images.tobytes() + mask.tobytes()).hexdigest(),
    )


def toy_in_bands(folder: Path, bands: str = "gri", **how) -> Survey:
    """The toy survey in several bands, each object of its own colour; r is noisier, i is as in `toy_survey`.

    The first object has no g.
    """
    survey = toy_survey(folder, **how)
    random = np.random.default_rng(how.get("seed", 0) + 1)
    colour = random.uniform(0.5, 2, (len(survey), len(bands), 1, 1))
    level = np.array([2.0 if band == "r" else 0.5 for band in bands])[:, None, None]
    noise = level * random.normal(0, 1, (len(survey), len(bands), survey.size, survey.size))
    images = survey.images[:, None] * colour + noise
    mask = np.repeat(survey.mask[:, None], len(bands), 1)
    if "i" in bands:
        images[:, bands.index("i")] = survey.images
    mask[0, bands.index("g")] = False
    arrays = {"images": np.where(mask, images, 0).astype(np.float32), "mask": mask}
    for name, array in arrays.items():
        np.save(folder / f"{name}-{bands}.npy", array)
    arrays = {name: np.load(folder / f"{name}-{bands}.npy", mmap_mode="r") for name in arrays}
    band = "i" if "i" in bands else bands[0]
    digest = hashlib.sha256(bands.encode() + images.tobytes()).hexdigest()
    return replace(survey, **arrays, bands=tuple(bands), band=band, fingerprint=digest)

"""A small survey of point sources, and of pairs as its anomalies, with a packed store of its own."""

import hashlib
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

"""Scores tables with known answers, for the tests of the analysis."""

import numpy as np
import pandas as pd

SPLITS = ("train", "selection", "conformal", "test")


def scores_table(
    n: int = 1200,
    anomalies: int = 200,
    *,
    dimensions: int = 6,
    shifts: dict[int, float] | None = None,
    split: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Gaussian posterior means whose anomalies are shifted in some dimensions; two score columns.

    `signal` is normal with unit variance, anomalies 2 higher; `noise` tells nothing. Without a split the
    rows are dealt to all of them.
    """
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(n + anomalies) < anomalies)
    mu = rng.normal(size=(n + anomalies, dimensions))
    logvar = rng.normal(-2, 0.3, size=mu.shape)
    for dimension, shift in (shifts or {}).items():
        mu[positive, dimension] += shift
    table = {
        "name": [f"J{i:06d}" for i in range(len(mu))],
        "ra": rng.uniform(0, 60, len(mu)),
        "dec": rng.uniform(-5, 5, len(mu)),
        "split": rng.choice(SPLITS, len(mu)) if split is None else split,
        "label": positive.astype(np.int8),
        "graded": positive & (rng.random(len(mu)) < 0.2),
        "is_lens": positive,
        "signal": rng.normal(size=len(mu)) + 2 * positive,
        "noise": rng.normal(size=len(mu)),
    }
    kl = 0.5 * (mu**2 + np.exp(logvar) - logvar - 1)
    for name, values in (("mu", mu), ("logvar", logvar), ("kl", kl)):
        table |= {f"{name}_{d}": values[:, d].astype(np.float32) for d in range(dimensions)}
    return pd.DataFrame(table)

"""Where an object lies among all: in the histogram of scores, in latent space, on the sky."""

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

_BINS = 48
_POINTS = 1500  # drawn of a map


def score_axis(score: np.ndarray) -> tuple[np.ndarray, dict]:
    """Scores on an axis of 0 to 1 that shows bulk and tail: asinh about the median, in half its spread.

    Args:
        score: (N,) finite.

    Returns:
        (N,) places on the axis; `counts` of the bins, and `ticks`: place and score of five marks.
    """
    low, middle, high = np.quantile(score, [0.25, 0.5, 0.75])
    width = (high - low) / 2 or 1.0
    bent = np.arcsinh((score - middle) / width)
    ends = np.quantile(bent, 0.001), bent.max()
    span = ends[1] - ends[0] or 1.0
    place = np.clip((bent - ends[0]) / span, 0, 1)
    counts, _ = np.histogram(place, _BINS, (0, 1))
    marks = np.array([0.02, 0.25, 0.5, 0.75, 0.98])
    values = middle + width * np.sinh(ends[0] + marks * span)
    written = [f"{v:.0f}" if 99.5 <= abs(v) < 1e5 else f"{v:.2g}" for v in values]
    ticks = [[round(float(x), 4), text] for x, text in zip(marks, written, strict=True)]
    return place, {"counts": counts.tolist(), "ticks": ticks}


def latent_plane(table: pd.DataFrame) -> np.ndarray:
    """The first two principal components of the standardised posterior means, each on 0 to 1.

    Args:
        table: with `mu_0`, `mu_1`, ...

    Returns:
        (N, 2), cut at the 0.2% and 99.8% quantiles; (N, 0) if there are fewer than two means.
    """
    names = [name for name in table if str(name).startswith("mu_") and str(name)[3:].isdigit()]
    if len(names) < 2:
        return np.empty((len(table), 0))
    values = StandardScaler().fit_transform(table[names].to_numpy(np.float64))
    return _unit(PCA(2).fit_transform(values), 0.002)


def sky_plane(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, dict]:
    """Positions on 0 to 1, east to the left, the survey whole where it crosses right ascension 0.

    Args:
        ra: (N,) degrees; NaN where unknown.
        dec: (N,) degrees.

    Returns:
        (N, 2), NaN where unknown; the ends of both axes in degrees, `ra` from left to right.
    """
    known = np.isfinite(ra)
    if not known.any():
        return np.full((len(ra), 2), np.nan), {}
    around = np.sort(ra[known] % 360)
    gaps = np.diff(around, append=around[0] + 360)
    start = around[(np.argmax(gaps) + 1) % len(around)]  # the first object east of the widest gap
    east = (ra - start) % 360
    edges = {"ra": [(start + np.nanmax(east)) % 360, start], "dec": [np.nanmin(dec), np.nanmax(dec)]}
    ends = {axis: [round(float(edge), 2) for edge in pair] for axis, pair in edges.items()}
    return _unit(np.stack([-east, dec], axis=1), 0.0), ends


def _unit(values: np.ndarray, cut: float) -> np.ndarray:
    low, high = np.nanquantile(values, [cut, 1 - cut], axis=0)
    return np.clip((values - low) / np.where(high > low, high - low, 1.0), 0, 1)


def sample(plane: np.ndarray, seed: int = 0) -> list[list[int]]:
    """At most 1,500 points of a plane in thousandths, for the background of a map."""
    rows = np.flatnonzero(np.isfinite(plane).all(axis=1) & (plane.shape[1] == 2))
    rows = np.random.default_rng(seed).permutation(rows)[:_POINTS]
    return np.rint(1000 * plane[rows]).astype(int).tolist()

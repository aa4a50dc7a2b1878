"""What a latent code holds of the truth: the mutual information gap, and clusters against true classes.

Both look at truths that only a simulated survey has, and evaluate a model; nothing is chosen by them.
"""

import numpy as np
import pandas as pd
from scipy.stats import entropy

from lensq.statistics.latent import bin_numbers, latent_values

FACTORS = ("separation", "magnitude_i", "ellipticity", "seeing")
"""True properties of an object, columns of truth.parquet, that a latent dimension may stand for."""

_PER_CELL = 5  # objects that a cell of the joint histogram holds on average, at least
_MOST_BINS = 20


def _information(code: np.ndarray, factor: np.ndarray, bins: int) -> np.ndarray:
    """Mutual information in nats of each column of bin numbers (N, D) with those of a factor (N,), (D,)."""
    dimensions = code.shape[1]
    cells = (np.arange(dimensions) * bins + code) * bins + factor[:, None]
    joint = np.bincount(cells.ravel(), minlength=dimensions * bins**2).reshape(dimensions, bins, bins)
    code, factor = (entropy(joint.sum(axis), axis=1) for axis in (2, 1))
    return code + factor - entropy(joint.reshape(dimensions, -1), axis=1)


def mutual_information_gap(scores: pd.DataFrame, *, shuffles: int = 100, seed: int = 0) -> pd.DataFrame:
    """How much more one latent dimension holds of each true factor than the next best dimension does.

    For a factor v with entropy H(v), and I(z_j; v) the mutual information with each latent dimension, the gap
    is (I of the best dimension - I of the second) / H(v) (Chen et al. 2018, arXiv 1802.04942, equation 6):
    1 if one dimension alone holds the factor, 0 if none does or several share it. Their index is the mean
    over factors. Factors and latent values are counted in bins with edges at quantiles, as many as leave five
    objects to a cell of the joint histogram, 20 at most. Latent values are drawn from the posterior, one for
    each object, so that a dimension that ignores the image holds nothing however its mean drifts.

    A histogram of finitely many objects has some mutual information and some gap by chance; `chance` is what
    95% of shuffles of the factor stay below.

    Args:
        scores: Scores table with the columns `FACTORS` joined (`Survey.add_truth`); those that it lacks are
            left out, and objects where one is unknown are left out for that factor.
        shuffles: how often each factor is shuffled for `chance`.
        seed: seed of the latent draws and the shuffles.

    Returns:
        Index `factor`; `objects`, `bins`, `dimension` (the best one), `information` (its mutual information
        as a share of the factor's entropy), `gap`, `chance`. Factors with fewer than 20 known objects, or
        one value only, and codes of one dimension are left out. No rows on a survey without truth.
    """
    rows = {}
    for factor in FACTORS:
        known = scores[scores[factor].notna()] if factor in scores else scores[:0]
        bins = min(int(np.sqrt(len(known) / _PER_CELL)), _MOST_BINS)
        if bins < 2:
            continue
        rng = np.random.default_rng(seed)
        mu, logvar = latent_values(known, "mu"), latent_values(known, "logvar")
        z = mu + np.exp(0.5 * logvar) * rng.normal(size=mu.shape)
        code = bin_numbers(z, z, bins)
        values = known[[factor]].to_numpy(np.float64)
        truth = bin_numbers(values, values, bins)[:, 0]
        whole = entropy(np.bincount(truth))
        if whole == 0 or code.shape[1] < 2:
            continue
        shares = _information(code, truth, bins) / whole
        chance = [np.sort(_information(code, rng.permutation(truth), bins))[-2:] for _ in range(shuffles)]
        second, best = np.sort(shares)[-2:]
        by_chance = np.quantile(np.diff(chance, axis=1) / whole, 0.95)
        rows[factor] = len(known), bins, int(shares.argmax()), best, best - second, by_chance
    columns = ["objects", "bins", "dimension", "information", "gap", "chance"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("factor")


def cluster_table(scores: pd.DataFrame, classes: str = "class") -> pd.DataFrame:
    """Which cluster of a Gaussian-mixture VAE holds which class.

    Args:
        scores: Scores table with the columns `cluster` and `classes`.
        classes: the column of classes: `class` from the truth, or `label`.

    Returns:
        Counts, index `cluster` (those that hold an object), a column for each class, the commonest first.

    Raises:
        ValueError: if a column is missing.
    """
    if missing := [name for name in ("cluster", classes) if name not in scores]:
        raise ValueError(f"the scores lack {', '.join(missing)}: score with a mixture, and join the truth")
    table = pd.crosstab(scores["cluster"], scores[classes])
    return table[table.sum().sort_values(ascending=False, kind="stable").index]

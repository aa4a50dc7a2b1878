"""Weights that make a sample stand for another population."""

import numpy as np
import pandas as pd

from lensq.wall import labelled

TASK_B_SHARES = {"graded": 0.00108, "flagged": 0.051 - 0.00108, "rejected": 1 - 0.051}
"""Shares in the catalogue of Chan et al. (2023): 0.108% graded, 5.1% flagged by eye or graded."""


def task_b_weights(scores: pd.DataFrame) -> pd.Series:
    """Weights that give a sample the real catalogue's shares of graded, flagged and rejected objects.

    Graded candidates then are 0.108% of all, and among the rest of task B flagged but ungraded objects weigh
    as they do there. `lensq.metrics.effective_size` tells what the weighting costs.

    Args:
        scores: Scores table.

    Returns:
        One weight an object (0 if unlabelled and ungraded) with sum 1; a stratum without objects leaves its
        share to the others.
    """
    graded = scores["graded"].to_numpy(bool)
    stratum = np.select(
        [graded, scores["label"] == 1, scores["label"] == 0], ["graded", "flagged", "rejected"], "unlabelled"
    )
    weights = np.zeros(len(scores))
    for name, share in TASK_B_SHARES.items():
        members = stratum == name
        weights[members] = share / max(members.sum(), 1)
    return pd.Series(weights / weights.sum(), index=scores.index, name="task_b_weight")


def matched_weights(
    scores: pd.DataFrame, column: str, *, against: str = "label", bins: int = 20, most: float = 20.0
) -> pd.Series:
    """Weights of normals under which they are distributed like the positives in one property.

    A control for shortcuts: lenses are brighter, so flux alone tells much. Matched on it, flux tells nothing,
    and what a detector still tells is shape.

    Args:
        scores: Scores table with the property as a column.
        column: the property, for instance a magnitude.
        against: the column that tells positives.
        bins: bins at quantiles of the positives.
        most: largest weight of a normal in units of the mean one, so that no few objects decide.

    Returns:
        One weight an object: 1 for positives, of mean 1 for normals, 0 for unlabelled objects.

    Raises:
        ValueError: if the property is not finite somewhere.
    """
    rows, positive = labelled(scores, against)
    values = rows[column].to_numpy(float)
    if not np.isfinite(values).all():
        bad = np.count_nonzero(~np.isfinite(values))
        raise ValueError(f"{column!r} is not finite for {bad} objects; leave them out")
    edges = np.unique(np.quantile(values[positive], np.arange(1, bins) / bins))
    place = np.searchsorted(edges, values, side="right")
    lenses = np.bincount(place[positive], minlength=len(edges) + 1)
    normals = np.bincount(place[~positive], minlength=len(edges) + 1)
    ratio = lenses / positive.sum() * (~positive).sum() / np.maximum(normals, 1)
    weights = np.where(positive, 1.0, np.minimum(ratio[place], most))
    weights[~positive] /= weights[~positive].mean()
    return pd.Series(weights, index=rows.index).reindex(scores.index, fill_value=0.0).rename("matched_weight")

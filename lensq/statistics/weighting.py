"""Weights that make a sample stand for another population."""

import numpy as np
import pandas as pd

TASK_B_SHARES = {"graded": 0.00108, "flagged": 0.051 - 0.00108, "rejected": 1 - 0.051}
"""Shares in the catalogue of Chan et al. (2023): 0.108% graded, 5.1% flagged by eye or graded."""


def task_b_weights(scores: pd.DataFrame) -> pd.Series:
    """Weights that give a sample the real catalogue's shares of graded, flagged and rejected objects.

    Graded candidates then are 0.108% of all, and among the rest of task B flagged but ungraded objects weigh
    as they do there. `lensq.statistics.metrics.effective_size` tells what the weighting costs.

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

"""The split guard: rows that choose, rows that calibrate and rows that evaluate stay apart.

A number is honest only if the objects it is computed on took no part in any choice before it. Every
function of the analysis that chooses something (dimensions, direction, threshold, combination) calls
`require_split(scores, "selection")`, every one that turns scores into p-values calls `require_split(scores,
"conformal")`, and both raise `LeakageError` on any other row.
"""

import numpy as np
import pandas as pd

LABELLED_ON = ("train", "validation", "selection")
"""Splits whose labels may shape a score; conformal objects are for p-values alone, test for evaluation."""

BY_EYE = (*LABELLED_ON, "conformal")
"""Splits that a person may label and a light head rank anew: all but test. Its scores have no p-values."""


class LeakageError(ValueError):
    """A step of the analysis was handed rows of a split that it must not see."""


def require_split(scores: pd.DataFrame, *splits: str, purpose: str) -> None:
    """Let a table through only if each of its rows belongs to the given splits.

    Args:
        scores: Scores table with a column `split`.
        splits: the splits that this step may see.
        purpose: what the rows are wanted for, named in the error.

    Raises:
        LeakageError: if a row belongs to another split.
        ValueError: if the table has no rows or no column `split`.
    """
    if "split" not in scores:
        raise ValueError(f"{purpose} needs the column 'split'; the table has {', '.join(scores.columns)}")
    if scores.empty:
        raise ValueError(f"{purpose} got a table without rows; select rows of split {' or '.join(splits)}")
    foreign = scores["split"][~scores["split"].isin(splits)].astype(str).value_counts()
    if len(foreign):
        found = ", ".join(f"{n} of '{split}'" for split, n in foreign.items())
        raise LeakageError(
            f"{purpose} may only see rows of split {' or '.join(splits)}, but the table holds {found}; "
            f"""select them first: scores[scores["split"] == "{splits[0]}"]"""
        )


def has_both_classes(scores: pd.DataFrame, against: str = "label") -> bool:
    """Whether there is anything to tell apart: false for a survey without labels.

    Args:
        scores: Scores table.
        against: see `labelled`.
    """
    return against in scores and {0, 1} <= set(scores[against].dropna().astype(int))


def labelled(scores: pd.DataFrame, against: str = "label") -> tuple[pd.DataFrame, np.ndarray]:
    """The rows whose class is known, and which of them are positive.

    Args:
        scores: Scores table.
        against: the column that says what a positive is: `label` (1 flagged by eye, 0 rejected, -1
            unlabelled and left out), `graded` (against every labelled object), or `is_lens`, joined from
            a simulated survey's truth.

    Returns:
        The rows with a known class, in their order, and a boolean array, True for positives.

    Raises:
        ValueError: if the column is missing, or the rows do not hold both classes.
    """
    if against not in scores:
        remedy = '; join it: scores.merge(survey.truth[["name", "is_lens"]], on="name")'
        raise ValueError(f"no column {against!r} in the scores{remedy if against == 'is_lens' else ''}")
    values = scores[against]
    known = values.notna().to_numpy() & (values != -1).to_numpy()
    if against == "graded" and "label" in scores:
        known &= (scores["label"] != -1).to_numpy() | values.to_numpy(bool)
    rows = scores[known]
    positive = rows[against].to_numpy() == 1
    if positive.all() or not positive.any():
        raise ValueError(
            f"both classes are needed, but column {against!r} holds {positive.sum()} positives and "
            f"{(~positive).sum()} negatives in these {len(scores)} rows"
        )
    return rows, positive


def shuffle_labels(scores: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """The table with its classes dealt anew within each split: every metric has to fall to chance.

    Args:
        scores: Scores table; `label`, `graded` and, if there, `is_lens` move together.
        seed: seed of the shuffle.
    """
    rng, dealt = np.random.default_rng(seed), np.arange(len(scores))
    for rows in scores.groupby("split").indices.values():
        dealt[rows] = rng.permutation(rows)
    columns = [c for c in ("label", "graded", "is_lens") if c in scores]
    return scores.assign(**{column: scores[column].array[dealt] for column in columns})

"""Learn from a few labels, and choose what to label next.

A light head is trained on the columns of the Scores table in a fraction of a second, ranks all objects anew,
and names those whose label would help: the most anomalous (Lochner and Bassett 2021, Astronomy and Computing
36, 100481) or the most uncertain ones (Lewis and Gale 1994, SIGIR, 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import QuantileTransformer

from lensq.scores.scoring import label_free
from lensq.statistics.guard import BY_EYE, require_split
from lensq.statistics.latent import finite_columns, latent_dimensions

STRATEGIES = ("anomalous", "uncertain", "random")

_BACKGROUND = 1000  # objects without a label that stand for ordinary ones
_ORDINARY_WEIGHT = 50.0  # in labels, of all of them together
_STRENGTH = 0.1  # inverse, of the regularisation of the logistic regression
_TRUST = 30.0  # in labels, how much the score without labels weighs


def light_columns(scores: pd.DataFrame) -> list[str]:
    """The columns that a head looks at by default: posterior means, and the scores that no label has touched.

    Args:
        scores: Scores table.
    """
    means = [f"mu_{d}" for d in range(latent_dimensions(scores))]
    return means + [name for name in label_free(scores) if not name[-1].isdigit()]


@dataclass(frozen=True)
class Head:
    """What has been learnt from labels.

    Attributes:
        columns: what it looks at.
        start: the score that ranked before there were labels.
        lenses: how many labels say lens.
        others: how many say that there is none.
    """

    columns: tuple[str, ...]
    start: str
    lenses: int
    others: int
    _scale: QuantileTransformer
    _classifier: LogisticRegression
    _levels: tuple[np.ndarray, np.ndarray]

    def probability(self, scores: pd.DataFrame) -> np.ndarray:
        """(N,) how lens-like each object is, 0 to 1, as if lenses were as frequent as others.

        Args:
            scores: table with the head's columns.

        Raises:
            ValueError: A column is missing, or a value is not finite.
        """
        values = self._scale.transform(finite_columns(scores, self.columns))
        return self._classifier.predict_proba(values)[:, 1]

    def score(self, scores: pd.DataFrame) -> np.ndarray:
        """(N,) what to rank by, 0 to 1.

        A mean of two shares of the pool, that which is less lens-like and that which has a lower start score.
        The first weighs as the number of labels, the second as 30 of them: a few labels correct the score,
        many replace it.

        Args:
            scores: table with the head's columns and the start score.

        Raises:
            ValueError: See `probability`.
        """
        return self._blend(self.probability(scores), finite_columns(scores, [self.start])[:, 0])

    def _blend(self, probability: np.ndarray, start: np.ndarray) -> np.ndarray:
        learnt, before = (
            sum(np.searchsorted(levels, values, side) for side in ("left", "right")) / (2 * len(levels))
            for levels, values in zip(self._levels, (probability, start), strict=True)
        )
        labels = self.lenses + self.others
        return (labels * learnt + _TRUST * before) / (labels + _TRUST)


class Pool:
    """Objects that may be labelled, made ready so that a head is trained on them again and again in no time.

    Each column is mapped onto a normal distribution by its ranks in the pool, labelled or not, so that a
    handful of labels suffices and no outlier weighs more than its rank. Who labels the most anomalous objects
    never sees an ordinary one; so a thousand objects without a label, drawn at random, stand for "not" with
    the weight of 50 labels. Lenses among them are rare.

    Attributes:
        scores: the table.
        columns: what heads look at.
        start: the score that ranks before there are labels.
    """

    def __init__(
        self, scores: pd.DataFrame, columns: Sequence[str] | None = None, *, start: str = "central_residual"
    ) -> None:
        """Take a table in.

        Args:
            scores: Scores table, rows of all splits but test.
            columns: what heads look at; `light_columns` by default. Any numbers of the table will do.
            start: the score that ranks before there are labels, higher for more anomalous objects.

        Raises:
            LeakageError: A row is of another split.
            ValueError: A column is missing, or a value is not finite.
        """
        require_split(scores, *BY_EYE, purpose="learning from labels")
        self.scores = scores.sort_values("name", ignore_index=True)
        self.columns = tuple(light_columns(scores) if columns is None else columns)
        self.start = start
        values = finite_columns(self.scores, self.columns)
        how = {"n_quantiles": min(1000, len(values)), "output_distribution": "normal", "subsample": None}
        self._scale = QuantileTransformer(**how).fit(values)
        self._x = self._scale.transform(values)
        self._before = finite_columns(self.scores, [start])[:, 0]
        self._names = pd.Index(self.scores["name"])
        self._ordinary = np.random.default_rng(0).permutation(len(values))[:_BACKGROUND]

    def fit(self, labels: pd.DataFrame) -> Head:
        """Train a head, a logistic regression.

        Args:
            labels: `name` and `label`: 1 lens, 0 not, anything else is left out, as are objects that are not
                in the pool. The order of the rows does not matter.

        Returns:
            The head.

        Raises:
            ValueError: There is no lens among the labels, or an object has two.
        """
        rows, positive = self._labelled(labels)
        classifier = LogisticRegression(C=_STRENGTH, solver="newton-cholesky")
        others = np.count_nonzero(~positive)
        ordinary = np.setdiff1d(self._ordinary, rows)
        total = (len(rows) + _ORDINARY_WEIGHT) / 2  # of each class
        no = total / (others + _ORDINARY_WEIGHT)
        weights = np.where(positive, total / positive.sum(), no)
        spread = np.full(len(ordinary), no * _ORDINARY_WEIGHT / max(len(ordinary), 1))
        answers = np.r_[positive, np.zeros(len(ordinary), bool)]
        classifier.fit(self._x[np.r_[rows, ordinary]], answers, sample_weight=np.r_[weights, spread])
        learnt = np.sort(classifier.predict_proba(self._x)[:, 1])
        levels = learnt, np.sort(self._before)
        counts = int(positive.sum()), int(others)
        return Head(self.columns, self.start, *counts, self._scale, classifier, levels)

    def _labelled(self, labels: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        known = labels[labels["label"].isin([0, 1])]
        rows = self._names.get_indexer(known["name"])  # .isin builds its table of names at every call
        known, rows = known[rows >= 0], rows[rows >= 0]
        if known["name"].duplicated().any():
            raise ValueError(f"{known['name'][known['name'].duplicated()].iloc[0]} has two labels")
        positive = known["label"].to_numpy() == 1
        if not positive.any():
            raise ValueError(f"nothing to learn from yet: no lens among {len(known)} labels; find one first")
        order = np.argsort(rows)
        return rows[order], positive[order]

    def rank(self, head: Head) -> tuple[np.ndarray, np.ndarray]:
        """`head.score` and `head.probability` of the pool's objects, without preparing them anew."""
        probability = head._classifier.predict_proba(self._x)[:, 1]
        return head._blend(probability, self._before), probability


def next_to_label(
    score: np.ndarray,
    labelled: np.ndarray,
    n: int,
    strategy: Literal["anomalous", "uncertain", "random"] = "anomalous",
    *,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Which objects to label next.

    Args:
        score: (N,) what ranks the objects; for "uncertain" a probability.
        labelled: (N,) bool, which have a label.
        n: how many; fewer where fewer are left.
        strategy: "anomalous", the highest; "uncertain", those nearest to 1/2; "random".
        rng: generator for "random".

    Returns:
        Places of the objects, the most wanted first.

    Raises:
        ValueError: The strategy is unknown, or "random" has no generator.
    """
    left = np.flatnonzero(~np.asarray(labelled, bool))
    if strategy == "random":
        if rng is None:
            raise ValueError("the strategy 'random' needs a generator: rng=numpy.random.default_rng(seed)")
        return rng.permutation(left)[:n]
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy {strategy!r} is none of {', '.join(STRATEGIES)}")
    values = np.asarray(score, float)[left]
    wanted = -values if strategy == "anomalous" else np.abs(values - 0.5)
    return left[np.argsort(wanted, kind="stable")[:n]]

"""How well a score ranks lenses above normal objects, with intervals, at a stated prevalence.

A sample made to measure a detector holds far more lenses than the sky does. Objects are therefore weighted
so that positives make up a stated share, the prevalence; every metric but AUROC, recall and false positive
rate depends on it. Intervals are 95% percentile intervals of a bootstrap within each class (Efron and
Tibshirani 1993), resampling groups of objects where groups are given.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from scipy import sparse, stats
from sklearn.metrics import roc_curve

PREVALENCE = 0.0758  # share of anomalies in the published test of the reference study
GRADED_SHARES = {"graded": 0.00108, "flagged": 0.051 - 0.00108, "rejected": 1 - 0.051}
"""Shares in the catalogue of Chan et al. (2023): 0.108% graded, 5.1% flagged by eye or graded."""
PREVALENCES = (0.051, 0.00108, 1e-4)  # flagged, graded, and lenses among preselected quasars
FALSE_POSITIVE_RATES = {f"recall_fpr_1e-{k}": 10.0**-k for k in (2, 3, 4)}
_FEWEST_FALSE_POSITIVES = 10
_CHUNK = 4_000_000  # drawn objects held at once


def resampled_counts(n: int, size: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n objects is in each of some bootstrap samples.

    Args:
        n: number of objects.
        size: how many are drawn with replacement.
        resamples: number of samples.
        rng: generator of the draws.

    Returns:
        (resamples, n) float32, each row with sum `size`.
    """
    drawn = rng.integers(n, size=(resamples, size)) + np.arange(resamples)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float32)


def effective_size(weights: np.ndarray) -> float:
    """Number of equally weighted objects that would carry as much information (Kish 1965)."""
    weights = np.asarray(weights, float)
    return float(weights.sum() ** 2 / np.sum(weights**2))


def _checked(score, positive, weights):
    score, positive = np.asarray(score, np.float64), np.asarray(positive, bool)
    if score.shape != positive.shape or score.ndim != 1:
        raise ValueError(f"score {score.shape} and positive {positive.shape} must be one value an object")
    if bad := np.count_nonzero(~np.isfinite(score)):
        raise ValueError(f"{bad} of {len(score)} scores are not finite; score these objects again")
    if positive.all() or not positive.any():
        raise ValueError("a metric needs positives and negatives; these objects are all of one class")
    weights = np.ones(len(score)) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != score.shape or not np.all(weights >= 0):
        raise ValueError("weights must be one value of at least 0 for each object")
    return score, positive, weights


class _Ranking:
    """A ranked sample, ready to be measured again and again under other counts of its units.

    Only places where a positive stands matter: `k` counts distinct scores of positives from the highest down.
    Negatives fall between (bins 2k) or tie with (bins 2k + 1) these scores. The last column of each matrix
    holds what lies at or above the threshold.
    """

    def __init__(self, score, positive, *, threshold=None, weights=None, groups=None):
        score, positive, weights = _checked(score, positive, weights)
        levels = np.unique(score[positive])[::-1]
        above = np.searchsorted(-levels, -score[~positive], side="left")
        tied = levels[np.minimum(above, len(levels) - 1)] == score[~positive]
        self.threshold = threshold
        own, bins = (score, weights, groups), np.searchsorted(-levels, -score[positive])
        self.positives = self._matrix(bins, len(levels), *own, positive)
        self.negatives = self._matrix(2 * above + tied, 2 * len(levels) + 1, *own, ~positive)
        self.effective_negatives = effective_size(weights[~positive])

    def _matrix(self, bins, number, score, weights, groups, members):
        units = np.arange(len(bins))
        if groups is not None:
            units = np.unique(np.asarray(groups)[members], return_inverse=True)[1]
        over = score[members] >= (np.inf if self.threshold is None else self.threshold)
        rows, columns = np.r_[units, units[over]], np.r_[bins, np.full(over.sum(), number)]
        values = np.r_[weights[members], weights[members][over]]
        return sparse.csr_array((values, (rows, columns)), shape=(units.max() + 1, number + 1))

    def shares(self, of_positives, of_negatives) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each distinct score of a positive, under counts of units (B, units) a class: (B, K) share of the
        positives that have it, and of the negatives above it and at or above it."""
        p, n = of_positives @ self.positives[:, :-1], of_negatives @ self.negatives[:, :-1]
        false = np.cumsum(n / n.sum(axis=1, keepdims=True), axis=1)
        return p / p.sum(axis=1, keepdims=True), false[:, 0:-1:2], false[:, 1::2]

    def metrics(self, of_positives, of_negatives, prevalence: float) -> dict[str, np.ndarray]:
        """Metrics under counts of units: (B, units) of each class to one (B,) array a metric."""
        p, before, fpr = self.shares(of_positives, of_negatives)
        tpr = np.cumsum(p, axis=1)
        result = {"AUROC": np.sum(p * (1 - (before + fpr) / 2), axis=1)}
        result["AP"] = np.sum(p * _precision(tpr, fpr, prevalence), axis=1)
        result["best_F1"] = _f1(tpr, fpr, prevalence).max(axis=1)
        for name, rate in FALSE_POSITIVE_RATES.items():
            allowed = np.where(fpr <= rate * (1 + 1e-9), tpr, 0.0).max(axis=1)
            result[name] = allowed if self.decides(rate) else np.full(len(allowed), np.nan)
        if self.threshold is not None:
            parts = of_positives @ self.positives, of_negatives @ self.negatives
            recall, rate = (part[:, -1] / part[:, :-1].sum(axis=1) for part in parts)
            result["F1"] = _f1(recall, rate, prevalence)
            result["precision"] = np.where(recall + rate > 0, _precision(recall, rate, prevalence), np.nan)
            result["recall"], result["FPR"] = recall, rate
        return result

    def decides(self, rate: float) -> bool:
        """Whether at least ten negatives, by their effective number, decide what happens at such a rate."""
        return rate * self.effective_negatives >= _FEWEST_FALSE_POSITIVES * (1 - 1e-9)

    def draws(self, of: Callable[..., dict], resamples: int, seed: int) -> dict[str, np.ndarray]:
        """What `of` makes of the objects as they are, and of each resample: name to (1 + resamples,)."""
        units = self.positives.shape[0], self.negatives.shape[0]
        generators = [np.random.default_rng([seed, c]) for c in (1, 0)]
        parts = [of(*(np.ones((1, number)) for number in units))]
        chunk = max(1, _CHUNK // sum(units))
        for start in range(0, resamples, chunk):
            size = min(chunk, resamples - start)
            drawn = (resampled_counts(n, n, size, rng) for n, rng in zip(units, generators, strict=True))
            parts.append(of(*drawn))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _precision(tpr, fpr, prevalence):
    true, false = prevalence * tpr, (1 - prevalence) * fpr
    return np.divide(true, true + false, out=np.zeros_like(true), where=true + false > 0)


def _f1(tpr, fpr, prevalence):
    return 2 * prevalence * tpr / (prevalence * (tpr + 1) + (1 - prevalence) * fpr)


def _interval(draws: np.ndarray) -> tuple[float, float]:
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, [0.025, 0.975]) if len(draws) else (np.nan, np.nan)
    return float(low), float(high)


def measure(
    score: np.ndarray,
    positive: np.ndarray,
    *,
    threshold: float | None = None,
    prevalence: float = PREVALENCE,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """All metrics of one score with their 95% bootstrap intervals.

    Args:
        score: (N,) finite, higher is more anomalous.
        positive: (N,) bool.
        threshold: an object is flagged at score >= threshold. It has to come from other objects. Without
            it F1, precision, recall and FPR are left out.
        prevalence: the share of positives that the weighted sample has.
        weights: (N,) weights within each class, for instance to match flux distributions; equal by default.
        groups: (N,) objects with the same value are resampled together (several cutouts of one lens).
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        Index `metric`: AUROC; AP (step-wise sum, as in scikit-learn); best_F1 (over thresholds picked on
        these very objects, so optimistic); recall_fpr_1e-2, recall_fpr_1e-3 (largest recall with at most
        that false positive rate, empty unless that rate times the effective number of negatives is at
        least 10); F1, precision, recall, FPR at the threshold. Columns `value`, `low`, `high`.

    Raises:
        ValueError: if a score is not finite, or one class is absent.
    """
    ranking = _Ranking(score, positive, threshold=threshold, weights=weights, groups=groups)
    draws = ranking.draws(partial(ranking.metrics, prevalence=prevalence), resamples, seed)
    rows = {name: (values[0], *_interval(values[1:])) for name, values in draws.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
    return table.rename_axis("metric")


def compare(
    scores: Mapping[str, np.ndarray], positive: np.ndarray, *, thresholds: Mapping[str, float] = {}, **options
) -> pd.DataFrame:
    """Several scores of the same objects in one table, the best first.

    Args:
        scores: name to (N,) scores.
        positive: (N,) bool.
        thresholds: name to threshold.
        **options: prevalence, weights, groups, resamples, seed of `measure`.

    Returns:
        Index `score`, and for each metric the columns `<metric>`, `<metric>_low`, `<metric>_high`.
    """
    rows = {}
    for name, score in scores.items():
        table = measure(score, positive, threshold=thresholds.get(name), **options)
        table.columns = ["", "_low", "_high"]
        rows[name] = {metric + end: value for (metric, end), value in table.stack().items()}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")
    return table.sort_values("AP", ascending=False, kind="stable")


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    positive: np.ndarray,
    *,
    thresholds: tuple[float | None, float | None] = (None, None),
    prevalence: float = PREVALENCE,
    resamples: int = 1000,
    seed: int = 0,
    **units: np.ndarray | None,
) -> pd.DataFrame:
    """First minus second score, both measured on the same resamples of the same objects.

    Args:
        first: (N,) scores.
        second: (N,) scores.
        positive: (N,) bool.
        thresholds: a threshold for each, or None.
        prevalence: see `measure`, likewise `resamples` and `seed`.
        **units: weights and groups of `measure`.

    Returns:
        Index `metric` (those that both have); columns `difference`, `low`, `high` (95%), and `clear`: the
        interval does not hold 0.
    """
    draws = []
    for score, threshold in zip((first, second), thresholds, strict=True):
        ranking = _Ranking(score, positive, threshold=threshold, **units)
        draws.append(ranking.draws(partial(ranking.metrics, prevalence=prevalence), resamples, seed))
    rows = {}
    for name in (name for name in draws[0] if name in draws[1]):
        difference = draws[0][name] - draws[1][name]
        low, high = _interval(difference[1:])
        rows[name] = (difference[0], low, high, low > 0 or high < 0)
    columns = ["difference", "low", "high", "clear"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("metric")


def expected_in_list(
    score: np.ndarray,
    positive: np.ndarray,
    *,
    n: Sequence[int] = (100, 500),
    total: int = 100_000,
    prevalence: Sequence[float] = (1e-3, 1e-4),
    groups: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How many lenses to expect among the first objects of a long ranked list in which lenses are rare.

    The list holds positives and negatives like these, in the shares of the prevalence. Its first n objects
    lie above the score at which prevalence x TPR + (1 - prevalence) x FPR = n / total; equal scores are in
    random order.

    Args:
        score: (N,) finite, higher is more anomalous.
        positive: (N,) bool.
        n: how many objects of the list are looked at.
        total: objects in the list.
        prevalence: shares of positives among them.
        groups: see `measure`, likewise `resamples` and `seed`.

    Returns:
        One row a prevalence and n: `prevalence`, `n`, `lenses` (expected), `low`, `high` (95%); empty unless
        n / total times the number of negatives is at least 10.
    """
    ranking = _Ranking(score, positive, groups=groups)

    def found(*counts):
        p, before, fpr = ranking.shares(*counts)
        tpr = np.cumsum(p, axis=1)
        true = np.stack([tpr - p, tpr], axis=2).reshape(len(p), -1)
        false = np.stack([before, fpr], axis=2).reshape(len(p), -1)
        lenses = {}
        for share in prevalence:
            listed = share * true + (1 - share) * false
            for k in n:
                at = k / total if ranking.decides(k / total) else np.nan
                pairs = zip(listed, true, strict=True)
                recall = [np.interp(at, np.r_[0, x, 1], np.r_[0, y, 1]) for x, y in pairs]
                lenses[share, k] = share * total * np.array(recall)
        return lenses

    draws = ranking.draws(found, resamples, seed)
    rows = [(*key, values[0], *_interval(values[1:])) for key, values in draws.items()]
    return pd.DataFrame(rows, columns=["prevalence", "n", "lenses", "low", "high"])


def operating_curve(
    score: np.ndarray, positive: np.ndarray, *, prevalence: float = PREVALENCE
) -> pd.DataFrame:
    """Precision, recall, F1 and false positive rate at every threshold that a score can have.

    Args:
        score: (N,) finite, higher is more anomalous.
        positive: (N,) bool.
        prevalence: see `measure`.

    Returns:
        One row a distinct score, from the highest: `threshold` (flagged at score >= threshold),
        `precision`, `recall`, `F1`, `FPR`, `flagged` (number of objects).
    """
    score, positive, _ = _checked(score, positive, None)
    fpr, tpr, threshold = (part[1:] for part in roc_curve(positive, score, drop_intermediate=False))
    curve = {"threshold": threshold, "precision": _precision(tpr, fpr, prevalence), "recall": tpr}
    flagged = np.searchsorted(np.sort(-score), -threshold, side="right")
    return pd.DataFrame(curve).assign(F1=_f1(tpr, fpr, prevalence), FPR=fpr, flagged=flagged)


def best_threshold(score: np.ndarray, positive: np.ndarray, *, prevalence: float = PREVALENCE) -> float:
    """The threshold with the highest F1 at a prevalence, halfway to the next lower score."""
    curve = operating_curve(score, positive, prevalence=prevalence)
    best = int(curve["F1"].argmax())
    here, below = curve["threshold"].iloc[[best, min(best + 1, len(curve) - 1)]]
    middle = below + (here - below) / 2
    return float(middle if middle > below else here)


def threshold_at_fpr(score: np.ndarray, positive: np.ndarray, fpr: float) -> float:
    """The lowest threshold that flags at most a share `fpr` of the negatives.

    Raises:
        ValueError: if fpr times the number of negatives is below 10: such a threshold is a guess.
    """
    score, positive, _ = _checked(score, positive, None)
    negatives = np.sort(score[~positive])[::-1]
    if fpr * len(negatives) < _FEWEST_FALSE_POSITIVES * (1 - 1e-9):
        raise ValueError(f"{len(negatives)} negatives are too few for a false positive rate of {fpr:g}")
    passing = int(np.floor(fpr * len(negatives) * (1 + 1e-9)))
    if passing >= len(negatives):
        return float(negatives[-1])
    return float(np.nextafter(negatives[passing], np.inf))


def precision_at(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    *,
    prevalences: tuple[float, ...] = PREVALENCES,
    draws: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Precision of one operating point at other prevalences.

    True and false positive rate are drawn from their posteriors under Jeffreys' prior, beta
    distributions with half a count added (Brown, Cai and DasGupta 2001).

    Args:
        true_positives: flagged positives.
        positives: all positives.
        false_positives: flagged negatives.
        negatives: all negatives.
        prevalences: shares of positives.
        draws: number of draws.
        seed: seed of the draws.

    Returns:
        Index `prevalence`; `precision` (median of the draws), `low`, `high` (95%), and `objects_per_lens`,
        how many flagged objects have to be looked at for one true positive.
    """
    rng = np.random.default_rng(seed)
    tpr = stats.beta(true_positives + 0.5, positives - true_positives + 0.5).rvs(draws, random_state=rng)
    fpr = stats.beta(false_positives + 0.5, negatives - false_positives + 0.5).rvs(draws, random_state=rng)
    precision = [_precision(tpr, fpr, prevalence) for prevalence in prevalences]
    low, median, high = np.quantile(precision, [0.025, 0.5, 0.975], axis=1)
    table = {"precision": median, "low": low, "high": high, "objects_per_lens": 1 / median}
    return pd.DataFrame(table, index=pd.Index(prevalences, name="prevalence"))


def graded_weights(scores: pd.DataFrame) -> pd.Series:
    """Weights that give a table the real catalogue's shares of graded, flagged and rejected objects.

    Graded candidates then are 0.108% of all, and among the rest flagged but ungraded objects weigh as they do
    there. `effective_size` says what the weighting costs.

    Args:
        scores: Scores table.

    Returns:
        One weight an object (0 if unlabelled and ungraded) with sum 1; a stratum without objects leaves its
        share to the others.
    """
    stratum = scores["label"].map({1: "flagged", 0: "rejected"}).mask(scores["graded"].astype(bool), "graded")
    weights = stratum.map(GRADED_SHARES).fillna(0.0) / stratum.groupby(stratum).transform("size").fillna(1)
    return weights / weights.sum()

"""Detectors: one score of the Scores table, its direction and its threshold.

A `Detector` is chosen on the selection split by `choose_detector` and evaluated on other rows by `evaluate`
and `compare_detectors`. It is a few numbers that fit into a JSON file, so that what is evaluated later is
exactly what was chosen.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from lensq.statistics import latent, metrics
from lensq.statistics.guard import labelled, require_split
from lensq.statistics.metrics import GRADED_SHARES, PREVALENCE


@dataclass(frozen=True)
class Detector:
    """What turns a row of the Scores table into flagged or not flagged.

    Attributes:
        name: shown in tables and figures.
        statistic: `kl`, `mu` (its absolute value) or `logvar` over `dimensions`; `cluster`, the cluster of a
            Gaussian-mixture VAE; or the name of a score column.
        dimensions: latent dimensions, for the first three.
        combine: `mean` over the dimensions, or `all`: the least anomalous dimension decides, so that an
            object is flagged only if every dimension passes the threshold.
        direction: 1 if high values are anomalous, -1 if low ones are.
        threshold: flagged at score >= threshold, where score is direction times the value.
        prevalence: the share of positives under which the threshold was chosen.
        against: the column of positives when it was chosen.
        clusters: for `cluster`, the anomalousness of each cluster.
    """

    name: str
    statistic: str
    dimensions: tuple[int, ...] = ()
    combine: str = "mean"
    direction: int = 1
    threshold: float = float("nan")
    prevalence: float = PREVALENCE
    against: str = "label"
    clusters: tuple[float, ...] = ()

    def score(self, scores: pd.DataFrame) -> np.ndarray:
        """(N,) float64, higher is more anomalous.

        Raises:
            ValueError: if a column is missing, or a value is not finite.
        """
        if self.statistic in latent.STATISTICS:
            values = latent.latent_values(scores, self.statistic, self.dimensions)
            values = self.direction * (np.abs(values) if self.statistic == "mu" else values)
            return values.min(axis=1) if self.combine == "all" else values.mean(axis=1)
        if self.statistic == "cluster":
            return self.direction * cluster_responsibilities(scores) @ self.clusters
        return self.direction * latent.finite_columns(scores, [self.statistic])[:, 0]

    def flags(self, scores: pd.DataFrame) -> np.ndarray:
        """(N,) bool, True where the score reaches the threshold."""
        return self.score(scores) >= self.threshold

    def to_json(self) -> str:
        """The detector as JSON text that `from_json` reads back exactly."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Detector":
        """A detector from the text of `to_json`."""
        values = json.loads(text)
        return cls(**values | {name: tuple(values[name]) for name in ("dimensions", "clusters")})


def cluster_responsibilities(scores: pd.DataFrame) -> np.ndarray:
    """How much each cluster of a Gaussian-mixture VAE claims each object: (N, K), rows sum to 1.

    Args:
        scores: Scores table with columns `responsibility_0`, `responsibility_1`, ...

    Raises:
        ValueError: if there are none.
    """
    claims = scores.filter(regex=r"^responsibility_\d+$")
    if claims.empty:
        raise ValueError("no columns 'responsibility_<k>'; score with a Gaussian-mixture VAE")
    return claims.to_numpy(np.float64)


def _cluster_purity(rows: pd.DataFrame, positive: np.ndarray) -> tuple[float, ...]:
    """Anomalousness of each cluster: which of the two classes it holds the larger share of, -1 to 1."""
    claims = cluster_responsibilities(rows)
    anomalies, normals = claims[positive].mean(axis=0), claims[~positive].mean(axis=0)
    return tuple(((anomalies - normals) / (anomalies + normals + 1 / len(rows))).tolist())


def choose_detector(
    scores: pd.DataFrame,
    statistic: str,
    *,
    dimensions: Sequence[int] | Literal["all"] | None = None,
    combine: str = "mean",
    direction: int | None = None,
    prevalence: float = PREVALENCE,
    against: str = "label",
    name: str | None = None,
    **rule,
) -> Detector:
    """Choose dimensions, direction and threshold of one detector.

    Args:
        scores: Scores table, rows of the selection split only.
        statistic: see `Detector`, likewise `combine`.
        dimensions: latent dimensions, or "all" (`kl` over all ranks like the KL of the whole posterior); by
            default chosen with the labels from `dimension_statistics`. Of no account for a statistic that has
            none.
        direction: 1 or -1; by default the one with an AUROC above one half, which uses labels. Every score
            column but `elbo` is made so that 1 is right.
        prevalence: the share of positives under which the threshold has the highest F1. For a threshold at a
            false positive rate see `lensq.detection.completeness.at_fpr`.
        against: the column of positives, see `lensq.statistics.guard.labelled`.
        name: name of the detector; by default made from the above.
        **rule: `rule`, `n` and the other options of `lensq.statistics.latent.choose_dimensions`.

    Raises:
        LeakageError: if a row is not of the selection split.
        ValueError: if no dimension is chosen, or the score is the same for all objects.
    """
    require_split(scores, "selection", purpose="choose_detector")
    rows, positive = labelled(scores, against)
    if statistic not in latent.STATISTICS:
        dimensions = ()
    elif dimensions is None:
        table = latent.dimension_statistics(rows, statistic, against=against)
        dimensions = latent.choose_dimensions(table, **rule)
    elif isinstance(dimensions, str):
        dimensions = range(latent.latent_dimensions(rows))
    if statistic in latent.STATISTICS and not len(dimensions):
        raise ValueError(f"no dimension of {statistic!r} to detect with; {rule.get('rule')!r} chose none")
    name = name or (f"{statistic}, {len(dimensions)} dimensions" if dimensions else statistic)
    detector = Detector(name, statistic, tuple(map(int, dimensions)), combine)
    clusters = _cluster_purity(rows, positive) if statistic == "cluster" else ()
    detector = replace(detector, prevalence=prevalence, against=against, clusters=clusters)
    value = detector.score(rows)
    if np.ptp(value) == 0:
        raise ValueError(f"{statistic!r} collapsed: all {len(rows)} objects have the score {value[0]:g}")
    ways = [replace(detector, direction=way) for way in ((direction,) if direction else (1, -1))]
    detector = max(ways, key=lambda way: roc_auc_score(positive, way.score(rows)))
    threshold = metrics.best_threshold(detector.score(rows), positive, prevalence=prevalence)
    return replace(detector, threshold=threshold)


def evaluate(
    detector: Detector, scores: pd.DataFrame, *, against: str | None = None, **options
) -> pd.DataFrame:
    """Every metric of a detector on rows that took no part in choosing it, with 95% intervals.

    Args:
        detector: from `choose_detector`.
        scores: Scores table, of the split to evaluate on. Rows of one `group`, if there is such a column, are
            resampled together.
        against: the column of positives; the detector's own by default.
        **options: prevalence (the detector's by default), weights, resamples, seed of
            `lensq.statistics.metrics.measure`.

    Returns:
        Table of `lensq.statistics.metrics.measure`.
    """
    rows, positive = labelled(scores, against or detector.against)
    options = {"threshold": detector.threshold} | _shared(detector, rows, options)
    return metrics.measure(detector.score(rows), positive, **options)


def evaluate_graded(detector: Detector, scores: pd.DataFrame, **options) -> pd.DataFrame:
    """The graded task: a detector on graded candidates against the rest, at the catalogue's shares.

    The rest holds flagged and rejected objects as `lensq.statistics.metrics.graded_weights` weighs them.

    Args:
        detector: from `choose_detector`.
        scores: Scores table, of the split to evaluate on.
        **options: resamples, seed of `evaluate`.

    Returns:
        Table of `lensq.statistics.metrics.measure` at a prevalence of 0.108%, and two rows that say what it
        rests on: `graded`, how many graded objects there are, and `effective_rest`, the effective number of
        others.
    """
    rows, graded = labelled(scores, "graded")
    weights = metrics.graded_weights(rows)
    options |= {"weights": weights, "prevalence": GRADED_SHARES["graded"]}
    table = evaluate(detector, rows, against="graded", **options)
    table.loc["graded", "value"] = graded.sum()
    table.loc["effective_rest", "value"] = metrics.effective_size(weights[~graded])
    return table


def compare_detectors(detectors: Sequence[Detector], scores: pd.DataFrame, **options) -> pd.DataFrame:
    """Detectors side by side on the same objects, sorted by average precision.

    Args:
        detectors: from `choose_detector`, with names that differ.
        scores: Scores table, of the split to evaluate on; the first detector names the column of positives.
        **options: as in `evaluate`.

    Returns:
        Table of `lensq.statistics.metrics.compare`.
    """
    first = detectors[0]
    rows, positive = labelled(scores, first.against)
    values, thresholds = {d.name: d.score(rows) for d in detectors}, {d.name: d.threshold for d in detectors}
    return metrics.compare(values, positive, thresholds=thresholds, **_shared(first, rows, options))


def compare_pair(first: Detector, second: Detector, scores: pd.DataFrame, **options) -> pd.DataFrame:
    """First minus second detector with paired intervals: table of
    `lensq.statistics.metrics.paired_difference`.

    Args:
        first: from `choose_detector`.
        second: likewise.
        scores: Scores table, of the split to evaluate on; the first detector names the column of positives.
        **options: as in `evaluate`.
    """
    rows, positive = labelled(scores, first.against)
    pair, thresholds = (first.score(rows), second.score(rows)), (first.threshold, second.threshold)
    return metrics.paired_difference(*pair, positive, thresholds=thresholds, **_shared(first, rows, options))


def _shared(detector: Detector, rows: pd.DataFrame, options: dict) -> dict:
    return {"prevalence": detector.prevalence, "groups": rows.get("group")} | options


def precision_elsewhere(detector: Detector, scores: pd.DataFrame, **options) -> pd.DataFrame:
    """Precision of the detector where lenses are rarer: table of `lensq.statistics.metrics.precision_at`.

    Args:
        detector: from `choose_detector`.
        scores: Scores table, of the split to evaluate on.
        **options: prevalences and seed of `precision_at`.
    """
    rows, positive = labelled(scores, detector.against)
    flagged = detector.flags(rows)
    counts = [n for members in (positive, ~positive) for n in (flagged[members].sum(), members.sum())]
    return metrics.precision_at(*counts, **options)


def threshold_curves(
    scores: pd.DataFrame,
    statistic: str,
    statistics: pd.DataFrame,
    *,
    counts: Sequence[int] = (1, 3, 5, 10),
    direction: int = 1,
    prevalence: float = PREVALENCE,
    against: str = "label",
) -> pd.DataFrame:
    """Precision, recall and F1 against the threshold, for the best few and many dimensions.

    Args:
        scores: Scores table.
        statistic: `kl`, `mu` or `logvar`, averaged over the dimensions.
        statistics: table of `dimension_statistics`, which orders the dimensions.
        counts: numbers of dimensions; those beyond what there is are left out.
        direction: 1 if high values are anomalous, -1 if low ones are.
        prevalence: the share of positives.
        against: the column of positives.

    Returns:
        `dimensions` (how many) and the columns of `lensq.statistics.metrics.operating_curve`.
    """
    rows, positive = labelled(scores, against)
    order = latent.choose_dimensions(statistics, n=len(statistics))
    parts = []
    for count in (c for c in counts if c <= len(order)):
        detector = Detector("", statistic, order[:count], direction=direction)
        curve = metrics.operating_curve(detector.score(rows), positive, prevalence=prevalence)
        parts.append(curve.assign(dimensions=count))
    return pd.concat(parts, ignore_index=True)

"""Detectors: one score of the Scores table, its direction and its threshold.

A `Detector` is chosen on the selection split by `choose_detector` and judged on other rows by `evaluate` and
`compare_detectors`. It is a few numbers that fit into a JSON file, so that what is judged later is exactly
what was chosen.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from lensq.statistics import metrics
from lensq.statistics.guard import labelled, require_split
from lensq.statistics.latent import (
    STATISTICS,
    choose_dimensions,
    dimension_statistics,
    latent_dimensions,
    latent_values,
)
from lensq.statistics.metrics import PREVALENCE, PREVALENCES
from lensq.statistics.weighting import TASK_B_SHARES, task_b_weights


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
        against: the column that told positives when it was chosen.
        clusters: for `cluster`, the anomalousness of each cluster.
        learnt: what labels decided: any of `dimensions`, `clusters`, `direction`, `threshold`. The ranking is
            free of labels if nothing or only the threshold is among them.
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
    learnt: tuple[str, ...] = ()

    def score(self, scores: pd.DataFrame) -> np.ndarray:
        """(N,) float64, higher is more anomalous.

        Raises:
            ValueError: if a column is missing, or a value is not finite.
        """
        if self.statistic in STATISTICS:
            values = latent_values(scores, self.statistic, self.dimensions)
            values = self.direction * (np.abs(values) if self.statistic == "mu" else values)
            return values.min(axis=1) if self.combine == "all" else values.mean(axis=1)
        if self.statistic == "cluster":
            return self.direction * cluster_responsibilities(scores, len(self.clusters)) @ self.clusters
        if self.statistic not in scores:
            raise ValueError(f"no column {self.statistic!r} in the scores: {', '.join(scores.columns[:20])}")
        values = scores[self.statistic].to_numpy(np.float64)
        if bad := np.count_nonzero(~np.isfinite(values)):
            raise ValueError(f"{bad} values of {self.statistic!r} are not finite; score these objects again")
        return self.direction * values

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
        return cls(**values | {name: tuple(values[name]) for name in ("dimensions", "clusters", "learnt")})


def cluster_responsibilities(scores: pd.DataFrame, clusters: int | None = None) -> np.ndarray:
    """How much each cluster of a Gaussian-mixture VAE claims each object.

    Args:
        scores: Scores table with columns `responsibility_0`, `responsibility_1`, ..., or with `cluster`,
            the number of the cluster.
        clusters: how many clusters; read from the table by default.

    Returns:
        (N, K), rows sum to 1; ones and zeros where only `cluster` is given.

    Raises:
        ValueError: if there are neither, or a cluster number is beyond `clusters`.
    """
    columns = [c for c in scores.columns if c.startswith("responsibility_")]
    if columns:
        return scores[[f"responsibility_{k}" for k in range(clusters or len(columns))]].to_numpy(np.float64)
    if "cluster" not in scores:
        raise ValueError("no columns 'responsibility_<k>' or 'cluster'; score with a Gaussian-mixture VAE")
    number = scores["cluster"].to_numpy(np.int64)
    clusters = clusters or int(number.max()) + 1
    if number.max() >= clusters:
        raise ValueError(f"cluster {number.max()} appears, but only {clusters} were seen in the selection")
    return np.eye(clusters)[number]


def _cluster_purity(rows: pd.DataFrame, positive: np.ndarray) -> tuple[float, ...]:
    """Anomalousness of each cluster: which of the two classes it holds the larger share of, -1 to 1."""
    claims = cluster_responsibilities(rows)
    anomalies, normals = claims[positive].mean(axis=0), claims[~positive].mean(axis=0)
    half = 0.5 / len(rows)
    return tuple(((anomalies - normals) / (anomalies + normals + 2 * half)).tolist())


def choose_detector(
    scores: pd.DataFrame,
    statistic: str,
    *,
    dimensions: Sequence[int] | Literal["all"] | None = None,
    rule: str = "top",
    n: int = 5,
    combine: str = "mean",
    direction: int | None = None,
    fpr: float | None = None,
    prevalence: float = PREVALENCE,
    against: str = "label",
    name: str | None = None,
) -> Detector:
    """Choose dimensions, direction and threshold of one detector.

    Args:
        scores: Scores table, rows of the selection split only.
        statistic: see `Detector`, likewise `combine`.
        dimensions: latent dimensions, or "all" (`kl` over all ranks like the KL of the whole posterior); by
            default chosen with the labels by `rule` and `n` from `dimension_statistics`. Of no account for
            a statistic that has none.
        rule: see `lensq.statistics.latent.choose_dimensions`, likewise `n`.
        direction: 1 or -1; by default the one with an AUROC above one half, which uses labels. Every score
            column but `elbo` is made so that 1 is right.
        fpr: the threshold flags at most this share of the normals; by default it has the highest F1.
        prevalence: the share of positives under which F1 is highest.
        against: the column that tells positives, see `lensq.statistics.guard.labelled`.
        name: name of the detector; by default made from the above.

    Raises:
        LeakageError: if a row is not of the selection split.
        ValueError: if no dimension is chosen, the score is the same for all objects, or see
            `lensq.statistics.metrics.threshold_at_fpr`.
    """
    require_split(scores, "selection", purpose="choose_detector")
    rows, positive = labelled(scores, against)
    clusters: tuple[float, ...] = ()
    learnt = []
    if statistic in STATISTICS:
        if dimensions is None:
            learnt.append("dimensions")
            statistics = dimension_statistics(rows, statistic, against=against)
            dimensions = choose_dimensions(statistics, rule=rule, n=n)
        elif isinstance(dimensions, str):
            dimensions = range(latent_dimensions(rows))
        if not len(dimensions):
            raise ValueError(f"no dimension of {statistic!r} to detect with; {rule!r} chose none")
    else:
        dimensions = ()
    if statistic == "cluster":
        learnt.append("clusters")
        clusters = _cluster_purity(rows, positive)
    chosen = {
        "name": name or (f"{statistic}, {len(dimensions)} dimensions" if dimensions else statistic),
        "statistic": statistic,
        "dimensions": tuple(int(d) for d in dimensions),
        "combine": combine,
        "prevalence": prevalence,
        "against": against,
        "clusters": clusters,
    }
    value = Detector(**chosen).score(rows)
    if np.ptp(value) == 0:
        raise ValueError(f"{statistic!r} collapsed: all {len(rows)} objects have the score {value[0]:g}")
    if direction is None:
        learnt.append("direction")
        direction = 1 if roc_auc_score(positive, value) >= 0.5 else -1
    value = Detector(**chosen, direction=direction).score(rows)
    if fpr is None:
        threshold = metrics.best_threshold(value, positive, prevalence=prevalence)
    else:
        threshold = metrics.threshold_at_fpr(value, positive, fpr)
    learnt.append("threshold")
    return Detector(**chosen, direction=direction, threshold=threshold, learnt=tuple(learnt))


def evaluate(
    detector: Detector, scores: pd.DataFrame, *, against: str | None = None, **options
) -> pd.DataFrame:
    """Every metric of a detector on rows that took no part in choosing it, with 95% intervals.

    Args:
        detector: from `choose_detector`.
        scores: Scores table, of the split to judge on.
        against: the column that tells positives; the detector's own by default.
        **options: prevalence (the detector's by default), weights, groups, resamples, seed of
            `lensq.statistics.metrics.measure`. Weights and groups name columns of the table.

    Returns:
        Table of `lensq.statistics.metrics.measure`.
    """
    rows, positive = labelled(scores, against or detector.against)
    return metrics.measure(
        detector.score(rows), positive, threshold=detector.threshold, **_columns(detector, rows, options)
    )


def evaluate_task_b(detector: Detector, scores: pd.DataFrame, **options) -> pd.DataFrame:
    """A detector on graded candidates against the rest, at the catalogue's shares.

    The rest holds flagged and rejected objects as `lensq.statistics.weighting.task_b_weights` weighs them.

    Args:
        detector: from `choose_detector`.
        scores: Scores table, of the split to judge on.
        **options: groups, resamples, seed of `evaluate`.

    Returns:
        Table of `lensq.statistics.metrics.measure` at a prevalence of 0.108%, and two rows that say what it
        rests on: `graded`, how many graded objects there are, and `effective_rest`, the effective number of
            others.
    """
    rows, graded = labelled(scores, "graded")
    rows = rows.assign(task_b_weight=task_b_weights(rows))
    prevalence = TASK_B_SHARES["graded"]
    table = evaluate(
        detector, rows, against="graded", weights="task_b_weight", prevalence=prevalence, **options
    )
    table.loc["graded", "value"] = graded.sum()
    table.loc["effective_rest", "value"] = metrics.effective_size(rows["task_b_weight"][~graded])
    return table


def compare_detectors(
    detectors: Sequence[Detector], scores: pd.DataFrame, *, against: str | None = None, **options
) -> pd.DataFrame:
    """Detectors side by side on the same objects, sorted by average precision.

    Args:
        detectors: from `choose_detector`, with names that differ.
        scores: Scores table, of the split to judge on.
        against: the column that tells positives; the first detector's own by default.
        **options: as in `evaluate`.

    Returns:
        Table of `lensq.statistics.metrics.compare`.
    """
    first = detectors[0]
    rows, positive = labelled(scores, against or first.against)
    return metrics.compare(
        {d.name: d.score(rows) for d in detectors},
        positive,
        thresholds={d.name: d.threshold for d in detectors},
        **_columns(first, rows, options),
    )


def compare_pair(
    first: Detector, second: Detector, scores: pd.DataFrame, *, against: str | None = None, **options
) -> pd.DataFrame:
    """First minus second detector with paired intervals: table of
    `lensq.statistics.metrics.paired_difference`.

    Args:
        first: from `choose_detector`.
        second: likewise.
        scores: Scores table, of the split to judge on.
        against: the column that tells positives; the first detector's own by default.
        **options: as in `evaluate`.
    """
    rows, positive = labelled(scores, against or first.against)
    return metrics.paired_difference(
        first.score(rows),
        second.score(rows),
        positive,
        thresholds=(first.threshold, second.threshold),
        **_columns(first, rows, options),
    )


def _columns(detector: Detector, rows: pd.DataFrame, options: dict) -> dict:
    arrays = {key: rows[options[key]].to_numpy() for key in ("weights", "groups") if options.get(key)}
    return {"prevalence": detector.prevalence} | options | arrays


def confusion(detector: Detector, scores: pd.DataFrame, *, against: str | None = None) -> pd.DataFrame:
    """Counts of objects: rows `normal` and `lens`, columns `passed` and `flagged`."""
    rows, positive = labelled(scores, against or detector.against)
    flagged = detector.flags(rows)
    counts = np.bincount(2 * positive + flagged, minlength=4).reshape(2, 2)
    return pd.DataFrame(counts, index=["normal", "lens"], columns=["passed", "flagged"])


def precision_elsewhere(
    detector: Detector,
    scores: pd.DataFrame,
    *,
    against: str | None = None,
    prevalences: tuple[float, ...] = PREVALENCES,
    seed: int = 0,
) -> pd.DataFrame:
    """Precision of the detector where lenses are rarer: table of `lensq.statistics.metrics.precision_at`."""
    counts = confusion(detector, scores, against=against)
    return metrics.precision_at(
        counts.loc["lens", "flagged"],
        counts.loc["lens"].sum(),
        counts.loc["normal", "flagged"],
        counts.loc["normal"].sum(),
        prevalences=prevalences,
        seed=seed,
    )


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
    """Precision, recall and F1 against the threshold, for the few and the many most telling dimensions.

    Args:
        scores: Scores table.
        statistic: `kl`, `mu` or `logvar`, averaged over the dimensions.
        statistics: table of `dimension_statistics`, which orders the dimensions.
        counts: numbers of dimensions; those beyond what there is are left out.
        direction: 1 if high values are anomalous, -1 if low ones are.
        prevalence: the share of positives.
        against: the column that tells positives.

    Returns:
        `dimensions` (how many) and the columns of `lensq.statistics.metrics.operating_curve`.
    """
    rows, positive = labelled(scores, against)
    order = choose_dimensions(statistics, n=len(statistics))
    parts = []
    for count in (c for c in counts if c <= len(order)):
        detector = Detector("", statistic, order[:count], direction=direction)
        curve = metrics.operating_curve(detector.score(rows), positive, prevalence=prevalence)
        parts.append(curve.assign(dimensions=count))
    return pd.concat(parts, ignore_index=True)

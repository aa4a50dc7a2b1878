"""Figures of detectors: score distributions, thresholds, rankings with intervals, guarantees."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lensq.figures.style import (
    CYCLE,
    LENS,
    NORMAL,
    logarithmic,
    panels,
    readable,
    shared_legend,
    styled,
    two_histograms,
)
from lensq.statistics.guard import labelled

_AVERAGED = {"kl": "mean KL (nats)", "mu": "mean $|\\mu|$", "logvar": "mean log variance"}
_METRICS = {
    "AP": "average precision",
    "AUROC": "AUROC",
    "F1": "F1",
    "precision": "precision",
    "recall": "recall",
    "FPR": "false positive rate",
    "best_F1": "best F1 (optimistic)",
    "recall_fpr_1e-2": "recall at FPR 1e-2",
    "recall_fpr_1e-3": "recall at FPR 1e-3",
}


@styled
def score_histograms(
    scores: pd.DataFrame,
    columns: Mapping[str, str] | Sequence[str],
    *,
    against: str = "label",
    thresholds: Mapping[str, float] | None = None,
) -> Figure:
    """Distribution of scores, normal against lens, densities logarithmic; the end bins hold what lies beyond.

    Args:
        scores: Scores table.
        columns: score columns, or column to axis label with unit.
        against: the column that tells the classes.
        thresholds: column to threshold, drawn as a dashed line.
    """
    labels = dict(columns) if isinstance(columns, Mapping) else {c: readable(c) for c in columns}
    rows, positive = labelled(scores, against)
    figure, axes = panels(len(labels), 2, 2.3)
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        values = rows[column].to_numpy(float)
        two_histograms(axis, values[~positive], values[positive])
        axis.set(xlabel=label, ylabel="density")
        axis.locator_params(axis="x", nbins=6)
        if thresholds and column in thresholds:
            axis.axvline(thresholds[column], color="0.2", linestyle="--", linewidth=1.2)
    shared_legend(figure, axes[0])
    return figure


@styled
def threshold_panels(
    curves: pd.DataFrame, thresholds: Mapping[int, float] | None = None, *, label: str = "kl"
) -> Figure:
    """Precision, recall and F1 against the threshold, one panel a number of dimensions.

    Args:
        curves: table of `lensq.detection.detectors.threshold_curves`.
        thresholds: number of dimensions to chosen threshold, drawn as a dashed line; by default the
            highest F1 of the curve is marked.
        label: the statistic that is averaged, or what else the threshold is on, with unit.
    """
    groups = list(curves.groupby("dimensions"))
    figure, axes = panels(len(groups), 2, 2.4, sharey=True)
    for axis, (count, curve) in zip(axes, groups, strict=True):
        for column, colour, line in (("precision", 0, "-"), ("recall", 1, "--"), ("F1", 2, "-.")):
            axis.plot(curve["threshold"], curve[column], line, color=CYCLE[colour], label=column)
        best = curve.loc[curve["F1"].idxmax()]
        at = thresholds[count] if thresholds and count in thresholds else best["threshold"]
        axis.axvline(at, color="0.3", linestyle=":", linewidth=1.2)
        low, high = np.quantile(curve["threshold"], [0.002, 0.998])
        if low > 0 and high > 10 * low:
            logarithmic(axis)
        axis.set_xlim(low, high)
        axis.set_ylim(0, 1)
        what = _AVERAGED.get(label, label)
        axis.set_xlabel(f"threshold on {what}, {count} dimension{'s' if count > 1 else ''}")
    shared_legend(figure, axes[0])
    return figure


def _draw_interval(axis: Axes, x, y, low, high, *, across: bool, **options) -> None:
    """A point with its interval; an interval that does not enclose the point is drawn as it is."""
    if across:
        axis.hlines(y, low, high, color=options["color"], linewidth=1.6)
    else:
        axis.vlines(x, low, high, color=options["color"], linewidth=1.6)
    axis.plot(x, y, "o", markersize=4.5, linestyle="none", **options)


@styled
def metric_intervals(
    table: pd.DataFrame,
    metrics: Sequence[str] = ("AP", "AUROC", "F1", "recall_fpr_1e-2"),
    *,
    highlight: str | None = None,
) -> Figure:
    """Detectors side by side: one panel a metric, one line a detector, value and 95% interval.

    Args:
        table: table of `lensq.statistics.metrics.compare` or `lensq.detection.detectors.compare_detectors`,
            best first.
        metrics: which metrics.
        highlight: name of the detector drawn in the lens colour.
    """
    place = np.arange(len(table))[::-1]
    colours = np.where(table.index == highlight, LENS, NORMAL)
    figure, axes = panels(len(metrics), len(metrics), 0.9 + 0.27 * len(table), sharey=True)
    for axis, metric in zip(axes, metrics, strict=True):
        for y, colour, (_, row) in zip(place, colours, table.iterrows(), strict=True):
            low, high = row[f"{metric}_low"], row[f"{metric}_high"]
            _draw_interval(axis, row[metric], y, low, high, across=True, color=colour)
        axis.set_xlabel(_METRICS[metric].replace(" at ", "\nat "))
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(place, [readable(name) for name in table.index])
    axes[0].set_ylim(-0.6, len(table) - 0.4)
    return figure


@styled
def ranking_curves(
    curves: Mapping[str, pd.DataFrame], *, prevalence: float | None = None, points: bool = False
) -> Figure:
    """Recall against false positive rate (logarithmic) and precision against recall.

    Args:
        curves: name to table of `lensq.statistics.metrics.operating_curve`.
        prevalence: the share of positives of the curves, drawn as the precision of a guess.
        points: mark each curve's highest F1.
    """
    figure, (left, right) = panels(2, 2, 3.6)
    lines = ("-", "--", "-.", ":")
    least = min(curve["FPR"][curve["FPR"] > 0].min() for curve in curves.values())
    for i, (name, curve) in enumerate(curves.items()):
        look = {"color": CYCLE[i % len(CYCLE)], "linestyle": lines[i // len(CYCLE) % len(lines)]}
        left.step(curve["FPR"].clip(lower=least), curve["recall"], where="post", label=readable(name), **look)
        right.plot(curve["recall"], curve["precision"], **look)
        if points:
            best = curve.loc[curve["F1"].idxmax()]
            right.plot(best["recall"], best["precision"], "o", color=look["color"], markersize=5)
            left.plot(best["FPR"], best["recall"], "o", color=look["color"], markersize=5)
    chance = np.geomspace(least, 1, 100)
    left.plot(chance, chance, color="0.6", linewidth=1, linestyle=":")
    left.set(xscale="log", xlim=(least, 1), ylim=(0, 1), xlabel="false positive rate", ylabel="recall")
    right.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision")
    if prevalence is not None:
        right.axhline(prevalence, color="0.6", linewidth=1, linestyle=":")
    shared_legend(figure, left, columns=4)
    return figure


@styled
def precision_against_prevalence(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Precision of operating points where lenses are rarer, with 95% intervals, both axes logarithmic.

    Args:
        tables: detector to table of `lensq.statistics.metrics.precision_at`.
    """
    figure, (axis,) = panels(1, 1, 3.2)
    figure.set_figwidth(5.5)
    for i, (name, table) in enumerate(tables.items()):
        x = table.index.to_numpy() * 1.08 ** (i - (len(tables) - 1) / 2)
        axis.plot(x, table["precision"], color=CYCLE[i % len(CYCLE)], alpha=0.4, linewidth=1)
        _draw_interval(
            axis,
            x,
            table["precision"],
            table["low"],
            table["high"],
            across=False,
            color=CYCLE[i % len(CYCLE)],
            label=readable(name),
        )
    axis.set(xlabel="share of lenses among the objects", ylabel="precision")
    for which in ("x", "y"):
        logarithmic(axis, which, percent=True)
    axis.legend()
    return figure


@styled
def fdr_curves(study: pd.DataFrame) -> Figure:
    """Empirical against nominal false discovery rate, and the share of lenses that the lists hold.

    Args:
        study: table of `lensq.detection.conformal.fdr_study`, a line each contamination.
    """
    figure, (left, right) = panels(2, 2, 3.1)
    for i, (contamination, part) in enumerate(study.groupby("contamination")):
        colour, label = CYCLE[i % len(CYCLE)], f"{100 * contamination:g}% of the calibration set are lenses"
        error = 1.96 * part["error"]
        left.plot(part["nominal"], part["empirical"], color=colour, linewidth=1, label=label)
        left.vlines(part["nominal"], part["empirical"] - error, part["empirical"] + error, color=colour)
        left.plot(part["nominal"], part["empirical"], "o", color=colour, markersize=4)
        right.plot(part["nominal"], part["power"], "o-", color=colour, markersize=4)
    top = study["nominal"].max() * 1.05
    left.plot([0, top], [0, top], color="0.5", linestyle=":", linewidth=1)
    left.set(xlim=(0, top), ylim=(0, None), ylabel="empirical FDR")
    right.set(xlim=(0, top), ylim=(0, None), ylabel="share of lenses listed")
    for axis in (left, right):
        axis.set_xlabel("nominal false discovery rate (FDR)")
    shared_legend(figure, left, columns=3)
    return figure


@styled
def fault_effects(table: pd.DataFrame, metrics: Sequence[str] = ("AP", "AUROC")) -> Figure:
    """What each fault does: a number without it and with it, and the interval of the difference.

    Args:
        table: tables of `lensq.detection.faults.effect`, one below the other; index `fault`, `metric`.
        metrics: a panel each.
    """
    faults = list(dict.fromkeys(table.index.get_level_values("fault")))
    place = np.arange(len(faults))[::-1]
    figure, axes = panels(len(metrics), len(metrics), 0.9 + 0.27 * len(faults), sharey=True)
    for axis, metric in zip(axes, metrics, strict=True):
        part = table.xs(metric, level="metric").loc[faults]
        low, high = part["without"] + part["low"], part["without"] + part["high"]
        axis.hlines(place, low, high, color=LENS, linewidth=1.6)
        axis.plot(part["without"], place, "o", color=NORMAL, markersize=4.5, label="without the fault")
        axis.plot(part["with"], place, "D", color=LENS, markersize=4.5, label="with it")
        axis.set_xlabel(_METRICS[metric])
        axis.locator_params(axis="x", nbins=5)
    axes[0].set_yticks(place, [readable(name) for name in faults])
    axes[0].set_ylim(-0.6, len(faults) - 0.4)
    shared_legend(figure, axes[0])
    return figure

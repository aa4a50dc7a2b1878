"""Figures of detectors: score distributions, thresholds, rankings with intervals, guarantees."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import expit, logit

from lensq.figures import style
from lensq.statistics.guard import labelled

_AVERAGED = {"kl": "mean KL (nats)", "mu": "mean $|\\mu|$", "logvar": "mean log variance"}
_METRICS = {"AP": "average precision", "AUROC": "AUROC", "F1": "F1", "recall_fpr_1e-2": "recall at FPR 1e-2"}


@style.styled
def score_histograms(
    scores: pd.DataFrame,
    columns: Sequence[str],
    *,
    against: str = "label",
    thresholds: Mapping[str, float] | None = None,
) -> Figure:
    """Distribution of scores, ordinary against lens, densities logarithmic.

    Args:
        scores: Scores table.
        columns: score columns.
        against: the column that tells the classes.
        thresholds: column to threshold, drawn as a dashed line.
    """
    rows, positive = labelled(scores, against)
    values = {style.readable(column): rows[column] for column in columns}
    figure, axes = style.class_histograms(values, positive, 2)
    for axis, column in zip(axes, columns, strict=True):
        if thresholds and column in thresholds:
            axis.axvline(thresholds[column], color="0.2", linestyle="--", linewidth=1.2)
    return figure


@style.styled
def threshold_panels(curves: pd.DataFrame, *, label: str = "kl") -> Figure:
    """Precision, recall and F1 against the threshold, one panel a number of dimensions; F1's highest marked.

    Args:
        curves: table of `lensq.detection.detectors.threshold_curves`.
        label: the statistic that is averaged, or what else the threshold is on, with unit.
    """
    groups = list(curves.groupby("dimensions"))
    figure, axes = style.panels(len(groups), 2, 2.4, sharey=True)
    for axis, (count, curve) in zip(axes, groups, strict=True):
        for column, colour, line in (("precision", 0, "-"), ("recall", 1, "--"), ("F1", 2, "-.")):
            axis.plot(curve["threshold"], curve[column], line, color=style.CYCLE[colour], label=column)
        best = curve.loc[curve["F1"].idxmax(), "threshold"]
        axis.axvline(best, color="0.3", linestyle=":", linewidth=1.2)
        low, high = np.quantile(curve["threshold"], [0.002, 0.998])
        if low > 0 and high > 10 * low:
            style.logarithmic(axis)
        what = f"threshold on {_AVERAGED.get(label, label)}, {count} dimension{'s' * (count > 1)}"
        axis.set(xlabel=what, xlim=(low, high), ylim=(0, 1))
    style.shared_legend(figure, axes[0])
    return figure


@style.styled
def metric_intervals(table: pd.DataFrame, *, highlight: str | None = None) -> Figure:
    """Detectors side by side: one panel a metric, one line a detector, value and 95% interval.

    Args:
        table: table of `lensq.statistics.metrics.compare` or `lensq.detection.detectors.compare_detectors`,
            best first. A metric that was not measured is left out.
        highlight: name of the detector drawn in the lens colour.
    """
    metrics = [name for name in ("AP", "recall_fpr_1e-2") if table[name].notna().any()]
    colours = np.where(table.index == highlight, style.LENS, style.ORDINARY)
    figure, axes = style.panels(len(metrics), 2, 0.6 + 0.34 * len(table), sharey=True)
    for axis, metric in zip(axes, metrics, strict=True):
        place = style.rows_from_top(axis, table.index)
        low, high = table[f"{metric}_low"], table[f"{metric}_high"]
        axis.hlines(place, low, high, color=colours, linewidth=7, alpha=0.4)
        axis.scatter(table[metric], place, 90, colours, marker="|", linewidths=1.6, zorder=3)
        axis.set_xlabel(_METRICS[metric])
        axis.tick_params(axis="y", labelsize=9.5)
    return figure


@style.styled
def precision_against_prevalence(table: pd.DataFrame, name: str) -> Figure:
    """Precision of an operating point against the share of lenses, a band for the 95% interval.

    The points are the table's; between and beyond them the rates of the operating point are the same.

    Args:
        table: table of `lensq.statistics.metrics.precision_at`.
        name: the detector's.
    """
    figure, (axis,) = style.panels(1, 1, 3.4)
    share = np.geomspace(table.index.min() / 2, table.index.max() * 2, 200)
    first = table.iloc[0]
    # The odds of a lens among those flagged grow with the odds of one among all.
    grown = logit(share) - logit(table.index[0])
    low, middle, high = (expit(logit(first[c]) + grown) for c in ("low", "precision", "high"))
    axis.fill_between(share, low, high, color=style.CYCLE[0], alpha=0.25, linewidth=0)
    axis.plot(share, middle, color=style.CYCLE[0], label=style.readable(name))
    axis.plot(table.index, table["precision"], "o", color=style.CYCLE[0], markersize=5)
    for x, y in table["precision"].items():
        axis.annotate(f"{100 * y:.2g}%", (x, y), (7, -9), textcoords="offset points", fontsize=8.5)
    axis.set(xlabel="share of lenses among the objects", ylabel="precision")
    for which in ("x", "y"):
        style.logarithmic(axis, which, percent=True)
    axis.legend()
    return figure


@style.styled
def fdr_curves(study: pd.DataFrame) -> Figure:
    """Empirical against nominal false discovery rate, and the share of lenses that the lists hold.

    Args:
        study: table of `lensq.detection.conformal.fdr_study`, a line each contamination.
    """
    figure, (left, right) = style.panels(2, 2, 3.1)
    for i, (contamination, part) in enumerate(study.groupby("contamination")):
        colour = style.CYCLE[i % len(style.CYCLE)]
        label = f"{100 * contamination:g}% of the calibration set are lenses"
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
    style.shared_legend(figure, left, columns=3)
    return figure


@style.styled
def fault_effects(table: pd.DataFrame) -> Figure:
    """What each fault does: a number without it and with it, and the interval of the difference.

    Args:
        table: tables of `lensq.detection.faults.effect`, one below the other; index `fault`, `metric`.
    """
    faults = table.index.unique("fault")
    figure, axes = style.panels(2, 2, 0.9 + 0.27 * len(faults), sharey=True)
    for axis, metric in zip(axes, ("AP", "AUROC"), strict=True):
        place = style.rows_from_top(axis, faults)
        part = table.xs(metric, level="metric").loc[faults]
        low, high = part["without"] + part["low"], part["without"] + part["high"]
        axis.hlines(place, low, high, color=style.LENS, linewidth=1.6)
        axis.plot(part["without"], place, "o", color=style.ORDINARY, ms=4.5, label="without the fault")
        axis.plot(part["with"], place, "D", color=style.LENS, ms=4.5, label="with it")
        axis.set_xlabel(_METRICS[metric])
        axis.locator_params(axis="x", nbins=5)
    style.shared_legend(figure, axes[0])
    return figure

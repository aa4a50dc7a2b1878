"""What labels buy."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from lensq.figures.style import CYCLE, panels, styled

_LOOKS = {"anomalous": ("most anomalous next", "-"), "uncertain": ("most uncertain next", "--")}
_LOOKS["random"] = "random order", ":"


@styled
def label_budget(summaries: Mapping[str, pd.DataFrame]) -> Figure:
    """Average precision against the number of labels, a panel for each who answers, a line a strategy.

    A thin line marks the score without labels. The last panel counts the positives found on the way, as the
    first who answers sees them.

    Args:
        summaries: who answers to table of `lensq.classifiers.budget.budget_summary`.
    """
    figure, axes = panels(len(summaries) + 1, 3, 2.7)
    for axis, (who, summary) in zip(axes, summaries.items(), strict=False):
        if axis is not axes[0]:
            axis.sharey(axes[0])
        _lines(axis, summary, "AP")
        for without in summary.loc[summary["labels"] == 0, "AP"].head(1):
            axis.axhline(without, color="0.4", linewidth=1)
        axis.set(title=who, ylabel="average precision" if axis is axes[0] else "")
    found = axes[len(summaries)]
    _lines(found, next(iter(summaries.values())), "found")
    found.set(title="found on the way", ylabel="positives among the labels")
    figure.legend(*found.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _lines(axis, summary: pd.DataFrame, column: str) -> None:
    for i, (strategy, table) in enumerate(summary.groupby("strategy", sort=False)):
        colour = CYCLE[i % len(CYCLE)]
        if column == "AP":
            band = {"color": colour, "alpha": 0.15, "linewidth": 0}
            axis.fill_between(table["labels"], table["low"], table["high"], **band)
        name, dash = _LOOKS[strategy]
        axis.plot(table["labels"], table[column], dash, color=colour, marker="o", markersize=3.5, label=name)
    ticks = sorted(set(summary["labels"]))
    axis.set_xscale("symlog", linthresh=max(min([t for t in ticks if t] or [1]), 1), linscale=0.6)
    axis.set_xlim(left=0)
    axis.set_xticks([t for t in ticks if t not in (20, 200)])
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.set_xlabel("labels")

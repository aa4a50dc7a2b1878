"""What labels buy."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lensq.plots.style import CYCLE, panels, styled

_NAMES = {"anomalous": "most anomalous next", "uncertain": "most uncertain next", "random": "random order"}
_DASHES = {"anomalous": "-", "uncertain": "--", "random": ":"}


@styled
def label_budget(summary: pd.DataFrame, *, against: str = "") -> Figure:
    """Average precision, and lenses found on the way, against the number of labels, a line a strategy.

    Args:
        summary: table of `lensq.budget.budget_summary`.
        against: what average precision is measured on, named on the axis.
    """
    figure, (precision, found) = panels(2, 2, 3.0)
    for i, (strategy, table) in enumerate(summary.groupby("strategy", sort=False)):
        look = {"color": CYCLE[i % len(CYCLE)], "linestyle": _DASHES.get(strategy, "-")}
        name = _NAMES.get(strategy, strategy)
        precision.fill_between(table["labels"], table["low"], table["high"], color=look["color"], alpha=0.15)
        precision.plot(table["labels"], table["AP"], marker="o", markersize=3.5, label=name, **look)
        found.plot(table["labels"], table["found"], marker="o", markersize=3.5, **look)
    without = summary.loc[summary["labels"] == 0, "AP"]
    if len(without):
        precision.axhline(without.iloc[0], color="0.4", linewidth=1)
        precision.annotate(
            "no label",
            (1, without.iloc[0]),
            xycoords=("axes fraction", "data"),
            xytext=(-2, -3),
            textcoords="offset points",
            ha="right",
            va="top",
            color="0.4",
            fontsize=8.5,
        )
    for axis in (precision, found):
        axis.set_xscale("symlog", linthresh=10)
        axis.set_xticks(sorted(set(summary["labels"])))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axis.minorticks_off()
    precision.set(xlabel="labels", ylabel=f"average precision {against}".strip())
    found.set(xlabel="labels", ylabel="lenses among them")
    figure.legend(*precision.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure

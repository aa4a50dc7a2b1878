"""Figures of a sweep over settings."""

import pandas as pd
from matplotlib.figure import Figure

from lensq.figures.style import CYCLE, panels, readable, shared_legend, styled


@styled
def sweep_lines(table: pd.DataFrame, over: str) -> Figure:
    """AP and AUROC against one setting: a point a run, a line through the means for the others' values.

    Args:
        table: table of `lensq.study.sweep.compare_runs`.
        over: the setting along the axis.
    """
    others = list(table.columns[: table.columns.get_loc("AP")].drop([over, "seed"], errors="ignore"))
    groups = list(table.groupby(others)) if others else [((), table)]
    figure, axes = panels(2, 2, 2.8)
    for axis, metric in zip(axes, ("AP", "AUROC"), strict=True):
        for number, (key, runs) in enumerate(groups):
            colour = CYCLE[number % len(CYCLE)]
            label = ", ".join(f"{readable(name)} {value}" for name, value in zip(others, key, strict=True))
            axis.plot(runs[over].astype(str), runs[metric], "o", markersize=4.5, color=colour, alpha=0.5)
            means = runs.groupby(over)[metric].mean()
            axis.plot(means.index.astype(str), means, color=colour, label=label or "mean")
        axis.set(xlabel=readable(over), ylabel=metric)
    if others:
        shared_legend(figure, axes[0])
    return figure

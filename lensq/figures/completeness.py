"""Figures of completeness: curves, maps, shares by class."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lensq.figures.style import COLOURS, CYCLE, LENS, ORDINARY, panels, rows_from_top, shared_legend, styled

_FEW = 10  # cells with fewer lenses are left empty


@styled
def completeness_curves(tables: Mapping[str, pd.DataFrame | Mapping[str, pd.DataFrame]]) -> Figure:
    """Share of lenses found against one property a panel, with 95% binomial intervals.

    Args:
        tables: axis label with unit to table of `lensq.detection.completeness.completeness_curve`, or to
            several of them by name (doubles and quads, two detectors).
    """
    figure, axes = panels(len(tables), 2, 2.5, sharey=True)
    for axis, (label, several) in zip(axes, tables.items(), strict=True):
        several = {"": several} if isinstance(several, pd.DataFrame) else several
        for i, (name, table) in enumerate(several.items()):
            colour = CYCLE[i % len(CYCLE)] if len(several) > 1 else LENS
            kept = table[table["n"] > 0]
            axis.hlines(kept["share"], kept["lower"], kept["upper"], color=colour, alpha=0.5)
            axis.vlines(kept["centre"], kept["low"], kept["high"], color=colour)
            axis.plot(kept["centre"], kept["share"], "o", color=colour, markersize=4, label=name)
        axis.set(xlabel=label, ylabel="completeness", ylim=(0, 1))
    if len(several) > 1:
        shared_legend(figure, axes[0])
    return figure


@styled
def completeness_map(table: pd.DataFrame, *, xlabel: str, ylabel: str) -> Figure:
    """Share of lenses found over two properties; each cell says the share and the number of lenses.

    Args:
        table: table of `lensq.detection.completeness.completeness_map`.
        xlabel: label of the horizontal axis, with unit.
        ylabel: label of the vertical axis, with unit.
    """
    table = table.assign(share=table["share"].where(table["n"] >= _FEW))
    share = table.pivot(index="y_lower", columns="x_lower", values="share")
    x = np.r_[share.columns, table["x_upper"].max()]
    y = np.r_[share.index, table["y_upper"].max()]
    figure, (axis,) = panels(1, 1, 4.2, 6.5)
    drawn = axis.pcolormesh(x, y, share, vmin=0, vmax=1, cmap="viridis")
    for cell in table.dropna(subset="share").itertuples():
        centre = (cell.x_lower + cell.x_upper) / 2, (cell.y_lower + cell.y_upper) / 2
        look = {"ha": "center", "va": "center", "fontsize": 8}
        look["color"] = "black" if cell.share > 0.6 else "white"
        axis.text(*centre, f"{cell.share:.2f}\n({cell.n})", **look)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(False)
    figure.colorbar(drawn, ax=axis, label="completeness", pad=0.02)
    return figure


@styled
def share_by_class(table: pd.DataFrame) -> Figure:
    """Share of flagged objects by class with 95% intervals, the most often flagged on top.

    Args:
        table: table of `lensq.detection.completeness.share_by_class`.
    """
    figure, (axis,) = panels(1, 1, 0.8 + 0.24 * len(table), 6.0)
    place = rows_from_top(axis, [f"{c} ({n:,})" for c, n in zip(table["class"], table["n"], strict=True)])
    colours = [COLOURS.get(name, ORDINARY) for name in table["class"]]
    axis.hlines(place, table["low"], table["high"], color=colours)
    axis.scatter(table["share"], place, color=colours, s=22, zorder=3, clip_on=False)
    axis.set(xlabel="share flagged", xlim=(0, None))
    axis.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    return figure

"""Figures of a survey: where its objects lie, what they are like, and which lenses are found."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from lensq.plots.style import (
    CYCLE,
    LENS,
    NORMAL,
    SPLIT_COLOURS,
    panels,
    readable,
    shared_legend,
    styled,
    two_histograms,
)
from lensq.wall import labelled

_FEW = 10  # cells with fewer lenses are left empty


def _scatter_sky(axis: Axes, table: pd.DataFrame, size: float) -> None:
    for split, colour in SPLIT_COLOURS.items():
        part = table[table["split"] == split]
        if len(part):
            axis.scatter(
                part["ra"],
                part["dec"],
                s=size,
                color=colour,
                linewidths=0,
                rasterized=True,
                label=f"{split} ({len(part):,})",
            )
    axis.set(xlabel="right ascension (deg)", ylabel="declination (deg)")
    axis.invert_xaxis()


@styled
def sky_map(table: pd.DataFrame, *, zoom: float = 12.0) -> Figure:
    """Where the splits lie: the whole survey, and below the densest field enlarged so that tiles show.

    East is to the left. Objects without coordinates are left out.

    Args:
        table: columns `ra`, `dec` (deg) and `split`.
        zoom: width of the enlarged field in right ascension, in degrees.
    """
    placed = table[np.isfinite(table["ra"]) & np.isfinite(table["dec"])]
    figure, (whole, near) = panels(2, 1, 2.8)
    _scatter_sky(whole, placed, np.clip(20_000 / max(len(placed), 1), 0.2, 3))
    height = zoom / 2.2
    cells = np.floor(np.c_[placed["ra"] / zoom, placed["dec"] / height])
    values, counts = np.unique(cells, axis=0, return_counts=True)
    ra, dec = values[counts.argmax()] * [zoom, height]
    inside = placed["ra"].between(ra, ra + zoom) & placed["dec"].between(dec, dec + height)
    _scatter_sky(near, placed[inside], np.clip(10_000 / max(inside.sum(), 1), 0.5, 9))
    near.set(xlim=(ra + zoom, ra), ylim=(dec, dec + height))
    whole.add_patch(Rectangle((ra, dec), zoom, height, fill=False, edgecolor="0.2", linewidth=1.2))
    shared_legend(figure, whole, markerscale=7 / np.sqrt(whole.collections[0].get_sizes()[0]))
    return figure


@styled
def property_histograms(table: pd.DataFrame, columns: Mapping[str, str], *, against: str = "label") -> Figure:
    """Distribution of properties of the images, normal against lens, as densities.

    Args:
        table: one row an object.
        columns: column to axis label with unit.
        against: the column that tells the classes.
    """
    rows, positive = labelled(table, against)
    figure, axes = panels(len(columns), 2, 2.2)
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        values = rows[column].to_numpy(float)
        finite = np.isfinite(values)
        two_histograms(axis, values[finite & ~positive], values[finite & positive], log=False)
        axis.set(xlabel=label, ylabel="density")
    shared_legend(figure, axes[0])
    return figure


@styled
def class_counts(counts: pd.Series, *, highlight: tuple[str, ...] = ("lens",)) -> Figure:
    """How many objects each class has, on a logarithmic axis, the largest on top.

    Args:
        counts: class to number of objects.
        highlight: classes in the lens colour.
    """
    counts = counts.sort_values()
    figure, (axis,) = panels(1, 1, 0.7 + 0.24 * len(counts))
    figure.set_figwidth(6.0)
    colours = [LENS if name in highlight else NORMAL for name in counts.index]
    bars = axis.barh([readable(name) for name in counts.index], counts, color=colours)
    axis.bar_label(bars, [f"{n:,}" for n in counts], padding=3, fontsize=8.5)
    axis.set(xscale="log", xlabel="objects", xlim=(max(0.8, counts.min() / 2), counts.max() * 3))
    axis.grid(False, axis="y")
    return figure


@styled
def completeness_curves(
    tables: Mapping[str, pd.DataFrame | Mapping[str, pd.DataFrame]], *, ylabel: str = "completeness"
) -> Figure:
    """Share of lenses found against one property a panel, with 95% binomial intervals.

    Args:
        tables: axis label with unit to table of `lensq.completeness.completeness`, or to several of them
            by name (doubles and quads, two detectors).
        ylabel: label of the vertical axes.
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
        axis.set(xlabel=label, ylabel=ylabel, ylim=(0, 1))
        if len(several) > 1:
            axis.legend()
    return figure


@styled
def completeness_map(table: pd.DataFrame, *, xlabel: str, ylabel: str) -> Figure:
    """Share of lenses found over two properties; each cell says the share and the number of lenses.

    Args:
        table: table of `lensq.completeness.completeness_map`.
        xlabel: label of the horizontal axis, with unit.
        ylabel: label of the vertical axis, with unit.
    """
    share = table.pivot(index="y_lower", columns="x_lower", values="share")
    number = table.pivot(index="y_lower", columns="x_lower", values="n")
    x = np.r_[share.columns, table["x_upper"].max()]
    y = np.r_[share.index, table["y_upper"].max()]
    figure, (axis,) = panels(1, 1, 4.2)
    figure.set_figwidth(6.5)
    drawn = axis.pcolormesh(x, y, share.where(number >= _FEW), vmin=0, vmax=1, cmap="viridis")
    for i, centre_y in enumerate((y[:-1] + y[1:]) / 2):
        for j, centre_x in enumerate((x[:-1] + x[1:]) / 2):
            if number.iloc[i, j] >= _FEW:
                value = share.iloc[i, j]
                axis.text(
                    centre_x,
                    centre_y,
                    f"{value:.2f}\n({number.iloc[i, j]})",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="black" if value > 0.6 else "white",
                )
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(False)
    figure.colorbar(drawn, ax=axis, label="completeness", pad=0.02)
    return figure


@styled
def share_by_class(table: pd.DataFrame, *, xlabel: str = "share flagged") -> Figure:
    """Share of flagged objects by class with 95% intervals, the most often flagged on top.

    Args:
        table: table of `lensq.completeness.share_by_class`.
        xlabel: label of the axis.
    """
    table = table.sort_values("share")
    figure, (axis,) = panels(1, 1, 0.8 + 0.24 * len(table))
    figure.set_figwidth(6.0)
    place = np.arange(len(table))
    colours = [LENS if name == "lens" else NORMAL for name in table["class"]]
    axis.hlines(place, table["low"], table["high"], color=colours)
    axis.scatter(table["share"], place, color=colours, s=22, zorder=3)
    names = [f"{readable(c)} ({n:,})" for c, n in zip(table["class"], table["n"], strict=True)]
    axis.set_yticks(place, names)
    axis.set(xlabel=xlabel, xlim=(0, None), ylim=(-0.6, len(table) - 0.4))
    axis.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    return figure

"""Figures of a survey: where its objects lie, and what they are like."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lensq.figures import style
from lensq.statistics.guard import labelled


def _scatter_sky(axis: Axes, table: pd.DataFrame, size: float) -> None:
    for split, colour in style.SPLIT_COLOURS.items():
        part = table[table["split"] == split]
        if len(part):
            axis.scatter(part["ra"], part["dec"], size, colour, lw=0, label=f"{split} ({len(part):,})")
    axis.set(xlabel="right ascension (deg)", ylabel="declination (deg)")
    axis.invert_xaxis()


@style.styled
def sky_map(table: pd.DataFrame, *, zoom: float = 12.0) -> Figure:
    """Where the splits lie: the whole survey, and below the densest field enlarged so that tiles show.

    East is to the left. Objects without coordinates are left out.

    Args:
        table: columns `ra`, `dec` (deg) and `split`.
        zoom: width of the enlarged field in right ascension, in degrees.
    """
    placed = table[np.isfinite(table["ra"]) & np.isfinite(table["dec"])]
    figure, (whole, near) = style.panels(2, 1, 2.8)
    _scatter_sky(whole, placed, np.clip(20_000 / max(len(placed), 1), 0.2, 3))
    height = zoom / 2.2
    cells = np.floor(np.c_[placed["ra"] / zoom, placed["dec"] / height])
    values, counts = np.unique(cells, axis=0, return_counts=True)
    ra, dec = values[counts.argmax()] * [zoom, height]
    inside = placed["ra"].between(ra, ra + zoom) & placed["dec"].between(dec, dec + height)
    _scatter_sky(near, placed[inside], np.clip(10_000 / max(inside.sum(), 1), 0.5, 9))
    near.set(xlim=(ra + zoom, ra), ylim=(dec, dec + height))
    whole.add_patch(Rectangle((ra, dec), zoom, height, fill=False, edgecolor="0.2", linewidth=1.2))
    style.shared_legend(figure, whole, markerscale=7 / np.sqrt(whole.collections[0].get_sizes()[0]))
    return figure


@style.styled
def property_histograms(table: pd.DataFrame, columns: Mapping[str, str], *, against: str = "label") -> Figure:
    """Distribution of properties of the images, ordinary against lens, as densities.

    Args:
        table: one row an object.
        columns: column to axis label with unit.
        against: the column that tells the classes.
    """
    rows, positive = labelled(table, against)
    values = {label: rows[column] for column, label in columns.items()}
    return style.class_histograms(values, positive, 2, log=False)[0]


@style.styled
def class_counts(counts: pd.Series) -> Figure:
    """How many objects each class has, as points on a logarithmic axis, the largest on top.

    Args:
        counts: class to number of objects.
    """
    counts = counts.sort_values(ascending=False)
    figure, (axis,) = style.panels(1, 1, 0.7 + 0.24 * len(counts), 6.0)
    place = style.rows_from_top(axis, counts.index)
    axis.hlines(place, 1, counts, color="0.85", linewidth=1)
    colours = [style.COLOURS.get(name, style.ORDINARY) for name in counts.index]
    axis.scatter(counts, place, 30, colours, zorder=3)
    for y, n in zip(place, counts, strict=True):
        axis.annotate(f"{n:,}", (n, y), (7, 0), textcoords="offset points", va="center", fontsize=8.5)
    style.logarithmic(axis, decades=True)
    axis.set(xlabel="objects", xlim=(1, counts.max() * 4))
    axis.grid(False, axis="y")
    return figure


@style.styled
def quantile_panels(comparison: pd.DataFrame) -> Figure:
    """Quantiles of the simulated lenses against those of a catalogue, a panel a quantity.

    Points on the line agree; the band is the tolerance, the bars are the statistical error.

    Args:
        comparison: table of `lensq.simulate.om10.compare_with_om10`; rows without a quantile are left out.
    """
    groups = list(comparison.dropna(subset="quantile").groupby("quantity", sort=False))
    figure, axes = style.panels(len(groups), 4, 2.1)
    for axis, (name, rows) in zip(axes, groups, strict=True):
        known, tolerance, bars = rows["om10"], rows["tolerance"], {"markersize": 3.5, "linewidth": 1.2}
        axis.fill_between(known, known - tolerance, known + tolerance, color="0.88", linewidth=0)
        axis.plot(known, known, color="0.5", linewidth=1, linestyle=":")
        axis.errorbar(known, rows["simulated"], rows["error"], fmt="o", color=style.LENS, **bars)
        unit = rows["unit"].iloc[0]
        axis.set_title(f"{style.readable(name)} ({unit})" if unit else style.readable(name), fontsize=8.5)
        axis.locator_params(nbins=4)
    for axis in axes:
        axis.set_xlabel("catalogue")
    for axis in axes[::4]:
        axis.set_ylabel("simulated")
    return figure

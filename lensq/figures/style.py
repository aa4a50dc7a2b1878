"""One look for all figures: colours, sizes, grids of panels."""

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import ParamSpec

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

_PALETTE = sns.color_palette("colorblind").as_hex()
ORDINARY, LENS = _PALETTE[0], _PALETTE[3]
COLOURS = {"ordinary": ORDINARY, "lens": LENS}
CHOSEN, LEFT = _PALETTE[2], "0.72"
_OF_SPLITS = {"train": 0, "validation": 9, "selection": 2, "conformal": 1, "test": 4}
SPLIT_COLOURS = {name: _PALETTE[i] for name, i in _OF_SPLITS.items()}
CYCLE = [_PALETTE[i] for i in (0, 1, 2, 4, 5, 9, 7)]
_WRITTEN = {name: name.upper() for name in ("ecod", "elbo", "kl", "pca", "svdd")}
_WRITTEN |= {"knn": "kNN", "mahalanobis": "Mahalanobis", "mse": "mean square"}
_WRITTEN |= {"mu": "$|\\mu|$", "logvar": "log variance"}
WIDTH = 8.0  # inches, the text width of the book

_STYLE = {"axes.prop_cycle": plt.cycler(color=CYCLE), "figure.dpi": 220, "lines.linewidth": 1.5}
_STYLE |= dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 9.5)
_STYLE |= dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 8.5)
_STYLE |= dict.fromkeys(("figure.facecolor", "savefig.facecolor"), "white")
_STYLE |= dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False)
_STYLE |= {"axes.grid": True, "axes.axisbelow": True, "grid.color": "0.9"}
_STYLE |= {"image.cmap": "gray", "image.interpolation": "nearest", "image.origin": "lower"}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the common style."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with plt.rc_context(_STYLE):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made when drawn, in the style of that moment
            return figure

    return drawn


def panels(n: int, columns: int, height: float, width=WIDTH, **share: bool) -> tuple[Figure, list[Axes]]:
    """A figure of n panels in rows of `columns`, each `height` inches high; `share` as subplots take it."""
    columns = min(n, columns)
    rows = -(-n // columns)
    size = {"figsize": (width, rows * height), "layout": "constrained"}
    figure, axes = plt.subplots(rows, columns, squeeze=False, **share, **size)
    plt.close(figure)  # so that a notebook shows it once, where it is returned
    flat = list(axes.flat)
    for spare in flat[n:]:
        spare.remove()
    if share.get("sharex"):
        for axis in flat[max(0, n - columns) : n]:
            axis.xaxis.set_tick_params(labelbottom=True)
    return figure, flat[:n]


def two_histograms(axis: Axes, ordinary: np.ndarray, lens: np.ndarray, *, log: bool = True) -> None:
    """Densities of both classes over the same bins; the end bins hold what lies beyond 0.2% and 99.8%.

    How many those are is written above. Where the middle half of the ordinary objects would fill less than
    a twentieth of a linear axis, the axis is asinh about their median.

    Args:
        axis: where to draw.
        ordinary: values of ordinary objects.
        lens: values of lenses.
        log: logarithmic density, so that tails show.
    """
    ends = np.quantile(ordinary, [0.002, 0.998]), np.quantile(lens, [0.002, 0.998])
    low, high = np.min(ends), np.max(ends)
    high = high if high > low else low + 1
    bins = int(np.clip(5 * np.cbrt(min(len(ordinary), len(lens))), 20, 60))
    edges = np.linspace(low, high, bins + 1)
    quarter, middle, three = np.quantile(ordinary, [0.25, 0.5, 0.75])
    if three > quarter and high - low > 20 * (three - quarter):
        edges = _bend(axis, low, high, middle, (three - quarter) / 2, bins)
    else:
        axis.locator_params(axis="x", nbins=5)
    for name, values in (("ordinary", ordinary), ("lens", lens)):
        density, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges, density=True)
        look = {"fill": True, "facecolor": to_rgba(COLOURS[name], 0.25), "edgecolor": COLOURS[name]}
        axis.stairs(density, edges, linewidth=1.3, label=f"{name} ({len(values):,})", **look)
    both = np.concatenate([ordinary, lens])
    beyond = f"end bins: {(both < low).sum():,} below, {(both > high).sum():,} above"
    axis.set_title(beyond, loc="right", fontsize=8, color="0.3", pad=2)
    if log:
        axis.set_yscale("log")
        axis.yaxis.set_minor_formatter(NullFormatter())


def _bend(axis: Axes, low: float, high: float, middle: float, width: float, bins: int) -> np.ndarray:
    """Make the axis asinh about `middle`, linear within `width`; the edges of even bins, and five ticks."""

    def bend(value):
        return np.arcsinh((value - middle) / width)

    def straight(value):
        return middle + width * np.sinh(value)

    axis.set_xscale("function", functions=(bend, straight))
    ends = bend(low), bend(high)
    marks = [float(f"{value:.3g}") for value in straight(np.linspace(*ends, 5))]
    axis.set_xticks(marks, [f"{mark:g}" for mark in marks])
    edges = straight(np.linspace(*ends, bins + 1))
    edges[0], edges[-1] = low, high
    return edges


def class_histograms(
    values: Mapping[str, np.ndarray], positive: np.ndarray, columns: int = 3, *, log: bool = True
) -> tuple[Figure, list[Axes]]:
    """A panel a quantity, `two_histograms` in each; values that are not finite are left out.

    Args:
        values: axis label with unit to (N,) values.
        positive: (N,) bool, the lenses.
        columns: panels in a row.
        log: logarithmic density.
    """
    figure, axes = panels(len(values), columns, 2.2)
    for axis, (label, column) in zip(axes, values.items(), strict=True):
        column = np.asarray(column, float)
        finite = np.isfinite(column)
        two_histograms(axis, column[finite & ~positive], column[finite & positive], log=log)
        axis.set_xlabel(label)
    for axis in axes[::columns]:
        axis.set_ylabel("density")
    shared_legend(figure, axes[0])
    return figure, axes


def logarithmic(axis: Axes, which: str = "x", *, percent: bool = False, decades: bool = False) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5, or at decades, or with per cent at decades."""
    getattr(axis, f"set_{which}scale")("log")
    scale = getattr(axis, f"{which}axis")
    scale.set_major_locator(LogLocator(subs=(1.0,) if percent or decades else (1.0, 2.0, 5.0)))
    scale.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g}%" if percent else f"{v:g}"))
    scale.set_minor_formatter(NullFormatter())


def rows_from_top(axis: Axes, names: Iterable[object]) -> np.ndarray:
    """A row for each name, from the top, its words along the vertical axis: (N,) the places of the rows."""
    words = [textwrap.fill(readable(name), 26) for name in names]
    place = np.arange(len(words))[::-1]
    axis.set_yticks(place, words)
    axis.set_ylim(-0.6, len(words) - 0.4)
    return place


def readable(name: object) -> str:
    """A column or class name as words, acronyms as they are written."""
    return re.sub("[A-Za-z]+", lambda word: _WRITTEN.get(word[0], word[0]), str(name).replace("_", " "))


def shared_legend(figure: Figure, axis: Axes, columns: int = 6, markerscale: float = 1.0) -> None:
    """The legend of one panel, above all panels."""
    named = axis.get_legend_handles_labels()
    figure.legend(*named, loc="outside upper center", ncols=columns, markerscale=markerscale)

"""Figures of what things cost."""

import pandas as pd
from matplotlib.figure import Figure

from lensq.figures.style import CYCLE, panels, styled


@styled
def stage_bars(times: pd.DataFrame) -> Figure:
    """Minutes of each notebook, by stage, one bar a notebook.

    Args:
        times: seconds, one row a notebook, one column a stage.
    """
    figure, (axis,) = panels(1, 1, 0.8 + 0.24 * len(times))
    times.div(60).plot.barh(stacked=True, width=0.7, ax=axis, xlabel="minutes", ylabel="")
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=times.shape[1])
    return figure


@styled
def growth_panels(table: pd.DataFrame) -> Figure:
    """Processor time, and private memory, against the number of cutouts.

    Args:
        table: by number of cutouts, with the columns of `lensq.study.costs.growth_table` (seconds, MB).
    """
    figure, axes = panels(2, 2, 2.8)
    time = table["processor time"]
    axes[0].loglog(time.index, time, "o-", color=CYCLE[0], label="measured")
    proportional = time.iloc[0] * time.index / time.index[0]
    axes[0].loglog(time.index, proportional, ":", color="0.4", label="in proportion to the first")
    axes[0].set_ylabel("seconds of a processor")
    names = {"private memory, scoring": "scoring", "private memory, survey open": "survey open, before"}
    for colour, (column, label) in zip(CYCLE[1:], names.items(), strict=False):
        axes[1].semilogx(table.index, table[column], "o-", color=colour, label=label)
    axes[1].set(ylim=(0, None), ylabel="private memory (MB)")
    for axis in axes:
        axis.set_xlabel("cutouts")
        axis.legend()
    return figure

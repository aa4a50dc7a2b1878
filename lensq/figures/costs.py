"""Figures of what things cost."""

import pandas as pd
from matplotlib.figure import Figure

from lensq.figures.style import panels, styled


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
    """Processor time, and private memory, of each stage against the number of objects.

    Args:
        table: of `lensq.study.costs.growth_table` (seconds, MB).
    """
    figure, axes = panels(2, 2, 3.4)
    labels = {"processor time": "seconds of a processor", "private memory": "private memory (MB)"}
    for axis, (what, label) in zip(axes, labels.items(), strict=True):
        for stage, values in table[what].iterrows():
            axis.loglog(values.index, values, "o-", label=stage)
        axis.set(xlabel="objects", ylabel=label)
    first = table["processor time"].iloc[0]
    proportional = first.iloc[0] * first.index / first.index[0]
    axes[0].loglog(first.index, proportional, ":", color="0.4", label="in proportion")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4)
    return figure

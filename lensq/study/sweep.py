"""One variant trained at many settings: the grid, and what came of it, side by side.

A sweep chooses, so it looks at selection rows only.
"""

import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pandas as pd
import yaml

from lensq.statistics.guard import labelled, require_split
from lensq.statistics.metrics import measure
from lensq.study.parameters import check_names, read_parameters, variant_notebooks

CHOSEN = "RESNET18_BETATC_VAE"
"""The variant that the study goes on with, unless a profile says otherwise."""

_PLACES = ("survey", "results")


def read_grid(text: str, notebook: Path) -> list[dict[str, object]]:
    """Every combination of a grid such as `latent=8,16 seed=0,1`.

    Args:
        text: parameters with their values, `name=value,value`, apart by spaces.
        notebook: the notebook that declares them.

    Raises:
        ValueError: a name is not declared, a value is refused, or the text has another form.
    """
    declared = read_parameters(notebook)
    grid: dict[str, list[object]] = {}
    for entry in text.split():
        name, _, values = entry.partition("=")
        # Values name folders, so they hold no more than what every shell and file system takes.
        if not re.fullmatch(r"[\w.,+-]+", values) or name in grid or name in _PLACES:
            raise ValueError(f"the grid has {entry!r}; write each parameter once, as name=value,value")
        check_names([name], declared)
        grid[name] = [yaml.load(value, yaml.SafeLoader) for value in values.split(",")]
        for value in grid[name]:
            declared[name].check(value)
    if not grid:
        raise ValueError("the grid is empty; write for instance latent=8,16 seed=0,1")
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def read_sweep(
    config: Mapping[str, str], chosen: str, notebooks: Path
) -> tuple[str, dict[str, dict[str, object]]]:
    """The variant to train and the settings of each run by its name.

    Args:
        config: may hold "variant" and "grid".
        chosen: the variant where none is named.
        notebooks: folder of the notebooks.

    Raises:
        ValueError: there is no such variant, or the grid is refused.
    """
    variant, variants = config.get("variant", chosen), variant_notebooks(notebooks)
    if variant not in variants:
        raise ValueError(f"VARIANT={variant} is no variant; there are {', '.join(variants)}")
    grid = read_grid(config.get("grid", "latent=8,16 seed=0,1"), notebooks / f"{variants[variant]}.ipynb")
    return variant, {run_name(run): run for run in grid}


def run_name(settings: Mapping[str, object]) -> str:
    """The folder of one run: `latent=8,seed=0`."""
    return ",".join(f"{name}={value}" for name, value in settings.items())


def settings_of(name: str) -> dict[str, object]:
    """The inverse of `run_name`."""
    entries = (entry.partition("=") for entry in name.split(","))
    return {key: yaml.safe_load(value) for key, _, value in entries}


def compare_runs(
    tables: Mapping[str, pd.DataFrame], score: str, *, against: str = "label", **options
) -> pd.DataFrame:
    """Every run of a sweep by its metrics on the selection tiles, the best first.

    Args:
        tables: run name to its Scores table, selection rows only.
        score: column to measure, higher is more anomalous.
        against: see `guard.labelled`.
        **options: prevalence, resamples and seed of `metrics.measure`.

    Returns:
        One row a run: its settings, and for each metric `<metric>`, `<metric>_low`, `<metric>_high`.

    Raises:
        LeakageError: a table holds rows of another split.
    """
    rows = []
    for name, table in tables.items():
        require_split(table, "selection", purpose="comparing the runs of a sweep")
        known, positive = labelled(table, against)
        measured = measure(known[score].to_numpy(), positive, **options)
        row = settings_of(name)
        for metric in ("AP", "AUROC"):
            value, low, high = measured.loc[metric, ["value", "low", "high"]]
            row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        rows.append(row)
    return pd.DataFrame(rows).sort_values("AP", ascending=False, kind="stable", ignore_index=True)


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """AP of a table of `compare_runs`, runs that differ in `seed` alone put together, the best first.

    Returns:
        One row a setting; columns: the settings but the seed, then `mean`, `sd` (ddof 1; empty for one seed)
        and `seeds`, the number of runs.
    """
    settings = list(table.columns[: table.columns.get_loc("AP")].drop("seed", errors="ignore"))
    if not settings:
        raise ValueError("nothing but the seed was varied; sweep over another parameter too")
    grouped = table.groupby(settings)["AP"].agg(mean="mean", sd="std", seeds="count").reset_index()
    return grouped.sort_values("mean", ascending=False, kind="stable", ignore_index=True)

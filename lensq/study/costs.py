"""Where the time of a run went, what the benchmarks measured, what 10^8 cutouts would take."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

STAGES = {
    "simulating": r"simulate_survey|make_test_survey",
    "training": r"lensq\.fit\(|\bfinetune\(|label_the_top|fit_supervised",
    "scoring": r"\.score\(|score_on_test\(|\ball_entries\(",
}
"""What a cell's time counts as, by what it calls, the last of these that it does; if none, as analysis."""

OTHER, START = "analysis and figures", "starting up"


def stage_times(notebooks: Path | str, leave_out: str = "") -> pd.DataFrame:
    """Seconds that executed notebooks took, by stage, as papermill recorded them.

    Args:
        notebooks: folder of executed notebooks.
        leave_out: name of a notebook that does not count, without its ending.

    Returns:
        One row a notebook, in their order, one column a stage; what a notebook took beyond its cells counts
        as starting up.

    Raises:
        FileNotFoundError: there is no notebook that papermill ran.
    """
    rows = {}
    for file in sorted(Path(notebooks).glob("[0-9]*.ipynb")):
        document = json.loads(file.read_text())
        whole = document["metadata"].get("papermill", {}).get("duration")
        if whole is None or file.stem == leave_out:
            continue
        seconds = dict.fromkeys([*STAGES, OTHER], 0.0)
        for cell in document["cells"]:
            took = cell["metadata"].get("papermill", {}).get("duration") or 0.0
            source = "".join(cell["source"])
            stage = [OTHER, *(name for name, calls in STAGES.items() if re.search(calls, source))][-1]
            seconds[stage] += took if cell["cell_type"] == "code" else 0.0
        rows[file.stem] = seconds | {START: max(whole - sum(seconds.values()), 0.0)}
    if not rows:
        raise FileNotFoundError(f"{notebooks} holds no notebook that was run: run the study with make book")
    return pd.DataFrame.from_dict(rows, orient="index")


def read_benchmarks(folder: Path | str) -> dict[str, dict]:
    """The files that the benchmarks wrote, by name: "claim", "machine", "settings", "figures", "ratios".

    Files whose figures are not of the form "what", "value", "unit" tell of other things than costs and are
    passed over.

    Raises:
        FileNotFoundError: there is none.
    """
    files = sorted(Path(folder).glob("*.json"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no figures of benchmarks: make bench")
    documents = {file.stem: json.loads(file.read_text()) for file in files}
    wanted = {"what", "value", "unit"}
    return {n: one for n, one in documents.items() if all(wanted <= set(row) for row in one["figures"])}


def ratio_table(benchmarks: Mapping[str, dict]) -> pd.DataFrame:
    """Every ratio against a baseline of the same run: `benchmark`, `ratio of`, `ratio`, and the machine."""
    documents = benchmarks.items()
    rows = [(name, *ratio, machine_of(one)) for name, one in documents for ratio in one["ratios"].items()]
    return pd.DataFrame(rows, columns=["benchmark", "ratio of", "ratio", "machine"])


_BOUNDED = (
    ("training", "{}, lensq", "{}, plain", "{}, "),
    ("scoring", "{}: lensq", "{}: plain, same network", "{}: lensq, "),
)


def bound_table(benchmarks: Mapping[str, dict]) -> pd.DataFrame:
    """What training and scoring gain, and what they would gain if only the network took time.

    Args:
        benchmarks: what `read_benchmarks` returned, "training" and "scoring" among it.

    Returns:
        One row a benchmark and variant, with the columns `benchmark`, `variant`, `ratio` against the plain
        way, then that of `network alone` and `convolutions alone`.
    """
    rows = []
    for name, ours, plain, alone in _BOUNDED:
        speeds = {row["what"]: row["value"] for row in benchmarks[name]["figures"]}
        for variant in benchmarks[name]["settings"]["variants"]:
            bounds = {bound: alone + bound for bound in ("network alone", "convolutions alone")}
            against, whole = speeds[plain.format(variant)], {"ratio": ours, **bounds}
            ratios = {column: speeds[what.format(variant)] / against for column, what in whole.items()}
            rows.append({"benchmark": name, "variant": variant, **ratios})
    return pd.DataFrame(rows)


def machine_of(document: dict) -> str:
    """The machine of a benchmark in words."""
    machine = document["machine"]
    gpu = f"{machine['gpu']}, " if machine.get("gpu") else ""
    return f"{gpu}{machine['cores']} cores, {machine['memory_gb']} GB, load {machine['load']:g}"


def growth_table(document: dict) -> pd.DataFrame:
    """The benchmark `million`: one row a stage, in order; columns (quantity, number of objects)."""
    figures = pd.DataFrame(document["figures"])
    table = figures.pivot(index="stage", columns=["what", "objects"], values="value")
    return table.reindex(figures["stage"].unique())


_CONSTANTS = (
    ("FITS file", "ingest", "FITS file", "bytes"),
    ("packed store", "ingest", "packed store", "bytes"),
    ("row of scores", "scoring", "RESNET18_BETATC_VAE: Parquet", "bytes"),
    ("ingest, a core", "ingest", "read_survey, a core", "cutouts/s"),
    ("scoring, a core", "scoring", "RESNET18_BETATC_VAE: lensq, a core", "cutouts/s"),
)


def constants(benchmarks: Mapping[str, dict]) -> pd.DataFrame:
    """What the cost model rests on, as it was measured.

    Args:
        benchmarks: what `read_benchmarks` returned; a constant whose benchmark was not run is left out.

    Returns:
        Index: the constant; columns: `value` (the best of several settings), `unit`, `benchmark`, `machine`.
    """
    rows = {}
    for constant, benchmark, what, unit in _CONSTANTS:
        document = benchmarks.get(benchmark, {"figures": []})
        values = [row["value"] for row in document["figures"] if row["what"] == what]
        if values:
            rows[constant] = max(values), unit, benchmark, machine_of(document)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "unit", "benchmark", "machine"])


def cost_model(measured: pd.DataFrame, cutouts: float, *, core_hour: float, tb_month: float) -> pd.DataFrame:
    """What a survey of so many cutouts takes, from what one cutout takes: everything grows in proportion.

    Args:
        measured: what `constants` returned.
        cutouts: number of cutouts.
        core_hour: price of an hour of one core.
        tb_month: price of keeping 10^12 bytes for a month.

    Returns:
        Index: what is done or kept; columns: `a cutout` (bytes or seconds), `in all` (10^12 bytes, or hours),
        `unit`, `price` of that unit, `money`.
    """
    kept = measured["unit"] == "bytes"
    plan = pd.DataFrame({"a cutout": measured["value"].where(kept, 1 / measured["value"])})
    plan["in all"] = plan["a cutout"] * cutouts / np.where(kept, 1e12, 3600)
    plan["unit"] = np.where(kept, "TB, a month", "core hours")
    plan["price"] = np.where(kept, tb_month, core_hour)
    return plan.assign(money=plan["in all"] * plan["price"])


def shown(plan: pd.DataFrame) -> Styler:
    """A plan as it is read on a page: a cutout in bytes or in milliseconds.

    Args:
        plan: what `cost_model` returned.
    """
    kept = plan.index[plan["unit"].str.startswith("TB")]
    page = plan.style.format({"in all": "{:.3g}", "price": "{:g}", "money": "{:,.2f}"})
    page.format(lambda seconds: f"{1000 * seconds:.2f} ms", subset="a cutout")
    return page.format("{:,.0f} bytes", subset=(kept, "a cutout"))

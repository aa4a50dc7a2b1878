"""What a run took, what the benchmarks wrote, and what a survey of any size would take."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from lensq import figures
from lensq.study.costs import (
    _CONSTANTS,
    OTHER,
    START,
    bound_table,
    constants,
    cost_model,
    growth_table,
    machine_of,
    ratio_table,
    read_benchmarks,
    shown,
    stage_times,
)

CORE = "RESNET18_BETATC_VAE: lensq, a core"
MACHINE = {"cores": 2, "memory_gb": 25, "load": 0.4, "gpu": None}


def notebook(folder: Path, name: str, duration: float | None, *cells: tuple[str, float | None]) -> None:
    made = [
        {
            "cell_type": "code",
            "source": source.splitlines(keepends=True),
            "metadata": {"papermill": {"duration": seconds}},
        }
        for source, seconds in cells
    ]
    made.append({"cell_type": "markdown", "source": "lensq.fit(survey)", "metadata": {}})
    about = {} if duration is None else {"papermill": {"duration": duration}}
    (folder / f"{name}.ipynb").write_text(json.dumps({"cells": made, "metadata": about}))


@pytest.fixture
def executed(tmp_path) -> Path:
    simulate = ("import lensq\nlensq.simulate_survey(survey)", 60.0)
    notebook(tmp_path, "00_start", 100.0, simulate, ("lensq.figures.pictures(x)", 30.0))
    fit, score = ("model = lensq.fit(\n    sample)", 50.0), ("path = lensq.score(model)", 5.5)
    notebook(tmp_path, "02_variant", 60.0, fit, score, ("quick()", None))
    again = ("where = make_test_survey(sample)\nfound = all_entries(where)", 30.0)
    notebook(tmp_path, "12_both", 40.0, again, ("odds = detector.score(sample)", 8.0))
    notebook(tmp_path, "03_not_run", None, fit)
    notebook(tmp_path, "15_costs", 7.0)
    return tmp_path


def test_each_cell_counts_once_and_stages_add_up_to_the_notebook(executed):
    times = stage_times(executed, leave_out="15_costs")
    assert list(times.index) == ["00_start", "02_variant", "12_both"]
    assert list(times.sum(axis=1)) == [100.0, 60.0, 40.0]
    assert times.loc["12_both", "scoring"] == 38.0
    assert times.loc["00_start"].to_dict() == {
        "simulating": 60.0,
        "training": 0.0,
        "scoring": 0.0,
        OTHER: 30.0,
        START: 10.0,
    }
    assert list(times.loc["02_variant", ["training", "scoring", OTHER, START]]) == [50.0, 5.5, 0.0, 4.5]


def test_missing_runs_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="make book"):
        stage_times(tmp_path)
    with pytest.raises(FileNotFoundError, match="make bench"):
        read_benchmarks(tmp_path)


def figures_of(*rows: tuple[str, float]) -> dict:
    rows = [{"what": what, "value": value, "unit": ""} for what, value in rows]
    return {"machine": MACHINE, "figures": rows, "ratios": {}}


def test_bounds_are_relative_to_the_plain_way_of_the_same_variant():
    training = figures_of(
        ("A, lensq", 30.0), ("A, plain", 10.0), ("A, network alone", 40.0), ("A, convolutions alone", 50.0)
    )
    scoring = figures_of(
        ("B: plain, same network", 20.0),
        ("B: plain, published decoder", 1.0),
        ("B: lensq", 50.0),
        ("B: lensq, eight symmetries", 7.0),
        ("B: lensq, network alone", 60.0),
        ("B: lensq, convolutions alone", 80.0),
    )
    settings = {"training": {"variants": ["A"]}, "scoring": {"variants": ["B"]}}
    both = {"training": training, "scoring": scoring}
    table = bound_table({name: both[name] | {"settings": settings[name]} for name in both})
    assert table.to_dict("list") == {
        "benchmark": ["training", "scoring"],
        "variant": ["A", "B"],
        "ratio": [3.0, 2.5],
        "network alone": [4.0, 3.0],
        "convolutions alone": [5.0, 4.0],
    }


def test_constants_take_the_best_setting_and_leave_out_what_was_not_run():
    measured = constants(
        {
            "scoring": figures_of((CORE, 900.0), (CORE, 1200.0), ("RESNET18_BETATC_VAE: plain", 99999.0)),
            "ingest": figures_of(("FITS file", 14400.0)),
        }
    )
    assert measured["value"].to_dict() == {"FITS file": 14400.0, "scoring, a core": 1200.0}
    assert measured.loc["scoring, a core", "machine"] == "2 cores, 25 GB, load 0.4"
    assert constants({}).empty


def test_costs_are_what_one_cutout_takes_times_their_number():
    rows = [
        ("FITS file", "ingest", "bytes", 20000.0),
    ]
    rows.append(("ingest, a core", "ingest", "cutouts/s", 5000.0))
    measured = pd.DataFrame(
        [{"value": value, "unit": unit, "benchmark": name} for _, name, unit, value in rows],
        index=[row[0] for row in rows],
    )
    prices = {"core_hour": 0.05, "tb_month": 20.0}
    model = cost_model(measured, 1e8, **prices)
    assert model.loc["FITS file", "in all"] == pytest.approx(2.0)  # 10^8 times 20 kB are 2 TB
    assert model.loc["FITS file", "money"] == pytest.approx(40.0)
    assert model.loc["ingest, a core", "in all"] == pytest.approx(2 * 10**4 / 3600)
    assert model.loc["ingest, a core", "money"] == pytest.approx(0.05 * 2 * 10**4 / 3600)
    tenth = cost_model(measured, 1e7, **prices)
    pd.testing.assert_series_equal(tenth["money"] * 10, model["money"])
    dearer = cost_model(measured, 1e8, **prices | {"core_hour": 0.1})
    assert dearer.loc["ingest, a core", "money"] == pytest.approx(2 * model.loc["ingest, a core", "money"])
    assert dearer.loc["FITS file", "money"] == model.loc["FITS file", "money"]

    page = shown(model).to_html()
    assert "20,000 bytes" in page
    assert "0.20 ms" in page  # 5,000 a second
    assert "40.00" in page


def test_ratios_stand_with_their_machine():
    document = figures_of(("a", 1.0)) | {"ratios": {"whole": 4.2}, "machine": MACHINE | {"gpu": "some GPU"}}
    table = ratio_table({"scoring": document, "million": figures_of()})
    assert table.to_dict("records") == [
        {
            "benchmark": "scoring",
            "ratio of": "whole",
            "ratio": 4.2,
            "machine": "some GPU, 2 cores, 25 GB, load 0.4",
        }
    ]


@pytest.mark.slow
def test_bars_and_panels_show_the_tables(executed):
    times = stage_times(executed)
    figure = figures.stage_bars(times)
    axis = figure.axes[0]
    widths = sum(bar.get_width() for bar in axis.patches)
    assert widths == pytest.approx(times.to_numpy().sum() / 60)
    assert [label.get_text() for label in axis.get_yticklabels()] == list(times.index)
    rows = [("reading", 10, 1.0, 50.0), ("reading", 100, 12.0, 60.0)]
    rows += [("a page", 10, 3.0, 400.0), ("a page", 100, 4.0, 900.0)]
    document = figures_of()
    document["figures"] = [
        {"what": what, "stage": stage, "objects": n, "value": value}
        for stage, n, seconds, memory in rows
        for what, value in (("processor time", seconds), ("private memory", memory))
    ]
    table = growth_table(document)
    assert list(table.index) == ["reading", "a page"]
    assert table.loc["reading", ("processor time", 100)] == 12.0
    left, right = figures.growth_panels(table).axes
    assert [list(line.get_ydata()) for line in left.lines] == [[1.0, 12.0], [3.0, 4.0], [1.0, 10.0]]
    assert [list(line.get_ydata()) for line in right.lines] == [[50.0, 60.0], [400.0, 900.0]]


def test_every_constant_is_measured_by_a_benchmark_that_is_kept():
    kept = constants(read_benchmarks(ROOT / "benchmarks" / "results"))
    assert list(kept.index) == [constant for constant, *_ in _CONSTANTS]


def test_the_figures_that_are_kept_say_what_ran_on_what_machine():
    for name, document in read_benchmarks(ROOT / "benchmarks" / "results").items():
        script = "gpu" if name.startswith("gpu_") else name
        assert (ROOT / "benchmarks" / f"{script}.py").is_file(), name
        assert document["claim"]
        assert machine_of(document)
        assert set(document["machine"]) == {"cores", "memory_gb", "load", "gpu", "python", "torch"}
        for row in document["figures"]:
            assert {"what", "value", "unit"} <= set(row), (name, row)

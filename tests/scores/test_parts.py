"""Scoring past one machine: every row once, whatever becomes of a worker; a second call does nothing."""

import json
import shutil
import subprocess
from pathlib import Path

import cutouts
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, environment

import lensq
from lensq.models.batches import Batches
from lensq.models.training import Model
from lensq.models.variants import MODELS, VAE
from lensq.scores.parts import read_counts, score_range
from lensq.scores.scoring import score
from lensq.survey.images import Preprocessing

SIZE = 32
COMMON = ["name", "ra", "dec", "split", "label", "graded"]
DIE_ONCE = """
import os, pathlib, signal, sys
marker = pathlib.Path({marker!r})
if any("part" in word for word in sys.orig_argv) and not marker.exists():
    import pyarrow.parquet as pq
    write = pq.ParquetWriter.write_table
    def write_and_die(self, table, *rest, **options):
        write(self, table, *rest, **options)
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    pq.ParquetWriter.write_table = write_and_die
"""


def write_survey(folder: Path, n: int, first: int) -> Path:
    """A folder of n cutouts without lists."""
    for i in range(first, first + n):
        name = f"J{i // 60 % 24:02}{i % 60:02}00.00+{i % 50:02}0000.0_HSC-I_img.fits"
        cutouts.write(folder / "fits_data" / name, cutouts.pixels(SIZE, seed=i))
    return folder


@pytest.fixture(scope="module")
def surveys(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("surveys")
    write_survey(folder / "north", 50, 0)
    write_survey(folder / "the south's; $(half)", 31, 50)
    return folder


@pytest.fixture(scope="module")
def model(surveys, tmp_path_factory) -> Path:
    """An untrained model, whose scores tell images apart well enough."""
    survey = lensq.read_survey(surveys / "north", size=SIZE, progress=False)
    vae = VAE(MODELS["BetaTC_VAE"].config(size=SIZE, width=4, latent=3, reference_size=64))
    batches = Batches(survey, np.arange(50), Preprocessing(), 25)
    vae.prepare(batches)
    vae.eval().finish(batches)
    made = Model(vae, Preprocessing(), pd.DataFrame(), {"resized": False}, survey.fingerprint)
    return made.save(tmp_path_factory.mktemp("model") / "model.pt")


def whole(model: Path, surveys: Path) -> pd.DataFrame:
    """The scores as one process makes them."""
    loaded, folders = lensq.load_model(model), sorted(surveys.iterdir())
    read = [lensq.read_survey(folder, size=SIZE, progress=False) for folder in folders]
    return pd.concat([score(loaded, survey, progress=False) for survey in read], ignore_index=True)


def assert_each_row_once(out: Path, expected: pd.DataFrame) -> None:
    table = pd.read_parquet(out / "parts")
    assert list(table["name"]) == list(expected["name"])
    numbers = table.columns.difference(COMMON)
    off = (table[numbers] - expected[numbers]).abs() / expected[numbers].std().clip(lower=1e-6)
    assert off.max().max() < 1e-4


def call(out: Path, model: Path, surveys: Path, *more: str, **variables: str) -> subprocess.CompletedProcess:
    """The cluster page's command, on two cores of this machine."""
    command = ["snakemake", "--snakefile", str(ROOT / "scores.smk"), "--directory", str(out), *more]
    command += ["--config", f"model={model}", f"surveys={surveys}/*", "ranges=2"]
    env = environment() | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_worker_killed_half_way_through_a_part_costs_nothing(model, surveys, tmp_path):
    out, marker = tmp_path / "scores", tmp_path / "killed"
    (tmp_path / "sitecustomize.py").write_text(DIE_ONCE.format(marker=str(marker)))
    first = call(out, model, surveys, "--cores", "2", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert first.returncode == 0, first.stderr[-3000:]
    assert marker.exists()
    assert "Trying to restart job" in first.stderr
    assert [path.name for path in sorted(out.glob("parts/north*"))] == [
        f"north.{i}.parquet" for i in range(2)
    ]
    assert len(list((out / "parts").iterdir())) == 4  # nothing of the killed worker is left
    assert_each_row_once(out, whole(model, surveys))

    parts = {path: path.stat().st_mtime_ns for path in out.glob("parts/*")}
    again = call(out, model, surveys, "--cores", "2")
    assert "Nothing to be done" in again.stdout + again.stderr
    missing = out / "parts/north.1.parquet"
    missing.unlink()
    write_survey(surveys / "the south's; $(half)", 5, 90)
    third = call(out, model, surveys, "--cores", "2")
    assert third.returncode == 0, third.stderr[-3000:]
    kept = {path.name for path, time in parts.items() if path.stat().st_mtime_ns == time}
    assert kept == {"north.0.parquet"}  # of a survey that grew all is made again
    assert_each_row_once(out, whole(model, surveys))

    (out / "parts/east.0.parquet").touch()
    foreign = call(out, model, surveys, "--cores", "2")
    assert "east.0.parquet is of other surveys or ranges" in foreign.stderr


@pytest.mark.slow
def test_ranges_hold_each_row_once_and_refuse_a_survey_that_changed(model, surveys, tmp_path):
    counts = tmp_path / "north.json"
    read_counts(model, surveys / "north", counts)
    assert json.loads(counts.read_text())["objects"] == 50
    how = {"symmetries": False, "precision": "fp32", "progress": False}
    left = tmp_path / ".partial-1-n.0.parquet"
    left.touch()
    for number in range(7):
        score_range(model, surveys / "north", counts, number, 7, tmp_path / f"n.{number}.parquet", **how)
    assert not left.exists()
    lengths = [len(pd.read_parquet(path)) for path in sorted(tmp_path.glob("n.*"))]
    assert sum(lengths) == 50
    assert max(lengths) - min(lengths) == 1
    with pytest.raises(ValueError, match="50 objects, fewer than ranges=51"):
        score_range(model, surveys / "north", counts, 0, 51, tmp_path / "n.parquet", **how)
    grown = tmp_path / "grown"
    shutil.copytree(surveys / "north" / "fits_data", grown / "fits_data")
    write_survey(grown, 1, 200)
    with pytest.raises(ValueError, match="grown has changed since it was read"):
        score_range(model, grown, counts, 0, 1, tmp_path / "n.parquet", **how)

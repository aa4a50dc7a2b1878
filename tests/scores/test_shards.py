"""Scoring by the workers of a cluster: every row once, whatever becomes of a worker."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import cutouts
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from dask.distributed import Client, LocalCluster

import lensq
from lensq.models.batches import Batches
from lensq.models.training import Model
from lensq.models.variants import MODELS, VAE
from lensq.scores import shards
from lensq.scores.scoring import score
from lensq.scores.shards import MANIFEST, plan_shards, score_shards
from lensq.survey.images import Preprocessing

SIZE = 32
COMMON = ["name", "ra", "dec", "split", "label", "graded"]


def write_survey(folder: Path, n: int, first: int) -> Path:
    """A folder of n cutouts without lists."""
    for i in range(first, first + n):
        name = f"J{i // 60 % 24:02}{i % 60:02}00.00+{i % 50:02}0000.0_HSC-I_img.fits"
        cutouts.write(folder / "fits_data" / name, cutouts.pixels(SIZE, seed=i))
    return folder


@pytest.fixture(scope="module")
def surveys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surveys")
    return [write_survey(folder / "north", 130, 0), write_survey(folder / "south", 70, 130)]


@pytest.fixture(scope="module")
def model(surveys, tmp_path_factory) -> Path:
    """An untrained model, whose scores tell images apart well enough."""
    survey = lensq.read_survey(surveys[0], size=SIZE, progress=False)
    vae = VAE(MODELS["BetaTC_VAE"].config(size=SIZE, width=4, latent=3, reference_size=64))
    batches = Batches(survey, np.arange(64), Preprocessing(), 32)
    vae.prepare((x, mask) for x, mask, _ in batches)
    vae.eval().finish((x, mask) for x, mask, _ in batches)
    made = Model(vae, Preprocessing(), pd.DataFrame(), {"resized": False}, survey.fingerprint)
    return made.save(tmp_path_factory.mktemp("model") / "model.pt")


@pytest.fixture(scope="module")
def whole(model, surveys) -> pd.DataFrame:
    """The scores as one process makes them."""
    loaded = lensq.load_model(model)
    tables = [
        score(loaded, lensq.read_survey(survey, size=SIZE, progress=False), progress=False)
        for survey in surveys
    ]
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def client():
    """Workers that are threads of this process."""
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0") as client:
        yield client


def job_of(model: Path) -> shards.Job:
    return shards.Job(str(model), lensq.load_model(model).fingerprint, False, "fp32", shards._CODE)


def assert_each_row_once(out: Path, whole: pd.DataFrame) -> None:
    table = pd.read_parquet(out)
    assert table["name"].is_unique
    assert list(table["name"]) == list(whole["name"])
    numbers = table.columns.difference(COMMON)
    off = (table[numbers] - whole[numbers]).abs() / whole[numbers].std().clip(lower=1e-6)
    assert off.max().max() < 1e-4


def die_once(marker: str) -> None:
    """On a worker: let the first of all workers that has written half of a part be killed by the system."""
    write = shards.score

    def score_and_die(*arguments, out, rows, **options):
        if not Path(marker).exists():
            Path(marker).touch()
            half = out.with_name(f"{out.name}.half.partial")
            write(*arguments, out=half, rows=rows[: len(rows) // 2], **options)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(*arguments, out=out, rows=rows, **options)

    shards.score = score_and_die


def test_a_worker_killed_half_way_through_a_part_costs_nothing(model, surveys, whole, tmp_path):
    marker, out = tmp_path / "killed", tmp_path / "scores"
    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        before = {worker["pid"] for worker in client.run(lambda: {"pid": os.getpid()}).values()}
        client.run(die_once, str(marker))
        score_shards(model, surveys, out, client=client, shard_rows=25, progress=False)
        client.wait_for_workers(2)
        after = {worker["pid"] for worker in client.run(lambda: {"pid": os.getpid()}).values()}
    assert marker.exists()
    assert len(before) == len(after) == 2
    assert len(before & after) == 1  # one of the two was killed, and replaced
    assert len(list(out.glob("part-*.parquet"))) == 6 + 3
    assert sorted(path.name for path in out.iterdir())[0] == MANIFEST
    assert not list(out.glob("*.partial"))
    assert_each_row_once(out, whole)


def test_only_what_is_missing_is_made_again(model, surveys, whole, client, tmp_path):
    score_shards(model, surveys, tmp_path, client=client, shard_rows=40, progress=False)
    parts = sorted(tmp_path.glob("part-*"))
    manifest = (tmp_path / MANIFEST).read_text()
    kept = {path: path.stat().st_mtime_ns for path in parts}
    parts[1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:-100])
    shutil.copy(parts[4], parts[3])  # whole, but of another survey's length
    score_shards(model, surveys, tmp_path, client=client, shard_rows=40, progress=False)
    again = {path for path in parts if path.stat().st_mtime_ns != kept[path]}
    assert again == set(parts[1:4])
    assert (tmp_path / MANIFEST).read_text() == manifest
    assert_each_row_once(tmp_path, whole)


def test_a_part_counts_only_as_the_scores_that_the_manifest_asks_for(model, surveys, client, tmp_path):
    score_shards(model, surveys[1:], tmp_path, client=client, progress=False)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    job, shard = shards.Job(**manifest["job"]), shards.Shard(**manifest["shards"][0])
    part = tmp_path / shard.part
    assert shards.is_whole(part, job, shard)
    for change in ({"fingerprint": "another"}, {"last": shard.last + 1}, {"first": 1}):
        assert not shards.is_whole(part, job, replace(shard, **change)), change
    for change in (
        {"fingerprint": "another"},
        {"symmetries": True},
        {"precision": "bf16"},
        {"code": "another"},
    ):
        assert not shards.is_whole(part, replace(job, **change), shard), change
    assert not shards.is_whole(tmp_path / "none.parquet", job, shard)


def test_a_folder_holds_one_set_of_scores(model, surveys, client, tmp_path):
    score_shards(model, surveys[1:], tmp_path, client=client, progress=False)
    with pytest.raises(ValueError, match=r"another job\): take another folder"):
        score_shards(model, surveys[1:], tmp_path, client=client, symmetries=True, progress=False)
    with pytest.raises(ValueError, match=r"another shards\)"):
        score_shards(model, surveys, tmp_path, client=client, progress=False)
    with pytest.raises(ValueError, match="south is named twice"):
        score_shards(model, [surveys[1], surveys[1]], tmp_path, client=client, progress=False)
    with pytest.raises(ValueError, match="shard_rows=0"):
        score_shards(model, surveys, tmp_path, client=client, shard_rows=0, progress=False)


def test_a_survey_that_fails_is_named_and_the_rest_is_kept(model, surveys, whole, client, tmp_path):
    empty = tmp_path / "west"
    empty.mkdir()
    with pytest.raises(RuntimeError, match=r"1 of 2 failed to open, .*west with FileNotFoundError"):
        score_shards(model, [surveys[0], empty], tmp_path / "out", client=client, progress=False)


def test_a_survey_that_changed_after_the_manifest_is_refused(model, surveys, client, tmp_path):
    shard = shards.Shard("part-000000.parquet", str(surveys[0]), "another", 0, 10)
    with pytest.raises(ValueError, match=r"north has changed"):
        shards._score_shard(job_of(model), shard, str(tmp_path), "call")


def test_a_worker_reads_a_survey_and_a_model_anew_that_changed_since_its_last_job(model, surveys, tmp_path):
    """Of several workers one opens the survey for all; the others still hold what they read before."""
    grown, path = tmp_path / "grown", shutil.copy(model, tmp_path / "model.pt")
    shutil.copytree(surveys[1] / "fits_data", grown / "fits_data")
    shards._open(str(path), str(grown))
    write_survey(grown, 5, 300)
    other = lensq.load_model(model)
    other.settings["seed"] = 1
    other.save(path)
    now = lensq.read_survey(grown, size=SIZE, progress=False)
    shard = shards.Shard("part-000000.parquet", str(grown), now.fingerprint, 0, len(now))
    shards._score_shard(job_of(path), shard, str(tmp_path), "call")
    assert len(now) == 75
    assert list(pd.read_parquet(tmp_path / shard.part)["name"]) == list(now.names)


def test_a_survey_is_opened_as_the_model_of_today_takes_it(model, surveys, tmp_path):
    path = shutil.copy(model, tmp_path / "model.pt")
    before = shards._open(str(path), str(surveys[1]))
    other = lensq.load_model(model)
    other.settings["resized"] = True
    other.save(path)
    resized = lensq.read_survey(surveys[1], size=SIZE, resize=True, progress=False)
    assert shards._open(str(path), str(surveys[1])) == (70, resized.fingerprint) != before


def test_parts_of_another_scoring_code_are_made_again(model, surveys, whole, client, tmp_path):
    def score_all() -> None:
        score_shards(model, surveys, tmp_path, client=client, shard_rows=40, progress=False)

    score_all()
    manifest = (tmp_path / MANIFEST).read_text()
    older = json.loads(manifest)
    del older["job"]["code"]  # as it was before it was kept
    (tmp_path / MANIFEST).write_text(json.dumps(older))
    parts = sorted(tmp_path.glob("part-*"))
    for part in parts[:2]:
        table = pq.read_table(part)
        pq.write_table(table.replace_schema_metadata(table.schema.metadata | {b"lensq_code": b"older"}), part)
    before = {path: path.stat().st_mtime_ns for path in parts}
    score_all()
    assert {path for path in parts if path.stat().st_mtime_ns != before[path]} == set(parts[:2])
    assert {pq.read_schema(part).metadata[b"lensq_code"] for part in parts} == {shards._CODE.encode()}
    assert (tmp_path / MANIFEST).read_text() == manifest
    assert_each_row_once(tmp_path, whole)


@pytest.mark.parametrize("which", ["loaded", "on the disk"])
def test_a_worker_of_another_scoring_code_is_refused(model, surveys, tmp_path, monkeypatch, which):
    job = job_of(model)
    if which == "loaded":
        monkeypatch.setattr(shards, "_CODE", "older")
    else:
        monkeypatch.setattr(shards, "code_hash", lambda *rooms: "newer")
    shard = shards.Shard("part-000000.parquet", str(surveys[0]), "", 0, 10)
    with pytest.raises(ValueError, match="start caller and workers anew"):
        shards._score_shard(job, shard, str(tmp_path), "call")


def test_what_others_are_writing_in_the_folder_is_left_alone(model, surveys, whole, client, tmp_path):
    others = tmp_path / "_part-000000.parquet.another.partial"
    abandoned = tmp_path / "_part-000001.parquet.another.partial"
    for path in (others, abandoned):
        path.write_bytes(b"half")
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(abandoned, (long_ago, long_ago))
    score_shards(model, surveys, tmp_path, client=client, progress=False)
    assert others.is_file()
    assert not abandoned.exists()
    assert_each_row_once(tmp_path, whole)


def test_a_reader_passes_over_parts_that_are_being_written(model, surveys, client, tmp_path, monkeypatch):
    seen = []

    def score_and_look(*arguments, out, **options):
        score(*arguments, out=out, **options)
        seen.append(len(pd.read_parquet(tmp_path)))

    score_shards(model, surveys[1:], tmp_path, client=client, shard_rows=35, progress=False)
    (tmp_path / "part-000001.parquet").unlink()
    monkeypatch.setattr(shards, "score", score_and_look)
    score_shards(model, surveys[1:], tmp_path, client=client, shard_rows=35, progress=False)
    assert seen == [35]


def test_shards_hold_each_row_once():
    surveys = {"a": (100, "f"), "b": (1, "g"), "c": (7, "h")}
    planned = plan_shards(surveys, 30)
    assert len({shard.part for shard in planned}) == len(planned)
    for folder, (objects, fingerprint) in surveys.items():
        own = [shard for shard in planned if shard.survey == folder]
        rows = [row for shard in own for row in range(shard.first, shard.last)]
        assert rows == list(range(objects))
        assert {shard.fingerprint for shard in own} == {fingerprint}
        assert max(shard.last - shard.first for shard in own) <= 30


def test_the_command_line_scores_on_processes_of_this_machine(model, surveys, whole, tmp_path, capsys):
    shards.main(["--model", str(model), "--out", str(tmp_path), "--workers", "1", *map(str, surveys)])
    assert "200 objects" in capsys.readouterr().out
    assert_each_row_once(tmp_path, whole)
    assert pq.read_schema(tmp_path / "part-000000.parquet").field("knn").metadata[b"description"]
    assert len(json.loads((tmp_path / MANIFEST).read_text())["shards"]) == 2

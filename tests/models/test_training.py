"""Fitting: keyed randomness, resume after a kill, settings, schedules, labels, files."""

import json
import logging
import shutil
import signal
import subprocess
import sys
import weakref
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toy import toy_survey

from lensq.models import loop, training
from lensq.models.batches import Batches, keyed_generator, read_pixels, reveal_labels
from lensq.models.loop import best_epoch, is_over, learning_rate_factor
from lensq.models.options import TRAINING, TrainingOptions, bf16_pays
from lensq.models.training import fit, load_model, save_whole
from lensq.models.variants import MODELS
from lensq.survey.images import Preprocessing

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = {
    "variant": "RESNET18_BETATC_VAE",
    "width": 2,
    "latent": 4,
    "reference_size": 32,
    "epochs": 3,
    "batch_size": 32,
    "augmentation": 0.5,
    "learning_rate": 1e-2,
    "schedule": "constant",
    "progress": False,
}

# The same fit in a process of its own; with "kill" it dies by SIGKILL while it trains after the first epoch.
SCRIPT = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from pathlib import Path
from toy import toy_survey
from lensq.models import loop
from lensq.models.training import fit

if sys.argv[4] == "kill":
    step = loop.Task.training_step
    def training_step(task, batch, batch_idx):
        if task.current_epoch == 2 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(task, batch, batch_idx)
    loop.Task.training_step = training_step
model = fit(toy_survey(Path(sys.argv[2])), out=sys.argv[3], **json.loads(sys.argv[5]))
rank = os.environ.get("LOCAL_RANK", "0")
Path(sys.argv[3], f"fingerprint.{rank}").write_text(model.fingerprint)
"""


def fit_elsewhere(folder: Path, out: Path, how: str, **options) -> int:
    out.mkdir(exist_ok=True)
    script = out / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(Path(__file__).parents[1]), str(folder), str(out), how]
    run = subprocess.run(
        [*command, json.dumps(OPTIONS | options)], capture_output=True, text=True, check=False
    )
    assert run.returncode in (0, -signal.SIGKILL), run.stderr
    return run.returncode


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return toy_survey(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def whole(survey, tmp_path_factory):
    """An uninterrupted fit, and the folder that it wrote."""
    out = tmp_path_factory.mktemp("whole")
    return fit(survey, out=out, **OPTIONS), out


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path).vae.state_dict()


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


@pytest.mark.slow
def test_a_killed_fit_resumes_to_the_same_weights(survey, whole, tmp_path):
    assert fit_elsewhere(tmp_path / "toy", tmp_path / "out", "kill") == -signal.SIGKILL
    held = torch.load(tmp_path / "out" / "last.ckpt", weights_only=True)
    assert len(held["history"]) == 2
    assert not (tmp_path / "out" / "model.pt").exists()
    assert fit_elsewhere(tmp_path / "toy", tmp_path / "out", "go on") == 0
    assert_same(weights(tmp_path / "out"), weights(whole[1]))
    history = load_model(tmp_path / "out").history
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), whole[0].history.drop(columns="seconds"))


@pytest.mark.slow
def test_a_training_begun_on_a_gpu_resumes_on_a_cpu(survey, whole, tmp_path, monkeypatch):
    step = loop.Task.training_step
    interrupted(survey, tmp_path, monkeypatch)
    held = torch.load(tmp_path / "last.ckpt", weights_only=True)
    with monkeypatch.context() as patch:
        patch.setattr("torch.serialization.location_tag", lambda storage: "cuda:99")
        torch.save(held, tmp_path / "last.ckpt")
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(tmp_path / "last.ckpt", weights_only=True)

    load, loaded, alive = torch.load, [], []

    def watched_load(*arguments, **options):
        held = load(*arguments, **options)
        loaded.extend(map(weakref.ref, held["state_dict"].values()))
        return held

    def watched_step(*arguments):
        alive.append(sum(tensor() is not None for tensor in loaded))
        return step(*arguments)

    monkeypatch.setattr(torch, "load", watched_load)
    monkeypatch.setattr(loop.Task, "training_step", watched_step)
    assert fit(survey, out=tmp_path, **OPTIONS).fingerprint == whole[0].fingerprint
    assert loaded
    assert set(alive) == {0}


@pytest.mark.slow
def test_training_takes_no_accelerator_without_double_precision(survey, whole, tmp_path, monkeypatch):
    """Apple Silicon has none; there Lightning would take it of its own accord."""
    monkeypatch.setattr("lightning_fabric.accelerators.mps.MPSAccelerator.is_available", lambda: True)
    assert fit(survey, out=tmp_path, **OPTIONS).fingerprint == whole[0].fingerprint


@pytest.mark.slow
def test_the_reference_sample_is_where_the_model_is(survey, tmp_path, monkeypatch):
    """Its images are laid out for `prepare`, and again for `finish`, which may run on another device."""
    laid = []

    class Watched(Batches):
        @cached_property
        def _images(self):
            laid.append(len(self.rows))
            return Batches._images.func(self)

    monkeypatch.setattr(training, "Batches", Watched)
    fit(survey, out=tmp_path, **OPTIONS | {"epochs": 1})
    assert laid.count(OPTIONS["reference_size"]) == 2


@pytest.mark.slow
def test_a_seed_gives_one_model_and_another_seed_another(survey, whole, tmp_path):
    again = fit(survey, out=tmp_path / "again", **OPTIONS)
    assert_same(again.vae.state_dict(), whole[0].vae.state_dict())
    assert again.fingerprint == whole[0].fingerprint
    other = fit(survey, out=tmp_path / "other", **OPTIONS, seed=1)
    assert other.fingerprint != again.fingerprint
    assert not torch.equal(other.vae.state_dict()["reference_mu"], again.vae.state_dict()["reference_mu"])


@pytest.mark.slow
def test_two_processes_end_with_one_model(tmp_path):
    assert fit_elsewhere(tmp_path / "toy", tmp_path / "out", "whole", devices=2, strategy="ddp") == 0
    fingerprints = [(tmp_path / "out" / f"fingerprint.{rank}").read_text() for rank in "01"]
    assert fingerprints[0] == fingerprints[1] == load_model(tmp_path / "out").fingerprint


@pytest.mark.slow
def test_two_processes_share_what_does_not_go_round(tmp_path):
    """One validation object, and two steps an epoch where one process would have four."""
    options = {"variant": "SVDD_VAE", "max_images": 17, "batch_size": 4, "svdd_from_epoch": 2}
    options |= {"devices": 2, "strategy": "ddp"}
    assert fit_elsewhere(tmp_path / "toy", tmp_path / "out", "whole", **options) == 0
    fingerprints = [(tmp_path / "out" / f"fingerprint.{rank}").read_text() for rank in "01"]
    model = load_model(tmp_path / "out")
    assert fingerprints[0] == fingerprints[1] == model.fingerprint
    assert model.history["train_svdd"].notna().tolist() == [False, False, True]
    assert model.history["validation_loss"].notna().all()


@pytest.mark.slow
def test_global_random_state_is_left_alone(survey, tmp_path):
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fit(survey, out=tmp_path, **OPTIONS | {"epochs": 1})
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@pytest.mark.slow
def test_a_finished_fit_returns_at_once_and_unchanged(survey, whole, tmp_path, capsys):
    model, out = whole
    before = (out / "model.pt").stat().st_mtime_ns
    again = fit(survey, out=out, **OPTIONS | {"progress": True})
    assert "nothing to do" in capsys.readouterr().out
    assert again.fingerprint == model.fingerprint
    assert (out / "model.pt").stat().st_mtime_ns == before


@pytest.mark.slow
def test_other_settings_start_afresh_and_say_so(survey, tmp_path, caplog):
    options = OPTIONS | {"epochs": 1}
    first = fit(survey, out=tmp_path, **options)
    with caplog.at_level(logging.WARNING):
        second = fit(survey, out=tmp_path, **options | {"learning_rate": 1e-3})
    assert "learning_rate 0.01 -> 0.001" in caplog.text
    assert "seed" not in caplog.text
    assert second.fingerprint != first.fingerprint
    assert len(second.history) == 1


@pytest.mark.slow
def test_changed_code_is_another_fit(survey, tmp_path, monkeypatch, caplog):
    options = OPTIONS | {"epochs": 1}
    fit(survey, out=tmp_path, **options)
    monkeypatch.setattr("lensq.models.training.code_hash", lambda *modules: "edited")
    with caplog.at_level(logging.WARNING):
        assert fit(survey, out=tmp_path, **options).settings["code"] == "edited"
    assert "code" in caplog.text


@pytest.mark.slow
def test_training_learns_and_keeps_the_best_epoch(survey, tmp_path):
    model = fit(survey, out=tmp_path, **OPTIONS | {"epochs": 12, "patience": None})
    losses = model.history["validation_loss"]
    assert losses.min() < 0.5 * losses[0]
    assert losses.idxmin() < 11
    shorter = fit(survey, out=tmp_path / "best", **OPTIONS | {"epochs": int(losses.idxmin()) + 1})
    assert_same(model.vae.state_dict(), shorter.vae.state_dict())
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert not torch.equal(last["vae.encoder.stages.0.weight"], model.vae.encoder.stages[0].weight)


def test_files_of_a_fit(whole):
    model, out = whole
    written = pd.read_csv(out / "history.csv")
    assert list(written.columns) == list(model.history.columns)
    assert list(written["epoch"]) == [0, 1, 2]
    terms = ("loss", "reconstruction", "kl", "mutual_information", "total_correlation", "dimension_wise_kl")
    assert {f"{split}_{term}" for split in ("train", "validation") for term in terms} <= set(written.columns)
    assert list((out / "tensorboard").glob("events.out.tfevents.*"))
    held = torch.load(out / "model.pt", weights_only=True)
    assert json.loads(held["document"])["settings"] == model.settings


def test_save_and_load(whole, tmp_path):
    model = whole[0]
    loaded = load_model(model.save(tmp_path / "deep" / "model.pt"))
    assert_same(loaded.vae.state_dict(), model.vae.state_dict())
    assert loaded.vae.config == model.vae.config
    assert loaded.preprocessing == model.preprocessing
    assert (loaded.settings, loaded.survey_fingerprint) == (model.settings, model.survey_fingerprint)
    assert loaded.fingerprint == model.fingerprint
    pd.testing.assert_frame_equal(loaded.history, model.history)
    assert not loaded.vae.training


@pytest.mark.slow
def test_a_recipe_trains_the_same_model_again(survey, tmp_path):
    options = OPTIONS | {
        "variant": "BetaTC_VAE",
        "epochs": 1,
        "normalisation": "asinh",
        "beta": 3.0,
        "seed": 4,
    }
    model = fit(survey, out=tmp_path / "first", **options)
    assert model.recipe.keys() >= TRAINING
    again = fit(survey, out=tmp_path / "again", progress=False, **load_model(tmp_path / "first").recipe)
    assert again.fingerprint == model.fingerprint


def interrupted(survey, out, monkeypatch, epoch=2):
    """A fit with `OPTIONS` that ends in the middle of an epoch."""
    step = loop.Task.training_step

    def failing(task, batch, batch_idx):
        if task.current_epoch == epoch:
            raise InterruptedError
        return step(task, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Task, "training_step", failing)
        with pytest.raises(InterruptedError):
            fit(survey, out=out, **OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_a_torn_checkpoint_is_said_and_training_starts_anew(
    survey, whole, tmp_path, monkeypatch, caplog, damage
):
    interrupted(survey, tmp_path, monkeypatch)
    last = tmp_path / "last.ckpt"
    if damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, last)
    else:
        last.write_bytes(last.read_bytes()[: 3000 if damage == "cut" else 0])
    with caplog.at_level(logging.WARNING):
        model = fit(survey, out=tmp_path, **OPTIONS)
    assert f"{last} cannot be read" in caplog.text
    assert model.fingerprint == whole[0].fingerprint


@pytest.mark.slow
def test_a_damaged_model_is_made_again_from_its_checkpoint(survey, whole, tmp_path, monkeypatch, caplog):
    shutil.copytree(whole[1], tmp_path / "out")
    (tmp_path / "out" / "model.pt").write_bytes(b"no model")
    (tmp_path / "out" / "settings.json").write_text("{")
    monkeypatch.setattr(loop.Task, "training_step", None)  # nothing is left to train
    with caplog.at_level(logging.WARNING):
        assert fit(survey, out=tmp_path / "out", **OPTIONS).fingerprint == whole[0].fingerprint
    assert "model.pt cannot be read" in caplog.text
    assert load_model(tmp_path / "out").fingerprint == whole[0].fingerprint


@pytest.mark.slow
def test_the_checkpoint_is_never_seen_half_written(survey, whole, tmp_path, monkeypatch):
    """A kill while it is written leaves the one before, wherever TMPDIR is."""
    interrupted(survey, tmp_path, monkeypatch, epoch=1)
    before = (tmp_path / "last.ckpt").read_bytes()

    def torn(document, file):
        file.write(b"half of it")
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", torn)
        with pytest.raises(OSError, match=r"cannot write .*last\.ckpt"):
            fit(survey, out=tmp_path, **OPTIONS)
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert fit(survey, out=tmp_path, **OPTIONS).fingerprint == whole[0].fingerprint


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("lensq.models.training.atomic", lambda path: nullcontext(Path("/dev/full")))
    with pytest.raises(OSError, match=r"cannot write .*model\.pt .*No space left.*make space"):
        save_whole({"weights": torch.zeros(10**6)}, tmp_path / "model.pt")


def test_load_errors_name_the_file_and_a_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.pt does not exist: fit a model first"):
        load_model(tmp_path)
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"broken\.pt cannot be read as a model.*delete it and fit again"):
        load_model(broken)


def test_arguments_are_checked(survey, tmp_path):
    for options, match in [
        ({"variant": "VAE"}, "lensq.MODELS offers"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"train_on": "lenses"}, "train_on='lenses'"),
        ({"schedule": "steps"}, "schedule='steps'"),
        ({"colour": "red"}, "no option colour; It takes activation"),
        ({"epoch": 3}, "no option epoch; did you mean epochs"),
        ({"size": 64}, "no option size"),
        ({"normalisation": "log"}, "normalisation='log'"),
        ({"epochs": 0}, "epochs=0"),
    ]:
        with pytest.raises(ValueError, match=match):
            fit(survey, out=tmp_path, **OPTIONS | options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_training_that_diverges_ends_with_the_error_that_is_documented(survey, tmp_path):
    with pytest.raises(FloatingPointError, match="is not finite"):
        fit(survey, out=tmp_path, **OPTIONS | {"learning_rate": 1e30})
    assert "FloatingPointError: Training diverged" in fit.__doc__
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.slow
def test_labels_are_used_only_where_it_is_said(survey, tmp_path):
    fast = OPTIONS | {"epochs": 1, "max_images": 40}
    train = survey.rows("train")
    seen = {}
    for train_on in ("all", "normals", "balanced"):
        model = fit(survey, out=tmp_path / train_on, **fast, train_on=train_on)
        seen[train_on] = model.settings["uses_labels"]
    assert seen == {"all": False, "normals": True, "balanced": True}
    semi = fit(survey, out=tmp_path / "semi", **fast | {"variant": "SEMISUP_GMVAE"})
    assert semi.settings["uses_labels"]
    relabelled = replace(survey, labels=np.where(survey.labels == 1, 0, 1).astype(np.int8))
    same = fit(relabelled, out=tmp_path / "relabelled", **fast, train_on="all")
    assert_same(same.vae.state_dict(), weights(tmp_path / "all"))
    unlabelled = replace(survey, labels=np.full_like(survey.labels, -1))
    with pytest.raises(ValueError, match="0 objects to train on"):
        fit(unlabelled, out=tmp_path / "none", **fast, train_on="normals")
    with pytest.raises(ValueError, match="needs both labels"):
        fit(unlabelled, out=tmp_path / "none", **fast, train_on="balanced")
    assert len(train) > 40


def test_early_stopping_and_resume_agree_on_the_end():
    options = TrainingOptions(epochs=10, patience=2)
    falling = [{"validation_loss": loss} for loss in (3.0, 2.0, 1.0, 1.5, 1.4)]
    assert best_epoch(falling) == 2
    assert [is_over(falling[:n], options) for n in range(6)] == [False, False, False, False, False, True]
    assert is_over([{"validation_loss": 1.0}] * 10, options)
    without = [{"train_loss": 1.0}] * 4
    assert best_epoch(without) == 3
    assert not is_over(without, options)


def test_learning_rates_follow_the_schedules():
    reference = [learning_rate_factor("reference", epoch * 200, 200, 40) for epoch in range(40)]
    assert reference[0] == 0.01
    assert reference[1] == 1
    np.testing.assert_allclose(reference[2:29], 1.1 ** -np.arange(1.0, 28.0))
    assert set(reference[28:]) == {reference[28]}
    assert learning_rate_factor("reference", 49, 200, 40) == 0.5
    assert learning_rate_factor("cosine", 200 * 20, 200, 40) == pytest.approx(0.5)
    assert learning_rate_factor("cosine", 200 * 40, 200, 40) == pytest.approx(0, abs=1e-12)
    assert learning_rate_factor("constant", 0, 200, 40) == 1


def test_batches_cover_an_epoch_once_and_are_keyed(survey):
    rows = survey.rows("train")

    def names(epoch, **options):
        batches = Batches(
            survey, rows, Preprocessing(), 16, seed=5, shuffle=True, epoch=lambda: epoch, **options
        )
        return batches, [batch.x for batch in batches]

    batches, first = names(0)
    assert len(first) == len(batches) == len(rows) // 16
    order = batches.positions(0)
    assert sorted(order) == list(range(len(rows)))
    assert not np.array_equal(order, batches.positions(1))
    assert all(torch.equal(a, b) for a, b in zip(first, names(0)[1], strict=True))
    shared = [names(0, rank=rank, world=2)[1] for rank in (0, 1)]
    assert len(shared[0]) == len(shared[1]) == len(first) // 2
    for i, x in enumerate(first[: 2 * (len(first) // 2)]):
        assert torch.equal(x, shared[i % 2][i // 2])
    rotated = names(0, augmentation=1.0)[1]
    assert not torch.equal(rotated[0], first[0])
    assert torch.equal(
        rotated[0].sum((1, 2, 3)).sort().values.round(decimals=2),
        first[0].sum((1, 2, 3)).sort().values.round(decimals=2),
    )


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_kept_on_the_device_are_those_from_the_store(survey, shuffle):
    rows = survey.rows("train")
    options = {"labels": survey.labels[rows], "seed": 5, "shuffle": shuffle, "augmentation": 0.7}
    streamed, kept = (
        Batches(survey, rows, Preprocessing(), 17, **options, epoch=lambda: 3, resident=resident)
        for resident in (False, True)
    )
    pairs = list(zip(streamed, kept, strict=True))
    assert pairs
    assert all(torch.equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))


def test_balanced_draws_are_balanced(survey):
    rows = np.tile(survey.rows("train"), 20)
    anomaly = survey.labels[rows] == 1
    batches = Batches(survey, rows, Preprocessing(), 16, seed=5, shuffle=True, anomaly=anomaly)
    share = anomaly[batches.positions(0)].mean()
    assert anomaly.mean() < 0.3
    assert abs(share - 0.5) < 4 * 0.5 / len(rows) ** 0.5


def test_validation_batches_keep_the_last_objects_and_are_never_augmented(survey):
    rows = survey.rows("validation")
    batches = Batches(survey, rows, Preprocessing(), 7)
    x = torch.cat([batch.x for batch in batches])
    assert len(x) == len(rows)
    images, mask = read_pixels(survey, rows)
    assert torch.equal(x, Preprocessing()(images, mask))


def test_reveal_labels_keeps_a_share_of_each_class():
    labels = np.array([0] * 100 + [1] * 7 + [-1] * 5, np.int8)
    shown = reveal_labels(labels, 0.1, keyed_generator(3, "labelled"))
    assert [(shown == label).sum() for label in (0, 1)] == [10, 1]
    assert (shown[shown >= 0] == labels[shown >= 0]).all()
    assert (reveal_labels(labels, 1.0, keyed_generator(3)) == labels).all()
    with pytest.raises(ValueError, match="labelled_fraction"):
        reveal_labels(labels, 1.5, keyed_generator(3))


def test_keyed_generators_differ_by_key_and_repeat():
    draws = {
        key: torch.rand(4, generator=keyed_generator(1, *key)).tolist()
        for key in [("a", 1), ("a", 2), ("b", 1)]
    }
    assert len({tuple(draw) for draw in draws.values()}) == 3
    assert torch.rand(4, generator=keyed_generator(1, "a", 2)).tolist() == draws["a", 2]


def test_bf16_is_left_alone_where_torch_gets_it_wrong():
    assert not bf16_pays(16)


def test_no_batch_is_short_in_training(survey):
    for n, world, size, length in ((100, 1, 16, 6), (10, 1, 10, 1), (20, 2, 10, 1), (100, 2, 16, 3)):
        batches = [
            Batches(survey, np.arange(n), Preprocessing(), 16, shuffle=True, rank=rank, world=world)
            for rank in range(world)
        ]
        assert [len(each) for each in batches] == [length] * world
        assert {len(batch.x) for each in batches for batch in each} == {size}


@pytest.mark.slow
@pytest.mark.parametrize("variant", list(MODELS))
def test_every_variant_trains_in_bf16_to_finite_curves(variant, survey, tmp_path):
    options = OPTIONS | {"variant": variant, "epochs": 2, "max_images": 48, "precision": "bf16"}
    model = fit(survey, out=tmp_path, **options)
    own = model.history.filter(regex="^(train|validation)_(loss|reconstruction|kl)$")
    assert np.isfinite(own.to_numpy()).all()
    assert int(model.vae.reference_count) == 32

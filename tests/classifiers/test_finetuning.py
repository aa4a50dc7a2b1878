"""The fine-tuned encoder: it finds pairs without labels; those of tiles that calibrate or test stay out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from toy import toy_survey

from lensq import fit
from lensq.classifiers import finetuning
from lensq.classifiers.finetuning import finetune, label_the_top
from lensq.statistics.guard import LABELLED_ON, LeakageError

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

QUICK = {"steps": 60, "batch_size": 32, "progress": False}


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return toy_survey(tmp_path_factory.mktemp("toy"), n=500, size=32)


@pytest.fixture(scope="module")
def model(survey, tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    options = {"epochs": 6, "width": 4, "latent": 6, "noise_scale": 0.1, "batch_size": 32}
    return fit(survey, "SVDD_VAE", out=out, progress=False, **options)


@pytest.fixture(scope="module")
def injected(model, survey, tmp_path_factory):
    return finetune(model, survey, out=tmp_path_factory.mktemp("injected"), **QUICK | {"steps": 200})


def auroc(detector, survey, *splits):
    rows = survey.rows(*splits)
    return roc_auc_score(survey.labels[rows], detector.score(survey, rows, progress=False))


def state(detector):
    return torch.cat([value.flatten().float() for value in detector.network.state_dict().values()])


def test_pairs_are_found_without_labels(injected, survey):
    assert auroc(injected, survey, "conformal", "test") > 0.75
    assert injected.settings["labels_used"] == 0


def test_labels_do_not_reach_a_detector_of_injected_lenses(injected, model, survey, tmp_path):
    blind = replace(survey, labels=np.full_like(survey.labels, -1), graded=np.zeros(len(survey), bool))
    again = finetune(model, blind, out=tmp_path, **QUICK | {"steps": 200})
    assert torch.equal(state(again), state(injected))


def test_labels_come_on_top(injected, model, survey, tmp_path):
    labels = np.where(np.isin(survey.split, LABELLED_ON), survey.labels, -1)
    tuned = finetune(model, survey, labels, out=tmp_path, start=injected, **QUICK | {"learning_rate": 1e-3})
    assert tuned.settings["labels_used"] == (labels >= 0).sum()
    assert auroc(tuned, survey, "conformal", "test") > max(
        0.9, auroc(injected, survey, "conformal", "test") - 0.01
    )
    assert not torch.equal(state(tuned), state(injected))


@pytest.mark.parametrize(("share", "labelled"), [(0.0, 0), (0.25, 8), (1.0, 32)])
def test_so_many_of_a_batch_have_a_label_and_the_rest_is_injected(
    share, labelled, model, survey, tmp_path, monkeypatch
):
    drawn = {"labelled": 0, "injected": 0}

    class Counted(finetuning._Draw):
        def labelled(self, n, generator):
            drawn["labelled"] += n
            return super().labelled(n, generator)

        def injected(self, n, generator):
            drawn["injected"] += n
            return super().injected(n, generator)

    monkeypatch.setattr(finetuning, "_Draw", Counted)
    labels = np.where(np.isin(survey.split, LABELLED_ON), survey.labels, -1)
    finetune(model, survey, labels, out=tmp_path, share_labelled=share, **QUICK | {"steps": 20})
    assert drawn == {"labelled": 20 * labelled, "injected": 20 * (32 - labelled)}


def test_a_label_of_a_tile_that_calibrates_or_tests_is_a_leak(model, survey, tmp_path):
    for split in ("conformal", "test"):
        labels = np.where(np.isin(survey.split, [*LABELLED_ON, split]), survey.labels, -1)
        with pytest.raises(LeakageError, match="conformal or test"):
            finetune(model, survey, labels, out=tmp_path, **QUICK)
    one_class = np.where(np.isin(survey.split, LABELLED_ON), 0, -1)
    with pytest.raises(ValueError, match="both classes"):
        finetune(model, survey, one_class, out=tmp_path, **QUICK)


def test_same_seed_same_weights_and_the_model_is_left_alone(model, survey, tmp_path):
    before = {name: value.clone() for name, value in model.vae.state_dict().items()}
    first, second = (finetune(model, survey, out=tmp_path / name, **QUICK) for name in ("a", "b"))
    assert torch.equal(state(first), state(second))
    assert all(torch.equal(value, before[name]) for name, value in model.vae.state_dict().items())
    other = finetune(model, survey, out=tmp_path / "c", seed=1, **QUICK)
    assert not torch.equal(state(first), state(other))


def test_a_second_call_reads_what_the_first_wrote(model, survey, tmp_path, monkeypatch):
    first = finetune(model, survey, out=tmp_path, **QUICK)
    monkeypatch.setattr(finetuning, "train", lambda *_, **__: pytest.fail("trained again"))
    second = finetune(model, survey, out=tmp_path, **QUICK)
    assert torch.equal(state(first), state(second))
    assert second.settings == first.settings


def test_a_score_is_of_one_image(injected, survey):
    rows = survey.rows("test")
    together = injected.score(survey, rows, progress=False)
    alone = np.concatenate([injected.score(survey, rows[[i]], progress=False) for i in range(5)])
    assert np.abs(together[:5] - alone).max() < 1e-4 * together.std()
    assert len(np.unique(together)) == len(rows)


def test_the_labeller_is_asked_for_the_top_of_the_train_tiles_alone(injected, model, survey, tmp_path):
    answers = np.where(survey.split == "train", survey.labels, 7)
    tuned, given = label_the_top(model, survey, injected, answers, out=tmp_path, budget=40, **QUICK)
    asked = np.flatnonzero(given >= 0)
    assert len(asked) == tuned.settings["labels_used"] == 40
    assert set(survey.split[asked]) == {"train"}
    assert np.array_equal(given[asked], survey.labels[asked])
    rows = survey.rows("train")
    top = rows[np.argsort(-injected.score(survey, rows, progress=False))[:20]]
    assert np.isin(top, asked).all()


def test_from_answers_that_are_all_the_same_nothing_is_learnt(injected, model, survey, tmp_path):
    tuned, given = label_the_top(
        model, survey, injected, np.zeros(len(survey)), out=tmp_path, budget=10, **QUICK
    )
    assert tuned is injected
    assert (given >= 0).sum() == 10

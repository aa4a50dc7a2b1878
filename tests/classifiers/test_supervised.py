"""The classifier that saw every label: whose labels it sees, and that its score is of one image alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from toy import toy_survey

from lensq.classifiers import classifier, supervised
from lensq.classifiers.classifier import Classifier
from lensq.classifiers.supervised import fit_supervised

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

OPTIONS = {"width": 4, "epochs": 6, "batch_size": 32, "learning_rate": 1e-2, "progress": False}


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return toy_survey(tmp_path_factory.mktemp("toy"), n=600)


@pytest.fixture(scope="module")
def model(survey, tmp_path_factory):
    return fit_supervised(survey, survey.labels, out=tmp_path_factory.mktemp("supervised"), **OPTIONS)


def test_it_tells_pairs_from_single_stars_that_it_never_saw(model, survey):
    rows = survey.rows("conformal", "test")
    score = model.score(survey, rows, progress=False)
    assert roc_auc_score(survey.labels[rows], score) > 0.9
    assert len(np.unique(score)) == len(rows)
    assert model.history["train_loss"].iloc[-1] < 0.5 * np.log(2) < 0.9 * model.history["train_loss"].iloc[0]
    assert model.settings["labels_used"] == len(survey.rows("train", "selection"))


def weights(model):
    return torch.cat([value.flatten().float() for value in model.network.state_dict().values()])


def test_labels_outside_train_and_selection_shape_nothing(model, survey, tmp_path):
    flipped = np.where(np.isin(survey.split, ["train", "selection"]), survey.labels, 1 - survey.labels)
    again = fit_supervised(survey, flipped, out=tmp_path, **OPTIONS)
    assert torch.equal(weights(again), weights(model))
    one = survey.labels.copy()
    one[survey.rows("selection")[0]] ^= 1
    assert not torch.equal(weights(fit_supervised(survey, one, out=tmp_path, **OPTIONS)), weights(model))


def test_unlabelled_objects_are_left_out(survey, tmp_path):
    labels = survey.labels.copy()
    labels[survey.rows("selection")] = -1
    assert fit_supervised(survey, labels, out=tmp_path, **OPTIONS | {"epochs": 1}).settings[
        "labels_used"
    ] == len(survey.rows("train"))


def test_a_second_call_reads_what_the_first_wrote(survey, tmp_path, monkeypatch):
    quick = OPTIONS | {"epochs": 1}
    first = fit_supervised(survey, survey.labels, out=tmp_path, **quick)
    with monkeypatch.context() as patched:
        patched.setattr(supervised, "train", lambda *_, **__: pytest.fail("trained again"))
        second = fit_supervised(survey, survey.labels, out=tmp_path, **quick)
    rows = survey.rows("test")
    assert np.array_equal(
        first.score(survey, rows, progress=False), second.score(survey, rows, progress=False)
    )
    assert second.history.equals(first.history)
    older = {name: value for name, value in second.settings.items() if name != "width"}
    Classifier(second.network, second.preprocessing, second.history, older).save(tmp_path / "model.pt")
    other = fit_supervised(survey, survey.labels, out=tmp_path, **quick | {"seed": 1})
    assert not torch.equal(weights(other), weights(first))
    assert Classifier.load(tmp_path / "model.pt").settings["seed"] == 1


def test_a_score_is_of_one_image_whatever_is_scored_with_it(model, survey, monkeypatch):
    rows = survey.rows("test")
    together = model.score(survey, rows, progress=False)
    order = np.random.default_rng(0).permutation(len(rows))
    monkeypatch.setattr(classifier, "_SCORED_AT_ONCE", 7)
    apart = model.score(survey, rows[order], progress=False)
    assert np.abs(apart - together[order]).max() < 1e-4 * together.std()


def test_threads_change_neither_scores_nor_the_caller(model, survey, monkeypatch):
    """Each batch runs on one thread: threads inside a batch wait for one another at every layer."""
    rows, held, read = survey.rows("test"), [], classifier.read_pixels
    one = model.score(survey, rows, progress=False)

    def reading(*arguments):
        held.append(torch.get_num_threads())
        return read(*arguments)

    monkeypatch.setattr(classifier, "read_pixels", reading)
    monkeypatch.setattr(classifier, "_SCORED_AT_ONCE", 7)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        several = model.score(survey, rows, progress=False)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(held) == {1}
    assert np.abs(several - one).max() < 1e-4 * one.std()


def test_averaged_scores_do_not_change_when_the_image_is_turned(model, survey):
    rows = survey.rows("test")[:20]
    turned = replace(
        survey,
        images=np.ascontiguousarray(np.rot90(survey.images, axes=(1, 2))),
        mask=np.ascontiguousarray(np.rot90(survey.mask, axes=(1, 2))),
    )
    scores = [
        [model.score(each, rows, symmetries=how, progress=False) for each in (survey, turned)]
        for how in (True, False)
    ]
    assert np.allclose(*scores[0], atol=1e-4)
    assert not np.allclose(*scores[1], atol=1e-2)


def test_what_lies_behind_the_mask_changes_no_score(model, survey):
    rows = np.flatnonzero(~survey.mask.all(axis=(1, 2)))[:20]
    dirty = replace(survey, images=np.where(survey.mask, survey.images, 1e6).astype(np.float32))
    clean = model.score(survey, rows, progress=False)
    assert np.array_equal(model.score(dirty, rows, progress=False), clean)


def test_what_it_cannot_learn_from_or_score_is_refused(model, survey, tmp_path):
    with pytest.raises(ValueError, match="labelled lenses and normals in train and selection"):
        fit_supervised(survey, np.zeros(len(survey)), out=tmp_path, **OPTIONS)
    none = np.where(survey.split == "validation", -1, survey.labels)
    with pytest.raises(ValueError, match="in validation"):
        fit_supervised(survey, none, out=tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match="size=20, resize=False"):
        model.score(replace(survey, size=32), survey.rows("test"))

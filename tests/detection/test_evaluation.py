"""The fresh test survey: never what a model learnt from, scored once, and a record of it."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from toy import toy_survey

from lensq.detection import evaluation
from lensq.detection.evaluation import (
    make_test_survey,
    read_test_survey,
    record_of,
    score_on_test,
    scored_as,
    variants_in,
)
from lensq.models.training import fit, load_model
from lensq.scores.scoring import score
from lensq.simulate import simulate_survey
from lensq.statistics.guard import LeakageError
from lensq.survey.survey import read_survey

pytestmark = pytest.mark.slow

VARIANT = "BetaTC_VAE"
TINY = {"width": 2, "latent": 2, "epochs": 1, "batch_size": 8, "reference_size": 16, "progress": False}
FRESH = {"objects": 30, "anomaly_rate": 0.3, "seed": 7002, "progress": False}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "survey"
    simulate_survey(folder, 60, seed=7001, anomaly_rate=0.2, labels="truth", workers=1, progress=False)
    return read_survey(folder, progress=False)


@pytest.fixture(scope="module")
def held_out(sample, tmp_path_factory):
    return make_test_survey(sample, tmp_path_factory.mktemp("fresh") / "test_survey", **FRESH)


def train(survey, results, seed=0):
    model = fit(survey, VARIANT, out=results / VARIANT, seed=seed, **TINY)
    score(model, survey, out=results / VARIANT / "scores.parquet", progress=False)
    return model


@pytest.fixture
def results(sample, tmp_path):
    train(sample, tmp_path)
    return tmp_path


def test_every_object_of_it_is_for_testing_and_none_is_known(sample, held_out):
    assert set(held_out.split) == {"test"}
    assert len(held_out) == 30
    assert held_out.truth["is_lens"].sum() == 9
    assert not set(held_out.names) & set(sample.names)
    assert np.array_equal(held_out.labels == 1, held_out.truth["is_lens"])  # who labels is as in the study


def test_the_seed_of_the_study_is_refused_before_anything_is_made(sample, tmp_path):
    with pytest.raises(LeakageError, match="test_seed=7001 is the seed of the survey"):
        make_test_survey(sample, tmp_path / "t", **FRESH | {"seed": 7001})
    assert not (tmp_path / "t").exists()


def test_a_survey_of_the_study_seed_is_refused_however_it_came_there(sample):
    with pytest.raises(LeakageError, match="has seed 7001 and 60 names in common"):
        read_test_survey(sample, sample.folder, progress=False)


def test_one_shared_name_is_enough_to_refuse(sample, held_out):
    names = np.append(sample.names[1:], held_out.names[3])
    with pytest.raises(LeakageError, match="seed 7002 and 1 names in common"):
        read_test_survey(replace(sample, names=names), held_out.folder, progress=False)


def test_what_was_not_made_cannot_be_read(sample, tmp_path):
    with pytest.raises(FileNotFoundError, match="make it with lensq"):
        read_test_survey(sample, tmp_path, progress=False)


def test_scored_once_and_read_back_after(results, held_out, monkeypatch):
    first = score_on_test(results, VARIANT, held_out, progress=False)
    monkeypatch.setattr(evaluation, "score", lambda *_, **__: pytest.fail("scored again"))
    pd.testing.assert_frame_equal(score_on_test(results, VARIANT, held_out, progress=False), first)
    assert len(record_of(results)["scored"]) == 1


def test_the_table_is_the_score_of_each_image_with_its_truth(results, held_out):
    table = score_on_test(results, VARIANT, held_out, progress=False)
    expected = score(load_model(results / VARIANT), held_out, progress=False)
    pd.testing.assert_frame_equal(table[expected.columns], expected)
    truth = held_out.truth.set_index("name").loc[table["name"]]
    assert table["is_lens"].tolist() == truth["is_lens"].tolist()
    assert table["class"].tolist() == truth["class"].tolist()
    assert table["group"].tolist() == held_out.group.tolist()


def test_another_model_or_survey_is_scored_anew_and_the_record_says_so(sample, results, held_out, tmp_path):
    first = score_on_test(results, VARIANT, held_out, progress=False)
    train(sample, results, seed=1)
    second = score_on_test(results, VARIANT, held_out, progress=False)
    assert not np.allclose(first["kl"], second["kl"])
    other = make_test_survey(sample, tmp_path / "other", **FRESH | {"seed": 7003, "objects": 20})
    assert len(score_on_test(results, VARIANT, other, progress=False)) == 20
    scored = record_of(results)["scored"]
    assert [(was["again"], was["seed"]) for was in scored] == [(False, 7002), (True, 7002), (True, 7003)]
    assert len({was["model"] for was in scored}) == 2


def test_the_record_says_what_the_survey_is(results, held_out):
    score_on_test(results, VARIANT, held_out, progress=False)
    record = json.loads((results / "test/record.json").read_text())
    assert record == record_of(results)
    counts = {name: record["survey"][name] for name in ("seed", "objects", "lenses", "normals", "flagged")}
    assert counts == {"seed": 7002, "objects": 30, "lenses": 9, "normals": 21, "flagged": 9}
    entry = record["scored"][0]
    assert entry["model"] == load_model(results / VARIANT).fingerprint
    assert entry["survey"] == held_out.fingerprint
    assert entry["objects"] == 30
    assert entry["date"].endswith("+00:00")


def test_a_model_is_scored_as_it_was_scored_for_choosing(sample, results, held_out):
    model = load_model(results / VARIANT)
    score(model, sample, out=results / VARIANT / "scores.parquet", symmetries=True, progress=False)
    assert scored_as(results, VARIANT) == {"symmetries": True, "precision": "fp32"}
    table = score_on_test(results, VARIANT, held_out, progress=False)
    expected = score(model, held_out, symmetries=True, progress=False)
    assert np.allclose(table["kl"], expected["kl"], rtol=1e-5)


def test_scores_of_another_model_choose_nothing(sample, results, held_out):
    fit(sample, VARIANT, out=results / VARIANT, seed=5, **TINY)
    with pytest.raises(ValueError, match="was scored by another model than BetaTC_VAE"):
        score_on_test(results, VARIANT, held_out, progress=False)


def test_a_variant_without_scores_is_named(results, held_out):
    (results / VARIANT / "scores.parquet").unlink()
    assert variants_in(results) == []
    with pytest.raises(FileNotFoundError, match="score the study's survey first"):
        score_on_test(results, VARIANT, held_out, progress=False)


def test_a_model_is_never_evaluated_on_what_it_learnt_from(held_out, tmp_path):
    train(replace(held_out, split=np.resize(["train", "validation", "train"], 30)), tmp_path)
    with pytest.raises(LeakageError, match="was trained on"):
        score_on_test(tmp_path, VARIANT, held_out, progress=False)


def test_real_sky_is_evaluated_on_its_own_test_tiles(tmp_path):
    survey = toy_survey(tmp_path / "sky")
    labels = np.where(np.arange(len(survey)) % 3, survey.labels, -1)
    survey = replace(survey, labels=labels)
    assert make_test_survey(survey, tmp_path / "t", **FRESH) is survey
    assert read_test_survey(survey, tmp_path / "t") is survey
    train(survey, tmp_path)
    table = score_on_test(tmp_path, VARIANT, survey, progress=False)
    assert table["name"].tolist() == survey.names[survey.split == "test"].tolist()
    assert "is_lens" not in table
    record = record_of(tmp_path)["survey"]
    assert record["seed"] is None
    assert record["objects"] == (survey.split == "test").sum()
    assert record["lenses"] == (survey.labels[survey.split == "test"] == 1).sum()
    assert record["normals"] == (survey.labels[survey.split == "test"] == 0).sum()
    assert record["lenses"] + record["normals"] < record["objects"]


def test_nothing_scored_has_no_record(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was scored on test objects yet"):
        record_of(tmp_path)

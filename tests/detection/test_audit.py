"""The audit passes what is sound and catches what is planted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tables import scores_table
from toy import toy_survey

from lensq.detection import audit
from lensq.detection.faults import UNUSED, misled_survey, shift_by_label
from lensq.models.training import fit
from lensq.scores.scoring import score
from lensq.statistics import metrics
from lensq.statistics.guard import LeakageError, require_split

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"width": 4, "latent": 4, "reference_size": 64, "batch_size": 16, "epochs": 1, "progress": False}


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return toy_survey(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def model(survey, tmp_path_factory):
    return fit(survey, "BetaTC_VAE", out=tmp_path_factory.mktemp("model"), **SMALL)


@pytest.fixture(scope="module")
def scores(survey, model):
    return score(model, survey, progress=False)


def rows(n=800, anomalies=120, split="selection", seed=1, **options):
    return scores_table(n, anomalies, split=split, seed=seed, **options)


def test_every_step_that_chooses_refuses_and_says_so():
    table = audit.refusals(rows(), rows(split="test", seed=2))
    assert len(table) == 5
    assert table["refused"].str.contains("may only see rows of split").all()
    assert table["refused"].iloc[:3].str.contains("1 of 'test'").all()


@pytest.mark.parametrize(
    "chooser", ["dimension_statistics", "choose_detector", "candidate_list", "fdr_study"]
)
def test_a_step_that_takes_test_rows_stops_the_audit(monkeypatch, chooser):
    monkeypatch.setattr(audit, chooser, lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="rows of a split that it must not see were taken"):
        audit.refusals(rows(), rows(split="test", seed=2))


@pytest.mark.slow
def test_splits_are_what_the_survey_says(survey, scores):
    audit.check_splits(scores, survey)
    audit.check_splits(scores.sample(frac=0.5, random_state=0), survey)
    sneaked = scores[scores["split"] == "test"].head(3).assign(split="selection")
    with pytest.raises(LeakageError, match="3 rows of 'selection' belong to 'test'"):
        audit.check_splits(pd.concat([scores[scores["split"] == "selection"], sneaked]), survey)
    with pytest.raises(LeakageError, match="1 rows are there twice"):
        audit.check_splits(pd.concat([scores, scores.head(1)]), survey)
    with pytest.raises(LeakageError, match="160 rows are no objects of the survey"):
        audit.check_splits(scores.assign(name=scores["name"] + "b"), survey)


def test_a_group_across_two_splits_is_a_leak(survey, scores):
    group = survey.group.copy()
    test, train = survey.rows("test")[0], survey.rows("train")[0]
    group[test] = group[train]
    with pytest.raises(LeakageError, match="1 groups of objects that share pixels lie in two splits"):
        audit.check_splits(scores, replace(survey, group=group))


@pytest.mark.slow
def test_honest_scores_are_reproduced(scores, model, survey):
    table = audit.reproduce(scores, model, survey, objects=50)
    assert table["same"].all()
    assert {"kl", "mu_0", "central_residual", "total_correlation"} <= set(table.index)
    assert not {"label", "split", "ra"} & set(table.index)


@pytest.mark.parametrize("size", [0.001, 1.0])
def test_a_score_that_knows_the_label_is_not(scores, model, survey, size):
    spread = scores["knn"].std()
    planted = scores.assign(knn=scores["knn"] + size * spread * scores["label"])
    table = audit.reproduce(planted, model, survey, objects=160)
    assert table.index[~table["same"]].tolist() == ["knn"]
    assert table.loc["knn", "largest"] == pytest.approx(size, rel=0.25)


def test_means_moved_by_the_label_and_columns_from_elsewhere_are_named(scores, model, survey):
    table = audit.reproduce(shift_by_label(scores, 0.5), model, survey, objects=160)
    assert set(table.index[~table["same"]]) == {f"mu_{d}" for d in range(4)}
    table = audit.reproduce(scores.assign(oracle=scores["label"]), model, survey, objects=10)
    assert table.index[~table["same"]].tolist() == ["oracle"]


@pytest.mark.slow
def test_a_scoring_that_reads_labels_is_found_out(monkeypatch, model, survey):
    def peeking(model, survey, **options):
        table = score(model, survey, **options)
        return table.assign(knn=table["knn"] + 0.01 * survey.labels, kl=table["kl"] + 0.01 * survey.graded)

    monkeypatch.setattr(audit, "score", peeking)
    table = audit.reproduce(peeking(model, survey, progress=False), model, survey, objects=160)
    assert set(table.index[~table["same"]]) == {"knn", "kl"}


@pytest.mark.slow
def test_scores_of_a_batch_are_not_reproduced(scores, model, survey):
    within = scores["mutual_information"] - scores.groupby("label")["mutual_information"].transform("mean")
    table = audit.reproduce(scores.assign(mutual_information=within), model, survey)
    assert table.index[~table["same"]].tolist() == ["mutual_information"]


@pytest.mark.slow
@pytest.mark.parametrize("positives", [5, 40, 400])
def test_average_precision_of_a_guess_is_that_of_random_rankings(positives):
    rng = np.random.default_rng(positives)
    positive = np.arange(40 * positives) < positives
    drawn = [
        metrics.measure(rng.random(len(positive)), positive, prevalence=0.1, resamples=1).loc["AP", "value"]
        for _ in range(150)
    ]
    error = stats.sem(drawn)
    guess = audit.average_precision_of_a_guess(positives, 0.1)
    assert abs(np.mean(drawn) - guess) < 4 * error + 0.02 * guess / positives
    assert guess > 0.1


@pytest.mark.slow
def test_dealt_labels_bring_everything_to_chance():
    runs = audit.chance_runs(
        rows(shifts={1: 2.0}), rows(split="test", seed=2, shifts={1: 2.0}), ["kl", "signal"], n=2, runs=30
    )
    assert set(runs["metric"]) == {"AUROC", "AP", "F1", "precision", "recall"}
    assert runs["covers"].mean() > 0.85
    for metric in ("AUROC", "AP", "precision"):
        summary = audit.chance_summary(runs, metric=metric)
        assert (summary["sigma"].abs() < 4).all(), metric
    table = runs[(runs["metric"] == "AUROC") & (runs["statistic"] == "kl")]
    assert audit.chance_summary(runs).loc["kl", "mean"] == pytest.approx(table["value"].mean())
    assert audit.chance_summary(runs).loc["kl", "covered"] == table["covers"].mean()


@pytest.mark.slow
def test_objects_that_choose_and_evaluate_are_caught():
    own = rows(400, 40, split="test", seed=3, dimensions=64)
    honest = audit.chance_runs(rows(400, 40, dimensions=64), own, ["kl"], n=1, runs=15)
    leaking = audit.chance_runs(own.assign(split="selection"), own, ["kl"], n=1, runs=15)
    assert abs(audit.chance_summary(honest).loc["kl", "sigma"]) < 4
    assert audit.chance_summary(leaking).loc["kl", "sigma"] > 6


def test_a_misled_survey_has_normals_for_anomalies(survey):
    misled = misled_survey(survey)
    for name in ("train", "validation"):
        here, there = survey.rows(name), misled.rows(name)
        anomalies = survey.labels[here] == 1
        assert np.array_equal(there, here[~anomalies])
        assert (misled.labels[there] == 1).sum() == anomalies.sum()
        assert (survey.labels[there] == 0).all()
        first = np.flatnonzero(misled.labels[there] == 1)
        assert np.array_equal(first, np.arange(anomalies.sum()))
    assert (misled.split == UNUSED).sum() == (survey.labels[survey.rows("train", "validation")] == 1).sum()
    own = survey.rows("selection", "conformal", "test")
    assert np.array_equal(misled.labels[own], survey.labels[own])
    assert np.array_equal(misled.split[own], survey.split[own])
    with pytest.raises(LeakageError):
        require_split(pd.DataFrame({"split": misled.split}), "train", "validation", purpose="training")

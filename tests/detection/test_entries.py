"""The entries of the leaderboard, with whose labels and at what cost; another seed of the same training."""

import numpy as np
import pytest
from toy import toy_survey

from lensq.classifiers.baselines import COLUMNS as BASELINES
from lensq.classifiers.baselines import fit_baselines
from lensq.classifiers.classifier import Classifier
from lensq.classifiers.finetuning import finetune, label_the_top
from lensq.classifiers.pointfits import PointFits, with_point_fits
from lensq.classifiers.supervised import fit_supervised
from lensq.detection.entries import (
    FITS,
    NAMES,
    baseline_entries,
    seed_spread,
    trained_entries,
    variant_entries,
)
from lensq.detection.evaluation import score_on_test
from lensq.detection.leaderboard import Entry, expected_lenses, objects, rank_entries
from lensq.models.training import fit, load_model
from lensq.scores.scoring import score
from lensq.statistics.guard import LeakageError
from lensq.statistics.metrics import best_threshold, expected_in_list, measure

pytestmark = pytest.mark.slow

TINY = {"width": 2, "latent": 2, "batch_size": 32, "reference_size": 32, "progress": False}


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return toy_survey(tmp_path_factory.mktemp("toy"), n=600)


@pytest.fixture(scope="module")
def results(survey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for variant, options in {
        "BetaTC_VAE": {"beta": 3.0},
        "SEMISUP_GMVAE": {"labelled_fraction": 0.5},
    }.items():
        model = fit(survey, variant, out=folder / variant, epochs=2, **options, **TINY)
        score(model, survey, out=folder / variant / "scores.parquet", progress=False)
    return folder


@pytest.fixture(scope="module")
def entries(results, survey):
    """Real sky: the survey's own test tiles serve."""
    return variant_entries(results, survey, survey, scores=["kl"], progress=False)


def test_each_variant_comes_with_a_named_score_and_those_asked_for(entries):
    assert {model for model, _ in entries} == {"BetaTC_VAE", "SEMISUP_GMVAE"}
    assert {("BetaTC_VAE", "kl"), ("SEMISUP_GMVAE", "kl"), ("SEMISUP_GMVAE", "anomaly_logit")} <= set(entries)


def test_labels_and_seconds_are_those_of_the_training(entries, results, survey):
    train = survey.labels[survey.rows("train")]
    labelled = sum(int(np.ceil(0.5 * (train == k).sum())) for k in (0, 1))
    for (model, _), entry in entries.items():
        assert entry.labels_used == (labelled if model == "SEMISUP_GMVAE" else 0)
        assert entry.train_s == load_model(results / model).history["seconds"].sum()
        assert entry.score_per_s > 0
        assert entry.images_seen == 2 * len(train)


def test_all_entries_are_of_the_same_objects(entries, results, survey):
    table = score_on_test(results, "BetaTC_VAE", survey, progress=False)
    assert np.array_equal(entries["BetaTC_VAE", "kl"].test, table["kl"])
    assert objects(survey, "test")["name"].tolist() == table["name"].tolist()
    fitted = fit_baselines(survey.images, survey.mask, objects(survey), components=8)
    every = entries | baseline_entries(fitted, survey, survey)
    every |= {("baseline", name): every[NAMES[name], name] for name in ("ecod",)}
    board = rank_entries(every, objects(survey, "selection"), objects(survey, "test"), resamples=10)
    assert len(board) == len(every)
    own = fitted.score(survey.images, survey.mask, objects(survey))
    for name in BASELINES:
        entry = every[NAMES[name], name]
        assert np.allclose(entry.test, own.loc[own["split"] == "test", name], rtol=1e-3, atol=1e-3), name
        assert bool(entry.labels_used) == (name == "pca_logistic")
        assert min(entry.train_s, entry.score_per_s) > 0
    fits = every[FITS]
    points = PointFits.of(survey)
    assert np.array_equal(fits.selection, points.score(survey, survey.rows("selection")))
    assert np.array_equal(fits.test, points.score(survey, survey.rows("test")))
    assert fits.labels_used == 0
    assert min(fits.train_s, fits.score_per_s) > 0


def test_another_seed_is_the_same_training_otherwise(results, survey):
    seed_spread(results, "BetaTC_VAE", survey, survey, [3], scores=["kl"], resamples=20)
    first, second = (load_model(results / name) for name in ("BetaTC_VAE", "seeds/BetaTC_VAE-3"))
    changed = {key for key in first.settings if first.settings[key] != second.settings[key]}
    assert changed == {"seed"}
    assert first.fingerprint != second.fingerprint


def test_the_spread_is_over_all_trainings_and_the_interval_of_the_first(results, survey):
    options = {"scores": ["kl"], "resamples": 20}
    row = seed_spread(results, "BetaTC_VAE", survey, survey, [3, 4], **options).loc["kl"]
    tables = [score_on_test(results, "BetaTC_VAE", survey, progress=False)]
    tables += [
        score_on_test(results / "seeds", f"BetaTC_VAE-{seed}", survey, progress=False) for seed in (3, 4)
    ]
    measured = [
        measure(t["kl"].to_numpy(), t["label"].to_numpy() == 1, resamples=20).loc["AP"] for t in tables
    ]
    values = [m["value"] for m in measured]
    assert row["seeds"] == 3
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["sd"] == pytest.approx(np.std(values, ddof=1))
    assert (row["low"], row["high"]) == (measured[0]["low"], measured[0]["high"])
    alone = seed_spread(results, "BetaTC_VAE", survey, survey, [], **options).loc["kl"]
    assert alone["mean"] == values[0]
    assert np.isnan(alone["sd"])


@pytest.fixture(scope="module")
def trained(results, survey, tmp_path_factory):
    """Detectors of all kinds after two steps each, and the entries of them."""
    model = load_model(results / "BetaTC_VAE")
    labels = np.where(np.isin(survey.split, ["train", "selection"]), survey.labels, -1)
    quick = {"steps": 2, "batch_size": 16, "progress": False}
    folder = results / "injected"
    none = finetune(model, survey, out=folder / "none", **quick)
    few, _ = label_the_top(model, survey, none, survey.labels, out=folder / "few", budget=100, **quick)
    everything = finetune(model, survey, labels, out=folder / "all", start=none, **quick)
    out = tmp_path_factory.mktemp("supervised")
    network = fit_supervised(survey, survey.labels, out=out, width=2, epochs=1, progress=False)
    gain = np.random.default_rng(0).uniform(0, 600, len(survey))
    fits = Entry(gain[survey.rows("selection")], gain[survey.rows("test")], 0, 1.0, 50.0)
    how = {"symmetries": False, "progress": False}
    entries = trained_entries(results, network, survey.labels, survey, survey, fits=fits, **how)
    return {"few": few, "all": everything, "network": network, "fits": fits}, entries


NAME = "BetaTC_VAE + injected lenses"


def test_fine_tuned_encoders_compete_at_the_cost_of_what_they_started_from(results, survey, trained):
    detectors, entries = trained
    labels = {key: entry.labels_used for key, entry in entries.items()}
    assert labels[NAME, "log odds"] == labels[NAME, "log odds and point fits"] == 0
    assert labels[f"{NAME} + few labels", "log odds"] == 100
    used = np.isin(survey.split, ["train", "selection"]).sum()
    assert labels[f"{NAME} + all labels", "log odds"] == labels["supervised ResNet-18", "log odds"] == used
    variant = load_model(results / "BetaTC_VAE").history["seconds"].sum()
    assert entries[NAME, "log odds"].train_s > variant
    first = Classifier.load(results / "injected/few/0/model.pt").history["seconds"].sum()
    seconds = entries[NAME, "log odds"].train_s + first + detectors["few"].history["seconds"].sum()
    assert entries[f"{NAME} + few labels", "log odds"].train_s == pytest.approx(seconds)
    images = 2 * len(survey.rows("train")) + 2 * 16
    assert entries[NAME, "log odds"].images_seen == images
    assert entries[f"{NAME} + few labels", "log odds"].images_seen == images + 2 * 2 * 16
    assert entries[f"{NAME} + all labels + ResNet-18", "mean log odds"].images_seen == images + 2 * 16 + used


def test_what_is_known_of_the_selection_objects_is_taken_and_not_scored_anew(
    results, survey, trained, monkeypatch
):
    fitted = fit_baselines(survey.images, survey.mask, objects(survey), components=8)
    first = baseline_entries(fitted, survey, survey) | trained[1]
    scored = []
    for detector in (Classifier, PointFits):
        own = detector.score

        def counted(self, where, rows, own=own, **how):
            scored.append(set(where.split[rows]))
            return own(self, where, rows, **how)

        monkeypatch.setattr(detector, "score", counted)
    again = baseline_entries(fitted, survey, survey, first)
    how = {"fits": again[FITS], "symmetries": False, "progress": False}
    again |= trained_entries(
        results, trained[0]["network"], survey.labels, survey, survey, known=first, **how
    )
    assert scored == [{"test"}] * 5  # the fits, and no, few, all labels and the supervised network
    assert list(again) == list(first)
    for key, entry in again.items():
        assert np.array_equal(entry.test, first[key].test) or key[1] == "log odds and point fits", key
        assert entry.threshold == first[key].threshold
        assert (entry.selection is None) == (first[key].selection is None)
    for name in (NAME, f"{NAME} + few labels"):
        odds = again[name, "log odds"].selection
        assert np.array_equal(odds, trained[1][name, "log odds"].selection)
        lowered = again[name, "log odds and point fits"].selection
        assert np.array_equal(lowered, with_point_fits(odds, first[FITS].selection))


def test_point_fits_lower_log_odds_at_the_cost_of_both(trained):
    detectors, entries = trained
    for name, labels in ((NAME, 0), (f"{NAME} + few labels", 100)):
        odds, fitted = entries[name, "log odds"], entries[name, "log odds and point fits"]
        assert (fitted.labels_used, fitted.train_s) == (labels, odds.train_s)
        assert fitted.score_per_s == pytest.approx(1 / (1 / odds.score_per_s + 1 / 50))
        for part in ("selection", "test"):
            gain = getattr(detectors["fits"], part)
            lowered = getattr(fitted, part) - getattr(odds, part)
            assert lowered == pytest.approx(np.minimum(np.log(gain / 300), 0), abs=1e-5)


def test_no_threshold_comes_from_what_a_network_learnt_from(survey, trained):
    detectors, entries = trained
    keys = {"all": (f"{NAME} + all labels", "log odds"), "network": ("supervised ResNet-18", "log odds")}
    both = entries[f"{NAME} + all labels + ResNet-18", "mean log odds"]
    quiet = {"symmetries": False, "progress": False}
    rows, test = survey.rows("validation"), survey.rows("test")
    seen = {name: detectors[name].score(survey, rows, **quiet) for name in keys}
    for name, key in keys.items():
        assert entries[key].selection is None
        assert entries[key].threshold == best_threshold(seen[name], survey.labels[rows] == 1)
        assert np.array_equal(entries[key].test, detectors[name].score(survey, test, **quiet))
    assert np.allclose(both.test, sum(entries[key].test for key in keys.values()) / 2)
    assert both.threshold == best_threshold(sum(seen.values()) / 2, survey.labels[rows] == 1)


def test_lenses_in_a_list_of_each_entry_are_those_of_its_scores(survey, entries):
    one = {("BetaTC_VAE", "kl"): entries["BetaTC_VAE", "kl"]}
    test = objects(survey, "test")
    options = {"n": [20], "total": 100, "prevalence": [0.1], "resamples": 20}
    row = expected_lenses(one, test, **options).loc["BetaTC_VAE", "kl"]
    lens = test["label"].to_numpy() == 1
    expected = expected_in_list(one["BetaTC_VAE", "kl"].test, lens, groups=test["group"], **options)
    assert np.atleast_2d(row)[0].tolist() == expected.iloc[0].tolist()
    assert 0 < row["lenses"].item() < 10
    with pytest.raises(LeakageError, match="length of a list"):
        expected_lenses(one, objects(survey, "selection"), **options)

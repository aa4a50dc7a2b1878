"""Who enters the leaderboard, with whose labels and at what cost; another seed of the same training."""

import numpy as np
import pytest
from toy import toy_survey

from lensq.classifiers.baselines import COLUMNS as BASELINES
from lensq.classifiers.baselines import fit_baselines
from lensq.classifiers.classifier import Classifier
from lensq.classifiers.finetuning import finetune, label_the_top
from lensq.classifiers.supervised import fit_supervised
from lensq.detection.entries import (
    NAMES,
    baseline_entries,
    refit,
    seed_spread,
    supervised_entry,
    trained_entries,
    variant_entries,
)
from lensq.detection.evaluation import judge, record_of
from lensq.detection.leaderboard import leaderboard, objects
from lensq.models.training import fit, load_model
from lensq.scores.scoring import score
from lensq.statistics.metrics import best_threshold, measure

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
    """Real sky: the survey's own test tiles judge."""
    return variant_entries(results, survey, survey, scores=["kl"], progress=False)


def test_each_variant_comes_with_a_named_score_and_those_asked_for(entries):
    assert {model for model, _ in entries} == {"BetaTC_VAE", "SEMISUP_GMVAE"}
    assert {("BetaTC_VAE", "kl"), ("SEMISUP_GMVAE", "kl"), ("SEMISUP_GMVAE", "anomaly_logit")} <= set(entries)


def test_labels_and_seconds_are_those_of_the_training(entries, results, survey):
    train = survey.labels[survey.rows("train")]
    told = sum(int(np.ceil(0.5 * (train == k).sum())) for k in (0, 1))
    for (model, _), entry in entries.items():
        assert entry.labels_used == (told if model == "SEMISUP_GMVAE" else 0)
        assert entry.train_s == load_model(results / model).history["seconds"].sum()
        assert entry.score_per_s > 0


def test_all_entries_are_of_the_same_objects(entries, results, survey):
    table = judge(results, "BetaTC_VAE", survey, progress=False)
    assert np.array_equal(entries["BetaTC_VAE", "kl"].test, table["kl"])
    assert objects(survey, "test")["name"].tolist() == table["name"].tolist()
    fitted = fit_baselines(survey.images, survey.mask, objects(survey), components=8)
    everybody = entries | baseline_entries(fitted, survey, survey)
    everybody |= {("baseline", name): everybody[NAMES[name], name] for name in ("ecod",)}
    board = leaderboard(everybody, objects(survey, "selection"), objects(survey, "test"), resamples=10)
    assert len(board) == len(everybody)
    own = fitted.score(survey.images, survey.mask, objects(survey))
    for name in BASELINES:
        entry = everybody[NAMES[name], name]
        assert np.allclose(entry.test, own.loc[own["split"] == "test", name], rtol=1e-3, atol=1e-3), name
        assert bool(entry.labels_used) == (name == "pca_logistic")
        assert min(entry.train_s, entry.score_per_s) > 0


def test_no_threshold_of_the_supervised_network_comes_from_what_it_learnt(survey, tmp_path):
    how = {"width": 4, "epochs": 4, "batch_size": 32, "learning_rate": 1e-2, "progress": False}
    network = fit_supervised(survey, survey.labels, out=tmp_path, **how)
    entry = supervised_entry(network, survey.labels, survey, survey, symmetries=False, progress=False)
    rows = survey.rows("validation")
    seen = network.score(survey, rows, symmetries=False, progress=False)
    assert entry.selection is None
    assert entry.threshold == best_threshold(seen, survey.labels[rows] == 1)
    assert len(entry.test) == len(survey.rows("test"))
    assert entry.labels_used == len(survey.rows("train", "selection"))


def test_another_seed_is_the_same_training_otherwise(results, survey):
    first, second = (
        load_model(results / "BetaTC_VAE"),
        refit(results, "BetaTC_VAE", survey, seed=3, progress=False),
    )
    changed = {key for key in first.settings if first.settings[key] != second.settings[key]}
    assert changed == {"seed"}
    assert first.fingerprint != second.fingerprint


def test_the_spread_is_over_all_trainings_and_the_interval_of_the_first(results, survey):
    options = {"scores": ["kl"], "progress": False, "resamples": 20}
    row = seed_spread(results, "BetaTC_VAE", survey, survey, [3, 4], **options).loc["kl"]
    tables = [judge(results, "BetaTC_VAE", survey, progress=False)]
    tables += [judge(results / "seeds", f"BetaTC_VAE-{seed}", survey, progress=False) for seed in (3, 4)]
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


def test_encoders_taught_compete_beside_what_taught_them(results, survey, tmp_path):
    model = load_model(results / "BetaTC_VAE")
    labels = np.where(np.isin(survey.split, ["train", "selection"]), survey.labels, -1)
    quick = {"steps": 2, "batch_size": 16, "progress": False}
    folder = results / "injected"
    none = finetune(model, survey, out=folder / "none", **quick)
    few, _ = label_the_top(model, survey, none, survey.labels, out=folder / "few", budget=100, **quick)
    everything = finetune(model, survey, labels, out=folder / "all", start=none, **quick)
    network = fit_supervised(survey, survey.labels, out=tmp_path, width=2, epochs=1, progress=False)
    entries = trained_entries(
        results, network, survey.labels, survey, survey, symmetries=False, progress=False
    )
    name = "BetaTC_VAE + injected lenses"
    rows = survey.rows("test")
    alone = [each.score(survey, rows, symmetries=False, progress=False) for each in (everything, network)]
    assert np.allclose(entries[f"{name} + all labels + ResNet-18", "mean log odds"].test, sum(alone) / 2)
    told = {key: entry.labels_used for key, entry in entries.items()}
    assert told[name, "log odds"] == told[name, "log odds and residual"] == 0
    assert told[f"{name} + few labels", "log odds"] == 100
    assert told[f"{name} + all labels", "log odds"] == (labels >= 0).sum()
    assert entries[f"{name} + all labels", "log odds"].selection is None
    assert entries[name, "log odds"].train_s > model.history["seconds"].sum()
    first = Classifier.load(folder / "few/0/model.pt").history["seconds"].sum()
    taught = entries[name, "log odds"].train_s + first + few.history["seconds"].sum()
    assert entries[f"{name} + few labels", "log odds"].train_s == pytest.approx(taught)
    # The residual needs the variant's own scores as well: both rates, one after the other.
    last = [was for was in record_of(results)["scored"] if was["variant"] == "BetaTC_VAE"][-1]
    seconds = 1 / entries[name, "log odds"].score_per_s + last["seconds"] / last["objects"]
    assert entries[name, "log odds and residual"].score_per_s == pytest.approx(1 / seconds)

"""The reference's faults, each with a known effect."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from tables import scores_table

from lensq.detection.detectors import Detector, choose_detector, evaluate
from lensq.detection.faults import (
    BATCH_TERMS,
    batch_scores,
    class_pure_batches,
    class_pure_effects,
    effect,
    repeated_normals,
    shift_by_label,
    shuffled_batches,
)
from lensq.statistics import metrics
from lensq.statistics.latent import latent_values


def clump(
    width: float, *, centre: float = 1.0, dimensions: int = 8, n: int = 5000, anomalies: int = 400, seed=0
):
    """Latents of anomalies gathered about a point off the origin; width 1 makes them like those of normals.

    At centre 1 both are as far from the origin in the root mean square. All posteriors have one variance.
    """
    rng = np.random.default_rng(seed)
    positive = np.arange(n + anomalies) < anomalies
    mu = rng.normal(size=(n + anomalies, dimensions))
    mu[positive] = centre * np.sqrt(1 - width**2) + width * mu[positive]
    table = {f"mu_{d}": mu[:, d] for d in range(dimensions)}
    table |= {f"logvar_{d}": np.full(len(mu), -2.0) for d in range(dimensions)}
    return pd.DataFrame(table), positive


@pytest.mark.parametrize(
    ("width", "shuffled", "pure"), [(1.0, 0.5, 0.5), (0.8, 0.52, 0.8)], ids=["alike", "narrower"]
)
def test_class_pure_batches_give_away_narrower_latents_and_only_these(width, shuffled, pure):
    table, positive = clump(width, centre=0.85)
    dealt = shuffled_batches(len(table), 64, seed=1), class_pure_batches(positive, 64)
    for auroc, batches in zip((shuffled, pure), dealt, strict=True):
        score = batch_scores(table, batches)["batch_dimension_wise_kl"]
        assert roc_auc_score(positive, score) == pytest.approx(auroc, abs=0.03)


@pytest.mark.slow
def test_terms_of_a_large_batch_have_a_closed_form():
    table, positive = clump(0.6, dimensions=1, n=4000, anomalies=4000)
    scored = batch_scores(table, class_pure_batches(positive, 4000))
    z, v = table["mu_0"].to_numpy(), np.exp(-2.0)
    # Means spread as a Gaussian and posteriors of one width: the aggregate is a Gaussian as well.
    aggregate = stats.norm(np.where(positive, 0.8, 0.0), np.sqrt(np.where(positive, 0.36, 1.0) + v))
    inner = np.abs(z - aggregate.mean()) < 2 * aggregate.std()
    own = stats.norm.logpdf(0, 0, np.sqrt(v))
    expected = {
        "batch_mutual_information": own - aggregate.logpdf(z),
        "batch_total_correlation": np.zeros(len(z)),
        "batch_dimension_wise_kl": aggregate.logpdf(z) - stats.norm.logpdf(z),
    }
    for name, values in expected.items():
        assert np.abs(scored[name] - values)[inner].max() < 0.25, name
        assert np.abs((scored[name] - values)[inner].mean()) < 0.02, name


def test_the_terms_always_add_up_to_the_ratio_of_posterior_and_prior():
    table, positive = clump(0.7, dimensions=3, n=300, anomalies=40)
    mu, logvar = latent_values(table, "mu"), latent_values(table, "logvar")
    ratio = stats.norm.logpdf(0, 0, np.exp(logvar / 2)).sum(axis=1) - stats.norm.logpdf(mu).sum(axis=1)
    scored = batch_scores(table, class_pure_batches(positive, 64))
    assert np.allclose(scored[[f"batch_{term}" for term in BATCH_TERMS]].sum(axis=1), ratio)


def test_an_object_alone_in_its_batch_scores_nothing_and_its_batch_changes_its_score():
    table, _ = clump(0.7, dimensions=2, n=50, anomalies=10)
    alone = batch_scores(table, np.arange(60))
    assert np.allclose(alone["batch_mutual_information"], 0)
    assert np.allclose(alone["batch_total_correlation"], 0)
    one, other = (batch_scores(table, shuffled_batches(60, 20, seed=seed)) for seed in (1, 2))
    assert not np.allclose(one["batch_total_correlation"], other["batch_total_correlation"])


def test_batches_hold_one_class_each_and_are_full_but_for_the_last():
    positive = np.random.default_rng(0).random(1000) < 0.2
    numbers = class_pure_batches(positive, 64)
    assert pd.Series(positive).groupby(numbers).nunique().eq(1).all()
    for members in (positive, ~positive):
        sizes = np.unique(numbers[members], return_counts=True)[1]
        assert (sizes[:-1] == 64).all()
        assert 0 < sizes[-1] <= 64
    assert np.array_equal(np.unique(numbers), np.arange(numbers.max() + 1))
    assert positive[numbers == 0].all()
    dealt = shuffled_batches(1000, 64, seed=3)
    assert np.array_equal(np.bincount(dealt), [64] * 15 + [40])


def test_a_batch_that_is_not_full_gives_its_class_away():
    """Posteriors that overlap with no other: the mutual information is the logarithm of the batch's size."""
    table = pd.DataFrame({"mu_0": 100.0 * np.arange(600), "logvar_0": np.zeros(600)})
    positive = np.arange(600) < 88
    scored = batch_scores(table, class_pure_batches(positive, 512))["batch_mutual_information"]
    assert np.allclose(scored[positive], np.log(88))
    assert np.allclose(scored[~positive], np.log(512))


def test_a_list_of_repeated_normals_holds_no_anomaly():
    rows = scores_table(50, 12, split="selection")
    listed = repeated_normals(rows, against="is_lens")
    normals = rows[~rows["is_lens"]]
    assert listed["name"].tolist() == [*normals["name"], *normals["name"][:12]]
    assert listed["is_lens"].tolist() == [False] * 50 + [True] * 12
    assert listed["is_lens"].dtype == rows["is_lens"].dtype


@pytest.mark.slow
def test_statistics_of_repeated_normals_find_nothing():
    rows = scores_table(2000, 300, dimensions=40, shifts={3: 2.0}, split="selection")
    assert choose_detector(rows, "kl", n=1).dimensions == (3,)
    chosen = {
        choose_detector(repeated_normals(rows.sample(frac=1, random_state=s)), "kl", n=1).dimensions
        for s in range(8)
    }
    assert len(chosen) > 3


def test_a_label_moves_every_posterior_mean():
    rows = scores_table(20, 5)
    moved = shift_by_label(rows, 0.5)
    difference = latent_values(moved, "mu") - latent_values(rows, "mu")
    assert np.allclose(difference, 0.5 * rows["label"].to_numpy()[:, None])
    pd.testing.assert_frame_equal(moved.filter(regex="^(kl|logvar)_"), rows.filter(regex="^(kl|logvar)_"))


def test_an_effect_is_the_paired_difference_of_two_measurements():
    rows = scores_table(900, 150, split="test", seed=4)
    signal, noise = Detector("a", "signal", threshold=1.0), Detector("b", "noise", threshold=1.0)
    table = effect((signal, rows), (noise, rows), resamples=60, seed=2)
    assert table.index.tolist() == ["AP", "AUROC", "F1"]
    for column, detector in (("without", signal), ("with", noise)):
        assert (
            table[column].to_dict() == evaluate(detector, rows, resamples=1)["value"][table.index].to_dict()
        )
    pair = metrics.paired_difference(
        rows["noise"], rows["signal"], rows["is_lens"], thresholds=(1.0, 1.0), resamples=60, seed=2
    )
    pd.testing.assert_frame_equal(table[["difference", "low", "high", "clear"]], pair.loc[table.index])
    assert np.allclose(table["difference"], table["with"] - table["without"])
    same = effect((signal, rows), (signal, rows), resamples=20)
    assert (same[["difference", "low", "high"]] == 0).all().all()


def test_an_effect_is_measured_on_the_same_objects_only():
    rows, detector = scores_table(60, 20), Detector("a", "signal", threshold=1.0)
    with pytest.raises(ValueError, match="same objects of the same classes"):
        effect((detector, rows), (detector, rows[::-1]))
    with pytest.raises(ValueError, match="same objects of the same classes"):
        effect((detector, rows), (detector, rows.assign(label=1 - rows["label"])))


def test_purity_alone_moves_a_number():
    selection, rows = (
        pd.DataFrame(
            {"name": np.arange(len(positive)).astype(str), "label": positive.astype(int), "split": split}
        ).join(table)
        for split, (table, positive) in (
            ("selection", clump(0.85, n=2500, anomalies=300, seed=1)),
            ("test", clump(0.85, n=2500, anomalies=300, seed=2)),
        )
    )
    effects = class_pure_effects(selection, rows, 64, resamples=100)
    assert list(effects) == [f"class-pure batches of 64, {term}" for term in BATCH_TERMS]
    narrow = effects["class-pure batches of 64, dimension_wise_kl"].loc["AUROC"]
    assert narrow["low"] > 0.05
    assert narrow["without"] < 0.65

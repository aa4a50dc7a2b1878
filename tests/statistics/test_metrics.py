"""Metrics against scikit-learn and closed forms, and what the bootstrap intervals mean."""

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, optimize, stats
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)
from tables import scores_table

from lensq.statistics import metrics
from lensq.statistics.metrics import (
    PREVALENCE,
    best_threshold,
    compare,
    effective_size,
    expected_in_list,
    graded_weights,
    measure,
    operating_curve,
    paired_difference,
    precision_at,
    resampled_counts,
    threshold_at_fpr,
)


def two_gaussians(normals=3000, lenses=400, distance=1.5, decimals=None, seed=0):
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(normals + lenses) < lenses)
    score = rng.normal(size=len(positive)) + distance * positive
    return (score if decimals is None else score.round(decimals)), positive


def class_weights(positive, prevalence, within=None):
    within = np.ones(len(positive)) if within is None else within
    lenses, normals = within * positive, within * ~positive
    return prevalence * lenses / lenses.sum() + (1 - prevalence) * normals / normals.sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("prevalence", [0.0758, 0.00108, 0.6])
def test_every_metric_matches_scikit_learn_on_weighted_and_tied_scores(decimals, prevalence, weighted):
    score, positive = two_gaussians(decimals=decimals)
    within = np.random.default_rng(5).uniform(0.2, 3, len(score)) if weighted else None
    weight = class_weights(positive, prevalence, within)
    how = {"threshold": 1.0, "prevalence": prevalence, "weights": within, "resamples": 2}
    table = measure(score, positive, **how)["value"]
    assert table["AP"] == pytest.approx(average_precision_score(positive, score, sample_weight=weight))
    assert table["AUROC"] == pytest.approx(roc_auc_score(positive, score, sample_weight=weight))
    flagged = score >= 1.0
    for name, function in (("F1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert table[name] == pytest.approx(function(positive, flagged, sample_weight=weight))
    fpr, tpr, thresholds = roc_curve(positive, score, sample_weight=weight, drop_intermediate=False)
    assert table["recall_fpr_1e-2"] == pytest.approx(tpr[fpr <= 0.01 + 1e-12].max())
    every = [f1_score(positive, score >= t, sample_weight=weight) for t in thresholds[1::40]]
    assert table["best_F1"] >= max(every) - 1e-9
    if not weighted:
        curve = operating_curve(score, positive, prevalence=prevalence)
        assert table["best_F1"] == pytest.approx(curve["F1"].max())


def test_binormal_area_and_average_precision():
    score, positive = two_gaussians(400_000, 100_000, distance=1.2)
    table = measure(score, positive, threshold=2.0, resamples=1)["value"]
    lens, normal = stats.norm(1.2), stats.norm()

    def precision(t):
        true = PREVALENCE * lens.sf(t)
        return true / (true + (1 - PREVALENCE) * normal.sf(t))

    expected_ap = integrate.quad(lambda t: precision(t) * lens.pdf(t), -8, 9)[0]
    assert table["AUROC"] == pytest.approx(stats.norm.cdf(1.2 / np.sqrt(2)), abs=0.003)
    assert table["AP"] == pytest.approx(expected_ap, abs=0.004)
    assert table["recall"] == pytest.approx(lens.sf(2.0), abs=0.005)
    assert table["FPR"] == pytest.approx(normal.sf(2.0), abs=0.002)
    assert table["precision"] == pytest.approx(precision(2.0), abs=0.01)
    assert table["recall_fpr_1e-2"] == pytest.approx(lens.sf(normal.isf(0.01)), abs=0.005)
    assert table["recall_fpr_1e-3"] == pytest.approx(lens.sf(normal.isf(0.001)), abs=0.005)


def test_a_score_that_is_one_number_is_chance():
    _, positive = two_gaussians()
    table = measure(np.zeros(len(positive)), positive, threshold=0.0, resamples=20)
    assert table.loc["AUROC"].tolist() == [0.5] * 3
    assert np.allclose(table.loc["AP"], PREVALENCE)
    assert np.allclose(table.loc["best_F1"], 2 * PREVALENCE / (1 + PREVALENCE))
    assert table.loc["recall_fpr_1e-2"].tolist() == [0] * 3
    assert table.loc["F1", "value"] == pytest.approx(2 * PREVALENCE / (1 + PREVALENCE))


def test_perfect_and_reversed_scores():
    score, positive = two_gaussians()
    perfect = measure(positive.astype(float), positive, threshold=0.5, resamples=5)
    for metric in ("AUROC", "AP", "best_F1", "F1", "precision", "recall", "recall_fpr_1e-2"):
        assert np.allclose(perfect.loc[metric], 1)
    forward, backward = (measure(s, positive, resamples=1).loc["AUROC", "value"] for s in (score, -score))
    assert forward + backward == pytest.approx(1)


def test_f1_is_the_harmonic_mean_and_prevalence_moves_only_precision():
    score, positive = two_gaussians()
    how = {"threshold": 1.0, "resamples": 1}
    tables = [measure(score, positive, prevalence=p, **how)["value"] for p in (0.05, 0.5)]
    for table in tables:
        precision, recall = table["precision"], table["recall"]
        assert table["F1"] == pytest.approx(2 * precision * recall / (precision + recall))
    for metric in ("AUROC", "recall", "FPR", "recall_fpr_1e-2"):
        assert tables[0][metric] == tables[1][metric]
    assert tables[0]["precision"] < tables[1]["precision"]


def test_the_sample_as_it_is_has_its_own_prevalence():
    score, positive = two_gaussians()
    table = measure(score, positive, threshold=1.0, prevalence=positive.mean(), resamples=1)["value"]
    assert table["precision"] == pytest.approx(precision_score(positive, score >= 1.0))
    assert table["AP"] == pytest.approx(average_precision_score(positive, score))


def test_order_and_monotone_maps_change_nothing():
    score, positive = two_gaussians(decimals=2)
    order = np.random.default_rng(1).permutation(len(score))
    first = measure(score, positive, resamples=1)["value"]
    assert np.allclose(first, measure(score[order], positive[order], resamples=1)["value"], equal_nan=True)
    assert np.allclose(first, measure(np.exp(score), positive, resamples=1)["value"], equal_nan=True)


@pytest.mark.parametrize(("normals", "filled"), [(1000, True), (999, False)])
def test_recall_at_a_rate_that_normals_cannot_resolve_is_empty(normals, filled):
    score, positive = two_gaussians(normals, 50)
    table = measure(score, positive, resamples=5)
    assert table.loc["recall_fpr_1e-2"].notna().all() == filled
    assert table.loc["recall_fpr_1e-3"].isna().all()


def test_unequal_weights_cost_resolution():
    score, positive = two_gaussians(1200, 50)
    weights = np.where(np.arange(1250) % 2, 1.0, 0.01)
    assert measure(score, positive, weights=weights, resamples=2).loc["recall_fpr_1e-2"].isna().all()
    assert effective_size(np.ones(70)) == pytest.approx(70)
    assert effective_size([1, 1, 0, 0]) == pytest.approx(2)
    assert effective_size([5, 1]) == pytest.approx(36 / 26)


@pytest.mark.slow
def test_recall_interval_is_binomial():
    score, positive = two_gaussians(5000, 400)
    row = measure(score, positive, threshold=1.5, resamples=4000).loc["recall"]
    error = np.sqrt(row["value"] * (1 - row["value"]) / 400)
    assert (row["high"] - row["low"]) / (2 * 1.96 * error) == pytest.approx(1, abs=0.07)


@pytest.mark.slow
def test_area_interval_agrees_with_delong():
    score, positive = two_gaussians(2000, 150, distance=1.0)
    row = measure(score, positive, resamples=3000).loc["AUROC"]
    above = score[positive][:, None] > score[~positive]
    error = np.sqrt(above.mean(axis=1).var(ddof=1) / 150 + above.mean(axis=0).var(ddof=1) / 2000)
    assert (row["high"] - row["low"]) / (2 * 1.96 * error) == pytest.approx(1, abs=0.06)


def test_resamples_by_weights_equal_resamples_by_copying():
    score, positive = two_gaussians(300, 60, decimals=1)
    ranking = metrics._Ranking(score, positive, threshold=0.5)
    rng = np.random.default_rng(3)
    of_positives, of_negatives = (resampled_counts(n, n, 7, rng) for n in (60, 300))
    drawn = ranking.metrics(of_positives, of_negatives, 0.2)
    for r in range(7):
        times = np.empty(360, int)
        times[positive], times[~positive] = of_positives[r], of_negatives[r]
        copies, classes = np.repeat(score, times), np.repeat(positive, times)
        expected = measure(copies, classes, threshold=0.5, prevalence=0.2, resamples=1)["value"]
        for name in expected.index:
            assert drawn[name][r] == pytest.approx(expected[name], nan_ok=True)


@pytest.mark.slow
def test_copies_of_one_object_are_resampled_together():
    score, positive = two_gaussians(600, 60)
    copies, classes, groups = np.repeat(score, 9), np.repeat(positive, 9), np.repeat(np.arange(660), 9)
    single = measure(score, positive, resamples=2000).loc["AUROC"]
    grouped = measure(copies, classes, groups=groups, resamples=2000).loc["AUROC"]
    naive = measure(copies, classes, resamples=2000).loc["AUROC"]
    width = single["high"] - single["low"]
    assert grouped["value"] == pytest.approx(single["value"])
    assert (grouped["high"] - grouped["low"]) / width == pytest.approx(1, abs=0.08)
    assert (naive["high"] - naive["low"]) / width == pytest.approx(1 / 3, abs=0.08)


def test_draws_depend_on_the_seed_and_not_on_the_memory(monkeypatch):
    score, positive = two_gaussians(200, 40)
    whole = measure(score, positive, resamples=50, seed=4)
    monkeypatch.setattr(metrics, "_CHUNK", 240 * 7)
    pd.testing.assert_frame_equal(whole, measure(score, positive, resamples=50, seed=4))
    assert not whole.equals(measure(score, positive, resamples=50, seed=5))


def test_bootstrap_samples_have_their_size():
    counts = resampled_counts(30, 12, 500, np.random.default_rng(0))
    assert counts.shape == (500, 30)
    assert (counts.sum(axis=1) == 12).all()
    assert counts.mean(axis=0) == pytest.approx(np.full(30, 0.4), abs=0.12)


def test_a_score_does_not_differ_from_itself():
    score, positive = two_gaussians()
    table = paired_difference(score, 3 * score, positive, thresholds=(1.0, 3.0), resamples=50)
    assert (table[["difference", "low", "high"]].fillna(0).to_numpy() == 0).all()
    assert not table["clear"].any()


@pytest.mark.slow
def test_pairing_sees_what_separate_intervals_hide():
    score, positive = two_gaussians(2000, 200)
    worse = score + np.random.default_rng(7).normal(0, 0.25, len(score))
    table = paired_difference(score, worse, positive)
    apart = compare({"score": score, "worse": worse}, positive)
    assert table.loc["AUROC", "clear"]
    assert table.loc["AUROC", "low"] > 0
    assert apart.loc["worse", "AUROC_high"] > apart.loc["score", "AUROC_low"]
    assert table.loc["AUROC", "difference"] == pytest.approx(
        apart.loc["score", "AUROC"] - apart.loc["worse", "AUROC"]
    )
    reverse = paired_difference(worse, score, positive)
    assert np.allclose(reverse["low"], -table["high"], equal_nan=True)


def test_a_comparison_is_sorted_and_holds_each_measurement():
    score, positive = two_gaussians()
    noise = np.random.default_rng(2).normal(size=len(score))
    table = compare({"noise": noise, "good": score}, positive, thresholds={"good": 1.0}, resamples=30)
    assert table.index.tolist() == ["good", "noise"]
    alone = measure(score, positive, threshold=1.0, resamples=30)
    for metric, row in alone.iterrows():
        found = table.loc["good", [metric, f"{metric}_low", f"{metric}_high"]].astype(float)
        assert np.allclose(found, row, equal_nan=True)
    assert np.isnan(table.loc["noise", "F1"])


@pytest.mark.parametrize("prevalence", [1e-3, 1e-4])
@pytest.mark.parametrize("n", [100, 500])
def test_lenses_in_a_list_follow_from_two_gaussians(n, prevalence):
    score, positive = two_gaussians(400_000, 50_000, distance=3.0)
    row = expected_in_list(score, positive, n=[n], prevalence=[prevalence], resamples=1).iloc[0]
    lens, normal = stats.norm(3.0), stats.norm()

    def listed(t):
        return prevalence * lens.sf(t) + (1 - prevalence) * normal.sf(t)

    threshold = optimize.brentq(lambda t: listed(t) - n / 100_000, 0, 9)
    assert row["lenses"] == pytest.approx(100_000 * prevalence * lens.sf(threshold), rel=0.03)
    assert (row["prevalence"], row["n"]) == (prevalence, n)


def test_a_list_holds_all_lenses_or_their_share_of_it():
    positive = np.arange(25_000) >= 20_000
    perfect = expected_in_list(positive.astype(float), positive, resamples=2)
    assert perfect["lenses"].tolist() == pytest.approx([100, 100, 10, 10])
    constant = expected_in_list(np.zeros(25_000), positive, resamples=2)  # ties are in random order
    assert constant["lenses"].tolist() == pytest.approx([0.1, 0.5, 0.01, 0.05])
    short = expected_in_list(positive.astype(float), positive, n=[49, 50], prevalence=[0.5], resamples=2)
    assert short["lenses"].isna().tolist() == [True, False]  # 9.8 and 10 normals decide
    assert short["lenses"].iloc[1] == pytest.approx(50)


@pytest.mark.slow
def test_the_interval_of_a_list_covers_and_groups_widen_it():
    score, positive = two_gaussians(20_000, 400, distance=3.0)
    options = {"n": [500], "prevalence": [1e-2], "resamples": 300}
    row = expected_in_list(score, positive, **options).iloc[0]
    assert row["low"] < row["lenses"] < row["high"]
    copies = expected_in_list(
        np.repeat(score, 9), np.repeat(positive, 9), groups=np.repeat(np.arange(20_400), 9), **options
    ).iloc[0]
    assert copies["lenses"] == pytest.approx(row["lenses"])
    assert (copies["high"] - copies["low"]) / (row["high"] - row["low"]) == pytest.approx(1, abs=0.2)


def test_the_published_operating_point_at_other_prevalences():
    # Precision 65% and recall 27% on 2,066 anomalies and 25,202 normals is a false positive rate of 1.19%.
    recall, fpr = 0.27, 0.0119
    counts = round(recall * 2066), 2066, round(fpr * 25202), 25202
    table = precision_at(*counts, prevalences=(0.0758, 0.051, 0.00108, 1e-4))
    assert table["precision"].tolist() == pytest.approx([0.65, 0.55, 0.024, 0.0023], rel=0.02)
    assert (table["low"] < table["precision"]).all()
    assert (table["precision"] < table["high"]).all()
    assert table["objects_per_lens"].iloc[-1] == pytest.approx(440, rel=0.03)


def test_no_false_positive_seen_is_no_proof_of_purity():
    few, many = (precision_at(50, 100, 0, n, prevalences=(1e-3,)).iloc[0] for n in (1000, 100_000))
    assert few["precision"] < 0.9
    assert few["low"] < many["low"] < 1
    # The false positive rate's posterior is Beta(1/2, n + 1/2).
    fpr = stats.beta(0.5, 1000.5).ppf(0.975)
    assert few["low"] == pytest.approx(0.5e-3 / (0.5e-3 + fpr), rel=0.1)


@pytest.mark.parametrize("flagged", [0, 2, 5])
def test_precision_follows_jeffreys_posterior_of_few_objects(flagged):
    """Of the other class so many are known that its rate is one half to the fourth digit."""
    rate = stats.beta(flagged + 0.5, 5 - flagged + 0.5)
    few, many, options = (flagged, 5), (10**8, 2 * 10**8), {"prevalences": (0.5,), "draws": 100_000}
    of_lenses = precision_at(*few, *many, **options)[["low", "precision", "high"]].iloc[0]
    of_normals = precision_at(*many, *few, **options)[["high", "precision", "low"]].iloc[0]
    quantiles = rate.ppf([0.025, 0.5, 0.975])
    assert of_lenses.to_numpy() == pytest.approx(quantiles / (quantiles + 0.5), abs=0.01)
    assert of_normals.to_numpy() == pytest.approx(0.5 / (0.5 + quantiles), abs=0.01)


def test_best_threshold_separates_what_is_separable():
    score, positive = np.array([0.0, 1, 2, 5, 6]), np.array([0, 0, 0, 1, 1], bool)
    assert best_threshold(score, positive) == 3.5


def test_best_threshold_depends_on_the_prevalence():
    score, positive = two_gaussians(20_000, 5_000)
    rare, common = (best_threshold(score, positive, prevalence=p) for p in (0.01, 0.5))
    assert rare > common + 0.5
    for threshold, prevalence in ((rare, 0.01), (common, 0.5)):
        table = measure(score, positive, threshold=threshold, prevalence=prevalence, resamples=1)["value"]
        assert table["F1"] == pytest.approx(table["best_F1"])


@pytest.mark.parametrize("decimals", [None, 1])
def test_threshold_at_a_false_positive_rate_keeps_it(decimals):
    score, positive = two_gaussians(2500, 100, decimals=decimals)
    threshold = threshold_at_fpr(score, positive, 0.01)
    assert np.mean(score[~positive] >= threshold) <= 0.01
    lower = np.max(score[~positive][score[~positive] < threshold])
    assert np.mean(score[~positive] >= lower) > 0.01
    with pytest.raises(ValueError, match="2500 negatives are too few"):
        threshold_at_fpr(score, positive, 0.001)


def test_curves_at_every_threshold():
    score, positive = two_gaussians(300, 60, decimals=1)
    curve = operating_curve(score, positive, prevalence=0.3)
    assert (np.diff(curve["threshold"]) < 0).all()
    for row in curve.iloc[::9].itertuples():
        flagged = score >= row.threshold
        assert row.flagged == flagged.sum()
        assert row.recall == pytest.approx(flagged[positive].mean())
        assert pytest.approx(flagged[~positive].mean()) == row.FPR
        assert row.precision == pytest.approx(0.3 * row.recall / (0.3 * row.recall + 0.7 * row.FPR))


def test_nothing_flagged_has_no_precision():
    score, positive = two_gaussians()
    table = measure(score, positive, threshold=99.0, resamples=10)
    assert table.loc["precision"].isna().all()
    assert table.loc["F1"].tolist() == [0, 0, 0]


def test_bad_input_is_named():
    score, positive = two_gaussians(50, 10)
    with pytest.raises(ValueError, match="1 of 60 scores are not finite"):
        measure(np.where(np.arange(60) == 3, np.nan, score), positive)
    with pytest.raises(ValueError, match="all of one class"):
        best_threshold(score, np.zeros(60, bool))
    with pytest.raises(ValueError, match="one value an object"):
        measure(score[:-1], positive)
    with pytest.raises(ValueError, match="weights must be"):
        measure(score, positive, weights=-np.ones(60))


def test_the_graded_task_has_the_catalogue_s_shares():
    rows = scores_table(900, 300)
    rows.loc[rows.index[:50], ["label", "graded"]] = [-1, False]
    weights = graded_weights(rows)
    assert weights.sum() == pytest.approx(1)
    assert weights[rows["graded"]].sum() == pytest.approx(0.00108)
    assert weights[rows["label"] == 1].sum() == pytest.approx(0.051)
    assert (weights[rows["label"] == -1] == 0).all()
    assert effective_size(weights) < 1150
    assert weights[rows["label"] == 0].nunique() == 1


def test_graded_objects_among_the_rejected_count_as_graded():
    rows = pd.DataFrame({"label": [0, 1, 1, 0], "graded": [True, True, False, False]})
    assert graded_weights(rows).tolist() == pytest.approx([0.00054, 0.00054, 0.04992, 0.949])

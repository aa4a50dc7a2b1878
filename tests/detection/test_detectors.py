"""Detectors: chosen on one split, evaluated on another, the same after a trip through JSON."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score
from tables import scores_table

from lensq.detection.completeness import at_fpr
from lensq.detection.detectors import (
    Detector,
    choose_detector,
    compare_detectors,
    compare_pair,
    evaluate,
    evaluate_graded,
    precision_elsewhere,
    threshold_curves,
)
from lensq.statistics import metrics
from lensq.statistics.guard import shuffle_labels
from lensq.statistics.latent import dimension_statistics, latent_values

SHIFTS = {1: 2.5, 4: 1.5}


@pytest.fixture(scope="module")
def selection():
    return scores_table(1500, 250, shifts=SHIFTS, split="selection", seed=1)


@pytest.fixture(scope="module")
def test_rows():
    return scores_table(1500, 250, shifts=SHIFTS, split="test", seed=2)


def test_a_chosen_detector_finds_what_was_planted(selection, test_rows):
    detector = choose_detector(selection, "mu", n=2)
    assert set(detector.dimensions) == {1, 4}
    assert detector.direction == 1
    table = evaluate(detector, test_rows, resamples=50)
    assert table.loc["AUROC", "value"] > 0.85
    assert table.loc["F1", "value"] == pytest.approx(table.loc["best_F1", "value"], abs=0.05)


def test_scores_by_definition(selection):
    kl, mu, logvar = (latent_values(selection, s, [1, 4]) for s in ("kl", "mu", "logvar"))
    assert np.allclose(Detector("d", "kl", (1, 4)).score(selection), kl.mean(axis=1))
    assert np.allclose(Detector("d", "mu", (1, 4)).score(selection), np.abs(mu).mean(axis=1))
    both_above = Detector("d", "mu", (1, 4), combine="all", threshold=1.2).flags(selection)
    assert (both_above == (np.abs(mu) >= 1.2).all(axis=1)).all()
    both_below = Detector("d", "logvar", (1, 4), combine="all", direction=-1, threshold=2.1).flags(selection)
    assert (both_below == (logvar <= -2.1).all(axis=1)).all()
    assert (Detector("d", "signal", direction=-1).score(selection) == -selection["signal"]).all()


def test_the_direction_is_that_which_ranks_better_where_all_dimensions_must_agree():
    rng = np.random.default_rng(0)
    lens = np.arange(400) < 100
    narrow = np.where(lens[:, None], 0.4 * rng.normal(size=(400, 3)) - 0.3, rng.normal(size=(400, 3)))
    table = pd.DataFrame(narrow, columns=["logvar_0", "logvar_1", "logvar_2"])
    table = table.assign(mu_0=0.0, mu_1=0.0, mu_2=0.0, label=lens.astype(int), split="selection")
    chosen = choose_detector(table, "logvar", dimensions="all", combine="all")
    areas = [roc_auc_score(lens, replace(chosen, direction=way).score(table)) for way in (1, -1)]
    assert areas[1] > areas[0] > 0.5
    assert chosen.direction == -1


def test_the_direction_is_learnt_unless_it_is_given(selection):
    upside_down = selection.assign(signal=-selection["signal"])
    learnt = choose_detector(upside_down, "signal")
    given = choose_detector(upside_down, "signal", direction=1)
    assert (learnt.direction, given.direction) == (-1, 1)
    assert roc_auc_score(upside_down["label"], learnt.score(upside_down)) > 0.9
    assert roc_auc_score(upside_down["label"], given.score(upside_down)) < 0.1


def test_all_dimensions_are_the_whole_posterior(selection):
    detector = choose_detector(selection, "kl", dimensions="all", direction=1)
    assert detector.dimensions == (0, 1, 2, 3, 4, 5)
    whole = latent_values(selection, "kl").sum(axis=1)
    assert np.allclose(detector.score(selection), whole / 6)


def test_a_score_without_dimensions_takes_none(selection):
    for dimensions in ("all", None, (1, 2)):
        detector = choose_detector(selection, "signal", dimensions=dimensions)
        assert detector == choose_detector(selection, "signal")
        assert detector.dimensions == ()


def test_thresholds_are_the_best_or_keep_a_rate(selection, test_rows):
    best = choose_detector(selection, "signal", prevalence=0.2)
    assert best.threshold == metrics.best_threshold(
        selection["signal"].to_numpy(), selection["is_lens"].to_numpy(), prevalence=0.2
    )
    strict = at_fpr(best, selection, 0.01)
    assert strict.flags(selection[~selection["is_lens"]]).sum() == 15
    assert evaluate(strict, test_rows, resamples=2).loc["FPR", "value"] < 0.02


def test_a_detector_survives_json(selection, test_rows):
    for statistic in ("kl", "signal"):
        detector = choose_detector(selection, statistic, name="the one")
        again = Detector.from_json(detector.to_json())
        assert again == detector
        assert (again.flags(test_rows) == detector.flags(test_rows)).all()
        assert json.loads(detector.to_json())["threshold"] == detector.threshold


def test_evaluation_is_the_measurement_of_its_score(selection, test_rows):
    detector = choose_detector(selection, "kl", n=2)
    for against in ("label", "graded", "is_lens"):
        expected = metrics.measure(
            detector.score(test_rows),
            test_rows[against].to_numpy() == 1,
            threshold=detector.threshold,
            resamples=20,
        )
        pd.testing.assert_frame_equal(evaluate(detector, test_rows, against=against, resamples=20), expected)


def test_flags_and_truth_give_different_numbers(selection, test_rows):
    wrong = test_rows["label"].where(np.arange(len(test_rows)) % 10 > 0, 1 - test_rows["label"])
    rows = test_rows.assign(label=wrong)
    detector = choose_detector(selection, "signal")
    truth, flags = (evaluate(detector, rows, against=a, resamples=2)["value"] for a in ("is_lens", "label"))
    assert truth["AUROC"] > flags["AUROC"] + 0.05


def test_the_graded_task_sets_graded_objects_against_flagged_and_rejected_ones(selection, test_rows):
    detector = choose_detector(selection, "signal")
    table = evaluate_graded(detector, test_rows, resamples=20)["value"]
    graded, flagged = test_rows["graded"], detector.flags(test_rows)
    rest = test_rows[~graded].assign(flagged=flagged[~graded])
    share = rest.groupby("label")["flagged"].mean()
    fpr = (0.949 * share[0] + 0.04992 * share[1]) / (0.949 + 0.04992)
    assert table["FPR"] == pytest.approx(fpr)
    recall = flagged[graded].mean()
    assert table["precision"] == pytest.approx(0.00108 * recall / (0.00108 * recall + 0.99892 * fpr))
    assert table["graded"] == graded.sum()
    assert 1500 < table["effective_rest"] < len(rest)


def test_objects_that_share_pixels_are_resampled_together(selection, test_rows):
    """Sixteen copies tell no more than one: without groups an interval comes out four times too narrow."""
    copies = pd.concat([test_rows.assign(group=np.arange(len(test_rows)))] * 16, ignore_index=True)
    copies.loc[copies["group"] < 100, "label"] = -1
    detector = choose_detector(selection, "signal")
    alone, together = (
        evaluate(detector, rows, resamples=300) for rows in (copies.drop(columns="group"), copies)
    )
    pd.testing.assert_series_equal(alone["value"], together["value"])
    width = [(table["high"] - table["low"])["AUROC"] for table in (alone, together)]
    assert width[1] / width[0] == pytest.approx(4, rel=0.25)


def test_all_detectors_are_compared_on_the_same_objects(selection, test_rows):
    rows = test_rows.assign(label=test_rows["label"].where(test_rows.index > 300, -1))
    detectors = [choose_detector(selection, s, n=2) for s in ("noise", "kl", "signal")]
    table = compare_detectors(detectors, rows, resamples=20)
    assert table["AP"].is_monotonic_decreasing
    assert set(table.index) == {"noise", "kl, 2 dimensions", "signal"}
    alone = evaluate(detectors[1], rows, resamples=20)
    assert table.loc["kl, 2 dimensions", "F1_low"] == alone.loc["F1", "low"]
    pair = compare_pair(detectors[2], detectors[0], rows, resamples=100)
    assert pair.loc["AP", "difference"] == pytest.approx(table.loc["signal", "AP"] - table.loc["noise", "AP"])
    assert pair.loc["AP", "clear"]


def test_precision_elsewhere_is_that_of_the_confusion_matrix(selection, test_rows):
    detector = choose_detector(selection, "signal")
    (passed, false), (missed, true) = confusion_matrix(test_rows["is_lens"], detector.flags(test_rows))
    expected = metrics.precision_at(true, missed + true, false, passed + false)
    pd.testing.assert_frame_equal(precision_elsewhere(detector, test_rows), expected)
    elsewhere = precision_elsewhere(detector, test_rows, prevalences=(detector.prevalence,))
    here = evaluate(detector, test_rows, resamples=500).loc["precision"]
    assert elsewhere["precision"].iloc[0] == pytest.approx(here["value"], rel=0.03)
    assert elsewhere["low"].iloc[0] == pytest.approx(here["low"], rel=0.05)


def test_threshold_curves_follow_the_order_of_chi_squared(selection):
    statistics = dimension_statistics(selection, "kl")
    curves = threshold_curves(selection, "kl", statistics, counts=(1, 3, 99))
    assert curves["dimensions"].unique().tolist() == [1, 3]
    strongest = int(statistics["chi2"].idxmax())
    alone = metrics.operating_curve(selection[f"kl_{strongest}"], selection["is_lens"])
    first = curves[curves["dimensions"] == 1].drop(columns="dimensions").reset_index(drop=True)
    pd.testing.assert_frame_equal(first, alone)


def responsibilities(cluster):
    return {f"responsibility_{k}": (cluster == k).astype(float) for k in range(3)}


def test_clusters_are_ranked_by_what_they_hold():
    rng = np.random.default_rng(3)
    rows = scores_table(900, 100, split="selection")
    of_lenses, of_normals = (rng.choice(3, 1000, p=p) for p in ([0.3, 0, 0.7], [0.5, 0.45, 0.05]))
    cluster = np.where(rows["is_lens"], of_lenses, of_normals)
    rows = rows.assign(**responsibilities(cluster))
    detector = choose_detector(rows, "cluster")
    assert np.argsort(detector.clusters).tolist() == [1, 0, 2]
    assert (detector.flags(rows) == (cluster == 2)).all()
    with pytest.raises(ValueError, match="mismatch"):
        detector.score(rows.assign(responsibility_3=0.0))


def test_the_purity_of_a_cluster_by_hand():
    """Half the lenses are alone in a cluster, half of the ordinary in another, the others share one."""
    cluster = np.repeat([0, 1, 1, 2], [2, 2, 8, 8])
    label = np.repeat([1, 1, 0, 0], [2, 2, 8, 8])
    rows = pd.DataFrame({"label": label, "split": "selection", **responsibilities(cluster)})
    # One of the 20 objects is added to the shares: 0.5 / (0.5 + 1 / 20).
    assert choose_detector(rows, "cluster").clusters == pytest.approx((10 / 11, 0, -10 / 11))


@pytest.mark.parametrize("statistic", ["kl", "mu", "logvar", "signal"])
def test_with_shuffled_labels_every_number_falls_to_chance(selection, test_rows, statistic):
    detector = choose_detector(shuffle_labels(selection, seed=3), statistic)
    table = evaluate(detector, shuffle_labels(test_rows, seed=4), resamples=400)
    assert table.loc["AUROC", "low"] < 0.5 < table.loc["AUROC", "high"]
    assert table.loc["AP", "low"] < detector.prevalence < table.loc["AP", "high"]
    assert table.loc["recall_fpr_1e-2", "low"] <= 0.01


def test_a_planted_leak_shows():
    own, fresh = (scores_table(300, 60, dimensions=128, seed=s) for s in (5, 6))
    passed_off = dimension_statistics(own.assign(split="selection"), "kl")
    dimensions = passed_off.nlargest(10, "welch_t")["dimension"]
    leaky = Detector("leaky", "kl", tuple(dimensions), threshold=1.0)
    inside, outside = (evaluate(leaky, rows, resamples=300).loc["AUROC"] for rows in (own, fresh))
    assert inside["low"] > 0.55  # dimensions chosen on the very objects that evaluate, and nothing to find
    assert outside["low"] < 0.5 < outside["high"]


def test_useless_input_is_named(selection):
    with pytest.raises(ValueError, match="'signal' collapsed: all 1750 objects have the score 3"):
        choose_detector(selection.assign(signal=3.0), "signal")
    with pytest.raises(ValueError, match="'bh' chose none"):
        choose_detector(selection, "kl", rule="bh", dimensions=())
    with pytest.raises(ValueError, match="lack the columns flow"):
        Detector("d", "flow").score(selection)
    broken = selection.assign(signal=selection["signal"].where(selection.index != 3))
    with pytest.raises(ValueError, match="1 values of signal are not finite"):
        Detector("d", "signal").score(broken)
    with pytest.raises(ValueError, match="score with a Gaussian-mixture VAE"):
        choose_detector(selection, "cluster")

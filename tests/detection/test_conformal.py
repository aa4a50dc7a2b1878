"""Conformal p-values are valid, and lists keep their false discovery rate."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tables import scores_table

from lensq.detection import conformal
from lensq.detection.conformal import candidate_list, conformal_p_values, fdr_study, reach
from lensq.detection.detectors import Detector

DETECTOR = Detector("signal", "signal")


def test_p_values_by_their_definition():
    normals, score = np.array([1.0, 2, 2, 5]), np.array([0.0, 2, 2.5, 5, 6])
    assert conformal_p_values(normals, score).tolist() == [1, 4 / 5, 2 / 5, 2 / 5, 1 / 5]


def each_alone(normals, score):
    """The p-value of one score against each of many calibration sets."""
    return np.concatenate([conformal_p_values(*pair) for pair in zip(normals, score, strict=True)])


def test_p_values_of_normals_are_uniform_on_their_grid():
    rng = np.random.default_rng(1)
    p = each_alone(rng.normal(size=(20_000, 19)), rng.normal(size=(20_000, 1)))
    counts = np.bincount(np.round(20 * p).astype(int), minlength=21)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("decimals", [6, 0])
def test_p_values_are_super_uniform_even_with_ties(decimals):
    rng = np.random.default_rng(2)
    normals, score = rng.normal(size=(20_000, 49)), rng.normal(size=(20_000, 1))
    p = each_alone(normals.round(decimals), score.round(decimals))
    for level in (0.02, 0.1, 0.25, 0.5, 0.9):
        assert np.mean(p <= level) <= level + 4 * np.sqrt(level * (1 - level) / 20_000)


def test_anomalous_scores_get_small_p_values():
    rng = np.random.default_rng(3)
    p = conformal_p_values(rng.normal(size=999), rng.normal(3, 1, size=2000))
    expected = stats.norm.sf(stats.norm.isf(0.01) - 3)
    assert np.mean(p <= 0.01) == pytest.approx(expected, abs=0.06)


def test_a_list_is_benjamini_hochberg_by_hand():
    rows = scores_table(800, 120, seed=4)
    calibration, objects = rows[rows["split"] == "conformal"], rows[rows["split"] == "test"]
    table = candidate_list(DETECTOR, calibration, objects, fdr=0.2)
    normals = calibration.loc[calibration["label"] == 0, "signal"]
    assert table["score"].is_monotonic_decreasing
    assert table["p"].is_monotonic_increasing
    assert np.allclose(table["p"], [(1 + (normals >= s).sum()) / (len(normals) + 1) for s in table["score"]])
    allowed = np.flatnonzero(table["p"] <= 0.2 * np.arange(1, len(table) + 1) / len(table))
    assert table["listed"].sum() == allowed.max() + 1
    assert table["listed"].iloc[: allowed.max() + 1].all()
    assert set(table["name"]) == set(objects["name"])


def test_flagged_objects_do_not_calibrate():
    rows = scores_table(400, 200, seed=5)
    calibration, objects = rows[rows["split"] == "conformal"], rows[rows["split"] == "test"]
    without = calibration[calibration["label"] == 0]
    pd.testing.assert_frame_equal(
        candidate_list(DETECTOR, calibration, objects), candidate_list(DETECTOR, without, objects)
    )


@pytest.fixture(scope="module")
def large():
    table = scores_table(6000, 900, split="test", seed=6)
    return table.assign(split=np.where(table.index % 2, "conformal", "test"))


def test_false_discoveries_stay_below_the_target(large):
    table = fdr_study(DETECTOR, large, fdrs=(0.1, 0.2, 0.4), prevalence=0.1, resamples=300)
    assert (table["empirical"] <= table["nominal"] * 0.9 + 4 * table["error"]).all()
    # Benjamini and Hochberg's procedure is exact at (share of normals) times the target.
    assert table["empirical"].to_numpy() == pytest.approx(0.9 * table["nominal"].to_numpy(), rel=0.2)
    assert table["power"].is_monotonic_increasing
    assert (table["n_anomalies"] == round(0.1 * table["n_objects"].iloc[0])).all()


def test_rates_over_four_lists_by_hand():
    """One lens and one normal: both listed, the lens alone, the normal alone, none."""
    p = np.array([[0.01, 0.01], [0.01, 0.9], [0.9, 0.01], [0.9, 0.9]])
    row = conformal._discoveries(p, 1, [0.2]).iloc[0]
    assert row["empirical"] == 3 / 8
    # Shares of false ones are 1/2, 0, 1, 0: they deviate by 1, 3, 5, 3 eighths from their mean.
    assert row["error"] == pytest.approx(np.sqrt((1 + 9 + 25 + 9) / 3) / 8 / np.sqrt(4))
    assert (row["power"], row["listed"], row["empty"]) == (1 / 2, 1, 1 / 4)


def test_by_default_every_normal_calibrates_or_is_tested(large):
    study = {"prevalence": 0.1, "resamples": 2}
    sizes = fdr_study(DETECTOR, large, **study).iloc[0]
    assert sizes["n_calibration"] == 4000
    assert sizes["n_objects"] - sizes["n_anomalies"] == 2000


def test_few_anomalies_make_a_smaller_survey_of_the_same_prevalence(large):
    lens = np.flatnonzero(large["label"] == 1)
    few = large.drop(index=large.index[lens[20:]])
    sizes = fdr_study(
        DETECTOR, few, fdrs=(0.2,), contaminations=(0.0, 0.002), prevalence=0.05, resamples=5
    ).iloc[0]
    hidden = round(0.002 * sizes["n_calibration"])
    assert sizes["n_anomalies"] == 20 - hidden
    assert sizes["n_anomalies"] / sizes["n_objects"] == pytest.approx(0.05, abs=0.002)


def test_flagged_normals_are_tested_and_do_not_calibrate(large):
    """They look like lenses: lists get falser than a calibration set that held them would say."""
    normal = large["label"] == 0
    decoy = normal & (np.random.default_rng(0).random(len(large)) < 0.05)
    signal = large["signal"].where(~decoy, large["signal"].max())
    truth = large.assign(is_lens=~normal, signal=signal)
    options = {"fdrs": (0.1, 0.2), "prevalence": 0.1, "resamples": 100}
    detector = replace(DETECTOR, against="is_lens")
    seen = fdr_study(detector, truth, **options)
    flagged = fdr_study(detector, truth.assign(label=truth["label"].mask(decoy, 1)), **options)
    assert (seen["empirical"] <= seen["nominal"]).all()
    # 5% of the normals lead every list, against 10% lenses in all.
    assert (flagged["empirical"] > 0.045 / (0.045 + 0.1)).all()
    assert (flagged["empirical"] > flagged["nominal"]).all()


def test_without_anything_to_find_a_list_is_rarely_begun(large):
    blind = Detector("noise", "noise")
    table = fdr_study(blind, large, fdrs=(0.1,), prevalence=0.05, resamples=300)
    # All discoveries are nearly as good as false: some list appears in at most a tenth of the resamples.
    assert 1 - table["empty"].iloc[0] < 0.1 + 4 * np.sqrt(0.09 / 300)


def test_hidden_lenses_make_lists_shorter_not_falser(large):
    study = fdr_study(
        DETECTOR, large, fdrs=(0.2, 0.4), contaminations=(0.0, 0.01, 0.05), prevalence=0.1, n_calibration=3000
    )
    for _, part in study.groupby("nominal"):
        assert part["power"].is_monotonic_decreasing
        assert part["listed"].is_monotonic_decreasing
        assert (part["empirical"] <= part["nominal"] + 4 * part["error"]).all()
    assert study["contamination"].unique().tolist() == [0.0, 0.01, 0.05]


def test_a_study_that_the_objects_cannot_feed_says_so(large):
    with pytest.raises(
        ValueError, match=r"6001 objects that calibrate.* 6000 rejected objects and 900 anomalies; lower"
    ):
        fdr_study(DETECTOR, large, n_calibration=6001)
    with pytest.raises(ValueError, match=r"3000 objects that calibrate, 900 of them hidden anomalies"):
        fdr_study(DETECTOR, large, n_calibration=3000, contaminations=(0.0, 0.3))


def test_reach_of_a_calibration_set():
    # With 999 normals p is at least 0.001; of 1,000 objects at 10% a list needs k >= 10.
    assert reach(999, 1000, 0.1) == {"smallest_p": 0.001, "shortest_list": 10, "calibration_for_one": 9999}
    for calibration, objects, fdr in ((999, 1000, 0.1), (3000, 121_870, 0.2), (9999, 1000, 0.1)):
        promise = reach(calibration, objects, fdr)
        shortest = promise["shortest_list"]
        p = np.full(objects, 1.0)
        for k, listed in ((shortest, True), (shortest - 1, False)):
            p[:] = 1.0
            p[:k] = promise["smallest_p"]
            assert (stats.false_discovery_control(p) <= fdr * (1 + 1e-12)).any() == (listed and k > 0)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least one ordinary object"):
        conformal_p_values(np.array([]), np.array([1.0]))
    with pytest.raises(ValueError, match="not finite"):
        conformal_p_values(np.array([1.0]), np.array([np.nan]))

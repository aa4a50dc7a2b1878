"""Two-sample tests on counts and values against independent implementations and closed forms."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mutual_info_score

from lensq.statistics.twosample import (
    information,
    merge_bins,
    sparse_bin_groups,
    two_sample_chi_squared,
    welch_t,
)


def test_chi_squared_and_cramers_v_match_scipy():
    rng = np.random.default_rng(1)
    normal, anomaly = rng.integers(5, 60, (7, 9)), rng.integers(5, 30, (7, 9))
    chi2, dof, p, v = two_sample_chi_squared(normal, anomaly)
    for i in range(7):
        table = np.stack([normal[i], anomaly[i]])
        expected = stats.chi2_contingency(table, correction=False)
        assert (chi2[i], dof[i], p[i]) == pytest.approx((expected.statistic, expected.dof, expected.pvalue))
        assert v[i] == pytest.approx(stats.contingency.association(table, method="cramer"))


def test_bins_that_are_empty_in_both_samples_do_not_count():
    normal, anomaly = np.array([10, 0, 20, 0, 30]), np.array([9, 0, 9, 0, 9])
    full = two_sample_chi_squared(normal[::2], anomaly[::2])
    assert np.allclose(two_sample_chi_squared(normal, anomaly), full)


def test_a_bin_without_normals_tells_the_most():
    chi2, dof, p, v = two_sample_chi_squared(np.array([100, 100, 0]), np.array([0, 0, 50]))
    assert chi2 == pytest.approx(250)  # every object has its bin: chi-squared is the number of objects
    assert v == pytest.approx(1)
    assert dof == 2
    assert p < 1e-50


def test_one_bin_says_nothing():
    for normals in range(30, 60):
        assert [float(x) for x in two_sample_chi_squared([normals], [7])] == [0, 0, 1, 0]


def test_merged_bins_expect_enough_and_lose_no_object():
    rng = np.random.default_rng(2)
    reference = rng.integers(0, 60, (50, 20)).astype(float)
    groups = sparse_bin_groups(reference, 40)
    merged = merge_bins(reference, groups)
    share = merged / reference.sum(axis=1, keepdims=True)
    held = merged > 0
    assert np.allclose(merged.sum(axis=1), reference.sum(axis=1))
    assert (40 * share[held]).min() >= 5 - 1e-6
    assert held.sum(axis=1).max() <= 8
    assert np.all(np.diff(groups, axis=1) >= 0)
    assert np.all(np.diff(groups, axis=1) <= 1)


def test_merging_by_hand():
    reference = np.array([10.0, 10, 30, 40, 5, 5])  # a sample of 20 expects 2, 2, 6, 8, 1, 1
    groups = sparse_bin_groups(reference, 20)
    assert groups.tolist() == [0, 0, 0, 1, 1, 1]
    assert merge_bins(np.array([1.0, 2, 3, 4, 5, 6]), groups).tolist() == [6, 15, 0, 0, 0, 0]


def test_too_small_a_sample_leaves_one_bin():
    assert sparse_bin_groups(np.full((3, 4), 100.0), 9).max() == 0


def test_welch_matches_scipy_and_survives_constants():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(200, 4)) * [1, 5, 0.1, 0] + [0, 1, 2, 3]
    positive = np.arange(200) < 60
    values[positive, 1] += 2
    t, p = welch_t(values, positive)
    expected = stats.ttest_ind(values[positive, :3], values[~positive, :3], equal_var=False)
    assert np.allclose(t[:3], expected.statistic)
    assert np.allclose(p[:3], expected.pvalue)
    assert (t[3], p[3]) == (0, 1)


def test_mutual_information_matches_scikit_learn():
    rng = np.random.default_rng(4)
    bins, classes = rng.integers(0, 6, 500), rng.integers(0, 2, 500)
    normal, anomaly = (np.bincount(bins[classes == c], minlength=6).astype(float) for c in (0, 1))
    assert information(normal, anomaly)[1] == pytest.approx(mutual_info_score(bins, classes))


def test_relative_entropy_of_two_gaussians():
    edges = np.linspace(-6, 7, 200)
    normal, anomaly = (1e9 * np.diff(stats.norm(mean).cdf(edges)) for mean in (0, 1.2))
    assert information(normal, anomaly)[0] == pytest.approx(1.2**2 / 2, rel=1e-3)


def test_half_a_count_is_added_to_each_bin_that_holds_an_object():
    """Three normals and one anomaly in bins of their own: 7/8 and 1/8 against 1/4 and 3/4."""
    expected = 0.25 * np.log(0.25 / 0.875) + 0.75 * np.log(0.75 / 0.125)
    for normal, anomaly in (([3.0, 0], [0.0, 1]), ([3.0, 0, 0], [0.0, 0, 1])):
        assert information(np.array(normal), np.array(anomaly))[0] == pytest.approx(expected)

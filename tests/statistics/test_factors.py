"""The mutual information gap of codes whose information is known, and clusters against classes."""

import numpy as np
import pandas as pd
import pytest

from lensq.statistics.factors import cluster_table, mutual_information_gap

NARROW = -200.0


def coded(factor: np.ndarray, *means: np.ndarray, logvar: float = NARROW) -> pd.DataFrame:
    """Scores with a factor and a latent dimension for each array of means."""
    table = {"separation": factor}
    for d, mu in enumerate(means):
        table |= {f"mu_{d}": mu, f"logvar_{d}": np.full(len(mu), logvar)}
    return pd.DataFrame(table)


def channel(factor: np.ndarray, right: float) -> np.ndarray:
    """A copy of a factor of +-1 that is right for this share of either value, and wrong for the rest."""
    copy = factor.copy()
    for value in (-1.0, 1.0):
        members = np.flatnonzero(factor == value)
        copy[members[: round((1 - right) * len(members))]] *= -1
    return copy


def entropy(p: float) -> float:
    """Entropy in bits of one of two values that has probability p."""
    return float(-p * np.log2(p) - (1 - p) * np.log2(1 - p))


def shared(right: float) -> float:
    """Mutual information of a fair bit with such a copy, as a share of its entropy."""
    return 1 - entropy(right)


@pytest.mark.slow
def test_the_gap_of_binary_channels_is_that_of_their_closed_form():
    factor = np.repeat([-1.0, 1.0], 1000)
    noise = np.random.default_rng(1).permuted(factor)
    row = mutual_information_gap(coded(factor, channel(factor, 0.75), noise, channel(factor, 0.9))).iloc[0]
    assert row["dimension"] == 2
    assert row["information"] == pytest.approx(shared(0.9), abs=1e-9)
    assert row["gap"] == pytest.approx(shared(0.9) - shared(0.75), abs=1e-9)


@pytest.mark.slow
def test_a_rare_value_counts_by_its_entropy():
    factor = np.repeat([-1.0, 1.0], [1500, 500])
    noise = np.random.default_rng(1).permuted(factor)
    row = mutual_information_gap(coded(factor, noise, channel(factor, 0.9))).iloc[0]
    # right for nine tenths of either value, so 600 of the 2000 copies are +1
    assert row["information"] == pytest.approx((entropy(0.3) - entropy(0.1)) / entropy(0.25), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, -3.0])
def test_one_dimension_that_is_the_factor_has_a_gap_of_nearly_one(scale):
    rng = np.random.default_rng(0)
    factor, others = rng.normal(size=4000), rng.normal(size=(3, 4000))
    row = mutual_information_gap(coded(factor, others[0], scale * factor**3, *others[1:])).iloc[0]
    assert (row["dimension"], row["bins"], row["objects"]) == (1, 20, 4000)
    assert row["information"] == pytest.approx(1.0)
    assert 0.97 < row["gap"] < 1.0
    assert row["chance"] < 0.01


@pytest.mark.slow
def test_a_factor_that_two_dimensions_share_has_no_gap():
    factor = np.random.default_rng(0).normal(size=2000)
    row = mutual_information_gap(coded(factor, factor, 2 * factor)).iloc[0]
    assert row["information"] == pytest.approx(1.0)
    assert row["gap"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.slow
def test_a_dimension_lost_in_its_posterior_noise_tells_nothing():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=2000)
    row = mutual_information_gap(coded(factor, 0.01 * factor, rng.normal(size=2000), logvar=0.0)).iloc[0]
    assert row["information"] < 0.05
    assert row["gap"] < 0.02


@pytest.mark.slow
def test_chance_is_exceeded_by_independent_codes_one_time_in_twenty():
    rng = np.random.default_rng(0)
    above = 0
    for seed in range(200):
        table = mutual_information_gap(coded(*rng.normal(size=(4, 300))), shuffles=60, seed=seed)
        above += table["gap"].iloc[0] > table["chance"].iloc[0]
    assert 2 <= above <= 22


@pytest.mark.slow
def test_unknown_objects_are_left_out_factor_by_factor():
    rng = np.random.default_rng(0)
    scores = coded(rng.normal(size=500), *rng.normal(size=(2, 500)))
    scores["seeing"] = rng.normal(size=500)
    scores.loc[100:, "separation"] = np.nan
    scores["ellipticity"] = np.nan
    table = mutual_information_gap(scores)
    assert table["objects"].to_dict() == {"separation": 100, "seeing": 500}
    assert table["bins"].to_dict() == {"separation": 4, "seeing": 10}


def test_without_truth_the_table_is_empty():
    scores = coded(*np.random.default_rng(0).normal(size=(3, 100))).drop(columns="separation")
    assert mutual_information_gap(scores).empty


def test_clusters_are_counted_by_class():
    scores = pd.DataFrame({"cluster": [0, 0, 3, 3, 3], "class": ["lens", "point", "point", "point", "disk"]})
    table = cluster_table(scores)
    assert table.columns[0] == "point"
    assert table.loc[3].to_dict() == {"point": 2, "disk": 1, "lens": 0}
    assert table.index.tolist() == [0, 3]
    with pytest.raises(ValueError, match="lack label"):
        cluster_table(scores, "label")

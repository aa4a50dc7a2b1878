"""Shares with binomial intervals, against counts by hand and their coverage."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lensq.completeness import (
    completeness,
    completeness_map,
    jeffreys_interval,
    least_complete,
    share_by_class,
)


@pytest.fixture
def lenses():
    rng = np.random.default_rng(0)
    return pd.DataFrame({"separation": rng.uniform(0.5, 4, 2000), "magnitude_i": rng.normal(20, 1, 2000)})


def test_every_lens_is_counted_once(lenses):
    found = lenses["separation"].to_numpy() > 2
    table = completeness(lenses, found, "separation", bins=7)
    assert table["n"].sum() == 2000
    assert table["found"].sum() == found.sum()
    assert table["n"].max() - table["n"].min() <= 1
    assert (table["lower"].iloc[1:].to_numpy() == table["upper"].iloc[:-1].to_numpy()).all()
    assert table["centre"].between(table["lower"], table["upper"]).all()
    assert set(table.loc[table["lower"] > 2, "share"]) == {1.0}
    assert set(table.loc[table["upper"] < 2, "share"]) == {0.0}


def test_shares_by_hand_with_given_edges():
    lenses = pd.DataFrame({"separation": [0.4, 0.5, 0.9, 1.0, 1.5, 2.0, np.nan]})
    found = np.array([True, True, False, True, True, False, True])
    table = completeness(lenses, found, "separation", bins=[0.5, 1.0, 2.0, 3.0, 4.0])
    assert table["n"].tolist() == [2, 2, 1, 0]
    assert table["found"].tolist() == [1, 2, 0, 0]
    assert table["centre"].tolist() == [0.7, 1.25, 2.0, 3.5]
    assert table["share"].iloc[:3].tolist() == [0.5, 1, 0]
    assert np.isnan(table["share"].iloc[3])
    assert (table["low"].iloc[3], table["high"].iloc[3]) == (0, 1)


def test_intervals_are_beta_quantiles_and_reach_the_ends():
    low, high = jeffreys_interval(np.array([0, 3, 10]), np.array([10, 10, 10]))
    assert (low[0], high[2]) == (0, 1)
    assert [low[1], high[1]] == pytest.approx(stats.beta(3.5, 7.5).ppf([0.025, 0.975]).tolist())
    assert high[0] == pytest.approx(1 - low[2])


def test_intervals_cover_the_true_share():
    rng = np.random.default_rng(1)
    share = rng.beta(0.5, 0.5, 20_000)  # under its own prior the interval is exact, but for its two ends
    low, high = jeffreys_interval(rng.binomial(60, share), np.full(20_000, 60))
    assert np.mean((low <= share) & (share <= high)) == pytest.approx(0.957, abs=0.008)


def test_a_map_sums_to_its_curves(lenses):
    found = np.random.default_rng(2).random(2000) < 0.4
    edges = np.linspace(0.5, 4, 5)
    table = completeness_map(lenses, found, "separation", "magnitude_i", bins=(edges, 3))
    curve = completeness(lenses, found, "separation", bins=edges)
    sums = table.groupby("x_lower")[["n", "found"]].sum().reset_index(drop=True)
    assert (sums == curve[["n", "found"]]).all().all()
    cell = table.iloc[4]
    inside = lenses["separation"].between(cell["x_lower"], cell["x_upper"], inclusive="left")
    inside &= lenses["magnitude_i"].between(cell["y_lower"], cell["y_upper"], inclusive="left")
    assert cell["n"] == inside.sum()
    assert cell["found"] == found[inside].sum()


def test_shares_by_class():
    table = pd.DataFrame({"class": ["point"] * 50 + ["merger"] * 4}, index=np.arange(54)[::-1])
    flagged = np.arange(54) >= 49
    result = share_by_class(table, flagged)
    assert result["class"].tolist() == ["merger", "point"]
    assert result["found"].tolist() == [4, 1]
    assert result["share"].tolist() == [1.0, 0.02]
    assert (result["low"] < result["share"]).all()


def test_only_what_is_surely_incomplete_is_called_so(lenses):
    found = (lenses["separation"] > 1).to_numpy() & (np.random.default_rng(3).random(2000) < 0.5)
    tables = {"separation": completeness(lenses, found, "separation", bins=[0.5, 0.99, 1.01, 2, 4, 9])}
    low = least_complete(tables)
    assert low["property"].tolist() == ["separation"]
    assert low[["lower", "upper"]].iloc[0].tolist() == [0.5, 0.99]


def test_bad_input_is_named(lenses):
    with pytest.raises(ValueError, match="no column flux_ratio"):
        completeness(lenses, np.zeros(2000, bool), "flux_ratio")
    with pytest.raises(ValueError, match="found has 3 values for 2000 lenses"):
        completeness(lenses, np.zeros(3, bool), "separation")
    with pytest.raises(ValueError, match="no finite value"):
        completeness(lenses.assign(separation=np.nan), np.zeros(2000, bool), "separation")

"""Shares with binomial intervals, against counts by hand and their coverage."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lensq.detection.completeness import (
    PROPERTIES,
    at_fpr,
    blind_spots,
    by_property,
    completeness_curve,
    completeness_map,
    lens_table,
    overall,
    share_by_class,
)
from lensq.detection.detectors import Detector
from lensq.statistics.guard import LeakageError


@pytest.fixture
def lenses():
    rng = np.random.default_rng(0)
    return pd.DataFrame({"separation": rng.uniform(0.5, 4, 2000), "magnitude_i": rng.normal(20, 1, 2000)})


def test_every_lens_is_counted_once(lenses):
    found = lenses["separation"].to_numpy() > 2
    table = completeness_curve(lenses, found, "separation", bins=7)
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
    table = completeness_curve(lenses, found, "separation", bins=[0.5, 1.0, 2.0, 3.0, 4.0])
    assert table["n"].tolist() == [2, 2, 1, 0]
    assert table["found"].tolist() == [1, 2, 0, 0]
    assert table["centre"].tolist() == [0.7, 1.25, 2.0, 3.5]
    assert table["share"].iloc[:3].tolist() == [0.5, 1, 0]
    assert np.isnan(table["share"].iloc[3])
    assert (table["low"].iloc[3], table["high"].iloc[3]) == (0, 1)


def test_intervals_are_beta_quantiles_and_reach_the_ends():
    table = pd.DataFrame({"class": np.repeat(["a", "b", "c"], 10)})
    flagged = np.repeat([False, True, False, True], [10, 3, 7, 10])
    shares = share_by_class(table, flagged).set_index("class")
    assert shares.loc[["a", "b", "c"], "found"].tolist() == [0, 3, 10]
    assert (shares.loc["a", "low"], shares.loc["c", "high"]) == (0, 1)
    expected = stats.beta(3.5, 7.5).ppf([0.025, 0.975])
    assert shares.loc["b", ["low", "high"]].tolist() == pytest.approx(expected.tolist())
    assert shares.loc["a", "high"] == pytest.approx(1 - shares.loc["c", "low"])
    assert shares.loc["a", "high"] == pytest.approx(stats.beta(0.5, 10.5).ppf(0.975))


def test_a_map_sums_to_its_curves(lenses):
    found = np.random.default_rng(2).random(2000) < 0.4
    edges = np.linspace(0.5, 4, 5)
    table = completeness_map(lenses, found, "separation", "magnitude_i", bins=(edges, 3))
    curve = completeness_curve(lenses, found, "separation", bins=edges)
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


def test_only_what_is_surely_incomplete_is_called_blind(lenses):
    found = (lenses["separation"] > 1).to_numpy() & (np.random.default_rng(3).random(2000) < 0.5)
    edges = [0.5, 0.99, 1.01, 2, 4, 9]
    curves = {"separation (arcsec)": {"a": completeness_curve(lenses, found, "separation", bins=edges)}}
    whole = pd.DataFrame({"operating_point": ["a"], "images": ["all"], "high": [0.5]})
    assert blind_spots(curves, whole, "a") == "separation 0.50 to 0.99 arcsec"


def test_bad_input_is_named(lenses):
    with pytest.raises(ValueError, match="no column flux_ratio"):
        completeness_curve(lenses, np.zeros(2000, bool), "flux_ratio")
    with pytest.raises(ValueError, match="found has 3 values for 2000 lenses"):
        completeness_curve(lenses, np.zeros(3, bool), "separation")
    with pytest.raises(ValueError, match="no finite value"):
        completeness_curve(lenses.assign(separation=np.nan), np.zeros(2000, bool), "separation")


def scored(n=1000, split="selection", seed=4):
    """A Scores table of n objects, every fifth a lens, with a score that both classes share."""
    score = np.random.default_rng(seed).normal(size=n)
    return pd.DataFrame(
        {"name": [f"o{i}" for i in range(n)], "split": split, "is_lens": np.arange(n) % 5 == 0, "s": score}
    )


def truth_of(scores):
    rng = np.random.default_rng(5)
    table = pd.DataFrame({name: rng.uniform(1, 2, len(scores)) for name in PROPERTIES if name != "contrast"})
    table = table.assign(
        name=scores["name"].to_numpy(),
        is_lens=scores["is_lens"].to_numpy(),
        n_images=np.where(np.arange(len(scores)) % 15 == 0, 4, 2),
    )
    return table[::-1]


DETECTOR = Detector("s", "s", threshold=0.5, against="is_lens")


def test_the_strict_point_flags_the_share_it_is_asked_for():
    scores = scored()
    strict = at_fpr(DETECTOR, scores, 0.05)
    assert strict.flags(scores[~scores["is_lens"]]).sum() == 40
    assert (strict.name, strict.statistic, strict.direction) == ("s", "s", 1)
    asked_too_much = at_fpr(DETECTOR, scores, 0.005)
    assert asked_too_much.flags(scores[~scores["is_lens"]]).sum() == 10


def test_a_strict_point_needs_ordinary_objects():
    scores = scored()
    few = pd.concat([scores[scores["is_lens"]], scores[~scores["is_lens"]].head(9)])
    with pytest.raises(ValueError, match="9 ordinary objects are too few for a strict threshold"):
        at_fpr(DETECTOR, few, 0.05)


def test_the_strict_point_is_never_chosen_on_test():
    with pytest.raises(LeakageError, match="at_fpr"):
        at_fpr(DETECTOR, scored(split="test"), 0.05)


def test_lenses_get_their_own_properties_by_name():
    scores = scored()
    truth = truth_of(scores)
    lenses = lens_table(scores, truth)
    assert len(lenses) == 200
    known = truth.set_index("name").loc[lenses["name"]]
    assert (lenses["separation"].to_numpy() == known["separation"].to_numpy()).all()
    assert (
        lenses["contrast"].to_numpy() == (known["deflector_magnitude"] - known["magnitude_i"]).to_numpy()
    ).all()
    assert (lenses["images"] == "quads").sum() == 67
    assert lenses["s"].tolist() == scores.loc[scores["is_lens"], "s"].tolist()


def test_doubles_and_quads_add_up():
    lenses = lens_table(scored(), truth_of(scored()))
    table = overall(lenses, {"loose": DETECTOR, "strict": Detector("s", "s", threshold=1.5)})
    assert table["operating_point"].tolist() == ["loose"] * 3 + ["strict"] * 3
    assert table["images"].tolist() == ["all", "doubles", "quads"] * 2
    for _, part in table.groupby("operating_point"):
        assert (part[["n", "found"]].iloc[0] == part[["n", "found"]].iloc[1:].sum()).all()
    assert table["found"].iloc[0] == (lenses["s"] >= 0.5).sum()
    assert table["found"].iloc[3] == (lenses["s"] >= 1.5).sum()


def test_curves_of_every_property_count_every_lens():
    lenses = lens_table(scored(), truth_of(scored()))
    groups = {kind: (part, DETECTOR.flags(part)) for kind, part in lenses.groupby("images")}
    curves = by_property(groups, 4)
    assert list(curves) == list(PROPERTIES.values())
    for tables in curves.values():
        assert {name: table["n"].sum() for name, table in tables.items()} == {"doubles": 133, "quads": 67}
        assert all(len(table) == 4 for table in tables.values())


def test_a_survey_without_truth_has_no_lenses_to_ask_about():
    none = lens_table(scored(), None)
    table = overall(none, {"loose": DETECTOR})
    assert table["n"].tolist() == [0, 0, 0]
    assert table["share"].isna().all()
    assert by_property({"loose": (none, DETECTOR.flags(none))}, 4) == {}
    assert blind_spots({}, table, "loose") == "unknown"


def test_blind_spots_join_neighbouring_bins():
    lenses = pd.DataFrame({"separation": np.repeat([0.6, 1.1, 1.6, 2.1], 200), "flux_ratio": 0.5})
    found = np.repeat([False, False, True, False], 200)
    edges = [0.5, 1.0, 1.5, 2.0, 2.5]
    curves = {
        "separation (arcsec)": {"a": completeness_curve(lenses, found, "separation", edges)},
        "flux ratio": {"a": completeness_curve(lenses, found, "flux_ratio", [0, 1])},
    }
    whole = pd.DataFrame({"operating_point": ["a", "a"], "images": ["all", "quads"], "high": [0.3, 0.05]})
    assert blind_spots(curves, whole, "a") == "separation 0.50 to 1.50 arcsec; separation 2.00 to 2.50 arcsec"
    assert blind_spots(curves, whole, "a", 0.29).endswith("; flux ratio 0.00 to 1.00")
    assert blind_spots({"flux ratio": curves["flux ratio"]}, whole, "a") == "nowhere"
    # A quarter of all is found: below a half on the whole, though not where the separation is 1.5 to 2.
    words = "on the whole; more, for certain, at separation 1.50 to 2.00 arcsec only"
    assert blind_spots(curves, whole, "a", 0.5) == words
    part = {"flux ratio": curves["flux ratio"]}
    assert blind_spots(part, whole, "a", 0.5) == "on the whole; for certain more nowhere"

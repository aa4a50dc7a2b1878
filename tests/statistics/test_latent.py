"""Statistics over latent dimensions, the choice among them, and how firm it is."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from tables import scores_table

from lensq.statistics.guard import LeakageError
from lensq.statistics.latent import (
    choice_stability,
    choose_dimensions,
    dimension_statistics,
    joint_map,
    latent_dimensions,
    latent_values,
    null_p_values,
)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["kl", "mu", "logvar"])
@pytest.mark.parametrize("anomalies", [40, 1000])
def test_two_halves_of_normals_give_uniform_p_values(statistic, anomalies):
    rows = scores_table(2000, anomalies, dimensions=400, split="selection", seed=anomalies)
    table = dimension_statistics(rows, statistic)
    assert stats.kstest(table["p"], "uniform").pvalue > 1e-3
    assert (table["ks_p"] < 0.05).mean() < 0.09  # its asymptotic p-value is discrete, and rather too large
    assert stats.kstest(table["welch_p"], "uniform").pvalue > 1e-3
    assert abs((table["p"] < 0.05).mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 400)
    assert (table["q"] < 0.05).sum() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("against", ["label", "is_lens"])
def test_halves_of_normals_are_dealt_anew_and_tell_nothing(against):
    rows = scores_table(900, 300, dimensions=8, shifts={2: 3.0}, split="selection")
    table = null_p_values(rows, "mu", against=against, repeats=60)
    assert (table["n_normals"] == 450).all()
    assert (table["n_anomalies"] == 450).all()
    assert table.groupby("repeat")["dimension"].apply(list).tolist() == [list(range(8))] * 60
    for p in ("p", "welch_p"):
        assert abs((table[p] < 0.05).mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 480)
    assert (table.groupby("repeat")["q"].min() < 0.05).mean() < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 60)
    assert table.groupby("dimension")["chi2"].nunique().gt(50).all()
    pd.testing.assert_frame_equal(table[:80], null_p_values(rows, "mu", against=against, repeats=10))
    with pytest.raises(LeakageError):
        null_p_values(rows.assign(split="test"))


def test_statistics_match_scipy_dimension_by_dimension():
    rows = scores_table(800, 150, shifts={2: 0.7}, split="selection")
    table = dimension_statistics(rows, "mu")
    values, positive = latent_values(rows, "mu"), rows["is_lens"].to_numpy()
    for d, row in table.set_index("dimension").iterrows():
        ks = stats.ks_2samp(values[positive, d], values[~positive, d], method="asymp")
        welch = stats.ttest_ind(values[positive, d], values[~positive, d], equal_var=False)
        assert (row["ks"], row["ks_p"]) == pytest.approx((ks.statistic, ks.pvalue))
        assert (row["welch_t"], row["welch_p"]) == pytest.approx((welch.statistic, welch.pvalue))
        assert row["difference_mu"] == pytest.approx(values[positive, d].mean() - values[~positive, d].mean())
    assert (table["n_normals"] == 800).all()
    assert (table["n_anomalies"] == 150).all()
    assert (table["dof"] == 19).all()
    assert np.allclose(table["cramers_v"], np.sqrt(table["chi2"] / 950))
    assert np.allclose(table["q"], stats.false_discovery_control(table["p"]))


def test_equal_bins_of_normals_make_chi_squared_a_closed_form():
    rows = scores_table(1000, 200, dimensions=2, split="selection")
    values, positive = latent_values(rows, "logvar"), rows["is_lens"].to_numpy()
    table = dimension_statistics(rows, "logvar", bins=10)
    for d in range(2):
        edges = np.quantile(values[~positive, d], np.arange(1, 10) / 10)
        counts = np.bincount(np.searchsorted(edges, values[positive, d]), minlength=10)
        both = 100 + counts  # each bin holds 100 normals
        expected = np.sum((100 - both * 1000 / 1200) ** 2 / (both * 1000 / 1200))
        expected += np.sum((counts - both * 200 / 1200) ** 2 / (both * 200 / 1200))
        assert table.loc[d, "chi2"] == pytest.approx(expected, rel=1e-6)


def test_anomalies_beyond_every_normal_are_counted():
    rows = scores_table(500, 100, shifts={1: 50.0}, split="selection")
    table = dimension_statistics(rows, "mu", bins=5)
    # The highest fifth of the normals shares its bin with all anomalies.
    expected = stats.chi2_contingency([[100, 100, 100, 100, 100], [0, 0, 0, 0, 100]]).statistic
    assert table.loc[1, "chi2"] == pytest.approx(expected)
    assert choose_dimensions(table, n=1) == (1,)


def test_the_order_of_objects_and_dimensions_does_not_matter():
    rows = scores_table(600, 80, shifts={0: 0.5, 3: 1.0}, split="selection")
    table = dimension_statistics(rows)
    shuffled = dimension_statistics(rows.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(table, shuffled)
    names = {f"{s}_{a}": f"{s}_{b}" for s in ("mu", "logvar", "kl") for a, b in ((0, 3), (3, 0))}
    swapped = rows.rename(columns=names)
    other = dimension_statistics(swapped).set_index("dimension").loc[[3, 1, 2, 0, 4, 5], "chi2"]
    assert np.allclose(table["chi2"], other)


def test_the_unit_of_kl_does_not_matter():
    rows = scores_table(600, 80, shifts={0: 0.5}, split="selection")
    bits = rows.assign(**{f"kl_{d}": rows[f"kl_{d}"].astype(float) / np.log(2) for d in range(6)})
    for column in ("chi2", "ks", "welch_t", "mutual_information"):
        assert np.allclose(dimension_statistics(rows)[column], dimension_statistics(bits)[column])


def test_a_collapsed_dimension_tells_nothing_and_breaks_nothing():
    rows = scores_table(400, 60, split="selection").assign(kl_2=np.float32(0), mu_2=0.0, logvar_2=0.0)
    for statistic in ("kl", "mu", "logvar"):
        row = dimension_statistics(rows, statistic).loc[2]
        assert row[["chi2", "dof", "cramers_v", "ks", "welch_t", "mutual_information"]].tolist() == [0] * 6
        assert row[["p", "ks_p", "welch_p"]].tolist() == [1] * 3


def test_a_mostly_collapsed_dimension_keeps_its_tied_values_in_one_bin():
    rows = scores_table(400, 60, split="selection")
    tied = rows["kl_1"].where(rows["kl_1"] > rows["kl_1"].quantile(0.9), 0.0)
    row = dimension_statistics(rows.assign(kl_1=tied)).loc[1]
    assert 1 <= row["dof"] <= 2


@pytest.fixture
def hand_made():
    chi2 = np.array([5.0, 40.0, 6.0, 90.0, 4.0, 5.0])
    q = np.array([0.9, 0.01, 0.5, 0.001, 0.9, 0.04])
    v = np.array([0.1, 0.3, 0.1, 0.5, 0.05, 0.1])
    return pd.DataFrame(
        {"dimension": range(6), "chi2": chi2, "q": q, "cramers_v": v, "welch_t": [0, -9, 1, 5, 0, 2]}
    )


def test_rules_of_choice(hand_made):
    # mean 25, standard deviation 31.7: the bar lies at 72.6
    assert choose_dimensions(hand_made, "mean+1.5sd") == (3,)
    assert choose_dimensions(hand_made, "bh") == (3, 1, 5)
    assert choose_dimensions(hand_made, "bh", alpha=0.02) == (3, 1)
    assert choose_dimensions(hand_made, "bh", least_effect=0.2) == (3, 1)
    assert choose_dimensions(hand_made, "top", n=2) == (3, 1)
    assert choose_dimensions(hand_made, "top", n=2, by="welch_t") == (1, 3)
    assert choose_dimensions(hand_made, "top", n=99) == (3, 1, 2, 0, 5, 4)
    with pytest.raises(ValueError, match=r"rule 'best' is none of mean\+1\.5sd, bh, top"):
        choose_dimensions(hand_made, "best")


def test_the_choice_firms_up_with_the_number_of_anomalies():
    rows = scores_table(1500, 300, shifts={4: 2.5, 1: 0.5}, split="selection")
    table = choice_stability(rows, "mu", n=2, anomalies=(10, 30, 100, 5000), resamples=150)
    frequency = table.pivot(index="n_anomalies", columns="dimension", values="frequency")
    assert frequency.index.tolist() == [10, 30, 100, 300]
    assert np.allclose(frequency.sum(axis=1), 2)
    assert (frequency.loc[30:, 4] == 1).all()
    assert frequency.loc[10, 1] < frequency.loc[100, 1] < frequency.loc[300, 1]
    assert set(table.loc[table["chosen"], "dimension"]) == {1, 4}
    agreement = table.groupby("n_anomalies")["agreement"].first()
    assert agreement.is_monotonic_increasing
    assert agreement.between(0, 1).all()


def test_with_nothing_to_find_no_dimension_is_favoured():
    rows = scores_table(1000, 200, dimensions=8, split="selection")
    few = choice_stability(rows, n=2, anomalies=(8, 10), resamples=800)
    for number in (8, 10):  # with 8 all dimensions tie, and must not win by their place
        frequency = few.loc[few["n_anomalies"] == number, "frequency"]
        assert np.abs(frequency - 0.25).max() < 0.12


def test_stability_follows_its_seed():
    rows = scores_table(300, 50, split="selection")
    first, same, other = (choice_stability(rows, resamples=20, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(first, same)
    assert not first["frequency"].equals(other["frequency"])


@pytest.mark.slow
def test_a_joint_map_holds_both_classes_in_one_plane():
    rows = scores_table(200, 80, shifts=dict.fromkeys(range(6), 4.0))
    table = joint_map(rows, n_normals=90, n_anomalies=40)
    assert table["positive"].sum() == 40
    assert len(table) == 130
    truth = rows.set_index("name")["is_lens"]
    assert (table["positive"] == truth.loc[table["name"]].to_numpy()).all()
    separable = LogisticRegression().fit(table[["x", "y"]], table["positive"])
    assert separable.score(table[["x", "y"]], table["positive"]) > 0.97
    pd.testing.assert_frame_equal(table, joint_map(rows, n_normals=90, n_anomalies=40), rtol=1e-3)


def test_unusable_tables_are_named():
    rows = scores_table(50, 20, split="selection")
    assert latent_dimensions(rows) == 6
    with pytest.raises(ValueError, match="no latent columns"):
        latent_dimensions(rows[["name", "label"]])
    with pytest.raises(ValueError, match="statistic 'chi' is none of kl, mu, logvar"):
        latent_values(rows, "chi")
    with pytest.raises(ValueError, match="lack the columns kl_9"):
        latent_values(rows, "kl", [0, 9])
    with pytest.raises(ValueError, match="1 values of mu_0"):
        dimension_statistics(rows.assign(mu_3=rows["mu_3"].where(rows.index != 4)), "mu")
    with pytest.raises(ValueError, match="at least two objects of each class"):
        dimension_statistics(pd.concat([rows[~rows["is_lens"]], rows[rows["is_lens"]][:1]]))

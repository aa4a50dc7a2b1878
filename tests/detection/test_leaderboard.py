"""The leaderboard: closed forms, the split guard, what is free of labels; and its rows in the README."""

import json

import numpy as np
import pandas as pd
import pytest
from tables import scores_table

from lensq.detection.leaderboard import (
    COLUMNS,
    Entry,
    lead,
    leading,
    named,
    named_on_selection,
    rank_entries,
    shown,
    side_by_side,
    stand_in,
)
from lensq.statistics.guard import LeakageError
from lensq.statistics.metrics import best_threshold, measure
from lensq.study.frontpage import MARKS, front_table, headlines, leaders, write_readme

QUICK = {"resamples": 20}


@pytest.fixture(scope="module")
def tables():
    return scores_table(split="selection", seed=1), scores_table(split="test", seed=2)


def entry(column, selection, test, *rest):
    return Entry(selection[column].to_numpy(), test[column].to_numpy(), *rest)


@pytest.fixture(scope="module")
def entries(tables):
    selection, test = tables
    return {
        ("PCA(16)", "noise"): entry("noise", *tables, 0, 3.0, 900.0),
        ("BetaTC_VAE", "signal"): entry("signal", *tables, 0, 60.0, 500.0),
        ("SEMISUP_GMVAE", "oracle"): Entry(1.0 * selection["is_lens"], 1.0 * test["is_lens"], 70),
    }


def test_rows_are_sorted_and_say_what_was_measured(entries, tables):
    table = rank_entries(entries, *tables, **QUICK)
    assert table.columns[: len(COLUMNS)].tolist() == list(COLUMNS)
    assert table["model"].tolist() == ["SEMISUP_GMVAE", "BetaTC_VAE", "PCA(16)"]
    assert table["labels_used"].tolist() == [70, 0, 0]
    perfect, signal, noise = (row for _, row in table.iterrows())
    assert [perfect[name] for name in ("AP", "AUROC", "F1", "precision", "recall")] == [1] * 5
    assert noise["AP"] == pytest.approx(0.0758, abs=0.03)
    assert signal["train_s"] == 60
    assert signal["score_per_s"] == 500
    assert np.isnan(perfect["train_s"])


def test_a_number_is_that_of_metrics_with_the_threshold_of_selection(entries, tables):
    selection, test = tables
    threshold = best_threshold(selection["signal"].to_numpy(), selection["is_lens"].to_numpy())
    expected = measure(test["signal"].to_numpy(), test["is_lens"].to_numpy(), threshold=threshold, **QUICK)
    row = rank_entries(entries, *tables, **QUICK).set_index("model").loc["BetaTC_VAE"]
    for metric in ("AP", "AUROC", "F1", "precision", "recall", "recall_fpr_1e-2"):
        assert row[metric] == expected.loc[metric, "value"], metric
    assert (row["AP_low"], row["AP_high"]) == tuple(expected.loc["AP", ["low", "high"]])


def test_a_recall_that_few_normals_decide_is_left_empty(entries, tables):
    table = rank_entries(entries, *tables, **QUICK)  # 1,200 normals: 12 at 1e-2, 1.2 at 1e-3
    assert table["recall_fpr_1e-2"].notna().all()
    assert table["recall_fpr_1e-3"].isna().all()


def test_the_order_of_the_objects_changes_nothing(entries, tables):
    order = [np.random.default_rng(s).permutation(len(table)) for s, table in enumerate(tables)]
    moved = {
        key: Entry(np.asarray(e.selection)[order[0]], np.asarray(e.test)[order[1]], *e[2:])
        for key, e in entries.items()
    }
    again = [table.iloc[rows] for table, rows in zip(tables, order, strict=True)]
    values = ["model", "AP", "AUROC", "F1", "precision", "recall", "recall_fpr_1e-2"]
    a, b = rank_entries(entries, *tables, **QUICK), rank_entries(moved, *again, **QUICK)
    pd.testing.assert_frame_equal(a[values], b[values])


@pytest.mark.parametrize("which", [0, 1])
def test_one_foreign_row_is_enough_to_refuse(entries, tables, which):
    spoilt = [table.copy() for table in tables]
    spoilt[which].loc[5, "split"] = ("test", "selection")[which]
    with pytest.raises(LeakageError, match=("choice of thresholds", "the leaderboard")[which]):
        rank_entries(entries, *spoilt, **QUICK)


def test_a_detector_that_learnt_from_selection_brings_its_threshold(tables):
    test = tables[1]
    own = {("network", "log odds"): Entry(None, test["signal"].to_numpy(), 99, threshold=1.5)}
    row = rank_entries(own, *tables, **QUICK).iloc[0]
    lens = test["is_lens"].to_numpy()
    assert row["recall"] == (test["signal"] >= 1.5)[lens].mean()
    without = {("network", "log odds"): own["network", "log odds"]._replace(threshold=None)}
    with pytest.raises(ValueError, match="network: log odds: give its scores of the selection objects"):
        rank_entries(without, *tables, **QUICK)


def test_a_score_too_few_is_named(entries, tables):
    short = {("PCA(16)", "noise"): entry("noise", tables[0], tables[1].iloc[1:])}
    with pytest.raises(ValueError, match=r"PCA\(16\): noise: .*\(1399,\) for the 1400 objects of test"):
        rank_entries(short, *tables, **QUICK)


def test_unlabelled_objects_are_left_out(entries, tables):
    selection, test = (table.copy() for table in tables)
    test.loc[:99, "label"] = -1
    kept = test[100:].reset_index(drop=True)
    fewer = {key: e._replace(test=np.asarray(e.test)[100:]) for key, e in entries.items()}
    pd.testing.assert_frame_equal(
        rank_entries(entries, selection, test, **QUICK), rank_entries(fewer, selection, kept, **QUICK)
    )


def test_objects_that_share_pixels_are_resampled_together(entries, tables):
    """Sixteen copies tell no more than one: without groups an interval comes out four times too narrow."""
    selection, test = tables
    copies = pd.concat([test.assign(group=np.arange(len(test)))] * 16, ignore_index=True)
    one = ("BetaTC_VAE", "signal")
    many = {one: entries[one]._replace(test=np.tile(entries[one].test, 16))}
    width = {}
    for groups, objects in ((True, copies), (False, copies.drop(columns="group"))):
        row = rank_entries(many, selection, objects, resamples=300).iloc[0]
        width[groups] = row["AUROC_high"] - row["AUROC_low"]
    assert width[True] / width[False] == pytest.approx(4, rel=0.25)


def test_the_named_score_is_free_of_labels_and_chosen_on_selection(tables):
    selection = tables[0].rename(columns={"signal": "kl", "noise": "knn"})
    selection["anomaly_logit"] = 1.0 * selection["is_lens"]
    assert named_on_selection(selection) == "kl"
    with pytest.raises(LeakageError, match="choice of a score"):
        named_on_selection(selection.assign(split="test"))


def test_precision_on_selection_is_that_of_metrics(entries, tables):
    selection = tables[0]
    more = entries | {("network", "log odds"): Entry(None, tables[1]["signal"].to_numpy(), 9, threshold=1.0)}
    table = rank_entries(more, *tables, **QUICK).set_index("model")["AP_selection"]
    lens = selection["is_lens"].to_numpy()
    for model, column in (("BetaTC_VAE", "signal"), ("PCA(16)", "noise")):
        assert table[model] == measure(selection[column].to_numpy(), lens, resamples=1).loc["AP", "value"]
    assert np.isnan(table["network"])


BY_SELECTION = pd.DataFrame(
    [
        ("SEMISUP_GMVAE", "kl", 70, 0.99, 0.9),
        ("SVDD_VAE + injected lenses", "log odds and point fits", 0, 0.70, 0.8),
        ("SVDD_VAE + injected lenses", "log odds", 0, 0.71, 0.7),
        ("BetaTC_VAE", "kl", 0, 0.30, 0.6),
        ("SVDD_VAE", "kl", 0, 0.40, 0.5),
        ("network", "log odds", 90, np.nan, 0.4),
        ("PCA(16)", "pca_residual", 0, 0.5, 0.3),
        ("ECOD", "ecod", 0, 0.6, 0.2),
    ],
    columns=["model", "score", "labels_used", "AP_selection", "AP"],
)


def test_what_is_named_was_best_on_selection_and_not_on_test():
    rows = named(BY_SELECTION)
    assert rows.index.tolist() == [0, 2, 3, 4, 5, 6, 7]
    assert leading(BY_SELECTION) == ("SVDD_VAE", "kl")
    assert leading(BY_SELECTION, fine_tuned=True) == ("SVDD_VAE + injected lenses", "log odds")
    with pytest.raises(ValueError, match="no variant here was trained without labels"):
        leading(BY_SELECTION.iloc[[0, 5]])


def test_a_detector_leads_itself_by_nothing_and_noise_by_much(entries, tables):
    variant, noise = ("BetaTC_VAE", "signal"), ("PCA(16)", "noise")
    itself = lead(entries, variant, variant, tables[1], **QUICK)
    assert (itself[["difference", "low", "high"]].dropna() == 0).all(axis=None)
    ahead = lead(entries, variant, noise, tables[1], resamples=200).loc["AP"]
    assert ahead["clear"]
    table = rank_entries(entries, *tables, **QUICK).set_index("model")["AP"]
    assert ahead["difference"] == pytest.approx(table["BetaTC_VAE"] - table["PCA(16)"])
    with pytest.raises(LeakageError):
        lead(entries, variant, noise, tables[0], **QUICK)


def test_a_stand_in_is_as_true_as_its_order():
    lenses = pd.DataFrame({"model": list("aabcd"), "score": list("12345"), "AP": [0.9, 0.1, 0.8, 0.7, 0.2]})
    lenses["recall_fpr_1e-2"] = [0.5, 0.0, 0.4, 0.3, 0.1]
    same = stand_in(lenses, lenses[::-1].reset_index(drop=True))
    assert same["model"].tolist() == list("abcd")
    assert same["score"].tolist() == list("1345")
    assert same.attrs == {"tau": pytest.approx(1), "lost": 0}
    swapped = lenses.assign(AP=[0.6, 0.1, 0.8, 0.7, 0.2]).assign(**{"recall_fpr_1e-2": 0.4})
    measured = stand_in(lenses, swapped, best=3)
    assert measured.attrs["tau"] == pytest.approx(-1 / 3)  # of three pairs, b and c alone are in order
    assert measured.attrs["lost"] == pytest.approx(0.1)  # b is taken, of .8, where a has .9
    another = stand_in(lenses, swapped.assign(AP=[0.6, 0.95, 0.8, 0.7, 0.2]))
    assert another.attrs["lost"] == pytest.approx(0.8)  # the second score of a is taken, of .1
    assert measured["AP by injected"].tolist() == [0.6, 0.8, 0.7]


def test_pages_show_every_row(entries, tables):
    table = rank_entries(entries, *tables, **QUICK)
    assert shown(table).to_html().count("<tr>") == 1 + len(table)
    page = side_by_side({"catalogue": table, "hard": table[::-1]}).to_html()
    assert page.count(f"{table['AP'][1]:.3f} ({table['AP_low'][1]:.3f} to") == 2


FEW = "SVDD_VAE + injected lenses + few labels"
BOTH = "SVDD_VAE + injected lenses + all labels + ResNet-18"
ROWS = [
    (BOTH, "mean log odds", 9000, 0.89),
    ("supervised ResNet-18", "log odds", 9000, 0.87),
    ("SEMISUP_GMVAE", "anomaly_logit", 900, 0.5),
    (FEW, "log odds", 100, 0.48),
    ("RESNET18_BETATC_VAE", "central_residual", 0, 0.45),
    ("BetaTC_VAE", "central_residual", 0, 0.4),
    ("BetaTC_VAE", "kl", 0, 0.35),
    ("PCA(16)", "pca_residual", 0, 0.3),
    ("SVDD_VAE", "kl", 0, 0.2),
    ("ECOD", "ecod", 0, 0.1),
    ("isolation forest", "isolation_forest", 0, 0.09),
]


@pytest.fixture
def results(tmp_path):
    table = pd.DataFrame(ROWS, columns=["model", "score", "labels_used", "AP"])
    for name in COLUMNS:
        if name not in table:
            table[name] = table["AP"]
    table["recall_fpr_1e-2"] = np.nan
    table[list(COLUMNS)].to_csv(tmp_path / "leaderboard.csv", index=False)
    expected = {"prevalence": [1e-3, 1e-4], "n": [100, 500], "lenses": [31.4, np.nan]}
    rows = [pd.DataFrame(expected | {"model": name, "score": score}) for name, score, *_ in ROWS]
    pd.concat(rows).assign(low=20.2, high=40.6).to_csv(tmp_path / "expected.csv", index=False)
    survey = {"seed": 5, "normals": 12000, "lenses": 1500}
    record = {"survey": survey, "scored": [{"date": "2026-11-23T00:00:00+00:00", "cores": 2}]}
    (tmp_path / "test").mkdir()
    (tmp_path / "test/record.json").write_text(json.dumps(record))
    return tmp_path


def test_the_front_page_has_a_row_for_each_kind(results):
    rows = headlines(pd.read_csv(results / "leaderboard.csv"))
    assert rows["model"].tolist() == [ROWS[i][0] for i in (0, 1, 3, 4, 7)]


def test_the_front_page_chooses_nothing_on_test():
    assert headlines(BY_SELECTION).index.tolist() == [2, 4, 5, 7]


def test_the_front_table_has_the_leading_detector_of_each_number_of_labels(results):
    best = leaders(pd.read_csv(results / "leaderboard.csv"))
    assert best["labels"].tolist() == ["no labels", "100 labels", "all 9,000 labels"]
    assert best["model"].tolist() == ["RESNET18_BETATC_VAE", FEW, BOTH]
    table = front_table(results)
    assert "| one in 1,000 | first 100 |" + " 31 (20 to 41) |" * 3 in table
    assert "| one in 10,000 | first 500 |" + " too few objects to tell |" * 3 in table
    assert "1,500 lenses and 12,000 ordinary objects" in table


def test_what_leads_is_not_chosen_on_test():
    assert leaders(BY_SELECTION).index.tolist() == [2]


def test_the_readme_is_written_between_its_marks_alone(results, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{MARKS[0]}\nold\n{MARKS[1]}\n\nafter\n")
    write_readme(readme, results)
    text = readme.read_text()
    assert text.startswith("before\n\n")
    assert text.endswith("\n\nafter\n")
    assert "old" not in text
    assert "2026-11-23 with 2 cores" in text
    assert front_table(results) in text
    assert "test seed 5" in text
    assert "| PCA(16), pca residual | 0 | 0.30 (0.30 to 0.30) | 0.30 | 0.30 | 0.30 |  |" in text
    write_readme(readme, results)
    assert readme.read_text() == text


def test_a_readme_without_marks_is_left_alone(results, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing")
    with pytest.raises(ValueError, match="needs the lines"):
        write_readme(readme, results)
    assert readme.read_text() == "nothing"

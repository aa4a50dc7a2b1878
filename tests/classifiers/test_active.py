"""A head learns from a few labels, asks well, and never sees the test split."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import QuantileTransformer
from tables import scores_table

from lensq import figures
from lensq.classifiers.active import Pool, light_columns, next_to_label
from lensq.classifiers.budget import budget_summary, label_budget
from lensq.statistics.guard import LeakageError

COLUMNS = ["mu_0", "mu_1", "mu_2", "signal"]


@pytest.fixture(scope="module")
def scores():
    return scores_table(600, 60, shifts={0: 3.0, 1: -2.0}, split="train")


@pytest.fixture(scope="module")
def pool(scores):
    return Pool(scores, COLUMNS, start="signal")


def some_labels(scores, lenses=8, others=20):
    lens = scores[scores["label"] == 1].head(lenses)
    return pd.concat([lens, scores[scores["label"] == 0].head(others)])[["name", "label"]]


def auroc(score, positive):
    order = np.argsort(np.argsort(score))
    n = positive.sum()
    return (order[positive].sum() - n * (n - 1) / 2) / (n * (~positive).sum())


def test_rows_of_test_tiles_are_refused(scores):
    leaked = scores.assign(split=["test", *["train"] * (len(scores) - 1)])
    with pytest.raises(LeakageError, match="1 of 'test'"):
        Pool(leaked, COLUMNS, start="signal")
    for split in ("train", "validation", "selection", "conformal"):
        Pool(scores.head(50).assign(split=split), COLUMNS, start="signal")


def test_a_head_finds_what_the_labels_show(pool, scores):
    head = pool.fit(some_labels(scores))
    fresh = scores_table(400, 100, shifts={0: 3.0, 1: -2.0}, split="conformal", seed=1)
    positive = fresh["label"].to_numpy() == 1
    assert (head.lenses, head.others) == (8, 20)
    assert auroc(head.probability(fresh), positive) > 0.95
    assert auroc(fresh["signal"].to_numpy(), positive) < 0.95


def test_the_order_of_labels_and_of_the_table_does_not_matter(pool, scores):
    labels = some_labels(scores)
    shuffled = labels.sample(frac=1, random_state=3)
    turned = Pool(scores.iloc[::-1], COLUMNS, start="signal")
    expected = pool.fit(labels).score(scores)
    np.testing.assert_array_equal(pool.fit(shuffled).score(scores), expected)
    np.testing.assert_array_equal(turned.fit(labels).score(scores), expected)


def test_a_monotone_change_of_a_column_changes_nothing(pool, scores):
    bent = scores.assign(mu_0=np.exp(scores["mu_0"].astype(float)), signal=7 * scores["signal"] - 3)
    labels = some_labels(scores)
    other = Pool(bent, COLUMNS, start="signal")
    np.testing.assert_allclose(other.fit(labels).score(bent), pool.fit(labels).score(scores), atol=2e-3)


def test_the_pool_is_ranked_as_the_head_would_rank_it(pool, scores):
    head = pool.fit(some_labels(scores))
    score, probability = pool.rank(head)
    np.testing.assert_allclose(score, head.score(pool.scores), atol=1e-12)
    np.testing.assert_allclose(probability, head.probability(pool.scores), atol=1e-12)


def test_few_labels_leave_the_start_score_most_of_its_say(pool, scores):
    """With n labels the head weighs n, the score 30."""
    head = pool.fit(some_labels(scores, 1, 2))
    values = np.sort(scores["signal"])
    table = pool.scores
    before = (
        np.searchsorted(values, table["signal"]) + np.searchsorted(values, table["signal"], side="right")
    ) / (2 * len(values))
    learnt = pd.Series(head.probability(table)).rank(pct=True).to_numpy() - 0.5 / len(table)
    np.testing.assert_allclose(head.score(table), (3 * learnt + 30 * before) / 33, atol=1e-6)


def test_unsure_and_unknown_objects_are_left_out(pool, scores):
    labels = some_labels(scores)
    more = pd.DataFrame({"name": [scores["name"].iloc[-1], "elsewhere"], "label": [-1, 1]})
    np.testing.assert_array_equal(
        pool.fit(pd.concat([labels, more])).score(scores), pool.fit(labels).score(scores)
    )


def test_no_lens_or_two_labels_are_errors_that_say_so(pool, scores):
    labels = some_labels(scores)
    with pytest.raises(ValueError, match="no lens among 20 labels"):
        pool.fit(labels[labels["label"] == 0])
    with pytest.raises(ValueError, match="has two labels"):
        pool.fit(pd.concat([labels, labels.head(1)]))
    with pytest.raises(ValueError, match="lack the columns nothing"):
        Pool(scores, ["nothing"], start="signal")


def test_an_object_with_a_label_stands_for_no_ordinary_one(scores):
    """With a label on every object of the pool none is left, and it is a plain weighted regression."""
    table = scores.head(200)
    ready = Pool(table, COLUMNS, start="signal")
    head = ready.fit(table[["name", "label"]])
    positive = table["label"].to_numpy() == 1
    weights = np.where(positive, 125 / positive.sum(), 125 / ((~positive).sum() + 50))
    x = QuantileTransformer(n_quantiles=200, output_distribution="normal").fit_transform(
        table[COLUMNS].to_numpy()
    )
    plain = LogisticRegression(C=0.1).fit(x, positive, sample_weight=weights)
    np.testing.assert_allclose(head.probability(table), plain.predict_proba(x)[:, 1], atol=1e-3)


def test_light_columns_are_means_and_scores_without_labels(scores):
    table = scores.assign(central_residual=0.0, kl=0.0, elbo=0.0, anomaly_logit=0.0)
    assert light_columns(table) == [*(f"mu_{d}" for d in range(6)), "kl", "central_residual"]


def test_next_objects():
    probability, labelled = np.array([0.9, 0.45, 0.1, 0.6, 0.99]), np.array([0, 0, 0, 0, 1], bool)
    assert next_to_label(probability, labelled, 2).tolist() == [0, 3]
    assert next_to_label(probability, labelled, 3, "uncertain").tolist() == [1, 3, 0]
    drawn = next_to_label(probability, labelled, 9, "random", rng=np.random.default_rng(0))
    assert sorted(drawn.tolist()) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="needs a generator"):
        next_to_label(probability, labelled, 1, "random")
    with pytest.raises(ValueError, match="none of anomalous"):
        next_to_label(probability, labelled, 1, "best")


@pytest.fixture(scope="module")
def sides():
    """What may be labelled, and what evaluates."""
    table = scores_table(1500, 150, shifts={0: 2.5, 1: -2.5})
    table = table.assign(signal=table["signal"] - 1.5 * table["label"])  # leaves a weak score
    return table[table["split"].isin(["train", "selection"])], table[table["split"] == "conformal"]


@pytest.fixture(scope="module")
def budget(sides):
    return label_budget(*sides, start="signal", columns=COLUMNS, budgets=(0, 20, 100), batch=20, seeds=3)


class TestBudget:
    @pytest.mark.slow
    def test_labels_raise_average_precision_on_objects_held_out(self, budget):
        summary = budget_summary(budget).set_index(["strategy", "labels"])
        for strategy in ("anomalous", "uncertain", "random"):
            ap = summary.loc[strategy, "AP"]
            assert ap[100] > ap[0] + 0.2
        assert summary.loc[("anomalous", 100), "found"] > 2 * summary.loc[("random", 100), "found"]

    def test_without_labels_it_is_the_start_score_in_every_repetition(self, budget):
        none = budget[budget["labels"] == 0]
        assert none["AP"].nunique() == 1
        assert (none["found"] == 0).all()

    def test_a_score_that_says_nothing_has_the_prevalence_as_its_precision(self, sides):
        pool, held_out = (side.assign(nothing=0.0) for side in sides)
        for prevalence in (0.003, 0.3):
            options = {"columns": COLUMNS, "budgets": (0,), "prevalence": prevalence, "seeds": 1}
            table = label_budget(pool, held_out, start="nothing", **options)
            assert table["AP"].to_numpy() == pytest.approx(prevalence)

    def test_who_asks_where_the_head_is_unsure_meets_fewer_lenses_than_at_the_top(self, budget):
        found = budget.pivot(index=["labels", "seed"], columns="strategy", values="found")
        assert found.loc[20, "uncertain"].equals(found.loc[20, "anomalous"])  # there is no head to ask yet
        assert (found.loc[100, "uncertain"] < 0.75 * found.loc[100, "anomalous"]).all()
        assert (found.loc[100, "uncertain"] > 1.25 * found.loc[100, "random"]).all()

    def test_a_repetition_is_reproducible_and_alone(self, budget, sides):
        again = label_budget(
            *sides,
            start="signal",
            columns=COLUMNS,
            budgets=(0, 20, 100),
            batch=20,
            strategies=("random",),
            seeds=1,
            seed=2,
        )
        expected = budget[(budget["strategy"] == "random") & (budget["seed"] == 2)]
        pd.testing.assert_frame_equal(again, expected.reset_index(drop=True))

    def test_repetitions_draw_anew_also_from_the_whole_pool(self, sides):
        study = {"start": "signal", "columns": COLUMNS, "budgets": (40,), "strategies": ("random",)}
        table = label_budget(*sides, share=1.0, batch=40, seeds=3, **study)
        assert table["AP"].nunique() == 3

    @pytest.mark.slow
    def test_a_wrong_answer_is_learnt(self, sides):
        """Answers need not be the truth: with answers dealt at random, labels buy nothing."""
        pool, held_out = sides
        lots = np.random.default_rng(0).permutation(pool["label"])
        study = {"start": "noise", "columns": COLUMNS, "budgets": (0, 300), "batch": 100, "seeds": 2}
        misled = label_budget(pool.assign(by_lot=lots), held_out, answers="by_lot", **study)
        right = label_budget(pool, held_out, **study)
        assert right[right["labels"] == 300]["AP"].min() > misled[misled["labels"] == 300]["AP"].max() + 0.2

    def test_the_figure_shows_the_summary(self, budget):
        summary = budget_summary(budget)
        figure = figures.label_budget({"somebody": summary, "somebody else": summary.assign(AP=0.9)})
        precision, other, found = figure.axes
        for axis, column in ((precision, "AP"), (found, "found")):
            for line, (_, table) in zip(
                axis.get_lines(), summary.groupby("strategy", sort=False), strict=False
            ):
                np.testing.assert_array_equal(line.get_xydata(), table[["labels", column]])
        assert precision.get_ylim() == other.get_ylim()
        assert precision.get_ylim()[1] > 0.9
        assert precision.get_title() == "somebody"

    def test_intervals_are_students(self):
        table = pd.DataFrame(
            {"strategy": "random", "seed": [0, 1, 2], "labels": 5, "found": 1, "AP": [0.1, 0.2, 0.6]}
        )
        row = budget_summary(table).iloc[0]
        assert row["AP"] == pytest.approx(0.3)
        assert row["high"] - row["AP"] == pytest.approx(4.302653 * np.sqrt(0.07) / np.sqrt(3), rel=1e-5)

    def test_no_object_is_on_both_sides(self, sides):
        pool, held_out = sides
        with pytest.raises(LeakageError, match="only see rows of split conformal or test"):
            label_budget(pool, pool, start="signal", columns=COLUMNS)
        twin = pool.head(30).assign(split="conformal")
        with pytest.raises(LeakageError, match="30 objects are both"):
            label_budget(pool, pd.concat([held_out, twin]), start="signal", columns=COLUMNS)
        with pytest.raises(LeakageError, match="learning from labels"):
            label_budget(pool.assign(split="test"), held_out, start="signal", columns=COLUMNS)

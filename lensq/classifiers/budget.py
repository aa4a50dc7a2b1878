"""What labels buy: average precision on objects held out, by the number of labels and how they are chosen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import average_precision_score

from lensq.classifiers.active import STRATEGIES, Pool, next_to_label
from lensq.statistics.guard import LeakageError, labelled, require_split
from lensq.statistics.metrics import PREVALENCE


@dataclass(frozen=True)
class Course:
    """How labels are asked for.

    Attributes:
        start: score that ranks without labels.
        answers: the column that answers; see `lensq.statistics.guard.labelled`.
        columns: what heads look at; see `lensq.classifiers.active.light_columns`.
        budgets: numbers of labels at which to measure.
        batch: labels between two trainings.
        share: share of the pool that a repetition sees.
    """

    start: str = "central_residual"
    answers: str = "label"
    columns: Sequence[str] | None = None
    budgets: Sequence[int] = (0, 10, 20, 50, 100, 200, 400)
    batch: int = 10
    share: float = 0.5


def label_budget(
    pool: pd.DataFrame,
    held_out: pd.DataFrame,
    *,
    strategies: Sequence[str] = STRATEGIES,
    against: str = "label",
    prevalence: float = PREVALENCE,
    seeds: int = 10,
    seed: int = 0,
    **course,
) -> pd.DataFrame:
    """How many labels buy how much average precision, on objects that were neither labelled nor chosen from.

    A labeller who gives the answers in a column labels objects of the pool, a batch at a time, in the order
    that a strategy asks for; after each batch a head is trained and asks anew. Until a lens has been met,
    objects are ranked by the score `start`. Each repetition sees another random share of the pool, the same
    one for every strategy.

    Args:
        pool: Scores table, rows of all splits but test.
        held_out: Scores table to evaluate on, other objects, of the conformal or the test split.
        strategies: of `next_to_label`.
        against: the column of lenses among those held out.
        prevalence: share of lenses at which average precision is measured.
        seeds: number of repetitions.
        seed: seed of the first.
        **course: see `Course`.

    Returns:
        One row a strategy, repetition and budget: `strategy`, `seed`, `labels`, `found` (lenses among them),
        `AP`.

    Raises:
        LeakageError: A row is of a split that must not be seen, or an object is on both sides.
        ValueError: A side has only one class, or a strategy or column is unknown.
    """
    how = Course(**course)
    require_split(held_out, "conformal", "test", purpose="the evaluation of a head")
    if shared := len(np.intersect1d(pool["name"], held_out["name"])):
        raise LeakageError(f"{shared} objects are both in the pool and held out; leave them out of one")
    known, lens = labelled(held_out, against)
    weights = np.where(lens, prevalence / lens.mean(), (1 - prevalence) / (1 - lens.mean()))
    askable, _ = labelled(pool, how.answers)
    rows = []
    for number in range(seed, seed + seeds):
        drawn = np.random.default_rng(number).permutation(len(askable))[: round(how.share * len(askable))]
        ready = Pool(askable.iloc[np.sort(drawn)], how.columns, start=how.start)
        for strategy in strategies:
            for labels, found, score in _course(ready, known, how, strategy, number):
                ap = average_precision_score(lens, score, sample_weight=weights)
                rows.append((strategy, number, labels, found, ap))
    return pd.DataFrame(rows, columns=["strategy", "seed", "labels", "found", "AP"])


def _course(
    pool: Pool, held_out: pd.DataFrame, how: Course, strategy: str, seed: int
) -> Iterator[tuple[int, int, np.ndarray]]:
    """One repetition of `label_budget`: yields labels, lenses found and the scores of those held out."""
    rng = np.random.default_rng([seed, 1])
    names, truth = pool.scores["name"].to_numpy(), pool.scores[how.answers].to_numpy() == 1
    head, order = None, []
    ranking = {"anomalous": pool.scores[pool.start].to_numpy(float)}
    for budget in sorted({min(b, len(truth)) for b in how.budgets}):
        while len(order) < budget:
            by = "uncertain" if strategy == "uncertain" and head else "anomalous"
            method = "random" if strategy == "random" else by
            seen = np.isin(np.arange(len(truth)), order)
            asked = next_to_label(ranking[by], seen, min(how.batch, budget - len(order)), method, rng=rng)
            order.extend(asked.tolist())
            if truth[order].any():
                labels = pd.DataFrame({"name": names[order], "label": truth[order].astype(int)})
                head = pool.fit(labels)
                ranking["anomalous"], ranking["uncertain"] = pool.rank(head)
        score = head.score(held_out) if head else held_out[pool.start].to_numpy(float)
        yield budget, int(truth[order].sum()), score


def budget_summary(budget: pd.DataFrame) -> pd.DataFrame:
    """Mean of each strategy and budget over the repetitions, with its 95% interval.

    Args:
        budget: table of `label_budget`.

    Returns:
        One row a strategy and number of labels: `strategy`, `labels`, `AP`, `low`, `high` (Student's t over
        the repetitions; empty for one), `found` (mean number of lenses labelled), `seeds`.
    """
    groups = budget.groupby(["strategy", "labels"], sort=False)
    table = groups.agg(AP=("AP", "mean"), sd=("AP", "std"), found=("found", "mean"), seeds=("AP", "size"))
    half = stats.t.ppf(0.975, table["seeds"] - 1) * table["sd"] / np.sqrt(table["seeds"])
    table = table.assign(low=table["AP"] - half, high=table["AP"] + half).reset_index()
    return table[["strategy", "labels", "AP", "low", "high", "found", "seeds"]]

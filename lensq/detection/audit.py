"""A leakage audit that runs: three ways for a label or a test object to get in, and what catches each.

- Rows of another split under a false name: `check_splits` asks the survey itself.
- A score that knows the label, or the batch: `reproduce` scores the objects again, blindfolded.
- Anything else that lets the objects that evaluate choose: with labels dealt anew there is nothing to find,
  and `chance_runs` shows whether something is found all the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from lensq.detection.conformal import candidate_list, fdr_study
from lensq.detection.detectors import Detector, choose_detector, evaluate
from lensq.models.training import Model
from lensq.scores.scoring import score
from lensq.statistics.guard import LeakageError, labelled, shuffle_labels
from lensq.statistics.latent import choice_stability, dimension_statistics
from lensq.statistics.metrics import FALSE_POSITIVE_RATES, PREVALENCE
from lensq.survey.survey import Survey

TOLERANCE = 1e-4
"""Largest difference of a score from itself, in standard deviations, that single precision may make."""

_OWN = ("name", "ra", "dec", "split", "label", "graded")


def refusals(selection: pd.DataFrame, foreign: pd.DataFrame, *, against: str = "label") -> pd.DataFrame:
    """Hand each step that chooses or calibrates one row that it must not see.

    Args:
        selection: Scores table, rows of the selection split.
        foreign: Scores table, rows of another split; the first is slipped in.
        against: the column of positives.

    Returns:
        Index `step`; `refused`, the text of the `LeakageError` that it raised.

    Raises:
        RuntimeError: if a step took them.
    """
    slipped = pd.concat([selection, foreign.head(1)], ignore_index=True)
    anything = Detector("any", "kl", (0,))
    steps = {
        "statistics of dimensions": lambda: dimension_statistics(slipped, against=against),
        "stability of the choice": lambda: choice_stability(slipped, against=against, resamples=1),
        "dimensions, direction, threshold": lambda: choose_detector(slipped, "kl", against=against),
        "p-values": lambda: candidate_list(anything, slipped, foreign),
        "false discovery rates": lambda: fdr_study(anything, slipped, resamples=1),
    }
    refused = {}
    for name, step in steps.items():
        try:
            step()
        except LeakageError as error:
            refused[name] = str(error)
        else:
            raise RuntimeError(f"{name}: rows of a split that it must not see were taken")
    return pd.Series(refused, name="refused").rename_axis("step").to_frame()


def check_splits(scores: pd.DataFrame, survey: Survey) -> None:
    """Compare the splits that a table claims with those that the survey gives.

    Args:
        scores: Scores table of objects of that survey.
        survey: the survey.

    Raises:
        LeakageError: if an object is unknown to the survey, is there twice, claims another split than it
            has, or shares its patch of sky (`Survey.group`) with objects of another split.
    """
    home = pd.Series(survey.split, index=survey.names)
    if unknown := (~scores["name"].isin(home.index)).sum():
        raise LeakageError(f"{unknown} rows are no objects of the survey {survey.folder}: where from?")
    if twice := scores["name"].duplicated().sum():
        raise LeakageError(f"{twice} rows are there twice: an object may be in one split only")
    there = home.loc[scores["name"]].to_numpy()
    wrong = there != scores["split"].to_numpy()
    if wrong.any():
        pairs = pd.Series(scores["split"].to_numpy()[wrong]) + "' belong to '" + there[wrong]
        found = "; ".join(f"{n} rows of '{pair}'" for pair, n in pairs.value_counts().items())
        raise LeakageError(f"the survey gives these rows another split than they claim: {found}")
    crossing = pd.Series(survey.split).groupby(survey.group).nunique() > 1
    if crossing.any():
        raise LeakageError(f"{crossing.sum()} groups of objects that share pixels lie in two splits")


def _blindfolded(survey: Survey, rows: np.ndarray) -> Survey:
    """Some objects of a survey, in that order, without anything that separates the classes."""
    kept = ("names", "coordinates", "images", "mask", "group", "split")
    unknown = {"labels": np.full_like(survey.labels[rows], -1), "graded": np.zeros(len(rows), bool)}
    return replace(survey, **{name: getattr(survey, name)[rows] for name in kept}, **unknown, truth=None)


def reproduce(
    scores: pd.DataFrame,
    model: Model,
    survey: Survey,
    *,
    objects: int = 200,
    symmetries: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Score objects again from pixels and model alone: no labels, another order, other batches.

    Args:
        scores: Scores table to audit; columns of which the model knows nothing (truth, for instance) have to
            be left out first.
        model: the model that is said to have made it.
        survey: the survey that it was made of.
        objects: how many objects to score again, drawn without replacement.
        symmetries: whether the table was made with them, see `lensq.scores.scoring.score`.
        seed: seed of the draw.

    Returns:
        Index `column`, the worst first: `largest`, the largest difference in standard deviations of the
        column (infinite for a column that the model does not make), and `same`, whether it is at most
        `TOLERANCE`.
    """
    drawn = scores.sample(min(objects, len(scores)), random_state=seed)
    place = pd.Series(np.arange(len(survey)), index=survey.names).loc[drawn["name"]].to_numpy()
    blind = _blindfolded(survey, place)
    again = score(model, blind, symmetries=symmetries, batch_size=17, progress=False)
    largest = {}
    for name in scores.columns.drop([own for own in _OWN if own in scores]):
        largest[name] = np.inf
        if name in again:
            difference = np.abs(again[name].to_numpy(float) - drawn[name].to_numpy(float)).max()
            largest[name] = difference / max(float(scores[name].std()), np.finfo(np.float32).tiny)
    table = pd.Series(largest, name="largest").sort_values(ascending=False, kind="stable").to_frame()
    return table.assign(same=table["largest"] <= TOLERANCE).rename_axis("column")


@cache
def average_precision_of_a_guess(positives: int, prevalence: float = PREVALENCE) -> float:
    """Average precision to expect of a random ranking, a little above the prevalence where positives are few.

    Above the k-th of m positives lies a share of the many negatives that follows a beta distribution with
    parameters k and m - k + 1, the order statistics of uniform numbers.

    Args:
        positives: number of positives m.
        prevalence: the share of positives that the sample is weighted to.
    """
    k = np.arange(1, positives + 1)[:, None]
    quantiles = (np.arange(200) + 0.5) / 200
    true = prevalence * k / positives
    false = (1 - prevalence) * stats.beta(k, positives - k + 1).ppf(quantiles)
    return float(np.mean(true / (true + false)))


def chance_runs(
    selection: pd.DataFrame,
    evaluation: pd.DataFrame,
    statistics: Sequence[str] = ("kl", "mu", "logvar"),
    *,
    runs: int = 20,
    seed: int = 0,
    **choice,
) -> pd.DataFrame:
    """Choose and evaluate with the labels dealt anew, again and again: every number has to fall to chance.

    Args:
        selection: Scores table, rows of the selection split, on which each run chooses.
        evaluation: Scores table, rows on which each run evaluates. With the same rows in both the same labels
            are dealt to both, as where the objects that evaluate choose.
        statistics: see `lensq.detection.detectors.choose_detector`.
        runs: how often labels are dealt.
        seed: seed of the first run; the next ones follow.
        **choice: against, n, prevalence and what else `choose_detector` takes.

    Returns:
        One row a run, statistic and metric: `run`, `statistic`, `metric`, `value`, `low`, `high`, `chance`
        (what a guess reaches; for F1 and recall at the share that was flagged), `covers` (the interval holds
        it). Metrics that this many objects cannot give are left out.
    """
    tables = []
    for run in range(seed, seed + runs):
        chosen_on, rows = (shuffle_labels(part, seed=run) for part in (selection, evaluation))
        for statistic in statistics:
            detector = choose_detector(chosen_on, statistic, **choice)
            table = evaluate(detector, rows, resamples=200, seed=run).drop(["best_F1", "FPR"]).dropna()
            flagged, positive = detector.flags(rows).mean(), labelled(rows, detector.against)[1]
            share = detector.prevalence
            f1 = 2 * share * flagged / (share + flagged)
            chance = {"AUROC": 0.5, "AP": average_precision_of_a_guess(int(positive.sum()), share), "F1": f1}
            chance |= {"precision": share, "recall": flagged, **FALSE_POSITIVE_RATES}
            table = table.assign(chance=table.index.map(chance), run=run, statistic=statistic)
            tables.append(table.reset_index())
    table = pd.concat(tables, ignore_index=True)
    table["covers"] = (table["low"] <= table["chance"]) & (table["chance"] <= table["high"])
    return table[["run", "statistic", "metric", "value", "low", "high", "chance", "covers"]]


def chance_summary(runs: pd.DataFrame, *, metric: str = "AUROC") -> pd.DataFrame:
    """Runs of `chance_runs` in one line a statistic.

    Args:
        runs: table of `chance_runs`.
        metric: which metric.

    Returns:
        Index `statistic`; `mean` over runs, `error` (its standard error), `chance`, `sigma` (how many
        standard errors the mean lies above chance) and `covered` (share of intervals that hold chance).
    """
    groups = runs[runs["metric"] == metric].groupby("statistic", sort=False)
    mean, chance, covered = (groups[name].mean() for name in ("value", "chance", "covers"))
    table = pd.DataFrame({"mean": mean, "error": groups["value"].sem(), "chance": chance})
    return table.assign(sigma=(mean - chance) / table["error"], covered=covered)

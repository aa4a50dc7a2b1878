"""The reference study's faults, each to be switched on alone, and what it does to a number.

Nothing of the study itself uses this module. Each function here breaks one rule on purpose, so that the audit
can show what the rule is worth.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from lensq.detection.detectors import Detector, choose_detector
from lensq.models.objectives.betatc import aggregate_posterior, decompose
from lensq.statistics import metrics
from lensq.statistics.guard import labelled
from lensq.statistics.latent import latent_values
from lensq.survey.survey import Survey

BATCH_TERMS = ("mutual_information", "total_correlation", "dimension_wise_kl")
UNUSED = "unused"
"""Split of the objects that a faulty training list leaves out."""


def class_pure_batches(positive: np.ndarray, size: int) -> np.ndarray:
    """Number the batches as where positives are read first, and no batch holds both classes.

    Args:
        positive: (N,) bool.
        size: objects in a batch; the last batch of each class may hold fewer.

    Returns:
        (N,) number of each object's batch.
    """
    rank = np.where(positive, np.cumsum(positive), np.cumsum(~positive)) - 1
    return rank // size + np.where(positive, 0, -(-np.count_nonzero(positive) // size))


def shuffled_batches(n: int, size: int, *, seed: int) -> np.ndarray:
    """Deal n objects to batches at random: (n,) number of each object's batch."""
    return np.argsort(np.random.default_rng(seed).permutation(n)) // size


def batch_scores(scores: pd.DataFrame, batches: np.ndarray) -> pd.DataFrame:
    """The terms of a beta-TC model's KL divergence as a batch sees them: no function of one image.

    The aggregate posterior q(z) of Chen et al. 2018 (arXiv 1802.04942, equation 2) is estimated from the
    objects that happen to share a batch, all alike, as in the published training, where the weights meant for
    an object's own density missed it. Scoring has fixed train objects instead.

    Args:
        scores: Scores table of N objects with their `mu_<d>` and `logvar_<d>`, of any variant.
        batches: (N,) number of each object's batch.

    Returns:
        The table with the columns `batch_mutual_information`, `batch_total_correlation` and
        `batch_dimension_wise_kl`, in nats at z = mu.
    """
    mu, logvar = (torch.tensor(latent_values(scores, statistic)) for statistic in ("mu", "logvar"))
    terms = np.empty((len(scores), len(BATCH_TERMS)))
    with threadpool_limits(1):  # with more, small tensors take thirty times as long on a busy machine
        for number in np.unique(batches):
            rows = np.flatnonzero(batches == number)
            m, lv = mu[rows], logvar[rows]
            log_weights = torch.full((1, len(rows)), -math.log(len(rows)), dtype=m.dtype)
            aggregate = aggregate_posterior(m, m, lv, log_weights)
            terms[rows] = torch.stack(decompose(m, m, lv, *aggregate), dim=1)
    return scores.assign(**dict(zip([f"batch_{name}" for name in BATCH_TERMS], terms.T, strict=True)))


def shift_by_label(scores: pd.DataFrame, shift: float, *, against: str = "label") -> pd.DataFrame:
    """Posterior means moved by a true label at evaluation, in every dimension: mu + shift for positives."""
    moved = shift * (scores[against].to_numpy() == 1)
    means = scores.filter(regex=r"^mu_\d+$")
    return scores.assign(**means.add(moved, axis=0))


def repeated_normals(scores: pd.DataFrame, *, against: str = "label") -> pd.DataFrame:
    """A list whose anomalies are its first ordinary objects again, with no real anomaly in it.

    Args:
        scores: Scores table.
        against: the column of positives.

    Returns:
        The negatives in their order and, behind them, as many of the first of them as there were positives,
        now called positive.
    """
    rows, positive = labelled(scores, against)
    normals = rows[~positive]
    again = normals.head(np.count_nonzero(positive)).copy()
    again[against] = np.ones(len(again), rows[against].dtype)
    return pd.concat([normals, again], ignore_index=True)


def misled_survey(survey: Survey) -> Survey:
    """A survey whose training list holds anomalies that are none.

    The anomalies of the train and validation tiles leave (split `unused`), and as many of the first
    ordinary objects of each are labelled 1. Trained with `train_on="balanced"`, half of what a model sees are
    these.

    Args:
        survey: the survey; it is left as it was.

    Raises:
        ValueError: if a split has fewer ordinary objects than anomalies.
    """
    labels, split = survey.labels.copy(), survey.split.copy()
    for name in ("train", "validation"):
        rows = survey.rows(name)
        anomalies, normals = (rows[survey.labels[rows] == label] for label in (1, 0))
        if len(anomalies) > len(normals):
            raise ValueError(f"{len(anomalies)} anomalies but {len(normals)} others in split {name!r}")
        split[anomalies] = UNUSED
        labels[normals[: len(anomalies)]] = 1
    return replace(survey, labels=labels, split=split)


def effect(
    without: tuple[Detector, pd.DataFrame], with_fault: tuple[Detector, pd.DataFrame], **options
) -> pd.DataFrame:
    """What a fault does to the numbers of a detector, on the same objects.

    Args:
        without: detector and rows as they should be.
        with_fault: detector and rows with the fault: the same objects in the same order, whose scores may
            differ.
        **options: prevalence (the first detector's by default), resamples, seed of
            `lensq.statistics.metrics.paired_difference`.

    Returns:
        Index `metric`, AP, AUROC and F1; `without`, `with`, `difference` (with minus without), `low`, `high`
        (paired 95% interval) and `clear` (the interval does not hold 0).

    Raises:
        ValueError: if the two tables do not hold the same objects of the same classes.
    """
    options = {"prevalence": without[0].prevalence} | options
    scores, thresholds, classes = {}, {}, []
    for name, (detector, rows) in (("with", with_fault), ("without", without)):
        rows, positive = labelled(rows, without[0].against)
        scores[name], thresholds[name] = detector.score(rows), detector.threshold
        classes.append((rows["name"].tolist(), positive.tolist()))
    if classes[0] != classes[1]:
        raise ValueError("without and with the fault: not the same objects of the same classes in one order")
    pair = metrics.paired_difference(
        *scores.values(), positive, thresholds=tuple(thresholds.values()), **options
    )
    alone = metrics.compare(scores, positive, thresholds=thresholds, **options | {"resamples": 1})
    table = pair.assign(**{name: alone.loc[name] for name in scores})
    return table.loc[["AP", "AUROC", "F1"], ["without", "with", "difference", "low", "high", "clear"]]


def class_pure_effects(
    selection: pd.DataFrame,
    rows: pd.DataFrame,
    size: int,
    *,
    against: str = "label",
    prevalence: float = metrics.PREVALENCE,
    seed: int = 0,
    **options,
) -> dict[str, pd.DataFrame]:
    """What it does to batch-dependent scores that no batch holds both classes.

    Without the fault each set is scored in shuffled batches, with it in class-pure ones; direction and
    threshold come from the selection rows either way.

    Args:
        selection: Scores table, rows of the selection split.
        rows: Scores table of the objects to evaluate on.
        size: objects in a batch.
        against: the column of positives.
        prevalence: the share of positives that the objects are weighted to.
        seed: seed of the shuffled batches.
        **options: resamples of `effect`.

    Returns:
        For each term of `batch_scores` a table of `effect`, by the name of the fault.
    """
    pure, shuffled = [], []
    for part in (selection, rows):
        part, positive = labelled(part, against)
        pure.append(batch_scores(part, class_pure_batches(positive, size)))
        shuffled.append(batch_scores(part, shuffled_batches(len(part), size, seed=seed)))
    choice: dict[str, Any] = {"against": against, "prevalence": prevalence}
    effects = {}
    for term in BATCH_TERMS:
        sides = [(choose_detector(own, f"batch_{term}", **choice), part) for own, part in (shuffled, pure)]
        effects[f"class-pure batches of {size}, {term}"] = effect(*sides, seed=seed, **options)
    return effects

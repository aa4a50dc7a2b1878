"""What a latent space knows of lenses: ways to use its dimensions, learnt from injected lenses.

The published protocol (see `lensq.detection.faults`) sums the KL divergence of a few dimensions that labels
choose. Injected lenses, of which there are as many as one likes, choose dimensions without a label, give each
a direction, and train a classifier of all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lensq.classifiers.recovery import FEWEST, injected_survey
from lensq.models.training import Model
from lensq.scores.scoring import score
from lensq.statistics.guard import has_both_classes, labelled
from lensq.statistics.latent import STATISTICS, choose_dimensions, compared_values, dimension_statistics
from lensq.statistics.metrics import compare

if TYPE_CHECKING:
    from lensq.survey.survey import Survey

_WORDS = {"kl": "KL divergence", "mu": "posterior mean"}


def latent_ways(
    model: Model,
    survey: Survey,
    scores: pd.DataFrame,
    *,
    against: str = "label",
    dimensions: int = 3,
    n: int = 1000,
    seed: int = 5,
    **options,
) -> pd.DataFrame:
    """How well lenses of the selection tiles are found by ways to use the latent dimensions.

    Every way learns on train tiles: lenses injected into their galaxies against their objects as they are,
    which need no label; the last one, where there are labels there, what those teach.

    Args:
        model: the model of the scores.
        survey: the survey that it was fitted to.
        scores: Scores table of that survey.
        against: the column of the classes, see `lensq.statistics.guard.labelled`.
        dimensions: how many dimensions the chi-squared test chooses.
        n: lenses injected; twice as many objects stand against them.
        seed: of the injection and the trees.
        **options: prevalence, resamples of `lensq.statistics.metrics.measure`.

    Returns:
        Table of `lensq.statistics.metrics.compare`, one row a way; no rows where the train tiles hold fewer
        than `FEWEST` objects.
    """
    rows = survey.rows("train")
    if len(rows) < FEWEST:
        return pd.DataFrame(columns=["AP", "AP_low", "AP_high", "AUROC"]).rename_axis("score")
    some = np.random.default_rng(seed).permutation(rows)[: 2 * n]
    injected = injected_survey(survey, np.sort(some), n=n, seed=seed)
    is_lens = injected.truth["is_lens"].to_numpy()
    # No label is among them: there is nothing to guard.
    learnt = score(model, injected, progress=False).assign(is_lens=is_lens, split="selection")
    found, positive = labelled(scores[scores["split"] == "selection"], against)
    ways = {}
    for statistic, words in _WORDS.items():
        table = dimension_statistics(learnt, statistic, against="is_lens")
        chosen = list(choose_dimensions(table, n=dimensions))
        known, values = (compared_values(part, statistic)[:, chosen] for part in (learnt, found))
        centre, spread = known[is_lens == 0].mean(0), known[is_lens == 0].std(0)
        direction = np.sign(known[is_lens == 1].mean(0) - centre) / np.where(spread > 0, spread, 1)
        ways[f"{words}, {dimensions} dimensions"] = ((values - centre) * direction).mean(1)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    trees = HistGradientBoostingClassifier(random_state=seed)
    learners: dict[str, tuple] = {"linear": (linear, learnt, is_lens)}
    learners["boosted trees"] = trees, learnt, is_lens
    train = scores[scores["split"] == "train"]
    if has_both_classes(train, against):
        learners["boosted trees trained with labels"] = trees, *labelled(train, against)
    for words, (classifier, table, answers) in learners.items():
        ways[f"all dimensions, {words}"] = classifier.fit(_all(table), answers).decision_function(_all(found))
    return compare(ways, positive, **options)


def _all(scores: pd.DataFrame) -> np.ndarray:
    return np.hstack([compared_values(scores, statistic) for statistic in STATISTICS])

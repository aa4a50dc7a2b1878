"""The entries of the leaderboard: each variant, the baselines, the classifier that saw every label."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lensq.classifiers.baselines import USES_LABELS, Baselines
from lensq.classifiers.classifier import Classifier
from lensq.classifiers.pointfits import PointFits, with_point_fits
from lensq.detection.evaluation import record_of, score_on_test, scored_as, variants_in
from lensq.detection.leaderboard import Entries, Entry, named_on_selection, objects
from lensq.models.training import fit, load_model
from lensq.scores.scoring import score
from lensq.statistics import metrics
from lensq.statistics.guard import labelled
from lensq.survey.survey import Survey

NAMES = {"pca_residual": "PCA(16)", "pca_mse": "PCA(16), whole image", "pca_knn": "PCA(16), neighbours"}
NAMES |= {"deep_svdd": "Deep SVDD (PyOD)", "isolation_forest": "isolation forest", "ecod": "ECOD"}
NAMES["pca_logistic"] = "logistic regression on PCA(16)"
"""Column of the baselines to its name in the table."""

FITS = "fits of point sources", "delta_chi_squared"


def variant_entries(
    results: Path | str,
    survey: Survey,
    held_out: Survey,
    *,
    scores: Sequence[str] = ("kl", "central_residual"),
    against: str = "label",
    prevalence: float = metrics.PREVALENCE,
    into: str = "test",
    progress: bool = True,
) -> Entries:
    """Score every variant in a folder of results on the test survey.

    Args:
        results: folder of results.
        survey: the survey that the variants were trained on, and scored for choosing.
        held_out: the test survey.
        scores: columns to show in any case. Beside them the best label-free one, named on the selection
            objects, and the classifier of a variant that has one.
        against: the column of positives on selection.
        prevalence: share of positives.
        into: see `lensq.detection.evaluation.score_on_test`.
        progress: show progress bars.

    Returns:
        (variant, column) to entry, the named column of each variant first.
    """
    entries = {}
    for variant in variants_in(results):
        test = score_on_test(results, variant, held_out, into=into, progress=progress)
        table = pd.read_parquet(Path(results) / variant / "scores.parquet")
        selection = survey.add_truth(table[table["split"] == "selection"])
        last = [scored for scored in record_of(results, into)["scored"] if scored["variant"] == variant][-1]
        cost = _cost_of(results, variant, survey) | {"score_per_s": last["objects"] / last["seconds"]}
        named = named_on_selection(selection, against=against, prevalence=prevalence)
        own = [name for name in ("anomaly_logit",) if name in table]
        for column in dict.fromkeys([named, *scores, *own]):
            entries[variant, column] = Entry(selection[column].to_numpy(), test[column].to_numpy(), **cost)
    return entries


def _cost_of(results: Path | str, variant: str, survey: Survey) -> dict[str, float]:
    """Fields of an `Entry`: labels used, seconds of training and images seen by a variant."""
    model = load_model(Path(results) / variant)
    settings, history = model.settings, model.history
    labels = settings["labels_seen"] if settings["uses_labels"] else 0
    images = len(survey.rows("train")[: settings["max_images"]]) if settings["train_on"] == "all" else np.nan
    seconds = float(history["seconds"].sum())
    return {"labels_used": labels, "train_s": seconds, "images_seen": images * len(history)}


def baseline_entries(
    fitted: Baselines, survey: Survey, held_out: Survey, known: Entries | None = None
) -> Entries:
    """Score the baselines on the test survey, and fit one point source and two to each object.

    Args:
        fitted: of `lensq.classifiers.baselines.fit_baselines` on the study's survey.
        survey: that survey.
        held_out: the test survey.
        known: entries on another test survey, whose scores of the selection objects are taken.

    Returns:
        (baseline, column) to entry.
    """
    begun = time.monotonic()
    points = PointFits.of(survey)
    seconds = time.monotonic() - begun

    def scored(where: Survey, split: str) -> pd.DataFrame:
        rows = where.rows(split)
        return fitted.score(where.images[rows], where.mask[rows], objects(where, split))

    if not known:
        on_selection = fitted.held_out(scored(survey, "selection"))
        known = {(called, name): Entry(on_selection[name].to_numpy(), None) for name, called in NAMES.items()}
        known[FITS] = Entry(points.score(survey, survey.rows("selection")), None)
    entries = {FITS: known[FITS]._replace(labels_used=0, train_s=seconds, **_scored(points, held_out))}
    test = scored(held_out, "test")
    for name, called in NAMES.items():
        labels = fitted.labels_used * (name in USES_LABELS)
        cost = labels, fitted.train_s[name], test.attrs["score_per_s"][name]
        entries[called, name] = Entry(known[called, name].selection, test[name].to_numpy(), *cost)
    return entries


def _scored(detector: Classifier | PointFits, held_out: Survey, **how) -> dict[str, Any]:
    """Fields of an `Entry`: scores of the test objects, and objects scored a second."""
    begun = time.monotonic()
    test = detector.score(held_out, held_out.rows("test"), **how)
    return {"test": test, "score_per_s": len(test) / (time.monotonic() - begun)}


def _timed(trained: Sequence[Classifier], held_out: Survey, before: Entry | None = None, **how) -> Entry:
    """Scores of the test objects by the last of some classifiers, at the cost of training all of them, and of
    what was trained before."""
    seconds, images = (before.train_s, before.images_seen) if before else (0.0, 0.0)
    seconds += sum(float(each.history["seconds"].sum()) for each in trained)
    images += sum(each.images_seen for each in trained)
    cost = {"labels_used": trained[-1].settings["labels_used"], "train_s": seconds, "images_seen": images}
    return Entry(None, **cost, **_scored(trained[-1], held_out, **how))


def _combined(entries: Sequence[Entry], **values) -> Entry:
    """The last entry as one that needs all of them, scored one after the other."""
    rate = 1 / sum(1 / entry.score_per_s for entry in entries)
    return entries[-1]._replace(score_per_s=rate, **values)


def _with_fits(entry: Entry, fits: Entry) -> Entry:
    """An entry of log odds, lowered by the fits of point sources."""
    parts = {part: (getattr(entry, part), getattr(fits, part)) for part in ("selection", "test")}
    return _combined([fits, entry], **{part: with_point_fits(*pair) for part, pair in parts.items()})


def _mean(entries: Sequence[Entry]) -> Entry:
    """The mean score of entries, at the cost of all of them."""
    sums = {part: sum(getattr(entry, part) for entry in entries) for part in ("train_s", "images_seen")}
    return _combined(entries, test=np.mean([entry.test for entry in entries], axis=0), **sums)


def _thresholds(
    classifiers: Sequence[Classifier], labels: np.ndarray, survey: Survey, prevalence: float, how: dict
) -> list[float]:
    """Thresholds of classifiers that learnt from the selection tiles, and of their mean log odds, chosen on
    the validation tiles."""
    rows = survey.rows("validation")
    rows = rows[labels[rows] >= 0]
    seen = [classifier.score(survey, rows, **how) for classifier in classifiers]
    seen.append(np.mean(seen, axis=0))
    return [metrics.best_threshold(score, labels[rows] == 1, prevalence=prevalence) for score in seen]


def trained_entries(
    results: Path | str,
    classifier: Classifier,
    labels: np.ndarray,
    survey: Survey,
    held_out: Survey,
    *,
    fits: Entry,
    known: Entries | None = None,
    prevalence: float = metrics.PREVALENCE,
    **how,
) -> Entries:
    """What was trained with injected lenses and labels: a variant's encoder, and the supervised network.

    Args:
        results: folder of results, with the detectors of `lensq.classifiers.finetuning` in its folder
            `injected`.
        classifier: of `lensq.classifiers.supervised.fit_supervised`.
        labels: (N,) what both were trained with.
        survey: the survey they learnt from.
        held_out: the test survey.
        fits: of point sources, from `baseline_entries`.
        known: entries on another test survey, whose scores of the selection objects and thresholds are taken.
        prevalence: share of positives for which thresholds are chosen.
        **how: symmetries and progress of `lensq.classifiers.classifier.Classifier.score`.

    Returns:
        (variant and what its encoder was trained with, score) to entry; the last is the mean log odds of the
        encoder that was trained with all labels and of the supervised network.
    """
    folder = Path(results) / "injected"
    none, everything = (Classifier.load(folder / name / "model.pt") for name in ("none", "all"))
    rounds = [Classifier.load(path) for path in sorted((folder / "few").glob("*/model.pt"))]
    own = Entry(None, None, **_cost_of(results, none.settings["variant"], survey))
    name = f"{none.settings['variant']} + injected lenses"
    with_few, with_all = f"{name} + few labels", f"{name} + all labels"

    def with_selection(called: str, trained: Sequence[Classifier], before: Entry) -> Entry:
        entry = (known or {}).get((called, "log odds"))
        selection = entry.selection if entry else trained[-1].score(survey, survey.rows("selection"), **how)
        return _timed(trained, held_out, before, **how)._replace(selection=selection)

    injected = with_selection(name, [none], own)
    few = with_selection(with_few, rounds, injected)

    pair = _timed([everything], held_out, injected, **how), _timed([classifier], held_out, **how)
    both = f"{with_all} + ResNet-18", "mean log odds"
    keys = (with_all, "log odds"), ("supervised ResNet-18", "log odds"), both
    if known:
        thresholds = [known[key].threshold for key in keys]
    else:
        thresholds = _thresholds((everything, classifier), labels, survey, prevalence, how)
    supervised = (e._replace(threshold=t) for e, t in zip((*pair, _mean(pair)), thresholds, strict=True))
    return {
        (name, "log odds"): injected,
        (name, "log odds and point fits"): _with_fits(injected, fits),
        (with_few, "log odds"): few,
        (with_few, "log odds and point fits"): _with_fits(few, fits),
        **dict(zip(keys, supervised, strict=True)),
    }


def seed_spread(
    results: Path | str,
    variant: str,
    survey: Survey,
    held_out: Survey,
    seeds: Sequence[int],
    *,
    scores: Sequence[str] = ("kl", "central_residual"),
    against: str = "label",
    **options,
) -> pd.DataFrame:
    """How far the average precision of a variant moves with the seed of its training.

    Args:
        results: folder of results; the new models go to `<results>/seeds/<variant>-<seed>`.
        variant: name of the variant, which is trained again once for each seed, with all else as it was.
        survey: the survey that it was trained on.
        held_out: the test survey.
        seeds: seeds besides its own.
        scores: columns to measure.
        against: the column of positives.
        **options: prevalence, resamples and seed of `lensq.statistics.metrics.measure`.

    Returns:
        Index `score`; columns `mean` and `sd` (ddof 1) of AP over the trainings and their number `seeds`;
        `low` and `high`, the 95% bootstrap interval of the variant's own training.
    """
    tables = [score_on_test(results, variant, held_out, progress=False)]
    recipe, again = load_model(Path(results) / variant).recipe, Path(results) / "seeds"
    how = {"rows": survey.rows("selection"), "progress": False, **scored_as(results, variant)}
    for seed in seeds:
        out = again / f"{variant}-{seed}"
        model = fit(survey, out=out, progress=False, **recipe | {"seed": seed})
        score(model, survey, out=out / "scores.parquet", **how)
        tables.append(score_on_test(again, out.name, held_out, progress=False))
    known = [labelled(table, against) for table in tables]
    rows = {}
    for column in scores:
        measured = [metrics.measure(table[column], lens, **options).loc["AP"] for table, lens in known]
        values = pd.Series([row["value"] for row in measured])
        rows[column] = {"mean": values.mean(), "sd": values.std(), "seeds": len(values)}
        rows[column] |= measured[0][["low", "high"]]
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")

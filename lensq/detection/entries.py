"""The entries of the leaderboard: each variant, the baselines, the classifier that saw every label."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lensq.classifiers.baselines import USES_LABELS, Baselines
from lensq.classifiers.classifier import Classifier
from lensq.classifiers.pointfits import PointFits, with_point_fits
from lensq.detection.evaluation import record_of, score_on_test, scored_as, variants_in
from lensq.detection.leaderboard import Entry, named_on_selection, objects
from lensq.models.training import Model, fit, load_model
from lensq.scores.scoring import score
from lensq.statistics import metrics
from lensq.statistics.guard import labelled
from lensq.survey.survey import Survey

NAMES = {"pca_residual": "PCA(16)", "pca_mse": "PCA(16), whole image", "pca_knn": "PCA(16), neighbours"}
NAMES |= {"deep_svdd": "Deep SVDD (PyOD)", "isolation_forest": "isolation forest", "ecod": "ECOD"}
NAMES["pca_logistic"] = "logistic regression on PCA(16)"
"""Column of the baselines to its name in the table."""


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
) -> dict[tuple[str, str], Entry]:
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
        cost = _cost_of(results, variant, survey, into)
        named = named_on_selection(selection, against=against, prevalence=prevalence)
        own = [name for name in ("anomaly_logit",) if name in table]
        for column in dict.fromkeys([named, *scores, *own]):
            entries[variant, column] = Entry(selection[column].to_numpy(), test[column].to_numpy(), *cost)
    return entries


def _cost_of(results: Path | str, variant: str, survey: Survey, into: str) -> tuple[int, float, float, float]:
    """Labels used, seconds of training, objects scored a second, and images seen by a variant."""
    model = load_model(Path(results) / variant)
    last = [scored for scored in record_of(results, into)["scored"] if scored["variant"] == variant][-1]
    settings, history = model.settings, model.history
    labels = settings["labels_seen"] if settings["uses_labels"] else 0
    images = len(survey.rows("train")[: settings["max_images"]]) if settings["train_on"] == "all" else np.nan
    return labels, float(history["seconds"].sum()), last["objects"] / last["seconds"], images * len(history)


def baseline_entries(fitted: Baselines, survey: Survey, held_out: Survey) -> dict[tuple[str, str], Entry]:
    """Score the baselines on the test survey, and fit one point source and two to each object.

    Args:
        fitted: of `lensq.classifiers.baselines.fit_baselines` on the study's survey.
        survey: that survey.
        held_out: the test survey.

    Returns:
        (baseline, column) to entry.
    """
    parts = (survey, survey.rows("selection")), (held_out, held_out.rows("test"))
    begun = time.monotonic()
    points = PointFits.of(survey)
    seconds = time.monotonic() - begun
    fitted_on_test, rate = _scored(points, held_out)
    fits = Entry(points.score(*parts[0]), fitted_on_test, 0, seconds, rate)
    known = objects(survey, "selection"), objects(held_out, "test")
    pixels = [(part.images[rows], part.mask[rows]) for part, rows in parts]
    selection, test = (fitted.score(*pair, of) for pair, of in zip(pixels, known, strict=True))
    selection, entries = fitted.held_out(selection), {("fits of point sources", "delta_chi_squared"): fits}
    for name, called in NAMES.items():
        labels = fitted.labels_used * (name in USES_LABELS)
        cost = labels, fitted.train_s[name], test.attrs["score_per_s"][name]
        entries[called, name] = Entry(selection[name].to_numpy(), test[name].to_numpy(), *cost)
    return entries


def _scored(detector: Classifier | PointFits, held_out: Survey, **how) -> tuple[np.ndarray, float]:
    """Scores of the test objects, and objects scored a second."""
    begun = time.monotonic()
    test = detector.score(held_out, held_out.rows("test"), **how)
    return test, len(test) / (time.monotonic() - begun)


def _timed(trained: Sequence[Classifier], held_out: Survey, before: Entry | None = None, **how) -> Entry:
    """Scores of the test objects by the last of some classifiers, at the cost of training all of them, and of
    what was trained before."""
    test, rate = _scored(trained[-1], held_out, **how)
    seconds, images = (before.train_s, before.images_seen) if before else (0.0, 0.0)
    seconds += sum(float(each.history["seconds"].sum()) for each in trained)
    images += sum(each.images_seen for each in trained)
    return Entry(None, test, trained[-1].settings["labels_used"], seconds, rate, images)


def _combined(entries: Sequence[Entry], **values) -> Entry:
    """The last entry as one that needs all of them, scored one after the other."""
    rate = 1 / sum(1 / entry.score_per_s for entry in entries)
    return entries[-1]._replace(score_per_s=rate, **values)


def _supervised(
    classifiers: Sequence[Classifier],
    labels: np.ndarray,
    survey: Survey,
    entries: Sequence[Entry],
    prevalence: float,
    how: dict,
) -> list[Entry]:
    """Entries of classifiers that learnt from the selection tiles, and of their mean log odds; thresholds are
    chosen on the validation tiles."""
    rows = survey.rows("validation")
    rows = rows[labels[rows] >= 0]
    seen = [classifier.score(survey, rows, **how) for classifier in classifiers]
    sums = {name: sum(getattr(entry, name) for entry in entries) for name in ("train_s", "images_seen")}
    mean = _combined(entries, test=np.mean([entry.test for entry in entries], axis=0), **sums)
    seen, lens = [*seen, np.mean(seen, axis=0)], labels[rows] == 1
    thresholds = (metrics.best_threshold(score, lens, prevalence=prevalence) for score in seen)
    return [e._replace(threshold=t) for e, t in zip((*entries, mean), thresholds, strict=True)]


def trained_entries(
    results: Path | str,
    classifier: Classifier,
    labels: np.ndarray,
    survey: Survey,
    held_out: Survey,
    *,
    fits: Entry,
    into: str = "test",
    prevalence: float = metrics.PREVALENCE,
    **how,
) -> dict[tuple[str, str], Entry]:
    """What was trained with injected lenses and labels: a variant's encoder, and the supervised network.

    Args:
        results: folder of results, with the detectors of `lensq.classifiers.finetuning` in its folder
            `injected`.
        classifier: of `lensq.classifiers.supervised.fit_supervised`.
        labels: (N,) what both were trained with.
        survey: the survey they learnt from.
        held_out: the test survey.
        fits: of point sources, from `baseline_entries`.
        into: where `variant_entries` put its scores.
        prevalence: share of positives for which thresholds are chosen.
        **how: symmetries and progress of `lensq.classifiers.classifier.Classifier.score`.

    Returns:
        (variant and what its encoder was trained with, score) to entry; the last is the mean log odds of the
        encoder that was trained with all labels and of the supervised network.
    """
    folder = Path(results) / "injected"
    none, everything = (Classifier.load(folder / name / "model.pt") for name in ("none", "all"))
    rounds = sorted(folder.glob("few/*/model.pt"), key=lambda path: int(path.parent.name))
    rounds = [Classifier.load(path) for path in rounds]
    variant = none.settings["variant"]
    own = Entry(None, None, *_cost_of(results, variant, survey, into))

    def with_selection(trained: Sequence[Classifier], before: Entry) -> Entry:
        entry = _timed(trained, held_out, before, **how)
        return entry._replace(selection=trained[-1].score(survey, survey.rows("selection"), **how))

    injected = with_selection([none], own)
    few = with_selection(rounds, injected)

    def fitted(entry: Entry) -> Entry:
        parts = {part: (getattr(entry, part), getattr(fits, part)) for part in ("selection", "test")}
        return _combined([fits, entry], **{part: with_point_fits(*pair) for part, pair in parts.items()})

    pair = [_timed([everything], held_out, injected, **how), _timed([classifier], held_out, **how)]
    encoder, network, both = _supervised((everything, classifier), labels, survey, pair, prevalence, how)
    name = f"{variant} + injected lenses"
    return {
        (name, "log odds"): injected,
        (name, "log odds and point fits"): fitted(injected),
        (f"{name} + few labels", "log odds"): few,
        (f"{name} + few labels", "log odds and point fits"): fitted(few),
        (f"{name} + all labels", "log odds"): encoder,
        ("supervised ResNet-18", "log odds"): network,
        (f"{name} + all labels + ResNet-18", "mean log odds"): both,
    }


def refit(results: Path | str, variant: str, survey: Survey, *, seed: int) -> Model:
    """Train a variant again with another seed and all else as it was, and score it for choosing.

    Args:
        results: folder of results; the new model goes to `<results>/seeds/<variant>-<seed>`.
        variant: name of the variant.
        survey: the survey that it was trained on.
        seed: the other seed.
    """
    recipe = load_model(Path(results) / variant).recipe | {"seed": seed}
    out = Path(results) / "seeds" / f"{variant}-{seed}"
    model = fit(survey, out=out, progress=False, **recipe)
    how = {"rows": survey.rows("selection"), "progress": False, **scored_as(results, variant)}
    score(model, survey, out=out / "scores.parquet", **how)
    return model


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
        results: folder of results.
        variant: name of the variant, which is trained again once for each seed.
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
    for seed in seeds:
        refit(results, variant, survey, seed=seed)
        again = Path(results) / "seeds"
        tables.append(score_on_test(again, f"{variant}-{seed}", held_out, progress=False))
    known = [labelled(table, against) for table in tables]
    rows = {}
    for column in scores:
        measured = [metrics.measure(table[column], lens, **options).loc["AP"] for table, lens in known]
        values = pd.Series([row["value"] for row in measured])
        rows[column] = {"mean": values.mean(), "sd": values.std(), "seeds": len(values)}
        rows[column] |= measured[0][["low", "high"]]
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")

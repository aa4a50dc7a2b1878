"""Who enters the leaderboard: each variant, the baselines, the classifier that saw every label."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lensq.classifiers.baselines import USES_LABELS, Baselines
from lensq.classifiers.classifier import Classifier
from lensq.classifiers.finetuning import with_residual
from lensq.detection.evaluation import judge, record_of, scored_as, variants_in
from lensq.detection.leaderboard import Entry, named_on_selection, objects
from lensq.models.training import Model, fit, load_model
from lensq.scores.scoring import score
from lensq.statistics import metrics
from lensq.statistics.guard import labelled
from lensq.survey.survey import Survey

NAMES = {
    "pca_residual": "PCA(16)",
    "pca_mse": "PCA(16), whole image",
    "pca_knn": "PCA(16), neighbours",
    "deep_svdd": "Deep SVDD (PyOD)",
    "isolation_forest": "isolation forest",
    "ecod": "ECOD",
    "pca_logistic": "logistic regression on PCA(16)",
}
"""Column of the baselines to its name in the table."""


def variant_entries(
    results: Path | str,
    sample: Survey,
    held_out: Survey,
    *,
    scores: Sequence[str] = ("kl", "central_residual"),
    against: str = "label",
    prevalence: float = metrics.PREVALENCE,
    into: str = "test",
    progress: bool = True,
) -> dict[tuple[str, str], Entry]:
    """Judge every variant in a folder of results.

    Args:
        results: folder of results.
        sample: the survey that the variants were trained on, and scored for choosing.
        held_out: the test survey.
        scores: columns to show in any case. Beside them the best label-free one, named on the selection
            objects, and the classifier of a variant that has one.
        against: the column that tells positives on selection.
        prevalence: share of positives.
        into: see `lensq.detection.evaluation.judge`.
        progress: show progress bars.

    Returns:
        (variant, column) to entry, the named column of each variant first.
    """
    entries = {}
    for variant in variants_in(results):
        test = judge(results, variant, held_out, into=into, progress=progress)
        table = pd.read_parquet(Path(results) / variant / "scores.parquet")
        selection = sample.add_truth(table[table["split"] == "selection"])
        model = load_model(Path(results) / variant)
        told = model.settings["labels_seen"] if model.settings["uses_labels"] else 0
        costs = told, float(model.history["seconds"].sum()), _rate(results, variant, into)
        named = named_on_selection(selection, against=against, prevalence=prevalence)
        own = [name for name in ("anomaly_logit",) if name in table]
        for column in dict.fromkeys([named, *scores, *own]):
            entries[variant, column] = Entry(selection[column].to_numpy(), test[column].to_numpy(), *costs)
    return entries


def baseline_entries(fitted: Baselines, sample: Survey, held_out: Survey) -> dict[tuple[str, str], Entry]:
    """Judge the baselines.

    Args:
        fitted: of `lensq.classifiers.baselines.fit_baselines` on the study's survey.
        sample: that survey.
        held_out: the test survey.

    Returns:
        (baseline, column) to entry.
    """
    tables = []
    for survey, split in ((sample, "selection"), (held_out, "test")):
        rows = survey.rows(split)
        tables.append(fitted.score(survey.images[rows], survey.mask[rows], objects(survey, split)))
    selection, test = fitted.held_out(tables[0]), tables[1]
    return {
        (NAMES[name], name): Entry(
            selection[name].to_numpy(),
            test[name].to_numpy(),
            fitted.labels_used if name in USES_LABELS else 0,
            fitted.train_s[name],
            test.attrs["score_per_s"][name],
        )
        for name in NAMES
    }


def supervised_entry(
    classifier: Classifier,
    labels: np.ndarray,
    sample: Survey,
    held_out: Survey,
    *,
    symmetries: bool = True,
    prevalence: float = metrics.PREVALENCE,
    progress: bool = True,
) -> Entry:
    """Judge the classifier that saw every label, its threshold from the validation tiles.

    Args:
        classifier: of `lensq.classifiers.supervised.fit_supervised`.
        labels: (N,) what it was told.
        sample: the survey it learnt from.
        held_out: the test survey.
        symmetries: average scores over the symmetries of the square.
        prevalence: share of positives for which the threshold is chosen.
        progress: show progress bars.
    """
    rows = sample.rows("validation")
    rows = rows[labels[rows] >= 0]
    how = {"symmetries": symmetries, "progress": progress}
    seen = classifier.score(sample, rows, **how)
    threshold = metrics.best_threshold(seen, labels[rows] == 1, prevalence=prevalence)
    return _timed(classifier, held_out, **how)._replace(threshold=threshold)


def _rate(results: Path | str, variant: str, into: str) -> float:
    """Objects a second when a variant was last judged."""
    last = [was for was in record_of(results, into)["scored"] if was["variant"] == variant][-1]
    return last["objects"] / last["seconds"]


def _in_turn(*rates: float) -> float:
    """Objects a second through several detectors, one after the other."""
    return 1 / sum(1 / rate for rate in rates)


def _timed(classifier: Classifier, held_out: Survey, symmetries: bool, progress: bool) -> Entry:
    begun = time.monotonic()
    test = classifier.score(held_out, held_out.rows("test"), symmetries=symmetries, progress=progress)
    rate = len(test) / (time.monotonic() - begun)
    seconds = float(classifier.history["seconds"].sum())
    return Entry(None, test, classifier.settings["labels_used"], seconds, rate)


def trained_entries(
    results: Path | str,
    classifier: Classifier,
    labels: np.ndarray,
    sample: Survey,
    held_out: Survey,
    *,
    into: str = "test",
    symmetries: bool = True,
    prevalence: float = metrics.PREVALENCE,
    progress: bool = True,
) -> dict[tuple[str, str], Entry]:
    """Judge what was taught: a variant's encoder, by injected lenses and labels, and the supervised network.

    Args:
        results: folder of results, with the detectors of `lensq.classifiers.finetuning` in its folder
            `injected`.
        classifier: of `lensq.classifiers.supervised.fit_supervised`.
        labels: (N,) what both were told.
        sample: the survey they learnt from.
        held_out: the test survey.
        into: see `lensq.detection.evaluation.judge`.
        symmetries: average scores over the symmetries of the square.
        prevalence: share of positives for which thresholds are chosen.
        progress: show progress bars.

    Returns:
        (variant and what it was taught, score) to entry; the last is the mean log odds of the encoder that
        was told all labels and of the supervised network.
    """
    folder = Path(results) / "injected"
    none, everything = (Classifier.load(folder / name / "model.pt") for name in ("none", "all"))
    *rounds, few = map(
        Classifier.load, sorted(folder.glob("few/*/model.pt"), key=lambda path: int(path.parent.name))
    )
    variant = none.settings["variant"]
    table = pd.read_parquet(Path(results) / variant / "scores.parquet")
    train, chosen = (table[table["split"] == split] for split in ("train", "selection"))
    judged = judge(results, variant, held_out, into=into, progress=progress)
    how = {"symmetries": symmetries, "progress": progress}

    def on_selection(detector: Classifier, before: float) -> Entry:
        entry = _timed(detector, held_out, **how)
        selection = detector.score(sample, sample.rows("selection"), **how)
        return entry._replace(selection=selection, train_s=entry.train_s + before)

    injected = on_selection(none, float(load_model(Path(results) / variant).history["seconds"].sum()))
    beside = injected._replace(
        selection=with_residual(injected.selection, chosen, train),
        test=with_residual(injected.test, judged, train),
        score_per_s=_in_turn(injected.score_per_s, _rate(results, variant, into)),
    )
    asked = sum(float(each.history["seconds"].sum()) for each in rounds)
    told = [everything, classifier]
    encoder, network = (
        supervised_entry(each, labels, sample, held_out, prevalence=prevalence, **how) for each in told
    )
    encoder = encoder._replace(train_s=encoder.train_s + injected.train_s)
    rows = sample.rows("validation")
    rows = rows[labels[rows] >= 0]
    seen = sum(each.score(sample, rows, **how) for each in told) / 2
    both = network._replace(
        test=(encoder.test + network.test) / 2,
        train_s=encoder.train_s + network.train_s,
        score_per_s=_in_turn(encoder.score_per_s, network.score_per_s),
        threshold=metrics.best_threshold(seen, labels[rows] == 1, prevalence=prevalence),
    )
    name = f"{variant} + injected lenses"
    return {
        (name, "log odds"): injected,
        (name, "log odds and residual"): beside,
        (f"{name} + few labels", "log odds"): on_selection(few, injected.train_s + asked),
        (f"{name} + all labels", "log odds"): encoder,
        ("supervised ResNet-18", "log odds"): network,
        (f"{name} + all labels + ResNet-18", "mean log odds"): both,
    }


def refit(results: Path | str, variant: str, sample: Survey, *, seed: int, progress: bool = True) -> Model:
    """Train a variant again with another seed and all else as it was, and score it for choosing.

    Args:
        results: folder of results; the new model goes to `<results>/seeds/<variant>-<seed>`.
        variant: name of the variant.
        sample: the survey that it was trained on.
        seed: the other seed.
        progress: show progress bars.
    """
    recipe = load_model(Path(results) / variant).recipe | {"seed": seed}
    out = Path(results) / "seeds" / f"{variant}-{seed}"
    model = fit(sample, out=out, progress=progress, **recipe)
    as_before = scored_as(results, variant)
    score(model, sample, out=out / "scores.parquet", splits="selection", progress=progress, **as_before)
    return model


def seed_spread(
    results: Path | str,
    variant: str,
    sample: Survey,
    held_out: Survey,
    seeds: Sequence[int],
    *,
    scores: Sequence[str] = ("kl", "central_residual"),
    against: str = "label",
    progress: bool = True,
    **options,
) -> pd.DataFrame:
    """How far the average precision of a variant moves with the seed of its training.

    Args:
        results: folder of results.
        variant: name of the variant, which is trained again once for each seed.
        sample: the survey that it was trained on.
        held_out: the test survey.
        seeds: seeds besides its own.
        scores: columns to measure.
        against: the column that tells positives.
        progress: show progress bars.
        **options: prevalence, resamples and seed of `lensq.statistics.metrics.measure`.

    Returns:
        Index `score`; columns `mean` and `sd` of AP over the trainings and their number `seeds`; `low` and
        `high`, the 95% bootstrap interval of the variant's own training.
    """
    tables = [judge(results, variant, held_out, progress=progress)]
    for seed in seeds:
        refit(results, variant, sample, seed=seed, progress=progress)
        again = Path(results) / "seeds"
        tables.append(judge(again, f"{variant}-{seed}", held_out, progress=progress))
    rows = {}
    for column in scores:
        measured = []
        for table in tables:
            known, positive = labelled(table, against)
            measured.append(metrics.measure(known[column].to_numpy(), positive, **options))
        spread, interval = metrics.seed_spread(measured).loc["AP"], measured[0].loc["AP", ["low", "high"]]
        rows[column] = {**spread, **interval}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")

"""Who enters the leaderboard: each variant, the baselines, the classifier that saw every label."""

import inspect
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lensq import metrics
from lensq.baselines import USES_LABELS, Baselines
from lensq.finetuning import with_residual
from lensq.judgement import judge, record_of, scored_as, variants_in
from lensq.leaderboard import Entry, named_on_selection, objects
from lensq.scoring import score
from lensq.supervised import Supervised
from lensq.survey import Survey
from lensq.training import Model, fit, load_model
from lensq.wall import labelled

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
        into: see `lensq.judgement.judge`.
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
        told = model.settings["labels_told"] if model.settings["uses_labels"] else 0
        last = [was for was in record_of(results, into)["scored"] if was["variant"] == variant][-1]
        costs = told, float(model.history["seconds"].sum()), last["objects"] / last["seconds"]
        named = named_on_selection(selection, against=against, prevalence=prevalence)
        own = [name for name in ("anomaly_logit",) if name in table]
        for column in dict.fromkeys([named, *scores, *own]):
            entries[variant, column] = Entry(selection[column].to_numpy(), test[column].to_numpy(), *costs)
    return entries


def baseline_entries(fitted: Baselines, sample: Survey, held_out: Survey) -> dict[tuple[str, str], Entry]:
    """Judge the baselines.

    Args:
        fitted: of `lensq.baselines.fit_baselines` on the study's survey.
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
    classifier: Supervised,
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
        classifier: of `lensq.supervised.fit_supervised`.
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
    begun = time.monotonic()
    test = classifier.score(held_out, held_out.rows("test"), **how)
    rate = len(test) / (time.monotonic() - begun)
    seconds = float(classifier.history["seconds"].sum())
    return Entry(None, test, classifier.settings["labels_used"], seconds, rate, threshold)


def finetuned_entries(
    results: Path | str,
    labels: np.ndarray,
    sample: Survey,
    held_out: Survey,
    *,
    classifier: Entry | None = None,
    into: str = "test",
    symmetries: bool = True,
    prevalence: float = metrics.PREVALENCE,
    progress: bool = True,
) -> dict[tuple[str, str], Entry]:
    """Judge the detectors of notebook 15: painted lenses, a few labels, all labels.

    Args:
        results: folder of results; without a folder `painted` in it there are none.
        labels: (N,) what they were told, for the threshold of the one that was told all.
        sample: the survey that they learnt from.
        held_out: the test survey.
        classifier: the supervised network's entry; if given, its log odds and those of the encoder that was told
            all are also judged together, as their mean.
        into: see `lensq.judgement.judge`.
        symmetries: average scores over the symmetries of the square.
        prevalence: share of positives for which thresholds are chosen.
        progress: show progress bars.

    Returns:
        (variant and what it was taught, score) to entry.
    """
    folder = Path(results) / "painted"
    few = sorted((folder / "few").glob("*/model.pt"))
    if not few:
        return {}
    none, told, everything = (
        Supervised.load(path) for path in (folder / "none/model.pt", few[-1], folder / "all/model.pt")
    )
    variant = none.settings["variant"]
    table = pd.read_parquet(Path(results) / variant / "scores.parquet")
    train, chosen = (table[table["split"] == split] for split in ("train", "selection"))
    judged = judge(results, variant, held_out, into=into, progress=progress)
    how = {"symmetries": symmetries, "progress": progress}

    def entry(detector: Supervised, *, residual: bool = False, threshold: float | None = None) -> Entry:
        begun = time.monotonic()
        test = detector.score(held_out, held_out.rows("test"), **how)
        rate = len(test) / (time.monotonic() - begun)
        selection = None
        if threshold is None:
            selection = detector.score(sample, sample.rows("selection"), **how)
        if residual:
            selection = with_residual(selection, chosen, train)
            test = with_residual(test, judged, train)
        seconds = float(detector.history["seconds"].sum())
        return Entry(selection, test, detector.settings["labels_used"], seconds, rate, threshold)

    rows = sample.rows("validation")
    rows = rows[labels[rows] >= 0]
    held = everything.score(sample, rows, **how)
    threshold = metrics.best_threshold(held, labels[rows] == 1, prevalence=prevalence)
    entries = {
        (f"{variant} + painted lenses", "log odds"): entry(none),
        (f"{variant} + painted lenses", "log odds and residual"): entry(none, residual=True),
        (f"{variant} + painted lenses + labels", "log odds"): entry(told),
        (f"{variant} + painted lenses + all labels", "log odds"): entry(everything, threshold=threshold),
    }
    return entries


def refit(results: Path | str, variant: str, sample: Survey, *, seed: int, progress: bool = True) -> Model:
    """Train a variant again with another seed and all else as it was, and score it for choosing.

    Args:
        results: folder of results; the new model goes to `<results>/seeds/<variant>-<seed>`.
        variant: name of the variant.
        sample: the survey that it was trained on.
        seed: the other seed.
        progress: show progress bars.
    """
    told = load_model(Path(results) / variant).settings
    how = {name: told[name] for name in inspect.signature(fit).parameters if name in told}
    fixed = {"variant", "network", "objective", "options", "size"}
    options = {name: value for name, value in told["config"].items() if name not in fixed}
    out = Path(results) / "seeds" / f"{variant}-{seed}"
    how |= {"survey": sample, "seed": seed, "out": out, "progress": progress}
    model = fit(**how, **options, **told["config"]["options"])
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
        **options: prevalence, resamples and seed of `lensq.metrics.measure`.

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

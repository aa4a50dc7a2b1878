"""The list of candidates: ranked without labels, artefacts set apart, written for TOPCAT and DS9."""

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from astropy import units
from astropy.table import Table

from lensq.classifiers.classifier import Classifier
from lensq.classifiers.finetuning import finetune
from lensq.classifiers.pointfits import PointFits, with_point_fits
from lensq.classifiers.recovery import injected_survey
from lensq.detection.artefacts import find_artefacts
from lensq.detection.conformal import candidate_list
from lensq.detection.detectors import Detector
from lensq.models.conditions import beyond
from lensq.models.training import Model
from lensq.statistics.guard import has_both_classes, labelled
from lensq.statistics.metrics import expected_in_list, measure
from lensq.survey.survey import Survey

TO_TRAIN = 2000
"""Fewest objects that a folder needs for models of its own."""

TO_RECOVER = 1000
"""Fewest objects, of which 1% then are ten, that say how injected lenses rank."""

TO_FIT = 50
"""Fewest objects that hold stars enough to show the point spread function."""

EXAMINED = 5000
"""Objects at the top of a ranking that are examined for artefacts and fitted, at 3 and 5 ms each."""

_REGIONS = 1000  # objects that go to DS9, the first of the list
_COLUMNS = ["rank", "name", "ra", "dec", "score", "p", "q", "purity", "label", "known_as", "set_apart"]

PREVALENCE = 1e-3
"""Share of lenses among all objects for which the purity of a list is given."""


def injected_detector(trained: Path | str, model: Model, survey: Survey, **training) -> Classifier:
    """The encoder of a model, fine-tuned on injected lenses: read where it was made, else trained.

    Args:
        trained: folder of results that holds the model.
        model: whose encoder it is.
        survey: that is to be ranked.
        training: see `lensq.classifiers.finetuning.finetune`.

    Raises:
        FileNotFoundError: it is not there, and cannot be trained, since the survey is not the model's own.
    """
    made = Path(trained) / "injected" / "none" / "model.pt"
    if made.is_file():
        held = Classifier.load(made)
        if held.settings["model"] == model.fingerprint:
            return held
    if survey.fingerprint != model.survey_fingerprint:
        raise FileNotFoundError(
            f"{made} is not there, or was made from another model: run 11_injected_lenses "
            "on the survey that the model was trained on, or make book"
        )
    folder = made.parents[1] / "candidates"  # 11_injected_lenses may be writing its own
    return finetune(model, survey, out=folder, **training)


def point_fits(survey: Survey) -> PointFits | None:
    """Fits with the point spread function of a survey's stars: of the train tiles if these hold `TO_FIT`
    objects, else of all; None for fewer than `TO_FIT` objects or empty images, which show none."""
    rows = survey.rows("train")
    rows = rows if len(rows) >= TO_FIT else np.arange(len(survey))
    with suppress(ValueError):
        return PointFits.of(survey, rows) if len(rows) >= TO_FIT else None
    return None


def rank(
    scores: pd.DataFrame, survey: Survey, points: PointFits | None = None, *, examined: int = EXAMINED
) -> pd.DataFrame:
    """Order objects by score; set those apart that an artefact spoils; add p-values where labels allow it.

    Args:
        scores: Scores table of objects of the survey, with a column `score` of log odds.
        survey: holds their images.
        points: lower the log odds as `lensq.classifiers.with_point_fits` does; None leaves them.
        examined: how many of the highest scores are examined for artefacts, and fitted. Fits only lower, so
            that what comes above the first score not examined is as if all had been fitted.

    Returns:
        All objects: first those of the list by score, with `rank` from 1, then those set apart, with the
        reason in `set_apart` and without a rank. `examined` says which were. `p` and `q` as
        `lensq.detection.conformal.candidate_list` has them, where the conformal tiles hold rejected objects;
        missing for these and for artefacts.
    """
    ranked = scores.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    first = rows_of(survey, ranked["name"].head(examined))
    reasons = find_artefacts(*survey.in_reference_band(first))
    ranked["set_apart"] = pd.Series(reasons, dtype=object).reindex(ranked.index, fill_value="")
    ranked["examined"] = ranked.index < examined
    if points:
        lowered = with_point_fits(ranked["score"].head(examined), points.score(survey, first))
        ranked["score"] = np.concatenate([lowered, ranked["score"].iloc[examined:]])
        ranked = ranked.sort_values("score", ascending=False, kind="stable")
    ranked = ranked.sort_values("set_apart", key=lambda why: why != "", kind="stable", ignore_index=True)
    kept = ranked["set_apart"] == ""
    ranked["rank"] = pd.Series(np.arange(len(ranked)) + 1, dtype="Int64").where(kept)
    calibration = kept & (ranked["split"] == "conformal") & (ranked["label"] == 0)
    tested = kept & ~calibration
    if calibration.any() and tested.any():
        listed = candidate_list(Detector("score", "score"), ranked[calibration], ranked[tested])
        ranked = ranked.join(listed[["p", "q"]])
    return ranked


def rows_of(survey: Survey, names: pd.Series) -> np.ndarray:
    """Rows of a survey by the names of its objects."""
    return pd.Series(np.arange(len(survey.names)), index=survey.names)[names].to_numpy()


def quality(
    ranked: pd.DataFrame, survey: Survey, against: str = "label", **options
) -> tuple[pd.DataFrame | None, str]:
    """How well the list ranks what is known of it, or why that cannot be said.

    Args:
        ranked: table of `rank`.
        survey: holds the groups of objects that are resampled together.
        against: column that tells positives; see `lensq.statistics.guard.labelled`.
        options: see `lensq.statistics.metrics.measure`.

    Returns:
        Table of `measure`, None without objects of both classes; and one sentence.
    """
    ranked = ranked[ranked["set_apart"] == ""]
    if not has_both_classes(ranked, against):
        known = {0: "no object is flagged", 1: "all objects are flagged"}
        why = known.get(ranked[against].max(), "no object has a label")
        return None, f"How complete and pure the list is cannot be measured on this folder: {why}."
    rows, positive = labelled(ranked, against)
    groups = survey.group[rows_of(survey, rows["name"])]
    table = measure(rows["score"].to_numpy(), positive, groups=groups, **options)
    first = min(100, len(rows))
    what = "true lenses" if against == "is_lens" else "flagged objects"
    value, low, high = table.loc["AP"]
    return table, (
        f"{positive[:first].sum()} of the first {first} labelled objects are {what} ({positive.sum()} of all "
        f"{len(rows)}); average precision {value:.2f} [{low:.2f}, {high:.2f}], area under the ROC curve "
        f"{table.loc['AUROC', 'value']:.2f}."
    )


class Recovery(NamedTuple):
    """How many injected lenses a list would hold.

    Attributes:
        lenses: one row an injected lens: its properties (see `lensq.classifiers.recovery.injected_survey`),
            `score`, and whether it is `found`: above 99% of the survey's objects.
        measured: table of `lensq.statistics.metrics.measure`; None where nothing was injected.
        said: one sentence or two.
        ordinary: (n,) scores of the objects among which they rank, sorted.
    """

    lenses: pd.DataFrame
    measured: pd.DataFrame | None
    said: str
    ordinary: np.ndarray = np.empty(0)

    def purity(self, score: np.ndarray) -> np.ndarray:
        """Expected share of lenses among the objects of a score or more, if `PREVALENCE` of all are lenses.

        That is p TPR / (p TPR + (1 - p) FPR), with the rates of the injected lenses and the other objects;
        each object counts among the others once more, as in a p-value, so that none is above all of them.

        Args:
            score: (N,) of the list.

        Returns:
            (N,), an upper limit as `said` tells; NaN where nothing was injected.
        """
        if self.measured is None:
            return np.full(len(score), np.nan)
        rates = []
        for known, more in ((np.sort(self.lenses["score"]), 0), (self.ordinary, 1)):
            above = len(known) - np.searchsorted(known, score, "left")
            rates.append((above + more) / (len(known) + more))
        true, false = PREVALENCE * rates[0], (1 - PREVALENCE) * rates[1]
        return true / (true + false)


def recovery(
    ranked: pd.DataFrame,
    survey: Survey,
    model: Model,
    encoder: Classifier,
    points: PointFits | None = None,
    *,
    symmetries: bool = True,
    **injection: int,
) -> Recovery:
    """Inject lenses into a survey and see how they rank: what the list is worth where nobody has labels.

    In a survey that the model was trained on, only the selection tiles serve, or without any label all tiles
    that took no part in training; elsewhere all objects. Lenses that are known or flagged, and artefacts, are
    left out; lenses that nobody knows count as ordinary. An injected lens that would be set apart as an
    artefact is not found.

    Args:
        ranked: table of `rank`, whose `score` is the encoder's, lowered by `points`.
        survey: that is ranked.
        model: whose encoder was fine-tuned.
        encoder: the detector of injected lenses.
        points: see `rank`.
        symmetries: as the survey was scored; see `lensq.classifiers.classifier.Classifier.score`.
        injection: `n` and `seed` of `lensq.classifiers.recovery.injected_survey`.
    """
    splits, where = set(survey.split), ""
    if survey.fingerprint == model.survey_fingerprint:
        splits, where = {"selection"}, " of the selection tiles"
        if survey.truth is None and not (survey.labels >= 0).any():  # nothing else needs them
            splits, where = {"selection", "conformal", "test"}, " of tiles that took no part in training"
    known = ranked["is_lens" if "is_lens" in ranked else "label"] == 1
    ordinary = ranked[ranked["split"].isin(splits) & (ranked["set_apart"] == "") & ~known]
    if len(ordinary) < TO_RECOVER:
        said = f"Lenses are not injected: it takes {TO_RECOVER:,} objects{where}, there are {len(ordinary)}."
        return Recovery(pd.DataFrame(), None, said)
    own = np.random.default_rng(injection.get("seed", 1)).permutation(rows_of(survey, ordinary["name"]))
    injected = injected_survey(survey, np.sort(own[:EXAMINED]), **injection)
    rows = np.flatnonzero(injected.truth["is_lens"] == 1)
    lenses = injected.truth.iloc[rows].reset_index(drop=True)
    odds = encoder.score(injected, rows, symmetries=symmetries, progress=False)
    if points:
        bound = ranked.loc[~ranked["examined"], "score"].max()  # NaN where all were
        lowered = with_point_fits(odds, points.score(injected, rows))
        odds = np.where(odds < bound, odds, lowered)  # the list would not have fitted those below
    spoilt = np.array(find_artefacts(*injected.in_reference_band(rows))) != ""
    lenses["score"] = np.where(spoilt, ordinary["score"].min() - 1, odds)
    lenses["found"] = lenses["score"] > ordinary["score"].quantile(0.99)
    groups = np.concatenate([injected.group[rows], survey.group[rows_of(survey, ordinary["name"])]])
    both = np.concatenate([lenses["score"], ordinary["score"]])
    is_injected = np.arange(len(both)) < len(lenses)
    measured = measure(both, is_injected, groups=groups)
    expected = expected_in_list(both, is_injected, n=(100,), prevalence=(PREVALENCE,), groups=groups).iloc[0]
    said = _recovered(len(lenses), measured, expected)
    return Recovery(lenses, measured, said, np.sort(ordinary["score"]))


def _recovered(n: int, measured: pd.DataFrame, expected: pd.Series) -> str:
    """What the measures of n injected lenses say."""
    rates = measured.loc[["recall_fpr_1e-2", "recall_fpr_1e-3"]].assign(above=["1%", "0.1%"]).dropna()
    words = "{:.0%} [{:.0%}, {:.0%}] rank above all but {} of the objects"
    said = " and ".join(words.format(*row) for row in rates.itertuples(index=False))
    if np.isfinite(expected["lenses"]):
        said += (
            f"; where one object in 1,000 is a lens like these, {expected['lenses']:.0f} "
            f"[{expected['low']:.0f}, {expected['high']:.0f}] of the first 100 of 100,000 are lenses"
        )
    easier = "It is an upper limit: the detector has learnt from injected lenses, and finds them more easily."
    return f"Of {n} injected lenses {said}. {easier}"


def about(
    ranked: pd.DataFrame, survey: Survey, model: Model, *said: str, points: PointFits | None = None
) -> list[str]:
    """What a reader of the list should know first: what was used, what ranks, how good that is.

    Args:
        ranked: table of `rank`.
        survey: that is ranked.
        model: whose encoder ranks.
        said: sentences of `quality` and `recovery`.
        points: see `rank`.
    """
    apart = int((ranked["set_apart"] != "").sum())
    ranks = "Ranked by the encoder fine-tuned on injected lenses, without any label"
    first = f"the first {EXAMINED:,}" if len(ranked) > EXAMINED else "objects"
    lowers = f"Where one point source and a galaxy are fit enough, {first} are lowered."
    needs = f"Point sources are not fitted: that takes {TO_FIT} objects or more, with stars among them."
    lines = [*survey.notes, survey.summary, *said, f"{ranks}. {lowers if points else needs}"]
    if model.survey_fingerprint != survey.fingerprint:
        lines.append(
            "The models were trained on another survey, by default the simulated one: they know its seeing, "
            "noise and pixels, and objects that differ in these look stranger than they are. "
            f"A folder of {TO_TRAIN:,} objects or more can have models of its own: TRAIN=yes."
        )
        lines += beyond(model.settings, survey)
    if len(ranked) < len(survey):
        lines.append(f"{len(survey) - len(ranked)} objects of tiles that are kept for tests are not listed.")
    if apart:
        examined = f" among the first {EXAMINED:,}" * (len(ranked) > EXAMINED)
        lines.append(f"{apart} objects{examined} are set apart with a reason, at the end of the list.")
    if "p" in ranked:
        calibrated = int(((ranked["split"] == "conformal") & (ranked["label"] == 0)).sum())
        lines.append(f"p and q are calibrated on {calibrated} rejected objects, which have none themselves.")
    else:
        lines.append("There are no rejected objects on conformal tiles, so there are no p and q values.")
    return lines


def write_candidates(ranked: pd.DataFrame, survey: Survey, folder: Path | str) -> pd.DataFrame:
    """Write `candidates.csv`, `candidates.vot` (TOPCAT), `candidates.reg` (DS9, the first 1,000).

    Beside them `summary.txt`: what was used of the survey, the last line of every command on it.

    Args:
        ranked: table of `rank`, perhaps with `known_as` and `purity`.
        survey: whose `catalogue`, where the user gave one, adds its columns.
        folder: where to write; made if absent.

    Returns:
        The table as written.
    """
    table = ranked[[column for column in _COLUMNS if column in ranked]]
    if survey.catalogue is not None:
        own = survey.catalogue.iloc[rows_of(survey, table["name"])].reset_index(drop=True)
        own.columns = [f"catalogue_{name}" if name in _COLUMNS else str(name) for name in own]
        table = table.join(own)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.txt").write_text("\n".join([*survey.notes, survey.summary]) + "\n", encoding="utf-8")
    table.to_csv(folder / "candidates.csv", index=False)
    # In binary: astropy's writer of text overruns its memory where names have to be escaped.
    how: dict[str, Any] = {"format": "votable", "tabledata_format": "binary2", "overwrite": True}
    _votable(table).write(folder / "candidates.vot", **how)
    (folder / "candidates.reg").write_text(_regions(table.head(_REGIONS)), encoding="utf-8")
    return table


def _votable(table: pd.DataFrame) -> Table:
    text = table.select_dtypes(include=["object", "string", "category"]).columns
    whole = table.select_dtypes(include=["int8"]).columns  # which VOTables do not know
    typed = table.assign(**{name: table[name].fillna("").astype(str) for name in text})
    votable = Table.from_pandas(typed.astype(dict.fromkeys(whole, np.int16)))
    for name in ("ra", "dec"):
        votable[name].unit = units.deg
    return votable


def _regions(table: pd.DataFrame) -> str:
    """Circles of 3 arcsec, labelled with rank and name; objects without a position have none."""
    lines = ["# Region file format: DS9 version 4.1", "icrs"]
    for row in table[np.isfinite(table["ra"])].itertuples():
        name = "".join(c if c.isprintable() and c not in "{}" else " " for c in str(row.name))
        label = row.set_apart if pd.isna(row.rank) else f"{row.rank}."
        lines.append(f'circle({row.ra:.7f},{row.dec:.7f},3.0") # text={{{label} {name}}}')
    return "\n".join(lines) + "\n"

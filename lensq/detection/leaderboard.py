"""All detectors in one table, on the same objects, which none of them has seen."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from scipy import stats

from lensq.models.variants import MODELS
from lensq.scores.scoring import label_free
from lensq.statistics import metrics
from lensq.statistics.guard import labelled, require_split
from lensq.survey.survey import Survey

# labels_used: labels that shaped the score; those that set its threshold are not counted. AP_selection:
# average precision on the selection tiles, which names one score of each detector; empty where it learnt from
# them. AP: at the prevalence, with its 95% bootstrap interval. F1, precision, recall: at the threshold chosen
# on other objects, the first two at the prevalence. recall_fpr: at false positive rates of 1e-2 to 1e-4;
# empty if fewer than 10 negatives decide it. images_seen: by training, each pass counted; empty where it is
# not known. train_s: seconds of training. score_per_s: objects scored a second.
COLUMNS = ("model", "score", "labels_used", "AP_selection", "AP", "AP_low", "AP_high", "AUROC", "F1")
COLUMNS += ("precision", "recall", *metrics.FALSE_POSITIVE_RATES, "images_seen", "train_s", "score_per_s")
"""Columns of `leaderboard.csv`."""

WHOLE = ("labels_used", "images_seen", "train_s", "score_per_s")
"""Those that a page shows as whole numbers."""


class Entry(NamedTuple):
    """One detector of the leaderboard: a score of each object, higher is more anomalous.

    Attributes:
        selection: (S,) scores of the selection objects, from which the threshold is chosen; None if the
            detector learnt from them and brings its own `threshold`.
        test: (T,) scores of the test objects.
        labels_used: number of labels that shaped the score.
        train_s: seconds of training.
        score_per_s: objects scored a second.
        images_seen: images that training looked at, each pass counted.
        threshold: flagged at score >= threshold; by default the highest F1 on selection.
    """

    selection: np.ndarray | None
    test: np.ndarray
    labels_used: int = 0
    train_s: float = float("nan")
    score_per_s: float = float("nan")
    images_seen: float = float("nan")
    threshold: float | None = None


Entries = Mapping[tuple[str, str], Entry]
"""By model and score."""


def _known(table: pd.DataFrame, against: str) -> tuple:
    """Places of the rows whose class is known, which of these are positive, and their `group`, if any."""
    rows, positive = labelled(table.reset_index(drop=True), against)
    return rows.index.to_numpy(), positive, rows.get("group")


def rank_entries(
    entries: Entries,
    selection: pd.DataFrame,
    test: pd.DataFrame,
    *,
    against: str = "label",
    prevalence: float = metrics.PREVALENCE,
    **draws: Any,
) -> pd.DataFrame:
    """The leaderboard: every detector on the same test objects, the highest average precision first.

    Args:
        entries: (model, score) to what the detector says of the selection and of the test objects.
        selection: rows of the selection split in the order of the entries' scores.
        test: rows of the test split, likewise. Those of one `group`, if there is such a column, are resampled
            together.
        against: the column of positives, see `lensq.statistics.guard.labelled`.
        prevalence: share of positives that AP, F1, precision and the thresholds are weighted to.
        **draws: resamples and seed of `lensq.statistics.metrics.measure`.

    Returns:
        The columns of `COLUMNS`, then `<metric>_low` and `<metric>_high` of the other metrics.

    Raises:
        LeakageError: a row of `selection` or of `test` is of another split.
        ValueError: an entry has not one score an object, or neither selection scores nor a threshold.
    """
    require_split(selection, "selection", purpose="the choice of thresholds")
    require_split(test, "test", purpose="the leaderboard")
    chosen, positive, _ = _known(selection, against)
    known, lens, groups = _known(test, against)
    named = {": ".join(key): entry for key, entry in entries.items()}
    own = pd.DataFrame([entry[2:-1] for entry in named.values()], list(named), Entry._fields[2:-1])
    own[["model", "score"]] = list(entries)
    thresholds = {name: entry.threshold for name, entry in named.items()}
    for name, entry in named.items():
        for part, table in (("selection", selection), ("test", test)):
            shape = np.shape(getattr(entry, part))
            if shape not in ((), (len(table),)):
                raise ValueError(f"{name}: scores of shape {shape} for the {len(table)} objects of {part}")
        if entry.selection is not None:
            seen = np.asarray(entry.selection)[chosen]
            own.loc[name, "AP_selection"] = _average_precision(seen, positive, prevalence)
            if entry.threshold is None:
                thresholds[name] = metrics.best_threshold(seen, positive, prevalence=prevalence)
        elif entry.threshold is None:
            raise ValueError(f"{name}: give its scores of the selection objects, or a threshold")
    how = {"thresholds": thresholds, "prevalence": prevalence, "groups": groups, **draws}
    scores = {name: np.asarray(entry.test)[known] for name, entry in named.items()}
    table = metrics.compare(scores, lens, **how).join(own).reset_index(drop=True)
    others = [c for c in table if c.endswith(("_low", "_high")) and c not in COLUMNS]
    return table.reindex(columns=[*COLUMNS, *others])


def objects(survey: Survey, *splits: str) -> pd.DataFrame:
    """The objects of a survey, in its order: what a leaderboard has to know of them.

    Args:
        survey: the survey.
        splits: names of splits; all objects by default.

    Returns:
        name, split, label, graded, group and, where the survey is simulated, is_lens and class.
    """
    rows = survey.rows(*splits) if splits else np.arange(len(survey))
    columns = {"name": survey.names, "split": survey.split, "label": survey.labels}
    columns |= {"graded": survey.graded, "group": survey.group}
    return survey.add_truth(pd.DataFrame({name: values[rows] for name, values in columns.items()}))


def _average_precision(score: np.ndarray, positive: np.ndarray, prevalence: float) -> float:
    return metrics.measure(score, positive, prevalence=prevalence, resamples=1).loc["AP", "value"]


def named_on_selection(
    selection: pd.DataFrame, *, against: str = "label", prevalence: float = metrics.PREVALENCE
) -> str:
    """The column with the highest average precision on selection, of those that no label shaped.

    Args:
        selection: Scores table, rows of the selection split only.
        against: the column of positives.
        prevalence: share of positives.

    Raises:
        LeakageError: a row is of another split.
    """
    require_split(selection, "selection", purpose="the choice of a score")
    rows, positive = labelled(selection, against)
    precision = {name: _average_precision(rows[name], positive, prevalence) for name in label_free(selection)}
    return max(precision, key=precision.get)


def is_variant(name: str) -> bool:
    """Whether a model of the leaderboard is one of the variants, perhaps fine-tuned."""
    return name.split()[0] in MODELS


def named(table: pd.DataFrame) -> pd.DataFrame:
    """One row a detector, in the table's order: of its scores the one that did best on the selection tiles.

    Args:
        table: of `rank_entries`.
    """
    first = table.sort_values("AP_selection", ascending=False, kind="stable").drop_duplicates("model")
    return table.loc[table.index.isin(first.index)]


def leading(table: pd.DataFrame, *, fine_tuned: bool = False) -> tuple[str, str]:
    """The variant without labels, and its score, that did best on the selection tiles.

    Args:
        table: of `rank_entries`.
        fine_tuned: of the variants whose encoder was fine-tuned, in place of the variants as they are.

    Raises:
        ValueError: there is none.
    """
    kind = table["model"].map(is_variant) & (table["model"].isin(list(MODELS)) != fine_tuned)
    free = table[kind & (table["labels_used"] == 0) & table["AP_selection"].notna()]
    if free.empty:
        raise ValueError("no variant here was trained without labels")
    best = free.loc[free["AP_selection"].idxmax()]
    return best["model"], best["score"]


def expected_lenses(
    entries: Entries, test: pd.DataFrame, *, against: str = "label", **options
) -> pd.DataFrame:
    """Where lenses are rare: how many to expect among the first objects of a list of 100,000.

    Args:
        entries: see `rank_entries`, likewise `test` and `against`.
        test: rows of the test split.
        against: the column of positives.
        **options: n, total, prevalence, resamples and seed of `lensq.statistics.metrics.expected_in_list`.

    Returns:
        Index `model`, `score`; the columns of `expected_in_list`.
    """
    require_split(test, "test", purpose="the length of a list")
    known, lens, options["groups"] = _known(test, against)
    scores = {key: np.asarray(entry.test)[known] for key, entry in entries.items()}
    tables = {key: metrics.expected_in_list(score, lens, **options) for key, score in scores.items()}
    return pd.concat(tables, names=["model", "score"]).droplevel(-1)


def lead(
    entries: Entries,
    first: tuple[str, str],
    second: tuple[str, str],
    test: pd.DataFrame,
    *,
    against: str = "label",
    **options,
) -> pd.DataFrame:
    """How far one detector leads another: `lensq.statistics.metrics.paired_difference` on the test objects.

    Args:
        entries: see `rank_entries`, likewise `test` and `against`.
        first: key of the one.
        second: key of the other.
        test: rows of the test split.
        against: the column of positives.
        **options: prevalence, resamples and seed of `lensq.statistics.metrics.paired_difference`.
    """
    require_split(test, "test", purpose="the comparison of two detectors")
    known, lens, groups = _known(test, against)
    pair = [np.asarray(entries[key].test)[known] for key in (first, second)]
    return metrics.paired_difference(*pair, lens, groups=groups, **options)


def with_interval(table: pd.DataFrame, metric: str = "AP") -> list[str]:
    """A metric of each row with its interval, such as "0.343 (0.321 to 0.360)".

    Args:
        table: of `rank_entries`, or of `lensq.statistics.metrics.compare`.
        metric: by default the average precision.
    """
    rows = table[[metric, f"{metric}_low", f"{metric}_high"]].itertuples(index=False)
    return [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in rows]


def in_words(column: str) -> str:
    """A column of metrics as the header of a table, in which "1e-2" is not divided between lines."""
    return column.replace("_fpr_", " at FPR ").replace("_", " ").replace("-", "\N{NON-BREAKING HYPHEN}")


def shown(table: pd.DataFrame) -> Styler:
    """A leaderboard as it is read on a page: AP with its interval in one column, the rest rounded.

    Args:
        table: of `rank_entries`.
    """
    page = table[list(COLUMNS)].drop(columns=["AP_low", "AP_high", "AP_selection"])
    page = page.assign(AP=with_interval(table)).dropna(axis=1, how="all")
    whole = dict.fromkeys(page.columns.intersection(WHOLE), "{:,.0f}")
    form = {name: "{:.3f}" for name in page if name not in ("model", "score", "AP")} | whole
    style = page.style.hide().format(form, na_rep="")
    style.format_index(in_words, axis=1)
    style.set_table_styles([{"selector": "th, td", "props": "padding: 0.3em 0.35em; font-size: 0.75rem"}])
    return style.set_properties(subset=["AP"], **{"white-space": "nowrap"})


def stand_in(by_lenses: pd.DataFrame, by_injected: pd.DataFrame, best: int = 8) -> pd.DataFrame:
    """How true injected lenses stand in for lenses: the best detectors, measured by either.

    Args:
        by_lenses: table of `rank_entries`.
        by_injected: the same for injected lenses, of any order.
        best: how many of the detectors, those of the highest AP by lenses; one score of each.

    Returns:
        One row a detector: `model`, `score`, and `AP` and `recall_fpr_1e-2` by `lenses` and by `injected`.
        In `attrs`: `tau`, Kendall's, of the two orders of these; `lost`, how far the AP by lenses of the
        entry that is the first of all by injected ones is behind the best.
    """
    columns = ["AP", "recall_fpr_1e-2"]
    both = by_lenses.merge(by_injected, on=["model", "score"], suffixes=(" by lenses", " by injected"))
    pairs = [f"{column} by {what}" for column in columns for what in ("lenses", "injected")]
    chosen = both.loc[both["AP by injected"].idxmax(), "AP by lenses"]
    one = both.sort_values("AP by lenses", ascending=False).drop_duplicates("model")
    table = one.head(best)[["model", "score", *pairs]].reset_index(drop=True)
    tau = stats.kendalltau(table[pairs[0]], table[pairs[1]]).statistic
    table.attrs = {"tau": float(tau), "lost": float(both["AP by lenses"].max() - chosen)}
    return table


def side_by_side(tables: Mapping[str, pd.DataFrame]) -> Styler:
    """AP of the same entries on several test surveys with 95% intervals, as it is read on a page.

    Args:
        tables: name of the survey to its table of `rank_entries`; the first one orders the rows.
    """
    first, *_ = tables.values()
    order = pd.MultiIndex.from_frame(first[["model", "score"]])
    rows = {name: table.set_index(["model", "score"]).loc[order] for name, table in tables.items()}
    columns = {name: with_interval(table) for name, table in rows.items()}
    page = pd.DataFrame(columns, index=order).reset_index()
    return page.style.hide().set_properties(subset=list(columns), **{"white-space": "nowrap"})

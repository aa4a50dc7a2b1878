"""What README and the front page say of the results: a few detectors, from the run that measured them.

python -m lensq.study.frontpage README.md _build/results
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from lensq.detection.evaluation import record_of
from lensq.detection.leaderboard import is_variant, named
from lensq.models.variants import MODELS
from lensq.statistics.metrics import PREVALENCE

MARKS = ("<!-- results: make readme writes what follows -->", "<!-- end of results -->")
"""Lines of the README between which `write_readme` puts the results."""


def headlines(table: pd.DataFrame) -> pd.DataFrame:
    """The few rows of a leaderboard for a front page, in its order; none is chosen by what it shows.

    Every variant with something on top of it; the variant as it is, without labels, and the other detector
    without labels that did best on the selection tiles; the other detector that had most labels.

    Args:
        table: columns of `COLUMNS`, sorted.
    """
    table = named(table)
    variant, plain = table["model"].map(is_variant), table["model"].isin(list(MODELS))
    free = table["labels_used"] == 0
    chosen = [table[variant & ~plain], table[~variant & ~free].nlargest(1, "labels_used")]
    chosen += [table[kind & free].nlargest(1, "AP_selection") for kind in (plain, ~variant)]
    return table.loc[table.index.isin(pd.concat(chosen).index)]


def leaders(table: pd.DataFrame) -> pd.DataFrame:
    """The leading detector without labels, with few and with all of them; none is chosen by what it shows.

    Without labels it is the variant, fine-tuned on injected lenses or not, that did best on the selection
    tiles; with labels, what was fine-tuned, with all of them in the mean with the supervised network.

    Args:
        table: columns of `COLUMNS`.

    Returns:
        Rows of `table`, with the column `labels`: "no labels", "100 labels", "all 12,009 labels".
    """
    table = named(table)
    variant, labels = table["model"].map(is_variant), table["labels_used"]
    tuned = table[variant & ~table["model"].isin(list(MODELS)) & (labels > 0)]
    most = tuned["labels_used"].max()
    every = tuned[tuned["labels_used"] == most]
    free = table[variant & (labels == 0)].nlargest(1, "AP_selection")
    rows = pd.concat([free, tuned[tuned["labels_used"] < most], every[every["score"] == "mean log odds"]])
    words = {0: "no labels", most: f"all {most:,} labels"}
    return rows.assign(labels=[words.get(number, f"{number:,} labels") for number in rows["labels_used"]])


def front_table(results: Path | str) -> str:
    """What a searcher gets, in Markdown: lenses among the first objects of a long list where lenses are rare.

    Args:
        results: folder that holds `leaderboard.csv`, `expected.csv` (of `expected_lenses`) and
            `test/record.json`.
    """
    best = leaders(pd.read_csv(Path(results) / "leaderboard.csv"))
    expected = pd.read_csv(Path(results) / "expected.csv").set_index(["model", "score"])
    keys = list(best[["model", "score"]].itertuples(index=False, name=None))
    lines = [f"| lenses are | looked at | {' | '.join(best['labels'])} |", "|---" * (2 + len(keys)) + "|"]
    for (share, n), part in expected.groupby(["prevalence", "n"], sort=False):
        cells = [_lenses(part.loc[key]) for key in keys]
        lines.append(f"| one in {1 / share:,.0f} | first {n:,} | {' | '.join(cells)} |")
    tested = record_of(results)["survey"]
    objects = f"{tested['lenses']:,} lenses and {tested['normals']:,} ordinary objects"
    names = [f"with {row.labels}, {row.model}, {row.score.replace('_', ' ')}" for row in best.itertuples()]
    title = "Lenses to expect among the first objects of a ranked list of 100,000, with 95% intervals:"
    measured = f"Measured on {objects} of a survey that took no part in any choice."
    leading = f"The leading detectors: {'; '.join(names)}."
    return "\n".join([title, "", *lines, "", measured, leading, ""])


def _lenses(row: pd.Series) -> str:
    """An expected number of lenses and its interval, in the digits that it deserves."""
    if np.isnan(row["lenses"]):
        return "too few objects to tell"
    digits = 0 if row["high"] >= 10 else 1
    low, high = (f"{row[end]:.{digits}f}" for end in ("low", "high"))
    return f"{row['lenses']:.{digits}f} ({low} to {high})"


def metrics_table(results: Path | str) -> str:
    """The `headlines` of the leaderboard in six metrics, in Markdown.

    Args:
        results: folder that holds `leaderboard.csv` and `test/record.json`.
    """
    record = record_of(results)
    seed, last = record["survey"]["seed"], record["scored"][-1]
    table = headlines(pd.read_csv(Path(results) / "leaderboard.csv"))
    rows = ["| detector | labels | AP | F1 | precision | recall | recall at FPR 1e-2 |", "|---" * 7 + "|"]
    for _, row in table.iterrows():
        values = row[["F1", "precision", "recall", "recall_fpr_1e-2"]]
        cells = [f"{row['model']}, {row['score'].replace('_', ' ')}", f"{row['labels_used']:,}"]
        cells += [f"{row['AP']:.2f} ({row['AP_low']:.2f} to {row['AP_high']:.2f})"]
        cells += ["" if np.isnan(value) else f"{value:.2f}" for value in values]
        rows.append(f"| {' | '.join(cells)} |")
    made = f"by `make book` on {last['date'][:10]} with {last['cores']} cores"
    sentence = f"The same in six metrics, weighted to {PREVALENCE:.2%} lenses ({made}, test seed {seed});\n"
    return "\n".join([f"{sentence}AP is the average precision, with its 95% interval:\n", *rows]) + "\n"


def write_readme(readme: Path | str, results: Path | str) -> None:
    """Put the results between the README's two marks.

    Args:
        readme: the file.
        results: folder of results.

    Raises:
        ValueError: the marks are not there.
    """
    readme = Path(readme)
    text = readme.read_text()
    if any(text.count(mark) != 1 for mark in MARKS):
        raise ValueError(f"{readme}: needs the lines {MARKS[0]!r} and {MARKS[1]!r}, once each")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    tables = f"{front_table(results)}\n{metrics_table(results)}"
    readme.write_text(f"{before}{MARKS[0]}\n\n{tables}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    write_readme(*sys.argv[1:])

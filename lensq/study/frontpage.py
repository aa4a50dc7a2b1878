"""What the README says of the results: a few rows of the leaderboard, from the run that measured them.

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
    chosen = [
        table[variant & ~plain],
        table[plain & free].nlargest(1, "AP_selection"),
        table[~variant & free].nlargest(1, "AP_selection"),
        table[~variant & ~free].nlargest(1, "labels_used"),
    ]
    return table.loc[table.index.isin(pd.concat(chosen).index)]


def readme_section(results: Path | str) -> str:
    """The results for the front page: a sentence on what was measured where, and the `headlines`.

    Args:
        results: folder that holds `leaderboard.csv` and `test/record.json`.
    """
    record = record_of(results)
    tested, last = record["survey"], record["scored"][-1]
    table = headlines(pd.read_csv(Path(results) / "leaderboard.csv"))
    rows = ["| detector | labels | AP | F1 | precision | recall | recall at FPR 1e-2 |", "|---" * 7 + "|"]
    for _, row in table.iterrows():
        values = row[["F1", "precision", "recall", "recall_fpr_1e-2"]]
        cells = [f"{row['model']}, {row['score'].replace('_', ' ')}", f"{row['labels_used']:,}"]
        cells += [f"{row['AP']:.2f} ({row['AP_low']:.2f} to {row['AP_high']:.2f})"]
        cells += ["" if np.isnan(value) else f"{value:.2f}" for value in values]
        rows.append(f"| {' | '.join(cells)} |")
    where = f"on {last['date'][:10]} with {last['cores']} cores, on {tested['normals']:,} ordinary objects"
    what = f"{tested['lenses']:,} lenses of test seed {tested['seed']}, weighted to {PREVALENCE:.2%} lenses"
    sentence = f"By `make book` {where} and\n{what}; average precision (AP) with its 95% interval.\n"
    return "\n".join([sentence, *rows]) + "\n"


def write_readme(readme: Path | str, results: Path | str) -> None:
    """Put the results between the README's two marks; nothing changes if they are there.

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
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    new = f"{before}{MARKS[0]}\n\n{readme_section(results)}\n{MARKS[1]}{after}"
    if new != text:
        readme.write_text(new)


if __name__ == "__main__":
    write_readme(*sys.argv[1:])

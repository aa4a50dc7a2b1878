"""Scoring past one machine: what the jobs of `scores.smk` do."""

import json
from pathlib import Path

import numpy as np

from lensq.models.training import Model, load_model
from lensq.scores.scoring import score
from lensq.survey.survey import Survey, read_like


def _open(model: Path | str, survey: Path | str) -> tuple[Model, Survey]:
    loaded = load_model(model)
    return loaded, read_like({"size": loaded.vae.config.size, **loaded.settings}, survey, progress=False)


def read_counts(model: Path | str, survey: Path | str, out: Path | str) -> None:
    """Pack a survey at the size that a model takes, and write its number of objects and its fingerprint."""
    _, opened = _open(model, survey)
    counts = {"objects": len(opened), "fingerprint": opened.fingerprint}
    Path(out).write_text(json.dumps(counts))


def score_range(
    model: Path | str, survey: Path | str, counts: Path | str, which: int, ranges: int, out: Path | str, **how
) -> None:
    """Score one of several ranges of rows, nearly equal in length, that hold each row of a survey once.

    Args:
        model: The file that `lensq.fit` wrote.
        survey: Folder of the survey.
        counts: What `read_counts` wrote of it.
        which: Number of the range, from 0.
        ranges: Number of ranges.
        out: Parquet file, there when it is whole.
        **how: Symmetries and precision of `lensq.score`.

    Raises:
        ValueError: The survey has changed since it was read, or has fewer rows than ranges.
    """
    out, known = Path(out), json.loads(Path(counts).read_text())
    loaded, opened = _open(model, survey)
    if known != {"objects": len(opened), "fingerprint": opened.fingerprint}:
        raise ValueError(f"{survey} has changed since it was read: call snakemake again")
    if ranges > len(opened):
        raise ValueError(f"{survey} has {len(opened)} objects, fewer than ranges={ranges}")
    for left in out.parent.glob(f".partial-*-{out.name}"):  # of a worker that was killed
        left.unlink()
    score(loaded, opened, out=out, rows=np.array_split(np.arange(len(opened)), ranges)[which], **how)

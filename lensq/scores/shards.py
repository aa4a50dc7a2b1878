"""Scoring past one machine: surveys in shards, scored by the workers of a Dask cluster, a Parquet part each.

The folder of the result holds `_manifest.json`, which says what each part has to hold, and the parts. A part
is written under another name and renamed when it is whole, so it is there or it is not, however its worker
ended; whoever asks for the same scores again gets the missing ones made, and those of another scoring code.
Reading the folder as one table (`pandas.read_parquet`) gives each object once.

    python -m lensq.scores.shards --model results/model.pt --out scores --scheduler-file scheduler.json
    surveys/*
"""

from __future__ import annotations

import argparse
import json
import os
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from lensq.models.training import Model, load_model
from lensq.scores.scoring import score
from lensq.survey.provenance import code_hash
from lensq.survey.survey import Survey, read_survey

if TYPE_CHECKING:
    from dask.distributed import Client

MANIFEST = "_manifest.json"
"""Readers of Parquet folders pass over names that begin with an underscore."""

_CODE = code_hash("scores.scoring")
"""Of the code that this process has loaded: the files may change under a worker that lives for days."""

_ABANDONED = 24 * 3600
"""Seconds after which an unfinished file is nobody's: a worker adds to its own every few minutes at least."""


@dataclass(frozen=True)
class Shard:
    """Some rows of one survey, and the part that holds their scores.

    Attributes:
        part: name of the file.
        survey: the survey's folder.
        fingerprint: of the survey.
        first, last: its rows, as in `range`.
    """

    part: str
    survey: str
    fingerprint: str
    first: int
    last: int


@dataclass(frozen=True)
class Job:
    """What all shards have in common.

    Attributes:
        model: path of the model.
        fingerprint: of the model.
        symmetries, precision: as in `lensq.score`.
        code: fingerprint of the scoring code.
    """

    model: str
    fingerprint: str
    symmetries: bool
    precision: str
    code: str


def score_shards(
    model: str | Path,
    surveys: Sequence[str | Path],
    out: str | Path,
    *,
    client: Client,
    shard_rows: int = 100_000,
    symmetries: bool = False,
    precision: Literal["fp32", "bf16"] = "fp32",
    progress: bool = True,
) -> Path:
    """Score surveys on the workers of a Dask cluster.

    A survey of 10^8 cutouts is a few hundred folders, each a survey of its own. Workers read the folders into
    packed stores first, if that has not been done, and then score them shard by shard. A worker that is lost
    costs the shard that it was at; another repeats it. Called again after any failure, this goes on from the
    parts that are there, and with nothing missing it returns at once. Parts of another scoring code are made
    again. Two calls may share a folder if they ask for the same scores.

    Args:
        model: The file that `lensq.fit` wrote.
        surveys: Folders as `lensq.read_survey` takes them, on a file system that all workers see.
        out: Folder of the parts, likewise.
        client: `dask.distributed.Client`, connected to the cluster. Give each worker one thread, and a GPU of
            its own where there are any.
        shard_rows: Objects a part at most; what the loss of a worker costs.
        symmetries: As in `lensq.score`.
        precision: As in `lensq.score`.
        progress: Show a progress bar.

    Returns:
        `out`, to be read as one Parquet table.

    Raises:
        ValueError: `out` holds parts of other scores, or a survey is named twice.
        RuntimeError: Shards failed; the message names the first and its error. The others are done.
    """
    if shard_rows < 1:
        raise ValueError(f"shard_rows={shard_rows} must be positive")
    out, model = Path(out).resolve(), Path(model).resolve()
    folders = [str(Path(survey).resolve()) for survey in surveys]
    if len(set(folders)) < len(folders):
        raise ValueError(
            f"surveys: {max(folders, key=folders.count)} is named twice, and would be scored twice"
        )
    job = Job(str(model), load_model(model).fingerprint, symmetries, precision, _CODE)
    out.mkdir(parents=True, exist_ok=True)
    opened = _all_done(
        client,
        {folder: client.submit(_open, job.model, folder, key=_key("open", folder)) for folder in folders},
        "open",
        progress,
    )
    shards = plan_shards({folder: opened[folder] for folder in folders}, shard_rows)
    _keep_manifest(out, job, shards)
    missing = [shard for shard in shards if not is_whole(out / shard.part, job, shard)]
    call = uuid.uuid4().hex
    futures = {
        shard.part: client.submit(_score_shard, job, shard, str(out), call, key=_key("score", shard.part))
        for shard in missing
    }
    _all_done(client, futures, "score", progress)
    _tidy(out, call)
    if lacking := [shard.part for shard in shards if not is_whole(out / shard.part, job, shard)]:
        raise RuntimeError(
            f"{len(lacking)} parts are not as the manifest says ({lacking[0]}): does every worker see {out}?"
        )
    return out


def plan_shards(surveys: dict[str, tuple[int, str]], shard_rows: int) -> list[Shard]:
    """Divide surveys into shards of nearly equal length.

    Args:
        surveys: Number of objects and fingerprint of each, by folder.
        shard_rows: Objects a shard at most.

    Returns:
        Shards that hold each row of each survey once.
    """
    shards = []
    for folder, (objects, fingerprint) in surveys.items():
        bounds = np.linspace(0, objects, -(-objects // shard_rows) + 1).round().astype(int).tolist()
        for first, last in pairwise(bounds):
            shards.append(Shard(f"part-{len(shards):06d}.parquet", folder, fingerprint, first, last))
    return shards


def is_whole(path: Path, job: Job, shard: Shard) -> bool:
    """Whether a part is there and holds the scores of its shard; reads its footer alone."""
    try:
        footer = pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    about = footer.metadata or {}
    told = {
        b"lensq_model": job.fingerprint,
        b"lensq_survey": shard.fingerprint,
        b"lensq_symmetries": str(job.symmetries),
        b"lensq_precision": job.precision,
        b"lensq_code": job.code,
    }
    right = all(about.get(key) == value.encode() for key, value in told.items())
    return right and footer.num_rows == shard.last - shard.first


def _keep_manifest(out: Path, job: Job, shards: list[Shard]) -> None:
    """Write the manifest, or check that the one that is there says the same; the code may be another."""
    path = out / MANIFEST
    wanted = {"job": asdict(job), "shards": [asdict(shard) for shard in shards]}
    if path.is_file():
        held = json.loads(path.read_text())
        if held == wanted:
            return
        held["job"] = held.get("job", {}) | {"code": job.code}
        if changed := [key for key in wanted if held.get(key) != wanted[key]]:
            other = " and ".join(changed)
            raise ValueError(
                f"{path} is of other scores (another {other}): take another folder, or delete it"
            )
    partial = out / f"{MANIFEST}.{uuid.uuid4().hex}.partial"
    partial.write_text(json.dumps(wanted, indent=1))
    os.replace(partial, path)


def _tidy(out: Path, call: str) -> None:
    """Remove what lost workers left: of this call, or a day old. The rest may be being written by others."""
    for rest in out.glob("*.partial"):
        with suppress(FileNotFoundError):
            if call in rest.name or time.time() - rest.stat().st_mtime > _ABANDONED:
                rest.unlink()


def _key(what: str, name: str) -> str:
    """A name for a task of this call alone: Dask would hand out again what it knows under an old one."""
    return f"lensq-{what}-{Path(name).name}-{uuid.uuid4().hex}"


def _all_done(client: Client, futures: dict[str, object], what: str, progress: bool) -> dict[str, object]:
    """Results by name, once all have been tried."""
    from dask.distributed import as_completed

    names = {future.key: name for name, future in futures.items()}
    results, errors = {}, {}
    with tqdm(total=len(names), desc=what, unit=" shards", disable=not progress) as bar:
        for future in as_completed(list(futures.values())):
            name = names[future.key]
            if future.status == "finished":
                results[name] = future.result()
            else:
                errors[name] = future.exception()
            bar.update()
    if errors:
        name, error = next(iter(errors.items()))
        raise RuntimeError(
            f"{len(errors)} of {len(names)} failed to {what}, {name} with {type(error).__name__}: {error}; "
            "call again when that is mended: what is done stays done"
        ) from error
    return results


@lru_cache(maxsize=1)
def _model(path: str) -> Model:
    return load_model(path)


@lru_cache(maxsize=1)
def _survey(folder: str, size: int, resize: bool) -> Survey:
    return read_survey(folder, size=size, resize=resize, progress=False)


def _for_model(model: Model, folder: str) -> Survey:
    return _survey(folder, model.vae.config.size, model.settings.get("resized", False))


def _open(model: str, folder: str) -> tuple[int, str]:
    """On a worker: bring a survey's packed store up to date; its number of objects and fingerprint."""
    _forget()
    survey = _for_model(_model(model), folder)
    return len(survey), survey.fingerprint


def _forget() -> None:
    _model.cache_clear()
    _survey.cache_clear()


def _of_manifest(job: Job, shard: Shard) -> tuple[Model, Survey]:
    """Model and survey as the manifest names them; read again where this worker keeps older ones."""
    for _ in ("kept", "read again"):
        model = _model(job.model)
        survey = _for_model(model, shard.survey)
        if (model.fingerprint, survey.fingerprint) == (job.fingerprint, shard.fingerprint):
            return model, survey
        _forget()
    raise ValueError(f"{job.model} or {shard.survey} has changed since the manifest was written")


def _score_shard(job: Job, shard: Shard, out: str, call: str) -> None:
    """On a worker: write one part."""
    path = Path(out) / shard.part
    if is_whole(path, job, shard):
        return  # another worker did it, and was lost before it could say so
    if {_CODE, code_hash("scores.scoring")} != {job.code}:
        raise ValueError(
            "this worker has another scoring code than the caller, or its files have changed since it "
            "started: start caller and workers anew, with the same lensq"
        )
    model, survey = _of_manifest(job, shard)
    unfinished = path.with_name(f"_{shard.part}.{call}.partial")  # the underscore hides it from readers
    score(
        model,
        survey,
        out=unfinished,
        rows=np.arange(shard.first, shard.last),
        symmetries=job.symmetries,
        precision=job.precision,
        progress=False,
    )
    os.replace(unfinished, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: `python -m lensq.scores.shards --help`."""
    parser = argparse.ArgumentParser(
        prog="python -m lensq.scores.shards", description=score_shards.__doc__.split("\n")[0]
    )
    parser.add_argument("surveys", nargs="+", help="folders of surveys")
    parser.add_argument("--model", required=True, help="model.pt")
    parser.add_argument("--out", required=True, help="folder of the parts")
    parser.add_argument(
        "--scheduler-file", help="of a running Dask scheduler; without it, processes of this machine"
    )
    parser.add_argument("--workers", type=int, default=None, help="processes, where they are of this machine")
    parser.add_argument("--shard-rows", type=int, default=100_000)
    parser.add_argument("--symmetries", action="store_true")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    given = parser.parse_args(arguments)
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise SystemExit("Dask is missing: pip install 'lensq[cluster]'") from error
    if given.scheduler_file:
        client = Client(scheduler_file=given.scheduler_file)
    else:
        client = Client(LocalCluster(given.workers, threads_per_worker=1, dashboard_address=":0"))
    with client:
        out = score_shards(
            given.model,
            given.surveys,
            given.out,
            client=client,
            shard_rows=given.shard_rows,
            symmetries=given.symmetries,
            precision=given.precision,
        )
    print(f"The scores: {out}, {pa.dataset.dataset(out).count_rows()} objects")


if __name__ == "__main__":
    main()

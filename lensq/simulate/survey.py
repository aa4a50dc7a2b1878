"""Write a simulated survey: shards in parallel, resumable, the same for any number of workers."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from lensq.simulate.cutout import Target, make_cutout
from lensq.simulate.fits import write_fits
from lensq.simulate.parameters import MIXES
from lensq.simulate.sky import Plan, make_plan
from lensq.simulate.truth import SCHEMA, truth_table
from lensq.survey.provenance import code_hash

_SHARD = 256
_LABELS = ("inspector", "truth")
_CONTROLS = (None, "flux")


def simulate_survey(
    folder: str | Path,
    n: int,
    *,
    seed: int,
    mix: str = "catalogue",
    anomaly_rate: float = 0.05,
    workers: int | None = None,
    labels: str = "inspector",
    size: int | Sequence[int] = 64,
    control: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write a simulated survey of `n` objects in the layout of the HSC set.

    `folder` then holds `candidates_list_raw.txt`, `candidates_list_selected.txt`,
    `candidates_list_graded.txt`, `fits_data/<name>_HSC-I_img.fits` and `truth.parquet`. Object number i
    depends on the seed and on i only: not on `workers`, not on `n`. So an interrupted call continues where
    it was, a finished one returns at once, and one with a larger `n` adds what is missing.

    Args:
        folder: Where to write; made if absent.
        n: Number of objects, lenses included.
        seed: Any integer from 0.
        mix: Shares of the ordinary classes, a key of `MIXES`.
        anomaly_rate: Share of lensed quasars, 0 to 1; met to within one object.
        workers: Processes; None for one a core.
        labels: What `candidates_list_selected.txt` holds: "inspector" for the objects flagged by eye,
            "truth" for the lenses.
        size: Side of the cutouts in pixels, or several, of which one is drawn for each object.
        control: "flux" for the flux-matched control, in which ordinary objects have as much light within
            5 pixels as lensed systems; None for the magnitudes of a survey.
        overwrite: Replace a simulated survey made with other settings or other code, rather than refuse;
            a folder that the simulator did not make is never touched.
        progress: Show a progress bar.

    Returns:
        The folder.

    Raises:
        ValueError: An argument is out of range, or the folder holds something else.
    """
    settings = {
        "n": n,
        "seed": seed,
        "mix": mix,
        "anomaly_rate": anomaly_rate,
        "labels": labels,
        "size": [size] if np.ndim(size) == 0 else list(size),
        "control": control,
        "code": code_hash("simulate.survey"),
    }
    _check(**settings)
    if workers is not None and workers < 1:
        raise ValueError(f"workers = {workers}: give at least one, or None for one a core")
    settings.update(
        n=int(n), seed=int(seed), anomaly_rate=float(anomaly_rate), size=[int(s) for s in settings["size"]]
    )
    folder = Path(folder)
    shards = _open(folder, settings, overwrite)
    if shards is None:
        return folder
    plan = make_plan(n, seed, mix, anomaly_rate)
    todo = [start for start in range(0, n, _SHARD) if not _shard_file(shards, start).is_file()]
    done = n - sum(min(start + _SHARD, n) - start for start in todo)
    jobs = [(start, plan[start : start + _SHARD], folder, settings) for start in todo]
    with tqdm(total=n, initial=done, unit="cutout", disable=not progress) as bar:
        for made in _run(jobs, workers):
            bar.update(made)
    _finish(folder, shards, settings)
    return folder


def _check(n, seed, mix, anomaly_rate, labels, size, control, code) -> None:
    if not _is_whole(n) or n < 1:
        raise ValueError(f"n = {n}: a survey needs a whole number of objects, at least one")
    if not _is_whole(seed) or seed < 0:
        raise ValueError(f"seed = {seed}: give a whole number from 0")
    if mix not in MIXES:
        raise ValueError(f"mix = {mix!r}: choose one of {', '.join(MIXES)}")
    if not 0 <= anomaly_rate <= 1:
        raise ValueError(f"anomaly_rate = {anomaly_rate}: give a share between 0 and 1")
    if labels not in _LABELS:
        raise ValueError(f"labels = {labels!r}: choose one of {', '.join(_LABELS)}")
    if control not in _CONTROLS:
        raise ValueError(f"control = {control!r}: choose 'flux' or None")
    if not size or not all(_is_whole(side) and 16 <= side <= 512 for side in size):
        raise ValueError(f"size = {size}: cutouts have 16 to 512 pixels a side")


def _is_whole(value) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _open(folder: Path, settings: dict, overwrite: bool) -> Path | None:
    """Prepare the folder and give that of the shards; None where the survey is there already."""
    record, shards = folder / "simulation.json", folder / ".shards"
    if record.is_file():
        found = json.loads(record.read_text())
        same = {**found, "n": 0} == {**settings, "n": 0} and found["n"] <= settings["n"]
        if not same and overwrite:
            _clear(folder)
        elif not same:
            differs = ", ".join(
                f"{key} = {found.get(key)}" for key in settings if found.get(key) != settings[key]
            )
            raise ValueError(
                f"{folder} holds a simulated survey with {differs}: choose another folder, or set overwrite"
            )
        elif found["n"] == settings["n"] and (folder / "truth.parquet").is_file():
            return None
        elif found["n"] < settings["n"]:
            _reopen(folder, shards, found["n"])
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no simulated survey: choose another folder")
    (folder / "fits_data").mkdir(parents=True, exist_ok=True)
    shards.mkdir(exist_ok=True)
    partial = folder / ".simulation.part"
    partial.write_text(json.dumps(settings, indent=1) + "\n")
    os.replace(partial, record)
    return shards


def _clear(folder: Path) -> None:
    """Delete what the simulator and the packing wrote; labels given by eye, or results, are not theirs."""
    (folder / "simulation.json").unlink()
    for name in ("fits_data", ".shards", "packed"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in (folder / "truth.parquet", *folder.glob("candidates_list_*.txt")):
        path.unlink(missing_ok=True)


def _reopen(folder: Path, shards: Path, n: int) -> None:
    """Turn a survey of `n` objects back into shards, so that it can grow; the last incomplete one goes."""
    shards.mkdir(exist_ok=True)
    whole = n - n % _SHARD
    truth = folder / "truth.parquet"
    if truth.is_file():
        table = pq.read_table(truth, schema=SCHEMA)
        for start in range(0, whole, _SHARD):
            _write_shard(table.slice(start, _SHARD), _shard_file(shards, start))
        truth.unlink()
    _shard_file(shards, whole).unlink(missing_ok=True)


def _shard_file(shards: Path, start: int) -> Path:
    return shards / f"{start:09d}.parquet"


def _write_shard(table: pa.Table, path: Path) -> None:
    partial = path.with_suffix(".part")
    pq.write_table(table, partial)
    os.replace(partial, path)


def _run(jobs: list[tuple], workers: int | None) -> Iterator[int]:
    """Make the shards, yielding the number of objects of each as it is done."""
    workers = min(workers or _cores(), len(jobs))
    if workers <= 1:
        yield from map(_make_shard, jobs)
        return
    context = get_context("fork" if "fork" in get_all_start_methods() else None)
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_end_with_parent, initargs=(os.getpid(),)
    ) as pool:
        futures = [pool.submit(_make_shard, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent(parent: int) -> None:
    """Let a worker end when its parent is killed; it would wait for work forever otherwise."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _make_shard(job: tuple[int, Plan, Path, dict]) -> int:
    start, plan, folder, settings = job
    how = {"seed": settings["seed"], "size": tuple(settings["size"]), "control": settings["control"]}
    rows = []
    for i, name in enumerate(plan.names):
        shift = (int(plan.shift_x[i]), int(plan.shift_y[i]))
        target = Target(str(plan.classes[i]), start + i, shift, bool(plan.parent[i] >= 0))
        made = make_cutout(target, **how)
        write_fits(folder / "fits_data" / f"{name}_HSC-I_img.fits", made.image, plan.ra[i], plan.dec[i])
        rows.append({**made.truth, "name": str(name), "ra": float(plan.ra[i]), "dec": float(plan.dec[i])})
    _write_shard(truth_table(rows), _shard_file(folder / ".shards", start))
    return len(rows)


def _finish(folder: Path, shards: Path, settings: dict) -> None:
    """Join the shards into the truth table and write the lists; the truth table comes last."""
    chosen = "flagged" if settings["labels"] == "inspector" else "is_lens"
    lists = {"raw": None, "selected": chosen, "graded": "graded"}
    partial = {key: folder / f".candidates_list_{key}.part" for key in lists}
    open_lists = {key: path.open("w") for key, path in partial.items()}
    try:
        with pq.ParquetWriter(folder / ".truth.part", SCHEMA) as writer:
            for path in sorted(shards.glob("*.parquet")):
                table = pq.read_table(path, schema=SCHEMA)
                writer.write_table(table)
                names = table["name"].to_pylist()
                for key, column in lists.items():
                    keep = table[column].to_pylist() if column else [True] * len(names)
                    open_lists[key].writelines(
                        f"{name}\n" for name, kept in zip(names, keep, strict=True) if kept
                    )
    finally:
        for handle in open_lists.values():
            handle.close()
    for key, path in partial.items():
        os.replace(path, folder / f"candidates_list_{key}.txt")
    os.replace(folder / ".truth.part", folder / "truth.parquet")
    shutil.rmtree(shards)

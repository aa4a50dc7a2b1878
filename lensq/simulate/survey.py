"""Write a simulated survey: shards in parallel, resumable, the same for any number of workers."""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import pyarrow.parquet as pq
from tqdm.auto import tqdm

from lensq.provenance import code_fingerprint
from lensq.simulate.cutout import make_cutout
from lensq.simulate.fits import write_fits
from lensq.simulate.scenes import MIXES
from lensq.simulate.sky import Plan, make_plan
from lensq.simulate.truth import SCHEMA, write_truth

_SHARD = 256
_LABELS = ("inspector", "truth")


def simulate_survey(
    folder: str | Path,
    n: int,
    *,
    seed: int,
    mix: str = "catalogue",
    anomaly_rate: float = 0.05,
    workers: int | None = None,
    labels: str = "inspector",
    size: int = 64,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write a simulated survey of `n` objects in the layout of the HSC set.

    `folder` then holds `candidates_list_raw.txt`, `candidates_list_selected.txt`,
    `candidates_list_graded.txt`, `fits_data/<name>_HSC-I_img.fits` and `truth.parquet`. Object number i
    depends on the seed and on i only: not on `workers`, not on `n`. An interrupted call continues where it
    was, a finished one returns at once.

    Args:
        folder: Where to write; made if absent.
        n: Number of objects, lenses included.
        seed: Any integer from 0.
        mix: Shares of the ordinary classes, a key of `MIXES`.
        anomaly_rate: Share of lensed quasars, 0 to 1.
        workers: Processes; None for one a core.
        labels: What `candidates_list_selected.txt` holds: "inspector" for the objects flagged by eye,
            "truth" for the lenses.
        size: Side of the cutouts in pixels.
        overwrite: Replace a simulated survey made with other settings or other code, rather than refuse;
            a folder that the simulator did not make is never touched.
        progress: Show a progress bar.

    Returns:
        The folder.

    Raises:
        ValueError: An argument is out of range, or the folder holds another survey.
    """
    _check(n, seed, mix, anomaly_rate, workers, labels, size)
    folder = Path(folder)
    settings = {
        "n": int(n),
        "seed": int(seed),
        "mix": mix,
        "anomaly_rate": float(anomaly_rate),
        "labels": labels,
        "size": int(size),
        "code": code_fingerprint("simulate"),
    }
    if overwrite:
        _clear(folder, settings)
    if _finished(folder, settings):
        return folder
    shards = _open(folder, settings)
    plan = make_plan(n, seed, mix, anomaly_rate)
    todo = [start for start in range(0, n, _SHARD) if not (shards / f"{start:09d}.parquet").is_file()]
    with tqdm(total=n, initial=n - _objects(todo, n), unit="cutout", disable=not progress) as bar:
        for made in _run([_shard(plan, start, folder, settings) for start in todo], workers):
            bar.update(made)
    _finish(folder, shards, settings)
    return folder


def _check(n, seed, mix, anomaly_rate, workers, labels, size) -> None:
    if n < 1:
        raise ValueError(f"n = {n}: a survey needs at least one object")
    if seed < 0:
        raise ValueError(f"seed = {seed}: give an integer from 0")
    if mix not in MIXES:
        raise ValueError(f"mix = {mix!r}: choose one of {', '.join(MIXES)}")
    if not 0 <= anomaly_rate <= 1:
        raise ValueError(f"anomaly_rate = {anomaly_rate}: give a share between 0 and 1")
    if workers is not None and workers < 1:
        raise ValueError(f"workers = {workers}: give at least one, or None for one a core")
    if labels not in _LABELS:
        raise ValueError(f"labels = {labels!r}: choose one of {', '.join(_LABELS)}")
    if not 16 <= size <= 512:
        raise ValueError(f"size = {size}: cutouts have 16 to 512 pixels a side")


def _clear(folder: Path, settings: dict) -> None:
    """Remove a simulated survey made with other settings."""
    record = folder / "simulation.json"
    if record.is_file() and json.loads(record.read_text()) != settings:
        shutil.rmtree(folder)


def _finished(folder: Path, settings: dict) -> bool:
    record = folder / "simulation.json"
    if not record.is_file():
        return False
    if json.loads(record.read_text()) != settings:
        raise ValueError(
            f"{folder} holds a survey made with other settings ({record}): choose another folder, or overwrite it"
        )
    return (folder / "truth.parquet").is_file()


def _open(folder: Path, settings: dict) -> Path:
    shards = folder / ".shards"
    if not (folder / "simulation.json").is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty and holds no simulated survey: choose another folder")
        (folder / "fits_data").mkdir(parents=True, exist_ok=True)
        _replace(folder / "simulation.json", json.dumps(settings, indent=1) + "\n")
    (folder / "fits_data").mkdir(exist_ok=True)
    shards.mkdir(exist_ok=True)
    return shards


def _objects(starts: list[int], n: int) -> int:
    return sum(min(start + _SHARD, n) - start for start in starts)


def _shard(plan: Plan, start: int, folder: Path, settings: dict) -> tuple:
    part = slice(start, start + _SHARD)
    return (
        start, plan.names[part], plan.ra[part], plan.dec[part], plan.classes[part], plan.parent[part],
        folder, settings,
    )  # fmt: skip


def _run(jobs: list[tuple], workers: int | None) -> Iterator[int]:
    """Make the shards, yielding the number of objects of each as it is done."""
    workers = min(workers or len(os.sched_getaffinity(0)), len(jobs))
    if workers <= 1:
        yield from map(_make_shard, jobs)
        return
    context = get_context("fork" if "fork" in get_all_start_methods() else None)
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(_make_shard, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _make_shard(job: tuple) -> int:
    start, names, ra, dec, classes, parent, folder, settings = job
    rows = []
    for i, name in enumerate(names):
        made = make_cutout(classes[i], seed=settings["seed"], index=start + i, size=settings["size"])
        write_fits(folder / "fits_data" / f"{name}_HSC-I_img.fits", made.image, ra[i], dec[i])
        place = {"name": str(name), "ra": float(ra[i]), "dec": float(dec[i]), "parent": int(parent[i])}
        rows.append({**made.truth, **place})
    path = folder / ".shards" / f"{start:09d}.parquet"
    write_truth(rows, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)
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


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text)
    os.replace(partial, path)

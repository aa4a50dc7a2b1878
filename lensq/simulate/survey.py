"""Write a simulated survey: shards in parallel, resumable, the same for any number of workers."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from lensq.simulate.cutout import Target, make_cutout
from lensq.simulate.fits import write_fits
from lensq.simulate.parameters import MIXES
from lensq.simulate.sky import make_plan
from lensq.simulate.spectra import BANDS
from lensq.simulate.truth import schema
from lensq.survey.files import atomic
from lensq.survey.processes import process_pool
from lensq.survey.provenance import code_hash

_SHARD = 256


@dataclass(frozen=True)
class Content:
    """What a simulated survey holds; see `simulate_survey`.

    Raises:
        ValueError: A value is out of range.
    """

    n: int
    seed: int
    mix: str = "catalogue"
    anomaly_rate: float = 0.05
    labels: str = "labeller"
    size: int | Sequence[int] = 64
    control: str | None = None
    bands: str = "i"
    colour_scatter: float = 1.0

    def __post_init__(self) -> None:
        if not _is_whole(self.n) or self.n < 1:
            raise ValueError(f"n = {self.n}: a survey needs a whole number of objects, at least one")
        if not _is_whole(self.seed) or self.seed < 0:
            raise ValueError(f"seed = {self.seed}: give a whole number from 0")
        for name, choices in (("mix", MIXES), ("labels", ("labeller", "truth")), ("control", (None, "flux"))):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} = {value!r}: choose one of {', '.join(map(str, choices))}")
        if not 0 <= self.anomaly_rate <= 1:
            raise ValueError(f"anomaly_rate = {self.anomaly_rate}: give a share between 0 and 1")
        sizes = [self.size] if np.ndim(self.size) == 0 else list(self.size)
        if not sizes or not all(_is_whole(side) and 16 <= side <= 512 for side in sizes):
            raise ValueError(f"size = {self.size}: cutouts have 16 to 512 pixels a side")
        if not self.bands or set(self.bands) - set(BANDS) or len(set(self.bands)) < len(self.bands):
            raise ValueError(f"bands = {self.bands!r}: give some of {BANDS}, each once")
        if not 0 <= self.colour_scatter < np.inf:
            raise ValueError(f"colour_scatter = {self.colour_scatter}: give a factor from 0")

    def record(self) -> dict:
        """The content as it is written beside the survey, with the state of code and parameters."""
        tables = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.csv")))
        plain: dict = {"n": int(self.n), "seed": int(self.seed), "anomaly_rate": float(self.anomaly_rate)}
        plain["size"] = np.atleast_1d(self.size).tolist()
        plain["bands"] = "".join(sorted(self.bands, key=BANDS.index))
        made_by = {"code": code_hash("simulate.survey"), "tables": hashlib.sha256(tables).hexdigest()[:16]}
        return asdict(self) | plain | made_by


def _is_whole(value) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def simulate_survey(
    folder: str | Path,
    n: int,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **content,
) -> Path:
    """Write a simulated survey of `n` objects in the layout of the HSC set.

    `folder` then holds `candidates_list_raw.txt`, `candidates_list_selected.txt`,
    `candidates_list_graded.txt`, `fits_data/<name>_HSC-I_img.fits` (and -G, -R, -Z, -Y) and
    `truth.parquet`. Object number i depends on the seed and on i only: not on `workers`, not on `n`. So an
    interrupted call continues where it was, a finished one returns at once, and one with a larger `n` adds
    what is missing.

    Args:
        folder: Where to write; made if absent.
        n: Number of objects, lenses included.
        workers: Processes; None for one a core.
        overwrite: Replace a simulated survey made with other settings or other code, rather than refuse;
            a folder that the simulator did not make is never touched.
        progress: Show a progress bar.
        **content: `seed`, any integer from 0, has to be given. `mix` ("catalogue"): shares of the ordinary
            classes, a key of `MIXES`. `anomaly_rate` (0.05): share of lensed quasars, 0 to 1, met to within
            one object. `labels`: what `candidates_list_selected.txt` holds, "labeller" for the objects that
            a simulated labeller flags by eye, "truth" for the lenses. `size` (64): side of the cutouts in
            pixels, or several, of which one is drawn for each object. `control`: "flux" for the
            flux-matched control, in which ordinary objects have as much light within 5 pixels as lensed
            systems; None for the magnitudes of a survey. `bands` ("i"): which of g, r, i, z, y, such as
            "gri"; a band has the same pixels whatever the others are. `colour_scatter` (1): factor on the
            dust and the microlensing that make the colours of a lens's images differ, 0 for none.

    Returns:
        The folder.

    Raises:
        ValueError: An argument is out of range, or the folder holds something else.
    """
    settings = Content(n, **content).record()
    if workers is not None and workers < 1:
        raise ValueError(f"workers = {workers}: give at least one, or None for one a core")
    folder, n = Path(folder), settings["n"]
    finished = _open(folder, settings, overwrite)
    if finished == n:
        return folder
    for name in ("fits_data", ".shards"):
        (folder / name).mkdir(exist_ok=True)
    plan = make_plan(n, *(settings[name] for name in ("seed", "mix", "anomaly_rate")))
    shards = {start: _shard(folder, start, n) for start in range(0, n, _SHARD)}
    kept = finished - finished % _SHARD
    todo = [start for start, shard in shards.items() if start >= kept and not shard.is_file()]
    jobs = [(plan[start : start + _SHARD], folder, settings, shards[start]) for start in todo]
    done = n - sum(len(part) for part, *_ in jobs)
    with tqdm(total=n, initial=done, unit="cutout", disable=not progress) as bar:
        for made in _run(jobs, workers):
            bar.update(made)
    _finish(folder, settings, shards)
    return folder


def _open(folder: Path, settings: dict, overwrite: bool) -> int:
    """Prepare the folder, and tell how many objects of the survey it holds, finished with their truth."""
    record = folder / "simulation.json"
    if record.is_file():
        found = json.loads(record.read_text())
        if {**found, "n": 0} == {**settings, "n": 0} and found["n"] <= settings["n"]:
            return found["n"] if (folder / "truth.parquet").is_file() else 0
        if not overwrite:
            differs = ", ".join(f"{k} = {found.get(k)}" for k in settings if found.get(k) != settings[k])
            raise ValueError(
                f"{folder} holds a simulated survey with {differs}: choose another folder, or set overwrite"
            )
        _clear(folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no simulated survey: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    _write_record(folder, settings)
    return 0


def _clear(folder: Path) -> None:
    """Delete what the simulator and the packing wrote; labels given by eye, or results, are not theirs."""
    (folder / "simulation.json").unlink()
    for name in ("fits_data", ".shards", "packed"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in (folder / "truth.parquet", *folder.glob("candidates_list_*.txt")):
        path.unlink(missing_ok=True)


def _write_record(folder: Path, settings: dict) -> None:
    with atomic(folder / "simulation.json") as partial:
        partial.write_text(json.dumps(settings, indent=1) + "\n")


def _shard(folder: Path, start: int, n: int) -> Path:
    """File with the truth of some objects; of a survey that grows, the last has another name than it had."""
    return folder / ".shards" / f"{start:09d}-{min(start + _SHARD, n):09d}.parquet"


def _run(jobs: list[tuple], workers: int | None) -> Iterator[int]:
    """Make the shards, yielding the number of objects of each as it is done."""
    workers = min(workers or joblib.cpu_count(), len(jobs))
    if workers <= 1:
        yield from map(_make_shard, jobs)
        return
    with process_pool(workers) as pool:
        yield from pool.map(_make_shard, jobs).result()


def _make_shard(job: tuple[pd.DataFrame, Path, dict, Path]) -> int:
    plan, folder, settings, shard = job
    how = {key: settings[key] for key in ("seed", "control", "bands", "colour_scatter")}
    rows = []
    for place in plan.itertuples():
        shift = (place.shift_x, place.shift_y)
        target = Target(place.class_name, place.Index, shift, second=place.parent >= 0)
        made = make_cutout(target, size=tuple(settings["size"]), **how)
        planes = made.image.reshape(-1, *made.image.shape[-2:])
        for band, image in zip(settings["bands"], planes, strict=True):
            file = folder / "fits_data" / f"{place.name}_HSC-{band.upper()}_img.fits"
            write_fits(file, image, place.ra, place.dec, band)
        rows.append({**made.truth, "name": place.name, "ra": place.ra, "dec": place.dec})
    with atomic(shard) as partial:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema(settings["bands"])), partial)
    return len(rows)


def _finish(folder: Path, settings: dict, shards: dict[int, Path]) -> None:
    """Join the shards, and what was finished before, into the truth table; write the lists and the record.

    The truth table comes after the lists, so that it tells of a whole survey, and the record after it.
    """
    flags = {"selected": "flagged" if settings["labels"] == "labeller" else "is_lens", "graded": "graded"}
    columns, truth = schema(settings["bands"]), folder / "truth.parquet"
    before = pq.read_table(truth, schema=columns) if truth.is_file() else columns.empty_table()
    with atomic(truth) as partial:
        with pq.ParquetWriter(partial, columns) as writer:
            for start, file in shards.items():
                made = pq.read_table(file, schema=columns) if file.is_file() else before.slice(start, _SHARD)
                writer.write_table(made)
        table = pd.read_parquet(partial, columns=["name", *flags.values()])
        names = {"raw": table["name"]} | {key: table.loc[table[flag], "name"] for key, flag in flags.items()}
        for key, listed in names.items():
            with atomic(folder / f"candidates_list_{key}.txt") as listing:
                listed.to_csv(listing, header=False, index=False, lineterminator="\n")
    _write_record(folder, settings)
    shutil.rmtree(folder / ".shards")

"""The packed store: a survey's usable images in two arrays on disk, memory-mapped when opened.

A store folder holds `images-<key>.npy` (N, size, size) float32, `masks-<key>.npy` (N, size, size) bool and
`index.parquet`, one row a file with its size and time of last change, its reason if it is in quarantine,
its position and its group. The index names the arrays that belong to it and is renamed into place last:
it alone decides what the store holds, and whoever has older arrays open keeps them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.coordinates import SkyCoord

from lensq.survey.ingest import RECORD, Task, read_files
from lensq.survey.split import coordinates_from_names, friends_of_friends

FORMAT = 4
"""Raised whenever the same files would be packed differently."""

KEY = ["file", "bytes", "time"]
"""What tells whether a file is the one that was packed."""

_PIECE = 2**26  # bytes that are copied at a time


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        index: one row a file, sorted by name: name, file, bytes, time (ns), reason and detail ("" when
            usable), ra, dec (degrees), side (pixels, of the image in the file), digest of the packed image,
            group (-1 in quarantine).
        images: (N, size, size) float32 of the usable files, in the order of the index.
        mask: (N, size, size) bool.
        fingerprint: sha256 of names and packed images, in hexadecimal digits.
        paths: of the images and of the masks.
    """

    index: pd.DataFrame
    images: np.ndarray
    mask: np.ndarray
    fingerprint: str
    paths: tuple[Path, Path]


def open_store(
    store: Path,
    folder: Path,
    files: pd.DataFrame,
    *,
    size: int,
    resize: bool,
    workers: int | None = None,
    progress: bool = True,
) -> Store:
    """Open the store of some files, reading first those that it does not hold as they are now.

    Args:
        store: its folder, made if needed.
        folder: where the files are.
        files: name, file, bytes, time (ns) of each file to pack, sorted by name, names distinct.
        size, resize: as in `lensq.survey.images.fit_to_size`.
        workers, progress: as in `lensq.survey.ingest.read_files`.

    Raises:
        PermissionError: the store has to be written and cannot be.
        OSError: the disk is too small.
    """
    settings = {"format": FORMAT, "size": size, "resize": resize}
    opened = _open(store, settings, folder, files)
    if opened:
        return opened
    with _writable(store), _locked(store):
        opened = _open(store, settings, folder, files)  # another process may have packed it meanwhile
        if opened is None:
            _pack(store, settings, folder, files, workers, progress)
            opened = _opened(store, settings)
    if opened is None:
        raise OSError(f"{store} cannot be read back: delete it and read the survey again")
    return opened


def _open(store: Path, settings: dict, folder: Path, files: pd.DataFrame) -> Store | None:
    """The store as it is, if it holds just these files."""
    opened = _opened(store, settings)
    if opened is None or len(opened.index) != len(files):
        return None
    if any((opened.index[key].to_numpy() != files[key].to_numpy()).any() for key in ("name", *KEY)):
        return None
    return None if _readable_again(opened.index, folder).any() else opened


def _opened(store: Path, settings: dict) -> Store | None:
    """The store as it is, if it is whole and made with these settings."""
    try:
        table = pq.read_table(store / "index.parquet", use_threads=False)
        description = json.loads(table.schema.metadata[b"lensq"])
        index = table.to_pandas()
        shape = (int((index["reason"] == "").sum()), settings["size"], settings["size"])
        paths = _arrays(store, description["key"])
        if not shape[0]:
            images, mask = np.empty(shape, np.float32), np.empty(shape, bool)
        else:
            images, mask = (np.load(path, mmap_mode="r") for path in paths)
    except (OSError, ValueError, KeyError, pa.ArrowException):  # none, or not as it was written
        return None
    if not settings.items() <= description.items() or not images.shape == mask.shape == shape:
        return None
    return Store(index, images, mask, description["fingerprint"], paths)


def _arrays(store: Path, key: str) -> tuple[Path, Path]:
    return store / f"images-{key}.npy", store / f"masks-{key}.npy"


def _readable_again(index: pd.DataFrame, folder: Path) -> np.ndarray:
    """(N,) bool: files whose permissions were in the way and no longer are, which no time stamp tells."""
    again = ((index["reason"] == "unreadable") & index["detail"].str.startswith("Permission")).to_numpy(
        copy=True
    )
    again[again] = [_can_be_opened(folder / file) for file in index["file"].to_numpy()[again]]
    return again


def _can_be_opened(path: Path) -> bool:
    try:
        path.open("rb").close()
        return True
    except OSError:
        return False


@contextmanager
def _writable(store: Path) -> Iterator[None]:
    try:
        store.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        remedy = "give read_survey another folder for them, store=..."
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            text = f"the packed images cannot be written to {store} ({error.strerror}): {remedy}"
            raise PermissionError(text) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = f"no room for the packed images in {store} ({error.strerror}): make some, or {remedy}"
            raise OSError(error.errno, text) from error
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            text = f"the file system of {store} knows no locks ({error.strerror}): {remedy}"
            raise OSError(error.errno, text) from error
        raise


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Let one process at a time write the store. The system drops the lock of a process that dies."""
    with open(store / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            logging.getLogger(__name__).warning("%s is being packed by %s: waiting", store, file.read())
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _pack(
    store: Path, settings: dict, folder: Path, files: pd.DataFrame, workers: int | None, progress: bool
) -> None:
    """Bring the store up to date with the files."""
    runs = store / f"partial-{FORMAT}"
    runs.mkdir(exist_ok=True)
    known, _ = _known(store, settings, runs)
    missing = files.merge(known[~_readable_again(known, folder)][KEY], how="left", indicator=True)
    missing = missing[missing["_merge"] == "left_only"]
    _check_room(store, (len(missing) + len(files)) * 5 * settings["size"] ** 2)
    named = coordinates_from_names(files["name"].to_list())
    wanted = np.isnan(named.ra.deg)[missing.index].tolist()
    todo = list(zip(*(missing[key].to_list() for key in KEY), wanted, strict=True))
    if todo:
        run = runs / uuid.uuid4().hex[:12]
        read_files(Task(folder, todo, settings["size"], settings["resize"], run), workers, progress)

    known, sources = _known(store, settings, runs)
    packed = files.merge(known, how="left", on=KEY)
    key = uuid.uuid4().hex[:12]
    for part, path in enumerate(_arrays(store, key)):
        _gather(packed, [source[part] for source in sources], path)
    _write_index(store, packed, named, settings, key)
    for stale in set(store.glob("*.npy")) - set(_arrays(store, key)):
        stale.unlink()
    for stale in store.glob("partial-*"):
        shutil.rmtree(stale)


def _check_room(store: Path, needed: int) -> None:
    if needed > (free := shutil.disk_usage(store).free):
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")


def _known(store: Path, settings: dict, runs: Path) -> tuple[pd.DataFrame, list[tuple[Path, Path]]]:
    """What is known of files, from the store and from what runs that did not end have recorded.

    Returns:
        One row a file (the latest, where there are several): `RECORD`, with its row in a source, and
        source, its place among the sources. And the images and masks of each source.
    """
    known, sources = [pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in RECORD.items()})], []
    if opened := _opened(store, settings):
        index = opened.index.assign(row=np.cumsum(opened.index["reason"] == "") - 1)
        known.append(index[[*RECORD]].assign(source=len(sources)))
        sources.append(opened.paths)
    for images in sorted(runs.glob("*.images.npy"), key=os.path.getmtime):
        run = images.name.removesuffix(".images.npy")
        masks = images.with_name(f"{run}.masks.npy")
        with suppress(OSError, ValueError):  # a run that was interrupted before it had its arrays
            for path in (images, masks):
                np.load(path, mmap_mode="r")
            for record in runs.glob(f"{run}-*.json"):
                part = pd.DataFrame(json.loads(record.read_text())).astype(RECORD)
                known.append(part.assign(source=len(sources)))
            sources.append((images, masks))
    return pd.concat(known).drop_duplicates(KEY, keep="last"), sources


def _gather(packed: pd.DataFrame, sources: list[Path], path: Path) -> None:
    """Bring the images of usable files, or their masks, from their sources into one array."""
    usable = packed[packed["reason"] == ""]
    if usable.empty:
        return
    arrays = [np.load(source, mmap_mode="r") for source in sources]
    source, row = usable["source"].to_numpy(int), usable["row"].to_numpy(int)
    starts = np.flatnonzero((np.diff(source, prepend=-1) != 0) | (np.diff(row, prepend=-2) != 1))
    whole = arrays[source[0]]
    partial = path.with_suffix(".partial")
    if len(starts) == 1 and len(whole) == len(usable):
        _link(sources[source[0]], partial)
    else:
        with open(partial, "wb") as target:
            header = {"descr": whole.dtype.str, "fortran_order": False}
            np.lib.format.write_array_header_1_0(target, header | {"shape": (len(usable), *whole.shape[1:])})
            for first, last in pairwise([*starts, len(usable)]):
                _copy(arrays[source[first]][row[first] : row[last - 1] + 1], target)
    with open(partial, "rb") as written:
        os.fsync(written.fileno())
    os.replace(partial, path)


def _link(source: Path, path: Path) -> None:
    """Give a file a second name, or on a file system without links make a copy."""
    path.unlink(missing_ok=True)
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def _copy(rows: np.ndarray, target: BinaryIO) -> None:
    step = max(1, _PIECE // rows[0].nbytes)
    for first in range(0, len(rows), step):
        target.write(rows[first : first + step])


def _write_index(store: Path, packed: pd.DataFrame, named: SkyCoord, settings: dict, key: str) -> None:
    """Write the index of what was packed; `named` are the positions in the names of its files."""
    index = packed[["name", *KEY, "reason", "detail", "ra", "dec", "side", "digest"]].copy()
    known = np.isfinite(named.ra.deg)
    index["ra"] = np.where(known, named.ra.deg, index["ra"].to_numpy(float))
    index["dec"] = np.where(known, named.dec.deg, index["dec"].to_numpy(float))
    usable = (index["reason"] == "").to_numpy()
    where = index.loc[usable, ["ra", "dec"]].to_numpy() * u.deg
    index["group"] = np.int64(-1)
    index.loc[usable, "group"] = friends_of_friends(SkyCoord(where))
    index[["side", "digest"]] = index[["side", "digest"]].astype(np.int64)

    content = hashlib.sha256(json.dumps(settings).encode())
    content.update("\n".join(index.loc[usable, "name"]).encode())
    content.update(index.loc[usable, "digest"].to_numpy("<i8"))
    description = {**settings, "key": key, "fingerprint": content.hexdigest()}
    table = pa.Table.from_pandas(index, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, "lensq": json.dumps(description)})
    partial = store / "index.partial"
    pq.write_table(table, partial)
    os.replace(partial, store / "index.parquet")

"""The packed store: a survey's usable images in two arrays on disk, memory-mapped when opened.

A store is a folder with `images.npy` (N, size, size) float32, `masks.npy` (N, size, size) bool and
`index.parquet`, one row a file. It is written whole beside its place and renamed into it, and packed anew
when a file, a setting or an array is not as it was; whoever has older arrays open keeps them.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.coordinates import SkyCoord

from lensq.survey.files import atomic
from lensq.survey.ingest import Reading, Record, read_files
from lensq.survey.split import coordinates_from_names, friends_of_friends, iau_name

FORMAT = 6
"""Raised whenever the same files would be packed differently."""

CHECKED_ALWAYS = 2**28
"""Bytes up to which an array is read through when it is opened; a larger one if its time has changed."""

_ARRAYS = {"images": np.float32, "masks": np.bool_}
_PIECE = 2**24  # bytes that are copied at a time
_REMEDY = "give read_survey another folder for the packed images, store=..."


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        index: one row a file, sorted by name: given (its object's name in the inventory), name (which may be
            that by position), bytes, time (ns), what a `lensq.survey.ingest.Record` says, group (-1 in
            quarantine).
        images: (N, size, size) float32 of the usable files, in the order of the index.
        mask: (N, size, size) bool.
        fingerprint: sha256 of names and packed images, in hexadecimal digits.
    """

    index: pd.DataFrame
    images: np.ndarray
    mask: np.ndarray
    fingerprint: str


def open_store(
    store: Path,
    folder: Path,
    files: pd.DataFrame,
    how: Reading,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Store:
    """Open the store of some files, packing them first unless it holds them as they are now.

    Args:
        store: its folder, made if needed.
        folder: where the files are.
        files: name, by_position, file, bytes, time (ns) of each file to pack.
        how: how they become images.
        workers, progress: as in `lensq.survey.ingest.read_files`.

    Raises:
        PermissionError: the store has to be written and cannot be.
        OSError: the disk is too small, or knows no locks.
    """
    if (opened := _opened(store, files, how)) and not _permitted(opened.index, folder):
        return opened
    with _writable(store), _locked(store):
        opened = _opened(store, files, how)  # another process may have packed it meanwhile
        if opened is None or _permitted(opened.index, folder):
            for left in store.parent.glob(f".partial-*-{store.name}"):
                shutil.rmtree(left)
            needed = 2 * len(files) * how.bytes
            free = shutil.disk_usage(store.parent).free
            sizes = f"{needed / 1e9:.2g} GB are needed, {free / 1e9:.2g} GB are free"
            if needed > free:
                raise OSError(errno.ENOSPC, f"no space for the packed images in {store} ({sizes}): {_REMEDY}")
            with atomic(store, f"{sizes}; make space, or {_REMEDY}") as partial:
                partial.mkdir()
                _pack(partial, folder, files, how, workers, progress)
            opened = _opened(store, files, how)
    if opened is None:
        raise OSError(f"{store} cannot be read back: delete it and read the survey again")
    return opened


def _opened(store: Path, files: pd.DataFrame, how: Reading) -> Store | None:
    """The store as it is, if it is whole and holds just these files, read in this way."""
    try:
        table = pq.read_table(store / "index.parquet", use_threads=False)
        description = json.loads(table.schema.metadata[b"lensq"])
        index = table.to_pandas()
        if description["how"] != {"format": FORMAT, **asdict(how)} or not _same(index, files):
            return None
        if not all(_whole(store / f"{name}.npy", description["arrays"][name]) for name in _ARRAYS):
            return None
        images, mask = (np.load(store / f"{name}.npy", mmap_mode="r") for name in _ARRAYS)
    except (OSError, ValueError, KeyError, pa.ArrowException):  # none, or not as it was written
        return None
    return Store(index, images, mask, description["fingerprint"])


def _same(index: pd.DataFrame, files: pd.DataFrame) -> bool:
    """Whether the index is of just these files."""
    columns = ["given", "file", "bytes", "time"]
    now = files.rename(columns={"name": "given"})[columns].sort_values("file", ignore_index=True)
    return index[columns].sort_values("file", ignore_index=True).equals(now)


def _permitted(index: pd.DataFrame, folder: Path) -> bool:
    """Whether files can be read now whose permissions were in the way, which no time stamp tells."""
    closed = index[(index["reason"] == "unreadable") & index["detail"].str.startswith("Permission")]
    return any(os.access(folder / file, os.R_OK) for file in closed["file"])


def _whole(path: Path, recorded: dict) -> bool:
    """Whether an array is as it was written: its size and, if that is quick or its time differs, its sum."""
    status = path.stat()
    if status.st_size != recorded["bytes"]:
        return False
    if status.st_size > CHECKED_ALWAYS and status.st_mtime_ns == recorded["time"]:
        return True
    return _sum(path) == recorded["sum"]


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _writable(store: Path) -> Iterator[None]:
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            text = f"the packed images cannot be written to {store} ({error.strerror}): {_REMEDY}"
            raise PermissionError(text) from error
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            text = f"the file system of {store} knows no locks ({error.strerror}): {_REMEDY}"
            raise OSError(error.errno, text) from error
        raise


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Let one process at a time write the store. The system drops the lock of a process that dies."""
    with open(store.with_name(f"{store.name}.lock"), "a+") as file:
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
    partial: Path, folder: Path, files: pd.DataFrame, how: Reading, workers: int | None, progress: bool
) -> None:
    """Read the files into a folder."""
    named = coordinates_from_names(files["name"].to_list())
    wanted = (np.isnan(named.ra.deg) | files["by_position"]).tolist()
    todo = list(zip(files["file"].to_list(), wanted, strict=True))
    records: list[Record] = []
    with open(partial / "images", "wb") as images, open(partial / "masks", "wb") as masks:
        for some, pixels, mask in read_files(folder, todo, how, workers, progress):
            records += some
            images.write(pixels)
            masks.write(mask)
    index = pd.DataFrame(records, columns=[field.name for field in fields(Record)])
    index = pd.concat([files[["name", "by_position", "bytes", "time"]].reset_index(drop=True), index], axis=1)
    index["ra"] = np.where(np.isnan(named.ra.deg), index["ra"], named.ra.deg)
    index["dec"] = np.where(np.isnan(named.dec.deg), index["dec"], named.dec.deg)
    index["row"] = np.cumsum(index["reason"] == "") - 1
    index = _finished(index, how.band)
    rows = index.loc[index["reason"] == "", "row"].to_numpy()
    for name, kind in _ARRAYS.items():
        _order(partial / name, rows, np.dtype(kind), how.size)
    _write_index(partial, index.drop(columns=["row", "by_position"]), how)


def _finished(index: pd.DataFrame, band: str) -> pd.DataFrame:
    """Names by position, one band, one file an object; groups; sorted by name."""
    index = index.rename(columns={"name": "given"})
    usable = index["reason"] == ""
    places = zip(index["given"], index["by_position"], index["ra"], index["dec"], strict=True)
    index["name"] = [(by and iau_name(ra, dec)) or name.replace("/", "_") for name, by, ra, dec in places]
    bands = sorted(set(index.loc[usable, "band"]) - {""})
    if band in bands or len(bands) > 1:
        other = usable & ~index["band"].isin((band, ""))
        index.loc[other, "reason"] = "no such band"
        index.loc[other, "detail"] = f"{band} was asked for, there is " + index["band"]
    index = index.sort_values(["name", "file"], kind="stable", ignore_index=True)
    usable = index["reason"] == ""
    second = usable & index["name"].where(usable).duplicated()
    index.loc[second, "reason"] = "second file"
    index["group"] = np.int64(-1)
    usable &= ~second
    index.loc[usable, "group"] = friends_of_friends(
        SkyCoord(index.loc[usable, ["ra", "dec"]].to_numpy() * u.deg)
    )
    return index


def _order(raw: Path, rows: np.ndarray, kind: np.dtype, size: int) -> None:
    """Bring these rows of raw numbers, in this order, into an array of numpy's format."""
    stamps = np.memmap(raw, kind, "r").reshape(-1, size, size) if len(rows) else None
    with open(raw.with_suffix(".npy"), "wb") as target:
        header = {"descr": kind.str, "fortran_order": False, "shape": (len(rows), size, size)}
        np.lib.format.write_array_header_1_0(target, header)
        step = max(1, _PIECE // (kind.itemsize * size**2))
        for first in range(0, len(rows), step):
            target.write(stamps[rows[first : first + step]])
    raw.unlink()


def _write_index(partial: Path, index: pd.DataFrame, how: Reading) -> None:
    usable = index["reason"] == ""
    settings = {"format": FORMAT, **asdict(how)}
    content = hashlib.sha256(json.dumps(settings).encode())
    content.update("\n".join(index.loc[usable, "name"]).encode())
    content.update(index.loc[usable, "digest"].to_numpy("<i8"))
    arrays = {}
    for name in _ARRAYS:
        path = partial / f"{name}.npy"
        status = path.stat()
        arrays[name] = {"bytes": status.st_size, "time": status.st_mtime_ns, "sum": _sum(path)}
    description = {"how": settings, "arrays": arrays, "fingerprint": content.hexdigest()}
    table = pa.Table.from_pandas(index, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, "lensq": json.dumps(description)})
    pq.write_table(table, partial / "index.parquet")

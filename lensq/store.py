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
import mmap
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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

from lensq.ingest import RECORD, Task, read_files
from lensq.split import coordinates_from_names, friends_of_friends

FORMAT = 2
"""Raised whenever the same files would be packed differently."""

KEY = ["file", "bytes", "time"]
"""What tells whether a file is the one that was packed."""

_PIECE = 2**26  # bytes that are copied at a time


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        index: one row a file, sorted by name: name, file, bytes, time (ns), reason and detail ("" when
            usable), ra, dec (degrees), digest of the packed image, group (-1 in quarantine).
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
        size, resize: as in `lensq.images.fit_to_size`.
        workers, progress: as in `lensq.ingest.read_files`.

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
    shards = store / f"partial-{FORMAT}"
    shards.mkdir(exist_ok=True)
    known, _ = _known(store, settings, shards)
    missing = files.merge(known[~_readable_again(known, folder)][KEY], how="left", indicator=True)
    missing = missing[missing["_merge"] == "left_only"]
    _check_room(store, (len(missing) + len(files)) * 5 * settings["size"] ** 2)
    named = coordinates_from_names(files["name"].to_list())
    wanted = np.isnan(named.ra.deg)[missing.index].tolist()
    todo = list(zip(*(missing[key].to_list() for key in KEY), wanted, strict=True))
    shard = shards / uuid.uuid4().hex[:12]
    read_files(Task(folder, todo, settings["size"], settings["resize"], shard), workers, progress)

    known, sources = _known(store, settings, shards)
    packed = files.merge(known, how="left", on=KEY)
    key = uuid.uuid4().hex[:12]
    for part, path in enumerate(_arrays(store, key)):
        _gather(packed, [source[part] for source in sources], path, settings["size"], ("<f4", "|b1")[part])
    _write_index(store, packed, named, settings, key)
    for stale in set(store.glob("*.npy")) - set(_arrays(store, key)):
        stale.unlink()
    for stale in store.glob("partial-*"):
        shutil.rmtree(stale)


def _check_room(store: Path, needed: int) -> None:
    if needed > (free := shutil.disk_usage(store).free):
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")


def _known(store: Path, settings: dict, shards: Path) -> tuple[pd.DataFrame, list[tuple[Path, Path]]]:
    """What is known of files, from the store and from the shards of interrupted runs.

    Returns:
        One row a file (the latest, where there are several): KEY, reason, detail, ra, dec, digest,
        source (place in the list) and row (there) of its image. And the images and masks of the sources.
    """
    known, sources = [pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in RECORD.items()})], []
    if opened := _opened(store, settings):
        index = opened.index.assign(row=np.cumsum(opened.index["reason"] == "") - 1)
        known.append(index[[*RECORD]].assign(source=len(sources)))
        sources.append(opened.paths)
    for record in sorted(shards.glob("*.json"), key=os.path.getmtime):
        shard = pd.DataFrame(json.loads(record.read_text())).astype(RECORD)
        known.append(shard.assign(source=len(sources)))
        sources.append((record.with_suffix(".images"), record.with_suffix(".masks")))
    return pd.concat(known).drop_duplicates(KEY, keep="last"), sources


def _gather(packed: pd.DataFrame, sources: list[Path], path: Path, size: int, number_format: str) -> None:
    """Copy the images of usable files, or their masks, from their sources into one array."""
    usable = packed[packed["reason"] == ""]
    source, row = usable["source"].to_numpy(int), usable["row"].to_numpy(int)
    runs = np.flatnonzero((np.diff(source, prepend=-1) != 0) | (np.diff(row, prepend=-2) != 1))
    item = size * size * np.dtype(number_format).itemsize
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as target:
        header = {"descr": number_format, "fortran_order": False, "shape": (len(usable), size, size)}
        np.lib.format.write_array_header_1_0(target, header)
        for first, last in pairwise([*runs, len(usable)]):
            _copy(sources[source[first]], int(row[first]) * item, int(last - first) * item, target)
        target.flush()
        os.fsync(target.fileno())
    os.replace(partial, path)


def _copy(source: Path, start: int, length: int, target: BinaryIO) -> None:
    """Append some bytes of the array in a file, with or without a header, to another file."""
    if source.suffix == ".npy":
        start += np.load(source, mmap_mode="r").offset
    if start + length > source.stat().st_size:
        raise OSError(f"{source} is too short: delete {source.parent} and read the survey again")
    with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for first in range(start, start + length, _PIECE):
            with memoryview(content)[first : min(first + _PIECE, start + length)] as piece:
                target.write(piece)


def _write_index(store: Path, packed: pd.DataFrame, named: SkyCoord, settings: dict, key: str) -> None:
    """Write the index of what was packed; `named` are the positions in the names of its files."""
    index = packed[["name", *KEY, "reason", "detail", "ra", "dec", "digest"]].copy()
    known = np.isfinite(named.ra.deg)
    index["ra"] = np.where(known, named.ra.deg, index["ra"].to_numpy(float))
    index["dec"] = np.where(known, named.dec.deg, index["dec"].to_numpy(float))
    usable = (index["reason"] == "").to_numpy()
    where = index.loc[usable, ["ra", "dec"]].to_numpy() * u.deg
    index["group"] = np.int64(-1)
    index.loc[usable, "group"] = friends_of_friends(SkyCoord(where))
    index["digest"] = index["digest"].astype(np.int64)

    content = hashlib.sha256(json.dumps(settings).encode())
    content.update("\n".join(index.loc[usable, "name"]).encode())
    content.update(index.loc[usable, "digest"].to_numpy("<i8"))
    description = {**settings, "key": key, "fingerprint": content.hexdigest()}
    table = pa.Table.from_pandas(index, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, "lensq": json.dumps(description)})
    partial = store / "index.partial"
    pq.write_table(table, partial)
    os.replace(partial, store / "index.parquet")

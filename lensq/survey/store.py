"""The packed store: a survey's usable images in two arrays on disk, memory-mapped when opened.

A store is a folder with `images.npy` (N, size, size) float32, `masks.npy` (N, size, size) bool and
`index.parquet`, one row a file; of C bands (N, C, size, size) and one row an object and band. It is written
whole beside its place and renamed into it, and packed anew when a file, a setting or an array is not as it
was; whoever has older arrays open keeps them.
"""

import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.coordinates import SkyCoord

from lensq.survey.files import atomic
from lensq.survey.ingest import Reading, read_files
from lensq.survey.split import coordinates_from_names, friends_of_friends, group_radius, iau_name

FORMAT = 11
"""Raised whenever the same files would be packed differently."""

CHECKED_ALWAYS = 2**28
"""Bytes up to which an array is read through when it is opened; a larger one if its time has changed."""

_ARRAYS = {"images": np.float32, "masks": np.bool_}
_SAME_PLACE = 3.0  # arcsec, within which files of several bands show one object
_PIECE = 2**24  # bytes that are copied at a time
_REMEDY = "give read_survey another folder for the packed images, store=..."


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        index: one row a file, sorted by name: given (its object's name in the inventory), name (which may be
            that by position), bytes, time (ns), what `lensq.survey.ingest.read_files` says, group (-1 in
            quarantine). Of several bands C rows an object, in their order, with the column asked (the band).
        images: (N, size, size) or (N, C, size, size) float32 of the objects whose group is not -1, in the
            order of the index.
        mask: as large, bool.
        fingerprint: sha256 of names and packed images, in hexadecimal digits.
    """

    index: pd.DataFrame
    images: np.ndarray
    mask: np.ndarray
    fingerprint: str


def open_store(store: Path, folder: Path, files: pd.DataFrame, how: Reading, **options) -> Store:
    """Open the store of some files, packing them first unless it holds them as they are now.

    Args:
        store: its folder, made if needed.
        folder: where the files are.
        files: name, by_position, file, bytes, time (ns) of each file to pack; see
            `lensq.survey.inventory.Inventory.wanted`.
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
                _pack(partial, folder, files, how, **options)
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
        if description["how"] != {"format": FORMAT, **how.settings} or not _same(index, files):
            return None
        if not all(_whole(store / f"{name}.npy", description["arrays"][name]) for name in _ARRAYS):
            return None
        images, mask = (np.load(store / f"{name}.npy", mmap_mode="r") for name in _ARRAYS)
    except (OSError, ValueError, KeyError, pa.ArrowException):  # none, or not as it was written
        return None
    return Store(index, images, mask, description["fingerprint"])


def _same(index: pd.DataFrame, files: pd.DataFrame) -> bool:
    """Whether the index is of just these files."""
    columns = ["file", *(["asked"] if "asked" in files else []), "given", "bytes", "time"]
    now = files.rename(columns={"name": "given"})[columns].sort_values(columns, ignore_index=True)
    return index[columns].sort_values(columns, ignore_index=True).equals(now)


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
    partial: Path, folder: Path, files: pd.DataFrame, how: Reading, workers: int | None = None, progress=True
) -> None:
    """Read the files into a folder."""
    named = coordinates_from_names(files["name"].to_list())
    wanted = (np.isnan(named.ra.deg) | files["by_position"]).tolist()
    asked = files["asked"].to_list() if how.bands else [how.band] * len(files)
    todo = list(zip(files["file"].to_list(), wanted, asked, strict=True))
    records: list[dict] = []
    with open(partial / "images", "wb") as images, open(partial / "masks", "wb") as masks:
        for some, pixels, mask in read_files(folder, todo, how, workers, progress):
            records += some
            images.write(pixels)
            masks.write(mask)
    own = ["name", "by_position", "bytes", "time", *(["asked"] if how.bands else [])]
    index = pd.concat([files[own].reset_index(drop=True), pd.DataFrame(records)], axis=1)
    silent = (index["reason"] == "") & (index["band"] == "")  # where a name or folder may tell
    index["band"] = index["band"].mask(silent, files["band"].reset_index(drop=True))
    index["ra"] = np.where(np.isnan(named.ra.deg), index["ra"], named.ra.deg)
    index["dec"] = np.where(np.isnan(named.dec.deg), index["dec"], named.dec.deg)
    index["row"] = np.cumsum(index["reason"] == "") - 1
    index = _finished(index, how)
    rows = index.loc[index["group"] >= 0, "row"].to_numpy()
    for name, kind in _ARRAYS.items():
        _order(partial / name, rows, np.dtype(kind), how.shape)
    _write_index(partial, index.drop(columns=["row", "by_position"]), how)


def _finished(index: pd.DataFrame, how: Reading) -> pd.DataFrame:
    """Names by position; files of other bands, objects that lack one, second files; groups; sorted by name.

    The bands of an object are in rows one after another.
    """
    index = index.rename(columns={"name": "given"})
    usable, bands = index["reason"] == "", how.bands or (how.band,)
    asked, unknown, count = how.band, index["band"] == "", len(bands)
    if how.bands:
        asked = index["asked"]
    elif len(there := set(index.loc[usable, "band"]) - {""}) == 1:
        [asked] = there
    other = usable & (index["band"] != asked) & (~unknown | bool(how.bands))
    index.loc[other, "reason"] = np.where(unknown, "ambiguous", "no such band")[other]
    said = np.where(unknown, "the file does not say its band", "there is " + index["band"])
    index.loc[other, "detail"] = asked + " was asked for, " + pd.Series(said)
    usable = (index["reason"] == "").to_numpy().reshape(-1, count)
    # The reference band names and places an object, so that it is the same as in a survey of that band.
    order = np.argsort(np.arange(count) != bands.index(how.band), kind="stable")
    best = np.arange(len(usable)) * count + order[usable[:, order].argmax(1)]
    if how.bands:
        usable = usable & ~_apart(index, np.repeat(best, count)).reshape(usable.shape)
    for name in ("ra", "dec"):
        index[name] = np.repeat(index[name].to_numpy()[best], count)
    first = index.iloc[::count]
    places = zip(first["given"], first["by_position"], first["ra"], first["dec"], strict=True)
    names = [(by and iau_name(ra, dec)) or name.replace("/", "_") for name, by, ra, dec in places]
    index["name"] = np.repeat(names, count)
    kept = usable.any(1) if how.missing_band == "mask" else usable.all(1)
    for i in np.flatnonzero(~kept & usable.any(1)):
        rows = index.index[count * i : count * (i + 1)]
        lacking = index.loc[rows[~usable[i]]]
        said = "; ".join(lacking["asked"] + ": " + lacking["reason"])
        index.loc[rows[usable[i]], ["reason", "detail"]] = "lacks a band", said
    order = pd.DataFrame({"name": names, "file": index["file"].to_numpy()[best]})
    order = order.sort_values(["name", "file"], kind="stable").index.to_numpy()
    index = index.iloc[(order[:, None] * count + np.arange(count)).ravel()].reset_index(drop=True)
    kept, first = kept[order], index["name"].iloc[::count]
    second = kept & first.where(kept).duplicated().to_numpy()
    index.loc[np.repeat(second, count) & (index["reason"] == ""), "reason"] = "second file"
    kept &= ~second
    group = np.full(len(kept), -1, np.int64)
    read = index[index["reason"] == ""]
    side = read["side"].median() if how.resize else how.size
    radius = group_radius(side * (how.scale or read["pixel_scale"].fillna(how.pixel_scale).median()))
    places = SkyCoord(index.loc[::count, ["ra", "dec"]].to_numpy()[kept] * u.deg)
    group[kept] = friends_of_friends(places, radius)
    index["group"] = np.repeat(group, count)
    index.loc[index["reason"] != "", ["row", "digest"]] = -1, 0
    return index


def _apart(index: pd.DataFrame, best: np.ndarray) -> np.ndarray:
    """Marks the planes that lie elsewhere than the one that places their object."""
    places = SkyCoord(index[["ra", "dec"]].to_numpy() * u.deg)
    arcsec = places.separation(places[best]).arcsec
    apart = (index["reason"] == "").to_numpy() & (arcsec > _SAME_PLACE)
    said = index["asked"] + [f" lies {far:.0f} arcsec from " for far in np.nan_to_num(arcsec)]
    said += index["asked"].to_numpy()[best] + " of this name"
    index.loc[apart, ["reason", "detail"]] = np.stack([np.full(apart.sum(), "ambiguous"), said[apart]], 1)
    return apart


def _order(raw: Path, rows: np.ndarray, kind: np.dtype, shape: tuple[int, ...]) -> None:
    """Bring these rows of raw numbers, in this order, into an array of numpy's format; zeros for row -1."""
    stamps = np.memmap(raw, kind, "r").reshape(-1, *shape[-2:]) if len(rows) else None
    with open(raw.with_suffix(".npy"), "wb") as target:
        whole = len(rows) // math.prod(shape[:-2]), *shape
        header = {"descr": kind.str, "fortran_order": False, "shape": whole}
        np.lib.format.write_array_header_1_0(target, header)
        step = max(1, _PIECE // (kind.itemsize * math.prod(shape[-2:])))
        for first in range(0, len(rows), step):
            some = rows[first : first + step]
            pixels = stamps[some]
            pixels[some < 0] = 0
            target.write(pixels)
    raw.unlink()


def _write_index(partial: Path, index: pd.DataFrame, how: Reading) -> None:
    usable = index["group"] >= 0
    settings = {"format": FORMAT, **how.settings}
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

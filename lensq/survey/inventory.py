"""What a survey's lists name, what its folder holds, and what becomes of each.

Every line of every list and every FITS file has one fate: usable, or one reason of the quarantine.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

import pandas as pd

_log = logging.getLogger(__name__)

LISTS = {
    "raw": "candidates_list_raw.txt",
    "selected": "candidates_list_selected.txt",
    "graded": "candidates_list_graded.txt",
}
"""The lists of a survey: all objects, those flagged as possible lenses, those graded afterwards."""

FITS_FOLDER = "fits_data"

FILE_ENDING = "_HSC-I_img"
"""What follows an object's name in the name of its file, before the extension."""

REASONS = (
    "not FITS",
    "truncated",
    "no image",
    "wrong dimensions",
    "no finite pixel",
    "constant",
    "under 32 px",
    "unreadable",
    "listed but absent",
    "present but unlisted",
    "second file",
    "listed twice",
)

_NOT_READ = ("present but unlisted", "second file")

_EXTENSION = re.compile(r"\.(fits|fit|fts)(\.(gz|fz|bz2|z))?$", re.IGNORECASE)


@dataclass(frozen=True)
class Inventory:
    """The lists and the files of a survey.

    Attributes:
        folder: where the FITS files are.
        lists: the names in each of `LISTS`, one a line; None where there is no such list.
        members: the objects of the survey: those of the raw list, or without one those with a file.
        files: one row a FITS file: name (of its object), file, bytes, time (of its last change, in
            nanoseconds), chosen (bool, whether it is the one to read for an object of the survey); sorted
            by name and file.
    """

    folder: Path
    lists: dict[str, list[str] | None]
    members: frozenset[str]
    files: pd.DataFrame


def take_inventory(folder: Path) -> Inventory:
    """Read the lists of a survey and look for its files, without opening them.

    Args:
        folder: the survey's folder. The files are in its `fits_data`, or in folders within, or, where there
            are none, in the survey's folder itself.

    Raises:
        FileNotFoundError: the folder does not exist or has no FITS file.
        ValueError: a list contradicts itself, or names none of the files.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder; give that of a survey")
    lists = {which: _read_list(folder / file, which) for which, file in LISTS.items()}
    place = folder / FITS_FOLDER
    table = _scan(place, deep=True)
    if table.empty:
        place, table = folder, _scan(folder)
    if table.empty:
        deeper = sorted({Path(file).parent for file in _scan(folder, deep=True)["file"]})
        raise FileNotFoundError(
            f"{folder}: no FITS file in it or in its {FITS_FOLDER}"
            + (f", but in {deeper[0]}" if deeper else "")
            + f"; put the cutouts into {FITS_FOLDER} as <name>{FILE_ENDING}.fits"
        )
    names = table["name"].to_list()
    members = frozenset(names if lists["raw"] is None else lists["raw"])
    first = [name != before for name, before in zip(names, [None, *names[:-1]], strict=True)]
    table["chosen"] = [is_first and name in members for name, is_first in zip(names, first, strict=True)]
    if not table["chosen"].any():
        raise ValueError(
            f"{folder}: {LISTS['raw']} names none of the {len(table)} FITS files in {place}, such as "
            f"{table['file'][0]}; the file of an object is <name>{FILE_ENDING}.fits"
        )
    for which in ("selected", "graded"):
        if lists[which] and members.isdisjoint(lists[which]):
            _log.warning(
                "%s: %s names no object of the survey, such as %s", folder, LISTS[which], lists[which][0]
            )
    return Inventory(place, lists, members, table)


def state_of(folder: Path) -> str:
    """Hexadecimal digits that change when a list of a survey, or the size or time of a file, changes.

    Args:
        folder: the survey's folder; see `take_inventory`, likewise for the errors.
    """
    inventory = take_inventory(folder)
    digest = hashlib.sha256(repr(inventory.lists).encode())
    digest.update(inventory.files.to_csv().encode())
    return digest.hexdigest()[:16]


def _read_list(path: Path, which: str) -> list[str] | None:
    """The names in a list, one a line, without what follows a comma or a # and what ends a file's name."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="backslashreplace")
    except FileNotFoundError:
        return None
    if "," not in text and "#" not in text:
        return [_object(name) for line in text.splitlines() if (name := line.strip())]
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        name, *rest = line.partition("#")[0].split(",")
        if which != "raw" and rest and rest[0].strip() == "0":
            raise ValueError(f"{path}, line {number}: {line!r} gives the label 0 to a {which} object")
        if name := name.strip():
            names.append(_object(name))
    return names


def _object(name: str) -> str:
    """The name of an object, perhaps from that of its file."""
    return _EXTENSION.sub("", name).removesuffix(FILE_ENDING)


def _files(folder: Path, deep: bool) -> Iterator[str]:
    """Paths of the files in a folder, seen from it; with `deep` in its folders too, but for hidden ones."""
    if not deep:
        yield from sorted(os.listdir(folder)) if folder.is_dir() else ()
        return
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        within = os.path.relpath(place, folder)
        yield from (file if within == "." else os.path.join(within, file) for file in sorted(files))


def _scan(folder: Path, *, deep: bool = False) -> pd.DataFrame:
    """Name of the object, file, bytes and time of last change of each FITS file, sorted."""
    names, files, lengths, times = [], [], [], []
    place = f"{folder}{os.sep}"
    usual = f"{FILE_ENDING}.fits"
    for file in _files(folder, deep):
        if file.endswith(usual):
            extension = ".fits"
        elif match := _EXTENSION.search(file):
            extension = match[0]
        else:
            continue
        try:
            status = os.stat(place + file)
            if not S_ISREG(status.st_mode):
                continue
            lengths.append(status.st_size)
            times.append(status.st_mtime_ns)
        except OSError:  # a link to nothing
            lengths.append(-1)
            times.append(0)
        if not file.isascii():  # and perhaps no text at all
            file = os.fsencode(file).decode(errors="backslashreplace")
        files.append(file)
        names.append(os.path.basename(file).removesuffix(extension).removesuffix(FILE_ENDING))
    table = pd.DataFrame({"name": names, "file": files, "bytes": lengths, "time": times})
    if names != sorted(names):
        table = table.sort_values("name", kind="stable", ignore_index=True)
    return table


def settle(inventory: Inventory, read: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Account for every line of the lists and every file.

    Args:
        inventory: the survey's.
        read: name, file, reason ("" when usable) and detail of the chosen files.

    Returns:
        counts: see `lensq.survey.survey.Survey.counts`.
        quarantine: name, file, reason and detail of what is not used, sorted by name.
    """
    columns = ["name", "file", "reason", "detail"]
    rows = list(read.loc[read["reason"] != "", columns].itertuples(index=False, name=None))
    fate = dict(zip(read["name"].to_list(), read["reason"].to_list(), strict=True))
    strays: dict[str, list[str]] = {}
    for which in ("selected", "graded"):
        for name in set(inventory.lists[which] or ()) - inventory.members:
            strays.setdefault(name, []).append(LISTS[which])
    detail = {name: f"named only in {' and '.join(files)}" for name, files in strays.items()}
    left = inventory.files[~inventory.files["chosen"]]
    for name, file in zip(left["name"], left["file"], strict=True):
        if name in inventory.members:
            tried = f"was tried: {fate[name]}" if fate[name] else "is used"
            rows.append((name, file, "second file", f"another file of this object {tried}"))
        else:
            rows.append((name, file, "present but unlisted", detail.get(name, "")))
            fate[name] = "present but unlisted"
    for name in {*inventory.members, *strays} - fate.keys():
        rows.append((name, "", "listed but absent", detail.get(name, "")))
        fate[name] = "listed but absent"

    counts = {"files": Counter(read["reason"].to_list())}
    counts["files"] += Counter(row[2] for row in rows if row[1] and row[2] in _NOT_READ)
    for which, names in inventory.lists.items():
        once = set(names or ())
        counts[which] = Counter(map(fate.__getitem__, once))
        if names and len(once) < len(names):
            counts[which]["listed twice"] = len(names) - len(once)
            surplus = (Counter(names) - Counter(once)).elements()
            rows += [(name, "", "listed twice", f"in {LISTS[which]}") for name in surplus]
    found = {which: len(names or ()) for which, names in inventory.lists.items()}
    table = pd.DataFrame(counts, index=["", *REASONS], columns=[*LISTS, "files"]).fillna(0).astype(int)
    table = table.rename(index={"": "usable"})
    table.loc["total"] = table.sum()
    table.loc["found"] = {**found, "files": len(inventory.files)}
    quarantine = pd.DataFrame(rows, columns=columns)
    return table, quarantine.sort_values(["name", "file", "reason"], ignore_index=True)

"""What a survey's lists name, what its folder holds, and what becomes of each.

Every line of every list and every FITS file has one fate: usable, or one reason of the quarantine.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

import pandas as pd

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
    "listed twice",
)

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
        folder: the survey's folder. The files are in its `fits_data` or, where that is missing or has
            none, in the folder itself.

    Raises:
        FileNotFoundError: the folder does not exist or has no FITS file.
        ValueError: a list contradicts itself, or names none of the files.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder; give that of a survey")
    lists = {which: _read_list(folder / file, which) for which, file in LISTS.items()}
    for place in (folder / FITS_FOLDER, folder):
        table = _scan(place)
        if len(table):
            break
    else:
        raise FileNotFoundError(
            f"{folder}: no FITS file in it or in its {FITS_FOLDER}; "
            f"put the cutouts there as <name>{FILE_ENDING}.fits"
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
    return Inventory(place, lists, members, table)


def _read_list(path: Path, which: str) -> list[str] | None:
    """The names in a list, one a line; what follows a comma or a # is not part of a name."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="backslashreplace")
    except FileNotFoundError:
        return None
    if "," not in text and "#" not in text:
        return [name for line in text.splitlines() if (name := line.strip())]
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        name, *rest = line.partition("#")[0].split(",")
        if which != "raw" and rest and rest[0].strip() == "0":
            raise ValueError(f"{path}, line {number}: {line!r} gives the label 0 to a {which} object")
        if name := name.strip():
            names.append(name)
    return names


def _scan(folder: Path) -> pd.DataFrame:
    """Name of the object, file, bytes and time of last change of each FITS file, sorted."""
    names, files, lengths, times = [], [], [], []
    place = f"{folder}{os.sep}"
    usual = f"{FILE_ENDING}.fits"
    for file in sorted(os.listdir(folder)) if folder.is_dir() else ():
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
        names.append(file.removesuffix(extension).removesuffix(FILE_ENDING))
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
        counts: see `lensq.survey.Survey.counts`.
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
        second = "another file of this object is used" if name in inventory.members else ""
        rows.append((name, file, "present but unlisted", detail.get(name, second)))
        fate.setdefault(name, "present but unlisted")
    for name in {*inventory.members, *strays} - fate.keys():
        rows.append((name, "", "listed but absent", detail.get(name, "")))
        fate[name] = "listed but absent"

    counts = {"files": Counter(read["reason"].to_list())}
    counts["files"]["present but unlisted"] = len(left)
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

"""What a survey's lists name, what its folder holds, and what becomes of each.

Every line of every list and every FITS file has one fate: usable, or one reason of the quarantine. Which
object and which band a file shows follows from its name and folder, as far as these say; the rules are in
`name_files`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG

import numpy as np
import pandas as pd

from lensq.survey.bundle import bundle_of, bundle_table
from lensq.survey.hdus import REASONS as FAULTS
from lensq.survey.ingest import Reading, declared_of, home_of
from lensq.survey.lists import EXTENSION, LISTS, Aliases, Listing, names_in, read_list
from lensq.survey.planes import INSTRUMENT, OTHER_BAND, band_name, images_beside
from lensq.survey.split import iau_name

FITS_FOLDER = "fits_data"

FILE_ENDING = "_HSC-I_img"
"""What follows an object's name in the name of its file, before the extension."""

ASIDE = ("other band", "companion")
"""Fates of files that are not asked for, and no fault."""

_NO_OBJECT = (*ASIDE, "unreadable")  # the last of folders, as far as an inventory goes

REASONS = (*FAULTS, "lacks a band", "listed but absent", "present but unlisted", "second file", *ASIDE)
REASONS += ("listed twice",)

_HSC = re.compile(r"(.+)_HSC-([A-Z]+\d*)_img")
_NAMELESS = re.compile(
    r"(?P<hsc>\d*-?cutout)-HSC-(?P<band>[A-Z]+\d*)-\d+-.*"
    r"|(?P<ps1>.*skycell\.\d+\.\d+\.stk)\.(?P<ps1_band>[grizy])\.(?:unconv|conv)(?P<rest>.*)"
)
_PLACED = re.compile(r"cutout_(\d+\.\d+)_([+-]?\d+\.\d+)(.*)")
_PSF = re.compile(r"\d*-?psf-\w+-.*-HSC-.*")  # of HSC's PSF picker
_BAND = re.compile(rf"({INSTRUMENT}[-_])?[ugrizy]([-_]band)?|{OTHER_BAND}", re.IGNORECASE)
_POSITION = re.compile(r"J\d{6}(\.\d*)?[+-]\d{6}")
_NEUTRAL = re.compile(
    "img|images?|sci|science|flux|stk|coadd|cutout|unconv|drz|drc|i2d|mosaic|swarp|band", re.IGNORECASE
)


@dataclass(frozen=True)
class Inventory:
    """The lists and the files of a survey.

    Attributes:
        folder: where the files are.
        listings: the lines of each of `LISTS`; None where there is no such list.
        lists: the names in each, one a line.
        members: the objects of the survey: those of the raw list, or without one those with a file.
        files: one row a file: name (of its object), file, bytes, time (of its last change, in nanoseconds),
            band ("" where the name of the file does not tell), by_position (bool, whether the object is to
            be named by its position), fate ("" if the file is to be read, else a reason) and detail,
            chosen (bool, whether it is to be read); sorted by name and file.
        band: the band that is read, the reference band of several.
        bands: the bands that are read.
        notes: what the user should know.
    """

    folder: Path
    listings: dict[str, Listing | None]
    lists: dict[str, list[str] | None]
    members: frozenset[str]
    files: pd.DataFrame
    band: str
    bands: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def wanted(self) -> pd.DataFrame:
        """The rows of `files` that are to be read; of several bands one an object and band, object by object.

        Several bands add the column asked (the band); a band without a file has "" for it.
        """
        chosen = self.files[self.files["chosen"]].reset_index(drop=True)
        if len(self.bands) == 1:
            return chosen
        first = _first_files(chosen["name"], chosen["band"], self.bands)
        names = dict.fromkeys(chosen["name"])
        rows = [first.get((name, band), -1) for name in names for band in self.bands]
        table = chosen.iloc[rows].reset_index(drop=True)
        table["name"] = np.repeat(list(names), len(self.bands))
        table["by_position"] = chosen.groupby("name")["by_position"].any()[table["name"]].to_numpy()
        table["asked"] = np.tile(self.bands, len(names))
        table.loc[np.array(rows) < 0, ["file", "bytes", "time"]] = "", 0, 0
        return table

    def renamed(self, names: Mapping[str, str]) -> Inventory:
        """The inventory with other names of objects, as positions may give them, and the lists read anew."""
        if all(given == name for given, name in names.items()):
            return self
        files = self.files.assign(name=self.files["name"].map(lambda name: names.get(name, name)))
        lists, members = _members(self.listings, files)
        return replace(self, lists=lists, members=members, files=files)


def take_inventory(folder: Path | str, band: str = "i", bands: tuple[str, ...] = ()) -> Inventory:
    """Read the lists of a survey and look for its files, without opening them.

    Args:
        folder: the survey's folder, or an HDF5 file of cutouts. The files are in its `fits_data`, or in
            folders within; where there are none, in the folder itself, or else in folders within that.
        band: the band to read. Where the names of the files tell of one other band alone, it is that.
        bands: the bands to read if they are several; `band` is then the reference band among them.

    Raises:
        FileNotFoundError: the folder does not exist or has no FITS file.
        ValueError: a list contradicts itself, names none of the files or flags none of the objects, or
            there are several bands but not those asked for.
    """
    folder = Path(folder)
    bundle = bundle_of(folder)
    if not folder.is_dir() and not bundle:
        raise FileNotFoundError(f"{folder}: there is no such folder; give that of a survey")
    home = home_of(folder)
    listings = {which: read_list(home / file, flags=which != "raw") for which, file in LISTS.items()}
    if bundle:
        place, table, notes = bundle.parent, bundle_table(bundle), []
    else:
        place, found, notes = _find(folder)
        table = name_files(found)
    bands = _set_aside(table, bands or (band,), folder, notes)
    lists, members = _members(listings, table)
    listed = table["by_position"] | table["fate"].isin(_NO_OBJECT) | among(table["name"], members)
    table["fate"] = table["fate"].where(listed, "present but unlisted")
    table["chosen"] = table["fate"] == ""
    if not table["chosen"].any() and listings["raw"] is not None:
        raise ValueError(
            f"{folder}: {LISTS['raw']} names none of the {len(table)} FITS files in {place}, such as "
            f"{table['file'].iloc[0]}; the file of an object is <name>{FILE_ENDING}.fits"
        )
    band = band if band in bands else bands[0]
    inventory = Inventory(place, listings, lists, members, table, band, bands, tuple(notes))
    if not table["by_position"].any():
        check_flags(inventory, members)
    return inventory


def state_of(folder: Path | str, **reading) -> str:
    """Hexadecimal digits that change when a list, the way of reading, or the size or time of a file changes.

    Args:
        folder: see `take_inventory`, likewise for the errors.
        reading: see `Reading.of`.
    """
    how = Reading.of(Path(folder), **reading)
    inventory = take_inventory(folder, how.band, how.bands)
    digest = hashlib.sha256(repr((how, declared_of(Path(folder)), inventory.lists)).encode())
    digest.update(inventory.files.to_csv().encode())
    return digest.hexdigest()[:16]


def among(names: pd.Series, those: Set[str]) -> pd.Series:
    """Whether each name is one of those; pandas' `isin` makes a scalar of Arrow of each of those first."""
    return pd.Series([name in those for name in names.to_list()], names.index, dtype=bool)


def check_flags(inventory: Inventory, names: frozenset[str]) -> list[str]:
    """Refuse a list of flagged objects that flags none of `names`; say of each how many it does not.

    Raises:
        ValueError: there is such a list; its path, a line and the remedy.
    """
    notes = []
    for which in ("selected", "graded"):
        listing, listed = inventory.listings[which], inventory.lists[which] or []
        missed = [i for i, name in enumerate(listed) if name not in names]
        if not missed:
            continue
        if len(missed) == len(listed):
            raise ValueError(
                f"{listing.path}, line {listing.numbers[0]}: {listed[0]!r} is none of the {len(names)} "
                f"objects of the survey, such as {min(names, default='')!r}, nor is any other line; write "
                "their names, one a line, or take the list away"
            )
        notes.append(
            f"{len({listed[i] for i in missed})} of {len(set(listed))} objects in {LISTS[which]} are not "
            f"among the {len(names)} of the survey and count nowhere, such as {listed[missed[0]]}"
        )
    return notes


def _members(listings: dict, table: pd.DataFrame) -> tuple[dict[str, list[str] | None], frozenset[str]]:
    """The names in the lists, and the objects of the survey."""
    columns = (table[key].to_list() for key in ("name", "file", "fate"))
    objects = [(name, file) for name, file, fate in zip(*columns, strict=True) if fate not in _NO_OBJECT]
    aliases = Aliases([name for name, _ in objects], [file for _, file in objects])
    lists = {which: names_in(listing, aliases) for which, listing in listings.items()}
    return lists, frozenset(aliases.names if lists["raw"] is None else lists["raw"])


def _find(folder: Path) -> tuple[Path, pd.DataFrame, list[str]]:
    """Where a survey's FITS files are, and a table of them: file, bytes, time, fate, detail."""
    for place, deep in ((folder / FITS_FOLDER, True), (folder, False), (folder, True)):
        table = _scan(place, deep)
        if (table["fate"] == "").any():
            break
    else:
        closed = "; ".join(table["file"] + " " + table["detail"])
        raise FileNotFoundError(
            f"{folder}: no FITS file in it or in its {FITS_FOLDER}{closed and f' ({closed})'}; "
            f"put the cutouts into {FITS_FOLDER} as <name>{FILE_ENDING}.fits"
        )
    notes = [
        f"{place / row.file} cannot be looked into ({row.detail}): its files are missing from the survey"
        for row in table[table["fate"] != ""].itertuples()
    ]
    if place != folder and (n := (_scan(folder, True, FITS_FOLDER)["fate"] == "").sum()):
        notes.append(f"{n} FITS files of {folder} outside {place} are left alone; put all into {FITS_FOLDER}")
    if not deep and (n := (_scan(folder, True)["fate"] == "").sum() - len(table)):
        notes.append(f"{n} FITS files in folders within {folder} are left alone; put all into {FITS_FOLDER}")
    return place, table, notes


def _scan(folder: Path, deep: bool, *but: str) -> pd.DataFrame:
    """The FITS files in a folder, and in those within, but for hidden ones and `packed`; what is closed."""
    rows, closed = [], []
    if folder.is_dir():
        for place, folders, files in os.walk(folder, onerror=closed.append):
            folders[:] = sorted(
                each for each in folders if deep and each[0] != "." and each not in ("packed", *but)
            )
            links = filter(os.path.islink, (os.path.join(place, each) for each in folders))
            closed += [OSError(0, "it is a link, which is not followed", link) for link in links]
            within = "" if place == str(folder) else os.path.relpath(place, folder) + os.sep
            for file in sorted(files):
                if file[0] == "." or not (file.endswith(".fits") or EXTENSION.search(file)):
                    continue
                length, time = -1, 0
                try:
                    status = os.stat(os.path.join(place, file))
                    if not S_ISREG(status.st_mode):
                        continue
                    length, time = status.st_size, status.st_ctime_ns  # which a new name changes, too
                except OSError:  # a link to nothing, or a folder that lists its files and opens none
                    pass
                file = within + file
                if not file.isascii():  # and perhaps no text at all
                    file = os.fsencode(file).decode(errors="backslashreplace")
                rows.append((file, length, time, "", ""))
    for error in closed:
        at = os.path.relpath(error.filename, folder) + os.sep
        rows.append((at, -1, 0, "unreadable", error.strerror or str(error)))
    return pd.DataFrame(rows, columns=["file", "bytes", "time", "fate", "detail"])


def name_files(table: pd.DataFrame) -> pd.DataFrame:
    """Tell from the paths of files which object and which band each shows.

    A name `<object>_HSC-<band>_img` says both. `cutout_<ra>_<dec>` (degrees, Legacy Surveys) is named by its
    position, Jhhmmss.ss+ddmmss.s; what HSC's and Pan-STARRS's services hand out is so named when it is read,
    and is one object where a folder within has one file a band. Otherwise the object is the file's stem, and
    a last word, or a folder, that is a band is the band, if most files have one. Stems that repeat in folders
    with one object each are named by the folder. A file beside another whose name differs by a word such as
    mask, variance or psf alone is its companion. One with such a word and no image beside it is no image
    where others with that word are companions, or where half of a folder within has such words, and not all.

    Args:
        table: columns file, fate ("" but for what is no file) and detail.

    Returns:
        The table with name, band, by_position, fate and detail; sorted by name and file.
    """
    parsed = [_Parsed(file) for file in table["file"].to_list()]
    there = defaultdict(set)
    for each in parsed:
        there[each.stem].add(each.folder)
    beside = [{} if each.image else images_beside(each.stem) for each in parsed]
    goes = ["" if each.image else _companion_word(each, beside[i], there) for i, each in enumerate(parsed)]
    goes = [""] * len(goes) if all(goes) else goes  # a folder of PSFs alone
    given = table["fate"].to_list()
    fates = [fate or "companion" * bool(word) for fate, word in zip(given, goes, strict=True)]
    details = table["detail"].to_list()
    held = Counter((each.folder, not names) for each, names in zip(parsed, beside, strict=True))
    mixed = {at for at, plain in held if at and plain and held[at, True] <= held[at, False]}
    known = set(goes) - {""}
    for i, each in enumerate(parsed):
        own = set(beside[i].values()) if each.folder in mixed else known.intersection(beside[i].values())
        if (own := own or known & {each.folder.rpartition("/")[2].lower()}) and not (fates[i] or each.image):
            fates[i], details[i] = "no image", f"there is none that goes with it, as {min(own)} says"
    generic = [each for each, fate in zip(parsed, fates, strict=True) if not (fate or each.sure)]
    placed = Counter((each.folder, each.band) for each in parsed if each.by_position)
    crowded = {folder for (folder, _), n in placed.items() if n > 1}
    for each in parsed:
        if each.by_position and each.folder and each.folder not in crowded:  # one object, which lines number
            each.object = each.folder
    again = Counter((each.object, each.band) for each in parsed if each.by_position)
    for each in parsed:
        if each.by_position and again[each.object, each.band] > 1:  # whether they are one, positions tell
            each.object = f"{each.folder}/{each.stem}".lstrip("/")
    _take_bands(generic)
    _name_by_folder(generic)
    rows = [(each.object or each.stem, each.band, each.by_position) for each in parsed]
    made = pd.DataFrame(rows, columns=["name", "band", "by_position"]).assign(fate=fates, detail=details)
    table = pd.concat([made, table.drop(columns=["fate", "detail"])], axis=1)
    return table.sort_values(["name", "file"], kind="stable", ignore_index=True)


class _Parsed:
    """What the path of a file says of it.

    Attributes:
        folder, stem: its folder, its name without extension.
        object, band: what it shows, as far as the path says.
        within: its folder, without a last part that is the band.
        sure, image: whether the name follows a pattern that leaves no doubt, and that it is an image.
        by_position: whether the object gets its name from the position in the file.
    """

    __slots__ = ("band", "by_position", "folder", "image", "object", "stem", "sure", "within")

    def __init__(self, file: str) -> None:
        self.folder, _, base = file.rpartition("/")
        self.stem = EXTENSION.sub("", base)
        self.object, self.band, self.within = self.stem, "", self.folder
        self.sure, self.by_position, self.image = True, False, False
        if match := _HSC.fullmatch(self.stem):
            self.object, self.band, self.image = match[1], band_name(match[2]), True
        elif match := _NAMELESS.fullmatch(self.stem):
            self.object = f"{self.folder}/{match['hsc'] or match['ps1']}".lstrip("/")
            self.band, self.by_position = band_name(match["band"] or match["ps1_band"]), True
        elif (match := _PLACED.fullmatch(self.stem)) and (name := iau_name(float(match[1]), float(match[2]))):
            self.object = name
            self.band = next((band for word in re.split("[_.]", match[3]) if (band := _band(word))), "")
        else:
            self.sure = False

    def guesses(self) -> list[tuple[str, str, str]]:
        """Object, band and folder if the band is the last word, the first, or the folder; "" if it is not."""
        pieces = re.split(r"(\.|(?<!nir)(?<!nisp)_|(?<!hsc)-)", self.stem, flags=re.IGNORECASE)
        while len(pieces) > 1 and _NEUTRAL.fullmatch(pieces[-1]):
            del pieces[-2:]
        upper, _, last = self.folder.rpartition("/")
        several = len(pieces) > 1
        return [
            ("".join(pieces[:-2]), _band(pieces[-1]) if several or self.folder else "", self.folder),
            ("".join(pieces[2:]), _band(pieces[0]) if several else "", self.folder),
            (self.stem, _band(last), upper),
        ]


def _take_bands(files: list[_Parsed]) -> None:
    """Tell object and band of names without a pattern, where most of them have the band in the same place."""
    ways = list(zip(*(each.guesses() for each in files), strict=True))
    way = max(ways, key=lambda way: sum(bool(band) for _, band, _ in way), default=())
    bands = defaultdict(set)
    for name, band, within in way:
        bands[within, name].add(band)
    named = [bands[within, name] for name, band, within in way if band]
    if len(named) == len(way) or (2 * len(named) > len(way) and min(map(len, named)) > 1):
        for each, guess in zip(files, way, strict=True):
            if guess[1]:
                each.object, each.band, each.within = guess


def _band(word: str) -> str:
    return band_name(word) if _BAND.fullmatch(word) else ""


def _companion_word(file: _Parsed, beside: Mapping[str, str], there: Mapping[str, set[str]]) -> str:
    """The word by which a mask or PSF goes with an image that is there; `there` has the folders of a stem."""
    for name, word in beside.items():
        if file.folder in there.get(name, ()):
            return word
    last = file.folder.rpartition("/")[2]
    if images_beside(last) and any(not images_beside(f.rpartition("/")[2]) for f in there[file.stem]):
        return last.lower()
    return "psf" * bool(_PSF.fullmatch(file.stem))


def _name_by_folder(files: list[_Parsed]) -> None:
    """Name objects by their folders where each folder holds one and their stems repeat or say nothing."""
    folders, held = defaultdict(set), defaultdict(set)
    for each in files:
        folders[each.object].add(each.within)
        held[each.within].add(each.object)
    repeated = {
        name
        for name, places in folders.items()
        if not _POSITION.match(name)
        and (name == "" or (len(places) > 1 and all(len(held[place]) == 1 for place in places)))
    }
    renamed = {each.within for each in files if each.object in repeated and each.within}
    last = Counter(place.rpartition("/")[2] for place in renamed)
    for each in files:
        if each.object in repeated and each.within:
            short = each.within.rpartition("/")[2]
            each.object = short if last[short] == 1 else each.within


def _set_aside(
    table: pd.DataFrame, wanted: tuple[str, ...], folder: Path, notes: list[str]
) -> tuple[str, ...]:
    """Set the fates of files of other bands and of second files; return the bands that are read."""
    images = table[table["fate"] == ""]
    there = sorted(set(images["band"]))
    if there and "" not in there and not set(wanted).issubset(there):
        lacking = ", ".join(band for band in wanted if band not in there)
        if len(there) > 1 or len(wanted) > 1:
            one = "one by band=" if len(wanted) == 1 else "among them by bands="
            raise ValueError(f"{folder}: no file of band {lacking}, but of {', '.join(there)}: choose {one}")
        notes.append(f"there is no file of band {lacking}: read in {there[0]}, the only one there")
        wanted = (there[0],)
    asked = images[images["band"].isin([*wanted, ""])]
    used = images.iloc[sorted({*_first_files(images["name"], images["band"], wanted).values()})]
    again, others = asked.drop(used.index), images.drop(asked.index)
    _refuse_repeats(folder, used, again)
    table.loc[again.index, "fate"] = "second file"
    table.loc[others.index, "fate"] = "no such band"
    table.loc[others.index[among(others["name"], set(asked["name"].to_list()))], "fate"] = "other band"
    table.loc[others.index, "detail"] = "band " + others["band"]
    return wanted


def _refuse_repeats(folder: Path, used: pd.DataFrame, others: pd.DataFrame) -> None:
    """Refuse folders within of which most hold files of the same names: fields, kinds or versions?"""
    file_of = dict(zip(used["name"].to_list(), used["file"].to_list(), strict=True))
    pairs = zip(others["name"].to_list(), others["file"].to_list(), strict=True)
    places = [(file_of.get(name, ""), file) for name, file in pairs if not _POSITION.match(name)]
    again = [(one, other) for one, other in places if os.path.dirname(one) != os.path.dirname(other)]
    if len(again) > 1 and 2 * len(again) >= len(file_of):
        raise ValueError(
            f"{folder}: {len(again)} files have the name of one in another folder, such as {again[0][0]} and "
            f"{again[0][1]}: leave one an object and band, or name folders by object or band"
        )


def _first_files(names: pd.Series, bands: pd.Series, wanted: tuple[str, ...]) -> dict[tuple[str, str], int]:
    """Place of the file of each object and band: the first named for that band, else for none."""
    first: dict[tuple[str, str], int] = {}
    for i, key in enumerate(zip(names.to_list(), bands.to_list(), strict=True)):
        first.setdefault(key, i)
    keys = ((name, band) for name in dict.fromkeys(name for name, _ in first) for band in wanted)
    found = {key: first.get(key, first.get((key[0], ""))) for key in keys}
    return {key: i for key, i in found.items() if i is not None}


def settle(inventory: Inventory, read: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Account for every line of the lists and every file.

    Args:
        inventory: the survey's, its objects under their final names.
        read: name, file, reason ("" when usable) and detail of the chosen files.

    Returns:
        counts: see `lensq.survey.survey.Survey.counts`.
        quarantine: name, file, reason and detail of what is not used, sorted by name.
    """
    columns = ["name", "file", "reason", "detail"]
    left = inventory.files.rename(columns={"fate": "reason"})
    left = left.loc[~among(left["file"], set(read["file"].to_list())), columns]
    every = pd.concat([read[columns], left], ignore_index=True)
    strays: dict[str, list[str]] = {}
    for which in ("selected", "graded"):
        for name in set(inventory.lists[which] or ()) - inventory.members:
            strays.setdefault(name, []).append(LISTS[which])
    detail = {name: f"named only in {' and '.join(files)}" for name, files in strays.items()}
    silent = every["detail"] == ""
    unlisted = ~among(every["name"], inventory.members) & ~every["reason"].isin(_NO_OBJECT)
    every.loc[unlisted, "reason"] = "present but unlisted"
    every.loc[unlisted & silent, "detail"] = every["name"].map(lambda name: detail.get(name, ""))
    # An object is usable if one of its files is; else it has the fate of the first.
    fate = dict(zip(every["name"].to_list()[::-1], every["reason"].to_list()[::-1], strict=True))
    fate |= dict.fromkeys(every.loc[every["reason"] == "", "name"].to_list(), "")
    said = {name: f"was tried: {reason}" if reason else "is used" for name, reason in fate.items()}
    second = silent & (every["reason"] == "second file")
    every.loc[second, "detail"] = "another file of this object " + every["name"].map(said)
    rows = list(every[every["reason"] != ""].itertuples(index=False, name=None))
    absent = {*inventory.members, *strays} - fate.keys()
    fate |= dict.fromkeys(absent, "listed but absent")
    rows += [(name, "", "listed but absent", detail.get(name, "")) for name in absent]
    counts = {"files": Counter(every["reason"])}
    for which, names in inventory.lists.items():
        once = set(names or ())
        surplus = list((Counter(names) - Counter(once)).elements())
        counts[which] = Counter([*map(fate.__getitem__, once), *["listed twice"] * len(surplus)])
        rows += [(name, "", "listed twice", f"in {LISTS[which]}") for name in surplus]
    table = pd.DataFrame(counts, index=["", *REASONS], columns=[*LISTS, "files"]).fillna(0).astype(int)
    table = table.rename(index={"": "usable"})
    table.loc["total"] = table.sum()
    found = {which: len(names or ()) for which, names in inventory.lists.items()}
    table.loc["found"] = {**found, "files": len(inventory.files)}
    quarantine = pd.DataFrame(rows, columns=columns)
    return table, quarantine.sort_values(["name", "file", "reason"], ignore_index=True)

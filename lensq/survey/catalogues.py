"""Catalogues beside a survey: one of the user's, whose columns go along with objects, and known lenses."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np
import pandas as pd
from astropy.coordinates import Angle, SkyCoord
from astropy.io.registry import IORegistryError
from astropy.table import Table

from lensq.survey.lists import Aliases
from lensq.survey.split import friends_of_friends

if TYPE_CHECKING:
    from lensq.survey.survey import Survey

_log = logging.getLogger(__name__)

SAME_OBJECT = 1.0
"""Arcseconds within which an entry of the user's catalogue is an object of the survey."""

SAME_LENS = 2.0
"""Arcseconds between two entries of a catalogue of lenses that makes them one."""

_COLUMNS = {
    "ra": {"ra", "radeg", "raj", "raicrs", "rightascension"},
    "dec": {"dec", "decdeg", "dej", "decj", "deicrs", "decicrs", "declination", "de", "dedeg"},
    "name": {"name", "objectname", "object", "objname", "id", "objectid", "objid", "sourceid", "source"},
}


def read_catalogue(catalogue: Path | str | pd.DataFrame | Table) -> tuple[pd.DataFrame, SkyCoord | None]:
    """A catalogue as a table of scalars, and its positions, NaN where an entry has none.

    Args:
        catalogue: a table, or a file that astropy can read (CSV, FITS, VOTable, ASCII ...). Columns such as
            "ra" and "dec", "RA [deg]", "DEJ2000" are positions, in their unit, else in degrees or, as text,
            in hours and degrees.

    Raises:
        ValueError: the file cannot be read.
        FileNotFoundError: there is none.
    """
    if isinstance(catalogue, (str, Path)):
        path = catalogue
        try:
            catalogue = _read(path)
            if not len(catalogue):
                raise ValueError("no entries")
        except FileNotFoundError:
            raise
        except Exception as error:  # astropy has as many as it has formats
            said = " ".join(str(error).split())[:200]
            raise ValueError(f"{path}: astropy cannot read this catalogue ({said}); save as CSV") from error
    if isinstance(catalogue, Table):
        scalars = catalogue[[column for column in catalogue.colnames if catalogue[column].ndim == 1]]
        for column in scalars.itercols():
            unit = u.Unit(column.unit or "", parse_strict="silent")
            if unit == u.hour and column.name in _columns(scalars.colnames, "ra"):
                unit = u.hourangle  # the hour of time in VOTables
            if column.dtype.kind in "fiu" and unit.is_equivalent(u.deg) and unit != u.dimensionless_unscaled:
                values = np.asarray(np.ma.filled(column.astype(float), np.nan))
                scalars[column.name] = u.Quantity(values, unit).to_value(u.deg)
        catalogue = scalars.to_pandas()
    return catalogue, _positions(catalogue)


def _read(path: Path | str) -> Table:
    """A file, with names that are numbers as its text has them, such as 0001."""
    how = {}
    try:
        table = Table.read(path)
    except IORegistryError:
        how = {"format": "ascii"}
        table = Table.read(path, **how)
    numbers = [each for each in _columns(table.colnames, "name") if table[each].dtype.kind in "fiu"]
    with suppress(TypeError):  # of formats that are no text
        text = Table.read(path, converters=dict.fromkeys(numbers, str), **how) if numbers else table
        for each in numbers:
            if list(map(str, text[each])) != list(map(str, table[each])):
                table[each] = text[each]
    return table


def _positions(catalogue: pd.DataFrame) -> SkyCoord | None:
    columns = [_columns(catalogue, which) for which in ("ra", "dec")]
    if not all(columns):
        return None
    ra, dec = (catalogue[each[0]] for each in columns)
    numbers = [pd.to_numeric(each, errors="coerce") for each in (ra, dec)]
    text = numbers[0].isna().all()
    ra, dec = (ra, dec) if text else numbers  # a cell that is no number then has no position
    known = (ra.notna() & dec.notna()).to_numpy()
    degrees = np.full((len(catalogue), 2), np.nan)
    for axis, (cells, unit) in enumerate([(ra, u.hourangle if text else u.deg), (dec, u.deg)]):
        degrees[known, axis] = Angle(cells[known].to_numpy(), unit).deg
    degrees[~(np.abs(degrees) <= (360, 90)).all(axis=1)] = np.nan  # such as -999
    return SkyCoord(degrees * u.deg)


def _columns(columns: Iterable[str], which: str) -> list[str]:
    return [each for each in columns if re.sub("[^a-z]", "", str(each).lower()) in _COLUMNS[which]]


def align(
    catalogue: Path | str | pd.DataFrame | Table, names: np.ndarray, files: np.ndarray, coordinates: SkyCoord
) -> tuple[pd.DataFrame, SkyCoord, list[str]]:
    """Bring a catalogue into the order of a survey, by the names of the objects, else by their positions.

    Args:
        catalogue: as in `read_catalogue`.
        names, files, coordinates: (N,) of the survey.

    Returns:
        table: one row an object, its entry; missing values where it has none.
        coordinates: those of the survey, completed from the catalogue.
        notes: what the user should know.

    Raises:
        ValueError: no entry is of the survey, by name or within `SAME_OBJECT`, or two columns name different
            objects.
    """
    table, places = read_catalogue(catalogue)
    what = f"catalogue {catalogue}" if isinstance(catalogue, (str, Path)) else "catalogue"
    entry = np.full(len(names), -1)
    twice = 0
    row = {name: i for i, name in enumerate(names.tolist())}
    named = _named(table, Aliases(row, files.tolist()), what)
    for i, name in enumerate(named):
        if name:
            twice += entry[row[name]] >= 0
            entry[row[name]] = i if entry[row[name]] < 0 else entry[row[name]]
    ours = np.flatnonzero((entry < 0) & np.isfinite(coordinates.ra.deg))
    free = [name is None for name in named]  # what names an object is no other
    if places is not None and len(ours) and (known := np.flatnonzero(np.isfinite(places.ra.deg) & free)).size:
        nearest, separation, _ = coordinates[ours].match_to_catalog_sky(places[known])
        near = separation.arcsec <= SAME_OBJECT
        entry[ours[near]] = known[nearest[near]]
    found = entry >= 0
    if not found.any():
        raise ValueError(
            f"{what}: none of its {len(table)} entries is one of the {len(names)} objects, by a column name "
            f"or by ra and dec within {SAME_OBJECT:g} arcsec; its columns are {', '.join(map(str, table))}"
        )
    aligned = table.reset_index(drop=True).reindex(np.where(found, entry, len(table))).reset_index(drop=True)
    elsewhere = 0
    if places is not None:
        elsewhere = (coordinates[found].separation(places[entry[found]]).arcsec > SAME_OBJECT).sum()
        degrees = np.stack([coordinates.ra.deg, coordinates.dec.deg], axis=1)
        unknown = found & np.isnan(degrees[:, 0])
        degrees[unknown] = np.stack([places.ra.deg, places.dec.deg], axis=1)[entry[unknown]]
        coordinates = SkyCoord(degrees * u.deg)
    notes = [f"{what}: {(~found).sum()} of {len(names)} objects have no entry"] * (not found.all())
    notes += [f"{what}: {twice} entries name an object again and are left out"] * bool(twice)
    away = f"over {SAME_OBJECT:g} arcsec from the object that they name, whose own position stays"
    notes += [f"{what}: {elsewhere} entries lie {away}"] * bool(elsewhere)
    return aligned, coordinates, notes


def _named(table: pd.DataFrame, aliases: Aliases, what: str) -> list[str | None]:
    """The object that each entry names, by the column of names that names most."""
    columns = _columns(table, "name")
    said = [
        [aliases.find(str(x).strip()) if pd.notna(x) else None for x in table[column]] for column in columns
    ]
    nothing: list[str | None] = [None] * len(table)
    best = min(said, key=lambda column: column.count(None), default=nothing)
    for column, other in zip(columns, said, strict=True):
        for i, (one, two) in enumerate(zip(best, other, strict=True)):
            if one and two and one != two:
                raise ValueError(
                    f"{what}, entry {i + 1}: it is {one} by column {columns[said.index(best)]!r} and {two} "
                    f"by column {column!r}: rename the one that holds no names"
                )
    return best


def known_lenses() -> pd.DataFrame | None:
    """Known lenses and candidates: the table in the package `lenscat`, entries of one object merged.

    The package is not imported. None where it is not installed; `pip install --no-deps lenscat` installs it.
    Entries that are linked by steps of at most `SAME_LENS` are one: the first stays, and the names of all are
    joined by " = ".

    Returns:
        Columns name, RA [deg], DEC [deg], zlens, type, grading, ref.
    """
    try:
        files = metadata.files("lenscat") or ()
    except metadata.PackageNotFoundError:
        return None
    path = next((file.locate() for file in files if file.name == "catalog.csv"), None)
    if path is None:
        return None
    table = pd.read_csv(path)
    table["name"] = table["name"].astype(str)
    group = friends_of_friends(_positions(table), SAME_LENS)
    merged = table.groupby(group, sort=True)
    return merged.first().assign(name=merged["name"].agg(lambda names: " = ".join(dict.fromkeys(names))))


def match_catalogue(
    survey: Survey, catalogue: Path | str | pd.DataFrame | Table | None = None, radius_arcsec: float = 3.0
) -> pd.DataFrame:
    """Match a survey with a catalogue on the sky.

    Args:
        survey: the survey.
        catalogue: as in `read_catalogue`; None takes the known lenses of `known_lenses`.
        radius_arcsec: greatest separation in arcseconds.

    Returns:
        One row for each object and catalogue entry within the radius, by object and separation: row
        (of the object in the survey), name, separation (arcseconds), and the columns of the catalogue,
        with `catalogue_` before those that would clash.

    Raises:
        ValueError: the catalogue has no positions.
        FileNotFoundError: there is no file, or no catalogue of known lenses.
    """
    if catalogue is None and (catalogue := known_lenses()) is None:
        raise FileNotFoundError("no catalogue of known lenses: pip install --no-deps lenscat, or name a file")
    catalogue, theirs = read_catalogue(catalogue)
    if theirs is None:
        which = next(which for which in ("ra", "dec") if not _columns(catalogue, which))
        raise ValueError(f"catalogue: no column {which!r} among {list(catalogue)}; rename those of positions")
    known = np.flatnonzero(np.isfinite(theirs.ra.deg))
    if missing := len(catalogue) - len(known):
        _log.warning("catalogue: %d of %d entries have no position, match nothing", missing, len(catalogue))
    ours = np.flatnonzero(np.isfinite(survey.coordinates.ra.deg))
    most = radius_arcsec * u.arcsec
    entry, found, angle, _ = survey.coordinates[ours].search_around_sky(theirs[known], most)
    matches = pd.DataFrame({"row": ours[found], "name": survey.names[ours[found]]})
    matches["separation"] = angle.arcsec
    entries = catalogue.iloc[known[entry]].reset_index(drop=True)
    entries = entries.rename(columns={column: f"catalogue_{column}" for column in matches})
    return matches.join(entries).sort_values(["row", "separation"], ignore_index=True)

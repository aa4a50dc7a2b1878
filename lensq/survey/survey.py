"""A survey on disk: lists of names and a folder of FITS cutouts, read into arrays.

    <survey>/candidates_list_raw.txt         every object, one name a line
    <survey>/candidates_list_selected.txt    those that a person flagged as possible lenses
    <survey>/candidates_list_graded.txt      optional: those that were graded afterwards
    <survey>/fits_data/<name>_HSC-I_img.fits one cutout an object
    <survey>/truth.parquet                   optional: what a simulation put in

A folder of FITS files without lists is a survey without labels. Whatever cannot be used is put into
quarantine with a reason; the counts add up to the lists and to the files on disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow as pa
from astropy.coordinates import SkyCoord
from astropy.table import Table

from lensq.survey.images import PIXEL_SCALE
from lensq.survey.inventory import settle, take_inventory
from lensq.survey.split import FRACTIONS, assign_splits, close_pairs, groups_table
from lensq.survey.store import open_store

_log = logging.getLogger(__name__)

CALIBRATION = ("selection", "conformal")


@dataclass(frozen=True)
class Survey:
    """A survey as arrays. Everything of length N is in the order of `names`.

    Attributes:
        folder: where it is on disk.
        names: (N,) str, sorted.
        coordinates: (N,) ICRS positions, from the names, else from the files; NaN where unknown.
        labels: (N,) int8: 1 selected, 0 rejected, -1 unlabelled.
        graded: (N,) bool, whether the object is in the graded list.
        images: (N, size, size) float32, memory-mapped: flux at zero point 27.0; 0 where masked.
        mask: (N, size, size) bool, memory-mapped: True where the pixel is real and finite.
        group: (N,) int64, friends-of-friends group within 12".
        split: (N,) str: "train", "validation", "selection", "conformal" or "test".
        quarantine: one row for each file or line of a list that is not used: name, file ("" without),
            reason, detail.
        truth: what a simulation knows, one row an object; None for a real survey.
        size: side of the images in pixels.
        resized: whether images were interpolated to the size, rather than cropped or padded.
        native_side: median side of the images in their files, in pixels.
        fingerprint: sha256 of names and images, in hexadecimal digits.
        fates: what `counts` returns.
    """

    folder: Path
    names: np.ndarray
    coordinates: SkyCoord
    labels: np.ndarray
    graded: np.ndarray
    images: np.ndarray
    mask: np.ndarray
    group: np.ndarray
    split: np.ndarray
    quarantine: pd.DataFrame
    truth: pd.DataFrame | None
    size: int
    resized: bool
    native_side: float
    fingerprint: str
    fates: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        how = "resized" if self.resized else "cropped"
        return (
            f"Survey({str(self.folder)!r}: {len(self)} objects of {self.size} x {self.size} px, {how}; "
            f"{(self.labels == 1).sum()} selected, {(self.labels == 0).sum()} rejected; "
            f"{len(self.quarantine)} in quarantine)"
        )

    @property
    def native_pixels(self) -> float:
        """Side of a pixel of the images in native pixels, those of the files; 1 unless they were resized."""
        return self.native_side / self.size if self.resized else 1.0

    @property
    def pixel_scale(self) -> float:
        """Arcseconds a pixel of the images."""
        return PIXEL_SCALE * self.native_pixels

    def rows(self, *splits: str) -> np.ndarray:
        """Rows of the objects in some splits.

        Args:
            splits: names of splits; "calibration" stands for "selection" and "conformal".

        Returns:
            int64 row numbers, ascending.

        Raises:
            ValueError: there is no split of that name.
        """
        wanted = {part for name in splits for part in (CALIBRATION if name == "calibration" else (name,))}
        if unknown := wanted - set(FRACTIONS):
            raise ValueError(f"splits: {sorted(unknown)} not among {sorted(FRACTIONS)} and 'calibration'")
        return np.flatnonzero(np.isin(self.split, sorted(wanted)))

    def groups(self) -> pd.DataFrame:
        """The groups of two objects or more: see `lensq.survey.split.groups_table`."""
        return groups_table(self.names, self.coordinates, self.labels, self.group, self.split)

    def close_pairs(self, radius_arcsec: float = 5.0) -> pd.DataFrame:
        """The pairs of objects that share pixels: see `lensq.survey.split.close_pairs`."""
        return close_pairs(self.names, self.coordinates, self.labels, radius_arcsec)

    def counts(self) -> pd.DataFrame:
        """What became of every line of every list, and of every file.

        Returns:
            Columns "raw", "selected", "graded" (lines of the lists) and "files". Rows "usable", the reasons
            of the quarantine, "total", which is their sum, and "found", the lines and files as counted in
            the lists and the folder themselves. The last two agree: nothing is lost or counted twice.
        """
        return self.fates.copy()

    def add_truth(self, table: pd.DataFrame, columns: Sequence[str] = ("is_lens", "class")) -> pd.DataFrame:
        """A table with what the simulation knows of its objects; unchanged where nothing is known.

        Args:
            table: with a column `name`, such as a Scores table.
            columns: columns of `truth` to join.
        """
        if self.truth is None:
            return table
        return table.merge(self.truth[["name", *columns]], on="name", how="left", validate="1:1")


def read_survey(
    folder: Path | str,
    *,
    size: int = 48,
    resize: bool = False,
    store: Path | str | None = None,
    workers: int | None = None,
    split_seed: int = 0,
    progress: bool = True,
) -> Survey:
    """Open a survey; the first time, read its FITS files into a packed store.

    Args:
        folder: the survey's folder.
        size: side of the images in pixels.
        resize: False crops and pads at the native pixel scale, True interpolates to the size; see
            `lensq.survey.images.fit_to_size`.
        store: where the packed images go, a folder of this survey alone; by default `packed` in the
            survey's folder or, where that cannot be written to, a folder in the user's cache.
        workers: number of processes that read files; by default as many as are worth it.
        split_seed: seed of the split; see `lensq.survey.split.assign_splits`.
        progress: whether to show progress bars.

    Returns:
        The survey, its images memory-mapped.

    Raises:
        FileNotFoundError: the folder does not exist or holds no FITS file.
        ValueError: a list is wrong, or no file can be used.
        PermissionError: the packed images cannot be written to `store`.
    """
    if size < 1:
        raise ValueError(f"size: expected a positive number of pixels, got {size}")
    folder = Path(folder)
    inventory = take_inventory(folder)
    kind = f"{size}-{'resize' if resize else 'crop'}"
    files = inventory.files[inventory.files["chosen"]].reset_index(drop=True)
    how = {"size": size, "resize": resize, "workers": workers, "progress": progress}
    try:
        packed = open_store(Path(store or folder / "packed") / kind, inventory.folder, files, **how)
    except PermissionError as error:
        if store:
            raise
        instead = _cache(folder) / kind
        _log.warning("%s; they go to %s", str(error).partition(": ")[0], instead)
        packed = open_store(instead, inventory.folder, files, **how)
    counts, quarantine = settle(inventory, packed.index)
    usable = packed.index[packed.index["reason"] == ""]
    if usable.empty:
        worst = packed.index.iloc[0]
        raise ValueError(
            f"{folder}: not one of {len(packed.index)} files can be used; "
            f"{worst['file']}: {worst['reason']} ({worst['detail']})"
        )

    names = usable["name"].to_numpy().astype(str)
    coordinates = SkyCoord(usable["ra"].to_numpy() * u.deg, usable["dec"].to_numpy() * u.deg)
    selected, graded = (_among(names, inventory.lists[which]) for which in ("selected", "graded"))
    labels = selected.astype(np.int8)
    if inventory.lists["selected"] is None:
        labels[:] = -1
    group = usable["group"].to_numpy()
    survey = Survey(
        folder=folder,
        names=names,
        coordinates=coordinates,
        labels=labels,
        graded=graded,
        images=packed.images,
        mask=packed.mask,
        group=group,
        split=assign_splits(names, coordinates, group, seed=split_seed),
        quarantine=quarantine,
        truth=_read_truth(folder / "truth.parquet", names),
        size=size,
        resized=resize,
        native_side=float(usable["side"].median()),
        fingerprint=packed.fingerprint,
        fates=counts,
    )
    pa.default_memory_pool().release_unused()  # what reading the index took, which Arrow would keep
    return survey


def _cache(folder: Path) -> Path:
    """A folder for one survey where the user's programs keep what they can make again."""
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return place / "lensq" / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def _among(names: np.ndarray, listed: list[str] | None) -> np.ndarray:
    members = frozenset(listed or ())
    return np.fromiter((name in members for name in names.tolist()), bool, len(names))


def _read_truth(path: Path, names: np.ndarray) -> pd.DataFrame | None:
    if not path.exists():
        return None
    truth = pd.read_parquet(path)
    if "name" not in truth or truth["name"].duplicated().any():
        raise ValueError(f"{path}: expected a column 'name' with distinct names")
    return truth.set_index("name").reindex(names).rename_axis("name").reset_index()


def match_catalogue(
    survey: Survey, catalogue: Path | str | pd.DataFrame | Table, radius_arcsec: float = 3.0
) -> pd.DataFrame:
    """Match a survey with a catalogue on the sky.

    Args:
        survey: the survey.
        catalogue: a table, or a file that astropy can read (CSV, FITS, VOTable ...), with columns
            such as "ra" and "dec", "RA [deg]", "DEJ2000", in degrees or, as text, in hours and degrees.
        radius_arcsec: greatest separation in arcseconds.

    Returns:
        One row for each object and catalogue entry within the radius, by object and separation: row
        (of the object in the survey), name, separation (arcseconds), and the columns of the catalogue,
        with "catalogue_" before those that would clash.

    Raises:
        ValueError: the catalogue has no such columns.
    """
    if isinstance(catalogue, (str, Path)):
        catalogue = Table.read(catalogue)
    if isinstance(catalogue, Table):
        scalars = [column for column in catalogue.colnames if catalogue[column].ndim == 1]
        catalogue = catalogue[scalars].to_pandas()
    columns = [_position_column(catalogue, which) for which in ("ra", "dec")]
    ra, dec = (catalogue[column].to_numpy() for column in columns)
    text = not np.issubdtype(ra.dtype, np.number)
    known = ~(pd.isna(ra) | pd.isna(dec))
    if not known.all():
        _log.warning(
            "catalogue: %d of %d entries have no position and match nothing", (~known).sum(), len(ra)
        )
        catalogue, ra, dec = catalogue[known], ra[known], dec[known]
    theirs = SkyCoord(ra, dec, unit=(u.hourangle if text else u.deg, u.deg))
    ours = np.flatnonzero(np.isfinite(survey.coordinates.ra.deg))
    entry, found, separation, _ = survey.coordinates[ours].search_around_sky(theirs, radius_arcsec * u.arcsec)
    matches = pd.DataFrame(
        {"row": ours[found], "name": survey.names[ours[found]], "separation": separation.arcsec}
    )
    entries = catalogue.iloc[entry].reset_index(drop=True)
    entries = entries.rename(columns={column: f"catalogue_{column}" for column in matches})
    return matches.join(entries).sort_values(["row", "separation"], ignore_index=True)


_POSITIONS = {
    "ra": {"ra", "radeg", "raj", "raicrs", "rightascension"},
    "dec": {"dec", "decdeg", "dej", "decj", "deicrs", "decicrs", "declination"},
}


def _position_column(catalogue: pd.DataFrame, which: str) -> str:
    for column in catalogue:
        if re.sub("[^a-z]", "", str(column).lower()) in _POSITIONS[which]:
            return column
    raise ValueError(f"catalogue: no column {which!r} among {list(catalogue)}; rename that of the positions")

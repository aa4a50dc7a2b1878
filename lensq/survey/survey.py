"""A survey on disk: lists of names and a folder of FITS cutouts, read into arrays.

    <survey>/candidates_list_raw.txt         every object, one name a line
    <survey>/candidates_list_selected.txt    those that a person flagged as possible lenses
    <survey>/candidates_list_graded.txt      optional: those that were graded afterwards
    <survey>/fits_data/<name>_HSC-I_img.fits one cutout an object; other layouts: `lensq.survey.inventory`
    <survey>/survey.yml                      optional: band(s), scale, zero_point, pixel_scale if undeclared;
                                             a note to whoever reads what is made of the survey
    <survey>/truth.parquet                   optional: what a simulation put in

A folder of FITS files without lists, or an HDF5 file of cutouts, is a survey without labels. Whatever
cannot be used is put into quarantine with a reason; the counts add up to the lists and to the files on disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow as pa
from astropy.coordinates import SkyCoord
from astropy.table import Table

from lensq.survey.catalogues import align
from lensq.survey.images import PIXEL_SCALE, SAME_SCALE, same_scale
from lensq.survey.ingest import Reading, declared_of, home_of
from lensq.survey.inventory import ASIDE, Inventory, among, check_flags, settle, take_inventory
from lensq.survey.split import FRACTIONS, assign_splits, friends_of_friends, group_radius
from lensq.survey.store import Store, open_store

_log = logging.getLogger(__name__)


class MixedScalesError(ValueError):
    """The files of a survey have pixels of different sizes."""


CALIBRATION = ("selection", "conformal")

_NO_OBJECT = ("second file", "present but unlisted", "listed twice")


@dataclass(frozen=True)
class Survey:
    """A survey as arrays. Everything of length N is in the order of `names`.

    Of several bands images and masks have a channel a band, (N, C, size, size), and what is said of files has
    a column a band, (N, C), in the order of `bands`.

    Attributes:
        folder: where it is on disk.
        names: (N,) str, sorted.
        coordinates: (N,) ICRS positions, from the names, else from the files; NaN where unknown.
        labels: (N,) int8: 1 selected, 0 rejected, -1 unlabelled.
        graded: (N,) bool, whether the object is in the graded list.
        images: (N, size, size) float32, memory-mapped: flux at zero point 27.0; 0 where masked.
        mask: (N, size, size) bool, memory-mapped: True where the pixel is real and finite.
        group: (N,) int64, friends-of-friends group (`lensq.survey.split.group_radius`).
        split: (N,) str: "train", "validation", "selection", "conformal" or "test".
        quarantine: one row for each file or line of a list that is not used: name, file ("" without),
            reason, detail.
        truth: what a simulation knows, one row an object; None for a real survey.
        size: side of the images in pixels.
        resized: whether images were interpolated to the size, rather than cropped or padded.
        native_side: median side of the images in their files, in pixels.
        fingerprint: sha256 of names and images, in hexadecimal digits.
        fates: what `counts` returns.
        files: (N,) str, file of each object, in the inventory's folder; of several bands that of the
            reference band, else of the first there is.
        band: the band of the images; "" if the files do not say. Of several the reference band.
        bands: the bands in the order of the channels; `band` alone where it is one.
        zero_points: (N,) AB magnitude of one unit of flux in the file, as declared or by default; NaN, like
            the pixel scale, where a band is missing.
        zero_point_from: (N,) str, the card that declares it; "" by default.
        pixel_scales: (N,) arcseconds a pixel of the file, as declared or by default.
        scale_declared: (N,) bool, whether the file declares it.
        scale: arcseconds a pixel that the images were interpolated to; None if they were not.
        noise: (N,) sky noise a pixel by the file's variance or inverse variance, its median over the image;
            NaN where there is none, the image was interpolated or a band is missing.
        catalogue: the user's catalogue, one row an object; None without one.
        notes: sentences that the user should read before anything that is made of the survey.
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
    files: np.ndarray | None = None
    band: str = "i"
    zero_points: np.ndarray | None = None
    zero_point_from: np.ndarray | None = None
    pixel_scales: np.ndarray | None = None
    scale_declared: np.ndarray | None = None
    scale: float | None = None
    noise: np.ndarray | None = None
    catalogue: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", self.bands or (self.band,))

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        how = f"{self.size} x {self.size} px, {'resized' if self.resized else 'cropped'}"
        said = f"{(self.labels == 1).sum()} selected, {(self.labels == 0).sum()} rejected"
        lost = f"{len(self.quarantine)} in quarantine"
        return f"Survey({str(self.folder)!r}: {len(self)} objects of {how}; {said}; {lost})"

    @property
    def reference(self) -> int:
        """The channel of the reference band."""
        return self.bands.index(self.band)

    @property
    def native_pixels(self) -> float:
        """Side of a pixel of the images in native pixels, those of the files; 1 unless they were resized."""
        return self.native_side / self.size if self.resized else 1.0

    @property
    def pixel_scale(self) -> float:
        """Arcseconds a pixel of the images: the median of the files', or what they were interpolated to."""
        native = PIXEL_SCALE if self.pixel_scales is None else float(np.nanmedian(self.pixel_scales))
        return self.scale or native * self.native_pixels

    @property
    def as_read(self) -> dict[str, Any]:
        """What is kept with a model that is trained on it: fingerprint, and what `check_pixels` compares."""
        pixels = {"size": self.size, "resized": self.resized, "pixel_scale": self.pixel_scale}
        return pixels | {"bands": list(self.bands), "survey": self.fingerprint}

    @property
    def summary(self) -> str:
        """One line: how many objects are used, band, pixel scale, zero point, and what is in quarantine."""
        lost = self.quarantine[~self.quarantine["reason"].isin(ASIDE)]
        gone = lost.loc[~lost["reason"].isin(_NO_OBJECT), "name"]
        objects = len(self) + gone[~among(gone, set(self.names.tolist()))].nunique()
        bands = f"bands {''.join(self.bands) if max(map(len, self.bands)) == 1 else ' '.join(self.bands)}"
        said = [f"{len(self)} of {objects} used", bands if len(self.bands) > 1 else f"band {self.band}"]
        said[1:] = said[1:] if self.band else ["no band declared"]
        by_default = self.scale is None and self.scale_declared is not None and not self.scale_declared.any()
        said.append(f"{self.pixel_scale:.3g} arcsec/px" + " by default (pixel_scale=)" * by_default)
        if self.scale and self.pixel_scales is not None:
            said[-1] += f" (interpolated from {np.nanmedian(self.pixel_scales):.3g})"
        if self.zero_point_from is not None:
            known = np.isfinite(self.zero_points)
            said.append("zero point " + _in_words(self.zero_point_from[known], self.zero_points[known]))
        if 10 * len(lost) > len(self) + len(lost):
            reasons = ", ".join(f"{n} {reason}" for reason, n in lost["reason"].value_counts().items())
            said.append(f"{len(lost)} of {len(self) + len(lost)} files and lines in quarantine ({reasons})")
        return ", ".join(said)

    def in_reference_band(self, rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, size, size) and mask of some objects in the reference band."""
        if self.images.ndim == 3:
            return self.images[rows], self.mask[rows]
        return self.images[rows, self.reference], self.mask[rows, self.reference]

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
    catalogue: Path | str | pd.DataFrame | Table | None = None,
    store: Path | str | None = None,
    workers: int | None = None,
    split_seed: int = 0,
    progress: bool = True,
    **reading,
) -> Survey:
    """Open a survey; the first time, read its files into a packed store.

    Args:
        folder: the survey's folder, or an HDF5 file of cutouts.
        size: side of the images in pixels.
        resize: False crops and pads, True interpolates to the size; see `lensq.survey.images.fit_to_size`.
        catalogue: names or positions, and whatever else is known of the objects: a table or a file of any
            format of astropy; see `lensq.survey.catalogues.align`.
        store: where the packed images go, a folder of this survey alone; by default `packed` in the
            survey's folder or, where that cannot be written to, a folder in the user's cache.
        workers: number of processes that read files; by default as many as are worth it.
        split_seed: seed of the split; see `lensq.survey.split.assign_splits`.
        progress: whether to show progress bars.
        reading: `bands`, one ("i", as by default) or several ("gri", or a sequence of names), with
            `missing_band` ("quarantine", or "mask") for objects that lack one of several; or `band`, the name
            of one; `scale`, `zero_point` and `pixel_scale`: see `lensq.survey.ingest.Reading`. What is not
            given is taken from `survey.yml` in the folder, where there is one.

    Returns:
        The survey, its images memory-mapped.

    Raises:
        FileNotFoundError: the folder does not exist or holds no FITS file.
        ValueError: a list or `survey.yml` is wrong, no file can be used, none is of a band that is asked for,
            their pixel scales differ, or `band` and `bands` do.
        PermissionError: the packed images cannot be written to `store`.
    """
    folder = Path(folder)
    how = Reading.of(folder, size=size, resize=resize, **reading)
    inventory = take_inventory(folder, how.band, how.bands)
    how = replace(how, band=inventory.band)
    packed = _packed(folder, inventory, how, store, workers=workers, progress=progress)
    survey = _survey(folder, inventory, packed, how)
    if catalogue is not None:
        table, places, notes = align(catalogue, survey.names, survey.files, survey.coordinates)
        survey = replace(survey, catalogue=table, coordinates=places, notes=(*survey.notes, *notes))
        if table is not None and np.isnan(packed.index["ra"]).any():
            radius = group_radius(survey.size * survey.pixel_scale)
            survey = replace(survey, group=friends_of_friends(places, radius))
    split = assign_splits(survey.names, survey.coordinates, survey.group, seed=split_seed)
    pa.default_memory_pool().release_unused()  # what reading the index took, which Arrow would keep
    return replace(survey, split=split)


def _survey(folder: Path, inventory: Inventory, packed: Store, how: Reading) -> Survey:
    """The survey without its split."""
    index, images, mask = packed.index, packed.images, packed.mask
    inventory = inventory.renamed(dict(zip(index["given"].to_list(), index["name"].to_list(), strict=True)))
    # A file of several bands counts once, as used if one of them is.
    files = index[index["file"] != ""].sort_values("reason", kind="stable").drop_duplicates("file")
    fates, quarantine = settle(inventory, files)
    planes = index[index["group"] >= 0]
    count = len(inventory.bands)
    listed = among(planes["name"], inventory.members).to_numpy()
    if not listed.all():  # objects named by their positions, which a list leaves out
        planes, images, mask = planes[listed], images[listed[::count]], mask[listed[::count]]
    if planes.empty:
        worst = quarantine[~quarantine["reason"].isin(ASIDE)].iloc[0]
        said = f"{worst['file']}: {worst['reason']} ({worst['detail']})"
        raise ValueError(f"{folder}: not one of {len(files)} files can be used; {said}")
    best = (planes["reason"] == "").astype(int) + (planes["band"] == how.band)
    places = best.to_numpy().reshape(-1, count).argmax(1) + np.arange(0, len(planes), count)
    usable = planes.iloc[places]  # a row an object, of the reference band where there is one
    names = usable["name"].to_numpy().astype(str)
    lists = inventory.lists.items()
    listed = {which: among(usable["name"], set(those or ())).to_numpy() for which, those in lists}
    return Survey(
        folder=folder,
        names=names,
        coordinates=SkyCoord(usable["ra"].to_numpy() * u.deg, usable["dec"].to_numpy() * u.deg),
        labels=np.where(inventory.lists["selected"] is None, -1, listed["selected"]).astype(np.int8),
        graded=listed["graded"],
        images=images,
        mask=mask,
        group=usable["group"].to_numpy(),
        split=np.full(len(names), ""),
        quarantine=quarantine,
        truth=_read_truth(home_of(folder) / "truth.parquet", names),
        size=how.size,
        resized=how.resize,
        native_side=float(usable["side"].median()),
        fingerprint=packed.fingerprint,
        fates=fates,
        files=usable["file"].to_numpy().astype(str),
        notes=(
            *filter(None, [declared_of(folder).get("note")]),
            *inventory.notes,
            *check_flags(inventory, frozenset(names.tolist())),
            *_masked_bands(planes),
        ),
        **_calibration(folder, planes, how),
    )


def _packed(folder: Path, inventory: Inventory, how: Reading, store: Path | str | None, **options) -> Store:
    """The packed images, in the folder that is given, in the survey's, or in the user's cache."""
    files = inventory.wanted
    kind = how.kind if folder.is_dir() else f"{folder.stem}-{how.kind}"
    place = Path(store or home_of(folder) / "packed")
    try:
        return open_store(place / kind, inventory.folder, files, how, **options)
    except PermissionError as error:
        if store:
            raise
        instead = _cache(folder) / kind
        _log.warning("%s; they go to %s", str(error).partition(": ")[0], instead)
    return open_store(instead, inventory.folder, files, how, **options)


def read_like(trained: Mapping[str, Any], folder: Path | str, **reading) -> Survey:
    """Open a survey with the pixels that a model was trained on, interpolated where their scale differs.

    Args:
        trained: settings of a model or classifier: `size`, `resized`, `pixel_scale` (arcsec) and `bands`.
        folder: of the survey.
        reading: other arguments of `read_survey`. Without `band` or `bands` the survey is read in several
            bands if the model was trained on several, and in one if it was trained on one.
    """
    how = {"size": trained["size"], "resize": trained.get("resized", False), **reading}
    bands = trained.get("bands", ("i",))
    if not {"band", "bands"} & reading.keys() and (len(bands) > 1 or Reading.of(Path(folder)).bands):
        how["bands"] = bands
    try:
        survey = read_survey(folder, **how)
        if survey.resized or same_scale(survey, trained):
            return survey
    except MixedScalesError:
        pass
    return read_survey(folder, **how, scale=trained.get("pixel_scale", PIXEL_SCALE))


def _masked_bands(planes: pd.DataFrame) -> list[str]:
    """How many objects lack a band, if any do."""
    lacking = planes.loc[planes["reason"] != ""]
    if lacking.empty:
        return []
    said = ", ".join(f"{n} lack {band}" for band, n in lacking["asked"].value_counts().items())
    return [f"objects with a band masked for want of a usable image: {said}"]


def _calibration(folder: Path, planes: pd.DataFrame, how: Reading) -> dict[str, Any]:
    """Band, zero points and pixel scales of the objects, which have to agree as far as it matters."""
    used = planes["reason"].to_numpy() == ""
    declared = planes["pixel_scale"].notna().to_numpy()
    scales = planes["pixel_scale"].fillna(how.pixel_scale).where(used).to_numpy()
    least, most = np.nanmin(scales), np.nanmax(scales)
    if not (how.scale or how.resize) and most > (1 + 2 * SAME_SCALE) * least:
        default = f" ({(~declared).sum()} files declare none and count as {how.pixel_scale:g})"
        raise MixedScalesError(
            f"{folder}: pixel scales from {least:.3g} to {most:.3g} arcsec{default * (not declared.all())}: "
            f"give scale={np.nanmedian(scales):.3g} to bring all images to one"
        )
    bands = set(planes["band"]) - {""}
    shape = (-1, len(how.bands)) if how.bands else (-1,)
    columns = {
        "zero_points": planes["zero_point"].fillna(how.zero_point).where(used).to_numpy(),
        "zero_point_from": planes["zero_point_from"].to_numpy().astype(str),
        "pixel_scales": scales,
        "scale_declared": declared,
        "noise": planes["noise"].where(used).to_numpy(),
    }
    band = how.band if how.bands or how.band in bands else next(iter(bands), "")
    own = {name: values.reshape(shape) for name, values in columns.items()}
    return {"band": band, "bands": how.bands, "scale": how.scale, **own}


def _in_words(origins: np.ndarray, zero_points: np.ndarray) -> str:
    """Where zero points come from: "from FLUXMAG0", or each origin with its number of objects."""
    said = []
    for origin, rows in pd.Series(origins).groupby(origins).groups.items():
        of = zero_points[rows]
        value = f"{of[0]:g}" if np.ptp(of) < 0.005 else f"{of.min():.4g} to {of.max():.4g}"
        text = f"from {origin}" if origin else f"{value} by default (zero_point=)"
        said.append(text if len(rows) == len(origins) else f"{text} ({len(rows)})")
    return ", ".join(said)


def _cache(folder: Path) -> Path:
    """A folder for one survey where the user's programs keep what they can make again."""
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return place / "lensq" / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def _read_truth(path: Path, names: np.ndarray) -> pd.DataFrame | None:
    if not path.exists():
        return None
    remedy = "restore it, or take it away to read the survey without what its simulation knows"
    try:
        truth = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read ({error}): {remedy}") from error
    if "name" not in truth or truth["name"].duplicated().any():
        raise ValueError(f"{path}: expected a column 'name' with distinct names; {remedy}")
    return truth.set_index("name").reindex(names).rename_axis("name").reset_index()

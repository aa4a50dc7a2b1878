"""Many cutouts in one HDF5 file, as the public multi-survey collections have them.

The file has `images` (N, bands, side, side) or (N, side, side, bands), or (N, side, side) of one band, with
`ra` and `dec` (N,), and perhaps names. The attributes of `images` or of the file say `bands`, `pixel_scale`,
`zero_point` (one, or one a band), and `scale_factor` and `add_offset` of integers.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lensq.survey.fits import ZERO_POINT, FitsImage
from lensq.survey.hdus import UnusableError
from lensq.survey.images import NO_FLUX
from lensq.survey.planes import band_name, listed_bands
from lensq.survey.split import iau_name

ENDINGS = (".h5", ".hdf5", ".hdf")

_IMAGES = ("images", "image_array", "image", "cutouts")
_NAMES = ("name", "names", "object_id", "objid", "id")
_SCALES = ("pixel_scale", "pixscale", "pxscale", "image_scale")
_ZERO_POINTS = ("zero_point", "zeropoint", "magzero", "mag_zero")


def bundle_of(path: Path) -> Path | None:
    """The HDF5 file of a survey that is one; None for a folder of FITS files.

    Raises:
        ValueError: there are several.
    """
    if path.is_file() and path.suffix in ENDINGS:
        return path
    if not path.is_dir() or any(path.glob("*.fits*")) or (path / "fits_data").is_dir():
        return None
    files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS)
    if len(files) > 1:
        remedy = f"give one of them a folder of its own, such as {files[0]}"
        raise ValueError(f"{path}: {len(files)} HDF5 files; {remedy}, or read it by lensq.read_survey")
    return files[0] if files else None


def bundle_table(path: Path) -> pd.DataFrame:
    """The cutouts of an HDF5 file as `lensq.survey.inventory.take_inventory` lists files: <file>#<row>."""
    import h5py

    with h5py.File(path, "r") as file:
        n = len(_images(file, path))
        names = next((file[key][:].tolist() for key in _NAMES if key in file and len(file[key]) == n), None)
        if names is None:
            places = [file[key][:].astype(float) if key in file else [np.nan] * n for key in ("ra", "dec")]
            names = [iau_name(*place) or f"row{i}" for i, place in enumerate(zip(*places, strict=True))]
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    status = path.stat()
    table = pd.DataFrame({"name": names, "file": [f"{path.name}#{row}" for row in range(n)]})
    table = table.assign(bytes=status.st_size, time=status.st_ctime_ns, band="", by_position=False)
    return table.assign(fate="", detail="").sort_values(["name", "file"], ignore_index=True)


def read_row(path: Path, row: int, *, band: str, zero_point: float) -> tuple[FitsImage, float, float]:
    """One cutout and its position (degrees, NaN if unknown).

    Args:
        path: the HDF5 file.
        row: which one.
        band: the band wanted of several.
        zero_point: AB magnitude of one unit of flux in a file that does not declare it.

    Raises:
        UnusableError: the file does not say which plane is of this band, or has none.
    """
    bundle = _opened(str(path), path.stat().st_ctime_ns)
    images, bands, wanted = bundle.images, bundle.bands, band_name(band)
    count, planes = max(len(bands), 1), images.shape if images.ndim == 4 else (len(images), 1)
    axis = next((axis for axis in (1, 3) if planes[axis : axis + 1] == (count,)), 0)
    if not axis:
        found = f"{planes[1]} planes and {len(bands)} names of bands"
        raise UnusableError("ambiguous", f"{found}: write the attribute bands of {images.name}")
    if wanted not in bands and len(bands) > 1:
        raise UnusableError("no such band", f"{band} was asked for, there are {', '.join(bands)}")
    plane = bands.index(wanted) if wanted in bands else 0
    if any(values.shape[1] not in (1, count) for values in bundle.numbers):
        raise UnusableError("ambiguous", f"zero points or scales for other than {count} bands")
    place = (row,) if images.ndim == 3 else (row, plane) if axis == 1 else (row, ..., plane)
    said = [float(values[row, plane if values.shape[1] > 1 else 0]) for values in bundle.numbers]
    declared, pixel_scale, ra, dec, gain, offset = said
    pixels = images[place]
    pixels = np.where((np.abs(pixels) < NO_FLUX) & (pixels != bundle.fill), pixels * gain + offset, np.nan)
    scale = 10 ** (0.4 * (ZERO_POINT - (zero_point if math.isnan(declared) else declared)))
    pixels = (pixels * np.float32(scale)).astype(np.float32)
    card = "" if math.isnan(declared) else "zero_point"
    ra, dec = (ra, dec) if math.isfinite(ra) and abs(dec) <= 90 else (math.nan, math.nan)
    own = bands[plane] if bands else ""
    return FitsImage(pixels, None, own, bands, declared, card, pixel_scale, b""), ra, dec


class _Bundle(NamedTuple):
    """An open file: its images, their bands, and zero point, pixel scale, position and scaling of each."""

    images: Any
    bands: tuple[str, ...]
    numbers: tuple[np.ndarray, ...]
    fill: float


@lru_cache(maxsize=2)
def _opened(path: str, time: int) -> _Bundle:
    """The file, kept open by the process; `time` of its last change tells one version from another."""
    import h5py

    file = h5py.File(path, "r", rdcc_nbytes=2**26)
    images = _images(file, Path(path))
    numbers = [_numbers(file, images, keys) for keys in (_ZERO_POINTS, _SCALES, ("ra", "RA"), ("dec", "DEC"))]
    numbers += [_numbers(file, images, *each) for each in ((("scale_factor",), 1.0), (("add_offset",), 0.0))]
    fill = float(np.ravel(images.attrs.get("_FillValue", math.nan))[0])
    return _Bundle(images, _bands(file, images), tuple(numbers), fill)


def _images(file, path: Path):
    found = [file[key] for key in _IMAGES if key in file]
    if len(found) != 1 or found[0].ndim not in (3, 4):
        said = ", ".join(f"{key} {file[key].shape}" for key in file if hasattr(file[key], "shape"))
        raise ValueError(f"{path}: expected one array 'images' (N, bands, side, side), there are {said}")
    return found[0]


def _bands(file, images) -> tuple[str, ...]:
    """The bands of the planes, one each."""
    for where in (images.attrs, file.attrs, file):
        for key in ("bands", "image_band"):
            if key in where:
                said = where[key][()] if where is file else where[key]
                said = said.decode() if isinstance(said, bytes) else said
                said = np.asarray(listed_bands(said) if isinstance(said, str) else said)
                if said.ndim == 2 and (said != said[0]).any():
                    raise UnusableError(
                        "ambiguous", f"{key} differs from row to row: bring the bands in one order"
                    )
                said = said[0] if said.ndim == 2 else said
                names = (each.decode() if isinstance(each, bytes) else str(each) for each in said)
                bands = tuple(map(band_name, names))
                if len(set(bands)) < len(bands):
                    raise UnusableError("ambiguous", f"{key} names a band twice: {', '.join(bands)}")
                return bands
    return ()


def _numbers(file, images, keys: tuple[str, ...], default: float = math.nan) -> np.ndarray:
    """(N, 1), or (N, bands), what an attribute or array of one of these names says, or the default."""
    for key in keys:
        for where in (images.attrs, file.attrs, file):
            if key in where:
                values = np.asarray(where[key], float)
                each = where is file and values.shape[:1] == (len(images),)
                if each and keys is _ZERO_POINTS and values.shape == (len(_bands(file, images)),) != (1,):
                    said = f"{key} has a number for each of {len(values)} objects or bands"
                    raise UnusableError("ambiguous", f"{said}: write it as (objects, bands)")
                return values.reshape(len(images), -1) if each else np.tile(values.ravel(), (len(images), 1))
    return np.full((len(images), 1), default)

"""Read many files once, in processes that may die or be stopped, so that no file stops the others."""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import TimeoutError
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from joblib import cpu_count
from pebble import ProcessExpired, ProcessPool
from tqdm import tqdm

from lensq.survey.bundle import ENDINGS, read_row
from lensq.survey.fits import ZERO_POINT, in_one_line, limit_memory, read_image
from lensq.survey.hdus import UnusableError
from lensq.survey.images import PIXEL_SCALE, fit_to_size
from lensq.survey.planes import band_name, band_names
from lensq.survey.processes import process_pool

FILES_IN_A_PART = 256
BYTES_IN_A_PART = 2**26
"""Most files, and bytes of images and masks, that a process reads at a time."""

FILES_WORTH_A_PROCESS = 512
"""Fewest files for which starting another process pays."""

PART_TIME_LIMIT = 60.0
"""Seconds after which the files of a part are read one by one, with `TIME_LIMIT` each."""

TIME_LIMIT = 10.0
"""Seconds after which a file that is read by itself is refused."""


def home_of(survey: Path) -> Path:
    """The folder of a survey's lists and `survey.yml`: the survey itself, or where its HDF5 file is."""
    return survey if survey.is_dir() else survey.parent


def declared_of(folder: Path) -> dict[str, Any]:
    """What `survey.yml` beside the images of a survey says: fields of `Reading`, and a note to the reader.

    Raises:
        ValueError: it says something else.
    """
    path = home_of(folder) / "survey.yml"
    if (other := path.with_suffix(".yaml")).is_file():
        raise ValueError(f"{other}: the file that says how a folder is read is {path.name}: rename it")
    if not path.is_file():
        return {}
    kinds = {"band": str, "note": str, "bands": (str, list)}
    kinds |= dict.fromkeys(("scale", "zero_point", "pixel_scale"), (int, float))
    try:
        declared = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if wrong := [n for n, value in declared.items() if not isinstance(value, kinds.get(n, ()))]:
            raise ValueError(f"not understood: {', '.join(map(str, wrong))}")
        declared = _one_of(**declared)
        Reading(**{name: value for name, value in declared.items() if name != "note"})
    except (yaml.YAMLError, AttributeError, ValueError) as error:
        remedy = "it may hold band or bands, a note (text), scale, zero_point, pixel_scale (numbers)"
        raise ValueError(f"{path}: {' '.join(str(error).split())}; {remedy}") from error
    return declared


@dataclass(frozen=True)
class Reading:
    """How files become images.

    Attributes:
        size, resize: as in `lensq.survey.images.fit_to_size`.
        band: the band to read; the reference band of several: i where it is among them, else the first.
        scale: arcseconds a pixel that images are brought to by interpolation; None leaves them as they are.
        zero_point: AB magnitude of one unit of flux in files that do not declare it.
        pixel_scale: arcseconds a pixel of files that do not declare it.
        bands: the bands to read, in the order of the channels; empty where it is `band` alone.
        missing_band: what becomes of an object that lacks some of several bands: "quarantine", or "mask",
            which keeps it with these bands masked.
    """

    size: int = 48
    resize: bool = False
    band: str = "i"
    scale: float | None = None
    zero_point: float = ZERO_POINT
    pixel_scale: float = PIXEL_SCALE
    bands: tuple[str, ...] = ()
    missing_band: str = "quarantine"

    @classmethod
    def of(cls, folder: Path, **given) -> Reading:
        """How a survey is read: as it is given, else as `survey.yml` beside its images says, else by default.

        `bands` may be given as `lensq.survey.planes.band_names` takes them; one is the same as `band`.

        Raises:
            ValueError: `survey.yml` says something else than band or bands, scale, zero_point and
                pixel_scale, or `band` and `bands` are given and differ.
        """
        declared = declared_of(folder)
        declared.pop("note", None)
        given = _one_of(**given)
        if "band" in given:
            declared.pop("bands", None)
        return cls(**(declared | given))

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size: expected a positive number of pixels, got {self.size}")
        if self.missing_band not in ("quarantine", "mask"):
            raise ValueError(f"missing_band: expected 'quarantine' or 'mask', got {self.missing_band!r}")
        if self.resize and self.scale:
            raise ValueError("scale and resize both interpolate: give one of them")
        for name in ("scale", "pixel_scale"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected arcseconds a pixel, got {getattr(self, name)}")
        if not math.isfinite(self.zero_point):
            raise ValueError(f"zero_point: expected an AB magnitude, got {self.zero_point}")

    @property
    def bytes(self) -> int:
        """Bytes of the image of one band and its mask."""
        return 5 * self.size**2

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image of an object: (size, size), or (C, size, size) of several bands."""
        return (len(self.bands),) * bool(self.bands) + (self.size, self.size)

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the pixels; of one band what it was before there could be several."""
        several = () if self.bands else ("bands", "missing_band")
        how = asdict(self) | {"bands": list(self.bands)}  # as JSON gives it back
        return {name: value for name, value in how.items() if name not in several}

    @property
    def kind(self) -> str:
        """Name of the folder of a store that is read in this way."""
        said = [str(self.size), "resize" if self.resize else "crop"]
        band = "+".join(self.bands) or self.band
        said += [band.replace("/", "")] * (band != "i") + [f"{self.scale}"] * bool(self.scale)
        said += [self.missing_band] * (self.missing_band != "quarantine" and bool(self.bands))
        return "-".join(said)


def _one_of(**given) -> dict[str, Any]:
    """Ways of reading in which `bands` are several, and `band` is the one or the reference band."""
    given |= {"band": band_name(given["band"])} if "band" in given else {}
    if (bands := given.pop("bands", None)) is None:
        return given
    names = band_names(bands)
    if "band" in given and band_names([given["band"]]) != names:
        raise ValueError(f"band={given['band']!r} and bands={bands!r} differ: give one of them")
    if len(names) == 1:
        return given | {"band": names[0]}
    return given | {"band": "i" if "i" in names else names[0], "bands": names}


# What is known of a file after it was read, beside its path: reason and detail of the quarantine, "" when
# usable; position by its WCS (degrees, where wanted); shorter side of its image; CRC of the packed image and
# mask; band, zero point and pixel scale as in `lensq.survey.fits.FitsImage`, noise as in `Survey`.
_UNREAD = {"reason": "", "detail": "", "side": 0, "digest": 0, "band": "", "zero_point_from": ""}
_UNREAD |= dict.fromkeys(("ra", "dec", "zero_point", "pixel_scale", "noise"), math.nan)

Wanted = tuple[str, bool, str]
"""A file's path in the folder ("" for none), whether its position is wanted, and the band of its image."""

Part = tuple[list[dict], bytes, bytes]
"""Records of some files; images (float32) and masks (bool) of the usable ones, one after another."""


def read_files(
    folder: Path, files: list[Wanted], how: Reading, workers: int | None, progress: bool
) -> Iterator[Part]:
    """Read any number of files, in their order.

    Args:
        folder: where they are.
        files: what is wanted of each.
        how: how they become images.
        workers: number of processes; None takes as many as there are processors to use and files to keep
            them busy.
        progress: whether to show a progress bar.

    Yields:
        What became of the next of them.
    """
    if workers is None:
        workers = min(cpu_count(), len(files) // FILES_WORTH_A_PROCESS)
    workers = max(workers, 1)
    length = min(FILES_IN_A_PART, BYTES_IN_A_PART // how.bytes + 1, len(files) // (8 * workers) + 1)
    parts = (files[start : start + length] for start in range(0, len(files), length))
    bar = tqdm(total=len(files), desc="reading cutouts", unit="file", disable=not progress)
    with bar, process_pool(workers, limit_memory) as pool:

        def begun(part: list) -> tuple:
            return part, pool.schedule(read_part, (folder, part, how), timeout=PART_TIME_LIMIT)

        waiting = deque(map(begun, islice(parts, 4 * workers)))  # so few wait to be taken
        while waiting:
            part, future = waiting.popleft()
            try:
                done = [future.result()]
            except (TimeoutError, ProcessExpired):
                done = (_read_alone(pool, folder, file, how) for file in part)
            for some in done:
                bar.update(len(some[0]))
                yield some
            waiting.extend(map(begun, islice(parts, 1)))


def _read_alone(pool: ProcessPool, folder: Path, file: Wanted, how: Reading) -> Part:
    try:
        return pool.schedule(read_part, (folder, [file], how), timeout=TIME_LIMIT).result()
    except TimeoutError:
        said = f"reading it takes longer than {TIME_LIMIT:g} s"
    except ProcessExpired as error:
        said = f"reading it kills the process (exit code {error.exitcode})"
    return [_refused(file[0], "unreadable", said)], b"", b""


def _refused(file: str, reason: str, detail: str) -> dict[str, Any]:
    return _UNREAD | {"file": file, "reason": reason, "detail": detail}


def read_part(folder: Path, files: list[Wanted], how: Reading) -> Part:
    """Read some files in this process, which they may abort; arguments as in `read_files`."""
    records, images, masks = [], [], []
    for file, wanted, band in files:
        try:
            record, pixels, mask = _read(folder, file, wanted, band, how)
        except UnusableError as error:
            record = _refused(file, error.reason, error.detail)
        except Exception as error:  # what a library has not foreseen is no reason to stop the survey
            record = _refused(file, "unreadable", in_one_line(error))
        else:
            images.append(pixels.tobytes())
            masks.append(mask.tobytes())
        records.append(record)
    return records, b"".join(images), b"".join(masks)


def _read(
    folder: Path, file: str, wanted: bool, band: str, how: Reading
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    if not file:
        raise UnusableError("no such band", f"there is no file of band {band}")
    ra = dec = math.nan
    name, _, row = file.rpartition("#")
    if row.isdecimal() and name.endswith(ENDINGS):
        image, ra, dec = read_row(folder / name, int(row), band=band, zero_point=how.zero_point)
    else:
        image = read_image(folder / file, band=band, zero_point=how.zero_point)
        if wanted:
            ra, dec = image.position()
    native = how.pixel_scale if math.isnan(image.pixel_scale) else image.pixel_scale
    zoom = native / how.scale if how.scale else 1.0
    pixels, mask = fit_to_size(image.pixels, how.size, how.resize, zoom)
    _check_content(pixels, mask)
    digest = zlib.crc32(mask, zlib.crc32(pixels))
    said = {"file": file, "ra": ra, "dec": dec, "digest": digest, "side": min(image.pixels.shape)}
    said |= {n: getattr(image, n) for n in ("band", "zero_point", "zero_point_from", "pixel_scale")}
    if not (how.resize or zoom != 1):  # interpolation changes it
        said["noise"] = image.noise
    return _UNREAD | said, pixels, mask


def _check_content(pixels: np.ndarray, mask: np.ndarray) -> None:
    """Refuse a stamp in which nothing can be seen."""
    real = pixels[mask]
    if not real.size:
        raise UnusableError("no finite pixel", f"in the stamp of {len(mask)} x {len(mask)} px")
    if real.min() == real.max():
        where = f"all {real.size} finite pixels of the stamp of {len(mask)} x {len(mask)} px"
        raise UnusableError("constant", f"{real.flat[0]:g} in {where}")

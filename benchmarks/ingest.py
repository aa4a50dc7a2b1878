"""How much faster is packing a survey than plain loops of astropy and fitsio over its files?

    python benchmarks/ingest.py --files 30000 --json ingest.json

All read the same files, warm in the page cache, to the same arrays (checked), in turns within one run.
"read_image" is lensq's reader of one file in a loop, which also checks headers and finds band and flux scale.
The survey's time is that of the first `lensq.read_survey` of a folder: listing, starting processes,
reading, packing, grouping, index. The files look like HSC cutouts: a header-only HDU 0 with FLUXMAG0 and
HIERARCH keywords, the image with its WCS in HDU 1.
"""

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fitsio
import numpy as np
from astropy.io import fits
from report import machine, write
from report import options as make_options

from lensq.survey.fits import read_image
from lensq.survey.survey import read_survey

DISTINCT = 1000


def make_survey(folder: Path, n: int, side: int) -> list[Path]:
    """Write n cutouts, `DISTINCT` of them by astropy and the others as copies under other names."""
    rng = np.random.default_rng(1)
    (folder / "fits_data").mkdir()
    paths = []
    for i in range(n):
        hours, minutes, seconds = i // 3600 % 24, i // 60 % 60, i % 60
        paths.append(
            folder / "fits_data" / f"J{hours:02}{minutes:02}{seconds:02}.00+000000.00_HSC-I_img.fits"
        )
        if i >= DISTINCT:
            shutil.copyfile(paths[i % DISTINCT], paths[i])
            continue
        first = fits.PrimaryHDU()
        first.header["FLUXMAG0"] = 10**10.8
        first.header["FILTER"] = "i"
        first.header["HIERARCH TRANSMISSION_CURVE_ID"] = 73349
        second = fits.ImageHDU(rng.normal(0, 0.05, (side, side)).astype(np.float32))
        second.header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRPIX1=-1408.0, CRPIX2=2646.0)
        second.header.update(CRVAL1=150.2, CRVAL2=2.2, CD1_1=-4.67e-5, CD2_2=4.67e-5, LTV1=-19408.0)
        fits.HDUList([first, second]).writeto(paths[i])
    return paths


def astropy_loop(paths: list[Path]) -> np.ndarray:
    images = []
    for path in paths:
        with fits.open(path) as hdus:
            images.append(np.array(hdus[1].data, np.float32))
    return np.array(images)


def fitsio_loop(paths: list[Path]) -> np.ndarray:
    images = []
    for path in paths:
        with fitsio.FITS(str(path)) as file:
            images.append(file[1].read())
    return np.array(images)


def lensq_loop(paths: list[Path]) -> np.ndarray:
    return np.array([read_image(path).pixels for path in paths])


@contextmanager
def measured(times: list[tuple[float, float]]) -> Iterator[None]:
    """Append the seconds that pass, and the seconds of processor time that this and child processes take."""
    elapsed, processor = time.perf_counter(), processor_time()
    yield
    times.append((time.perf_counter() - elapsed, processor_time() - processor))


def processor_time() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    options = make_options(__doc__)
    options.add_argument("--files", type=int, default=30_000)
    options.add_argument("--side", type=int, default=47, help="pixels")
    options.add_argument("--workers", type=int, default=None, help="processes that read; default: all cores")
    options.add_argument("--rounds", type=int, default=2)
    given = options.parse_args()
    began = machine()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = make_survey(folder, given.files, given.side)
        plain, bare, single, packed, again = [], [], [], [], []
        for _ in range(given.rounds):
            with measured(plain):
                expected = astropy_loop(paths)
            for times, loop in ((bare, fitsio_loop), (single, lensq_loop)):
                with measured(times):
                    images = loop(paths)
                if not np.array_equal(images, expected):
                    raise SystemExit(f"{loop.__name__} differs from astropy")
            shutil.rmtree(folder / "packed", ignore_errors=True)
            for times in (packed, again):
                with measured(times):
                    survey = read_survey(folder, size=given.side, workers=given.workers, progress=False)
            if not np.array_equal(survey.images, expected):
                raise SystemExit("the packed images differ from astropy's")
        sizes = {
            "FITS file": paths[0].stat().st_size,
            "packed store": sum(file.stat().st_size for file in (folder / "packed").rglob("*")) / given.files,
        }
    loops = {"astropy loop": plain, "fitsio loop": bare, "read_image": single}
    loops |= {"read_survey": packed, "opened again": again}
    plain, packed, single = np.array(plain), np.array(packed), np.array(single)
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{given.files} files of {given.side} x {given.side} px; {cores} cores, load {load:.1f}")
    figures = [{"what": what, "value": round(n, 1), "unit": "bytes/image"} for what, n in sizes.items()]
    for name, times in loops.items():
        elapsed, processor = np.median(times, axis=0)
        figures.append({"what": name, "value": round(given.files / elapsed, 1), "unit": "images/s"})
        a_core = round(given.files / processor, 1)
        figures.append({"what": f"{name}, a core", "value": a_core, "unit": "images/s"})
        print(f"{name:12} {elapsed:7.3f} s {given.files / elapsed:9.0f} images/s, {processor:7.3f} s of CPU")
    ratios = plain / packed
    print(f"ratio of times           {np.median(ratios[:, 0]):5.1f} (rounds: {ratios[:, 0].round(1)})")
    print(f"ratio of processor times {np.median(ratios[:, 1]):5.1f} (rounds: {ratios[:, 1].round(1)})")
    single = np.median(plain[:, 1] / single[:, 1])
    print(f"read_image alone         {single:5.1f} times the astropy loop, a core")
    medians = dict(zip(("time", "processor time"), np.median(ratios, axis=0).tolist(), strict=True))
    write(given, "packing a survey of FITS files against a loop of astropy", figures, medians, began)


if __name__ == "__main__":
    main()

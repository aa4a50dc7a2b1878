"""Damaged FITS files: each has to be read as astropy and fitsio read it, or refused, in 2 s and 500 MB.

    python tests/damaged.py --count 10000 --seed 0 --folder scratch

prints how many were refused, how many agreed, and the seeds of those that did neither.
"""

import argparse
import bz2
import gzip
import io
import time
import warnings
from collections import Counter
from concurrent.futures import TimeoutError as NoAnswerError
from pathlib import Path

import numpy as np
from astropy.io import fits
from pebble import ProcessExpired, ProcessPool

from lensq.survey.fits import FitsImage, limit_memory, read_image
from lensq.survey.hdus import UnusableError

SECONDS, MEGABYTES = 2, 500
NUMBERS = (
    *(
        "0",
        "1",
        "-1",
        "2",
        "3",
        "7",
        "8",
        "16",
        "-32",
        "-64",
        "32",
        "33",
        "64",
        "100",
        "1000",
        "65536",
        "999",
    ),
    *(
        "2147483647",
        "-2147483648",
        "4294967296",
        "9223372036854775807",
        "1E300",
        "-1E-300",
        "1D3",
        "0.5",
        "nan",
    ),
    *("T", "F", "'x'", "''", "1 2", "", "'IMAGE   '", "'BINTABLE'", "'TABLE   '", "'RICE_1  '", "'GZIP_1  '"),
)
KEYWORDS = (
    *(
        "SIMPLE",
        "XTENSION",
        "BITPIX",
        "NAXIS",
        "NAXIS1",
        "NAXIS2",
        "NAXIS3",
        "PCOUNT",
        "GCOUNT",
        "TFIELDS",
        "END",
    ),
    *(
        "BSCALE",
        "BZERO",
        "BLANK",
        "ZIMAGE",
        "ZBITPIX",
        "ZNAXIS",
        "ZNAXIS1",
        "ZNAXIS2",
        "ZTILE1",
        "ZTILE2",
        "THEAP",
    ),
    *("ZCMPTYPE", "ZQUANTIZ", "ZDITHER0", "ZBLANK", "ZVAL1", "ZVAL2", "TFORM1", "TTYPE1", "TFORM2", "TTYPE2"),
    *("EXTEND", "GROUPS", "FLUXMAG0", "EXTNAME", "EXTTYPE", "BANDS", "CTYPE1", "CD1_1", "ZNAME1", "INHERIT"),
)


def as_bytes(*hdus) -> bytes:
    buffer = io.BytesIO()
    fits.HDUList([*hdus]).writeto(buffer)
    return buffer.getvalue()


def sources(shared: Path | None) -> list[bytes]:
    """Files of every kind: number formats, compression, planes, bands, cubes, and real ones if there are."""
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, (48, 52)).astype("f4")
    whole = (image * 100).astype("i2")
    named = [fits.ImageHDU(image + 10 * k, name=name) for k, name in enumerate("GRIZ")]
    planes = [
        fits.ImageHDU(image, name="IMAGE"),
        fits.ImageHDU(whole.astype("i4"), name="MASK"),
        fits.ImageHDU(np.full_like(image, 7), name="VARIANCE"),
    ]
    planes[0].header["FLUXMAG0"], planes[1].header["MP_BAD"] = 10**10.8, 0
    cube = fits.PrimaryHDU(np.stack([image + 10 * k for k in range(4)]))
    cube.header["BANDS"] = "griz"
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(30))])
    made = [
        as_bytes(fits.PrimaryHDU(whole.astype(kind)))
        for kind in ("u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8")
    ]
    scaled = fits.ImageHDU(whole)
    scaled.header["BLANK"] = 7
    scaled.scale("int16", bscale=0.5, bzero=3)
    first = fits.PrimaryHDU()
    made += [as_bytes(first, fits.ImageHDU(image)), as_bytes(first, scaled), as_bytes(first, *planes)]
    made += [as_bytes(first, *named), as_bytes(cube, table), as_bytes(first, table, fits.ImageHDU(image))]
    made += [as_bytes(fits.PrimaryHDU(image), *planes[1:]), as_bytes(first, fits.ImageHDU(whole), planes[2])]
    made += [gzip.compress(made[6]), bz2.compress(made[8]), gzip.compress(made[10])]
    for method in ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"):
        for data in (whole.astype("i4"), abs(whole), image):
            if method == "PLIO_1" and data.dtype != "i2":
                continue
            for tile in ((1, 52), (16, 26), (48, 52)):
                if method != "HCOMPRESS_1" or tile[0] > 1:
                    made.append(
                        as_bytes(first, fits.CompImageHDU(data, compression_type=method, tile_shape=tile))
                    )
    made.append(gzip.compress(made[-1]))
    if shared:
        real = [path for path in sorted(shared.rglob("*.fits*")) if path.stat().st_size < 300_000]
        made += [path.read_bytes() for path in real[::5]]
    return made


def damaged(kinds: list[bytes], seed: int) -> bytes:
    """One of the files with flipped bytes, a piece cut out, spliced or at the end, or other header cards."""
    rng = np.random.default_rng([20, seed])
    content = bytearray(kinds[rng.integers(len(kinds))])
    if rng.random() < 0.2 and content[:2] in (b"\x1f\x8b", b"BZ"):
        content = bytearray((gzip if content[:2] == b"\x1f\x8b" else bz2).decompress(content))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        cards = [at for at in range(0, len(content), 80) if content[at + 8 : at + 10] == b"= "]
        kind = rng.choice(
            ["flip", "data", "data", "header", "cut", "splice", "card", "card", "drop", "twice"]
        )
        at = int(rng.integers(len(content)))
        if kind == "flip" or not cards:
            for where in rng.integers(0, len(content), rng.integers(1, 30)):
                content[where] = rng.integers(256)
        elif kind == "data":
            for where in rng.integers(cards[-1], len(content), rng.integers(1, 30)):
                content[where] = rng.integers(256)
        elif kind == "header":
            for where in rng.choice(cards, rng.integers(1, 4)):
                content[min(where + rng.integers(80), len(content) - 1)] = rng.choice(
                    [0, 1, 32, 48, 57, 65, 255]
                )
        elif kind == "cut":
            end = at + int(rng.integers(1, 5000)) if rng.random() < 0.5 else len(content)
            del content[max(at, 1) : end]
        elif kind == "splice":
            other = kinds[rng.integers(len(kinds))]
            start = int(rng.integers(len(other))) // 80 * 80
            content[at // 80 * 80 : at // 80 * 80] = other[start : start + int(rng.integers(1, 9000))]
        else:
            known = [at for at in cards if bytes(content[at : at + 8]).decode("latin-1").strip() in KEYWORDS]
            at = int(rng.choice(known or cards))
            card = bytes(content[at : at + 80])
            if kind == "card":
                card = card[:10] + f"{rng.choice(NUMBERS):>20}".encode().ljust(70)[:70]
                content[at : at + 80] = card
            elif kind == "drop":
                content[at : at + 80] = b"COMMENT ".ljust(80)
            else:
                to = int(rng.choice(cards))
                content[to : to + 80] = card
    return bytes(content)


def ours(path: Path) -> tuple[FitsImage | UnusableError, float, float]:
    """What lensq makes of a file, the seconds it takes, and the megabytes by which the process has grown."""
    import resource

    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        result = read_image(path)
    except UnusableError as error:
        result = error
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
    return result, time.process_time() - began, grown


def theirs(path: Path, content: bytes, image: FitsImage, which: str) -> bool | None:
    """Whether astropy or fitsio reads the same pixels from the same HDU; None if it refuses that HDU."""
    if content[:2] in (b"\x1f\x8b", b"BZ"):
        content = (gzip if content[:2] == b"\x1f\x8b" else bz2).decompress(content)
    start = content.find(image.header)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if which == "astropy":
                with fits.open(io.BytesIO(content)) as hdus:
                    hdu = next(hdus[k] for k in range(99) if hdus[k].fileinfo()["hdrLoc"] == start)
                    pixels = np.asarray(hdu.data, np.float64)
            else:
                import fitsio

                with fitsio.FITS(str(path)) as file:
                    hdu = next(file[k] for k in range(99) if file[k].get_offsets()["header_start"] == start)
                    pixels = hdu.read().astype(np.float64)
        except Exception:
            return None
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    if pixels.shape[1:] != image.pixels.shape:
        return False
    plane = pixels[image.bands.index(image.band) if len(pixels) > 1 else 0]
    zero_point = image.zero_point if np.isfinite(image.zero_point) else 27.0
    with np.errstate(over="ignore", invalid="ignore"):
        plane = (plane * 10 ** (0.4 * (27 - zero_point))).astype("f4")
    seen = ~np.isnan(image.pixels)
    return np.allclose(image.pixels[seen], plane[seen], 1e-5, 0, equal_nan=True)


def fate(pool: ProcessPool, path: Path, content: bytes) -> str:
    """ "refused", "agreed", or what is wrong with what becomes of a damaged file."""
    path.write_bytes(content)
    try:
        result, seconds, grown = pool.schedule(ours, args=[path], timeout=5 * SECONDS).result()
    except NoAnswerError:
        return "hung"
    except ProcessExpired:
        return "died"
    if seconds > SECONDS or grown > MEGABYTES:
        return f"costly ({seconds:.1f} s, {grown:.0f} MB)"
    if isinstance(result, UnusableError):
        return "refused"
    opinions = []
    for which in ("astropy", "fitsio"):
        try:
            opinions.append(pool.schedule(theirs, args=[path, content, result, which], timeout=10).result())
        except (NoAnswerError, ProcessExpired):
            opinions.append(None)
    if False in opinions:
        return f"wrong, astropy {opinions[0]}, fitsio {opinions[1]}"
    return (
        "agreed" if None not in opinions else "agreed with one" if True in opinions else "read by lensq alone"
    )


def fates(folder: Path, seeds: range, shared: Path | None) -> dict[int, str]:
    """What becomes of the damaged files of some seeds."""
    kinds = sources(shared)
    with ProcessPool(1, initializer=limit_memory) as pool:
        return {seed: fate(pool, folder / f"damaged_{seed}.fits", damaged(kinds, seed)) for seed in seeds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--folder", type=Path, required=True, help="where the files are written")
    parser.add_argument("--shared", type=Path, default=None, help="a folder of real files")
    given = parser.parse_args()
    found = fates(given.folder, range(given.seed, given.seed + given.count), given.shared)
    print(Counter(found.values()))
    print(
        {seed: what for seed, what in found.items() if what not in ("refused", "agreed", "agreed with one")}
    )

"""One FITS file to the pixels of one image.

Headers are checked first (`lensq.survey.hdus`), the image is chosen by them (`lensq.survey.planes`), fitsio
decodes it, astropy what fitsio does not. Compressed tiles, whose damage can stop or loop the libraries, are
decoded by both in a process that may die, and have to come out the same.
"""

from __future__ import annotations

import bz2
import io
import math
import os
import pickle
import re
import subprocess
import sys
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lensq.survey.hdus import Hdu, UnusableError, walk
from lensq.survey.planes import bad_bits, choose, companions_of, linear, pixel_scale, to_variance
from lensq.survey.planes import zero_point as declared_zero_point

ZERO_POINT = 27.0
"""AB magnitude of a flux of one in the images that come out of here."""

SMALLEST_SIDE = 32
LARGEST_SIDE = 2048
"""Least and greatest side of an image, in pixels, that can be a cutout."""

LARGEST_FILE = 2**27
"""Bytes, after decompression, beyond which a file is no cutout."""

TIME_LIMIT = 10.0
"""Seconds after which a process that reads one file is stopped."""

_EMPTY = ("truncated", "empty file")
_FOR_FITSIO = re.compile(r"/[\w/.+,:=@%^ -]*\w")  # it takes brackets in a path, and more, for its syntax


@dataclass(frozen=True)
class FitsImage:
    """The image of a FITS file.

    Attributes:
        pixels: (height, width) float32 flux at zero point 27.0, NaN where the file has no data or its
            mask says so.
        variance: (height, width) float32, of the same flux squared; None where the file has none.
        band: "i", "g", ... or what the file calls it; "" if it does not say.
        bands: all bands of the file.
        zero_point: AB magnitude that the file declares for one unit of its flux; NaN if it declares none.
        zero_point_from: the card that declares it, or "".
        pixel_scale: arcseconds a pixel by the WCS; NaN without one.
        header: header of the image's HDU, as it is in the file.
    """

    pixels: np.ndarray
    variance: np.ndarray | None
    band: str
    bands: tuple[str, ...]
    zero_point: float
    zero_point_from: str
    pixel_scale: float
    header: bytes

    @property
    def side(self) -> int:
        """The shorter side, in pixels."""
        return min(self.pixels.shape)

    def position(self) -> tuple[float, float]:
        """Right ascension and declination (ICRS, degrees) of the image's middle; NaN without a WCS."""
        from astropy.io.fits import Header
        from astropy.wcs import WCS

        height, width = self.pixels.shape
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                wcs = WCS(Header.fromstring(self.header))
                if not wcs.has_celestial:
                    return math.nan, math.nan
                sky = wcs.celestial.pixel_to_world((width - 1) / 2, (height - 1) / 2).icrs
                return float(sky.ra.deg), float(sky.dec.deg)
            except Exception:  # a header can be wrong in more ways than astropy has exceptions for
                return math.nan, math.nan


class RiskyError(Exception):
    """A file that has to be read by a process that may die, with a time limit."""


def read_image(path: Path | str, *, band: str = "i", zero_point: float | None = None) -> FitsImage:
    """Read the image of a cutout; see `lensq.survey.planes.choose` for which it is.

    Args:
        path: the file, plain or compressed with gzip, bzip2 or fpack, which its content tells.
        band: the band wanted of a file that has several.
        zero_point: AB magnitude of one unit of flux in a file that does not declare it; default 27.0.

    Returns:
        The image, of 32 x 32 to 2,048 x 2,048 pixels.

    Raises:
        UnusableError: there is no such image, or not one alone.
    """
    options = {"band": band, "zero_point": zero_point}
    try:
        return decode(path, **options)
    except RiskyError:
        request = pickle.dumps((os.path.abspath(path), options))
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from lensq.survey import fits; fits.answer()"],
            input=request,
            capture_output=True,
            timeout=TIME_LIMIT,
            check=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
    except subprocess.TimeoutExpired:
        raise UnusableError("unreadable", f"reading it takes longer than {TIME_LIMIT:g} s") from None
    except subprocess.CalledProcessError as error:
        raise UnusableError("unreadable", f"reading it kills the process ({error.returncode})") from None
    result = pickle.loads(done.stdout)
    if isinstance(result, UnusableError):
        raise result
    return result


def answer() -> None:
    """Read, in a process of its own, the file that standard input names; the result goes to standard output."""
    path, options = pickle.load(sys.stdin.buffer)
    limit_memory()
    try:
        result = decode(path, **options, risky=True)
    except UnusableError as error:
        result = error
    sys.stdout.buffer.write(pickle.dumps(result))


def decode(
    path: Path | str, *, band: str = "i", zero_point: float | None = None, risky: bool = False
) -> FitsImage:
    """Read the image of a cutout in this process, as `read_image` does.

    Args:
        path, band, zero_point: as there.
        risky: whether this process may die, or be stopped when it takes longer than `TIME_LIMIT`. Call
            `limit_memory` in it first.

    Raises:
        RiskyError: it takes such a process.
        UnusableError: as there.
    """
    try:
        return _decode(path, band, zero_point, risky)
    except (UnusableError, RiskyError):
        raise
    except OSError as error:
        raise UnusableError("unreadable", error.strerror or _in_words(error)) from error
    except Exception as error:  # libraries meet damage with exceptions of every kind
        raise UnusableError("unreadable", f"{type(error).__name__}: {_in_words(error)}") from error


def limit_memory() -> None:
    """Let this process take 500 MB more than it has; for those that decode risky files."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[5])
        most = pages * resource.getpagesize() + 500_000_000
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    except (ImportError, OSError, ValueError):  # not Linux
        pass


def _decode(path: Path | str, band: str, default: float | None, risky: bool) -> FitsImage:
    stored = _content(path)
    content = _decompressed(stored)
    if not content.startswith(b"SIMPLE"):
        raise UnusableError(*(("not FITS", f"begins with {content[:24]!r}") if content else _EMPTY))
    hdus: list[Hdu] = []
    damage = None
    try:
        for hdu in walk(content):
            hdus.append(hdu)
    except UnusableError as error:  # damage further on does no harm to an image before it
        damage = error
    choice = choose(hdus, band, os.fspath(path), damage)
    _check(choice.hdu, len(content))
    declared, card = declared_zero_point(choice.hdu, hdus[0])
    scale = 10 ** (0.4 * (ZERO_POINT - (declared if card else ZERO_POINT if default is None else default)))
    scale = np.float32(scale if abs(scale - 1) > 1e-6 else 1)
    file = _File(os.path.abspath(path) if stored is content else "", content, risky)
    pixels = linear(file.plane(choice.hdu, choice.plane), choice.hdu)
    pixels = np.ascontiguousarray(pixels if scale == 1 else pixels * scale, np.float32)
    variance, mask = companions_of(choice, hdus)
    if mask and mask.end <= len(content) and (bits := bad_bits(mask, choice.band)):
        pixels[np.nan_to_num(file.plane(mask, choice.plane), nan=-1).astype(np.int64) & bits != 0] = np.nan
    if variance and variance.end <= len(content):
        variance = to_variance(file.plane(variance, choice.plane), variance) * scale**2
    else:
        variance = None
    return FitsImage(
        *(
            pixels,
            variance,
            choice.band,
            choice.bands,
            declared,
            card,
            pixel_scale(choice.hdu),
            choice.hdu.header,
        )
    )


def _check(hdu: Hdu, length: int) -> None:
    smallest, largest = min(hdu.shape[-2:]), max(hdu.shape[-2:])
    if largest > LARGEST_SIDE or math.prod(hdu.shape) > LARGEST_FILE:
        raise UnusableError(
            "wrong dimensions", f"{hdu.in_words()}; a cutout has at most {LARGEST_SIDE} px a side"
        )
    if smallest < SMALLEST_SIDE:
        raise UnusableError("under 32 px", hdu.in_words())
    if hdu.end > length:
        raise UnusableError("truncated", f"the image ends at byte {hdu.end}, the file at {length}")


class _File(NamedTuple):
    """A file whose HDUs the libraries read: where it is, if it is there as it is; its bytes."""

    path: str
    content: bytes
    risky: bool

    def plane(self, hdu: Hdu, plane: int | None) -> np.ndarray:
        """The (height, width) numbers of an HDU, or of one plane of its cube."""
        scale, zero = hdu.number("BSCALE", 1.0), hdu.number("BZERO", 0.0)
        if not (math.isfinite(scale) and scale and math.isfinite(zero)):
            raise hdu.damaged(f"BSCALE {scale:g} and BZERO {zero:g}")
        pixels = self._read(hdu)
        shape = pixels.shape
        while len(shape) > 2 and shape[0] == 1:
            shape = shape[1:]
        bits = hdu.integer("ZBITPIX" if hdu.compressed else "BITPIX", -64, 64)
        promised = f"{'f' if bits < 0 else 'u' if bits == 8 else 'i'}{abs(bits) // 8}"
        scaled = hdu.cards.keys() & {"BSCALE", "BZERO", "BLANK"}
        if shape != hdu.shape or (not scaled and pixels.dtype.newbyteorder("=") != promised):
            raise UnusableError("unreadable", f"{hdu.in_words()} becomes {shape}, {pixels.dtype}")
        pixels = pixels.reshape(shape)
        return pixels[plane] if plane is not None and len(shape) == 3 else pixels

    def _read(self, hdu: Hdu) -> np.ndarray:
        blank_and_scaled = "BLANK" in hdu.cards and hdu.cards.keys() & {"BSCALE", "BZERO"}
        by_fitsio = _FOR_FITSIO.fullmatch(self.path) and not blank_and_scaled
        if hdu.compressed:
            if not self.risky:
                raise RiskyError
            pixels = self._by_astropy(hdu)
            if by_fitsio:
                other = self._by_fitsio(hdu)
                if other.shape != pixels.shape or not np.allclose(other, pixels, 1e-5, 0, equal_nan=True):
                    raise UnusableError("unreadable", "fitsio and astropy differ on the compressed tiles")
            return pixels
        if by_fitsio:
            try:
                return self._by_fitsio(hdu)
            except (OSError, ValueError, RuntimeError):
                if not self.risky:
                    raise RiskyError from None
        return self._by_astropy(hdu)

    def _by_fitsio(self, hdu: Hdu) -> np.ndarray:
        import fitsio

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fitsio.FITS(self.path) as file:
                self._same(hdu, file[hdu.index].get_offsets()["data_start"])
                pixels = file[hdu.index].read()
        if "BLANK" in hdu.cards and pixels.dtype.kind in "iu":  # which fitsio takes for a number
            return np.where(pixels == hdu.integer("BLANK", -(2**63), 2**63), np.nan, pixels)
        return pixels

    def _by_astropy(self, hdu: Hdu) -> np.ndarray:
        from astropy.io import fits

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(io.BytesIO(self.content), character_as_bytes=True) as hdus:
                self._same(hdu, hdus[hdu.index].fileinfo()["datLoc"])
                return np.asarray(hdus[hdu.index].data)

    def _same(self, hdu: Hdu, start: int) -> None:
        if start != hdu.start:
            raise UnusableError(
                "unreadable", f"HDU {hdu.index} begins at byte {hdu.start}, and at {start} as well"
            )


def _content(path: Path | str) -> bytes:
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would be waited for
    try:
        length = os.fstat(file).st_size
        if length > LARGEST_FILE:
            raise UnusableError("unreadable", f"{length} bytes are too many for a cutout")
        content = os.read(file, length)
        while len(content) < length and (more := os.read(file, length - len(content))):
            content += more
        return content
    finally:
        os.close(file)


def _decompressed(content: bytes) -> bytes:
    """Undo gzip or bzip2, or return the very same object."""
    if content.startswith(b"\x1f\x9d"):
        raise UnusableError("unreadable", "compressed with compress (.Z): uncompress it")
    for magic, decompressor in ((b"\x1f\x8b", lambda: zlib.decompressobj(31)), (b"BZh", bz2.BZ2Decompressor)):
        if content.startswith(magic):
            parts: list[bytes] = []
            while content.startswith(magic):  # such a file may be several, one after the other
                stream = decompressor()
                try:
                    parts.append(stream.decompress(content, LARGEST_FILE))
                except (zlib.error, OSError) as error:
                    raise UnusableError("unreadable", f"cannot be decompressed: {error}") from error
                if sum(map(len, parts)) >= LARGEST_FILE:
                    raise UnusableError("unreadable", "too large for a cutout when decompressed")
                if not stream.eof:
                    raise UnusableError(
                        "truncated", f"the compressed file ends early, after {len(content)} bytes"
                    )
                content = stream.unused_data
            return b"".join(parts)
    return content


def _in_words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

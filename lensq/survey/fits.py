"""One FITS file to the pixels of one image.

Headers are checked first (`lensq.survey.hdus`), and the image is chosen by them (`lensq.survey.planes`).
Plain numbers are then where the header puts them. Scaled ones, and those of a file that is damaged further
on, are decoded by fitsio, or by astropy where that fails. Compressed tiles, whose damage can stop or loop the
libraries, are decoded by both, in a process that may die, and have to come out the same.
"""

import bz2
import gzip
import io
import math
import os
import re
import sys
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lensq.survey.hdus import Hdu, UnusableError, check_tiles, walk
from lensq.survey.images import NO_FLUX
from lensq.survey.planes import bad_bits, choose, companions_of, has_asinh, linear, pixel_scale, to_variance
from lensq.survey.planes import zero_point as declared_zero_point

ZERO_POINT = 27.0
"""AB magnitude of a flux of one in the images that come out of here."""

SMALLEST_SIDE, LARGEST_SIDE = 32, 2048
"""Least and greatest side of an image, in pixels, that can be a cutout."""

LARGEST_FILE = 2**27
"""Bytes, after decompression, beyond which a file is no cutout."""

_TOO_LARGE = UnusableError("unreadable", f"more than {LARGEST_FILE} bytes are too many for a cutout")
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
    def noise(self) -> float:
        """Standard deviation of the sky a pixel, by the median of the variance; NaN without one."""
        known = () if self.variance is None else self.variance[np.isfinite(self.variance)]
        return float(np.sqrt(np.median(known))) if len(known) else math.nan

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


def read_image(path: Path | str, *, band: str = "i", zero_point: float = ZERO_POINT) -> FitsImage:
    """Read the image of a cutout; see `lensq.survey.planes.choose` for which it is.

    Compressed tiles, and what is damaged behind the image, can stop or kill the process that decodes them:
    `lensq.survey.ingest.read_files` has such processes. `limit_memory` keeps them from filling the memory.

    Args:
        path: the file, plain or compressed with gzip, bzip2 or fpack, which its content tells.
        band: the band wanted of a file that has several.
        zero_point: AB magnitude of one unit of flux in a file that does not declare it.

    Returns:
        The image, of 32 x 32 to 2,048 x 2,048 pixels.

    Raises:
        UnusableError: there is no such image, or not one alone.
    """
    try:
        return _read(path, band, zero_point)
    except UnusableError:
        raise
    except Exception as error:  # libraries meet damage with exceptions of every kind
        raise UnusableError("unreadable", in_one_line(error)) from error


def limit_memory() -> None:
    """Let this process take 500 MB more than it has; for those that decode risky files."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[5])
        most = pages * resource.getpagesize() + 500_000_000
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def in_one_line(error: Exception) -> str:
    """What an exception of a library says, in at most 200 characters."""
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _read(path: Path | str, band: str, default: float) -> FitsImage:
    content, stored = _content(path)
    if not content:
        raise UnusableError("truncated", "empty file")
    if not content.startswith(b"SIMPLE"):
        raise UnusableError("not FITS", f"begins with {content[:24]!r}")
    hdus: list[Hdu] = []
    damage = None
    try:
        for hdu in walk(content):
            hdus.append(hdu)
    except UnusableError as error:  # damage further on does no harm to an image before it
        damage = error
    choice = choose(hdus, band, os.fspath(path), damage)
    hdu = choice.hdu
    _check(hdu, len(content))
    primary = hdu if hdus[0].shape else hdus[0]  # that has no image of its own
    declared, card = declared_zero_point(hdu, primary)
    scale = np.float32(10 ** (0.4 * (ZERO_POINT - (declared if card else default))))
    scale = np.float32(1) if abs(scale - 1) < 1e-6 else scale
    file = _File(os.path.abspath(path) if stored else "", content, damage is not None)
    known, masks = companions_of(choice, hdus)
    bits = bad_bits([mask for mask, _ in masks], choice.band)
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = file.plane(hdu, choice.plane)
        asinh = next(filter(has_asinh, (hdu, primary)), None)
        pixels = linear(pixels, asinh) if asinh else pixels
        if scale != 1:  # fill values are known by their size, which is to be kept
            pixels = np.where(np.abs(pixels) < NO_FLUX, pixels * scale, np.nan)
        pixels = np.ascontiguousarray(pixels, np.float32)
        for (mask, plane), bad in zip(masks, bits, strict=True):
            if bad:
                _check_length("mask", mask, len(content))
                flags = np.nan_to_num(file.plane(mask, plane), nan=-1).astype(np.int64)
                pixels[flags & bad != 0] = np.nan
    variance = None
    if known and not asinh and known[0].end <= len(content):  # of an asinh image the scale is not known
        variance = to_variance(file.plane(*known), known[0]) * scale**2
    brightness = declared, card, pixel_scale(hdu)
    return FitsImage(pixels, variance, choice.band, choice.bands, *brightness, hdu.header)


def _content(path: Path | str) -> tuple[bytes, bool]:
    """The bytes of a file, decompressed, and whether they are there as they are."""
    with open(path, "rb", buffering=0) as file:  # a cutout is small, a buffer costs more than it saves
        if os.fstat(file.fileno()).st_size > LARGEST_FILE:
            raise _TOO_LARGE
        content = file.read()
    opener = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\x1f\x9d": None}.get(content[:2], open)
    if opener is open:
        return content, True
    if opener is None:
        raise UnusableError("unreadable", "compressed with compress (.Z): uncompress it")
    try:
        content = opener(io.BytesIO(content)).read(LARGEST_FILE + 1)
    except EOFError:
        raise UnusableError("truncated", "the compressed file ends early") from None
    except (zlib.error, ValueError, OSError) as error:
        raise UnusableError("unreadable", f"cannot be decompressed: {error}") from error
    if len(content) > LARGEST_FILE:
        raise _TOO_LARGE
    return content, False


def _check(hdu: Hdu, length: int) -> None:
    *_, height, width = hdu.shape
    if max(height, width) > LARGEST_SIDE or math.prod(hdu.shape) > LARGEST_FILE:
        said = f"{hdu.in_words()}; a cutout has at most {LARGEST_SIDE} px a side"
        raise UnusableError("wrong dimensions", said)
    if min(height, width) < SMALLEST_SIDE:
        raise UnusableError("under 32 px", hdu.in_words())
    _check_length("image", hdu, length)


def _check_length(what: str, hdu: Hdu, length: int) -> None:
    if hdu.end > length:
        raise UnusableError("truncated", f"the {what} ends at byte {hdu.end}, the file at {length}")


class _File(NamedTuple):
    """A file: where it is, if it is there as it is; its bytes; whether it is damaged after an HDU."""

    path: str
    content: bytes
    damaged: bool

    def plane(self, hdu: Hdu, plane: int | None) -> np.ndarray:
        """The (height, width) numbers of an HDU, or of one plane of its cube, as its header promises them."""
        scale, zero = hdu.number("BSCALE", 1.0), hdu.number("BZERO", 0.0)
        if not (math.isfinite(scale) and scale and math.isfinite(zero)):
            raise hdu.damaged(f"BSCALE {scale:g} and BZERO {zero:g}")
        bits = hdu.integer("ZBITPIX" if hdu.compressed else "BITPIX", -64, 64)
        kind = f"{'f' if bits < 0 else 'u' if bits == 8 else 'i'}{abs(bits) // 8}"
        blanks = bits > 0 and "BLANK" in hdu.cards
        stored = blanks or not hdu.cards.keys() & {"BSCALE", "BZERO"}  # and not scaled by a library
        plain = (stored or (scale, zero) == (1, 0)) and not hdu.compressed
        if plain and not self.damaged and hdu.header.isascii():
            pixels = np.frombuffer(self.content, f">{kind}", math.prod(hdu.shape), hdu.start)
        else:
            pixels = self._read(hdu, blanks)
            shape = pixels.shape[pixels.ndim - len(hdu.shape) :]
            if shape != hdu.shape or (stored and pixels.dtype.newbyteorder("=") != kind):
                raise UnusableError("unreadable", f"{hdu.in_words()} becomes {pixels.shape}, {pixels.dtype}")
        pixels = pixels.reshape(hdu.shape)
        pixels = pixels if plane is None else pixels[plane]
        if blanks:
            blank = hdu.integer("BLANK", -(2**63), 2**63)
            pixels = np.where(pixels == blank, np.nan, pixels * scale + zero)
        return pixels

    def _read(self, hdu: Hdu, blanks: bool) -> np.ndarray:
        # fitsio rounds scaled 64-bit integers, astropy overlooks a BLANK of 0 and those of unsigned integers
        wide = "64" in (hdu.text("BITPIX"), hdu.text("ZBITPIX"))
        wrong = blanks or (wide and hdu.cards.keys() & {"BSCALE", "BZERO"})
        by_fitsio = _FOR_FITSIO.fullmatch(self.path) and not wrong
        if hdu.compressed:
            check_tiles(hdu, self.content)
            pixels = self._by_astropy(hdu, blanks)
            other = self._by_fitsio(hdu) if by_fitsio else pixels
            if other.shape != pixels.shape or not np.allclose(other, pixels, 1e-5, 0, equal_nan=True):
                raise UnusableError("unreadable", "fitsio and astropy differ on the compressed tiles")
            return pixels
        if by_fitsio:
            with suppress(OSError, ValueError, RuntimeError):
                return self._by_fitsio(hdu)
        return self._by_astropy(hdu, blanks)

    def _by_fitsio(self, hdu: Hdu) -> np.ndarray:
        import fitsio

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fitsio.FITS(self.path) as file:
                image = file[hdu.index]
                self._same(hdu, image.get_offsets()["data_start"])
                return image.read()

    def _by_astropy(self, hdu: Hdu, stored: bool) -> np.ndarray:
        from astropy.io import fits

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(io.BytesIO(self.content), do_not_scale_image_data=stored) as hdus:
                self._same(hdu, hdus[hdu.index].fileinfo()["datLoc"])
                return np.asarray(hdus[hdu.index].data)

    def _same(self, hdu: Hdu, start: int) -> None:
        if start != hdu.start:
            said = f"HDU {hdu.index} begins at byte {hdu.start}, or at {start}"
            raise UnusableError("unreadable", said)

"""One FITS file to the pixels of one image.

A survey is a hundred thousand small files, so what counts is the cost of opening one. The plain case
(no tile compression, any number format) is decoded from the bytes of the file; tile compression goes to
fitsio; what these refuse is shown to astropy, which knows more exceptions to the standard, before the
file is given up with a reason.
"""

from __future__ import annotations

import bz2
import io
import itertools
import math
import os
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lensq.survey.hdus import CARD, Hdu, UnusableError, choose, in_words, integer, number, truncated, walk

if TYPE_CHECKING:
    from astropy.io.fits import ImageHDU, PrimaryHDU

ZERO_POINT = 27.0
"""AB magnitude of a flux of one in the images that come out of here."""

SMALLEST_SIDE = 32
LARGEST_SIDE = 20_000
"""Least and greatest side of an image, in pixels, that can be a cutout."""

LARGEST_FILE = 2**30
"""Bytes, after decompression, beyond which a file is no cutout."""

_NUMBER_FORMATS = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True)
class FitsImage:
    """The image of a FITS file.

    Attributes:
        pixels: (height, width) float32 flux at zero point 27.0, NaN where the file has no data.
        header: header of the image's HDU, as it is in the file.
    """

    pixels: np.ndarray
    header: bytes

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


def read_image(path: Path | str) -> FitsImage:
    """Read the image of a cutout.

    The image is that of HDU 1; where HDU 1 is no two-dimensional image, or names itself a companion of
    one (mask, variance, PSF), it is the first two-dimensional image that is no companion. An extension
    without a name that follows a companion counts as one. Leading axes of length one are dropped.
    FLUXMAG0, in any header, sets the flux scale; without it fluxes are taken to be at zero point 27.0.

    Args:
        path: the file, plain or compressed with gzip, bzip2 or fpack, which its content tells.

    Returns:
        The image, of at least 32 x 32 pixels.

    Raises:
        UnusableError: there is no such image.
    """
    try:
        content = _content(path)
    except OSError as error:
        raise UnusableError("unreadable", error.strerror or str(error)) from error
    plain = _decompressed(content)
    if not plain.startswith(b"SIMPLE"):
        raise UnusableError("not FITS", f"begins with {plain[:24]!r}") if plain else truncated("empty file")
    try:
        return _decode(plain, path if plain is content else None)
    except UnusableError as refusal:
        if refusal.reason in ("wrong dimensions", "under 32 px"):
            raise
        return _second_opinion(plain, refusal)


def _content(path: Path | str) -> bytes:
    file = os.open(path, os.O_RDONLY)  # for files this small, Python's own file objects cost too much
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
                    raise truncated(f"the compressed file ends early, after {len(content)} bytes")
                content = stream.unused_data
            return b"".join(parts)
    return content


def _decode(content: bytes, path: Path | str | None) -> FitsImage:
    """Decode without astropy; `path` is where fitsio finds these bytes, if anywhere."""
    hdus = walk(content)
    hdu, seen = choose(hdus)
    _check_sides(hdu.shape)
    pixels = _decompress_tiles(hdu, path) if b"ZIMAGE  " in hdu.cards else _decode_numbers(hdu, content)
    return FitsImage(_at_zero_point(pixels, [hdu, *seen], hdus), hdu.header)


def _check_sides(shape: tuple[int, ...]) -> None:
    if not 0 < min(shape) <= max(shape) <= LARGEST_SIDE:
        raise UnusableError("wrong dimensions", in_words(shape))
    if min(shape) < SMALLEST_SIDE:
        raise UnusableError("under 32 px", in_words(shape))


def _decode_numbers(hdu: Hdu, content: bytes) -> np.ndarray:
    if hdu.end > len(content):
        raise truncated(f"the image ends at byte {hdu.end}, the file at {len(content)}")
    cards, bits = hdu.cards, integer(hdu.cards, b"BITPIX  ")
    if bits not in _NUMBER_FORMATS:
        raise UnusableError("not FITS", f"a header has {bits} for BITPIX")
    stored = np.frombuffer(content, _NUMBER_FORMATS[bits], math.prod(hdu.shape), hdu.start)
    scale, zero = number(cards, b"BSCALE  ", 1.0), number(cards, b"BZERO   ", 0.0)
    if bits == -32 and (scale, zero) == (1.0, 0.0):
        return stored.astype(np.float32).reshape(hdu.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = (stored * scale + zero).astype(np.float32)
    if bits > 0 and b"BLANK   " in cards:
        pixels[stored == integer(cards, b"BLANK   ")] = np.nan
    return pixels.reshape(hdu.shape)


def _decompress_tiles(hdu: Hdu, path: Path | str | None) -> np.ndarray:
    if path is None:
        raise UnusableError("unreadable", "tiles compressed within a compressed file")
    if b"BLANK   " in hdu.cards:  # fitsio takes it for a number
        raise UnusableError("unreadable", "compressed tiles with BLANK")
    import fitsio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with fitsio.FITS(str(path)) as file:
                return file[hdu.index].read().astype(np.float32)
        except (OSError, ValueError, RuntimeError) as error:
            if hdu.end > Path(path).stat().st_size:
                raise truncated("the compressed image ends after the file") from error
            raise UnusableError("unreadable", " ".join(str(error).split())[:200]) from error


def _at_zero_point(pixels: np.ndarray, first: list[Hdu], rest: Iterator[Hdu]) -> np.ndarray:
    """Scale the fluxes by the first FLUXMAG0, looked for in `first` before the rest of the file."""
    try:
        for hdu in itertools.chain(first, rest):
            flux = number(hdu.cards, b"FLUXMAG0", math.nan)
            if flux > 0 and math.isfinite(flux):
                scale = 10 ** (0.4 * ZERO_POINT) / flux
                return pixels if abs(scale - 1) < 1e-6 else pixels * np.float32(scale)
    except UnusableError:  # what follows the image is damaged; the image is not
        pass
    return pixels


def _second_opinion(content: bytes, refusal: UnusableError) -> FitsImage:
    """What astropy makes of a refused file; its words go into the refusal when it fails too."""
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with fits.open(io.BytesIO(content)) as hdus:
                seen = [_from_astropy(i, hdu) for i, hdu in enumerate(hdus)]
                hdu, _ = choose(iter(seen))
                _check_sides(hdu.shape)
                pixels = np.asarray(hdus[hdu.index].data, np.float32)
                return FitsImage(_at_zero_point(pixels, [hdu, *seen], iter(())), hdu.header)
        except UnusableError:
            raise refusal from None
        except Exception as error:  # astropy meets damage with exceptions of every kind
            words = " ".join(str(error).split())[:200]
            raise UnusableError(refusal.reason, f"{refusal.detail}; astropy says: {words}") from error


def _from_astropy(index: int, hdu: PrimaryHDU | ImageHDU) -> Hdu:
    header = hdu.header.tostring().encode("latin-1")
    cards = {header[at : at + 8]: header[at + 9 : at + CARD] for at in range(0, len(header), CARD)}
    return Hdu(index, header, cards, tuple(hdu.shape or ()) if hdu.is_image else (), 0, 0)

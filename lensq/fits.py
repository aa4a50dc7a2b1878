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
import re
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from astropy.io.fits import ImageHDU, PrimaryHDU

ZERO_POINT = 27.0
"""AB magnitude of a flux of one in the images that come out of here."""

SMALLEST_SIDE = 32
LARGEST_SIDE = 20_000
"""Least and greatest side of an image, in pixels, that can be a cutout."""

LARGEST_FILE = 2**30
"""Bytes, after decompression, beyond which a file is no cutout."""

_BLOCK, _CARD, _EQUALS = 2880, 80, ord("=")
_END = b"END".ljust(_CARD)
_KEYWORDS = frozenset(
    keyword.ljust(8).encode()
    for keyword in (
        *("XTENSION", "BITPIX", "NAXIS", "PCOUNT", "GCOUNT", "GROUPS", "BSCALE", "BZERO", "BLANK"),
        *("EXTNAME", "EXTTYPE", "MP_BAD", "FLUXMAG0", "ZIMAGE", "ZNAXIS"),
        *(f"{prefix}NAXIS{i}" for prefix in ("", "Z") for i in range(1, 10)),
    )
)
_NUMBER_FORMATS = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_COMPANIONS = {
    *("MASK", "MSK", "FLAGS", "DQ", "VAR", "VARIANCE", "IVAR", "INVVAR", "WEIGHT", "WGT", "WHT", "ERR"),
    *("ERROR", "SIGMA", "RMS", "NOISE", "PSF", "BACKGROUND", "BKG", "SEGMENTATION", "EXPOSURE", "COVERAGE"),
}


class UnusableError(Exception):
    """A file that cannot be used.

    Attributes:
        reason: "not FITS", "truncated", "no image", "wrong dimensions", "no finite pixel", "constant",
            "under 32 px" or "unreadable".
        detail: what was found, for the person who looks through the quarantine.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


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
        """Right ascension and declination (ICRS, degrees) of the centre pixel; NaN without a usable WCS."""
        from astropy.io.fits import Header
        from astropy.wcs import WCS

        height, width = self.pixels.shape
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                wcs = WCS(Header.fromstring(self.header))
                if not wcs.has_celestial:
                    return math.nan, math.nan
                sky = wcs.celestial.pixel_to_world(width // 2, height // 2).icrs
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
        raise UnusableError("not FITS", f"begins with {plain[:24]!r}") if plain else _truncated("empty file")
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


def _truncated(detail: str) -> UnusableError:
    return UnusableError("truncated", detail)


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
                    raise _truncated(f"the compressed file ends early, after {len(content)} bytes")
                content = stream.unused_data
            return b"".join(parts)
    return content


class _Hdu(NamedTuple):
    """A header, what it says of its data, and where in the file these lie."""

    index: int
    header: bytes
    cards: dict[bytes, bytes]  # the cards in `_KEYWORDS`: what follows the equals sign
    shape: tuple[int, ...]  # axes in numpy's order; () where there is no image
    start: int  # of the data, bytes
    end: int

    @property
    def names(self) -> set[str]:
        both = _text(self.cards, b"EXTNAME ") + " " + _text(self.cards, b"EXTTYPE ")
        return set(re.findall("[A-Z]+", both.upper())) - {"COMPRESSED"}

    @property
    def is_companion(self) -> bool:
        return not _COMPANIONS.isdisjoint(self.names) or b"MP_BAD  " in self.cards


def _text(cards: dict[bytes, bytes], keyword: bytes) -> str:
    value = cards.get(keyword, b"").decode("latin-1").strip()
    return value[1:].split("'")[0].strip() if value.startswith("'") else value.split("/")[0].strip()


def _number(cards: dict[bytes, bytes], keyword: bytes, default: float) -> float:
    if keyword not in cards:
        return default
    try:
        return float(cards[keyword].split(b"/")[0].upper().replace(b"D", b"E"))
    except ValueError:
        return default


def _integer(cards: dict[bytes, bytes], keyword: bytes, default: int | None = None) -> int:
    if keyword not in cards and default is not None:
        return default
    try:
        return int(cards[keyword].split(b"/")[0])
    except (KeyError, ValueError):
        value = _text(cards, keyword) or "nothing"
        raise UnusableError("not FITS", f"a header has {value} for {keyword.decode().strip()}") from None


def _axes(cards: dict[bytes, bytes], prefix: bytes) -> list[int]:
    n = _integer(cards, prefix.ljust(8))
    axes = [_integer(cards, (b"%b%d" % (prefix, i + 1)).ljust(8)) for i in range(n)]
    if min(axes, default=0) < 0:
        raise UnusableError("not FITS", f"a header has the axes {axes}")
    return axes


def _walk(content: bytes) -> Iterator[_Hdu]:
    """The HDUs of a file, in order, as far as their headers are complete."""
    start = index = 0
    while start < len(content) and (index == 0 or content.startswith(b"XTENSION", start)):
        end = content.find(_END, start)
        while end >= 0 and (end - start) % _CARD:
            end = content.find(_END, end + 1)
        if end < 0:
            raise _truncated(f"the header of HDU {index} has no end, the file has {len(content)} bytes")
        cards: dict[bytes, bytes] = {}
        for at in range(start, end, _CARD):
            keyword = content[at : at + 8]
            if keyword in _KEYWORDS and content[at + 8] == _EQUALS:
                cards.setdefault(keyword, content[at + 9 : at + _CARD])
        axes = _axes(cards, b"NAXIS")
        grouped = bool(axes) and axes[0] == 0 and _text(cards, b"GROUPS  ") == "T"
        elements = math.prod(axes[grouped:]) if axes else 0
        elements = _integer(cards, b"GCOUNT  ", 1) * (_integer(cards, b"PCOUNT  ", 0) + elements)
        length = abs(_integer(cards, b"BITPIX  ")) // 8 * elements
        if b"ZIMAGE  " in cards:
            axes = _axes(cards, b"ZNAXIS")
        elif grouped or (index and _text(cards, b"XTENSION") != "IMAGE"):
            axes = []
        while len(axes) > 2 and axes[-1] == 1:
            del axes[-1]
        data = start + _blocks(end + _CARD - start)
        yield _Hdu(index, content[start : end + _CARD], cards, tuple(axes[::-1]), data, data + length)
        start, index = data + _blocks(length), index + 1


def _blocks(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


def _choose(walk: Iterator[_Hdu]) -> tuple[_Hdu, list[_Hdu]]:
    """The HDU of the image, and all that were looked at on the way."""
    seen: list[_Hdu] = []
    failure = None
    try:
        for hdu in walk:
            seen.append(hdu)
            if hdu.index == 1 and len(hdu.shape) == 2 and not hdu.is_companion:
                return hdu, seen
    except UnusableError as error:  # a damaged header further on does no harm to an image before it
        failure = error
    companions = False
    for hdu in seen:
        companion = hdu.is_companion or (companions and not hdu.names)
        companions |= companion
        if len(hdu.shape) == 2 and not companion:
            return hdu, seen
    if failure:
        raise failure
    others = [f"HDU {hdu.index}: {_size(hdu.shape)}" for hdu in seen if hdu.shape and not hdu.is_companion]
    if others:
        raise UnusableError("wrong dimensions", ", ".join(others))
    raise UnusableError("no image", f"in none of {len(seen)} HDUs")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape[::-1]) + " px"


def _decode(content: bytes, path: Path | str | None) -> FitsImage:
    """Decode without astropy; `path` is where fitsio finds these bytes, if anywhere."""
    walk = _walk(content)
    hdu, seen = _choose(walk)
    _check_sides(hdu.shape)
    pixels = _decompress_tiles(hdu, path) if b"ZIMAGE  " in hdu.cards else _decode_numbers(hdu, content)
    return FitsImage(_at_zero_point(pixels, [hdu, *seen], walk), hdu.header)


def _check_sides(shape: tuple[int, ...]) -> None:
    if not 0 < min(shape) <= max(shape) <= LARGEST_SIDE:
        raise UnusableError("wrong dimensions", _size(shape))
    if min(shape) < SMALLEST_SIDE:
        raise UnusableError("under 32 px", _size(shape))


def _decode_numbers(hdu: _Hdu, content: bytes) -> np.ndarray:
    if hdu.end > len(content):
        raise _truncated(f"the image ends at byte {hdu.end}, the file at {len(content)}")
    cards, bits = hdu.cards, _integer(hdu.cards, b"BITPIX  ")
    if bits not in _NUMBER_FORMATS:
        raise UnusableError("not FITS", f"a header has {bits} for BITPIX")
    stored = np.frombuffer(content, _NUMBER_FORMATS[bits], math.prod(hdu.shape), hdu.start)
    scale, zero = _number(cards, b"BSCALE  ", 1.0), _number(cards, b"BZERO   ", 0.0)
    if bits == -32 and (scale, zero) == (1.0, 0.0):
        return stored.astype(np.float32).reshape(hdu.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = (stored * scale + zero).astype(np.float32)
    if bits > 0 and b"BLANK   " in cards:
        pixels[stored == _integer(cards, b"BLANK   ")] = np.nan
    return pixels.reshape(hdu.shape)


def _decompress_tiles(hdu: _Hdu, path: Path | str | None) -> np.ndarray:
    if path is None:
        raise UnusableError("unreadable", "tiles compressed within a compressed file")
    import fitsio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with fitsio.FITS(str(path)) as file:
                return file[hdu.index].read().astype(np.float32)
        except (OSError, ValueError, RuntimeError) as error:
            if hdu.end > Path(path).stat().st_size:
                raise _truncated("the compressed image ends after the file") from error
            raise UnusableError("unreadable", " ".join(str(error).split())[:200]) from error


def _at_zero_point(pixels: np.ndarray, first: list[_Hdu], walk: Iterator[_Hdu]) -> np.ndarray:
    """Scale the fluxes by the first FLUXMAG0, looked for in `first` before the rest of the file."""
    try:
        for hdu in itertools.chain(first, walk):
            flux = _number(hdu.cards, b"FLUXMAG0", math.nan)
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
                hdu, _ = _choose(iter(seen))
                _check_sides(hdu.shape)
                pixels = np.asarray(hdus[hdu.index].data, np.float32)
                return FitsImage(_at_zero_point(pixels, [hdu, *seen], iter(())), hdu.header)
        except UnusableError:
            raise refusal from None
        except Exception as error:  # astropy meets damage with exceptions of every kind
            words = " ".join(str(error).split())[:200]
            raise UnusableError(refusal.reason, f"{refusal.detail}; astropy says: {words}") from error


def _from_astropy(index: int, hdu: PrimaryHDU | ImageHDU) -> _Hdu:
    header = hdu.header.tostring().encode("latin-1")
    cards = {header[at : at + 8]: header[at + 9 : at + _CARD] for at in range(0, len(header), _CARD)}
    return _Hdu(index, header, cards, tuple(hdu.shape or ()) if hdu.is_image else (), 0, 0)

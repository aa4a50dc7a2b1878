"""The headers of a FITS file, checked before any library sees them.

Libraries loop, abort or take one HDU for another where a header is damaged. So the structure of every header
is held against the standard (Pence et al. 2010, A&A 524, A42; tile compression: section 10) first, and what a
library decodes afterwards against the place, shape and number format that stand here.
"""

import itertools
import math
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

REASONS: tuple[str, ...] = ("not FITS", "truncated", "no image", "ambiguous", "no such band")
REASONS += ("wrong dimensions", "no finite pixel", "constant", "under 32 px", "unreadable")
"""Why a file cannot be used."""

_BLOCK, _CARD = 2880, 80
_END = b"END".ljust(_CARD)
_NUMBER_FORMATS = (8, 16, 32, 64, -32, -64)
_COMPRESSIONS = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS")
SEVERAL = "(several values)"
_IN_HEADERS = bytes([9, *range(32, 127), *range(160, 256)])


class UnusableError(Exception):
    """A file that cannot be used.

    Attributes:
        reason: "not FITS", "truncated", "no image", "ambiguous", "no such band", "wrong dimensions",
            "no finite pixel", "constant", "under 32 px" or "unreadable".
        detail: what was found, for the person who looks through the quarantine.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple:
        return UnusableError, (self.reason, self.detail)


class Hdu(NamedTuple):
    """A header, what it says of its data, and where in the file these lie.

    Attributes:
        index: number of the HDU, from 0.
        header: all its cards.
        cards: text of each card's value and comment by keyword, HIERARCH keywords without that word;
            `SEVERAL` where the keyword stands there again with another.
        shape: axes of the image in numpy's order, without leading ones of length one; () without image.
        compressed: whether the image is in compressed tiles.
        start, end: place of the data, in bytes from the beginning of the file.
    """

    index: int
    header: bytes
    cards: dict[str, str]
    shape: tuple[int, ...]
    compressed: bool
    start: int
    end: int

    def text(self, keyword: str) -> str:
        """Value of a card as text, without quotes and comment; "" without such a card."""
        value = self.cards.get(keyword, "")
        if value == SEVERAL:
            raise self.damaged(f"{SEVERAL} for {keyword}")
        return _without_comment(value)

    def number(self, keyword: str, default: float = math.nan) -> float:
        """Value of a card as a number; the default without such a card, or where it has a text."""
        value = self.text(keyword)
        try:
            return float(value.upper().replace("D", "E").replace("_", "x")) if value else default
        except ValueError:
            if self.cards[keyword].lstrip().startswith("'"):
                return default
            raise self.damaged(f"{value} for {keyword}") from None

    def integer(self, keyword: str, least: int, most: int = 2**40) -> int:
        """Value of a card that has to be there, once, with an integer from `least` to `most`."""
        value = self.cards.get(keyword, "").partition("/")[0].strip()
        digits = value[1:] if value[:1] in ("+", "-") else value
        if not digits.isdecimal() or not len(digits) < 20 or not least <= int(value) <= most:
            raise self.damaged(f"{value or 'nothing'} for {keyword}")
        return int(value)

    def damaged(self, what: str) -> UnusableError:
        """The refusal of a header."""
        return UnusableError("not FITS", f"the header of HDU {self.index} has {what}")

    def in_words(self) -> str:
        """Number, name and axes, in the order in which FITS counts them."""
        name = " ".join(filter(None, map(self.text, ("EXTNAME", "EXTTYPE", "IMAGETYP"))))
        axes = " x ".join(str(n) for n in self.shape[::-1])
        return f"HDU {self.index} ({f'{name}, ' if name else ''}{axes} px)"


def walk(content: bytes) -> Iterator[Hdu]:
    """Go through the HDUs of a file.

    Args:
        content: the file's bytes.

    Yields:
        Its HDUs, in order. The data of the last may end after the file.

    Raises:
        UnusableError: a header is damaged, or the file ends within an HDU, or goes on after the last with
            something else; the HDUs before are good.
    """
    start = index = 0
    while start < len(content) and (index == 0 or content.startswith(b"XTENSION", start)):
        end = content.find(_END, start)
        while end >= 0 and (end - start) % _CARD:
            end = content.find(_END, end + 1)
        if end < 0:
            raise UnusableError("truncated", f"the header of HDU {index} has no end, of {len(content)} bytes")
        hdu = _parse(index, content[start : end + _CARD])
        data = start + _blocks(end + _CARD - start)
        shape, compressed, length = _structure(hdu)
        yield hdu._replace(shape=shape, compressed=compressed, start=data, end=data + length)
        start, index = data + _blocks(length), index + 1
    if start > len(content):
        raise UnusableError("truncated", f"HDU {index - 1} ends at byte {start}, the file at {len(content)}")
    if content[start:].strip(b"\0 "):
        raise UnusableError("not FITS", f"what follows HDU {index - 1} is no HDU")


def _parse(index: int, header: bytes) -> Hdu:
    text = header.decode("latin-1")
    lines = [text[at : at + _CARD] for at in range(0, len(text) - _CARD, _CARD)]
    pairs = [(line[:8].rstrip(), line[10:]) for line in lines if line[8:10] == "= "]
    pairs += [("END", "END") for line in lines if line.startswith("END     ")]
    if "HIERARCH " in text:
        named = [line[9:].partition("=") for line in lines if line.startswith("HIERARCH ") and "=" in line]
        pairs += [(keyword.strip(), value) for keyword, _, value in named]
    cards = dict(pairs)
    if len(cards) < len(pairs):
        cards = _settled(pairs)
    hdu = Hdu(index, header, cards, (), False, 0, 0)
    strange = header.translate(None, _IN_HEADERS)
    kinds = [key for key in ("SIMPLE", "XTENSION", "END") if key in cards]
    if strange or kinds != ["XTENSION" if index else "SIMPLE"] or cards[kinds[0]] == SEVERAL:
        raise hdu.damaged(f"no proper beginning or end, or characters that are none, such as {strange[:8]!r}")
    return hdu


def _without_comment(value: str) -> str:
    value = value.strip()
    if value.startswith("'"):
        return value[1:].replace("''", "\0").partition("'")[0].replace("\0", "'").strip()
    return value.partition("/")[0].strip()


def _settled(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Cards of a header in which keywords stand more than once."""
    cards: dict[str, str] = {}
    for keyword, value in pairs:
        before = cards.setdefault(keyword, value)
        if "COMPRESSED_IMAGE" in before:  # a name that libraries give beside the true one
            cards[keyword] = value
        elif _without_comment(before) != _without_comment(value) and "COMPRESSED_IMAGE" not in value:
            cards[keyword] = SEVERAL
    return cards


def _structure(hdu: Hdu) -> tuple[tuple[int, ...], bool, int]:
    """Axes of the image, whether it is compressed, and bytes of the data, or the refusal of the header."""
    kind = hdu.text("XTENSION") if hdu.index else "IMAGE"
    bits = hdu.integer("BITPIX", -64, 64)
    axes = [hdu.integer(f"NAXIS{i + 1}", 0) for i in range(hdu.integer("NAXIS", 0, 9))]
    expected = ["BITPIX", "NAXIS", *(f"NAXIS{i + 1}" for i in range(len(axes)))]
    places = range(_CARD, _CARD * (len(expected) + 1), _CARD)
    found = [hdu.header[at : at + 8].decode("latin-1").rstrip() for at in places]
    if found != expected or f"NAXIS{len(axes) + 1}" in hdu.cards:
        raise hdu.damaged(f"not {', '.join(expected)} in this order")
    if bits not in _NUMBER_FORMATS or (not hdu.index and hdu.text("SIMPLE") != "T"):
        raise hdu.damaged(f"{bits} for BITPIX, {hdu.text('SIMPLE')} for SIMPLE")
    grouped = not hdu.index and axes[:1] == [0] and hdu.text("GROUPS") == "T"
    elements = math.prod(axes[grouped:]) if axes else 0
    extra = hdu.integer("PCOUNT", 0) if "PCOUNT" in hdu.cards else 0
    groups = hdu.integer("GCOUNT", 0) if "GCOUNT" in hdu.cards else 1
    compressed = kind == "BINTABLE" and hdu.text("ZIMAGE") == "T"
    shape = _compressed_axes(hdu) if compressed else axes if kind == "IMAGE" and not grouped else []
    if kind == "IMAGE" and hdu.index and (extra, groups) != (0, 1):
        raise hdu.damaged(f"{extra} and {groups} for PCOUNT and GCOUNT of an image")
    while len(shape) > 2 and shape[-1] == 1:
        del shape[-1]
    return tuple(shape[::-1]), compressed, abs(bits) // 8 * groups * (extra + elements)


def _compressed_axes(hdu: Hdu) -> list[int]:
    """Axes of an image in compressed tiles, whose table has to be what the tiles need."""
    axes = [hdu.integer(f"ZNAXIS{i + 1}", 0) for i in range(hdu.integer("ZNAXIS", 0, 9))]
    tiles = _tiles(hdu, axes)
    rows = math.prod(-(-n // tile) for n, tile in zip(axes, tiles, strict=True))
    bits = hdu.integer("ZBITPIX", -64, 64)
    quantised = any(hdu.text(f"TTYPE{i}") == "ZSCALE" for i in range(1, 9))
    if bits not in _NUMBER_FORMATS or (quantised and bits > 0) or hdu.text("ZCMPTYPE") not in _COMPRESSIONS:
        raise hdu.damaged("a ZBITPIX or ZCMPTYPE that is not known or not that of its table")
    table = hdu.integer("BITPIX", 8, 8), hdu.integer("NAXIS", 2, 2), hdu.integer("TFIELDS", 1, 99)
    if table and hdu.integer("NAXIS2", 0) != rows:
        raise hdu.damaged(f"{hdu.text('NAXIS2')} rows of tiles, which ought to be {rows}")
    return axes


def _tiles(hdu: Hdu, axes: list[int]) -> list[int]:
    """Axes of the tiles: rows of the image, unless they are given."""
    sizes = [1 if i else n for i, n in enumerate(axes)]
    return [hdu.integer(f"ZTILE{i}", 1) if f"ZTILE{i}" in hdu.cards else n for i, n in enumerate(sizes, 1)]


def check_tiles(hdu: Hdu, content: bytes) -> None:
    """Refuse tiles of HCOMPRESS_1 and PLIO_1 that have another number of pixels than the header says.

    The libraries write past the end of their memory, or leave in an image what the memory held before.
    """
    method = hdu.text("ZCMPTYPE")
    if method not in ("HCOMPRESS_1", "PLIO_1"):
        return
    axes = [hdu.integer(f"ZNAXIS{i + 1}", 1) for i in range(len(hdu.shape))]
    tiles = _tiles(hdu, axes)
    starts = itertools.product(*(range(0, n, tile) for n, tile in zip(axes[::-1], tiles[::-1], strict=True)))
    width, rows = hdu.integer("NAXIS1", 8), hdu.integer("NAXIS2", 1)
    heap = hdu.start + (hdu.integer("THEAP", 0) if "THEAP" in hdu.cards else width * rows)
    column = "1?PB" if method == "HCOMPRESS_1" else "1?PI"
    if hdu.text("TTYPE1") != "COMPRESSED_DATA" or not re.match(column, hdu.text("TFORM1")):
        raise hdu.damaged("no COMPRESSED_DATA in its first column")
    for row, start in enumerate(starts):
        pixels = math.prod(map(min, tiles[::-1], (n - at for n, at in zip(axes[::-1], start, strict=True))))
        length, offset = struct.unpack_from(">2i", content, hdu.start + row * width)
        if method == "HCOMPRESS_1":
            found = math.prod(struct.unpack_from(">2i", content, heap + offset + 2)) if length else pixels
        else:
            found = _plio_pixels(np.frombuffer(content, ">i2", length, heap + offset).tolist())
        if found != pixels:
            raise UnusableError("unreadable", f"tile {row + 1} of HDU {hdu.index} has not {pixels} pixels")


def _plio_pixels(words: list[int]) -> int:
    """Pixels of a line of IRAF's pixel lists, by its instructions (Pence et al. 2010, section 10), or -1."""
    if len(words) < 7:
        return -1
    at, end = (3, words[2]) if words[2] > 0 else (words[1], words[3] + (words[4] << 15))
    if not 0 <= at <= end <= len(words):
        return -1
    pixels = 0
    while at < end:
        code, number = int(words[at] / 4096), words[at] & 4095
        pixels += number if code in (0, 4, 5) else code in (6, 7)
        at += 2 if code == 1 else 1  # a new value takes a second word
    return pixels if at == end else -1


def _blocks(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK

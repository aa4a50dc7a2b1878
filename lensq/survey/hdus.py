"""The headers of a FITS file: which HDUs it has, and which of them is the image.

Read from the bytes of the file in one pass, because this is half the cost of reading a small cutout. The
standard: Pence et al. 2010, A&A 524, A42.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BLOCK, CARD, _EQUALS = 2880, 80, ord("=")
_END = b"END".ljust(CARD)
_KEYWORDS = frozenset(
    keyword.ljust(8).encode()
    for keyword in (
        *("XTENSION", "BITPIX", "NAXIS", "PCOUNT", "GCOUNT", "GROUPS", "BSCALE", "BZERO", "BLANK"),
        *("EXTNAME", "EXTTYPE", "MP_BAD", "FLUXMAG0", "ZIMAGE", "ZNAXIS"),
        *(f"{prefix}NAXIS{i}" for prefix in ("", "Z") for i in range(1, 10)),
    )
)
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


def truncated(detail: str) -> UnusableError:
    """The refusal of a file that ends too early."""
    return UnusableError("truncated", detail)


class Hdu(NamedTuple):
    """A header, what it says of its data, and where in the file these lie.

    Attributes:
        index: number of the HDU, from 0.
        header: all its cards.
        cards: what follows the equals sign of those cards that are asked for here, by keyword (8 bytes).
        shape: axes of the image in numpy's order, without leading ones of length one; () without image.
        start, end: place of the data, in bytes from the beginning of the file.
    """

    index: int
    header: bytes
    cards: dict[bytes, bytes]
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def names(self) -> set[str]:
        """The words in EXTNAME and EXTTYPE, in capitals."""
        if b"EXTNAME " not in self.cards and b"EXTTYPE " not in self.cards:
            return set()
        both = text(self.cards, b"EXTNAME ") + " " + text(self.cards, b"EXTTYPE ")
        return set(re.findall("[A-Z]+", both.upper())) - {"COMPRESSED"}

    @property
    def is_companion(self) -> bool:
        """Whether it says that it goes with an image (mask, variance, PSF) and so is none itself."""
        return not _COMPANIONS.isdisjoint(self.names) or b"MP_BAD  " in self.cards


def text(cards: dict[bytes, bytes], keyword: bytes) -> str:
    """Value of a card as text, without quotes and comment; "" without such a card."""
    value = cards.get(keyword, b"").decode("latin-1").strip()
    return value[1:].split("'")[0].strip() if value.startswith("'") else value.split("/")[0].strip()


def number(cards: dict[bytes, bytes], keyword: bytes, default: float) -> float:
    """Value of a card as a number; the default without such a card or where it has no number."""
    if keyword not in cards:
        return default
    try:
        return float(cards[keyword].split(b"/")[0].upper().replace(b"D", b"E"))
    except ValueError:
        return default


def integer(cards: dict[bytes, bytes], keyword: bytes, default: int | None = None) -> int:
    """Value of a card that has to be an integer, and has to be there if no default is given."""
    if keyword not in cards and default is not None:
        return default
    try:
        return int(cards[keyword].split(b"/")[0])
    except (KeyError, ValueError):
        value = text(cards, keyword) or "nothing"
        raise UnusableError("not FITS", f"a header has {value} for {keyword.decode().strip()}") from None


def _axes(cards: dict[bytes, bytes], prefix: bytes) -> list[int]:
    n = integer(cards, prefix.ljust(8))
    axes = [integer(cards, (b"%b%d" % (prefix, i + 1)).ljust(8)) for i in range(n)]
    if min(axes, default=0) < 0:
        raise UnusableError("not FITS", f"a header has the axes {axes}")
    return axes


def walk(content: bytes) -> Iterator[Hdu]:
    """Go through the HDUs of a file.

    Args:
        content: the file's bytes.

    Yields:
        Its HDUs, in order. Their data may end after the file.

    Raises:
        UnusableError: a header is damaged, or the file ends within an HDU; the HDUs before are good.
    """
    start = index = 0
    while start < len(content) and (index == 0 or b"XTENSION".startswith(content[start : start + 8])):
        end = content.find(_END, start)
        while end >= 0 and (end - start) % CARD:
            end = content.find(_END, end + 1)
        if end < 0:
            raise truncated(f"the header of HDU {index} has no end, the file has {len(content)} bytes")
        cards: dict[bytes, bytes] = {}
        for at in range(start, end, CARD):
            keyword = content[at : at + 8]
            if keyword in _KEYWORDS and content[at + 8] == _EQUALS:
                cards.setdefault(keyword, content[at + 9 : at + CARD])
        axes = _axes(cards, b"NAXIS")
        grouped = bool(axes) and axes[0] == 0 and text(cards, b"GROUPS  ") == "T"
        elements = math.prod(axes[grouped:]) if axes else 0
        if b"PCOUNT  " in cards or b"GCOUNT  " in cards:
            elements = integer(cards, b"GCOUNT  ", 1) * (integer(cards, b"PCOUNT  ", 0) + elements)
        length = abs(integer(cards, b"BITPIX  ")) // 8 * elements
        if length < 0:
            raise UnusableError("not FITS", f"the header of HDU {index} claims {length} bytes of data")
        if b"ZIMAGE  " in cards:
            axes = _axes(cards, b"ZNAXIS")
        elif grouped or (index and text(cards, b"XTENSION") != "IMAGE"):
            axes = []
        while len(axes) > 2 and axes[-1] == 1:
            del axes[-1]
        data = start + _blocks(end + CARD - start)
        yield Hdu(index, content[start : end + CARD], cards, tuple(axes[::-1]), data, data + length)
        start, index = data + _blocks(length), index + 1
    if start > len(content):
        raise truncated(f"HDU {index - 1} ends at byte {start}, the file at {len(content)}")


def _blocks(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


def choose(hdus: Iterator[Hdu]) -> tuple[Hdu, list[Hdu]]:
    """Choose the HDU of the image, as `lensq.survey.fits.read_image` describes it.

    Args:
        hdus: those of a file; no more of them are taken than are needed.

    Returns:
        The chosen HDU, and all that were looked at.

    Raises:
        UnusableError: there is none.
    """
    seen: list[Hdu] = []
    failure = None
    try:
        for hdu in hdus:
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
    others = [f"HDU {hdu.index}: {in_words(hdu.shape)}" for hdu in seen if len(hdu.shape) not in (0, 2)]
    if others:
        raise UnusableError("wrong dimensions", ", ".join(others))
    raise UnusableError("no image", f"in none of {len(seen)} HDUs")


def in_words(shape: tuple[int, ...]) -> str:
    """Axes in the order in which FITS counts them."""
    return " x ".join(str(n) for n in shape[::-1]) + " px"

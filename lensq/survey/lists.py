"""Lists of objects as people keep them: which line names which object of a survey.

A line may have further columns (tabs, commas, semicolons or bars between them), quotes, a path or the name of
a file, another kind of minus, lower case, a comment; the first line may be a header; the text may be UTF-8 or
UTF-16. What could mean two things is an error that names the file, the line and the remedy.
"""

import codecs
import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LISTS = {which: f"candidates_list_{which}.txt" for which in ("raw", "selected", "graded")}
"""The lists of a survey: all objects, those flagged as possible lenses, those graded afterwards."""

EXTENSION = re.compile(r"\.(fits|fit|fts)(\.(gz|fz|bz2|z))?$", re.IGNORECASE)

_MINUSES = dict.fromkeys(map(ord, "‐‑‒–—−﹣－"), "-")
_HEADER = re.compile(r"\b(names?|ids?|objects?|sources?|files?|filename|designation|ra)\b")
_NAME = re.compile(r"names?|object( names?)?")
_LABEL = re.compile(r"\b(label|labels|flag|flagged|selected|lens|class|candidate|graded)\b")
_NOES = {"0", "0.0", "false", "no", "nonlens", "non-lens"}
_OF_LABELS = {"n", "f", "-1", "-1.0"}  # and these, in a column that is called a label
_YESES = {"1", "1.0", "true", "yes", "y", "t", "lens", ""}
_BOMS = dict.fromkeys((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-32")  # which begin like UTF-16
_BOMS |= dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16")
_BOMS[codecs.BOM_UTF8] = "utf-8-sig"


@dataclass(frozen=True)
class Listing:
    """The lines of a list that say something, as cells.

    Attributes:
        path: the file.
        numbers: number in the file of each line, from 1.
        rows: cells of each line.
        header: cells of a first line that names the columns, in lower case; empty without one. One of one
            cell may yet name an object: it is also the last line.
        whole: each line as it stands.
    """

    path: Path
    numbers: list[int]
    rows: list[list[str]]
    header: list[str]
    whole: list[str]


def read_list(path: Path, *, flags: bool = False) -> Listing | None:
    """Read a list; None where there is none.

    Args:
        path: the file.
        flags: whether to be listed says something of an object, which a label of 0 would contradict.

    Raises:
        ValueError: it is no text, a quote does not close, or a label contradicts the list.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    lines = _text(path, content).splitlines()
    cut = [line.translate(_MINUSES).partition("#")[0].strip() for line in lines]
    said = [(i, line) for i, line in enumerate(cut, 1) if line]
    numbers, texts = [i for i, _ in said], [line for _, line in said]
    counts = {mark: sum(mark in line for line in texts) for mark in "\t;,|"}
    mark = max(counts, key=counts.get)
    if counts[mark] or any(line[0] in "\"'" for line in texts):
        rows = [_cells(path, number, line, mark) for number, line in said]
    else:
        rows = [[line] for line in texts]
    header = [_words(cell) for cell in rows[0]] if rows else []
    if not any(_HEADER.search(cell) for cell in header) or any(re.search(r"\d", cell) for cell in rows[0]):
        header = []
    start = len(header) > 0
    whole = [lines[i - 1].strip() for i in numbers]
    listing = Listing(path, numbers[start:], rows[start:], header, whole[start:])
    if flags:
        _check_labels(listing)
    if len(header) != 1:
        return listing
    return Listing(path, numbers[1:] + numbers[:1], rows[1:] + rows[:1], header, whole[1:] + whole[:1])


def _text(path: Path, content: bytes) -> str:
    for mark, encoding in _BOMS.items():
        if content.startswith(mark):
            return content.decode(encoding, errors="backslashreplace")
    nulls = [content[start:200:2].count(0) > len(content[:200]) // 4 for start in (0, 1)]
    if any(nulls):
        return content.decode("utf-16-be" if nulls[0] else "utf-16-le", errors="backslashreplace")
    if 0 in content:
        at = content[: content.index(0)].count(b"\n") + 1
        raise ValueError(f"{path}, line {at}: this is no text; save it as one name a line, in UTF-8")
    return content.decode(errors="backslashreplace")


def _cells(path: Path, number: int, line: str, mark: str) -> list[str]:
    try:
        [cells] = csv.reader([line], delimiter=mark, skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise ValueError(f"{path}, line {number}: {line!r}: {error}; write one name a line") from error
    return [re.sub(r"^'(.*)'$", r"\1", cell.strip()) for cell in cells]


def _words(cell: str) -> str:
    return re.sub(r"[^a-z]+", " ", cell.lower())


def _check_labels(listing: Listing) -> None:
    """Refuse a label 0 or no in a list of flagged objects: a column of labels whose name is not another."""
    rows = [row if len(row) > 1 else row[0].split() for row in listing.rows]
    for column in range(1, max(map(len, rows), default=1)):
        said = [row[column].lower() if column < len(row) else "" for row in rows]
        header = listing.header[column : column + 1]
        other = header and not _LABEL.search(header[0])
        noes = _NOES | _OF_LABELS if header else _NOES
        if other or not noes.intersection(said) or set(said) - noes - _YESES:
            continue
        at = next(i for i, cell in enumerate(said) if cell in noes)
        raise ValueError(
            f"{listing.path}, line {listing.numbers[at]}: {rows[at][0]!r} is listed as flagged with a "
            f"{said[at]} beside it: take the line out if that is its label, else name the column in a first "
            "line, as in name,grade"
        )


class Aliases:
    """What a line of a list may call an object: its name, its file with or without path and ending.

    Args:
        names: names of the objects, one a file.
        files: their files.
    """

    def __init__(self, names: Iterable[str], files: Iterable[str]) -> None:
        self.names = list(names)
        self.exact = frozenset(self.names)
        self._files = files
        self._others: dict[str, str] | None = None

    def find(self, cell: str) -> str | None:
        """The object that a cell names; None without one, or with several."""
        if cell in self.exact:
            return cell
        if self._others is None:
            found: dict[str, set[str]] = {}
            for name, file in zip(self.names, self._files, strict=True):
                path = EXTENSION.sub("", file).casefold()
                for alias in {name.casefold(), path, path.rpartition("/")[2]}:
                    found.setdefault(alias, set()).add(name)
            self._others = {alias: min(those) for alias, those in found.items() if len(those) == 1}
        path = without_extension(cell).casefold()
        base = path.rpartition("/")[2]
        tries = (path, base, re.sub(r"_hsc-[a-z0-9]+_img$", "", base), path.partition(" ")[0])
        return next((self._others[alias] for alias in tries if alias in self._others), None)


def without_extension(cell: str) -> str:
    """A cell as a path with forward slashes, without the ending of a FITS file."""
    return EXTENSION.sub("", cell.replace("\\", "/")).removeprefix("./")


def names_in(listing: Listing | None, aliases: Aliases) -> list[str] | None:
    """The names of a list's objects, one a line; where a line names no object of the survey, what it says."""
    if listing is None:
        return None
    if len(listing.header) == 1 and aliases.find(listing.rows[-1][0]) is None:
        lines = listing.numbers[:-1], listing.rows[:-1]
        listing = Listing(listing.path, *lines, [], listing.whole[:-1])
    width = max(map(len, listing.rows), default=1)
    cells = [[row[i] if i < len(row) else "" for row in listing.rows] for i in range(width)]
    found = [[aliases.find(cell) for cell in column] for column in cells]
    hits = [len(column) - column.count(None) for column in found]
    called = [i for i, cell in enumerate(listing.header[:width]) if _NAME.fullmatch(cell.strip()) and hits[i]]
    best = max(called or range(width), key=hits.__getitem__)
    if not hits[best]:  # a header may still tell
        best = next((i for i, cell in enumerate(listing.header) if "name" in cell), 0)
    if "" in cells[best]:
        at = listing.numbers[cells[best].index("")]
        raise ValueError(f"{listing.path}, line {at}: no name in column {best + 1}; write one name a line")
    for at, line in enumerate(listing.whole):
        readings = {found[i][at] for i in called or range(width)} - {None}
        if len(readings) > 1 and line not in aliases.exact:
            either = " or ".join(sorted(readings))
            raise ValueError(
                f"{listing.path}, line {listing.numbers[at]}: {line!r} could be {either}: "
                "write one name a line, or name the columns in a first line, as in name,rank"
            )
    bare = [without_extension(cell).rpartition("/")[2] for cell in cells[best]]
    named = [line if line in aliases.exact else None for line in listing.whole]  # marks and all
    these = zip(named, found[best], bare, strict=True)
    return [line or name or re.sub(r"_HSC-[A-Z0-9]+_img$", "", said) for line, name, said in these]

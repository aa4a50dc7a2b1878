"""Labels, grades and notes given by eye, kept in a plain CSV beside the survey.

The file is a journal: every keystroke adds a line, `name,label,grade,note,time`, and the last line of a name
counts. So nothing that was written is ever written again, a kernel that dies takes nothing with it, and two
notebooks may label the same survey at once.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lensq.survey.files import atomic

LABELS = {"lens": 1, "not": 0, "unsure": -1}
"""The labels, and what a column `label` of the Scores table holds for them."""

GRADES = {"A": "lens", "B": "lens", "C": "unsure", "X": "not"}
"""The grades, certain, probable and possible lens and none, and the label that each goes with."""

FILE = "inspected.csv"
"""Name of the file in the survey's folder."""

_HEADER, _OLD_HEADER = b"name,label,grade,note,time\n", b"name,label,time\n"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_COMPLETE = re.compile(rb"," + _TIME.pattern.encode() + rb"\Z")  # a last line that lacks its end alone


class Said(NamedTuple):
    """What is said of one object; "" where nothing is."""

    label: str = ""
    grade: str = ""
    note: str = ""
    time: str = ""


class LabelStore:
    """Labels by name, in memory what the file says.

    Attributes:
        path: the CSV.
    """

    def __init__(self, path: Path | str) -> None:
        """Open a file of labels; it is made with the first label.

        Args:
            path: the CSV.

        Raises:
            ValueError: The file is there and is not one of labels.
        """
        self.path = Path(path)
        self._lines: dict[str, Said] = {}
        self._read_to = 0
        self._done: list[dict[str, Said]] = []
        self.refresh()

    def refresh(self) -> None:
        """Read what was added since, by whomever. A line cut short by a crash is passed over."""
        if not self.path.exists():
            self._lines, self._read_to = {}, 0
            return
        with self.path.open("rb") as file:
            header = file.readline()
            if not any(known.startswith(header.rstrip(b"\n")) for known in (_HEADER, _OLD_HEADER)):
                raise ValueError(
                    f"{self.path}: the first line is not {_HEADER.decode().strip()!r}; name another file"
                )
            if file.seek(0, os.SEEK_END) < self._read_to:
                self._lines, self._read_to = {}, 0
            self._read_to = max(self._read_to, len(header))
            file.seek(self._read_to)
            new = file.read()
        whole = new if _COMPLETE.search(new) else new[: new.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for name, said in _said_in(whole):
            self._lines.pop(name, None)  # so that the order is that of the last word
            self._lines[name] = said

    def __getitem__(self, name: str) -> str:
        """The label of an object, "" if it has none."""
        return self.said(name).label

    def said(self, name: str) -> Said:
        """All that is said of an object."""
        return self._lines.get(name, Said())

    def set(self, names: str | Sequence[str], label: str) -> None:
        """Label an object, or several at once. When this returns, the label is on the disk.

        A grade that goes with another label is taken away.

        Args:
            names: the object or objects.
            label: "lens", "not" or "unsure"; "" takes the label away.

        Raises:
            ValueError: There is no such label.
            PermissionError: The file cannot be written; give another.
        """
        if label not in (*LABELS, ""):
            raise ValueError(f"label {label!r} is none of {', '.join(LABELS)}")
        kept = [grade for grade, of in GRADES.items() if of == label]
        self._say(names, lambda said: Said(label, said.grade if said.grade in kept else "", said.note))

    def grade(self, name: str, grade: str) -> None:
        """Grade an object, which labels it too; "" takes the grade away, not the label.

        Raises:
            ValueError: There is no such grade.
            PermissionError: The file cannot be written; give another.
        """
        if grade not in (*GRADES, ""):
            raise ValueError(f"grade {grade!r} is none of {', '.join(GRADES)}")
        self._say(name, lambda said: Said(GRADES.get(grade, said.label), grade, said.note))

    def note(self, name: str, note: str) -> None:
        """Write a note to an object, on one line; "" takes it away.

        Raises:
            PermissionError: The file cannot be written; give another.
        """
        self._say(name, lambda said: said._replace(note=" ".join(note.split())))

    def undo(self) -> str | None:
        """Take back what was said last in this session; again, the one before.

        Returns:
            The name of the object (of several, the first), of which is said again what was before, or None
            if there is nothing to undo.
        """
        if not self._done:
            return None
        before = self._done.pop()
        self._append(before)
        return next(iter(before))

    def _say(self, names: str | Sequence[str], change: Callable[[Said], Said]) -> None:
        names = [names] if isinstance(names, str) else list(names)
        self.refresh()
        before = {name: self.said(name) for name in names}
        if before:
            self._append({name: change(said) for name, said in before.items()})
            self._done.append(before)

    def _append(self, said: dict[str, Said]) -> None:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        lines = _written((name, each._replace(time=now)) for name, each in said.items())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._widen()
            with self.path.open("a+b", buffering=0) as file:
                size = file.tell()
                torn = size and os.pread(file.fileno(), 1, size - 1) != b"\n"
                start = b"\n" if torn else b"" if size else _HEADER
                file.write(start + lines)  # one call, so that lines of two writers never mix
                os.fsync(file.fileno())
        except PermissionError:
            remedy = "cannot be written; name another file for the labels"
            raise PermissionError(f"{self.path} {remedy}") from None
        self.refresh()

    def _widen(self) -> None:
        """Give a file of labels alone, as they were written once, the columns of grades and notes."""
        if self.path.exists() and self.path.read_bytes().startswith(_OLD_HEADER):
            old = self.path.read_bytes()
            with atomic(self.path) as partial:
                partial.write_bytes(_HEADER + _written(_said_in(old)))
            self._lines, self._read_to = {}, 0
            self.refresh()

    def counts(self) -> dict[str, int]:
        """How many objects carry each label."""
        found = Counter(said.label for said in self._lines.values())
        return {label: found[label] for label in LABELS}

    def table(self) -> pd.DataFrame:
        """One row a labelled object, in the order of labelling.

        Returns:
            `name`, `label` (1 lens, 0 not, -1 unsure, as in the Scores table), `said` (the word), `grade`,
            `note`, `time` (UTC).
        """
        rows = [(name, LABELS[said.label], *said) for name, said in self._lines.items() if said.label]
        return pd.DataFrame(rows, columns=["name", "label", "said", "grade", "note", "time"])

    def join(self, listed: pd.DataFrame) -> pd.DataFrame:
        """A list with what was said by eye: columns `said`, `grade`, `note`, "" where nothing was.

        Args:
            listed: table with `name`.
        """
        said = [self.said(name)[:3] for name in listed["name"].astype(str)]
        columns = pd.DataFrame(said, listed.index, ["said", "grade", "note"], dtype=object)
        return listed.assign(**columns)


def _said_in(text: bytes) -> Iterator[tuple[str, Said]]:
    """Names and what is said of them, line by line; lines that are none of ours are passed over."""
    for line in text.decode(errors="replace").split("\n"):
        fields = next(csv.reader([line]), [])  # each alone, so that an open quote ends with its line
        if len(fields) == 3:
            fields = [*fields[:2], "", "", fields[2]]
        if len(fields) == 5 and fields[1] in (*LABELS, "") and _TIME.fullmatch(fields[4]):
            yield fields[0], Said(*fields[1:])


def _written(said: Iterable[tuple[str, Said]]) -> bytes:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows((name, *each) for name, each in said)
    return lines.getvalue().encode()

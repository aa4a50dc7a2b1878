"""Labels given by eye, kept in a plain CSV beside the survey.

The file is a journal: every keystroke adds one line, `name,label,time`, and the last line of a name counts.
So nothing that was written is ever written again, a kernel that dies takes nothing with it, and two notebooks
may label the same survey at once.
"""

import csv
import io
import os
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

LABELS = {"lens": 1, "not": 0, "unsure": -1}
"""The labels, and what a column `label` of the Scores table holds for them."""

FILE = "inspected.csv"
"""Name of the file in the survey's folder."""

_HEADER = b"name,label,time\n"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_COMPLETE = re.compile(rb"," + _TIME.pattern.encode() + rb"\Z")  # a last line that lacks its end alone


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
        self._lines: dict[str, tuple[str, str]] = {}
        self._read_to = 0
        self._done: list[tuple[str, str]] = []
        self.refresh()

    def refresh(self) -> None:
        """Read what was added since, by whomever. A line cut short by a crash is passed over."""
        if not self.path.exists():
            self._lines, self._read_to = {}, 0
            return
        with self.path.open("rb") as file:
            header = file.readline()
            if not _HEADER.startswith(header.rstrip(b"\n")):
                raise ValueError(f"{self.path}: the first line is not 'name,label,time'; name another file")
            if file.seek(0, os.SEEK_END) < self._read_to:
                self._lines, self._read_to = {}, 0
            self._read_to = max(self._read_to, len(header))
            file.seek(self._read_to)
            new = file.read()
        whole = new if _COMPLETE.search(new) else new[: new.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for fields in csv.reader(whole.decode(errors="replace").splitlines()):
            if len(fields) == 3 and fields[1] in (*LABELS, "") and _TIME.fullmatch(fields[2]):
                name, label, time = fields
                self._lines.pop(name, None)  # so that the order is that of the last word
                self._lines[name] = label, time

    def __getitem__(self, name: str) -> str:
        """The label of an object, "" if it has none."""
        return self._lines.get(name, ("", ""))[0]

    def __len__(self) -> int:
        return sum(bool(label) for label, _ in self._lines.values())

    def set(self, name: str, label: str) -> None:
        """Label an object. When this returns, the label is on the disk.

        Args:
            name: the object.
            label: "lens", "not" or "unsure"; "" takes the label away.

        Raises:
            ValueError: There is no such label.
            PermissionError: The file cannot be written; give another.
        """
        if label not in (*LABELS, ""):
            raise ValueError(f"label {label!r} is none of {', '.join(LABELS)}")
        self.refresh()
        before = self[name]
        self._append(name, label)
        self._done.append((name, before))

    def undo(self) -> str | None:
        """Take back the last label of this session; again, the one before.

        Returns:
            The name of the object, which has its former label again, or None if there is nothing to undo.
        """
        if not self._done:
            return None
        name, before = self._done.pop()
        self._append(name, before)
        return name

    def _append(self, name: str, label: str) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(
            [name, label, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"]
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except PermissionError:
            raise PermissionError(
                f"{self.path} cannot be written; name another file for the labels"
            ) from None
        try:
            size = os.fstat(file).st_size
            torn = size and os.pread(file, 1, size - 1) != b"\n"
            start = b"\n" if torn else b"" if size else _HEADER
            os.write(
                file, start + line.getvalue().encode()
            )  # one call, so that lines of two writers never mix
            os.fsync(file)
        finally:
            os.close(file)
        self.refresh()

    def counts(self) -> dict[str, int]:
        """How many objects carry each label."""
        found = Counter(label for label, _ in self._lines.values())
        return {label: found[label] for label in LABELS}

    def table(self) -> pd.DataFrame:
        """One row a labelled object, in the order of labelling.

        Returns:
            `name`, `label` (1 lens, 0 not, -1 unsure, as in the Scores table), `said` (the word), `time`
            (UTC).
        """
        rows = [(name, LABELS[said], said, time) for name, (said, time) in self._lines.items() if said]
        return pd.DataFrame(rows, columns=["name", "label", "said", "time"])

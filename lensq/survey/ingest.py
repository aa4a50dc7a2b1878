"""Read many FITS files once, by several processes, into two arrays on disk: images and masks.

The files are shared out in parts. A part's images go, one after the other, into the rows of the arrays that
are kept for it; then a record of its files, and of what became of each, is renamed into place. So a part is
either complete or does not exist, however the run ended; whoever packs the survey next takes up the records.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from lensq.survey.fits import read_image
from lensq.survey.hdus import UnusableError
from lensq.survey.images import fit_to_size

FILES_IN_A_PART = 1024
"""Most files in a part; what each process may lose when it is interrupted."""

FILES_WORTH_A_PROCESS = 512
"""Fewest files for which starting another process pays."""


RECORD = {
    "file": "str",
    "bytes": "int64",
    "time": "int64",
    "reason": "str",
    "detail": "str",
    "ra": "float64",
    "dec": "float64",
    "side": "int64",
    "digest": "int64",
    "row": "int64",
}
"""What is recorded of a file, and its types: file, bytes, time of last change (ns), reason and detail
("" when usable), position from its WCS (degrees, where wanted), shorter side of its image in pixels (0 in
quarantine), digest and row of its image."""


@dataclass(frozen=True)
class Task:
    """Files to read.

    Attributes:
        folder: where the files are.
        files: (file, bytes, time of last change in nanoseconds, whether its position is wanted) of each.
        size, resize: as in `lensq.survey.images.fit_to_size`.
        run: beginning of the paths of what is written.
        first: first row of the arrays that is kept for these files; they have one each.
    """

    folder: Path
    files: list[tuple[str, int, int, bool]]
    size: int
    resize: bool
    run: Path
    first: int = 0

    @property
    def arrays(self) -> tuple[Path, Path]:
        """The images and the masks, in numpy's format."""
        return self.run.with_suffix(".images.npy"), self.run.with_suffix(".masks.npy")

    def parts(self, length: int) -> Iterator[Task]:
        """Tasks of at most `length` files that make up this one."""
        for start in range(0, len(self.files), length):
            yield replace(self, files=self.files[start : start + length], first=self.first + start)


def read_files(task: Task, workers: int | None, progress: bool) -> None:
    """Read any number of files into new arrays.

    Args:
        task: the files.
        workers: number of processes; 1 reads in this process; None takes as many as there are
            processors to use and files to keep them busy.
        progress: whether to show a progress bar.

    Raises:
        OSError: the arrays cannot be written.
        RuntimeError: the processes cannot be started.
    """
    n = len(task.files)
    if workers is None:
        workers = min(_processors(), n // FILES_WORTH_A_PROCESS)
    for path, number_format in zip(task.arrays, (np.float32, np.bool_), strict=True):
        np.lib.format.open_memmap(path, "w+", number_format, (n, task.size, task.size))
    parts = deque(task.parts(min(FILES_IN_A_PART, n // (8 * max(workers, 1)) + 1)))
    alone = workers <= 1 or current_process().daemon
    counts = map(read_part, parts) if alone else _read_in_processes(parts, workers)
    with tqdm(total=n, desc="reading cutouts", unit="file", disable=not progress) as bar:
        for count in counts:
            bar.update(count)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_part(task: Task) -> int:
    """Read the files of a part into its rows, record them, and return their number."""
    records: list[tuple] = []
    rows = task.first
    image_path, mask_path = task.arrays
    with _at_row(image_path, rows) as images, _at_row(mask_path, rows) as masks:
        for file, length, time, wanted in task.files:
            reason = detail = ""
            ra = dec = math.nan
            side, digest, row = 0, 0, -1
            try:
                image = read_image(os.path.join(task.folder, file))
                pixels, mask = fit_to_size(image.pixels, task.size, task.resize)
                _check_content(pixels, mask)
            except UnusableError as error:
                reason, detail = error.reason, error.detail
            else:
                if wanted:
                    ra, dec = image.position()
                side = min(image.pixels.shape)
                digest = zlib.crc32(mask, zlib.crc32(pixels))
                images.write(pixels)
                masks.write(mask)
                row, rows = rows, rows + 1
            records.append((file, length, time, reason, detail, ra, dec, side, digest, row))
    _write_record(task, records)
    return len(records)


@contextmanager
def _at_row(path: Path, row: int) -> Iterator[BinaryIO]:
    """An array's file, opened to write from some row on."""
    array = np.load(path, mmap_mode="r")
    with open(path, "r+b", buffering=2**20) as file:
        file.seek(array.offset + row * array.strides[0])
        yield file


def _write_record(task: Task, records: list[tuple]) -> None:
    columns = dict(zip(RECORD, zip(*records, strict=True), strict=True))
    record = task.run.with_name(f"{task.run.name}-{task.first:08d}.json")
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps(columns))
    os.replace(partial, record)


def _check_content(pixels: np.ndarray, mask: np.ndarray) -> None:
    """Refuse a stamp in which nothing can be seen."""
    middle = len(mask) // 2
    if mask[middle, middle - 1 : middle + 1].all() and pixels[middle, middle - 1] != pixels[middle, middle]:
        return  # two pixels that differ are quickly found in nearly every stamp
    real = pixels if mask.all() else pixels[mask]
    if not real.size:
        raise UnusableError("no finite pixel", f"in the stamp of {len(mask)} x {len(mask)} px")
    if real.min() == real.max():
        where = f"all {real.size} finite pixels of the stamp of {len(mask)} x {len(mask)} px"
        raise UnusableError("constant", f"{real.flat[0]:g} in {where}")


class _Reader:
    """A process that reads files, and the task that it is at."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other,), daemon=True)
        with _no_main_module():
            self.process.start()
        other.close()
        self.task: Task | None = None
        self.done = False


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide the running script from a process that starts, which would run it once more.

    Without this, only scripts that keep everything under `if __name__ == "__main__"` could read a survey.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _serve(connection: Connection) -> None:
    """Read the parts that come down the connection until None or the end of the other side."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its readers itself
    answer: Exception | None = None
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send(answer)
            task = connection.recv()
            if task is None:
                return
            try:
                answer = None
                read_part(task)
            except Exception as error:  # sent to the parent, which raises it
                answer = error


def _read_in_processes(tasks: deque[Task], workers: int) -> Iterator[int]:
    """Do all tasks, yielding the number of files of each as it is done.

    A file that kills the process that reads it is found by reading the files of its part one by one.
    """
    readers = [_Reader() for _ in range(min(workers, len(tasks)))]
    try:
        while busy := {reader.connection: reader for reader in readers if not reader.done}:
            for connection in wait(list(busy)):
                reader = busy[connection]
                try:
                    answer = connection.recv()
                except (EOFError, ConnectionError):
                    reader.done = True
                    yield _bury(reader, tasks)
                    if tasks:
                        readers.append(_Reader())
                    continue
                if answer:
                    raise answer
                if reader.task:
                    yield len(reader.task.files)
                reader.task = tasks.popleft() if tasks else None
                reader.done = reader.task is None
                with suppress(ConnectionError):  # if it is dead, the next answer tells
                    connection.send(reader.task)
    finally:
        for reader in readers:
            if not reader.done:
                reader.process.terminate()
            reader.process.join()
            reader.connection.close()


def _bury(reader: _Reader, tasks: deque[Task]) -> int:
    """Put what a dead process leaves back among the tasks; return how many files it settles."""
    reader.process.join()
    death = f"exit code {reader.process.exitcode}"
    if reader.task is None:
        raise RuntimeError(f"a process that reads files cannot start ({death}); workers=1 needs none")
    if len(reader.task.files) > 1:
        tasks.extendleft(reader.task.parts(1))
        return 0
    [(file, length, time, _)] = reader.task.files
    detail = f"reading it kills the process ({death})"
    record = (file, length, time, "unreadable", detail, math.nan, math.nan, 0, 0, -1)
    _write_record(reader.task, [record])
    return 1

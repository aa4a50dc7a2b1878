"""One notebook of the graph, as a job of Snakemake.

    python -m lensq.study.job IN OUT YAML

Apart from `lensq.study.run`, whose imports would take longer than papermill's.
"""

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil
import yaml
from nbformat import NO_CONVERT, read, write
from nbformat.v4 import new_markdown_cell
from papermill import execute_notebook

from lensq.survey.ingest import declared_of

RUNNING = ".running"
"""In a build folder: locked while somebody works there, and holds the number of the process that began."""

IDLE = 600.0
"""Seconds without a second of processor time after which the kernel of a notebook counts as lost."""

AGAIN = "LENSQ_AGAIN"
"""Variable of the environment that is set where a notebook's kernel was lost once."""


def error_in(notebook: Path) -> str:
    """The error that ended an executed notebook, and where to read more; empty if there is none."""
    if not notebook.is_file():
        return ""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except ValueError:  # a disk that was full, most of the time
        free = shutil.disk_usage(notebook.parent).free
        return f"{notebook.stem}: {notebook} ends early; {free / 1e6:.0f} MB are free there: make space"
    for cell in cells:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error" and cell["metadata"].get("papermill", {}).get("exception"):
                return f"{notebook.stem}: {output['ename']}: {output['evalue']} (in {notebook})"
    return ""


def run_notebook(notebook: Path, out: Path, parameters: Mapping[str, object]) -> None:
    """Execute a notebook by papermill in its own folder; `out` keeps it as far as it came.

    Raises:
        SystemExit: it failed, with the error's own line.
    """
    try:
        # The last outputs of a cell take longer than papermill's 4 s to arrive on a crowded machine.
        options = {"iopub_timeout": 300, "extra_arguments": ["--IPKernelApp.log_level=ERROR"]}
        execute_notebook(notebook, out, parameters, cwd=notebook.parent, **options)
        _say_first(out, notebook.parent / str(parameters.get("survey", "")))
    except Exception as error:  # that of a cell, or a kernel that died
        raise SystemExit(error_in(out) or f"{notebook.stem}: {type(error).__name__}: {error}") from None


def _say_first(executed: Path, survey: Path) -> None:
    """Begin a page with the note of the survey that it was made from, where there is one."""
    if note := declared_of(survey).get("note"):
        page = read(executed, NO_CONVERT)
        page.cells.insert(1, new_markdown_cell(f"```{{attention}}\n{note}\n```"))
        write(page, executed)


def watch_over(job: str) -> None:
    """End this job when the Snakemake that started it was killed, and begin it anew when its kernel is lost.

    Papermill waits for ever where a kernel's answer goes astray, as was seen twice on a crowded machine; a
    kernel at work uses processor time. A job whose kernel is lost a second time ends.
    """
    shell, own, place = psutil.Process(os.getppid()), psutil.Process(), Path.cwd()
    owner = shell.ppid()

    def used() -> float:
        total = 0.0
        for process in own.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:2])
        return total

    def watch() -> None:
        seen, since, lost = used(), time.monotonic(), False
        with suppress(psutil.NoSuchProcess):
            while shell.ppid() == owner and not lost:
                time.sleep(0.5)
                if abs(used() - seen) > 1:
                    seen, since = used(), time.monotonic()
                elif lost := time.monotonic() > since + IDLE:
                    print(f"{job}: its kernel did nothing for {IDLE:g} s", file=sys.stderr, flush=True)
        for child in own.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        if lost and not os.environ.get(AGAIN):
            os.chdir(place)  # papermill is in the notebook's folder
            os.execve(sys.executable, sys.orig_argv, os.environ | {AGAIN: "yes"})
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def main(notebook: str, out: str, given: str) -> None:
    """Execute a notebook in the build folder that this process is in; `given` has its parameters as YAML."""
    with Path(RUNNING).open("a") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        watch_over(Path(notebook).stem)
        run_notebook(Path(notebook), Path(out), yaml.safe_load(given))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What a notebook needs from the ones before it: say so, and offer to make it."""

import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from threading import Thread

import lensq

_ROOT = Path(__file__).parents[1]
_BUILT = ("survey", "test_survey", "results")
_SIZES = {
    "smoke": "smoke: a few minutes, numbers mean nothing",
    "laptop": "laptop: half an hour on two cores",
    "full": "full: some 14 hours on two cores",
    "paper": "paper: for a GPU",
}
_MEMORY = 1.5e9
"""Bytes for each notebook at work, which takes 1e9 at the smoke size."""

_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files that tell how much memory a container may have, in bytes: of cgroup's version 2, and 1."""


class NotMadeYetError(FileNotFoundError):
    """Something that another notebook makes is not there. A notebook shows the message, no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def offer(path: Path | str, made_by: str) -> bool:
    """Show a button that makes what a notebook needs, with all that it rests on, and tells when it is there.

    There is one only where it can replace nothing but what the same profile made: in `_build`, and in folders
    below it that are named for a profile. For other folders below `_build` it prints what to run instead.

    Args:
        path: what is needed, in a build folder: its `survey`, `test_survey` or `results`, or below.
        made_by: the notebook that makes it, such as "00_start_here".

    Returns:
        Whether there is a button; only in a notebook.

    Raises:
        ValueError: the profile that the folder is named for cannot be used.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    build = _build_of(Path(path))
    if not hasattr(shell, "kernel") or build is None or not (_ROOT / "Snakefile").is_file():
        return False
    reads = shell.user_ns.get("survey")
    # Notebook 13 ranks any survey with the model in `trained`: there the two need not belong together.
    if not isinstance(reads, str) or isinstance(shell.user_ns.get("trained"), str):
        reads = None
    profiles, why, command = _profiles_for(build, reads and Path(reads).resolve())
    if not profiles:
        print(f"No button makes it: {why}. In a terminal, in {_ROOT}:\n\n    {command}\n")
        return False
    _show(made_by, build, profiles)
    return True


def _build_of(path: Path) -> Path | None:
    """The build folder that a path lies in: the project's own, or one below it; None for any other path."""
    own, path = (_ROOT / "_build").resolve(), path.resolve()
    parts = path.relative_to(own).parts if path.is_relative_to(own) else ()
    return next((own.joinpath(*parts[:i]) for i, part in enumerate(parts[:2]) if part in _BUILT), None)


def _profiles_for(build: Path, reads: Path | None) -> tuple[list[str], str, str]:
    """Profiles that may be made in a build folder; if there are none, why, and a command that makes it.

    Args:
        build: the folder.
        reads: the survey that the notebook reads, if what is missing has to be of that survey.
    """
    known = sorted(file.stem for file in (_ROOT / "notebooks" / "profiles").glob("*.yml"))
    survey, results, top = build / "survey", build / "results", build == (_ROOT / "_build").resolve()
    folder = reads if reads and reads.is_dir() else "<folder>"
    if not top and (own := re.fullmatch(r"(.+)-\d{6}", build.name)):
        size = max((name for name in known if own[1].startswith(f"{name}-")), key=len, default="")
        command = f"make book {f'PROFILE={size} ' if size else ''}SURVEY={folder}"
        return [], f"{build.name} is of a survey of your own", command
    if not top and build.name not in known:
        return [], f"{build.name} is no profile", f"make book SURVEY={folder}  # if the survey is your own"
    if reads not in (None, survey):
        return [], f"it would be of {survey}, and this notebook reads {reads}", f"make book SURVEY={folder}"
    fitting = [name for name in ("smoke", "laptop") if name in known] if top else [build.name]
    if survey.exists():
        profiles = [name for name in fitting if _is_of(survey, name)]
    else:  # results alone may be of a survey that lies elsewhere
        profiles = [] if any(results.glob("*")) else fitting
    held = survey if survey.exists() else results
    command = f"make book{'' if top else f' PROFILE={build.name}'}  # replaces what is there"
    return profiles, f"{held} is not known to be of the profile {' or '.join(fitting)}", command


def _is_of(survey: Path, profile: str) -> bool:
    """Whether a survey is what notebook 00 simulates in a profile, be it by other code."""
    record, notebooks = survey / "simulation.json", _ROOT / "notebooks"
    if not record.is_file():
        return False
    # Through the package rather than imported: `study` stands above this room, and no notebook rests on it.
    declared = lensq.parameters.read_parameters(notebooks / "00_start_here.ipynb")
    given = lensq.study.read_profile(notebooks / "profiles" / f"{profile}.yml", notebooks)["00_start_here"]
    values = {name: parameter.default for name, parameter in declared.items()} | given
    wanted = {"n": values["objects"], "seed": values["survey_seed"], "control": None}
    wanted |= {name: values[name] for name in ("mix", "anomaly_rate", "labels")}
    told = json.loads(record.read_text())
    return all(told.get(name) == value for name, value in wanted.items())


def _cores() -> int:
    """How many notebooks may run side by side: as there are cores and memory for, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if re.fullmatch(r"\d+(\.\d*)?", told := os.environ.get("CPU_LIMIT", "")):  # JupyterHub's, and so Binder's
        cores = min(cores, int(float(told)))
    memory = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _CONTAINER:
        with suppress(OSError, ValueError):  # not there, or "max"
            memory.append(int(Path(file).read_text()))
    return max(1, min(cores, int(min(memory) // _MEMORY)))


def _command(notebook: str, build: Path, profile: str) -> list[str]:
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(_ROOT / "Snakefile")),
        *("--directory", str(build), "--cores", str(_cores()), "--rerun-incomplete"),
        *("--config", f"profile={profile}", "--", f"src/notebooks/{notebook}.ipynb"),
    ]


def _show(notebook: str, build: Path, profiles: Sequence[str]) -> None:
    import ipywidgets
    from IPython.display import display

    size = ipywidgets.Dropdown(
        options=[(_SIZES.get(name, name), name) for name in profiles],
        description="Size",
        layout={"width": "26em"},
    )
    button = ipywidgets.Button(description="Make it now", icon="play", button_style="primary")
    bar = ipywidgets.IntProgress(layout={"visibility": "hidden", "width": "16em"})
    told = ipywidgets.HTML(f"Needs what notebook <b>{notebook}</b> makes.")

    def make() -> None:
        build.mkdir(parents=True, exist_ok=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        run = subprocess.Popen(
            _command(notebook, build, size.value),
            env=os.environ | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        tail = deque(maxlen=12)
        for line in run.stdout:
            tail.append(line.rstrip())
            if steps := re.search(r"(\d+) of (\d+) steps", line):
                bar.value, bar.max = int(steps[1]), int(steps[2])
                told.value = f"{steps[1]} of {steps[2]} notebooks are through."
        if run.wait():
            told.value = f"It failed:<pre>{escape(os.linesep.join(tail))}</pre>"
            button.disabled = size.disabled = False
        else:
            bar.value = bar.max
            told.value = "<b>It is there.</b> Run this notebook again: menu Run, Run All Cells."

    def start(_) -> None:
        button.disabled = size.disabled = True
        bar.layout.visibility = "visible"
        told.value = "Starting; this goes on while the page is open."
        Thread(target=make, daemon=True).start()

    button.on_click(start)
    display(ipywidgets.VBox([told, ipywidgets.HBox([size, button, bar])]))

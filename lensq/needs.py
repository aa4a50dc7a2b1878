"""What a notebook needs from the ones before it: say so, and offer to make it."""

import os
import re
import subprocess
import sys
from collections import deque
from html import escape
from pathlib import Path
from threading import Thread

_ROOT = Path(__file__).parents[1]
_BUILT = ("survey", "test_survey", "results")
_PROFILES = {"smoke": "smoke: a few minutes, numbers mean nothing", "laptop": "laptop: up to an hour"}


class NotMadeYetError(FileNotFoundError):
    """Something that another notebook makes is not there. A notebook shows the message, no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def offer(path: Path | str, made_by: str) -> bool:
    """Show a button that makes what a notebook needs, with all that it rests on, and tells when it is there.

    Args:
        path: what is needed, in a build folder: its `survey`, `test_survey` or `results`, or below.
        made_by: the notebook that makes it, such as "00_start_here".

    Returns:
        Whether there is a button: only in a notebook, and only for a path in such a build folder.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    path = Path(path).absolute()
    build = next((p.parent for p in (path, *path.parents) if p.name in _BUILT), None)
    if not hasattr(shell, "kernel") or build is None or not (_ROOT / "Snakefile").is_file():
        return False
    _show(made_by, Path(os.path.normpath(build)))
    return True


def _command(notebook: str, build: Path, profile: str) -> list[str]:
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(_ROOT / "Snakefile")),
        *("--directory", str(build), "--cores", str(os.cpu_count()), "--rerun-incomplete"),
        *("--config", f"profile={profile}", "--", f"src/notebooks/{notebook}.ipynb"),
    ]


def _show(notebook: str, build: Path) -> None:
    import ipywidgets
    from IPython.display import display

    size = ipywidgets.Dropdown(
        options=[(text, name) for name, text in _PROFILES.items()],
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

"""Fixtures that several test files share."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def environment() -> dict[str, str]:
    """This process's environment with the environment of its Python first on the path."""
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if "PYTHONPATH" not in os.environ:
        own["PYTHONPATH"] = str(ROOT)  # the package beside these tests, whichever is installed
    return os.environ | own


def snakemake(
    folder: Path, *arguments: str, profile: str = "smoke", **variables: str
) -> subprocess.CompletedProcess:
    """Run the study's own Snakefile in a folder, with other variables of the environment."""
    # lensq first: Snakemake puts the Snakefile's folder before PYTHONPATH, which may name an edited copy.
    start = "import sys, lensq.study; from snakemake.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-P", "-c", start, "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--cores", "2", "--config", f"profile={profile}", *arguments]
    env = environment() | variables
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """The whole study at smoke size: survey, every notebook, the book, in a folder of its own.

    `LENSQ_STUDY` names a folder that is kept and brought up to date instead, for work on the tests.
    """
    kept, own = os.environ.get("LENSQ_STUDY"), tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist, each with a folder in one, share it: who comes second waits, and finds it made.
    folder = Path(kept) if kept else (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "study"
    folder.mkdir(exist_ok=True, parents=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = snakemake(folder)
    if run.returncode:
        pytest.fail(f"the study failed in {folder}:\n{run.stdout[-4000:]}\n{run.stderr[-8000:]}")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread for a whole file: equal weights to the last bit, and quicker on small networks."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared_real() -> Path:
    """Real pixels beside the project; tests that want them skip without them."""
    folder = ROOT.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip("no real pixels here: they lie outside the project, in ../shared/real")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium for browser tests."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        missing = "no Chromium: install Debian's package chromium, or name one in the variable CHROMIUM"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="session")
def session(chromium):
    """One browser for the book and for JupyterLab: Playwright starts once in a process."""
    from playwright.sync_api import sync_playwright  # here, so that unit tests run without it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()

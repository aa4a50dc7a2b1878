"""A live JupyterLab: notebook 14 runs, its inspector is used by keyboard, its kernel is killed.

One visit does it all; the tests look at what was seen on the way.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from conftest import ROOT, environment
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.study, pytest.mark.timeout(1200)]

NAMELESS = """() => [...document.querySelectorAll(
    ".lensq-inspector :is(button, select, input, canvas[role=img], [role=option], [role=listbox], ol)")]
  .filter(e => e.offsetParent !== null)
  .filter(e => {
    const label = e.labels && e.labels[0] ? e.labels[0].innerText : "";
    return !(e.getAttribute("aria-label") || label || e.innerText || "").trim();
  })
  .map(e => e.outerHTML.slice(0, 120))"""


def at_work(notebook: str, folder: Path, *, until: str, **values: str) -> str:
    """A copy of a notebook of the study up to a cell, with other parameters; returns its name."""
    copy = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4)
    last = max(i for i, c in enumerate(copy.cells) if c.cell_type == "code" and until in c.source)
    del copy.cells[last + 1 :]
    cell = next(c for c in copy.cells if "parameters" in c.metadata.get("tags", []))
    for name, value in values.items():
        cell.source, found = re.subn(
            rf"^({name}: \w+ = ).+?(?=  #)", lambda m, v=value: m[1] + json.dumps(v), cell.source, flags=re.M
        )
        assert found == 1, name
    nbformat.write(copy, folder / f"{notebook}.ipynb")
    return f"{notebook}.ipynb"


@dataclass
class Lab:
    """A server, and a browser that watches for requests to anywhere else."""

    address: str
    folder: Path
    server: subprocess.Popen
    browser: object
    outside: list[str] = field(default_factory=list)

    def open(self, notebook: str) -> Page:
        """Open a notebook in a fresh window and wait for its kernel."""
        page = self.browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
        page.on(
            "request",
            lambda r: (
                None if r.url.startswith((self.address, "data:", "blob:")) else self.outside.append(r.url)
            ),
        )
        page.goto(f"{self.address}/lab/tree/{notebook}?reset")
        select = page.locator(".jp-Dialog button.jp-mod-accept")
        idle = page.get_by_text("Python 3 (ipykernel) | Idle")
        expect(select.or_(idle).first).to_be_visible(timeout=90_000)
        if select.is_visible():
            select.click()
        expect(idle).to_be_visible(timeout=90_000)
        return page

    def run_all(self, page: Page) -> None:
        """Run all cells from the menu, and wait until they are through."""
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        begun = page.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]+\]"))
        expect(begun.first).to_be_visible(timeout=90_000)
        expect(page.locator(".jp-InputPrompt", has_text="[*]")).to_have_count(0, timeout=240_000)

    def kill_kernels(self) -> None:
        """End them as a machine does that runs out of memory."""
        for process in psutil.Process(self.server.pid).children(recursive=True):
            if "ipykernel_launcher" in " ".join(process.cmdline()):
                process.kill()


def clone(folder: Path) -> Path:
    """The parts of a fresh clone that notebooks and Snakemake work with, and an empty folder `mine` in it."""
    for part in ("lensq", "notebooks"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for file in ("Snakefile", "sweep.smk"):
        shutil.copy(ROOT / file, folder)
    (folder / "mine").mkdir()
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory, session):
    """JupyterLab with settings of its own, on a free port; its kernels have lensq from a fresh clone."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("lab")
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    tracker = home / "settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    for path, content in (
        (home / "config/labconfig/page_config.json", quiet),
        (tracker, {"windowingMode": "none"}),  # else cells out of sight are not on the page
    ):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    places = {"JUPYTER_CONFIG_DIR": home / "config", "JUPYTER_RUNTIME_DIR": home / "runtime"}
    places |= {"JUPYTERLAB_SETTINGS_DIR": home / "settings", "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces"}
    places |= {"PYTHONPATH": clone(folder / "clone")}
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", f"--port={port}"),
                *("--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"),
            ],
            env=environment() | {key: str(path) for key, path in places.items()},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/api").read()
                break
            except OSError:
                assert server.poll() is None, (home / "log").read_text()
                time.sleep(0.2)
        yield Lab(address, folder, server, session)
    finally:
        server.terminate()
        server.wait(30)


@dataclass
class Seen:
    """What the visit saw."""

    labelled: list[str] = field(default_factory=list)
    kept: dict[str, pd.DataFrame] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    listed: list[int] = field(default_factory=list)
    recall: list[str] = field(default_factory=list)
    nameless: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def seen(lab, study) -> Seen:
    """Label, undo, learn, slide; kill the kernel; come back."""
    seen, labels = Seen(), lab.folder / "labels.csv"
    places = {
        "survey": study / "survey",
        "results": lab.folder,
        "trained": study / "results",
        "labels": labels,
    }
    places = {name: str(path) for name, path in places.items()}
    notebook = at_work("14_candidates", lab.folder, until="ThresholdSlider(", **places)
    page = lab.open(notebook)
    lab.run_all(page)
    inspector = page.locator(".lensq-inspector:not(.lensq-threshold)")
    first = inspector.locator("[role=option]").first
    expect(first).to_be_visible(timeout=60_000)
    slider = page.locator(".lensq-threshold input[type=range]")
    names = [inspector.locator("[role=option]").nth(i).get_attribute("aria-label") for i in range(4)]
    seen.labelled = [re.search(r"J[\d.+-]+", name)[0].rstrip(".") for name in names]
    first.focus()
    for key in ("l", "n", "u"):
        page.keyboard.press(key)
    counts = inspector.locator(".counts")
    expect(counts).to_contain_text("1 unsure", timeout=60_000)
    seen.kept["three keys"] = pd.read_csv(labels)
    seen.nameless = page.evaluate(NAMELESS)
    for key in (
        "z",
        "u",
        "r",
    ):  # faster than any answer: the label has to wait for the object that undo shows
        page.keyboard.press(key)
    said = inspector.locator(".said")
    expect(said).to_contain_text("Learnt from", timeout=60_000)
    seen.said["learnt"] = said.inner_text()

    slider.focus()
    for presses in (0, 25):
        for _ in range(presses):
            page.keyboard.press("ArrowRight")
        number = page.locator("[data-number=listed]").inner_text()
        seen.listed.append(int(number.replace(",", "")))
        seen.recall.append(page.locator("[data-number=recall]").inner_text())

    lab.kill_kernels()
    inspector.locator("[role=option][tabindex='0']").focus()
    page.keyboard.press("l")
    alarm = inspector.locator(".alarm")
    expect(alarm).to_be_visible(timeout=30_000)
    seen.said["killed"] = alarm.inner_text()
    seen.kept["killed"] = pd.read_csv(labels)
    page.context.close()

    page = lab.open(notebook)
    lab.run_all(page)
    option = page.locator(".lensq-inspector:not(.lensq-threshold) [role=option]")
    expect(option.first).to_be_visible(timeout=60_000)
    seen.marks = [option.nth(i).get_attribute("aria-label") for i in range(4)]
    page.context.close()
    return seen


def test_three_keys_are_three_lines_on_the_disk(seen):
    table = seen.kept["three keys"]
    assert table["name"].tolist() == seen.labelled[:3]
    assert table["label"].tolist() == ["lens", "not", "unsure"]


def test_undo_takes_back_and_labels_survive_the_kernel(seen):
    last = seen.kept["killed"].drop_duplicates("name", keep="last").set_index("name")["label"]
    assert last.to_dict() == dict(zip(seen.labelled, ["lens", "not", "unsure"], strict=False))
    for mark, label in zip(seen.marks, ["lens", "not", "unsure"], strict=False):
        assert mark.endswith(f"labelled {label}")
    assert "labelled" not in seen.marks[3]


def test_a_dead_kernel_is_noticed(seen):
    assert "labels are not kept" in seen.said["killed"]
    assert len(seen.kept["killed"]) == 5  # three labels, one taken back, one given again


def test_it_learns_by_one_key(seen):
    assert re.match(r"Learnt from 1 lenses and 1 others in \d+\.\d s", seen.said["learnt"])


def test_the_slider_moves_the_numbers(seen):
    assert seen.listed[1] > seen.listed[0]
    before, after = (float(text.rstrip("%")) for text in seen.recall)
    assert after > before


def test_every_control_and_picture_has_a_name(seen):
    assert seen.nameless == []


def test_a_fresh_clone_says_what_is_missing_and_what_makes_it(lab):
    notebook = at_work("14_candidates", lab.folder / "clone" / "mine", until="needs=")
    page = lab.open(f"clone/mine/{notebook}")
    lab.run_all(page)
    output = page.locator(".jp-OutputArea-output", has_text="there is no survey in")
    expect(output).to_be_visible(timeout=90_000)
    expect(output).to_contain_text("Notebook 00_start_here makes it")
    assert "Traceback" not in output.inner_text()
    page.context.close()


def test_nothing_is_fetched_from_outside(lab, seen):
    assert lab.outside == []

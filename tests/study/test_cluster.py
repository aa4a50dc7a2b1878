"""The study through a queue: Snakemake's executor for any submit command, with a shell as the queue."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, environment

pytestmark = pytest.mark.slow

SUBMIT = """#!/bin/bash
# Queue a job script: run it in the background, and say under which number.
echo "$1" >> queued
nohup bash "$1" > "job-$(wc -l < queued).log" 2>&1 &
echo $!
"""


def submit(folder: Path, profile: Path, notebook: str) -> subprocess.CompletedProcess:
    """The cluster page's command, for one notebook of the study's own graph."""
    queue = folder.parent / "submit.sh"
    queue.write_text(SUBMIT)
    queue.chmod(0o755)
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", str(queue)]
    command += ["--seconds-between-status-checks", "1", "--jobs", "2", "--cores", "1"]
    command += ["--config", f"profile={profile.with_suffix('')}", "--", f"src/notebooks/{notebook}.ipynb"]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


def test_a_queue_runs_the_jobs_of_the_graph_once(tmp_path):
    profile = tmp_path / "tiny.yml"
    profile.write_text("00_start_here: {objects: 100}\n")
    build = tmp_path / "build"
    build.mkdir()
    first = submit(build, profile, "00_start_here")
    logs = "\n".join(log.read_text() for log in build.glob("job-*.log"))
    assert first.returncode == 0, f"{first.stderr[-3000:]}\n{logs[-3000:]}"
    assert len((build / "queued").read_text().splitlines()) == 1
    executed = json.loads((build / "src/notebooks/00_start_here.ipynb").read_text())
    assert executed["metadata"]["papermill"]["parameters"]["objects"] == 100
    assert executed["metadata"]["papermill"]["exception"] is None

    again = submit(build, profile, "00_start_here")
    assert again.returncode == 0, again.stderr
    assert "Nothing to be done" in again.stdout + again.stderr
    assert len((build / "queued").read_text().splitlines()) == 1

"""Kill `make book` at random moments; a plain `make book` after them has to end with the same leaderboard.

    .venv/bin/python tests/study/kill_study.py --kills 20 --in-a-row 5 --build _build/killed

Kills in a row hit one build, each the run that went on after the one before. By hand, because it takes an
hour. TMPDIR on another file system is a case of its own: set it before the call.
"""

import argparse
import random
import shutil
import subprocess
import time
from pathlib import Path

import pandas as pd
import psutil

ROOT = Path(__file__).parents[2]


def make(build: Path) -> subprocess.Popen:
    command = ["make", "-C", str(ROOT), "book", "PROFILE=smoke", f"BUILD={build}"]
    return subprocess.Popen(command, start_new_session=True)


def leaderboard(build: Path) -> pd.DataFrame:
    """All that a run decides: not how long it took."""
    return pd.read_csv(build / "results" / "leaderboard.csv").drop(columns=["train_s", "score_per_s"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--in-a-row", type=int, default=1)
    parser.add_argument("--build", type=Path, default=ROOT / "_build" / "killed")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    build, draw = given.build.resolve(), random.Random(given.seed)
    start = time.monotonic()
    if make(build).wait():
        raise SystemExit("the study fails without being killed")
    lasted = time.monotonic() - start
    wanted = leaderboard(build)
    for kill in range(given.kills):
        if kill % given.in_a_row == 0:
            shutil.rmtree(build)
        after, whole = draw.uniform(1, lasted / given.in_a_row), draw.random() < 0.5
        run = make(build)
        time.sleep(after)
        for process in psutil.Process(run.pid).children(recursive=True)[:: 1 if whole else 10**6]:
            process.kill()  # all of them, as where a machine is reset, or Snakemake alone
        run.kill()
        run.wait()
        print(f"kill {kill}, after {after:.0f} s, {'all' if whole else 'Snakemake alone'}", flush=True)
        if (kill + 1) % given.in_a_row == 0:
            if make(build).wait():
                raise SystemExit("make book failed")
            pd.testing.assert_frame_equal(leaderboard(build), wanted)
            print("the same leaderboard", flush=True)


if __name__ == "__main__":
    main()

"""Where does the time of the whole study go, and what does it take to change one threshold?

    make book && python benchmarks/study.py --build _build --profile laptop --json study.json

Reads what papermill noted in the executed notebooks of a build folder. Then changes the strict operating
point of notebook 15 in a copy of the profile, has Snakemake bring that notebook up to date, and changes it
back. The baseline is the time of all notebooks.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from report import machine, options, write

from lensq.study.costs import stage_times

ROOT = Path(__file__).parents[1]
CHANGED, KEY, VALUE = "15_selection_function", "fpr", 0.02


def snakemake(build: Path, profile: str | Path, *more: str) -> str:
    """Bring the notebook up to date, and return what Snakemake said."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(build), "--cores"]
    command += [str(os.cpu_count()), "--config", f"profile={profile}", *more]
    command += ["--", f"src/notebooks/{CHANGED}.ipynb"]
    run = subprocess.run(
        command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(run.stderr)
    return run.stdout + run.stderr


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "_build")
    parser.add_argument("--profile", default="laptop")
    given = parser.parse_args()
    began = machine()
    if "Nothing to be done" not in snakemake(given.build, given.profile, "--dry-run"):
        raise SystemExit(f"{given.build} is not up to date with the profile {given.profile}: make book first")
    times = stage_times(given.build / "src" / "notebooks")
    figures = [
        {"what": f"first run, {stage}", "value": round(float(seconds), 1), "unit": "s"}
        for stage, seconds in times.sum().items()
    ]
    whole = float(times.to_numpy().sum())
    figures.append({"what": "first run, all notebooks", "value": round(whole, 1), "unit": "s"})

    profile = yaml.safe_load((ROOT / "notebooks" / "profiles" / f"{given.profile}.yml").read_text()) or {}
    profile[CHANGED] = (profile.get(CHANGED) or {}) | {KEY: VALUE}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "changed.yml").write_text(yaml.safe_dump(profile))
        start = time.perf_counter()
        said = snakemake(given.build, Path(folder) / "changed")
        seconds = time.perf_counter() - start
    snakemake(given.build, given.profile)
    jobs = sum(said.count(f"rule {name}:") for name in times.index)
    figures.append({"what": "second run, one threshold changed", "value": round(seconds, 1), "unit": "s"})
    figures.append({"what": "notebooks that it ran", "value": jobs, "unit": ""})
    for row in figures:
        print(f"{row['what']:36}{row['value']:9.1f} {row['unit']}")
    ratios = {"all notebooks to one changed threshold": whole / seconds}
    for name, ratio in ratios.items():
        print(f"ratio, {name}: {ratio:.0f}")
    write(given, "the whole study, and one changed threshold", figures, ratios, began)


if __name__ == "__main__":
    main()

"""How do time and memory grow from ten thousand to a million cutouts?

    python benchmarks/million.py --json million.json

A survey is simulated, and a model trained on it. Its files, by links, serve over and over under other names
and positions as a survey of any size. Each stage of the work on that survey is a process of its own. Time of
the processors, and the most private memory (resident and anonymous, of the process and those that it starts),
tell of growth also on a machine that is busy with other things. A million takes an hour and 12 GB of disk.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
from report import machine, options, write

import lensq
from lensq.study.job import run_notebook
from lensq.survey.split import iau_name

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
VARIANT, STEPS, BATCH = "SVDD_VAE", 50, 64
FLAGGED = 50  # one object in so many

Given = argparse.Namespace


def opened(given: Given) -> lensq.Survey:
    return lensq.read_survey(given.scratch / "survey", size=given.size, progress=False)


def training(given: Given) -> None:
    how = {"width": given.width, "latent": given.latent, "batch_size": BATCH, "max_images": STEPS * BATCH}
    lensq.fit(opened(given), VARIANT, out=given.scratch / "model", epochs=1, progress=False, **how)


def scoring(given: Given) -> None:
    model = lensq.load_model(given.trained / VARIANT)
    lensq.score(model, opened(given), out=given.scratch / "scores.parquet", progress=False)


def ranking(given: Given) -> None:
    survey, scores = opened(given), pd.read_parquet(given.scratch / "scores.parquet")
    scores["score"] = scores["central_residual"]
    ranked = lensq.detection.rank(scores, survey, lensq.detection.point_fits(survey))
    lensq.detection.write_candidates(ranked, survey, given.scratch / "list")


def page(name: str, given: Given, **parameters: object) -> None:
    places = {"survey": str(given.scratch / "survey"), "results": str(given.scratch / name)}
    run_notebook(NOTEBOOKS / f"{name}.ipynb", given.scratch / f"{name}.ipynb", places | parameters)


STAGES = {
    "reading the files": opened,
    "opening the survey": opened,
    f"{STEPS} training steps": training,
    "scoring": scoring,
    "ranking": ranking,
    "page of the survey": lambda given: page("01_data_exploration", given, size=given.size),
    "page of the candidates": lambda given: page(
        "14_candidates", given, trained=str(given.trained), splits=[], symmetries=False
    ),
}
"""In this order: a stage builds on those before."""


def link_survey(distinct: Path, folder: Path, n: int) -> None:
    """A survey of n objects, far from one another, whose files are links to some distinct ones."""
    files = sorted((distinct / "fits_data").iterdir())
    (folder / "fits_data").mkdir(parents=True)
    names = [iau_name(0.3 * (i % 1000) + 0.1, 0.08 * (i // 1000) - 40) for i in range(n)]
    for i, name in enumerate(names):
        os.link(files[i % len(files)], folder / "fits_data" / f"{name}_HSC-I_img.fits")
    (folder / "candidates_list_raw.txt").write_text("\n".join(names) + "\n")
    (folder / "candidates_list_selected.txt").write_text("\n".join(names[::FLAGGED]) + "\n")


def train(given: Given) -> None:
    """A variant and its encoder, fine-tuned on injected lenses, small and soon done."""
    survey = lensq.simulate_survey(given.scratch / "distinct", given.distinct, seed=1, progress=False)
    survey = lensq.read_survey(survey, size=given.size, progress=False)
    how = {"width": given.width, "latent": given.latent, "epochs": 2, "progress": False}
    model = lensq.fit(survey, VARIANT, out=given.trained / VARIANT, **how)
    place = given.trained / "injected" / "none"
    lensq.classifiers.finetune(model, survey, out=place, steps=100, progress=False)


def private_memory(process: psutil.Process) -> int:
    """Bytes of resident anonymous memory of a process and of those that it started."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        for each in (process, *process.children(recursive=True)):
            with suppress(OSError):
                lines = Path(f"/proc/{each.pid}/status").read_text().splitlines()
                total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
    return total


def measure(stage: str, given: Given) -> dict[str, tuple[float, str]]:
    """What a stage takes in a process of its own: value and unit of each quantity."""
    command = [sys.executable, __file__, "--child", stage, "--size", str(given.size)]
    command += ["--width", str(given.width), "--latent", str(given.latent)]
    command += ["--scratch", str(given.scratch), "--trained", str(given.trained)]
    before, begun, most = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stdout=said, stderr=said) as run:
        process = psutil.Process(run.pid)
        while run.poll() is None:
            most = max(most, private_memory(process))
            time.sleep(0.1)
        if run.returncode:
            said.seek(0)
            raise SystemExit(said.read())
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"time": (seconds, "s"), "processor time": (worked, "s"), "private memory": (most / 1e6, "MB")}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--numbers", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--distinct", type=int, default=2000, help="cutouts that are simulated")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--latent", type=int, default=16)
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--scratch", type=Path, help="folder for surveys and scores")
    parser.add_argument("--trained", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=list(STAGES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        STAGES[given.child](given)
        return
    began, figures = machine(), []
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        given.scratch, given.trained = Path(scratch), Path(scratch) / "trained"
        train(given)
        for n in given.numbers:
            with tempfile.TemporaryDirectory(dir=scratch) as place:
                given.scratch = Path(place)
                link_survey(Path(scratch) / "distinct", given.scratch / "survey", n)
                for stage in STAGES:
                    for what, (value, unit) in measure(stage, given).items():
                        print(f"{n:>9} {stage:24} {what:15} {value:10.1f} {unit}", flush=True)
                        row = {"what": what, "stage": stage, "objects": n, "value": round(value, 1)}
                        figures.append(row | {"unit": unit})
    write(given, "time and private memory by the number of objects", figures, {}, began)


if __name__ == "__main__":
    main()

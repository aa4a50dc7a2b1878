"""How do time and memory of scoring grow from ten thousand to a million cutouts?

    python benchmarks/million.py --json million.json

A survey is simulated, and the rows of its packed store serve over and over, so that a million cutouts need no
more disk than a thousand. Each number is scored in a process of its own, from the store to a Parquet file, by
a small network. Private memory is the resident anonymous memory of the process; the mapped store is the
system's to drop, and does not count. What is taken with the survey open is kept apart from what scoring adds
to it at the highest. Processor time tells of growth also on a machine that is busy with other things.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from report import machine, options, write

import lensq
from lensq.models.batches import Batches
from lensq.models.training import Model
from lensq.models.variants import MODELS, VAE
from lensq.survey.images import Preprocessing


def private_memory() -> int:
    """Bytes of resident anonymous memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon: this benchmark needs Linux")


class Highest:
    """The most private memory while its block runs, looked up fifty times a second."""

    def __enter__(self) -> "Highest":
        self.bytes, self._end = private_memory(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self.bytes = max(self.bytes, private_memory())

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self.bytes = max(self.bytes, private_memory())


class Repeated:
    """An array of n rows, those of a mapped array over and over."""

    def __init__(self, rows: np.ndarray, n: int) -> None:
        self.rows, self.shape = rows, (n, *rows.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: np.ndarray) -> np.ndarray:
        return self.rows[chosen % len(self.rows)]


def repeated(survey: lensq.Survey, n: int) -> lensq.Survey:
    """The survey with n objects, under names of their own."""
    rows = np.arange(n) % len(survey)
    per_object = ("coordinates", "labels", "graded", "group", "split")
    return replace(
        survey,
        names=np.char.mod("J%09d", np.arange(n)),
        images=Repeated(survey.images, n),
        mask=Repeated(survey.mask, n),
        **{name: getattr(survey, name)[rows] for name in per_object},
    )


def make_model(survey: lensq.Survey, given) -> Model:
    """An untrained model: what it costs to score does not depend on its weights."""
    config = MODELS[given.variant].config(size=given.size, width=given.width, latent=given.latent)
    vae = VAE(config)
    sample = Batches(survey, np.arange(min(len(survey), config.reference_size)), Preprocessing(), 256)
    vae.prepare(sample)
    vae.eval().finish(sample)
    return Model(vae, Preprocessing(), pd.DataFrame(), {"resized": False}, survey.fingerprint)


def score_once(folder: Path, n: int, size: int) -> dict[str, float]:
    """Score n cutouts in this process."""
    survey = lensq.read_survey(folder / "survey", size=size, progress=False)
    model = lensq.load_model(folder / "model.pt")
    lensq.score(model, survey, rows=np.arange(256), out=folder / "first.parquet", progress=False)
    survey = repeated(survey, n)
    before = private_memory()
    with Highest() as highest:
        start, worked = time.perf_counter(), time.process_time()
        out = lensq.score(model, survey, out=folder / "scores.parquet", progress=False)
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
    out.unlink()
    return {"seconds": seconds, "worked": worked, "open": before, "scoring": highest.bytes - before}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--numbers", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--distinct", type=int, default=2000, help="cutouts that are simulated")
    parser.add_argument("--variant", default="SVDD_VAE", choices=list(MODELS))
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--latent", type=int, default=16)
    parser.add_argument("--size", type=int, default=48, help="pixels")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scratch", help="folder for survey and scores")
    parser.add_argument("--child", nargs=2, help="folder and number: score them and print what it took")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.child:
        print(json.dumps(score_once(Path(given.child[0]), int(given.child[1]), given.size)))
        return
    began, figures = machine(), []
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        folder = Path(scratch)
        lensq.simulate_survey(folder / "survey", given.distinct, seed=1, progress=False)
        survey = lensq.read_survey(folder / "survey", size=given.size, progress=False)
        make_model(survey, given).save(folder / "model.pt")
        for n in given.numbers:
            command = [sys.executable, __file__, "--child", str(folder), str(n)]
            command += ["--size", str(given.size), "--threads", str(given.threads)]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                raise SystemExit(run.stderr)
            took = json.loads(run.stdout)
            for what, value, unit in (
                ("time", took["seconds"], "s"),
                ("rate", n / took["seconds"], "cutouts/s"),
                ("processor time", took["worked"], "s"),
                ("private memory, survey open", took["open"] / 1e6, "MB"),
                ("private memory, scoring", took["scoring"] / 1e6, "MB"),
            ):
                print(f"{n:>9} {what:28} {value:10.2f} {unit}", flush=True)
                figures.append({"what": what, "objects": n, "value": round(value, 3), "unit": unit})
    small, large = min(given.numbers), max(given.numbers)
    found = {(row["what"], row["objects"]): row["value"] for row in figures}
    ratios = {
        "processor time of a cutout, the most to the fewest": found["processor time", large]
        / large
        / (found["processor time", small] / small),
        "memory of scoring, the most to the fewest": found["private memory, scoring", large]
        / found["private memory, scoring", small],
    }
    for name, ratio in ratios.items():
        print(f"ratio, {name}: {ratio:.2f}")
    write(given, "time and private memory of scoring by the number of cutouts", figures, ratios, began)


if __name__ == "__main__":
    main()

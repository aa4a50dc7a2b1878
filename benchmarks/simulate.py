"""How fast the simulator writes a survey, and where the time goes.

    python benchmarks/simulate.py --objects 3000 --workers 2 --json simulate.json

Prints cutouts a second from an empty folder to the finished one, FITS written, and the CPU time of a
cutout split by stage, measured in this process. The claim: at least 300 a second on two free cores.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from report import machine, options, write

from lensq.simulate import Target, cutout, simulate_survey
from lensq.simulate.fits import write_fits
from lensq.simulate.sky import make_plan


class Stopwatch:
    """Adds up the CPU time spent inside the functions that it wraps."""

    def __init__(self):
        self.seconds = {}

    def wrap(self, stage, function):
        self.seconds[stage] = 0.0

        def timed(*args, **keywords):
            start = time.process_time()
            try:
                return function(*args, **keywords)
            finally:
                self.seconds[stage] += time.process_time() - start

        return timed


def split(n: int) -> dict[str, float]:
    """CPU milliseconds a cutout by stage."""
    watch = Stopwatch()
    plain = {name: getattr(cutout, name) for name in ("make_scene", "neighbours", "render", "add_noise")}
    for stage, name in (
        ("scene (lens population, galaxies)", "make_scene"),
        ("neighbours", "neighbours"),
        ("render (GalSim)", "render"),
        ("noise", "add_noise"),
    ):
        setattr(cutout, name, watch.wrap(stage, plain[name]))
    write = watch.wrap("FITS", write_fits)
    plan = make_plan(n, 1, "catalogue", 0.05)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        for place in plan.itertuples():
            shift = (place.shift_x, place.shift_y)
            target = Target(place.class_name, place.Index, shift, second=place.parent >= 0)
            made = cutout.make_cutout(target, seed=1)
            write(Path(folder) / f"{place.Index}.fits", made.image, place.ra, place.dec)
        total = time.process_time() - start
    for name, function in plain.items():
        setattr(cutout, name, function)
    watch.seconds["the rest"] = total - sum(watch.seconds.values())
    return {stage: 1e3 * seconds / n for stage, seconds in watch.seconds.items()}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--objects", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    n, workers, began = given.objects, given.workers, machine()
    split(50)  # tables and caches are filled
    stages = split(min(n, 1000))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        simulate_survey(Path(folder) / "survey", n, seed=1, workers=workers, progress=False)
        seconds = time.perf_counter() - start
    print(f"{n} cutouts of 64 x 64 px in {seconds:.1f} s with {workers} workers: {n / seconds:.0f} a second")
    total = np.sum(list(stages.values()))
    figures = [{"what": "written", "value": round(n / seconds, 1), "unit": "cutouts/s"}]
    for stage, spent in (stages | {"all": total}).items():
        print(f"  {stage:36s}{spent:6.2f} ms CPU a cutout  {spent / total:5.0%}")
        figures.append({"what": stage, "value": round(spent, 4), "unit": "ms of a processor/cutout"})
    ratios = {"the rate that was aimed at, 300 cutouts/s": n / seconds / 300}
    ratios["what the processors allow"] = n / seconds / (1e3 * workers / total)
    for name, ratio in ratios.items():
        print(f"ratio to {name}: {ratio:.2f}")
    write(given, "writing a simulated survey", figures, ratios, began)


if __name__ == "__main__":
    main()

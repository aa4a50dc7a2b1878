"""How much faster is scoring than in the plain way, for the data path alone and for the whole?

    python benchmarks/scoring.py --objects 4000 --variants SVDD_VAE --json scoring.json

The same network scores the same objects, 64 x 64 pixels. lensq: `lensq.score`, all its columns, to Parquet.
Plain: a FITS file opened an item with astropy, min-max, bilinear resize, batches of 64, fp32 in PyTorch's
default memory layout, the same scores, and a DataFrame that grows by concatenation with each batch. The data
path, on one thread, is from file or store to preprocessed batches. All are timed in turns within one run and
the best round is taken. A ResNet decoder that enlarges before it convolves, as published, has the same layers
and weights and costs more. What encoder and decoder reach alone, and their convolutions alone, bounds what is
left to gain.
"""

import os
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from alone import scoring_alone
from plain import Items, fits_items, make_plain, score_plainly, simulated
from report import machine, write
from report import options as make_options

import lensq
from lensq.models.batches import Batches
from lensq.models.training import Model
from lensq.models.variants import MODELS, VAE
from lensq.survey.images import Preprocessing
from lensq.survey.survey import Survey


def plain_data(items: Items) -> list[torch.Tensor]:
    return [x.mean() for x, _ in torch.utils.data.DataLoader(items, batch_size=64)]


def main() -> None:
    options = make_options(__doc__)
    options.add_argument(
        "--variants", nargs="+", default=["RESNET18_BETATC_VAE", "SVDD_VAE"], choices=list(MODELS)
    )
    options.add_argument("--objects", type=int, default=2000)
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--latent", type=int, default=32)
    options.add_argument("--size", type=int, default=64)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options = options.parse_args()
    began, figures, ratios = machine(), [], {}
    with tempfile.TemporaryDirectory() as folder:
        survey = simulated(Path(folder) / "survey", options.objects, options.size)
        items = fits_items(survey, np.arange(len(survey)))
        batches = Batches(survey, np.arange(len(survey)), Preprocessing(), options.batch)
        shape = f"width {options.width}, latent {options.latent}, {options.size} px"
        way = f"batches of {options.batch}, {options.precision}, {options.threads} threads"
        print(f"{len(survey)} objects, {shape}, {way}; objects a second:")
        paths = {"plain": lambda: plain_data(items), "lensq": lambda: [x.mean() for x, _, _ in batches]}
        best = fastest(paths, len(survey), options.rounds, 1)
        report("data path", best, figures)
        ratios["data path"] = best["lensq"] / best["plain"]
        for variant in options.variants:
            best, written = whole(variant, survey, items, batches, Path(folder), options)
            report(variant, best, figures)
            a_core = best["lensq"] / options.threads
            figures.append({"what": f"{variant}: lensq, a core", "value": a_core, "unit": "cutouts/s"})
            figures.append(
                {"what": f"{variant}: Parquet", "value": round(written, 1), "unit": "bytes/cutout"}
            )
            for baseline in ("same network", "published decoder"):
                ratios[f"{variant}, {baseline}"] = best["lensq"] / best[f"plain, {baseline}"]
    for name, ratio in ratios.items():
        print(f"ratio, {name}: {ratio:.1f}")
    write(options, "scoring against the plain way", figures, ratios, began)


def whole(
    variant: str, survey: Survey, items: Items, batches: Batches, folder: Path, options: Namespace
) -> tuple[dict[str, float], float]:
    """Objects a second from file or store to table, by way; bytes of Parquet an object."""
    torch.set_num_threads(options.threads)
    vae = VAE(MODELS[variant].config(size=options.size, width=options.width, latent=options.latent))
    x = next(iter(batches)).x
    vae.prepare(batches)
    vae.finish(batches)
    model = Model(vae.eval(), Preprocessing(), pd.DataFrame(), {"resized": True}, survey.fingerprint)
    same, published = (make_plain(deepcopy(vae), enlarge_first=first) for first in (False, True))
    out = folder / "scores.parquet"
    how = {"batch_size": options.batch, "precision": options.precision, "progress": False}
    ways = {
        "plain, same network": lambda: score_plainly(same, items),
        "plain, published decoder": lambda: score_plainly(published, items),
        "lensq": lambda: lensq.score(model, survey, out=out, **how),
        "lensq, eight symmetries": lambda: lensq.score(model, survey, out=out, symmetries=True, **how),
    }
    best = fastest(ways, len(survey), options.rounds, options.threads)
    best |= {f"lensq, {bound}": rate for bound, rate in scoring_alone(vae, x, options.threads).items()}
    return best, out.stat().st_size / len(survey)


def fastest(
    ways: dict[str, Callable[[], object]], objects: int, rounds: int, threads: int
) -> dict[str, float]:
    """Objects a second of each way in its best round; the ways take turns."""
    torch.set_num_threads(threads)
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            best[name] = max(best[name], objects / (time.perf_counter() - start))
    return best


def report(what: str, best: dict[str, float], figures: list[dict]) -> None:
    for name, value in best.items():
        print(f"  {what}: {name}: {value:.0f}", flush=True)
        figures.append({"what": f"{what}: {name}", "value": round(value, 1), "unit": "cutouts/s"})


if __name__ == "__main__":
    main()

"""How much faster is scoring than in the plain way, for the data path alone and for the whole?

    python benchmarks/scoring.py --objects 4000 --variant SVDD_VAE --json scoring.json

The same network scores the same objects, 64 x 64 pixels. lensq: `lensq.score`, all its columns, to Parquet.
Plain: a FITS file opened an item with astropy, min-max, bilinear resize, batches of 64, fp32 in PyTorch's
default memory layout, the terms of the ELBO alone, and a DataFrame that grows by concatenation with each
batch. The data path, on one thread, is from file or store to preprocessed batches. All are timed in turns
within one run and the best round is taken. A ResNet decoder that enlarges before it convolves, as published,
has the same layers and weights and costs more.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from plain import Items, fits_items, make_plain, score_plainly, simulated
from report import machine, write
from report import options as make_options

import lensq
from lensq.batches import Batches
from lensq.images import Preprocessing
from lensq.models import MODELS, VAE
from lensq.training import Model


def plain_data(items: Items) -> list[torch.Tensor]:
    return [x.mean() for x, _ in torch.utils.data.DataLoader(items, batch_size=64)]


def rate(run: Callable[[], object], objects: int, threads: int) -> float:
    torch.set_num_threads(threads)
    start = time.perf_counter()
    run()
    return objects / (time.perf_counter() - start)


def main() -> None:
    options = make_options(__doc__)
    options.add_argument("--variant", default="RESNET18_BETATC_VAE", choices=list(MODELS))
    options.add_argument("--objects", type=int, default=800)
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--latent", type=int, default=32)
    options.add_argument("--size", type=int, default=64)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options = options.parse_args()
    began = machine()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        survey = simulated(Path(folder) / "survey", options.objects, options.size)
        n = len(survey)
        items = fits_items(survey, np.arange(n))
        config = MODELS[options.variant].config(size=options.size, width=options.width, latent=options.latent)
        vae = VAE(config)
        batches = Batches(survey, np.arange(n), Preprocessing(), options.batch)
        vae.prepare((x, mask) for x, mask, _ in batches)
        vae.finish((x, mask) for x, mask, _ in batches)
        model = Model(vae.eval(), Preprocessing(), pd.DataFrame(), {"resized": True}, survey.fingerprint)
        same, published = (make_plain(VAE(config), enlarge_first=first).eval() for first in (False, True))

        def scored(symmetries: bool = False) -> None:
            lensq.score(
                model,
                survey,
                out=Path(folder) / "scores.parquet",
                symmetries=symmetries,
                batch_size=options.batch,
                precision=options.precision,
                progress=False,
            )

        runs = {
            "plain data path": lambda: plain_data(items),
            "lensq data path": lambda: [x.mean() for x, _, _ in batches],
            "plain, same network": lambda: score_plainly(same, items),
            "plain, published decoder": lambda: score_plainly(published, items),
            "lensq": scored,
            "lensq, eight symmetries": lambda: scored(True),
        }
        best = dict.fromkeys(runs, 0.0)
        for _ in range(options.rounds):
            for name, run in runs.items():
                best[name] = max(best[name], rate(run, n, 1 if "data" in name else options.threads))
        written = (Path(folder) / "scores.parquet").stat().st_size / n
    shape = f"width {options.width}, latent {options.latent}, {options.size} px"
    way = f"batches of {options.batch}, {options.precision}, {options.threads} threads"
    print(f"{options.variant}, {shape}, {n} objects, {way}; objects a second:")
    for name, value in best.items():
        print(f"  {name}: {value:.0f}")
    ratios = {
        "data path": best["lensq data path"] / best["plain data path"],
        "whole, same network": best["lensq"] / best["plain, same network"],
        "whole, published decoder": best["lensq"] / best["plain, published decoder"],
    }
    for name, ratio in ratios.items():
        print(f"ratio, {name}: {ratio:.1f}")
    figures = [{"what": name, "value": round(value, 1), "unit": "cutouts/s"} for name, value in best.items()]
    figures.append({"what": "lensq, a core", "value": best["lensq"] / options.threads, "unit": "cutouts/s"})
    figures.append({"what": "Parquet", "value": round(written, 1), "unit": "bytes/cutout"})
    write(options, f"scoring with {options.variant} against the plain way", figures, ratios, began)


if __name__ == "__main__":
    main()

"""How much faster is scoring than in the plain way, for the data path alone and for the whole?

    python benchmarks/scoring.py --objects 4000 --variant SVDD_VAE

The same network scores the same objects, 64 x 64 pixels. lensq: `lensq.score`, all its columns, to Parquet.
Plain: a FITS file opened an item with astropy, min-max, bilinear resize, batches of 64, fp32 in PyTorch's
default memory layout, the terms of the ELBO alone, and a DataFrame that grows by concatenation with each
batch. The data path, on one thread, is from file or store to preprocessed batches. All are timed in turns
within one run and the best round is taken. A ResNet decoder that enlarges before it convolves, as published,
has the same layers and weights and costs more.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from plain import FitsItems, make_plain, simulated

import lensq
from lensq.batches import Batches
from lensq.images import Preprocessing
from lensq.models import MODELS, VAE
from lensq.training import Model


def plain_data(survey: lensq.Survey) -> list[torch.Tensor]:
    loader = torch.utils.data.DataLoader(FitsItems(survey, np.arange(len(survey))), batch_size=64)
    return [x.mean() for x, _ in loader]


def plain_score(vae: VAE, survey: lensq.Survey) -> pd.DataFrame:
    """Name, reconstruction, KL and the latent vectors, concatenated batch by batch."""
    table = pd.DataFrame()
    with torch.no_grad():
        for x, names in torch.utils.data.DataLoader(FitsItems(survey, np.arange(len(survey))), batch_size=64):
            terms = vae(x, torch.ones_like(x, dtype=torch.bool))
            part = pd.DataFrame({"name": names, "reconstruction": terms["reconstruction"].numpy()})
            part["kl_sum"] = terms["kl"].sum(1).numpy()
            columns = {
                f"{name}_{d}": terms[name][:, d].numpy()
                for name in ("mu", "logvar", "kl")
                for d in range(terms["mu"].shape[1])
            }
            table = pd.concat([table, part.assign(**columns)])
    return table


def rate(run: Callable[[], object], objects: int, threads: int) -> float:
    torch.set_num_threads(threads)
    start = time.perf_counter()
    run()
    return objects / (time.perf_counter() - start)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
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
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        survey = simulated(Path(folder) / "survey", options.objects, options.size)
        n = len(survey)
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
            "plain data path": lambda: plain_data(survey),
            "lensq data path": lambda: [x.mean() for x, _, _ in batches],
            "plain, same network": lambda: plain_score(same, survey),
            "plain, published decoder": lambda: plain_score(published, survey),
            "lensq": scored,
            "lensq, eight symmetries": lambda: scored(True),
        }
        best = dict.fromkeys(runs, 0.0)
        for _ in range(options.rounds):
            for name, run in runs.items():
                best[name] = max(best[name], rate(run, n, 1 if "data" in name else options.threads))
    shape = f"width {options.width}, latent {options.latent}, {options.size} px"
    way = f"batches of {options.batch}, {options.precision}, {options.threads} threads"
    print(f"{options.variant}, {shape}, {n} objects, {way}; objects a second:")
    for name, value in best.items():
        print(f"  {name}: {value:.0f}")
    print(f"ratio, data path: {best['lensq data path'] / best['plain data path']:.1f}")
    print(f"ratio, whole, same network: {best['lensq'] / best['plain, same network']:.1f}")
    print(f"ratio, whole, published decoder: {best['lensq'] / best['plain, published decoder']:.1f}")


if __name__ == "__main__":
    main()

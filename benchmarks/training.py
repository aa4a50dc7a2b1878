"""How much faster does a model train than in the plain way, and at what reconstruction error?

    python benchmarks/training.py --variants RESNET18_BETATC_VAE SVDD_VAE --images 1000

Both train the same variant on as many images for as many epochs: 64 x 64 pixels, batches of 64, Adam at 1e-3.
lensq: `lensq.fit` whole, that is with validation, checkpoints and curves. Plain: each epoch opens each FITS
file with astropy, fp32 in PyTorch's default memory layout, a decoder that enlarges before it convolves,
mixture components in a Python loop. The rate is that of the median epoch. The error is the mean squared one
of the validation images in units of each image's range, so that 0.0001 is a per cent of it.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from plain import FitsItems, make_plain, simulated

import lensq
from lensq.batches import Batches
from lensq.models import MODELS, VAE


def mean_squared_error(vae: VAE, batches: Batches) -> float:
    """Of reconstructions at the posterior mean, over valid pixels."""
    vae.eval()
    with torch.inference_mode():
        pairs = [(vae(x, mask)["mean"] - x)[mask] for x, mask, _ in batches]
    return float(torch.cat(pairs).square().mean())


def train_plainly(vae: VAE, survey: lensq.Survey, rows, reference: Batches, epochs: int) -> list[float]:
    """Seconds of each epoch."""
    generator = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(
        FitsItems(survey, rows), batch_size=64, shuffle=True, drop_last=True, generator=generator
    )
    optimizer = torch.optim.Adam([p for p in vae.parameters() if p.requires_grad], lr=1e-3)
    vae.prepare(((x, mask) for x, mask, _ in reference), generator=generator)
    seconds, step = [], 0
    for _ in range(epochs):
        start = time.perf_counter()
        vae.train()
        for x, _names in loader:
            terms = vae(x, torch.ones_like(x, dtype=torch.bool), generator=generator)
            loss, _ = vae.loss(terms, step=step, dataset_size=len(rows))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1000.0)
            optimizer.step()
            step += 1
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--variants", nargs="+", default=["RESNET18_BETATC_VAE"], choices=list(MODELS))
    options.add_argument("--images", type=int, default=400, help="train images")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--latent", type=int, default=32)
    options.add_argument("--size", type=int, default=64)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{options.images} images of {options.size} px, width {options.width}, latent {options.latent}, ",
        end="",
    )
    print(f"{options.epochs} epochs, {options.threads} threads; images a second and mean squared error:")
    with tempfile.TemporaryDirectory() as folder:
        survey = simulated(Path(folder) / "survey", int(options.images / 0.5), options.size)
        shape = {"width": options.width, "latent": options.latent}
        for variant in options.variants:
            model = lensq.fit(
                survey,
                variant,
                out=Path(folder) / variant,
                epochs=options.epochs,
                schedule="constant",
                patience=None,
                max_images=options.images,
                progress=False,
                **shape,
            )
            rows = survey.rows("train")[: options.images]
            validation = Batches(survey, survey.rows("validation"), model.preprocessing, 64)
            plain = make_plain(VAE(MODELS[variant].config(size=options.size, **shape)), enlarge_first=True)
            reference = Batches(survey, rows, model.preprocessing, 64)
            seconds = train_plainly(plain, survey, rows, reference, options.epochs)
            ours = len(rows) / model.history["seconds"].median()
            theirs = len(rows) / statistics.median(seconds)
            errors = [mean_squared_error(vae, validation) for vae in (model.vae, plain)]
            print(
                f"{variant}: lensq {ours:.0f} ({errors[0]:.5f}, {model.settings['precision']}), "
                f"plain {theirs:.0f} ({errors[1]:.5f}), ratio {ours / theirs:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

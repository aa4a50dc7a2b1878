"""How fast is a GPU at training and scoring, and how much faster than in the plain way?

    python benchmarks/gpu.py scoring --json scoring.json
    python benchmarks/gpu.py training --variants SVDD_VAE BetaTC_VAE --json training.json
    python benchmarks/gpu.py epochs --json epochs.json

The images are blobs with noise, drawn by torch and kept in a packed store, so that neither FITS nor the
simulator is needed. Plain: one image at a time from host memory, min-max, resize, batches of 64, fp32 (with
TF32 convolutions, PyTorch's default) in the default memory layout, eager, a decoder that enlarges before it
convolves, mixture components in a loop. Scoring is from store to Parquet, all columns. Training is
`lensq.fit` whole; the rate is that of the median epoch after the first.

`epochs` is the first epochs of the paper profile's RESNET18_BETATC_VAE. With `--device cpu` and small numbers
everything runs anywhere.
"""

import gc
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from astropy.coordinates import SkyCoord
from plain import Items, make_plain, mean_squared_error, score_plainly, train_plainly
from report import machine, options, write

import lensq
from lensq.models.batches import Batches
from lensq.models.variants import MODELS, VAE
from lensq.survey.images import Preprocessing
from lensq.survey.survey import Survey

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def make_blobs(folder: Path, n: int, size: int, device: str) -> Survey:
    """A packed store of n images: a blob, in every twentieth image two, and in a half some neighbours."""
    generator = torch.Generator(device).manual_seed(1)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.float32, (n, size, size))
    mask = np.lib.format.open_memmap(folder / "mask.npy", "w+", bool, (n, size, size))
    labels = (np.arange(n) % 20 == 0).astype(np.int8)
    axis = torch.arange(size, device=device) - (size - 1) / 2
    for start in range(0, n, 4096):
        two = torch.from_numpy(labels[start : start + 4096]).to(device).float()
        count = len(two)
        draw = torch.rand(7, 4, count, generator=generator, device=device)
        pixels = 0.05 * torch.randn(count, size, size, generator=generator, device=device)
        for i, (x, y, flux, width) in enumerate(draw):
            reach = size / 12 if i < 2 else size * 0.9
            brightness = 10 ** (1 + 1.5 * flux) if i == 0 else 10 ** (0.5 + 1.5 * flux)
            brightness = brightness * (two if i == 1 else 1.0) * (1.0 if i < 2 else (draw[6, 3] < 0.5) / 4)
            along = [
                torch.exp(-((axis - (u[:, None] - 0.5) * reach) ** 2) / (1.5 + 2 * width[:, None]) ** 2)
                for u in (x, y)
            ]
            pixels += brightness[:, None, None] * along[0][:, None, :] * along[1][:, :, None] / 20
        images[start : start + count] = pixels.cpu().numpy()
        mask[start : start + count] = True
    images.flush()
    opened = [np.load(folder / name, mmap_mode="r") for name in ("images.npy", "mask.npy")]
    random = np.random.default_rng(1)
    return Survey(
        folder=folder,
        names=np.char.mod("blob%09d", np.arange(n)),
        coordinates=SkyCoord(random.uniform(0, 360, n), random.uniform(-60, 60, n), unit="deg"),
        labels=labels,
        graded=np.zeros(n, bool),
        images=opened[0],
        mask=opened[1],
        group=np.arange(n),
        split=random.choice(list(SHARES), n, p=list(SHARES.values())),
        quarantine=pd.DataFrame(columns=["name", "file", "reason", "detail"]),
        truth=None,
        size=size,
        resized=False,
        native_side=size,
        fingerprint="blobs",
    )


def items(blobs: Survey, rows: np.ndarray) -> Items:
    held = np.array(blobs.images[rows])
    return Items(held.__getitem__, blobs.names[rows], blobs.size)


def timed(run: Callable[[], object], objects: int, rounds: int) -> float:
    """Objects a second, in the best of some rounds."""
    best = 0.0
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        best = max(best, objects / (time.perf_counter() - start))
    return best


def say(figures: list[dict], what: str, value: float, unit: str, **more: object) -> None:
    figures.append({"what": what, "value": round(float(value), 6), "unit": unit, **more})
    print(f"{what}: {value:.6g} {unit} {more or ''}", flush=True)


def ranks(values: pd.Series) -> np.ndarray:
    return values.rank().to_numpy()


def bench_scoring(given, folder: Path) -> tuple[list[dict], dict[str, float]]:
    figures, ratios = [], {}
    blobs = make_blobs(folder, given.objects, given.size, given.device)
    model = lensq.fit(
        blobs,
        out=folder / "model",
        epochs=given.epochs,
        batch_size=256,
        schedule="constant",
        max_images=given.images or 20_000,
        progress=False,
        width=given.width,
        latent=given.latent,
    )
    few = items(blobs, np.arange(min(len(blobs), given.plain)))
    plain_vae = make_plain(deepcopy(model.vae), enlarge_first=True)
    plain = timed(lambda: score_plainly(plain_vae, few, given.device), len(few), 2)
    say(figures, "plain", plain, "cutouts/s", precision="fp32", batch=64)

    tables, test = {}, blobs.rows("test")
    for precision in ("fp32", "bf16"):
        for batch in given.score_batches:

            def run(symmetries=False, precision=precision, batch=batch, rows=None):
                return lensq.score(
                    model,
                    blobs,
                    out=folder / f"{precision}-{symmetries}.parquet",
                    rows=rows,
                    symmetries=symmetries,
                    precision=precision,
                    batch_size=batch,
                    progress=False,
                )

            rate = timed(run, len(blobs), given.rounds)
            say(figures, "lensq", rate, "cutouts/s", precision=precision, batch=batch)
            ratios[f"{precision}, batch {batch}"] = rate / plain
        tables[precision] = pd.read_parquet(folder / f"{precision}-False.parquet")
        rate = timed(lambda run=run: run(symmetries=True, rows=test), len(test), 1)
        say(figures, "lensq, eight symmetries", rate, "cutouts/s", precision=precision, batch=batch)
    say(figures, "Parquet", (folder / "bf16-False.parquet").stat().st_size / len(blobs), "bytes/cutout")
    for column in ("reconstruction", "kl", "elbo", "total_correlation", "central_residual", "knn"):
        pair = [ranks(tables[precision][column]) for precision in ("fp32", "bf16")]
        say(figures, f"rank correlation of bf16 and fp32, {column}", np.corrcoef(*pair)[0, 1], "")
    return figures, ratios


def bench_training(given, folder: Path) -> tuple[list[dict], dict[str, float]]:
    figures, ratios = [], {}
    images = given.images or 16_000
    blobs = make_blobs(folder, int(images / SHARES["train"]), given.size, given.device)
    rows, validation = blobs.rows("train"), blobs.rows("validation")
    for variant in given.variants:
        width = given.width if "RESNET" in variant else given.width // 2
        shape = {"width": width, "latent": given.latent}
        config = MODELS[variant].config(size=blobs.size, **shape)
        checks = Batches(blobs, validation, Preprocessing(), 64, device=given.device)
        plain = make_plain(VAE(config), enlarge_first=True)
        seconds = train_plainly(plain, items(blobs, rows), given.epochs, given.device)
        theirs = len(rows) / statistics.median(seconds[1:])
        steps = given.epochs * (len(rows) // 64)
        say(figures, f"{variant}, plain", theirs, "images/s", batch=64)
        error = mean_squared_error(plain, checks)
        say(figures, f"{variant}, plain, squared error", error, "", steps=steps)
        for batch in given.batches:
            for compiled in given.compile:
                model = lensq.fit(
                    blobs,
                    variant,
                    out=folder / f"{variant}-{batch}-{compiled}",
                    epochs=given.epochs,
                    batch_size=batch,
                    learning_rate=1e-3 * (batch / 64) ** 0.5,
                    schedule="constant",
                    patience=None,
                    compile=bool(compiled),
                    progress=False,
                    **shape,
                )
                about = {"batch": batch, "compile": bool(compiled), "precision": model.settings["precision"]}
                ours = len(rows) / statistics.median(model.history["seconds"][1:])
                say(figures, f"{variant}, lensq", ours, "images/s", **about)
                steps = given.epochs * (len(rows) // batch)
                error = mean_squared_error(model.vae, checks)
                say(figures, f"{variant}, lensq, squared error", error, "", steps=steps, **about)
                ratios[f"{variant}, batch {batch}{', compiled' if compiled else ''}"] = ours / theirs
                print(f"  ratio {ours / theirs:.1f}", flush=True)
        del plain, model
        gc.collect()
        torch.cuda.empty_cache()
    return figures, ratios


def bench_epochs(given, folder: Path) -> tuple[list[dict], dict[str, float]]:
    figures = []
    images = given.images or 50_000
    blobs = make_blobs(folder, int(images / SHARES["train"]), given.size, given.device)
    for compiled in given.compile:
        model = lensq.fit(
            blobs,
            "RESNET18_BETATC_VAE",
            out=folder / f"paper-{compiled}",
            epochs=given.epochs,
            batch_size=64,
            learning_rate=1e-3,
            schedule="reference",
            augmentation=0.8,
            train_on="balanced",
            noise_scale=0.0707107,
            beta=2.0,
            annealing_steps=200,
            patience=None,
            width=given.width,
            latent=given.latent,
            compile=bool(compiled),
            progress=False,
        )
        for row in model.history.to_dict("records"):
            about = {
                "epoch": int(row["epoch"]),
                "compile": bool(compiled),
                "images": len(blobs.rows("train")),
            }
            say(figures, "epoch", row["seconds"], "s", **about, loss=round(row["train_loss"], 2))
            say(figures, "validation loss", row["validation_loss"], "nats", **about)
    return figures, {}


CLAIMS = {
    "scoring": (bench_scoring, "scoring from store to Parquet on a GPU, all columns"),
    "training": (bench_training, "training on a GPU against the plain way"),
    "epochs": (bench_epochs, "first epochs of the paper profile's RESNET18_BETATC_VAE"),
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("what", choices=list(CLAIMS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--objects", type=int, default=60_000, help="cutouts to score")
    parser.add_argument("--images", type=int, help="train images; by default 16,000, for `epochs` 50,000")
    parser.add_argument("--plain", type=int, default=4096, help="cutouts that the plain way scores")
    parser.add_argument("--variants", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 256], help="for training")
    parser.add_argument("--score-batches", nargs="+", type=int, default=[512, 1024, 2048])
    parser.add_argument("--compile", nargs="+", type=int, default=[0], choices=(0, 1), help="0, 1 or both")
    parser.add_argument("--width", type=int, default=64, help="of ResNets; half of it for the others")
    parser.add_argument("--latent", type=int, default=128)
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scratch", help="folder for the stores")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*Online softmax is disabled.*")
    began = machine()
    run, claim = CLAIMS[given.what]
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        figures, ratios = run(given, Path(folder))
    for name, ratio in ratios.items():
        print(f"ratio, {name}: {ratio:.1f}")
    write(given, claim, figures, ratios, began)


if __name__ == "__main__":
    main()

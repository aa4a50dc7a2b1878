"""How fast is a GPU at training and scoring RESNET18_BETATC_VAE, and how much faster than in other ways?

    python benchmarks/gpu.py --out benchmarks/results

In eight minutes, and three files, `gpu_<what>.json`: `scoring` from store to Parquet, all columns;
`training`, `lensq.fit` whole, in bf16 and compiled, the rate that of the median epoch after the first;
`epochs`, as many of the paper profile's as the time allows. `--only` makes one of them.

The images are blobs with noise, drawn by torch and kept in a packed store, so that neither FITS nor the
simulator is needed. Plain: one image at a time from host memory, min-max, resize, batches of 64, fp32 (with
TF32 convolutions, PyTorch's default) in the default memory layout, eager, a decoder that enlarges before it
convolves. With care: images on the device, channels last, bf16, batches of 256, eager. With `--device cpu`
and small numbers everything runs anywhere.
"""

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
from plain import Items, make_plain, mean_squared_error, score_plainly, train_carefully, train_plainly
from report import machine, options, write

import lensq
from lensq.models.batches import Batches
from lensq.models.variants import MODELS, VAE
from lensq.survey.images import Preprocessing
from lensq.survey.survey import Survey

VARIANT = "RESNET18_BETATC_VAE"
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


def shape(given) -> dict[str, int]:
    return {"width": given.width, "latent": given.latent}


def bench_scoring(given, folder: Path) -> tuple[list[dict], dict[str, float]]:
    figures, ratios = [], {}
    blobs = make_blobs(folder, given.objects, given.size, given.device)
    how = {"batch_size": 256, "schedule": "constant", "max_images": given.images, "progress": False}
    model = lensq.fit(blobs, VARIANT, out=folder / "model", epochs=given.epochs, **how, **shape(given))
    few = items(blobs, np.arange(min(len(blobs), given.plain)))
    plain_vae = make_plain(deepcopy(model.vae), enlarge_first=True)
    plain = timed(lambda: score_plainly(plain_vae, few, given.device), len(few), 2)
    say(figures, "plain", plain, "cutouts/s", precision="fp32", batch=64)
    tables, test = {}, blobs.rows("test")
    for precision in ("fp32", "bf16"):
        how = {"precision": precision, "out": folder / f"{precision}.parquet", "progress": False}
        rate = timed(lambda how=how: lensq.score(model, blobs, **how), len(blobs), given.rounds)
        say(figures, "lensq", rate, "cutouts/s", precision=precision)
        ratios[precision] = rate / plain
        tables[precision] = pd.read_parquet(how["out"])
        more = how | {"out": folder / "test.parquet", "rows": test, "symmetries": True}
        rate = timed(lambda more=more: lensq.score(model, blobs, **more), len(test), 1)
        say(figures, "lensq, eight symmetries", rate, "cutouts/s", precision=precision)
    say(figures, "Parquet", (folder / "bf16.parquet").stat().st_size / len(blobs), "bytes/cutout")
    for column in ("reconstruction", "kl", "elbo", "total_correlation", "central_residual", "knn"):
        pair = [ranks(tables[precision][column]) for precision in ("fp32", "bf16")]
        say(figures, f"rank correlation of bf16 and fp32, {column}", np.corrcoef(*pair)[0, 1], "")
    return figures, ratios


def bench_training(given, folder: Path) -> tuple[list[dict], dict[str, float]]:
    figures, rates = [], {}
    blobs = make_blobs(folder, int(given.images / SHARES["train"]), given.size, given.device)
    rows, validation = blobs.rows("train"), blobs.rows("validation")
    config = MODELS[VARIANT].config(size=blobs.size, **shape(given))
    checks = Batches(blobs, validation, Preprocessing(), 64, device=given.device)

    def found(name: str, seconds, vae: VAE, **about) -> None:
        rates[name] = len(rows) / statistics.median(list(seconds)[1:])
        say(figures, name, rates[name], "images/s", **about)
        say(figures, f"{name}, squared error", mean_squared_error(vae, checks), "", **about)

    plain = make_plain(VAE(config), enlarge_first=True)
    seconds = train_plainly(plain, items(blobs, rows), given.epochs, given.device)
    found("plain", seconds, plain, batch=64, precision="fp32")
    careful = VAE(config)
    x = torch.cat([x for x, _, _ in Batches(blobs, rows, Preprocessing(), 256, device=given.device)])
    found("with care", train_carefully(careful, x, given.epochs), careful, batch=256, precision="bf16")
    how = {"batch_size": 256, "learning_rate": 2e-3, "schedule": "constant", "compile": bool(given.compile)}
    how |= {"epochs": given.epochs, "patience": None, "progress": False}
    model = lensq.fit(blobs, VARIANT, out=folder / "ours", **how, **shape(given))
    about = {"batch": 256, "precision": model.settings["precision"], "compile": bool(given.compile)}
    found("lensq", model.history["seconds"], model.vae, **about)
    given.image_seconds = 1 / rates["lensq"]
    return figures, {name: rates["lensq"] / rates[name] for name in ("plain", "with care")}


def bench_epochs(given, folder: Path) -> tuple[list[dict], dict[str, float]]:
    figures = []
    blobs = make_blobs(folder, int(given.images / SHARES["train"]), given.size, given.device)
    left = (
        60 * given.minutes - (time.perf_counter() - given.begun) - 90
    )  # to compile; small batches take longer
    epochs = max(2, int(left / (2 * given.images * given.image_seconds)))
    how = {"batch_size": 64, "learning_rate": 1e-3, "schedule": "reference", "patience": None}
    how |= {"augmentation": 0.8, "train_on": "balanced", "noise_scale": 0.0707107, "beta": 2.0}
    how |= {"annealing_steps": 200, "compile": bool(given.compile), "progress": False, "epochs": epochs}
    model = lensq.fit(blobs, VARIANT, out=folder / "paper", **how, **shape(given))
    for row in model.history.to_dict("records"):
        about = {"epoch": int(row["epoch"]), "images": len(blobs.rows("train"))}
        say(figures, "epoch", row["seconds"], "s", **about, loss=round(row["train_loss"], 2))
        say(figures, "validation loss", row["validation_loss"], "nats", **about)
    return figures, {}


CLAIMS = {
    "scoring": (bench_scoring, "scoring from store to Parquet on a GPU against the plain way"),
    "training": (bench_training, "training on a GPU against the plain way, and against one with care"),
    "epochs": (bench_epochs, f"first epochs of the paper profile's {VARIANT}"),
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--only", nargs="+", choices=list(CLAIMS), default=list(CLAIMS))
    parser.add_argument("--out", type=Path, help="folder for the files of figures")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--objects", type=int, default=60_000, help="cutouts to score")
    parser.add_argument("--images", type=int, default=16_000, help="train images")
    parser.add_argument("--plain", type=int, default=4096, help="cutouts that the plain way scores")
    parser.add_argument("--epochs", type=int, default=3, help="to take the time of")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all")
    parser.add_argument("--compile", type=int, default=1, choices=(0, 1))
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--latent", type=int, default=128)
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scratch", help="folder for the stores")
    given = parser.parse_args()
    given.begun, given.image_seconds = time.perf_counter(), 1e-3  # until it is measured
    warnings.filterwarnings("ignore", message=".*Online softmax is disabled.*")
    for name in given.only:
        began, (run, claim) = machine(), CLAIMS[name]
        with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
            figures, ratios = run(given, Path(folder))
        for what, ratio in ratios.items():
            print(f"ratio, {name}, {what}: {ratio:.1f}")
        given.json = given.out and given.out / f"gpu_{name}.json"
        write(given, claim, figures, ratios, began)


if __name__ == "__main__":
    main()

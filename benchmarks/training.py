"""How much faster does a model train than in the plain way, and at what reconstruction error?

    python benchmarks/training.py --variants RESNET18_BETATC_VAE SVDD_VAE --images 1000 --json training.json

Both train the same variant on as many images for as many epochs: 64 x 64 pixels, batches of 64, Adam at 1e-3.
lensq: `lensq.fit` whole, that is with validation, checkpoints and curves. Plain: each epoch opens each FITS
file with astropy, fp32 in PyTorch's default memory layout, a decoder that enlarges before it convolves,
mixture components in a Python loop. The rate is that of the median epoch. The error is the mean squared one
of the validation images in units of each image's range, so that 0.0001 is a per cent of it. What lensq's
forward and backward passes reach alone, and their convolutions alone, bounds what is left to gain.
"""

import os
import statistics
import tempfile
from pathlib import Path

import torch
from alone import training_alone
from plain import fits_items, make_plain, mean_squared_error, simulated, train_plainly
from report import machine, write
from report import options as make_options

import lensq
from lensq.models.batches import Batches
from lensq.models.variants import MODELS, VAE


def main() -> None:
    options = make_options(__doc__)
    options.add_argument("--variants", nargs="+", default=["RESNET18_BETATC_VAE"], choices=list(MODELS))
    options.add_argument("--images", type=int, default=400, help="train images")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--latent", type=int, default=32)
    options.add_argument("--size", type=int, default=64)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options = options.parse_args()
    began, figures, ratios = machine(), [], {}
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
            seconds = train_plainly(plain, fits_items(survey, rows), options.epochs)
            ours = len(rows) / model.history["seconds"].median()
            theirs = len(rows) / statistics.median(seconds)
            errors = [mean_squared_error(vae, validation) for vae in (model.vae, plain)]
            ratios[variant] = ours / theirs
            for way, speed, error in (("lensq", ours, errors[0]), ("plain", theirs, errors[1])):
                figures.append({"what": f"{variant}, {way}", "value": round(speed, 1), "unit": "images/s"})
                figures[-1]["squared error"] = round(error, 6)
            bounds = training_alone(model.vae, next(iter(validation)).x)
            for bound, speed in bounds.items():
                figures.append({"what": f"{variant}, {bound}", "value": round(speed, 1), "unit": "images/s"})
            print(
                f"{variant}: lensq {ours:.0f} ({errors[0]:.5f}, {model.settings['precision']}), "
                f"plain {theirs:.0f} ({errors[1]:.5f}), ratio {ours / theirs:.1f}; "
                + ", ".join(f"{bound} {speed / theirs:.1f}" for bound, speed in bounds.items()),
                flush=True,
            )
    write(options, "training against the plain way", figures, ratios, began)


if __name__ == "__main__":
    main()

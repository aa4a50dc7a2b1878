"""Fit a VAE to a survey, and keep it: `fit`, `Model`, `load_model`."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lensq.models.batches import Batches, keyed_generator, read_pixels, reveal_labels
from lensq.models.variants import MODELS, VAE, ModelConfig
from lensq.survey.images import Preprocessing, noise_level
from lensq.survey.provenance import code_hash

if TYPE_CHECKING:
    from lensq.survey.survey import Survey

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Model:
    """A trained VAE and all that is needed to apply it.

    Attributes:
        vae: The network with its objective, in evaluation mode.
        preprocessing: Turns flux into what the network sees.
        history: One row an epoch: `epoch`, `seconds`, `learning_rate`, then each term of the loss as
            `train_<term>` and `validation_<term>` (the latter with the objective at its final weights).
        settings: What the model was trained with; `settings["uses_labels"]` tells if labels were seen,
            `settings["labels_told"]` how many.
        survey_fingerprint: Fingerprint of the survey that it was trained on.
        fingerprint: Hexadecimal hash of weights and settings.
    """

    vae: VAE
    preprocessing: Preprocessing
    history: pd.DataFrame
    settings: dict[str, Any]
    survey_fingerprint: str

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode())
        for name, tensor in sorted(self.vae.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write the model to one file that `load_model` reads, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "format": 1,
            "config": self.vae.config.to_dict(),
            "preprocessing": asdict(self.preprocessing),
            "history": self.history.to_dict("list"),
            "settings": self.settings,
            "survey_fingerprint": self.survey_fingerprint,
        }
        partial = path.with_name(path.name + ".partial")
        torch.save({"document": json.dumps(document), "state": self.vae.state_dict()}, partial)
        os.replace(partial, path)
        return path


def load_model(path: str | Path) -> Model:
    """Read a model that `fit` or `Model.save` wrote.

    Args:
        path: The file `model.pt`, or the folder that holds it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no model of lensq, or of another version.
    """
    path = Path(path)
    path = path / "model.pt" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: fit a model first (lensq.fit(survey, out=...)) or mend the path"
        )
    try:
        held = torch.load(path, weights_only=True, map_location="cpu")
        document = json.loads(held["document"])
        vae = VAE(ModelConfig.from_dict(document["config"]))
        vae.load_state_dict(held["state"])
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".split(". ")[0]
        raise ValueError(
            f"{path} cannot be read as a model of lensq ({reason}); it is damaged or was written by another "
            "version: fit it again with resume=False"
        ) from error
    return Model(
        vae=vae.eval(),
        preprocessing=Preprocessing(**document["preprocessing"]),
        history=pd.DataFrame(document["history"]),
        settings=document["settings"],
        survey_fingerprint=document["survey_fingerprint"],
    )


def bf16_pays(size: int) -> bool:
    """Whether to train in bf16: on a GPU of compute capability 8, or a CPU with tiles for it (AMX).

    With AVX512-BF16 alone the networks here trained at 0.6 to 1.1 times their speed in fp32; without that
    the format is emulated. Images under 17 pixels shrink to one pixel on their way, where torch's bf16
    gradients on CPUs read memory that was never written.

    Args:
        size: Side of the images in pixels.
    """
    if size <= 16:
        return False
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def _train_rows(survey: Survey, train_on: str) -> np.ndarray:
    rows = survey.rows("train")
    if train_on == "normals":
        rows = rows[survey.labels[rows] == 0]
    elif train_on not in ("all", "balanced"):
        raise ValueError(f'train_on={train_on!r}: take "all", "normals" or "balanced"')
    if len(rows) < 2:
        raise ValueError(
            f"{len(rows)} objects to train on with train_on={train_on!r}: the survey {survey.folder} has "
            'too few in its train split; give a larger survey, or train_on="all"'
        )
    return rows


def _subset(rows: np.ndarray, n: int | None, seed: int, name: str) -> np.ndarray:
    """At most n of the rows, drawn without replacement, in their order."""
    if n is None or len(rows) <= n:
        return rows
    order = torch.randperm(len(rows), generator=keyed_generator(seed, "subset", name)).numpy()
    return rows[np.sort(order[:n])]


def _hash(*arrays: np.ndarray | None) -> str:
    return hashlib.sha256(b"|".join(b"" if a is None else a.tobytes() for a in arrays)).hexdigest()[:16]


def _preprocessing(survey: Survey, rows: np.ndarray, normalisation: str) -> Preprocessing:
    """Preprocessing; "asinh" needs the survey's noise, the median level of a sample of the train images."""
    if normalisation != "asinh":
        return Preprocessing(normalisation)
    sample = rows[:: max(1, len(rows) // 1024)]
    levels = torch.cat(
        [noise_level(*read_pixels(survey, part)) for part in np.array_split(sample, -(-len(sample) // 512))]
    )
    return Preprocessing(normalisation, noise=float(levels.nanmedian()))


def _pairs(batches: Batches, vae: VAE) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and masks as `VAE.prepare` and `VAE.finish` take them, on the device where the VAE is now.

    The batches are made anew: images that they keep may lie on another GPU than the one that trained.
    """
    there = replace(batches, device=next(vae.parameters()).device)
    return ((x, mask) for x, mask, _ in there)


def _begin(out: Path, settings: dict[str, Any], resume: bool, progress: bool) -> None:
    """Make `out` ready for these settings: keep a checkpoint that fits them, remove one that does not."""
    out.mkdir(parents=True, exist_ok=True)
    record = out / "settings.json"
    held = json.loads(record.read_text()) if record.is_file() else None
    if resume and held == settings:
        if progress and (out / "last.ckpt").is_file():
            print(f"fit: going on from {out / 'last.ckpt'}")
        return
    if resume and held is not None and (out / "last.ckpt").is_file():
        keys = sorted(held.keys() | settings.keys())
        changed = [
            f"{key} {held.get(key)!r} -> {settings.get(key)!r}"
            for key in keys
            if held.get(key) != settings.get(key)
        ]
        _log.warning(
            "fit: %s holds a training with other settings, starting afresh (%s)", out, "; ".join(changed)
        )
    for name in ("last.ckpt", "best.ckpt"):
        (out / name).unlink(missing_ok=True)
    for events in (out / "tensorboard").glob("events.out.tfevents.*"):
        events.unlink()
    partial = out / "settings.json.partial"
    partial.write_text(json.dumps(settings, indent=1, sort_keys=True))
    os.replace(partial, record)


def fit(
    survey: Survey,
    variant: str = "RESNET18_BETATC_VAE",
    *,
    out: str | Path,
    seed: int = 0,
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    schedule: Literal["reference", "constant", "cosine"] = "reference",
    patience: int | None = 8,
    gradient_clip: float = 1000.0,
    normalisation: Literal["minmax", "asinh"] = "minmax",
    augmentation: float = 0.0,
    train_on: Literal["all", "normals", "balanced"] = "all",
    labelled_fraction: float = 0.1,
    max_images: int | None = None,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    devices: int | str | list[int] = 1,
    strategy: str = "auto",
    compile: bool = False,
    resume: bool = True,
    progress: bool = True,
    **model_options: Any,
) -> Model:
    """Train one of the variants in `lensq.MODELS` on the train split of a survey.

    Training stops early on the loss of the validation split (a tenth of the train tiles), taken with the
    objective at its final weights, so that epochs before and after annealing compare; the weights of the
    best epoch are kept. Killed at any time and called again, it goes on from the last finished epoch and
    ends with the same weights bit for bit; a finished, unchanged fit returns at once. With other settings
    or changed code it starts afresh and says so. All randomness is keyed by seed, epoch and batch: on one
    machine with one number of threads a seed gives one model.

    Args:
        survey: The survey; only its "train" and "validation" splits are read.
        variant: A name in `lensq.MODELS`.
        out: Folder for `model.pt`, `history.csv`, `settings.json`, `last.ckpt`, `best.ckpt`, `tensorboard/`.
        seed: Seed of weights, order, augmentation and latent draws.
        epochs: Epochs at most.
        batch_size: Objects a batch.
        learning_rate: Adam's learning rate after the warm-up.
        schedule: "reference" (100 steps of warm-up, then divided by 1.1 at epochs 2 to 28), "constant" or
            "cosine" (warm-up, then down to zero).
        patience: Epochs to wait for a better validation loss; None runs all epochs (and keeps the best).
        gradient_clip: Largest norm of the gradient.
        normalisation: "minmax" per image, or "asinh" with one noise scale for the survey.
        augmentation: Probability of a turn or mirroring of a train image.
        train_on: "all" objects of the train split, labels unseen; "normals" (label 0 only) or "balanced"
            (anomalies and normals equally likely, the reference's sampler), which use labels.
        labelled_fraction: Share of each class's labels that a semi-supervised variant is told.
        max_images: Train on that many images at most (and validate on a ninth as many).
        precision: "bf16" runs convolutions in bf16 (autocast), "auto" where the hardware multiplies bf16
            (`bf16_pays`).
        devices: As in `pytorch_lightning.Trainer`.
        strategy: As in `pytorch_lightning.Trainer`.
        compile: Compile encoder and decoder with torch.compile, which takes about a minute and pays over
            many epochs on a GPU.
        resume: False throws away what `out` holds and starts afresh.
        progress: Show a progress bar and say what is done.
        model_options: Options of the variant: `latent`, `width` and the objective's own.

    Raises:
        ValueError: An argument is out of range, or the survey has too few objects.
        FloatingPointError: Training diverged: a term of the loss, which is named, is no longer finite.
        RuntimeError: The hypersphere of an SVDD_VAE has collapsed.
    """
    if variant not in MODELS:
        raise ValueError(f"variant={variant!r}: lensq.MODELS offers {', '.join(MODELS)}")
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f'precision={precision!r}: take "auto", "fp32" or "bf16"')
    if epochs < 1 or batch_size < 2:
        raise ValueError(f"epochs={epochs}, batch_size={batch_size}: take at least 1 and 2")
    out = Path(out)
    if normalisation == "asinh":
        model_options = {"activation": "linear"} | model_options
    config = MODELS[variant].config(size=survey.size, **model_options)
    vae = VAE(config, seed=seed)
    rows = _subset(_train_rows(survey, train_on), max_images, seed, "train")
    validation = survey.rows("validation")
    if train_on == "normals":
        validation = validation[survey.labels[validation] == 0]
    validation = _subset(validation, max_images and max(1, max_images // 9), seed, "validation")
    told = None
    if vae.uses_labels:
        told = reveal_labels(survey.labels[rows], labelled_fraction, keyed_generator(seed, "labelled"))
    anomaly = survey.labels[rows] == 1 if train_on == "balanced" else None
    seen = told if vae.uses_labels else survey.labels[rows] if train_on != "all" else np.empty(0)
    settings = {
        "variant": variant,
        "config": config.to_dict(),
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "patience": patience,
        "gradient_clip": gradient_clip,
        "normalisation": normalisation,
        "augmentation": augmentation,
        "train_on": train_on,
        "labelled_fraction": labelled_fraction,
        "uses_labels": train_on != "all" or vae.uses_labels,
        "labels_told": int((seen >= 0).sum()),
        "max_images": max_images,
        "precision": ("bf16" if bf16_pays(survey.size) else "fp32") if precision == "auto" else precision,
        "devices": devices,
        "strategy": strategy,
        "compile": compile,
        "size": survey.size,
        "resized": survey.resized,
        "survey": survey.fingerprint,
        "objects": _hash(survey.names[rows], survey.names[validation], told, anomaly),
        "code": code_hash("models.training"),
    }
    settings = json.loads(json.dumps(settings))
    if resume and (out / "model.pt").is_file():
        model = load_model(out / "model.pt")
        if model.settings == settings:
            if progress:
                print(f"fit: nothing to do, {out / 'model.pt'} is this model")
            return model

    from lensq.models import loop

    loop.learning_rate_factor(schedule, 0, 1, epochs)
    _begin(out, settings, resume, progress)

    preprocessing = _preprocessing(survey, rows, normalisation)
    batches = Batches(
        survey,
        rows,
        preprocessing,
        batch_size,
        labels=told,
        seed=seed,
        shuffle=True,
        anomaly=anomaly,
        augmentation=augmentation,
    )
    checking = Batches(survey, validation, preprocessing, batch_size) if len(validation) else None
    reference = Batches(survey, _subset(rows, config.reference_size, seed, "reference"), preprocessing, 256)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not (out / "last.ckpt").is_file():
        vae.to(device)
        vae.prepare(_pairs(reference, vae), generator=keyed_generator(seed, "prepare"))
    recipe = loop.Recipe(
        seed=seed,
        epochs=epochs,
        learning_rate=learning_rate,
        schedule=schedule,
        patience=patience,
        gradient_clip=gradient_clip,
        precision=settings["precision"],
        devices=devices,
        strategy=strategy,
        compile=compile,
    )
    task = loop.Task(vae, batches, checking, recipe)
    writes = loop.train(task, out, progress=progress)
    vae.to(device).eval()
    with torch.compiler.set_stance("force_eager"):
        vae.finish(_pairs(reference, vae))
    model = Model(vae.to("cpu"), preprocessing, pd.DataFrame(task.history), settings, survey.fingerprint)
    if writes:
        model.history.to_csv(out / "history.csv", index=False)
        model.save(out / "model.pt")
    return model

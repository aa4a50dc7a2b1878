"""Fit a VAE to a survey, and keep it: `fit`, `Model`, `load_model`."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from lensq.models.batches import Batches, keyed_generator, reveal_labels, sky_noise
from lensq.models.conditions import conditions
from lensq.models.options import TRAINING, TrainingOptions, bf16_pays
from lensq.models.variants import GENERAL, MODELS, VAE, ModelConfig, check_names
from lensq.survey.files import atomic
from lensq.survey.images import Preprocessing, band_weights
from lensq.survey.provenance import code_hash

if TYPE_CHECKING:
    from lensq.models.loop import Task
    from lensq.survey.survey import Survey

_log = logging.getLogger(__name__)

OF_IMAGES = {"size", "bands"}
"""Fields of a `ModelConfig` that the survey decides."""


@dataclass(eq=False)
class Model:
    """A trained VAE and all that is needed to apply it.

    Attributes:
        vae: The network with its objective, in evaluation mode.
        preprocessing: Turns flux into what the network sees.
        history: One row an epoch: `epoch`, `seconds`, `learning_rate`, then each term of the loss as
            `train_<term>` and `validation_<term>` (the latter with the objective at its final weights).
        settings: What the model was trained with; `settings["uses_labels"]` says if labels were seen,
            `settings["labels_seen"]` how many.
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

    @property
    def recipe(self) -> dict[str, Any]:
        """The keywords with which `fit` trains this model again: `fit(survey, out=..., **model.recipe)`."""
        config = asdict(self.vae.config)
        network = {name: config[name] for name in GENERAL - OF_IMAGES} | config["options"]
        return {name: self.settings[name] for name in ("variant", *sorted(TRAINING))} | network

    def save(self, path: str | Path) -> Path:
        """Write the model to one file that `load_model` reads, whole or not at all."""
        document: dict[str, Any] = {"config": asdict(self.vae.config), "settings": self.settings}
        document |= {"history": self.history.to_dict("list"), "preprocessing": asdict(self.preprocessing)}
        document["survey_fingerprint"] = self.survey_fingerprint
        save_whole({"document": json.dumps(document), "state": self.vae.state_dict()}, Path(path))
        return Path(path)


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
        raise FileNotFoundError(f"{path} does not exist: fit a model first (lensq.fit) or mend the path")
    try:
        held = torch.load(path, weights_only=True, map_location="cpu")
        document = json.loads(held["document"])
        vae = VAE(ModelConfig(**document["config"]))
        vae.load_state_dict(held["state"])
        preprocessing, history = Preprocessing(**document["preprocessing"]), pd.DataFrame(document["history"])
        return Model(vae.eval(), preprocessing, history, document["settings"], document["survey_fingerprint"])
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".split(". ")[0]
        raise ValueError(
            f"{path} cannot be read as a model of lensq ({reason}); it is damaged or was written by another "
            "version: delete it and fit again"
        ) from error


def save_whole(document: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values to a file, whole or not at all.

    Raises:
        OSError: The file cannot be written, for want of space for instance; the message names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Through an open file: given a path, torch says of a full disk "unexpected pos 704 vs 598".
        with atomic(path) as partial, partial.open("wb") as file:
            torch.save(document, file)
    except OSError as error:
        remedy = "make space there and run this again; a training goes on from its last whole epoch"
        raise OSError(error.errno, f"cannot write {path} ({error.strerror}): {remedy}") from error


def _asked(survey: Survey, variant: str, settings: dict[str, Any]) -> tuple[TrainingOptions, VAE]:
    """The keywords of `fit` sorted into how to train and what: options, and a VAE with its first weights."""
    if variant not in MODELS:
        raise ValueError(f"variant={variant!r}: lensq.MODELS offers {', '.join(MODELS)}")
    check_names(settings, (TRAINING | MODELS[variant].options) - OF_IMAGES, f"fit of a {variant}")
    options = TrainingOptions(**{name: settings[name] for name in settings.keys() & TRAINING})
    if options.precision == "auto":
        options = replace(options, precision="bf16" if bf16_pays(survey.size) else "fp32")
    own = {"activation": "linear"} if options.normalisation == "asinh" else {}
    own |= {name: settings[name] for name in settings.keys() - TRAINING}
    of_images = {"size": survey.size, "bands": len(survey.bands)}
    return options, VAE(MODELS[variant].config(**of_images, **own), seed=options.seed)


def _batches(survey: Survey, options: TrainingOptions, uses_labels: bool) -> tuple[Batches, Batches]:
    """Batches to train and to validate on, of objects drawn with the seed if there are too many."""
    rows, validation = survey.rows("train"), survey.rows("validation")
    if options.train_on == "normals":
        rows, validation = (part[survey.labels[part] == 0] for part in (rows, validation))
    if len(rows) < 2:
        raise ValueError(
            f"{len(rows)} objects to train on with train_on={options.train_on!r}: the survey {survey.folder} "
            'has too few in its train split; give a larger survey, or train_on="all"'
        )
    most, seed, labels = options.max_images, options.seed, None
    rows = _subset(rows, most, seed, "train")
    validation = _subset(validation, most and max(1, most // 9), seed, "validation")
    if uses_labels:
        chance = keyed_generator(seed, "labelled")
        labels = reveal_labels(survey.labels[rows], options.labelled_fraction, chance)
    preprocessing = fit_preprocessing(survey, rows, options.normalisation)
    own = survey, rows, preprocessing, options.batch_size, labels, seed
    anomaly = survey.labels[rows] == 1 if options.train_on == "balanced" else None
    train = Batches(*own, shuffle=True, anomaly=anomaly, augmentation=options.augmentation)
    return train, Batches(survey, validation, preprocessing, options.batch_size)


def _subset(rows: np.ndarray, n: int | None, seed: int, name: str) -> np.ndarray:
    """At most n of the rows, drawn without replacement, in their order."""
    if n is None or len(rows) <= n:
        return rows
    order = torch.randperm(len(rows), generator=keyed_generator(seed, "subset", name)).numpy()
    return rows[np.sort(order[:n])]


def fit_preprocessing(survey: Survey, rows: np.ndarray, normalisation: str) -> Preprocessing:
    """Preprocessing with what it needs of the survey's noise, the median level of some of its images.

    Args:
        survey: the survey.
        rows: (n,) rows of the training images.
        normalisation: "minmax" or "asinh".
    """
    if normalisation != "asinh" and len(survey.bands) == 1:
        return Preprocessing(normalisation)
    noise = sky_noise(survey, rows[:: max(1, len(rows) // 1024)]).view(-1, len(survey.bands))
    weights = band_weights(noise, survey.reference) if len(survey.bands) > 1 else ()
    level = float(noise[:, survey.reference].nanmedian()) if normalisation == "asinh" else 1.0
    return Preprocessing(normalisation, noise=level, weights=weights)


def _settings(options: TrainingOptions, vae: VAE, train: Batches, validation: Batches) -> dict[str, Any]:
    """What makes one fit differ from another, as plain values of JSON."""
    survey, uses_labels = train.survey, options.train_on != "all" or vae.objective.uses_labels
    seen = train.labels if vae.objective.uses_labels else survey.labels[train.rows]
    arrays = (survey.names[train.rows], survey.names[validation.rows], train.labels, train.anomaly)
    objects = hashlib.sha256(b"|".join(b"" if a is None else a.tobytes() for a in arrays))
    settings = {
        "variant": vae.config.variant,
        "config": asdict(vae.config),
        **asdict(options),
        "uses_labels": uses_labels,
        "labels_seen": int((seen >= 0).sum()) if uses_labels else 0,
        **survey.as_read,
        "conditions": conditions(survey, train.rows),
        "objects": objects.hexdigest()[:16],
        "code": code_hash("models.training"),
    }
    return json.loads(json.dumps(settings))


def _finished(path: Path, settings: dict[str, Any]) -> Model | None:
    """The model in `path`, if it was made with these settings."""
    if not path.is_file():
        return None
    try:
        model = load_model(path)
    except ValueError as error:
        _log.warning("fit: %s; it is made again", error)
        return None
    return model if model.settings == settings else None


def _begin(out: Path, settings: dict[str, Any], resume: bool) -> list[dict[str, float]]:
    """Make `out` ready for these settings.

    Returns:
        The history of the checkpoint to go on from. If there is none with these settings, or it cannot be
        read, an empty one: what was there is removed.
    """
    out.mkdir(parents=True, exist_ok=True)
    last = out / "last.ckpt"
    if resume and last.is_file():
        try:
            checkpoint = torch.load(last, weights_only=True, map_location="cpu")
            held, history = checkpoint["settings"], checkpoint["history"]
        except Exception as error:
            _log.warning("fit: %s cannot be read (%s), starting afresh", last, type(error).__name__)
        else:
            if held == settings:
                return history
            keys = sorted(k for k in held.keys() | settings.keys() if held.get(k) != settings.get(k))
            why = "; ".join(f"{key} {held.get(key)!r} -> {settings.get(key)!r}" for key in keys)
            _log.warning("fit: %s is of a training with other settings, starting afresh (%s)", last, why)
    last.unlink(missing_ok=True)
    with atomic(out / "settings.json") as partial:
        partial.write_text(json.dumps(settings, indent=1, sort_keys=True))
    return []


def fit(
    survey: Survey,
    variant: str = "RESNET18_BETATC_VAE",
    *,
    out: str | Path,
    resume: bool = True,
    progress: bool = True,
    **settings: Any,
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
        out: Folder for `model.pt`, `history.csv`, `settings.json`, `last.ckpt` and `tensorboard/`.
        resume: False throws away what `out` holds and starts afresh.
        progress: Show a progress bar and say what is done.
        **settings: How to train: `epochs`, `seed` and the other fields of `TrainingOptions`; and what:
            `latent`, `width` and the other fields of `ModelConfig` and of the objective's `Options`.

    Raises:
        ValueError: An argument is unknown or out of range, or the survey has too few objects.
        FloatingPointError: Training diverged: a term of the loss, which is named, is no longer finite.
        OSError: The disk is full.
        RuntimeError: The hypersphere of an SVDD_VAE has collapsed.
    """
    out = Path(out)
    options, vae = _asked(survey, variant, settings)
    train, validation = _batches(survey, options, vae.objective.uses_labels)
    made_with = _settings(options, vae, train, validation)
    if resume and (model := _finished(out / "model.pt", made_with)):
        if progress:
            print(f"fit: nothing to do, {out / 'model.pt'} is this model")
        return model
    history = _begin(out, made_with, resume)
    if history and progress:
        print(f"fit: going on from {out / 'last.ckpt'}")

    from lensq.models.loop import Task  # Lightning is slow to load, and what only scores needs none of it

    task = Task(vae, train, validation, options, made_with, history)
    writes = _train(task, out, progress)
    model = Model(vae, train.preprocessing, pd.DataFrame(task.history), made_with, survey.fingerprint)
    if writes:
        model.history.to_csv(out / "history.csv", index=False)
        model.save(out / "model.pt")
    return model


def _train(task: Task, out: Path, progress: bool) -> bool:
    """Prepare, train and finish the VAE of a task; whether this process is the one that writes files."""
    from lensq.models import loop

    vae, train, seed = task.vae, task.train_batches, task.options.seed
    sample = _subset(train.rows, vae.config.reference_size, seed, "reference")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reference = Batches(train.survey, sample, train.preprocessing, 256, device=device)
    if not task.history:
        vae.to(device).prepare(reference)
    writes = loop.train(task, out, progress=progress)
    with torch.compiler.set_stance("force_eager"):
        # Anew, since images that they keep may lie on another GPU than the one that trained.
        vae.to(device).eval().finish(replace(reference))
    vae.cpu()
    return writes

"""The supervised reference: a ResNet-18 that is trained with every label of the train and selection tiles.

What a network reaches that sees labels says how much there is to find in these pixels at least. The images
are normalised by asinh with one noise scale for the survey, rotated and mirrored at random, and lenses and
normals are equally likely in a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from lensq.classifiers.classifier import Classifier, build_classifier, rotated, train
from lensq.models.batches import Batches, keyed_generator
from lensq.models.training import fit_preprocessing
from lensq.survey.provenance import code_hash

if TYPE_CHECKING:
    from lensq.survey.survey import Survey

TRAINED_ON = ("train", "selection")
"""The splits whose labels shape the weights."""


@dataclass(frozen=True)
class SupervisedOptions:
    """How the classifier is trained.

    Attributes:
        width: channels of the first stage, 64 in ResNet-18.
        epochs: passes over as many images as are labelled.
        learning_rate: the highest of AdamW's.
        batch_size: objects a batch.
        seed: of weights, order and symmetries.
    """

    width: int = 16
    epochs: int = 8
    learning_rate: float = 3e-3
    batch_size: int = 64
    seed: int = 0


def fit_supervised(
    survey: Survey, labels: np.ndarray, *, out: Path | str, progress: bool = True, **options
) -> Classifier:
    """Train the classifier on all labels of the train and selection tiles.

    Train and selection objects are known to it; the validation tiles only draw a curve, and a threshold can
    be chosen there. Called again with the same survey and settings, it reads back what it wrote.

    Args:
        survey: the survey.
        labels: (N,) 1 lens, 0 normal, -1 not known; only train, selection and validation are read.
        out: folder for `model.pt`.
        progress: show a progress bar.
        **options: see `SupervisedOptions`.

    Raises:
        ValueError: both classes are not among the labelled objects, of training or of validation.
    """
    how, labels = SupervisedOptions(**options), np.asarray(labels, np.int64)
    splits = TRAINED_ON, ("validation",)
    rows, validation = (part[labels[part] >= 0] for part in (survey.rows(*names) for names in splits))
    for part, names in zip((rows, validation), splits, strict=True):
        if len(np.unique(labels[part])) < 2:
            where = f"{' and '.join(names)} of {survey.folder}"
            raise ValueError(f"a classifier needs labelled lenses and normals in {where}")
    settings = asdict(how) | {
        **survey.as_read,
        "network": "resnet18",
        "labels_used": len(rows),
        "labels": hashlib.sha256(rows.tobytes() + labels[rows].tobytes()).hexdigest()[:16],
        "code": code_hash("classifiers.supervised"),
    }
    path = Path(out) / "model.pt"
    if path.is_file() and (held := Classifier.load(path, settings)):
        return held
    preprocessing = fit_preprocessing(survey, rows, "asinh")
    with torch.random.fork_rng():
        torch.manual_seed(how.seed)
        network = build_classifier(survey.size, how.width, bands=len(survey.bands))
    model = Classifier(network, preprocessing, pd.DataFrame(), settings)

    def validation_loss() -> float:
        """Cross-entropy in nats, the two classes weighing the same."""
        scores = model.score(survey, validation, symmetries=False, progress=False)
        known = torch.from_numpy(labels[validation])
        losses = F.binary_cross_entropy_with_logits(torch.from_numpy(scores), known.float(), reduction="none")
        return float(torch.stack([losses[known == k].mean() for k in (0, 1)]).mean())

    own = survey, rows, preprocessing, how.batch_size, labels[rows], how.seed, True, labels[rows] == 1
    batches = Batches(*own, device="cuda" if torch.cuda.is_available() else "cpu")
    recipe: dict[str, Any] = {"steps": how.epochs * len(batches), "every": len(batches), "progress": progress}
    recipe |= {"learning_rate": how.learning_rate, "validation": validation_loss}
    history = train(network, _passes(batches, how), **recipe)
    model.history = history.assign(step=range(how.epochs)).rename(columns={"step": "epoch"})
    model.save(path)
    return model


def _passes(batches: Batches, how: SupervisedOptions) -> Iterator[tuple[Tensor, Tensor]]:
    """All batches of all epochs, each image rotated at random."""
    for epoch in range(how.epochs):
        batches.epoch = partial(int, epoch)
        generator = keyed_generator(how.seed, "turns", epoch)
        for x, _, wanted in batches:
            yield rotated(x, generator), wanted

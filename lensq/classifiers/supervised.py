"""The supervised reference: a ResNet-18 that is told every label of the train and selection tiles.

What a network reaches that sees labels says how much there is to find in these pixels at least. The images
are normalised by asinh with one noise scale for the survey, turned and mirrored at random, and lenses and
normals are equally likely in a batch.
"""

import hashlib
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from lensq.classifiers.classifier import Classifier, build_classifier
from lensq.models.batches import Batches, keyed_generator, read_pixels
from lensq.models.memory import keep_freed_memory
from lensq.survey.images import Preprocessing, noise_level
from lensq.survey.images import symmetries as symmetries_of
from lensq.survey.provenance import code_hash
from lensq.survey.survey import Survey

TAUGHT = ("train", "selection")
"""The splits whose labels shape the weights."""


def _balanced_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B,) in nats, the two classes weighing the same."""
    losses = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    return torch.stack([losses[labels == k].mean() for k in (0, 1)]).mean()


def fit_supervised(
    survey: Survey,
    labels: np.ndarray,
    *,
    out: Path | str,
    width: int = 16,
    epochs: int = 8,
    learning_rate: float = 3e-3,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> Classifier:
    """Train the classifier on all labels of the train and selection tiles.

    The learning rate rises and falls to nothing once over the training (Smith and Topin 2019), so that the
    last epoch is the one to keep. Train and selection objects are known to it; the validation tiles only
    draw a curve, and a threshold can be chosen there. Called again with the same survey and settings, it
    reads back what it wrote.

    Args:
        survey: the survey.
        labels: (N,) 1 lens, 0 normal, -1 not known; only train, selection and validation are read.
        out: folder for `model.pt`.
        width: channels of the first stage, 64 in ResNet-18.
        epochs: passes over as many images as are labelled.
        learning_rate: the highest of AdamW's.
        batch_size: objects a batch.
        seed: of weights, order and symmetries.
        progress: show a progress bar.

    Raises:
        ValueError: both classes are not among the labelled objects, of training or of validation.
    """
    labels = np.asarray(labels, np.int64)
    rows, validation = (part[labels[part] >= 0] for part in (survey.rows(*TAUGHT), survey.rows("validation")))
    for part, where in ((rows, " and ".join(TAUGHT)), (validation, "validation")):
        if len(np.unique(labels[part])) < 2:
            raise ValueError(f"a classifier needs labelled lenses and normals in {where} of {survey.folder}")
    settings = {
        "network": "resnet18",
        "width": width,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "seed": seed,
        "size": survey.size,
        "resized": survey.resized,
        "survey": survey.fingerprint,
        "labels_used": len(rows),
        "labels": hashlib.sha256(rows.tobytes() + labels[rows].tobytes()).hexdigest()[:16],
        "code": code_hash("classifiers.supervised"),
    }
    path = Path(out) / "model.pt"
    if held := Classifier.load_made_with(path, settings):
        return held
    sample = rows[:: max(1, len(rows) // 1024)]
    preprocessing = Preprocessing("asinh", noise=float(noise_level(*read_pixels(survey, sample)).nanmedian()))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_classifier(survey.size, width)
    model = Classifier(network, preprocessing, pd.DataFrame(), settings)
    model.history = _train(model, survey, labels, rows, validation, progress)
    model.save(path)
    return model


@keep_freed_memory()
def _train(
    model: Classifier,
    survey: Survey,
    labels: np.ndarray,
    rows: np.ndarray,
    validation: np.ndarray,
    progress: bool,
) -> pd.DataFrame:
    """Train the network in place and return the history."""
    settings, network, epoch = model.settings, model.network, 0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batches = Batches(
        survey,
        rows,
        model.preprocessing,
        settings["batch_size"],
        labels=labels[rows],
        seed=settings["seed"],
        shuffle=True,
        anomaly=labels[rows] == 1,
        device=device,
        epoch=lambda: epoch,
    )
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["learning_rate"], total_steps=settings["epochs"] * len(batches)
    )
    history = []
    for epoch in tqdm(range(settings["epochs"]), unit="epoch", desc="supervised", disable=not progress):
        begun, losses = time.monotonic(), []
        turns = keyed_generator(settings["seed"], "turns", epoch)
        network.to(device).train()
        for x, _, wanted in batches:
            turn = torch.randint(8, (len(x),), generator=turns).to(device)
            x = symmetries_of(x)[turn, torch.arange(len(x), device=device)]
            loss = F.binary_cross_entropy_with_logits(network(x)[:, 0], wanted.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        network.eval()
        held_out = model.score(survey, validation, symmetries=False, progress=False)
        loss = _balanced_loss(torch.from_numpy(held_out), torch.from_numpy(labels[validation]))
        row = {"epoch": epoch, "seconds": time.monotonic() - begun}
        row |= {"train_loss": float(torch.stack(losses).mean()), "validation_loss": float(loss)}
        history.append(row)
    network.cpu().eval()
    return pd.DataFrame(history)

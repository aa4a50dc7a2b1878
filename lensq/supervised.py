"""The upper bound: a ResNet-18 that is told every label of the train and selection tiles.

What a network reaches that sees labels says how much there is to find in these pixels. The images are
normalised by asinh with one noise scale for the survey, turned and mirrored at random, and lenses and normals
are equally likely in a batch.
"""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from lensq.batches import Batches, keyed_generator, read_pixels
from lensq.images import Preprocessing, noise_level
from lensq.images import symmetries as symmetries_of
from lensq.networks import build_network
from lensq.provenance import code_fingerprint
from lensq.survey import Survey

TAUGHT = ("train", "selection")
"""The splits whose labels shape the weights."""

_SCORED_AT_ONCE = 64  # images; larger batches overflow a CPU's caches


def _build(size: int, width: int, network: str = "resnet18") -> nn.Module:
    """Images (B, 1, S, S) to log odds (B, 1)."""
    encoder, _ = build_network(network, size, 1, width)
    return nn.Sequential(encoder, nn.Linear(encoder.features, 1)).to(memory_format=torch.channels_last)


@dataclass(eq=False)
class Supervised:
    """A trained classifier.

    Attributes:
        network: images (B, 1, S, S) to log odds (B, 1), in evaluation mode, on the CPU.
        preprocessing: turns flux into what the network sees.
        history: one row an epoch: `epoch`, `seconds`, `train_loss`, `validation_loss` (cross-entropy, nats,
            both classes weighing the same).
        settings: what it was trained with; `settings["labels_used"]` is the number of labels that
            shaped the weights.
    """

    network: nn.Module
    preprocessing: Preprocessing
    history: pd.DataFrame
    settings: dict[str, Any]

    @torch.inference_mode()
    def score(
        self, survey: Survey, rows: np.ndarray, *, symmetries: bool = True, progress: bool = True
    ) -> np.ndarray:
        """Log odds of being a lens (up to the share of lenses), a function of each image alone.

        Args:
            survey: a survey read at the size that the network takes.
            rows: (n,) row numbers.
            symmetries: average over the eight symmetries of the square, at eight times the cost.
            progress: show a progress bar.

        Returns:
            (n,) float32, higher is more anomalous.

        Raises:
            ValueError: the survey was read at another size.
        """
        trained = self.settings["size"], self.settings["resized"]
        if trained != (survey.size, survey.resized):
            raise ValueError(
                f"{survey.folder} was read with size={survey.size}, resize={survey.resized}; the classifier "
                f"takes size={trained[0]}, resize={trained[1]}: read it again with these"
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network, scores = self.network.to(device), []
        step = _SCORED_AT_ONCE if device == "cpu" else 16 * _SCORED_AT_ONCE
        for start in tqdm(range(0, len(rows), step), desc="score", disable=not progress):
            x = self.preprocessing(*read_pixels(survey, rows[start : start + step], device))
            views = symmetries_of(x) if symmetries else x[None]
            scores.append(torch.stack([network(view)[:, 0] for view in views]).mean(0).cpu())
        self.network.cpu()
        return torch.cat(scores).numpy()

    def save(self, path: Path) -> None:
        """Write the classifier to one file, whole or not at all."""
        document = {
            "preprocessing": asdict(self.preprocessing),
            "history": self.history.to_dict("list"),
            "settings": self.settings,
        }
        partial = path.with_name(path.name + ".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"document": json.dumps(document), "state": self.network.state_dict()}, partial)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> "Supervised":
        """Read what `save` wrote."""
        held = torch.load(path, weights_only=True, map_location="cpu")
        document = json.loads(held["document"])
        settings = document["settings"]
        network = _build(*(settings[name] for name in ("size", "width", "network")))
        network.load_state_dict(held["state"])
        history = pd.DataFrame(document["history"])
        return cls(network.eval(), Preprocessing(**document["preprocessing"]), history, settings)

    @classmethod
    def load_made_with(cls, path: Path, settings: dict[str, Any]) -> "Supervised | None":
        """Read a classifier, unless the file is not there or, by older code perhaps, was made otherwise."""
        if not path.is_file():
            return None
        document = json.loads(torch.load(path, weights_only=True, map_location="cpu")["document"])
        return cls.load(path) if document["settings"] == settings else None


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
) -> Supervised:
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
        "code": code_fingerprint("supervised"),
    }
    path = Path(out) / "model.pt"
    if held := Supervised.load_made_with(path, settings):
        return held
    sample = rows[:: max(1, len(rows) // 1024)]
    preprocessing = Preprocessing("asinh", noise=float(noise_level(*read_pixels(survey, sample)).nanmedian()))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _build(survey.size, width)
    model = Supervised(network, preprocessing, pd.DataFrame(), settings)
    model.history = _train(model, survey, labels, rows, validation, progress)
    model.save(path)
    return model


def _train(
    model: Supervised,
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

"""An encoder with one linear layer on top, which says how likely an image is to be a lens.

`lensq.classifiers.supervised` trains one from scratch, `lensq.classifiers.finetuning` one whose encoder a
variational autoencoder has trained before.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from lensq.models.batches import read_pixels, workers
from lensq.models.memory import keep_freed_memory
from lensq.models.networks import build_network, fold_normalisation
from lensq.models.training import save_whole
from lensq.survey.images import Preprocessing, apply_symmetries, check_pixels
from lensq.survey.images import symmetries as symmetries_of

if TYPE_CHECKING:
    from lensq.survey.survey import Survey

_SCORED_AT_ONCE = 64  # images; larger batches overflow a CPU's caches


def build_classifier(size: int, width: int, network: str = "resnet18", bands: int = 1) -> nn.Module:
    """A network from images (B, C, S, S) to log odds (B, 1).

    Args:
        size: side of the images in pixels.
        width: channels of the first stage.
        network: name in `lensq.models.networks.NETWORKS`, whose encoder it takes.
        bands: number of bands C of the images.
    """
    encoder, _ = build_network(network, size, 1, width, bands)
    return nn.Sequential(encoder, nn.Linear(encoder.features, 1)).to(memory_format=torch.channels_last)


def rotated(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, S, S), each rotated and mirrored at random."""
    return apply_symmetries(x, torch.randint(8, (len(x),), generator=generator).to(x.device))


@keep_freed_memory()
def train(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    steps: int,
    learning_rate: float,
    every: int,
    warm_up: float = 0.3,
    validation: Callable[[], float] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train a network in place by the cross-entropy of its log odds, and leave it on the CPU.

    The learning rate rises and falls to nothing once (Smith and Topin 2019), so that the last step is the one
    to keep.

    Args:
        network: images (B, C, S, S) to log odds (B, 1).
        batches: images and answers (B,), 1 lens, 0 not.
        steps: how many batches there are.
        learning_rate: the highest of AdamW's.
        every: steps to a row of the history.
        warm_up: share of the steps in which the learning rate rises.
        validation: called at each row, returns its `validation_loss`.
        progress: show a progress bar.

    Returns:
        `step`, `seconds`, `train_loss` (nats) and `validation_loss`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=warm_up)
    history, losses, begun = [], [], time.monotonic()
    for step, (x, answers) in enumerate(tqdm(batches, "train", steps, disable=not progress), 1):
        loss = F.binary_cross_entropy_with_logits(network(x.to(device))[:, 0], answers.float().to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if step % every == 0:
            row = {"step": step, "train_loss": float(torch.stack(losses).mean())}
            if validation:
                network.eval()
                row["validation_loss"] = validation()
                network.to(device).train()
            history.append(row | {"seconds": time.monotonic() - begun})
            losses, begun = [], time.monotonic()
    network.cpu().eval()
    return pd.DataFrame(history)


@dataclass(eq=False)
class Classifier:
    """A trained classifier.

    Attributes:
        network: images (B, C, S, S) to log odds (B, 1), in evaluation mode, on the CPU.
        preprocessing: turns flux into what the network sees.
        history: the course of its training in rows, with `seconds` and `train_loss` (cross-entropy, nats).
        settings: what it was trained with; `settings["labels_used"]` is the number of labels that
            shaped the weights.
    """

    network: nn.Module
    preprocessing: Preprocessing
    history: pd.DataFrame
    settings: dict[str, Any]

    @property
    def images_seen(self) -> int:
        """Images that its training looked at, each pass counted."""
        held = self.settings
        return held["steps"] * held["batch_size"] if "steps" in held else held["epochs"] * held["labels_used"]

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
            ValueError: the survey was read at another size or in other bands.
        """
        check_pixels(survey, self.settings)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = fold_normalisation(copy.deepcopy(self.network).to(device))

        @torch.inference_mode()
        def scored(part: np.ndarray) -> Tensor:
            x = self.preprocessing(*read_pixels(survey, part, device))
            views = symmetries_of(x) if symmetries else x[None]
            return torch.stack([network(view)[:, 0] for view in views]).mean(0).cpu()

        step = _SCORED_AT_ONCE if device.type == "cpu" else 16 * _SCORED_AT_ONCE
        parts = np.split(rows, range(step, len(rows), step))
        with workers(device) as run:
            scores = list(tqdm(run(scored, parts), "score", len(parts), disable=not progress))
        return torch.cat(scores).numpy()

    def save(self, path: Path) -> None:
        """Write the classifier to one file, whole or not at all."""
        document = {"preprocessing": asdict(self.preprocessing), "settings": self.settings}
        document["history"] = self.history.to_dict("list")
        save_whole({"document": json.dumps(document), "state": self.network.state_dict()}, path)

    @classmethod
    def load(cls, path: Path, made_with: dict[str, Any] | None = None) -> Classifier | None:
        """Read what `save` wrote; None if, by older code perhaps, it was made with other settings."""
        held = torch.load(path, weights_only=True, map_location="cpu")
        document = json.loads(held["document"])
        settings = document["settings"]
        if made_with not in (None, settings):
            return None
        shape = (settings[name] for name in ("size", "width", "network"))
        network = build_classifier(*shape, bands=len(settings.get("bands", "i")))
        network.load_state_dict(held["state"])
        history = pd.DataFrame(document["history"])
        return cls(network.eval(), Preprocessing(**document["preprocessing"]), history, settings)

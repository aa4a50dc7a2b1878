"""Fine-tune the encoder of a variational autoencoder: on injected lenses first, on labels where there are
any.

The encoder has learnt from every image of the survey what light looks like; one linear layer on top of it,
and a few hundred steps for both, turn it into a detector. Without labels it is taught by
`lensq.classifiers.injection` to tell a source seen twice from everything else. Labels, a hundred or all,
come in afterwards.
"""

import copy
import hashlib
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import trange

from lensq.classifiers.classifier import Classifier
from lensq.classifiers.injection import InjectionOptions, extended, inject, point_sources
from lensq.models.batches import keyed_generator, read_pixels
from lensq.models.memory import keep_freed_memory
from lensq.models.training import Model
from lensq.statistics.guard import LeakageError, require_split
from lensq.survey.images import PIXEL_SCALE, symmetries
from lensq.survey.provenance import code_hash
from lensq.survey.survey import Survey

LABELLED_ON = ("train", "validation", "selection")
"""The splits whose labels may shape the weights."""

PAINTED_SINGLE = 0.5
"""Share of the ordinary objects in a batch that get one injected point source."""


class _Draw:
    """Batches of pixels and answers, each a function of seed and step."""

    def __init__(self, model: Model, survey: Survey, labels: np.ndarray | None, seed: int):
        self.survey, self.seed = survey, seed
        self.train = survey.rows("train")
        self.galaxies = extended(survey, self.train)
        self.templates = point_sources(model, survey, seed=seed)
        self.options = InjectionOptions()
        self.pixel_scale = PIXEL_SCALE * survey.native_pixels
        self.preprocessing = model.preprocessing
        self.known = None if labels is None else [np.flatnonzero(labels == k) for k in (0, 1)]

    def _rows(self, pool: np.ndarray, n: int, generator: torch.Generator) -> np.ndarray:
        return pool[torch.randint(len(pool), (n,), generator=generator).numpy()]

    def injected(self, n: int, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """n // 2 injected lenses; as many ordinary objects, half of them with one injected source."""
        half = n // 2
        single = round(half * PAINTED_SINGLE)
        on_any = round(0.6 * single)
        kinds = [
            ("lens", self._rows(self.galaxies, half, generator)),
            ("single", self._rows(self.galaxies, single - on_any, generator)),
            ("single", self._rows(self.train, on_any, generator)),
            (None, self._rows(self.train, half - single, generator)),
        ]
        images, masks = [], []
        for what, rows in kinds:
            pixels = read_pixels(self.survey, rows)
            if what and len(rows):
                pixels = inject(
                    *pixels, self.templates, what, generator, self.options, pixel_scale=self.pixel_scale
                )
            images.append(pixels[0])
            masks.append(pixels[1])
        return images, masks, (torch.arange(2 * half) < half).float()

    def told(self, n: int, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """n labelled objects, lenses and others equally likely."""
        others, lenses = self.known
        rows = np.concatenate(
            [self._rows(lenses, n // 2, generator), self._rows(others, n - n // 2, generator)]
        )
        images, mask = read_pixels(self.survey, rows)
        return [images], [mask], (torch.arange(n) < n // 2).float()

    def __call__(self, step: int, batch_size: int, share_told: float) -> tuple[Tensor, Tensor]:
        """Network input (B, 1, S, S), each image turned at random, and answers (B,)."""
        generator = keyed_generator(self.seed, "inject", step)
        told = round(share_told * batch_size)
        parts = [self.injected(batch_size - told, generator)] if told < batch_size else []
        parts += [self.told(told, generator)] if told else []
        x = self.preprocessing(
            torch.cat([image for images, _, _ in parts for image in images]),
            torch.cat([mask for _, masks, _ in parts for mask in masks]),
        )
        turn = torch.randint(8, (len(x),), generator=generator)
        answers = torch.cat([part[2] for part in parts])
        return symmetries(x)[turn, torch.arange(len(x))], answers


def finetune(
    model: Model,
    survey: Survey,
    labels: np.ndarray | None = None,
    *,
    out: Path | str,
    start: Classifier | None = None,
    steps: int = 400,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    share_told: float = 1.0,
    seed: int = 0,
    progress: bool = True,
) -> Classifier:
    """Turn a trained variant's encoder into a detector of point sources seen more than once.

    The learning rate rises and falls to nothing once (Smith and Topin 2019). Called again with the same
    model, survey and settings, it reads back what it wrote.

    Args:
        model: a fitted model with "minmax" preprocessing; it is left as it was.
        survey: the survey that it was fitted to.
        labels: (N,) 1 lens, 0 normal, -1 not known or not to be used; None for injected lenses alone.
        out: folder for `model.pt`.
        start: a fine-tuned detector to start from; by default the variant's encoder and a new linear layer.
        steps: optimiser steps.
        batch_size: objects a step.
        learning_rate: the highest of AdamW's.
        share_told: share of each batch drawn from labelled objects, where there are labels; the rest is
            injected.
        seed: of weights, injecting, order and symmetries.
        progress: show a progress bar.

    Returns:
        The detector; its `score` gives log odds.

    Raises:
        LeakageError: a conformal or test object has a label.
        ValueError: there are labels, but not of both classes; or see
            `lensq.classifiers.injection.point_sources`.
    """
    told = 0
    if labels is not None:
        labels = np.asarray(labels, np.int64)
        told = int((labels >= 0).sum())
        foreign = (labels >= 0) & ~np.isin(survey.split, LABELLED_ON)
        if foreign.any():
            raise LeakageError(
                f"{foreign.sum()} objects of conformal or test tiles have a label; set theirs to -1: "
                "np.where(np.isin(survey.split, finetuning.LABELLED_ON), labels, -1)"
            )
        if set(np.unique(labels[labels >= 0])) != {0, 1}:
            raise ValueError("labels of both classes are needed, 1 lens and 0 normal; or none at all")
    settings = {
        "variant": model.vae.config.variant,
        "network": model.vae.config.network,
        "width": model.vae.config.width,
        "size": survey.size,
        "resized": survey.resized,
        "model": model.fingerprint,
        "survey": survey.fingerprint,
        "start": start.settings if start else None,
        "labels_used": told + (start.settings["labels_used"] if start else 0),
        "labels": None if labels is None else hashlib.sha256(labels.tobytes()).hexdigest()[:16],
        "inject": asdict(InjectionOptions()),
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "share_told": share_told if told else 0.0,
        "seed": seed,
        "code": code_hash("classifiers.finetuning"),
    }
    path = Path(out) / "model.pt"
    if held := Classifier.load_made_with(path, settings):
        return held
    if start:
        network = copy.deepcopy(start.network)
    else:
        encoder = copy.deepcopy(model.vae.encoder).cpu()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = nn.Sequential(encoder, nn.Linear(encoder.features, 1))
        network = network.to(memory_format=torch.channels_last)
    history = _train(network, _Draw(model, survey, labels, seed), settings, progress)
    detector = Classifier(network.cpu().eval(), model.preprocessing, history, settings)
    detector.save(path)
    return detector


@keep_freed_memory()
def _train(network: nn.Module, draw: _Draw, settings: dict, progress: bool) -> pd.DataFrame:
    """Train in place; the history has one row for every tenth part of the training."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings["learning_rate"], fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["learning_rate"], total_steps=settings["steps"], pct_start=0.1
    )
    every, history, losses, begun = max(1, settings["steps"] // 10), [], [], time.monotonic()
    for step in trange(settings["steps"], desc="fine-tune", disable=not progress):
        x, answers = draw(step, settings["batch_size"], settings["share_told"])
        loss = F.binary_cross_entropy_with_logits(network(x.to(device))[:, 0], answers.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if (step + 1) % every == 0:
            row = {"step": step + 1, "seconds": time.monotonic() - begun, "train_loss": np.mean(losses)}
            history.append(row)
            losses, begun = [], time.monotonic()
    return pd.DataFrame(history)


def with_residual(
    log_odds: np.ndarray, scores: pd.DataFrame, train: pd.DataFrame, *, residual: str = "central_residual"
) -> np.ndarray:
    """What the encoder says of an image plus what the decoder leaves over, with no weight to choose.

    The logarithm of the residual counts in standard deviations of the train objects, one of which weighs as
    much as one unit of log odds.

    Args:
        log_odds: (N,) of a detector.
        scores: Scores table of the same N objects.
        train: Scores table, rows of the train split.
        residual: column of the residual.

    Raises:
        LeakageError: a row of `train` is of another split.
    """
    require_split(train, "train", purpose="the scale of the residual")
    floor = max(float(np.quantile(train[residual], 0.01)), 1e-12)
    scale, logarithm = (np.log(np.clip(table[residual], floor, None)) for table in (train, scores))
    return np.asarray(log_odds) + ((logarithm - scale.mean()) / scale.std()).to_numpy()


def label_the_top(
    model: Model,
    survey: Survey,
    injected: Classifier,
    answers: np.ndarray,
    *,
    out: Path | str,
    budget: int = 100,
    rounds: int = 2,
    **options,
) -> tuple[Classifier, np.ndarray]:
    """An inspector's hour: label what the detector ranks highest among train objects, and teach it anew.

    Args:
        model: see `finetune`, likewise `survey`, and `options` for its other arguments.
        injected: the detector that no label has touched.
        answers: (N,) what the inspector would say, 1 or 0; -1 is never asked for. Only the answers for the
            objects asked about are looked at.
        out: folder; each round has one of its own in it.
        budget: labels altogether.
        rounds: times that the detector is taught anew, each from `injected`, on as many more labels.

    Returns:
        The detector of the last round, and (N,) the labels that it was given, -1 elsewhere. As long as the
        answers are all the same there is nothing to teach, and the detector is `injected`.
    """
    answers = np.asarray(answers, np.int64)
    pool = survey.rows("train")
    pool = pool[answers[pool] >= 0]
    given, detector = np.full(len(survey), -1), injected
    for number in range(rounds):
        ranks = pool[np.argsort(-detector.score(survey, pool, progress=False), kind="stable")]
        asked = ranks[given[ranks] < 0][: budget * (number + 1) // rounds - budget * number // rounds]
        given[asked] = answers[asked]
        if {0, 1} <= set(given):
            detector = finetune(model, survey, given, out=Path(out) / str(number), start=injected, **options)
    if detector is injected:
        injected.save(Path(out) / "0" / "model.pt")
    for path in Path(out).glob("*/model.pt"):  # of an earlier call with more rounds
        if int(path.parent.name) >= rounds:
            path.unlink()
    return detector, given

"""Fine-tune the encoder of a variational autoencoder: with injected lenses first, with labels where there are
any.

The encoder has learnt from every image of the survey what light looks like; one linear layer on top of it,
and a few hundred steps for both, turn it into a detector. Without labels `lensq.classifiers.injection` trains
it to separate a source seen twice from everything else. Labels, a hundred or all, come in afterwards.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lensq.classifiers.classifier import Classifier, rotated, train
from lensq.classifiers.injection import InjectionOptions, extended, inject, point_sources
from lensq.models.batches import keyed_generator, read_pixels
from lensq.models.training import Model
from lensq.simulate.parameters import INSTRUMENT
from lensq.statistics.guard import LABELLED_ON, LeakageError
from lensq.survey.provenance import code_hash

if TYPE_CHECKING:
    from lensq.survey.survey import Survey

INJECTED_ORDINARY = (0.16, 0.22, 0.12)
"""Shares of the ordinary objects in a batch: a single source in a galaxy, one in any object, an unrelated
pair in a galaxy; the rest are left as they are."""


@dataclass(frozen=True)
class FineTuningOptions:
    """How an encoder is fine-tuned.

    Attributes:
        steps: optimiser steps.
        batch_size: objects a step.
        learning_rate: the highest of AdamW's.
        share_labelled: share of each batch drawn from labelled objects, where there are labels; the rest is
            injected.
        seed: of weights, injection, order and symmetries.
    """

    steps: int = 400
    batch_size: int = 128
    learning_rate: float = 2e-3
    share_labelled: float = 1.0
    seed: int = 0


class _Draw:
    """Batches of pixels and answers, each a function of seed and step."""

    def __init__(self, model: Model, survey: Survey, labels: np.ndarray | None, how: FineTuningOptions):
        self.survey, self.how = survey, how
        self.train = survey.rows("train")
        self.galaxies = extended(survey, self.train)
        self.templates = point_sources(survey, seed=how.seed)
        self.options = injection_options(survey)
        self.preprocessing = model.preprocessing
        self.known = None if labels is None else [np.flatnonzero(labels == k) for k in (0, 1)]

    def _rows(self, pool: np.ndarray, n: int, generator: torch.Generator) -> np.ndarray:
        return pool[torch.randint(len(pool), (n,), generator=generator).numpy()]

    def injected(self, n: int, generator: torch.Generator) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """n // 2 injected lenses; as many ordinary objects, half of them injected with unrelated sources."""
        half = n // 2
        numbers = [half, *(round(half * share) for share in INJECTED_ORDINARY)]
        numbers.append(2 * half - sum(numbers))
        kinds = "lens", "single", "single", "pair", None
        pools = self.galaxies, self.galaxies, self.train, self.galaxies, self.train
        drawn = [self._rows(*pool, generator) for pool in zip(pools, numbers, strict=True)]
        pixels, scale = [], self.survey.pixel_scale
        for what, rows in zip(kinds, drawn, strict=True):
            part = read_pixels(self.survey, rows)
            if what and len(rows):
                part = inject(*part, self.templates, what, generator, self.options, pixel_scale=scale)
            pixels.append(part)
        return pixels, (torch.arange(2 * half) < half).float()

    def labelled(self, n: int, generator: torch.Generator) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """n labelled objects, lenses and others equally likely."""
        others, lenses = self.known
        rows = self._rows(lenses, n // 2, generator), self._rows(others, n - n // 2, generator)
        return [read_pixels(self.survey, np.concatenate(rows))], (torch.arange(n) < n // 2).float()

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Network input (B, C, S, S), each image rotated at random, and answers (B,)."""
        generator = keyed_generator(self.how.seed, "inject", step)
        known = round(self.how.share_labelled * self.how.batch_size)
        injected = self.how.batch_size - known
        parts = [self.injected(injected, generator)] if injected else []
        parts += [self.labelled(known, generator)] if known else []
        images, masks = zip(*(pair for pixels, _ in parts for pair in pixels), strict=True)
        x = self.preprocessing(torch.cat(images), torch.cat(masks))
        return rotated(x, generator), torch.cat([answers for _, answers in parts])


def injection_options(survey: Survey) -> InjectionOptions:
    """What is known of a survey's flux: the zero point if files declare one, the gain if it is simulated."""
    declared = survey.zero_point_from is None or (survey.zero_point_from != "").any()
    gain = INSTRUMENT.gain if survey.truth is not None else None
    return InjectionOptions(gain=gain, relative=not declared, bands=" ".join(survey.bands))


def _checked(labels: np.ndarray | None, survey: Survey) -> np.ndarray | None:
    """Labels as integers, none of them of a tile that calibrates or tests, of both classes."""
    if labels is None:
        return None
    labels = np.asarray(labels, np.int64)
    foreign = (labels >= 0) & ~np.isin(survey.split, LABELLED_ON)
    if foreign.any():
        raise LeakageError(
            f"{foreign.sum()} objects of conformal or test tiles have a label; set theirs to -1: "
            "np.where(np.isin(survey.split, lensq.statistics.guard.LABELLED_ON), labels, -1)"
        )
    if set(np.unique(labels[labels >= 0])) != {0, 1}:
        raise ValueError("labels of both classes are needed, 1 lens and 0 normal; or none at all")
    return labels


def finetune(
    model: Model,
    survey: Survey,
    labels: np.ndarray | None = None,
    *,
    out: Path | str,
    start: Classifier | None = None,
    progress: bool = True,
    **options,
) -> Classifier:
    """Turn a trained variant's encoder into a detector of point sources seen more than once.

    Called again with the same model, survey and settings, it reads back what it wrote.

    Args:
        model: a fitted model; it is left as it was.
        survey: the survey that it was fitted to.
        labels: (N,) 1 lens, 0 normal, -1 not known or not to be used; None for injected lenses alone.
        out: folder for `model.pt`.
        start: a fine-tuned detector to start from; by default the variant's encoder and a new linear layer.
        progress: show a progress bar.
        **options: see `FineTuningOptions`.

    Returns:
        The detector; its `score` gives log odds.

    Raises:
        LeakageError: a conformal or test object has a label.
        ValueError: there are labels, but not of both classes.
    """
    how, labels = FineTuningOptions(**options), _checked(labels, survey)
    if labels is None:
        how = replace(how, share_labelled=0.0)
    settings = _settings(model, survey, labels, start, how)
    path = Path(out) / "model.pt"
    if path.is_file() and (held := Classifier.load(path, settings)):
        return held
    if start:
        network = copy.deepcopy(start.network)
    else:
        encoder = copy.deepcopy(model.vae.encoder).cpu()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(how.seed)
            network = nn.Sequential(encoder, nn.Linear(encoder.features, 1))
        network = network.to(memory_format=torch.channels_last)
    batches = map(_Draw(model, survey, labels, how), range(how.steps))
    recipe: dict[str, Any] = {"steps": how.steps, "every": max(1, how.steps // 10), "warm_up": 0.1}
    history = train(network, batches, learning_rate=how.learning_rate, progress=progress, **recipe)
    detector = Classifier(network, model.preprocessing, history, settings)
    detector.save(path)
    return detector


def _settings(
    model: Model, survey: Survey, labels: np.ndarray | None, start: Classifier | None, how: FineTuningOptions
) -> dict:
    """All that decides the weights."""
    used = 0 if labels is None else int((labels >= 0).sum())
    return asdict(how) | {
        **{name: getattr(model.vae.config, name) for name in ("variant", "network", "width")},
        **survey.as_read,
        "model": model.fingerprint,
        "start": start.settings if start else None,
        "labels_used": used + (start.settings["labels_used"] if start else 0),
        "labels": None if labels is None else hashlib.sha256(labels.tobytes()).hexdigest()[:16],
        "inject": asdict(injection_options(survey)),
        "code": code_hash("classifiers.finetuning"),
    }


def label_the_top(
    model: Model,
    survey: Survey,
    injected: Classifier,
    answers: np.ndarray,
    *,
    out: Path | str,
    budget: int = 100,
    **options,
) -> tuple[Classifier, np.ndarray]:
    """A labeller's hour: label what the detector ranks highest among train objects, and fine-tune it anew.

    Args:
        model: see `finetune`, likewise `survey`, and `options` for its other arguments.
        injected: the detector that no label has touched.
        answers: (N,) what the labeller would say, 1 or 0; -1 is never asked for. Only the answers for the
            objects asked about are looked at.
        out: folder; each of two rounds has one of its own in it. In both the detector is fine-tuned anew from
            `injected`, on half of the labels and on all.
        budget: labels altogether.

    Returns:
        The detector of the last round, and (N,) the labels that it was given, -1 elsewhere. As long as the
        answers are all the same there is nothing to learn, and the detector is `injected`.
    """
    answers = np.asarray(answers, np.int64)
    pool = survey.rows("train")
    pool = pool[answers[pool] >= 0]
    given, detector = np.full(len(survey), -1), injected
    for number, labels in enumerate((budget // 2, budget - budget // 2)):
        ranks = pool[np.argsort(-detector.score(survey, pool, progress=False), kind="stable")]
        asked = ranks[given[ranks] < 0][:labels]
        given[asked] = answers[asked]
        if {0, 1} <= set(given):
            detector = finetune(model, survey, given, out=Path(out) / str(number), start=injected, **options)
    if detector is injected:
        injected.save(Path(out) / "0" / "model.pt")
    return detector, given

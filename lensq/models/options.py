"""How a model is trained: `TrainingOptions`, which `fit` takes as keywords and keeps with the model."""

from dataclasses import dataclass, fields
from typing import Literal, get_args, get_type_hints

import torch


@dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained.

    Attributes:
        seed: Seed of weights, order, augmentation and latent draws.
        epochs: Epochs at most, 1 or more.
        batch_size: Objects a batch, 2 or more.
        learning_rate: Adam's learning rate after the warm-up.
        schedule: "reference" (100 steps of warm-up, then divided by 1.1 at epochs 2 to 28), "constant" or
            "cosine" (warm-up, then down to zero).
        patience: Epochs to wait for a better validation loss; None runs all epochs (and keeps the best).
        gradient_clip: Largest norm of the gradient.
        normalisation: "minmax" per image, or "asinh" with one noise scale for the survey.
        augmentation: Probability that a train image is rotated or mirrored.
        train_on: "all" objects of the train split, labels unseen; "normals" (label 0 only) or "balanced"
            (labels 0 and 1 equally likely, the reference's sampler), which use labels.
        labelled_fraction: Share of each class's labels that a semi-supervised variant sees.
        max_images: Train on that many images at most (and validate on a ninth as many); None takes all.
        precision: "bf16" runs convolutions in bf16 (autocast), "auto" where the hardware multiplies bf16
            (`bf16_pays`).
        devices: As in `pytorch_lightning.Trainer`.
        strategy: As in `pytorch_lightning.Trainer`.
        compile: Compile encoder and decoder with torch.compile, which takes about a minute and pays over
            many epochs on a GPU.

    Raises:
        ValueError: A value is out of range.
    """

    seed: int = 0
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    schedule: Literal["reference", "constant", "cosine"] = "reference"
    patience: int | None = 8
    gradient_clip: float = 1000.0
    normalisation: Literal["minmax", "asinh"] = "minmax"
    augmentation: float = 0.0
    train_on: Literal["all", "normals", "balanced"] = "all"
    labelled_fraction: float = 0.1
    max_images: int | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    devices: int | str | list[int] = 1
    strategy: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in ("schedule", "normalisation", "train_on", "precision"):
            value, allowed = getattr(self, name), get_args(hints[name])
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: take one of {', '.join(map(repr, allowed))}")
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(f"epochs={self.epochs}, batch_size={self.batch_size}: take at least 1 and 2")


TRAINING = frozenset(field.name for field in fields(TrainingOptions))
"""Names of the keywords of `fit` that are no matter of the variant."""


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

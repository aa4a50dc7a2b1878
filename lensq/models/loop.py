"""The training loop: one Lightning module, one callback.

Imported by `fit` alone, inside the function, since Lightning is slow to load.
"""

import logging
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import Strategy
from torch import Tensor

from lensq.models.batches import Batch, Batches, keyed_generator
from lensq.models.memory import keep_freed_memory
from lensq.models.variants import VAE

# Validation takes the objective at its final weights, so that epochs before and after annealing compare.
ANNEALED = 10**9

# Advice that does not apply here, and what Lightning itself is warned of; all else is heard.
_ADVICE = (
    r".*GPU available but not used.*",
    r"Found \d+ module\(s\) in eval mode at the start of training.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*The number of training batches .* is smaller than the logging interval.*",
)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        seed: Keys every random number.
        epochs: Epochs at most.
        learning_rate: Adam's learning rate after the warm-up.
        schedule: "reference", "constant" or "cosine" (see `learning_rate_factor`).
        patience: Epochs without a better validation loss after which training stops; None never stops early.
        gradient_clip: Largest gradient norm.
        precision: "fp32" or "bf16" (autocast; weights and optimiser stay fp32).
        devices: As in `pytorch_lightning.Trainer`.
        strategy: As in `pytorch_lightning.Trainer`.
        compile: Compile encoder and decoder with torch.compile, as CUDA graphs on a GPU.
    """

    seed: int
    epochs: int
    learning_rate: float
    schedule: str
    patience: int | None
    gradient_clip: float
    precision: str
    devices: int | str | list[int]
    strategy: str
    compile: bool = False


class Curves:
    """Means of each term of the loss over an epoch, kept on the device so that no step waits for them."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}

    def add(self, means: dict[str, Tensor], weight: int) -> None:
        """Add the means of a batch that counts as much as this many objects."""
        names = tuple(means)
        values = torch.stack([value.detach().float() for value in means.values()]).double()
        total, count = self._sums.get(names, (torch.zeros_like(values), 0))
        self._sums[names] = total.add_(values, alpha=weight), count + weight

    def close(self, strategy: Strategy) -> dict[str, float]:
        """The means over all batches and processes, by name, sorted; then start anew."""
        totals: dict[str, Tensor] = {}
        for names, (total, count) in self._sums.items():
            for name, value in zip(names, total, strict=True):
                totals[name] = totals.get(name, 0) + torch.stack([value, torch.full_like(value, count)])
        self._sums = {}
        if not totals:
            return {}
        ordered = sorted(totals)
        sums = strategy.reduce(torch.stack([totals[name] for name in ordered]), reduce_op="sum").tolist()
        return {name: total / weight for name, (total, weight) in zip(ordered, sums, strict=True)}


def learning_rate_factor(schedule: str, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Factor on the learning rate at an optimiser step.

    "reference" warms up linearly over 100 steps, then divides by 1.1 at the start of each of the epochs
    2 to 28 (counted from 0); "cosine" warms up likewise and falls along half a cosine to zero.

    Args:
        schedule: "reference", "constant" or "cosine".
        step: Optimiser step, from 0.
        steps_per_epoch: Optimiser steps an epoch.
        epochs: Epochs of the whole training.

    Raises:
        ValueError: The schedule is none of the three.
    """
    warm_up = min(1.0, (step + 1) / 100)
    if schedule == "reference":
        return warm_up * 1.1 ** -min(max(step // steps_per_epoch - 1, 0), 27)
    if schedule == "cosine":
        share = min(1.0, step / max(1, steps_per_epoch * epochs))
        return warm_up * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * share, dtype=torch.float64))))
    if schedule == "constant":
        return 1.0
    raise ValueError(f'schedule={schedule!r}: take "reference", "constant" or "cosine"')


def best_epoch(history: list[dict[str, float]]) -> int:
    """Position of the epoch with the lowest validation loss (without validation, the last epoch)."""
    losses = [row.get("validation_loss") for row in history]
    return len(losses) - 1 if None in losses else min(range(len(losses)), key=losses.__getitem__)


def is_over(history: list[dict[str, float]], recipe: Recipe) -> bool:
    """Whether training has run its epochs, or waited as long as its patience for a better validation loss."""
    if not history or len(history) >= recipe.epochs:
        return bool(history)
    return recipe.patience is not None and len(history) - 1 - best_epoch(history) >= recipe.patience


class Task(pl.LightningModule):
    """A VAE with its batches and optimiser.

    Args:
        vae: The model to train.
        train: Batches of the train split.
        validation: Batches of the validation split, or None.
        recipe: How to train.
    """

    def __init__(self, vae: VAE, train: Batches, validation: Batches | None, recipe: Recipe) -> None:
        super().__init__()
        self.vae = vae
        self.train_batches = train
        self.validation_batches = validation
        self.recipe = recipe
        self.history: list[dict[str, float]] = []
        self.curves = {"train": Curves(), "validation": Curves()}

    def on_train_start(self) -> None:
        self.vae.objective.steps_per_epoch = self.trainer.num_training_batches

    def _shared(self, batches: Batches) -> Batches:
        return replace(
            batches,
            device=self.device,
            epoch=lambda: self.current_epoch,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )

    def train_dataloader(self) -> Batches:
        return self._shared(self.train_batches)

    def val_dataloader(self) -> Batches | list:
        return self._shared(self.validation_batches) if self.validation_batches else []

    def _step(self, batch: Batch, stage: str, step: int, *keys: int) -> Tensor:
        generator = keyed_generator(self.recipe.seed, stage, *keys, device=self.device)
        terms = self.vae(batch.x, batch.mask, generator=generator, labels=batch.labels)
        # A GPU would stand still at every step to be asked whether its loss is finite: see `EpochEnd`.
        measure = self.vae.loss if self.device.type == "cpu" else self.vae.objective.loss
        loss, means = measure(terms, step=step, dataset_size=len(self.train_batches.rows))
        self.curves[stage].add(means | {"loss": loss}, len(batch.x))
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        index = batch_idx * self.trainer.world_size + self.trainer.global_rank
        return self._step(batch, "train", self.global_step, self.current_epoch, index)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # The same latent draws at every epoch: epochs then differ by their weights alone.
        self._step(
            batch, "validation", ANNEALED, batch_idx * self.trainer.world_size + self.trainer.global_rank
        )

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        # Lightning's own clipping refuses fused optimisers under autocast, although bf16 needs no unscaling.
        norm = torch.nn.utils.clip_grad_norm_(self.vae.parameters(), self.recipe.gradient_clip)
        self.curves["train"].add({"gradient_norm": norm}, 1)

    def configure_optimizers(self) -> dict[str, Any]:
        weights = [parameter for parameter in self.vae.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=self.recipe.learning_rate, fused=True)
        steps = len(self.train_dataloader())
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: learning_rate_factor(self.recipe.schedule, step, steps, self.recipe.epochs),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]


class EpochEnd(Callback):
    """After each epoch: a row of curves, the best weights, the checkpoint to resume from, and when to stop.

    Args:
        last: Checkpoint to resume from, written at every epoch.
        best: Weights of the epoch with the lowest validation loss.
    """

    def __init__(self, last: Path, best: Path) -> None:
        self.last, self.best = last, best
        self.begun = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, task: Task) -> None:
        self.begun = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, task: Task) -> None:
        curves = {
            f"{stage}_{name}": value
            for stage, means in task.curves.items()
            for name, value in means.close(trainer.strategy).items()
        }
        if bad := [name for name, value in curves.items() if not math.isfinite(value)]:
            raise FloatingPointError(
                f"{', '.join(bad)} are not finite in epoch {trainer.current_epoch}: look at the "
                "preprocessing of these images, or train with a lower learning rate or in fp32"
            )
        trainer.logger.log_metrics(curves, trainer.global_step)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {
            "epoch": trainer.current_epoch,
            "seconds": time.monotonic() - self.begun,
            "learning_rate": rate,
        }
        task.history.append(row | curves)
        if best_epoch(task.history) == len(task.history) - 1:
            trainer.save_checkpoint(self.best, weights_only=True)
        trainer.save_checkpoint(self.last)
        trainer.should_stop = is_over(task.history, task.recipe)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's advertisements and the advice that does not apply, inside the block only."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning")]
    loggers += [logging.getLogger("pytorch_lightning.utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for advice in _ADVICE:
                warnings.filterwarnings("ignore", message=advice)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _history(checkpoint: Path) -> list[dict[str, float]]:
    """The rows of a checkpoint of any device; its weights are not kept."""
    return torch.load(checkpoint, weights_only=True, map_location="cpu")["history"]


@keep_freed_memory()
def train(task: Task, out: Path, *, progress: bool) -> bool:
    """Train from the start, or from `out/last.ckpt`, and leave the best weights in `task.vae`.

    Args:
        task: What to train; its history and weights are updated.
        out: Folder of `last.ckpt`, `best.ckpt` and `tensorboard/`.
        progress: Show a progress bar.

    Returns:
        Whether this process is the one that writes files (others share its work).
    """
    last, best = out / "last.ckpt", out / "best.ckpt"
    with _quiet():
        trainer = pl.Trainer(
            # "auto" and "gpu" take Apple's MPS where there is one, which has no double precision.
            accelerator="cuda" if torch.cuda.is_available() else "cpu",
            devices=task.recipe.devices,
            strategy=task.recipe.strategy,
            precision="bf16-mixed" if task.recipe.precision == "bf16" else "32-true",
            max_epochs=task.recipe.epochs,
            callbacks=[EpochEnd(last, best)],
            logger=TensorBoardLogger(out, name="tensorboard", version="", default_hp_metric=False),
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress,
            num_sanity_val_steps=0,
            benchmark=True,
        )
        if task.recipe.compile:
            for network in (task.vae.encoder, task.vae.decoder):
                network.compile(mode="reduce-overhead")
        held = _history(last) if last.is_file() else []
        if not is_over(held, task.recipe):
            trainer.fit(task, ckpt_path=last if held else None, weights_only=True)
    chosen = torch.load(best, weights_only=True, map_location="cpu")
    task.history = _history(last)
    task.cpu().load_state_dict(chosen["state_dict"])
    return trainer.is_global_zero

"""The training loop: one Lightning module.

Imported by `fit` alone, inside the function, since Lightning is slow to load.
"""

import logging
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from lensq.models.batches import Batch, Batches, keyed_generator
from lensq.models.memory import keep_freed_memory
from lensq.models.options import TrainingOptions
from lensq.models.training import save_whole
from lensq.models.variants import NOT_FINITE, VAE

# Validation takes the objective at its final weights, so that epochs before and after annealing compare.
ANNEALED = 10**9

# Advice that does not apply here, and what Lightning itself is warned of; all else is heard.
_ADVICE = (
    r".*GPU available but not used.*",
    r"Found \d+ module\(s\) in eval mode at the start of training.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*The number of training batches .* is smaller than the logging interval.*",
)


def learning_rate_factor(schedule: str, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Factor on the learning rate at an optimiser step.

    "reference" warms up linearly over 100 steps, then divides by 1.1 at the start of each of the epochs
    2 to 28 (counted from 0); "cosine" warms up likewise and falls along half a cosine to zero.

    Args:
        schedule: "reference", "constant" or "cosine".
        step: Optimiser step, from 0.
        steps_per_epoch: Optimiser steps an epoch.
        epochs: Epochs of the whole training.
    """
    warm_up = min(1.0, (step + 1) / 100)
    if schedule == "reference":
        return warm_up * 1.1 ** -min(max(step // steps_per_epoch - 1, 0), 27)
    if schedule == "cosine":
        share = min(1.0, step / max(1, steps_per_epoch * epochs))
        return warm_up * 0.5 * (1 + math.cos(math.pi * share))
    return 1.0


def best_epoch(history: list[dict[str, float]]) -> int:
    """Position of the epoch with the lowest validation loss (without validation, the last epoch)."""
    losses = [row.get("validation_loss") for row in history]
    return len(losses) - 1 if None in losses else min(range(len(losses)), key=losses.__getitem__)


def is_over(history: list[dict[str, float]], options: TrainingOptions) -> bool:
    """Whether training has run its epochs, or waited as long as its patience for a better validation loss."""
    if not history or len(history) >= options.epochs:
        return bool(history)
    return options.patience is not None and len(history) - 1 - best_epoch(history) >= options.patience


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning writes to TMPDIR and moves, which is a copy where that is another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, *_: Any, **__: Any) -> None:
        save_whole(checkpoint, Path(path))


class Task(pl.LightningModule):
    """A VAE with its batches and optimiser.

    Args:
        vae: The model to train.
        train: Batches of the train split.
        validation: Batches of the validation split, perhaps none.
        options: How to train.
        settings: Kept in the checkpoint, to know by it whose it is.
        history: One row for each epoch that the checkpoint to go on from has behind it.

    Attributes:
        best: State dict of the VAE at the epoch with the lowest validation loss.
        checkpoint: Where to write after every epoch.
    """

    def __init__(
        self,
        vae: VAE,
        train: Batches,
        validation: Batches,
        options: TrainingOptions,
        settings: dict[str, Any],
        history: list[dict[str, float]],
    ) -> None:
        super().__init__()
        self.vae, self.options, self.settings, self.history = vae, options, settings, history
        self.train_batches, self.validation_batches = train, validation
        self.best: dict[str, Tensor] = {}
        self.checkpoint = Path("last.ckpt")

    def on_train_start(self) -> None:
        self.vae.objective.steps_per_epoch = self.trainer.num_training_batches

    def _shared(self, batches: Batches) -> Batches:
        own = {"rank": self.trainer.global_rank, "world": self.trainer.world_size}
        return replace(batches, device=self.device, epoch=lambda: self.current_epoch, **own)

    def train_dataloader(self) -> Batches:
        return self._shared(self.train_batches)

    def val_dataloader(self) -> Batches | list:
        return self._shared(self.validation_batches) if len(self.validation_batches.rows) else []

    def _step(self, batch: Batch, batch_idx: int, stage: str, step: int, *epoch: int) -> Tensor:
        index = batch_idx * self.trainer.world_size + self.trainer.global_rank
        generator = keyed_generator(self.options.seed, stage, *epoch, index, device=self.device)
        terms = self.vae(batch.x, batch.mask, generator=generator, labels=batch.labels)
        # Whether it is finite is seen in `on_train_epoch_end`: a GPU would stand still at every step to tell.
        dataset_size = len(self.train_batches.rows)
        loss, means = self.vae.objective.loss(terms, step=step, dataset_size=dataset_size)
        self._record(stage, means | {"loss": loss}, len(batch.x))
        return loss

    def _record(self, stage: str, means: dict[str, Tensor], weight: int) -> None:
        """Let Lightning average over the epoch, in double precision: 1e9 nats an epoch have more digits."""
        named = {f"{stage}_{name}": value.detach().double() for name, value in means.items()}
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=weight, sync_dist=True)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, batch_idx, "train", self.global_step, self.current_epoch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # The same latent draws at every epoch: epochs then differ by their weights alone.
        self._step(batch, batch_idx, "validation", ANNEALED)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        # Lightning's own clipping refuses fused optimisers under autocast, although bf16 needs no unscaling.
        norm = torch.nn.utils.clip_grad_norm_(self.vae.parameters(), self.options.gradient_clip)
        self._record("train", {"gradient_norm": norm}, 1)

    def configure_optimizers(self) -> dict[str, Any]:
        options, steps = self.options, len(self.train_dataloader())
        optimizer = torch.optim.Adam(self.vae.parameters(), lr=options.learning_rate, fused=True)
        factor = partial(learning_rate_factor, options.schedule, steps_per_epoch=steps, epochs=options.epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"history": self.history, "best": self.best, "settings": self.settings}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.best = checkpoint["best"]

    def on_train_epoch_start(self) -> None:
        self.begun = time.monotonic()

    def on_train_epoch_end(self) -> None:
        """A row of history, the best weights, the checkpoint to resume from, and whether to stop."""
        trainer = self.trainer
        curves = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        if bad := [name for name, value in curves.items() if not math.isfinite(value)]:
            raise FloatingPointError(f"epoch {trainer.current_epoch}: {' or '.join(bad)} {NOT_FINITE}")
        row = {"epoch": trainer.current_epoch, "seconds": time.monotonic() - self.begun}
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        self.history.append(row | curves)
        if best_epoch(self.history) == len(self.history) - 1:
            self.best = {name: value.clone() for name, value in self.vae.state_dict().items()}
        trainer.save_checkpoint(self.checkpoint)
        trainer.should_stop = is_over(self.history, self.options)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence advertisements, which Lightning logs, and advice that does not apply, inside the block only."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="|".join(_ADVICE))
            yield
    finally:
        logging.disable(before)


@keep_freed_memory()
def train(task: Task, out: Path, *, progress: bool) -> bool:
    """Train from the start, or from `out/last.ckpt`, and leave the best weights in `task.vae`.

    Args:
        task: What to train; its history and weights are updated.
        out: Folder of `last.ckpt` and `tensorboard/`.
        progress: Show a progress bar.

    Returns:
        Whether this process is the one that writes files (others share its work).
    """
    options, last = task.options, out / "last.ckpt"
    task.checkpoint = last
    with _quiet():
        trainer = pl.Trainer(
            # "auto" and "gpu" take Apple's MPS where there is one, which has no double precision.
            accelerator="cuda" if torch.cuda.is_available() else "cpu",
            devices=options.devices,
            strategy=options.strategy,
            precision="bf16-mixed" if options.precision == "bf16" else "32-true",
            max_epochs=options.epochs,
            plugins=[WholeCheckpoints()],
            logger=TensorBoardLogger(out, name="tensorboard", version="", default_hp_metric=False),
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress,
            # Drawn at each step, papermill would follow it with 3% of a core.
            callbacks=[TQDMProgressBar(refresh_rate=10)] if progress else [],
            num_sanity_val_steps=0,
            benchmark=True,
        )
        if not task.history and trainer.is_global_zero:
            for events in (out / "tensorboard").glob("events.out.tfevents.*"):
                events.unlink()
        if options.compile:
            for network in (task.vae.encoder, task.vae.decoder):
                network.compile(mode="reduce-overhead")
        if not is_over(task.history, options):
            trainer.fit(task, ckpt_path=last if task.history else None, weights_only=True)
    held = torch.load(last, weights_only=True, map_location="cpu")
    task.history = held["history"]
    task.cpu().vae.load_state_dict(held["best"])
    return trainer.is_global_zero

"""Batches of a survey as tensors, from the memory map, with randomness keyed by seed, epoch and batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lensq.survey.images import Preprocessing, apply_symmetries, channels, draw_symmetries, noise_level

if TYPE_CHECKING:
    from lensq.survey.survey import Survey


SHARE_OF_MEMORY = 0.3
"""Share of a GPU's free memory that images may take for good."""


OFF = 3.0
"""Factor between two measures of noise beyond which one is wrong. Resampling leaves less scatter than the
variance says (Fruchter and Hook 2002, PASP 114, 144), but not so much less."""


class Batch(NamedTuple):
    """One batch on its device.

    Attributes:
        x: (B, C, S, S) preprocessed images, 0 where masked.
        mask: (B, C, S, S) bool, True where a pixel is real.
        labels: (B,) int64, the labels that training may see: 1 anomaly, 0 ordinary, -1 hidden or unknown.
    """

    x: Tensor
    mask: Tensor
    labels: Tensor


def keyed_generator(seed: int, *keys: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator that depends on the seed and the keys alone, so that a draw can be repeated out of order.

    Args:
        seed: The seed of the whole run.
        keys: What is drawn, and where: `("order", epoch)`, `("latent", epoch, batch)`.
        device: Where the random numbers are wanted.
    """
    digest = hashlib.sha256(repr((int(seed), *keys)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:4], "big"))


def read_pixels(
    survey: Survey, rows: np.ndarray, device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor]:
    """Copy cutouts out of the packed store.

    Args:
        survey: The survey.
        rows: (B,) row indices.
        device: Where the tensors are wanted.

    Returns:
        Images float32 and mask bool, (B, S, S) or (B, C, S, S) as the survey has them.

    Raises:
        ValueError: A cutout has no valid pixel; the names are given.
    """
    images, mask = torch.from_numpy(survey.images[rows]), torch.from_numpy(survey.mask[rows])
    empty = ~mask.flatten(1).any(1)
    if empty.any():
        names = ", ".join(map(str, survey.names[rows[empty.numpy()]][:5]))
        raise ValueError(
            f"{int(empty.sum())} cutouts have no valid pixel ({names}); the reader quarantines such files, "
            "so the packed store is damaged: delete it and read the survey again"
        )
    return images.to(device), mask.to(device)


@contextmanager
def workers(device: torch.device) -> Iterator[Callable]:
    """A `map` that keeps its order and works ahead of its reader.

    On a CPU it runs as many batches at once as torch has threads, each on one thread. That beats torch's
    threads inside a batch, which wait for one another at every layer: by a fifth on an idle machine, several
    times on a busy one. On a GPU a few threads read batches while another is scored, without TF32, cuDNN's
    default, which would round nearly like bf16 and make scores depend on the batch.
    """
    threads, on_cpu = torch.get_num_threads(), device.type == "cpu"
    settings = {"initializer": torch.set_num_threads, "initargs": (1,)} if on_cpu else {}
    try:
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with exact, ThreadPoolExecutor(threads if on_cpu else 4, **settings) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)


def sky_noise(survey: Survey, rows: np.ndarray) -> Tensor:
    """Standard deviation of the sky a pixel: by the files' variance, else as `noise_level` estimates it.

    A variance that is off from the estimate by more than a factor of `OFF` is taken for a placeholder.

    Args:
        survey: the survey.
        rows: (B,) row indices.

    Returns:
        (B,), or (B, C) of several bands; NaN where a band is masked.
    """
    parts = np.array_split(rows, max(1, -(-len(rows) // 512)))
    noise = torch.cat([noise_level(*read_pixels(survey, part)) for part in parts])
    if noise.dim() == 2:
        noise[~torch.from_numpy(survey.mask[rows].any((2, 3)))] = torch.nan
    if survey.noise is None:
        return noise
    declared = torch.from_numpy(survey.noise[rows]).float()
    agrees = (declared < OFF * noise) & (noise < OFF * declared)
    return torch.where(agrees, declared, noise)


def reveal_labels(labels: np.ndarray, fraction: float, generator: torch.Generator) -> np.ndarray:
    """Keep the labels of a random share of each class and hide the rest.

    Args:
        labels: (n,) labels, -1 where unlabelled.
        fraction: Share kept, 0 to 1, rounded up, so that a positive share shows every class.
        generator: Source of the choice.

    Returns:
        (n,), -1 where hidden.

    Raises:
        ValueError: The fraction lies outside 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"labelled_fraction={fraction} must lie between 0 and 1")
    shown = np.full_like(labels, -1)
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        kept = torch.randperm(len(rows), generator=generator)[: int(np.ceil(fraction * len(rows)))]
        shown[rows[kept.numpy()]] = label
    return shown


@dataclass
class Batches:
    """An iterable over batches of some rows of a survey; every iteration of one epoch gives the same batches.

    Processes wait for one another at every batch, so that each gets equally many: in place of a batch for
    which no rows are left, a process gets the first row, which another has too.

    Attributes:
        survey: The survey; only `images`, `mask` and `names` are read.
        rows: (n,) row indices.
        preprocessing: Turns flux into what a network sees.
        batch_size: Objects a batch; several processes take whole batches in turn.
        labels: (n,) labels that training may see, -1 elsewhere; None shows none.
        seed: Keys all random numbers together with the epoch and the batch's index.
        shuffle: Draw a new order each epoch and drop the last, incomplete batch.
        anomaly: (n,) bool; if given, draw with replacement, anomalies and the rest equally likely.
        augmentation: Probability that an image is rotated or mirrored.
        device: Where the tensors are wanted.
        resident: Keep all preprocessed images on the device; None does so on a GPU with memory to spare.
        epoch: Gives the current epoch.
        rank: This process's number.
        world: Number of processes that share the batches.
    """

    survey: Survey
    rows: np.ndarray
    preprocessing: Preprocessing
    batch_size: int
    labels: np.ndarray | None = None
    seed: int = 0
    shuffle: bool = False
    anomaly: np.ndarray | None = None
    augmentation: float = 0.0
    device: str | torch.device = "cpu"
    resident: bool | None = None
    epoch: Callable[[], int] = int
    rank: int = 0
    world: int = 1

    def __post_init__(self):
        if self.anomaly is not None and (self.anomaly.all() or not self.anomaly.any()):
            raise ValueError('train_on="balanced" needs both labels among train objects; else take "all"')

    def __len__(self) -> int:
        """Batches of this process in one epoch."""
        if self.shuffle:
            return max(1, len(self.rows) // self.size // self.world)
        return -(-len(self.rows) // (self.size * self.world))

    @property
    def size(self) -> int:
        """Objects in a batch: `batch_size`, or fewer where each process could not get a whole one."""
        share = len(self.rows) // self.world if self.shuffle else -(-len(self.rows) // self.world)
        return min(self.batch_size, max(share, 1))

    def positions(self, epoch: int) -> np.ndarray:
        """(n,) positions in `rows` in the order of this epoch."""
        n = len(self.rows)
        if not self.shuffle:
            return np.arange(n)
        generator = keyed_generator(self.seed, "order", epoch)
        if self.anomaly is None:
            return torch.randperm(n, generator=generator).numpy()
        pools = [torch.from_numpy(np.flatnonzero(pool)) for pool in (self.anomaly, ~self.anomaly)]
        drawn = [pool[torch.randint(len(pool), (n,), generator=generator)] for pool in pools]
        return torch.where(torch.rand(n, generator=generator) < 0.5, *drawn).numpy()

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch()
        positions = self.positions(epoch)
        plan, operations = [], []
        for step in range(len(self)):
            index = step * self.world + self.rank
            chosen = positions[index * self.size : (index + 1) * self.size]
            # Sorted within the batch, so that a store larger than memory is read forwards.
            plan.append(np.sort(chosen if len(chosen) else positions[:1]))
            if self.augmentation:
                generator = keyed_generator(self.seed, "augmentation", epoch, index)
                operations.append(draw_symmetries(len(plan[-1]), self.augmentation, generator))
        # The whole epoch's numbers go to the device at once: a copy a batch would make it wait.
        ends = np.cumsum([len(chosen) for chosen in plan]).tolist()
        order = torch.from_numpy(np.concatenate(plan))
        labels = torch.full_like(order, -1)
        if self.labels is not None:
            labels = torch.from_numpy(self.labels[order.numpy()].astype(np.int64))
        order, labels = order.to(self.device), labels.to(self.device)
        operations = torch.cat(operations).to(self.device) if operations else None
        for chosen, end in zip(plan, ends, strict=True):
            part = slice(end - len(chosen), end)
            if self._images is None:
                x, mask = self._preprocessed(self.rows[chosen])
            else:
                x, mask = (values[order[part]] for values in self._images)
            if operations is not None:
                x, mask = (apply_symmetries(values, operations[part]) for values in (x, mask))
            yield Batch(x, mask, labels[part])

    def _preprocessed(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        images, mask = read_pixels(self.survey, rows, self.device)
        return self.preprocessing(images, mask), channels(mask)

    @cached_property
    def _images(self) -> tuple[Tensor, Tensor] | None:
        """All of the images on the device, if they are to stay there."""
        resident = self.resident
        if resident is None and torch.device(self.device).type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            resident = 5 * len(self.rows) * self.survey.images[0].size < SHARE_OF_MEMORY * free
        if not resident:
            return None
        parts = np.array_split(self.rows, -(-len(self.rows) // 4096))
        return tuple(torch.cat(values) for values in zip(*map(self._preprocessed, parts), strict=True))

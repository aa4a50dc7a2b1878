"""The network alone: how fast all would be if reading, objective, optimiser and writing took no time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lensq.models.memory import keep_freed_memory
from lensq.models.networks import fold_normalisation
from lensq.models.variants import VAE

STEPS, ROUNDS = 8, 4


def training_alone(vae: VAE, images: Tensor) -> dict[str, float]:
    """Images a second, as `rates`, of forward and backward passes as `lensq.fit` makes them."""
    vae.train()
    mask = torch.ones_like(images, dtype=torch.bool)
    unlabelled = torch.full((len(images),), -1)

    def step() -> None:
        terms = vae(images, mask, generator=torch.Generator().manual_seed(0), labels=unlabelled)
        vae.objective.loss(terms, step=0, dataset_size=len(images))[0].backward()
        vae.zero_grad()

    with keep_freed_memory():
        return rates(step, len(images), workers=1)


def scoring_alone(vae: VAE, images: Tensor, workers: int) -> dict[str, float]:
    """Images a second, as `rates`, through encoder and decoder as `lensq.score` calls them."""
    vae = fold_normalisation(vae.eval())
    images = images.contiguous(memory_format=torch.channels_last)
    z = vae.reference[0][: len(images)].repeat(vae.config.options.get("clusters", 1), 1)

    @torch.inference_mode()
    def step() -> None:
        vae.encoder(images)
        vae.decoder(z)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return rates(step, len(images), workers=workers)
    finally:
        torch.set_num_threads(threads)


def rates(step: Callable[[], None], images: int, *, workers: int) -> dict[str, float]:
    """Images a second of a step that takes so many, in the best round, and of its convolutions alone.

    Args:
        step: what to time.
        images: that a step takes.
        workers: threads that take steps side by side; 1 is this one, with as many of torch's as it has.
    """
    step()
    seconds = []
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        # Freed memory is kept for the main thread alone, where training runs.
        run = map if workers == 1 else pool.map
        for _ in range(ROUNDS):
            start = time.perf_counter()
            list(run(lambda _: step(), range(STEPS * workers)))
            seconds.append(time.perf_counter() - start)
    rate = STEPS * workers * images / min(seconds)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(STEPS):
            step()
    took = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    convolving = sum(seconds for name, seconds in took.items() if "convolution" in name)
    return {"network alone": rate, "convolutions alone": rate * sum(took.values()) / convolving}

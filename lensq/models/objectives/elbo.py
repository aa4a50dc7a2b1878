"""The evidence lower bound of a variational autoencoder with a standard normal prior.

Kingma & Welling 2014 (arXiv 1312.6114), with a weight on the KL divergence (Higgins et al. 2017), its
linear annealing (Bowman et al. 2016).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

LOGVAR_RANGE = (-20.0, 20.0)

Terms = dict[str, Tensor]
"""Per-object terms of a batch, or means over it, by name."""


@dataclass(frozen=True)
class Batch:
    """What an objective sees of a batch of B objects.

    Attributes:
        images: preprocessed images (B, C, S, S), 0 where masked.
        mask: (B, C, S, S) bool, True for real pixels.
        features: the encoder's output (B, F).
        reconstruct: latent vectors (B, D) or (B, K, D) to reconstructions (B, [K,] C, S, S) and their
            negative log likelihoods (B,) or (B, K).
        generator: source of the latent noise, or None for the posterior mean.
        labels: (B,) integers, -1 where unlabelled, or None.
        reference: posterior means and log variances (n, D) of the stored sample of training objects, or None.
    """

    images: Tensor
    mask: Tensor
    features: Tensor
    reconstruct: Callable[[Tensor], tuple[Tensor, Tensor]]
    generator: torch.Generator | None = None
    labels: Tensor | None = None
    reference: tuple[Tensor, Tensor] | None = None


def gaussian_kl(
    mu: Tensor, logvar: Tensor, prior_mu: Tensor | float = 0.0, prior_logvar: Tensor | float = 0.0
) -> Tensor:
    """KL divergence between diagonal Gaussians, per dimension, in nats.

    Args:
        mu, logvar: mean and log variance of the posterior, any shape.
        prior_mu, prior_logvar: of the prior, broadcast against the posterior; standard normal by default.

    Returns:
        The divergence in each dimension, in the broadcast shape (Kingma & Welling 2014, appendix B).
    """
    gap = logvar - prior_logvar
    # A number stays a number: as a tensor it would have to be copied to a GPU, which waits for the copy.
    precision = torch.exp(-prior_logvar) if isinstance(prior_logvar, Tensor) else math.exp(-prior_logvar)
    return 0.5 * (gap.exp() + (mu - prior_mu).square() * precision - 1 - gap)


def sample_normal(mu: Tensor, logvar: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw z = mu + exp(logvar / 2) noise; without a generator z is mu itself.

    The noise is drawn on the generator's device and moved, so a CPU generator gives the same draw everywhere.
    """
    if generator is None:
        return mu
    noise = torch.randn(mu.shape, generator=generator, device=generator.device, dtype=mu.dtype)
    return mu + torch.exp(0.5 * logvar) * noise.to(mu.device)


def annealing(step: int, steps: int) -> float:
    """Weight that rises linearly from 0 at step 0 to 1 at step `steps`; always 1 if `steps` is 0."""
    return 1.0 if steps <= 0 else min(1.0, step / steps)


class GaussianHead(nn.Module):
    """Linear layer to the mean and the log variance of a diagonal Gaussian, always in single precision.

    The log variance is kept within -20 and 20, so that no image can overflow what needs its exponential.
    """

    def __init__(self, features: int, latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * latent)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (..., F) to mu and logvar (..., D)."""
        with torch.autocast(features.device.type, enabled=False):
            mu, logvar = self.linear(features.float()).chunk(2, dim=-1)
        return mu, logvar.clamp(*LOGVAR_RANGE)


@dataclass(frozen=True)
class ElboOptions:
    """Options of `Elbo`.

    Attributes:
        beta: weight of the KL divergence; 1 is the evidence lower bound.
        annealing_steps: training steps over which the weight rises from 0.
    """

    beta: float = 1.0
    annealing_steps: int = 0


class Elbo(nn.Module):
    """Negative evidence lower bound: reconstruction plus KL divergence.

    Args:
        features: length F of the encoder's output.
        latent: length D of the latent vector.
        options: see `Options`.

    Attributes:
        steps_per_epoch: optimiser steps an epoch, set by the training loop; None takes the number of
            objects over that in a batch.
    """

    Options: ClassVar[type] = ElboOptions
    extras: ClassVar[tuple[str, ...]] = ()
    uses_labels: ClassVar[bool] = False
    needs_preparation: ClassVar[bool] = False
    steps_per_epoch: int | None = None

    def __init__(self, features: int, latent: int, options: ElboOptions) -> None:
        super().__init__()
        self.options: Any = options  # of the class `Options` of the objective
        self.posterior = GaussianHead(features, latent)

    def forward(self, batch: Batch) -> Terms:
        """Per-object terms of a batch.

        Returns:
            "reconstruction" (B,), "kl" (B, D), "mu", "logvar" and "z" (B, D), "mean" (B, C, S, S), and each
            of `extras` (B,). Without a generator z = mu: the KL divergence is exact as ever, the
            reconstruction is the negative log likelihood at the posterior mean and not its expectation.
        """
        mu, logvar = self.posterior(batch.features)
        z = sample_normal(mu, logvar, batch.generator)
        mean, nll = batch.reconstruct(z)
        kl = gaussian_kl(mu, logvar)
        return {"reconstruction": nll, "kl": kl, "mu": mu, "logvar": logvar, "z": z, "mean": mean}

    def loss(self, terms: Terms, *, step: int, dataset_size: int) -> tuple[Tensor, Terms]:
        """Loss of a batch and the means that make its curves.

        Args:
            terms: what `forward` returned.
            step: optimiser steps taken so far, for annealing.
            dataset_size: number of training objects N.

        Returns:
            The scalar to minimise, and batch means by name (the KL divergence summed over dimensions).
        """
        weight = self.options.beta * annealing(step, self.options.annealing_steps)
        curves = {"reconstruction": terms["reconstruction"].mean(), "kl": terms["kl"].sum(1).mean()}
        return curves["reconstruction"] + weight * curves["kl"], curves

    def prepare(self, terms: Terms) -> None:
        """Settle buffers before the first step, from "mu" and "logvar" (n, D) of training objects."""

    def finish(self, terms: Terms) -> None:
        """Settle buffers after training, from "mu" and "logvar" (n, D) of the reference sample."""

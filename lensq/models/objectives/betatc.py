"""The beta-TC objective: the KL divergence split in three, and each part weighted.

Chen et al. 2018, "Isolating sources of disentanglement" (arXiv 1802.04942), equation 2:

    E_x KL(q(z|x) || p(z)) = MI + TC + dimension-wise KL
    MI  = E log q(z|x) - log q(z)
    TC  = E log q(z) - sum_d log q(z_d)
    DWKL = E sum_d log q(z_d) - log p(z_d)

The aggregate posterior q(z) is a mixture of N Gaussians, one an object of the training set. In training
it is estimated from the minibatch; in scoring from a fixed reference sample, so that the score of an object
depends on this object and the model alone.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lensq.models.objectives.elbo import Batch, Elbo, ElboOptions, Terms, annealing

# Floats in one block of pairwise log densities: 2 MB, near a core's cache; much more on a GPU, for which a
# block is one launch of a kernel.
CELLS, CELLS_ON_A_GPU = 2**19, 2**26


def log_normal(z: Tensor, mu: Tensor | float = 0.0, logvar: Tensor | float = 0.0) -> Tensor:
    """Log density of z under independent Gaussians, per dimension, broadcast, in nats."""
    precision = torch.exp(-logvar) if isinstance(logvar, Tensor) else math.exp(-logvar)
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mu).square() * precision)


def minibatch_log_weights(
    batch_size: int, dataset_size: int, sampling: str, device: torch.device | None = None
) -> Tensor:
    """Log importance weights w_ij with which q(z_i | x_j) enters the estimate of q(z_i).

    "weighted" (minibatch weighted sampling, equation S3): 1 / (N M) for every pair of a batch of M. Its
    density is too low by up to a factor N, the same for all objects to first order; its gradient is useful.

    "stratified" (minibatch stratified sampling, appendix C.2): 1 / N for the object itself, and the share
    (N - 1) / N of all others spread over the M - 1 others in the batch. This estimate of the density has no
    bias. Chen et al. give one of the others a weight of its own; averaged over the order of the batch that is
    the even spread used here, which does not depend on the order and is exact once M = N.

    Args:
        batch_size: objects M in the batch.
        dataset_size: objects N in the training set, at least M.
        sampling: "weighted" or "stratified".
        device: where they are wanted.

    Returns:
        (M, M), row i for the object whose latent vector is looked at.

    Raises:
        ValueError: for another kind of sampling.
    """
    if sampling == "weighted":
        return torch.full((batch_size, batch_size), -math.log(batch_size * dataset_size), device=device)
    if sampling != "stratified":
        raise ValueError(f'sampling={sampling!r} is unknown; choose "weighted" or "stratified"')
    others = (dataset_size - 1) / (dataset_size * max(batch_size - 1, 1))
    weights = torch.full((batch_size, batch_size), others, device=device)
    return weights.fill_diagonal_(1 / dataset_size).log()


def _logsumexp(values: Tensor) -> Tensor:
    """Over dimension 1; exponentials below e^-80 of the largest, slow as denormal numbers, count as that."""
    lowest = values.detach().amax(1, keepdim=True) - 80
    return torch.logsumexp(torch.maximum(values, lowest), 1)


def aggregate_posterior(z: Tensor, mu: Tensor, logvar: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Log density of latent vectors under a weighted mixture of Gaussians, jointly and per dimension.

    Works through the mixture's components in blocks of a few MB.

    Args:
        z: latent vectors (B, D).
        mu, logvar: components (M, D).
        log_weights: (B, M), or (1, M) for the same weights in every row.

    Returns:
        log q(z) (B,) and log q(z_d) (B, D).
    """
    block = max(1, (CELLS if z.device.type == "cpu" else CELLS_ON_A_GPU) // z.numel())
    joint, single = [], []
    for start in range(0, len(mu), block):
        part = slice(start, start + block)
        pairs = log_normal(z.unsqueeze(1), mu[part], logvar[part])  # (B, m, D)
        weights = log_weights[:, part]
        joint.append(_logsumexp(pairs.sum(2) + weights))
        single.append(_logsumexp(pairs + weights.unsqueeze(2)))
    return torch.logsumexp(torch.stack(joint), 0), torch.logsumexp(torch.stack(single), 0)


def decompose(
    z: Tensor, mu: Tensor, logvar: Tensor, log_qz: Tensor, log_qzd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mutual information, total correlation and dimension-wise KL of each object, in nats.

    Args:
        z: latent vectors (B, D).
        mu, logvar: of each object's own posterior (B, D).
        log_qz, log_qzd: what `aggregate_posterior` returned.

    Returns:
        Three times (B,), each the integrand at z; their means over z ~ q(z) are the information terms.
    """
    sum_qzd = log_qzd.sum(1)
    log_qzx, log_pz = log_normal(z, mu, logvar).sum(1), log_normal(z).sum(1)
    return log_qzx - log_qz, log_qz - sum_qzd, sum_qzd - log_pz


@dataclass(frozen=True)
class BetaTCOptions(ElboOptions):
    """Options of `BetaTC`.

    Attributes:
        beta: weight of the total correlation.
        annealing_steps: training steps over which the dimension-wise KL divergence's weight rises from 0.
        mutual_information_weight: weight of the mutual information.
        dimension_wise_weight: weight of the dimension-wise KL divergence.
        sampling: "stratified" or "weighted", see `minibatch_log_weights`.
    """

    beta: float = 2.0
    annealing_steps: int = 200
    mutual_information_weight: float = 1.0
    dimension_wise_weight: float = 1.0
    sampling: str = "stratified"


class BetaTC(Elbo):
    """Reconstruction + weighted mutual information, total correlation and dimension-wise KL divergence."""

    Options: ClassVar[type] = BetaTCOptions
    extras: ClassVar[tuple[str, ...]] = ("mutual_information", "total_correlation", "dimension_wise_kl")

    def __init__(self, features: int, latent: int, options: BetaTCOptions) -> None:
        super().__init__(features, latent, options)
        minibatch_log_weights(2, 2, options.sampling)

    def forward(self, batch: Batch) -> Terms:
        """As `Elbo.forward`; in evaluation, with a reference sample, also the three terms per object (B,).

        With z = mu they are the integrands at the posterior mean: how much the object's own posterior stands
        out of the aggregate there, how dependent the dimensions are, how far each is from the prior.
        """
        terms = super().forward(batch)
        if not self.training and batch.reference is not None:
            mu, logvar = batch.reference
            even = torch.full((1, len(mu)), -math.log(len(mu)), device=mu.device)
            aggregate = aggregate_posterior(terms["z"], mu, logvar, even)
            parts = decompose(terms["z"], terms["mu"], terms["logvar"], *aggregate)
            terms |= zip(self.extras, parts, strict=True)
        return terms

    def loss(self, terms: Terms, *, step: int, dataset_size: int) -> tuple[Tensor, Terms]:
        """As `Elbo.loss`; the aggregate posterior is estimated from the minibatch, in evaluation too."""
        options = self.options
        z, mu, logvar = terms["z"], terms["mu"], terms["logvar"]
        log_weights = minibatch_log_weights(len(z), max(dataset_size, len(z)), options.sampling, z.device)
        parts = decompose(z, mu, logvar, *aggregate_posterior(z, mu, logvar, log_weights))
        curves = {"reconstruction": terms["reconstruction"].mean(), "kl": terms["kl"].sum(1).mean()}
        curves |= {name: part.mean() for name, part in zip(self.extras, parts, strict=True)}
        weight = options.dimension_wise_weight * annealing(step, options.annealing_steps)
        loss = curves["reconstruction"] + options.mutual_information_weight * curves["mutual_information"]
        loss = loss + options.beta * curves["total_correlation"] + weight * curves["dimension_wise_kl"]
        return loss, curves

"""A hypersphere in latent space, described by deep support vectors with a soft boundary.

Ruff et al. 2018, "Deep one-class classification", equation 3; joined with a variational autoencoder by
Wang et al. The centre is fixed before training; the radius is the 1 - nu quantile of the distances.

The published loss of an object is its sum of squares + w KL + S, with w = 0.005 and S the hypersphere term.
Divided by w that is 200 times the sum of squares, which is this package's likelihood with a noise scale of
sqrt(w / 2) = 0.05, + KL + S / w. So `svdd_weight` = 1 / w = 200 is the published weight, in nats. It is
heavy: the cheapest way to a small sphere is to shrink means and spreads of all posteriors alike, which costs
D log(1 / r) nats of KL divergence for a factor r. The default, 1, leaves the latent space its scale.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lensq.models.objectives.elbo import Batch, Elbo, ElboOptions, Terms


def hypersphere_centre(mu: Tensor, margin: float = 0.1) -> Tensor:
    """Mean of latent vectors (n, D), coordinates nearer to 0 than `margin` moved out to it, (D,).

    A zero coordinate could be met by zero weights, whatever the image (Ruff et al. 2018, section 3.3).
    """
    centre = mu.mean(0)
    return torch.where(centre.abs() < margin, torch.where(centre < 0, -margin, margin), centre)


def radius_squared(squares: Tensor, nu: float) -> Tensor:
    """The R^2 that minimises `soft_boundary`: the 1 - nu quantile of squared distances (n,), a scalar."""
    return torch.quantile(squares, 1 - nu)


def soft_boundary(squares: Tensor, radius2: Tensor, nu: float) -> Tensor:
    """R^2 + mean(max(0, d^2 - R^2)) / nu of squared distances (n,), a scalar (Ruff et al., equation 3)."""
    return radius2 + (squares - radius2).clamp(min=0).mean() / nu


@dataclass(frozen=True)
class SVDDOptions(ElboOptions):
    """Options of `SVDD`.

    Attributes:
        nu: share of training objects that may lie outside the hypersphere.
        svdd_weight: weight of the hypersphere term, nats per squared latent unit; 200 as published.
        svdd_from_epoch: epoch, from 0, at which the hypersphere term sets in.
        radius_momentum: share of a batch's quantile in the running squared radius.
        collapse_floor: smallest standard deviation of the reference sample's distances, as a share of
            their mean, that is not called a collapse.
    """

    nu: float = 0.1
    svdd_weight: float = 1.0
    svdd_from_epoch: float = 2.0
    radius_momentum: float = 0.1
    collapse_floor: float = 1e-5


class SVDD(Elbo):
    """Evidence lower bound and a hypersphere around the posterior means.

    Attributes:
        centre: (D,), set once by `prepare`.
        radius2: squared radius, a scalar; follows the batches in training, then the reference sample's.
    """

    Options: ClassVar[type] = SVDDOptions
    extras: ClassVar[tuple[str, ...]] = ("svdd_distance",)
    needs_preparation: ClassVar[bool] = True

    def __init__(self, features: int, latent: int, options: SVDDOptions) -> None:
        super().__init__(features, latent, options)
        if not 0 < options.nu < 1:
            raise ValueError(f"nu={options.nu} must lie between 0 and 1")
        self.register_buffer("centre", torch.zeros(latent))
        self.register_buffer("radius2", torch.tensor(-1.0))

    def forward(self, batch: Batch) -> Terms:
        """As `Elbo.forward`, and "svdd_distance" (B,), from the centre to the posterior mean, always."""
        terms = super().forward(batch)
        squares = (terms["mu"] - self.centre).square().sum(1)
        return {**terms, "svdd_distance": torch.sqrt(squares + 1e-12)}

    def loss(self, terms: Terms, *, step: int, dataset_size: int) -> tuple[Tensor, Terms]:
        """As `Elbo.loss`, with the hypersphere term; in training mode the radius follows the batch.

        Raises:
            RuntimeError: if the centre was never set.
        """
        options = self.options
        if not self.centre.any():
            raise RuntimeError("the hypersphere has no centre: call prepare() with training objects first")
        loss, curves = super().loss(terms, step=step, dataset_size=dataset_size)
        distance = terms["svdd_distance"]
        curves["svdd_distance"] = distance.mean()
        steps_per_epoch = self.steps_per_epoch or dataset_size / len(distance)
        if step < options.svdd_from_epoch * steps_per_epoch:
            return loss, curves
        squares = distance.square()
        quantile = radius_squared(squares.detach(), options.nu)
        radius2 = torch.where(self.radius2 < 0, quantile, self.radius2)  # below 0: not yet set
        if self.training:
            radius2 = radius2.lerp(quantile, options.radius_momentum)
            self.radius2.copy_(radius2)
        curves["svdd"] = soft_boundary(squares, radius2, options.nu)
        return loss + options.svdd_weight * curves["svdd"], curves

    def prepare(self, terms: Terms) -> None:
        """Set the centre to the mean of the posterior means (n, D), moved away from 0."""
        self.centre.copy_(hypersphere_centre(terms["mu"]))

    def finish(self, terms: Terms) -> None:
        """Set the radius to the reference sample's quantile.

        Raises:
            RuntimeError: if the distances of the sample are all but the same, so that they say nothing.
        """
        distance = (terms["mu"] - self.centre).norm(dim=1)
        least = self.options.collapse_floor
        if len(distance) > 1 and distance.std() < least * distance.mean():
            raise RuntimeError(
                f"the hypersphere has collapsed: the distances of {len(distance)} training objects differ by "
                f"less than {least:g} of their mean; lower svdd_weight or beta, or train for longer"
            )
        self.radius2.copy_(radius_squared(distance.square(), self.options.nu))

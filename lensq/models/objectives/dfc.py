"""Deep feature consistency: reconstructions must also look alike to a network trained on photographs.

Hou et al. 2017, "Deep feature consistent variational autoencoder" (arXiv 1610.00291), section 3.2.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lensq.models.objectives.elbo import Batch, Elbo, ElboOptions, Terms
from lensq.models.objectives.features import FeatureNetwork


@dataclass(frozen=True)
class DFCOptions(ElboOptions):
    """Options of `DFC`.

    Attributes:
        reconstruction_weight: weight of the pixel likelihood.
        feature_weight: weight of the feature loss.
        feature_network: "efficientnet-lite0", whose weights come with the installation, or "vgg19_bn".
        feature_weights: file of a state dict; empty for the network's usual one.
        feature_layers: layers that are compared; empty for the network's usual ones.
    """

    reconstruction_weight: float = 1.0
    feature_weight: float = 2000.0
    feature_network: str = "efficientnet-lite0"
    feature_weights: str = ""
    feature_layers: tuple[str, ...] = ()


class DFC(Elbo):
    """Pixel likelihood + feature loss + KL divergence.

    The weights 1, 10 and 0.005 of the published sum of squares, feature loss and KL divergence become, in
    nats, 1 at a noise scale of 0.05, 10 / 0.005 = 2000, and 1.
    """

    Options: ClassVar[type] = DFCOptions
    extras: ClassVar[tuple[str, ...]] = ("feature",)

    def __init__(self, features: int, latent: int, options: DFCOptions) -> None:
        super().__init__(features, latent, options)
        own = options.feature_network, options.feature_weights, options.feature_layers
        self.network = FeatureNetwork(*own)

    def forward(self, batch: Batch) -> Terms:
        """As `Elbo.forward`, and "feature" (B,), the feature loss of each object against its reconstruction.

        Masked pixels are 0 in both, and the loss is divided by the share of real pixels. Without a generator
        it is that of the reconstruction at the posterior mean.
        """
        terms = super().forward(batch)
        feature = self.network(batch.images, torch.where(batch.mask, terms["mean"], 0))
        real = batch.mask.float().mean((1, 2, 3)).clamp(min=1 / batch.mask[0].numel())
        return {**terms, "feature": feature / real}

    def loss(self, terms: Terms, *, step: int, dataset_size: int) -> tuple[Tensor, Terms]:
        """As `Elbo.loss`, with the feature loss."""
        options = self.options
        loss, curves = super().loss(terms, step=step, dataset_size=dataset_size)
        curves["feature"] = terms["feature"].mean()
        loss = loss + (options.reconstruction_weight - 1) * curves["reconstruction"]
        return loss + options.feature_weight * curves["feature"], curves

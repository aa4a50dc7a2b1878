"""A mixture of Gaussians as the prior: clusters found without labels, or classes learned from a few.

    p(y) p(z|y) p(x|z)   and   q(y|x) q(z|x,y)

The lower bound of log p(x) sums over y exactly:

    sum_y q(y|x) [E log p(x|z) - KL(q(z|x,y) || p(z|y))] - KL(q(y|x) || p(y))

For labelled objects y is known, the sum has one term, and -log q(y|x) is added, as in the second model of
Kingma et al. 2014, "Semi-supervised learning with deep generative models" (arXiv 1406.5298).

Left to itself the first cluster to reconstruct a little better takes all objects within an epoch: the pixels
of an image outweigh log K by a factor of a thousand. Two things prevent that. The gradient of the
reconstruction does not reach q(y|x), which therefore follows latent space, as in VaDE (Jiang et al. 2017,
arXiv 1611.05148); and the mean of q(y|x) over a batch is drawn towards p(y). The bound's value is the same.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lensq.models.objectives import elbo
from lensq.models.objectives.elbo import Batch, Elbo, ElboOptions, GaussianHead, Terms

ORDINARY, ANOMALY = 0, 1


def mixture_bound(
    log_qy: Tensor, log_py: Tensor, nll: Tensor, kl: Tensor, labels: Tensor | None = None
) -> Terms:
    """The terms of the negative lower bound of each object.

    Args:
        log_qy: log q(y|x), (B, K).
        log_py: log p(y), (K,).
        nll: -log p(x|z) for the z of each cluster, (B, K).
        kl: KL(q(z|x,y) || p(z|y)) per dimension, (B, K, D).
        labels: (B,) the cluster of each object where it is known, else -1.

    Returns:
        "reconstruction" (B,), "kl" (B, D), "cluster_kl" (B,): KL(q(y|x) || p(y)), or
        -log p(y) where y is known. The gradient of the reconstruction does not reach q(y|x).
    """
    weights = log_qy.exp()
    log_weights = log_qy
    if labels is not None:
        known = (labels >= 0).unsqueeze(1)
        weights = torch.where(known, F.one_hot(labels.clamp(min=0), len(log_py)), weights)
        log_weights = torch.where(known, 0, log_qy)
    terms = {"reconstruction": (weights.detach() * nll).sum(1), "kl": (weights.unsqueeze(2) * kl).sum(1)}
    return terms | {"cluster_kl": (weights * (log_weights - log_py)).sum(1)}


@dataclass(frozen=True)
class MixtureOptions(ElboOptions):
    """Options of `Mixture`.

    Attributes:
        clusters: number of clusters K.
        hidden: units of the hidden layers of q(y|x) and q(z|x,y).
        balance: weight, in nats, of KL(batch mean of q(y|x) || p(y)), against clusters that fall empty.
    """

    clusters: int = 10
    hidden: int = 256
    balance: float = 20.0


class Mixture(Elbo):
    """Lower bound with a mixture prior, without labels; the decoder runs once for each cluster."""

    Options: ClassVar[type] = MixtureOptions
    extras: ClassVar[tuple[str, ...]] = ("cluster_kl",)

    def __init__(self, features: int, latent: int, options: MixtureOptions) -> None:
        nn.Module.__init__(self)
        self.options = options
        count, hidden = options.clusters, options.hidden
        self.register_buffer("log_py", torch.full((count,), 1 / count).log(), persistent=False)
        self.classifier = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, count))
        self.shared = nn.Linear(features, hidden)
        self.by_cluster = nn.Parameter(torch.randn(count, hidden))
        self.posterior = GaussianHead(hidden, latent)
        self.prior_mu = nn.Parameter(torch.randn(count, latent))
        self.prior_logvar = nn.Parameter(torch.zeros(count, latent))

    def prior(self) -> tuple[Tensor, Tensor]:
        """Means and log variances of p(z|y), (K, D)."""
        return self.prior_mu, self.prior_logvar.clamp(*elbo.LOGVAR_RANGE)

    def forward(self, batch: Batch) -> Terms:
        """Per-object terms of a batch, summed over clusters with the weights q(y|x).

        Returns:
            "reconstruction" (B,), "kl" (B, D), "cluster_kl" (B,), "cluster" (B, K): q(y|x), and its
            logarithm "log_cluster", "mu" and "logvar" (B, D): mean and log variance of the mixture q(z|x),
            "z" (B, K, D), "mean" (B, C, S, S): the expected reconstruction.
            Without a generator the z of each cluster is its posterior mean: both KL terms are exact as ever,
            the reconstruction is the expectation over y of the negative log likelihood at these means.
        """
        with torch.autocast(batch.features.device.type, enabled=False):
            features = batch.features.float()
            log_qy = F.log_softmax(self.classifier(features), dim=1)
            mu, logvar = self.posterior(F.relu(self.shared(features).unsqueeze(1) + self.by_cluster))
        z = elbo.sample_normal(mu, logvar, batch.generator)  # (B, K, D)
        means, nll = batch.reconstruct(z)
        kl = elbo.gaussian_kl(mu, logvar, *self.prior())
        labels = batch.labels if self.uses_labels else None
        terms = mixture_bound(log_qy, self.log_py, nll, kl, labels)
        qy = log_qy.exp()
        average = (qy.unsqueeze(2) * mu).sum(1)
        spread = logvar.exp() + (mu - average.unsqueeze(1)).square()
        terms |= {"mu": average, "logvar": (qy.unsqueeze(2) * spread).sum(1).log(), "z": z}
        terms |= {"cluster": qy, "log_cluster": log_qy}
        return terms | {"mean": (qy[:, :, None, None, None] * means).sum(1)}

    def loss(self, terms: Terms, *, step: int, dataset_size: int) -> tuple[Tensor, Terms]:
        """As `Elbo.loss`, with the balance of the clusters; beta and its annealing hold for both KL terms."""
        loss, curves = super().loss(terms, step=step, dataset_size=dataset_size)
        curves["cluster_kl"] = terms["cluster_kl"].mean()
        weight = self.options.beta * elbo.annealing(step, self.options.annealing_steps)
        loss = loss + weight * curves["cluster_kl"]
        if self.options.balance > 0:
            mean = terms["cluster"].mean(0)
            curves["balance"] = (torch.xlogy(mean, mean) - mean * self.log_py).sum()
            loss = loss + self.options.balance * curves["balance"]
        return loss, curves


@dataclass(frozen=True)
class LabelledMixtureOptions(MixtureOptions):
    """Options of `LabelledMixture`.

    Attributes:
        clusters: two, the classes.
        balance: as before, and off, because the labels say how common the classes are.
        classification_weight: weight of -log q(y|x), averaged over the labelled objects of a batch.
    """

    clusters: int = 2
    balance: float = 0.0
    classification_weight: float = 200.0


class LabelledMixture(Mixture):
    """Lower bound with one cluster a class: 0 ordinary, 1 anomaly; labels where training has them."""

    Options: ClassVar[type] = LabelledMixtureOptions
    extras: ClassVar[tuple[str, ...]] = ("cluster_kl", "anomaly_logit")
    uses_labels: ClassVar[bool] = True

    def __init__(self, features: int, latent: int, options: LabelledMixtureOptions) -> None:
        super().__init__(features, latent, options)
        if options.clusters != 2:
            raise ValueError(f"clusters={options.clusters}: there are two, the classes ordinary and anomaly")

    def forward(self, batch: Batch) -> Terms:
        """As `Mixture.forward`, and "anomaly_logit" (B,): log q(anomaly|x) - log q(ordinary|x).

        With labels, also "cross_entropy" (B,): -log q(label|x), 0 where unlabelled, and "labelled" (B,).
        """
        terms = super().forward(batch)
        log_qy, labels = terms["log_cluster"], batch.labels
        terms["anomaly_logit"] = log_qy[:, ANOMALY] - log_qy[:, ORDINARY]
        if labels is not None:
            known = labels >= 0
            right = log_qy.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
            terms |= {"cross_entropy": torch.where(known, -right, 0), "labelled": known.float()}
        return terms

    def loss(self, terms: Terms, *, step: int, dataset_size: int) -> tuple[Tensor, Terms]:
        """As `Mixture.loss`, with the cross-entropy of the labelled objects if there are any."""
        loss, curves = super().loss(terms, step=step, dataset_size=dataset_size)
        if "labelled" in terms:
            curves["cross_entropy"] = terms["cross_entropy"].sum() / terms["labelled"].sum().clamp(min=1)
            loss = loss + self.options.classification_weight * curves["cross_entropy"]
        return loss, curves

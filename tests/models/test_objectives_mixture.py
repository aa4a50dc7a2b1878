import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

from lensq.models.objectives.elbo import Batch, gaussian_kl
from lensq.models.objectives.mixture import (
    LabelledMixture,
    LabelledMixtureOptions,
    Mixture,
    MixtureOptions,
    mixture_bound,
)

CLUSTERS, LATENT, NOISE = 3, 2, 0.5


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class World:
    """p(y) p(z|y) N(x; z, NOISE^2): the evidence and the posteriors are known."""

    def __init__(self, count=40):
        generator = seeded()
        self.prior = torch.tensor([0.2, 0.5, 0.3])
        self.means = 1.5 * torch.randn(CLUSTERS, LATENT, generator=generator)
        self.logvars = 0.5 * torch.randn(CLUSTERS, LATENT, generator=generator)
        self.x = 2 * torch.randn(count, LATENT, generator=generator)

    def evidence(self):
        covariances = torch.diag_embed(self.logvars.exp() + NOISE**2)
        parts = MultivariateNormal(self.means, covariances)
        return parts.log_prob(self.x[:, None]), MixtureSameFamily(Categorical(self.prior), parts).log_prob(
            self.x
        )

    def log_qy(self):
        return torch.log_softmax(self.evidence()[0] + self.prior.log(), dim=1)

    def posterior(self):
        precision = torch.exp(-self.logvars) + NOISE**-2
        mu = (self.means * torch.exp(-self.logvars) + self.x[:, None] * NOISE**-2) / precision
        return mu, (-precision.log()).expand_as(mu)

    def expected_nll(self, mu, logvar):
        squares = (self.x[:, None] - mu).square() + logvar.exp()
        return (0.5 * squares / NOISE**2 + math.log(NOISE) + 0.5 * math.log(2 * math.pi)).sum(2)

    def bound(self, log_qy, mu, logvar):
        kl = gaussian_kl(mu, logvar, self.means, self.logvars)
        terms = mixture_bound(log_qy, self.prior.log(), self.expected_nll(mu, logvar), kl)
        return -(terms["reconstruction"] + terms["kl"].sum(1) + terms["cluster_kl"])


def test_bound_is_the_evidence_at_the_true_posterior_and_lower_elsewhere():
    world = World()
    _, evidence = world.evidence()
    torch.testing.assert_close(world.bound(world.log_qy(), *world.posterior()), evidence)
    mu, logvar = world.posterior()
    assert (world.bound(torch.full_like(world.log_qy(), -math.log(3)), mu, logvar) < evidence).all()
    assert (world.bound(world.log_qy(), mu + 0.3, logvar) < evidence).all()
    assert (world.bound(world.log_qy(), mu, logvar + 0.5) < evidence).all()


class Known(nn.Module):
    def __init__(self, *values):
        super().__init__()
        self.values = values

    def forward(self, _):
        return self.values if len(self.values) > 1 else self.values[0]


@pytest.mark.slow
def test_sampled_module_averages_to_the_evidence():
    """`Mixture.forward` itself, with the true posteriors in place of its heads."""
    world = World(count=5)
    objective = Mixture(LATENT, LATENT, MixtureOptions(clusters=CLUSTERS, hidden=4))
    objective.log_py.copy_(world.prior.log())
    objective.classifier, objective.posterior = Known(world.log_qy()), Known(*world.posterior())
    objective.prior_mu.data, objective.prior_logvar.data = world.means, world.logvars

    def reconstruct(z):
        squares = (world.x[:, None] - z).square()
        nll = (0.5 * squares / NOISE**2 + math.log(NOISE) + 0.5 * math.log(2 * math.pi)).sum(2)
        return z[..., None, None], nll

    generator, found = seeded(3), []
    with torch.no_grad():
        for _ in range(4000):
            terms = objective(Batch(world.x, world.x, world.x, reconstruct, generator))
            found.append(-(terms["reconstruction"] + terms["kl"].sum(1) + terms["cluster_kl"]))
    torch.testing.assert_close(torch.stack(found).mean(0), world.evidence()[1], atol=0.05, rtol=0)


def test_log_k_is_counted_once():
    log_py = torch.full((10,), 0.1).log()
    nll, kl = torch.zeros(2, 10), torch.zeros(2, 10, 6)
    even = torch.full((1, 10), -math.log(10))
    sure = torch.log_softmax(1e4 * torch.eye(10)[:1], dim=1)
    found = mixture_bound(torch.cat([even, sure]), log_py, nll, kl)["cluster_kl"]
    torch.testing.assert_close(found, torch.tensor([0.0, math.log(10)]))


def objective_and_batch(kind=Mixture, options=None, labels=None, count=6, seed=1):
    generator = seeded(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        objective = kind(4, LATENT, options or MixtureOptions(clusters=CLUSTERS, hidden=5))
    features, target = (
        torch.randn(count, 4, generator=generator),
        torch.rand(count, 1, 3, 3, generator=generator),
    )

    def reconstruct(z):
        means = z.sum(-1)[..., None, None, None].expand(*z.shape[:-1], 1, 3, 3)
        return means, (target.unsqueeze(1) - means).square().sum((-3, -2, -1))

    return objective, Batch(target, target > -1, features, reconstruct, labels=labels)


def test_terms_are_sums_over_clusters_taken_one_by_one():
    objective, batch = objective_and_batch()
    objective.prior_logvar.data += 0.7
    terms = objective(batch)
    logits = objective.classifier(batch.features)
    q = torch.softmax(logits, dim=1)
    expected = {"reconstruction": 0, "kl": 0, "mu": 0, "mean": 0}
    square = 0
    for k in range(CLUSTERS):
        hidden = torch.relu(objective.shared(batch.features) + objective.by_cluster[k])
        mu, logvar = objective.posterior(hidden)
        own = Normal(mu, (0.5 * logvar).exp())
        prior = Normal(objective.prior_mu[k], (0.5 * objective.prior_logvar[k]).exp())
        mean, nll = batch.reconstruct(mu[:, None])
        expected["reconstruction"] = expected["reconstruction"] + q[:, k] * nll[:, 0]
        expected["kl"] = expected["kl"] + q[:, k, None] * kl_divergence(own, prior)
        expected["mu"] = expected["mu"] + q[:, k, None] * mu
        expected["mean"] = expected["mean"] + q[:, k, None, None, None] * mean[:, 0]
        square = square + q[:, k, None] * (mu.square() + logvar.exp())
    expected["logvar"] = (square - expected["mu"].square()).log()
    expected["cluster_kl"] = kl_divergence(Categorical(q), Categorical(torch.ones(CLUSTERS)))
    expected["cluster"] = q
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


def test_clusters_are_assigned_by_latent_space():
    objective, batch = objective_and_batch()
    values = objective(batch)
    for name, reached in (("reconstruction", False), ("cluster_kl", True)):
        total = values[name].sum()
        (found,) = torch.autograd.grad(total, values["log_cluster"], retain_graph=True, allow_unused=True)
        assert (found is not None) == reached


def test_balance_is_the_divergence_of_the_mean_assignment():
    options = MixtureOptions(clusters=CLUSTERS, hidden=5, balance=7.0)
    objective, batch = objective_and_batch(options=options)
    objective.log_py.copy_(torch.tensor([0.2, 0.5, 0.3]).log())
    terms = objective(batch)
    loss, curves = objective.loss(terms, step=0, dataset_size=6)
    mean = Categorical(terms["cluster"].mean(0))
    expected = kl_divergence(mean, Categorical(torch.tensor([0.2, 0.5, 0.3])))
    torch.testing.assert_close(curves["balance"], expected)
    bound = curves["reconstruction"] + curves["kl"] + curves["cluster_kl"]
    torch.testing.assert_close(loss, bound + 7 * expected)


def labelled(labels, **options):
    options = LabelledMixtureOptions(hidden=5, **options)
    return objective_and_batch(LabelledMixture, options, torch.tensor(labels))


def test_known_labels_replace_the_sum_and_unknown_ones_do_not():
    objective, batch = labelled([0, 1, 1, -1, -1, 0])
    objective.log_py.copy_(torch.tensor([0.9, 0.1]).log())
    terms = objective(batch)
    free = objective(Batch(batch.images, batch.mask, batch.features, batch.reconstruct))
    for name in ("reconstruction", "kl", "cluster_kl"):
        torch.testing.assert_close(terms[name][3:5], free[name][3:5])
    torch.testing.assert_close(terms["cluster_kl"][[0, 1, 2, 5]], -torch.tensor([0.9, 0.1, 0.1, 0.9]).log())
    _, nll = batch.reconstruct(free["z"])
    known = nll.gather(1, batch.labels.clamp(min=0)[:, None])[:, 0]
    torch.testing.assert_close(terms["reconstruction"][[0, 1, 2, 5]], known[[0, 1, 2, 5]])
    torch.testing.assert_close(terms["cluster"], free["cluster"])


@pytest.mark.slow
def test_class_one_is_the_anomaly_from_the_loss_to_the_score():
    """Objects labelled as anomalies end with the higher score, and their cross-entropy is that of class 1."""
    objective, batch = labelled([1, 1, 1, 0, 0, 0], classification_weight=5.0)
    terms = objective(batch)
    expected = nn.functional.cross_entropy(
        objective.classifier(batch.features), batch.labels, reduction="none"
    )
    torch.testing.assert_close(terms["cross_entropy"], expected)
    optimiser = torch.optim.Adam(objective.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        objective.loss(objective(batch), step=0, dataset_size=6)[0].backward()
        optimiser.step()
    terms = objective(batch)
    assert terms["anomaly_logit"][:3].min() > 0 > terms["anomaly_logit"][3:].max()
    torch.testing.assert_close(terms["cluster"][:, 1], torch.sigmoid(terms["anomaly_logit"]))


def test_cross_entropy_is_averaged_over_the_labelled_and_absent_without_labels():
    objective, batch = labelled([1, 0, -1, -1, -1, -1], classification_weight=3.0)
    terms = objective(batch)
    loss, curves = objective.loss(terms, step=0, dataset_size=6)
    torch.testing.assert_close(curves["cross_entropy"], terms["cross_entropy"][:2].mean())
    bound = curves["reconstruction"] + curves["kl"] + curves["cluster_kl"]
    torch.testing.assert_close(loss, bound + 3 * curves["cross_entropy"])

    objective, batch = labelled([-1] * 6)
    assert objective.loss(objective(batch), step=0, dataset_size=6)[1]["cross_entropy"] == 0
    batch = Batch(batch.images, batch.mask, batch.features, batch.reconstruct)
    assert "cross_entropy" not in objective.loss(objective(batch), step=0, dataset_size=6)[1]


def test_labels_mean_nothing_to_the_unsupervised_mixture():
    objective, batch = objective_and_batch(labels=torch.tensor([0, 1, 2, 0, 1, 2]))
    free = objective(Batch(batch.images, batch.mask, batch.features, batch.reconstruct))
    for name, value in objective(batch).items():
        torch.testing.assert_close(value, free[name])


def test_labelled_mixture_has_two_classes():
    with pytest.raises(ValueError, match="clusters=3"):
        LabelledMixture(4, 2, LabelledMixtureOptions(clusters=3))

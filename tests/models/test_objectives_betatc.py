"""Mutual information, total correlation and dimension-wise KL, each by itself.

The posteriors are N(mu_n, s^2 I) with mu_n ~ N(0, C), so that the aggregate posterior is N(0, S) with
S = C + s^2 I, and MI = log det(S / s^2) / 2, TC = sum_d log S_dd / 2 - log det S / 2 and
DWKL = sum_d (S_dd - 1 - log S_dd) / 2 are known. The sum of the three says nothing about any of them.
"""

import math

import pytest
import torch

from lensq.models.objectives.betatc import (
    BetaTC,
    BetaTCOptions,
    aggregate_posterior,
    decompose,
    log_normal,
    minibatch_log_weights,
)
from lensq.models.objectives.elbo import Batch

NOISE = 0.7


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def covariance(dimensions, correlation):
    """Unit variances, all pairs equally correlated."""
    identity = torch.eye(dimensions, dtype=torch.float64)
    return correlation * torch.ones_like(identity) + (1 - correlation) * identity


def posteriors(objects, c, seed=0):
    draws = torch.randn(objects, len(c), generator=seeded(seed), dtype=torch.float64)
    mu = draws @ torch.linalg.cholesky(c).T
    return mu, torch.full_like(mu, 2 * math.log(NOISE))


def closed_form(c):
    s = c + NOISE**2 * torch.eye(len(c), dtype=torch.float64)
    logdet, diagonal = torch.logdet(s), torch.diagonal(s)
    mutual = 0.5 * (logdet - len(c) * math.log(NOISE**2))
    total = 0.5 * (diagonal.log().sum() - logdet)
    return torch.stack([mutual, total, 0.5 * (diagonal - 1 - diagonal.log()).sum()])


def sampled(mu, logvar, seed=1):
    noise = torch.randn(mu.shape, generator=seeded(seed), dtype=mu.dtype)
    return mu + (0.5 * logvar).exp() * noise


def averages(z, mu, logvar, batch, objects, sampling, batches, seed=2):
    """The three terms averaged over batches of distinct objects, by minibatch sampling."""
    log_weights, generator, found = minibatch_log_weights(batch, objects, sampling), seeded(seed), []
    for _ in range(batches):
        rows = torch.randperm(len(mu), generator=generator)[:batch]
        own = z[rows], mu[rows], logvar[rows]
        parts = decompose(*own, *aggregate_posterior(*own, log_weights))
        found.append(torch.stack([part.mean() for part in parts]))
    return torch.stack(found).mean(0)


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [2, 4])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_enumerated_terms_are_the_closed_forms(dimensions, correlation):
    c = covariance(dimensions, correlation)
    mu, logvar = posteriors(3000, c)
    z = sampled(mu, logvar)
    even = torch.full((1, len(mu)), -math.log(len(mu)))
    parts = decompose(z, mu, logvar, *aggregate_posterior(z, mu, logvar, even))
    found = torch.stack([part.mean() for part in parts])
    torch.testing.assert_close(found, closed_form(c), atol=0.08, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [2, 4])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize(("batch", "objects"), [(128, 2000), (512, 2000), (512, 20_000)])
def test_stratified_sampling_estimates_the_closed_forms(dimensions, correlation, batch, objects):
    c = covariance(dimensions, correlation)
    mu, logvar = posteriors(objects, c)
    z = sampled(mu, logvar)
    found = averages(z, mu, logvar, batch, objects, "stratified", batches=30)
    torch.testing.assert_close(found, closed_form(c), atol=0.16 if batch < 500 else 0.08, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [2, 4])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize("objects", [2000, 20_000])
def test_weighted_sampling_estimates_the_closed_forms_up_to_its_known_offsets(
    dimensions, correlation, objects
):
    """Each density comes out 1 / N of what it is: log N more MI, (D - 1) log N more TC, D log N less DWKL."""
    c = covariance(dimensions, correlation)
    mu, logvar = posteriors(objects, c)
    z = sampled(mu, logvar)
    found = averages(z, mu, logvar, 512, objects, "weighted", batches=30)
    offset = math.log(objects) * torch.tensor([1.0, dimensions - 1, -dimensions], dtype=torch.float64)
    torch.testing.assert_close(found - offset, closed_form(c), atol=0.12, rtol=0)


@pytest.mark.slow
def test_total_correlation_is_zero_for_independent_and_positive_for_correlated_latents():
    found = {}
    for correlation in (0.0, 0.5, 0.9):
        mu, logvar = posteriors(20_000, covariance(4, correlation))
        found[correlation] = averages(sampled(mu, logvar), mu, logvar, 512, 20_000, "stratified", 20)[1]
    assert abs(found[0.0]) < 0.08
    assert 0.1 < found[0.5] < found[0.9]


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
@pytest.mark.parametrize("batch", [5, 50, 200])
def test_density_estimates_against_full_enumeration_of_200_objects(sampling, batch):
    """Averaged over batches that hold object i, the estimate of q(z_i) has its exact expectation."""
    objects, i = 200, 3
    mu, logvar = posteriors(objects, covariance(2, 0.6))
    z = sampled(mu, logvar)
    single = log_normal(z[i], mu, logvar).exp()  # (N, D): q(z_id | n) for every object n
    joint = single.prod(1)
    both = torch.cat([joint[:, None], single], 1)
    others = (both.sum(0) - both[i]) / (objects - 1)
    if sampling == "stratified":
        expected = both.mean(0)
    else:
        expected = (both[i] + (batch - 1) * others) / (batch * objects)

    log_weights, generator = minibatch_log_weights(batch, objects, sampling)[:1], seeded(5)
    estimates = []
    for _ in range(1 if batch == objects else 4000):
        rows = torch.randperm(objects, generator=generator)
        rows = torch.cat([torch.tensor([i]), rows[rows != i][: batch - 1]])
        qz, qzd = aggregate_posterior(z[[i]], mu[rows], logvar[rows], log_weights)
        estimates.append(torch.cat([qz, qzd[0]]).exp())
    tolerance = 1e-6 if batch == objects else 0.05
    torch.testing.assert_close(torch.stack(estimates).mean(0), expected, rtol=tolerance, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [2, 4])
@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
@pytest.mark.parametrize(("batch", "tolerance"), [(50, 0.1), (100, 0.04), (150, 0.02)])
def test_each_term_against_full_enumeration_of_200_objects(dimensions, sampling, batch, tolerance):
    """No term alone may be off: their sum would not show it. What is left of each falls with the batch."""
    objects, c = 200, covariance(dimensions, 0.6)
    mu, logvar = posteriors(objects, c)
    z = sampled(mu, logvar)
    even = torch.full((1, objects), -math.log(objects))
    exact = torch.stack(
        [p.mean() for p in decompose(z, mu, logvar, *aggregate_posterior(z, mu, logvar, even))]
    )
    found = averages(z, mu, logvar, batch, objects, sampling, batches=400)
    if (
        sampling == "weighted"
    ):  # the object itself counts objects / batch times too much, the density 1 / objects
        self_weight = torch.full((objects, objects), (batch - 1) / (objects - 1)).fill_diagonal_(1.0).double()
        expected = (self_weight / (batch * objects)).log()
        parts = decompose(z, mu, logvar, *aggregate_posterior(z, mu, logvar, expected))
        exact = torch.stack([p.mean() for p in parts])
    torch.testing.assert_close(found, exact, atol=tolerance, rtol=0)


@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
def test_full_batch_is_the_enumeration(sampling):
    mu, logvar = posteriors(200, covariance(4, 0.6))
    z = sampled(mu, logvar)
    even = torch.full((1, 200), -math.log(200))
    exact = decompose(z, mu, logvar, *aggregate_posterior(z, mu, logvar, even))
    log_weights = minibatch_log_weights(200, 200, sampling)
    found = decompose(z, mu, logvar, *aggregate_posterior(z, mu, logvar, log_weights))
    offsets = (1, 3, -4) if sampling == "weighted" else (0, 0, 0)
    for part, wanted, offset in zip(found, exact, offsets, strict=True):
        torch.testing.assert_close(part, wanted + offset * math.log(200), atol=1e-5, rtol=0)


def test_stratified_weights_put_the_object_itself_on_the_diagonal_and_add_up_to_one():
    weights = minibatch_log_weights(8, 100, "stratified").exp()
    torch.testing.assert_close(torch.diagonal(weights), torch.full((8,), 1 / 100))
    torch.testing.assert_close(weights.sum(1), torch.ones(8))
    off = weights[~torch.eye(8, dtype=torch.bool)]
    torch.testing.assert_close(off, torch.full((56,), 99 / 700))


def test_blocks_do_not_change_the_aggregate(monkeypatch):
    mu, logvar = posteriors(37, covariance(2, 0.5))
    z, log_weights = sampled(mu, logvar), minibatch_log_weights(37, 100, "stratified")
    whole = aggregate_posterior(z, mu, logvar, log_weights)
    monkeypatch.setattr("lensq.models.objectives.betatc.CELLS", 5 * z.numel())
    for part, wanted in zip(aggregate_posterior(z, mu, logvar, log_weights), whole, strict=True):
        torch.testing.assert_close(part, wanted)


def test_another_kind_of_sampling_is_named():
    with pytest.raises(ValueError, match="both"):
        minibatch_log_weights(10, 90, "both")


def objective_and_terms(mu, logvar, **options):
    objective = BetaTC(3, mu.shape[1], BetaTCOptions(**options))
    terms = {
        "mu": mu,
        "logvar": logvar,
        "z": sampled(mu, logvar),
        "reconstruction": torch.full((len(mu),), 7.0),
    }
    return objective, {**terms, "kl": torch.ones_like(mu)}


def test_loss_is_the_weighted_sum_of_its_curves():
    mu, logvar = posteriors(256, covariance(2, 0.9))
    weights = {"mutual_information_weight": 0.3, "beta": 5.0, "dimension_wise_weight": 0.7}
    objective, terms = objective_and_terms(mu, logvar, annealing_steps=10, **weights)
    loss, curves = objective.loss(terms, step=4, dataset_size=5000)
    assert curves["total_correlation"] > 0.1
    expected = 7 + 0.3 * curves["mutual_information"] + 5 * curves["total_correlation"]
    torch.testing.assert_close(loss, expected + 0.7 * 0.4 * curves["dimension_wise_kl"])


@pytest.mark.slow
def test_minimising_the_total_correlation_decorrelates():
    noise = torch.randn(256, 2, generator=seeded(), dtype=torch.float64)
    mixing = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([mixing], lr=0.05)

    def correlation():
        return torch.corrcoef((noise @ mixing).T)[0, 1].abs().item()

    before = correlation()
    for _ in range(60):
        mu = noise @ mixing
        logvar = torch.full_like(mu, 2 * math.log(0.3))
        objective, terms = objective_and_terms(
            mu, logvar, mutual_information_weight=0.0, dimension_wise_weight=0.0, beta=1.0
        )
        optimiser.zero_grad()
        objective.loss(terms, step=0, dataset_size=5000)[0].backward()
        optimiser.step()
    assert before > 0.9
    assert correlation() < 0.3


def test_scores_come_from_the_reference_sample_not_from_the_batch():
    objective = BetaTC(3, 2, BetaTCOptions()).eval()
    features = torch.randn(4, 3, generator=seeded())
    mu, logvar = (part.float() for part in posteriors(200, covariance(2, 0.6)))

    def reconstruct(z):
        return z, z.new_zeros(len(z))

    def terms(rows):
        return objective(
            Batch(torch.empty(0), torch.empty(0), features[rows], reconstruct, reference=(mu, logvar))
        )

    together, alone = terms([0, 1, 2, 3]), terms([2])
    even = torch.full((1, 200), -math.log(200))
    own = together["z"], together["mu"], together["logvar"]
    for name, part in zip(
        objective.extras, decompose(*own, *aggregate_posterior(own[0], mu, logvar, even)), strict=True
    ):
        torch.testing.assert_close(together[name], part)
        torch.testing.assert_close(together[name][2:3], alone[name])

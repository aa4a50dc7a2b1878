import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lensq.models.objectives.elbo import GaussianHead, annealing, gaussian_kl, sample_normal
from lensq.models.objectives.likelihood import GaussianLikelihood


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_kl_agrees_with_torch_distributions():
    generator = seeded()
    mu, logvar, prior_mu, prior_logvar = 2 * torch.randn(4, 50, 6, generator=generator)

    def normal(mean, log_variance):
        return Normal(mean, (0.5 * log_variance).exp())

    standard = normal(torch.zeros(6), torch.zeros(6))
    torch.testing.assert_close(gaussian_kl(mu, logvar), kl_divergence(normal(mu, logvar), standard))
    torch.testing.assert_close(
        gaussian_kl(mu, logvar, prior_mu, prior_logvar),
        kl_divergence(normal(mu, logvar), normal(prior_mu, prior_logvar)),
    )
    assert (gaussian_kl(torch.zeros(6), torch.zeros(6)) == 0).all()


def test_samples_have_the_stated_moments():
    mu, logvar = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 1.0])
    z = sample_normal(mu.expand(200_000, 2), logvar, seeded())
    torch.testing.assert_close(z.mean(0), mu, atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(0), logvar.exp(), atol=0.02, rtol=0.01)
    assert sample_normal(mu, logvar, None) is mu


def test_annealing():
    assert [annealing(step, 4) for step in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert annealing(0, 0) == 1.0


def test_head_is_single_precision_and_bounded_under_autocast():
    head = GaussianHead(3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mu, logvar = head(torch.full((1, 3), 1e8, dtype=torch.bfloat16))
    assert mu.dtype == logvar.dtype == torch.float32
    assert logvar.abs().max() <= 20


@pytest.mark.parametrize("scale", [0.05, 0.7])
def test_likelihood_is_that_of_torch_distributions_with_all_constants(scale):
    images, mean = torch.rand(2, 3, 1, 8, 8, generator=seeded())
    mask = torch.ones(3, 1, 8, 8, dtype=torch.bool)
    expected = -Normal(mean, scale).log_prob(images).sum((1, 2, 3))
    torch.testing.assert_close(GaussianLikelihood(scale)(images, mean, mask), expected)


def test_likelihood_of_several_means_is_one_a_mean():
    likelihood = GaussianLikelihood(0.1)
    images, mask = torch.rand(3, 1, 8, 8, generator=seeded()), torch.ones(3, 1, 8, 8, dtype=torch.bool)
    means = torch.rand(3, 4, 1, 8, 8, generator=seeded(1))
    together = likelihood(images, means, mask)
    for k in range(4):
        torch.testing.assert_close(together[:, k], likelihood(images, means[:, k], mask))


def test_likelihood_counts_real_pixels_as_if_they_filled_the_image():
    """A padded image has the likelihood of a full one with the same errors, whatever lies in the padding."""
    likelihood = GaussianLikelihood(0.1)
    images, mean = torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.3)
    full = likelihood(images, mean, torch.ones(1, 1, 8, 8, dtype=torch.bool))
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., 2:6, 2:6] = True
    torch.testing.assert_close(likelihood(images, mean, mask), full)
    torch.testing.assert_close(likelihood(images.masked_fill(~mask, torch.nan), mean, mask), full)
    assert likelihood(images, mean, torch.zeros_like(mask)).item() == 0.0


def test_sum_of_squares_plus_weighted_kl_is_this_likelihood():
    images, others, mean = torch.rand(3, 2, 1, 8, 8, generator=seeded())
    mask = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    for weight in (0.005, 0.01):
        likelihood = GaussianLikelihood(math.sqrt(weight / 2))
        difference = likelihood(images, mean, mask) - likelihood(others, mean, mask)
        squares = (images - mean).square().sum((1, 2, 3)) - (others - mean).square().sum((1, 2, 3))
        torch.testing.assert_close(weight * difference, squares, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_bad_noise_scale_is_named(scale):
    with pytest.raises(ValueError, match="noise_scale"):
        GaussianLikelihood(scale)

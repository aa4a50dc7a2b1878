import pytest
import torch

from lensq.models.objectives.elbo import Batch
from lensq.models.objectives.svdd import SVDD, SVDDOptions, hypersphere_centre, radius_squared, soft_boundary


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Fixed(torch.nn.Module):
    """A posterior that is the same whatever the features."""

    def __init__(self, mu):
        super().__init__()
        self.mu = mu

    def forward(self, features):
        return self.mu, torch.zeros_like(self.mu)


def points_at(distances, centre):
    """Points at these distances from the centre, in random directions."""
    directions = torch.randn(len(distances), len(centre), generator=seeded())
    return centre + directions / directions.norm(dim=1, keepdim=True) * distances[:, None]


def objective_with(distances, **options):
    """An objective of five latent dimensions, and the terms of points at known distances from its centre."""
    objective = SVDD(3, 5, SVDDOptions(svdd_from_epoch=0.0, **options))
    objective.prepare({"mu": 3 * torch.randn(50, 5, generator=seeded(1))})
    mu = points_at(distances, objective.centre)
    objective.posterior = Fixed(mu)
    batch = Batch(torch.empty(0), torch.empty(0), mu, lambda z: (z, z.new_zeros(len(z))), seeded(2))
    return objective, objective(batch), mu


def test_centre_is_the_mean_moved_away_from_zero():
    mu = torch.tensor([[1.0, 0.05, -0.02, 0.0, -2.0], [3.0, 0.05, -0.04, 0.0, -2.0]])
    torch.testing.assert_close(hypersphere_centre(mu), torch.tensor([2.0, 0.1, -0.1, 0.1, -2.0]))


@pytest.mark.parametrize("nu", [0.05, 0.1, 0.5])
def test_radius_is_the_quantile_and_minimises_the_soft_boundary(nu):
    squares = torch.rand(1001, generator=seeded(), dtype=torch.float64) * 9
    radius2 = radius_squared(squares, nu)
    assert (squares > radius2).double().mean().item() == pytest.approx(nu, abs=1e-3)
    best = soft_boundary(squares, radius2, nu)
    outside = (squares - radius2).clamp(min=0)
    torch.testing.assert_close(best, radius2 + outside.sum() / (1001 * nu))
    for other in torch.linspace(0, 9, 200, dtype=torch.float64):
        assert soft_boundary(squares, other, nu) >= best - 1e-12


def test_distance_is_that_of_the_posterior_mean_and_has_a_gradient_at_the_centre():
    distances = torch.tensor([0.5, 1.0, 2.0])
    _, terms, _ = objective_with(distances)
    torch.testing.assert_close(terms["svdd_distance"], distances)
    mu = torch.zeros(1, 5, requires_grad=True)
    torch.sqrt(mu.square().sum(1) + 1e-12).sum().backward()
    assert torch.isfinite(mu.grad).all()


def test_loss_is_the_lower_bound_plus_the_soft_boundary():
    distances = torch.linspace(0.2, 3, 40)
    objective, terms, _ = objective_with(distances, nu=0.2, svdd_weight=3.0, radius_momentum=1.0)
    loss, curves = objective.loss(terms, step=1, dataset_size=40)
    expected = soft_boundary(distances.square(), torch.quantile(distances.square(), 0.8), 0.2)
    torch.testing.assert_close(curves["svdd"], expected)
    torch.testing.assert_close(loss, curves["reconstruction"] + curves["kl"] + 3 * expected)


def test_radius_follows_batches_in_training_and_rests_in_evaluation():
    objective, terms, _ = objective_with(torch.full((10,), 2.0), radius_momentum=0.5)
    objective.loss(terms, step=1, dataset_size=10)
    assert objective.radius2.item() == pytest.approx(4.0)
    wider = {**terms, "svdd_distance": torch.full((10,), 4.0)}
    objective.eval()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.loss(wider, step=1, dataset_size=10)
    for name, value in objective.state_dict().items():
        torch.testing.assert_close(value, before[name])
    objective.train()
    objective.loss(wider, step=1, dataset_size=10)
    assert objective.radius2.item() == pytest.approx((4 + 16) / 2)


def test_hypersphere_sets_in_at_its_epoch():
    objective, terms, _ = objective_with(torch.linspace(1, 2, 10))
    objective.options = SVDDOptions(svdd_from_epoch=2.0)
    for step, there in ((0, False), (19, False), (20, True)):  # ten batches of ten make an epoch of 100
        assert ("svdd" in objective.loss(terms, step=step, dataset_size=100)[1]) == there


def test_the_training_loop_knows_better_how_many_steps_make_an_epoch():
    objective, terms, _ = objective_with(torch.linspace(1, 2, 10))
    objective.options = SVDDOptions(svdd_from_epoch=2.0)
    objective.steps_per_epoch = 3  # ten batches of ten, three for each of three processes, one left over
    for step, there in ((0, False), (5, False), (6, True)):
        assert ("svdd" in objective.loss(terms, step=step, dataset_size=100)[1]) == there


def test_centre_and_radius_are_saved():
    objective, _, mu = objective_with(torch.linspace(1, 2, 10))
    objective.finish({"mu": mu})
    radius2 = torch.quantile(torch.linspace(1, 2, 10).square(), 0.9)
    torch.testing.assert_close(objective.radius2, radius2)
    other = SVDD(3, 5, objective.options)
    other.load_state_dict(objective.state_dict(), strict=False)
    torch.testing.assert_close(other.centre, objective.centre)
    torch.testing.assert_close(other.radius2, radius2)


def test_collapse_and_missing_centre_are_clear_errors():
    objective, terms, _ = objective_with(torch.ones(10))
    with pytest.raises(RuntimeError, match=r"collapsed.*svdd_weight"):
        objective.finish({"mu": torch.ones(10, 5)})
    objective.centre.zero_()
    with pytest.raises(RuntimeError, match="prepare"):
        objective.loss(terms, step=1, dataset_size=10)
    with pytest.raises(ValueError, match=r"nu=1\.0"):
        SVDD(3, 5, SVDDOptions(nu=1.0))


def test_published_weight_in_nats():
    """Sum of squares + 0.005 KL + hypersphere, divided by 0.005, is this loss at a weight of 200."""
    distances = torch.linspace(0.2, 3, 40)
    objective, terms, _ = objective_with(distances, svdd_weight=200.0, radius_momentum=1.0)
    squares = torch.linspace(1, 5, 40)
    terms = {**terms, "reconstruction": squares / (2 * 0.05**2)}
    loss, curves = objective.loss(terms, step=1, dataset_size=40)
    published = squares.mean() + 0.005 * curves["kl"] + curves["svdd"]
    torch.testing.assert_close(loss, published / 0.005)

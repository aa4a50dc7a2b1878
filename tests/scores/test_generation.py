"""Samples of the prior, walks through latent space, and the objects that a figure shows."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from toy import toy_survey

from lensq.models.variants import MODELS, VAE
from lensq.scores.generation import activity, examples, prior_samples, traversals
from lensq.scores.scoring import reconstruct
from lensq.survey.images import Preprocessing


def untrained(variant: str, **options) -> SimpleNamespace:
    """A model with random weights; its decoder draws each latent vector as flat patches of its values."""
    vae = VAE(MODELS[variant].config(size=20, latent=4, width=4, activation="linear", **options)).eval()
    vae.decode = lambda z: z.repeat_interleave(100, 1).reshape(len(z), 1, 20, 20)
    return SimpleNamespace(vae=vae, preprocessing=Preprocessing("minmax"), settings={})


def vectors(pictures: np.ndarray) -> np.ndarray:
    return pictures.reshape(*pictures.shape[:-2], 4, 100)[..., 0]


def set_reference(model: SimpleNamespace, mu: torch.Tensor, logvar: torch.Tensor) -> None:
    model.vae.reference_mu[: len(mu)], model.vae.reference_logvar[: len(mu)] = mu, logvar
    model.vae.reference_count.fill_(len(mu))


@pytest.fixture
def survey(tmp_path):
    return toy_survey(tmp_path)


def test_samples_of_a_normal_prior_are_standard_normal():
    model = untrained("RESNET18_VAE")
    z = vectors(prior_samples(model, 4000, seed=1))
    assert np.abs(z.mean(0)).max() < 4 / np.sqrt(4000)
    assert np.abs(np.cov(z.T) - np.eye(4)).max() < 0.1
    assert np.array_equal(z[:5], vectors(prior_samples(model, 4000, seed=1))[:5])
    assert not np.array_equal(z[:5], vectors(prior_samples(model, 4000, seed=2))[:5])


def test_samples_of_a_mixture_follow_its_clusters_and_their_shares():
    model = untrained("UNSUP_GMVAE", clusters=2)
    objective = model.vae.objective
    objective.log_py.copy_(torch.tensor([0.2, 0.8]).log())
    with torch.no_grad():
        objective.prior_mu.copy_(torch.tensor([[-50.0, 0, 0, 0], [50.0, 0, 3, 0]]))
        objective.prior_logvar.copy_(torch.tensor([[0.0] * 4, [0.0, 0.0, 2 * np.log(5.0), 0.0]]))
    z = vectors(prior_samples(model, 4000))
    assert (z[:, 0] > 0).mean() == pytest.approx(0.8, abs=0.03)
    second = vectors(prior_samples(model, 4000, cluster=1))
    assert (second[:, 0] > 0).all()
    assert second[:, 2].mean() == pytest.approx(3, abs=0.4)
    assert second[:, 2].std() == pytest.approx(5, rel=0.05)


def test_a_cluster_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="prior of RESNET18_VAE has 0 clusters"):
        prior_samples(untrained("RESNET18_VAE"), 3, cluster=0)
    with pytest.raises(ValueError, match="prior of SEMISUP_GMVAE has 2 clusters"):
        prior_samples(untrained("SEMISUP_GMVAE"), 3, cluster=2)


def test_activity_is_the_share_of_variance_between_objects():
    model = untrained("RESNET18_VAE")
    unit = torch.tensor([-1.0, 1.0] * 50)  # variance 1
    mu = torch.stack([0 * unit, 3 * unit, unit, 0.1 * unit], 1)
    set_reference(model, mu, torch.zeros(100, 4))
    expected = {1: 0.9, 2: 0.5, 3: 0.01 / 1.01, 0: 0.0}
    found = activity(model)
    assert found.index.tolist() == [1, 2, 3, 0]
    assert found.to_dict() == pytest.approx(expected)
    with pytest.raises(ValueError, match="no reference sample"):
        activity(untrained("RESNET18_VAE"))


def test_a_walk_changes_one_dimension_and_starts_at_the_object(survey):
    model = untrained("RESNET18_VAE")
    set_reference(model, torch.tensor([[0.0, 1, 2, 3], [0.0, 3, 2, 3]]), torch.full((2, 4), np.log(3.0)))
    images = torch.tensor(survey.images[7:8])
    mask = torch.tensor(survey.mask[7:8])
    start = model.vae(model.preprocessing(images, mask), mask[:, None])["mu"][0].detach().numpy()
    z = vectors(traversals(model, survey, 7, [1, 3]))
    assert z.shape == (2, 9, 4)
    steps = np.linspace(-2.5, 2.5, 9)
    # mean 2 and variance 1 + 3 in dimension 1, mean 3 and variance 3 in dimension 3
    assert z[0, :, 1] == pytest.approx(2 + 2 * steps)
    assert z[1, :, 3] == pytest.approx(3 + np.sqrt(3) * steps)
    assert np.allclose(np.delete(z[0], 1, axis=1), np.delete(start, 1))
    assert np.allclose(np.delete(z[1], 3, axis=1), np.delete(start, 3))
    with pytest.raises(ValueError, match="dimensions 0 to 3"):
        traversals(model, survey, 7, [4])


def test_examples_come_from_their_split_class_by_class(survey):
    model = untrained("RESNET18_VAE")
    found = examples(model, survey)
    selection = survey.rows("selection")
    shown = [*selection[survey.labels[selection] == 0][:5], *selection[survey.labels[selection] == 1][:3]]
    assert found["captions"] == ["rejected"] * 5 + ["flagged"] * (len(shown) - 5)
    expected = reconstruct(model, survey, shown)
    assert np.array_equal(found["images"], expected[0], equal_nan=True)
    assert np.array_equal(found["reconstructions"], expected[1], equal_nan=True)

    classes = np.where(survey.labels == 1, "lens", np.where(np.arange(len(survey)) % 3, "disk", "star_star"))
    object.__setattr__(survey, "truth", pd.DataFrame({"name": survey.names, "class": classes}))
    lenses = min(3, (classes[selection] == "lens").sum())
    assert examples(model, survey)["captions"] == ["disk", "star\nstar"] + ["lens"] * lenses

"""Models of several bands: what they take and give, how bands are weighed, and that their order is free."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_in_bands, toy_survey

from lensq.classifiers.baselines import COLUMNS as OF_BASELINES
from lensq.classifiers.baselines import USES_LABELS, fit_baselines
from lensq.classifiers.classifier import Classifier
from lensq.classifiers.supervised import fit_supervised
from lensq.detection.entries import objects
from lensq.models.batches import Batches, sky_noise
from lensq.models.conditions import conditions
from lensq.models.layers import layer_table
from lensq.models.objectives.likelihood import GaussianLikelihood
from lensq.models.training import fit, fit_preprocessing, load_model
from lensq.models.variants import MODELS, VAE
from lensq.scores.generation import examples, prior_samples, traversals
from lensq.scores.residual import central_residual
from lensq.scores.scoring import reconstruct, score
from lensq.survey.images import Preprocessing, band_weights, noise_level

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

TINY = {"epochs": 1, "latent": 3, "width": 4, "batch_size": 16, "progress": False}


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return toy_in_bands(tmp_path_factory.mktemp("toy"), n=60, size=18)


@pytest.mark.parametrize("variant", MODELS)
def test_every_variant_is_fitted_to_and_scores_several_bands(survey, tmp_path, variant):
    model = fit(survey, variant, out=tmp_path, augmentation=0.8, **TINY)
    assert (model.vae.config.bands, model.settings["bands"]) == (3, ["g", "r", "i"])
    again = load_model(tmp_path)
    assert again.preprocessing == model.preprocessing
    table = score(again, survey, progress=False)
    numbers = table.select_dtypes("number").drop(columns=["ra", "dec"])
    assert np.isfinite(numbers).all(axis=None)
    rows = np.array([7, 0, 31])  # in another batch and order
    some = score(again, survey, rows=rows, batch_size=2, progress=False)
    np.testing.assert_allclose(some["reconstruction"], table["reconstruction"][rows], rtol=1e-5)
    images, drawn = reconstruct(model, survey, rows)
    assert images.shape == drawn.shape == (3, 3, 18, 18)
    assert np.isnan(images[1, 0]).all()
    assert np.isfinite(images[1, 2, 2:]).all()


def permuted(vae: VAE, order: list[int]) -> VAE:
    """The same model for bands in another order."""
    other = VAE(vae.config)
    other.load_state_dict(vae.state_dict())
    first = next(part for part in other.encoder.modules() if isinstance(part, torch.nn.Conv2d))
    last = other.decoder.stages[-1]
    with torch.no_grad():
        first.weight.copy_(first.weight[:, order].clone())
        last.weight.copy_(last.weight[order].clone())
        last.bias.copy_(last.bias[order].clone())
    return other.eval()


@pytest.mark.parametrize("variant", MODELS)
def test_bands_in_another_order_permute_nothing_but_the_input(variant):
    vae = VAE(MODELS[variant].config(size=18, latent=3, width=4, bands=3)).eval()
    x, mask = torch.rand(4, 3, 18, 18), torch.rand(4, 3, 18, 18) > 0.1
    order = [2, 0, 1]
    before, after = vae(x, mask), permuted(vae, order)(x[:, order], mask[:, order])
    for name in {"mu", "logvar", "kl", "reconstruction", *vae.objective.extras} & before.keys():
        torch.testing.assert_close(after[name], before[name], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after["mean"], before["mean"][:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalisation", ["minmax", "asinh"])
def test_one_scale_for_all_bands_keeps_colours(normalisation):
    flux = torch.rand(2, 1, 9, 9) + 1
    images = flux * torch.tensor([1.0, 3.0])[:, None, None]
    images[..., 0] = 0
    prepare = Preprocessing(normalisation, noise=1e4, weights=(1, 1))  # asinh so faint is linear
    x = prepare(images, torch.ones(images.shape, dtype=torch.bool))
    torch.testing.assert_close(x[:, 1], 3 * x[:, 0], rtol=1e-4, atol=1e-6)


def test_bands_are_brought_to_the_noise_of_the_reference_band(survey):
    noise = torch.tensor([[2.0, 1.0], [4.0, 1.0], [4.0, torch.nan], [0.0, 1.0]])
    assert band_weights(noise, 1) == (0.25, 1.0)
    assert band_weights(noise[3:], 1) == (1.0, 1.0)
    prepare = fit_preprocessing(survey, np.arange(len(survey)), "asinh")
    noise = sky_noise(survey, np.arange(len(survey)))
    assert noise.shape == (60, 3)
    assert noise[0].isnan().tolist() == [True, False, False]
    assert prepare.weights == pytest.approx((noise[:, 2:].nanmedian() / noise.nanmedian(0).values).tolist())
    assert prepare.weights[2] == 1
    assert prepare.noise == float(noise[:, 2].median())
    weighted = torch.from_numpy(np.array(survey.images[1:])) * torch.tensor(prepare.weights)[:, None, None]
    level = noise_level(weighted, torch.from_numpy(np.array(survey.mask[1:]))).median(0).values
    assert (level / level[2]).tolist() == pytest.approx([1, 1, 1], rel=0.1)


def test_one_band_has_no_weights_and_one_channel(survey, tmp_path):
    one = toy_survey(tmp_path / "one", n=60, size=18)
    model = fit(one, "SVDD_VAE", out=tmp_path / "a", **TINY)
    assert (model.preprocessing, model.vae.config.bands) == (Preprocessing(), 1)
    plane = replace(survey, images=survey.images[:, 2], mask=survey.mask[:, 2], bands=("i",))
    same = fit(plane, "SVDD_VAE", out=tmp_path / "b", **TINY)
    for name, value in model.vae.state_dict().items():
        assert torch.equal(value, same.vae.state_dict()[name])
    assert (
        conditions(survey, np.arange(60))
        == conditions(plane, np.arange(60))
        == conditions(one, np.arange(60))
    )


def test_a_survey_in_other_bands_is_refused(survey, tmp_path):
    model = fit(survey, "BetaTC_VAE", out=tmp_path / "a", **TINY)
    one = toy_survey(tmp_path / "one", n=60, size=18)
    for other in (one, toy_in_bands(tmp_path / "zri", "zgi", n=60, size=18)):
        bands = " ".join(other.bands)
        with pytest.raises(ValueError, match=rf"bands {bands}, not as the model: .*bands=\['g', 'r', 'i'\]"):
            score(model, other, progress=False)
    with pytest.raises(ValueError, match=r"bands g r i, not as the model: .*bands=\['i'\]"):
        score(fit(one, "BetaTC_VAE", out=tmp_path / "b", **TINY), survey, progress=False)


def test_a_masked_band_counts_in_no_term():
    images, mean = torch.rand(2, 3, 18, 18), torch.rand(2, 3, 18, 18)
    mask = torch.ones(images.shape, dtype=torch.bool)
    mask[:, 0] = False
    nll = GaussianLikelihood(0.1)
    alone = nll(images[:, 1:], mean[:, 1:], mask[:, 1:])
    torch.testing.assert_close(nll(images, mean, mask), 1.5 * alone)
    residual = images - mean
    torch.testing.assert_close(
        central_residual(residual, mask, 5), central_residual(residual[:, 1:], mask[:, 1:], 5)
    )
    each = torch.stack([central_residual(residual[:, k : k + 1], mask[:, k : k + 1], 5) for k in (1, 2)])
    torch.testing.assert_close(central_residual(residual, mask, 5), each.mean(0))
    assert not central_residual(residual, torch.zeros_like(mask), 5).any()


def test_all_bands_are_rotated_alike(survey):
    same = replace(
        survey, images=np.repeat(survey.images[:, 2:], 3, 1), mask=np.repeat(survey.mask[:, 2:], 3, 1)
    )
    batches = Batches(same, np.arange(60), Preprocessing(weights=(1, 1, 1)), 20, augmentation=1.0)
    plain = Batches(same, np.arange(60), Preprocessing(weights=(1, 1, 1)), 20)
    for batch, before in zip(batches, plain, strict=True):
        assert not torch.equal(batch.x, before.x)
        for values in (batch.x, batch.mask):
            assert torch.equal(values, values[:, :1].expand(-1, 3, -1, -1))


def test_samples_and_traversals_have_all_bands(survey, tmp_path):
    model = fit(survey, "UNSUP_GMVAE", out=tmp_path, clusters=2, hidden=8, **TINY)
    assert prior_samples(model, 2).shape == (2, 3, 18, 18)
    assert traversals(model, survey, 3, [0, 1]).shape == (2, 9, 3, 18, 18)
    assert examples(model, survey)["images"].shape[1:] == (3, 18, 18)
    table = layer_table(model.vae).set_index("layer")
    assert table.iloc[0]["parameters"] == 9 * 3 * 4 + 2 * 4


def test_baselines_see_all_bands(survey):
    labels = (np.arange(60) % 2).astype(np.int8)
    mixed = replace(survey, labels=labels, split=np.where(np.arange(60) < 30, "train", "selection"))
    fitted = fit_baselines(mixed.images, mixed.mask, objects(mixed), components=3, radius=5)
    assert fitted.preprocessing.weights[0] == 1
    assert fitted.pca.n_features_in_ == 3 * 18**2
    assert fitted.train_features.shape == (30, 30)
    table = fitted.score(mixed.images, mixed.mask, objects(mixed))
    assert np.isfinite(table[list(OF_BASELINES)]).all(axis=None)
    alone = fitted.score(mixed.images[5:6], mixed.mask[5:6], objects(mixed)[5:6])
    names = [name for name in OF_BASELINES if name not in USES_LABELS]
    np.testing.assert_allclose(alone[names], table.loc[5:5, names], rtol=1e-4)


def test_the_supervised_network_sees_all_bands(survey, tmp_path):
    labels = np.arange(60) % 2
    model = fit_supervised(survey, labels, out=tmp_path, width=4, epochs=1, batch_size=8, progress=False)
    assert len(model.preprocessing.weights) == 3
    before = model.score(survey, np.arange(4), progress=False)
    after = Classifier.load(tmp_path / "model.pt").score(survey, np.arange(4), progress=False)
    np.testing.assert_array_equal(before, after)

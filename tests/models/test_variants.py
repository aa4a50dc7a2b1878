import copy
import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from lensq.models.objectives.betatc import BetaTC
from lensq.models.variants import MODELS, VAE, ModelConfig

pytestmark = pytest.mark.slow

SIZE, COUNT = 20, 12
NAMES = tuple(MODELS)
SMALL = {"size": SIZE, "latent": 3, "width": 4, "reference_size": 8, "noise_scale": 0.1}
FEW = {
    "BetaTC_VAE": {"width": 8},
    "DFC_VAE": {"feature_layers": ("stem", "block0")},
    "UNSUP_GMVAE": {"clusters": 3, "hidden": 8},
    "SEMISUP_GMVAE": {"hidden": 8},
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sky(count=COUNT, seed=0):
    """Blobs at random places on noise, (count, 1, SIZE, SIZE), and a mask with fake pixels in every third."""
    generator, size = seeded(seed), SIZE
    x = torch.arange(size) - size / 2
    place = size / 5 * torch.rand(count, 2, 1, generator=generator)
    along, across = (torch.exp(-((x - place[:, i]) ** 2) / 8) for i in (0, 1))
    images = 0.8 * along[:, :, None] * across[:, None, :] + 0.05 * torch.randn(
        count, size, size, generator=generator
    )
    mask = torch.ones(count, 1, size, size, dtype=torch.bool)
    mask[::3, :, :4] = False
    return images[:, None].clamp(0, 1), mask


def build(name, seed=0, **options):
    return VAE(MODELS[name].config(**{**SMALL, **FEW.get(name, {}), **options}), seed=seed)


def trained(name):
    """A model after twenty epochs of 128 objects."""
    vae, (images, mask) = build(name), sky(128)
    vae.prepare([(images, mask)])
    optimiser, generator = torch.optim.Adam(vae.parameters(), lr=5e-3), seeded(7)
    step = 0
    for _ in range(20):
        for rows in torch.randperm(128, generator=generator).split(16):
            labels = torch.where(rows < 32, (images[rows].mean((1, 2, 3)) > 0.08).long(), -1)
            optimiser.zero_grad()
            terms = vae(images[rows], mask[rows], generator=generator, labels=labels)
            vae.objective.loss(terms, step=step, dataset_size=128)[0].backward()
            optimiser.step()
            step += 1
    vae.finish([(images, mask)])
    return vae.eval()


@pytest.fixture(scope="module")
def models():
    return {name: trained(name) for name in NAMES}


def scores(vae, images, mask):
    with torch.no_grad():
        terms = vae(images, mask)
    return {
        name: terms[name] for name in ("reconstruction", "kl", "mu", "logvar", "mean", *vae.objective.extras)
    }


def assert_same_scores(found, wanted, share=1e-4):
    """Equal within a share of each score's standard deviation over objects."""
    for name, value in wanted.items():
        assert (found[name] - value).abs().max() <= share * value.std().clamp(min=1e-4), name


@pytest.mark.parametrize("name", NAMES)
def test_training_does_not_collapse(models, name):
    """Squared errors are 0.6 of the training mean's or less, latents in use, scores tell objects apart."""
    images, mask = sky(100, seed=1)
    found = scores(models[name], images, mask)
    errors = (found["mean"] - images)[mask].square().sum()
    assert errors < 0.6 * (sky(128)[0].mean(0) - images)[mask].square().sum()
    assert (found["kl"].mean(0) > 0.1).any()
    for term in {"reconstruction", *models[name].objective.extras} - {
        "cluster_kl"
    }:  # at most log K: many are sure
        assert len(found[term].unique()) > 95, term
    if name == "SVDD_VAE":
        assert found["svdd_distance"].std() > 0.05
    if name == "UNSUP_GMVAE":
        with torch.no_grad():
            assert models[name](images, mask)["cluster"].mean(0).max() < 0.9


@pytest.mark.parametrize("name", NAMES)
def test_scores_do_not_depend_on_batch_size_or_order(models, name):
    images, mask = sky()
    together = scores(models[name], images, mask)
    order = torch.randperm(COUNT, generator=seeded(3))
    shuffled = scores(models[name], images[order], mask[order])
    assert_same_scores(shuffled, {name: value[order] for name, value in together.items()})
    alone = [scores(models[name], images[[i]], mask[[i]]) for i in range(COUNT)]
    assert_same_scores({name: torch.cat([row[name] for row in alone]) for name in together}, together)


@pytest.mark.parametrize("name", NAMES)
def test_scoring_changes_nothing(models, name):
    vae = models[name]
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    found = scores(vae, *sky())
    for key, value in vae.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not vae.training
    for term in ("reconstruction", *vae.objective.extras):
        assert found[term].shape == (COUNT,)


@pytest.mark.parametrize("name", NAMES)
def test_values_behind_the_mask_change_nothing(models, name):
    images, mask = sky()
    for fill in (0.7, 1e6, torch.nan):
        changed = scores(models[name], images.masked_fill(~mask, fill), mask)
        for term, value in scores(models[name], images, mask).items():
            assert torch.equal(changed[term], value), term


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_and_configuration_rebuild_the_model(models, name, tmp_path):
    vae = models[name]
    torch.save(vae.state_dict(), tmp_path / "weights.pt")
    config = ModelConfig(**json.loads(json.dumps(asdict(vae.config))))
    again = VAE(config, seed=99)
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    again.eval()
    images, mask = sky()
    for term, value in scores(vae, images, mask).items():
        assert torch.equal(scores(again, images, mask)[term], value), term


def test_another_process_gives_the_same_scores(models, tmp_path):
    images, mask = sky()
    saved = {name: (json.dumps(asdict(vae.config)), vae.state_dict()) for name, vae in models.items()}
    torch.save((images, mask, saved), tmp_path / "models.pt")
    script = """
import json, sys, torch
from lensq.models.variants import VAE, ModelConfig
images, mask, saved = torch.load(sys.argv[1], weights_only=True)
found = {}
for name, (config, state) in saved.items():
    vae = VAE(ModelConfig(**json.loads(config)))
    vae.load_state_dict(state)
    with torch.no_grad():
        terms = vae.eval()(images.flip(0), mask.flip(0))
    found[name] = {term: terms[term].flip(0) for term in ("reconstruction", "kl", *vae.objective.extras)}
torch.save(found, sys.argv[2])
"""
    arguments = [sys.executable, "-c", script, tmp_path / "models.pt", tmp_path / "scores.pt"]
    subprocess.run(arguments, check=True)
    for name, found in torch.load(tmp_path / "scores.pt", weights_only=True).items():
        here = scores(models[name], images, mask)
        assert_same_scores(found, {term: here[term] for term in found})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to compare with")
def test_another_device_gives_the_same_scores(models, name):
    """In full single precision; TensorFloat-32, the default of cuDNN, is off by a hundred times more."""
    images, mask = sky(100)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        there = scores(copy.deepcopy(models[name]).cuda(), images.cuda(), mask.cuda())
    here = scores(models[name], images, mask)
    assert_same_scores({term: value.cpu() for term, value in there.items()}, here)


@pytest.mark.parametrize("weight", [1.0, 200.0])
def test_the_hypersphere_keeps_its_spread(weight):
    """At the default weight and at the published one: after twenty epochs the distances from the centre still
    scatter by more than a thirtieth of their mean, with a variance above 0.0005."""
    vae, (images, mask) = build("SVDD_VAE", svdd_weight=weight), sky(128)
    vae.prepare([(images, mask)])
    optimiser, generator = torch.optim.Adam(vae.parameters(), lr=5e-3), seeded(7)
    for step in range(20 * 8):
        rows = torch.randperm(128, generator=generator)[:16]
        optimiser.zero_grad()
        terms = vae(images[rows], mask[rows], generator=generator)
        vae.objective.loss(terms, step=step, dataset_size=128)[0].backward()
        optimiser.step()
    vae.finish([(images, mask)])
    distance = scores(vae.eval(), images, mask)["svdd_distance"]
    assert distance.std() > distance.mean() / 30
    assert distance.var() > 5e-4
    assert len(distance.unique()) > 120


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name):
    vae = build(name)
    images, mask = sky()
    vae.prepare([(images, mask)])
    terms = vae(images, mask, generator=seeded(), labels=torch.arange(COUNT) % 3 - 1)
    vae.objective.loss(terms, step=1000, dataset_size=100)[0].backward()
    for key, parameter in vae.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_agrees_with_single_precision(models, name):
    vae, (images, mask) = models[name], sky(400, seed=5)
    exact = scores(vae, images, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = scores(vae, images, mask)
    assert {value.dtype for value in rough.values()} == {torch.float32}
    for term in ("reconstruction", *vae.objective.extras):
        ranks = torch.stack([values[term].argsort().argsort().double() for values in (exact, rough)])
        assert torch.corrcoef(ranks)[0, 1] > 0.97, term
    assert (rough["mu"] - exact["mu"]).abs().max() < 0.1 * exact["mu"].abs().max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [False, True])
def test_extreme_images_give_finite_terms(models, name, training):
    vae = copy.deepcopy(models[name]).train(training)
    dark, pixel = torch.zeros(2, 1, 1, SIZE, SIZE)
    pixel[..., 7, 9] = 1.0
    images = torch.cat([dark, pixel, torch.ones_like(dark), pixel * 1e6, pixel * -1e6])
    mask = torch.ones_like(images, dtype=torch.bool)
    mask[1, :, :5] = False
    terms = vae(images, mask, generator=seeded() if training else None)
    loss, curves = vae.objective.loss(terms, step=1000, dataset_size=100)
    for term, value in {**terms, **curves, "loss": loss}.items():
        assert torch.isfinite(value).all(), term


def test_what_is_not_finite_is_named(models):
    vae, (images, mask) = models["RESNET18_VAE"].eval(), sky()
    images[4, 0, 9, 9] = torch.inf
    with pytest.raises(FloatingPointError, match="reconstruction"):
        vae(images, mask)


@pytest.mark.parametrize("name", NAMES)
def test_noise_comes_from_the_generator_alone(name):
    vae, (images, mask) = build(name), sky()
    state = torch.random.get_rng_state()
    one, same, other = (vae(images, mask, generator=seeded(seed))["z"] for seed in (1, 1, 2))
    build(name, seed=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_weights_come_from_the_seed_alone():
    one, same, other = (build("RESNET18_VAE", seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["encoder.stages.0.weight"], other["encoder.stages.0.weight"])


@pytest.mark.parametrize("training", [False, True])
def test_finish_keeps_the_first_objects_and_the_mode(training):
    vae, (images, mask) = build("BetaTC_VAE", reference_size=8), sky()
    assert vae.reference is None
    with torch.no_grad():
        terms = vae.eval()(images, mask)
    assert "total_correlation" not in terms
    vae.train(training).finish((images[i : i + 5], mask[i : i + 5]) for i in (0, 5, 10))
    assert vae.training == training
    mu, logvar = vae.reference
    torch.testing.assert_close(mu, terms["mu"][:8])
    torch.testing.assert_close(logvar, terms["logvar"][:8])
    vae.finish([(images[8:], mask[8:])])
    torch.testing.assert_close(vae.reference[0], terms["mu"][8:])
    with pytest.raises(ValueError, match="no training object"):
        vae.finish([])


@pytest.mark.parametrize("name", ["SVDD_VAE", "RESNET18_VAE"])
@pytest.mark.parametrize("activation", ["sigmoid", "linear"])
def test_preparation_starts_the_decoder_at_the_mean_of_the_real_pixels(name, activation):
    vae, (images, mask) = build(name, activation=activation), sky()
    images[~mask] = 0.9
    weight = vae.decoder.stages[-1].weight
    torch.nn.init.zeros_(weight)
    vae.prepare([(images[:5], mask[:5]), (images[5:], mask[5:])])
    torch.testing.assert_close(vae.decode(torch.zeros(1, 3)).mean(), images[mask].mean())
    with pytest.raises(ValueError, match="give at least one batch"):
        vae.prepare([])


def test_preparation_sets_the_centre():
    vae, (images, mask) = build("SVDD_VAE"), sky()
    vae.prepare([(images, mask)])
    assert (vae.objective.centre.abs() >= 0.1).all()


def test_published_defaults():
    for name in NAMES:
        config = MODELS[name].config()
        assert (config.size, config.latent, config.activation) == (64, 128, "sigmoid")
        assert config.width == (64 if "RESNET18" in name else 32)
    # sum of squares + 0.005 KL; sum of squares + 0.01 MI + 0.02 TC + 0.01 dimension-wise KL over 200 steps
    assert MODELS["RESNET18_VAE"].config().noise_scale == pytest.approx((0.005 / 2) ** 0.5)
    config = MODELS["RESNET18_BETATC_VAE"].config()
    assert config.noise_scale == pytest.approx((0.01 / 2) ** 0.5)
    options = BetaTC.Options(**config.options)
    assert options.mutual_information_weight == options.dimension_wise_weight == 1
    assert (options.beta, options.annealing_steps) == (2, 200)
    assert build("SVDD_VAE").objective.options.nu == 0.1
    assert build("UNSUP_GMVAE", clusters=10, hidden=256).objective.log_py.shape == (10,)


def test_overrides_go_where_they_belong():
    config = MODELS["BetaTC_VAE"].config(size=48, beta=6.0)
    assert (config.size, config.options["beta"]) == (48, 6.0)
    assert config.options["annealing_steps"] == 200  # written out, so that a saved model keeps its own
    assert VAE(config).objective.options == BetaTC.Options(beta=6.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MODELS["BetaTC_VAE"].config(nu=0.1), "BetaTC_VAE has no option nu.*sampling"),
        (lambda: build("BetaTC_VAE", activation="tanh"), "activation='tanh'.*sigmoid"),
        (lambda: build("BetaTC_VAE", sampling="both"), "sampling='both'"),
        (lambda: build("BetaTC_VAE", size=8), "size=8"),
        (lambda: VAE(ModelConfig("mine", "conv5", "flow")), "objective='flow'.*elbo"),
        (lambda: build("BetaTC_VAE")(torch.zeros(2, 1, 9, 9), torch.ones(2, 1, 9, 9) > 0), "9, 9.*20, 20"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()

"""Injected lenses: where the images are, how bright, and that masks and noise go along."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_survey

from lensq.classifiers import injection
from lensq.classifiers.injection import (
    InjectionOptions,
    Lenses,
    concentration,
    draw_lenses,
    extended,
    inject,
    point_sources,
)
from lensq.simulate.lens_equation import ray_shooting
from lensq.simulate.population import draw_lens
from lensq.survey.images import PIXEL_SCALE

SIZE = 48
Y, X = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
FEW = InjectionOptions(lenses=8)


def gaussian(sigma=1.5):
    template = np.exp(-(X**2 + Y**2) / (2 * sigma**2))
    return torch.from_numpy(template / template.sum()).float()[None]


def canvas(n, flux=100.0):
    """A broad round galaxy of a known flux on each cutout."""
    galaxy = np.exp(-(X**2 + Y**2) / (2 * 3.0**2))
    images = torch.from_numpy(flux * galaxy / galaxy.sum()).float().repeat(n, 1, 1)
    return images, torch.ones(n, SIZE, SIZE, dtype=torch.bool)


@pytest.fixture
def one_lens(monkeypatch):
    """A population of one: two images of flux 300 and 100, 2 arcsec apart, a deflector brighter than any."""
    flux = torch.tensor([[300.0, 100.0, 0.0, 0.0]])
    x = torch.tensor([[1.5, -0.5, 0.0, 0.0]])
    pool = Lenses(x, torch.zeros(1, 4), flux, torch.tensor([1e6]))
    monkeypatch.setattr(injection, "draw_lenses", lambda n, seed, spread: pool)
    return pool


def test_images_of_the_pool_satisfy_the_lens_equation_and_share_the_flux_by_magnification():
    pool, rng = draw_lenses(8), np.random.default_rng([0, 8])
    for i in range(8):
        lens = draw_lens(rng)
        n = len(lens.x[:4])
        x, y, flux = (part[i, :n].double().numpy() for part in (pool.x, pool.y, pool.flux))
        source = ray_shooting(x, y, lens.lens)
        assert source[0] == pytest.approx(np.full(n, lens.source_x), abs=1e-5)
        assert source[1] == pytest.approx(np.full(n, lens.source_y), abs=1e-5)
        unlensed = 10 ** (-0.4 * (lens.source_magnitude - 27.0))
        assert flux == pytest.approx(unlensed * lens.magnification[:4], rel=1e-5)
        assert float(pool.flux[i].sum()) == pytest.approx(unlensed * lens.magnification[:4].sum(), rel=1e-5)
    assert not torch.equal(draw_lenses(8, 1).x, pool.x)


@pytest.mark.parametrize("what", ["lens", "single", "pair"])
def test_the_flux_of_all_images_is_added_whatever_is_injected(what, one_lens):
    images, mask = canvas(64, flux=10.0)
    options = InjectionOptions(widest=1.5)
    injected, _ = inject(images, mask, gaussian(), what, torch.Generator().manual_seed(0), options)
    gained = (injected - images).sum((1, 2))
    assert torch.allclose(gained, torch.full((64,), 400.0), rtol=0.01)


@pytest.mark.parametrize("pixel_scale", [PIXEL_SCALE, 0.25])
def test_two_images_have_their_separation_in_arcseconds_and_a_single_source_none(pixel_scale, one_lens):
    images, mask = canvas(16, flux=1e-3)
    for what, apart in (("lens", 2.0 / pixel_scale), ("single", 0.0)):
        generator = torch.Generator().manual_seed(0)
        injected, _ = inject(images, mask, gaussian(), what, generator, pixel_scale=pixel_scale)
        for image in injected.double().numpy():
            # Two blobs with shares p and 1 - p have the moment p (1 - p) separation^2 + sigma^2.
            total = image.sum()
            cx, cy = (image * X).sum() / total, (image * Y).sum() / total
            moments = [[(image * (a - ca) * (b - cb)).sum() / total for b, cb in ((X, cx), (Y, cy))]
                       for a, ca in ((X, cx), (Y, cy))]  # fmt: skip
            narrow, wide = np.linalg.eigvalsh(moments)
            assert narrow == pytest.approx(1.5**2, rel=0.06)
            assert wide == pytest.approx(1.5**2 + 0.1875 * apart**2, rel=0.06)


def test_a_cutout_is_dimmed_to_its_deflector_and_its_sky_keeps_its_noise(monkeypatch):
    nothing = torch.zeros(1, 4)
    generator = torch.Generator().manual_seed(0)
    images, mask = canvas(64, flux=200.0)
    noisy = images + 0.05 * torch.randn(images.shape, generator=generator)
    light = float(concentration(images, mask)[1].mean())
    pool = Lenses(nothing, nothing, nothing, torch.tensor([light / 2]))
    monkeypatch.setattr(injection, "draw_lenses", lambda n, seed, spread: pool)
    injected, _ = inject(noisy, mask, gaussian(), "lens", generator)
    assert float(injected.sum((1, 2)).mean()) == pytest.approx(100, rel=0.02)
    corner = injected[:, :6, :6]
    assert float(corner.std()) == pytest.approx(0.05, rel=0.06)
    bright = Lenses(nothing, nothing, nothing, torch.tensor([1e9]))
    monkeypatch.setattr(injection, "draw_lenses", lambda n, seed, spread: bright)
    same, _ = inject(noisy, mask, gaussian(), "lens", generator)
    assert torch.allclose(same.flatten(1).sort(1).values, noisy.flatten(1).sort(1).values)  # moved alone


def test_photon_noise_has_the_variance_of_flux_over_gain(one_lens):
    images, mask = canvas(512, flux=1e-3)
    pair = [
        inject(
            images, mask, gaussian(), "lens", torch.Generator().manual_seed(0), InjectionOptions(gain=gain)
        )[0]
        for gain in (None, 10.0)
    ]
    noise = (pair[1] - pair[0]).sum((1, 2))
    assert float(noise.var()) == pytest.approx(400 / 10, rel=0.25)


def test_the_contrast_is_kept_where_no_zero_point_is_known(one_lens):
    images, mask = canvas(8, flux=50.0)
    light = concentration(images, mask)[1]
    options = InjectionOptions(relative=True)
    injected, _ = inject(images, mask, gaussian(), "lens", torch.Generator().manual_seed(0), options)
    assert torch.allclose((injected - images).sum((1, 2)), 400 / 1e6 * light, atol=2e-3)


def test_masks_move_with_their_images_and_nothing_is_injected_behind_them():
    images, mask = canvas(32)
    mask[:, :, :5] = False
    injected, moved = inject(images, mask, gaussian(), "lens", torch.Generator().manual_seed(1), FEW)
    assert not injected[~moved].any()
    assert (moved.sum((1, 2)) == mask.sum((1, 2))).all()
    assert not torch.equal(moved, mask)


def test_the_generator_decides_alone_and_the_originals_are_left():
    images, mask = canvas(8)
    before = images.clone()
    draws = [
        inject(images, mask, gaussian(), "lens", torch.Generator().manual_seed(k), FEW)[0] for k in (3, 3, 4)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(images, before)


def test_concentration_of_a_gaussian_is_its_closed_form():
    offset = torch.arange(61) - 30.0
    galaxy = torch.exp(-(offset[:, None] ** 2 + offset**2) / 18)[None]
    core, total = concentration(100 * galaxy / galaxy.sum(), torch.ones(1, 61, 61, dtype=torch.bool))
    # Inside radius r a round Gaussian holds 1 - exp(-r^2 / 2 sigma^2); a disc of whole pixels not quite.
    expected = (1 - np.exp(-(2.5**2) / 18)) / (1 - np.exp(-(12.0**2) / 18))
    assert float(core) == pytest.approx(expected, rel=0.1)
    assert float(total) == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("size", [32, 33])
def test_templates_have_unit_flux_and_their_centroid_in_the_centre(tmp_path, size):
    survey = toy_survey(tmp_path / "survey", n=200, size=size)
    templates = point_sources(survey, n=4)
    assert templates.shape[1:] == (size, size)
    assert 1 <= len(templates) <= 4
    assert torch.allclose(templates.sum((1, 2)), torch.ones(len(templates)), atol=1e-4)
    places = torch.arange(size) - (size - 1) / 2
    for axis in (1, 2):
        assert float((templates.sum(axis) * places).sum(1).abs().max()) < 0.1
    assert torch.equal(templates, point_sources(survey, n=4))


@pytest.mark.parametrize("pixel_scale", [PIXEL_SCALE, 0.262])
def test_wings_of_point_sources_go_on_as_a_power_law_where_stars_are_noise(pixel_scale):
    radius = injection._radius(SIZE, pixel_scale)
    moffat = (1 + (radius / 2.5).square()) ** -3.0
    noisy = moffat + 3e-5 * torch.randn(4, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    found = injection._with_wings(noisy, radius)
    far, near = (radius > 13) & (radius < 20), radius < 6
    # A Moffat profile of beta 3 falls as r^-6 far out, a little less steeply between 6 and 11 pixels.
    assert (found / moffat)[:, far].numpy() == pytest.approx(np.full((4, far.sum()), 1.2), abs=0.4)
    assert (found / moffat)[:, far].mean(1).numpy() == pytest.approx(np.full(4, 1.25), abs=0.15)
    assert torch.equal(found[:, near], noisy[:, near])


def test_frames_around_small_cutouts_take_no_part(tmp_path):
    """Neither in the sky of templates nor in the noise that a dimmed galaxy gets back."""
    survey = toy_survey(tmp_path / "survey", n=200, size=SIZE)
    offset = np.arange(survey.size) - (survey.size - 1) / 2
    inside = np.maximum(np.abs(offset[:, None]), np.abs(offset)) < 0.42 * survey.size
    mask = np.broadcast_to(inside, survey.images.shape)

    sky, near = np.float32(0.2), injection._radius(SIZE, PIXEL_SCALE) <= 6
    padded = replace(survey, images=np.where(mask, survey.images + sky, 0), mask=mask)
    whole = replace(survey, images=survey.images + sky)
    shares = [point_sources(each, n=4)[:, near].sum(1).mean() for each in (padded, whole)]
    assert float(shares[0]) == pytest.approx(float(shares[1]), abs=0.02)
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (64, 48, 48))).float()
    small = torch.zeros(64, 48, 48, dtype=torch.bool)
    small[:, 12:36, 12:36] = True
    assert injection._sky_noise(torch.where(small, noise, 0), small).median() == pytest.approx(0.1, rel=0.05)


def test_the_first_of_a_pair_is_the_brighter(one_lens):
    pool = one_lens._replace(flux=torch.tensor([[300.0, 250.0, 200.0, 100.0]]))
    _, _, flux = injection._sources(pool, torch.zeros(4, dtype=torch.long), "pair", torch.Generator(), 3.0)
    assert flux.tolist() == [[550.0, 300.0]] * 4


def test_a_star_with_a_neighbour_is_no_galaxy(tmp_path):
    survey = toy_survey(tmp_path / "survey", n=4, size=SIZE)
    star, galaxy = 100 * gaussian()[0], canvas(1)[0][0]
    beside = star + torch.roll(star, (0, 9), (0, 1))
    images = torch.stack([star, beside, galaxy, star]).numpy()
    held = replace(survey, images=images, mask=np.ones_like(images, bool))
    assert extended(held, np.arange(4), 0.25).tolist() == [2]

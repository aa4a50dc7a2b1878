"""Injection in several bands: one spectrum for the images of a source, and each band by its name alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_injection import gaussian
from toy import toy_survey

from lensq.classifiers import injection
from lensq.classifiers.finetuning import injection_options
from lensq.classifiers.injection import (
    InjectionOptions,
    Lenses,
    concentration,
    draw_lenses,
    extended,
    in_reference_band,
    inject,
    point_sources,
    reference_band,
)
from lensq.classifiers.recovery import injected_survey
from lensq.simulate.colours import draw_unrelated
from lensq.simulate.observe import typical
from lensq.simulate.parameters import BAND, COLOURS
from lensq.simulate.spectra import BANDS, colours

FAINT = 1e-3


def canvas(n, flux):
    """A broad round galaxy with these fluxes in the bands, on each cutout; its masks."""
    images = torch.stack([each * gaussian(3.0)[0] for each in flux]).repeat(n, 1, 1, 1)
    return images, torch.ones(images.shape, dtype=torch.bool)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def in_bands(survey, bands, factors):
    """A survey whose images in several bands are those of one band times a factor."""
    images = np.stack([np.asarray(survey.images) * factor for factor in factors], 1).astype(np.float32)
    mask = np.repeat(np.asarray(survey.mask)[:, None], len(bands), 1)
    return replace(survey, images=images, mask=mask, bands=bands)


@pytest.fixture
def one_lens(monkeypatch):
    """A population of one: two images of flux 300 and 100 of a quasar at 2, a deflector brighter than any."""
    flux = torch.tensor([[300.0, 100.0, 0.0, 0.0]])
    x = torch.tensor([[1.5, -0.5, 0.0, 0.0]])
    redshifts = torch.tensor([0.5]), torch.tensor([2.0])
    pool = Lenses(x, torch.zeros(1, 4), flux, torch.tensor([1e6]), *redshifts)
    monkeypatch.setattr(injection, "draw_lenses", lambda n, seed, spread: pool)
    return pool


def ratios(what, scatter, n=64):
    """Ratio (n, 5, S, S) of each band to i, where there is light, of what is injected into nothing."""
    images, mask = canvas(n, [FAINT] * 5)
    options = InjectionOptions(bands="g r i z y", colour_scatter=scatter)
    injected, _ = inject(images, mask, gaussian(1.5)[0].repeat(1, 5, 1, 1), what, seeded(), options)
    lit = (injected[:, 2] > 0.1)[:, None]
    return torch.where(lit, injected / injected[:, 2:3], torch.nan)


def spread(ratio):
    """By how much, in mag, the g - i of an image's pixels varies."""
    g = -2.5 * np.log10(ratio[:, 0].flatten(1).numpy())
    return np.nanmax(g, 1) - np.nanmin(g, 1)


@pytest.mark.parametrize(
    ("bands", "name"), [("r", "r"), ("g r", "r"), ("y", "y"), ("g r i", "i"), ("F814W", "i")]
)
def test_light_is_that_of_the_reference_band(bands, name):
    pool = draw_lenses(8)
    here, k = in_reference_band(pool, bands), BANDS.index(name)
    for kind, z, ours, theirs in (
        ("quasar", pool.z_source, here.flux[:, 0], pool.flux[:, 0]),
        ("E", pool.z_lens, here.deflector, pool.deflector),
    ):
        magnitudes = -2.5 * np.log10((ours / theirs).numpy())
        np.testing.assert_allclose(magnitudes, colours(kind, z.numpy())[:, k], atol=1e-5)


@pytest.mark.parametrize("band", ["g", "y"])
def test_a_single_band_gets_the_light_and_the_photon_noise_of_its_own(band, one_lens):
    images, mask = canvas(256, [1e-3])
    options = InjectionOptions(bands=band)

    def injected(**gain):
        return inject(images[:, 0], mask[:, 0], gaussian(1.5), "single", seeded(), replace(options, **gain))[
            0
        ]

    step = float(colours("quasar", np.array([2.0]))[0, BANDS.index(band)])
    total = injected().sum((1, 2)).median()
    assert float(total) == pytest.approx(400 * 10 ** (-0.4 * step), rel=0.02)
    noise = injected(gain=10.0) - injected()
    ratio = BAND.gain[BANDS.index(band)] / BAND.gain[BANDS.index("i")]
    assert float(noise.square().sum((1, 2)).mean() / (total / 10)) == pytest.approx(1 / ratio, rel=0.05)


@pytest.mark.parametrize("what", ["lens", "single"])
def test_all_images_of_a_source_have_one_spectrum_without_scatter(what, one_lens):
    ratio = ratios(what, 0.0)
    assert spread(ratio).max() < 0.01
    found = -2.5 * np.log10(np.nanmedian(ratio.flatten(2).numpy(), 2))
    if what == "lens":
        # Quasars at that redshift, which differ by their slopes, .16 mag of g - i.
        assert np.median(found, 0) == pytest.approx(colours("quasar", 2.0), abs=0.06)
    assert found[:, 2] == pytest.approx(np.zeros(64), abs=1e-6)


def test_dust_and_microlensing_change_the_colours_of_images_and_unrelated_sources_have_two(one_lens):
    believed, twice = (spread(ratios("lens", scatter)) for scatter in (1.0, 2.0))
    assert 0.02 < np.median(believed) < 0.4
    assert np.median(twice) > 1.5 * np.median(believed)
    assert np.median(spread(ratios("pair", 0.0))) > 0.4


def test_light_in_the_reference_band_is_that_of_one_band(one_lens):
    images, mask = canvas(32, [FAINT] * 3)
    options = InjectionOptions(bands="r i z")
    injected, _ = inject(images, mask, gaussian(1.5)[0].repeat(1, 3, 1, 1), "lens", seeded(), options)
    gained = (injected - images)[:, 1].sum((1, 2))
    assert torch.allclose(gained, torch.full((32,), 400.0), rtol=0.01)


@pytest.mark.parametrize("what", ["lens", "single", "pair"])
def test_images_of_one_band_are_injected_whether_it_is_named_or_not(what):
    images = canvas(6, [50.0])[0][:, 0]
    mask = torch.ones(images.shape, dtype=torch.bool)
    options = InjectionOptions(lenses=8, gain=10.0, bands="i")
    injected, _ = inject(images, mask, gaussian(1.5)[0][None], what, seeded(1), options)
    plain, _ = inject(images, mask, gaussian(1.5)[0][None], what, seeded(1), replace(options, bands=""))
    assert torch.equal(injected, plain)


@pytest.mark.parametrize("what", ["lens", "single", "pair"])
def test_another_order_of_the_bands_changes_the_order_alone(what):
    images, mask = canvas(8, [20.0, 60.0, 100.0, 130.0])
    images = images + 0.05 * torch.randn(images.shape, generator=seeded())
    mask[:, 1, :5] = False
    templates = torch.stack([gaussian(width)[0] for width in (1.8, 1.5, 1.2, 1.4)])[None]
    order = [2, 0, 3, 1]
    one, other = (
        inject(
            images[:, which],
            mask[:, which],
            templates[:, which],
            what,
            seeded(3),
            InjectionOptions(lenses=8, gain=10.0, bands=" ".join(np.array(list("griz"))[which])),
        )
        for which in ([0, 1, 2, 3], order)
    )
    assert torch.equal(one[0][:, order], other[0])
    assert torch.equal(one[1][:, order], other[1])
    assert not one[0][~one[1]].any()


@pytest.mark.parametrize(
    ("galaxy", "deflector"),
    [([50.0, 200.0, 400.0], 0.5), ([120.0, 200.0, 200.0], 0.9)],
    ids=["fainter than its deflector", "would have to be brighter in z"],
)
def test_a_galaxy_gets_light_and_colours_of_its_deflector_and_its_sky_keeps_its_noise(
    galaxy, deflector, monkeypatch
):
    nothing = torch.zeros(1, 4)
    images, mask = canvas(64, galaxy)
    sigma = torch.tensor([0.02, 0.05, 0.2])[:, None, None]
    noisy = images + sigma * torch.randn(images.shape, generator=seeded())
    light = float(concentration(images[:, 1], mask[:, 1])[1].mean())
    redshifts = torch.tensor([0.5]), torch.tensor([2.0])
    pool = Lenses(nothing, nothing, nothing, torch.tensor([light * deflector]), *redshifts)
    monkeypatch.setattr(injection, "draw_lenses", lambda n, seed, spread: pool)
    options = InjectionOptions(bands="r i z")
    injected, _ = inject(noisy, mask, gaussian(1.5)[0].repeat(1, 3, 1, 1), "lens", seeded(), options)
    early = 10 ** (-0.4 * colours("E", 0.5)[1:4])  # in r, i, z over that in i
    in_i = min(200 * deflector, galaxy[2] / early[2])  # no band is brighter than it was
    assert injected.sum((2, 3)).mean(0).tolist() == pytest.approx(in_i * early, rel=0.03)
    assert injected[..., :6, :6].std((0, 2, 3)).tolist() == pytest.approx([0.02, 0.05, 0.2], rel=0.06)


@pytest.mark.slow
def test_photon_noise_of_a_band_has_the_gain_of_the_band(one_lens):
    images, mask = canvas(512, [FAINT] * 2)
    templates = gaussian(1.5)[0].repeat(1, 2, 1, 1)
    clean, spoilt = (
        inject(images, mask, templates, "lens", seeded(), InjectionOptions(gain=gain, bands="i y"))[0]
        for gain in (None, 10.0)
    )
    noise = (spoilt - clean).sum((2, 3))
    expected = clean.sum((2, 3)).mean(0) / 10 * torch.tensor([1.0, typical("i")[2] / typical("y")[2]])
    assert noise.var(0).tolist() == pytest.approx(expected.tolist(), rel=0.25)


@pytest.mark.parametrize(("bands", "reference"), [("g r i", 2), ("z i", 1), ("g r", 1), ("y z r", 1)])
def test_the_reference_band_is_i_or_the_middle_one(bands, reference):
    images = torch.arange(3.0)[: len(bands.split())].view(1, -1, 1, 1).expand(2, -1, 4, 4)
    assert (reference_band(images, bands) == reference).all()


@pytest.mark.parametrize("bands", ["", "g r", "g r VIS", "g r i z"])
def test_bands_without_names_or_colours_are_errors(bands):
    images, mask = canvas(2, [1.0, 1.0, 1.0])
    options = InjectionOptions(lenses=8, bands=bands)
    with pytest.raises(ValueError, match="colours are known of g, r, i, z, y"):
        inject(images, mask, gaussian(1.5)[0].repeat(1, 3, 1, 1), "lens", seeded(), options)


def test_stars_and_galaxies_are_those_of_the_reference_band(tmp_path):
    survey = toy_survey(tmp_path / "survey", n=300, size=32)
    several = in_bands(survey, ("g", "i"), (3.0, 1.0))
    several.images[:, 0] = np.roll(several.images[:, 0], 1, -1)
    alone, both = (point_sources(each, n=4) for each in (survey, several))
    assert both.shape == (len(alone), 2, 32, 32)
    assert torch.equal(both[:, 1], alone)
    # The planes move as one, so that g stays a pixel off, where what fades at the edge is little.
    off = (both[:, 0].sum(1) * torch.from_numpy(np.arange(32) - 15.5)).sum(1)
    assert off.tolist() == pytest.approx([1.0] * len(off), abs=0.1)
    rows = survey.rows("train")
    np.testing.assert_array_equal(extended(several, rows), extended(survey, rows))
    assert injection_options(several).bands == "g i"


def test_a_survey_with_injected_lenses_has_all_bands_and_the_same_lenses(tmp_path):
    survey = toy_survey(tmp_path / "survey", n=500, size=32)
    several = in_bands(survey, ("g", "r", "i"), (0.5, 0.8, 1.0))
    rows = np.arange(300)
    one, three = (injected_survey(each, rows, n=8) for each in (survey, several))
    assert three.images.shape == three.mask.shape == (308, 3, 32, 32)
    assert three.truth.equals(one.truth)
    np.testing.assert_array_equal(three.images[:300, 2], one.images[:300])
    np.testing.assert_array_equal(three.mask[:300, 2], one.mask[:300])
    assert np.isfinite(three.images).all()


def test_unrelated_sources_are_quasars_stars_and_galaxies_in_the_stated_shares():
    z = np.full((4000, 2), 2.0)
    drawn = draw_unrelated(z, np.random.default_rng(0))
    assert drawn.shape == (4000, 2, 5)
    assert (drawn[..., 2] == 0).all()
    # All quasars at 2 have this g - i within .5, some stars and galaxies as well.
    blue = abs(drawn[..., 0] - colours("quasar", 2.0)[0]) < 0.5
    assert COLOURS.pair_quasars < blue.mean() < COLOURS.pair_quasars + 0.35
    assert np.corrcoef(drawn[:, 0, 0], drawn[:, 1, 0])[0, 1] == pytest.approx(0, abs=0.05)


def test_redshifts_of_the_pool_are_those_of_its_lenses():
    pool = draw_lenses(8)
    assert pool.z_lens.shape == pool.z_source.shape == (8,)
    assert (pool.z_source > pool.z_lens).all()
    assert set(BANDS) == set("grizy")

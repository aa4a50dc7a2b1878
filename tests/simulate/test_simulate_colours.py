"""The simulated survey in several bands: spectra against published colours, and what a band leaves alone."""

import galsim
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from lensq.simulate import simulate_survey
from lensq.simulate.artefacts import IN_ONE_BAND
from lensq.simulate.colours import draw_changes, draw_colours, draw_field_redshift, draw_quasar, draw_stars
from lensq.simulate.cutout import Target, make_cutout
from lensq.simulate.observe import draw_conditions, typical
from lensq.simulate.parameters import BAND, COLOURS
from lensq.simulate.scenes import CLASSES, make_scene, neighbours
from lensq.simulate.spectra import (
    BANDS,
    TILT,
    colours,
    extinction,
    reddening,
    star_colours,
    transmission,
)

QUIET = {"progress": False, "workers": 1}


def adjacent(steps):
    """Colours g - r, r - i, i - z, z - y of magnitudes relative to i."""
    return -np.diff(steps)


@pytest.mark.parametrize("kind", ["Sbc", "Scd", "Im"])
@pytest.mark.parametrize("z", [0.0, 0.4, 1.0])
def test_colours_of_templates_are_those_that_galsim_computes(kind, z):
    template = galsim.SED(f"CWW_{kind}_ext.sed", "Ang", "flambda").atRedshift(z)
    magnitudes = []
    for band, centre in zip(BANDS, BAND.wavelength, strict=True):
        curve = galsim.Bandpass(f"LSST_{band}.dat", "nm")
        wavelength = np.linspace(curve.blue_limit, curve.red_limit, 2000)
        light = curve(wavelength)
        pivot = np.sqrt(
            np.trapezoid(light * wavelength, wavelength) / np.trapezoid(light / wavelength, wavelength)
        )
        moved = galsim.Bandpass(galsim.LookupTable(wavelength * centre / pivot, light, "linear"), "nm")
        magnitudes.append(template.calculateMagnitude(moved.withZeropoint("AB")))
    expected = np.array(magnitudes) - magnitudes[2]
    assert colours(kind, z) == pytest.approx(expected, abs=0.01)


# Medians of g - r, r - i, i - z: Richards et al. (2001, AJ 121, 2308), table 3.
@pytest.mark.parametrize(
    ("z", "published"),
    [
        (1.0, (0.239, -0.039, 0.032)),
        (1.2, (0.268, 0.032, -0.070)),
        (1.5, (0.150, 0.182, -0.028)),
        (1.8, (0.044, 0.270, 0.030)),
        (2.0, (0.064, 0.174, 0.177)),
        (2.4, (0.062, 0.077, 0.250)),
        (2.6, (0.172, 0.083, 0.252)),
    ],
)
def test_quasars_have_the_colours_of_those_of_sdss(z, published):
    assert adjacent(colours("quasar", z))[:3] == pytest.approx(published, abs=0.1)


def test_quasars_at_redshift_3_lie_where_the_few_of_sdss_do():
    # Richards et al. (2001), table 3: 20 quasars, their medians within .13 and the range of most of them.
    found = adjacent(colours("quasar", 3.0))[:3]
    assert found == pytest.approx((0.245, 0.088, 0.112), abs=0.13)
    assert (np.array([0.004, -0.126, -0.136]) < found).all()
    assert (found < np.array([0.804, 0.486, 0.280])).all()


@pytest.mark.parametrize(("z", "published"), [(3.6, 1.084), (3.8, 1.257), (4.0, 1.406)])
def test_hydrogen_reddens_distant_quasars_as_in_sdss(z, published):
    # g - r of Richards et al. (2001), table 3: 17 to 29 quasars each.
    assert adjacent(colours("quasar", z))[0] == pytest.approx(published, abs=0.15)


def test_early_types_have_published_colours_and_lie_on_the_locus_of_luminous_red_galaxies():
    # Fukugita, Shimasaku & Ichikawa (1995, PASP 107, 945), table 3: E at redshift 0.
    assert adjacent(colours("E", 0.0))[:2] == pytest.approx((0.77, 0.39), abs=0.1)
    for z in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35):
        g_r, r_i, _, _ = adjacent(colours("E", z))
        # Eisenstein et al. (2001, AJ 122, 2267), equation 2: c_perp = 0 up to redshift .4.
        assert r_i - g_r / 4 - 0.18 == pytest.approx(0, abs=0.1)


def test_stars_lie_on_the_locus_of_sdss():
    g_i = np.linspace(0.35, 2.9, 40)
    g_r, r_i = adjacent(star_colours(g_i))[:, :2].T
    # Juric et al. (2008, ApJ 673, 864), equation 4.
    expected = 1.39 * (1 - np.exp(-4.9 * r_i**3 - 2.45 * r_i**2 - 1.68 * r_i - 0.05))
    assert g_r == pytest.approx(expected, abs=0.1)
    assert g_r + r_i == pytest.approx(g_i, abs=0.011)
    drawn = draw_stars(4000, np.random.default_rng(0))
    assert (drawn[:, 2] == 0).all()
    off = adjacent(drawn)[:, 0] - adjacent(star_colours(drawn[:, 0]))[:, 0]
    assert off.std() < 0.05  # Covey et al. (2007, AJ 134, 2398), table 3
    assert 0.3 < np.quantile(drawn[:, 0], 0.01) < np.quantile(drawn[:, 0], 0.99) < 3.2


def test_hydrogen_absorbs_as_much_as_is_seen():
    # Madau (1995, ApJ 441, 18): exp(-.0036 (1+z)^3.46) at Lyman alpha.
    wavelength = np.array([50.0, 110.0, 121.5, 130.0]) * 4
    found = transmission(wavelength, 3.0)
    assert found[3] == 1
    assert found[2] == pytest.approx(np.exp(-0.0036 * (4 * 121.5 / 121.6) ** 3.46))
    assert found[0] < 0.1 < found[1] < 1
    assert (transmission(wavelength, 0.1) == 1).sum() >= 3


def test_extinction_is_that_of_cardelli_clayton_and_mathis():
    # Cardelli et al. (1989, ApJ 345, 245), table 3, R_V = 3.1: A / A(V) at K, R, V, B, U, 2175 Angstrom.
    wavelength = np.array([2200, 700, 550, 440, 365, 217.5])
    expected = 3.1 * np.array([0.114, 0.751, 1.0, 1.337, 1.569, 3.18])
    assert extinction(wavelength) == pytest.approx(expected, rel=0.03)
    assert (np.diff(reddening(0.5)) < 0).all()


def test_images_of_a_lens_have_one_colour_without_scatter_and_the_stated_one_with_it():
    rng = np.random.default_rng(0)
    dust, redder, changes = draw_changes(np.full(3, 0.5), 2, rng, 0.0)
    assert not dust.any()
    assert not redder.any()
    assert changes.shape == (3, 2, 5)
    assert not changes.any()
    dust, redder, changes = draw_changes(np.full(20_000, 0.5), 2, rng)
    apart = abs(dust[:, 0] - dust[:, 1])
    assert (apart == 0).mean() == pytest.approx(7 / 23, abs=0.02)  # Falco et al. (1999, ApJ 523, 617)
    assert np.median(apart) == pytest.approx(0.04, abs=0.004)
    assert redder.std() == pytest.approx(COLOURS.microlensing, rel=0.03)
    assert (changes[..., 2] == 0).all()
    clear = dust == 0
    assert changes[clear][:, 0] == pytest.approx(redder[clear])
    assert changes[clear] == pytest.approx(redder[clear][:, None] * TILT)
    twice = draw_changes(np.full(20_000, 0.5), 2, rng, 2.0)
    assert twice[0].mean() == pytest.approx(2 * dust.mean(), rel=0.05)


def test_flux_ratios_are_the_same_in_all_bands_without_scatter_alone():
    scene = make_scene("lens", np.random.default_rng(3))
    magnitudes = [20.0] * len(scene.kinds)
    images = [i for i, kind in enumerate(scene.kinds) if kind == "image"]
    for scatter, same in ((0.0, True), (1.0, False)):
        steps, columns = draw_colours(scene.kinds, magnitudes, scene.truth, np.random.default_rng(1), scatter)
        assert np.allclose(steps[images], steps[images[0]]) == same
        assert len(columns["image_reddening"]) == len(columns["image_microlensing"]) == len(images)
    deflector = scene.kinds.index("deflector")
    expected = colours("E", scene.truth["z_lens"])
    off = steps[deflector] - expected
    assert off == pytest.approx(off[0] * TILT)


def test_unrelated_objects_have_colours_of_their_own():
    apart = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scene = make_scene("star_galaxy", rng)
        steps, columns = draw_colours(scene.kinds, [20, 20], scene.truth, rng, 1.0)
        assert columns == {}
        apart.append(abs(steps[0, 0] - steps[1, 0]))
    assert np.median(apart) > 0.3
    assert min(apart) > 0


@pytest.mark.parametrize("name", ["lens", *CLASSES])
def test_every_part_of_every_scene_has_a_spectrum(name):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scene = make_scene(name, rng)
        assert len(scene.kinds) == len(scene.parts) == len(scene.rescaled(1.0).kinds)
        steps, _ = draw_colours(scene.kinds, [20.0] * len(scene.parts), scene.truth, rng, 1.0)
        assert (steps[:, 2] == 0).all()
        assert np.isfinite(steps).all()
        assert (abs(steps[:, [0, 1, 3, 4]]) > 0).all()
    around = neighbours(np.random.default_rng(0), 20.0)
    assert len(around.kinds) == len(around.parts) > 0


def test_fainter_galaxies_are_farther():
    rng = np.random.default_rng(0)
    near, far = (np.mean([draw_field_redshift(m, rng) for _ in range(2000)]) for m in (19, 24))
    # 3 z0 is the mean of z^2 exp(-z/z0): LSST Science Collaboration (2009), equation 3.8.
    assert near == pytest.approx(3 * 0.05, rel=0.05)
    assert far == pytest.approx(3 * (0.0417 * 24 - 0.744), rel=0.05)


@pytest.mark.parametrize(("name", "index"), [("lens", 1), ("spiral", 2), ("star_galaxy", 3), ("artefact", 4)])
def test_a_band_has_the_same_pixels_whatever_the_others_are(name, index):
    target = Target(name, index)
    alone = make_cutout(target, seed=5, size=40)
    every = make_cutout(target, seed=5, size=40, bands="grizy")
    some = make_cutout(target, seed=5, size=40, bands="zi")
    assert alone.image.shape == (40, 40)
    assert every.image.shape == (5, 40, 40)
    np.testing.assert_array_equal(every.image[2], alone.image)
    np.testing.assert_array_equal(some.image, every.image[[3, 2]])
    assert alone.truth == {key: value for key, value in every.truth.items() if key in alone.truth}
    assert {key for key in every.truth if key not in alone.truth} >= {"g_i", "r_i", "z_i", "y_i"}
    assert "g_i" not in some.truth
    assert some.truth["z_i"] == every.truth["z_i"]


@pytest.mark.parametrize("index", range(3))
def test_pixels_of_a_band_are_as_bright_as_the_truth_says(index):
    cutout = make_cutout(Target("spiral", index), seed=5, size=64, bands="grizy")
    y, x = np.mgrid[:64, :64]
    x0, y0 = (31.5 + cutout.truth[f"centre_{axis}"] / 0.168 for axis in "xy")
    light = cutout.image[:, np.hypot(x - x0, y - y0) < 16].sum(1)
    found = -2.5 * np.log10(light / light[2])
    expected = [cutout.truth.get(f"{band}_i", 0) for band in BANDS]
    assert found == pytest.approx(expected, abs=0.1)


def test_second_cutouts_share_pixels_in_every_band():
    shift = (13, -5)
    first, second = (
        make_cutout(Target("star_star", 10 + k, shift, bool(k)), seed=1, size=48, bands="gi").image
        for k in (0, 1)
    )
    np.testing.assert_array_equal(first[:, :43, 13:], second[:, 5:, :35])


def test_artefacts_are_in_all_bands_or_in_i_alone():
    seen = set()
    for index in range(60):
        cutout = make_cutout(Target("artefact", index), seed=2, size=32, bands="gi")
        kind = cutout.truth["artefact"]
        seen.add(kind)
        if kind == "gap":
            assert np.isnan(cutout.image[1]).any()
            assert np.isfinite(cutout.image[0]).all()
        if kind == "edge":
            np.testing.assert_array_equal(np.isnan(cutout.image[0]), np.isnan(cutout.image[1]))
        if kind == "halo":
            assert np.median(cutout.image[0]) > 0.5
    assert set(IN_ONE_BAND) < seen


@pytest.mark.parametrize("band", BANDS)
def test_noise_and_seeing_are_those_of_the_depth(band):
    k = BANDS.index(band)
    drawn = [draw_conditions(np.random.default_rng(seed), band) for seed in range(400)]
    seeing = np.median([each.seeing for each in drawn])
    noise = np.median([each.sky for each in drawn])
    assert seeing == pytest.approx(BAND.seeing[k], rel=0.04)
    # Five sigma of a point source is proportional to noise times seeing, whatever the PSF's shape.
    reference = typical("i")
    fainter = -2.5 * np.log10(noise * BAND.seeing[k] / (reference[1] * BAND.seeing[2]))
    assert fainter == pytest.approx(BAND.depth[k] - BAND.depth[2], abs=0.03)


@pytest.mark.slow
def test_files_are_one_a_band_and_i_is_that_of_a_survey_in_i(tmp_path):
    one = simulate_survey(tmp_path / "i", 12, seed=3, anomaly_rate=0.5, **QUIET)
    five = simulate_survey(tmp_path / "grizy", 12, seed=3, anomaly_rate=0.5, bands="grizy", **QUIET)
    for path in (one / "fits_data").iterdir():
        assert path.read_bytes() == (five / "fits_data" / path.name).read_bytes()
    assert len(list((five / "fits_data").iterdir())) == 60
    for name in ("raw", "selected", "graded"):
        file = f"candidates_list_{name}.txt"
        assert (one / file).read_text() == (five / file).read_text()
    with fits.open(next((five / "fits_data").glob("*_HSC-Y_img.fits"))) as hdus:
        hdus.verify("exception")
        assert hdus[0].header["FILTER"] == "HSC-Y"
        assert hdus[0].header["FLUXMAG0"] == pytest.approx(10 ** (0.4 * 27))
    alone, truth = (pd.read_parquet(folder / "truth.parquet") for folder in (one, five))
    pd.testing.assert_frame_equal(alone, truth[alone.columns])
    more = [name for name in truth if name not in alone]
    assert more == ["g_i", "r_i", "z_i", "y_i", "image_reddening", "image_microlensing"]
    lenses = truth[truth["is_lens"]]
    assert truth[more[:4]].notna().all().all()
    for _, lens in lenses.iterrows():
        assert len(lens["image_reddening"]) == len(lens["image_microlensing"]) == lens["n_images"]
        assert min(lens["image_reddening"]) >= 0
    assert truth.loc[~truth["is_lens"], "image_reddening"].isna().all()


@pytest.mark.slow
def test_a_survey_in_bands_grows_like_any_other(tmp_path):
    whole = simulate_survey(tmp_path / "whole", 12, seed=3, bands="gi", **QUIET)
    pieces = simulate_survey(tmp_path / "pieces", 5, seed=3, bands="gi", **QUIET)
    simulate_survey(pieces, 12, seed=3, bands="gi", **QUIET)
    for path in (whole / "fits_data").iterdir():
        assert path.read_bytes() == (pieces / "fits_data" / path.name).read_bytes()
    simulate_survey(pieces, 12, seed=3, bands="ig", **QUIET)  # is there already
    with pytest.raises(ValueError, match="bands = gi"):
        simulate_survey(pieces, 12, seed=3, **QUIET)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": "u"}, "some of grizy"),
        ({"bands": ""}, "some of grizy"),
        ({"bands": "gg"}, "each once"),
        ({"colour_scatter": -1}, "factor"),
        ({"colour_scatter": float("nan")}, "factor"),
    ],
)
def test_impossible_bands_are_errors_before_any_work(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        simulate_survey(tmp_path / "survey", 5, seed=1, **change, **QUIET)
    assert not (tmp_path / "survey").exists()


def test_quasars_differ_by_their_slopes():
    drawn = draw_quasar(np.full(4000, 1.5), np.random.default_rng(0))
    off = drawn - colours("quasar", 1.5)
    # A spectral index that is lower by d makes g - i redder by 2.5 d log10(lambda_i / lambda_g).
    assert off[:, 0].std() == pytest.approx(0.3 * 2.5 * np.log10(773 / 479), rel=0.05)
    assert off == pytest.approx(off[:, :1] * TILT)

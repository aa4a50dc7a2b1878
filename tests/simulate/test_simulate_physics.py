"""The physics of the simulated survey: lensing, light, telescope, population."""

import galsim
import numpy as np
import pandas as pd
import pytest
from astropy.cosmology import FlatLambdaCDM
from astropy.io import fits
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from lensq.figures import quantile_panels
from lensq.simulate import light
from lensq.simulate.artefacts import ARTEFACTS, spoil
from lensq.simulate.cosmology import arcsec_from_kpc, distance_modulus, einstein_radius, volume_element
from lensq.simulate.fits import write_fits
from lensq.simulate.lens_equation import SIEWithShear, magnification, ray_shooting, solve
from lensq.simulate.observe import Conditions, add_noise, draw_conditions, render
from lensq.simulate.om10 import LEVELS, OM10_QUADS, OM10_QUANTILES, compare_with_om10
from lensq.simulate.parameters import COSMOLOGY, INSTRUMENT, LENSES, MIXES, parameter_table
from lensq.simulate.population import break_magnitude, draw_lens
from lensq.simulate.scenes import CLASSES, make_scene

LENSTRONOMY = LensModel(["SIE", "SHEAR"])


@pytest.fixture(scope="module")
def lenses():
    rng = np.random.default_rng(5)
    return [draw_lens(rng) for _ in range(500)]


@pytest.fixture
def conditions():
    return draw_conditions(np.random.default_rng(3))


def keywords(lens) -> list[dict]:
    """The lens as keyword arguments of lenstronomy's models "SIE" and "SHEAR"."""
    modulus = (1 - lens.axis_ratio) / (1 + lens.axis_ratio)
    return [
        {
            "theta_E": lens.einstein_radius,
            "e1": modulus * np.cos(2 * lens.angle),
            "e2": modulus * np.sin(2 * lens.angle),
            "center_x": 0.0,
            "center_y": 0.0,
        },
        {
            "gamma1": lens.shear * np.cos(2 * lens.shear_angle),
            "gamma2": lens.shear * np.sin(2 * lens.shear_angle),
        },
    ]


def random_lenses(n: int, seed: int = 0) -> tuple[SIEWithShear, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lens = SIEWithShear(
        rng.uniform(0.3, 2, n),
        rng.uniform(0.3, 0.98, n),
        rng.uniform(0, np.pi, n),
        rng.uniform(0, 0.15, n),
        rng.uniform(0, np.pi, n),
    )
    return lens, *(rng.uniform(-0.8, 0.8, (2, n)) * lens.einstein_radius)


@pytest.mark.slow
def test_images_and_magnifications_agree_with_lenstronomy():
    lens, source_x, source_y = random_lenses(40)
    row, x, y = solve(source_x, source_y, lens)
    solver = LensEquationSolver(LENSTRONOMY)
    strength = np.abs(magnification(x, y, lens[row]))
    for i in range(40):
        model = keywords(lens[i])
        their_x, their_y = solver.image_position_from_source(
            source_x[i], source_y[i], model, solver="analytical"
        )
        theirs = np.abs(LENSTRONOMY.magnification(their_x, their_y, model))
        ours = row == i
        seen, their_seen = strength[ours] > 0.05, theirs > 0.05
        assert seen.sum() == their_seen.sum() >= 1
        order, their_order = np.argsort(x[ours][seen]), np.argsort(their_x[their_seen])
        np.testing.assert_allclose(x[ours][seen][order], their_x[their_seen][their_order], atol=1e-7)
        np.testing.assert_allclose(y[ours][seen][order], their_y[their_seen][their_order], atol=1e-7)
        np.testing.assert_allclose(
            strength[ours][seen][order], theirs[their_seen][their_order], rtol=2e-3, atol=1e-6
        )


@pytest.mark.slow
def test_every_image_of_the_population_satisfies_the_lens_equation(lenses):
    for lens in lenses[:60]:
        back_x, back_y = LENSTRONOMY.ray_shooting(lens.x, lens.y, keywords(lens.lens))
        np.testing.assert_allclose(back_x, lens.source_x, atol=1e-6)
        np.testing.assert_allclose(back_y, lens.source_y, atol=1e-6)


def test_magnification_is_the_inverse_area_by_finite_differences():
    lens, source_x, source_y = random_lenses(50, seed=1)
    row, x, y = solve(source_x, source_y, lens)
    at, step = lens[row], 1e-5
    right, left = ray_shooting(x + step, y, at), ray_shooting(x - step, y, at)
    up, down = ray_shooting(x, y + step, at), ray_shooting(x, y - step, at)
    jacobian = [
        (right[0] - left[0]) / 2 / step,
        (up[0] - down[0]) / 2 / step,
        (right[1] - left[1]) / 2 / step,
        (up[1] - down[1]) / 2 / step,
    ]
    area = jacobian[0] * jacobian[3] - jacobian[1] * jacobian[2]
    np.testing.assert_allclose(1 / magnification(x, y, at), area, atol=2e-4)


def test_a_round_lens_without_shear_has_the_closed_form_images():
    lens = SIEWithShear(*(np.array([v]) for v in (1.2, 1 - 1e-9, 0.3, 0.0, 0.0)))
    source = 0.5
    _, x, y = solve(np.array([source]), np.array([0.0]), lens)
    np.testing.assert_allclose(np.sort(x), [source - 1.2, source + 1.2], atol=1e-6)
    np.testing.assert_allclose(y, 0, atol=1e-6)
    expected = 1 / (1 - 1.2 / np.abs(x))
    np.testing.assert_allclose(magnification(x, y, lens), expected, rtol=1e-5)


def test_source_far_outside_the_caustic_has_one_image():
    lens, *_ = random_lenses(20, seed=2)
    row, *_ = solve(3 * lens.einstein_radius, 2 * lens.einstein_radius, lens)
    assert np.bincount(row, minlength=20).tolist() == [1] * 20


def test_einstein_radius_and_distances():
    assert einstein_radius(220.0, 1.0, 0.5) == 0
    known = FlatLambdaCDM(COSMOLOGY.hubble, COSMOLOGY.omega_matter)
    far, between = known.angular_diameter_distance(2.0), known.angular_diameter_distance(0.5, 2.0)
    radius = 4 * np.pi * (220.0 / 299_792.458) ** 2 * float(between / far) * 206_264.806
    assert einstein_radius(220.0, 0.5, 2.0) == pytest.approx(radius, rel=1e-4)
    assert distance_modulus(1.0) == pytest.approx(known.distmod(1.0).value, abs=1e-3)
    volume = known.differential_comoving_volume(1.0).value
    assert volume_element(1.0) == pytest.approx(volume, rel=1e-3)
    scale = known.kpc_proper_per_arcmin(0.7).value / 60
    assert arcsec_from_kpc(5.0, 0.7) == pytest.approx(5.0 / scale, rel=1e-3)


def test_quasar_break_magnitude():
    assert break_magnitude(2.01) == pytest.approx(-25.59096969, abs=1e-6)  # the value slsim tests


@pytest.mark.slow
def test_cuts_hold_and_magnitudes_follow_magnifications(lenses):
    for lens in lenses:
        assert LENSES.separation_limits[0] - 1e-3 < lens.separation < LENSES.separation_limits[1] + 1e-3
        assert lens.flux_ratio > LENSES.smallest_flux_ratio - 1e-3
        assert LENSES.total_limits[0] - 1e-3 < lens.magnitude_i < LENSES.total_limits[1] + 1e-3
        assert LENSES.deflector_limits[0] < lens.deflector_magnitude < LENSES.deflector_limits[1]
        assert np.all(np.diff(lens.magnification) <= 0)
        np.testing.assert_allclose(
            lens.magnitudes, lens.source_magnitude - 2.5 * np.log10(lens.magnification)
        )
        assert lens.z_source > lens.z_lens


@pytest.mark.slow
def test_population_agrees_with_om10(lenses):
    truth = pd.DataFrame(
        {
            "is_lens": True,
            "separation": [s.separation for s in lenses],
            "magnitude_i": [s.magnitude_i for s in lenses],
            "flux_ratio": [s.flux_ratio for s in lenses],
            "n_images": [len(s.x) for s in lenses],
            "deflector_magnitude": [s.deflector_magnitude for s in lenses],
            "z_lens": [s.z_lens for s in lenses],
            "z_source": [s.z_source for s in lenses],
            "sigma_v": [s.sigma_v for s in lenses],
            "ellipticity": [1 - s.lens.axis_ratio for s in lenses],
            "shear": [s.lens.shear for s in lenses],
        }
    )
    table = compare_with_om10(truth)
    assert len(table) == len(OM10_QUANTILES) * len(LEVELS) + 1
    distance = (table["simulated"] - table["om10"]).abs()
    allowed = table["tolerance"] + 2 * table["error"]
    assert (distance <= allowed).all(), table[distance > allowed]
    magnitudes = table["quantity"].isin(["magnitude_i", "deflector_magnitude", "deflector minus quasars"])
    assert (table.loc[magnitudes, "tolerance"] == 0.2).all()
    quads = table["quantity"] == "quads"
    assert table.loc[quads, "tolerance"].tolist() == [0.03]
    share = table["tolerance"] / table["om10"]
    assert share[~magnitudes & ~quads].to_numpy() == pytest.approx(0.15)
    assert table.loc[table["quantile"] == 0.5, "agrees"].all()
    figure = quantile_panels(table)
    drawn = {axis.get_title(): axis.containers[0].lines[0].get_xydata() for axis in figure.axes}
    assert len(drawn) == len(OM10_QUANTILES)
    separations = table[table["quantity"] == "separation"]
    np.testing.assert_array_equal(drawn["separation (arcsec)"], separations[["om10", "simulated"]])
    assert table.iloc[-1]["om10"] == OM10_QUADS
    with pytest.raises(ValueError, match="at least 20"):
        compare_with_om10(truth.head(5))


@pytest.mark.parametrize("name", [*CLASSES, "lens"])
def test_image_holds_the_flux_of_its_parts(name, conditions):
    scene = make_scene(name, np.random.default_rng(8))
    image = render(scene.parts, conditions.psf, (400, 400))
    assert image.sum() == pytest.approx(scene.flux, rel=0.01)
    assert scene.flux == pytest.approx(sum(part.flux for part in scene.parts))


def test_rescaled_scene_keeps_its_contrasts():
    scene = make_scene("quasar_companion", np.random.default_rng(2))
    faint = scene.rescaled(1.5)
    assert light.magnitude(faint.flux) == pytest.approx(light.magnitude(scene.flux) + 1.5)
    assert faint.truth["point_magnitude"] == pytest.approx(scene.truth["point_magnitude"] + 1.5)
    assert faint.truth["companion_separation"] == scene.truth["companion_separation"]
    assert faint.resemblance[1] == pytest.approx(scene.resemblance[1] * 10**-0.6)


def test_zero_point_from_the_file_recovers_the_magnitude(tmp_path, conditions):
    image = render([light.point(20.0)], conditions.psf, (64, 64), (0.3, -0.2))
    image = add_noise(image, conditions, np.random.default_rng(1)).astype(np.float32)
    write_fits(tmp_path / "star.fits", image, 150.0, 2.0)
    with fits.open(tmp_path / "star.fits") as hdus:
        hdus.verify("exception")
        pixels, zero = hdus[1].data, hdus[0].header["FLUXMAG0"]
    y, x = np.mgrid[:64, :64]
    aperture = np.hypot(x - 31.8, y - 31.3) < 24
    assert -2.5 * np.log10(pixels[aperture].sum() / zero) == pytest.approx(20.0, abs=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_fwhm_of_the_psf_is_recovered(seed):
    conditions = draw_conditions(np.random.default_rng(seed))
    fine = conditions.psf.drawImage(nx=301, ny=301, scale=0.02, method="no_pixel")
    assert fine.calculateFWHM() == pytest.approx(conditions.seeing, rel=0.02)
    star = render([light.point(19.0)], conditions.psf, (65, 65))
    measured = galsim.Image(star, scale=INSTRUMENT.pixel_scale).calculateFWHM()
    assert measured == pytest.approx(np.hypot(conditions.seeing, 0.13), rel=0.05)  # pixel adds its width


def test_noise_follows_sky_and_gain(conditions):
    known = Conditions(conditions.psf, 0.6, sky=0.05, gain=4000.0, exposures=6)
    for level in (0.0, 20.0, 400.0):
        flat = np.full((400, 400), level)
        noise = add_noise(flat, known, np.random.default_rng(4)) - flat
        assert noise.var() == pytest.approx(0.05**2 + level / 4000.0, rel=0.03)
        assert abs(noise.mean()) < 4 * noise.std() / 400 * 1.3
        neighbour = np.mean(noise[:, 1:] * noise[:, :-1]) / noise.var()
        low, high = INSTRUMENT.resampling
        assert 2 * low - 0.03 < neighbour < 2 * high + 0.03


def test_lensed_arcs_carry_the_magnified_flux(lenses):
    lens = max(lenses, key=lambda item: item.magnification.sum())
    arcs = light.arcs(lens, 23.0, np.random.default_rng(0)).light
    factor = arcs.flux / light.counts(23.0)
    assert 1 < factor < 2 * lens.magnification.sum()


@pytest.mark.parametrize("seed", range(3))
def test_shape_in_the_truth_is_that_of_the_light(seed):
    """Second moments of a profile with elliptical isophotes: axis ratio, angle and half-light radius."""
    galaxy = light.elliptical(20.0, np.random.default_rng(seed))
    step = 0.02 * galaxy.radius
    image = galaxy.light.drawImage(nx=801, ny=801, scale=step, method="no_pixel").array.astype(float)
    y, x = np.mgrid[-400:401, -400:401] * step
    xx, yy, xy = (np.average(q, weights=image) for q in (x * x, y * y, x * y))
    half = np.hypot((xx - yy) / 2, xy)
    assert np.sqrt(((xx + yy) / 2 - half) / ((xx + yy) / 2 + half)) == pytest.approx(
        galaxy.axis_ratio, abs=0.01
    )
    rotated = 0.5 * np.arctan2(2 * xy, xx - yy) - galaxy.angle
    assert np.sin(rotated) == pytest.approx(0, abs=0.02)
    c, s = np.cos(galaxy.angle), np.sin(galaxy.angle)
    q = galaxy.axis_ratio
    inside = q * (c * x + s * y) ** 2 + (c * y - s * x) ** 2 / q < galaxy.radius**2
    assert image[inside].sum() / image.sum() == pytest.approx(0.5, abs=0.04)
    assert galaxy.truth("host") == {
        "host_radius": galaxy.radius,
        "host_ellipticity": 1 - galaxy.axis_ratio,
        "host_angle": galaxy.angle,
    }


def test_every_galaxy_leaves_its_shape_in_the_truth():
    rng = np.random.default_rng(0)
    for name, prefixes in {
        "point": {"host"},
        "elliptical": {"galaxy"},
        "disk": {"galaxy"},
        "spiral": {"galaxy"},
        "clumpy": {"galaxy"},
        "star_galaxy": {"galaxy"},
        "star_star": set(),
        "quasar_companion": {"galaxy", "host"},
        "pair_galaxy": {"galaxy"},
        "merger": {"galaxy"},
    }.items():
        truth = make_scene(name, rng).truth
        assert {key.split("_")[0] for key in truth if key.endswith("_angle")} == prefixes
        for prefix in prefixes:
            assert 0 < truth[f"{prefix}_radius"] < 5
            assert 0 <= truth[f"{prefix}_ellipticity"] < 0.85
            assert 0 <= truth[f"{prefix}_angle"] <= np.pi
    lens = make_scene("lens", rng).truth
    assert 0 <= lens["deflector_ellipticity"] <= 0.65
    assert abs(np.sin(lens["deflector_angle"] - lens["position_angle"])) < 0.8


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_artefacts_change_pixels_and_leave_the_input(kind):
    image = np.random.default_rng(0).normal(0, 0.05, (48, 48))
    before = image.copy()
    spoilt = ARTEFACTS[kind](image, np.random.default_rng(1))
    np.testing.assert_array_equal(image, before)
    assert spoilt.shape == image.shape
    assert (spoilt != image).any()
    if kind == "gap":
        assert np.isnan(spoilt).any()


def test_light_of_an_artefact_has_photon_noise():
    rng, seen = np.random.default_rng(0), 0
    for _ in range(60):
        spoilt, kind = spoil(np.zeros((64, 64)), 100.0, rng)
        if kind == "halo":
            rough = np.diff(spoilt, axis=1).std() / np.sqrt(2)
            assert rough == pytest.approx(np.sqrt(spoilt.mean() / 100.0), rel=0.25)
            seen += 1
    assert seen > 0


def test_parameter_table_is_complete():
    table = parameter_table()
    assert list(table) == ["group", "parameter", "value", "unit", "source", "check"]
    assert not table.duplicated(["group", "parameter"]).any()
    assert (table["source"].str.len() > 0).all()
    known = ("choice", "measured", "checked", "not checked")
    assert table["check"].str.startswith(known).all()
    for shares in MIXES.values():
        assert sum(shares.values()) == pytest.approx(1.0)
        assert list(shares) == list(CLASSES)

"""Fits of one point source and of two: fluxes and chi-squared against what one computes by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_in_bands, toy_survey

from lensq.classifiers.pointfits import ENOUGH, PointFits, _Cutouts, with_point_fits

PSF = ((2.0, 0.5), (8.0, 0.5))
EXACT = PointFits(PSF, misfit=0.0)


def points(*sources, size=32, psf=PSF):
    """Point sources (x, y, flux), x and y in pixels from the centre, in an image (size, size)."""
    grid = torch.arange(size) - (size - 1) / 2
    image = torch.zeros(size, size)
    for x, y, flux in sources:
        squared = (grid - x) ** 2 + (grid[:, None] - y) ** 2
        for variance, share in psf:
            image += flux * share / (2 * np.pi * variance) * torch.exp(-squared / (2 * variance))
    return image


def fit(images, fits=EXACT, noise=1.0):
    images = images if images.dim() == 3 else images[None]
    return fits.fit(images, torch.ones(images.shape, dtype=torch.bool), torch.full((len(images),), noise))


def test_the_derivatives_of_the_model_are_those_of_its_values():
    shape = (2, 12, 12)
    grid = torch.arange(12).double() - 5.5
    cutouts = _Cutouts(EXACT, torch.zeros(shape).double(), torch.ones(shape).double(), grid)
    theta = torch.rand(2, 14, generator=torch.Generator().manual_seed(0)).double()
    theta[:, [1, 4]] += 0.5
    by = cutouts.model(theta)[1]
    for k in range(14):
        step = 1e-5 * torch.eye(14)[k].double()
        slope = (cutouts.model(theta + step)[0] - cutouts.model(theta - step)[0]) / 2e-5
        assert torch.allclose(by[k], slope, atol=1e-7), k


@pytest.mark.parametrize("separation", [3.0, 5.0, 8.0])
def test_two_points_without_noise_come_back_with_their_fluxes_and_places(separation):
    half = separation / 2
    truth = [(-half, 0.6, 3000.0), (half, -0.7, 1200.0)]
    one, two, theta = fit(points(*truth))
    found = sorted(theta[0, 8:].reshape(2, 3).tolist())
    assert found[0] == pytest.approx(truth[0], rel=0.02, abs=0.05)
    assert found[1] == pytest.approx(truth[1], rel=0.02, abs=0.05)
    assert two.item() < 1 < 100 < one.item()


@pytest.mark.slow
def test_the_chi_squared_is_that_of_the_residual():
    """Where one source is all there is, chi-squared is the sum of the squared noise less what is fitted."""
    noise = torch.randn(200, 32, 32, generator=torch.Generator().manual_seed(1))
    one, two, _ = fit(points((0.3, -0.2, 2000.0)) + noise)
    grid = torch.arange(32) - 15.5
    pixels = int((torch.hypot(grid[:, None], grid) <= EXACT.window).sum())
    # 11 free parameters, of which those of a galaxy without flux matter less, and a prior on one.
    assert pixels - 11 < one.mean().item() < pixels - 3
    # Three more parameters, one a place that is searched for over some ten resolved ones.
    gain = one - two
    assert 3 < gain.mean().item() < 15
    assert gain.quantile(0.95).item() < 30
    assert gain.min().item() > -1


def test_two_sources_against_one_grow_with_the_square_of_their_flux():
    """Without noise and far apart: what the one source and the galaxy leave scales as flux squared."""
    faint, bright = (fit(points((-4, 0, f), (4, 0, f), (0, 6, f)))[0].item() for f in (300.0, 600.0))
    assert bright == pytest.approx(4 * faint, rel=0.05)


@pytest.fixture(scope="module")
def scene():
    noise = torch.randn(6, 32, 32, generator=torch.Generator().manual_seed(2))
    shift = torch.arange(6) / 2
    return torch.stack([points((-2 - s, 1, 900.0), (2, s - 1, 400.0)) for s in shift.tolist()]) + noise


@pytest.mark.slow
def test_a_rotated_or_mirrored_cutout_has_the_same_chi_squared(scene):
    one, two, _ = fit(scene)
    for turned in (scene.rot90(1, (1, 2)), scene.rot90(2, (1, 2)), scene.flip(2)):
        again, again_two, _ = fit(turned)
        assert torch.allclose(again, one, rtol=1e-3, atol=0.5)
        assert torch.allclose(again_two, two, rtol=1e-3, atol=0.5)


def test_flux_and_noise_scaled_together_change_nothing(scene):
    fits = PointFits(PSF)
    for first, second in zip(fit(scene, fits), fit(37.0 * scene, fits, 37.0), strict=True):
        assert torch.allclose(first, second, rtol=1e-2, atol=0.05)


def test_a_smaller_pixel_is_the_same_sky():
    """Sources drawn at half the pixel, each pixel with half the noise: as much of it a square arcsecond."""
    sources = [(-2.5, 0.5, 900.0), (2.0, -0.5, 500.0)]
    coarse = fit(points(*sources), PointFits(PSF, misfit=0.0))
    fine = tuple((4 * variance, share) for variance, share in PSF)
    doubled = [(2 * x, 2 * y, flux) for x, y, flux in sources]
    fine = fit(points(*doubled, size=64, psf=fine), PointFits(fine, pixel=0.5, misfit=0.0), noise=0.5)
    assert fine[0].item() == pytest.approx(coarse[0].item(), rel=0.02)


def test_masked_pixels_do_not_matter(scene):
    mask = torch.ones(scene.shape, dtype=torch.bool)
    mask[:, 10:12, :14] = False
    noise = torch.ones(len(scene))
    clean = EXACT.fit(torch.where(mask, scene, 0), mask, noise)
    dirty = EXACT.fit(torch.where(mask, scene, 1e6), mask, noise)
    assert torch.equal(clean[1], dirty[1])
    pair = points((-3, 0, 900.0), (3, 0, 700.0))[None]
    mask = torch.ones(pair.shape, dtype=torch.bool)
    mask[:, 12:16, 12:14] = False  # a corner of one of the two
    assert EXACT.fit(torch.where(mask, pair, 0), mask, noise[:1])[1].item() < 1


def test_no_cutout_is_without_a_number():
    """Nothing to fit, a pixel that overflows in single precision, or all of them masked."""
    images = torch.zeros(3, 32, 32)
    images[1, 16, 16] = 1e29
    mask = torch.ones(images.shape, dtype=torch.bool)
    mask[2] = False
    one, two, _ = PointFits(PSF).fit(images, mask, torch.tensor([0.0, 1.0, 1.0]))
    assert torch.isfinite(torch.stack([one, two])).all()
    assert torch.stack([one, two])[:, [0, 2]].abs().max() < 1e-6


def test_log_odds_fall_as_the_second_source_is_worth_less_than_enough():
    gain = ENOUGH * np.array([0, 1e-6, 1e-3, 1 / np.e, 1, 5, np.inf])
    expected = 2 + np.array([np.log(1e-3)] * 3 + [-1, 0, 0, 0])
    assert with_point_fits(np.full(7, 2.0), gain) == pytest.approx(expected)


def test_images_without_stars_are_refused(tmp_path):
    survey = toy_survey(tmp_path, n=100, size=32)
    empty = replace(survey, images=np.zeros_like(survey.images))
    with pytest.raises(ValueError, match="light of a star"):
        PointFits.of(empty)


def test_of_several_bands_the_reference_is_fitted(tmp_path):
    survey = toy_in_bands(tmp_path, "gri", n=200, size=32)
    alone = toy_survey(tmp_path, n=200, size=32)
    rows = survey.rows("test")
    assert np.allclose(PointFits.of(survey).score(survey, rows), PointFits.of(alone).score(alone, rows))


def test_a_score_depends_on_its_cutout_alone_and_pairs_stand_out(tmp_path):
    survey = toy_survey(tmp_path, n=400, size=32)
    fits = PointFits.of(survey)
    assert sum(share for _, share in fits.psf) == pytest.approx(1)
    width = np.sqrt(sum(share * variance for variance, share in fits.psf))
    assert 1.2 < width < 1.9  # the toy's point sources have 1.2 to 1.8
    rows = survey.rows("test")
    scores = fits.score(survey, rows)
    assert (scores >= 0).all()
    some = np.random.default_rng(0).permutation(len(rows))[:20]
    again = fits.score(survey, rows[some])
    assert np.abs(again - scores[some]).max() < 1e-4 * scores.std() + 0.1
    pairs = survey.labels[rows] == 1
    assert np.median(scores[pairs]) > 5 * np.median(scores[~pairs])

"""Noise and seeing of a survey against those that a model was trained in: Gaussians of known width."""

from dataclasses import replace

import numpy as np
import pytest
from toy import toy_survey

from lensq.models.batches import sky_noise
from lensq.models.conditions import beyond, conditions


def survey_of(toy, fwhm, noise, n=200, scale=0.168):
    """Point sources with Gaussian seeing, in arcsec."""
    random = np.random.default_rng(1)
    y, x = (np.mgrid[:48, :48] - 23.5) * scale
    source = np.exp(-4 * np.log(2) * (x**2 + y**2) / fwhm**2)
    images = 100 * noise * source + random.normal(0, noise, (n, 48, 48))
    mask = np.ones((n, 48, 48), bool)
    arrays = {name: getattr(toy, name)[:n] for name in ("names", "coordinates", "labels", "group", "split")}
    sizes = {"size": 48, "native_side": 48.0, "pixel_scales": np.full(n, scale)}
    return replace(toy, images=images.astype(np.float32), mask=mask, **arrays, **sizes)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_survey(tmp_path_factory.mktemp("toy"), n=200)


@pytest.mark.parametrize(("fwhm", "noise"), [(0.6, 0.02), (0.9, 0.02), (0.6, 0.5)])
def test_gaussians_of_known_width_and_noise(toy, fwhm, noise):
    measured = conditions(survey_of(toy, fwhm, noise), np.arange(200))
    assert measured["width"][2] == pytest.approx(fwhm, rel=0.06)  # the core's pixels are counted whole
    assert measured["noise"][2] == pytest.approx(noise, rel=0.03)


def test_noise_is_what_the_variance_says_where_there_is_one(toy):
    declared = np.where(np.arange(200) < 150, 0.03, np.nan)
    declared[100:110] = 1  # a placeholder
    survey = replace(survey_of(toy, 0.6, 0.02), noise=declared)
    rows = np.arange(100, 200)
    noise = sky_noise(survey, rows).numpy()
    np.testing.assert_allclose(noise[10:50], 0.03)
    np.testing.assert_allclose(noise[np.r_[:10, 50:100]], 0.02, rtol=0.2)
    assert conditions(survey, np.arange(100))["noise"] == pytest.approx([0.03] * 4)


@pytest.mark.slow
def test_what_lies_beyond_is_said_with_numbers(toy):
    trained = {"conditions": conditions(survey_of(toy, 0.6, 0.02), np.arange(200))}
    assert beyond(trained, survey_of(toy, 0.6, 0.02)) == []
    noisy, blurred, sharp = (survey_of(toy, *how) for how in ((0.6, 0.1), (1.2, 0.02), (0.4, 0.02)))
    assert "sky noise 0.1 a pixel" in " ".join(beyond(trained, noisy))
    assert "1.19" in beyond(trained, blurred)[0]
    assert "narrowest tenth" in beyond(trained, sharp)[0]
    assert beyond({}, noisy) == []

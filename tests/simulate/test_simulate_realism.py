"""Features of images, shortcuts, and the two-sample test against real pixels."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from lensq.simulate import Target, make_cutout
from lensq.simulate.realism import shortcut_features, shortcut_table

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from appearance import appearance, match_magnitudes, off_centre, rank_among, two_sample_auroc

REAL = Path(__file__).parents[2].parent / "shared" / "real" / "hsc_cosmos_qso_widedepth"


def star(flux=1000.0, x=31.0, y=31.0, sigma=1.6, size=64):
    rows, columns = np.mgrid[:size, :size]
    return flux / (2 * np.pi * sigma**2) * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2 / sigma**2)


def noisy(images, sky=0.05, seed=0):
    return images + np.random.default_rng(seed).normal(0, sky, np.shape(images))


@pytest.fixture(scope="module")
def quasars():
    return np.stack([make_cutout(Target("point", i), seed=70).image for i in range(260)])


def test_shortcut_features_have_their_closed_forms():
    images = noisy([star(1000.0), star(500.0)]) + 0.2
    images = np.concatenate([images, images[:1]])
    images[2, :20] = np.nan
    features = shortcut_features(images)
    inner = 1 - np.exp(-(5**2) / 2 / 1.6**2)
    pixels = np.sum(np.hypot(*np.mgrid[-8:9, -8:9]) < 5)
    assert features["inner_flux"][0] == pytest.approx(1000 * inner + 0.2 * pixels, rel=0.01)
    assert features["peak"][0] == pytest.approx(1000 / (2 * np.pi * 1.6**2) + 0.2, rel=0.01)
    assert features["border_noise"].to_numpy() == pytest.approx(0.05, rel=0.1)
    assert features["border_median"].to_numpy() == pytest.approx(0.2, abs=0.01)
    assert np.isfinite(features).all().all()


def test_a_mask_hides_pixels():
    images, mask = noisy([star()]), np.ones((1, 64, 64), bool)
    images[0, :, :8], mask[0, :, :8] = 1e6, False
    assert shortcut_features(images, mask)["border_noise"][0] == pytest.approx(0.05, rel=0.15)
    assert appearance(images, mask)["sky"][0] == pytest.approx(0.05, rel=0.15)


def test_features_do_not_depend_on_where_the_object_lies():
    here, there = appearance(np.stack([star(x=31, y=31), star(x=27, y=34)])).iloc
    for name in ("magnitude", "concentration", "core", "elongation", "asymmetry"):
        assert here[name] == pytest.approx(there[name], abs=1e-6)


def test_features_describe_what_they_say():
    point, wide = star(), star(sigma=3.0)
    double = star(600.0) + star(400.0, x=35, y=33)
    table = appearance(noisy(np.stack([point, wide, double, point + star(100.0, x=31, y=42)])))
    assert table["concentration"][0] > table["concentration"][1]
    assert table["halo"][1] > table["halo"][0]
    assert table["elongation"][2] > 5 * table["elongation"][0]
    assert table["asymmetry"][2] > 5 * table["asymmetry"][0]
    assert table["neighbour"][3] > table["neighbour"][0] + 0.5
    assert table["magnitude"][0] == pytest.approx(27 - 2.5 * 3, abs=0.01)
    assert table["correlation"].abs().max() < 0.1


def test_shortcut_table_finds_the_telling_feature():
    rng = np.random.default_rng(0)
    is_lens = np.arange(400) < 100
    features = pd.DataFrame({"same": rng.normal(size=400), "bright": rng.normal(size=400) + 3 * is_lens})
    table = shortcut_table(features, is_lens).set_index("feature")
    assert table.loc["bright", "auroc"] > 0.95
    assert table.loc["same", "low"] < 0.5 < table.loc["same", "high"]
    with pytest.raises(ValueError, match="one class"):
        shortcut_table(features, np.zeros(400, bool))


def test_matching_takes_the_nearest_and_none_twice():
    target, pool = np.array([20.0, 21.0]), np.array([19.9, 25.0, 21.1, 20.2, 20.9])
    rows = match_magnitudes(target, pool, each=2)
    assert sorted(rows) == [0, 2, 3, 4]
    with pytest.raises(ValueError, match="too few"):
        match_magnitudes(target, pool, each=3)


@pytest.mark.slow
def test_two_halves_of_one_simulation_are_not_told_apart(quasars):
    result = two_sample_auroc(quasars[:40], quasars[40:], seed=0, trees=100)
    assert 0.35 < result["value"] < 0.65
    assert result["low"] < 0.5 < result["high"]


@pytest.mark.slow
def test_another_point_spread_function_is_told_apart(quasars):
    other = noisy(np.stack([star(10 ** (0.4 * (27 - m)), sigma=2.0) for m in np.linspace(19, 21, 40)]))
    assert two_sample_auroc(other, quasars, seed=1, trees=100)["value"] > 0.95


@pytest.mark.slow
def test_the_same_seed_gives_the_same_answer(quasars):
    runs = [two_sample_auroc(quasars[:20], quasars[20:], seed=3, trees=30) for _ in range(2)]
    pd.testing.assert_series_equal(*runs)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the real quasars in {REAL.name}, which are not shipped")
def test_simulated_quasars_pass_for_real_ones(quasars):
    real = np.stack([fits.getdata(path, 1).astype(float) for path in sorted(REAL.glob("*.fits"))])
    areas = [two_sample_auroc(real, quasars, seed=seed)["value"] for seed in range(3)]
    assert np.mean(areas) < 0.75


def test_off_centre_is_the_distance_of_the_star_from_the_middle():
    images = np.stack([star(x=31, y=31), star(x=32, y=31), star(x=35, y=28)])
    assert off_centre(images) == pytest.approx([np.hypot(0.5, 0.5), np.hypot(0.5, 0.5), np.hypot(3.5, 3.5)])


def test_ranks_are_among_objects_of_the_same_brightness():
    pool, magnitudes = np.r_[np.arange(40.0), 100 + np.arange(40.0)], np.repeat([19.0, 21.0], 40)
    ranks = rank_among(np.array([10.0, 139.5, 120.0]), np.array([19.1, 20.9, 21.0]), pool, magnitudes)
    assert ranks == pytest.approx([10.5 / 40, 1, 20.5 / 40])
    with pytest.raises(ValueError, match=r"0 objects lie within 0\.25 mag of 20\.00"):
        rank_among(np.array([10.0]), np.array([20.0]), pool, magnitudes)

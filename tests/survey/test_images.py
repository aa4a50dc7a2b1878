import numpy as np
import pytest
import torch

from lensq.survey.images import Preprocessing, apply_symmetries, fit_to_size, noise_level, symmetries

NOISE = 0.05


def sky(n, size=48, seed=0, noise=NOISE):
    return noise * torch.randn(n, size, size, generator=torch.Generator().manual_seed(seed))


def everywhere(images):
    return torch.ones(images.shape, dtype=torch.bool)


@pytest.mark.parametrize("height", [41, 47, 48, 64, 102])
@pytest.mark.parametrize("width", [41, 64, 103])
@pytest.mark.parametrize("size", [47, 48])
def test_centre_pixel_stays_at_the_centre(height, width, size):
    image = np.arange(height * width, dtype=np.float32).reshape(height, width) + 1
    pixels, mask = fit_to_size(image, size)
    assert pixels.shape == mask.shape == (size, size)
    assert pixels[size // 2, size // 2] == image[height // 2, width // 2]
    assert mask.sum() == min(height, size) * min(width, size)
    assert (pixels[~mask] == 0).all()
    assert set(pixels[mask]) <= set(image.ravel())


def test_cropping_then_padding_restores_the_middle():
    image = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    whole, _ = fit_to_size(image, 48)
    smaller, _ = fit_to_size(image, 41)
    padded, mask = fit_to_size(smaller, 48)
    assert mask.sum() == 41 * 41
    np.testing.assert_array_equal(padded[mask], whole[mask])


@pytest.mark.parametrize("fake", [np.nan, np.inf, -np.inf, 1e30, -3.4e38])
@pytest.mark.parametrize("resize", [False, True])
def test_what_is_no_flux_is_masked(fake, resize):
    image = np.ones((60, 60), np.float32)
    image[:20] = fake
    pixels, mask = fit_to_size(image, 48, resize)
    assert np.isfinite(pixels).all()
    assert 0 < (~mask).sum() < mask.size
    np.testing.assert_allclose(pixels[mask], 1, rtol=1e-6)
    assert (pixels[~mask] == 0).all()


def test_double_precision_beyond_single_is_masked():
    image = np.full((48, 48), 1e300)
    image[20:30, 20:30] = 2.5
    pixels, mask = fit_to_size(image, 48)
    assert mask.sum() == 100
    assert set(pixels[mask]) == {2.5}


@pytest.mark.parametrize(("side", "size"), [(47, 64), (48, 64), (41, 48), (103, 64), (64, 64), (64, 32)])
def test_resizing_is_bilinear_as_in_torch(side, size):
    image = np.random.default_rng(1).normal(size=(side, side)).astype(np.float32)
    pixels, mask = fit_to_size(image, size, resize=True)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], size=(size, size), mode="bilinear", antialias=True
    )[0, 0]
    assert mask.all()
    np.testing.assert_allclose(pixels, expected, atol=3e-5)


def test_resizing_takes_the_central_square():
    image = np.random.default_rng(2).normal(size=(47, 60)).astype(np.float32)
    square, _ = fit_to_size(image, 47)
    np.testing.assert_array_equal(fit_to_size(image, 64, True)[0], fit_to_size(square, 64, True)[0])


@pytest.mark.parametrize(("side", "size"), [(47, 64), (103, 48)])
def test_missing_pixels_do_not_bleed_when_resizing(side, size):
    rng = np.random.default_rng(3)
    image = rng.normal(size=(side, side)).astype(np.float32)
    image[10:13, 20:22] = np.nan
    other = np.where(np.isnan(image), 1e6, image)
    pixels, mask = fit_to_size(image, size, resize=True)
    clean, _ = fit_to_size(other, size, resize=True)
    assert 0 < (~mask).sum() < 0.05 * mask.size
    np.testing.assert_allclose(pixels[mask], clean[mask], atol=1e-6)
    touched = np.abs(clean - fit_to_size(np.where(np.isnan(image), -1e6, image), size, True)[0]) > 0
    np.testing.assert_array_equal(touched, ~mask)


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("value", [0.0, -999.0])
def test_fill_at_the_edges_is_no_data(value, resize):
    image = np.random.default_rng(4).normal(size=(48, 48)).astype(np.float32)
    filled = image.copy()
    filled[:7], filled[:, -3:] = value, value
    nothing = image.copy()
    nothing[:7], nothing[:, -3:] = np.nan, np.nan
    for one, other in zip(fit_to_size(filled, 48, resize), fit_to_size(nothing, 48, resize), strict=True):
        np.testing.assert_array_equal(one, other)


def test_fill_is_no_data_beside_what_has_none():
    image = np.random.default_rng(0).normal(size=(48, 48)).astype(np.float32)
    image[:5], image[:, -3:], image[2, 7] = 0, np.nan, np.nan
    _, mask = fit_to_size(image, 48)
    assert not mask[:5].any()
    assert not mask[:, -3:].any()
    assert mask[5:, :-3].all()


def test_one_value_elsewhere_is_data():
    image = np.random.default_rng(4).normal(size=(48, 48)).astype(np.float32)
    image[20:24] = 0.0  # not at an edge
    image[:3, :20] = 0.0  # not all of a row
    assert fit_to_size(image, 48)[1].all()
    assert fit_to_size(np.full((48, 48), 3.0), 48)[1].all()


def test_noise_is_measured_without_bias():
    images = sky(400)
    levels = noise_level(images, everywhere(images))
    assert levels.mean().item() == pytest.approx(NOISE, rel=0.02)
    assert levels.std().item() < 0.06 * NOISE


def test_noise_ignores_sources_and_background():
    images = sky(200)
    clean = noise_level(images, everywhere(images))
    row, column = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    for y, x, flux in [(24, 24, 100.0), (24, 33, 20.0), (5, 8, 3.0), (40, 36, 3.0), (2, 45, 50.0)]:
        images = images + flux * torch.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * 2.0**2))
    crowded = noise_level(images + 7.0, everywhere(images))
    assert crowded.mean().item() == pytest.approx(clean.mean().item(), rel=0.15)


def test_noise_of_a_padded_stamp_is_that_of_its_real_pixels():
    small = sky(50, size=41, seed=4)
    images = torch.zeros(50, 48, 48)
    images[:, 4:45, 4:45] = small
    mask = torch.zeros(50, 48, 48, dtype=torch.bool)
    mask[:, 4:45, 4:45] = True
    assert noise_level(images, mask).mean().item() == pytest.approx(NOISE, rel=0.03)
    assert (noise_level(images, everywhere(images)) < 0.8 * NOISE).all()


def test_noise_falls_back_on_the_middle_where_the_border_is_missing():
    images = sky(50)
    mask = torch.zeros(50, 48, 48, dtype=torch.bool)
    mask[:, 14:34, 14:34] = True
    assert noise_level(images, mask).mean().item() == pytest.approx(NOISE, rel=0.05)


def test_noise_of_nothing_is_zero():
    images = torch.full((2, 48, 48), 3.0)
    mask = everywhere(images)
    mask[1] = False
    assert noise_level(images, mask).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("fake", [float("nan"), float("inf"), -1e30, 77.0])
def test_fake_pixels_reach_neither_noise_nor_normalisation(fake):
    images = sky(20) + 1
    mask = torch.rand(images.shape, generator=torch.Generator().manual_seed(5)) > 0.2
    hidden = torch.where(mask, images, fake)
    assert torch.equal(noise_level(images, mask), noise_level(hidden, mask))
    for normalisation in ("minmax", "asinh"):
        preprocess = Preprocessing(normalisation, NOISE)
        assert torch.equal(preprocess(images, mask), preprocess(hidden, mask))
        assert (preprocess(hidden, mask)[:, 0][~mask] == 0).all()


def test_minmax_takes_the_real_pixels_to_zero_and_one():
    images = sky(10) * 40 + 3
    mask = everywhere(images)
    mask[:, :5] = False
    scaled = Preprocessing("minmax")(images, mask)
    assert scaled.shape == (10, 1, 48, 48)
    real = scaled[:, 0, 5:]
    assert real.amin((1, 2)).tolist() == [0.0] * 10
    assert real.amax((1, 2)).tolist() == [1.0] * 10
    span = images[:, 5:].amax((1, 2)) - images[:, 5:].amin((1, 2))
    slope = (real[:, 1, 1] - real[:, 2, 2]) / (images[:, 6, 1] - images[:, 7, 2])
    torch.testing.assert_close(slope, 1 / span, rtol=1e-4, atol=0)


def test_asinh_keeps_the_flux():
    images = torch.tensor([0.0, 3 * NOISE, 1000 * NOISE, -3 * NOISE]).reshape(1, 2, 2)
    scaled = Preprocessing("asinh", NOISE)(images, everywhere(images)).flatten()
    one = np.arcsinh(1) / np.arcsinh(1000 / 3)
    torch.testing.assert_close(scaled, torch.tensor([0.0, one, 1.0, -one], dtype=torch.float32))


@pytest.mark.parametrize("normalisation", ["minmax", "asinh"])
def test_constant_and_empty_stamps_give_finite_numbers(normalisation):
    images = torch.stack([torch.full((48, 48), 5.0), torch.zeros(48, 48), sky(1)[0]])
    mask = everywhere(images)
    mask[2] = False
    assert torch.isfinite(Preprocessing(normalisation, NOISE)(images, mask)).all()


@pytest.mark.parametrize("normalisation", ["minmax", "asinh"])
@pytest.mark.parametrize("size", [47, 48])
def test_an_image_is_normalised_the_same_in_any_company(normalisation, size):
    images = sky(33, size=size) * torch.logspace(-2, 3, 33)[:, None, None]
    mask = torch.rand(images.shape, generator=torch.Generator().manual_seed(6)) > 0.1
    preprocess = Preprocessing(normalisation, NOISE)
    together, level = preprocess(images, mask), noise_level(images, mask)
    for rows in (slice(0, 1), slice(7, 8), slice(3, 20), torch.arange(32, -1, -1)):
        assert torch.equal(preprocess(images[rows], mask[rows]), together[rows])
        assert torch.equal(noise_level(images[rows], mask[rows]), level[rows])


def test_preprocessing_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="normalisation"):
        Preprocessing("zscore")
    for noise in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="noise"):
            Preprocessing("asinh", noise)


def test_symmetries_are_the_group_of_the_square():
    images = sky(3, size=5)
    every = symmetries(images)
    assert every.shape == (8, 3, 5, 5)
    assert torch.equal(every[0], images)
    assert len({tuple(each.flatten().tolist()) for each in every}) == 8
    again = symmetries(every[5])
    as_sets = [{tuple(each.flatten().tolist()) for each in group} for group in (every, again)]
    assert as_sets[0] == as_sets[1]


@pytest.mark.parametrize("size", [5, 6])
def test_each_image_is_turned_by_its_own_symmetry(size):
    images, which = sky(16 * 3, size).view(16, 3, size, size), torch.arange(16) % 8
    each = torch.stack([symmetries(image)[k] for image, k in zip(images, which, strict=True)])
    assert torch.equal(apply_symmetries(images, which), each)


@pytest.mark.parametrize("zoom", [0.4, 0.64, 1.3, 2.0])
@pytest.mark.parametrize("shape", [(60, 60), (61, 60), (64, 80)])
def test_another_pixel_scale_keeps_flux_and_place(zoom, shape):
    y, x = np.indices(shape)
    centre = [n // 2 for n in shape]
    source = 100 * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 8)
    pixels, mask = fit_to_size(source, 180, zoom=zoom)
    assert pixels.sum() == pytest.approx(source.sum(), rel=1e-5)
    rows, columns = np.indices(pixels.shape)
    assert (rows * pixels).sum() / pixels.sum() == pytest.approx(90, abs=1e-3)
    assert (columns * pixels).sum() / pixels.sum() == pytest.approx(90, abs=1e-3)
    ramp, mask = fit_to_size(3.0 + 0.5 * x + 0.25 * y, 180, zoom=zoom)
    expected = 3.0 + 0.5 * (centre[1] + (columns - 90) / zoom) + 0.25 * (centre[0] + (rows - 90) / zoom)
    np.testing.assert_allclose(ramp[mask], expected[mask] / zoom**2, rtol=1e-5)  # the integral of a plane
    assert mask.any(0).sum() == pytest.approx((shape[1] - 1) * zoom, abs=2)
    assert mask.any(1).sum() == pytest.approx((shape[0] - 1) * zoom, abs=2)


def test_another_pixel_scale_masks_what_draws_on_missing_pixels():
    image = np.random.default_rng(0).normal(size=(64, 64))
    image[32, 32] = np.nan
    pixels, mask = fit_to_size(image, 24, zoom=0.5)
    assert not mask[12, 12]
    assert mask[12, 14]
    assert np.isfinite(pixels).all()


def test_a_pixel_scale_that_hardly_differs_changes_nothing():
    image = np.random.default_rng(0).normal(size=(64, 64))
    np.testing.assert_array_equal(fit_to_size(image, 48, zoom=1.004)[0], fit_to_size(image, 48)[0])

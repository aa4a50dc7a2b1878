"""Colour pictures: which bands they show, and that every gallery draws them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lensq.figures import class_gallery, gallery, mosaic, picture_rows, reconstruction_grid
from lensq.figures.pictures import drawn, shown_channels, stretch


@pytest.fixture
def images():
    """Four objects in g, r and i, brightest in i."""
    y, x = np.mgrid[:24, :24] - 12
    light = 50 * np.exp(-(x**2 + y**2) / 8)
    noise = np.random.default_rng(0).normal(0, 1, (4, 3, 24, 24))
    return (light * np.array([1, 2, 6])[:, None, None] + noise).astype(np.float32)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize(
    ("bands", "rgb", "chosen"),
    [
        ("gri", "", [2, 1, 0]),
        ("yzirg", "", [2, 3, 4]),
        ("zgr", "", [0, 2, 1]),
        ("ugzy", "", [3, 2, 0]),
        (["VIS", "NIR_Y", "NIR_J", "NIR_H"], "", [3, 2, 0]),
        (["a", "b", "c"], "", [2, 1, 0]),
        ("grizy", "yig", [4, 2, 0]),
        ("gi", "", [1]),
        ("gr", "", [0]),
    ],
)
def test_the_longest_wavelength_is_red(bands, rgb, chosen):
    assert shown_channels(bands, rgb) == chosen


@pytest.mark.parametrize("rgb", ["gr", "grz", "VIS"])
def test_bands_that_are_not_there_are_refused(rgb):
    with pytest.raises(ValueError, match=f"rgb='{rgb}': expected three of the bands g, r, i"):
        shown_channels("gri", rgb)


def test_a_red_object_is_red_in_any_order_of_the_bands(images):
    pictures = drawn(images, bands="gri")
    assert pictures.shape == (4, 24, 24, 4)
    red, green, blue, clear = pictures[0, 12, 12]
    assert red == clear == 1
    assert red > green > blue
    assert pictures[:, 0, 0, :3].max() < 0.3
    np.testing.assert_array_equal(drawn(images[:, ::-1], bands="irg"), pictures)
    np.testing.assert_array_equal(drawn(images[:, [0, 2, 1]], bands="gir"), pictures)
    swapped = drawn(images, bands="gri", rgb="gri")
    np.testing.assert_array_equal(swapped[..., :3], pictures[..., 2::-1])


def test_one_and_two_bands_are_grey(images):
    one = images[:, 2]
    np.testing.assert_array_equal(drawn(one), stretch(one))
    np.testing.assert_array_equal(drawn(images[:, 1:], bands="ri"), stretch(one))


def test_masked_pixels_are_clear_or_without_colour(images):
    mask = np.ones(images.shape, bool)
    mask[:, :, :3] = False
    mask[:, 1, 12] = False
    pictures = drawn(images, mask, bands="gri")
    assert (pictures[:, :3, :, 3] == 0).all()
    assert (pictures[:, 3:, :, 3] == 1).all()
    red, green, blue, _ = pictures[0, 12, 12]
    assert red > green > blue


@pytest.mark.slow
def test_every_gallery_draws_colours(images):
    mask = np.ones(images.shape, bool)
    for figure in (
        gallery(images, mask=mask, pixel_scale=0.168, bands="gri"),
        class_gallery(images, [*"abab"], mask=mask, bands="gri", rgb="irg"),
        reconstruction_grid(images, 0.9 * images, mask=mask, bands="gri"),
        picture_rows(np.stack([images, images]), ["a", "b"], bands="gri"),
    ):
        shapes = {image.get_array().shape for axis in figure.axes for image in axis.images}
        assert shapes == {(24, 24, 4)}
        figure.canvas.draw()


def test_a_residual_of_nothing_is_grey(images):
    figure = reconstruction_grid(images, np.where(images > 60, 0, images), bands="gri")
    corner = figure.axes[-1].images[0].get_array()[0, 0]
    np.testing.assert_allclose(corner, [0.5, 0.5, 0.5, 1])
    assert "grey is 0" in figure.get_supxlabel()


def test_the_mosaic_of_candidates_is_in_colour(images):
    table = pd.DataFrame({"name": [*"abcd"], "ra": 1.0, "dec": 2.0, "score": 0.5, "rank": range(1, 5)})
    page, grey = mosaic(images, table, bands="gri").data, mosaic(images[:, 2], table).data
    assert page.count("data:image/png") == grey.count("data:image/png") == 4
    assert page != grey

"""The inspector of a survey of several bands: what the browser gets, and that it draws colours."""

import numpy as np
import pytest
from tables import scores_table
from test_inspector import decode
from test_page import show
from toy import toy_in_bands

from lensq.inspector import Inspector
from lensq.models.training import fit
from lensq.scores.scoring import reconstruct


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return toy_in_bands(tmp_path_factory.mktemp("toy"), "girz", n=60, size=18)


def ranked(survey):
    table = scores_table(60, 0, seed=4).drop(columns="is_lens").assign(name=survey.names)
    return table.assign(score=-np.arange(60.0), ra=150.0, dec=2.0, split="train")


def pixels_of(inspector, planes):
    items = inspector.page["items"]
    scale = [np.array([item[key] for item in items]) for key in ("softening", "unit")]
    return decode(inspector.pixels, *scale, (len(items), planes, 18, 18))


def test_the_browser_gets_three_bands(survey):
    inspector = Inspector(survey, ranked(survey))
    assert inspector.channels == [1, 2, 0]
    assert inspector.page["weights"] == [1, 1, 1]
    assert inspector.overview["colours"][0] == "colour"
    drawn = pixels_of(inspector, 3)
    for picture, image, mask in zip(drawn, survey.images, survey.mask, strict=False):
        real = mask[[1, 2, 0]]
        assert np.isnan(picture[~real]).all()
        np.testing.assert_allclose(picture[real], image[[1, 2, 0]][real], rtol=1e-3, atol=1e-2)
    inspector.channels = [0]
    inspector.show(0)
    np.testing.assert_allclose(
        pixels_of(inspector, 1)[5, 0, 2:], survey.images[5, 0, 2:], rtol=1e-3, atol=1e-2
    )


@pytest.mark.parametrize("normalisation", ["minmax", "asinh"])
def test_reconstructions_become_flux_again_band_by_band(survey, tmp_path, normalisation):
    how = {"epochs": 1, "latent": 3, "width": 4, "progress": False, "normalisation": normalisation}
    model = fit(survey, "BetaTC_VAE", out=tmp_path, **how)
    inspector = Inspector(survey, ranked(survey), model=model)
    drawn = pixels_of(inspector, 6).reshape(-1, 2, 3, 18, 18)
    rows = np.arange(len(drawn))
    for plane, pictures in enumerate(reconstruct(model, survey, rows)):
        np.testing.assert_allclose(drawn[:, plane], pictures[:, [1, 2, 0]], rtol=2e-3, atol=2e-3)
    weights = inspector.page["weights"]
    assert weights == [model.preprocessing.weights[channel] for channel in (1, 2, 0)]
    for item, x, row in zip(inspector.page["items"], drawn[:, 0], rows, strict=True):
        a, b, bent = item["back"]
        for picture, weight, channel in zip(x, weights, (1, 2, 0), strict=True):
            flux = (a * np.sinh(b * picture) if bent else a + b * picture) / weight
            real = survey.mask[row, channel]
            np.testing.assert_allclose(flux[real], survey.images[row, channel][real], rtol=0.02, atol=0.05)
        assert len(item["level"][0]) == 3


@pytest.mark.browser
@pytest.mark.timeout(120)
def test_the_page_is_in_colour_and_in_grey_where_asked(survey, session, tmp_path):
    model = fit(survey, "BetaTC_VAE", out=tmp_path, epochs=1, latent=3, width=4, progress=False)
    inspector = Inspector(survey, ranked(survey), model=model)
    page = session.new_page(viewport={"width": 1300, "height": 900})
    show(inspector, page)

    def coloured(which: int) -> int:
        """Pixels that are not grey in a panel, or in the first of the gallery for -1."""
        canvas = page.locator("[role=option] canvas" if which < 0 else ".panels canvas").nth(max(which, 0))
        rgba = canvas.evaluate("(c) => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
        rgb = np.array(rgba).reshape(-1, 4)[:, :3]
        return int(((rgb != rgb[:, :1]).any(1) & (rgb != [201, 184, 168]).any(1)).sum())

    assert min(coloured(which) for which in (-1, 0, 2)) > 50
    assert "grey is none" in page.locator(".panels figcaption").nth(2).inner_text()
    page.locator("select[name=colours]").select_option("grey")
    assert coloured(-1) == coloured(0) == coloured(1) == 0
    page.close()

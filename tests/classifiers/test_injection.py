"""Injected lenses: where the images are, how bright, and that masks and noise go along."""

import numpy as np
import pytest
import torch
from toy import toy_survey

from lensq import fit
from lensq.classifiers.injection import InjectionOptions, concentration, extended, inject, point_sources
from lensq.survey.images import PIXEL_SCALE

SIZE = 48
Y, X = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
EXACT = InjectionOptions(separation=2.0, spread=0.0, fainter=1.0, brighter=1.0, quads=0.0)


def gaussian(sigma=1.5):
    template = np.exp(-(X**2 + Y**2) / (2 * sigma**2))
    return torch.from_numpy(template / template.sum()).float()[None]


def canvas(n, flux=100.0):
    """A broad round galaxy of a known flux on each cutout."""
    galaxy = np.exp(-(X**2 + Y**2) / (2 * 3.0**2))
    images = torch.from_numpy(flux * galaxy / galaxy.sum()).float().repeat(n, 1, 1)
    return images, torch.ones(n, SIZE, SIZE, dtype=torch.bool)


def added(what, n=64, seed=0, options=EXACT):
    """What was injected alone, moved back so that the galaxy stands in the centre again."""
    images, mask = canvas(n)
    injected, _ = inject(images, mask, gaussian(), what, torch.Generator().manual_seed(seed), options)
    result = []
    for image in injected:
        best = min(
            (torch.roll(images[0], (dy, dx), (0, 1)) for dy in range(-12, 13) for dx in range(-12, 13)),
            key=lambda moved: float((image - moved).clamp(max=0).square().sum()),
        )
        result.append((image - best).numpy())
    return np.stack(result)


def test_an_injected_lens_has_the_flux_it_was_given():
    images, mask = canvas(64)
    injected, _ = inject(images, mask, gaussian(), "lens", torch.Generator().manual_seed(0), EXACT)
    light = concentration(images, mask)[1]
    gained = (injected - images).sum((1, 2))
    assert torch.allclose(gained, light * 10**0.4, rtol=0.01)


def test_two_images_have_the_separation_and_lie_on_opposite_sides():
    for image in added("lens", n=16):
        # The second moment of two equal blobs along their line is their half separation squared and sigma's.
        total = image.sum()
        cx, cy = (image * X).sum() / total, (image * Y).sum() / total
        moments = [[(image * (a - ca) * (b - cb)).sum() / total for b, cb in ((X, cx), (Y, cy))]
                   for a, ca in ((X, cx), (Y, cy))]  # fmt: skip
        narrow, wide = np.linalg.eigvalsh(moments)
        assert narrow == pytest.approx(1.5**2, rel=0.06)
        # With shares p and 1 - p the moment is p (1 - p) separation^2 + sigma^2, and p between 1/1.1 and 1/2.
        spread = (wide - narrow) / (EXACT.separation / PIXEL_SCALE) ** 2
        assert 0.1 / 1.1**2 * 0.95 <= spread <= 0.25 * 1.05


def test_a_single_source_is_one_blob():
    for image in added("single", n=8):
        total = image.sum()
        cx, cy = (image * X).sum() / total, (image * Y).sum() / total
        assert (image * ((X - cx) ** 2 + (Y - cy) ** 2)).sum() / total == pytest.approx(2 * 1.5**2, rel=0.05)


def test_quads_have_more_images():
    quads = InjectionOptions(separation=2.4, spread=0.0, fainter=3.0, brighter=3.0, quads=1.0)
    peaks = []
    for options in (quads, EXACT):
        image = added("lens", n=12, options=options)
        centre = image[:, 1:-1, 1:-1]
        ring = [
            np.roll(image, (a, b), (1, 2))[:, 1:-1, 1:-1] for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b
        ]
        highest = centre > np.max(ring, axis=0)
        peaks.append((highest & (centre > 0.05 * image.max((1, 2))[:, None, None])).sum((1, 2)))
    assert np.median(peaks[0]) >= 3
    assert np.median(peaks[1]) == 2


def test_masks_move_with_their_images_and_nothing_is_injected_behind_them():
    images, mask = canvas(32)
    mask[:, :, :5] = False
    injected, moved = inject(images, mask, gaussian(), "lens", torch.Generator().manual_seed(1), EXACT)
    assert not injected[~moved].any()
    assert (moved.sum((1, 2)) == mask.sum((1, 2))).all()
    assert not torch.equal(moved, mask)


def test_the_generator_decides_alone_and_the_originals_are_left():
    images, mask = canvas(8)
    before = images.clone()
    draws = [inject(images, mask, gaussian(), "lens", torch.Generator().manual_seed(k))[0] for k in (3, 3, 4)]
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


def test_templates_have_unit_flux_and_compactness_picks_them(tmp_path):
    survey = toy_survey(tmp_path / "survey", n=200, size=32)
    model = fit(survey, "SVDD_VAE", out=tmp_path / "model", epochs=1, width=4, latent=4, progress=False)
    templates = point_sources(model, survey, n=20)
    assert templates.shape == (20, 32, 32)
    assert torch.allclose(templates.sum((1, 2)), torch.ones(20), atol=1e-4)
    corner = templates[:, 0, 0].abs()
    assert float(corner.max()) < 1e-12
    rows = survey.rows("train")
    broad = extended(survey, rows, 0.3)
    assert abs(len(broad) - 0.3 * len(rows)) <= 1
    images, mask = (torch.from_numpy(np.array(part[rows])) for part in (survey.images, survey.mask))
    core, _ = concentration(images, mask)
    assert float(core[np.isin(rows, broad)].max()) <= float(core[~np.isin(rows, broad)].min())
    asinh = fit(
        survey, "SVDD_VAE", out=tmp_path / "asinh", epochs=1, width=4, latent=4, normalisation="asinh",
        progress=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="minmax"):
        point_sources(asinh, survey)

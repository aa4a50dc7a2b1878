"""Lenses that are injected to measure with: whose pixels, which properties, and what is left as it was."""

from dataclasses import replace

import cutouts
import numpy as np
import pandas as pd
import pytest
import torch
from toy import toy_survey

from lensq.classifiers.injection import draw_lenses
from lensq.classifiers.recovery import (
    FEWEST,
    FEWEST_LENSES,
    SHARE,
    SPREAD,
    injected_survey,
    write_injected,
)
from lensq.survey.survey import read_survey


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    survey = toy_survey(tmp_path_factory.mktemp("toy"), n=700, size=32)
    half = np.where(np.arange(700) % 2, "selection", "train").astype("<U10")
    return replace(survey, split=half)


@pytest.fixture(scope="module")
def injected(survey):
    return injected_survey(survey, survey.rows("selection"), n=60)


def test_ordinary_objects_are_left_as_they_are(survey, injected):
    rows = survey.rows("selection")
    assert len(injected) == len(rows) + 60
    np.testing.assert_array_equal(injected.images[: len(rows)], survey.images[rows])
    np.testing.assert_array_equal(injected.mask[: len(rows)], survey.mask[rows])
    np.testing.assert_array_equal(injected.names[: len(rows)], survey.names[rows])
    assert (injected.labels == -1).all()
    assert injected.truth["is_lens"].to_numpy().tolist() == [0] * len(rows) + [1] * 60
    assert injected.truth["name"].tolist() == injected.names.tolist()
    assert len(set(injected.names)) == len(injected)


def test_lenses_are_injected_into_galaxies_of_these_tiles(survey, injected):
    lenses, rows = np.flatnonzero(injected.truth["is_lens"] == 1), survey.rows("selection")
    assert (injected.split == "selection").all()
    assert set(injected.group[lenses]) <= set(survey.group[rows])
    assert injected.images[lenses].sum((1, 2)).mean() > survey.images[rows].sum((1, 2)).mean()
    assert not np.isin(injected.images[lenses, 16, 16], survey.images[:, 16, 16]).any()


def test_properties_are_those_of_the_lenses_drawn(survey, injected):
    lenses = injected.truth[injected.truth["is_lens"] == 1]
    pool = draw_lenses(60, 1, SPREAD)
    doubles = (pool.flux > 0).sum(1) == 2
    x, y = pool.x[doubles], pool.y[doubles]
    apart = torch.hypot(x[:, 0] - x[:, 1], y[:, 0] - y[:, 1]).numpy()
    ratio = (pool.flux[doubles, 1] / pool.flux[doubles, 0]).numpy()
    for column, known in (("separation", apart), ("flux_ratio", ratio)):
        nearest = np.abs(lenses[column].to_numpy()[:, None] - known).min(1)
        assert (nearest < 1e-4).sum() >= 30, column
    assert lenses["flux_ratio"].between(0, 1).all()
    blind = replace(survey, zero_point_from=np.full(len(survey), ""))
    columns = injected_survey(blind, survey.rows("selection"), n=10).truth.columns
    assert "separation" in columns
    assert "magnitude_i" not in columns
    total = 27 - 2.5 * np.log10(pool.flux.sum(1).double().numpy())
    assert all(np.abs(total - value).min() < 1e-4 for value in lenses["magnitude_i"])


@pytest.mark.slow
def test_the_population_is_another_one():
    plain, other = draw_lenses(400, 3), draw_lenses(400, 3, 0.2)
    wider = torch.log(torch.hypot(other.x[:, 0], other.y[:, 0]) / torch.hypot(plain.x[:, 0], plain.y[:, 0]))
    assert float(wider.std()) == pytest.approx(0.2, rel=0.15)
    assert torch.equal(plain.flux[:, 0], other.flux[:, 0])
    assert (other.flux[:, :1] >= other.flux[:, 1:]).all()
    assert not torch.equal(plain.flux[:, 1], other.flux[:, 1])


@pytest.mark.slow
def test_the_seed_decides(survey, injected):
    again, other = (injected_survey(survey, survey.rows("selection"), n=60, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(again.images, injected.images)
    assert not np.array_equal(other.images, injected.images)
    assert other.fingerprint != injected.fingerprint


def test_too_few_objects_are_refused(survey):
    with pytest.raises(ValueError, match=r"199 objects are too few"):
        injected_survey(survey, np.arange(FEWEST - 1))


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """A folder of 240 cutouts without labels."""
    folder = tmp_path_factory.mktemp("sky")
    toy = toy_survey(tmp_path_factory.mktemp("toy"), n=240, size=48)
    for i, (image, mask) in enumerate(zip(toy.images, toy.mask, strict=True)):
        name = f"J{i // 60:02}{i % 60:02}00.00+010000.0"
        cutouts.write(folder / f"{name}.fits", np.where(mask, image, np.nan), FLUXMAG0=10**10.0)
    return folder


@pytest.mark.slow
def test_a_copy_with_injected_lenses_stands_in_for_labels(sky, tmp_path):
    mine, copy = (read_survey(one, progress=False) for one in (sky, write_injected(sky, tmp_path)))
    changed = (mine.images != copy.images).any((1, 2))
    counts = pd.Series(copy.split[copy.labels == 1]).value_counts()
    assert set(counts.index) == {"train", "validation", "selection", "conformal", "test"}
    assert counts["train"] == max(FEWEST_LENSES, round(SHARE * (copy.split == "train").sum()))
    assert counts[["selection", "conformal"]].min() >= 2  # .05 of two dozen objects would be one
    assert counts.sum() <= changed.sum() <= 3 * counts.sum()
    assert changed[copy.labels == 1].all()
    np.testing.assert_array_equal(copy.mask[~changed], mine.mask[~changed])
    for kept in ("names", "split", "band", "pixel_scale", "native_side"):
        np.testing.assert_array_equal(getattr(copy, kept), getattr(mine, kept))
    assert (copy.zero_point_from == "zero_point").all()
    assert f"injected into {counts.sum()} of its 240 objects" in copy.notes[0]


@pytest.mark.slow
def test_a_copy_of_fluxes_without_a_zero_point_declares_none(tmp_path, sky):
    folder = tmp_path / "sky"
    folder.mkdir()
    mine = read_survey(sky, progress=False)
    for name, image in zip(mine.names, mine.images, strict=True):
        cutouts.write(folder / f"{name}.fits", image, FLUXMAG0=0)
    assert (
        read_survey(write_injected(folder, tmp_path / "copy"), progress=False).zero_point_from == ""
    ).all()


@pytest.mark.slow
def test_a_copy_is_made_anew_only_where_the_survey_or_the_code_changed(sky, tmp_path, monkeypatch):
    folder = write_injected(sky, tmp_path)
    before = (folder / "cutouts.h5").stat().st_mtime_ns
    assert (write_injected(sky, folder) / "cutouts.h5").stat().st_mtime_ns == before
    (sky / "survey.yml").write_text("pixel_scale: 0.2\n")
    changed = (write_injected(sky, folder) / "cutouts.h5").stat().st_mtime_ns
    assert changed != before
    monkeypatch.setattr("lensq.classifiers.recovery.code_hash", lambda module: "another")
    assert (write_injected(sky, folder) / "cutouts.h5").stat().st_mtime_ns != changed
    with pytest.raises(ValueError, match="too few for a book"):
        write_injected(cutouts.write(tmp_path / "few" / "a.fits", cutouts.pixels()).parent, tmp_path / "x")

import subprocess
import sys

import cutouts
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

import lensq
from lensq.survey.catalogues import match_catalogue
from lensq.survey.lists import LISTS
from lensq.survey.survey import read_survey

PAIR = ["J100000.00+020000.00", "J100000.00+020004.00"]
OTHERS = [f"J{i:02}0000.00-{i:02}0000.00" for i in range(11, 20)]
NAMELESS = "from_its_wcs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    for i, name in enumerate([*PAIR, *OTHERS, NAMELESS]):
        cutouts.write(folder / "fits_data" / f"{name}_HSC-I_img.fits", cutouts.pixels(41, seed=i))
    (folder / LISTS["raw"]).write_text("\n".join([*PAIR, *OTHERS, NAMELESS]))
    (folder / LISTS["selected"]).write_text(PAIR[0])
    truth = pd.DataFrame({"name": [*reversed(OTHERS), *PAIR], "separation": range(11)})
    truth.to_parquet(folder / "truth.parquet")
    return folder


@pytest.fixture(scope="module")
def survey(folder):
    return lensq.read_survey(folder, progress=False)


def test_a_pixel_of_resized_images_is_as_large_as_the_files_say(folder, survey, tmp_path):
    assert (survey.native_side, survey.native_pixels) == (41, 1)
    resized = lensq.read_survey(folder, size=64, resize=True, store=tmp_path, progress=False)
    assert resized.native_pixels == 41 / 64
    assert lensq.read_survey(folder, size=64, store=tmp_path, progress=False).native_pixels == 1


def test_everything_is_in_the_order_of_the_names(survey):
    assert survey.names.tolist() == sorted(survey.names.tolist()) == [*PAIR, *OTHERS, NAMELESS]
    for array in (survey.coordinates, survey.labels, survey.graded, survey.images, survey.mask):
        assert len(array) == len(survey) == 12
    assert len(survey.group) == len(survey.split) == 12
    assert survey.names.dtype.kind == survey.split.dtype.kind == "U"
    assert survey.labels.dtype == np.int8
    assert survey.group.dtype == np.int64
    assert survey.labels.tolist() == [1] + [0] * 11


def test_positions_come_from_names_and_else_from_files(survey):
    assert survey.coordinates.ra.hourangle[:11] == pytest.approx([10, 10, *range(11, 20)])
    assert survey.coordinates.dec.deg[2:11] == pytest.approx(-np.arange(11, 20))
    assert survey.coordinates[-1].ra.deg == pytest.approx(150)


def test_neighbours_are_one_group_on_one_side(survey):
    assert survey.group[0] == survey.group[1] == survey.group[-1]  # the file without a name lies there too
    assert len(set(survey.group)) == 10
    for seed in range(8):
        split = read_survey(survey.folder, split_seed=seed, progress=False).split
        assert split[0] == split[1] == split[-1]
    assert survey.groups()["members"].tolist() == [" ".join([*PAIR, NAMELESS])]
    assert survey.groups()["discordant"].tolist() == [True]
    assert survey.close_pairs(5)["discordant"].tolist() == [True, True, False]


def test_split_seed_changes_the_split_and_nothing_else(survey, folder):
    other = read_survey(folder, split_seed=1, progress=False)
    assert (other.split != survey.split).any()
    assert other.fingerprint == survey.fingerprint


def test_rows_of_splits(survey):
    splits = ("train", "validation", "selection", "conformal", "test")
    parts = [survey.rows(split) for split in splits]
    assert np.sort(np.concatenate(parts)).tolist() == list(range(12))
    assert survey.rows(*splits).tolist() == list(range(12))
    assert survey.rows("calibration").tolist() == survey.rows("conformal", "selection").tolist()
    for split, rows in zip(splits, parts, strict=True):
        assert (survey.split[rows] == split).all()
    with pytest.raises(ValueError, match="holdout"):
        survey.rows("train", "holdout")


def test_truth_is_aligned_with_the_names(survey):
    assert survey.truth["name"].tolist() == survey.names.tolist()
    assert survey.truth["separation"].tolist()[:11] == [9, 10, *reversed(range(9))]
    assert np.isnan(survey.truth["separation"].iloc[-1])


def test_a_truth_that_names_an_object_twice_is_an_error(tmp_path):
    cutouts.write(tmp_path / "a.fits", cutouts.pixels())
    pd.DataFrame({"name": ["a", "a"]}).to_parquet(tmp_path / "truth.parquet")
    with pytest.raises(ValueError, match=r"truth\.parquet"):
        read_survey(tmp_path, progress=False)


def test_a_real_survey_has_no_truth(tmp_path):
    cutouts.write(tmp_path / "a.fits", cutouts.pixels())
    assert read_survey(tmp_path, progress=False).truth is None


def test_counts_are_a_copy(survey):
    counts = survey.counts()
    assert counts.loc["usable"].tolist() == [12, 1, 0, 12]
    counts.loc["usable"] = 0
    assert survey.counts().loc["usable", "raw"] == 12


def test_size_must_be_positive(folder):
    with pytest.raises(ValueError, match="size"):
        read_survey(folder, size=0)


def test_a_survey_shows_itself_in_a_line(survey):
    assert "12 objects of 48 x 48 px" in repr(survey)
    assert len(repr(survey)) < 300


@pytest.fixture
def catalogue():
    arcsecond = 1 / 3600
    return pd.DataFrame(
        {
            "name": ["near", "far", "pair"],
            "RA [deg]": [165.0, 30.0, 150.0],
            "DEC [deg]": [-11 + 2 * arcsecond, 0.0, 2 + 1.5 * arcsecond],
            "zlens": [0.5, 1.0, 0.7],
        }
    )


def test_matches_with_a_catalogue(survey, catalogue):
    matches = match_catalogue(survey, catalogue, radius_arcsec=3)
    assert matches["row"].tolist() == [0, 1, 2, 11]
    assert matches["name"].tolist() == [*PAIR, OTHERS[0], NAMELESS]
    assert matches["catalogue_name"].tolist() == ["pair", "pair", "near", "pair"]
    assert matches["separation"].to_numpy() == pytest.approx([1.5, 2.5, 2, 1.5], abs=1e-6)
    assert matches["zlens"].tolist() == [0.7, 0.7, 0.5, 0.7]
    assert match_catalogue(survey, catalogue, radius_arcsec=0.1).empty


@pytest.mark.parametrize("file", ["c.csv", "c.fits", "c.vot", "c.ecsv"])
def test_catalogues_are_read_from_files(survey, catalogue, tmp_path, file):
    table = Table.from_pandas(catalogue)
    if file != "c.csv":
        table.rename_columns(["RA [deg]", "DEC [deg]"], ["RAJ2000", "DEJ2000"])
    if file == "c.fits":
        table["magnitudes"] = np.zeros((3, 5))
    if file == "c.ecsv":
        places = SkyCoord(table["RAJ2000"], table["DEJ2000"], unit="deg")
        table["RAJ2000"] = places.ra.to_string("hour", sep=":")
        table["DEJ2000"] = places.dec.to_string(sep=":")
    table.write(tmp_path / file, **({"format": "votable"} if file == "c.vot" else {}))
    matches = match_catalogue(survey, tmp_path / file, radius_arcsec=3)
    assert matches["row"].tolist() == [0, 1, 2, 11]


def test_a_catalogue_without_positions_is_an_error(survey, catalogue):
    with pytest.raises(ValueError, match="'dec'"):
        match_catalogue(survey, catalogue.drop(columns="DEC [deg]"))
    with pytest.raises(ValueError, match="'ra'"):
        match_catalogue(survey, pd.DataFrame({"rank": [1], "dec": [1.0]}))


def test_reading_needs_no_torch():
    code = "import sys, lensq.survey.survey, lensq.survey.ingest; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "False"


def test_truth_can_be_joined_to_a_table(survey, tmp_path):
    table = pd.DataFrame({"name": [OTHERS[0], NAMELESS, PAIR[0]], "score": [1.0, 2.0, 3.0]})
    joined = survey.add_truth(table, columns=["separation"])
    assert joined["score"].tolist() == [1, 2, 3]
    assert joined["separation"].tolist()[::2] == [8, 9]
    assert np.isnan(joined["separation"][1])
    cutouts.write(tmp_path / "a.fits", cutouts.pixels())
    assert read_survey(tmp_path, progress=False).add_truth(table) is table

"""The simulated survey as files: layout, labels, determinism, resumption, errors."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

import lensq.simulate.survey as writer
from lensq.simulate import simulate_survey
from lensq.simulate.cutout import Target, _lens_brightness, central_magnitude, make_cutout
from lensq.simulate.labeller import clarity, look
from lensq.simulate.observe import draw_conditions
from lensq.simulate.parameters import FOOTPRINT, LABELLER, LIGHT, MIXES
from lensq.simulate.scenes import CLASSES, PAIRS, make_scene
from lensq.simulate.sky import _unique_cells, make_plan
from lensq.simulate.truth import COLUMNS, schema

QUIET = {"progress": False, "workers": 1}


def contents(folder):
    """Every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "truth.parquet"
    }


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return simulate_survey(tmp_path_factory.mktemp("sim") / "survey", 60, seed=3, anomaly_rate=0.3, **QUIET)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(writer, "_SHARD", 8)


def running_in(group):
    """Processes of a process group, without the dead that nobody has collected yet."""
    listed = subprocess.run(["ps", "-eo", "pid,pgid,stat"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()[1:]]
    return [int(pid) for pid, its_group, state in rows if int(its_group) == group and state[0] != "Z"]


def read_truth(folder):
    return pd.read_parquet(folder / "truth.parquet")


def lines(folder, name):
    return (folder / f"candidates_list_{name}.txt").read_text().split()


@pytest.mark.slow
def test_layout_is_that_of_the_real_survey(survey):
    truth = read_truth(survey)
    assert sorted(p.name for p in survey.iterdir()) == [
        "candidates_list_graded.txt",
        "candidates_list_raw.txt",
        "candidates_list_selected.txt",
        "fits_data",
        "simulation.json",
        "truth.parquet",
    ]
    assert lines(survey, "raw") == truth["name"].tolist()
    assert lines(survey, "selected") == truth.loc[truth["flagged"], "name"].tolist()
    assert lines(survey, "graded") == truth.loc[truth["graded"], "name"].tolist()
    assert sorted(p.name for p in (survey / "fits_data").iterdir()) == sorted(
        f"{name}_HSC-I_img.fits" for name in truth["name"]
    )


@pytest.mark.slow
def test_files_are_valid_fits_at_the_named_place(survey):
    truth = read_truth(survey).set_index("name")
    for path in sorted((survey / "fits_data").iterdir())[:5]:
        name = path.name.split("_")[0]
        with fits.open(path) as hdus:
            hdus.verify("exception")
            assert hdus[0].data is None
            assert hdus[0].header["FILTER"] == "HSC-I"
            assert hdus[0].header["FLUXMAG0"] == pytest.approx(10 ** (0.4 * 27))
            assert hdus[1].data.dtype == np.dtype(">f4")
            assert hdus[1].data.shape == (64, 64)
            middle = WCS(hdus[1].header).pixel_to_world(31.5, 31.5)
        place = SkyCoord(truth.loc[name, "ra"], truth.loc[name, "dec"], unit="deg")
        assert middle.separation(place).arcsec < 1e-3
        sign = "-" if "-" in name else "+"
        ra, dec = name[1:].split(sign)
        text = f"{ra[:2]}:{ra[2:4]}:{ra[4:]} {sign}{dec[:2]}:{dec[2:4]}:{dec[4:]}"
        assert SkyCoord(text, unit=("hourangle", "deg")).separation(place).arcsec < 0.01


def test_truth_has_every_column_with_its_unit(survey):
    truth, found = read_truth(survey), pq.read_schema(survey / "truth.parquet")
    assert schema("grizy").names == COLUMNS.index.tolist()
    assert list(truth) == found.names == COLUMNS.index.tolist()[:-6]  # the last are of other bands
    units = COLUMNS["unit"][found.names]
    assert {name: found.field(name).metadata[b"unit"].decode() for name in found.names} == dict(units)
    assert found.field("separation").metadata[b"unit"] == b"arcsec"
    assert found.field("sigma_v").metadata[b"unit"] == b"km/s"
    lenses, ordinary = truth[truth["is_lens"]], truth[~truth["is_lens"]]
    assert len(lenses) == 18
    assert (lenses["class"] == "lens").all()
    assert ordinary["separation"].isna().all()
    assert lenses[["separation", "flux_ratio", "z_lens", "sigma_v", "einstein_radius"]].notna().all().all()
    assert lenses[["deflector_radius", "deflector_ellipticity", "deflector_angle"]].notna().all().all()
    assert truth.loc[truth["class"] == "point", "host_radius"].notna().all()
    for _, lens in lenses.iterrows():
        assert len(lens["image_x"]) == len(lens["magnifications"]) == lens["n_images"]
        total = -2.5 * np.log10(np.sum(10 ** (-0.4 * np.array(lens["image_magnitudes"]))))
        assert lens["magnitude_i"] == pytest.approx(total)
        assert lens["total_magnitude"] < lens["magnitude_i"]
    assert truth[["seeing", "sky", "magnitude_i", "total_magnitude", "clarity", "grade"]].notna().all().all()


def test_truth_tells_where_the_images_are(survey):
    truth = read_truth(survey)
    lens = truth[truth["is_lens"] & (truth["deflector_magnitude"] > truth["magnitude_i"] + 1)].iloc[0]
    image = fits.getdata(survey / "fits_data" / f"{lens['name']}_HSC-I_img.fits", 1)
    x = 31.5 + (lens["image_x"][0] + lens["centre_x"]) / 0.168
    y = 31.5 + (lens["image_y"][0] + lens["centre_y"]) / 0.168
    found = image[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2].max()
    assert found > 0.6 * image.max()


@pytest.mark.slow
def test_same_pixels_for_any_number_of_workers(tmp_path, small_shards):
    one = simulate_survey(tmp_path / "one", 30, seed=9, workers=1, progress=False)
    three = simulate_survey(tmp_path / "three", 30, seed=9, workers=3, progress=False)
    assert contents(one) == contents(three)
    pd.testing.assert_frame_equal(read_truth(one), read_truth(three))
    other = simulate_survey(tmp_path / "other", 30, seed=10, **QUIET)
    assert set(lines(other, "raw")).isdisjoint(lines(one, "raw"))


@pytest.mark.slow
def test_a_survey_made_in_pieces_is_the_survey_made_at_once(tmp_path, small_shards):
    whole = simulate_survey(tmp_path / "whole", 30, seed=4, **QUIET)
    pieces = tmp_path / "pieces"
    for n in (5, 8, 21, 30):
        simulate_survey(pieces, n, seed=4, **QUIET)
        assert len(read_truth(pieces)) == n
    assert contents(whole) == contents(pieces)
    pd.testing.assert_frame_equal(read_truth(whole), read_truth(pieces))


@pytest.mark.slow
def test_an_interrupted_survey_continues(tmp_path, small_shards, monkeypatch):
    whole = simulate_survey(tmp_path / "whole", 30, seed=4, **QUIET)
    made, real = [], writer.make_cutout

    def interrupted(target, **how):
        if len(made) == 19:
            raise KeyboardInterrupt
        made.append(target.index)
        return real(target, **how)

    monkeypatch.setattr(writer, "make_cutout", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate_survey(tmp_path / "cut", 30, seed=4, **QUIET)
    assert not (tmp_path / "cut" / "truth.parquet").exists()
    again = []
    monkeypatch.setattr(writer, "make_cutout", lambda t, **how: again.append(t.index) or real(t, **how))
    simulate_survey(tmp_path / "cut", 30, seed=4, **QUIET)
    assert again == list(range(16, 30))  # the two whole shards were kept
    assert contents(whole) == contents(tmp_path / "cut")
    again.clear()
    simulate_survey(tmp_path / "cut", 30, seed=4, **QUIET)
    assert again == []


@pytest.mark.slow
def test_a_survey_stands_while_it_grows(tmp_path, small_shards, monkeypatch):
    whole = simulate_survey(tmp_path / "whole", 30, seed=4, **QUIET)
    grown, real = simulate_survey(tmp_path / "grown", 12, seed=4, **QUIET), writer.make_cutout
    small = lines(grown, "raw")

    def interrupted(target, **how):
        if target.index == 25:
            raise KeyboardInterrupt
        return real(target, **how)

    monkeypatch.setattr(writer, "make_cutout", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate_survey(grown, 30, seed=4, **QUIET)
    assert lines(grown, "raw") == read_truth(grown)["name"].tolist() == small
    again = []
    monkeypatch.setattr(writer, "make_cutout", lambda t, **how: again.append(t.index) or real(t, **how))
    simulate_survey(grown, 30, seed=4, **QUIET)
    assert again == list(range(24, 30))
    assert contents(whole) == contents(grown)
    assert (whole / "truth.parquet").read_bytes() == (grown / "truth.parquet").read_bytes()


@pytest.mark.slow
def test_a_killed_survey_continues_and_leaves_no_process(tmp_path):
    code = (
        "import sys; from lensq.simulate import simulate_survey; "
        "simulate_survey(sys.argv[1], 700, seed=4, workers=2)"
    )
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.time() + 60
    while not list(folder.glob(".shards/*.parquet")) and time.time() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.time() + 20
    while running_in(process.pid) and time.time() < deadline:
        time.sleep(0.1)
    assert running_in(process.pid) == []
    assert not (folder / "truth.parquet").exists()
    simulate_survey(folder, 700, seed=4, workers=2, progress=False)
    assert len(read_truth(folder)) == 700
    assert not list(folder.rglob("*.part"))
    checked = read_truth(folder).iloc[::300]
    plan = make_plan(700, 4, "catalogue", 0.05)
    for i, row in checked.iterrows():
        shift = (int(plan.shift_x[i]), int(plan.shift_y[i]))
        target = Target(row["class"], i, shift, row["parent"] >= 0)
        pixels = fits.getdata(folder / "fits_data" / f"{row['name']}_HSC-I_img.fits", 1)
        np.testing.assert_array_equal(pixels, make_cutout(target, seed=4).image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "at least one"),
        ({"n": 2.5}, "whole number"),
        ({"seed": -1}, "seed"),
        ({"mix": "easy"}, "catalogue, hard"),
        ({"anomaly_rate": 1.5}, "between 0 and 1"),
        ({"anomaly_rate": -0.1}, "between 0 and 1"),
        ({"anomaly_rate": float("nan")}, "between 0 and 1"),
        ({"workers": 0}, "workers"),
        ({"labels": "guess"}, "labeller, truth"),
        ({"size": 8}, "16 to 512"),
        ({"size": ()}, "16 to 512"),
        ({"control": "size"}, "None, flux"),
    ],
)
def test_impossible_parameters_are_errors_before_any_work(tmp_path, change, message):
    how = {"n": 5, "seed": 1, "progress": False, **change}
    with pytest.raises(ValueError, match=message):
        simulate_survey(tmp_path / "survey", how.pop("n"), **how)
    assert not (tmp_path / "survey").exists()


@pytest.mark.slow
def test_another_survey_is_never_overwritten_unasked(tmp_path):
    folder = simulate_survey(tmp_path / "survey", 5, seed=1, **QUIET)
    with pytest.raises(ValueError, match="seed = 1"):
        simulate_survey(folder, 5, seed=2, **QUIET)
    with pytest.raises(ValueError, match="n = 5"):
        simulate_survey(folder, 4, seed=1, **QUIET)
    (folder / "inspected.csv").write_text("labels by eye")
    (folder / "packed").mkdir()
    old = {path.name for path in (folder / "fits_data").iterdir()}
    simulate_survey(folder, 5, seed=2, overwrite=True, **QUIET)
    new = {path.name for path in (folder / "fits_data").iterdir()}
    assert len(new) == 5
    assert not old & new
    assert (folder / "inspected.csv").read_text() == "labels by eye"
    assert not (folder / "packed").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="not empty"):
        simulate_survey(mine, 5, seed=1, overwrite=True, **QUIET)
    assert (mine / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("rate", "n", "expected"), [(0.5, 1000, 500), (1e-4, 10_000, 1), (0, 500, 0), (1, 99, 99)]
)
def test_share_of_lenses_is_met(rate, n, expected):
    plan = make_plan(n, 7, "catalogue", rate)
    assert abs((plan["class_name"] == "lens").sum() - expected) <= 1


@pytest.mark.slow
def test_names_are_unique_and_fill_the_footprint():
    plan = make_plan(200_000, 2, "catalogue", 0.05)
    assert plan["name"].is_unique
    assert (plan["name"].str.len() == 20).all()
    east = plan.ra * np.cos(np.radians(plan.dec))
    assert len(np.unique(np.floor([east, plan.dec]), axis=1).T) > 800
    low = min(field[2] for field in FOOTPRINT.fields)
    assert plan.dec.min() > low - 0.01
    shares = plan.loc[plan["parent"] < 0, "class_name"].value_counts(normalize=True) / 0.95
    for name in ("point", "elliptical", "artefact"):
        assert shares[name] == pytest.approx(MIXES["catalogue"][name], rel=0.1)
    second = plan[plan["parent"] >= 0]
    assert 0.02 < len(second) / len(plan) < 0.05
    assert second["class_name"].isin(PAIRS).all()
    first = plan.loc[second["parent"]]
    here, there = (SkyCoord(part["ra"], part["dec"], unit="deg") for part in (second, first))
    apart = here.separation(there).arcsec
    assert apart.min() > 0.8
    assert apart.max() < 4.3
    assert np.mean((apart > 1.9) & (apart < 3.1)) > 0.9


def test_objects_in_one_cell_get_names_of_their_own():
    ra, dec = np.full(4, 150.0), np.array([2.0, 2.0, 2.0 + 0.01 / 3600, 2.0])
    ra_cell, dec_cell = _unique_cells(ra, dec)
    assert len(set(zip(ra_cell.tolist(), dec_cell.tolist(), strict=True))) == 4
    assert dec_cell[0] == dec_cell.min()
    np.testing.assert_array_equal(_unique_cells(ra[:3], dec[:3])[1], dec_cell[:3])


def test_a_longer_plan_begins_with_the_shorter_one():
    short, long = make_plan(4095, 6, "hard", 0.1), make_plan(9000, 6, "hard", 0.1)
    pd.testing.assert_frame_equal(short, long[:4095])


@pytest.mark.parametrize("shift", [(13, -5), (-9, -11), (0, 15)])
def test_second_cutouts_share_pixels_with_the_first(shift):
    first = make_cutout(Target("star_star", 10, shift), seed=1, size=48).image
    second = make_cutout(Target("star_star", 11, shift, second=True), seed=1, size=48)
    x, y = shift
    np.testing.assert_array_equal(
        first[max(0, y) : 48 + min(0, y), max(0, x) : 48 + min(0, x)],
        second.image[max(0, -y) : 48 + min(0, -y), max(0, -x) : 48 + min(0, -x)],
    )
    assert second.truth["parent"] == 10
    assert second.truth["companion_separation"] == pytest.approx(np.hypot(x, y) * 0.168, abs=0.5)


@pytest.mark.slow
def test_every_object_is_another_one():
    targets = [Target(name, i) for i, name in enumerate(np.repeat(["lens", *CLASSES], 3))]
    images = np.stack([make_cutout(target, seed=2, size=32).image for target in targets])
    assert images.shape == (36, 32, 32)
    assert len(np.unique(np.nan_to_num(images).reshape(36, -1), axis=0)) == 36
    points = [make_cutout(Target("point", i), seed=2).truth for i in range(5)]
    for name in ("magnitude_i", "seeing", "sky", "centre_x"):
        assert len({truth[name] for truth in points}) == 5


@pytest.mark.slow
def test_several_sizes(tmp_path):
    folder = simulate_survey(tmp_path / "survey", 12, seed=1, size=(47, 80), **QUIET)
    truth = read_truth(folder)
    assert set(truth["size"]) == {47, 80}
    for name, size in zip(truth["name"], truth["size"], strict=True):
        assert fits.getdata(folder / "fits_data" / f"{name}_HSC-I_img.fits", 1).shape == (size, size)


@pytest.mark.slow
def test_labels_as_truth(tmp_path):
    folder = simulate_survey(tmp_path / "survey", 20, seed=1, anomaly_rate=0.4, labels="truth", **QUIET)
    truth = read_truth(folder)
    assert lines(folder, "selected") == truth.loc[truth["is_lens"], "name"].tolist()


@pytest.mark.slow
def test_flux_matched_control_gives_ordinary_objects_the_light_of_lenses():
    rng, central = np.random.default_rng(0), []
    for name in ("point", "disk", "star_star"):
        for _ in range(40):
            scene = make_scene(name, rng)
            target = _lens_brightness(rng)
            central.append(central_magnitude(scene.rescaled(target - central_magnitude(scene))))
            assert central[-1] == pytest.approx(target, abs=0.01)
    expected = np.quantile(LIGHT.lens_central_magnitudes, [0.16, 0.5, 0.84])
    assert np.quantile(central, [0.16, 0.5, 0.84]) == pytest.approx(expected, abs=0.4)
    ordinary = Target("disk", 4)
    plain, control = (make_cutout(ordinary, seed=5, size=32, control=c) for c in (None, "flux"))
    assert plain.truth["total_magnitude"] != pytest.approx(control.truth["total_magnitude"], abs=1e-3)
    lens = Target("lens", 4)
    plain, control = (make_cutout(lens, seed=5, size=32, control=c) for c in (None, "flux"))
    np.testing.assert_array_equal(plain.image, control.image)


def test_labeller_flags_as_stated():
    rng = np.random.default_rng(0)
    verdicts = [look("lens", 1.0, rng) for _ in range(2000)]
    assert np.mean([v["flagged"] for v in verdicts]) == pytest.approx(LABELLER.flag_lens[1], abs=0.02)
    blurred = [look("lens", 0.0, rng) for _ in range(2000)]
    assert np.mean([v["flagged"] for v in blurred]) == pytest.approx(LABELLER.flag_lens[0], abs=0.02)
    missed = [v for v in verdicts if not v["flagged"]]
    assert np.mean([v["graded"] for v in missed]) == pytest.approx(LABELLER.known_elsewhere, abs=0.15)
    mimics = [look("pair_galaxy", 1.0, rng) for _ in range(2000)]
    assert all(v["flagged"] for v in mimics if v["graded"])
    assert 0 < np.mean([v["graded"] for v in mimics]) < 0.1


def test_clarity_rises_with_separation_and_light():
    conditions = draw_conditions(np.random.default_rng(0))
    assert clarity(None, conditions) == 0
    wide, narrow = clarity((3.0, 100.0), conditions), clarity((0.5, 100.0), conditions)
    faint = clarity((3.0, 0.5), conditions)
    assert wide > 0.99
    assert narrow < 0.1
    assert faint < 0.1
    at_half = LABELLER.resolved_at * conditions.seeing
    assert clarity((at_half, 1e4), conditions) == pytest.approx(0.5, abs=1e-6)

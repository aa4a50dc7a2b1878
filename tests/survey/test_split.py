import astropy.units as u
import cutouts
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from scipy.sparse.csgraph import connected_components

from lensq.survey.split import (
    FRACTIONS,
    TILE_SIDES,
    assign_splits,
    coordinates_from_names,
    friends_of_friends,
    group_radius,
    groups_table,
    iau_name,
    tiles,
)
from lensq.survey.survey import read_survey


def name_of(coordinates):
    ra = coordinates.ra.to_string(u.hour, sep="", precision=2, pad=True)
    dec = coordinates.dec.to_string(u.deg, sep="", precision=2, pad=True, alwayssign=True)
    return np.char.add(np.char.add("J", np.atleast_1d(ra)), np.atleast_1d(dec))


def random_sky(n, seed=0):
    rng = np.random.default_rng(seed)
    return SkyCoord(rng.uniform(0, 360, n) * u.deg, np.degrees(np.arcsin(rng.uniform(-1, 1, n))) * u.deg)


def split_sky(coordinates, **options):
    names = [f"{ra:.9f}{dec:+.9f}" for ra, dec in zip(coordinates.ra.deg, coordinates.dec.deg, strict=True)]
    return names, assign_splits(names, coordinates, friends_of_friends(coordinates), **options)


def test_positions_are_those_that_astropy_reads():
    names = name_of(random_sky(300))
    expected = SkyCoord(
        [f"{n[1:3]}h{n[3:5]}m{n[5:10]}s {n[10:13]}d{n[13:15]}m{n[15:]}s" for n in names.tolist()]
    )
    assert coordinates_from_names(names).separation(expected).arcsec.max() < 1e-6


def test_position_just_south_of_the_equator_is_south():
    [dec] = coordinates_from_names(["J120000.00-000030.00"]).dec.arcsec
    assert dec == pytest.approx(-30)


def test_sixtieth_second_of_the_real_lists_is_the_next_minute():
    [one, other] = coordinates_from_names(["J010960.00+005514.76", "J120328.59-021660.00"])
    assert one.ra.hourangle == pytest.approx(1 + 10 / 60)
    assert other.dec.deg == pytest.approx(-(2 + 17 / 60))
    midnight = coordinates_from_names(["J235960.00+001234.5", "J240000.00+010000.0"])
    assert midnight.ra.wrap_at("180d").deg == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        *("object7", "", "J1200+30", "J120000.00 100000.00", "SDSSJ120000.00+100000.00"),
        *("J250000.00+000000.00", "J126100.00+000000.00", "J120000.00+910000.00"),
    ],
)
def test_names_without_a_position_give_none(name):
    [coordinates] = coordinates_from_names([name])
    assert np.isnan(coordinates.ra.deg)
    assert np.isnan(coordinates.dec.deg)


def test_names_may_go_on_after_the_position():
    [coordinates] = coordinates_from_names(["J120000.00+300000.00_HSC-R_img"])
    assert coordinates.ra.deg == pytest.approx(180)


def test_cutouts_that_share_pixels_are_one_group_whatever_their_side(tmp_path):
    for i, ra in enumerate((150.0, 150.0 + 14 / 3600, 151.0)):
        hdus = cutouts.hdus(cutouts.pixels(64, i))
        hdus[1].header["CRVAL1"], hdus[1].header["CRVAL2"] = ra, 0.0
        hdus.writeto(tmp_path / f"o{i}.fits")
    groups = {
        size: read_survey(tmp_path, progress=False, workers=1, **how).group.tolist()
        for size, how in ((48, {}), (64, {"size": 64}), ("whole", {"resize": True}))
    }
    assert groups == {48: [0, 1, 2], 64: [0, 0, 1], "whole": [0, 0, 1]}
    assert [group_radius(side) for side in (8.0, 10.0, 100.0)] == [12.0, pytest.approx(200**0.5), 30.0]


def test_friends_of_friends_links_chains_and_nothing_else():
    offsets = np.array([0, 10, 20, 30, 45, 1000]) * u.arcsec
    coordinates = SkyCoord(np.full(6, 150.0) * u.deg, 60 * u.deg + offsets)
    assert friends_of_friends(coordinates).tolist() == [0, 0, 0, 0, 1, 2]
    assert friends_of_friends(coordinates, radius=16).tolist() == [0, 0, 0, 0, 0, 1]


def test_friends_are_found_across_midnight_and_at_the_pole():
    coordinates = SkyCoord([359.999, 0.001, 10, 190] * u.deg, [0, 0, 89.999, 89.999] * u.deg)
    assert friends_of_friends(coordinates).tolist() == [0, 0, 1, 1]


def test_groups_are_the_same_in_any_order():
    rng = np.random.default_rng(2)
    coordinates = SkyCoord(150 * u.deg + rng.uniform(0, 0.2, 3000) * u.deg, rng.uniform(0, 0.2, 3000) * u.deg)
    group = friends_of_friends(coordinates)
    order = rng.permutation(3000)
    shuffled = friends_of_friends(coordinates[order])
    assert len(set(zip(group[order], shuffled, strict=True))) == len(set(group)) == len(set(shuffled))
    assert 1 < np.bincount(group).max() < 3000


def test_objects_without_a_position_are_alone():
    coordinates = SkyCoord([np.nan, np.nan, 1, 1] * u.deg, [np.nan, np.nan, 1, 1] * u.deg)
    assert friends_of_friends(coordinates).tolist() == [0, 1, 2, 2]


def test_many_objects_at_one_place_are_one_group():
    coordinates = SkyCoord(np.full(50_000, 10.0) * u.deg, np.full(50_000, 10.0) * u.deg)
    assert (friends_of_friends(coordinates) == 0).all()


def test_friends_agree_with_astropy():
    rng = np.random.default_rng(3)
    coordinates = SkyCoord(rng.uniform(0, 0.1, 400) * u.deg, rng.uniform(-0.05, 0.05, 400) * u.deg)
    group = friends_of_friends(coordinates, 12.0)
    every = coordinates[:, None].separation(coordinates[None]).arcsec
    _, expected = connected_components(every <= 12)
    np.testing.assert_array_equal(group[:, None] == group, expected[:, None] == expected)
    assert 1 < len(set(group)) < 400


@pytest.mark.parametrize("side", TILE_SIDES)
def test_tiles_have_nearly_equal_areas(side):
    n = 400_000
    rng = np.random.default_rng(4)
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(0.8), np.sin(0.8 + 5 * np.radians(side)), n)))
    ra = rng.uniform(30, 30 + 10 * side, n)
    number, count = np.unique(tiles(SkyCoord(ra * u.deg, dec * u.deg), side), return_counts=True)
    height = np.degrees(np.sin(0.8 + 5 * np.radians(side)) - np.sin(0.8))
    inner = np.sort(count)[len(count) // 2 :]  # tiles that the region's edge does not cut
    assert 10 * side * height / n * np.median(inner) == pytest.approx(side**2, rel=0.06)
    assert len(number) < 110


def test_tiles_do_not_overlap():
    coordinates = random_sky(200_000, seed=5)
    number = tiles(coordinates, 1.0)
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    low = np.minimum.reduceat(coordinates.dec.deg[order], starts)
    high = np.maximum.reduceat(coordinates.dec.deg[order], starts)
    assert (high - low <= 1).all()
    assert number.max() < 42_000


@pytest.mark.parametrize("n", [600, 20_000])
def test_shares_are_near_their_nominal_values(n):
    _, split = split_sky(random_sky(n))
    for name, share in FRACTIONS.items():
        deviation = np.sqrt(share * (1 - share) / min(n, 20_000))
        assert (split == name).mean() == pytest.approx(share, abs=4.5 * deviation)


def test_a_survey_of_a_few_square_degrees_is_split_too():
    rng = np.random.default_rng(6)
    small = SkyCoord(rng.uniform(150, 151.4, 3000) * u.deg, rng.uniform(1.5, 2.9, 3000) * u.deg)
    _, split = split_sky(small)
    for name, share in FRACTIONS.items():
        assert (split == name).mean() == pytest.approx(share, abs=0.07)


@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_on_two_sides(seed, monkeypatch):
    monkeypatch.setattr("lensq.survey.split.TILE_SIDES", (0.05,))
    rng = np.random.default_rng(seed)
    centres = random_sky(2000, seed)
    partners = centres.directional_offset_by(
        rng.uniform(0, 360, 2000) * u.deg, rng.uniform(0, 12, 2000) * u.arcsec
    )
    both = SkyCoord([centres, partners])
    names = np.array([f"object{i}" for i in range(len(both))])
    group = friends_of_friends(both)
    split = assign_splits(names, both, group, seed=seed)
    assert (split[:2000] == split[2000:]).all()
    assert len(set(zip(group, split, strict=True))) == len(set(group))
    assert (tiles(centres, 0.05) != tiles(partners, 0.05)).any()


def test_split_depends_neither_on_order_nor_on_other_objects():
    sky = random_sky(5000, seed=8)
    names, split = split_sky(sky)
    where = dict(zip(names, split, strict=True))
    order = np.random.default_rng(9).permutation(5000)[:2500]
    fewer, split = split_sky(sky[order])
    assert [where[name] for name in fewer] == split.tolist()


def test_seed_changes_the_split():
    sky = random_sky(3000, seed=10)
    _, one = split_sky(sky, seed=0)
    _, same = split_sky(sky, seed=0)
    _, other = split_sky(sky, seed=1)
    assert (one == same).all()
    assert 0.2 < (one == other).mean() < 0.6


def test_objects_of_a_tile_stay_together(monkeypatch):
    monkeypatch.setattr("lensq.survey.split.TILE_SIDES", (2.0,))
    sky = random_sky(60_000, seed=11)
    _, split = split_sky(sky)
    assert len(set(zip(tiles(sky, 2.0), split, strict=True))) == len(np.unique(tiles(sky, 2.0)))


def test_names_without_a_position_are_split_by_their_hash():
    names = np.array([f"galaxy{i}" for i in range(4000)])
    nowhere = SkyCoord(np.full((2, 4000), np.nan)[0] * u.deg, np.full(4000, np.nan) * u.deg)
    split = assign_splits(names, nowhere, np.arange(4000))
    for name, share in FRACTIONS.items():
        assert (split == name).mean() == pytest.approx(share, abs=0.03)
    backwards = assign_splits(names[::-1], nowhere, np.arange(4000))
    assert (backwards[::-1] == split).all()


def test_shares_add_up():
    assert sum(FRACTIONS.values()) == pytest.approx(1)


def test_empty_survey_has_an_empty_split():
    nothing = SkyCoord([] * u.deg, [] * u.deg)
    assert len(assign_splits([], nothing, friends_of_friends(nothing))) == 0


@pytest.fixture
def five_objects():
    coordinates = SkyCoord([10, 10, 10, 50, 50] * u.deg, [0, 3 / 3600, 10 / 3600, 0, 4 / 3600] * u.deg)
    return np.array(list("abcde")), coordinates, np.array([1, 0, 0, 0, -1], np.int8)


def test_groups_table_describes_groups(five_objects):
    names, coordinates, labels = five_objects
    group = friends_of_friends(coordinates)
    split = assign_splits(names, coordinates, group)
    table = groups_table(names, coordinates, labels, group, split)
    assert table["members"].tolist() == ["a b c", "d e"]
    assert table[["n", "selected", "rejected"]].to_numpy().tolist() == [[3, 1, 2], [2, 0, 1]]
    assert table["discordant"].tolist() == [True, False]
    assert table["split"].tolist() == [split[0], split[3]]
    np.testing.assert_allclose(table["extent"], [10, 4], rtol=1e-6)


def test_groups_table_of_a_sparse_survey_is_empty(five_objects):
    names, coordinates, labels = (each[[0, 3]] for each in five_objects)
    assert groups_table(names, coordinates, labels, np.array([0, 1]), np.array(["test", "test"])).empty


@pytest.mark.parametrize(
    ("ra", "dec", "name"),
    [
        (150.01, 2.01, "J100002.40+020036.0"),
        (0.0, -0.000001, "J000000.00-000000.0"),
        (359.9999999, 89.99999, "J235959.99+895959.9"),
        (360.0, -90.0, "J000000.00-900000.0"),
        (-1.0, 0.0, ""),
        (float("nan"), 0.0, ""),
    ],
)
def test_names_of_positions_are_cut_off(ra, dec, name):
    assert iau_name(ra, dec) == name


def test_names_of_positions_give_them_back():
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, 500), rng.uniform(-90, 90, 500)
    back = coordinates_from_names([iau_name(*place) for place in zip(ra, dec, strict=True)])
    assert ((ra - back.ra.deg) * 240).min() > -1e-6
    assert ((ra - back.ra.deg) * 240).max() < 0.0101
    assert ((np.abs(dec) - np.abs(back.dec.deg)) * 3600).max() < 0.101

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from lensq.survey.catalogues import align, read_catalogue
from lensq.survey.lists import Aliases, names_in, read_list

NAMES = np.array([f"o{i}" for i in range(3)])


def aligned(catalogue, names=NAMES, ra=(10.0, 20.0, 30.0)):
    """What a catalogue says of objects, which lie at dec 0, and the notes."""
    places = SkyCoord(list(ra) * u.deg, np.zeros(len(ra)) * u.deg)
    table, _, notes = align(catalogue, names, np.char.add(names, ".fits"), places)
    return table, notes


def test_an_entry_without_a_name_names_nothing():
    for missing in (np.nan, None, pd.NA):
        table, notes = aligned(pd.DataFrame({"name": ["o2", missing, "o0"], "z": [2, 9, 0]}))
        assert table["z"].fillna(-1).tolist() == [0, -1, 2]
        assert notes == ["catalogue: 1 of 3 objects have no entry"]


@pytest.mark.parametrize("impossible", [(5.0, -999.0), (5.0, 99.0), (np.inf, 0.0), (-999.0, 0.0)])
def test_an_entry_at_an_impossible_place_has_no_position(impossible):
    table, places = read_catalogue(pd.DataFrame([impossible, (20.0, 5.0)], columns=["ra", "dec"]))
    assert len(table) == 2
    assert np.isnan(places.ra.deg).tolist() == [True, False]
    assert (places[1].ra.deg, places[1].dec.deg) == (20, 5)


def test_positions_as_text_may_be_impossible_or_none():
    _, places = read_catalogue(pd.DataFrame({"ra": ["10:00:00", "01h", None], "dec": ["-1:30", "99d", None]}))
    assert np.isnan(places.ra.deg).tolist() == [False, True, True]
    np.testing.assert_allclose([places[0].ra.deg, places[0].dec.deg], [150, -1.5])
    assert np.isnan(read_catalogue(pd.DataFrame({"ra": [np.nan], "dec": [1.0]}))[1].ra.deg).all()


@pytest.mark.parametrize("unit", ["h", "hourangle", "hr"])
def test_hours_of_right_ascension_are_brought_to_degrees(unit, tmp_path):
    table = Table({"e_z": [3.0] * u.h, "RAJ2000": [10.0] * u.Unit(unit), "DEJ2000": [5.0] * u.deg})
    table.write(tmp_path / "c.ecsv")
    for catalogue in (table, tmp_path / "c.ecsv"):
        read, places = read_catalogue(catalogue)
        assert read.iloc[0].tolist() == pytest.approx([3, 150, 5])
        assert places.ra.deg == pytest.approx([150])


def test_the_column_of_names_is_the_one_that_names_objects():
    table, notes = aligned(pd.DataFrame({"id": [1, 2, 3], "name": ["o2", "o0", "o1"], "z": [2, 0, 1]}))
    assert (table["z"].tolist(), notes) == ([0, 1, 2], [])
    table, _ = aligned(
        pd.DataFrame({"object": ["o2", "x", "y"], "name": ["o2.fits", "o0", "o1"], "z": [2, 0, 1]})
    )
    assert table["z"].tolist() == [0, 1, 2]
    numbers = np.array([f"{i}" for i in range(3)])
    with pytest.raises(ValueError, match=r"entry 1: it is 2 by .*'id' and 1 by .*'name': rename the one"):
        aligned(pd.DataFrame({"id": [2, 0, 1], "name": [1, 7, 8]}), numbers)


def test_an_entry_that_names_an_object_is_no_other_by_its_position():
    catalogue = pd.DataFrame(
        {"name": ["o0", "o0", "x"], "ra": [20.0, 30, 30], "dec": [0.0, 0, 1e-4], "z": [0, 1, 2]}
    )
    table, notes = aligned(catalogue)
    assert table["z"].fillna(-1).tolist() == [0, -1, 2]
    assert notes[0] == "catalogue: 1 of 3 objects have no entry"


def listed(path, text, names, **how):
    """The names in a list of a survey of objects."""
    path.write_text(text)
    return names_in(read_list(path, **how), Aliases(names, [f"{name}.fits" for name in names]))


@pytest.mark.parametrize("header", ["rank,name", "id,Object_Name", "rank,names", "n,object"])
def test_the_column_that_is_called_name_holds_the_names(tmp_path, header):
    numbers = [str(i) for i in range(1, 11)]
    assert listed(tmp_path / "l", f"{header}\n1,7\n2,9\n3,4\n", numbers) == ["7", "9", "4"]
    assert listed(tmp_path / "l", f"{header}\n1,7\n2,99\n3,98\n", numbers) == ["7", "99", "98"]
    assert listed(tmp_path / "l", f"{header}\no1,7\no2,9\n", ["o1", "o2"]) == ["o1", "o2"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1,7\n2,9\n", "line 1: '1,7' could be 1 or 7"),
        ("x\n\n3, 2, 1", "line 3: '3, 2, 1' could be 1 or 2 or 3"),
    ],
)
def test_columns_that_name_different_objects_are_refused(tmp_path, text, line):
    numbers = [str(i) for i in range(1, 11)]
    with pytest.raises(ValueError, match=rf"l, {line}: write one name a line, or .* as in name,rank"):
        listed(tmp_path / "l", text, numbers)
    assert listed(tmp_path / "l", "1,1.fits\n2,7", [*numbers, "2,7"]) == ["1", "2,7"]


def test_a_first_line_that_names_an_object_is_no_header(tmp_path):
    names = ["source_a", "object_c", "b"]
    for text in ("source_a\nobject_c\n", "# x\nsource_a.fits\nobject_c,1\n"):
        assert sorted(listed(tmp_path / "l", text, names, flags=True)) == ["object_c", "source_a"]
    assert listed(tmp_path / "l", "source_a\n", names) == ["source_a"]
    assert listed(tmp_path / "l", "source\nobject_c\nb\n", names) == ["object_c", "b"]
    assert listed(tmp_path / "l", "source\n", names) == []
    assert read_list(tmp_path / "l").numbers[0] == 1


@pytest.mark.parametrize("said", ["no", "N", "f", "-1", "nonlens", "non-lens", "0", "False"])
def test_a_label_of_no_contradicts_a_list_of_flagged_objects(tmp_path, said):
    for header, yes in (("name,label", "1"), ("name,is_lens", "yes")):
        with pytest.raises(
            ValueError, match=rf"line 3: 'o1' is listed as flagged with a {said.lower()} beside it"
        ):
            listed(tmp_path / "l", f"{header}\no0,{yes}\no1,{said}\n", ["o0", "o1"], flags=True)
    if said.lower() not in ("n", "f", "-1"):
        with pytest.raises(ValueError, match="line 2: 'o1' is listed as flagged with"):
            listed(tmp_path / "l", f"o0,yes\no1,{said}\n", ["o0", "o1"], flags=True)
    text = f"name,grade\no0,1\no1,{said}\n"
    assert listed(tmp_path / "l", text, ["o0", "o1"], flags=True) == ["o0", "o1"]


def test_names_keep_their_leading_zeros(tmp_path):
    names = np.array(["0001", "0002", "0003"])
    (tmp_path / "c.csv").write_text("id,name,z\n7,0003,2\n8,,9\n9,0001,0\n")
    (tmp_path / "c.dat").write_text("id name z\n7 0003 2\n8 0007 9\n9 0001 0\n")
    for file in ("c.csv", "c.dat"):
        table, _ = aligned(tmp_path / file, names)
        assert table["z"].fillna(-1).tolist() == [0, -1, 2]
        assert table["id"].fillna(-1).tolist() == [9, -1, 7]
    Table({"id": [1, 2]}).write(tmp_path / "c.fits")
    assert read_catalogue(tmp_path / "c.fits")[0]["id"].tolist() == [1, 2]

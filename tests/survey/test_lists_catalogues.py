import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from lensq.survey.catalogues import align, read_catalogue

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

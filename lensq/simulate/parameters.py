"""Every number that the simulated survey rests on; `parameters.csv` has its unit, source and check.

A line of the file is a parameter of one part of the simulator, and an attribute here: `INSTRUMENT.seeing`.
"""

from ast import literal_eval
from collections import namedtuple
from pathlib import Path
from typing import Any

import pandas as pd

FILE = Path(__file__).with_name("parameters.csv")
_TABLE = pd.read_csv(FILE, keep_default_na=False, converters={"value": literal_eval})


def _values(group: str) -> dict:
    rows = _TABLE[_TABLE["group"] == group]
    return dict(zip(rows["parameter"], rows["value"], strict=True))


def _group(name: str) -> Any:
    return namedtuple(name, values := _values(name))(**values)


COSMOLOGY, INSTRUMENT, LENSES, LIGHT = map(_group, ("Cosmology", "Instrument", "LensPopulation", "Light"))
SHAPES, FOOTPRINT, LABELLER = map(_group, ("Shapes", "Footprint", "Labeller"))
BAND, COLOURS = map(_group, ("Band", "Colour"))

MIXES: dict[str, dict[str, float]] = {name: _values(f"Mix {name}") for name in ("catalogue", "hard")}
"""Shares of the ordinary classes, as scenes."""


def parameter_table() -> pd.DataFrame:
    """All parameters of the simulator.

    Returns:
        One row a parameter: group, parameter, value, unit, source, check (how the source was
        verified; "not checked", or "choice" where there is none).
    """
    return _TABLE.copy()

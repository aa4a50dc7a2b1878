"""The truth table: `truth.csv` has its columns with type, unit and description."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

COLUMNS = pd.read_csv(Path(__file__).with_name("truth.csv"), keep_default_na=False, index_col="column")
"""Columns `type`, `unit` and `description`, by name of the column of the truth table."""

_TYPES = {
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
    "bool": pa.bool_(),
    "list": pa.list_(pa.float64()),
}
_OF_IMAGES = ("image_reddening", "image_microlensing")


def schema(bands: str = "i") -> pa.Schema:
    """The columns of a survey in these bands, with units: colours only of bands other than i."""
    others = set(bands) - {"i"}
    absent = {f"{band}_i" for band in set("grzy") - others} | (set() if others else set(_OF_IMAGES))
    return pa.schema(
        [
            pa.field(name, _TYPES[row["type"]], metadata={key: row[key] for key in ("unit", "description")})
            for name, row in COLUMNS.iterrows()
            if name not in absent
        ]
    )


def truth_table(rows: list[dict], bands: str = "i") -> pa.Table:
    """Rows as an Arrow table with units; what a row does not have is null."""
    return pa.Table.from_pylist(rows, schema=schema(bands))

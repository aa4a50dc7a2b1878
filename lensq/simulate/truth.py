"""The truth table: `truth.csv` has its columns with type, unit and description."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

COLUMNS = pd.read_csv(Path(__file__).with_name("truth.csv"), keep_default_na=False, index_col="column")
"""Columns `type`, `unit` and `description`, by name of the column of the truth table."""


def schema(bands: str = "i") -> pa.Schema:
    """The columns of a survey in these bands, with units: colours only of bands other than i."""
    others = set(bands) - {"i"}
    absent = {f"{band}_i" for band in set("grzy") - others}
    absent |= set() if others else {"image_reddening", "image_microlensing"}
    fields = []
    for name, row in COLUMNS.drop(index=list(absent)).iterrows():
        kind = pa.list_(pa.float64()) if row["type"] == "list" else pa.type_for_alias(row["type"])
        fields.append(pa.field(name, kind, metadata=dict(row[["unit", "description"]])))
    return pa.schema(fields)

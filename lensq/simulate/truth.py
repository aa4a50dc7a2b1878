"""The truth table: its columns, their units, and how it is written and read."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

_NUMBERS = pa.list_(pa.float64())

COLUMNS: dict[str, tuple[pa.DataType, str, str]] = {
    "index": (pa.int64(), "", "number of the object in its survey"),
    "name": (pa.string(), "", "Jhhmmss.ss+ddmmss.ss"),
    "ra": (pa.float64(), "deg", "right ascension"),
    "dec": (pa.float64(), "deg", "declination"),
    "class": (pa.string(), "", "lens or class of ordinary objects"),
    "is_lens": (pa.bool_(), "", "a lensed quasar"),
    "parent": (pa.int64(), "", "index of the object of which this is a second cutout, else -1"),
    "magnitude_i": (pa.float64(), "mag", "all quasar images of a lens; the whole object otherwise"),
    "total_magnitude": (pa.float64(), "mag", "the whole object, deflector and host included"),
    "point_magnitude": (pa.float64(), "mag", "the point source"),
    "host_magnitude": (pa.float64(), "mag", "host galaxy; before magnification for a lens"),
    "host_radius": (pa.float64(), "arcsec", "half-light radius of the host; in the source plane for a lens"),
    "host_ellipticity": (pa.float64(), "", "1 - q of the host's light; in the source plane for a lens"),
    "host_angle": (pa.float64(), "rad", "of the host's major axis, from x towards y, 0 to pi"),
    "galaxy_radius": (
        pa.float64(),
        "arcsec",
        "half-light radius of an ordinary object's galaxy (its disk; of several galaxies the brightest)",
    ),
    "galaxy_ellipticity": (pa.float64(), "", "1 - q of that galaxy's light"),
    "galaxy_angle": (pa.float64(), "rad", "of that galaxy's major axis, from x towards y, 0 to pi"),
    "companion_separation": (pa.float64(), "arcsec", "distance of the companion of an ordinary object"),
    "companion_flux_ratio": (pa.float64(), "", "fainter over brighter of an ordinary pair"),
    "separation": (pa.float64(), "arcsec", "largest distance between two lensed images"),
    "flux_ratio": (pa.float64(), "", "second image of two, or third of more, over the brightest"),
    "n_images": (pa.int64(), "", "lensed images"),
    "einstein_radius": (pa.float64(), "arcsec", "of the SIE"),
    "z_lens": (pa.float64(), "", "redshift of the deflector"),
    "z_source": (pa.float64(), "", "redshift of the quasar"),
    "sigma_v": (pa.float64(), "km/s", "velocity dispersion of the deflector"),
    "deflector_magnitude": (pa.float64(), "mag", "deflector"),
    "deflector_radius": (pa.float64(), "arcsec", "half-light radius of the deflector"),
    "deflector_ellipticity": (pa.float64(), "", "1 - q of the deflector's light"),
    "deflector_angle": (pa.float64(), "rad", "of the deflector's light, from x towards y, 0 to pi"),
    "ellipticity": (pa.float64(), "", "1 - q of the mass"),
    "position_angle": (pa.float64(), "rad", "of the mass, from x towards y"),
    "shear": (pa.float64(), "", "external shear"),
    "shear_angle": (pa.float64(), "rad", "of the shear, from x towards y"),
    "source_x": (pa.float64(), "arcsec", "source from the deflector"),
    "source_y": (pa.float64(), "arcsec", "source from the deflector"),
    "source_magnitude": (pa.float64(), "mag", "quasar before magnification"),
    "image_x": (_NUMBERS, "arcsec", "images from the deflector, brightest first"),
    "image_y": (_NUMBERS, "arcsec", "images from the deflector, brightest first"),
    "image_magnitudes": (_NUMBERS, "mag", "images, brightest first"),
    "magnifications": (_NUMBERS, "", "absolute magnification of the images"),
    "centre_x": (
        pa.float64(),
        "arcsec",
        "where the scene's origin (the deflector of a lens) lies in the cutout",
    ),
    "centre_y": (
        pa.float64(),
        "arcsec",
        "where the scene's origin (the deflector of a lens) lies in the cutout",
    ),
    "seeing": (pa.float64(), "arcsec", "FWHM of the PSF"),
    "sky": (pa.float64(), "counts/px", "noise of the empty sky (standard deviation), zero point 27"),
    "gain": (pa.float64(), "electron/count", "effective gain of the coadd"),
    "exposures": (pa.int64(), "", "exposures in the coadd"),
    "artefact": (pa.string(), "", "kind of artefact, empty where there is none"),
    "size": (pa.int64(), "px", "side of the cutout"),
    "clarity": (pa.float64(), "", "how clearly two images are seen, 0 to 1"),
    "flagged": (pa.bool_(), "", "flagged by the inspector"),
    "grade": (pa.float64(), "", "grade of the second look, 0 to 3"),
    "graded": (pa.bool_(), "", "in the graded list"),
}

SCHEMA = pa.schema(
    [
        pa.field(name, kind, metadata={"unit": unit, "description": description})
        for name, (kind, unit, description) in COLUMNS.items()
    ]
)


def truth_table(rows: list[dict]) -> pa.Table:
    """Rows as an Arrow table with units; what a row does not have is null."""
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def read_truth(path: str | Path) -> pd.DataFrame:
    """Truth table of a survey folder (or of the Parquet file itself), NaN where not applicable.

    Raises:
        FileNotFoundError: The survey was not simulated, or not finished.
    """
    path = Path(path)
    path = path / "truth.parquet" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is absent: only a finished simulated survey has a truth table")
    return pd.read_parquet(path)


def truth_units(path: str | Path | None = None) -> pd.DataFrame:
    """Unit and description of each column of the truth table: columns `column`, `unit`, `description`.

    Args:
        path: A Parquet file or survey folder to read them from; None for those of this version.
    """
    schema = SCHEMA
    if path is not None:
        path = Path(path)
        schema = pq.read_schema(path / "truth.parquet" if path.is_dir() else path)
    rows = []
    for item in schema:
        note = {key.decode(): value.decode() for key, value in (item.metadata or {}).items()}
        rows.append(
            {"column": item.name, "unit": note.get("unit", ""), "description": note.get("description", "")}
        )
    return pd.DataFrame(rows)

"""How the simulated lenses compare with the mock catalogue of Oguri & Marshall (2010).

The catalogue itself is not part of the project. Its quantiles below were computed from the public file
of 15,658 lensed quasars (github.com/drphilmarshall/OM10) after the simulator's own cuts: separation 0.5
to 4 arcsec, flux ratio above 0.1, third (or, of two, second) image brighter than 23.3, all images
together between 17.5 and 22.3, deflector between 17.5 and 23. 12,905 systems are left.
"""

import numpy as np
import pandas as pd

LEVELS = (0.05, 0.16, 0.30, 0.50, 0.70, 0.84, 0.95)

OM10_QUANTILES: dict[str, tuple[float, ...]] = {
    "separation": (0.642, 0.847, 1.086, 1.428, 1.855, 2.313, 3.023),
    "magnitude_i": (18.536, 19.441, 20.067, 20.697, 21.210, 21.589, 21.999),
    "flux_ratio of doubles": (0.126, 0.185, 0.261, 0.388, 0.564, 0.731, 0.904),
    "deflector_magnitude": (18.535, 19.522, 20.293, 21.065, 21.782, 22.295, 22.754),
    "deflector minus quasars": (-2.350, -1.264, -0.434, 0.425, 1.242, 1.980, 3.011),
    "z_lens": (0.272, 0.398, 0.532, 0.706, 0.898, 1.078, 1.318),
    "z_source": (1.230, 1.600, 1.930, 2.340, 2.790, 3.260, 3.950),
    "sigma_v": (145.2, 171.8, 194.1, 219.3, 245.5, 268.5, 301.3),
    "ellipticity": (0.069, 0.148, 0.216, 0.296, 0.381, 0.460, 0.566),
    "shear": (0.024, 0.032, 0.039, 0.050, 0.063, 0.078, 0.105),
}
"""Quantiles of the catalogue at `LEVELS`, after the cuts."""

OM10_QUADS = 0.136
"""Share of the catalogue's systems with four images, after the cuts."""

_UNITS = {"separation": "arcsec", "sigma_v": "km/s"}
_UNITS |= dict.fromkeys(("magnitude_i", "deflector_magnitude", "deflector minus quasars"), "mag")


def compare_with_om10(truth: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of the simulated lenses beside those of OM10.

    Args:
        truth: A truth table; only its lenses are used.

    Returns:
        One row a quantity and quantile, and one for the share of quads: columns `quantity`, `unit`,
        `quantile`, `om10`, `simulated`, `error` (statistical, of the simulated value, from order
        statistics), `tolerance` (0.2 mag, 3 points of the quads, 15% of anything else), `agrees`.

    Raises:
        ValueError: The table holds fewer than 20 lenses.
    """
    lenses = truth[truth["is_lens"] == 1]
    if len(lenses) < 20:
        raise ValueError(f"truth holds {len(lenses)} lenses: at least 20 are needed for quantiles")
    values = {name: lenses[name] for name in OM10_QUANTILES if name in lenses}
    values["flux_ratio of doubles"] = lenses.loc[lenses["n_images"] == 2, "flux_ratio"]
    values["deflector minus quasars"] = lenses["deflector_magnitude"] - lenses["magnitude_i"]
    rows = []
    for name, expected in OM10_QUANTILES.items():
        unit = _UNITS.get(name, "")
        for level, known in zip(LEVELS, expected, strict=True):
            tolerance = 0.2 if unit == "mag" else 0.15 * known
            rows.append((name, unit, level, known, *_quantile(values[name], level), tolerance))
    quads = float((lenses["n_images"] >= 4).mean())
    error = float(np.sqrt(quads * (1 - quads) / len(lenses)))
    rows.append(("quads", "share", np.nan, OM10_QUADS, quads, error, 0.03))
    columns = ["quantity", "unit", "quantile", "om10", "simulated", "error", "tolerance"]
    table = pd.DataFrame(rows, columns=columns)
    table["agrees"] = (table["simulated"] - table["om10"]).abs() <= table["tolerance"]
    return table


def _quantile(values: pd.Series, level: float) -> tuple[float, float]:
    """A quantile and half the distance between those one binomial sigma below and above it."""
    spread = np.sqrt(level * (1 - level) / len(values))
    low, found, high = np.quantile(values, np.clip([level - spread, level, level + spread], 0, 1))
    return float(found), float((high - low) / 2)

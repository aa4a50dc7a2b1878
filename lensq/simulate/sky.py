"""Where the objects lie and what each of them is: the plan of a survey, drawn before any pixel."""

from dataclasses import dataclass

import numpy as np

from lensq.simulate.parameters import SKY
from lensq.simulate.scenes import MIXES

_BLOCK = 4096
_RA_STEP, _DEC_STEP = 0.15, 0.01  # arcsec, the last digit of a name


@dataclass(frozen=True)
class Plan:
    """What stands where, one entry an object.

    Attributes:
        names: (n,) `Jhhmmss.ss+ddmmss.ss`, all different.
        ra, dec: (n,) degrees, as precise as the name.
        classes: (n,) "lens" or a class of ordinary objects.
        parent: (n,) index of the object of whose scene this is a second, re-centred cutout, else -1.
    """

    names: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    classes: np.ndarray
    parent: np.ndarray


def make_plan(n: int, seed: int, mix: str, anomaly_rate: float) -> Plan:
    """Draw positions and classes of `n` objects.

    The first objects of a larger plan with the same seed are those of the smaller one. The share of
    lenses is exact to within one object (up to the second cutouts of lenses).
    """
    blocks = [_block(seed, b, mix) for b in range(-(-n // _BLOCK))]
    ra, dec, close, shift_x, shift_y, classes, start = (
        np.concatenate(c)[:n] for c in zip(*blocks, strict=True)
    )
    close[0] = False
    index = np.arange(n)
    close &= ~np.roll(close, 1)
    parent = np.where(close, index - 1, -1)
    ra = np.where(close, ra[parent] + shift_x / 3600 / np.cos(np.radians(dec[parent])), ra)
    dec = np.where(close, dec[parent] + shift_y / 3600, dec)
    classes = _spread_lenses(classes, close, anomaly_rate, start[0])
    classes = np.where(close, classes[parent], classes)
    ra_cell, dec_cell = _unique_cells(ra, dec)
    return Plan(
        names=_names(ra_cell, dec_cell),
        ra=ra_cell * _RA_STEP / 3600,
        dec=dec_cell * _DEC_STEP / 3600 - 90,
        classes=classes,
        parent=parent,
    )


def _block(seed: int, block: int, mix: str):
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, block)))
    ra, dec = _footprint(rng, _BLOCK)
    close = rng.random(_BLOCK) < SKY.close_fraction / (1 - SKY.close_fraction)
    usual = rng.random(_BLOCK) < SKY.close_usual_fraction
    distance = np.where(usual, rng.uniform(*SKY.close_usual, _BLOCK), rng.uniform(*SKY.close_limits, _BLOCK))
    angle = rng.uniform(0, 2 * np.pi, _BLOCK)
    shares = MIXES[mix]
    classes = rng.choice(list(shares), _BLOCK, p=np.array(list(shares.values())) / sum(shares.values()))
    return (
        ra,
        dec,
        close,
        distance * np.cos(angle),
        distance * np.sin(angle),
        classes.astype("U16"),
        rng.random(_BLOCK),
    )


def _footprint(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions evenly over the fields, by area."""
    low_ra, high_ra, low_dec, high_dec = np.array(SKY.fields).T
    low_z, high_z = np.sin(np.radians(low_dec)), np.sin(np.radians(high_dec))
    area = (high_ra - low_ra) * (high_z - low_z)
    field = rng.choice(len(area), n, p=area / area.sum())
    ra = rng.uniform(low_ra[field], high_ra[field]) % 360
    return ra, np.degrees(np.arcsin(rng.uniform(low_z[field], high_z[field])))


def _spread_lenses(classes: np.ndarray, close: np.ndarray, rate: float, start: float) -> np.ndarray:
    """Turn every (1 / rate)-th object into a lens, counting second cutouts."""
    found, spread = 0, classes.copy()
    due = np.floor(np.arange(1, len(classes) + 1) * rate + start).astype(int)
    for i in range(len(classes)):
        if close[i]:
            found += spread[i - 1] == "lens"
        elif found < due[i]:
            spread[i] = "lens"
            found += 1
    return spread


def _unique_cells(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in units of the last digit of a name; a later object moves up where its cell is taken."""
    ra_cell = np.floor(ra % 360 * 3600 / _RA_STEP + 0.5).astype(np.int64) % int(360 * 3600 / _RA_STEP)
    dec_cell = np.floor((dec + 90) * 3600 / _DEC_STEP + 0.5).astype(np.int64)
    while True:
        _, first = np.unique(ra_cell * 2**32 + dec_cell, return_index=True)
        taken = np.ones(len(ra), bool)
        taken[first] = False
        if not taken.any():
            return ra_cell, dec_cell
        dec_cell[taken] += 1


def _names(ra_cell: np.ndarray, dec_cell: np.ndarray) -> np.ndarray:
    """`Jhhmmss.ss+ddmmss.ss` from cells of 0.01 s and 0.01 arcsec."""
    dec_cell = dec_cell - 90 * 360_000
    sign = np.where(dec_cell < 0, "-", "+")
    return np.array(
        [
            f"J{_sexagesimal(a)}{s}{_sexagesimal(abs(d))}"
            for a, s, d in zip(ra_cell.tolist(), sign, dec_cell.tolist(), strict=True)
        ]
    )


def _sexagesimal(hundredths: int) -> str:
    minutes, seconds = divmod(hundredths, 6000)
    return f"{minutes // 60:02d}{minutes % 60:02d}{seconds // 100:02d}.{seconds % 100:02d}"

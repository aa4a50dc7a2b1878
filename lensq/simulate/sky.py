"""Where the objects lie and what each of them is: the plan of a survey, drawn before any pixel."""

from dataclasses import dataclass, fields

import numpy as np

from lensq.simulate.parameters import FOOTPRINT, INSTRUMENT, MIXES
from lensq.simulate.scenes import PAIRS

_BLOCK = 4096  # objects drawn from one generator
_RA_STEP, _DEC_STEP = 0.15, 0.01  # arcsec, the last digit of a name


@dataclass(frozen=True)
class Plan:
    """What stands where, one entry an object.

    Some objects are second cutouts of the scene of the object before them, centred on the other
    component: in the real list 6% of the names lie two to three arcseconds from another one, so that the
    two share pixels.

    Attributes:
        names: (n,) `Jhhmmss.ss+ddmmss.ss`, all different.
        ra, dec: (n,) degrees, as precise as the name.
        classes: (n,) "lens" or a class of ordinary objects.
        parent: (n,) index of the object of whose scene this is a second cutout, else -1.
        shift_x, shift_y: (n,) whole pixels from the first to the second cutout, given for both of them;
            0 where there is one cutout only.
    """

    names: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    classes: np.ndarray
    parent: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray

    def __getitem__(self, rows: slice) -> "Plan":
        """The plan of a part of the survey."""
        return Plan(*(getattr(self, item.name)[rows] for item in fields(self)))


def make_plan(n: int, seed: int, mix: str, anomaly_rate: float) -> Plan:
    """Draw positions and classes of `n` objects.

    The first objects of a longer plan with the same seed are those of a shorter one, and of all of them a
    share `anomaly_rate` is lenses, to within one object.
    """
    blocks = [_block(seed, block, mix) for block in range(n // _BLOCK + 1)]  # at least n + 1 objects
    ra, dec, ordinary, chance, distance, angle, start = (np.concatenate(c) for c in zip(*blocks, strict=True))
    classes, second = _assign(ordinary, chance, anomaly_rate, start[0])
    index = np.arange(len(ra))
    step = distance / INSTRUMENT.pixel_scale
    shift_x = np.where(second, np.round(step * np.cos(angle)), 0).astype(int)
    shift_y = np.where(second, np.round(step * np.sin(angle)), 0).astype(int)
    parent = np.where(second, index - 1, -1)
    degrees = INSTRUMENT.pixel_scale / 3600
    ra = np.where(second, ra[parent] - shift_x * degrees / np.cos(np.radians(dec[parent])), ra)
    dec = np.where(second, dec[parent] + shift_y * degrees, dec)
    first = np.append(second[1:], False)
    shift_x[first], shift_y[first] = shift_x[1:][first[:-1]], shift_y[1:][first[:-1]]
    ra_cell, dec_cell = _unique_cells(ra[:n], dec[:n])
    return Plan(
        names=_names(ra_cell, dec_cell),
        ra=ra_cell * _RA_STEP / 3600,
        dec=dec_cell * _DEC_STEP / 3600 - 90,
        classes=classes[:n],
        parent=parent[:n],
        shift_x=shift_x[:n],
        shift_y=shift_y[:n],
    )


def _block(seed: int, block: int, mix: str) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, block)))
    ra, dec = _footprint(rng, _BLOCK)
    shares = MIXES[mix]
    classes = rng.choice(list(shares), _BLOCK, p=np.array(list(shares.values())) / sum(shares.values()))
    usual = rng.random(_BLOCK) < FOOTPRINT.usual_share
    distance = np.where(
        usual, rng.uniform(*FOOTPRINT.usual_distance, _BLOCK), rng.uniform(*FOOTPRINT.distance, _BLOCK)
    )
    return (
        ra,
        dec,
        classes.astype("U16"),
        rng.random(_BLOCK),
        distance,
        rng.uniform(0, 2 * np.pi, _BLOCK),
        rng.random(_BLOCK),
    )


def _footprint(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions evenly over the fields, by area."""
    low_ra, high_ra, low_dec, high_dec = np.array(FOOTPRINT.fields).T
    low_z, high_z = np.sin(np.radians(low_dec)), np.sin(np.radians(high_dec))
    area = (high_ra - low_ra) * (high_z - low_z)
    field = rng.choice(len(area), n, p=area / area.sum())
    ra = rng.uniform(low_ra[field], high_ra[field]) % 360
    return ra, np.degrees(np.arcsin(rng.uniform(low_z[field], high_z[field])))


def _assign(ordinary: np.ndarray, chance: np.ndarray, rate: float, start: float):
    """Classes, and which objects are second cutouts; every (1 / rate)-th object is a lens."""
    classes, second, found = ordinary.copy(), np.zeros(len(ordinary), bool), 0
    due = np.floor(np.arange(1, len(classes) + 1) * rate + start).astype(int).tolist()
    likely = chance < FOOTPRINT.second_cutouts
    previous_is_pair = False
    for i in range(len(classes)):
        if previous_is_pair and likely[i]:
            classes[i], second[i] = classes[i - 1], True
            previous_is_pair = False
            continue
        if found < due[i]:
            classes[i] = "lens"
            found += 1
        previous_is_pair = classes[i] in PAIRS
    return classes, second


def _unique_cells(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in units of the last digit of a name; a later object moves up where its cell is taken."""
    ra_cell = np.floor(ra % 360 * 3600 / _RA_STEP + 0.5).astype(np.int64) % round(360 * 3600 / _RA_STEP)
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

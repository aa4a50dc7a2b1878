"""Where the objects lie and what each of them is: the plan of a survey, drawn before any pixel."""

import numpy as np
import pandas as pd

from lensq.simulate.parameters import FOOTPRINT, INSTRUMENT, MIXES
from lensq.simulate.scenes import CLASSES, PAIRS

_BLOCK = 4096  # objects drawn from one generator
_RA_STEP, _DEC_STEP = 0.15, 0.01  # arcsec, the last digit of a name
_EQUATOR = 90 * 360_000  # declination cells from the south pole

CLASS_NAMES = ("lens", *CLASSES)


def make_plan(n: int, seed: int, mix: str, anomaly_rate: float) -> pd.DataFrame:
    """Draw positions and classes of `n` objects.

    The first objects of a longer plan with the same seed are those of a shorter one, and of all of them a
    share `anomaly_rate` is lenses, to within one object. Some objects are second cutouts of the scene of the
    object before them, centred on the other component: in the real list 6% of the names lie two to three
    arcseconds from another one, so that the two share pixels.

    Returns:
        One row an object, numbered from 0: `name` (`Jhhmmss.ss+ddmmss.ss`, all different), `ra` and `dec` in
        degrees, as precise as the name, `class_name` ("lens" or a class of ordinary objects), `parent` (index
        of the object of whose scene this is a second cutout, else -1), `shift_x` and `shift_y` (whole pixels
        from the first to the second cutout, given for both of them; 0 where there is one cutout only).
    """
    blocks = [_block(seed, block, mix) for block in range(n // _BLOCK + 1)]  # at least n + 1 objects
    ra, dec, code, likely, step_x, step_y = (np.concatenate(column) for column in zip(*blocks, strict=True))
    del blocks
    start = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,))).random()
    second = _assign(code, likely, anomaly_rate, start)
    shift_x, shift_y = np.where(second, step_x, 0), np.where(second, step_y, 0)
    parent = np.where(second, np.arange(len(ra)) - 1, -1)
    degrees = INSTRUMENT.pixel_scale / 3600
    ra = np.where(second, ra[parent] - shift_x * degrees / np.cos(np.radians(dec[parent])), ra)
    dec = np.where(second, dec[parent] + shift_y * degrees, dec)
    first = np.flatnonzero(second) - 1
    shift_x[first], shift_y[first] = shift_x[first + 1], shift_y[first + 1]
    ra_cell, dec_cell = _unique_cells(ra[:n], dec[:n])
    names = map(_name, ra_cell.tolist(), dec_cell.tolist())
    plan = pd.DataFrame({"name": list(names), "ra": ra_cell * _RA_STEP / 3600})
    plan["dec"] = (dec_cell - _EQUATOR) * _DEC_STEP / 3600
    plan["class_name"] = pd.Categorical.from_codes(code[:n], CLASS_NAMES)
    return plan.assign(parent=parent[:n], shift_x=shift_x[:n], shift_y=shift_y[:n])


def _block(seed: int, block: int, mix: str) -> tuple[np.ndarray, ...]:
    """Position, ordinary class, readiness for a second cutout and its shift, of one block of objects."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, block)))
    ra, dec = _footprint(rng, _BLOCK)
    shares = np.array([MIXES[mix].get(name, 0.0) for name in CLASS_NAMES])
    code = rng.choice(len(CLASS_NAMES), _BLOCK, p=shares / shares.sum()).astype(np.int8)
    likely = rng.random(_BLOCK) < FOOTPRINT.second_cutouts
    usual = rng.random(_BLOCK) < FOOTPRINT.usual_share
    near, any_other = rng.uniform(*FOOTPRINT.usual_distance, _BLOCK), rng.uniform(*FOOTPRINT.distance, _BLOCK)
    distance = np.where(usual, near, any_other)
    angle, pixels = rng.uniform(0, 2 * np.pi, _BLOCK), distance / INSTRUMENT.pixel_scale
    step_x, step_y = np.round(pixels * np.cos(angle)), np.round(pixels * np.sin(angle))
    return ra, dec, code, likely, step_x.astype(np.int16), step_y.astype(np.int16)


def _footprint(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions evenly over the fields, by area."""
    low_ra, high_ra, low_dec, high_dec = np.array(FOOTPRINT.fields).T
    low_z, high_z = np.sin(np.radians(low_dec)), np.sin(np.radians(high_dec))
    area = (high_ra - low_ra) * (high_z - low_z)
    field = rng.choice(len(area), n, p=area / area.sum())
    ra = rng.uniform(low_ra[field], high_ra[field]) % 360
    return ra, np.degrees(np.arcsin(rng.uniform(low_z[field], high_z[field])))


def _assign(code: np.ndarray, likely: np.ndarray, rate: float, start: float) -> np.ndarray:
    """Make every (1 / rate)-th object a lens, in place, and tell which objects are second cutouts."""
    second, found, previous_is_pair = np.zeros(len(code), bool), 0, False
    lens, pairs = CLASS_NAMES.index("lens"), {CLASS_NAMES.index(name) for name in PAIRS}
    for i in range(len(code)):
        if previous_is_pair and likely[i]:
            code[i], second[i] = code[i - 1], True
            previous_is_pair = False
            continue
        if found < int((i + 1) * rate + start):
            code[i] = lens
            found += 1
        previous_is_pair = int(code[i]) in pairs
    return second


def _unique_cells(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in units of the last digit of a name; a later object moves up where its cell is taken.

    Declinations are counted from the south pole.
    """
    ra_cell = np.floor(ra % 360 * 3600 / _RA_STEP + 0.5).astype(np.int64) % round(360 * 3600 / _RA_STEP)
    dec_cell = np.floor((dec + 90) * 3600 / _DEC_STEP + 0.5).astype(np.int64)
    while True:
        _, first = np.unique(ra_cell * 2**32 + dec_cell, return_index=True)
        taken = np.ones(len(ra), bool)
        taken[first] = False
        if not taken.any():
            return ra_cell, dec_cell
        dec_cell[taken] += 1


def _name(ra_cell: int, dec_cell: int) -> str:
    south = dec_cell - _EQUATOR
    return f"J{_sexagesimal(ra_cell)}{'-' if south < 0 else '+'}{_sexagesimal(abs(south))}"


def _sexagesimal(hundredths: int) -> str:
    minutes, seconds = divmod(hundredths, 6000)
    return f"{minutes // 60:02d}{minutes % 60:02d}{seconds // 100:02d}.{seconds % 100:02d}"

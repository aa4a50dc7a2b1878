"""Split a survey by sky, so that no pixel and no neighbourhood is on two sides.

Cutouts of objects a few arcseconds apart show the same pixels. Objects within 12", or the diagonal of
larger cutouts, are therefore one group first (friends of friends), and a group goes where its first
member goes. Members are placed by tiles of the sky, each thrown to one side by a hash of its number and
the seed: an object keeps its side whatever the order of the names and whatever other objects there are,
as long as its group and the size of the tiles stay the same.
"""

import hashlib
import re
from collections.abc import Sequence

import astropy.units as u
import numpy as np
import pandas as pd
from astropy.coordinates import SkyCoord

GROUP_RADIUS = 12.0
"""Arcseconds between two objects that makes them friends, at least: more than the diagonal of a cutout."""
MOST_RADIUS = 30.0
"""And at most, however large the cutouts are: a dense field would be one group."""

FRACTIONS = {"validation": 0.06, "train": 0.54, "selection": 0.1, "conformal": 0.1, "test": 0.2}
"""Share of the tiles of each split. Validation, for early stopping, is a tenth of the training tiles."""

TILE_SIDES = (1.0, 0.5, 0.25, 0.1, 0.05)
"""Sides of a tile in degrees, coarsest first."""

ENOUGH_TILES = 500
"""Occupied tiles from which on the shares of the splits come out near their nominal values."""

_NAME = re.compile(r"^J(\d\d)(\d\d)(\d\d(?:\.\d*)?)([+-])(\d\d)(\d\d)(\d\d(?:\.\d*)?)(?![\d.])")


def coordinates_from_names(names: Sequence[str]) -> SkyCoord:
    """Read positions out of names like J112047.21-002935.09 (hours and degrees, sexagesimal).

    Args:
        names: (N,) names that begin with the position. Seconds may be 60.00, which is how the real lists
            write a minute that rounding has filled; 24 hours are 0.

    Returns:
        (N,) ICRS coordinates, NaN where a name holds none.
    """
    found = pd.Series(names, dtype=object).str.extract(_NAME)
    sign = np.where(found.pop(3) == "-", -1.0, 1.0)
    hours, minutes, seconds, degrees, arcminutes, arcseconds = found.astype(float).to_numpy().T
    ra = 15 * (hours + minutes / 60 + seconds / 3600)
    dec = sign * (degrees + arcminutes / 60 + arcseconds / 3600)
    possible = (ra.round(9) <= 360) & (np.abs(dec) <= 90)
    possible &= (np.maximum(minutes, arcminutes) < 60) & (np.maximum(seconds, arcseconds) <= 60)
    return SkyCoord(np.where(possible, ra, np.nan) * u.deg, np.where(possible, dec, np.nan) * u.deg)


def iau_name(ra: float, dec: float) -> str:
    """The name Jhhmmss.ss+ddmmss.s of a position in degrees, cut off, not rounded; "" if it is none."""
    if not (0 <= ra <= 360 and abs(dec) <= 90):
        return ""
    time, angle = int(ra % 360 * 24000 + 1e-3), int(abs(dec) * 36000 + 1e-3)  # 0.01 s, 0.1"
    hours = f"{time // 360_000:02}{time // 6000 % 60:02}{time % 6000 / 100:05.2f}"
    degrees = f"{angle // 36000:02}{angle // 600 % 60:02}{angle % 600 / 10:04.1f}"
    return f"J{hours}{'-' if dec < 0 else '+'}{degrees}"


def group_radius(side: float) -> float:
    """The arcseconds within which cutouts of a side in arcseconds may share pixels, in those two limits."""
    return float(np.clip(side * 2**0.5, GROUP_RADIUS, MOST_RADIUS))


def friends_of_friends(coordinates: SkyCoord, radius: float = GROUP_RADIUS) -> np.ndarray:
    """Group objects that are linked by steps of at most `radius`.

    Args:
        coordinates: (N,) positions; an object without one is a group of its own.
        radius: linking length in arcseconds.

    Returns:
        (N,) int64 group numbers, counted from 0 in the order in which groups first appear.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    degrees = np.stack([coordinates.ra.deg, coordinates.dec.deg], axis=1)
    places, place = np.unique(degrees, axis=0, return_inverse=True, equal_nan=False)
    known = np.flatnonzero(np.isfinite(places[:, 0]))
    vectors = SkyCoord(places[known] * u.deg).cartesian.xyz.value.T.reshape(-1, 3)
    chord = 2 * np.sin(np.radians(radius / 3600) / 2)
    first, second = known[cKDTree(vectors).query_pairs(chord, output_type="ndarray")].T
    links = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(len(places),) * 2)
    component = connected_components(links, directed=False)[1][place]
    return pd.factorize(component)[0].astype(np.int64)


def tiles(coordinates: SkyCoord, side: float) -> np.ndarray:
    """Number the tiles of the sky that objects lie in.

    Declination is cut into rows of equal height, as close to `side` as divides the sky evenly; each row
    is cut in right ascension into as many equal cells as bring their area closest to `side` squared.
    Away from the poles all tiles have that area within a few percent, and they are nearly square.

    Args:
        coordinates: (N,) positions, none NaN.
        side: side of a tile in degrees.

    Returns:
        (N,) int64 tile numbers.
    """
    rows = round(180 / side)
    row = np.clip(((coordinates.dec.deg + 90) / 180 * rows).astype(np.int64), 0, rows - 1)
    edges = np.sin(np.radians(np.linspace(-90, 90, rows + 1)))
    cells = np.maximum(1, np.rint(360 * np.degrees(np.diff(edges)) / side**2)).astype(np.int64)
    cell = (coordinates.ra.deg % 360 / 360 * cells[row]).astype(np.int64)
    return np.concatenate([[0], np.cumsum(cells)])[row] + np.minimum(cell, cells[row] - 1)


def assign_splits(
    names: Sequence[str], coordinates: SkyCoord, group: np.ndarray, *, seed: int = 0
) -> np.ndarray:
    """Give each object its split.

    Tiles have the coarsest of `TILE_SIDES` at which the survey occupies `ENOUGH_TILES` tiles, or the finest
    when it occupies fewer at all of them.

    Args:
        names: (N,) distinct names. An object without a position is placed by the hash of its name.
        coordinates: (N,) positions, NaN where unknown.
        group: (N,) group numbers; a group follows its member whose name sorts first.
        seed: another seed gives another, equally valid, split.

    Returns:
        (N,) str, keys of `FRACTIONS`.
    """
    names = np.asarray(names, str)
    known = np.isfinite(coordinates.ra.deg)
    key = np.empty(len(names), np.uint64)
    key[~known] = [int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) for name in names[~known]]
    if known.any():
        key[known] = _tile_keys(coordinates[known])
    order = np.lexsort((names, group))
    groups, first = np.unique(group[order], return_index=True)
    leader = order[first[np.searchsorted(groups, group)]]
    lot = _scrambled(key ^ _scrambled(np.array([seed % 2**64], np.uint64))) / 2.0**64
    place = np.searchsorted(np.cumsum(list(FRACTIONS.values()))[:-1], lot[leader], side="right")
    return np.array(list(FRACTIONS))[place]


def _tile_keys(coordinates: SkyCoord) -> np.ndarray:
    """(N,) uint64 tile numbers, distinct between sizes of tiles."""
    for side in TILE_SIDES:
        number = tiles(coordinates, side)
        if len(np.unique(number)) >= ENOUGH_TILES:
            break
    return number.astype(np.uint64) + (np.uint64(round(3600 * side)) << np.uint64(40))


def _scrambled(key: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea and Flood 2014, OOPSLA, fig. 1): uint64 to well mixed uint64."""
    with np.errstate(over="ignore"):
        key = key + np.uint64(0x9E3779B97F4A7C15)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def groups_table(
    names: np.ndarray, coordinates: SkyCoord, labels: np.ndarray, group: np.ndarray, split: np.ndarray
) -> pd.DataFrame:
    """Describe the groups of two objects or more.

    Args:
        names, coordinates, labels, group, split: (N,) as in a `Survey`.

    Returns:
        One row a group: group, members (names, separated by blanks), n, extent (greatest separation from
        the first member, arcseconds), selected and rejected (numbers of members with these labels),
        discordant (bool: it has both), split; the largest first.
    """
    member = np.flatnonzero(pd.Series(group).duplicated(keep=False))
    first = pd.Series(member).groupby(group[member]).transform("first").to_numpy()
    table = pd.DataFrame({"group": group[member], "members": names[member], "n": 1})
    table["extent"] = coordinates[member].separation(coordinates[first]).arcsec
    table["selected"], table["rejected"] = labels[member] == 1, labels[member] == 0
    how = {"members": " ".join, "n": "sum", "extent": "max", "selected": "sum", "rejected": "sum"}
    table = table.assign(split=split[member]).groupby("group", as_index=False).agg(how | {"split": "first"})
    table["discordant"] = (table["selected"] > 0) & (table["rejected"] > 0)
    return table.sort_values(["n", "group"], ascending=[False, True], ignore_index=True)

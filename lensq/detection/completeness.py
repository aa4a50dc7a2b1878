"""Which lenses a detector finds: completeness against their properties, with binomial intervals.

Completeness here is conditional on what gets into the survey at all: the selection of quasar candidates
before it has a selection function of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
from astropy.stats import binom_conf_interval
from scipy import stats

from lensq.detection.detectors import Detector
from lensq.statistics.guard import labelled, require_split
from lensq.statistics.metrics import threshold_at_fpr

_FEWEST = 10  # ordinary objects that must pass a threshold for it to be more than a guess

Bins = int | Sequence[float]  # their number, of equal content, or their edges

PROPERTIES = {
    "separation": "separation (arcsec)",
    "flux_ratio": "flux ratio",
    "magnitude_i": "i of all images together (mag)",
    "deflector_magnitude": "i of the deflector (mag)",
    "contrast": "deflector fainter than the images by (mag)",
    "seeing": "seeing (arcsec)",
}
"""What completeness is asked against: column of `lens_table`, and how it is written, with its unit."""


def _shares(found: np.ndarray, n: np.ndarray) -> dict[str, np.ndarray]:
    """Shares with intervals under Jeffreys' prior (Brown, Cai and DasGupta 2001); 0 to 1 without trials."""
    some = n > 0
    share, low, high = np.full(len(n), np.nan), np.zeros(len(n)), np.ones(len(n))
    share[some] = found[some] / n[some]
    low[some], high[some] = binom_conf_interval(found[some], n[some], 0.95, interval="jeffreys")
    return {"n": n, "found": found, "share": share, "low": low, "high": high}


def _edges(values: np.ndarray, bins: Bins) -> np.ndarray:
    if np.ndim(bins):
        return np.asarray(bins, float)
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError("no finite value to bin; give the edges, or rows that have this property")
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
    return edges if len(edges) > 1 else edges[0] + np.array([-0.5, 0.5])


def _checked(lenses: pd.DataFrame, found: np.ndarray, *columns: str) -> np.ndarray:
    found = np.asarray(found, bool)
    if len(found) != len(lenses):
        raise ValueError(f"found has {len(found)} values for {len(lenses)} lenses")
    if missing := [c for c in columns if c not in lenses]:
        raise ValueError(f"no column {', '.join(missing)}; join the survey's truth table by name")
    return found


def completeness_curve(lenses: pd.DataFrame, found: np.ndarray, by: str, bins: Bins = 8) -> pd.DataFrame:
    """Share of lenses found against one property.

    Args:
        lenses: one row a lens (or any objects whose share is wanted).
        found: (N,) bool, flagged at the stated operating point.
        by: a numeric column, for instance `separation` (arcsec), `flux_ratio` or `magnitude_i` (mag).
        bins: edges, or how many bins with equal numbers of lenses. The last bin includes its upper edge.

    Returns:
        One row a bin: `lower`, `upper`, `centre` (median of the lenses inside, middle if none), `n`, `found`,
        `share`, `low`, `high` (95%). Values that are not finite or outside the edges are left out.

    Raises:
        ValueError: if the column is missing or the lengths differ.
    """
    found = _checked(lenses, found, by)
    values = lenses[by].to_numpy(float)
    edges = _edges(values, bins)
    n, total = np.histogram(values[found], edges)[0], np.histogram(values, edges)[0]
    finite = values[np.isfinite(values)]
    medians = stats.binned_statistic(finite, finite, "median", edges).statistic
    centre = np.where(total > 0, medians, (edges[:-1] + edges[1:]) / 2)
    where = {"lower": edges[:-1], "upper": edges[1:], "centre": centre}
    return pd.DataFrame(where | _shares(n, total))


def by_property(groups: Mapping[str, tuple[pd.DataFrame, np.ndarray]], bins: int) -> dict[str, dict]:
    """Completeness against each of `PROPERTIES`, for several groups of lenses or operating points.

    Args:
        groups: name to a table of `lens_table` and which of its rows are found.
        bins: how many bins, each with as many lenses of the group.

    Returns:
        Label of the property to name of the group to table of `completeness_curve`; empty without lenses.
    """
    groups = {name: group for name, group in groups.items() if len(group[0])}
    curves = {}
    for column, label in PROPERTIES.items() if groups else ():
        curves[label] = {name: completeness_curve(*group, column, bins) for name, group in groups.items()}
    return curves


def completeness_map(
    lenses: pd.DataFrame, found: np.ndarray, x: str, y: str, *, bins: tuple[Bins, Bins] = (6, 6)
) -> pd.DataFrame:
    """Share of lenses found over two properties.

    Args:
        lenses: one row a lens.
        found: (N,) bool.
        x: a numeric column.
        y: another.
        bins: edges, or numbers of bins, of x and y.

    Returns:
        One row a cell: `x_lower`, `x_upper`, `y_lower`, `y_upper`, `n`, `found`, `share`, `low`, `high`.
    """
    found = _checked(lenses, found, x, y)
    values = lenses[[x, y]].to_numpy(float)
    edges = [_edges(values[:, i], bins[i]) for i in (0, 1)]
    total = np.histogram2d(*values.T, bins=edges)[0].astype(int)
    number = np.histogram2d(*values[found].T, bins=edges)[0].astype(int)
    cells = [(*x, *y) for x in pairwise(edges[0]) for y in pairwise(edges[1])]
    table = pd.DataFrame(cells, columns=["x_lower", "x_upper", "y_lower", "y_upper"])
    return table.assign(**_shares(number.ravel(), total.ravel()))


def at_fpr(detector: Detector, selection: pd.DataFrame, fpr: float) -> Detector:
    """The detector at another operating point: the threshold that so many ordinary objects pass.

    Args:
        detector: from `lensq.detection.detectors.choose_detector`.
        selection: Scores table, rows of the selection split only.
        fpr: share of the ordinary objects that is flagged at most. A threshold that fewer than ten of them
            pass is a guess: where the share is less than ten, it is ten.

    Raises:
        LeakageError: if a row is not of the selection split.
        ValueError: if there are fewer than ten ordinary objects.
    """
    require_split(selection, "selection", purpose="at_fpr")
    rows, positive = labelled(selection, detector.against)
    ordinary = np.count_nonzero(~positive)
    if ordinary < _FEWEST:
        raise ValueError(f"{ordinary} ordinary objects are too few for a strict threshold")
    fpr = max(fpr, _FEWEST / ordinary)
    return replace(detector, threshold=threshold_at_fpr(detector.score(rows), positive, fpr))


def lens_table(scores: pd.DataFrame, truth: pd.DataFrame | None) -> pd.DataFrame:
    """The lenses of a simulated survey with the properties that may decide whether they are found.

    Args:
        scores: Scores table.
        truth: the survey's truth table; None where it has none.

    Returns:
        Its lenses' rows of `scores`, joined by name, with the columns of `PROPERTIES` and `images`
        ("doubles" of two, "quads" of more). `contrast` is the deflector's magnitude less that of all images.
        No rows without truth.
    """
    own = ["separation", "flux_ratio", "magnitude_i", "deflector_magnitude", "seeing", "n_images", "is_lens"]
    if truth is None:
        return scores.iloc[:0].assign(**dict.fromkeys(PROPERTIES, 0.0), images="")
    rows = scores.drop(columns=own, errors="ignore").merge(truth[["name", *own]], on="name", validate="1:1")
    rows = rows[rows["is_lens"] == 1].reset_index(drop=True)
    images = np.where(rows["n_images"] == 2, "doubles", "quads")
    return rows.assign(contrast=rows["deflector_magnitude"] - rows["magnitude_i"], images=images)


def overall(lenses: pd.DataFrame, operating_points: Mapping[str, Detector]) -> pd.DataFrame:
    """Completeness of each operating point for all lenses, for doubles and for quads.

    Args:
        lenses: from `lens_table`.
        operating_points: name to detector.

    Returns:
        One row an operating point and group: `operating_point`, `images`, `n`, `found`, `share`, `low`,
        `high` (95%).
    """
    kinds = {kind: (lenses["images"] == kind).to_numpy() for kind in ("doubles", "quads")}
    kinds = {"all": np.ones(len(lenses), bool)} | kinds
    members = np.stack(list(kinds.values()))
    parts = []
    for name, detector in operating_points.items():
        counts = _shares(members @ detector.flags(lenses).astype(int), members.sum(axis=1))
        parts.append(pd.DataFrame({"operating_point": name, "images": list(kinds), **counts}))
    return pd.concat(parts, ignore_index=True)


def share_by_class(table: pd.DataFrame, flagged: np.ndarray, by: str = "class") -> pd.DataFrame:
    """Share of flagged objects in each class: false positives by kind, or doubles and quads.

    Args:
        table: one row an object.
        flagged: (N,) bool.
        by: the column of the classes.

    Returns:
        One row a class: `class`, `n`, `found`, `share`, `low`, `high` (95%), the largest share first.
    """
    flagged = _checked(table, flagged, by)
    groups = pd.Series(flagged).groupby(table[by].to_numpy())
    n, found = groups.size(), groups.sum().astype(int)
    result = pd.DataFrame({"class": n.index, **_shares(found.to_numpy(), n.to_numpy())})
    return result.sort_values("share", ascending=False, kind="stable", ignore_index=True)


def blind_spots(
    curves: Mapping[str, Mapping[str, pd.DataFrame]], whole: pd.DataFrame, name: str, below: float = 0.1
) -> str:
    """Where an operating point finds less than a share of the lenses, as a phrase; neighbouring bins joined.

    Args:
        curves: from `by_property`, of operating points.
        whole: from `overall`, of the same.
        name: of the operating point.
        below: the share. A bin counts if its completeness is below with 97.5% confidence.

    Returns:
        For instance "separation 0.50 to 0.85 arcsec; flux ratio 0.10 to 0.17", or "nowhere". If it holds of
        all lenses together, "on the whole" and the bins in which, with the same confidence, it does not.
        "unknown" if there are no curves.
    """
    if not curves:
        return "unknown"
    bins = pd.concat([groups[name].assign(property=label) for label, groups in curves.items()])
    everything = whole[(whole["operating_point"] == name) & (whole["images"] == "all")]
    if everything["high"].item() >= below:
        return _ranges(bins[(bins["high"] < below) & (bins["n"] > 0)]) or "nowhere"
    more = _ranges(bins[bins["low"] > below])
    return f"on the whole; {f'more, for certain, at {more} only' if more else 'for certain more nowhere'}"


def _ranges(bins: pd.DataFrame) -> str:
    """Bins of `completeness_curve`, with the column `property`, in words."""
    ranges: list[list] = []
    for row in bins.to_dict("records"):
        if ranges and ranges[-1][0] == row["property"] and ranges[-1][2] == row["lower"]:
            ranges[-1][2] = row["upper"]
        else:
            ranges.append([row["property"], row["lower"], row["upper"]])
    phrases = []
    for label, low, high in ranges:
        noun, _, unit = label.removesuffix(")").partition(" (")
        phrases.append(f"{noun} {low:.2f} to {high:.2f} {unit}".strip())
    return "; ".join(phrases)

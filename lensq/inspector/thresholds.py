"""A threshold to move: precision, recall, false discovery rate and the list follow."""

from pathlib import Path

import anywidget
import numpy as np
import pandas as pd
import traitlets

from lensq.inspector.overview import score_axis

_HERE = Path(__file__).parent
_STOPS = 240  # of the slider
_NAMED = 400  # objects of the list that travel to the browser


def operating_points(candidates: pd.DataFrame, curve: pd.DataFrame | None = None) -> pd.DataFrame:
    """What a threshold would give, for lists of one object to all, in about even steps of the logarithm.

    Args:
        candidates: table of `lensq.detection.conformal.candidate_list`, or any table with `score`, and
            perhaps `q`.
        curve: table of `lensq.statistics.metrics.operating_curve` on labelled objects; None where nobody
            knows.

    Returns:
        One row a list, from the shortest: `threshold` (the score of its last object), `listed`, `fdr`
        (expected share of false ones: the last q), `precision`, `recall`; empty where unknown.

    Raises:
        ValueError: There are no candidates, or a score is not finite.
    """
    score = np.sort(candidates["score"].to_numpy(float))[::-1]
    if not len(score) or not np.isfinite(score).all():
        raise ValueError("candidates: at least one, with finite scores; score these objects again")
    lengths = np.unique(np.rint(np.geomspace(1, len(score), _STOPS)).astype(int))
    points = pd.DataFrame({"threshold": score[lengths - 1]})
    points["listed"] = np.searchsorted(-score, -points["threshold"], side="right")  # ties are listed together
    points = points.drop_duplicates("threshold")
    points = points.assign(fdr=np.nan, precision=np.nan, recall=np.nan)
    if "q" in candidates:
        q = candidates.sort_values("score", ascending=False)["q"].to_numpy(float)
        points["fdr"] = q[points["listed"] - 1]
    if curve is not None:
        known = curve[["threshold", "precision", "recall"]].sort_values("threshold")
        rising = points[["threshold", "listed", "fdr"]].iloc[::-1]
        points = pd.merge_asof(rising, known, on="threshold", direction="forward").iloc[::-1]
        points["recall"] = points["recall"].fillna(0)  # above the highest score of a labelled object
    return points.reset_index(drop=True)


class ThresholdSlider(anywidget.AnyWidget):
    """Move a threshold and see precision, recall, false discovery rate, and which objects come and go.

    All is computed beforehand, so that the slider also moves on a page without a kernel.

    Attributes:
        place: stop of the slider, 0 for the shortest list.
    """

    _esm = (_HERE / "drawing.js").read_text() + (_HERE / "thresholds.js").read_text()
    _css = (_HERE / "inspector.css").read_text() + (_HERE / "thresholds.css").read_text()
    place = traitlets.Int().tag(sync=True)
    table = traitlets.Dict().tag(sync=True)

    def __init__(self, candidates: pd.DataFrame, curve: pd.DataFrame | None = None) -> None:
        """Make the slider. It stands first where the list holds a tenth of false ones, or at ten objects.

        Args:
            candidates: see `operating_points`; with `name`.
            curve: see `operating_points`.
        """
        self.points = operating_points(candidates, curve)
        ranked = candidates.sort_values("score", ascending=False, kind="stable")
        axis, histogram = score_axis(ranked["score"].to_numpy(float))
        if (safe := np.flatnonzero(self.points["fdr"] <= 0.1)).size:
            place = int(safe[-1])
        else:
            place = int(np.searchsorted(self.points["listed"], 10))
        listed = self.points["listed"].to_numpy()
        columns = {
            key: [None if np.isnan(v) else float(f"{v:.4g}") for v in self.points[key]]
            for key in ("threshold", "fdr", "precision", "recall")
        }
        table = {**columns, "listed": listed.tolist(), "axis": np.round(axis[listed - 1], 4).tolist()}
        table |= {"histogram": histogram, "names": ranked["name"].head(_NAMED).tolist()}
        table["scores"] = [float(f"{s:.4g}") for s in ranked["score"].head(_NAMED)]
        super().__init__(place=int(np.clip(place, 0, len(self.points) - 1)), table=table)

    @property
    def threshold(self) -> float:
        """The threshold at which the slider stands."""
        return float(self.points["threshold"].iloc[self.place])

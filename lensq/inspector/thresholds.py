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
    points = points.drop_duplicates("threshold").reset_index(drop=True)
    points["fdr"] = points["precision"] = points["recall"] = np.nan
    if "q" in candidates:
        q = candidates.sort_values("score", ascending=False)["q"].to_numpy(float)
        points["fdr"] = q[points["listed"] - 1]
    if curve is not None:
        levels = curve["threshold"].to_numpy()[::-1]
        row = len(levels) - 1 - np.searchsorted(levels, points["threshold"])
        for name in ("precision", "recall"):
            reached = curve[name].to_numpy()[np.maximum(row, 0)]
            nothing = 0.0 if name == "recall" else np.nan  # above the highest score of a labelled object
            points[name] = np.where(row >= 0, reached, nothing)
    return points


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

    def __init__(
        self,
        candidates: pd.DataFrame,
        curve: pd.DataFrame | None = None,
        *,
        threshold: float | None = None,
        name: str = "score",
    ) -> None:
        """Make the slider.

        Args:
            candidates: see `operating_points`; with `name`.
            curve: see `operating_points`.
            threshold: where it stands first; by default where the list holds a tenth of false ones, or else
                at ten objects.
            name: what the score is called.
        """
        self.points = operating_points(candidates, curve)
        ranked = candidates.sort_values("score", ascending=False, kind="stable")
        axis, histogram = score_axis(ranked["score"].to_numpy(float))
        if threshold is not None:
            place = int(np.searchsorted(-self.points["threshold"], -threshold, side="right")) - 1
        elif (safe := np.flatnonzero(self.points["fdr"] <= 0.1)).size:
            place = int(safe[-1])
        else:
            place = int(np.searchsorted(self.points["listed"], 10))
        listed = self.points["listed"].to_numpy()
        columns = {
            key: [None if np.isnan(v) else float(f"{v:.4g}") for v in self.points[key]]
            for key in ("threshold", "fdr", "precision", "recall")
        }
        super().__init__(
            place=int(np.clip(place, 0, len(self.points) - 1)),
            table={
                **columns,
                "listed": listed.tolist(),
                "axis": np.round(axis[listed - 1], 4).tolist(),
                "histogram": histogram,
                "names": ranked["name"].head(_NAMED).tolist(),
                "scores": [float(f"{s:.4g}") for s in ranked["score"].head(_NAMED)],
                "score": name,
            },
        )

    @property
    def threshold(self) -> float:
        """The threshold at which the slider stands."""
        return float(self.points["threshold"].iloc[self.place])

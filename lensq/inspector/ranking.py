"""The order in which objects are shown, what of it is shown, and where to find one."""

import time
from collections.abc import Sequence

import astropy.units as u
import numpy as np
import pandas as pd
from astropy.coordinates import SkyCoord

from lensq.classifiers.active import Head, Pool
from lensq.inspector.labels import LABELS, LabelStore
from lensq.statistics.guard import BY_EYE

ORDERS = {"score": "model score", "learnt": "learnt from labels", "uncertain": "most uncertain first"}
FILTERS = {"all": "all", "none": "without label"} | {label: label for label in LABELS}
FILTERS["known"] = "known lenses"

_NEAR = 60.0  # arcsec, within which a position finds an object


class Ranking:
    """Objects in an order that labels may change.

    Attributes:
        table: the objects, the highest score first.
        score: the column that they are ranked by without labels.
        order: rows of the table in the present order.
        rank: (N,) place of each row in it, from 0.
        shown: rows that the filter lets through, in order.
        head: what was learnt last, or None.
        probability: (N,) what it makes of each row, or None.
        controls: names of blind controls, see `mix_in`.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        labels: LabelStore,
        *,
        score: str = "score",
        columns: Sequence[str] | None = None,
        known: dict[str, str] | None = None,
    ) -> None:
        """Rank by a score.

        Args:
            table: Scores table.
            labels: labels by eye.
            score: column to rank by, the highest first.
            columns: what a head learns from; see `lensq.classifiers.active.light_columns`.
            known: name to what a known lens is called.
        """
        self.table = table.sort_values(score, ascending=False, kind="stable").reset_index(drop=True)
        self.labels, self.score, self.columns, self.known = labels, score, columns, known or {}
        self.names = self.table["name"].to_numpy().astype(str)
        self.row_of = dict(zip(self.names.tolist(), range(len(self.names)), strict=True))
        self.head: Head | None = None
        self.probability: np.ndarray | None = None
        self._pool: Pool | None = None
        self.controls: list[str] = []
        self._one_in, self._seed = 20, 0
        self.order = self.rank = self.shown = np.arange(len(self.table))
        self._filter = "all", ""

    def filter(self, which: str = "all", text: str = "") -> None:
        """Show some of the objects.

        Args:
            which: one of `FILTERS`: all, those with a label, those without, known lenses.
            text: part of the name.

        Raises:
            ValueError: There is no such filter.
        """
        if which not in FILTERS:
            raise ValueError(f"filter {which!r} is none of {', '.join(FILTERS)}")
        self._filter = which, text
        names = self.names[self.order]
        if which == "known":
            kept = np.isin(names, [name for name in self.known if name not in self.controls])
        elif which == "all":
            kept = np.ones(len(names), bool)
        else:
            kept = np.array([(self.labels[name] or "none") == which for name in names], bool)
        if text:
            kept &= np.array([text.lower() in name.lower() for name in names], bool)
        self.shown = self.order[kept]

    def reorder(self, by: str) -> str:
        """Rank anew; all orders but "score" learn from the labels first, without those of test objects.

        Args:
            by: one of `ORDERS`.

        Returns:
            What was done, in a sentence.

        Raises:
            ValueError: There is no such order, or nothing to learn from yet.
        """
        if by not in ORDERS:
            raise ValueError(f"order {by!r} is none of {', '.join(ORDERS)}")
        said = "Ranked by the score."
        key = np.arange(len(self.table))
        if by != "score":
            begun = time.perf_counter()
            score = self._learn()
            key = -score if by == "learnt" else np.abs(self.probability - 0.5)
            shown = f"{self.head.lenses} lenses and {self.head.others} others"
            said = f"Learnt from {shown} in {time.perf_counter() - begun:.1f} s."
        self.order = self._mixed(np.argsort(key, kind="stable"))
        self.rank = np.argsort(self.order)
        self.filter(*self._filter)
        return said

    def mix_in(self, names: Sequence[str], rate: float, seed: int) -> None:
        """Put objects known to be lenses among the others, in every order, one at random in each 1 / `rate`.

        Args:
            names: the lenses; those at the end may be left where they are if there are more than places.
            rate: share of them among the objects as they are shown, above 0, at most a half.
            seed: of their places.

        Raises:
            ValueError: The rate is out of range, or an object is not in the table.
        """
        if not 0 < rate <= 0.5:
            raise ValueError(f"rate = {rate}: give a share above 0, at most 0.5")
        if absent := [name for name in names if name not in self.row_of]:
            raise ValueError(f"{absent[0]} is not among the objects shown here")
        self.controls, self._one_in, self._seed = list(dict.fromkeys(names)), round(1 / rate), seed
        self.reorder("score")

    def _mixed(self, order: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(self._seed)
        rows = random.permutation([self.row_of[name] for name in self.controls]).astype(int)
        rest = order[~np.isin(order, rows)]
        between = self._one_in - 1
        places = between * np.arange(len(rows)) + random.integers(between + 1, size=len(rows))
        return np.insert(rest, np.minimum(places, len(rest)), rows)

    def score_shown(self, row: int) -> int:
        """The row whose score stands beside an object: its own, or for a control that of the object before.

        A control in the first place has that of the first other object.
        """
        controls = [self.row_of[name] for name in self.controls]
        others = np.flatnonzero(~np.isin(self.order, controls))
        before = np.searchsorted(others, self.rank[row], side="right") - 1
        return int(self.order[others[max(before, 0)]]) if len(others) else row

    def _learn(self) -> np.ndarray:
        if self._pool is None:
            allowed = self.table[self.table["split"].isin(BY_EYE)]
            self._pool = Pool(allowed, self.columns, start=self.score)
        self.head = self._pool.fit(self.labels.table())
        self.probability = self.head.probability(self.table)
        return self.head.score(self.table)

    def find(self, to: str) -> int | None:
        """The row of an object, or None.

        Args:
            to: its rank in the present order, a part of its name, or right ascension and declination in
                degrees, which find the nearest object within an arcminute.
        """
        to = to.strip()
        if to.isdigit():
            return int(self.order[int(to) - 1]) if 0 < int(to) <= len(self.order) else None
        found = [row for name, row in self.row_of.items() if to and to.lower() in name.lower()]
        if found:
            return min(found, key=lambda row: self.rank[row])
        try:
            ra, dec = map(float, to.replace(",", " ").split())
            here = SkyCoord(ra * u.deg, dec * u.deg)
        except ValueError:
            return None
        there = SkyCoord(self.table["ra"].to_numpy() * u.deg, self.table["dec"].to_numpy() * u.deg)
        distance = np.nan_to_num(there.separation(here).arcsec, nan=np.inf)
        return int(distance.argmin()) if distance.min() < _NEAR else None

    def place(self, row: int) -> int:
        """The place of a row among those shown; shows all if the filter hides it."""
        if row not in self.shown:
            self.filter()
        return int(np.flatnonzero(self.shown == row)[0])

    def as_table(self) -> pd.DataFrame:
        """The objects in order, with `rank`, `said`, `grade`, `note` and, once learnt, `probability`."""
        table = self.labels.join(self.table)
        if self.probability is not None:
            table["probability"] = self.probability
        table = table.iloc[self.order].reset_index(drop=True)
        return table.assign(rank=table.index + 1)

"""The candidate inspector: a ranked gallery to look at, to label by keyboard, and to learn from."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anywidget
import astropy.units as u
import numpy as np
import pandas as pd
import traitlets
from astropy.coordinates import SkyCoord

from lensq.active import LABELLED_ON, Head, Pool
from lensq.scoring import NATIVE_SIDE, reconstruct
from lensq.wall import LeakageError
from lensq.widgets.labels import FILE, LABELS, LabelStore
from lensq.widgets.overview import latent_plane, sample, score_axis, sky_plane
from lensq.widgets.pixels import encode, flux_of, sky_and_noise

if TYPE_CHECKING:
    from lensq.survey import Survey
    from lensq.training import Model

_HERE = Path(__file__).parent
ORDERS = {"score": "model score", "learnt": "learnt from labels", "uncertain": "most uncertain first"}
FILTERS = {
    "all": "all",
    "none": "without label",
    **{label: label for label in LABELS},
    "known": "known lenses",
}


class Inspector(anywidget.AnyWidget):
    """Look at ranked objects, label them, learn from the labels.

    The gallery is drawn in the browser, which holds one page of pixels and changes stretch, scale and
    normalisation without asking back. Everything else happens here: each key is one message, and a label is
    on the disk before it counts as given.

    Attributes:
        labels: the labels; see `LabelStore`.
        head: what was learnt last, or None.
    """

    _esm = (_HERE / "drawing.js").read_text() + (_HERE / "inspector.js").read_text()
    _css = (_HERE / "inspector.css").read_text()
    page = traitlets.Dict().tag(sync=True)
    pixels = traitlets.Bytes().tag(sync=True)
    overview = traitlets.Dict().tag(sync=True)
    progress = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        survey: "Survey",
        ranked: pd.DataFrame,
        *,
        model: "Model | None" = None,
        labels: Path | str | LabelStore | None = None,
        score: str = "score",
        columns: Sequence[str] | None = None,
        known: pd.DataFrame | None = None,
        per_page: int = 24,
        pixel_scale: float = 0.168,
    ) -> None:
        """Open a ranked survey.

        Args:
            survey: the survey that holds the images.
            ranked: Scores table of the objects to look at.
            model: draws reconstructions; without it there is the image alone.
            labels: CSV of the labels; by default `inspected.csv` in the survey's folder.
            score: column to rank by, the highest first.
            columns: what a head learns from; see `lensq.active.light_columns`. They must be in `ranked`.
            known: table of `lensq.survey.match_catalogue`, for objects that are known lenses.
            per_page: how many objects a page shows.
            pixel_scale: arcsec per pixel.

        Raises:
            LeakageError: `ranked` holds test objects of the survey that the model was trained on.
            ValueError: An object is not in the survey.
        """
        if (
            model is not None
            and model.survey_fingerprint == survey.fingerprint
            and (ranked["split"] == "test").any()
        ):
            raise LeakageError(
                "test objects of the study's own survey are not looked at by eye; leave them out: "
                'ranked[ranked["split"] != "test"]'
            )
        self.survey, self.model, self.columns = survey, model, columns
        self.labels = labels if isinstance(labels, LabelStore) else LabelStore(labels or survey.folder / FILE)
        self.head: Head | None = None
        self._pool: Pool | None = None
        self._score, self._per_page = score, per_page
        self._scale = pixel_scale * (NATIVE_SIDE / survey.size if survey.resized else 1.0)
        table = survey.add_truth(ranked) if "class" not in ranked else ranked
        self._table = table.sort_values(score, ascending=False, kind="stable").reset_index(drop=True)
        places = pd.Series(np.arange(len(survey)), index=survey.names).reindex(self._table["name"])
        if places.isna().any():
            raise ValueError(f"{places.index[places.isna()][0]} is not in the survey {survey.folder}")
        self._places = places.to_numpy(int)
        self._row = pd.Series(np.arange(len(self._table)), index=self._table["name"])
        self._known = {} if known is None else _known_as(known)
        values = self._table[score].to_numpy(float)
        self._on_axis, histogram = score_axis(values)
        self._latent = latent_plane(self._table)
        self._sky, ends = sky_plane(self._table["ra"].to_numpy(float), self._table["dec"].to_numpy(float))
        self._order, self._rank = np.arange(len(values)), np.arange(len(values))
        self._probability: np.ndarray | None = None
        self._asked = {"order": "score", "filter": "all", "text": ""}
        self._serial, self._number, self._said = 0, 0, ""
        super().__init__(
            overview={
                "histogram": histogram,
                "latent": sample(self._latent),
                "sky": sample(self._sky),
                "ends": ends,
                "score": score,
                "orders": ORDERS,
                "filters": FILTERS if self._known else {k: v for k, v in FILTERS.items() if k != "known"},
                "labels": list(LABELS),
                "real": survey.truth is None,
            }
        )
        self._select()
        self.show(0)
        self.on_msg(self._heard)

    # What the browser asks for; a notebook may ask as well.

    def show(self, number: int, select: int = 0) -> None:
        """Show a page.

        Args:
            number: of the page, from 0; brought into range.
            select: which object on it is under the lens.
        """
        pages = max(1, -(-len(self._shown) // self._per_page))
        self._number = int(np.clip(number, 0, pages - 1))
        rows = self._shown[self._number * self._per_page :][: self._per_page]
        self._serial += 1
        items, pixels = self._items(rows)
        self.labels.refresh()
        with self.hold_sync():
            self.pixels = pixels
            self.page = {
                "serial": self._serial,
                "number": self._number,
                "pages": pages,
                "shown": len(self._shown),
                "total": len(self._table),
                "size": self.survey.size,
                "arcsec": self._scale,
                "planes": 1 if self.model is None else 2,
                "items": items,
                "select": int(np.clip(select, 0, max(0, len(rows) - 1))),
                **self._asked,
            }
            self._tell()

    def label(self, name: str, label: str) -> None:
        """Label an object; on the disk when this returns.

        Args:
            name: of the object.
            label: "lens", "not", "unsure", or "" to take the label away.
        """
        if name not in self._row.index:
            raise ValueError(f"{name} is not among the objects shown here")
        self.labels.set(name, label)
        self._tell()

    def undo(self) -> None:
        """Take back the last label and go to its object."""
        name = self.labels.undo()
        if name is None:
            self._tell("Nothing to undo.")
        else:
            self._tell(f"Took back the label of {name}.")
            self._go(self._row[name])

    def filter(self, which: str = "all", text: str = "") -> None:
        """Show some of the objects.

        Args:
            which: one of `FILTERS`: all, those with a label, those without, known lenses.
            text: part of the name.
        """
        if which not in FILTERS:
            raise ValueError(f"filter {which!r} is none of {', '.join(FILTERS)}")
        self._asked |= {"filter": which, "text": text}
        self._select()
        self.show(0)

    def jump(self, to: str) -> None:
        """Go to an object.

        Args:
            to: its rank in the present order, a part of its name, or right ascension and declination.
        """
        row = self._find(str(to).strip())
        if row is None:
            self._tell(f"There is no object {to!r}.")
        else:
            self._go(row)

    def order(self, by: str) -> None:
        """Rank anew.

        Args:
            by: one of `ORDERS`. All but "score" learn from the labels first, from those of train and
                calibration objects.
        """
        if by not in ORDERS:
            raise ValueError(f"order {by!r} is none of {', '.join(ORDERS)}")
        if by == "score":
            self._order = np.arange(len(self._table))
        else:
            value = self._learn()
            key = -value if by == "learnt" else np.abs(self._probability - 0.5)
            self._order = np.argsort(key, kind="stable")
        self._rank = np.argsort(self._order)
        self._asked["order"] = by
        self._select()
        self.show(0)

    @property
    def ranked(self) -> pd.DataFrame:
        """The objects in their present order, with `rank`, `said` and, once learnt, `probability`."""
        table = self._table.assign(said=[self.labels[name] for name in self._table["name"]])
        if self._probability is not None:
            table["probability"] = self._probability
        table = table.iloc[self._order].reset_index(drop=True)
        return table.assign(rank=table.index + 1)

    # How it is done.

    def _learn(self) -> np.ndarray:
        begun = time.perf_counter()
        if self._pool is None:
            allowed = self._table[self._table["split"].isin(LABELLED_ON)]
            self._pool = Pool(allowed, self.columns, start=self._score)
        self.head = self._pool.fit(self.labels.table())
        self._probability = self.head.probability(self._table)
        score = self.head.score(self._table)
        self._said = (
            f"Learnt from {self.head.lenses} lenses and {self.head.others} others in "
            f"{time.perf_counter() - begun:.1f} s."
        )
        return score

    def _select(self) -> None:
        which, text = self._asked["filter"], self._asked["text"].lower()
        names = self._table["name"].to_numpy()[self._order]
        if which == "known":
            kept = np.array([name in self._known for name in names], bool)
        elif which != "all":
            kept = np.array([(self.labels[name] or "none") == which for name in names], bool)
        else:
            kept = np.ones(len(names), bool)
        if text:
            kept &= np.array([text in name.lower() for name in names], bool)
        self._shown = self._order[kept]

    def _go(self, row: int) -> None:
        place = np.flatnonzero(self._shown == row)
        if not len(place):
            self._asked |= {"filter": "all", "text": ""}
            self._select()
            place = np.flatnonzero(self._shown == row)
        number, select = divmod(int(place[0]), self._per_page)
        self.show(number, select)

    def _find(self, to: str) -> int | None:
        names = self._table["name"]
        if to.isdigit():
            return int(self._order[int(to) - 1]) if 0 < int(to) <= len(names) else None
        found = np.flatnonzero(names.str.contains(to, case=False, regex=False)) if to else []
        if len(found):
            return int(found[np.argmin(self._rank[found])])
        try:
            ra, dec = map(float, to.replace(",", " ").split())
        except ValueError:
            return None
        here = SkyCoord(ra * u.deg, dec * u.deg)
        distance = self.survey.coordinates[self._places].separation(here).arcsec
        return int(np.nanargmin(distance)) if np.nanmin(distance) < 60 else None

    def _tell(self, text: str | None = None) -> None:
        self._said = self._said if text is None else text
        labelled = self.labels.table()
        rows = self._row.reindex(labelled["name"]).to_numpy()
        here = np.isfinite(rows)
        marks = [
            [*np.rint(1000 * self._latent[int(row)]).astype(int).tolist(), said]
            for row, said in zip(rows[here], labelled["said"][here], strict=True)
            if self._latent.shape[1]
        ]
        self.progress = {
            "serial": self.progress.get("serial", 0) + 1,
            "counts": self.labels.counts(),
            "marks": {item["name"]: self.labels[item["name"]] for item in self.page.get("items", [])},
            "points": marks[-400:],
            "file": self.labels.path.name,
            "text": self._said,
        }

    def _items(self, rows: np.ndarray) -> tuple[list[dict], bytes]:
        if not len(rows):
            return [], b""
        places = self._places[rows]
        images, mask = np.asarray(self.survey.images[places]), np.asarray(self.survey.mask[places])
        if self.model is None:
            planes = np.where(mask, images, np.nan)[:, None]
            back = [(0.0, 1.0, False)] * len(rows)
        else:
            planes = np.stack(reconstruct(self.model, self.survey, places), axis=1)
            back = flux_of(self.model.preprocessing, images, mask)
        noise = sky_and_noise(planes[:, 0], mask)[:, 1]
        pixels, unit = encode(planes, 3 * noise)
        sky = sky_and_noise(images, mask)
        items = []
        for i, row in enumerate(rows):
            record = self._table.iloc[row]
            item = {
                "name": record["name"],
                "rank": int(self._rank[row]) + 1,
                "score": float(f"{record[self._score]:.4g}"),
                "axis": round(float(self._on_axis[row]), 4),
                "latent": np.rint(1000 * self._latent[row]).astype(int).tolist(),
                "sky": []
                if np.isnan(self._sky[row]).any()
                else np.rint(1000 * self._sky[row]).astype(int).tolist(),
                "position": _position(record["ra"], record["dec"]),
                "split": record["split"],
                "known": self._known.get(record["name"], ""),
                "told": _told(record),
                "chance": None if self._probability is None else round(float(self._probability[row]), 3),
                "softening": 3 * noise[i],
                "unit": unit[i],
                "back": back[i],
                "level": sky[i].tolist(),
            }
            items.append(item)
        return items, pixels

    def _heard(self, _, message: dict, buffers: list) -> None:
        """Do what the browser asks, and say when it is done."""
        allowed = {"show", "label", "undo", "filter", "jump", "order", "hello"}
        do, arguments = message.get("do"), message.get("with", [])
        try:
            if do not in allowed:
                raise ValueError(f"the inspector cannot {do!r}")
            if do != "hello":
                getattr(self, do)(*arguments)
        except (ValueError, OSError) as error:
            self._tell(str(error))
        self.send({"done": message.get("id")})


def _known_as(matches: pd.DataFrame) -> dict[str, str]:
    nearest = matches.sort_values("separation").drop_duplicates("name")
    called = nearest["catalogue_name"] if "catalogue_name" in nearest else ["a known lens"] * len(nearest)
    return {
        name: f'{what}, {separation:.1f}"'
        for name, what, separation in zip(nearest["name"], called, nearest["separation"], strict=True)
    }


def _position(ra: float, dec: float) -> dict[str, str]:
    if not np.isfinite(ra):
        return {}
    sexagesimal = SkyCoord(ra * u.deg, dec * u.deg).to_string("hmsdms", precision=1, sep=":")
    return {"degrees": f"{ra:.5f} {dec:+.5f}", "sexagesimal": sexagesimal}


def _told(record: pd.Series) -> str:
    """What lists and truth say, which a tool for labelling by eye shows on request only."""
    words = [
        {1: "flagged on the survey's list", 0: "rejected on the survey's list"}.get(int(record["label"]), "")
    ]
    if record.get("graded", False):
        words.append("graded")
    if isinstance(record.get("class"), str):
        words.append(f"simulated as {record['class'].replace('_', ' ')}")
    return "; ".join(filter(None, words)) or "nothing is known"

"""The candidate inspector: a ranked gallery to look at, to label by keyboard, and to learn from."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anywidget
import astropy.units as u
import numpy as np
import pandas as pd
import traitlets
from astropy.coordinates import SkyCoord

from lensq.figures.pictures import sky_and_noise
from lensq.inspector.labels import FILE, LabelStore
from lensq.inspector.overview import latent_plane, sample, score_axis, sky_plane
from lensq.inspector.pixels import encode, flux_of
from lensq.inspector.ranking import FILTERS, ORDERS, Ranking
from lensq.scores.scoring import reconstruct
from lensq.statistics.guard import LeakageError

if TYPE_CHECKING:
    from lensq.models.training import Model
    from lensq.survey.survey import Survey

_HERE = Path(__file__).parent
_POINTS = 400  # labelled objects that the map of latent space marks


class Inspector(anywidget.AnyWidget):
    """Look at ranked objects, label them, learn from the labels.

    The gallery is drawn in the browser, which holds one page of pixels and changes stretch, scale and
    normalisation without asking back. Everything else happens here: each key is one message, and a label is
    on the disk before it counts as given.

    Attributes:
        labels: the labels by eye; see `LabelStore`.
        ranking: the objects in their order; see `Ranking`.
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
    ) -> None:
        """Open a ranked survey.

        Args:
            survey: the survey that holds the images.
            ranked: Scores table of the objects to look at.
            model: draws reconstructions; without it there is the image alone.
            labels: CSV of the labels; by default `inspected.csv` in the survey's folder.
            score: column to rank by, the highest first.
            columns: what a head learns from; see `lensq.classifiers.active.light_columns`. They must be in
                `ranked`.
            known: table of `lensq.survey.survey.match_catalogue`, for objects that are known lenses.
            per_page: how many objects a page shows.

        Raises:
            LeakageError: `ranked` holds test objects of the survey that the model was trained on, and
                there are labels to judge them by.
            ValueError: An object is not in the survey.
        """
        if (
            model is not None
            and model.survey_fingerprint == survey.fingerprint
            and (survey.labels >= 0).any()
            and (ranked["split"] == "test").any()
        ):
            raise LeakageError(
                "test objects of the study's own survey are not looked at by eye; leave them out: "
                'ranked[ranked["split"] != "test"]'
            )
        self.survey, self.model, self._per_page = survey, model, per_page
        self.labels = labels if isinstance(labels, LabelStore) else LabelStore(labels or survey.folder / FILE)
        self.ranking = Ranking(
            survey.add_truth(ranked) if "class" not in ranked else ranked,
            self.labels,
            score=score,
            columns=columns,
            known={} if known is None else _known_as(known),
        )
        table = self.ranking.table
        places = pd.Series(np.arange(len(survey)), index=survey.names).reindex(table["name"])
        if places.isna().any():
            raise ValueError(f"{places.index[places.isna()][0]} is not in the survey {survey.folder}")
        self._places = places.to_numpy(int)
        self._on_axis, histogram = score_axis(table[score].to_numpy(float))
        self._latent = latent_plane(table)
        self._sky, ends = sky_plane(table["ra"].to_numpy(float), table["dec"].to_numpy(float))
        self._asked = {"order": "score", "filter": "all", "text": ""}
        self._number, self._said = 0, ""
        filters = {key: text for key, text in FILTERS.items() if key != "known" or self.ranking.known}
        super().__init__(
            overview={
                "histogram": histogram,
                "latent": sample(self._latent),
                "sky": sample(self._sky),
                "ends": ends,
                "score": score,
                "orders": ORDERS,
                "filters": filters,
            }
        )
        self.show(0)
        self.on_msg(self._heard)

    # What the browser asks for; a notebook may ask as well.

    def show(self, number: int, select: int = 0) -> None:
        """Show a page.

        Args:
            number: of the page, from 0; brought into range.
            select: which object on it is under the lens.
        """
        shown = self.ranking.shown
        pages = max(1, -(-len(shown) // self._per_page))
        self._number = int(np.clip(number, 0, pages - 1))
        rows = shown[self._number * self._per_page :][: self._per_page]
        items, pixels = self._items(rows)
        self.labels.refresh()
        with self.hold_sync():
            self.pixels = pixels
            self.page = {
                "serial": self.page.get("serial", 0) + 1,
                "number": self._number,
                "pages": pages,
                "shown": len(shown),
                "total": len(self.ranking.table),
                "size": self.survey.size,
                "arcsec": self.survey.pixel_scale,
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
        if name not in self.ranking.row_of:
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
            self._go(self.ranking.row_of[name])

    def filter(self, which: str = "all", text: str = "") -> None:
        """Show some of the objects.

        Args:
            which: one of `FILTERS`: all, those with a label, those without, known lenses.
            text: part of the name.
        """
        self.ranking.filter(which, text)
        self._asked |= {"filter": which, "text": text}
        self.show(0)

    def jump(self, to: str) -> None:
        """Go to an object.

        Args:
            to: its rank in the present order, a part of its name, or right ascension and declination.
        """
        row = self.ranking.find(str(to))
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
        self._said = self.ranking.reorder(by)
        self._asked["order"] = by
        self.show(0)

    @property
    def ranked(self) -> pd.DataFrame:
        """The objects in their present order, with `rank`, `said` and, once learnt, `probability`."""
        return self.ranking.as_table()

    # How it is done.

    def _go(self, row: int) -> None:
        number, select = divmod(self.ranking.place(row), self._per_page)
        if len(self.ranking.shown) == len(self.ranking.table):
            self._asked |= {"filter": "all", "text": ""}
        self.show(number, select)

    def _tell(self, text: str | None = None) -> None:
        """Send counts, marks and a sentence."""
        self._said = self._said if text is None else text
        row_of, plane = self.ranking.row_of, self._latent
        points = [
            [*_thousandths(plane[row_of[name]]), self.labels[name]]
            for name in self.labels.table()["name"].tail(_POINTS)
            if name in row_of and plane.shape[1]
        ]
        self.progress = {
            "serial": self.progress.get("serial", 0) + 1,
            "counts": self.labels.counts(),
            "marks": {item["name"]: self.labels[item["name"]] for item in self.page.get("items", [])},
            "points": points,
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
            record, chance = self.ranking.table.iloc[row], self.ranking.probability
            items.append(
                {
                    "name": record["name"],
                    "rank": int(self.ranking.rank[row]) + 1,
                    "score": float(f"{record[self.ranking.score]:.4g}"),
                    "axis": round(float(self._on_axis[row]), 4),
                    "latent": _thousandths(self._latent[row]),
                    "sky": _thousandths(self._sky[row]),
                    "position": _position(record["ra"], record["dec"]),
                    "split": record["split"],
                    "known": self.ranking.known.get(record["name"], ""),
                    "told": _told(record),
                    "chance": None if chance is None else round(float(chance[row]), 3),
                    "softening": 3 * noise[i],
                    "unit": unit[i],
                    "back": back[i],
                    "level": sky[i].tolist(),
                }
            )
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


def _thousandths(place: np.ndarray) -> list[int]:
    return np.rint(1000 * place).astype(int).tolist() if np.isfinite(place).all() else []


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

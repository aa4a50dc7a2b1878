"""The candidate inspector: a ranked gallery to look at, to label by keyboard, and to learn from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import astropy.units as u
import numpy as np
import pandas as pd
import traitlets
from astropy.coordinates import SkyCoord
from astropy.stats import binom_conf_interval

from lensq.figures.links import sky_links
from lensq.figures.pictures import shown_channels, sky_and_noise
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
MOSAIC = 100  # objects on a page of the mosaic
_POINTS = 400  # labelled objects that the map of latent space marks
_ASKED = {"show", "label", "grade", "note", "rest", "mosaic", "undo", "filter", "jump", "order"}


class Inspector(anywidget.AnyWidget):
    """Look at ranked objects, label them, learn from the labels.

    The gallery is drawn in the browser, which holds one page of pixels and changes stretch, scale and
    normalisation without asking back. Everything else happens here: each key is one message, and a label is
    on the disk before it counts as given.

    Attributes:
        labels: the labels by eye; see `LabelStore`.
        ranking: the objects in their order; see `Ranking`.
        per_page: how many objects a page shows, from the next page on.
        channels: of red, green and blue, or the one that is shown in grey: see
            `lensq.figures.pictures.shown_channels`. Where there are several bands, set it and call `show`.
    """

    per_page = 24
    _other = MOSAIC

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
        known: pd.DataFrame | None = None,
        **ranking: Any,
    ) -> None:
        """Open a ranked survey.

        Args:
            survey: the survey that holds the images.
            ranked: Scores table of the objects to look at.
            model: draws reconstructions; without it there is the image alone.
            labels: CSV of the labels; by default `inspected.csv` in the survey's folder.
            known: table of `lensq.survey.survey.match_catalogue`, for objects that are known lenses.
            ranking: `score`, the column to rank by, the highest first; `columns`, what a head learns from, by
                default `lensq.classifiers.active.light_columns`.

        Raises:
            LeakageError: `ranked` holds test objects of the survey that the model was trained on, and
                there are labels to evaluate them with.
            ValueError: An object is not in the survey.
        """
        _refuse_test_objects(survey, ranked, model)
        self.survey, self.model, self.channels = survey, model, shown_channels(survey.bands)
        self.labels = labels if isinstance(labels, LabelStore) else LabelStore(labels or survey.folder / FILE)
        ranked = survey.add_truth(ranked) if "class" not in ranked else ranked
        called = {} if known is None else _known_as(known)
        self.ranking = Ranking(ranked, self.labels, known=called, **ranking)
        table, score = self.ranking.table, self.ranking.score
        self._places = _places_in(survey, table["name"])
        self._on_axis, histogram = score_axis(table[score].to_numpy(float))
        self._latent = latent_plane(table)
        self._sky, ends = sky_plane(table["ra"].to_numpy(float), table["dec"].to_numpy(float))
        self._asked = {"order": "score", "filter": "all", "text": ""}
        self._number, self._said = 0, ""
        filters = {key: text for key, text in FILTERS.items() if key != "known" or self.ranking.known}
        overview = {"histogram": histogram, "latent": sample(self._latent), "sky": sample(self._sky)}
        overview |= {"ends": ends, "score": score, "orders": ORDERS, "filters": filters}
        overview["colours"] = ["colour"] * (len(self.channels) == 3) + ["grey", "inverted", "cividis"]
        super().__init__(overview=overview)
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
        pages = max(1, -(-len(shown) // self.per_page))
        self._number = int(np.clip(number, 0, pages - 1))
        rows = shown[self._number * self.per_page :][: self.per_page]
        items, pixels = self._items(rows)
        self.labels.refresh()
        with self.hold_sync():
            self.pixels = pixels
            page = {"serial": self.page.get("serial", 0) + 1, "items": items, **self._asked}
            page |= {"number": self._number, "pages": pages, "mosaic": self.per_page == MOSAIC}
            page |= {"shown": len(shown), "total": len(self.ranking.table)}
            page |= {"size": self.survey.size, "arcsec": self.survey.pixel_scale, "weights": self._weights()}
            page["planes"] = 1 if self.model is None else 2
            page["select"] = int(np.clip(select, 0, max(0, len(rows) - 1)))
            self.page = page
            self._tell()

    def label(self, name: str, label: str) -> None:
        """Label an object; on the disk when this returns.

        Args:
            name: of the object.
            label: "lens", "not", "unsure", or "" to take the label away.
        """
        self._say(self.labels.set, name, label)

    def grade(self, name: str, grade: str) -> None:
        """Grade an object, which labels it too; on the disk when this returns.

        Args:
            name: of the object.
            grade: "A", "B", "C", "X", or "" to take the grade away.
        """
        self._say(self.labels.grade, name, grade)

    def note(self, name: str, note: str) -> None:
        """Write a note to an object; "" takes it away."""
        self._say(self.labels.note, name, note)

    def rest(self) -> None:
        """Label every object of this page that has no label "not", in one step, and turn the page."""
        names = [item["name"] for item in self.page["items"] if not self.labels[item["name"]]]
        self.labels.set(names, "not")
        self._said = f"{len(names)} on page {self._number + 1} labelled: not a lens."
        self.show(self._number + 1)

    def mosaic(self, on: bool = True, select: int | None = None) -> None:
        """Show 100 objects a page, small, or as many as before.

        Args:
            on: the mosaic or the former pages.
            select: which object of this page stays selected; by default the one that was when it was shown.
        """
        place = self._number * self.per_page + (self.page["select"] if select is None else select)
        if on != (self.per_page == MOSAIC):
            self.per_page, self._other = self._other, self.per_page
        self.show(*divmod(place, self.per_page))

    def undo(self) -> None:
        """Take back what was said last and go to its object."""
        name = self.labels.undo()
        if name is None:
            self._tell("Nothing to undo.")
        else:
            self._tell(f"Took back what was said last, of {name}.")
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

    def mix_in(self, controls: Sequence[str], rate: float = 0.05, seed: int = 0) -> None:
        """Mix lenses among the objects as blind controls, not marked as such; see `completeness`.

        Args:
            controls: names of objects among those ranked that are known to be lenses, such as matches with
                a catalogue, or injected lenses whose cutouts are in the survey.
            rate: share of controls among the objects as they are shown, above 0, at most a half.
            seed: of their places.

        Raises:
            ValueError: The rate is out of range, or an object is not among those ranked.
        """
        self.ranking.mix_in(controls, rate, seed)
        self._asked["order"] = "score"
        self.show(0)

    def completeness(self) -> pd.Series:
        """How many of the blind controls that were looked at were called a lens: one's own completeness.

        Returns:
            `controls`, `labelled` of them, `lens` and `unsure` of these; `completeness`, the share of
            "lens" among the labelled, with its 95% Jeffreys interval `low`, `high`.
        """
        said = pd.Series([self.labels[name] for name in self.ranking.controls], dtype=str)
        n, k = int((said != "").sum()), int((said == "lens").sum())
        low, high = binom_conf_interval(k, n, 0.95, interval="jeffreys") if n else (0.0, 1.0)
        numbers = {"controls": len(said), "labelled": n, "lens": k, "unsure": int((said == "unsure").sum())}
        share = {"completeness": k / n if n else np.nan, "low": float(low), "high": float(high)}
        return pd.Series(numbers | share, dtype=object)

    @property
    def ranked(self) -> pd.DataFrame:
        """The objects in their present order, with `rank`, `said` and, once learnt, `probability`."""
        return self.ranking.as_table()

    # How it is done.

    def _say(self, write: Callable[[str, str], None], name: str, what: str) -> None:
        if name not in self.ranking.row_of:
            raise ValueError(f"{name} is not among the objects shown here")
        write(name, what)
        self._tell()

    def _go(self, row: int) -> None:
        number, select = divmod(self.ranking.place(row), self.per_page)
        if len(self.ranking.shown) == len(self.ranking.table):
            self._asked |= {"filter": "all", "text": ""}
        self.show(number, select)

    def _tell(self, text: str | None = None) -> None:
        """Send counts, marks and a sentence; once all blind controls are labelled, how many were found."""
        self._said = self._said if text is None else text
        controls, found = self.ranking.controls, ""
        if controls and all(self.labels[name] for name in controls):
            own = self.completeness()
            found = f" Of {own.controls} blind controls {own.lens} were called a lens, {own.unsure} unsure."
        row_of, plane = self.ranking.row_of, self._latent
        last = self.labels.table()["name"].tail(_POINTS)
        named = [name for name in last if name in row_of and plane.shape[1]]
        points = [[*_thousandths(plane[row_of[name]]), self.labels[name]] for name in named]
        names = [item["name"] for item in self.page.get("items", [])]
        progress = {"serial": self.progress.get("serial", 0) + 1, "counts": self.labels.counts()}
        progress["marks"] = {name: self.labels[name] for name in names}
        progress["said"] = {name: self.labels.said(name)[1:3] for name in names}
        text = self._said + found
        self.progress = progress | {"points": points, "file": self.labels.path.name, "text": text}

    def _weights(self) -> list[float]:
        """What the flux of each channel shown was multiplied by."""
        weights = self.model.preprocessing.weights if self.model else ()
        return [weights[channel] if weights else 1.0 for channel in self.channels]

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
        n, size = len(rows), self.survey.size
        images, mask = (part.reshape(n, -1, size, size)[:, self.channels] for part in (images, mask))
        planes = planes.reshape(n, -1, len(self.survey.bands), size, size)[:, :, self.channels]
        noise, sky = sky_and_noise(planes[:, 0], mask)[..., 1].mean(1), sky_and_noise(images, mask)
        pixels, unit = encode(planes.reshape(n, -1, size, size), 3 * noise)
        items = []
        for i, row in enumerate(rows):
            record, chance = self.ranking.table.iloc[row], self.ranking.probability
            blind, scored = record["name"] in self.ranking.controls, self.ranking.score_shown(row)
            score, place = self.ranking.table[self.ranking.score].iloc[scored], (record["ra"], record["dec"])
            item = {"name": record["name"], "rank": int(self.ranking.rank[row]) + 1, "split": record["split"]}
            item |= {"score": float(f"{score:.4g}"), "axis": round(float(self._on_axis[scored]), 4)}
            item["chance"] = None if chance is None else round(float(chance[scored]), 3)
            item |= {"position": _position(*place), "links": sky_links(*place)}
            item |= {"latent": _thousandths(self._latent[row]), "sky": _thousandths(self._sky[row])}
            item["known"] = "" if blind else self.ranking.known.get(record["name"], "")
            item["truth"] = "nothing is known" if blind else _truth(record)
            item |= {"softening": 3 * noise[i], "unit": unit[i], "back": back[i]}
            items.append(item | {"level": [sky[i, :, 0].tolist(), float(sky[i, :, 1].mean())]})
        return items, pixels

    def _heard(self, _, message: dict, buffers: list) -> None:
        """Do what the browser asks, and say when it is done."""
        do, arguments = message.get("do"), message.get("with", [])
        try:
            if do in _ASKED:
                getattr(self, do)(*arguments)
            elif do != "hello":
                raise ValueError(f"the inspector cannot {do!r}")
        except (ValueError, OSError) as error:
            self._tell(str(error))
        self.send({"done": message.get("id")})


def _refuse_test_objects(survey: "Survey", ranked: pd.DataFrame, model: "Model | None") -> None:
    own = model is not None and model.survey_fingerprint == survey.fingerprint
    if own and (survey.labels >= 0).any() and (ranked["split"] == "test").any():
        raise LeakageError(
            "test objects of the study's own survey are not looked at by eye; leave them out: "
            'ranked[ranked["split"] != "test"]'
        )


def _places_in(survey: "Survey", names: pd.Series) -> np.ndarray:
    places = pd.Series(np.arange(len(survey)), index=survey.names).reindex(names)
    if places.isna().any():
        raise ValueError(f"{places.index[places.isna()][0]} is not in the survey {survey.folder}")
    return places.to_numpy(int)


def _thousandths(place: np.ndarray) -> list[int]:
    return np.rint(1000 * place).astype(int).tolist() if np.isfinite(place).all() else []


def _known_as(matches: pd.DataFrame) -> dict[str, str]:
    nearest = matches.sort_values("separation").drop_duplicates("name")
    called = nearest["catalogue_name"] if "catalogue_name" in nearest else ["a known lens"] * len(nearest)
    entries = zip(nearest["name"], called, nearest["separation"], strict=True)
    return {name: f'{what}, {separation:.1f}"' for name, what, separation in entries}


def _position(ra: float, dec: float) -> dict[str, str]:
    if not np.isfinite(ra):
        return {}
    sexagesimal = SkyCoord(ra * u.deg, dec * u.deg).to_string("hmsdms", precision=1, sep=":")
    return {"degrees": f"{ra:.5f} {dec:+.5f}", "sexagesimal": sexagesimal}


def _truth(record: pd.Series) -> str:
    """What lists and truth say, which a tool for labelling by eye shows on request only."""
    said = {1: "flagged on the survey's list", 0: "rejected on the survey's list"}
    words = [said.get(int(record["label"]), "")]
    if record.get("graded", False):
        words.append("graded")
    if isinstance(record.get("class"), str):
        words.append(f"simulated as {record['class'].replace('_', ' ')}")
    return "; ".join(filter(None, words)) or "nothing is known"

"""Inspector and threshold slider, as far as the kernel goes: labels on disk, pages, orders, numbers."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import anywidget
import numpy as np
import pandas as pd
import pytest
import torch
from astropy.coordinates import SkyCoord
from scipy.stats import beta
from tables import scores_table
from toy import toy_survey

from lensq.detection.conformal import candidate_list
from lensq.detection.detectors import Detector
from lensq.figures.links import sky_links
from lensq.figures.pictures import sky_and_noise
from lensq.inspector import Inspector, LabelStore, ThresholdSlider
from lensq.inspector.overview import latent_plane, score_axis, sky_plane
from lensq.inspector.pixels import MASKED, encode, flux_of
from lensq.inspector.thresholds import operating_points
from lensq.statistics.guard import LeakageError
from lensq.statistics.metrics import operating_curve
from lensq.survey.images import Preprocessing

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    return LabelStore(tmp_path / "survey" / "inspected.csv")


class TestLabels:
    def test_a_label_is_on_the_disk_at_once_and_there_on_return(self, store):
        store.set("J1", "lens")
        store.set("J2", "not")
        store.set("J1", "unsure")
        again = LabelStore(store.path)
        assert again["J1"] == "unsure"
        assert again.counts() == {"lens": 0, "not": 1, "unsure": 1}
        assert again.table()[["name", "label"]].to_numpy().tolist() == [["J2", 0], ["J1", -1]]
        assert again["J3"] == ""

    def test_the_file_is_plain(self, store):
        store.set("J1", "lens")
        store.set('odd, "name"', "not")
        table = pd.read_csv(store.path)
        assert table.columns.tolist() == ["name", "label", "grade", "note", "time"]
        assert table["name"].tolist() == ["J1", 'odd, "name"']
        assert pd.to_datetime(table["time"]).dt.tz is not None

    @pytest.mark.parametrize("cut", range(1, 27))
    def test_a_line_cut_short_costs_that_label_alone(self, store, cut):
        store.set("J1", "lens")
        store.set("J2", "not")
        store.path.write_bytes(store.path.read_bytes()[:-cut])
        again = LabelStore(store.path)
        there = int(cut == 1)  # nothing but the end of the line is missing
        assert again.counts() == {"lens": 1, "not": there, "unsure": 0}
        again.set("J3", "unsure")
        assert LabelStore(store.path).counts() == {"lens": 1, "not": there, "unsure": 1}
        assert again.counts() == LabelStore(store.path).counts()

    def test_a_header_cut_short_is_no_obstacle(self, store):
        store.path.parent.mkdir()
        store.path.write_text("name,la")
        LabelStore(store.path).set("J1", "lens")
        assert LabelStore(store.path)["J1"] == "lens"

    def test_another_file_is_not_written_into(self, store):
        store.path.parent.mkdir()
        store.path.write_text("ra,dec\n1,2\n")
        with pytest.raises(ValueError, match="first line is not"):
            LabelStore(store.path)

    def test_undo_gives_back_what_was_before_step_by_step(self, store):
        for label in ("lens", "not", ""):
            store.set("J1", label)
        states = [store["J1"]]
        while store.undo() == "J1":
            states.append(store["J1"])
        assert states == ["", "not", "lens", ""]
        assert LabelStore(store.path)["J1"] == ""
        assert store.table().empty

    def test_a_grade_labels_and_never_contradicts_the_label(self, store):
        for grade, label in {"A": "lens", "B": "lens", "C": "unsure", "X": "not"}.items():
            store.grade("J1", grade)
            assert store.said("J1")[:2] == (label, grade)
        store.grade("J1", "B")
        store.set("J1", "lens")
        assert store.said("J1").grade == "B"
        store.set("J1", "not")
        assert store.said("J1")[:2] == ("not", "")
        store.grade("J1", "C")
        store.grade("J1", "")
        assert store.said("J1")[:2] == ("unsure", "")
        with pytest.raises(ValueError, match="none of A, B, C, X"):
            store.grade("J1", "D")

    def test_a_note_stays_on_its_line_beside_the_label(self, store):
        store.note("J1", 'two arcs, "blue"\nand\u2028a counter image')
        store.grade("J1", "A")
        said = LabelStore(store.path).said("J1")
        assert said[:3] == ("lens", "A", 'two arcs, "blue" and a counter image')
        assert len(store.path.read_text().splitlines()) == 3
        assert [store.undo(), store.undo(), store.undo()] == ["J1", "J1", None]
        assert store.said("J1")[:3] == ("", "", "")

    def test_a_note_cut_short_costs_that_line_alone(self, store):
        store.set("J1", "lens")
        store.note("J2", 'a "quoted", long note')
        for cut in range(2, 40):
            cut_store = LabelStore(store.path.with_name(f"{cut}.csv"))
            cut_store.path.write_bytes(store.path.read_bytes()[:-cut])
            cut_store.refresh()
            cut_store.set("J3", "not")
            cut_store.set("J4", "not")
            assert LabelStore(cut_store.path).counts() == {"lens": 1, "not": 2, "unsure": 0}

    def test_a_page_is_labelled_and_taken_back_in_one_step(self, store):
        store.set("J1", "lens")
        store.set([f"J{i}" for i in range(2, 50)], "not")
        assert LabelStore(store.path).counts() == {"lens": 1, "not": 48, "unsure": 0}
        assert store.undo() == "J2"
        assert LabelStore(store.path).counts() == {"lens": 1, "not": 0, "unsure": 0}
        store.set([], "not")
        assert store.undo() == "J1"

    def test_a_file_of_labels_alone_gets_the_columns_of_grades_and_keeps_its_labels(self, store):
        store.path.parent.mkdir()
        old = 'name,label,time\nJ1,lens,2026-01-01T00:00:00Z\n"a,b",not,2026-01-02T00:00:00Z\nJ3,uns'
        store.path.write_text(old)
        again = LabelStore(store.path)
        assert again.counts() == {"lens": 1, "not": 1, "unsure": 0}
        assert store.path.read_text() == old  # looking changes nothing
        again.grade("J4", "A")
        table = pd.read_csv(store.path, keep_default_na=False)
        assert table["name"].tolist() == ["J1", "a,b", "J4"]
        assert table["time"].tolist()[:2] == ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]
        assert again.table()["grade"].tolist() == ["", "", "A"]

    def test_a_list_gets_what_was_said_of_its_objects(self, store):
        store.grade("J2", "A")
        store.note("J3", "a ring?")
        store.set("elsewhere", "lens")
        listed = pd.DataFrame({"name": ["J1", "J2", "J3"], "score": [3.0, 2, 1]})
        joined = store.join(listed)
        assert joined[["said", "grade", "note"]].to_numpy().tolist() == [
            ["", "", ""],
            ["lens", "A", ""],
            ["", "", "a ring?"],
        ]
        assert joined[["name", "score"]].equals(listed)

    def test_two_notebooks_label_at_once(self, store):
        other = LabelStore(store.path)
        for i in range(20):
            (store, other)[i % 2].set(f"J{i}", "lens")
        store.refresh()
        assert len(store.table()) == 20
        assert store.table().equals(LabelStore(store.path).table())

    def test_a_wrong_label_writes_nothing(self, store):
        with pytest.raises(ValueError, match="none of lens, not, unsure"):
            store.set("J1", "maybe")
        assert not store.path.exists()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_must_not_be_written_to_says_so(self, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(PermissionError, match="another file"):
            LabelStore(tmp_path / "inspected.csv").set("J1", "lens")


def decode(pixels, softening, unit, shape):
    """What the browser does."""
    whole = np.frombuffer(pixels, "<i2").reshape(shape).astype(float)
    whole[whole == MASKED] = np.nan
    return softening[:, None, None, None] * np.sinh(unit[:, None, None, None] * whole)


class TestPixels:
    def test_two_bytes_keep_faint_and_bright_light(self):
        rng = np.random.default_rng(0)
        images = rng.normal(0, 1, (3, 2, 16, 16)) * np.array([1, 1e-3, 50])[:, None, None, None]
        images[:, :, 8, 8] = [[1e5, 90.0]] * 3
        images[1, :, 0] = np.nan
        softening = np.array([3.0, 3e-3, 150.0])
        pixels, unit = encode(images, softening)
        back = decode(pixels, softening, unit, images.shape)
        assert len(pixels) == 2 * images.size
        np.testing.assert_array_equal(np.isnan(back), np.isnan(images))
        bound = 4e-4 * np.hypot(np.abs(images), softening[:, None, None, None])
        assert np.nanmax(np.abs(back - images) / bound) < 1

    @pytest.mark.parametrize("normalisation", ["minmax", "asinh"])
    def test_input_becomes_flux_again(self, normalisation):
        preprocessing = Preprocessing(normalisation, noise=0.3)
        rng = np.random.default_rng(0)
        images = rng.normal(0, 2, (4, 12, 12)).astype(np.float32)
        mask = rng.random(images.shape) < 0.9
        x = preprocessing(torch.tensor(images), torch.tensor(mask))[:, 0].numpy()
        for image, real, inputs, (a, b, bent) in zip(
            images, mask, x, flux_of(preprocessing, images, mask), strict=True
        ):
            flux = a * np.sinh(b * inputs) if bent else a + b * inputs
            np.testing.assert_allclose(flux[real], image[real], rtol=1e-4, atol=1e-5)

    def test_sky_and_noise_are_those_of_the_border_whatever_is_in_the_middle(self):
        images = np.random.default_rng(0).normal(7.0, 3.0, (20, 64, 64))
        images[:, 8:56, 8:56] += 1e4
        mask = np.ones(images.shape, bool)
        mask[:, :8] = False
        images[~mask] = -1e6
        sky, noise = sky_and_noise(images, mask).mean(axis=0)
        assert sky == pytest.approx(7, abs=0.1)
        assert noise == pytest.approx(3, rel=0.03)

    def test_a_constant_sky_has_noise_one(self):
        assert sky_and_noise(np.full((2, 8, 8), 5.0), np.ones((2, 8, 8), bool)).tolist() == [[5, 1]] * 2


class TestOverview:
    def test_every_score_is_in_the_histogram_in_order(self):
        score = np.random.default_rng(0).standard_t(3, 5000)
        place, histogram = score_axis(score)
        assert sum(histogram["counts"]) == 5000
        assert (np.diff(place[np.argsort(score)]) >= 0).all()
        assert place[score.argmax()] == 1
        for at, written in histogram["ticks"]:
            below, above = score[place <= at + 0.02].max(), score[place >= at - 0.02].min()
            assert above <= float(written) <= below

    def test_equal_scores_are_no_obstacle(self):
        assert np.isfinite(score_axis(np.full(9, 2.0))[0]).all()

    def test_east_is_left_also_across_right_ascension_zero(self):
        plane, ends = sky_plane(np.array([350.0, 10.0, 0.0, np.nan]), np.array([-1.0, 1.0, 0.0, np.nan]))
        np.testing.assert_allclose(plane[:3], [[1, 0], [0, 1], [0.5, 0.5]], atol=1e-12)
        assert np.isnan(plane[3]).all()
        assert ends == {"ra": [10.0, 350.0], "dec": [-1.0, 1.0]}

    def test_the_widest_direction_of_latent_space_lies_across(self):
        table = scores_table(500, 50, shifts={2: 30.0})
        plane = latent_plane(table)
        positive = table["is_lens"].to_numpy()
        assert abs(np.corrcoef(plane[:, 0], positive)[0, 1]) < 1.01
        assert plane.min() >= 0
        assert plane.max() <= 1
        assert latent_plane(table[["name", "mu_0"]]).shape == (550, 0)


@pytest.fixture(scope="module")
def lists():
    scores = scores_table(6000, 1200, seed=3)
    detector = Detector("signal", "signal")
    calibration = scores[scores["split"] == "conformal"]
    candidates = candidate_list(detector, calibration, scores[scores["split"] != "conformal"])
    rows = scores[scores["split"] == "selection"]
    return candidates, rows, operating_curve(rows["signal"].to_numpy(), rows["label"] == 1)


class TestOperatingPoints:
    def test_numbers_are_those_of_the_list_that_it_would_give(self, lists):
        candidates, rows, curve = lists
        for point in operating_points(candidates, curve).iloc[::25].itertuples():
            listed = candidates[candidates["score"] >= point.threshold]
            flagged = rows["signal"] >= point.threshold
            assert point.listed == len(listed)
            assert point.fdr == listed["q"].iloc[-1]
            assert point.recall == pytest.approx(flagged[rows["label"] == 1].mean())

    def test_from_one_object_to_all_never_backwards(self, lists):
        points = operating_points(*lists[::2])
        assert points["listed"].iloc[0] == 1
        assert points["listed"].iloc[-1] == len(lists[0])
        assert points["listed"].is_monotonic_increasing
        assert points["recall"].is_monotonic_increasing
        assert points["fdr"].is_monotonic_increasing

    def test_ties_are_listed_together(self):
        points = operating_points(pd.DataFrame({"score": [3.0, 1.0, 1.0, 1.0, 0.0]}))
        assert points["listed"].tolist() == [1, 4, 5]
        assert points[["fdr", "precision", "recall"]].isna().all(axis=None)

    def test_the_slider_stands_where_a_tenth_is_false(self, lists):
        slider = ThresholdSlider(*lists[::2])
        fdr = slider.points["fdr"]
        assert fdr[slider.place] <= 0.1 < fdr[slider.place + 1]
        slider.place += 5
        assert slider.threshold == slider.points["threshold"][slider.place]
        json.dumps(slider.table, allow_nan=False)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return toy_survey(tmp_path_factory.mktemp("toy"), n=60)


@pytest.fixture(scope="module")
def ranked(survey):
    table = scores_table(len(survey), 0, seed=4).drop(columns="is_lens")
    place = survey.coordinates
    table = table.assign(name=survey.names, split=survey.split, ra=place.ra.deg, dec=place.dec.deg)
    table = table.assign(label=survey.labels, graded=survey.graded, score=table["signal"] + 3 * survey.labels)
    return table[table["split"] != "test"].reset_index(drop=True)


@pytest.fixture
def inspector(survey, ranked, tmp_path):
    columns = ["mu_0", "mu_1", "score"]
    inspector = Inspector(survey, ranked, labels=tmp_path / "labels.csv", columns=columns)
    inspector.per_page = 10
    inspector.show(0)
    return inspector


def names_on(inspector):
    return [item["name"] for item in inspector.page["items"]]


class TestInspector:
    def test_pages_show_every_object_once_in_order(self, inspector, ranked):
        seen = []
        for number in range(inspector.page["pages"]):
            inspector.show(number)
            seen += names_on(inspector)
        assert seen == ranked.sort_values("score", ascending=False, kind="stable")["name"].tolist()
        inspector.show(99)
        assert inspector.page["number"] == inspector.page["pages"] - 1

    def test_the_browser_gets_the_pixels_of_the_survey(self, inspector, survey):
        items = inspector.page["items"]
        shape = (len(items), 1, survey.size, survey.size)
        scale = [np.array([item[key] for item in items]) for key in ("softening", "unit")]
        drawn = decode(inspector.pixels, *scale, shape)[:, 0]
        for item, picture in zip(items, drawn, strict=True):
            row = np.flatnonzero(survey.names == item["name"])[0]
            assert np.isnan(picture[~survey.mask[row]]).all()
            np.testing.assert_allclose(
                picture[survey.mask[row]], survey.images[row][survey.mask[row]], rtol=1e-3, atol=1e-2
            )

    def test_a_message_labels_and_is_answered(self, inspector):
        answers = []
        inspector.send = answers.append
        name = names_on(inspector)[2]
        inspector._heard(inspector, {"id": 7, "do": "label", "with": [name, "lens"]}, [])
        assert answers == [{"done": 7}]
        assert LabelStore(inspector.labels.path)[name] == "lens"
        assert inspector.progress["marks"][name] == "lens"
        assert inspector.progress["counts"]["lens"] == 1

    @pytest.mark.parametrize(
        "message",
        [
            {"do": "close"},
            {"do": "label", "with": ["nobody", "lens"]},
            {"do": "filter", "with": ["some"]},
            {"do": "order", "with": ["learnt"]},
        ],
    )
    def test_what_cannot_be_done_is_said_and_answered(self, inspector, message):
        answers = []
        inspector.send = answers.append
        inspector._heard(inspector, {"id": 1, **message}, [])
        assert answers == [{"done": 1}]
        assert inspector.progress["text"]
        assert not inspector.labels.path.exists()

    def test_grades_and_notes_are_on_the_disk_and_on_the_page(self, inspector):
        name = names_on(inspector)[1]
        inspector._heard(inspector, {"id": 1, "do": "grade", "with": [name, "B"]}, [])
        inspector._heard(inspector, {"id": 2, "do": "note", "with": [name, "arc?"]}, [])
        assert LabelStore(inspector.labels.path).said(name)[:3] == ("lens", "B", "arc?")
        assert inspector.progress["marks"][name] == "lens"
        assert inspector.progress["said"][name] == ("B", "arc?")
        row = inspector.ranked.set_index("name").loc[name]
        assert row[["said", "grade", "note"]].tolist() == ["lens", "B", "arc?"]

    def test_the_rest_of_a_page_is_no_lens_in_one_step(self, inspector):
        first = names_on(inspector)
        inspector.label(first[3], "lens")
        inspector._heard(inspector, {"id": 1, "do": "rest"}, [])
        assert inspector.labels.counts() == {"lens": 1, "not": 9, "unsure": 0}
        assert inspector.page["number"] == 1
        assert not set(names_on(inspector)) & set(first)
        inspector.undo()
        assert inspector.labels.counts() == {"lens": 1, "not": 0, "unsure": 0}
        assert inspector.page["number"] == 0

    def test_the_mosaic_shows_a_hundred_from_the_same_object_on(self, inspector):
        inspector.show(2)
        here = names_on(inspector)[0]
        inspector._heard(inspector, {"id": 1, "do": "mosaic", "with": [True]}, [])
        assert len(inspector.page["items"]) == min(100, len(inspector.ranking.table))
        assert inspector.page["mosaic"]
        assert names_on(inspector)[inspector.page["select"]] == here
        inspector.mosaic(False)
        assert len(inspector.page["items"]) == 10
        assert here in names_on(inspector)

    def test_blind_controls_are_mixed_in_at_their_rate_and_not_marked(self, survey, ranked, tmp_path):
        table = ranked.sort_values("score", ascending=False, kind="stable")
        controls = table["name"].iloc[[0, 20, 40, -1]].tolist()
        known = pd.DataFrame({"name": controls, "separation": 0.1})
        inspector = Inspector(survey, ranked, labels=tmp_path / "l.csv", columns=["mu_0"], known=known)
        inspector.mix_in(controls, rate=0.1, seed=3)
        order = inspector.ranked["name"].tolist()
        places = [order.index(name) for name in controls]
        assert sorted(order) == sorted(table["name"])
        assert [place // 10 for place in sorted(places)] == [0, 1, 2, 3]
        assert [n for n in order if n not in controls] == [n for n in table["name"] if n not in controls]
        inspector.mosaic()
        items = {item["name"]: item for item in inspector.page["items"]}
        scores = [item["score"] for item in items.values()]
        assert (np.diff(scores) <= 0).all()  # a control's own score would stand out
        assert not any(items[name]["known"] for name in controls)
        for name, label in zip(controls, ("lens", "lens", "not", "unsure"), strict=True):
            assert "blind" not in inspector.progress["text"]
            inspector.label(name, label)
        own = inspector.completeness()
        assert own[["controls", "labelled", "lens", "unsure", "completeness"]].tolist() == [4, 4, 2, 1, 0.5]
        assert own["low"] == pytest.approx(beta.ppf(0.025, 2.5, 2.5))
        assert "Of 4 blind controls 2 were called a lens" in inspector.progress["text"]
        with pytest.raises(ValueError, match="rate"):
            inspector.mix_in(controls, rate=0.9)
        with pytest.raises(ValueError, match="nobody is not among"):
            inspector.mix_in(["nobody"])

    def test_links_hold_the_position(self, inspector, ranked):
        item = inspector.page["items"][0]
        row = ranked.set_index("name").loc[item["name"]]
        assert list(item["links"]) == ["Legacy", "hscMap", "Aladin", "SIMBAD"]
        for name, address in item["links"].items():
            parts = urlsplit(address)
            assert parts.scheme == "https"
            numbers = [float(n) for n in re.findall(r"-?\d+\.\d{5,}", unquote(parts.query + parts.fragment))]
            at = np.array([row["ra"], row["dec"]])
            np.testing.assert_allclose(numbers[:2], np.radians(at) if name == "hscMap" else at, atol=1e-5)
        assert sky_links(np.nan, 1.0) == {}

    def test_undo_goes_back_to_the_object(self, inspector):
        name = names_on(inspector)[3]
        inspector.label(name, "not")
        inspector.show(2)
        inspector.undo()
        assert names_on(inspector)[inspector.page["select"]] == name
        assert inspector.labels[name] == ""
        inspector.undo()
        assert inspector.progress["text"] == "Nothing to undo."

    def test_filters(self, inspector):
        first, second = names_on(inspector)[:2]
        inspector.label(first, "lens")
        inspector.filter("lens")
        assert names_on(inspector) == [first]
        inspector.filter("none")
        assert names_on(inspector)[0] == second
        inspector.filter("all", second[-4:].upper())
        assert second in names_on(inspector)
        inspector.filter("unsure")
        assert inspector.page["items"] == []
        assert inspector.pixels == b""

    def test_jump_by_rank_name_and_position(self, inspector, ranked):
        ordered = ranked.sort_values("score", ascending=False, kind="stable").reset_index(drop=True)
        row = ordered.iloc[17]
        for to in ("18", row["name"], f"{row['ra']:.6f}, {row['dec']:.6f}"):
            inspector.filter("lens")
            inspector.jump(to)
            assert (inspector.page["number"], inspector.page["select"]) == (1, 7)
        inspector.jump("no such thing")
        assert "no object" in inspector.progress["text"]

    def test_it_learns_from_the_labels_and_ranks_anew(self, inspector, survey, ranked):
        """Objects are labelled by the sign of a column that the score does not know."""
        by_name = ranked.set_index("name")["mu_0"]
        for name in by_name.index[:30]:
            inspector.label(name, "lens" if by_name[name] > 0 else "not")
        inspector.order("learnt")
        table = inspector.ranked
        assert table["mu_0"].head(10).mean() > table["mu_0"].tail(10).mean() + 1
        assert table["rank"].tolist() == list(range(1, len(ranked) + 1))
        inspector.order("uncertain")
        assert (inspector.ranked["probability"] - 0.5).abs().is_monotonic_increasing
        inspector.order("score")
        assert inspector.ranked["score"].is_monotonic_decreasing

    def test_labels_of_test_objects_teach_nothing(self, survey, ranked, tmp_path):
        """On a folder of one's own they may be labelled; the head is the same without them."""
        probability = {}
        for split in ("train", "test"):
            table = ranked.assign(split=["train"] * 40 + [split] * (len(ranked) - 40))
            inspector = Inspector(survey, table, labels=tmp_path / f"{split}.csv", columns=["mu_0"])
            for name, label in zip(
                table["name"][[0, 1, 45, 46]], ("lens", "not", "not", "lens"), strict=True
            ):
                inspector.label(name, label)
            inspector.order("learnt")
            probability[split] = inspector.ranking.head
        assert (probability["train"].lenses, probability["test"].lenses) == (2, 1)

    def test_known_lenses_carry_their_name(self, survey, ranked, tmp_path):
        name = ranked["name"][5]
        known = pd.DataFrame({"name": [name] * 2, "separation": [1.4, 0.3], "catalogue_name": ["B", "A"]})
        inspector = Inspector(survey, ranked, labels=tmp_path / "l.csv", known=known)
        inspector.filter("known")
        assert [(item["name"], item["known"]) for item in inspector.page["items"]] == [(name, 'A, 0.3"')]
        assert "known" in inspector.overview["filters"]

    def test_objects_without_a_position_are_shown(self, survey, ranked, tmp_path):
        nowhere = ranked.assign(ra=np.nan, dec=np.nan)
        inspector = Inspector(survey, nowhere, labels=tmp_path / "l.csv", columns=["mu_0"])
        assert inspector.page["items"][0]["sky"] == []
        json.dumps([inspector.page, inspector.overview, inspector.progress], allow_nan=False)

    def test_objects_of_another_survey_are_refused(self, survey, ranked, tmp_path):
        with pytest.raises(ValueError, match="stranger is not in the survey"):
            Inspector(
                survey, ranked.assign(name=["stranger", *ranked["name"][1:]]), labels=tmp_path / "l.csv"
            )

    def test_test_tiles_of_the_study_are_not_looked_at(self, survey, ranked, tmp_path):
        class Trained:
            survey_fingerprint = survey.fingerprint

        with pytest.raises(LeakageError, match="not looked at by eye"):
            Inspector(survey, ranked.assign(split="test"), model=Trained(), labels=tmp_path / "l.csv")

    def test_labels_lie_beside_the_survey_by_default(self, survey, ranked, tmp_path):
        elsewhere = replace(survey, folder=tmp_path)
        inspector = Inspector(elsewhere, ranked, columns=["mu_0"])
        inspector.label(names_on(inspector)[0], "lens")
        assert (tmp_path / "inspected.csv").read_text().startswith("name,label,grade,note,time\n")

    def test_a_sky_full_of_objects_is_sampled(self):
        sky = SkyCoord(np.arange(5000) % 360, np.zeros(5000), unit="deg")
        plane, _ = sky_plane(sky.ra.deg, sky.dec.deg)
        from lensq.inspector.overview import sample

        assert len(sample(plane)) == 1500


def test_the_book_carries_the_script_of_the_installed_anywidget():
    carried = (ROOT / "book/_static/vendor/anywidget.js").read_bytes()
    assert carried == (Path(anywidget.__file__).parent / "nbextension/index.js").read_bytes()

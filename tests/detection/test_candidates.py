"""Artefacts are set apart, the list adds up, and notebook 14 writes it for any folder."""

import ast
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from conftest import ROOT
from cutouts import pixels, write
from scipy.stats import norm
from toy import toy_survey

import lensq
from lensq.classifiers.finetuning import finetune
from lensq.classifiers.pointfits import ENOUGH, PointFits
from lensq.detection import candidates
from lensq.detection.artefacts import find_artefacts
from lensq.detection.candidates import (
    Recovery,
    _regions,
    injected_detector,
    point_fits,
    quality,
    rank,
    rows_of,
    write_candidates,
)
from lensq.figures.candidates import mosaic, said
from lensq.figures.links import sky_links
from lensq.models.training import fit
from lensq.scores.scoring import score
from lensq.study.page import to_page

pytestmark = pytest.mark.usefixtures("one_thread")

HOSTILE = "<img src=x onerror=alert(1)>"
SIDE = 48
y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2


def star(peak=8.0, dx=0.0, dy=0.0, width=1.6):
    return peak * np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * width**2))


def sky(seed=0):
    return np.random.default_rng(seed).normal(0, 0.05, (SIDE, SIDE))


def reason(image, real=None):
    real = np.ones((SIDE, SIDE), bool) if real is None else real
    return find_artefacts(image[None], real[None])[0]


def track(length=8):
    image = np.zeros((SIDE, SIDE))
    image[10, 30 : 30 + length] = 4
    return image


ARTEFACTS = {
    "straight line": star() + 0.5 * np.exp(-((x * 0.6 + y * 0.8 - 5) ** 2) / (2 * 1.6**2)),
    "sharper than a star": star() + track(),
    "saturated": np.minimum(star(4000, width=3), 270),
}


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_an_artefact_is_named(kind):
    assert kind in reason(ARTEFACTS[kind] + sky())


@pytest.mark.parametrize(
    "image",
    [
        star(),
        star(200),
        star(5, 6, 6) + star(3, -6, -6) + star(1, width=5),
        sum(star(3, *at) for at in [(7, 0), (-7, 1), (0, 8), (1, -7)]),
        star(1, width=6),
        track(2),
    ],
    ids=["star", "bright star", "double", "quad", "galaxy", "two hot pixels"],
)
def test_lenses_stars_and_galaxies_are_not_set_apart(image):
    assert reason(image + sky()) == ""


def test_pixels_without_data_count_but_not_the_padding_of_a_small_cutout():
    gap, padded = np.ones((2, SIDE, SIDE), bool)
    gap[:10, :20] = False  # 200 of 2,304 pixels
    padded[:4] = padded[-3:] = padded[:, :4] = padded[:, -3:] = False
    image = star() + sky()
    assert reason(np.where(gap, image, 0), gap) == "no data in 9% of the cutout"
    assert reason(np.where(padded, image, 0), padded) == ""
    assert reason(0 * image, np.zeros_like(gap)) == "no data in 100% of the cutout"


def test_a_reason_is_a_function_of_one_image():
    images = np.stack(
        [image + sky(i) for i, image in enumerate([*ARTEFACTS.values(), star(), star(3, 5, 5)])]
    )
    real = np.ones(images.shape, bool)
    assert find_artefacts(images[::-1], real).tolist() == find_artefacts(images, real)[::-1].tolist()


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return toy_survey(tmp_path_factory.mktemp("toy"), n=200, size=32)


def scores_of(survey, split="conformal", labels=None):
    rng = np.random.default_rng(3)
    labels = survey.labels if labels is None else labels
    odds = rng.normal(size=len(survey)).astype(np.float32)  # as a network gives them
    table = {"name": survey.names, "ra": survey.coordinates.ra.deg, "dec": survey.coordinates.dec.deg}
    return pd.DataFrame(table | {"split": split, "label": labels, "score": odds})


@pytest.mark.slow
def test_every_object_is_ranked_or_set_apart(survey):
    ranked = rank(scores_of(survey), survey, examined=150)
    kept = ranked["set_apart"] == ""
    assert sorted(ranked["name"]) == sorted(survey.names)
    assert ranked["rank"][kept].tolist() == list(range(1, kept.sum() + 1))
    assert 0 < kept.sum() < len(ranked)  # a quarter of this survey has two rows without data
    assert ranked["rank"][~kept].isna().all()
    assert ranked["score"][kept].is_monotonic_decreasing
    assert set(ranked["set_apart"][~kept]) == {"no data in 6% of the cutout"}


class Fits:
    """Fits that find the second source of every third object worth a hundredth of what is enough."""

    def score(self, survey, rows):
        return np.where(rows % 3, 1e4, ENOUGH / 100)


@pytest.mark.slow
def test_the_examined_come_lower_where_one_source_is_enough(survey):
    scores = scores_of(survey)
    plain, ranked = (rank(scores, survey, points, examined=150) for points in (None, Fits()))
    assert sorted(ranked["name"]) == sorted(survey.names)
    pairs = plain.merge(ranked, on="name", suffixes=("", "_fitted"))
    third = rows_of(survey, pairs["name"]) % 3 == 0
    first = (pairs["score"] >= np.sort(scores["score"])[-150]).to_numpy()
    lowered = pairs["score"] - pairs["score_fitted"]
    assert lowered[third & first].to_numpy() == pytest.approx(np.log(100), abs=1e-5)
    assert (lowered[~(third & first)] == 0).all()
    assert (pairs["set_apart"] == pairs["set_apart_fitted"]).all()
    kept = ranked["set_apart"] == ""
    assert ranked["score"][kept].is_monotonic_decreasing


def test_what_ranks_first_is_as_if_all_were_fitted(survey):
    scores = scores_of(survey)
    some, every = (rank(scores, survey, Fits(), examined=n) for n in (120, len(survey)))
    bound = np.sort(scores["score"])[-121]
    above = every[(every["score"] > bound) & (every["set_apart"] == "")]
    assert len(above) > 50
    assert some["name"].head(len(above)).tolist() == above["name"].tolist()


def test_point_sources_are_fitted_where_there_are_stars(survey):
    assert point_fits(survey) == PointFits.of(survey)
    assert point_fits(replace(survey, images=np.zeros_like(survey.images))) is None
    few = {name: getattr(survey, name)[: candidates.TO_FIT - 1] for name in ("names", "split")}
    assert point_fits(replace(survey, **few)) is None
    own = np.where(np.arange(len(survey)) < candidates.TO_FIT - 1, "train", "test")  # too few to serve
    assert point_fits(replace(survey, split=own)) == PointFits.of(survey, np.arange(len(survey)))


def test_p_values_are_those_of_the_rejected_objects_on_conformal_tiles(survey):
    scores = scores_of(survey, split=np.where(np.arange(len(survey)) % 2, "conformal", "train"))
    ranked = rank(scores, survey)
    kept = ranked[ranked["set_apart"] == ""]
    normals = kept[(kept["split"] == "conformal") & (kept["label"] == 0)]
    tested = kept.drop(normals.index)
    expected = [(1 + (normals["score"] >= s).sum()) / (len(normals) + 1) for s in tested["score"]]
    assert tested["p"].to_numpy() == pytest.approx(expected)
    assert ranked["p"].drop(tested.index).isna().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "why"),
    [(-1, "no object has a label"), (0, "no object is flagged"), (1, "all objects are flagged")],
)
def test_without_both_classes_the_list_says_why_it_is_not_measured(survey, labels, why):
    ranked = rank(scores_of(survey, labels=np.full(len(survey), labels)), survey)
    table, sentence = quality(ranked, survey)
    assert table is None
    assert why in sentence
    assert "p" not in ranked  # all are on conformal tiles, so there is nothing left to test


def recovered(survey, monkeypatch, own, n_ordinary=10_000, held="selection", points=None):
    """The list of objects of scores 0 to n - 1, of which every second is on a selection tile, recovered by
    500 injected lenses: 100 above all of them, of which one would be set apart, and 400 in their middle."""
    where = []

    def injected(survey, rows, n=500):
        where.append(rows)
        truth = pd.DataFrame({"is_lens": np.arange(n + 7) >= 7, "separation": 1.0})
        pixels = np.zeros((n + 7, 32, 32), np.float32)
        own = {"truth": truth, "group": np.arange(n + 7) + 10**6}
        return SimpleNamespace(**own, in_reference_band=lambda rows: (pixels[rows], pixels[rows] == 0))

    monkeypatch.setattr(candidates, "injected_survey", injected)
    apart = [""] * 500
    apart[99] = "trail"
    monkeypatch.setattr(candidates, "find_artefacts", lambda images, mask: apart)
    number = np.arange(n_ordinary)
    split = np.where(number % 2, held, "train")
    ranked = pd.DataFrame({"score": number.astype(float), "split": split, "set_apart": "", "label": 0})
    ranked["name"] = survey.names[number % len(survey)]
    aside = pd.DataFrame({"score": [1e9] * 90, "split": "selection", "set_apart": "trail", "label": 0})
    known = pd.DataFrame({"score": [1e9] * 90, "split": "selection", "set_apart": "", "label": 1})

    def odds(survey, rows, symmetries, progress):
        assert symmetries is False
        return np.where(rows < 107, 1e6, n_ordinary / 2 + 0.5)

    encoder = SimpleNamespace(score=odds)
    model = SimpleNamespace(survey_fingerprint=survey.fingerprint if own else "")
    survey = replace(survey, split=np.resize([held, "train"], len(survey)))
    ranked = pd.concat([ranked, aside, known])
    ranked["examined"] = ranked["score"] >= n_ordinary - 1000
    return candidates.recovery(ranked, survey, model, encoder, points, symmetries=False), where


def test_injected_lenses_are_recovered_as_their_scores_say(survey, monkeypatch):
    found, where = recovered(survey, monkeypatch, own=False)
    assert len(where[0]) == candidates.EXAMINED
    assert found.lenses["found"].sum() == 99
    rates = found.measured.loc[["recall_fpr_1e-2", "recall_fpr_1e-3"], "value"]
    assert rates.tolist() == pytest.approx([99 / 500] * 2)
    # a fifth of 100 lenses in 100,000 objects, among the first 100, the rest of which are ordinary ones
    assert "20 [" in found.said.split("a lens like these, ")[1]
    assert found.said.startswith("Of 500 injected lenses 20% [")


def test_an_injected_lens_is_lowered_where_the_list_would_have_fitted_it(survey, monkeypatch):
    one_source = SimpleNamespace(score=lambda survey, rows: np.zeros(len(rows)))
    found, _ = recovered(survey, monkeypatch, own=False, points=one_source)
    assert found.lenses["score"][:99].to_numpy() == pytest.approx(1e6 - np.log(1000))
    assert (found.lenses["score"][100:] == 5000.5).all()


def test_purity_is_that_of_two_known_gaussians():
    draws = np.random.default_rng(0).normal(size=400_000)
    found = Recovery(
        pd.DataFrame({"score": draws[:200_000] + 2}), pd.DataFrame(), "", np.sort(draws[200_000:])
    )
    for at in (0.0, 1.0, 2.0, 3.0):
        true, false = 1e-3 * norm.sf(at - 2), 0.999 * norm.sf(at)
        assert found.purity(np.array([at]))[0] == pytest.approx(true / (true + false), rel=0.1)


def test_purity_counts_an_object_among_the_ordinary_ones_and_is_empty_without_injected_lenses():
    lenses = pd.DataFrame({"score": [5.0, 5.0, 5.0, -1.0]})
    found = Recovery(lenses, pd.DataFrame(), "", np.arange(99.0))
    assert found.purity(np.array([1e9]))[0] == 0
    best = Recovery(lenses, pd.DataFrame(), "", np.zeros(99)).purity(np.array([5.0]))[0]
    assert best == pytest.approx(1e-3 * 0.75 / (1e-3 * 0.75 + 0.999 * 0.01))
    assert np.isnan(Recovery(pd.DataFrame(), None, "").purity(np.zeros(3))).all()


def test_in_the_models_own_survey_only_selection_tiles_count(survey, monkeypatch):
    found, where = recovered(survey, monkeypatch, own=True)
    odd = np.flatnonzero(np.arange(len(survey)) % 2)
    assert set(where[0]) == set(odd)
    assert found.lenses["found"].sum() == 99
    few, where = recovered(survey, monkeypatch, own=True, n_ordinary=1998)
    assert (few.measured, where) == (None, [])
    assert "1,000 objects of the selection tiles, there are 999" in few.said


@pytest.mark.parametrize("held", ["selection", "conformal", "test"])
def test_without_any_label_all_tiles_count_that_trained_nothing(survey, monkeypatch, held):
    nobody = replace(survey, truth=None, labels=np.full(len(survey), -1, np.int8))
    found, where = recovered(nobody, monkeypatch, own=True, held=held)
    assert set(where[0]) == set(np.flatnonzero(np.arange(len(survey)) % 2))
    assert found.lenses["found"].sum() == 99
    if held != "selection":  # which labels may need
        few, where = recovered(survey, monkeypatch, own=True, held=held)
        assert (few.measured, where) == (None, [])


@pytest.mark.slow
def test_the_written_lists_agree(survey, tmp_path):
    plain = write_candidates(rank(scores_of(survey), survey), survey, tmp_path)
    held, votable = pd.read_csv(tmp_path / "candidates.csv"), Table.read(tmp_path / "candidates.vot")
    assert held["name"].tolist() == list(votable["name"]) == plain["name"].tolist()
    assert votable["ra"].unit == "deg"
    assert np.array_equal(np.ma.filled(votable["rank"], -1), held["rank"].fillna(-1))


@pytest.mark.slow
def test_no_length_of_a_name_overruns_the_memory_of_the_votable(tmp_path):
    """Astropy's writer of text did, for names as plain as these."""
    code = f"""
import types
import pandas as pd
from astropy.table import Table
from lensq.detection.candidates import write_candidates
survey = types.SimpleNamespace(catalogue=None, notes=(), summary="")
for length in range(140, 180):
    names = ["a" * length, "<&>"]
    table = pd.DataFrame({{"rank": [1, 2], "name": names, "ra": 1.0, "dec": 2.0, "set_apart": ""}})
    write_candidates(table, survey, {str(tmp_path)!r})
    assert list(Table.read({str(tmp_path / "candidates.vot")!r})["name"]) == names
"""
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONMALLOC": "debug"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]


def test_regions_hold_any_name(survey):
    ranked = rank(scores_of(survey), survey)
    ranked.loc[:1, "name"] = ['a} {b "c", \n<d>', "it's, é"]
    regions = _regions(ranked).splitlines()
    assert len(regions) == 2 + len(survey)
    form = re.compile(r'circle\([\d.]+,-?[\d.]+,3\.0"\) # text=\{[^{}]*\}')
    assert all(form.fullmatch(line) for line in regions[2:])


@pytest.mark.slow
def test_the_users_catalogue_comes_out_beside_its_objects(survey, tmp_path):
    given = pd.DataFrame({"redshift": np.arange(len(survey)) / 10, "score": "theirs"})
    owner = SimpleNamespace(names=survey.names, catalogue=given, notes=(), summary="all used")
    table = write_candidates(rank(scores_of(survey), survey), owner, tmp_path)
    expected = pd.Series(given["redshift"].to_numpy(), index=survey.names)[table["name"]]
    assert table["redshift"].tolist() == expected.tolist()
    assert set(table["catalogue_score"]) == {"theirs"}


def test_links_lead_to_the_position_and_nowhere_without_one():
    links = sky_links(150.1, -2.25)
    assert list(links) == ["Legacy", "hscMap", "Aladin", "SIMBAD"]
    assert "ra=150.100000&dec=-2.250000" in links["Legacy"]
    assert "Coord=150.100000%20-2.250000" in links["SIMBAD"]
    assert sky_links(np.nan, np.nan) == {}


def test_a_sheet_without_objects_says_so():
    nothing = pd.DataFrame(columns=["name", "ra", "dec", "score"])
    assert mosaic(np.empty((0, 8, 8)), nothing).data == "<p>None.</p>"


def test_a_long_sheet_shows_the_first_and_folds_the_rest():
    rows = pd.DataFrame({"name": list("abcde"), "ra": 1.0, "dec": 2.0, "score": 1.0})
    images = np.repeat(star()[None], 5, axis=0)
    shown, folded = mosaic(images, rows, opened=2).data.split("<details>")
    assert [part.count("<img ") for part in (shown, folded)] == [2, 3]
    assert "<summary>3 more</summary>" in folded
    assert "<details>" not in mosaic(images, rows, opened=5).data


def test_names_labels_and_sentences_are_escaped():
    row = {"name": HOSTILE, "ra": 1.0, "dec": 2.0, "score": 1.0, "known_as": HOSTILE, "set_apart": HOSTILE}
    page = mosaic(star()[None], pd.DataFrame([row])).data + said([HOSTILE]).data
    assert page.count("<img ") == 1
    assert page.count("&lt;img src=x") == 5
    assert 'src="data:image/png;base64,' in page


@pytest.fixture(scope="module")
def trained(survey, tmp_path_factory):
    """Results of a study that lasted seconds: a model, its scores, its encoder on injected lenses."""
    folder = tmp_path_factory.mktemp("trained")
    quick = {"epochs": 1, "width": 4, "latent": 4, "batch_size": 32}
    model = fit(survey, "SVDD_VAE", out=folder / "SVDD_VAE", progress=False, **quick)
    score(model, survey, out=folder / "SVDD_VAE" / "scores.parquet", progress=False)
    finetune(model, survey, out=folder / "injected" / "none", steps=2, batch_size=16, progress=False)
    return folder


def folder_of(place: Path, n: int, labels: str = "", side: int = 40, *, apart: bool = False) -> Path:
    """Cutouts, a fifth or all with a trail; `labels`: "" for no list, "none", "all" or "some" flagged."""
    names = [HOSTILE, *(f"J{10 + i % 10:02d}0000.00+0{i % 10}{i % 6}000.{i:02d}" for i in range(1, n))]
    for i, name in enumerate(names):
        image = pixels(side, i)
        image[6:8] += 3 * (i % 5 == 1 or apart)
        write(place / f"{name}_HSC-I_img.fits", image)
    flagged = {"none": [], "all": names, "some": names[::4]}
    if labels:
        (place / "candidates_list_raw.txt").write_text("\n".join(names) + "\n")
        (place / "candidates_list_selected.txt").write_text("\n".join(flagged[labels]) + "\n")
    return place


def run_cells(**parameters) -> nbformat.NotebookNode:
    """Notebook 14 in this process, its last values shown as a notebook would."""
    notebook = nbformat.read(ROOT / "notebooks/14_candidates.ipynb", as_version=4)
    space = {"display": lambda value: None}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        body = ast.parse(cell.source.replace("lensq.check_parameters", "len").replace("needs=", ""))
        last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
        exec(compile(body, "14", "exec"), space)
        value = last and eval(compile(ast.Expression(last.value), "14", "eval"), space)
        if "parameters" in cell.metadata.get("tags", []):
            space |= parameters
        elif html := getattr(value, "_repr_html_", lambda: None)():
            cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": html})]
    return notebook


CASES = {
    "one object, unlabelled": (1, ""),
    "unlabelled": (6, ""),
    "nothing flagged": (12, "none"),
    "all flagged": (12, "all"),
    "a few dozen labelled": (40, "some"),
    "all set apart": (6, ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_list_and_page_are_written_for_any_folder(case, trained, tmp_path):
    n, labels = CASES[case]
    place = folder_of(tmp_path / "mine", n, labels, apart=case == "all set apart")
    out = tmp_path / "results"
    notebook = run_cells(survey=str(place), trained=str(trained), results=str(out), repetitions=2)
    listed = pd.read_csv(out / "candidates.csv")
    assert len(listed) == n
    assert HOSTILE in set(listed["name"])
    assert (out / "candidates.vot").is_file()
    assert (out / "candidates.reg").is_file()
    nbformat.write(notebook, tmp_path / "candidates.ipynb")
    page = to_page(tmp_path / "candidates.ipynb").read_text()
    assert ("cannot be measured" in page) == (labels != "some")
    assert page.index("Ranked by the encoder") < page.index("The first of the list")
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "<img src=x" not in page
    sources = re.findall(r'\b(?:src|srcset|data)="([^"]*)"', page)
    assert all(source.startswith("data:image/png") for source in sources)
    assert len(sources) == n
    assert ("<details open>" in page, "<details>" in page) == (n > 12 or case == "all set apart", False)
    assert not re.search(r"<link|@import|url\(|{doc}|import lensq", page)


@pytest.mark.slow
def test_an_encoder_is_trained_on_its_own_survey_alone(trained, survey, tmp_path):
    model = lensq.load_model(trained / "SVDD_VAE")
    held = injected_detector(trained, model, survey)
    assert held.settings["steps"] == 2
    made = injected_detector(tmp_path, model, survey, steps=1, batch_size=16, progress=False)
    assert made.settings["steps"] == 1
    other = toy_survey(tmp_path / "other", n=20, size=32, seed=5)
    with pytest.raises(FileNotFoundError, match="11_injected_lenses"):
        injected_detector(tmp_path / "none", model, other)


@pytest.mark.browser
def test_the_page_runs_nothing_and_asks_for_nothing(trained, session, tmp_path):
    place = folder_of(tmp_path / "mine", 8, "some")
    notebook = run_cells(survey=str(place), trained=str(trained), results=str(tmp_path / "results"))
    nbformat.write(notebook, tmp_path / "candidates.ipynb")
    page, asked, alerts = session.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    page.goto(to_page(tmp_path / "candidates.ipynb").as_uri())
    assert page.locator(".lensq-sheet img").count() == 8
    assert page.get_by_text(HOSTILE).count() > 0
    assert alerts == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()

"""The book's sources: what the pages refer to is there, and the extension does what it says."""

import ast
import base64
import json
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import pytest
import yaml

from lensq.study.parameters import read_parameters

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PROSE = sorted(BOOK.glob("*.md"))
API = sorted((BOOK / "api").glob("*.rst"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def entries() -> list[str]:
    chapters = [chapter for part in TOC["parts"] for chapter in part["chapters"]]
    return [TOC["root"], *(page["file"] for top in chapters for page in [top, *top.get("sections", [])])]


def code_cells(notebook: Path) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def text_of(page: Path) -> str:
    """Prose of a page; of a notebook its Markdown cells."""
    if page.suffix == ".md":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def outside_code(text: str) -> str:
    """Markdown without its fenced code, math, roles and literals, where nothing is a link."""
    return re.sub(r"```[\s\S]*?```|(\{[\w:-]+\})?`[^`]*`", "", text)


def test_every_page_is_in_the_table_of_contents_once():
    pages = [file.relative_to(ROOT).with_suffix("").as_posix() for file in [*PROSE, *NOTEBOOKS, *API]]
    assert sorted(entries()) == sorted(pages)


def test_bibliography_and_citations_agree():
    keys = re.findall(r"@\w+\{(\w+),", (BOOK / "references.bib").read_text())
    assert len(keys) == len(set(keys))
    cited = set()
    for page in [*PROSE, *NOTEBOOKS]:
        for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text_of(page)):
            cited |= {key.strip() for key in group.split(",")}
    assert cited <= set(keys), f"not in references.bib: {sorted(cited - set(keys))}"
    assert set(keys) <= cited, f"never cited: {sorted(set(keys) - cited)}"


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.stem)
def test_links_and_figures_lead_somewhere(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)#\s]+)", outside_code(text)) + re.findall(r"\{figure\} (\S+)", text)
    targets += re.findall(r"\{glue:text\}`([^:]+)::", text)
    missing = [t for t in targets if "://" not in t and not (page.parent / t).is_file()]
    assert not missing


def test_numbers_in_the_prose_are_glued_by_their_notebooks():
    for page in PROSE:
        glued = re.findall(r"\{glue:text\}`([^`]+::[^`]+)`", page.read_text())
        assert [entry for entry in glued if not re.search(r"::\w+:.+", entry)] == []  # MyST-NB wants a format
        for path, key in re.findall(r"\{glue:text\}`([^:]+)::(\w+)", page.read_text()):
            source = "".join("".join(cell["source"]) for cell in code_cells(page.parent / path))
            stem = re.sub(r"_(low|high)$", "", key)
            assert re.search(rf'"{stem}"', source, re.IGNORECASE), f"{path} glues no {key}"


GLUES = r"glue\(.*display=False\)|from myst_nb import glue|for .*:"


def test_numbers_are_glued_out_of_sight_and_each_is_used():
    prose = "".join(page.read_text() for page in PROSE)
    for notebook in NOTEBOOKS:
        text = text_of(notebook) + prose
        for cell in code_cells(notebook):
            lines = [line.strip() for line in "".join(cell["source"]).splitlines() if line.strip()]
            if any("glue(" in line for line in lines) and all(re.fullmatch(GLUES, line) for line in lines):
                assert "remove-cell" in cell["metadata"].get("tags", []), (notebook.name, lines)
            for key in re.findall(r'glue\("(\w+)"', "".join(cell["source"])):
                assert key in text, f"{notebook.name} glues {key}, and no page says it"


def test_figures_on_other_pages_exist_in_their_notebooks():
    found = 0
    for page in PROSE:
        for path, name in re.findall(r"\{notebook-figure\} (\S+)::(\S+)", page.read_text()):
            found += 1
            cells = code_cells(page.parent / path)
            names = [c["metadata"].get("mystnb", {}).get("figure", {}).get("name") for c in cells]
            assert name in names, f"{path} has no figure {name}"
    assert found >= 3


def test_figures_that_are_referred_to_are_drawn_whatever_the_survey():
    """A survey without truth has no figure that needs it; a reference to one fails its whole book."""
    referred = set()
    for page in [*PROSE, *NOTEBOOKS]:
        text = text_of(page)
        referred |= set(re.findall(r"\{numref\}`(?:[^`<]*<)?([\w-]+)>?`", text))
        referred |= set(re.findall(r"\{notebook-figure\} \S+::(\S+)", text))
    drawn = {}
    for notebook in NOTEBOOKS:
        for cell in code_cells(notebook):
            name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
            drawn[name] = ast.parse("".join(cell["source"]))
    assert len(referred & set(drawn)) >= 3
    for name in referred & set(drawn):
        conditions = [node for node in ast.walk(drawn[name]) if isinstance(node, ast.If | ast.IfExp)]
        assert not conditions, f"{name} is referred to, and a survey may not have it"


def test_every_figure_has_alternative_text():
    for page in PROSE:
        for options in re.findall(r"\{figure\} \S+\n((?::\w+:.*\n)+)", page.read_text()):
            assert re.search(r":alt: .{40,}", options), f"{page.name}: {options}"
    for notebook in NOTEBOOKS:
        for cell in code_cells(notebook):
            render = cell["metadata"].get("mystnb", {})
            if "figure" in render:
                assert len(render.get("image", {}).get("alt", "")) >= 20, (notebook.name, render)


def packages_of_the_page() -> list[str]:
    """The first column of the architecture page's table of packages."""
    table = re.search(r"```\{list-table\}.*?```", (BOOK / "architecture.md").read_text(), re.DOTALL)[0]
    return re.findall(r"^\* - `(\w+)`$", table, re.MULTILINE)


def test_architecture_lists_the_packages_and_no_other():
    there = {path.parent.name for path in (ROOT / "lensq").glob("*/__init__.py")}
    listed = packages_of_the_page()
    assert len(listed) == len(set(listed))
    assert set(listed) == there


def test_architecture_has_the_packages_in_the_order_in_which_they_import():
    order, against = packages_of_the_page(), []
    for package in order:
        for file in (ROOT / "lensq" / package).rglob("*.py"):
            used = re.findall(r"^ *(?:from|import) lensq\.(\w+)", file.read_text(), re.MULTILINE)
            against += [f"{file.name}: {name}" for name in used if order.index(name) > order.index(package)]
    assert against == []


def test_architecture_names_the_files_of_the_workflow_and_they_are_there():
    files = set(re.findall(r"^\| `([\w./]+)` \|", (BOOK / "architecture.md").read_text(), re.MULTILINE))
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert files >= {"Makefile", "Snakefile", *(path.name for path in ROOT.glob("*.smk"))}


def test_the_drawing_names_every_package():
    drawn = " ".join(ElementTree.parse(BOOK / "_static/packages.svg").getroot().itertext())
    assert [name for name in packages_of_the_page() if name not in re.findall(r"\w+", drawn)] == []


def test_every_term_is_in_the_glossary_and_every_entry_is_linked():
    glossary = (BOOK / "glossary.md").read_text()
    entries = set(re.findall(r"^(\w.*)\n  \S", glossary, re.MULTILINE))
    pages = "\n".join(text_of(page) for page in [*PROSE, *NOTEBOOKS] if page.stem != "glossary")
    inside, outside = (
        {re.sub(r".*<(.+)>", r"\1", term) for term in re.findall(r"\{term\}`([^`]+)`", text)}
        for text in (glossary, pages)
    )
    assert inside | outside <= entries, f"not in glossary.md: {sorted((inside | outside) - entries)}"
    assert entries <= outside, f"never linked: {sorted(entries - outside)}"


def test_every_claim_names_tests_that_are_there():
    claims = (BOOK / "how_we_know.md").read_text().split("\n## ")[1:]
    assert len(claims) >= 8
    for claim in claims[:-1]:
        red = re.search(r"\*Goes red:\*([\s\S]*?)\n- \*", claim)[1]
        assert "*Measured in*" in claim
        assert "*Falsified by*" in claim
        held = set()
        for names, file in re.findall(r"((?:`test_\w+`[\s,and]*)+)in\s+`(tests/[\w/]+\.py)`", red):
            there = (ROOT / file).read_text()
            held |= {name for name in re.findall(r"test_\w+", names) if f"def {name}(" in there}
        assert held == set(re.findall(r"`(test_\w+)`", red)) != set()


NOT_PROSE = re.compile(
    r"```[\s\S]*?```|\$\$[\s\S]*?\$\$|^(?:#|\||:\w+:|:::).*|(?:\{[\w:-]+\})?`[^`]*`|\$[^$\n]*\$"
    r"|\[[^\]]*\]\([^)]*\)|\*\*[^*]+\*\*|(?<!\*)\*[^*\n]+\*(?!\*)",
    re.MULTILINE,
)
TERMS = [
    "AP",
    "AUROC",
    "ELBO",
    "F1",
    "FDR",
    "FPR",
    "HSC",
    "MIG",
    "OM10",
    "PSF",
    "TC",
    "KL divergence",
    "t-SNE",
]
TERMS += [
    "zero point",
    "seeing",
    "deflector",
    "bootstrap",
    "prevalence",
    "conformal",
    "Cramér's V",
    "posterior",
]
TERMS += ["latent dimension", "split guard"]


@pytest.mark.parametrize("page", [*PROSE, *NOTEBOOKS], ids=lambda page: page.stem)
def test_a_term_is_linked_on_each_page_that_uses_it(page):
    """In running text: not in headings, tables, links, emphasis, mathematics, code."""
    if page.stem in ("glossary", "simulator"):
        return
    text = text_of(page)
    linked = {re.sub(r".*<(.+)>", r"\1", term) for term in re.findall(r"\{term\}`([^`]+)`", text)}
    prose = NOT_PROSE.sub(" ", text)
    used = {term for term in TERMS if re.search(rf"(?<![\w-]){re.escape(term)}(?![\w-])", prose)}
    assert sorted(used - linked) == []


METAPHORS = r"judg\w+|told|taught|paint\w*|telling|everybody|entrants?|rooms?|floors?|company"


@pytest.mark.parametrize("page", [*PROSE, *NOTEBOOKS], ids=lambda page: page.stem)
def test_pages_use_the_words_of_the_field(page):
    """Evaluated, trained with labels, fine-tuned, injected, discriminative, all methods, packages."""
    found = re.findall(rf"\b({METAPHORS})\b", outside_code(text_of(page)), re.IGNORECASE)
    assert found == [], "say it with the word of the field"


def test_parameter_lines_do_not_wrap():
    """A line of a parameters cell holds 100 characters on the page."""
    for notebook in NOTEBOOKS:
        (cell,) = [c for c in code_cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
        long = [line for line in "".join(cell["source"]).splitlines() if len(line) > 100]
        assert long == [], notebook.name


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_saving_a_notebook_unchanged_changes_no_line(notebook):
    held = notebook.read_text()
    assert nbformat.writes(nbformat.reads(held, as_version=4)) == held.rstrip("\n")


def test_the_sidebar_has_the_notebooks_in_the_order_of_their_numbers():
    (notebooks,) = [part["chapters"] for part in TOC["parts"] if part["caption"] == "Notebooks"]
    assert [chapter["file"] for chapter in notebooks] == [f"notebooks/{file.stem}" for file in NOTEBOOKS]
    assert [chapter["title"][:2] for chapter in notebooks] == [file.stem[:2] for file in NOTEBOOKS]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_ends_with_what_was_seen_and_no_number_of_a_run(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    *_, box = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    lines = box.splitlines()
    assert lines[0].startswith("> **What you have seen.** ")
    assert 2 <= len(lines) <= 4
    assert all(line.startswith("> ") for line in lines)
    assert not re.search(r"\d", re.sub(r"\{doc\}`\w+`", "", box))


@pytest.mark.parametrize(
    "name", ["01_data_exploration", "06_RESNET18_BETATC_VAE", "09_latent_chi_squared", "10_thresholding"]
)
def test_three_exercises_change_parameters_that_are_there(name):
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    exercises = text_of(notebook).split("## Exercises")[1]
    assert re.findall(r"^(\d)\. \*", exercises, re.MULTILINE) == ["1", "2", "3"]
    named = set(re.findall(r"(?:[Ss]et|Change|with|of|and) `(\w+)`|-p (\w+) |\"(\w+): \[", exercises))
    named = {name for names in named for name in names if name}
    declared = {name for file in (NOTEBOOKS[0], notebook) for name in read_parameters(file)}
    assert len(named) >= 3
    assert named - {"central_residual"} <= declared


LINK = re.compile(r"\[[Nn]otebook (\d\d)\]\(\.\./notebooks/(\d\d)_")


def test_a_linked_notebook_is_called_by_its_number():
    linked = [(page.name, *link) for page in PROSE for link in LINK.findall(page.read_text())]
    assert len(linked) > 5
    assert [link for link in linked if link[1] != link[2]] == []


def test_what_is_cited_and_archived_is_the_same_version():
    import lensq

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    archived = json.loads((ROOT / ".zenodo.json").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {cited["version"], archived["version"], project["version"]} == {lensq.__version__}
    assert {cited["license"], archived["license"], project["license"]} == {"BSD-3-Clause"}
    assert (archived["title"], archived["keywords"]) == (cited["title"], cited["keywords"])
    assert archived["creators"] == cited["authors"]
    heading = rf"^## \[{re.escape(lensq.__version__)}\] - (\S+)"
    released = re.search(heading, (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[1] == str(cited["date-released"])


ADDRESS = CONFIG["repository"]["url"]


def test_the_address_of_the_repository_stands_in_one_place():
    """Pages take it from _config.yml; what is read outside the book has it once it is set, and only then."""
    name = ADDRESS.removeprefix("https://github.com/")
    assert not ADDRESS or not [page.name for page in [*PROSE, *NOTEBOOKS] if name in page.read_text()]
    readme, cited = ((ROOT / file).read_text() for file in ("README.md", "CITATION.cff"))
    assert yaml.safe_load(cited).get("repository-code", "") == ADDRESS
    linked = set(re.findall(r"mybinder\.org/v2/gh/([\w.-]+/[\w.-]+)/", readme))
    assert linked == ({name} if ADDRESS else set())


@pytest.mark.parametrize("address", ["", "https://github.com/a/b"])
def test_buttons_are_shown_where_there_is_an_address(extension, address):
    from types import SimpleNamespace

    launch = {"binderhub_url": "https://mybinder.org"}
    options = {"repository_url": address, "repository_branch": "main", "launch_buttons": launch}
    extension.show_buttons(None, SimpleNamespace(html_theme_options=options))
    assert {options[button] for button in extension.BUTTONS} == {bool(address)}
    assert ("launch_buttons" in options) == bool(address)
    there = "https://mybinder.org/v2/gh/a/b/main?urlpath=lab/tree/n.ipynb" if address else ""
    assert extension.binder_link(options, "n.ipynb") == there
    (shown,) = extension._link("raw", "words", address)
    assert (shown.get("refuri"), shown.astext() == extension.NO_ADDRESS) == (address or None, not address)


EXAMPLE = (BOOK / "adding_a_variant.md").read_text()


@pytest.mark.slow
def test_a_variant_is_added_in_under_forty_lines(tmp_path, monkeypatch):
    """The code of the page, run as it stands on a toy survey; only epochs and sizes are cut short."""
    import torch

    import lensq
    from lensq.models.objectives import OBJECTIVES, Elbo
    from lensq.models.variants import MODELS

    composition, objective, use = re.findall(r"```python\n(.*?)```", EXAMPLE, re.DOTALL)
    assert len([line for line in objective.splitlines() if line.strip()]) < 40
    monkeypatch.chdir(tmp_path)
    for table in (MODELS, OBJECTIVES):
        for name in ("CONV5_BETATC_VAE", "CAPACITY_VAE", "capacity"):
            monkeypatch.delitem(table, name, raising=False)
    lensq.simulate_survey(tmp_path / "_build/survey", 60, seed=3, progress=False)
    whole = lensq.fit

    def short(survey, variant, **options):
        return whole(
            survey, variant, **options | {"epochs": 1, "width": 4, "max_images": 32, "batch_size": 16}
        )

    monkeypatch.setattr(lensq, "fit", short, raising=False)
    try:
        page: dict = {}
        for block in (composition, objective, use):
            exec(block, page)
        assert page["model"].settings["config"]["options"]["capacity"] == 10.0
        assert (tmp_path / page["folder"] / "scores.parquet").is_file()
        assert MODELS["CONV5_BETATC_VAE"].config().options["beta"] == 4.0

        # At capacity 0 the objective is the evidence lower bound: a KL divergence is its own modulus.
        terms = {"reconstruction": torch.tensor([3.0, 5.0]), "kl": torch.tensor([[1.0, 0.5], [2.0, 0.25]])}
        step = {"step": 7, "dataset_size": 10}
        options = page["CapacityOptions"](capacity=0.0, beta=2.0)
        held = page["Capacity"](4, 2, options).loss(terms, **step)[0]
        assert held == Elbo(4, 2, options).loss(terms, **step)[0]
        away = page["Capacity"](4, 2, page["CapacityOptions"](capacity=10.0)).loss(terms, **step)[0]
        assert away == 4.0 + (10.0 - 1.875)
    finally:
        for name in ("CONV5_BETATC_VAE", "CAPACITY_VAE"):
            MODELS.pop(name, None)
        OBJECTIVES.pop("capacity", None)


def test_no_page_names_this_machine():
    """Paths of a developer's machine and package hosts have no place in a published page."""
    machine = re.compile(r"/(root|home|work)/|file://|localhost|127\.0\.0\.1|/usr/local/")
    files = [*PROSE, *NOTEBOOKS, ROOT / "_config.yml", ROOT / "_toc.yml", *(BOOK / "_ext").glob("*.py")]
    assert [file.name for file in files if machine.search(file.read_text())] == []


def test_scripts_are_carried_along_with_their_licences():
    options = CONFIG["sphinx"]["config"]
    scripts = [options["mathjax_path"], *options["nb_ipywidgets_js"]]
    licences = (BOOK / "_static/vendor/LICENCES.txt").read_text()
    for script in scripts:
        assert (BOOK / "_static" / script).is_file()
        assert Path(script).parts[0] != "vendor" or Path(script).name in licences


@pytest.mark.parametrize("drawing", sorted((BOOK / "_static").glob("*.svg")), ids=lambda file: file.name)
def test_drawings_stand_alone(drawing):
    root = ElementTree.parse(drawing).getroot()
    assert root.get("viewBox")
    links = [value for node in root.iter() for name, value in node.attrib.items() if name.endswith("href")]
    assert links == []


@pytest.fixture
def extension():
    sys.path.insert(0, str(BOOK / "_ext"))
    import lensq_book

    yield lensq_book
    sys.path.remove(str(BOOK / "_ext"))


def notebook(*cells: dict) -> str:
    cells = [{"id": f"c{i}", "metadata": {}, **cell} for i, cell in enumerate(cells)]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def code(source: str, count: int | None, **more) -> dict:
    return {"cell_type": "code", "source": source, "execution_count": count, "outputs": []} | more


PROSE_CELL = {"cell_type": "markdown", "source": "# A title"}


@pytest.mark.parametrize(
    ("cells", "run"),
    [
        ([PROSE_CELL], True),
        ([PROSE_CELL, code("1 + 1", 1), code("  \n", None)], True),
        ([PROSE_CELL, code("1 + 1", None)], False),
        ([PROSE_CELL, code("1 + 1", 1), code("2 + 2", None)], False),
    ],
    ids=["prose only", "run, an empty cell", "not run", "run half"],
)
def test_a_notebook_counts_as_run_when_all_its_code_has(extension, tmp_path, cells, run):
    file = tmp_path / "n.ipynb"
    file.write_text(notebook(*cells))
    assert extension.has_been_run(file) is run


def test_a_figure_is_found_by_its_name(extension, tmp_path):
    png = b"\x89PNG not really"
    figure = {"figure": {"name": "fig-a", "caption": "A caption."}, "image": {"alt": "What is seen."}}
    data = {"image/png": base64.b64encode(png).decode()}
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    file = tmp_path / "n.ipynb"
    file.write_text(
        notebook(
            code("draw()", 1, metadata={"mystnb": figure}, outputs=[output]),
            code("text()", 2, metadata={"mystnb": {"figure": {"name": "fig-b"}}}),
        )
    )
    assert extension.find_figure(file, "fig-a") == (png, "What is seen.", "A caption.")
    with pytest.raises(ValueError, match=r"fig-b.*no PNG"):
        extension.find_figure(file, "fig-b")
    with pytest.raises(ValueError, match="no figure 'fig-c'; it has fig-a, fig-b"):
        extension.find_figure(file, "fig-c")


def test_a_page_says_when_it_was_run(extension, tmp_path):
    file = tmp_path / "n.ipynb"
    file.write_text(notebook(PROSE_CELL))
    assert extension.run_of(file) == ""
    run = json.loads(notebook(PROSE_CELL)) | {"metadata": {"papermill": {"duration": 61.4}}}
    run["metadata"]["papermill"]["end_time"] = "2026-11-28T02:21:15.123"
    file.write_text(json.dumps(run))
    assert extension.run_of(file) == "This page was run on 2026-11-28, in 61 seconds."


def test_markdown_is_found_by_what_it_was_glued_as(extension, tmp_path):
    prefix = "application/papermill.record/"
    output = {"output_type": "display_data", "data": {f"{prefix}text/markdown": ["| a |\n", "|---|\n"]}}
    output["metadata"] = {"scrapbook": {"name": "front", "mime_prefix": prefix}}
    file = tmp_path / "n.ipynb"
    file.write_text(notebook(code("glue()", 1, outputs=[output])))
    assert extension.find_text(file, "front") == "| a |\n|---|\n"
    with pytest.raises(ValueError, match="no Markdown as 'back'"):
        extension.find_text(file, "back")


@pytest.mark.slow
def test_building_by_hand_before_the_notebooks_ran_gives_one_message(tmp_path):
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("book", "notebooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "."]
    build = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert build.returncode == 1
    assert "the notebooks have not been run; run `make book`" in build.stderr
    assert all(file.name in build.stderr for file in NOTEBOOKS)
    assert "WARNING" not in build.stdout + build.stderr
    assert "Traceback" not in build.stdout + build.stderr


WORKFLOWS = {
    file.stem: yaml.safe_load(file.read_text()) for file in (ROOT / ".github/workflows").glob("*.yml")
}


def steps(workflow: str) -> list[dict]:
    return [step for job in WORKFLOWS[workflow]["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("name", ["book", "release", "test"])
def test_a_workflow_is_official_pinned_and_without_secrets(name):
    used = [step["uses"] for step in steps(name) if "uses" in step]
    assert used
    assert [use for use in used if not re.fullmatch(r"actions/[\w/-]+@v\d+\.\d+\.\d+", use)] == []
    assert "secrets" not in (ROOT / f".github/workflows/{name}.yml").read_text()


def test_workflows_test_what_is_supported_and_release_what_is_tested():
    assert any(step.get("run", "").startswith("make book") for step in steps("book"))
    pythons = WORKFLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert pythons[0] == "3.11"
    assert pythons[-1] == "3.13"
    assert "pull_request" in WORKFLOWS["test"][True]  # YAML reads "on" as true
    run = [step["run"].split()[:2] for step in steps("release") if "run" in step]
    assert run == [["make", "test"], ["make", "book"], ["make", "release"], ["gh", "release"]]


def test_the_readme_is_short_and_its_picture_is_there():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    ((alt, picture),) = re.findall(r"!\[(.*?)\]\((.*?)\)", text)
    assert len(alt) >= 40
    assert (ROOT / picture).stat().st_size < 150_000
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / link).is_file()] == []
    assert "python book/cover.py" in text

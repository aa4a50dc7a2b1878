"""Parameters of notebooks: declared in one cell, and held to what it says."""

import ast
import math
import re
from pathlib import Path

import nbformat
import papermill
import pytest
from conftest import ROOT

from lensq.study.parameters import check_names, check_parameters, parse_parameters, read_parameters

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CELL = """\
latent: int = 16  # latent dimensions, 1 or more
rate: float = 0.05  # fraction of lenses, 1e-4 to 0.5
scale: float = 0.1  # noise, above 0
mix: str = "catalogue"  # mix of classes: "catalogue" or "hard"
folder: str = "a # b"  # any folder
fast: bool = False  # skip what is slow
splits: list = ["train"]  # splits to list; "test" too
free: list = []  # anything
"""
DECLARED = parse_parameters(CELL)


def test_a_line_is_a_name_a_type_a_default_and_its_help():
    folder = DECLARED["folder"]
    assert (folder.kind, folder.default, folder.help) == (str, "a # b", "any folder")


def test_limits_are_read_from_the_help():
    limits = {name: parameter.limits for name, parameter in DECLARED.items() if parameter.limits}
    read = {name: (words, *ends) for name, (words, _, *ends) in limits.items()}
    assert read == {"latent": ("1 or more", 1), "rate": ("1e-4 to 0.5", 1e-4, 0.5), "scale": ("above 0", 0)}
    assert DECLARED["mix"].choices == ("catalogue", "hard")
    assert DECLARED["splits"].choices == ("train", "test")
    assert DECLARED["free"].choices == DECLARED["folder"].choices == ()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("latent", [1, 10**6]),
        ("rate", [1e-4, 0.5]),
        ("scale", [1e-9, 3]),
        ("mix", ["hard"]),
        ("folder", ["", "x"]),
        ("fast", [True]),
        ("splits", [[], ["test", "train"]]),
        ("free", [[1, "a"]]),
    ],
)
def test_values_within_the_limits_pass(name, values):
    for value in values:
        DECLARED[name].check(value)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("latent", [0, 2.0, "4", True, None]),
        ("rate", [0.6, 0, math.nan, "0.1", False]),
        ("scale", [0, -1.0, math.inf, math.nan]),
        ("mix", ["soft", "", 1]),
        ("folder", [1, Path("a")]),
        ("fast", [1, "yes"]),
        ("splits", ["train", ["vest"]]),
    ],
)
def test_values_outside_are_refused_with_name_and_value(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"parameter {name} is .*must be"):
            DECLARED[name].check(value)


def test_an_unknown_name_gets_the_nearest_one_offered():
    with pytest.raises(ValueError, match=r"no parameter 'latnet'; did you mean latent\?"):
        check_names(["rate", "latnet"], DECLARED)


@pytest.mark.parametrize(
    "line", ["a = 1", "a: dict = {}  # x", "a: int = b  # x", "a: int  # x", "import os"]
)
def test_a_line_that_is_no_parameter_is_an_error(line):
    with pytest.raises(ValueError, match="not a parameter"):
        parse_parameters(line)


def test_a_notebook_without_a_parameters_cell_is_an_error(tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "n.ipynb")
    with pytest.raises(ValueError, match="no cell is tagged"):
        read_parameters(tmp_path / "n.ipynb")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_shows_every_parameter_with_its_help(path):
    """What `papermill --help-notebook` prints comes from this inspection."""
    shown = papermill.inspect_notebook(path)
    declared = read_parameters(path)
    assert list(shown) == list(declared)
    for name, parameter in declared.items():
        assert shown[name]["inferred_type_name"] == parameter.kind.__name__
        assert shown[name]["help"] == parameter.help
        parameter.check(parameter.default)


class Shell:
    """What a kernel knows of the cells that ran in it."""

    def __init__(self, *cells: str) -> None:
        self.user_ns = {"In": ["", *cells]}
        for cell in cells:
            exec(cell, self.user_ns)


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """Pretend that these cells have been run in a notebook."""

    def run(*cells: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("IPython.get_ipython", lambda: Shell(*cells))

    return run


def test_a_sound_notebook_passes(kernel, tmp_path):
    kernel(CELL, '# Parameters\nlatent = 4\nmix = "hard"\n', "latnet = 3")
    check_parameters(needs=[tmp_path])


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ((CELL, "# Parameters\nlatnet = 4\n"), "no parameter 'latnet'"),
        ((CELL, '# Parameters\nlatent = "4"\n'), "latent is '4', but must be int"),
        ((CELL, "# Parameters\nrate = 0.9\n"), "rate is 0.9, but must be 1e-4 to 0.5"),
        ((CELL.replace("16", "0"),), "latent is 0"),
        ((CELL, CELL.replace("0.05", "2.0")), "rate is 2.0"),
    ],
    ids=["unknown name", "type", "limit", "edited by hand", "edited and run again"],
)
def test_a_running_notebook_is_held_to_its_declaration(kernel, cells, message):
    kernel(*cells)
    with pytest.raises(ValueError, match=message):
        check_parameters()


def test_a_check_before_the_declaration_says_so(kernel):
    kernel("x = 1")
    with pytest.raises(RuntimeError, match="run the cell that declares"):
        check_parameters()


PLACES = 'survey: str = "s t"  # a folder\nresults: str = "r"  # a folder\nvariant: str = "A"  # a name\n'


@pytest.mark.parametrize(
    ("needed", "message"),
    [
        ("s t", r"no survey in s t; look at the path, or make it first$"),
        ("r/A/scores.parquet", r"Notebook 03_A makes it[\s\S]*-p survey 's t' -p results r\n"),
        ("r/A/dimensions.parquet", r"Notebook 09_latent_chi_squared makes it[\s\S]*-p variant A\n"),
        ("r/injected/all/model.pt", r"Notebook 11_injected_lenses makes it"),
        ("r/B/scores.parquet", r"B is no variant; there are A"),
        ("r/else.csv", "look at the path"),
    ],
)
def test_what_is_missing_is_named_with_the_notebook_that_makes_it(kernel, tmp_path, needed, message):
    (tmp_path / "03_A.ipynb").touch()
    kernel(PLACES)
    with pytest.raises(FileNotFoundError, match=message):
        check_parameters(needs=[needed])


def test_a_survey_is_simulated_in_its_own_place_alone(kernel):
    kernel(PLACES.replace("s t", "../_build/survey"))
    message = r"no survey in .*Notebook 00_start_here makes it[\s\S]*papermill 00_start_here.ipynb .*-p surv"
    with pytest.raises(FileNotFoundError, match=message):
        check_parameters(needs=["../_build/survey"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [("latnet", 4), ("latent", 0)])
def test_papermill_by_hand_stops_before_any_work(tmp_path, name, value):
    """The cells that a notebook of the study opens with, in a real kernel."""
    cells = [
        nbformat.v4.new_code_cell(
            "latent: int = 16  # dimensions, 1 or more", metadata={"tags": ["parameters"]}
        ),
        nbformat.v4.new_code_cell("import lensq\n\nlensq.check_parameters()"),
        nbformat.v4.new_code_cell("open('work', 'w').close()"),
    ]
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "n.ipynb")

    def run(**parameters: object) -> None:
        papermill.execute_notebook(
            tmp_path / "n.ipynb", tmp_path / "o.ipynb", parameters, cwd=tmp_path, progress_bar=False
        )

    with pytest.raises(papermill.PapermillExecutionError, match=f"parameter '?{name}"):
        run(**{name: value})
    assert not (tmp_path / "work").exists()
    run(latent=4)
    assert (tmp_path / "work").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_checks_before_it_works(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert "parameters" in cells[0].metadata.get("tags", [])
    body = [
        node for node in ast.parse(cells[1].source).body if not isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert ast.unparse(body[0]).startswith("lensq.check_parameters(")
    assert sum(re.findall(r"^import lensq$", cell.source, re.MULTILINE) != [] for cell in cells) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_number_states_its_limits(path):
    parameters = read_parameters(path).values()
    assert [p.name for p in parameters if p.kind in (int, float) and not p.limits] == []

"""The notebooks of the seven variants: one frame, and cells of their own."""

import copy
import sys

import pytest
from conftest import ROOT

from lensq.models.variants import MODELS

sys.path.insert(0, str(ROOT / "notebooks"))
from frame import HERE, VARIANTS, framed, read

FRAME = read(HERE / "frame.ipynb")
SVDD = "02_SVDD_VAE"


def cell_tagged(notebook: dict, tag: str) -> dict:
    return next(cell for cell in notebook["cells"] if tag in cell["metadata"].get("tags", []))


def text(notebook: dict) -> str:
    return "\n".join("".join(cell["source"]) for cell in notebook["cells"])


def test_every_variant_has_a_notebook():
    assert sorted(path.stem[3:] for path in VARIANTS) == sorted(MODELS)


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_a_variants_notebook_is_the_frame_and_its_own_cells(path):
    committed = read(path)
    assert committed == framed(FRAME, committed, path.stem), "edit notebooks/frame.ipynb and run `make frame`"
    assert "<" + "variant>" not in text(committed)


def test_a_frame_cell_edited_in_one_variant_alone_is_seen_and_undone():
    committed = read(HERE / f"{SVDD}.ipynb")
    edited = copy.deepcopy(committed)
    next(c for c in edited["cells"] if "read_survey" in "".join(c["source"]))["source"] += ["\n# mine"]
    assert framed(FRAME, edited, SVDD) == committed != edited


def test_a_change_to_the_frame_reaches_all_and_touches_nothing_of_their_own():
    frame = copy.deepcopy(FRAME)
    reading = next(c for c in frame["cells"] if "read_survey" in "".join(c["source"]))
    reading["source"] = ["survey_of_<variant> = 1"]
    for path in VARIANTS:
        before, after = read(path), framed(frame, read(path), path.stem)
        assert f"survey_of_{path.stem[3:]} = 1" in text(after)
        same = [a == b for a, b in zip(before["cells"], after["cells"], strict=True)]
        assert same.count(False) == 1


def test_own_cells_and_parameters_stay():
    edited = read(HERE / f"{SVDD}.ipynb")
    cell_tagged(edited, "own-adds")["source"] = ["Another equation."]
    lines = cell_tagged(edited, "parameters")["source"]
    new = [line.replace("latent: int = 16  # latent", "latent: int = 24  # my") for line in lines]
    new = [line for line in new if not line.startswith("epochs")]
    cell_tagged(edited, "parameters")["source"] = [*new[:-1], "own: int = 3  # of mine"]
    made = framed(FRAME, edited, SVDD)
    assert "Another equation." in text(made)
    declared = "".join(cell_tagged(made, "parameters")["source"]).splitlines()
    assert "latent: int = 24  # latent dimensions, 1 or more" in declared  # its default, the frame's help
    assert sum(line.startswith("epochs: int = ") for line in declared) == 1
    assert declared[-1] == "own: int = 3  # of mine"
    assert not [line for line in declared if line.startswith("svdd_from_epoch")]


@pytest.mark.parametrize("tags", [[], ["own-nothing"], ["hide-input"]])
def test_no_cell_is_lost_without_a_word(tags):
    more = read(HERE / f"{SVDD}.ipynb")
    more["cells"].append({"cell_type": "markdown", "metadata": {"tags": tags}, "source": ["A remark."]})
    with pytest.raises(ValueError, match=r"02_SVDD_VAE: tag the cell 'A remark.' with one of .*own-adds"):
        framed(FRAME, more, SVDD)

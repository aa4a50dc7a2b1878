"""Names of objects come from file names: wherever they are shown they are text, never markup."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tables import scores_table
from toy import toy_survey

from lensq.inspector import Inspector, LabelStore, ThresholdSlider

ROOT = Path(__file__).parents[2]
NAMES = ["<img src=x onerror=alert(1)>", "a&b", "it's", 'quote"quote', "$x$", "<script>alert(2)</script>"]
WITH_NAMES = r"(quarantine|groups|ranked|first|written)\b[^\n]*(\.style)"  # tables with names


def test_the_inspector_keeps_hostile_names_as_they_are(tmp_path):
    survey = replace(toy_survey(tmp_path / "survey", len(NAMES), 16), names=np.array(NAMES))
    table = scores_table(len(NAMES), 0, seed=4).drop(columns="is_lens").assign(name=NAMES)
    inspector = Inspector(survey, table.assign(score=table["signal"]), labels=tmp_path / "labels.csv")
    assert sorted(item["name"] for item in inspector.page["items"]) == sorted(NAMES)
    for name in NAMES:
        inspector.label(name, "lens")
        inspector.note(name, f"note of {name}")
        inspector.jump(name)
        assert inspector.page["items"][inspector.page["select"]]["name"] == name
    again = LabelStore(tmp_path / "labels.csv")
    assert sorted(again.table()["name"]) == sorted(NAMES)
    assert again.table()["note"].tolist() == [f"note of {name}" for name in NAMES]
    slider = ThresholdSlider(pd.DataFrame({"name": NAMES, "score": np.arange(len(NAMES)) * 1.0}))
    assert sorted(slider.table["names"]) == sorted(NAMES)


@pytest.mark.parametrize("script", sorted((ROOT / "lensq").rglob("*.js")), ids=lambda path: path.name)
def test_no_script_writes_markup(script):
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(", script.read_text()
    )


def test_pages_escape_the_names_that_they_show():
    found = 0
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and re.search(WITH_NAMES, source):
                assert 'escape="html"' in source, f"{path.name}: {source}"
                found += 1
    assert found == 5

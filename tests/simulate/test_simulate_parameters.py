"""The appendix's table of parameters is that of the package."""

import re
from pathlib import Path

import pytest

from lensq.simulate import parameter_table

PAGE = Path(__file__).parents[2] / "book" / "simulator.md"
CITED = {
    "Oguri & Marshall 2010 (MNRAS 405, 2579)": "oguri2010",
    "Choi et al. 2007": "choi2007",
    "Aihara et al. 2019": "aihara2019",
    "Chan et al. 2023": "chan2023",
    "Hyde & Bernardi 2009": "hyde2009",
    "Collett 2015": "collett2015",
    "Bell et al. 2004": "bell2004",
    "Covey et al. 2007": "covey2007",
    "Falco et al. 1999": "falco1999",
    "Kawanomoto et al. 2018": "kawanomoto2018",
    "LSST Science Collaboration 2009": "lsst2009",
    "Motta et al. 2012": "motta2012",
    "Ruhland et al. 2009": "ruhland2009",
}
HEAD = ["| of | parameter | value | unit | source | checked |", "|---|---|---|---|---|---|"]


def spelled(value) -> str:
    if not isinstance(value, tuple):
        return f"{value:g}"
    return ("; " if isinstance(value[0], tuple) else ", ").join(map(spelled, value))


def rendered() -> list[str]:
    """The table as Markdown, one line a parameter; a number without a source is a choice."""
    lines = list(HEAD)
    for row in parameter_table().to_dict("records"):
        source = row["source"]
        for name, key in CITED.items():
            source = source.replace(name, f"{{cite:t}}`{key}`")
        if row["check"] == "choice" and source != "choice":
            source = f"choice: {source}"
        group = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", row["group"]).lower()
        checked = "" if row["check"] == "choice" else row["check"].removeprefix("checked: ")
        parameter = row["parameter"].replace("_", " ")
        unit = re.sub(r"^\(([^()]*)\)$", r"\1", row["unit"])
        lines.append(f"| {group} | {parameter} | {spelled(row['value'])} | {unit} | {source} | {checked} |")
    return lines


def test_the_appendix_lists_every_parameter_as_it_is():
    lines = PAGE.read_text().splitlines()
    start = lines.index(HEAD[0])
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    expected = rendered()
    if lines[start:end] != expected:
        wrong = sorted(set(lines[start:end]) ^ set(expected))
        pytest.fail(
            "book/simulator.md and lensq.simulate.parameters differ in\n"
            + "\n".join(wrong)
            + "\nThe whole table should read\n"
            + "\n".join(expected)
        )


def test_every_source_is_a_choice_a_measurement_or_a_paper_of_the_bibliography():
    table = parameter_table()
    literature = table[table["check"].isin(["checked: public codes", "checked: abstract"])]
    assert len(literature) > 10
    for source in literature["source"]:
        assert any(name in source for name in CITED), source
    keys = re.findall(r"@\w+\{(\w+),", (PAGE.parent / "references.bib").read_text())
    assert set(CITED.values()) <= set(keys)

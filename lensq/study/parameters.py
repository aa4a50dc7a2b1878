"""The parameters of a notebook: what its parameters cell declares, and a check that holds to it.

A parameter is one line, `name: type = default  # help`, and the help is its only documentation: papermill
shows it, the book shows it, and the limits that it states are enforced.

    width: int = 16  # channels of the first stage, 1 or more
    rate: float = 0.05  # fraction of lenses, 1e-4 to 0.5
    scale: float = 0.1  # noise in units of the image, above 0
    mix: str = "catalogue"  # mix of classes: "catalogue" or "hard"

A number's limits are read from the words `A to B`, `A or more` and `above A`; of a str, and of the entries of
a list, words in double quotes are the only values besides the default, if there are any.
"""

import ast
import io
import json
import math
import re
import shlex
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path

_KINDS = {"int": int, "float": float, "str": str, "bool": bool, "list": list}
_NUMBER = r"(-?\d[\d_]*(?:\.\d+)?(?:e-?\d+)?)"
_LIMITS = {
    rf"{_NUMBER} to {_NUMBER}": lambda value, low, high: low <= value <= high,
    rf"{_NUMBER} or more": lambda value, low: low <= value < math.inf,
    rf"above {_NUMBER}": lambda value, low: low < value < math.inf,
}
"""How words state limits, and whether a value lies within."""
_INJECTED = "# Parameters"  # the comment that papermill writes above values from its command line


class NotMadeYetError(FileNotFoundError):
    """Something that another notebook makes is not there. A notebook shows the message, no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell.

    Attributes:
        name: the variable.
        kind: int, float, str, bool or list.
        default: a plain value.
        help: the comment behind it, with units and limits.
    """

    name: str
    kind: type
    default: object
    help: str

    @property
    def limits(self) -> tuple | None:
        """The words that state limits, how a value lies within, and the ends: lowest and, if any, highest."""
        for words, within in _LIMITS.items() if self.kind in (int, float) else ():
            if found := re.search(words, self.help):
                return found[0], within, *map(float, found.groups())
        return None

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that a str, or an entry of a list, may have; empty if any will do."""
        quoted = re.findall(r'"([^"]+)"', self.help) if self.kind in (str, list) else []
        own = self.default if self.kind is list else [self.default]
        return tuple(dict.fromkeys([*own, *quoted])) if quoted else ()

    def check(self, value: object) -> None:
        """Hold a value to the type and the limits that are declared.

        Raises:
            ValueError: it has another type, or lies outside; the message has name, value and limits.
        """
        allowed = (int, float) if self.kind is float else self.kind
        expected = ""
        if not isinstance(value, allowed) or (isinstance(value, bool) and self.kind is not bool):
            expected = f"{self.kind.__name__}, such as {self.default!r}"
        elif stated := self.limits:
            words, within, *ends = stated
            expected = "" if within(value, *ends) else words
        elif self.choices and set(value if self.kind is list else [value]) - set(self.choices):
            expected = f"one of {', '.join(map(repr, self.choices))}"
        if expected:
            raise ValueError(f"the parameter {self.name} is {value!r}, but must be {expected}")


def parse_parameters(source: str) -> dict[str, Parameter]:
    """Parameters by name, from the source of a parameters cell.

    Raises:
        ValueError: a line is not of the form `name: type = default  # help`.
    """
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}
    found = {}
    for node in ast.parse(source).body:
        try:
            kind = _KINDS[node.annotation.id]
            name, default = node.target.id, ast.literal_eval(node.value)
            found[name] = Parameter(name, kind, default, comments.get(node.end_lineno, ""))
        except (AttributeError, KeyError, ValueError):
            form = f"`name: type = default  # help`, with one of {', '.join(_KINDS)} and a plain value"
            line = ast.get_source_segment(source, node)
            raise ValueError(f"not a parameter: {line!r}; write {form}") from None
    return found


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """Parameters by name, from the cell of a notebook that is tagged `parameters`.

    Raises:
        ValueError: the notebook has no such cell, or a line of it is no parameter.
    """
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            try:
                return parse_parameters("".join(cell["source"]))
            except ValueError as error:
                raise ValueError(f"{notebook}: {error}") from None
    raise ValueError(f"{notebook}: no cell is tagged 'parameters'; papermill needs one")


def variant_notebooks(folder: Path) -> dict[str, str]:
    """The notebooks 02 to 08, one a variant, by the variant's name."""
    return {file.stem[3:]: file.stem for file in sorted(folder.glob("0[2-8]_*.ipynb"))}


def check_names(given: Iterable[str], declared: Iterable[str]) -> None:
    """Hold names of parameters to those that are declared.

    Raises:
        ValueError: a name is not declared; the message offers the nearest one and lists them all.
    """
    declared = list(declared)
    for name in given:
        if name not in declared:
            near = get_close_matches(name, declared, n=1)
            hint = f"; did you mean {near[0]}?" if near else ";"
            raise ValueError(f"there is no parameter {name!r}{hint} There are {', '.join(declared)}")


def check_parameters(*, needs: Sequence[str] = ()) -> None:
    """Check a running notebook before it does any work: the first thing that each of them calls.

    Papermill sets names that a notebook does not declare with no more than a warning, and any value. In
    JupyterLab, where one edits the cell itself, types and limits are checked in the same way.

    Args:
        needs: files and folders that the notebook reads, and which another notebook makes.

    Raises:
        ValueError: a name is not declared, or a value has another type or lies outside its limits.
        NotMadeYetError: something that it needs is not there; the message says how to make it.
        RuntimeError: no cell that declares parameters has been run before.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise RuntimeError("check_parameters belongs into a notebook, below its parameters cell")
    declared, injected = _cells_run(shell.user_ns["In"])
    check_names(injected, declared)
    values = {name: shell.user_ns[name] for name in declared}
    for name, parameter in declared.items():
        parameter.check(values[name])
    for path in needs:
        if not Path(path).exists():
            raise NotMadeYetError(_remedy(Path(path), values))


def _cells_run(sources: Sequence[str]) -> tuple[dict[str, Parameter], list[str]]:
    """Of the cells that have been run: the latest declaration, and the names set by papermill after it."""
    for last in reversed(range(len(sources))):
        body = _statements(sources[last])
        if body and all(isinstance(node, ast.AnnAssign) for node in body):
            break
    else:
        raise RuntimeError("run the cell that declares the parameters first")
    set_after = [_statements(source) for source in sources[last + 1 :] if source.startswith(_INJECTED)]
    injected = [node.targets[0].id for node in chain(*set_after) if isinstance(node, ast.Assign)]
    return parse_parameters(sources[last]), injected


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:  # a cell with a magic
        return []


_MADE_BY = {"survey.json": "01_data_exploration", "dimensions.parquet": "09_latent_chi_squared"}
_MADE_BY |= dict.fromkeys(("detection.json", "detectors.csv", "record.json"), "10_thresholding")
_MADE_BY |= {"leaderboard.csv": "12_leaderboard", "candidates.csv": "14_candidates"}


_SIMULATED = Path("../_build/survey")


def _remedy(path: Path, values: Mapping[str, object]) -> str:
    """What is missing, and the line that makes it."""
    missing, maker = f"{path} is not there", _MADE_BY.get(path.name)
    if path == Path(str(values.get("survey", ""))):
        # A simulated survey has its place; one in a mistyped path would pass for the user's own.
        missing, maker = f"there is no survey in {path}", "00_start_here" if path == _SIMULATED else None
    elif path.parent.parent.name == "injected":
        maker = "11_injected_lenses"
    elif path.name in ("scores.parquet", "model.pt"):
        variants = variant_notebooks(Path.cwd())
        if path.parent.name not in variants:
            return f"{missing}: {path.parent.name} is no variant; there are {', '.join(variants) or 'none'}"
        maker = variants[path.parent.name]
    if maker is None:
        return f"{missing}; look at the path, or make it first"
    hand_on = ["survey", "results"] + (["variant"] if maker[:2] in ("09", "10") else [])
    options = " ".join(f"-p {name} {shlex.quote(values[name])}" for name in hand_on if name in values)
    return (
        f"{missing}. Notebook {maker} makes it: open it and run it, or run this in a new cell here, and then "
        f"go on:\n\n    !mkdir -p ../_build; papermill {maker}.ipynb ../_build/{maker}.ipynb {options}\n"
    )

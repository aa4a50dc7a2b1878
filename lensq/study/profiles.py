"""Profiles: the papermill parameters of every notebook, for a size of the study."""

from pathlib import Path

import yaml

from lensq.study.parameters import check_names, read_parameters


def read_profile(path: Path, notebooks: Path) -> dict[str, dict[str, object]]:
    """Papermill parameters of every notebook, from a profile.

    Args:
        path: A YAML file: one section a notebook (its name without `.ipynb`), and one section
            `every notebook`, whose keys go to each notebook that declares them.
        notebooks: The folder that holds the notebooks.

    Returns:
        For each notebook in the folder its parameters, perhaps none.

    Raises:
        FileNotFoundError: The profile does not exist.
        ValueError: A section names no notebook, a key is declared by no notebook that it is
            meant for, or a value has another type than the notebook declares or lies outside its limits.
    """
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yml")))
        raise FileNotFoundError(f"{path}: there is no such profile; there are {known}")
    declared = {file.stem: read_parameters(file) for file in sorted(notebooks.glob("[0-9]*.ipynb"))}
    sections = yaml.safe_load(path.read_text()) or {}
    shared = sections.pop("every notebook", {})
    if unknown := set(sections) - set(declared):
        raise ValueError(f"{path}: sections that name no notebook: {', '.join(sorted(unknown))}")
    if unknown := set(shared).difference(*declared.values()):
        raise ValueError(f"{path}: parameters that no notebook declares: {', '.join(sorted(unknown))}")
    result = {}
    for name, parameters in declared.items():
        own = sections.get(name) or {}
        result[name] = {key: value for key, value in shared.items() if key in parameters} | own
        try:
            check_names(own, parameters)
            for key, value in result[name].items():
                parameters[key].check(value)
        except ValueError as error:
            raise ValueError(f"{path}, {name}: {error}") from None
    return result

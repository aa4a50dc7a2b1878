"""The fresh test survey: sky on which no step of the study trains or chooses.

While a study is developed its own test tiles are looked at again and again, if only to see whether the page
comes out. The numbers it publishes therefore come from another survey: the same simulator, another seed,
every row of it split "test", and a record of when and by which code each model was scored on it. A survey of
real sky cannot be made anew; there its own test tiles serve.
"""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from subprocess import DEVNULL, CalledProcessError, check_output
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lensq.models.training import Model, load_model
from lensq.scores.scoring import score
from lensq.simulate import simulate_survey
from lensq.statistics.guard import LeakageError, require_split
from lensq.survey.files import atomic
from lensq.survey.survey import Survey, read_survey

_SETTINGS = ("model", "survey", "symmetries", "precision")


def _simulation(folder: Path) -> dict | None:
    """The settings of a simulated survey, or None for a folder that the simulator did not make."""
    record = folder / "simulation.json"
    return json.loads(record.read_text()) if record.is_file() else None


def make_test_survey(
    survey: Survey, folder: Path | str, *, objects: int, seed: int, progress: bool = True, **sky
) -> Survey:
    """Simulate sky to evaluate on, like the study's own but of another seed, and open it.

    Made once: the same settings and code give back what is there.

    Args:
        survey: the survey that the study trains and calibrates on.
        folder: where the test survey goes.
        objects: number of objects.
        seed: of the simulation; another than the study's.
        progress: show progress bars.
        **sky: anomaly_rate and what else `lensq.simulate_survey` takes; the mix of classes, the size and who
            labels are those of the study's survey by default.

    Returns:
        The test survey, each row of split "test". If `survey` was not simulated, `survey` itself, whose rows
        of split "test" then serve; nothing is made.

    Raises:
        LeakageError: the seed is the one of `survey`, or the two surveys share a name.
    """
    own = _simulation(survey.folder)
    if own is None:
        return survey
    if seed == own["seed"]:
        raise LeakageError(
            f"test_seed={seed} is the seed of the survey {survey.folder}, so that its objects would evaluate "
            "models that learnt from them; choose another seed"
        )
    sky = {name: own[name] for name in ("mix", "labels", "size", "bands") if name in own} | sky
    simulate_survey(folder, objects, seed=seed, overwrite=True, progress=progress, **sky)
    return read_test_survey(survey, folder, progress=progress)


def read_test_survey(survey: Survey, folder: Path | str, *, progress: bool = True) -> Survey:
    """Open the test survey that `make_test_survey` made.

    Args:
        survey: the survey that the study trains and calibrates on.
        folder: where the test survey is.
        progress: show progress bars.

    Returns:
        As `make_test_survey`.

    Raises:
        FileNotFoundError: the folder holds no simulated survey.
        LeakageError: it has the seed of `survey`, or shares a name with it.
    """
    own, found = _simulation(survey.folder), _simulation(Path(folder))
    if own is None:
        return survey
    if found is None:
        raise FileNotFoundError(
            f"{folder}: no test survey here; make it with lensq.detection.make_test_survey, as the notebook "
            "10_thresholding does"
        )
    size, resize, bands = survey.size, survey.resized, survey.bands
    test = read_survey(folder, size=size, resize=resize, bands=bands, progress=progress)
    shared = np.intersect1d(test.names, survey.names)
    if found["seed"] == own["seed"] or len(shared):
        raise LeakageError(
            f"{folder} has seed {found['seed']} and {len(shared)} names in common with {survey.folder} (seed "
            f"{own['seed']}): models would be evaluated on what they learnt from; make a test survey with "
            "another seed"
        )
    return replace(test, split=np.full(len(test), "test", dtype="<U10"))


def _about(path: Path) -> dict[str, str]:
    """Fingerprints and settings in the metadata of a Scores table."""
    metadata = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items() if key.startswith(b"lensq_")}


def scored_as(results: Path | str, variant: str) -> dict[str, Any]:
    """How a variant's scores for choosing were made: `symmetries` and `precision` of `lensq.score`.

    Args:
        results: folder of results.
        variant: name of the variant.
    """
    about = _about(Path(results) / variant / "scores.parquet")
    return {"symmetries": about["lensq_symmetries"] == "True", "precision": about["lensq_precision"]}


def _commit() -> str | None:
    """The commit of the code that runs, marked where files were changed since; None outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with suppress(OSError, CalledProcessError):
        return check_output(command, cwd=Path(__file__).parent, text=True, stderr=DEVNULL).strip()
    return None


def score_on_test(
    results: Path | str, variant: str, held_out: Survey, *, into: str = "test", progress: bool = True
) -> pd.DataFrame:
    """Score a variant on the test survey, once, in the way in which it was scored for choosing.

    The table goes to `<results>/<into>/<variant>.parquet`. If it is there for this model and this survey it
    is read back; a model that has changed is scored anew, and `record.json` beside it keeps that it was.

    Args:
        results: folder of results that holds `<variant>/model.pt` and `<variant>/scores.parquet`.
        variant: name of the variant.
        held_out: from `make_test_survey` or `read_test_survey`.
        into: folder under `results`.
        progress: show a progress bar.

    Returns:
        Scores table, every row of split "test", with `group` (objects that share pixels have the same) and,
        where the survey is simulated, `is_lens` and `class`.

    Raises:
        FileNotFoundError: the variant has not been trained and scored.
        ValueError: its scores are not of its model.
    """
    results = Path(results)
    model = load_model(results / variant / "model.pt")
    chosen_on = results / variant / "scores.parquet"
    if not chosen_on.is_file():
        raise FileNotFoundError(f"{chosen_on}: score the study's survey first, as {variant}'s notebook does")
    about = _about(chosen_on)
    if about["lensq_model"] != model.fingerprint:
        raise ValueError(f"{chosen_on} was scored by another model than {variant}/model.pt: run it again")
    if held_out.fingerprint == model.survey_fingerprint and (held_out.split == "test").all():
        raise LeakageError(f"{variant} was trained on {held_out.folder}: evaluate it on another survey")
    path = results / into / f"{variant}.parquet"
    wanted = about | {"lensq_survey": held_out.fingerprint}
    if not path.is_file() or _about(path) != wanted:
        with atomic(path) as partial:
            seconds = _score(model, held_out, partial, scored_as(results, variant), progress)
            _note(path, held_out, variant, wanted, seconds)  # first, so that no look at test goes unrecorded
    table = pd.read_parquet(path)
    require_split(table, "test", purpose=f"the evaluation of {variant}")
    return table


def _score(model: Model, held_out: Survey, path: Path, how: dict, progress: bool) -> float:
    """Write the Scores table with groups and truth; returns seconds of scoring alone."""
    rows, begun = held_out.rows("test"), time.monotonic()
    score(model, held_out, out=path, rows=rows, progress=progress, **how)
    seconds = time.monotonic() - begun
    table = pq.read_table(path)
    own = {"group": held_out.group[rows]}
    if held_out.truth is not None:
        own |= {name: held_out.truth[name].to_numpy()[rows] for name in ("is_lens", "class")}
    for name, values in own.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)
    return seconds


def _note(path: Path, held_out: Survey, variant: str, wanted: dict[str, str], seconds: float) -> None:
    """Add to the record beside a table what was scored when, and what the survey is."""
    file = path.with_name("record.json")
    record = json.loads(file.read_text()) if file.is_file() else {"scored": []}
    positive = held_out.labels if held_out.truth is None else held_out.truth["is_lens"].to_numpy(int)
    positive = positive[held_out.rows("test")]
    simulated = _simulation(held_out.folder) if (held_out.split == "test").all() else None
    seed = simulated and simulated["seed"]
    flagged = int((held_out.labels[held_out.rows("test")] == 1).sum())
    counts = {"lenses": int((positive == 1).sum()), "normals": int((positive == 0).sum()), "flagged": flagged}
    about = {"seed": seed, "simulation": simulated, "fingerprint": held_out.fingerprint}
    record["survey"] = about | {"objects": len(positive)} | counts
    again = any(earlier["variant"] == variant for earlier in record["scored"])
    scored: dict[str, Any] = {"variant": variant} | {key: wanted[f"lensq_{key}"] for key in _SETTINGS}
    scored |= {"seed": seed, "again": again, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    scored |= {"commit": _commit(), "seconds": round(seconds, 3), "cores": os.cpu_count()}
    record["scored"].append(scored | {"objects": len(positive)})
    with atomic(file) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n")


def record_of(results: Path | str, into: str = "test") -> dict:
    """What `score_on_test` keeps beside its tables.

    Args:
        results: folder of results.
        into: folder under it.

    Returns:
        `survey`: seed (None where it is not simulated), settings of the simulation, fingerprint, numbers of
        objects, lenses, normals and flagged objects. `scored`: one entry each time a model was scored on test
        objects: variant, fingerprints of model and survey, seed, whether the variant had been scored `again`,
        date (UTC), commit, seconds, cores of the machine, objects.

    Raises:
        FileNotFoundError: nothing was scored on test objects yet.
    """
    file = Path(results) / into / "record.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: nothing was scored on test objects yet; run 10_thresholding")
    return json.loads(file.read_text())


def variants_in(results: Path | str) -> Sequence[str]:
    """Names of the variants that were trained and scored in a folder of results, sorted."""
    return sorted(path.parent.name for path in Path(results).glob("*/scores.parquet"))

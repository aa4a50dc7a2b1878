"""The study as a graph: every notebook by papermill, then the book.

Run through `make book`, or by hand in a folder of its own:
    snakemake --snakefile Snakefile --directory _build --cores 2 --config profile=laptop
"""
import os
from pathlib import Path

import yaml

from lensq.study.parameters import read_parameters, variant_notebooks
from lensq.study.profiles import read_profile
from lensq.study.sweep import CHOSEN as CHOSEN_VARIANT
from lensq.survey.inventory import state_of
from lensq.survey.provenance import notebook_hash

ROOT = Path(workflow.basedir)
NOTEBOOKS = ROOT / "notebooks"
PROFILE = read_profile(NOTEBOOKS / "profiles" / f"{config.get('profile', 'laptop')}.yml", NOTEBOOKS)
OWN_SURVEY = config.get("survey") or None
PAPERMILL = "python -m lensq.study.job"  # which ends with the error's own line
HERE = Path(os.path.relpath(Path.cwd(), NOTEBOOKS))  # seen from the notebooks, which run in their folder

VARIANTS = variant_notebooks(NOTEBOOKS)

if OWN_SURVEY and not Path(OWN_SURVEY).is_dir():
    raise FileNotFoundError(f"{OWN_SURVEY}: SURVEY must name a folder of FITS cutouts")

# What is ranked, where lenses are injected into a copy of a survey without labels.
LISTED = config.get("listed") or OWN_SURVEY

CHOSEN = PROFILE["09_latent_chi_squared"].get("variant", CHOSEN_VARIANT)


def executed(notebook):
    return f"src/notebooks/{notebook}.ipynb"


# What each notebook builds on, and the tables it makes beside its own executed copy. The survey, the packed
# store and the models are not listed: they know themselves whether they are up to date, and Snakemake would
# delete them before a rerun that could have used them.
STUDY = {
    "00_start_here": ([], []),
    "01_data_exploration": ([executed("00_start_here")], ["results/survey.json"]),
    **{
        notebook: (["results/survey.json"], [f"results/{variant}/scores.parquet"])
        for variant, notebook in VARIANTS.items()
    },
    "09_latent_chi_squared": (
        [f"results/{variant}/scores.parquet" for variant in VARIANTS],
        [f"results/{CHOSEN}/dimensions.parquet"],
    ),
    "10_thresholding": (
        [f"results/{CHOSEN}/scores.parquet", f"results/{CHOSEN}/dimensions.parquet"],
        [f"results/{CHOSEN}/detection.json"],
    ),
    "11_injected_lenses": (["results/SVDD_VAE/scores.parquet"], []),
    # On sky of another seed: 10 makes that test survey, and what is evaluated after it finds it made.
    "12_leaderboard": (
        [*(f"results/{variant}/scores.parquet" for variant in VARIANTS), f"results/{CHOSEN}/detection.json"]
        + [executed("11_injected_lenses"), str(ROOT / "benchmarks" / "results" / "real_pixels.csv")],
        ["results/leaderboard.csv"],
    ),
    # Of the study like 14 after its leaderboard, which takes all cores: before it, it would keep it waiting.
    "13_leakage_audit": (
        [f"results/{CHOSEN}/scores.parquet", "results/SEMISUP_GMVAE/scores.parquet"]
        + ["results/leaderboard.csv"] * (not OWN_SURVEY),
        ["results/faults.csv"],
    ),
    # A survey of one's own is ranked with no more than this, labels or not; the study's after its leaderboard.
    "14_candidates": (
        ["results/SVDD_VAE/scores.parquet"]
        + [executed("11_injected_lenses")] * (not OWN_SURVEY or LISTED != OWN_SURVEY)
        + ["results/leaderboard.csv"] * (not OWN_SURVEY),
        ["results/candidates.csv"],
    ),
    "15_selection_function": (
        [f"results/{CHOSEN}/detection.json", "results/leaderboard.csv"],
        [f"results/{CHOSEN}/completeness.csv"],
    ),
    # On surveys of its own: what more than one band buys.
    "17_colour": ([], ["results/colour.csv"]),
}
# Reads how long all the others took, and what the benchmarks measured.
BENCHMARKS = [str(file) for file in sorted((ROOT / "benchmarks" / "results").glob("*.json"))]
STUDY["16_what_it_costs"] = ([*(executed(name) for name in STUDY), *BENCHMARKS], [])

# Others wait for 02. Then the longest first; 11 before the last variant, so that 09 and 10, which wait for all
# variants, run beside it: two cores then reach 12 within seconds of each other. After 12 the longest is 14.
FIRST = ["02_SVDD_VAE", "06_RESNET18_BETATC_VAE", "07_UNSUP_GMVAE", "08_SEMISUP_GMVAE", "03_DFC_VAE"]
FIRST += ["05_BetaTC_VAE", "11_injected_lenses", "04_RESNET18_VAE", "14_candidates"]
PRIORITIES = {notebook: len(FIRST) - place for place, notebook in enumerate(FIRST)}

# A survey of one's own may change; the simulated one is made by the first notebook.
BANDS = {"bands": config["bands"]} if config.get("bands") else {}
STATES = {}
if OWN_SURVEY:
    STATES |= dict.fromkeys(("00_start_here", "01_data_exploration"), state_of(Path(OWN_SURVEY), **BANDS))
if LISTED != OWN_SURVEY:
    STATES["14_candidates"] = state_of(Path(LISTED), **BANDS)


def as_yaml(values):
    return yaml.safe_dump(values, default_flow_style=True, width=10**6).strip()


def as_given(value):
    """A parameter of a rule as it stands, whatever braces are in it."""
    return lambda wildcards: value


def parameters(notebook):
    """A notebook's papermill parameters; its own paths are seen from notebooks/."""
    places = {
        "survey": str(Path(OWN_SURVEY).resolve()) if OWN_SURVEY else str(HERE / "survey"),
        "results": str(HERE / "results"),
        "test_survey": str(HERE / "test_survey"),
        "surveys": str(HERE / "colour"),
    } | BANDS
    declared = read_parameters(NOTEBOOKS / f"{notebook}.ipynb")
    places = {name: place for name, place in places.items() if name in declared}
    if notebook == "14_candidates" and OWN_SURVEY:  # whole, as `make lab` opens the executed copy elsewhere
        places["results"] = str(Path.cwd() / "results")
    if notebook == "14_candidates":
        places["trained"] = places["results"]
        places["survey"] = str(Path(LISTED).resolve()) if LISTED else places["survey"]
        places |= {"splits": []} if OWN_SURVEY else {}
    if notebook == "00_start_here":
        places["simulate"] = not OWN_SURVEY
    return PROFILE[notebook] | places


rule book:
    input:
        [str(file) for file in sorted((ROOT / "book").rglob("*")) if file.suffix != ".pyc" and file.is_file()],
        [str(ROOT / name) for name in ("_config.yml", "_toc.yml")],
        [executed(name) for name in STUDY],
    output:
        "html/index.html",
    log:
        "logs/book.txt",
    # In a folder of its own, so that what a killed run left at work cannot meddle.
    shell:
        "rm -rf src/book book.* && cp -r {ROOT:q}/book {ROOT:q}/_config.yml {ROOT:q}/_toc.yml src/"
        " && echo 'Building the book' && (NO_COLOR=1 jupyter-book build src --path-output book.$$ -W --keep-going"
        " > {log} 2>&1 || (cat {log}; exit 1)) && rm -rf html && mv book.$$/_build/html html && rm -r book.$$"


for notebook, (needs, makes) in STUDY.items():

    rule:
        name:
            notebook
        input:
            needs,
            nb=str(NOTEBOOKS / f"{notebook}.ipynb"),
        output:
            makes,
            nb=executed(notebook),
        log:
            nb=f"logs/{notebook}.ipynb",
        params:
            # One hash of all code that the notebook runs, in place of source files among its inputs.
            code=notebook_hash(NOTEBOOKS / f"{notebook}.ipynb"),
            yaml=as_given(as_yaml(parameters(notebook))),
            survey=STATES.get(notebook, ""),
        # Small networks gain little from a second thread: two notebooks side by side are faster.
        threads: workflow.cores if notebook in ("00_start_here", "12_leaderboard") else 1
        priority: PRIORITIES.get(notebook, 0)
        # The log first, a copy on success: a failed job keeps its half-run notebook to read.
        shell:
            "{PAPERMILL} {input.nb:q} {log.nb:q} {params.yaml:q} && cp {log.nb:q} {output.nb:q}"


include: "sweep.smk"

"""The study as a graph: every notebook by papermill, then the book.

Run through `make book`, or by hand in a folder of its own:
    snakemake --snakefile Snakefile --directory _build --cores 2 --config profile=laptop
"""
import os
from pathlib import Path

import yaml

from lensq.survey.inventory import state_of
from lensq.study.parameters import read_parameters
from lensq.study.profiles import read_profile
from lensq.survey.provenance import notebook_hash

ROOT = Path(workflow.basedir)
NOTEBOOKS = ROOT / "notebooks"
PROFILE = read_profile(NOTEBOOKS / "profiles" / f"{config.get('profile', 'laptop')}.yml", NOTEBOOKS)
OWN_SURVEY = config.get("survey") or None
HERE = Path(os.path.relpath(Path.cwd(), NOTEBOOKS))  # seen from the notebooks, which run in their folder

# 02 to 08 are one variant each, named like it.
VARIANTS = {file.stem[3:]: file.stem for file in sorted(NOTEBOOKS.glob("0[2-8]_*.ipynb"))}

if OWN_SURVEY and not Path(OWN_SURVEY).is_dir():
    raise FileNotFoundError(f"{OWN_SURVEY}: SURVEY must name a folder of FITS cutouts")

LABELLED = not OWN_SURVEY or (Path(OWN_SURVEY) / "candidates_list_selected.txt").is_file()

# The README shows the laptop's results, as `make book` has them.
FRONT_PAGE = config.get("profile", "laptop") == "laptop" and not OWN_SURVEY and Path.cwd() == ROOT / "_build"

CHOSEN = PROFILE["09_latent_chi_squared"].get("variant", "RESNET18_BETATC_VAE")


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
    "09_latent_chi_squared": ([f"results/{CHOSEN}/scores.parquet"], [f"results/{CHOSEN}/dimensions.parquet"]),
    "10_thresholding": (
        [f"results/{CHOSEN}/scores.parquet", f"results/{CHOSEN}/dimensions.parquet"],
        [f"results/{CHOSEN}/detection.json"],
    ),
    "11_injected_lenses": (["results/SVDD_VAE/scores.parquet"], []),
    # On sky of another seed: 10 makes that test survey, and who judges after it finds it made.
    "12_leaderboard": (
        [*(f"results/{variant}/scores.parquet" for variant in VARIANTS), f"results/{CHOSEN}/detection.json"]
        + [executed("11_injected_lenses")],
        ["results/leaderboard.csv"],
    ),
    "13_leakage_audit": (
        [f"results/{CHOSEN}/scores.parquet", "results/SEMISUP_GMVAE/scores.parquet"],
        ["results/faults.csv"],
    ),
    # A survey of one's own is ranked with no more than this, labels or not; the study's after its leaderboard.
    "14_candidates": (
        ["results/SVDD_VAE/scores.parquet"]
        + [executed("11_injected_lenses"), "results/leaderboard.csv"] * (not OWN_SURVEY),
        ["results/candidates.csv"],
    ),
    "15_selection_function": (
        [f"results/{CHOSEN}/detection.json", "results/leaderboard.csv"],
        [f"results/{CHOSEN}/completeness.csv"],
    ),
}
# Reads how long all the others took, and what the benchmarks measured.
BENCHMARKS = [str(file) for file in sorted((ROOT / "benchmarks" / "results").glob("*.json"))]
STUDY["16_what_it_costs"] = ([*(executed(name) for name in STUDY), *BENCHMARKS], [])

# A survey of one's own may change; the simulated one is made by the first notebook.
OWN_STATE = state_of(Path(OWN_SURVEY)) if OWN_SURVEY else ""


def parameters(notebook):
    """A notebook's papermill parameters as one line of YAML; its own paths are seen from notebooks/."""
    places = {
        "survey": str(Path(OWN_SURVEY).resolve()) if OWN_SURVEY else str(HERE / "survey"),
        "results": str(HERE / "results"),
        "test_survey": str(HERE / "test_survey"),
    }
    declared = read_parameters(NOTEBOOKS / f"{notebook}.ipynb")
    places = {name: place for name, place in places.items() if name in declared}
    if notebook == "14_candidates":
        places["trained"] = places["results"]
        places |= {"splits": []} if OWN_SURVEY else {}
    if notebook == "00_start_here":
        places["simulate"] = not OWN_SURVEY
    return yaml.safe_dump(PROFILE[notebook] | places, default_flow_style=True, width=10**6).strip()


def labelled(wildcards):
    """The book measures, and without labels there is nothing to measure."""
    if not LABELLED:
        raise ValueError(
            f"{OWN_SURVEY} has no candidates_list_selected.txt, so there is nothing to measure a detector against; "
            "to train on it and rank it: make candidates SURVEY=<folder> TRAIN=yes"
        )
    return []


rule book:
    input:
        labelled,
        [str(file) for file in sorted((ROOT / "book").rglob("*")) if file.suffix != ".pyc" and file.is_file()],
        [str(ROOT / name) for name in ("_config.yml", "_toc.yml")],
        [executed(name) for name in STUDY],
    output:
        "html/index.html",
    log:
        "logs/book.txt",
    shell:
        "rm -rf src/book && cp -r {ROOT:q}/book {ROOT:q}/_config.yml {ROOT:q}/_toc.yml src/"
        " && echo 'Building the book' && rm -rf _build html"
        " && (NO_COLOR=1 jupyter-book build src --path-output . -W --keep-going > {log} 2>&1 || (cat {log}; exit 1))"
        " && mv _build/html html && rm -r _build"
        + FRONT_PAGE * " && python -m lensq.study.frontpage {ROOT:q}/README.md results"


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
            yaml=parameters(notebook),
            survey=OWN_STATE if notebook in ("00_start_here", "01_data_exploration") else "",
        # Small networks gain little from a second thread: two notebooks side by side are faster. What others
        # wait for goes first, and the longest.
        threads: workflow.cores if notebook in ("00_start_here", "12_leaderboard") else 1
        priority: {"02_SVDD_VAE": 3, "06_RESNET18_BETATC_VAE": 2, "11_injected_lenses": 2}.get(notebook, 0)
        # The log first, a copy on success: a failed job keeps its half-run notebook to read.
        shell:
            "papermill {input.nb:q} {log.nb:q} --cwd {NOTEBOOKS:q} --log-level ERROR -y {params.yaml:q}"
            " && cp {log.nb:q} {output.nb:q}"


include: "sweep.smk"

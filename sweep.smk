"""A sweep: one variant at many settings, one page that compares the runs. Included by the Snakefile.

    make sweep VARIANT=RESNET18_BETATC_VAE GRID="latent=8,16,32 seed=0,1"
"""

from lensq.study.sweep import read_grid, run_name

SWEPT = config.get("variant", CHOSEN)
if SWEPT not in VARIANTS:
    raise ValueError(f"VARIANT={SWEPT} is no variant; there are {', '.join(VARIANTS)}")
SWEPT_NOTEBOOK = NOTEBOOKS / f"{VARIANTS[SWEPT]}.ipynb"
SWEEP = f"sweep/{SWEPT}"
RUNS = {run_name(run): run for run in read_grid(config.get("grid", "latent=8,16 seed=0,1"), SWEPT_NOTEBOOK)}


def as_yaml(values):
    return yaml.safe_dump(values, default_flow_style=True, width=10**6).strip()


def swept(wildcards):
    """The profile's parameters with those of the run, in a folder of its own."""
    own = {"results": str(HERE / SWEEP / wildcards.run)}
    return as_yaml(yaml.safe_load(parameters(VARIANTS[SWEPT])) | RUNS[wildcards.run] | own)


def compared():
    """What the page needs to know: where the runs are."""
    survey = yaml.safe_load(parameters(VARIANTS[SWEPT]))["survey"]
    return as_yaml({"survey": survey, "runs": str(HERE / SWEEP), "variant": SWEPT, "shown": list(RUNS)})


rule sweep:
    input:
        [f"{SWEEP}/{run}/{SWEPT}/scores.parquet" for run in RUNS],
        nb=str(NOTEBOOKS / "sweep.ipynb"),
    output:
        f"{SWEEP}/index.html",
    log:
        nb=f"{SWEEP}/sweep.ipynb",
    params:
        code=notebook_hash(NOTEBOOKS / "sweep.ipynb"),
        yaml=compared(),
    shell:
        "papermill {input.nb:q} {log.nb:q} --cwd {NOTEBOOKS:q} --log-level ERROR -y {params.yaml:q}"
        " && jupyter nbconvert --to html --no-input --log-level ERROR --output-dir {SWEEP:q} --output index {log.nb:q}"


rule swept_run:
    input:
        "results/survey.json",
        nb=str(SWEPT_NOTEBOOK),
    output:
        f"{SWEEP}/{{run}}/{SWEPT}/scores.parquet",
    log:
        nb=f"{SWEEP}/{{run}}/run.ipynb",
    params:
        code=notebook_hash(SWEPT_NOTEBOOK),
        yaml=swept,
    threads: 1
    shell:
        "papermill {input.nb:q} {log.nb:q} --cwd {NOTEBOOKS:q} --log-level ERROR -y {params.yaml:q}"

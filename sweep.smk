"""A sweep: one variant at many settings, one page that compares the runs. Included by the Snakefile.

    make sweep VARIANT=RESNET18_BETATC_VAE GRID="latent=8,16,32 seed=0,1"
"""

from lensq.study.sweep import read_sweep

SWEPT, RUNS = read_sweep(config, CHOSEN, NOTEBOOKS)
SWEPT_NOTEBOOK = NOTEBOOKS / f"{VARIANTS[SWEPT]}.ipynb"
SWEEP = f"sweep/{SWEPT}"
COMPARED = ("survey", "bands", "size", "resize")  # what the page that compares the runs takes of them


def swept(wildcards):
    """The profile's parameters with those of the run, in a folder of its own."""
    own = {"results": str(HERE / SWEEP / wildcards.run)}
    return as_yaml(parameters(VARIANTS[SWEPT]) | RUNS[wildcards.run] | own)


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
        yaml=as_given(
            as_yaml(
                {name: value for name, value in parameters(VARIANTS[SWEPT]).items() if name in COMPARED}
                | {"runs": str(HERE / SWEEP), "variant": SWEPT, "shown": list(RUNS)}
            )
        ),
    shell:
        "{PAPERMILL} {input.nb:q} {log.nb:q} {params.yaml:q}"
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
        "{PAPERMILL} {input.nb:q} {log.nb:q} {params.yaml:q}"

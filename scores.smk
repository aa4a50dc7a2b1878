"""The scores of many surveys by one model, a Parquet part for each range of rows of each survey.

    snakemake --snakefile scores.smk --directory scores --cores 16 \
        --config model=/data/model.pt surveys="/data/hsc/*" ranges=4

Paths are whole, because Snakemake works in the folder of the scores. `symmetries` and `precision` are those of
`lensq.score`.
"""

import re
from glob import glob
from pathlib import Path

from lensq.models.training import load_model
from lensq.scores.parts import read_counts, score_range
from lensq.survey.inventory import state_of
from lensq.survey.provenance import code_hash

MODEL = config["model"]
BANDS = load_model(MODEL).settings.get("bands", ["i"])
READING = {"bands": BANDS} if len(BANDS) > 1 else {}
FOLDERS = [Path(folder) for folder in sorted(glob(config["surveys"])) if Path(folder).is_dir()]
SURVEYS = {re.sub(r"[^\w.-]", "_", folder.name): folder for folder in FOLDERS}
RANGES = int(config.get("ranges", 1))
HOW = {"symmetries": config.get("symmetries", False), "precision": config.get("precision", "fp32")}
PARTS = {f"parts/{survey}.{number}.parquet" for survey in SURVEYS for number in range(RANGES)}

if len(SURVEYS) < max(len(FOLDERS), 1) or RANGES < 1:
    raise ValueError(f"{config['surveys']}: needs folders of names of their own, and ranges=1 or more")
if foreign := {str(part) for part in Path("parts").glob("[!._]*.parquet")} - PARTS:
    raise ValueError(f"{min(foreign)} is of other surveys or ranges: take another folder, or delete the parts")


rule scores:
    input:
        sorted(PARTS),


# Once a survey, before its ranges share the packed store.
rule read:
    input:
        MODEL,
    output:
        "surveys/{survey}.json",
    params:
        code=code_hash("survey.survey"),
        files=lambda wildcards: state_of(SURVEYS[wildcards.survey], **READING),
    retries: 2
    run:
        read_counts(MODEL, SURVEYS[wildcards.survey], output[0])


rule part:
    input:
        MODEL,
        counts="surveys/{survey}.json",
    output:
        "parts/{survey}.{number}.parquet",
    wildcard_constraints:
        number=r"\d+",
    params:
        code=code_hash("scores.scoring"),
        how=HOW,
        ranges=RANGES,
    # A worker that is lost costs its range, which another makes.
    retries: 2
    run:
        survey, number = SURVEYS[wildcards.survey], int(wildcards.number)
        score_range(MODEL, survey, input.counts, number, RANGES, output[0], **HOW)

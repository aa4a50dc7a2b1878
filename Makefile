# lensq: `make help` lists what can be done.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)

# What a user gives goes to Python by the environment, as it stands: neither make nor a shell reads it.
GIVEN := PROFILE SURVEY BANDS TRAIN MODEL VARIANT GRID CORES BUILD
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
export $(GIVEN)

# Snakemake, Jupyter and others write below HOME.
ifneq ($(shell test -w "$$HOME" || echo no),)
export HOME := $(CURDIR)/_build/home
$(shell mkdir -p _build/home)
endif

INSTALLED := .venv/.installed
# The same packages with the same hashes, six times as fast.
INSTALL := $(if $(shell command -v uv),uv pip install --python .venv/bin/python,\
	.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off)
# uv installs without byte code: where none may be written either, each notebook compiles torch anew, for 20 s.
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH" PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=
STUDY := $(RUN) python -m lensq.study.run

.PHONY: help book readme test test-fast lock release lab candidates sweep bench frame lint clean

help: ## list what can be done
	@echo "lensq: lensed quasars by variational autoencoders"
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PROFILE=smoke|laptop|paper and SURVEY=<folder> choose size and data: make book PROFILE=smoke"
	@echo "  BANDS=gri reads several bands of the survey"

$(INSTALLED): pyproject.toml requirements.lock
	@echo "lensq 1/2: installing the environment into .venv (about 7 GB and 3 minutes, once)"
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "lensq needs Python 3.11; name it: make PYTHON=<python3.11>")'
	test -x .venv/bin/python || "$(PYTHON)" -m venv .venv
	@for what in "--require-hashes -r requirements.lock" "--no-deps -e ."; do \
		$(INSTALL) $$what | awk '/^(Collecting|Installing|Successfully|ERROR)/ {print substr($$0, 1, 100); fflush()}'; done
	@touch $@

book: $(INSTALLED) ## run the study and build the book
	@$(STUDY) book

release: ## archive the book, the leaderboard and the trained models of the last make book in _build/release
	@test -f _build/html/index.html || { echo "Build it first: make book"; exit 2; }
	@rm -rf _build/release && mkdir -p _build/release && cp _build/results/leaderboard.csv _build/release
	@tar -czf _build/release/book.tar.gz -C _build html
	@cd _build/results && find . -name model.pt -o -name detection.json -o -name scores.parquet -path '*SVDD*' \
		| grep -Ev '^./(audit|colour|seeds)/' | sort | tar -czf ../release/models.tar.gz -T -
	@cd _build/release && sha256sum * > SHA256SUMS && cat SHA256SUMS

readme: $(INSTALLED) ## write the results of the last make book into README.md
	@$(RUN) python -m lensq.study.frontpage README.md _build/results

# One thread a process: threads of two processes on two cores wait for one another.
test: $(INSTALLED) lint ## run all tests: units, the study at smoke size, its book in a browser
	OMP_NUM_THREADS=1 $(RUN) pytest -n 2 --dist loadfile

test-fast: $(INSTALLED) ## run the unit tests alone: no study, no browser, nothing that takes long
	OMP_NUM_THREADS=1 $(RUN) pytest -n 2 --dist loadfile -m "not study and not browser and not slow"

# JupyterLab saves outputs as one works: the filter keeps them out of git, and `git status` clean.
STRIP := .venv/bin/nbstripout --keep-id --extra-keys "metadata.language_info.codemirror_mode \
	metadata.language_info.file_extension metadata.language_info.mimetype metadata.language_info.version \
	metadata.language_info.nbconvert_exporter metadata.language_info.pygments_lexer"
lab: $(INSTALLED) ## open JupyterLab on the notebooks, or on the ranked list of SURVEY=<folder>
	@git config filter.nbstripout.clean '$(STRIP)'; git config filter.nbstripout.smudge cat
	@$(STUDY) lab

candidates: $(INSTALLED) ## rank the cutouts in SURVEY=<folder>, with MODEL=<archive of a release>; TRAIN=yes trains on 2,000 or more
	@$(STUDY) candidates

sweep: $(INSTALLED) ## train VARIANT=<name> at each point of GRID="latent=8,16 seed=0,1" and compare
	@$(STUDY) sweep

# benchmarks/million.py takes an hour and 12 GB, benchmarks/gpu.py a GPU.
CLAIMS := ingest simulate training scoring
bench: $(INSTALLED) ## run the benchmarks, each against its baseline (and study after make book), and print all ratios
	@for claim in $(CLAIMS) $(if $(wildcard _build/html/index.html),study); do echo "== $$claim"; \
		$(RUN) python benchmarks/$$claim.py --json benchmarks/results/$$claim.json; done
	@$(RUN) python benchmarks/report.py

frame: $(INSTALLED) ## write notebooks/frame.ipynb, what the seven variants share, into their notebooks
	$(RUN) python notebooks/frame.py

lint: $(INSTALLED) ## check style, types, layers and that notebooks carry no outputs
	$(RUN) ruff check --quiet .
	$(RUN) ruff format --check --quiet .
	$(RUN) mypy --no-error-summary
	$(RUN) lint-imports --no-logo > /dev/null || $(RUN) lint-imports --no-logo
	@rm -rf _build/index && git ls-files 'notebooks/*.ipynb' | git checkout-index --stdin --prefix=_build/index/
	@$(RUN) nbstripout --verify _build/index/notebooks/*.ipynb || { echo "These have outputs in git"; exit 1; }

lock: ## write requirements.lock anew from the ranges in pyproject.toml, keeping the versions that it has
	$(RUN) pip install --quiet uv
	$(RUN) uv pip compile pyproject.toml --extra book --extra test --universal --python-version 3.11 \
		--no-strip-extras --generate-hashes --no-header --no-annotate --quiet --output-file requirements.lock

clean: ## remove everything that was made, but not the environment
	rm -rf _build

# lensq: `make help` lists what can be done.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PROFILE ?= laptop
SURVEY ?=
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
PYTHON ?= $(shell command -v python3.11 || command -v python3)

ifneq ($(word 2,$(SURVEY)),)
$(error SURVEY="$(SURVEY)" holds a blank, which make cannot take: give a link to it, ln -s "$(SURVEY)" my_survey)
endif

# The laptop profile lives in _build; other sizes and other surveys beside it, so that none displaces another.
OWN := $(if $(SURVEY),-$(notdir $(abspath $(SURVEY)))-$(shell printf %s '$(abspath $(SURVEY))' | cksum | cut -c 1-6))
VARIATION := $(filter-out laptop,$(PROFILE))$(OWN)
BUILD ?= _build$(if $(VARIATION),/$(VARIATION:-%=%))

TRAINED = _build$(if $(filter-out laptop,$(PROFILE)),/$(PROFILE))/results

INSTALLED := .venv/.installed
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH" PYTHONNOUSERSITE=1
SNAKEMAKE = $(RUN) snakemake --snakefile Snakefile --directory $(BUILD) --cores $(CORES) --quiet rules host \
	--rerun-incomplete --config profile=$(PROFILE) survey="$(abspath $(SURVEY))"

.PHONY: help book test lab candidates sweep bench lint clean

help: ## list what can be done
	@echo "lensq: lensed quasars by variational autoencoders"
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PROFILE=smoke|laptop|full|paper and SURVEY=<folder> choose size and data: make book PROFILE=smoke"

$(INSTALLED): pyproject.toml constraints.txt
	@echo "lensq 1/2: installing the environment into .venv (about 7 GB and 3 minutes, once)"
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "lensq needs Python 3.11; name it: make PYTHON=<python3.11>")'
	test -x .venv/bin/python || "$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[book,test]' \
		| awk '/^(Collecting|Installing|Successfully|ERROR)/ {print substr($$0, 1, 100); fflush()}'
	@touch $@

book: $(INSTALLED) ## run the study and build the book
	@mkdir -p $(BUILD)
	@echo "lensq 2/2: running the study, profile $(PROFILE), in $(BUILD)"
	@$(SNAKEMAKE)
	@echo "The book is built. Open file://$(abspath $(BUILD))/html/index.html"

test: $(INSTALLED) lint ## run all tests: units, the study at smoke size, its book in a browser
	$(RUN) pytest

lab: $(INSTALLED) ## open JupyterLab on the notebooks
	$(RUN) jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.root_dir="$(CURDIR)" notebooks/00_start_here.ipynb

ENOUGH := import sys, lensq; sys.exit(len(lensq.read_survey(sys.argv[1])) < lensq.detection.candidates.TO_TRAIN)
candidates: $(INSTALLED) ## rank the cutouts in SURVEY=<folder>; TRAIN=yes trains on them if they are 2,000 or more
	@test -n "$(SURVEY)" || { echo "Name the folder: make candidates SURVEY=<folder>"; exit 2; }
	@mkdir -p $(BUILD)/results $(TRAINED)
	@if test -n "$(TRAIN)" && $(RUN) python -c '$(ENOUGH)' "$(SURVEY)"; then \
		$(SNAKEMAKE) -- src/notebooks/14_candidates.ipynb; \
		cp $(BUILD)/src/notebooks/14_candidates.ipynb $(BUILD)/candidates.ipynb; \
	else \
		test -f $(TRAINED)/injected/none/model.pt || { \
			echo "lensq: training the models on the simulated survey first, once (some 15 minutes on two cores)"; \
			$(RUN) snakemake --snakefile Snakefile --directory $(TRAINED)/.. --cores $(CORES) --quiet rules host \
				--rerun-incomplete --config profile=$(PROFILE) survey= -- src/notebooks/11_injected_lenses.ipynb; }; \
		cd notebooks; $(RUN) papermill 14_candidates.ipynb "$(abspath $(BUILD))/candidates.ipynb" --log-level ERROR \
			-r survey "$(abspath $(SURVEY))" -r trained "$(abspath $(TRAINED))" -r results "$(abspath $(BUILD))/results"; \
	fi
	@$(RUN) python -m lensq.study.page "$(BUILD)/candidates.ipynb"
	@echo "The ranked list: $(BUILD)/results/candidates.csv; to look at: file://$(abspath $(BUILD))/candidates.html"

sweep: $(INSTALLED) ## train VARIANT=<name> at each point of GRID="latent=8,16 seed=0,1" and compare
	@mkdir -p $(BUILD)
	@$(SNAKEMAKE) $(if $(VARIANT),variant=$(VARIANT)) $(if $(GRID),grid="$(GRID)") -- sweep
	@echo "The runs, compared: file://$$(realpath "$$(ls -t $(BUILD)/sweep/$(or $(VARIANT),*)/index.html | head -1)")"

CLAIMS := ingest simulate training scoring million
bench: $(INSTALLED) ## run the benchmarks, each against its baseline (and study after make book)
	@for claim in $(CLAIMS) $(if $(wildcard $(BUILD)/html/index.html),study); do echo "== $$claim"; \
		$(RUN) python benchmarks/$$claim.py --json benchmarks/results/$$claim.json; done

lint: $(INSTALLED) ## check style, types of file and that notebooks carry no outputs
	$(RUN) ruff check --quiet .
	$(RUN) ruff format --check --quiet .
	$(RUN) nbstripout --verify notebooks/*.ipynb

clean: ## remove everything that was made, but not the environment
	rm -rf _build

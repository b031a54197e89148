# The whole developer interface. Needs Python 3.11 or newer and a C++ compiler (hnswlib and the loops of
# candidate search are built from source).
#
#   make demo              index the demo photographs, recognise the queries, write out/demo/contact_sheet.png
#   make test              ruff, mypy --strict, import contracts and every test that needs no PyTorch
#   make test-browser      the kiosk page in Chromium (Debian: apt-get install chromium), screenshots in out/browser
#   make test-phone        those of the page for phones alone, built anew (skips without Chromium or Node.js 20)
#   make phone             the page for visitors' phones and the browser SDK (needs Node.js 20), in delf_edge/web/visit
#   make lint              the first three of these alone
#   make docs              the documentation as a site in build/site; a dead link or name fails
#   make bench-reliability the reliability lab at full size (hours; goes on where it was stopped)
#   make bench             all systems on the DEV benchmark, one table; DEV=path/to/dev.json
#   make ablations         what the defaults were decided on: plots and figures
#   make bundles           bundles of the network before fine-tuning (and CHECKPOINT=network.pt), for rows of make bench
#   make bench-search      candidate search at up to 100,000 images, beside faiss
#   make bench-build       builds on a cluster: speed, the same hash, a killed worker, memory
#   make test-converters   the tests that need PyTorch, in an environment of their own
#   make audit             known vulnerabilities of what requirements.lock names (asks PyPI; fails where it cannot)
#   make wheel             a wheel in dist, the same to the bit for the same commit, and its SHA-256
#   make clean             forget the environments and everything that was made

PYTHON ?= python3
DEV ?= ../shared/data/dev.json
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
CONVERTERS := .venv-converters
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-browser test-phone phone lint docs bench bench-search bench-build ablations bundles test-converters audit wheel clean bench-reliability

help:
	@sed -n 's/^#   //p' Makefile

# A stamp is newer than pyproject.toml once what that names is installed, so a second run does not ask again.
$(VENV)/runtime.stamp: pyproject.toml delf_edge/_native.cpp
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/test.stamp: $(VENV)/runtime.stamp
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/bench.stamp: $(VENV)/runtime.stamp
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[benchmarks]'
	touch $@

# PyTorch first and by itself: TORCH may name a CPU build, which saves gigabytes.
$(CONVERTERS)/torch.stamp: pyproject.toml
	test -x $(CONVERTERS)/bin/python || $(PYTHON) -m venv $(CONVERTERS)
	$(CONVERTERS)/bin/python -m pip install --quiet '$(TORCH)'
	touch $@

$(CONVERTERS)/converters.stamp: $(CONVERTERS)/torch.stamp
	$(CONVERTERS)/bin/python -m pip install --quiet --editable '.[converters,test]'
	touch $@

demo: $(VENV)/runtime.stamp
	$(BIN)/python examples/demo.py --out out/demo

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

# A process for each core; the tests of a file stay together, for they share what takes long to make.
test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile

# Material's banner is about another program; the site needs none of what it announces.
docs: $(VENV)/test.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

web-sdk/node_modules/.package-lock.json: web-sdk/package-lock.json
	cd web-sdk && npm ci
	touch $@

phone: web-sdk/node_modules/.package-lock.json
	cd web-sdk && npm run build && npm run visit
	rm -rf delf_edge/web/visit
	cp -R web-sdk/dist/visit delf_edge/web/visit

test-browser: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m browser tests/e2e

test-phone: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m browser tests/e2e/test_visit.py tests/e2e/test_web_sdk.py

bench: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks.bench $(DEV)

bench-search: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks.search $(dir $(DEV))

ablations: $(VENV)/bench.stamp
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m benchmarks.ablations $(DEV)

# Selected by L2 norm, with sizes and weights of the default bundle, so that only the network differs.
SIZES ?= --words 8192 --dim 60 --code-size 12 --global-dim 384
BUNDLE := $(CONVERTERS)/bin/delf-edge-convert bundle
SAME := --photos build/default/codebook.csv $(SIZES) --per-place 60 --selection l2norm \
	--variants float16 --probability assets/default/manifest.json

bundles: $(CONVERTERS)/converters.stamp
	mkdir -p build/bundles
	$(CONVERTERS)/bin/python -c "from pathlib import Path; from delf_edge.converters.training.default_recipe import write_codebook_list as w; \
		w(Path('$(dir $(DEV))'), Path('build/default'))"
	test -e build/bundles/imagenet || $(BUNDLE) build/bundles/imagenet --name imagenet $(SAME)
	test -z '$(CHECKPOINT)' || $(BUNDLE) build/bundles/finetuned --name finetuned $(SAME) --checkpoint '$(CHECKPOINT)'

bench-build: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks.build

bench-reliability: $(VENV)/test.stamp
	$(BIN)/python -m reliability --jobs 2
	$(BIN)/python -m reliability.longrun
	$(BIN)/python -m reliability.plots

# A process for each core as in `make test`, each with one thread.
test-converters: $(CONVERTERS)/converters.stamp
	OMP_NUM_THREADS=1 $(CONVERTERS)/bin/python -m pytest -m torch -n auto --dist loadfile

# --strict: a package that the service does not know is a failure; without it, no answer would read as "none found".
audit: $(VENV)/test.stamp
	$(BIN)/python -m pip install --quiet 'pip-audit>=2.7'
	$(BIN)/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r requirements.lock

# By way of a source distribution, so that nothing left in build/ gets in. Another compiler or setuptools: another wheel.
wheel: $(VENV)/test.stamp
	umask 022; SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir dist .
	sha256sum dist/*.whl

clean:
	rm -rf $(VENV) $(CONVERTERS) out build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# `make demo` and `make test` do all the set-up on a fresh machine; a second run installs nothing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test test-slow chaos gpu bench lint docs
demo: $(READY)
	$(BIN)/rekindle demo

test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations=15

lint: $(READY)
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/mypy

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# SHARE=0.02 tries it out with a fiftieth of the faults.
SHARE := 1
chaos: $(READY)
	rm -rf build/chaos
	$(BIN)/python -m pytest -m chaos tests/chaos --numprocesses 2 --chaos-share $(SHARE); \
	status=$$?; $(BIN)/python -m tests.chaos.page && exit $$status

# All checks and benchmarks of a GPU, in 20 minutes; REKINDLE_GPU=cpu tries out the checks on a machine without one.
gpu: $(READY)
	$(BIN)/python -m pytest -m gpu tests/gpu
	test "$(REKINDLE_GPU)" = cpu || OMP_NUM_THREADS=4 $(BIN)/python -m benchmarks --gpu --part epochs --part methods --part compiled --part studies --rounds 2

# OPTIONS="--pairs 4 --batch-size 8 --image-size 64" tries it out on a busy machine.
OPTIONS :=
bench: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(OPTIONS)

# The site, strictly, in an environment of its own: mkdocstrings reads the source without importing it, so neither torch nor rekindle is installed there.
DOCS := build/docs-env
docs: $(DOCS)/ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet

$(DOCS)/ready: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" > $(DOCS)/wanted.txt
	$(DOCS)/bin/python -m pip install --quiet --requirement $(DOCS)/wanted.txt
	touch $@

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

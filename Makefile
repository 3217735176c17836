# Every target sets up what it needs, in .venv, and is fast the second time.
#
#   make serve    serve the bundled model until Ctrl-C        make test    run all tests
#   make demo     watch it forecast the sunspots              make check   run all linters and type checks
#   make test-ecosystem   run the tests that need foreign programs
#   make container-test   build the container images and check them; needs root, or user namespaces
#   make proto    write client/lstmserve/v1 again             make lock    choose the versions of all packages again
#   make train    train the bundled model again               make clean   remove what the targets above made
#   make test-shuffled    run them in a random order, which finds those that lean on others
#   make mutants  put small faults into the code and see which the tests do not notice: half an hour
#   make bench    compare it with all else that serves an LSTM: an hour; make bench-quick: minutes. Needs nghttp2-client

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
UV_VERSION := 0.13.9

RULES     := pyproject.toml Makefile
PROSE     := client server proto bench scripts ARCHITECTURE.md docs/decisions

.DELETE_ON_ERROR:
.PHONY: mutants serve demo test test-ecosystem test-shuffled container-test check proto lock train clean format bench bench-quick bench-lock

serve: $(VENV)/.installed-server
	$(BIN)/lstmserve serve sunspots=examples/sunspots/sunspots.keras

demo: $(VENV)/.installed-demo
	$(BIN)/python examples/sunspots/demo.py

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not ecosystem" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-ecosystem: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests -m ecosystem

# SEED names an order that was shown; the blocks of README belong in theirs.
test-shuffled: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests -m "not ecosystem" --numprocesses 2 --dist loadfile --no-loadscope-reorder \
	  --random-order $(if $(SEED),--random-order-seed=$(SEED))

# SEED and COUNT choose the sample: scripts/mutants.py --help.
mutants: $(VENV)/.installed-mutants
	$(BIN)/python scripts/mutants.py $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT))

# tests/deploy/container/run.sh tells its variables, and what it installs where it is run by root.
container-test: $(VENV)/.installed-dev
	tests/deploy/container/run.sh

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/interrogate --quiet client server
	$(BIN)/codespell
	$(BIN)/codespell --dictionary .style/words.txt $(PROSE)
	$(BIN)/python -m scripts.prose $(PROSE)
	$(BIN)/hadolint Dockerfile
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python scripts/generate_code.py --check

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format --write

proto: $(VENV)/.installed-dev
	$(BIN)/python scripts/generate_code.py

train: $(VENV)/.installed-train
	set -e; for example in sunspots text sensor; do $(BIN)/python examples/$$example/train.py; done

# The environments hold each other's packages at the same versions, so that one folder serves them all.
$(VENV)/.installed-%: requirements/%.txt $(RULES)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "lstmserve needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || { echo "Making $(VENV) with $$($(PYTHON) --version) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the packages of requirements/$*.txt ..."
	@$(PIP) install --no-deps --require-hashes --requirement $<
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --quiet --upgrade \
  --overrides requirements/overrides.txt --custom-compile-command "make lock"
COMPILE_AS_IN_TRAIN = $(COMPILE) --constraints requirements/train.txt

lock: $(VENV)/.installed-server
	$(PIP) install uv==$(UV_VERSION)
	$(COMPILE) pyproject.toml --extra shadow --extra traces --extra channelz --extra onnx --group build --group dev --group train \
	  --constraints requirements/constraints.txt --output-file requirements/train.txt
	$(COMPILE_AS_IN_TRAIN) pyproject.toml --extra shadow --extra traces --extra channelz --extra onnx --group build --group dev --output-file requirements/dev.txt
	$(COMPILE_AS_IN_TRAIN) pyproject.toml --extra shadow --extra traces --extra channelz --extra onnx --group build --group dev --group mutants --output-file requirements/mutants.txt
	$(COMPILE_AS_IN_TRAIN) pyproject.toml --extra server --group build --group demo --output-file requirements/demo.txt
	$(COMPILE_AS_IN_TRAIN) pyproject.toml --extra server --group build --output-file requirements/server.txt
	$(COMPILE_AS_IN_TRAIN) pyproject.toml --extra server --extra traces --extra channelz \
	  --output-file requirements/image-serve.txt
	$(COMPILE_AS_IN_TRAIN) pyproject.toml --extra shadow --extra traces --extra channelz \
	  --output-file requirements/image-shadow.txt
	$(COMPILE_AS_IN_TRAIN) --group build --output-file requirements/image-build.txt
	$(COMPILE) --group generator --output-file requirements/generator.txt

# What takes part in the measurement lives in environments of its own: bench/environments.py.
BENCH := bench/.venvs/tools/bin

bench: $(BENCH)/.complete
	PYTHONPATH=.:client:server $(BENCH)/python -m bench

bench-quick: $(BENCH)/.complete
	PYTHONPATH=.:client:server $(BENCH)/python -m bench --quick

$(BENCH)/.complete: bench/requirements/tools.txt
	$(PYTHON) -m venv bench/.venvs/tools
	$(BENCH)/python -m pip --disable-pip-version-check --quiet install --requirement $<
	@touch $@

# Chooses the versions of all contenders anew; bench/.venvs is then made anew as well.
bench-lock: $(BENCH)/.complete
	set -e; for file in bench/requirements/*.in; do \
	  $(BENCH)/uv pip compile --python-version 3.11 --quiet --upgrade --custom-compile-command "make bench-lock" \
	    $$file --output-file $${file%.in}.txt; done
	rm -rf bench/.venvs

clean:
	rm -rf bench/.venvs bench/.cache $(VENV) .mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

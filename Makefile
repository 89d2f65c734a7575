# The two commands of the README: `make demo` and `make test`. Both make their own environment in .venv.
# `make test-runners` builds on real Flinks and Prism; it needs Java, the files of ../shared/runners and some minutes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-runners lint format benchmarks clean

# torch goes first, by itself: where a CPU build lies at hand, pip takes it, and no later range pulls another one.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,eval,japanese,dev]'
	$(BIN)/python -m pip check
	touch $@

demo: $(INSTALLED)
	$(BIN)/python recipes/demo/run.py --output demo

test: $(INSTALLED) lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not runners" leia_beam leia_train leia_eval pipelines tests

test-runners: $(INSTALLED)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m runners tests

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo build $(VENV)

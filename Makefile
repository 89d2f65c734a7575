# The two commands of the README: `make demo` and `make test`. Both make their own environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint format benchmarks clean

# torch goes first, by itself: where a CPU build lies at hand, pip takes it, and no later range pulls another one.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,eval,dev]'
	$(BIN)/python -m pip check
	touch $@

demo: $(INSTALLED)
	$(BIN)/python recipes/demo/run.py --output demo

test: $(INSTALLED) lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile leia_beam leia_train leia_eval pipelines tests

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo build $(VENV)

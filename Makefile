# The two commands of the README: `make demo` and `make test`. Both make their own environment in .venv.
# `make test-processes` trains models in parts, in two and three processes, and compiled.
# `make test-runners` builds on real Flinks and Prism; it needs Java, the files of ../shared/runners and some minutes.
# `make test-deepspeed` trains with DeepSpeed, which is in an environment by itself beside .venv's packages.
# `make packaging` builds wheel and sdist and installs them in empty environments; it needs a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
INSTALLED := $(VENV)/.installed
DEEPSPEED := build/deepspeed

.PHONY: demo test test-processes test-runners test-deepspeed packaging docs lint format clean

# torch goes first, by itself: where a CPU build lies at hand, pip takes it, and no later range pulls another one.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,eval,japanese,lora,docs,dev]'
	$(BIN)/python -m pip check
	touch $@

demo: $(INSTALLED)
	$(BIN)/python recipes/demo/run.py --output demo

test: $(INSTALLED) lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not runners and not packaging and not processes" leia_beam leia_train leia_eval pipelines tests

test-processes: $(INSTALLED)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m processes tests/leia_train

test-runners: $(INSTALLED)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m runners tests

# transformers imports DeepSpeed wherever it finds it, and DeepSpeed prints: so not in .venv.
$(DEEPSPEED)/.installed: $(INSTALLED)
	$(PYTHON) -m venv $(DEEPSPEED)
	$(DEEPSPEED)/bin/python -c "import pathlib, site, sysconfig; \
	    paths = '$(abspath $(VENV))/lib/python%s/site-packages' % sysconfig.get_python_version(); \
	    pathlib.Path(site.getsitepackages()[0], 'venv.pth').write_text(f'import site; site.addsitedir({paths!r})')"
	DS_BUILD_OPS=0 $(DEEPSPEED)/bin/python -m pip install --quiet -c constraints.txt deepspeed
	touch $@

test-deepspeed: $(DEEPSPEED)/.installed
	LEIA_DEEPSPEED_REQUIRED=1 $(DEEPSPEED)/bin/python -m pytest -q tests/leia_train/test_zero3.py

packaging: $(INSTALLED)
	$(BIN)/python -m pytest -q -rs -s -m packaging tests/test_packaging.py

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W -n --keep-going -b html docs build/docs/html

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo build/docs build/lib build/bdist* $(DEEPSPEED) $(VENV)  # build/ja and the like are users'

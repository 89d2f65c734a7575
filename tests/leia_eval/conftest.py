"""Fixtures: a tiny model, generated data, finished runs; no network, no file from elsewhere."""

import os
import sys
from pathlib import Path

import pytest

for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[name] = "1"  # before transformers or datasets is imported
sys.path.insert(0, str(Path(__file__).parent))  # for `eval_fixtures`, whatever import mode pytest runs in

from eval_fixtures import make_items, save_tiny_model, write_items  # noqa: E402, needs the line above

from tests.torch_threads import one_thread  # noqa: E402, F401, a fixture


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    """A tiny model."""
    return save_tiny_model(tmp_path_factory.mktemp("model-a"), seed=0)


@pytest.fixture(scope="session")
def other_model_dir(tmp_path_factory) -> Path:
    """A tiny model with other weights."""
    return save_tiny_model(tmp_path_factory.mktemp("model-b"), seed=1)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """A hundred items in Japanese and thirty in Spanish, under the sample's names."""
    folder = tmp_path_factory.mktemp("data")
    write_items(folder / "jawiki.jsonl", make_items(100))
    write_items(folder / "eswiki.jsonl", make_items(30, seed=1, lang="es", choices=3))
    return folder


@pytest.fixture(scope="session")
def finished_run(model_dir, data_dir, tmp_path_factory) -> Path:
    """The output of a run of both tasks with the first model, zero-shot."""
    from leia_eval.cli import main

    output = tmp_path_factory.mktemp("run") / "out"
    arguments = ["--model", str(model_dir), "--data-dir", str(data_dir), "--output", str(output)]
    assert main(["run", "--tasks", "leia_sample_ja,leia_sample_es", *arguments]) == 0
    return output


@pytest.fixture(scope="session")
def other_run(other_model_dir, data_dir, tmp_path_factory) -> Path:
    """The same with the second model."""
    from leia_eval.cli import main

    output = tmp_path_factory.mktemp("run-other") / "out"
    arguments = ["--model", str(other_model_dir), "--data-dir", str(data_dir), "--output", str(output)]
    assert main(["run", "--tasks", "leia_sample_ja,leia_sample_es", *arguments]) == 0
    return output

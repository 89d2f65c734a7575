"""Fixtures: a tokenizer trained here, shards of a few sentences, and a command line that trains on them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[name] = "1"  # before transformers is imported
sys.path.insert(0, str(Path(__file__).parent))  # for `shard_fixture`, whatever import mode pytest runs in

from shard_fixture import make_articles, write_shards, write_tokenizer  # noqa: E402, needs the line above

from tests.torch_threads import one_thread  # noqa: E402, F401, a fixture


@pytest.fixture(autouse=True, scope="session")
def small_parts():
    """Three entities at a time, so that all of these tests cross from one part of the entities to the next."""
    from leia_train import names, plan, reference_stream

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_PART_ENTITIES", 3)
        patch.setattr(names, "_CHUNK_ENTITIES", 3)
        patch.setattr(names, "_MERGED_KEYS", 2)
        patch.setattr(reference_stream, "_CHUNK_DRAWS", 3)
        yield


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer with BOS and EOS."""
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tiny")


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """Twenty articles; not to be changed by a test."""
    return write_shards(
        tmp_path_factory.mktemp("build") / "shards", tokenizer_folder, make_articles(tokenizer_folder, 20)
    )


@pytest.fixture
def arguments(shards: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """`leia-train train …` of a very small model on the shards; flags given to it come last and win."""

    def make(*more: object, output: Path = tmp_path / "run") -> list[str]:
        flags = ["train", "--shards", shards, "--output", output, "--model", "tiny-llama", "--device", "cpu"]
        flags += ["--tiny-hidden-size", 16, "--tiny-intermediate-size", 32, "--tiny-layers", 1, "--tiny-heads", 2]
        flags += ["--tiny-kv-heads", 1, "--max-length", 24, "--batch", 4, "--micro-batch", 3, "--steps", 4]
        flags += ["--learning-rate", 1e-2, "--warmup", 1, "--validation-share", 0.3, "--save-every", 1]
        flags += ["--tracker", "none"]
        return [str(flag) for flag in (*flags, *more)]

    return make


@pytest.fixture
def fresh_accelerator():
    """Runs of other types in one process: accelerate keeps what the first of them was until this is called."""
    from accelerate.state import AcceleratorState, GradientState

    def reset() -> None:
        for state, options in ((AcceleratorState, {"reset_partial_state": True}), (GradientState, {})):
            state._reset_state(**options)

    reset()
    yield reset
    reset()

"""How much main memory does a process need while it reads a model that is frozen in bfloat16, and how much does a plan say?

    python benchmarks/bench_loading.py

A Llama of 271 million random weights in a folder, whose embeddings get rows for the markers. Each way of reading runs in a process
by itself, whose own memory (RssAnon: pages that are mapped from files can be taken back) is looked at every millisecond.
Yardstick in the same run: reading in float32, then casting.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests/leia_train"))  # where shards are made

from leia_beam.manifest import read_manifest  # noqa: E402, needs the lines above
from leia_train.config import TrainConfig  # noqa: E402
from leia_train.data_config import DataConfig  # noqa: E402
from leia_train.markers import add_markers  # noqa: E402
from leia_train.model_config import ModelConfig  # noqa: E402
from leia_train.optimization_config import OptimizationConfig  # noqa: E402
from leia_train.run_config import RunConfig  # noqa: E402
from leia_train.shard_folders import read_build_tokenizer  # noqa: E402

SIZES = {
    "vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16, "num_attention_heads": 16,
}  # fmt: skip
_MIB = 1 << 20
LENGTH = 256
WAYS = ("float32 first", "in bfloat16", "float32 alone")


def own_bytes() -> int:
    """Memory of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def peak_of(action: Any) -> int:
    """The most that an action took beside what was there."""
    before, found, done = own_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            found.append(own_bytes() - before)
            time.sleep(0.001)

    watching = threading.Thread(target=watch)
    watching.start()
    kept = action()
    done.set()
    watching.join()
    del kept
    return max(found)


def options(model: str, way: str) -> ModelConfig:
    """Of a run with adapters, or of all weights."""
    if way == "float32 alone":
        return ModelConfig(model=model, dtype="bfloat16")
    return ModelConfig(model=model, dtype="bfloat16", weights="bfloat16", lora=16)


def measure(model: str, shards: str, way: str) -> None:
    """Print the peak of one way, and what a plan says of it."""
    import torch

    from leia_train.model import load_model, unfilled_model
    from leia_train.start_memory import start_memory
    from leia_train.typed_model import load_typed

    torch.set_num_threads(1)
    build = read_build_tokenizer(Path(shards), read_manifest(shards))
    tokenizer = add_markers(build, "special")
    settings = options(model, way)
    load = load_typed if way != "float32 first" else load_model
    config = TrainConfig(
        data=DataConfig(shards=(shards,)),
        model=settings,
        optimization=OptimizationConfig(),
        run=RunConfig(output="run", nproc=1),
    )
    empty = unfilled_model(model, settings, build, tokenizer, LENGTH)
    said = start_memory(config, empty, True, None, on_gpu=True).each_bytes
    found = peak_of(lambda: load(settings, build, tokenizer, LENGTH, 1))
    print(f"{found / _MIB:,.0f} | {'' if way == 'float32 first' else f'{said / _MIB:,.0f}'}")


def main() -> None:
    """Print a table."""
    import torch
    import transformers
    from shard_fixture import make_articles, write_shards, write_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    print(f"{platform.machine()}, torch {torch.__version__}, transformers {transformers.__version__}\n")
    print("| in the files | read | MiB at the peak | a plan says |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        tokenizer = write_tokenizer(folder / "tokenizer")
        shards = write_shards(folder / "shards", tokenizer, make_articles(tokenizer, 20))
        torch.manual_seed(1)
        model = LlamaForCausalLM(LlamaConfig(**SIZES))
        for dtype in (torch.bfloat16, torch.float32):
            name = str(dtype).removeprefix("torch.")
            model.to(dtype).save_pretrained(folder / name)
            (folder / name / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
            for way in WAYS:
                command = [sys.executable, __file__, str(folder / name), str(shards), way]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                print(f"| {name} | {way} | {done.stdout.strip().splitlines()[-1]} |", flush=True)


if __name__ == "__main__":
    measure(*sys.argv[1:]) if len(sys.argv) > 1 else main()

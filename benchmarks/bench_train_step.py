"""Which share of a training step is spent waiting for its rows?

    python benchmarks/bench_train_step.py [--steps 30]

A whole `leia-train train` of a tiny Llama (width 64, 2 layers) on the CPU, on shards generated here: as small a step as
there is, so that the share is an upper bound of what a real model waits. From metrics.jsonl of the run, the first three
steps left out (the loader's thread starts with them). Yardstick in the same run: the time that the same rows take when
nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/leia_train"))

import torch
from shard_fixture import make_articles, write_shards, write_tokenizer

from leia_train.cli import main as leia_train
from leia_train.exposures import plan_of_run

WARM_STEPS = 3


def main() -> None:
    """Train, and print what the log says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = write_tokenizer(Path(folder) / "tokenizer")
        shards = write_shards(Path(folder) / "shards", tokenizer, make_articles(tokenizer, 5000))
        output = Path(folder) / "run"
        arguments = ["train", "--shards", shards, "--output", output, "--model", "tiny-llama", "--device", "cpu"]
        arguments += ["--max-length", 512, "--batch", 16, "--micro-batch", 8, "--steps", options.steps, "--quiet"]
        assert leia_train([str(argument) for argument in arguments]) == 0
        lines = (output / "metrics.jsonl").read_text().splitlines()
        records = [record for record in map(json.loads, lines) if "loss" in record][WARM_STEPS:]
        plan, _ = plan_of_run(output)
        started_s = time.perf_counter()
        for record in records:
            assert plan.rows((record["step"] - 1) * 16, 16).label_count
        rows_s = (time.perf_counter() - started_s) / len(records)
    step_s = statistics.mean(record["seconds"] for record in records)
    waited_s = statistics.mean(record["waited_s"] for record in records)
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"step {step_s * 1e3:.1f} ms, waited {waited_s * 1e3:.3f} ms ({waited_s / step_s:.2%})")
    print(f"making its rows alone {rows_s * 1e3:.3f} ms ({rows_s / step_s:.2%} of a step, were it not done beside it)")


if __name__ == "__main__":
    main()

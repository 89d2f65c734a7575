"""What does sdpa document by document save against sdpa with a mask of a row's documents?

    python benchmarks/bench_segment_attention.py                     rows of 2,048 and 8,192 tokens
    python benchmarks/bench_segment_attention.py --lengths 32768     several minutes, for the mask

Forward and backward of a Llama of one layer (width 512, 8 heads of 64, 2 of keys) in float32 on the CPU, as the trainer calls
it, on one row of packed documents whose lengths are log-normal (median 300 tokens, mean about 490). Yardstick in the same
run: transformers' sdpa with its mask. Each way runs in a process of its own, whose peak is of all that it has, imports too.
The best of the rounds counts.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from leia_train.attention import packed_hidden_states
from leia_train.segment_attention import SEGMENTED

WAYS = {"sdpa with a mask": "sdpa", "sdpa document by document": SEGMENTED}
_VOCABULARY = 64


def measure(implementation: str, length: int, rounds: int) -> None:
    """Print the seconds of the best round, and the peak in KiB."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=_VOCABULARY,
            hidden_size=512,
            intermediate_size=1024,
            num_hidden_layers=1,
            num_attention_heads=8,
            num_key_value_heads=2,
            max_position_embeddings=length,
        )
    )
    model.set_attn_implementation(implementation)
    generator = np.random.default_rng(0)
    lengths = np.maximum(generator.lognormal(np.log(300), 1.0, length), 1).astype(int)
    positions = np.concatenate([np.arange(size) for size in lengths[: np.searchsorted(lengths.cumsum(), length) + 1]])
    position_ids = torch.from_numpy(positions[:length])[None]
    input_ids = torch.randint(_VOCABULARY, (1, length))
    times = []
    for _ in range(rounds):
        start_s = time.perf_counter()
        packed_hidden_states(model, input_ids, position_ids).square().mean().backward()
        times.append(time.perf_counter() - start_s)
    print(min(times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192], help="tokens in a row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options.one[0], int(options.one[1]), options.rounds)
        return
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}"
    )
    for length in options.lengths:
        yardstick = None
        for name, implementation in WAYS.items():
            command = [sys.executable, __file__, "--rounds", str(options.rounds), "--one", implementation, str(length)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds, peak_kib = map(float, done.stdout.split()[-2:])
            yardstick = yardstick or seconds
            print(
                f"{length:>7,} tokens  {name:<26} {seconds:8.2f} s  {yardstick / seconds:6.2f} times as fast  "
                f"peak {peak_kib / 1024:,.0f} MiB"
            )


if __name__ == "__main__":
    main()

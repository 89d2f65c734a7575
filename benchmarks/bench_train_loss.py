"""What does the loss of a large vocabulary cost in memory and time, in chunks and with all logits at once?

    python benchmarks/bench_train_loss.py [--tokens 4096] [--vocabulary 128000]

Forward and backward of the output embeddings (width 256) and the cross-entropy alone, on the CPU, each way in a process of
its own: the peak of its memory above what it had before, and its CPU seconds. Yardstick: all logits at once.

Twice: with glibc's memory as it is, and with MALLOC_MMAP_THRESHOLD_ at 1 MiB. glibc keeps freed pieces below a threshold,
which it raises up to 32 MiB by itself, and small chunks' logits are below it: the first figure is then of memory that is
free but not given back, the second of what the loss holds. GPUs have an allocator of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WIDTH = 256
WAYS = {"all logits at once": -1, "chunks of 256 MiB of logits (the default)": 0, "chunks of 64 tokens": 64}


def measure(tokens: int, vocabulary_size: int, chunk: int) -> dict[str, float]:
    """One way, in this process: peak in MiB above the start, and CPU seconds."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from leia_train.loss import TokenLoss

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    loss = TokenLoss(LlamaForCausalLM(config), chunk_tokens=max(chunk, 0), chunked=chunk >= 0)
    length = 512
    ids = torch.randint(vocabulary_size, (tokens // length, length))
    positions = torch.arange(length).expand_as(ids)
    for weight in loss.parameters():
        weight.grad = torch.zeros_like(weight)
    before = resource.getrusage(resource.RUSAGE_SELF)
    started_s = time.process_time()
    value = loss(ids, positions, ids).sum() / ids.numel()
    value.backward()
    seconds = time.process_time() - started_s
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {"mib": (after.ru_maxrss - before.ru_maxrss) / 1024, "seconds": seconds, "loss": value.item()}


def main() -> None:
    """Run each way in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=128_000)
    parser.add_argument("--chunk", type=int)
    options = parser.parse_args()
    if options.chunk is not None:
        print(json.dumps(measure(options.tokens, options.vocabulary, options.chunk)))
        return
    print(f"Python {platform.python_version()}, {options.tokens:,} tokens, {options.vocabulary:,} in the vocabulary\n")
    print("| way | peak MiB | ratio | peak MiB, given back | ratio | CPU s | loss |\n|---|---|---|---|---|---|---|")
    first: list[float] = []
    for name, chunk in WAYS.items():
        command = [sys.executable, __file__, "--tokens", str(options.tokens)]
        command += ["--vocabulary", str(options.vocabulary), "--chunk", str(chunk)]
        both = [
            json.loads(
                subprocess.run(command, env=os.environ | more, capture_output=True, text=True, check=True).stdout
            )
            for more in ({}, {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)})
        ]
        first = first or [found["mib"] for found in both]
        peaks = " | ".join(f"{found['mib']:,.0f} | {found['mib'] / base:.2f}" for found, base in zip(both, first))
        print(f"| {name} | {peaks} | {both[0]['seconds']:.1f} | {both[0]['loss']:.4f} |", flush=True)


if __name__ == "__main__":
    main()

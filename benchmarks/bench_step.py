"""How fast is a training step on a GPU, what of it is due to packing, and what do chunked logits save?

    python benchmarks/bench_step.py                      a 1 B Llama and a 1.7 B Qwen3 with random weights, on a GPU
    python benchmarks/bench_step.py --models tiny --rows 2 --length 256 --device cpu     whether it runs

One update of float32 weights, computed in bfloat16: two micro-batches forward and backward, clipping, AdamW; with the
attention, loss and optimizer of leia_train. Documents have lengths as articles have (log-normal, median 300 tokens, mean
about 490). Yardstick in the same run: `sdpa, documents see each other`, the reference's way, which needs no mask. `padded`
has one document a row, filled up to the longest of its micro-batch; its rate counts the documents' tokens alone. MFU counts
6 operations a weight and token, and of the attention what lies within documents; no recomputation. Each way begins with
fresh weights and frees all memory before; the best of the timed steps counts.
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.liger import apply_liger_kernel

from leia_train.activations import ActivationOffload, checkpoint_blocks, hidden_size
from leia_train.attention import candidates, isolation_errors
from leia_train.config import OptimizationConfig
from leia_train.loss import TokenLoss, step_loss
from leia_train.optimizer import make_optimizer
from leia_train.packing import IGNORED
from leia_train.preparing import compile_model
from leia_train.speed import flops_per_token, peak_tflops

MODELS = {
    "tiny": {
        "kind": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    },
    "llama-1b": {
        "kind": "llama", "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True, "max_position_embeddings": 32_768,
    },
    "qwen3-1.7b": {
        "kind": "qwen3", "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
        "max_position_embeddings": 32_768,
    },
    "llama-7b": {
        "kind": "llama", "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32_768,
    },
}  # fmt: skip
"""Sizes of published models; no weights of theirs."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a step is made."""

    name: str
    kernel: str
    rows: str = "apart"
    """Packed documents kept `apart`, packed ones that see each `other`, or one `padded` document a row."""
    chunked: bool = True
    keeps: str = "none"
    """As --activation-checkpointing."""
    offload: bool = False
    masked: bool = False
    """sdpa with transformers' mask in place of document by document."""
    compiled: bool = False
    liger: bool = False
    weights: str = "float32"


WAYS = (
    Way(name="sdpa, documents see each other", kernel="sdpa", rows="other"),
    Way(name="varlen, documents see each other", kernel="varlen", rows="other"),
    Way(name="varlen", kernel="varlen"),
    Way(name="flash", kernel="flash"),
    Way(name="flex", kernel="flex"),
    Way(name="sdpa", kernel="sdpa"),
    Way(name="padded, sdpa", kernel="sdpa", rows="padded"),
    Way(name="varlen, whole logits", kernel="varlen", chunked=False),
    Way(name="sdpa with a mask", kernel="sdpa", masked=True),
    Way(name="varlen, selective checkpointing", kernel="varlen", keeps="selective"),
    Way(name="varlen, full checkpointing", kernel="varlen", keeps="full"),
    Way(name="varlen, full checkpointing, offload", kernel="varlen", keeps="full", offload=True),
    Way(name="varlen, selective checkpointing, compiled", kernel="varlen", keeps="selective", compiled=True),
    Way(
        name="varlen, full checkpointing, offload, compiled", kernel="varlen", keeps="full", offload=True, compiled=True
    ),
    Way(name="varlen, compiled", kernel="varlen", compiled=True),
    Way(name="varlen, bfloat16 weights", kernel="varlen", weights="bfloat16"),
    Way(name="varlen, Liger", kernel="varlen", liger=True),
    Way(name="varlen, Liger, compiled", kernel="varlen", liger=True, compiled=True),
)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch."""

    input_ids: Tensor  # (B, T)
    position_ids: Tensor  # (B, T)
    labels: Tensor  # (B, T)
    documents: Sequence[int] = field(repr=False)
    """Lengths of the stretches in which tokens see each other."""
    tokens: int
    """Padding left out."""


def document_lengths(generator: np.random.Generator, longest: int) -> Iterator[int]:
    """Lengths of articles in tokens, longer ones cut."""
    while True:
        yield min(max(int(generator.lognormal(np.log(300), 1.0)), 2), longest)


def make_batch(way: Way, rows: int, length: int, vocabulary: int, seed: int, device: torch.device) -> Batch:
    """Random tokens."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, vocabulary, (rows, length))
    lengths = document_lengths(generator, length)
    positions = np.tile(np.arange(length), (rows, 1))
    labels = ids.copy()
    documents: list[int] = []
    if way.rows == "apart":
        for row in positions:
            start = 0
            while start < length:
                size = min(next(lengths), length - start)
                row[start : start + size] = np.arange(size)
                documents.append(size)
                start += size
    elif way.rows == "other":
        documents = [length] * rows
    else:
        documents = [next(lengths) for _ in range(rows)]
        for row, size in enumerate(documents):
            labels[row, size:] = IGNORED
        ids, positions, labels = (part[:, : max(documents)] for part in (ids, positions, labels))
    labels[positions == 0] = IGNORED
    as_tensor: Callable[[NDArray[np.int64]], Tensor] = lambda part: torch.from_numpy(part.copy()).to(device)  # noqa: E731
    return Batch(
        input_ids=as_tensor(ids),
        position_ids=as_tensor(positions),
        labels=as_tensor(labels),
        documents=documents,
        tokens=sum(documents),
    )


def make_model(sizes: dict[str, object], device: torch.device, dtype: torch.dtype) -> transformers.PreTrainedModel:
    """Random weights, made where they will be."""
    options = dict(sizes)
    config = AutoConfig.for_model(options.pop("kind"), pad_token_id=None, bos_token_id=0, eos_token_id=1, **options)
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def measure(way: Way, sizes: dict[str, object], given: argparse.Namespace) -> str:
    """The row of a way."""
    device = torch.device(given.device)
    choice = candidates(way.kernel, device, "bfloat16", compiled=way.masked or way.compiled)[0]
    model = make_model(sizes, device, getattr(torch, way.weights))
    model.set_attn_implementation(choice.implementation)
    checkpoint_blocks(model, way.keeps)
    if way.liger:
        apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})
    autocast = lambda: torch.autocast(device.type, dtype=torch.bfloat16)  # noqa: E731
    error, _ = isolation_errors(model, int(sizes["vocab_size"]), autocast)  # type: ignore[call-overload]
    loss = TokenLoss(model, chunked=way.chunked, chunk_tokens=given.loss_chunk).to(device).train()
    loss.offload = ActivationOffload(hidden_size(model)) if way.offload else None
    if way.compiled:
        compile_model(model, chunked=way.chunked, offload=way.offload)
        loss.compile_cross_entropy()
    optimizer = make_optimizer(loss, OptimizationConfig(), weights=way.weights)
    batches = [
        make_batch(way, given.rows, given.length, int(sizes["vocab_size"]), seed, device)  # type: ignore[call-overload]
        for seed in range(given.micro_batches)
    ]
    tokens = sum(batch.tokens for batch in batches)
    attended = sum(size**2 for batch in batches for size in batch.documents) / tokens
    flops = flops_per_token(model, attended)
    labels = sum(int((batch.labels != IGNORED).sum()) for batch in batches)
    steps_s, updates_s = [], []
    for step in range(given.warm + given.steps):
        if step == given.warm and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started_s = now(device)
        for batch in batches:
            with autocast():
                losses = loss(batch.input_ids, batch.position_ids, batch.labels)
            step_loss(losses, labels).backward()
        computed_s = now(device)
        torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
        optimizer.step()
        loss.zero_grad(set_to_none=True)
        steps_s.append(now(device) - started_s)
        updates_s.append(now(device) - computed_s)
    step_s, update_s = min(steps_s[given.warm :]), min(updates_s[given.warm :])
    peak = peak_tflops(device)
    used = "" if peak is None else f"{tokens * flops / step_s / peak / 1e12:.1%}"
    computing = "" if peak is None else f"{tokens * flops / (step_s - update_s) / peak / 1e12:.1%}"
    memory = torch.cuda.max_memory_allocated() / (1 << 30) if device.type == "cuda" else float("nan")
    shown = f"{error:.1e}" if way.rows == "apart" else ""
    return (
        f"| {way.name} | {tokens / step_s:,.0f} | {{ratio}} | {used} | {computing} | {step_s * 1e3:.0f} | "
        f"{update_s * 1e3:.0f} | {memory:.1f} | {shown} |{tokens / step_s}"
    )


def now(device: torch.device) -> float:
    """Seconds, once all that was begun is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["llama-1b", "qwen3-1.7b"])
    parser.add_argument("--ways", nargs="+", help="beginnings of names (default: all)")
    parser.add_argument("--rows", type=int, default=8, help="of a micro-batch")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--micro-batches", type=int, default=2, help="of a step")
    parser.add_argument("--loss-chunk", type=int, default=0, help="as leia-train's")
    parser.add_argument("--recompute", action="store_true", help="full checkpointing in all ways")
    parser.add_argument("--weights", choices=("float32", "bfloat16"), help="in all ways")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--warm", type=int, default=2, help="steps before those that are timed")
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    where = torch.cuda.get_device_name() if given.device.startswith("cuda") else platform.machine()
    print(
        f"{where}, torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    for name in given.models:
        print(f"\n{name}: {given.micro_batches} x {given.rows} rows of {given.length:,}", flush=True)
        print("| way | tokens/s | ratio | MFU | MFU before the update | step ms | update ms | GiB | isolation |")
        print("|---|---|---|---|---|---|---|---|---|")
        yardstick = None
        for way in WAYS:  # those with Liger last: it changes transformers' modules for good
            if given.ways and not any(way.name.startswith(start) for start in given.ways):
                continue
            changed = replace(way, keeps="full" if given.recompute else way.keeps, weights=given.weights or way.weights)
            gc.collect()
            torch.cuda.empty_cache()
            try:
                row, _, rate = measure(changed, MODELS[name], given).rpartition("|")
            except Exception as error:  # noqa: BLE001, a way that cannot be tried is a row of the table
                line = (str(error).strip().splitlines() or [""])[0]
                print(f"| {way.name} | {type(error).__name__}: {line[:120]} |", flush=True)
                continue
            yardstick = yardstick or float(rate)
            print(f"{row.replace('{ratio}', f'{float(rate) / yardstick:.2f}')}|", flush=True)


if __name__ == "__main__":
    main()

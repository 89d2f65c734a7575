"""How many bytes does a layer keep of a token for the backward pass, by --activation-checkpointing, and how many does a plan say?

    python benchmarks/bench_activations.py

Counted on a CPU, where it is exact: all memory that a forward pass made and that is alive after it, for one layer and for two,
for rows of two lengths, so that the difference is that of a layer and a token. Models of a quarter of the published widths,
times four: but for a few bytes (a sum of each head) all that is kept is a multiple of a width. `every second product` is the
way between selective and full that torchtitan has. Yardstick in the same run: nothing computed again.
"""

from __future__ import annotations

import platform
import sys
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/leia_train"))  # where the bytes are counted

import torch
import transformers
from kept_bytes import kept_of_a_layer
from torch.utils.checkpoint import CheckpointPolicy
from transformers import AutoConfig, AutoModelForCausalLM

from leia_train import activations
from leia_train.config import DataConfig, ModelConfig, OptimizationConfig, RunConfig, TrainConfig
from leia_train.memory import input_bytes, layer_bytes, layer_sizes, product_bytes
from leia_train.segment_attention import SEGMENTED

_QUARTER = 4
SMALL = {"vocab_size": 64, "hidden_size": 512, "num_attention_heads": 8}
MODELS = {
    "llama-1b": {**SMALL, "kind": "llama", "intermediate_size": 2048, "num_key_value_heads": 2},
    "qwen3-1.7b": {
        **SMALL, "kind": "qwen3", "intermediate_size": 1536, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128,
    },
    "qwen3-30b-a3b": {
        **SMALL, "kind": "qwen3_moe", "num_key_value_heads": 1, "head_dim": 128, "moe_intermediate_size": 192,
        "num_experts": 16, "num_experts_per_tok": 8,
    },
    "pythia-1b": {**SMALL, "kind": "gpt_neox", "intermediate_size": 2048},
}  # fmt: skip
"""Sizes of published models by four."""
SECOND = "every second product"


def make(name: str, way: str, layers: int) -> Any:
    """Random weights."""
    sizes = dict(MODELS[name])
    config = AutoConfig.for_model(sizes.pop("kind"), num_hidden_layers=layers, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    model.set_attn_implementation(SEGMENTED)
    activations.checkpoint_blocks(model, "selective" if way == SECOND else way)
    return model.train()


def every_second() -> Any:
    """The policy that keeps one product and computes the next one again."""
    turns, keeps = count(1), activations.keeps

    def choose(context: object, operator: Any, *values: Any, **named: Any) -> CheckpointPolicy:
        chosen = keeps(context, operator, *values, **named)
        if operator.name() in activations._PRODUCTS and next(turns) % 2 == 0:
            return CheckpointPolicy.PREFER_RECOMPUTE
        return chosen

    return choose


def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, transformers {transformers.__version__}\n")
    print("| model | type | way | bytes a layer and token | of all | a plan says |")
    print("|---|---|---|---|---|---|")
    for name in MODELS:
        for dtype in ("bfloat16", "float32"):
            config = TrainConfig(
                data=DataConfig(shards=("shards",)),
                model=ModelConfig(model="model", dtype=dtype),
                optimization=OptimizationConfig(),
                run=RunConfig(output="run"),
            )
            sizes = layer_sizes(make(name, "none", 1))
            kept = input_bytes(sizes, config)
            said = {
                "none": layer_bytes(sizes, config),
                "selective": kept + product_bytes(sizes, config),
                SECOND: None,
                "full": kept,
            }
            whole = 0.0
            for way, size in said.items():
                with patch.object(activations, "keeps", every_second() if way == SECOND else activations.keeps):
                    found = kept_of_a_layer(partial(make, name, way), torch.bfloat16 if dtype == "bfloat16" else None)
                whole = whole or found
                shown = "" if size is None else f"{_QUARTER * size:,.0f}"
                print(
                    f"| {name} | {dtype} | {way} | {_QUARTER * found:,.0f} | {found / whole:.0%} | {shown} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

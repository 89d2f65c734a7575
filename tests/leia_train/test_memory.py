"""What a plan says of memory, held against peaks that were measured."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from leia_train import memory
from leia_train.config import DataConfig, ModelConfig, OptimizationConfig, RunConfig, TrainConfig

LLAMA_1B = {
    "kind": "llama", "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_2B = {
    "kind": "qwen3", "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
}  # fmt: skip
H200_BYTES = int(139.8 * 2**30)
MEASURED = [
    (LLAMA_1B, 8, 2048, {}, 59.9),
    (LLAMA_1B, 8, 2048, {"compile": True}, 44.3),
    (LLAMA_1B, 8, 2048, {"activation_checkpointing": "full"}, 28.7),
    (LLAMA_1B, 8, 2048, {"weights": "bfloat16"}, 47.8),
    (LLAMA_1B, 1, 32_768, {"activation_checkpointing": "full"}, 31.3),
    (QWEN3_2B, 8, 2048, {}, 93.5),
    (QWEN3_2B, 8, 2048, {"activation_checkpointing": "full"}, 38.4),
]
"""Sizes, rows, their length, options, GiB at the peak: bench_step.py on an H200 with torch 2.11, 2026-11-26."""


@pytest.mark.parametrize(("sizes", "rows", "length", "options", "measured"), MEASURED)
def test_the_estimate_is_within_a_tenth_of_the_measured_peak(sizes, rows, length, options, measured):
    """Weights, gradients, optimizer, activations and logits, on a device of that size."""
    given = dict(sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(given.pop("kind"), **given))
    config = TrainConfig(
        data=DataConfig(shards=("shards",), max_length=length),
        model=ModelConfig(model="model", dtype="bfloat16", **options),
        optimization=OptimizationConfig(batch=rows, micro_batch=rows),
        run=RunConfig(output="run"),
    )
    parts = memory.memory_bytes(config, model, H200_BYTES)
    assert sum(parts.values()) / 2**30 == pytest.approx(measured, rel=0.1)
    assert min(parts.values()) > 0

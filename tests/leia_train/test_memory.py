"""What a plan says of memory, held against peaks that were measured."""

from functools import partial

import pytest
import torch
from kept_bytes import kept_of_a_layer
from transformers import AutoConfig, AutoModelForCausalLM

from leia_train import memory
from leia_train.activations import checkpoint_blocks
from leia_train.config import DataConfig, ModelConfig, OptimizationConfig, RunConfig, TrainConfig
from leia_train.segment_attention import SEGMENTED

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


def make_config(rows, length, **options):
    """A run on one process."""
    return TrainConfig(
        data=DataConfig(shards=("shards",), max_length=length),
        model=ModelConfig(model="model", **options),
        optimization=OptimizationConfig(batch=rows, micro_batch=rows),
        run=RunConfig(output="run"),
    )


@pytest.mark.parametrize(("sizes", "rows", "length", "options", "measured"), MEASURED)
def test_the_estimate_is_within_a_tenth_of_the_measured_peak(sizes, rows, length, options, measured):
    """Weights, gradients, optimizer, activations and logits, on a device of that size."""
    given = dict(sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(given.pop("kind"), **given))
    config = make_config(rows, length, dtype="bfloat16", **options)
    parts = memory.memory_bytes(config, model, H200_BYTES)
    assert sum(parts.values()) / 2**30 == pytest.approx(measured, rel=0.1)
    assert min(parts.values()) > 0


SMALL = {"vocab_size": 64, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
EXPERTS = {"moe_intermediate_size": 192, "num_experts": 16, "num_experts_per_tok": 8}
COUNTED = {
    "llama": {**SMALL, "num_key_value_heads": 2},
    "qwen3": {**SMALL, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128, "intermediate_size": 1536},
    "qwen3_moe": {**SMALL, "num_key_value_heads": 1, "head_dim": 128, **EXPERTS},
    "gpt_neox": SMALL,
}
"""Widths in the proportions of published models (a Llama of 1 B, a Qwen3 of 1.7 B, its mixture of experts, a Pythia)."""


def model_of(kind, way, layers):
    """Random weights."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, num_hidden_layers=layers, **COUNTED[kind]))
    model.set_attn_implementation(SEGMENTED)
    checkpoint_blocks(model, way)
    return model.train()


@pytest.mark.parametrize("kind", COUNTED)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_layer_is_said_to_keep_of_a_token_is_what_it_keeps(kind, dtype):
    """Counted byte by byte on the CPU: nothing computed again within an eighth, otherwise within a hundredth."""
    config = make_config(1, 64, dtype=dtype)
    sizes = memory.layer_sizes(model_of(kind, "none", 1))
    wanted = {
        "none": memory.layer_bytes(sizes, config),
        "selective": memory.input_bytes(sizes, config) + memory.product_bytes(sizes, config),
        "full": memory.input_bytes(sizes, config),
    }
    for way, said in wanted.items():
        found = kept_of_a_layer(partial(model_of, kind, way), torch.bfloat16 if dtype == "bfloat16" else None)
        print(f"{kind} {dtype} {way}: {found:,.0f} bytes a token, said {said:,.0f}")
        assert said == pytest.approx(found, rel=0.125 if way == "none" else 0.01)


def test_what_waits_in_main_memory_is_not_on_the_device():
    """Inputs of a few blocks are, on their way; what waits is in powers of two."""
    model = model_of("llama", "none", 16)
    found = {
        (way, offload): memory.memory_bytes(
            make_config(1, 32_768, activation_checkpointing=way, activation_offload=offload), model, 0
        )["activations"]
        for way, offload in (
            ("none", False),
            ("selective", False),
            ("full", False),
            ("selective", True),
            ("full", True),
        )
    }
    state = 32_768 * 512 * 4
    assert found["none", False] > found["selective", False] > found["full", False] > found["full", True]
    assert found["full", False] - found["full", True] == 12 * state
    assert found["selective", False] - found["selective", True] == 12 * state
    offloading = make_config(3, 32_768, activation_checkpointing="full", activation_offload=True)
    assert memory.host_bytes(offloading, model) == 16 * 4 * state  # three rows take the room of four
    assert memory.host_bytes(make_config(3, 32_768, activation_checkpointing="full"), model) == 0


def test_attention_without_a_kernel_has_scores_of_each_pair_of_tokens():
    """Of each head, and of all layers unless they are computed again."""
    model = model_of("llama", "none", 2)
    one, all_layers = (
        memory.memory_bytes(make_config(1, 1024, attention="eager", activation_checkpointing=way), model, 0)["scores"]
        for way in ("full", "none")
    )
    assert all_layers == 2 * one == 2 * 8 * 1024**2 * 12
    assert "scores" not in memory.memory_bytes(make_config(1, 1024), model, 0)

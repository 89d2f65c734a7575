"""From a model's sizes and a run's options to the memory that a process needs on its device, by what for.

Weights are counted, and gradients and the optimizer's state of those that are trained; what is kept of a layer for the backward
pass is counted tensor by tensor as transformers' Llama keeps it, and compared with measured peaks (benchmarks/README.md,
bench_step.py) and with bytes counted on a CPU (bench_activations.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from leia_train.asked_parallelism import Sharding, ZeroSettings
from leia_train.config import TrainConfig
from leia_train.loss import default_chunk, table_of
from leia_train.parts_memory import Parts, gathered_by_fsdp2, moved_by_zero3, rows_part, size_of, zero3_bytes
from leia_train.shares import owners_of

_FLOAT32, _BFLOAT16 = 4, 2
_HEAD_NORM = 10
"""Bytes that a norm of queries and keys keeps of each number: its input in float32, its result in both types."""
_COMPILED_SHARE = 0.7
"""Of a layer's activations: torch.compile recomputes what is cheap."""
_ON_DEVICE = 4
"""Inputs of blocks that are on the device although they wait in main memory: those on their way, in use, and fetched ahead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSizes:
    """Widths of a model, and how many layers it has."""

    layers: int
    hidden: int
    heads: int
    """Of all heads together."""
    key_heads: int
    """Of all key heads together, which the values are as wide as."""
    feed_forward: int
    """Of the part that a token goes through."""
    has_head_norms: bool
    """Of queries and keys."""
    has_gate: bool = True
    """The feed-forward part multiplies two vectors of its width."""
    has_fused_norms: bool = False
    """Norms keep their input and their result alone, as torch's LayerNorm does."""
    experts: int = 0
    """That a token goes through; 0 for a feed-forward part of all tokens."""


def layer_sizes(model: Any) -> LayerSizes:
    """From a model of transformers; what its configuration does not say is as in a GPT of its width."""
    config = model.config
    hidden = int(getattr(config, "hidden_size", 0) or 0)
    heads = int(getattr(config, "num_attention_heads", 0) or 1)
    head = int(getattr(config, "head_dim", None) or hidden // heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    feed_forward = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    used = int(getattr(config, "num_experts_per_tok", None) or 0)
    if used and getattr(config, "moe_intermediate_size", None):
        feed_forward = used * int(config.moe_intermediate_size)
    names = [name for name, _ in model.named_modules()]
    return LayerSizes(
        layers=int(getattr(config, "num_hidden_layers", 0) or 0),
        hidden=hidden,
        heads=heads * head,
        key_heads=key_heads * head,
        feed_forward=feed_forward,
        has_head_norms=any(name.endswith(".q_norm") for name in names),
        has_gate=bool(used) or any("gate_proj" in name or "gate_up_proj" in name for name in names),
        has_fused_norms=any(isinstance(module, nn.LayerNorm) for module in model.modules()),
        experts=used,
    )


def layer_bytes(sizes: LayerSizes, config: TrainConfig) -> float:
    """What a layer keeps of a token for the backward pass.

    Each of the two norms keeps its input and its result in float32, and the result again in the type of the products; the
    attention its queries, keys, values and output; the feed-forward part four vectors of its width, two where it has no gate.
    Experts keep three, and what they take and give, each for itself, in the type of the weights, in which they are computed.
    """
    product = _product_bytes(config)
    stream = _FLOAT32 if config.model.weights == "float32" else _BFLOAT16
    norms = 2 * sizes.hidden * (stream + product if sizes.has_fused_norms else _FLOAT32 + stream + product)
    attention = product * (3 * sizes.heads + 4 * sizes.key_heads)
    if sizes.has_head_norms:
        attention += _HEAD_NORM * (sizes.heads + sizes.key_heads)
    if sizes.experts:
        feed_forward = stream * (3 * sizes.feed_forward + 2 * sizes.experts * sizes.hidden)
    else:
        feed_forward = product * (4 if sizes.has_gate else 2) * sizes.feed_forward
    kept = norms + attention + feed_forward
    return kept * (_COMPILED_SHARE if config.model.compile else 1)


def _product_bytes(config: TrainConfig) -> int:
    """Of a number that is multiplied."""
    return _FLOAT32 if config.model.dtype == "float32" else _BFLOAT16


def input_bytes(sizes: LayerSizes, config: TrainConfig) -> int:
    """A layer's input for a token."""
    return sizes.hidden * (_FLOAT32 if config.model.weights == "float32" else _BFLOAT16)


def product_bytes(sizes: LayerSizes, config: TrainConfig) -> int:
    """What selective checkpointing keeps of a layer for a token besides its input: what its matrices and its attention give."""
    product = _product_bytes(config)
    attention = product * (sizes.hidden + 2 * sizes.heads + 2 * sizes.key_heads)
    if sizes.experts:
        stream = _FLOAT32 if config.model.weights == "float32" else _BFLOAT16
        return attention + stream * (2 * sizes.feed_forward + sizes.experts * sizes.hidden)
    return attention + product * (sizes.hidden + (2 if sizes.has_gate else 1) * sizes.feed_forward)


def activation_bytes(sizes: LayerSizes, config: TrainConfig) -> int:
    """What all layers keep on the device for the backward pass, and what one of them computes again in it."""
    tokens = config.optimization.micro_batch * config.data.max_length
    layer = layer_bytes(sizes, config)
    way = config.model.activation_checkpointing
    if way == "none":
        return int(tokens * sizes.layers * layer)
    inputs = min(sizes.layers, _ON_DEVICE) if config.model.activation_offload else sizes.layers
    kept = inputs * input_bytes(sizes, config)
    if way == "selective":
        products = product_bytes(sizes, config)
        layer, kept = max(layer - products, 0), kept + sizes.layers * products
    return int(tokens * (kept + layer))


def host_bytes(config: TrainConfig, model: Any) -> int:
    """What waits in a process's main memory; torch takes pinned memory in powers of two."""
    if not config.model.activation_offload:
        return 0
    sizes = layer_sizes(model)
    waiting = config.optimization.micro_batch * config.data.max_length * input_bytes(sizes, config)
    return sizes.layers * (1 << (waiting - 1).bit_length())


def score_bytes(config: TrainConfig, model: Any) -> int:
    """What attention without a kernel keeps of each pair of a row's tokens: scores in two types, and the product's operand."""
    product = _product_bytes(config)
    pairs = config.optimization.micro_batch * config.data.max_length**2
    heads = int(getattr(model.config, "num_attention_heads", 0) or 1)
    layers = layer_sizes(model).layers if config.model.activation_checkpointing == "none" else 1
    return layers * pairs * heads * (_FLOAT32 + 2 * product)


def parts_asked(config: TrainConfig) -> Parts | None:
    """What --shard-model says alone, without a configuration of accelerate; None for whole models."""
    return Sharding() if config.run.shard_model else None


def memory_bytes(config: TrainConfig, model: Any, gpu_bytes: int, asked: Parts | None = None) -> dict[str, int]:
    """What a process needs on its device, by what for: an estimate, of which activations are the least certain part.

    Frozen weights have neither gradients nor state; in float32 they are multiplied as copies in bfloat16, which are kept as long
    as activations are. Where all weights of a whole model are trained such copies are not counted: the peaks that were measured
    are within a tenth without them. What adapters keep is about what frozen layers need not, but for --lora-dropout, which is not
    counted. `gpu_bytes` is the memory of its GPU, or 0. `asked`: how processes hold the model in parts, or what --shard-model
    says.
    """
    processes = max(config.run.nproc, 1)
    parts = asked or parts_asked(config) if processes > 1 else None
    if isinstance(parts, ZeroSettings):
        found = zero3_bytes(config, model, parts, processes)
    else:
        found = _torchs_bytes(config, model, processes, parts)
    passing = _passing_bytes(config, model, gpu_bytes)
    if isinstance(parts, ZeroSettings):
        meanwhile = sum(found.get(name, 0) for name in ("gathered", "reduced", "copies")) + sum(passing.values())
        moved = moved_by_zero3(model, parts, processes) - meanwhile
        return {**found, **passing, **({"moved": moved} if moved > 0 else {})}
    return {**found, **passing}


def _torchs_bytes(config: TrainConfig, model: Any, processes: int, parts: Sharding | None) -> dict[str, int]:
    """Weights, gradients and the optimizer's state of whole models, and of FSDP2's."""
    frozen_size = size_of(config.model.weights)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    frozen = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
    size = _FLOAT32 if frozen else frozen_size
    of_each = [weight.numel() if parts is None else rows_part(weight, processes) for weight in trained]
    own = sum(of_each)
    moved = _largest_share(of_each, processes) if config.run.share_optimizer and parts is None else own
    found = {
        "weights": own * size + frozen * frozen_size,
        "gradients": own * size,
        "optimizer": moved * 2 * _FLOAT32,
    }
    sizes = layer_sizes(model)
    if frozen and frozen_size != _product_bytes(config):  # of layers that the backward pass is not yet through with
        kept_of_all = config.model.activation_checkpointing == "none"
        found["copies"] = frozen * _BFLOAT16 // (1 if kept_of_all else max(sizes.layers, 1))
    if size == _BFLOAT16 and config.model.rounding == "kahan":
        found["rounding"] = moved * _BFLOAT16
    if parts is not None:
        found["gathered"] = gathered_by_fsdp2(config, model, sizes.layers, parts)
    return found


def _largest_share(sizes: Sequence[int], processes: int) -> int:
    """The numbers of which one process keeps the optimizer's state: the one that keeps most of them."""
    loads = [0] * processes
    for owner, size in zip(owners_of(sizes, processes), sizes, strict=True):
        loads[owner] += size
    return max(loads)


def _passing_bytes(config: TrainConfig, model: Any, gpu_bytes: int) -> dict[str, int]:
    """What the rows of a micro-batch take."""
    tokens = config.optimization.micro_batch * config.data.max_length
    vocabulary = len(table_of(model.get_input_embeddings()))
    chunk = config.model.loss_chunk or default_chunk(vocabulary, gpu_bytes)
    found = {
        "activations": activation_bytes(layer_sizes(model), config),
        "logits": 3 * min(chunk, tokens) * vocabulary * _FLOAT32,
    }
    if config.model.attention == "eager":
        found["scores"] = score_bytes(config, model)
    return found

"""From a model and a step's time to floating-point operations a second, and the share of what the device can do (MFU).

A token costs 6 operations a weight that multiplies it (forward 2, backward 4; of a frozen one 2, for the gradient goes through
it and not into it) and 12 x layers x width of all heads x length
for the attention, halved because it is causal; the length is that of the stretch in which tokens see each other.
Recomputation is not counted, and of experts those alone that a token is sent to.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from leia_train import sharding
from leia_train.gpus import gpu_named
from leia_train.loss import table_of
from leia_train.parallelism import Held


def flops_per_token(model: Any, length: float, held: Held = sharding) -> float:
    """Operations for one token, forward and backward.

    `length` is the mean over tokens of the length of the document, or row, in which the token sees others.
    """
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    looked_up = None if output is not None and table_of(output) is table_of(table) else table_of(table)
    config = model.config
    experts, used = getattr(config, "num_experts", None) or 0, getattr(config, "num_experts_per_tok", None) or 0
    share = used / experts if experts and used else 1.0
    multiplied = sum(
        _count(held, weight) * (6 if weight.requires_grad else 4) * (share if ".experts." in name else 1)
        for name, weight in model.named_parameters()
        if weight is not looked_up
    )
    heads = getattr(config, "num_attention_heads", 0)
    width = heads * (getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // max(heads, 1))
    attention = 6 * getattr(config, "num_hidden_layers", 0) * width * length
    return float(multiplied + attention)


def _count(held: Held, weight: Tensor) -> int:
    return math.prod(held.shape_of(weight))


def peak_tflops(device: torch.device) -> float | None:
    """What a device can do at most; None for one that is not in the table."""
    found = gpu_named(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return None if found is None else found.tflops


def utilisation(tokens_per_s: float, flops: float, processes: int, peak: float | None) -> float | None:
    """MFU, from 0 to 1."""
    return None if peak is None else tokens_per_s * flops / (processes * peak * 1e12)

"""From a model in parts to the bytes that one process has of it, by what for: FSDP2's parts, and DeepSpeed ZeRO-3's.

What is held all the time (weights, gradients, the optimizer's state, DeepSpeed's buckets) was counted in the real engines and is
exact. What is gathered for a while is an estimate, held against peaks that were counted on CPUs (tests/leia_train/test_zero3.py);
neither was measured on GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from leia_train.asked_parallelism import Sharding, ZeroSettings
from leia_train.config import TrainConfig
from leia_train.loss import table_of

Parts = Sharding | ZeroSettings
"""How processes hold a model in parts."""
_FLOAT32, _BFLOAT16 = 4, 2
ZERO_DEFAULTS: Mapping[str, Any] = {
    "contiguous_gradients": True,
    "reduce_bucket_size": 500_000_000,
    "stage3_max_live_parameters": 1_000_000_000,
    "sub_group_size": 1_000_000_000,
}
"""DeepSpeed's own, in numbers (not bytes), of what decides about its memory."""


def size_of(dtype: str) -> int:
    """Bytes of a number."""
    return _FLOAT32 if dtype == "float32" else _BFLOAT16


def rows_part(weight: nn.Parameter, processes: int) -> int:
    """The numbers that FSDP2 has of a weight in each process, by rows: the last ones are filled up."""
    shape = tuple(weight.shape) or (1,)
    return math.ceil(shape[0] / processes) * math.prod(shape[1:])


def numbers_part(weight: nn.Parameter, processes: int) -> int:
    """The same of ZeRO-3, which cuts by numbers."""
    return math.ceil(weight.numel() / processes)


def gathered_by_fsdp2(config: TrainConfig, model: Any, layers: int, sharding: Sharding) -> int:
    """What is whole for a while: the embeddings and their gradients, and two layers (one is fetched while the other is computed)
    with one's gradients, which are summed in float32. Layers that are not put back into parts after their forward pass are
    whole all together.
    """
    product, size = size_of(config.model.dtype), size_of(config.model.weights)
    weights = sum(parameter.numel() for parameter in model.parameters())
    output = model.get_output_embeddings()
    tables = [table_of(made) for made in (model.get_input_embeddings(), output) if made is not None]
    embeddings: int = sum(table.numel() for table in {id(table): table for table in tables}.values())
    layer = (int(weights) - embeddings) // max(layers, 1)
    whole = 3 if sharding.reshard else max(layers, 2) + 1
    return int(embeddings * (2 * size + _FLOAT32) + layer * (whole * product + _FLOAT32))


def zero3_bytes(config: TrainConfig, model: Any, settings: ZeroSettings, processes: int) -> dict[str, int]:
    """What one of several processes has by DeepSpeed ZeRO-3.

    Weights are float32 and there twice, as the model's parts and as the optimizer's. `buckets` is memory that is taken once for
    gradients on their way, of which two may be exchanged at once (`reduced`). What is gathered becomes float32, whatever it was
    sent as, at most `stage3_max_live_parameters` numbers at once, in the backward pass again.
    """
    told = {**ZERO_DEFAULTS, **settings.tuning}
    bucket, live = int(told["reduce_bucket_size"]), int(told["stage3_max_live_parameters"])
    weights = list(model.parameters())
    part = sum(numbers_part(weight, processes) for weight in weights)
    whole, largest = sum(weight.numel() for weight in weights), max(weight.numel() for weight in weights)
    product = size_of(config.model.dtype)
    parts = {
        "weights": 2 * _FLOAT32 * part,
        "gradients": _FLOAT32 * part,
        "optimizer": 2 * _FLOAT32 * part,
        "buckets": bucket * (_FLOAT32 + (product if product != _FLOAT32 else 0)) if told["contiguous_gradients"] else 0,
        "gathered": _FLOAT32 * min(whole, live + largest),
        "reduced": 2 * min(bucket, whole) * product + largest * (_FLOAT32 + product),
    }
    return {name: size for name, size in parts.items() if size}


def moved_by_zero3(model: Any, settings: ZeroSettings, processes: int) -> int:
    """The gradients of the parts that the optimizer moves at once, which are put beside each other, when nothing is gathered."""
    group = int({**ZERO_DEFAULTS, **settings.tuning}["sub_group_size"])
    sizes = [numbers_part(weight, processes) for weight in model.parameters()]
    return _FLOAT32 * min(sum(sizes), group + max(sizes))

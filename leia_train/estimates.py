"""From a run and a kind of GPU to whether it fits, what would make it fit, and about how long it takes.

One table of rates, measured once (benchmarks/README.md, bench_step.py: a Llama of 1.2 B on an H200): the share of the GPU's
peak that a micro-batch reaches, forward and backward. It is taken for other GPUs and models too, and for adapters, whose fewer
operations are counted: on none of these it was measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from leia_train.config import TrainConfig
from leia_train.gpus import Gpu
from leia_train.memory import memory_bytes
from leia_train.speed import flops_per_token

_REACHED = {(False, False): 0.344, (False, True): 0.283, (True, False): 0.485}
"""By --compile and --gradient-checkpointing; both together were not measured, and are taken as the product of what each does."""
_UPDATE_S = 27e-12
"""Seconds of an update a weight."""
_SHARED, _SHARDED = "--share-optimizer", "--shard-model"
USABLE_SHARE = 0.94
"""Of a GPU's memory: the rest is the driver's, and lost between blocks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The options, as they are typed, with which a run fits, and the bytes that a process takes then."""

    flags: tuple[str, ...]
    size_bytes: int


def needed_bytes(config: TrainConfig, model: Any, gpu: Gpu) -> int:
    """What a process takes of a GPU."""
    return sum(memory_bytes(config, model, gpu.memory_bytes).values())


def fits(size_bytes: int, gpu: Gpu) -> bool:
    """Whether so much can be had of a GPU."""
    return size_bytes <= USABLE_SHARE * gpu.memory_bytes


def cheapest_fit(config: TrainConfig, model: Any, gpu: Gpu) -> Fit:
    """The fewest changes with which a run fits, in the order of what they cost; all of them where nothing does."""
    changes = list(_changes(config))
    tried = [
        chosen
        for count in range(len(changes) + 1)
        for chosen in combinations(changes, count)
        if not {_SHARED, _SHARDED} <= {flag for flag, _ in chosen}  # the second does what the first does, and more
    ]
    for chosen in tried:
        changed = config
        for _, sections in chosen:
            changed = replace(
                changed, **{name: replace(getattr(changed, name), **values) for name, values in sections.items()}
            )
        found = Fit(flags=tuple(flag for flag, _ in chosen), size_bytes=needed_bytes(changed, model, gpu))
        if fits(found.size_bytes, gpu):
            break
    return found


def _changes(config: TrainConfig) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """What can be changed, the cheapest first: a flag, and the values of each section."""
    if config.model.lora and config.model.weights == "float32" and config.model.dtype == "bfloat16":
        yield "--weights bfloat16", {"model": {"weights": "bfloat16"}}  # which costs nothing: no update is rounded
    if config.run.nproc > 1 and not config.run.shard_model and not config.model.lora:
        if not config.run.share_optimizer:
            yield _SHARED, {"run": {"share_optimizer": True}}
        yield _SHARDED, {"run": {"shard_model": True}}
    if config.optimization.micro_batch > 1:
        yield "--micro-batch 1", {"optimization": {"micro_batch": 1}}
    if not config.model.gradient_checkpointing:
        yield "--gradient-checkpointing", {"model": {"gradient_checkpointing": True}}
    if config.model.weights == "float32" and config.model.dtype == "bfloat16" and not config.model.lora:
        yield "--weights bfloat16", {"model": {"weights": "bfloat16"}}


def share_of_peak(config: TrainConfig) -> float:
    """What a micro-batch reaches of a GPU's peak, from 0 to 1, by what was measured."""
    way = (config.model.compile, config.model.gradient_checkpointing)
    if way in _REACHED:
        return _REACHED[way]
    return _REACHED[True, False] * _REACHED[False, True] / _REACHED[False, False]


def training_seconds(
    config: TrainConfig, model: Any, gpu: Gpu, *, steps: int, processes: int, mean_segment: float
) -> float:
    """About how long the steps take; what processes tell each other, evaluations and checkpoints are not counted."""
    flops = config.optimization.batch * config.data.max_length / processes * flops_per_token(model, mean_segment)
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    shares = processes if config.run.share_optimizer or config.run.shard_model else 1
    return steps * float(flops / (gpu.tflops * 1e12 * share_of_peak(config)) + weights * _UPDATE_S / shares)

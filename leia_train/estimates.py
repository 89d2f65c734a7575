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

from leia_train.asked_parallelism import ZeroSettings
from leia_train.config import TrainConfig
from leia_train.gpus import Gpu
from leia_train.memory import memory_bytes
from leia_train.parts_memory import ZERO_DEFAULTS, Parts
from leia_train.speed import flops_per_token

_REACHED = {(False, False): 0.344, (False, True): 0.283, (True, False): 0.485}
"""By --compile and --activation-checkpointing full; both together were not measured, and are taken as the product of what each
does. selective was not measured either, and is taken to lie in the middle between all and nothing kept: what it computes again
is a tenth of a step by the time that --compile saves of the same operations."""
_UPDATE_S = 27e-12
"""Seconds of an update a weight."""
_SHARED, _SHARDED = "--share-optimizer", "--shard-model"
_SELECTIVE, _FULL = "--activation-checkpointing selective", "--activation-checkpointing full"
_OFFLOAD = "--activation-offload"
_BUFFERS = {"reduce_bucket_size": 50_000_000, "stage3_max_live_parameters": 100_000_000}
"""Numbers of DeepSpeed's buffers that are a tenth of its own: more, and smaller, exchanges."""
SMALL_BUFFERS = f"a deepspeed_config_file with {' and '.join(f'{name} {size}' for name, size in _BUFFERS.items())}"
USABLE_SHARE = 0.94
"""Of a GPU's memory: the rest is the driver's, and lost between blocks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The options, as they are typed, with which a run fits, and the bytes that a process takes then."""

    flags: tuple[str, ...]
    size_bytes: int


def needed_bytes(config: TrainConfig, model: Any, gpu: Gpu, asked: Parts | None = None) -> int:
    """What a process takes of a GPU; `asked` as in memory_bytes."""
    return sum(memory_bytes(config, model, gpu.memory_bytes, asked).values())


def fits(size_bytes: int, gpu: Gpu) -> bool:
    """Whether so much can be had of a GPU."""
    return size_bytes <= USABLE_SHARE * gpu.memory_bytes


def cheapest_fit(config: TrainConfig, model: Any, gpu: Gpu, asked: Parts | None = None) -> Fit:
    """The fewest changes with which a run fits, in the order of what they cost; all of them where nothing does."""
    changes = list(_changes(config, asked))
    tried = [
        chosen
        for count in range(len(changes) + 1)
        for chosen in combinations(changes, count)
        if _go_together({flag for flag, _ in chosen}, config)
    ]
    for chosen in tried:
        changed, parts = config, asked
        for flag, sections in chosen:
            changed = replace(
                changed, **{name: replace(getattr(changed, name), **values) for name, values in sections.items()}
            )
            if flag == SMALL_BUFFERS:
                parts = _with_small_buffers(asked)
        found = Fit(flags=tuple(flag for flag, _ in chosen), size_bytes=needed_bytes(changed, model, gpu, parts))
        if fits(found.size_bytes, gpu):
            break
    return found


def _go_together(flags: set[str], config: TrainConfig) -> bool:
    """Whether it makes sense to give these: of two of which one does what the other does and more, one."""
    if {_SHARED, _SHARDED} <= flags or {_SELECTIVE, _FULL} <= flags:
        return False
    return _OFFLOAD not in flags or _FULL in flags or config.model.activation_checkpointing == "full"


def _with_small_buffers(asked: Parts | None) -> ZeroSettings:
    """None is larger than it was."""
    assert isinstance(asked, ZeroSettings)
    told = {**ZERO_DEFAULTS, **asked.tuning}
    return ZeroSettings(tuning={**asked.tuning, **{name: min(told[name], size) for name, size in _BUFFERS.items()}})


def _changes(config: TrainConfig, asked: Parts | None) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """What can be changed, the cheapest first: a flag, and the values of each section. By DeepSpeed what it does alone."""
    zero = isinstance(asked, ZeroSettings) and config.run.nproc > 1
    if config.model.lora and config.model.weights == "float32" and config.model.dtype == "bfloat16":
        yield "--weights bfloat16", {"model": {"weights": "bfloat16"}}  # which costs nothing: no update is rounded
    if config.run.nproc > 1 and asked is None and not config.run.shard_model and not config.model.lora:
        if not config.run.share_optimizer:
            yield _SHARED, {"run": {"share_optimizer": True}}
        yield _SHARDED, {"run": {"shard_model": True}}
    if config.optimization.micro_batch > 1:
        yield "--micro-batch 1", {"optimization": {"micro_batch": 1}}
    if zero and _with_small_buffers(asked) != asked:
        yield SMALL_BUFFERS, {}
    way = config.model.activation_checkpointing
    if way == "none" and not zero:
        yield _SELECTIVE, {"model": {"activation_checkpointing": "selective"}}
    if way != "full":
        yield _FULL, {"model": {"activation_checkpointing": "full"}}
    if not config.model.activation_offload:
        yield _OFFLOAD, {"model": {"activation_offload": True}}
    if config.model.weights == "float32" and config.model.dtype == "bfloat16" and not config.model.lora and not zero:
        yield "--weights bfloat16", {"model": {"weights": "bfloat16"}}


def share_of_peak(config: TrainConfig) -> float:
    """What a micro-batch reaches of a GPU's peak, from 0 to 1, by what was measured."""
    kept, computed_again = _REACHED[False, False], _REACHED[False, True]
    if config.model.compile:
        kept, computed_again = _REACHED[True, False], _REACHED[True, False] * computed_again / kept
    way = config.model.activation_checkpointing
    return {"none": kept, "selective": (kept + computed_again) / 2, "full": computed_again}[way]


def training_seconds(
    config: TrainConfig,
    model: Any,
    gpu: Gpu,
    *,
    steps: int,
    processes: int,
    mean_segment: float,
    asked: Parts | None = None,
) -> float:
    """About how long the steps take; what processes tell each other, evaluations and checkpoints are not counted."""
    flops = config.optimization.batch * config.data.max_length / processes * flops_per_token(model, mean_segment)
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    shares = processes if config.run.share_optimizer or config.run.shard_model or asked is not None else 1
    return steps * float(flops / (gpu.tflops * 1e12 * share_of_peak(config)) + weights * _UPDATE_S / shares)

"""From accelerate's configuration, or --shard-model, to how a model is held in parts: by FSDP2, by DeepSpeed, or not at all.

accelerate's launcher hands its configuration over in the environment. It is read and then taken out of there: accelerate
would else wrap the model itself.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import FullyShardedDataParallelPlugin
from torch.distributed.fsdp import CPUOffloadPolicy

from leia_beam.errors import MissingResource, UsageError
from leia_train.config import TrainConfig

_FSDP = "ACCELERATE_USE_FSDP"
_DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
_FILE = "ACCELERATE_DEEPSPEED_CONFIG_FILE"
FSDP2_HINT = "FSDP2 (--shard-model) shards the same"
_TUNING = (
    "allgather_sequential",
    "contiguous_gradients",
    "overlap_comm",
    "reduce_bucket_size",
    "reduce_scatter",
    "round_robin_gradients",
    "stage3_max_live_parameters",
    "stage3_max_reuse_distance",
    "stage3_model_persistence_threshold",
    "stage3_param_persistence_threshold",
    "stage3_prefetch_bucket_size",
    "sub_group_size",
)
"""What of a DeepSpeed configuration's zero_optimization changes when and how much is exchanged, and is handed on."""
_OURS = (
    "bf16",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "steps_per_print",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "zero_optimization",
)
"""What else such a file may have: all but the last are this trainer's own options."""
_OFFLOADS = ("offload_optimizer", "offload_param")
_SAVING = ("stage", "stage3_gather_16bit_weights_on_model_save")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharding:
    """How a model is held in parts."""

    layers: tuple[str, ...] = ()
    """Classes of the modules that are gathered as one; empty for those that the model names itself."""
    reshard: bool = True
    """A layer's weights go after its forward pass and come again for its backward pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ZeroSettings:
    """What DeepSpeed is told beyond the stage."""

    tuning: Mapping[str, Any] = field(default_factory=dict)


def asked_parallelism(config: TrainConfig, *, planned: bool = False) -> Sharding | ZeroSettings | None:
    """How the model is to be held in parts; None where every process has it whole. For a run that is only `planned` DeepSpeed
    need not be installed.

    Raises: UsageError for what is not done here; MissingResource where DeepSpeed is not installed.
    """
    return asked_zero(config, planned=planned) or asked_sharding(config)


def asked_sharding(config: TrainConfig) -> Sharding | None:
    """What --shard-model or accelerate's configuration asks for; the latter is taken out of the environment.

    Raises: UsageError for what this trainer does not do.
    """
    if os.environ.get(_FSDP, "false").lower() != "true":
        return Sharding() if config.run.shard_model else None
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise UsageError(f"accelerate's FSDP configuration: fsdp_version {version} is not supported here; give 2")
    try:
        plugin = FullyShardedDataParallelPlugin()
    except ValueError as error:
        raise UsageError(f"accelerate's FSDP configuration: {' '.join(str(error).split())}") from error
    # accelerate would else wrap the model itself, and transformers read weights in the first process alone.
    del os.environ[_FSDP]
    for wrong, name, instead in (
        (isinstance(plugin.cpu_offload, CPUOffloadPolicy), "fsdp_offload_params", "false"),
        (
            plugin.activation_checkpointing,
            "fsdp_activation_checkpointing",
            "false, and --activation-checkpointing full",
        ),
    ):
        if wrong:
            raise UsageError(f"accelerate's FSDP configuration: {name} true is not supported here; give {instead}")
    return Sharding(
        layers=tuple(plugin.transformer_cls_names_to_wrap or ()), reshard=plugin.reshard_after_forward is not False
    )


def asked_zero(config: TrainConfig, *, planned: bool = False) -> ZeroSettings | None:
    """What accelerate's configuration asks of DeepSpeed; it is taken out of the environment. None where it asks nothing.

    Raises: UsageError for what is not done here; MissingResource where DeepSpeed is not installed.
    """
    if os.environ.get(_DEEPSPEED, "false").lower() != "true":
        return None
    for given, name, instead in (
        (config.run.shard_model, "--shard-model", "it is FSDP2's; give --no-shard-model where a recipe has it"),
        (config.model.compile, "--compile", f"leave it out, or use FSDP2 ({FSDP2_HINT})"),
        (config.model.liger, "--liger", "leave it out"),
        (config.model.activation_checkpointing == "selective", "--activation-checkpointing selective", "give full"),
        (config.model.weights != "float32", f"--weights {config.model.weights}", f"give float32; {FSDP2_HINT}"),
    ):
        if given:
            raise UsageError(f"{name} with DeepSpeed: not supported here; {instead}")
    settings = _settings(os.environ.get(_FILE, "none"))
    if not planned and importlib.util.find_spec("deepspeed") is None:
        raise MissingResource(f"deepspeed is not installed (pip install 'leia-lm[deepspeed]'); {FSDP2_HINT}")
    del os.environ[_DEEPSPEED]  # accelerate would else wrap the model itself
    return settings


def _settings(file: str) -> ZeroSettings:
    """From what accelerate's launcher told the process, and the DeepSpeed configuration that it may name.

    Raises: UsageError.
    """
    if file == "none":
        told: dict[str, Any] = {
            "stage": _number(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")),
            "offload_optimizer": {"device": os.environ.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none")},
            "offload_param": {"device": os.environ.get("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "none")},
        }
        where = "accelerate's DeepSpeed configuration"
    else:
        where = file
        try:
            content = json.loads(Path(file).read_text())
            told = dict(content["zero_optimization"])
            for name in _OFFLOADS:
                told[name] = dict(told.get(name) or {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{file}: no DeepSpeed configuration with a zero_optimization ({error})") from error
        for name, value in content.items():
            if name not in _OURS and not (isinstance(value, dict) and value.get("enabled") in (False, "auto")):
                raise UsageError(f"{where}: {name} is not supported here; leave it out")
    if told.get("stage") != 3:
        raise UsageError(f"{where}: zero_stage {told.get('stage')} is not supported here; give 3")
    for name in _OFFLOADS:
        device = told.pop(name).get("device", "none")
        if device not in ("none", None):
            raise UsageError(f"{where}: {name}_device {device} is not supported here; give none")
    unknown = sorted(set(told) - {*_TUNING, *_SAVING})
    if unknown:
        raise UsageError(f"{where}: zero_optimization.{unknown[0]} is not supported here; leave it out")
    return ZeroSettings(tuning={name: told[name] for name in _TUNING if told.get(name, "auto") != "auto"})


def _number(word: str) -> int | str:
    return int(word) if word.isdecimal() else word

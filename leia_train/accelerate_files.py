"""From accelerate's configuration file to the processes that `accelerate launch` starts with it, and what it tells them.

The file is read by accelerate. What its launcher tells the processes is the environment that `asked_parallelism` reads, so
a plan asks for, and refuses, what a run does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from yaml import YAMLError

from leia_beam.errors import UsageError

_FSDP, _DEEPSPEED = "FSDP", "DEEPSPEED"
_WHOLE = ("NO", "MULTI_GPU", "MULTI_CPU")
"""Kinds whose processes have the whole model each."""
_RENAMED = {"FSDP_TRANSFORMER_LAYER_CLS_TO_WRAP": "FSDP_TRANSFORMER_CLS_TO_WRAP"}
_OF_DEEPSPEED = ("zero_stage", "offload_optimizer_device", "offload_param_device")


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """What a file says: how many processes (None where it does not), on how many machines, and what they are told."""

    path: str
    processes: int | None
    machines: int
    told: Mapping[str, str]

    @contextmanager
    def environment(self) -> Iterator[None]:
        """As a process that accelerate started has it; afterwards as it was."""
        before = dict(os.environ)
        for name in [name for name in before if name.startswith(("ACCELERATE_", "FSDP_"))]:
            del os.environ[name]
        os.environ.update(self.told)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def read_launch(path: str) -> Launch:
    """What a file starts.

    Raises: UsageError for a file that is none, and for a kind that this trainer is not started as.
    """
    try:
        content = load_config_from_file(path)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, YAMLError) as error:
        why = " ".join(str(error).split())
        raise UsageError(f"--accelerate-config {path}: not a configuration file of accelerate ({why})") from error
    if not isinstance(content, ClusterConfig):
        raise UsageError(f"--accelerate-config {path}: must be for machines of your own (LOCAL_MACHINE)")
    kind = str(getattr(content.distributed_type, "value", content.distributed_type))
    if kind not in (_FSDP, _DEEPSPEED, *_WHOLE):
        raise UsageError(
            f"--accelerate-config {path}: distributed_type {kind} is not supported here; give {_FSDP}, {_DEEPSPEED} or MULTI_GPU"
        )
    processes, machines = _count(path, "num_processes", content.num_processes), content.num_machines
    if not _count(path, "num_machines", machines):
        raise UsageError(f"--accelerate-config {path}: num_machines {machines}: must be at least 1")
    told = {}
    if kind == _FSDP:
        told = {"ACCELERATE_USE_FSDP": "true", **_told_of_fsdp(content.fsdp_config or {})}
    elif kind == _DEEPSPEED:
        told = {"ACCELERATE_USE_DEEPSPEED": "true", **_told_of_deepspeed(content.deepspeed_config or {})}
    return Launch(path=path, processes=processes, machines=machines, told=told)


def _count(path: str, name: str, value: Any) -> int | None:
    """A number of at least 1; None for accelerate's -1, which says nothing."""
    if value == -1:
        return None
    if not isinstance(value, int) or value < 1:
        raise UsageError(f"--accelerate-config {path}: {name} {value}: must be at least 1")
    return value


def _told_of_fsdp(settings: Mapping[str, Any]) -> dict[str, str]:
    found = {f"FSDP_{name.removeprefix('fsdp_').upper()}": value for name, value in settings.items()}
    return {_RENAMED.get(name, name): _word(value) for name, value in found.items() if value is not None}


def _told_of_deepspeed(settings: Mapping[str, Any]) -> dict[str, str]:
    told = {f"ACCELERATE_DEEPSPEED_{name.upper()}": settings[name] for name in _OF_DEEPSPEED if name in settings}
    file = settings.get("deepspeed_config_file")
    return {name: _word(value) for name, value in {**told, "ACCELERATE_DEEPSPEED_CONFIG_FILE": file or "none"}.items()}


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

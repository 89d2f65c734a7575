"""From the environment to the processes of a run: how they find each other, and what they do together.

The number of processes that was asked for is asserted, because accelerate's CPU launch runs one without a word.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
)

from leia_beam.errors import AnotherProcess, UsageError
from leia_beam.termination import stop_without_parent
from leia_train.config import TrainConfig
from leia_train.launcher import RENDEZVOUS
from leia_train.runs import sees_lock

Result = TypeVar("Result")
_FOREIGN = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM, DistributedType.XLA)
_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_TIMEOUT = timedelta(hours=2)  # of the slowest thing that one process does alone: building a store


def make_accelerator(config: TrainConfig) -> Accelerator:
    """The processes of this run.

    Raises: UsageError where there are not as many as were asked for, or the batch is not a multiple of them.
    """
    on_cpu = config.run.device == "cpu" or not torch.cuda.is_available()
    if RENDEZVOUS in os.environ and not torch.distributed.is_initialized():
        stop_without_parent()
        torch.distributed.init_process_group(
            "gloo" if on_cpu else "nccl",
            init_method=f"file://{os.environ[RENDEZVOUS]}",
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            timeout=_TIMEOUT,
        )
    accelerator = Accelerator(
        # Without a GPU accelerate joins launched processes only where it is told that there is none.
        cpu=config.run.device == "cpu" or (on_cpu and _is_one_of_several()),
        mixed_precision="bf16" if config.model.dtype == "bfloat16" else "no",
        # Said here, because accelerate would divide each loss by what `accelerate config` or its launcher was told.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1, sync_with_dataloader=False),
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=_TIMEOUT),
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),  # no second copy of all gradients
        ],
    )
    kind = accelerator.distributed_type
    if kind in _FOREIGN:
        raise UsageError(
            f"accelerate was told to use {kind.value}, which this trainer does not; run accelerate config again, or start it "
            "with torchrun; --shard-model shards a model by FSDP2"
        )
    processes = accelerator.num_processes
    if config.run.nproc and config.run.nproc != processes:
        raise UsageError(
            f"--nproc {config.run.nproc}: {processes} process(es) were started (accelerate launch --cpu starts one "
            "whatever it is told); use leia-train train --nproc alone, or torchrun"
        )
    if config.optimization.batch % processes:
        raise UsageError(f"--batch {config.optimization.batch}: must be a multiple of the {processes} processes")
    return accelerator


def _is_one_of_several() -> bool:
    """Whether a launcher started this process beside others."""
    return any(int(os.environ.get(name) or 1) > 1 for name in _WORLD_SIZES)


def close_processes() -> None:
    """Leave the group, where there is one.

    The group itself is kept until the process ends: its destructor waits, with the interpreter lock, for gloo's threads, one of
    which may be waiting for that lock to drop the tensors of the last exchange (seen on a machine with much to do).
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(torch.distributed.group.WORLD))
        torch.distributed.destroy_process_group()


def is_lost_process(error: RuntimeError) -> bool:
    """Whether a collective failed because another process is gone."""
    gone = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return isinstance(error, torch.distributed.DistBackendError) or any(text in str(error) for text in gone)


def summed(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """The sums of values over all processes."""
    if accelerator.num_processes == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    found: list[float] = accelerator.reduce(tensor, "sum").tolist()
    return found


def on_main(accelerator: Accelerator, action: Callable[[], Result]) -> Result | None:
    """Do something on the first process while the others wait, and fail on all where it fails.

    Raises: what the action raises; on the other processes AnotherProcess.
    """
    result, failure = None, None
    if accelerator.is_main_process:
        try:
            result = action()
        except BaseException as error:  # noqa: BLE001, raised again once the others know
            failure = error
    fail_together(accelerator, failure, "process 0 failed; its message says why")
    return result


def check_same_folder(accelerator: Accelerator, output: Path, holder: str) -> None:
    """See that all processes have the first one's output folder, of which `holder` is what it wrote into the lock.

    Raises: UsageError on those that do not, AnotherProcess on the others.
    """
    if accelerator.num_processes == 1:
        return
    told = [holder]
    torch.distributed.broadcast_object_list(told, src=0)
    failure = None
    if not sees_lock(output, told[0]):
        failure = UsageError(
            f"--output {output}: machine {platform.node()} does not see there what process 0 writes; give a folder, by its full "
            "path, on a disk that all of the run's machines share"
        )
    fail_together(accelerator, failure, "a process does not have this run's folder; its message says which")


def fail_together(accelerator: Accelerator, failure: BaseException | None, otherwise: str) -> None:
    """Raise this process's failure; where it has none but another has, say so.

    Raises: the failure; on processes without one, AnotherProcess with what is said `otherwise`.
    """
    failed = summed(accelerator, [float(failure is not None)])[0]
    if failure is not None:
        raise failure
    if failed:
        raise AnotherProcess(otherwise)

"""From --gpus, --nproc and accelerate's configuration file to the processes that a run is planned for, on which all must agree."""

from __future__ import annotations

from dataclasses import dataclass, replace

from leia_beam.errors import UsageError
from leia_train.accelerate_files import Launch, read_launch
from leia_train.asked_parallelism import ZeroSettings, asked_parallelism
from leia_train.config import NOT_IN_PARTS, TrainConfig
from leia_train.gpus import Gpu, parse_gpus
from leia_train.parts_memory import Parts


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedProcesses:
    """A run on its processes, on so many machines, each on a GPU where one is named; how they hold the model in parts."""

    config: TrainConfig
    machines: int
    gpu: Gpu | None
    parts: Parts | None
    note: str = ""
    """What a launcher must be told beside the file."""

    @property
    def on_each_machine(self) -> int:
        """How many of the processes are on one machine."""
        return self.config.run.nproc // self.machines


def planned_processes(config: TrainConfig, gpus: str, accelerate_config: str) -> PlannedProcesses:
    """The number is that of --gpus, else the file's, else --nproc's; `config.run.nproc` has it afterwards.

    Raises: UsageError where they contradict each other, and for what a run refuses of the file.
    """
    count, gpu = parse_gpus(gpus) if gpus else (None, None)
    launch = read_launch(accelerate_config) if accelerate_config else None
    nproc, machines, note = config.run.nproc, 1, ""
    parts: Parts | None = None
    if launch is not None:
        nproc, note = _processes(config, gpus, count, launch)
        machines = launch.machines
        with launch.environment():
            parts = asked_parallelism(config, planned=True)
    elif config.run.shard_model:
        with Launch(path="", processes=None, machines=1, told={}).environment():
            parts = asked_parallelism(config, planned=True)
    processes = count or nproc or 1
    if processes % machines:
        raise UsageError(
            f"--accelerate-config {accelerate_config}: {processes} processes on num_machines {machines}: must be a multiple, for "
            "accelerate starts as many on each"
        )
    if config.optimization.batch % processes:
        raise UsageError(f"--batch {config.optimization.batch}: must be a multiple of the {processes} processes")
    if parts is not None and config.model.lora and processes > 1:
        raise UsageError(f"--lora {config.model.lora}: must be {NOT_IN_PARTS}")
    shard_model = parts is not None and not isinstance(parts, ZeroSettings)
    return PlannedProcesses(
        config=replace(config, run=replace(config.run, nproc=processes, shard_model=shard_model)),
        machines=machines,
        gpu=gpu,
        parts=parts if processes > 1 else None,
        note=note,
    )


def _processes(config: TrainConfig, gpus: str, count: int | None, launch: Launch) -> tuple[int, str]:
    """How many the file starts, or with more GPUs than that as many as these, which its launcher must be told."""
    flag = f"--accelerate-config {launch.path}"
    there, wanted = launch.processes, config.run.nproc
    if there is None:
        if not (count or wanted):
            raise UsageError(
                f"{flag}: has no num_processes; write it there, or give the number of GPUs, such as --gpus 8xH100"
            )
        there = count or wanted
    if count is not None and count < there:
        raise UsageError(
            f"--gpus {gpus}: {launch.path} starts {there} processes, one on each GPU; give {there} GPUs, or write num_processes "
            f"{count} there"
        )
    if count is not None and count > there:
        machines = ", and --num_machines where they are on more" if launch.machines > 1 else ""
        told = f"--num_processes {count}{machines}"
        return count, f"{launch.path} starts {there} processes; for {count} give accelerate launch {told}"
    if wanted and count is None and wanted != there:
        raise UsageError(
            f"--nproc {wanted}: {launch.path} starts {there} processes; give --nproc {there}, or write {wanted} there"
        )
    return there, ""

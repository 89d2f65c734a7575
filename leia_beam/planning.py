"""From the sizes of dumps and a number of workers to what a build will take: ranges, time, disk, memory."""

from __future__ import annotations

from dataclasses import dataclass

PROCESSES_A_MACHINE = 4
DISK_GB_OF_IMAGE = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerNeeds:
    """For a cluster: machines of `PROCESSES_A_MACHINE` vCPU, and each one's disk beside that of its image."""

    workers: int
    disk_gb: int


def needs_of(units: int) -> WorkerNeeds:
    """For a number of units over the dumps: each process does about four, so that the last ones do not idle long."""
    return WorkerNeeds(workers=max(1, min(250, -(-units // (4 * PROCESSES_A_MACHINE)))), disk_gb=30)

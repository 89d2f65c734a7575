"""From this machine to what it has: cores, memory, disk, folders that can be written to. A container's limits count."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from leia_beam.console import amount
from leia_beam.disk_space import free_bytes
from leia_beam.findings import OK, PROBLEM, WARNING, Finding

_CGROUP = "/sys/fs/cgroup"


def usable_cores() -> int:
    """Cores that this process may use."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = _cgroup_words("cpu.max")
    if len(quota) == 2 and quota[0].isdecimal() and quota[1].isdecimal():
        cores = min(cores, max(1, int(quota[0]) // int(quota[1])))
    return cores


def total_memory_bytes() -> int:
    """Memory of the machine, or of the container."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _cgroup_words("memory.max")
    return min(total, int(limit[0])) if limit and limit[0].isdecimal() else total


def available_memory_bytes() -> int:
    """What is not in use now."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return total_memory_bytes()
    return min(found, total_memory_bytes())


def _cgroup_words(name: str) -> list[str]:
    try:
        return Path(_CGROUP, name).read_text().split()
    except OSError:
        return []


def memory_finding(needed: int, what: str, advice: str) -> Finding:
    """Whether so much memory is there; `what` says what for."""
    total, available = total_memory_bytes(), available_memory_bytes()
    text = f"about {amount(needed, 'bytes')} for {what}; {amount(total, 'bytes')} are there"
    if needed > total:
        return Finding(state=PROBLEM, subject="memory", text=text, advice=advice)
    if needed > available:
        free = f"{text}, of which {amount(available, 'bytes')} are free now"
        return Finding(state=WARNING, subject="memory", text=free, advice=f"end other programs, or {advice}")
    return Finding(state=OK, subject="memory", text=text)


def disk_finding(folder: str, needed: int, what: str, advice: str) -> Finding:
    """Whether so much disk is free for a folder that need not be there yet."""
    free = free_bytes(folder)
    text = f"about {amount(needed, 'bytes')} for {what} in {folder}; {amount(free, 'bytes')} are free there"
    if free < needed / 2:
        return Finding(state=PROBLEM, subject="disk", text=text, advice=advice)
    if free < needed:
        return Finding(state=WARNING, subject="disk", text=text, advice=advice)
    return Finding(state=OK, subject="disk", text=text)


def output_findings(folder: str, flag: str = "--output") -> Iterator[Finding]:
    """Whether a folder can be made or written to."""
    path = Path(folder)
    if path.exists() and not path.is_dir():
        yield Finding(state=PROBLEM, subject=flag, text=f"{folder} is a file", advice="give a folder")
        return
    above = path.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not _can_write(above):
        yield Finding(
            state=PROBLEM, subject=flag, text=f"{folder}: {above} cannot be written to", advice="give another folder"
        )
    else:
        there = "there, and can be written to" if above == path.absolute() else f"will be made in {above}"
        yield Finding(state=OK, subject=flag, text=f"{folder}: {there}")


def _can_write(folder: Path) -> bool:
    """By trying it: root may write where no bit says so, but not on a disk that is mounted read-only."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False

"""From `--nproc N` to N processes of one command on this machine, and their end to one exit code.

torchrun's agent and its store listen on all network interfaces, which users cannot close. These processes find each other
through a file instead, and gloo and NCCL are told to use the loopback interface alone. torchrun and accelerate launch work
too: then `--nproc` only says how many processes there must be.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from leia_beam.errors import Interrupted

RENDEZVOUS = "LEIA_TRAIN_RENDEZVOUS"
_LAUNCHED_BY = ("RANK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU", RENDEZVOUS)
_GRACE_S = 60.0
_LOOK_S = 0.1


def is_launched(environment: Mapping[str, str]) -> bool:
    """Whether this process was started by a launcher, ours or another."""
    return any(name in environment for name in _LAUNCHED_BY)


def launch(arguments: list[str], processes: int) -> int:
    """Run `leia-train ARGUMENTS` in so many processes; 75 where they were interrupted, else the first one's error."""
    with tempfile.TemporaryDirectory(prefix="leia-train-") as folder:
        started = [_start(arguments, number, processes, Path(folder)) for number in range(processes)]
        before = {number: signal.signal(number, _pass_on(started)) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            return _wait(started)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            _end(started)


def _start(arguments: list[str], number: int, processes: int, folder: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        RENDEZVOUS: str(folder / "rendezvous"),
    }
    environment.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    # A group of its own: a Ctrl-C reaches the launcher alone, which passes it on once.
    return subprocess.Popen([sys.executable, "-m", "leia_train", *arguments], env=environment, start_new_session=True)


def _pass_on(started: list[subprocess.Popen[bytes]]) -> Callable[[int, FrameType | None], None]:
    def handler(number: int, frame: FrameType | None) -> None:
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    return handler


def _wait(started: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all; one that fails takes the others with it after a grace period."""
    failed_s: float | None = None
    while any(process.poll() is None for process in started):
        if failed_s is None and any(process.returncode for process in started):
            failed_s = time.monotonic()
        if failed_s is not None and time.monotonic() - failed_s > _GRACE_S:
            _end(started)
        time.sleep(_LOOK_S)
    codes = [process.returncode for process in started]
    if Interrupted.exit_code in codes:
        return Interrupted.exit_code
    first = next((code for code in codes if code), 0)
    return 128 - first if first < 0 else first


def _end(started: list[subprocess.Popen[bytes]]) -> None:
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()

"""From `--nproc N` to N processes of one command on this machine, started by torchrun, and their end to one exit code.

torchrun's own store, and the one it gives to its workers, listen on all network interfaces. Here torchrun keeps its state in
a file (the c10d rendezvous with `store_type=file`, and no store shared with the workers), the processes meet through another
file, and gloo and NCCL are told to use the loopback interface alone: no port is open to others. torchrun and accelerate
launch by hand work too: then `--nproc` only says how many processes there must be, and their ports are their own.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leia_beam.errors import Interrupted, LeiaError, MissingResource
from leia_beam.termination import PARENT_VARIABLE
from leia_train.runs import STATUS_NAME, read_status

RENDEZVOUS = "LEIA_TRAIN_RENDEZVOUS"
_LAUNCHED_BY = ("RANK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU", RENDEZVOUS)
_SAVING_S = 3600
"""How long processes may take to end after a signal: the step in progress is finished and all of its state is saved."""
_TORCHRUNS_PATIENCE_S = 30
"""After one process failed torchrun tells the others to end, and so long afterwards it kills those that have not."""


def is_launched(environment: Mapping[str, str]) -> bool:
    """Whether this process was started by a launcher, ours or another."""
    return any(name in environment for name in _LAUNCHED_BY)


def launch(arguments: list[str], processes: int, output: Path) -> int:
    """Run `leia-train ARGUMENTS` in so many processes; 75 where they were interrupted, else the first one's error."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with _quiet(), tempfile.TemporaryDirectory(prefix="leia-train-") as folder, _environment(Path(folder), processes):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="leia-train",
            rdzv_backend="c10d",
            rdzv_endpoint=str(Path(folder) / "torchrun"),
            rdzv_configs={"store_type": "file"},
            local_addr="127.0.0.1",
            max_restarts=0,
            shutdown_timeout=_SAVING_S,
        )
        before = _written_ns(output)
        try:
            elastic_launch(config, sys.executable)("-m", "leia_train", *arguments)
        except ChildFailedError as error:
            _say_who_was_killed(error.failures)
            return exit_code(error.failures.values())
        except SignalException as error:
            status = read_status(output) if _written_ns(output) != before else {}
            return signalled(status, int(error.sigval))
    return 0


def _say_who_was_killed(failures: Mapping[int, Any]) -> None:
    """Of a process that the system ended nobody else says why.

    Raises: MissingResource where no process failed by itself, and one was killed.
    """
    by_torchrun_s = min(failure.timestamp for failure in failures.values()) + _TORCHRUNS_PATIENCE_S
    killed = [
        rank
        for rank, failure in sorted(failures.items())
        if failure.exitcode == -signal.SIGKILL and failure.timestamp < by_torchrun_s
    ]
    if killed and all(failure.exitcode <= LeiaError.exit_code for failure in failures.values()):
        raise MissingResource(
            f"process {killed[0]} was ended by SIGKILL, usually for lack of memory; the same command goes on from the newest "
            "checkpoint"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No lines of torchrun between those of the processes, each of which says itself what went wrong, and its handlers of
    signals no longer than it runs."""
    loggers = [
        logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")
    ]
    levels = [logger.level for logger in loggers]  # torch gives each of them one of its own
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    }
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for number, handler in handlers.items():
            # None is one that Python did not set. Elsewhere than here torchrun sets none, and Python lets nobody.
            if handler is not None and threading.current_thread() is threading.main_thread():
                signal.signal(number, handler)


def exit_code(failures: Iterable[Any]) -> int:
    """One exit code for those of torchrun's failed processes: 75 where one was interrupted, else the first one's.

    A process that failed by itself goes before those that only lost another one (1), and those that a signal ended, which
    torchrun sends to the others.
    """
    codes = [failure.exitcode for failure in sorted(failures, key=lambda found: (found.timestamp, found.local_rank))]
    if Interrupted.exit_code in codes:
        return Interrupted.exit_code
    by_themselves = [code for code in codes if code > LeiaError.exit_code] or [code for code in codes if code > 0]
    first: int = (by_themselves or codes)[0]
    return 128 - first if first < 0 else first


def signalled(status: Mapping[str, Any], number: int) -> int:
    """The exit code after a signal to torchrun, which keeps those of its processes to itself: by the status they left."""
    return {"interrupted": Interrupted.exit_code, "finished": 0}.get(str(status.get("status")), 128 + number)


def _written_ns(output: Path) -> int:
    """When the run's status was written; 0 while there is none."""
    path = output / STATUS_NAME
    return path.stat().st_mtime_ns if path.is_file() else 0


@contextmanager
def _environment(folder: Path, processes: int) -> Iterator[None]:
    """What the processes inherit, for the time of a `with` block."""
    wanted = {
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        RENDEZVOUS: str(folder / "rendezvous"),
        PARENT_VARIABLE: str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1))),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

"""From SIGTERM, which batch systems send, to the interrupt that Ctrl-C is; and to it from the death of who started a process."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

PARENT_VARIABLE = "LEIA_PARENT"
"""Where a command is told the id of the process that started it as a step of its own, and without which it is to stop."""
_PR_SET_PDEATHSIG = 1


def end_with_parent(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have this process told to stop where it is another's step and that one dies without a word, as by SIGKILL (Linux)."""
    parent = environment.pop(PARENT_VARIABLE, None)  # those that this process starts are not that one's
    if parent is None:
        return
    stop_without_parent()
    if os.getppid() != int(parent):  # dead already
        os.kill(os.getpid(), signal.SIGTERM)


def stop_without_parent() -> None:
    """Have the system send SIGTERM to this process when the one that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt; the handler that was there is put back. Only a process's first thread may ask."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt

"""From a step of a study to a process of its own, so that its memory is given back, and to the end of it.

A step's process is in a process group of its own: Ctrl-C on the terminal reaches the study alone, which tells the process
once, as its launcher would be told, and waits until it has saved what it has. A second Ctrl-C ends it at once. That it was
interrupted the study says, in one line for both. Where the study is killed the process is told to stop too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from leia_beam.console import STEP_VARIABLE
from leia_beam.errors import DamagedInput, Interrupted, LeiaError, MissingResource, OtherBuild, UsageError
from leia_beam.termination import PARENT_VARIABLE, termination_as_interrupt

_ERRORS = {error.exit_code: error for error in (UsageError, DamagedInput, MissingResource, OtherBuild, Interrupted)}


def run_step(words: Sequence[str], what: str) -> None:
    """Run `python -m WORDS`, whose messages go to standard error; its results are in files, so what it prints is dropped.

    Raises: Interrupted where it, or the study, was told to stop; MissingResource where a signal ended it; else the error that
    its exit code means.
    """
    command, environment = [sys.executable, "-m", *words], {**os.environ, STEP_VARIABLE: what}
    environment[PARENT_VARIABLE] = str(os.getpid())
    process = None
    with termination_as_interrupt():
        try:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, process_group=0, env=environment)
            code = process.wait()
        except KeyboardInterrupt:
            if process is not None:
                _stop(process)
            raise Interrupted(what) from None
    if code in (Interrupted.exit_code, -signal.SIGTERM, -signal.SIGINT):
        raise Interrupted(what)
    if code < 0:
        name = signal.Signals(-code).name
        raise MissingResource(f"{what} was ended by {name}, usually for lack of memory; the same command goes on")
    if code:
        raise _ERRORS.get(code, LeiaError)(
            f"{what} ended with exit code {code}, and its message stands above; what is finished is kept, and the same "
            "command goes on"
        )


def output_of(words: Sequence[str], what: str) -> str:
    """What `python -m WORDS` prints, for steps that take a moment.

    Raises: the error that its exit code means, with its message.
    """
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{what} ended with exit code {done.returncode}"]
        raise _ERRORS.get(done.returncode, LeiaError)(lines[-1].partition("error: ")[2] or lines[-1])
    return done.stdout


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Tell a process to stop and wait for its end."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait()
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

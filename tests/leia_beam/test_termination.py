"""What a command does when the one that started it as a step of its own is killed."""

import os
import signal
import subprocess
import sys

import pytest

from leia_beam import termination
from leia_beam.termination import PARENT_VARIABLE, end_with_parent

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
STEP = """
import time
from leia_beam.termination import end_with_parent, termination_as_interrupt
try:
    with termination_as_interrupt():
        end_with_parent()
        print("began", flush=True)
        time.sleep(600)
except KeyboardInterrupt:
    print("told to stop", flush=True)
"""


@needs_linux
def test_a_killed_commands_step_is_told_to_stop():
    """Else a training would go on, or a scoring keep its GPU, with nobody to wait for it."""
    command = (
        "import os, subprocess, sys\n"
        f"environment = {{**os.environ, {PARENT_VARIABLE!r}: str(os.getpid())}}\n"
        f"subprocess.run([sys.executable, '-c', {STEP!r}], env=environment)"
    )
    parent = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "began\n"
    parent.kill()
    assert parent.stdout.read() == "told to stop\n"
    parent.wait()


@needs_linux
def test_a_step_whose_command_is_dead_before_it_looks_stops_too():
    done = subprocess.run(
        [sys.executable, "-c", STEP],
        capture_output=True,
        text=True,
        env={**os.environ, PARENT_VARIABLE: "0"},
        timeout=600,
    )
    assert done.stdout == "told to stop\n"


def test_who_is_no_step_listens_to_nobody(monkeypatch):
    """And a step's own processes are not told whose step it is."""
    killed = []
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    monkeypatch.setattr(termination, "stop_without_parent", lambda: None)
    end_with_parent({})
    environment = {PARENT_VARIABLE: "0", "OTHER": "x"}
    end_with_parent(environment)
    assert environment == {"OTHER": "x"}
    assert killed == [(os.getpid(), signal.SIGTERM)]

"""Workers that tell what they do: a folder that, first on Python's path, makes every process log the units it works on.

Put into `sitecustomize.py`, so that it reaches processes that a runner starts. A unit that is found done is not logged:
it was not read. LEIA_TEST_SECONDS makes each unit take so much longer, for a test that ends something in mid-run;
LEIA_TEST_PROCESSES makes local runs use as many processes as they may, however small the work.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.engines import ROOT

_HOOK = """
import os
import sys


def note_binding(event, given):
    if event == "socket.bind":
        with open(os.environ["LEIA_TEST_LOG"] + ".bound", "a") as file:
            file.write(f"{os.getpid()} {given[1]}\\n")


if os.environ.get("LEIA_TEST_LOG"):
    import time
    import leia_beam.units as units

    _run_unit = units.run_unit

    def run_unit(stage, unit, work):
        def logged(unit, output):
            line = f"{os.getpid()} {stage.plan.stage} {unit.number} {unit.end - unit.start}\\n"
            with open(os.environ["LEIA_TEST_LOG"], "a") as file:
                file.write(line)
            time.sleep(float(os.environ.get("LEIA_TEST_SECONDS", "0")))
            work(unit, output)

        return _run_unit(stage, unit, logged)

    units.run_unit = run_unit
    sys.addaudithook(note_binding)
    if os.environ.get("LEIA_TEST_PROCESSES"):
        import pipelines.local

        pipelines.local.BYTES_FOR_A_PROCESS = 1
"""


@dataclass(frozen=True)
class Watch:
    """A folder with the hook and the log."""

    folder: Path

    @classmethod
    def begin(cls, folder: Path) -> Watch:
        """Write the hook."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sitecustomize.py").write_text(_HOOK)
        (folder / "log").touch()
        return cls(folder)

    def environment(self, seconds: float = 0) -> dict[str, str]:
        """What makes processes tell."""
        return {
            "LEIA_TEST_PROCESSES": "1",
            "PYTHONPATH": f"{self.folder}:{ROOT}",
            "LEIA_TEST_LOG": str(self.folder / "log"),
            "LEIA_TEST_SECONDS": str(seconds),
        }

    def exports(self, seconds: float = 0) -> str:
        """The same as lines of a shell script."""
        return "\n".join(f'export {name}="{value}"' for name, value in self.environment(seconds).items())

    def lines(self) -> list[tuple[int, str, int, int]]:
        """(process id, stage, unit, bytes of the input) of each time that a unit was worked on."""
        found = []
        for line in (self.folder / "log").read_text().splitlines():
            process, stage, unit, size = line.split()
            found.append((int(process), stage, int(unit), int(size)))
        return found

    def wait_for(self, stage: str, count: int, limit_s: float = 900) -> None:
        """Until so many units of a stage have been begun."""
        deadline = time.monotonic() + limit_s
        while len(self.works(stage)) < count:
            assert time.monotonic() < deadline, f"{len(self.works(stage))} units of {stage} were begun, not {count}"
            time.sleep(0.05)

    def works(self, stage: str) -> Counter[int]:
        """How often each unit of a stage was worked on."""
        return Counter(unit for _, name, unit, _ in self.lines() if name == stage)

    def processes(self, stage: str) -> set[int]:
        """The processes that did a stage's units."""
        return {process for process, name, _, _ in self.lines() if name == stage}

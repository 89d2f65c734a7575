"""From the folders of runs to what their pages show: identity, metrics, what was said, and what asks to be looked at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leia_beam.console import LOGGER
from leia_beam.errors import UsageError
from leia_beam.html_bars import percent
from leia_train.metrics import SpikeWatch, read_metrics
from leia_train.run_config import RunConfig
from leia_train.runs import LOG_NAME, RUN_NAME, read_run, read_status

Record = Mapping[str, Any]
_MAX_WARNINGS = 5
_GOES_ON = "the same command goes on"
"""Said of an interruption, which a run that went on has behind it."""
_SPIKE = RunConfig(output="-").spike
_WAITED_SHARE = 0.1
"""Above it the device waits for rows long enough to be told."""
_SAID = re.compile(rf"^\d[\d-]+ \d[\d:,]+ ([A-Z]+) {LOGGER}: (.*)$", re.MULTILINE)
"""A line of the log file that is the program's own: its level and what was said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadRun:
    """What a run's folder holds: `steps` and `evaluations` are its metrics, `said` (level, line) what it told its user."""

    name: str
    folder: Path
    identity: Mapping[str, Any]
    versions: Mapping[str, str]
    status: Mapping[str, Any]
    steps: Sequence[Record]
    evaluations: Sequence[Record]
    said: Sequence[tuple[str, str]]

    @property
    def step(self) -> int:
        """The last step that was done."""
        return int(self.steps[-1]["step"]) if self.steps else 0


def read_folder(folder: Path, name: str) -> ReadRun:
    """A run as its folder has it.

    Raises: UsageError where there is none.
    """
    if not (folder / RUN_NAME).is_file():
        raise UsageError(f"{folder}: holds no run (no {RUN_NAME}); give the --output of leia-train train")
    records = read_metrics(folder)
    return ReadRun(
        name=name,
        folder=folder,
        identity=read_run(folder),
        versions=json.loads((folder / RUN_NAME).read_bytes()).get("versions", {}),
        status=read_status(folder),
        steps=[record for record in records if "loss" in record],
        evaluations=[record for record in records if "loss" not in record],
        said=_said(folder / LOG_NAME),
    )


def _said(path: Path) -> list[tuple[str, str]]:
    """The program's own lines of a log file, each once; none where there is no file."""
    if not path.is_file():
        return []
    return list(dict.fromkeys(_SAID.findall(path.read_text(encoding="utf-8", errors="replace"))))


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of those above as it takes to tell them apart.

    >>> distinct_names([Path("a/run"), Path("b/run")])
    ['a/run', 'b/run']

    Raises: UsageError where a folder is given twice.
    """
    whole = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-depth:]) for parts in whole]
        if len(set(names)) == len(names):
            return names
    raise UsageError(f"{folders[0]}: the same run is given twice")


def status_of(run: ReadRun) -> str:
    """How the run ended, as its status says; 'not finished' while it has none."""
    return str(run.status.get("status", "not finished"))


def planned_steps(run: ReadRun) -> int:
    """The steps that the run was to have: a finished one has had them."""
    asked = int(run.identity.get("steps", 0))
    return run.step if status_of(run) == "finished" else max(asked, run.step)


def total_of(run: ReadRun, name: str) -> Any:
    """The sum of a figure over the run's steps."""
    return sum(record[name] for record in run.steps)


def rates_of(run: ReadRun) -> list[tuple[float, float]]:
    """(step, tokens a second) of each step."""
    return [(record["step"], record["tokens"] / max(record["seconds"], 1e-9)) for record in run.steps]


def warnings_of(run: ReadRun) -> list[str]:
    """What in a run's folder asks to be looked at."""
    lines = []
    done = f"{run.step:,} of {planned_steps(run):,} steps are done"
    if status_of(run) == "interrupted":
        lines.append(f"the run was interrupted: {done}; the same command goes on")
    elif status_of(run) != "finished":
        lines.append(f"the run is not finished: {done}; it trains still, or was killed")
    watch = SpikeWatch(_SPIKE)
    found = (watch.warning(record["step"], record["loss"]) for record in run.steps)
    spikes = [line.removeprefix("warning: ") for line in found if line]
    lines += spikes[:_MAX_WARNINGS]
    if len(spikes) > _MAX_WARNINGS:
        lines.append(f"and {len(spikes) - _MAX_WARNINGS:,} more steps whose loss is far above those before them")
    lines += [
        f"a loss or gradient was not finite: its rows are in {path.name}"
        for path in sorted(run.folder.glob("bad-rows-*"))
    ]
    lines += [line for level, line in run.said if level == "WARNING" and line not in spikes and _GOES_ON not in line]
    seconds = total_of(run, "seconds")
    if seconds and total_of(run, "waited_s") > _WAITED_SHARE * seconds:
        lines.append(f"training waited for its rows {percent(total_of(run, 'waited_s') / seconds)} of the time")
    return lines


def losses_of(record: Record) -> dict[str, Mapping[str, Any]]:
    """The losses of an evaluation by the name of their texts."""
    first = {"validation": record["evaluation"]} if record.get("evaluation") else {}
    return {**first, **record.get("evaluations", {})}


def tasks_of(record: Record) -> Mapping[str, Mapping[str, Any]]:
    """The scores of an evaluation by the name of the task."""
    tasks: Mapping[str, Mapping[str, Any]] = record.get("tasks", {})
    return tasks


def names_of(runs: Sequence[ReadRun], what: Callable[[Record], Mapping[str, Any]]) -> list[str]:
    """All names under which `what` finds figures in the runs' evaluations, each once."""
    return list(dict.fromkeys(name for run in runs for record in run.evaluations for name in what(record)))

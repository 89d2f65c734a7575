"""From the folders of runs to one self-contained page: curves over steps, figures, exposures, configuration, warnings.

All of it is read from what a run leaves behind, so a page can be made while it still trains, after it ended, or years later.
Several runs are drawn over each other; runs that differ in a final number alone (seeds) share a colour.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from leia_beam.console import LOGGER
from leia_beam.errors import LeiaError, UsageError
from leia_beam.html_pages import Html, Number, bullets, callout, details, element, page, section, table, text_in, tiles
from leia_beam.svg_charts import (
    Bar,
    Curve,
    bars,
    curves_chart,
    curves_legend,
    group_styles,
    percent,
    short_count,
)
from leia_train.config import DataConfig, ModelConfig, OptimizationConfig, ReportConfig, RunConfig
from leia_train.exposures import Counts, by_entity, count_sources, plan_of_run
from leia_train.files import disk_errors
from leia_train.metrics import SpikeWatch, read_metrics
from leia_train.plan import TrainingPlan
from leia_train.runs import CODE, LOG_NAME, RUN_NAME, read_run, read_status

KIND = "LEIA · training"
REPORT_NAME = "report.html"
_MAX_WARNINGS = 5
_MAX_CALLOUTS = 4
_FINGERPRINT = "data_fingerprint"
_MAX_SAID = 100
_GOES_ON = "the same command goes on"
"""Said of an interruption, which a run that went on has behind it."""
_MAX_ENTITIES = 15
_SPIKE = RunConfig(output="-").spike
_WAITED_SHARE = 0.1
"""Above it the device waits for rows long enough to be told."""
_LEGEND_RUNS = 3
"""Of more runs than these, one legend stands above all curves."""

Record = Mapping[str, Any]


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


def write_report(config: ReportConfig) -> str:
    """Write the page; where it is.

    Raises: UsageError for a folder that holds no run, or several runs without a place for their page.
    """
    if len(config.runs) > 1 and not config.output:
        raise UsageError(f"--output is needed for a page of {len(config.runs)} runs; give a file such as runs.html")
    folders = [Path(run) for run in config.runs]
    runs = [read_folder(folder, name) for folder, name in zip(folders, distinct_names(folders), strict=True)]
    path = Path(config.output) if config.output else folders[0] / REPORT_NAME
    content = report_page(runs, exposures=config.exposures)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{path.name}")
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    return str(path)


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
    """
    whole = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-depth:]) for parts in whole]
        if len(set(names)) == len(names):
            return names
    raise UsageError(f"{folders[0]}: the same run is given twice")


def report_page(runs: Sequence[ReadRun], *, exposures: bool) -> str:
    """The page. Nothing in it is loaded from anywhere."""
    title = f"Training of {runs[0].name}" if len(runs) == 1 else f"Training of {len(runs)} runs"
    return page(
        title,
        *([_tiles(runs[0])] if len(runs) == 1 else [section("Runs", _runs(runs))]),
        *_warnings(runs),
        *_curves(runs),
        *_figures(runs),
        *([_exposures(run, len(runs) > 1) for run in runs] if exposures else []),
        section("Configuration", *_configuration(runs)),
        section("Versions", _versions(runs)),
        *(_log(run, len(runs) > 1) for run in runs if run.said),
        kind=KIND,
    )


# ---- what is seen first


def _status(run: ReadRun) -> str:
    return str(run.status.get("status", "not finished"))


def _tiles(run: ReadRun) -> Html:
    facts = [
        ("status", _status(run)),
        ("steps", f"{run.step:,} of {_steps(run):,}" if run.step < _steps(run) else f"{run.step:,}"),
        ("tokens", short_count(_sum(run, "tokens"))),
        ("inserted", percent(_sum(run, "inserted_tokens") / (_sum(run, "tokens") or 1))),
        ("last loss", _last(run, "loss")),
        ("tokens a second", _rate(run)),
        ("time", _duration(_sum(run, "seconds"))),
    ]
    return tiles(facts)


def _runs(runs: Sequence[ReadRun]) -> Html:
    numbers = ("steps", "tokens", "inserted", "last loss", "names' last loss", "tokens a second", "time")
    columns = ["run", "status", "strategy", *(Number(name) for name in ("seed", *numbers))]
    rows = [
        [
            run.name,
            _status(run),
            str(run.identity.get("strategy", "–")),
            str(run.identity.get("seed", "–")),
            f"{run.step:,} of {_steps(run):,}" if run.step < _steps(run) else f"{run.step:,}",
            short_count(_sum(run, "tokens")),
            percent(_sum(run, "inserted_tokens") / (_sum(run, "tokens") or 1)),
            _last(run, "loss"),
            _last(run, "name_loss"),
            _rate(run),
            _duration(_sum(run, "seconds")),
        ]
        for run in runs
    ]
    return table("Runs", columns, rows)


def _steps(run: ReadRun) -> int:
    """The steps that the run was to have: a finished one has had them."""
    asked = int(run.identity.get("steps", 0))
    return run.step if _status(run) == "finished" else max(asked, run.step)


def _sum(run: ReadRun, name: str) -> Any:
    return sum(record[name] for record in run.steps)


def _last(run: ReadRun, name: str) -> str:
    value = run.steps[-1].get(name) if run.steps else None
    return "–" if value is None else f"{value:.4f}"


def _rates(run: ReadRun) -> list[tuple[float, float]]:
    return [(record["step"], record["tokens"] / max(record["seconds"], 1e-9)) for record in run.steps]


def _rate(run: ReadRun) -> str:
    """The median over steps: the first ones are slow."""
    rates = [rate for _, rate in _rates(run)]
    return f"{statistics.median(rates):,.0f}" if rates else "–"


def _duration(seconds: float) -> str:
    """
    >>> _duration(5), _duration(4000), _duration(200000)
    ('5 s', '1 h 07 min', '56 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes >= 600:
        return f"{minutes / 60:,.0f} h"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


# ---- what the guards say


def warnings_of(run: ReadRun) -> list[str]:
    """What in a run's folder asks to be looked at."""
    lines = []
    done = f"{run.step:,} of {_steps(run):,} steps are done"
    if _status(run) == "interrupted":
        lines.append(f"the run was interrupted: {done}; the same command goes on")
    elif _status(run) != "finished":
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
    seconds = _sum(run, "seconds")
    if seconds and _sum(run, "waited_s") > _WAITED_SHARE * seconds:
        lines.append(f"training waited for its rows {percent(_sum(run, 'waited_s') / seconds)} of the time")
    return lines


def _warnings(runs: Sequence[ReadRun]) -> Iterator[Html]:
    """Each by itself where they are few, as one list where they are many."""
    lines = [f"{run.name}: {line}" if len(runs) > 1 else line for run in runs for line in warnings_of(run)]
    if len(lines) <= _MAX_CALLOUTS:
        yield from (callout("Warning", line) for line in lines)
    else:
        yield section(f"{len(lines)} warnings", bullets(lines))


# ---- curves

Value = Callable[[Record], float | None]


def _curves(runs: Sequence[ReadRun]) -> Iterator[Html]:
    """All that is known over steps; what no run has at two steps or more is no curve (single figures have a table)."""
    if not any(run.steps for run in runs):
        yield section("Curves", element("p", "No step is done yet.", class_="soft"))
        return
    legend = len(runs) <= _LEGEND_RUNS
    above = [] if legend else [element("div", curves_legend(_styled(runs, [[] for _ in runs])), class_="card")]
    charts = [
        element("div", curves_chart(title, unit, _styled(runs, points), legend=legend, zero=zero), class_="card")
        for title, unit, points, zero in _all_points(runs)
        if any(len(of_run) > 1 for of_run in points)
    ]
    yield element("section", element("h2", "Curves"), *above, element("div", *charts, class_="grid"))


def _styled(runs: Sequence[ReadRun], points: Sequence[Sequence[tuple[float, float]]]) -> list[Curve]:
    return [
        Curve(name=run.name, points=of_run, colour=colour, dash=dash)
        for run, of_run, (colour, dash) in zip(runs, points, group_styles([run.name for run in runs]), strict=True)
    ]


Points = list[list[tuple[float, float]]]


def _all_points(runs: Sequence[ReadRun]) -> Iterator[tuple[str, str, Points, bool]]:
    """(title, unit, points of each run, whether the axis begins at 0)."""

    def steps(value: Value) -> Points:
        return [_points(run.steps, value) for run in runs]

    yield "Loss", "nats a token, all labels", steps(lambda record: record["loss"]), False
    yield "Loss of inserted names", "nats a token", steps(lambda record: record.get("name_loss")), False
    for source in _sources(runs):
        yield (
            f"Loss: {source}",
            "nats a token of this source",
            steps(partial(_of_source, "source_losses", source)),
            False,
        )
        share = [_points(run.steps, partial(_source_share, source)) for run in runs]
        yield f"Tokens: {source}", "share of a step's tokens", share, True
    for name in _names(runs, _losses):
        points = [_points(run.evaluations, partial(_loss_of, name)) for run in runs]
        yield f"Evaluation: {name}", "bits per byte", points, False
    for name in _names(runs, _tasks):
        points = [_points(run.evaluations, partial(_score_of, name)) for run in runs]
        yield f"Task: {name}", f"{_metric(runs, name)}, 0 to 1", points, True
    yield "Learning rate", "after warmup and decay", steps(lambda record: record["learning_rate"]), True
    yield "Gradient norm", "before clipping", steps(lambda record: record["gradient_norm"]), False
    yield "Speed", "tokens a second", [_rates(run) for run in runs], True
    inserted = steps(lambda record: record["inserted_tokens"] / max(record["tokens"], 1))
    if any(y for points in inserted for _, y in points):
        yield "Inserted tokens", "share of a step's tokens, markers among them", inserted, True


def _sources(runs: Sequence[ReadRun]) -> list[str]:
    """The sources of runs that have several."""
    found = (record.get("source_tokens") or {} for run in runs for record in run.steps)
    return list(dict.fromkeys(source for of_step in found for source in of_step))


def _of_source(figure: str, source: str, record: Record) -> float | None:
    value: float | None = (record.get(figure) or {}).get(source)
    return value


def _source_share(source: str, record: Record) -> float | None:
    tokens = _of_source("source_tokens", source, record)
    return None if tokens is None else tokens / max(record["tokens"], 1)


def _points(records: Sequence[Record], value: Value) -> list[tuple[float, float]]:
    found = ((record["step"], value(record)) for record in records)
    return [(step, y) for step, y in found if y is not None]


def _losses(record: Record) -> dict[str, Mapping[str, Any]]:
    """The losses of an evaluation by the name of their texts."""
    first = {"validation": record["evaluation"]} if record.get("evaluation") else {}
    return {**first, **record.get("evaluations", {})}


def _tasks(record: Record) -> Mapping[str, Mapping[str, Any]]:
    tasks: Mapping[str, Mapping[str, Any]] = record.get("tasks", {})
    return tasks


def _names(runs: Sequence[ReadRun], what: Callable[[Record], Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for record in run.evaluations for name in what(record)))


def _loss_of(name: str, record: Record) -> float | None:
    found = _losses(record).get(name)
    return None if found is None else float(found["bits_per_byte"])


def _score_of(name: str, record: Record) -> float | None:
    found = _tasks(record).get(name)
    return None if found is None else float(found["score"])


def _metric(runs: Sequence[ReadRun], name: str) -> str:
    found = (_tasks(record).get(name) for run in runs for record in run.evaluations)
    return next(str(task["metric"]) for task in found if task is not None)


# ---- figures


def _figures(runs: Sequence[ReadRun]) -> Iterator[Html]:
    """The last evaluation of each text, and the last score of each task."""
    rows = [
        [name, "bits per byte", *(_shown(_last_of(run, name, _losses), "bits_per_byte") for run in runs)]
        for name in _names(runs, _losses)
    ]
    rows += [
        [name, "names, nats a token", *(_shown(_last_of(run, name, _losses), "nats_per_name_token") for run in runs)]
        for name in _names(runs, _losses)
        if any(_last_of(run, name, _losses).get("nats_per_name_token") is not None for run in runs)
    ]
    for name in _names(runs, _tasks):
        found = [_last_of(run, name, _tasks) for run in runs]
        one = next(task for task in found if task)
        chance = "" if one["chance"] is None else f", chance {one['chance']:.4f}"
        rows.append([name, f"{one['metric']}, {one['n']:,} items{chance}", *(_shown(task, "score") for task in found)])
    if rows:
        columns = ["evaluated on", "figure", *(Number(run.name) for run in runs)]
        yield section("Evaluations, the last of each", table("Evaluations", columns, rows))


def _last_of(run: ReadRun, name: str, what: Callable[[Record], Mapping[str, Any]]) -> Mapping[str, Any]:
    found = [what(record)[name] for record in run.evaluations if name in what(record)]
    return found[-1] if found else {}


def _shown(figures: Mapping[str, Any], name: str) -> str:
    value = figures.get(name)
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"


# ---- exposures


def _exposures(run: ReadRun, with_name: bool) -> Html:
    heading = f"Exposures of {run.name}" if with_name else "Exposures"
    try:
        plans, identity = plan_of_run(run.folder)
    except LeiaError as error:
        return section(heading, callout("Note", f"not counted: {error}"))
    parts: list[Html] = []
    for name, plan, counts in count_sources(plans, run.step * identity["batch"]):
        parts += [element("h3", name)] if plans.is_mixed else []
        parts += [element("p", _exposure_line(counts), class_="soft"), _exposures_of(heading, plan, counts)]
    return section(heading, *parts)


def _exposures_of(heading: str, plan: TrainingPlan, counts: Counts) -> Html:
    """How often links were seen, beside the names that were seen most."""
    entities = [
        [
            text_in(None, exposure.name),
            exposure.qid or "no item",
            *(f"{number:,}" for number in (exposure.occurrences, exposure.insertions, exposure.inserted_tokens)),
        ]
        for exposure in islice(by_entity(plan, counts), _MAX_ENTITIES)
    ]
    columns = ["seen most often", "item", *map(Number, ("times", "with its name", "tokens"))]
    names = table(f"{heading}: names seen most often", columns, entities)
    return element("div", element("div", exposure_bars(counts)), names, class_="beside")


def _exposure_line(counts: Counts) -> str:
    return (
        f"{counts.occurrences.sum():,} times a link with a name was in a row, {counts.insertions.sum():,} times with "
        f"the name inserted, which came to {counts.inserted_tokens.sum():,} tokens. Links of the shards by how often "
        "each was in a row:"
    )


def exposure_bars(counts: Counts) -> Html:
    """How many links were seen never, once, two or three times, and so on by powers of two."""
    bucket = np.where(counts.occurrences > 0, np.frexp(counts.occurrences.astype(np.float64))[1], 0)
    sizes = np.bincount(bucket) if len(bucket) else np.zeros(0, np.int64)
    largest = int(sizes.max()) if len(sizes) else 1
    return bars(
        Bar(
            label=_times(number),
            count=f"{size:,}",
            length=size / largest,
            share=percent(size / len(bucket)),
        )
        for number, size in enumerate(sizes.tolist())
        if size
    )


def _times(bucket: int) -> str:
    """
    >>> [_times(bucket) for bucket in range(4)]
    ['never', 'once', '2 to 3 times', '4 to 7 times']
    """
    low, high = 1 << max(0, bucket - 1), (1 << bucket) - 1
    return "never" if bucket == 0 else "once" if bucket == 1 else f"{low:,} to {high:,} times"


# ---- configuration, versions and what was said


def _configuration(runs: Sequence[ReadRun]) -> Iterator[Html]:
    """Of one run what is not the default, of several what differs; the rest is folded."""
    names = sorted({name for run in runs for name in run.identity})
    values = {name: [_value(run.identity.get(name), name) for run in runs] for name in names}
    if len(runs) > 1:
        chosen = [name for name in names if len(set(values[name])) > 1]
        columns, rest, said = ["option", *(run.name for run in runs)], "the same in all runs", "What differs"
    else:
        chosen = [name for name in names if values[name][0] != _DEFAULTS.get(name)]
        columns, rest, said = ["option", "value"], "at their defaults", "What was chosen"
    others = [name for name in names if name not in chosen]
    if chosen:
        yield table(said, columns, [[_option(name), *values[name]] for name in chosen])
    else:
        yield element("p", "These are runs of one configuration.", class_="soft")
    if others:
        folded = table(f"Options {rest}", ["option", "value"], [[_option(name), values[name][0]] for name in others])
        yield details(f"{len(others)} options {rest}", folded)


def _option(name: str) -> str:
    return "code (fingerprint)" if name == CODE else name.replace("_", "-")


def _value(value: Any, name: str = "") -> str:
    if name == _FINGERPRINT:
        return f"{str(value)[:16]}…"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value in ("", None) else str(value)


_DEFAULTS = {
    field.name: _value(list(field.default) if isinstance(field.default, tuple) else field.default)
    for group in (DataConfig, ModelConfig, OptimizationConfig)
    for field in fields(group)
    if field.default is not MISSING
}


def _versions(runs: Sequence[ReadRun]) -> Html:
    """One column where all runs have the same."""
    names = sorted({name for run in runs for name in run.versions})
    found = {name: [run.versions.get(name, "–") for run in runs] for name in names}
    if all(len(set(of_runs)) == 1 for of_runs in found.values()):
        return table("Versions", ["package", "version"], [[name, found[name][0]] for name in names])
    return table("Versions", ["package", *(run.name for run in runs)], [[name, *found[name]] for name in names])


def _log(run: ReadRun, with_name: bool) -> Html:
    heading = f"What {run.name} said" if with_name else "What the run said"
    lines = [line if level == "INFO" else f"{level.lower()}: {line}" for level, line in run.said[-_MAX_SAID:]]
    return section(heading, details(f"the last {len(lines)} of its own lines", bullets(lines)))

"""From the folders of runs to one self-contained page: curves over steps, figures, exposures, configuration, warnings.

All of it is read from what a run leaves behind, so a page can be made while it still trains, after it ended, or years later.
Several runs are drawn over each other; runs that differ in a final number alone (seeds) share a colour.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from leia_beam.errors import LeiaError, UsageError
from leia_beam.html_bars import Bar, bars, percent, short_count
from leia_beam.html_pages import Html, Number, bullets, callout, details, element, page, section, table, text_in, tiles
from leia_train.command_configs import ReportConfig
from leia_train.data_config import DataConfig
from leia_train.exposures import Counts, by_entity, count_sources, plan_of_run
from leia_train.files import disk_errors
from leia_train.model_config import ModelConfig
from leia_train.optimization_config import OptimizationConfig
from leia_train.plan import TrainingPlan
from leia_train.report_curves import curves_of
from leia_train.report_runs import (
    ReadRun,
    Record,
    distinct_names,
    losses_of,
    names_of,
    planned_steps,
    rates_of,
    read_folder,
    status_of,
    tasks_of,
    total_of,
    warnings_of,
)
from leia_train.runs import CODE, SOURCES

KIND = "LEIA · training"
REPORT_NAME = "report.html"
_MAX_CALLOUTS = 4
_FINGERPRINT = "data_fingerprint"
_MAX_SAID = 100
_MAX_ENTITIES = 15


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


def report_page(runs: Sequence[ReadRun], *, exposures: bool) -> str:
    """The page. Nothing in it is loaded from anywhere."""
    title = f"Training of {runs[0].name}" if len(runs) == 1 else f"Training of {len(runs)} runs"
    return page(
        title,
        *([_tiles(runs[0])] if len(runs) == 1 else [section("Runs", _runs(runs))]),
        *_warnings(runs),
        *curves_of(runs),
        *_figures(runs),
        *([_exposures(run, len(runs) > 1) for run in runs] if exposures else []),
        section("Configuration", *_configuration(runs)),
        section("Versions", _versions(runs)),
        *(_log(run, len(runs) > 1) for run in runs if run.said),
        kind=KIND,
    )


# ---- what is seen first


def _tiles(run: ReadRun) -> Html:
    facts = [
        ("status", status_of(run)),
        ("steps", f"{run.step:,} of {planned_steps(run):,}" if run.step < planned_steps(run) else f"{run.step:,}"),
        ("tokens", short_count(total_of(run, "tokens"))),
        ("inserted", percent(total_of(run, "inserted_tokens") / (total_of(run, "tokens") or 1))),
        ("last loss", _last(run, "loss")),
        ("tokens a second", _rate(run)),
        ("time", _duration(total_of(run, "seconds"))),
    ]
    if _rank(run):
        facts.insert(1, ("trained", _trained(run)))
    return tiles(facts)


def _runs(runs: Sequence[ReadRun]) -> Html:
    numbers = ("steps", "tokens", "inserted", "last loss", "names' last loss", "tokens a second", "time")
    adapted = any(map(_rank, runs))
    columns: list[str] = ["run", "status", *(["trained"] if adapted else []), "strategy"]
    columns += [Number(name) for name in ("seed", *numbers)]
    rows = [
        [
            run.name,
            status_of(run),
            *([_trained(run)] if adapted else []),
            _strategy(run),
            str(run.identity.get("seed", "–")),
            f"{run.step:,} of {planned_steps(run):,}" if run.step < planned_steps(run) else f"{run.step:,}",
            short_count(total_of(run, "tokens")),
            percent(total_of(run, "inserted_tokens") / (total_of(run, "tokens") or 1)),
            _last(run, "loss"),
            _last(run, "name_loss"),
            _rate(run),
            _duration(total_of(run, "seconds")),
        ]
        for run in runs
    ]
    return table("Runs", columns, rows)


def _rank(run: ReadRun) -> int:
    """Of the adapters that were trained; 0 where all weights were."""
    return int(run.identity.get("lora") or 0)


def _trained(run: ReadRun) -> str:
    rank = _rank(run)
    return f"adapters, rank {rank}" if rank else "all weights"


def _strategy(run: ReadRun) -> str:
    """Where names go, and which, where not the links' own."""
    strategy, names = str(run.identity.get("strategy", "–")), str(run.identity.get("names", "true"))
    return strategy if strategy in ("none", "–") or names == "true" else f"{strategy}, names {names}"


def _last(run: ReadRun, name: str) -> str:
    value = run.steps[-1].get(name) if run.steps else None
    return "–" if value is None else f"{value:.4f}"


def _rate(run: ReadRun) -> str:
    """The median over steps: the first ones are slow."""
    rates = [rate for _, rate in rates_of(run)]
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


def _warnings(runs: Sequence[ReadRun]) -> Iterator[Html]:
    """Each by itself where they are few, as one list where they are many."""
    lines = [f"{run.name}: {line}" if len(runs) > 1 else line for run in runs for line in warnings_of(run)]
    if len(lines) <= _MAX_CALLOUTS:
        yield from (callout("Warning", line) for line in lines)
    else:
        yield section(f"{len(lines)} warnings", bullets(lines))


# ---- figures


def _figures(runs: Sequence[ReadRun]) -> Iterator[Html]:
    """The last evaluation of each text, and the last score of each task."""
    rows = [
        [name, "bits per byte", *(_shown(_last_of(run, name, losses_of), "bits_per_byte") for run in runs)]
        for name in names_of(runs, losses_of)
    ]
    rows += [
        [name, "names, nats a token", *(_shown(_last_of(run, name, losses_of), "nats_per_name_token") for run in runs)]
        for name in names_of(runs, losses_of)
        if any(_last_of(run, name, losses_of).get("nats_per_name_token") is not None for run in runs)
    ]
    for name in names_of(runs, tasks_of):
        found = [_last_of(run, name, tasks_of) for run in runs]
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
    if name == SOURCES and isinstance(value, dict):
        return " ".join(f"{source} {sum_[:12]}…" for source, sum_ in sorted(value.items()))
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

"""From runs to the charts of all that is known over steps: losses, evaluations, scores, rates, speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from leia_beam.html_pages import Html, element, section
from leia_beam.svg_charts import Curve, curves_chart, curves_legend, group_styles
from leia_train.report_runs import ReadRun, Record, losses_of, names_of, rates_of, tasks_of

_LEGEND_RUNS = 3
"""Of more runs than these, one legend stands above all curves."""

Value = Callable[[Record], float | None]


def curves_of(runs: Sequence[ReadRun]) -> Iterator[Html]:
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
    for name in names_of(runs, losses_of):
        points = [_points(run.evaluations, partial(_loss_of, name)) for run in runs]
        yield f"Evaluation: {name}", "bits per byte", points, False
    for name in names_of(runs, tasks_of):
        points = [_points(run.evaluations, partial(_score_of, name)) for run in runs]
        yield f"Task: {name}", f"{_metric(runs, name)}, 0 to 1", points, True
    yield "Learning rate", "after warmup and decay", steps(lambda record: record["learning_rate"]), True
    yield "Gradient norm", "before clipping", steps(lambda record: record["gradient_norm"]), False
    yield "Speed", "tokens a second", [rates_of(run) for run in runs], True
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


def _loss_of(name: str, record: Record) -> float | None:
    found = losses_of(record).get(name)
    return None if found is None else float(found["bits_per_byte"])


def _score_of(name: str, record: Record) -> float | None:
    found = tasks_of(record).get(name)
    return None if found is None else float(found["score"])


def _metric(runs: Sequence[ReadRun], name: str) -> str:
    found = (tasks_of(record).get(name) for run in runs for record in run.evaluations)
    return next(str(task["metric"]) for task in found if task is not None)

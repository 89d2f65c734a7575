"""From a run's results to its report in Markdown and in self-contained HTML: no script, no font, no picture from elsewhere.

`run_html` gives a fragment, for another page to hold; `run_page` makes a page of it.
"""

from collections.abc import Sequence

from leia_beam.html_pages import Html, Number, Prose, bullets, joined, section, table
from leia_beam.svg_charts import interval_svg
from leia_eval.report_parts import (
    ITEMS_SHOWN,
    METRIC_NAMES,
    flags_line,
    interval_text,
    item_html,
    markdown_table,
    metric_name,
    page,
    percent,
    plain_markdown,
    share_text,
)
from leia_eval.run_folder import Json, Samples


def run_markdown(results: Json) -> str:
    """One run's scores as a Markdown table, with what they were computed from."""
    header = ["task", "items", "metric", "score [95 %]", "others", "chance", "ties"]
    rows = [
        [
            task["name"],
            _items(task),
            metric_name(task["metric"]),
            interval_text(*_ends(task["scores"][task["metric"]])),
            _others(task),
            share_text(task["chance"]),
            str(task["ties"]),
        ]
        for task in results["tasks"]
    ]
    return markdown_table(header, rows) + "\n" + "\n".join(plain_markdown(line) for line in _facts(results)) + "\n"


def run_page(results: Json, samples: Samples) -> str:
    """One run's scores as a page."""
    return page(f"Scores of {results['model']['name']}", run_html(results, samples))


def run_html(results: Json, samples: Samples) -> Html:
    """One run's scores as an HTML fragment, with the first items of each task."""
    columns = [
        "task",
        Number("items"),
        "metric",
        Number("score"),
        Number("95 %"),
        "0 to 100 %, chance marked",
        Number("chance"),
        Prose("others"),
    ]
    rows = []
    for task in results["tasks"]:
        value, low, high = _ends(task["scores"][task["metric"]])
        chance = task["chance"]
        rows.append([
            task["name"],
            _items(task),
            metric_name(task["metric"]),
            percent(value),
            f"{percent(low)} to {percent(high)}",
            interval_svg(low, value, high, mark=chance or 0.0, span=(0.0, 1.0)),
            share_text(chance),
            _others(task),
        ])  # fmt: skip
    scores = section("Scores", table("Scores by task", columns, rows), bullets(_facts(results)))
    return joined([scores, *(_first_items(task, samples[task["name"]][:ITEMS_SHOWN]) for task in results["tasks"])])


def _first_items(task: Json, rows: Sequence[Json]) -> Html:
    return section(f"First items of {task['name']}", *(item_html(row, language=task["language"]) for row in rows))


def _facts(results: Json) -> list[str]:
    model, options = results["model"], results["options"]
    shots = options["shots"] if options["shots"] is not None else "each task's own"
    seed = f" (seed {options['seed']})" if options["shots"] else ""
    lines = [
        f"Model {model['name']}: {_parameters(model)}, stored as {_joined(model['stored_dtypes'])}, "
        f"computed in {model['computed_dtype']} on {options['device']}, weights {model['weights_sha256'][:12]}.",
        f"Profile {options['profile']}. Shots: {shots}{seed}. Intervals: {results['interval']}. In a tie the first choice counts.",
    ]
    lines += [
        f"{task['name']}: {task['data_file']} (SHA-256 {task['data_sha256'][:12]}), "
        f"prompts {task['prompts_sha256'][:12]}, {task['shots']} shots{_from(task)}."
        + (f" {task['without_answer']} rows without an answer left out." if task["without_answer"] else "")
        + (f" {task['empty_choices']} items have an empty choice." if task["empty_choices"] else "")
        + (f" {task['cut']} items cut from the left to the context, as the reference does." if task["cut"] else "")
        + (f" {task['left_out']}." if task["left_out"] else "")
        + (" Made from Wikipedia." if task["from_wikipedia"] else "")
        + flags_line(task["flags"])
        for task in results["tasks"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(results["versions"].items()))
    return [*lines, f"Versions: {versions}."]


def _ends(score: Json) -> tuple[float, float, float]:
    return score["value"], score["low"], score["high"]


def _others(task: Json) -> str:
    others = [name for name in METRIC_NAMES if name in task["scores"]]
    others += sorted(set(task["scores"]) - set(others))
    return ", ".join(
        f"{metric_name(name)} {percent(task['scores'][name]['value'])}" for name in others if name != task["metric"]
    )


def _from(task: Json) -> str:
    return f" {task['shots_from']}" if task["shots"] and task["shots_from"] else ""


def _parameters(model: Json) -> str:
    return "parameters not counted" if model["parameters"] is None else f"{model['parameters']:,} parameters"


def _items(task: Json) -> str:
    return str(task["n"]) if task["n"] == task["items_in_file"] else f"{task['n']} of {task['items_in_file']}"


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names) or "an unstated dtype"

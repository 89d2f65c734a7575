"""From results to Markdown and to self-contained HTML: no script, no font, no picture from elsewhere.

Every text that comes from data, models or options goes through `html.escape`; in Markdown tables, bars and line ends
are escaped. The functions that end in _html give a fragment, for another page to hold; `page` makes a page of one.
"""

import html
from collections.abc import Iterable, Sequence

from leia_eval.run_folder import Json, Samples

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
.leia-eval table { border-collapse: collapse; margin: 1rem 0 }
.leia-eval th, .leia-eval td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left }
.leia-eval td.number { text-align: right; font-variant-numeric: tabular-nums }
.leia-eval .note { color: #555; font-size: 13px }
.leia-eval .right { color: #17663a } .leia-eval .wrong { color: #a02020 }
"""
_METRIC_NAMES = {
    "acc": "accuracy", "acc_norm": "per character", "acc_bytes": "per byte", "acc_pmi": "PMI",
    "exact_match": "exact match", "char_f1": "character F1",
    "jasquad_match": "JaSQuAD exact match", "jasquad_f1": "JaSQuAD word F1",
}  # fmt: skip
_FLAG_NAMES = {
    "wrong_script": "in the wrong script", "english_name": "with an English name",
    "marker": "with a marker", "no_end": "without an end",
}  # fmt: skip
_ITEMS_SHOWN = 5
_PLOT_WIDTH, _PLOT_HEIGHT = 180, 16


def run_markdown(results: Json) -> str:
    """One run's scores as a Markdown table, with what they were computed from."""
    header = ["task", "items", "metric", "score [95 %]", "others", "chance", "ties"]
    rows = [
        [
            task["name"],
            _items(task),
            _metric_name(task["metric"]),
            _interval(*_ends(task["scores"][task["metric"]])),
            _others(task),
            _share(task["chance"]),
            str(task["ties"]),
        ]
        for task in results["tasks"]
    ]
    return _markdown_table(header, rows) + "\n" + "\n".join(_plain_markdown(line) for line in _facts(results)) + "\n"


def run_html(results: Json, samples: Samples) -> str:
    """One run's scores as an HTML fragment, with the first items of each task."""
    header = ["task", "items", "metric", "score", "95 %", "0 to 100 %, chance marked", "others", "chance"]
    rows = []
    for task in results["tasks"]:
        value, low, high = _ends(task["scores"][task["metric"]])
        chance = task["chance"]
        rows.append([
            _cell(task["name"]),
            _cell(_items(task), number=True),
            _cell(_metric_name(task["metric"])),
            _cell(_percent(value), number=True),
            _cell(f"{_percent(low)} to {_percent(high)}", number=True),
            f"<td>{interval_svg(low, value, high, mark=chance or 0.0, span=(0.0, 1.0))}</td>",
            _cell(_others(task)),
            _cell(_share(chance), number=True),
        ])  # fmt: skip
    parts = [_html_table(header, rows), *(f'<p class="note">{html.escape(line)}</p>' for line in _facts(results))]
    for task in results["tasks"]:
        parts.append(f"<h3>First items of {html.escape(task['name'])}</h3>")
        parts += [_item_html(row) for row in samples[task["name"]][:_ITEMS_SHOWN]]
    return f'<section class="leia-eval">{"".join(parts)}</section>'


_COMPARISON_HEADER = ["task", "run", "against", "items", "metric", "n", "score", "against's", "difference [95 %]",
                      "p", "p (Holm)", "won", "lost", "detectable", "chance", "floor"]  # fmt: skip


def comparison_markdown(comparison: Json) -> str:
    """The primary endpoint, and all paired differences as a Markdown table."""
    rows = [_comparison_cells(row) for row in comparison["rows"]]
    notes = [*_comparison_facts(comparison), *comparison["notes"]]
    lines = [_plain_markdown(f"**Primary endpoint.** {line}") for line in _primary_lines(comparison)]
    table = _markdown_table(_COMPARISON_HEADER, rows)
    return (
        "".join(f"{line}\n\n" for line in lines)
        + table
        + "\n"
        + "\n".join(f"- {_plain_markdown(note)}" for note in notes)
        + "\n"
    )


def comparison_html(comparison: Json, samples: dict[str, Samples]) -> str:
    """The primary endpoint, a forest plot with its table, and the first items won and lost; `samples` by run."""
    reach = max([abs(row[end]) for row in comparison["rows"] for end in ("low", "high")] + [0.01])
    header = [*_COMPARISON_HEADER[:9], f"−{_percent(reach)} to +{_percent(reach)}", *_COMPARISON_HEADER[9:]]
    rows = []
    for row in comparison["rows"]:
        svg = interval_svg(row["low"], row["difference"], row["high"], mark=0.0, span=(-reach, reach))
        cells = [_cell(text, number=i >= 5) for i, text in enumerate(_comparison_cells(row))]
        rows.append([*cells[:9], f"<td>{svg}</td>", *cells[9:]])
    notes = [*_comparison_facts(comparison), *comparison["notes"]]
    parts = [f"<p><b>Primary endpoint.</b> {html.escape(line)}</p>" for line in _primary_lines(comparison)]
    parts += [_html_table(header, rows), *(f'<p class="note">{html.escape(note)}</p>' for note in notes)]
    for row in comparison["rows"]:
        if (
            row["metric"] in ("acc", "exact_match", "jasquad_match")
            and row["items"] == "all"
            and row["only_base"] is not None
        ):
            parts += _won_and_lost(row, samples)
    return f'<section class="leia-eval">{"".join(parts)}</section>'


def _comparison_cells(row: Json) -> list[str]:
    return [
        row["task"] + (" (regression)" if row["language"] == "en" else ""),
        row["run"],
        row["against"],
        row["items"],
        _metric_name(row["metric"]),
        str(row["n"]) if row["clusters"] == row["n"] else f"{row['n']} in {row['clusters']}",
        _percent(row["other"]),
        _percent(row["base"]),
        _interval(row["difference"], row["low"], row["high"], signed=True),
        f"{_p_value(row['p'])} ({row['test']})",
        _p_value(row["p_holm"]),
        _count(row["only_other"]),
        _count(row["only_base"]),
        _detectable(row),
        _share(row["chance"]),
        _share(row["floor"]),
    ]


def _primary_lines(comparison: Json) -> list[str]:
    row = comparison["primary"]
    if row is None:
        return []
    metric = _metric_name(row["metric"]) if row["metric"] else "each task's first metric"
    return [
        f"{row['arm']} minus {row['against']}, {metric}, mean over {', '.join(row['tasks'])}: "
        f"{_interval(row['difference'], row['low'], row['high'], signed=True)} points, p {_p_value(row['p'])}; "
        f"{row['seeds'][1]} and {row['seeds'][0]} checkpoints; detectable {_percent(row['detectable'])}."
    ]


def page(title: str, fragment: str) -> str:
    """A page that holds `fragment`."""
    escaped = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escaped}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{escaped}</h1>\n{fragment}\n</body></html>\n"
    )


def interval_svg(low: float, value: float, high: float, *, mark: float, span: tuple[float, float]) -> str:
    """A line from `low` to `high` with a dot at `value`, and a tick at `mark`, on an axis over `span`."""

    def x(at: float) -> float:
        inside = min(max(at, span[0]), span[1])
        return round(4 + (_PLOT_WIDTH - 8) * (inside - span[0]) / (span[1] - span[0]), 1)

    middle = _PLOT_HEIGHT / 2
    return (
        f'<svg width="{_PLOT_WIDTH}" height="{_PLOT_HEIGHT}" role="img">'
        f'<line x1="{x(mark)}" x2="{x(mark)}" y1="0" y2="{_PLOT_HEIGHT}" stroke="#999" stroke-dasharray="2 2"/>'
        f'<line x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}" stroke="#2a5d9f" stroke-width="2"/>'
        f'<circle cx="{x(value)}" cy="{middle}" r="3.5" fill="#2a5d9f"/></svg>'
    )


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
        + _flags_line(task["flags"])
        for task in results["tasks"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(results["versions"].items()))
    return [*lines, f"Versions: {versions}."]


def _comparison_facts(comparison: Json) -> list[str]:
    return [
        f"Differences in points, run minus against; paired bootstrap over items, or over clusters of them where there are "
        f"any, {comparison['resamples']:,} resamples, seed {comparison['seed']}, with the variance between an arm's "
        "checkpoints added where it has several (Student's t); exact McNemar test for single pairs, two-sided.",
        "Detectable: the least difference found with 80 % power at this n and spread.",
        *(
            f"{task}, {run}: {_flags_line(shares).strip()}"
            for task, of_runs in comparison["flags"].items()
            for run, shares in of_runs.items()
        ),
        *(f"{task} is made from Wikipedia." for task, facts in comparison["tasks"].items() if facts["from_wikipedia"]),
    ]


def _flags_line(shares: Json | None) -> str:
    if not shares:
        return ""
    return (
        " Of the answers, in percent: "
        + ", ".join(f"{name} {_percent(shares[flag])}" for flag, name in _FLAG_NAMES.items())
        + "."
    )


def _won_and_lost(row: Json, samples: dict[str, Samples]) -> Iterable[str]:
    base_name, run_name = row["against"], row["run"]
    base = {sample["id"]: sample for sample in samples[base_name][row["task"]]}
    other = {sample["id"]: sample for sample in samples[run_name][row["task"]]}
    for title, ids in (
        (f"{row['task']}: only {run_name} right", row["only_other_ids"]),
        (f"{row['task']}: only {base_name} right", row["only_base_ids"]),
    ):
        if ids:
            yield f"<h3>{html.escape(title)} ({len(ids)} items, the first {min(len(ids), _ITEMS_SHOWN)})</h3>"
        for item in ids[:_ITEMS_SHOWN]:
            yield _item_html(base[item], ((base_name, base[item]), (run_name, other[item])))


def _item_html(row: Json, said: Sequence[tuple[str, Json]] | None = None) -> str:
    said = said or (("model", row),)
    lines = [f'<span class="note">{html.escape(row["id"])}</span> {html.escape(_shown(row["stem"]))}']
    if "choices" in row:
        lines.append(" · ".join(
            f"<b>{html.escape(label)}</b> {html.escape(text)}"
            for label, text in zip(row["labels"], row["choices"], strict=True)
        ))  # fmt: skip
    gold = row["answer"] if "answer" in row else " | ".join(row.get("answers", ()))
    answers = " · ".join(
        f'<span class="{_verdict(of_run)}">{html.escape(name)}: {html.escape(_shown(str(of_run.get("prediction", ""))))}</span>'
        for name, of_run in said
    )
    lines.append(f"answer {html.escape(gold)} · {answers}")
    return f"<p>{'<br>'.join(lines)}</p>"


def _verdict(row: Json) -> str:
    return "right" if row.get("acc", row.get("jasquad_match", row.get("exact_match"))) else "wrong"


def _metric_name(metric: str) -> str:
    return _METRIC_NAMES.get(metric, metric)


def _ends(score: Json) -> tuple[float, float, float]:
    return score["value"], score["low"], score["high"]


def _others(task: Json) -> str:
    others = [name for name in _METRIC_NAMES if name in task["scores"]]
    others += sorted(set(task["scores"]) - set(others))
    return ", ".join(
        f"{_metric_name(name)} {_percent(task['scores'][name]['value'])}" for name in others if name != task["metric"]
    )


def _from(task: Json) -> str:
    return f" {task['shots_from']}" if task["shots"] and task["shots_from"] else ""


def _parameters(model: Json) -> str:
    return "parameters not counted" if model["parameters"] is None else f"{model['parameters']:,} parameters"


def _share(share: float | None) -> str:
    return "–" if share is None else _percent(share)


def _count(count: int | None) -> str:
    return "–" if count is None else str(count)


def _shown(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _items(task: Json) -> str:
    return str(task["n"]) if task["n"] == task["items_in_file"] else f"{task['n']} of {task['items_in_file']}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(value: float, low: float, high: float, *, signed: bool = False) -> str:
    form = "+.1f" if signed else ".1f"
    return f"{100 * value:{form}} [{100 * low:{form}}, {100 * high:{form}}]"


def _p_value(p: float) -> str:
    return f"{p:.1e}" if p < 0.0001 else f"{p:.4f}"


def _detectable(row: Json) -> str:
    return "none" if row["detectable"] is None else _percent(row["detectable"])


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names) or "an unstated dtype"


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(_plain_markdown(cell) for cell in line) + " |\n" for line in lines)


def _plain_markdown(text: str) -> str:
    """Text that cannot end a table's cell or line, nor be taken for HTML."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def _html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(text: str, *, number: bool = False) -> str:
    return f"<td{' class=number' if number else ''}>{html.escape(text)}</td>"

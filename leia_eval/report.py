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
_METRIC_NAMES = {"acc": "accuracy", "acc_norm": "per character", "acc_bytes": "per byte"}
_ITEMS_SHOWN = 5
_PLOT_WIDTH, _PLOT_HEIGHT = 180, 16


def run_markdown(results: Json) -> str:
    """One run's scores as a Markdown table, with what they were computed from."""
    header = ["task", "items", "accuracy [95 %]", "per character", "per byte", "chance", "ties"]
    rows = [
        [
            task["name"],
            _items(task),
            _interval(task["acc"]["value"], task["acc"]["low"], task["acc"]["high"]),
            _percent(task["acc_norm"]["value"]),
            _percent(task["acc_bytes"]["value"]),
            _percent(task["chance"]),
            str(task["ties"]),
        ]
        for task in results["tasks"]
    ]
    return _markdown_table(header, rows) + "\n" + "\n".join(_plain_markdown(line) for line in _facts(results)) + "\n"


def run_html(results: Json, samples: Samples) -> str:
    """One run's scores as an HTML fragment, with the first items of each task."""
    header = ["task", "items", "accuracy", "95 %", "0 to 100 %, chance marked", "per character", "per byte", "chance"]
    rows = []
    for task in results["tasks"]:
        acc = task["acc"]
        rows.append([
            _cell(task["name"]),
            _cell(_items(task), number=True),
            _cell(_percent(acc["value"]), number=True),
            _cell(f"{_percent(acc['low'])} to {_percent(acc['high'])}", number=True),
            f"<td>{interval_svg(acc['low'], acc['value'], acc['high'], mark=task['chance'], span=(0.0, 1.0))}</td>",
            _cell(_percent(task["acc_norm"]["value"]), number=True),
            _cell(_percent(task["acc_bytes"]["value"]), number=True),
            _cell(_percent(task["chance"]), number=True),
        ])  # fmt: skip
    parts = [_html_table(header, rows), *(f'<p class="note">{html.escape(line)}</p>' for line in _facts(results))]
    for task in results["tasks"]:
        parts.append(f"<h3>First items of {html.escape(task['name'])}</h3>")
        parts += [_item_html(row) for row in samples[task["name"]][:_ITEMS_SHOWN]]
    return f'<section class="leia-eval">{"".join(parts)}</section>'


def comparison_markdown(comparison: Json) -> str:
    """Paired differences as a Markdown table."""
    header = ["task", "run", "metric", "n", comparison["base"], "run's", "difference [95 %]", "p (McNemar)",
              "only base right", "only run right", "detectable", "chance"]  # fmt: skip
    rows = [
        [
            row["task"],
            row["run"],
            _METRIC_NAMES[row["metric"]],
            str(row["n"]),
            _percent(row["base"]),
            _percent(row["other"]),
            _interval(row["difference"], row["low"], row["high"], signed=True),
            _p_value(row["p_mcnemar"]),
            str(row["only_base"]),
            str(row["only_other"]),
            _detectable(row),
            _percent(row["chance"]),
        ]
        for row in comparison["rows"]
    ]
    notes = [*_comparison_facts(comparison), *comparison["notes"]]
    return _markdown_table(header, rows) + "\n" + "\n".join(f"- {_plain_markdown(note)}" for note in notes) + "\n"


def comparison_html(comparison: Json, samples: dict[str, Samples]) -> str:
    """Paired differences as an HTML fragment, with the first items won and lost; `samples` by run and task."""
    reach = max([abs(row[end]) for row in comparison["rows"] for end in ("low", "high")] + [0.01])
    header = ["task", "run", "metric", "n", comparison["base"], "run's", "difference",
              f"95 %, −{_percent(reach)} to +{_percent(reach)}", "p (McNemar)", "only base right", "only run right",
              "detectable", "chance"]  # fmt: skip
    rows = []
    for row in comparison["rows"]:
        svg = interval_svg(row["low"], row["difference"], row["high"], mark=0.0, span=(-reach, reach))
        rows.append([
            _cell(row["task"]),
            _cell(row["run"]),
            _cell(_METRIC_NAMES[row["metric"]]),
            _cell(str(row["n"]), number=True),
            _cell(_percent(row["base"]), number=True),
            _cell(_percent(row["other"]), number=True),
            _cell(_interval(row["difference"], row["low"], row["high"], signed=True), number=True),
            f"<td>{svg}</td>",
            _cell(_p_value(row["p_mcnemar"]), number=True),
            _cell(str(row["only_base"]), number=True),
            _cell(str(row["only_other"]), number=True),
            _cell(_detectable(row), number=True),
            _cell(_percent(row["chance"]), number=True),
        ])  # fmt: skip
    notes = [*_comparison_facts(comparison), *comparison["notes"]]
    parts = [_html_table(header, rows), *(f'<p class="note">{html.escape(note)}</p>' for note in notes)]
    for row in comparison["rows"]:
        if row["metric"] == "acc":
            parts += _won_and_lost(row, comparison["base"], samples)
    return f'<section class="leia-eval">{"".join(parts)}</section>'


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
    seed = f" (seed {options['seed']})" if options["shots"] else ""
    lines = [
        f"Model {model['name']}: {model['parameters']:,} parameters, stored as {_joined(model['stored_dtypes'])}, "
        f"computed in {model['computed_dtype']} on {options['device']}, weights {model['weights_sha256'][:12]}.",
        f"Shots: {options['shots']}{seed}. Intervals: {results['interval']}. In a tie the first choice counts.",
    ]
    lines += [
        f"{task['name']}: {task['data_file']} (SHA-256 {task['data_sha256'][:12]}), "
        f"prompts {task['prompts_sha256'][:12]}."
        for task in results["tasks"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return [*lines, f"Versions: {versions}."]


def _comparison_facts(comparison: Json) -> list[str]:
    return [
        f"Differences in points, run minus {comparison['base']}; paired bootstrap over items, "
        f"{comparison['resamples']:,} resamples, seed {comparison['seed']}; exact McNemar test, two-sided.",
        "Detectable: the least difference found with 80 % power at this n and share of items that only one got right.",
    ]


def _won_and_lost(row: Json, base_name: str, samples: dict[str, Samples]) -> Iterable[str]:
    base = {sample["id"]: sample for sample in samples[base_name][row["task"]]}
    other = {sample["id"]: sample for sample in samples[row["run"]][row["task"]]}
    for title, ids in (
        (f"{row['task']}: only {row['run']} right", row["only_other_ids"]),
        (f"{row['task']}: only {base_name} right", row["only_base_ids"]),
    ):
        if ids:
            yield f"<h3>{html.escape(title)} ({len(ids)} items, the first {min(len(ids), _ITEMS_SHOWN)})</h3>"
        for item in ids[:_ITEMS_SHOWN]:
            said = ((base_name, base[item]["prediction"]), (row["run"], other[item]["prediction"]))
            yield _item_html(base[item], said)


def _item_html(row: Json, said: Sequence[tuple[str, str]] | None = None) -> str:
    said = said or (("model", row["prediction"]),)
    choices = " · ".join(
        f"<b>{html.escape(label)}</b> {html.escape(text)}"
        for label, text in zip(row["labels"], row["choices"], strict=True)
    )
    answers = " · ".join(
        f'<span class="{_verdict(label, row)}">{html.escape(name)}: {html.escape(label)}</span>' for name, label in said
    )
    return (
        f'<p><span class="note">{html.escape(row["id"])}</span> {html.escape(row["stem"])}<br>{choices}<br>'
        f"answer {html.escape(row['answer'])} · {answers}</p>"
    )


def _verdict(label: str, row: Json) -> str:
    return "right" if label == row["answer"] else "wrong"


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

"""Pieces of reports: numbers as text, tables in Markdown and HTML, an interval drawn, an item, a whole page.

Every text that comes from data, models or options goes through `html.escape`; in Markdown tables, bars and line ends
are escaped.
"""

import html
from collections.abc import Iterable, Sequence

from leia_eval.run_folder import Json

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
.leia-eval .wide { overflow-x: auto }
.leia-eval table { border-collapse: collapse; margin: 1rem 0; font-size: 14px }
.leia-eval th, .leia-eval td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left }
.leia-eval td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.leia-eval .note { color: #555; font-size: 13px }
.leia-eval .right { color: #17663a } .leia-eval .wrong { color: #a02020 }
"""
METRIC_NAMES = {
    "acc": "accuracy", "acc_norm": "per character", "acc_bytes": "per byte", "acc_pmi": "PMI",
    "exact_match": "exact match", "char_f1": "character F1",
    "jasquad_match": "JaSQuAD exact match", "jasquad_f1": "JaSQuAD word F1",
}  # fmt: skip
_FLAG_NAMES = {
    "wrong_script": "in the wrong script", "english_name": "with an English name",
    "marker": "with a marker", "no_end": "without an end",
}  # fmt: skip
ITEMS_SHOWN = 5
_PLOT_WIDTH, _PLOT_HEIGHT = 180, 16


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
        f'<line x1="{x(mark)}" x2="{x(mark)}" y1="0" y2="{_PLOT_HEIGHT}" stroke="#777"/>'
        f'<line x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}" stroke="#2a5d9f" stroke-width="2"/>'
        f'<circle cx="{x(value)}" cy="{middle}" r="3.5" fill="#2a5d9f"/></svg>'
    )


def item_html(row: Json, said: Sequence[tuple[str, Json]] | None = None) -> str:
    """An item with its choices, the right answer, and what each of `said` (name, sample) answered."""
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


def metric_name(metric: str) -> str:
    """A metric as a reader knows it."""
    return METRIC_NAMES.get(metric, metric)


def flags_line(shares: Json | None) -> str:
    """What was wrong with generated answers, as a sentence; empty where nothing was generated."""
    if not shares:
        return ""
    return (
        " Of the answers, in percent: "
        + ", ".join(f"{name} {percent(shares[flag])}" for flag, name in _FLAG_NAMES.items())
        + "."
    )


def _shown(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def share_text(share: float | None) -> str:
    """A share in percent, or a dash."""
    return "–" if share is None else percent(share)


def percent(share: float) -> str:
    """A share in percent with one decimal."""
    return f"{100 * share:.1f}"


def interval_text(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """A value with its interval, in percent."""
    form = "+.1f" if signed else ".1f"
    return f"{100 * value:{form}} [{100 * low:{form}}, {100 * high:{form}}]"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(plain_markdown(cell) for cell in line) + " |\n" for line in lines)


def plain_markdown(text: str) -> str:
    """Text that cannot end a table's cell or line, nor be taken for HTML."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table of finished cells."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def cell(text: str, *, number: bool = False) -> str:
    """A cell of escaped text."""
    return f"<td{' class=number' if number else ''}>{html.escape(text)}</td>"

"""From the demo's results to one self-contained HTML page: funnel, articles with their names, losses, scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from leia_beam.funnel import FunnelStep, funnel
from leia_beam.manifest import Manifest, read_manifest
from leia_beam.tables import read_rows

ARTICLES_SHOWN = {"jawiki": ("東京", "アポロ11号"), "eswiki": ("Madrid",)}
MAX_TOKENS_SHOWN = 220
COLOURS = {"plain": "var(--plain)", "leia": "var(--leia)"}

_STYLE = """
:root { color-scheme: light dark; --ink:#1c1b22; --soft:#6b6875; --paper:#fbfaf7; --card:#fff; --line:#e3dfd6;
        --leia:#c2410c; --leia-bg:#ffe8d6; --anchor:#0b6b5d; --plain:#4361a8; --token:#efece4; }
@media (prefers-color-scheme: dark) { :root { --ink:#ece9e2; --soft:#a19d94; --paper:#17161a; --card:#201f25; --line:#38363f;
        --leia:#ff9f68; --leia-bg:#4a2a17; --anchor:#6ad3bf; --plain:#8fb0ff; --token:#2a2930; } }
* { box-sizing: border-box } body { margin:0; background:var(--paper); color:var(--ink);
        font:16px/1.6 system-ui, "Noto Sans", "Noto Sans CJK JP", sans-serif }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1rem 4rem } h1 { font-size:1.7rem; margin:0 } h2 { margin:2.4rem 0 .6rem }
h3 { margin:1rem 0 .3rem; font-size:1rem } p.lead { color:var(--soft); margin:.3rem 0 0 }
section.card { background:var(--card); border:1px solid var(--line); border-radius:.7rem; padding:1rem 1.2rem; margin:.8rem 0;
        overflow-wrap:anywhere }
.scroll { overflow-x:auto } table { border-collapse:collapse; width:100% } th,td { text-align:left; padding:.3rem .6rem;
        border-bottom:1px solid var(--line); vertical-align:top; overflow-wrap:normal } td:first-child { white-space:nowrap }
td.n, th.n { text-align:right; font-variant-numeric:tabular-nums }
.bar { height:.7rem; background:var(--plain); border-radius:.3rem; min-width:2px } .soft { color:var(--soft); font-size:.88rem }
.t { background:var(--token); border-radius:.2rem; margin-right:1px } .t.a { color:var(--anchor); font-weight:600 }
.name { color:var(--leia); background:var(--leia-bg); border-radius:.3rem; padding:0 .15rem; margin:0 1px }
.name .t { background:none; border-bottom:2px solid var(--leia); border-radius:0 } .m { opacity:.65; font-size:.8em }
.article { line-height:2 } code, pre { font-family:ui-monospace, monospace; font-size:.85rem }
pre { white-space:pre-wrap; overflow-wrap:anywhere; margin:0 } svg { max-width:100%; height:auto } a { color:var(--anchor) }
.key { display:inline-block; width:1rem; height:.25rem; vertical-align:middle; margin-right:.3rem }
"""


def demo_page(
    *,
    builds: Mapping[str, Path],
    metrics: Mapping[str, Sequence[Mapping[str, float]]],
    results: Mapping[str, Mapping[str, Any]],
    comparison: Path,
    commands: Sequence[str],
    elapsed_s: float,
) -> str:
    """The page as HTML. `builds` maps a wiki to its build's folder; `metrics` and `results` an arm to its outcome."""
    parts = [
        "<h1>LEIA, end to end</h1>",
        "<p class=lead>Two small wikis and a Wikidata, from dumps to shards, two tiny models from random weights, and their "
        f"scores, in {elapsed_s:.0f} seconds on this machine.</p>",
        "<h2>What became of the links</h2>",
        *(_funnel_html(wiki, folder) for wiki, folder in builds.items()),
        "<h2>Three articles as the model reads them</h2>",
        "<p class=soft>Each shaded piece is a token. A <span class='t a'>link</span> is followed by the English name of "
        "its entity, between two markers: <span class=name><span class=m>&lt;translate&gt;</span><span class=t> Name</span>"
        "<span class=m>&lt;/translate&gt;</span></span>. In training a name is inserted with probability ½; here all are.</p>",
        *(_article_html(builds[wiki], title) for wiki, titles in ARTICLES_SHOWN.items() for title in titles),
        "<h2>Training</h2>",
        f"<section class=card>{_loss_svg(metrics)}</section>",
        "<h2>Scores</h2>",
        _scores_html(results),
        f"<p class=soft>Whole reports: {_report_links(results)}.</p>",
        "<h2>The two models, item by item</h2>",
        f"<section class=card><div class=scroll>{_comparison_html(comparison)}</div></section>",
        "<h2>How to do this yourself</h2>",
        f"<section class=card><pre>{escape(chr(10).join(commands))}</pre></section>",
    ]
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>LEIA demo</title><style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _funnel_html(wiki: str, folder: Path) -> str:
    steps = funnel(read_manifest(folder / "articles").counters, read_manifest(folder / "shards").counters)
    widest = max(step.count for step in steps)
    rows = "".join(_funnel_row(step, widest) for step in steps)
    return (
        f"<section class=card><h3>{escape(wiki)}</h3><div class=scroll><table><tr><th>step<th class=n>count<th>"
        f"<th>dropped before it, by reason</tr>{rows}</table></div></section>"
    )


def _funnel_row(step: FunnelStep, widest: int) -> str:
    reasons = sorted(step.dropped.items(), key=lambda item: -item[1])
    dropped = ", ".join(f"{escape(reason)} {count:,}" for reason, count in reasons if count)
    width = 100 * step.count / widest
    return (
        f"<tr><td>{escape(step.name)}<td class=n>{step.count:,}<td style='width:30%'><div class=bar "
        f"style='width:{width:.1f}%'></div><td class=soft>{dropped}</tr>"
    )


def _article_html(build: Path, title: str) -> str:
    shards = build / "shards"
    manifest = read_manifest(shards)
    tokenizer = Tokenizer.from_file(str(shards / manifest.details["tokenizer"]["path"]))
    row = _row_of(shards, manifest, title)
    pieces = "".join(_pieces(row, tokenizer))
    return f"<section class=card><h3>{escape(title)}</h3><div class=article>{pieces} …</div></section>"


def _row_of(shards: Path, manifest: Manifest, title: str) -> dict[str, Any]:
    for file in manifest.files_of("train"):
        for row in read_rows(str(shards / file.path)):
            if row["title"] == title:
                return row
    raise LookupError(f"{shards}: no article {title!r}")


def _pieces(row: Mapping[str, Any], tokenizer: Tokenizer) -> Iterator[str]:
    """The first tokens of an article with the names inserted after their anchors, as HTML."""
    ids, at = row["input_ids"], 0
    spans = zip(
        row["entity_start_positions"],
        row["entity_end_positions"],
        row["alternative_entity_input_ids"],
        row["entity_edges"],
        strict=True,
    )
    for start, end, name_ids, edge in spans:
        if end > MAX_TOKENS_SHOWN:
            break
        if "end refused" in edge:
            continue
        yield from _tokens(ids[at:start], tokenizer)
        yield from _tokens(ids[start:end], tokenizer, "a")
        name = "".join(_tokens(name_ids, tokenizer))
        yield f"<span class=name><span class=m>&lt;translate&gt;</span>{name}<span class=m>&lt;/translate&gt;</span></span>"
        at = end
    yield from _tokens(ids[at : max(at, MAX_TOKENS_SHOWN)], tokenizer)


def _tokens(ids: Sequence[int], tokenizer: Tokenizer, kind: str = "") -> Iterator[str]:
    """Each token as a span; tokens that are parts of one character are shown together."""
    pending: list[int] = []
    for token_id in ids:
        pending.append(token_id)
        text = tokenizer.decode(pending, skip_special_tokens=False)
        if "\ufffd" in text:
            continue
        shown = escape(text).replace("\n", "<br>")
        yield f"<span class='t {kind}'>{shown}</span>" if shown != "<br>" else shown
        pending.clear()


def _loss_svg(metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    width, height, left, bottom = 720, 260, 46, 30
    losses = [row["loss"] for rows in metrics.values() for row in rows]
    last_step = max(row["step"] for rows in metrics.values() for row in rows)
    low, high = min(losses), max(losses)
    span = (high - low) or 1.0

    def place(row: Mapping[str, float]) -> str:
        x = left + (width - left - 10) * (row["step"] - 1) / max(1, last_step - 1)
        y = 10 + (height - bottom - 10) * (high - row["loss"]) / span
        return f"{x:.1f},{y:.1f}"

    lines = "".join(
        f"<polyline fill=none stroke='{COLOURS[arm]}' stroke-width=2 points='{' '.join(map(place, rows))}'/>"
        for arm, rows in metrics.items()
    )
    grid = "".join(
        f"<line x1={left} x2={width - 10} y1={y:.0f} y2={y:.0f} stroke='var(--line)'/>"
        f"<text x={left - 6} y={y + 4:.0f} text-anchor=end font-size=12 fill='var(--soft)'>{value:.2f}</text>"
        for value, y in ((high - span * k / 4, 10 + (height - bottom - 10) * k / 4) for k in range(5))
    )
    key = " ".join(
        f"<span><i class=key style='background:{COLOURS[arm]}'></i>{escape(arm)}: {rows[0]['loss']:.3f} → "
        f"{rows[-1]['loss']:.3f}</span>"
        for arm, rows in metrics.items()
    )
    return (
        f"<svg viewBox='0 0 {width} {height}' role=img aria-label='loss by step'>{grid}{lines}"
        f"<text x={(left + width) / 2:.0f} y={height - 6} text-anchor=middle font-size=12 fill='var(--soft)'>"
        f"step (1 to {last_step:.0f}); cross-entropy a token, natural logarithm</text></svg><p class=soft>{key}</p>"
    )


def _scores_html(results: Mapping[str, Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(arm)}<td>{escape(name)}<td class=n>{task['n']}<td class=n>{100 * score['value']:.1f} %"
        f"<td class=n>{100 * score['low']:.1f} to {100 * score['high']:.1f}<td class=n>{100 * task['chance']:.1f} %</tr>"
        for arm, result in results.items()
        for name, task, score in _scores(result)
    )
    return (
        "<section class=card><div class=scroll><table><tr><th>arm<th>task<th class=n>items<th class=n>accuracy"
        f"<th class=n>95 % interval<th class=n>chance</tr>{rows}</table></div><p class=soft>A model of this size, trained for "
        "seconds from random weights, knows nothing: expect chance. The intervals say how little so few items can "
        "tell.</p></section>"
    )


def _report_links(arms: Iterable[str]) -> str:
    """Links to the reports beside the page."""
    pages = {**{arm: f"eval/{arm}/report.html" for arm in arms}, "comparison": "eval/comparison/comparison.html"}
    return " · ".join(f"<a href='{escape(path)}'>{escape(name)}</a>" for name, path in pages.items())


def _comparison_html(comparison: Path) -> str:
    """The comparison's own report, from its file and the samples of the runs beside it."""
    from leia_eval.comparison_report import comparison_html
    from leia_eval.run_folder import read_run

    found = json.loads(comparison.read_bytes())
    samples = {name: read_run(comparison.parents[1] / name).samples for name in found["runs"]}
    return comparison_html(found, samples)


def _scores(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    for task in result["tasks"]:
        yield task["name"], task, task["scores"]["acc"]

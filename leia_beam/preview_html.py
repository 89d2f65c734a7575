"""From articles to one self-contained page: names beside their links, reasons as tooltips, light and dark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from leia_beam.alignment import EXACT, EXPANDED
from leia_beam.preview import Segment, ShownArticle
from leia_beam.terminal_text import escaped_html

_STYLE = """
:root { color-scheme: light dark; --text: #1d2126; --soft: #5c6670; --line: #d5dae0; --page: #ffffff; --card: #f6f8fa;
  --name: #0a6b3d; --name-back: #dff3e7; --part: #8a5300; --part-back: #fdf0d5; --none: #a02c2c; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e7eb; --soft: #9aa5b1; --line: #38414a; --page: #14181c;
  --card: #1c2228; --name: #86e0ae; --name-back: #17372a; --part: #f0c070; --part-back: #3d2f14; --none: #f09a9a; } }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 52rem; background: var(--page); color: var(--text);
  font: 1rem/1.75 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; line-height: 1.3; } h2 { font-size: 1.2rem; line-height: 1.3; margin: 0 0 .25rem; }
article { border: 1px solid var(--line); border-radius: .5rem; background: var(--card); padding: 1rem 1.25rem; margin: 1.25rem 0; }
p.facts, .key, nav { color: var(--soft); font-size: .875rem; margin: 0 0 .75rem; }
.text { white-space: pre-wrap; }
.link { text-decoration: underline; text-decoration-color: var(--name); text-underline-offset: .2em; }
.none { text-decoration: underline dotted var(--none); text-underline-offset: .2em; }
.name { background: var(--name-back); color: var(--name); border-radius: .25rem; padding: 0 .3em; margin: 0 .1em; font-size: .9em; }
.part { background: var(--part-back); color: var(--part); }
details { margin-top: .75rem; font-size: .875rem; } summary { cursor: pointer; color: var(--soft); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: start; padding: .15rem .75rem .15rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; }
.tokens span { border: 1px solid var(--line); border-radius: .2rem; padding: 0 .15em; margin: 0 .1em; white-space: pre-wrap; }
a { color: inherit; }
"""


def preview_page(articles: Sequence[ShownArticle], title: str) -> str:
    """The page. Nothing in it is loaded from anywhere."""
    entries = "".join(f'<a href="#a{number}">{escaped_html(each.title)}</a> · ' for number, each in enumerate(articles))
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{escaped_html(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escaped_html(title)}</h1>",
            '<p class="key"><span class="link">link</span><bdi class="name">its name</bdi> · '
            '<span class="link">link</span><bdi class="name part">name that not every strategy inserts</bdi> · '
            '<span class="none" title="the reason">link without a name</span></p>',
            f"<nav>{entries.removesuffix(' · ')}</nav>",
            *(line for number, article in enumerate(articles) for line in _article(article, number)),
            "</body></html>\n",
        ]
    )


def _article(article: ShownArticle, number: int) -> Iterator[str]:
    unnamed = article.unnamed
    item = article.qid or "no item"
    flags = "".join(f", {escaped_html(flag)}" for flag in article.flags)
    yield f'<article id="a{number}"><h2 dir="auto">{escaped_html(article.title)}</h2>'
    yield (
        f'<p class="facts">{escaped_html(article.wiki)}, page {article.page_id}, {escaped_html(item)}: '
        f"{article.token_count:,} tokens, {article.names:,} names, links without a name: {len(unnamed):,}{flags}</p>"
    )
    yield f'<div class="text" dir="auto">{"".join(map(_segment, article.segments))}</div>'
    if unnamed:
        yield from _unnamed(unnamed)
    if article.tokens is not None:
        pieces = "".join(f'<span title="{token_id}">{escaped_html(piece)}</span>' for token_id, piece in article.tokens)
        yield f'<details><summary>tokens</summary><div class="tokens" dir="auto">{pieces}</div></details>'
    yield "</article>"


def _segment(segment: Segment) -> str:
    text = escaped_html(segment.text)
    if not segment.is_link:
        return text
    if segment.name is None:
        return f'<span class="none" title="{escaped_html(segment.reason or "")}">{text}</span>'
    kind = "name" if segment.edge in (EXACT, EXPANDED) else "name part"
    about = ", ".join(part for part in (segment.qid, segment.name_language, segment.edge) if part)
    name = f'<bdi class="{kind}" title="{escaped_html(about)}">{escaped_html(segment.name)}</bdi>'
    return f'<span class="link">{text}</span>{name}'


def _unnamed(segments: Sequence[Segment]) -> Iterator[str]:
    counts = Counter((segment.text, segment.target or "", segment.reason or "") for segment in segments)
    yield f"<details><summary>links without a name: {len(segments):,}</summary><table>"
    yield "<tr><th>link</th><th>leads to</th><th>why</th><th></th></tr>"
    for (text, target, reason), count in counts.most_common():
        cells = "".join(f'<td dir="auto">{escaped_html(cell)}</td>' for cell in (text, target, reason))
        yield f"<tr>{cells}<td>{f'{count}×' if count > 1 else ''}</td></tr>"
    yield "</table></details>"

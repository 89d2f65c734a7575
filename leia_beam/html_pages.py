"""From text and figures to parts of pages, and from parts to one page of HTML that loads nothing from anywhere.

All pages of the three packages are made of these parts, so they look alike. What is given as `str` is escaped, what is
`Html` is taken as it is, and only the functions here make `Html`: data cannot become markup by oversight. Every element is
closed. The style is data/page.css; bars are in `html_bars`, curves in `svg_charts`.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources

from leia_beam.terminal_text import is_harmless, printable

_VOID = frozenset({"br", "meta", "wbr"})
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SHORT_NAMES = {
    "\u00ad": "SHY", "\u061c": "ALM", "\u200b": "ZWSP", "\u200e": "LRM", "\u200f": "RLM", "\u202a": "LRE",
    "\u202b": "RLE", "\u202c": "PDF", "\u202d": "LRO", "\u202e": "RLO", "\u2060": "WJ", "\u2066": "LRI",
    "\u2067": "RLI", "\u2068": "FSI", "\u2069": "PDI", "\ufeff": "BOM",
}  # fmt: skip


class Html(str):
    """Finished HTML. Adding anything to it gives a `str`, which would be escaped: no half-escaped text comes of it."""

    __slots__ = ()


def escaped(content: str) -> Html:
    """Text as HTML; what is `Html` already stays as it is.

    A character that moves text about, or that cannot be seen, is shown by its name instead.

    >>> escaped("a < b")
    'a &lt; b'
    >>> escaped("x\\u202ey")
    'x<span class="unseen" title="U+202E RIGHT-TO-LEFT OVERRIDE">RLO</span>y'
    """
    if isinstance(content, Html):
        return content
    if is_harmless(content):
        return Html(html.escape(content))
    return Html("".join(html.escape(each) if is_harmless(each) or each == "\n" else _unseen(each) for each in content))


def _unseen(character: str) -> str:
    code = f"U+{ord(character):04X}"
    name = unicodedata.name(character, "")
    title = html.escape(f"{code} {name}".strip())
    return f'<span class="unseen" title="{title}">{_SHORT_NAMES.get(character, code)}</span>'


def joined(parts: Iterable[str], between: str = "") -> Html:
    """Parts one after the other.

    >>> joined(["a", Html("<b>b</b>")], " & ")
    'a &amp; <b>b</b>'
    """
    return Html(escaped(between).join(escaped(part) for part in parts))


def element(tag: str, *content: str, **attributes: str | float | bool | None) -> Html:
    """An element. An attribute's final underscore is left out, others become hyphens; None and False leave it out.

    >>> element("td", "1 < 2", class_="number", aria_label='"')
    '<td class="number" aria-label="&quot;">1 &lt; 2</td>'
    >>> element("br")
    '<br>'
    """
    written = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(content)}</{tag}>")


def _attribute(name: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.removesuffix("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(printable(str(value), chr(10)))}"'


@cache
def _style() -> str:
    return resources.files("leia_beam").joinpath("data/page.css").read_text(encoding="utf-8")


def page(title: str, *content: str, kind: str = "", lede: str = "", is_text: bool = False) -> str:
    """A whole page in English: `kind` stands small above the title, `lede` below it; `is_text` keeps lines short."""
    header = [element("p", kind, class_="kind")] if kind else []
    header.append(element("h1", element("bdi", title)))
    header += [element("p", lede, class_="lede")] if lede else []
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("title", Html(html.escape(printable(f"{title} · {kind}" if kind else title)))),
        element("style", Html(_style())),
    )
    width = "reading" if is_text else None
    body = element("body", element("header", *header), element("main", *content), class_=width)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def text_in(language: str | None, content: str, *, tag: str = "bdi", **attributes: str | None) -> Html:
    """A text of some language, whose direction is its own and moves nothing around it."""
    return element(tag, content, dir="auto" if tag != "bdi" else None, lang=language, **attributes)


def section(heading: str, *content: str, level: int = 2, name: str | None = None) -> Html:
    """A card with a heading; `name` is what links to it call it."""
    return element("section", element(f"h{level}", heading), *content, class_="card", id=name)


def details(summary: str, *content: str) -> Html:
    """What is shown once it is asked for (and where the page is printed)."""
    return element("details", element("summary", summary), *content)


def tiles(facts: Iterable[tuple[str, str]]) -> Html:
    """Figures that are seen first: (what, how much) of each."""
    shown = (element("div", element("dt", name), element("dd", value)) for name, value in facts)
    return element("dl", *shown, class_="tiles")


def callout(kind: str, *content: str) -> Html:
    """Something to take note of: `kind` is Warning or Note."""
    return element("p", element("strong", f"{kind}: "), *content, class_=f"callout {kind.lower()}")


def bullets(lines: Iterable[str]) -> Html:
    """Remarks, one a line."""
    return element("ul", *(element("li", line) for line in lines), class_="notes")


class Number(str):
    """A column's name: its figures stand to the right, in digits of one width, and are never broken into lines."""

    __slots__ = ()


class Prose(str):
    """A column's name: its texts get room before they are broken into lines."""

    __slots__ = ()


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table that scrolls within itself where it is wider than the page. The first cell of a row names it.

    The caption is for those who hear the page; a heading above says the same to those who see it.
    """
    head = element("tr", *(element("th", column, scope="col", class_=_class(column)) for column in columns))
    body = (element("tr", *_cells(columns, cells)) for cells in rows)
    whole = element(
        "table", element("caption", caption, class_="heard"), element("thead", head), element("tbody", *body)
    )
    return element("div", whole, class_="scroll", role="region", aria_label=caption, tabindex="0")


def _cells(columns: Sequence[str], cells: Sequence[str]) -> Iterator[Html]:
    for number, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        if number:
            yield element("td", _isolated(cell), class_=_class(column))
        else:
            yield element("th", _breakable(_isolated(cell)), class_=_class(column), scope="row")


def _class(column: str) -> str | None:
    return "number" if isinstance(column, Number) else "prose" if isinstance(column, Prose) else None


def _breakable(cell: Html) -> Html:
    """Names of tasks and options may be broken where their words meet, before anywhere else."""
    return cell if "<" in cell else Html(cell.replace("_", "_<wbr>"))


def _isolated(cell: str) -> Html:
    """A cell's text keeps its own direction; finished HTML has seen to that."""
    if isinstance(cell, Html):
        return cell
    return escaped(cell) if cell.isascii() else element("bdi", cell)

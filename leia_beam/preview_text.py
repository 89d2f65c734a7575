"""From an article to lines on a terminal: links underlined, their names in colour, and a list of links without a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from leia_beam.alignment import EXACT, EXPANDED
from leia_beam.preview import Segment, ShownArticle
from leia_beam.terminal_text import printable

_RESET = "\x1b[0m"
_LINK, _NAME, _PARTLY, _UNNAMED, _HEAD = "\x1b[4m", "\x1b[1;32m", "\x1b[33m", "\x1b[2;4m", "\x1b[1m"
_MAX_UNNAMED = 20


def article_lines(article: ShownArticle, is_coloured: bool, characters: int | None) -> Iterator[str]:
    """The article as lines. Without colour names stand between LEIA's markers; `characters` cuts the text."""
    painted = _painter(is_coloured)
    head = f"{printable(article.title)}  ({printable(article.wiki)}, page {article.page_id}, {printable(article.qid or 'no item')})"
    yield painted(_HEAD, head)
    unnamed = article.unnamed
    flags = f", {', '.join(map(printable, article.flags))}" if article.flags else ""
    yield f"{article.token_count:,} tokens, {article.names:,} names, links without a name: {len(unnamed):,}{flags}"
    yield ""
    yield "".join(_text(article, painted, characters))
    if article.characters_cut:
        yield f"({article.characters_cut:,} characters more are beyond the maximal length, in no shard)"
    if unnamed:
        yield ""
        yield "links without a name:"
        for segment in unnamed[:_MAX_UNNAMED]:
            target = f" → {printable(segment.target)}" if segment.target and segment.target != segment.text else ""
            yield f"  {printable(segment.text)}{target}  ({printable(segment.reason or '')})"
        if len(unnamed) > _MAX_UNNAMED:
            yield f"  … and {len(unnamed) - _MAX_UNNAMED:,} more"
    if article.tokens is not None:
        yield ""
        yield "tokens:"
        yield "|".join(printable(piece) for _, piece in article.tokens)
    yield ""


def _painter(is_coloured: bool) -> Callable[[str, str], str]:
    return (lambda style, text: f"{style}{text}{_RESET}" if text else "") if is_coloured else (lambda style, text: text)


def _text(article: ShownArticle, painted: Callable[[str, str], str], characters: int | None) -> Iterator[str]:
    left = characters
    for segment in article.segments:
        if left is not None and left <= 0:
            yield " …"
            return
        shown = printable(segment.text if left is None else segment.text[:left], "\n")
        if left is not None:
            left -= len(segment.text)
        yield _shown(segment, shown, painted)


def _shown(segment: Segment, shown: str, painted: Callable[[str, str], str]) -> str:
    if not segment.is_link:
        return shown
    if segment.name is None:
        return painted(_UNNAMED, shown)
    style = _NAME if segment.edge in (EXACT, EXPANDED) else _PARTLY
    name = f"<translate>{printable(segment.name)}</translate>"
    return painted(_LINK, shown) + painted(style, name)

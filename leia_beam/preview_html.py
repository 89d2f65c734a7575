"""From articles to one self-contained page: names beside their links, each link's reason, light and dark.

Text stands in the wiki's own language and direction; a name keeps its own within it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from leia_beam.alignment import EXACT, EXPANDED
from leia_beam.html_bars import count_bars, percent
from leia_beam.html_pages import Html, Number, details, element, joined, page, table, text_in, tiles
from leia_beam.preview import Segment, ShownArticle
from leia_beam.wikis import direction_of, label_language

KIND = "LEIA · preview of a corpus"
_WHOLE_NAMES = (EXACT, EXPANDED)


def preview_page(articles: Sequence[ShownArticle], title: str) -> str:
    """The page. Nothing in it is loaded from anywhere."""
    contents = [_contents(articles)] if len(articles) > 1 else []
    return page(
        title,
        _overview(articles),
        _key(articles),
        *contents,
        *(_article(article, number) for number, article in enumerate(articles)),
        kind=KIND,
        is_text=True,
    )


def _overview(articles: Sequence[ShownArticle]) -> Html:
    names = sum(article.names for article in articles)
    links = names + sum(len(article.unnamed) for article in articles)
    tokens = sum(article.token_count for article in articles)
    facts = [("articles shown", f"{len(articles):,}"), ("tokens", f"{tokens:,}"), ("links", f"{links:,}")]
    facts += [("with a name", f"{names:,}"), ("share of links", percent(names / links) if links else "–")]
    return tiles(facts)


def _key(articles: Sequence[ShownArticle]) -> Html:
    """What the marks mean; those alone that stand on the page."""
    segments = [segment for article in articles for segment in article.segments if segment.is_link]
    link = element("span", "link", class_="link")
    lines = [joined([link, element("bdi", "name", class_="name"), " – the name that training inserts"])]
    if any(segment.name is not None and segment.edge not in _WHOLE_NAMES for segment in segments):
        part = element("bdi", "name", class_="name part")
        lines.append(
            joined([link, part, " – a name that not every strategy inserts: the link begins or ends in a token"])
        )
    if any(segment.name is None for segment in segments):
        lines.append(
            joined([element("span", "link", class_="none"), " – a link without a name; why is said below the text"])
        )
    return element("ul", *(element("li", line) for line in lines), class_="key card", aria_label="Key")


def _contents(articles: Sequence[ShownArticle]) -> Html:
    entries = (
        element("li", element("a", text_in(label_language(each.wiki), each.title), href=f"#a{number}"))
        for number, each in enumerate(articles)
    )
    return element("nav", element("ul", *entries, class_="contents"), aria_label="Articles")


def _article(article: ShownArticle, number: int) -> Html:
    language, direction = label_language(article.wiki), direction_of(article.wiki)
    parts = [
        element("h2", article.title, lang=language, dir=direction, id=f"a{number}-title"),
        element("p", _facts(article), class_="soft"),
        element("div", *map(_segment, article.segments), class_="text", lang=language, dir=direction),
        *_names(article),
        *_unnamed(article),
    ]
    if article.tokens is not None:
        pieces = (element("span", piece.replace("\n", "↵"), title=token_id) for token_id, piece in article.tokens)
        shown = element("div", *pieces, class_="tokens", lang=language, dir=direction)
        parts.append(details(f"tokens: {article.token_count:,}", shown))
    return element("article", *parts, class_="card", id=f"a{number}", aria_labelledby=f"a{number}-title")


def _facts(article: ShownArticle) -> str:
    links = article.names + len(article.unnamed)
    facts = [
        article.wiki,
        f"page {article.page_id}",
        article.qid or "no item",
        f"{article.token_count:,} tokens",
        f"{article.names:,} of {links:,} links with a name",
        *([f"{article.characters_cut:,} characters beyond the maximal length"] if article.characters_cut else []),
        *article.flags,
    ]
    return " · ".join(facts)


def _segment(segment: Segment) -> Html:
    if not segment.is_link:
        return joined([segment.text])
    if segment.name is None:
        return element("span", segment.text, class_="none", title=segment.reason or "")
    about = " · ".join(part for part in (segment.qid, segment.name_language, segment.edge) if part)
    kind = "name" if segment.edge in _WHOLE_NAMES else "name part"
    name = element("bdi", segment.name, class_=kind, lang=segment.name_language, title=about)
    return joined([element("span", segment.text, class_="link"), name])


def _names(article: ShownArticle) -> Iterator[Html]:
    """What a pointer over a name says, for those who have none."""
    named = [segment for segment in article.segments if segment.name is not None]
    if not named:
        return
    language = label_language(article.wiki)
    counts = Counter(
        (segment.text, segment.name or "", segment.name_language, segment.qid or "–", segment.edge or "–")
        for segment in named
    )
    rows = [
        [text_in(language, text), text_in(name_language, name), name_language or "–", qid, edge, f"{count:,}"]
        for (text, name, name_language, qid, edge), count in counts.most_common()
    ]
    columns = ["link", "its name", "language", "item", "edges", Number("times")]
    yield details(f"names: {article.names:,}", table(f"Names in {article.title}", columns, rows))


def _unnamed(article: ShownArticle) -> Iterator[Html]:
    """Why links have no name: by reason, then one by one."""
    if not article.unnamed:
        return
    language = label_language(article.wiki)
    reasons = Counter(segment.reason or "" for segment in article.unnamed)
    counts = Counter((segment.text, segment.target or "", segment.reason or "") for segment in article.unnamed)
    rows = [
        [text_in(language, text), text_in(language, target), reason, f"{count:,}"]
        for (text, target, reason), count in counts.most_common()
    ]
    columns = ["link", "leads to", "why", Number("times")]
    yield details(
        f"links without a name: {len(article.unnamed):,}",
        count_bars(reasons.most_common()),
        table(f"Links without a name in {article.title}", columns, rows),
    )

"""A wiki's dump and its Wikidata of any size, drawn from a seed: the same bytes in every run.

Articles link to one another (the first ones far more often, as in a real wiki), to redirects and to titles that are
missing; some have tables, templates, lists and references; a few pages cannot be read.
"""

from __future__ import annotations

import bz2
import json
import random
from dataclasses import dataclass
from pathlib import Path

_CONSONANTS = "かきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわ"
FIRST_ID = 1_000_000
"""Of pages and items, so that a build may have the bundled sample too."""
_PER_STREAM = 100
_REDIRECT_EVERY = 10
_POISON_EVERY = 2_000


@dataclass(frozen=True)
class GeneratedDump:
    """The files, and how large the pages are before compression."""

    pages: Path
    wikidata: Path
    raw_bytes: int


def generated_dump(folder: Path, *, articles: int, words: int = 500, seed: int = 8) -> GeneratedDump:
    """Write both dumps: `articles` pages of about `words` words (about 12 bytes each), and one item for nearly each."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices(_CONSONANTS, k=draw.randint(2, 5))) for _ in range(4_000)]
    titles = [f"{draw.choice(vocabulary)}{number}" for number in range(articles)]
    pages = folder / "jawiki-20260101-pages-articles2.xml.bz2"
    raw_bytes = 0
    with pages.open("wb") as file:
        for first in range(0, articles, _PER_STREAM):
            text = "" if first else _HEADER
            for number in range(first, min(articles, first + _PER_STREAM)):
                text += _page(number, titles, vocabulary, words, draw)
            raw_bytes += len(text.encode())
            file.write(bz2.compress(text.encode()))
        file.write(bz2.compress(b"</mediawiki>\n"))
    wikidata = folder / "wikidata-20260101-more.json.bz2"
    lines = [_item(number, title) for number, title in enumerate(titles) if number % 13]
    wikidata.write_bytes(bz2.compress(("[\n" + ",\n".join(lines) + "\n]\n").encode()))
    return GeneratedDump(pages=pages, wikidata=wikidata, raw_bytes=raw_bytes)


_HEADER = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="ja">\n'
    "  <siteinfo>\n    <sitename>Wikipedia</sitename>\n    <dbname>jawiki</dbname>\n"
    "    <generator>MediaWiki 1.46.0-wmf.9</generator>\n    <case>first-letter</case>\n    <namespaces>\n"
    '      <namespace key="0" case="first-letter" />\n'
    '      <namespace key="10" case="first-letter">Template</namespace>\n'
    "    </namespaces>\n  </siteinfo>\n"
)


def _page(number: int, titles: list[str], vocabulary: list[str], words: int, draw: random.Random) -> str:
    if number % _REDIRECT_EVERY == _REDIRECT_EVERY - 1:
        return _xml(number, titles[number], f"#REDIRECT [[{titles[number - 1]}]]", titles[number - 1])
    text = []
    for _ in range(words):
        chance = draw.random()
        word = draw.choice(vocabulary)
        if chance < 0.05:
            target = titles[int(len(titles) * draw.random() ** 3)]
            word = f"[[{target}|{word}]]" if chance < 0.03 else f"[[{target}]]"
        elif chance < 0.055:
            word = f"[[{word}の事]]"
        elif chance < 0.06:
            word = f"{{{{lang|en|{number}}}}}<ref>{word}</ref>"
        elif chance < 0.07:
            word = f"\n* {word}\n"
        elif chance < 0.09:
            word += "。"
        text.append(word)
    if number % 50 == 0:
        text.append("\n{| class=wikitable\n! a\n|-\n| b\n|}\n")
    if number % _POISON_EVERY == 7:
        text.append("&#1;")
    return _xml(number, titles[number], "".join(text).replace("<", "&lt;").replace(">", "&gt;"))


def _xml(number: int, title: str, text: str, redirect: str = "") -> str:
    mark = f'    <redirect title="{redirect}" />\n' if redirect else ""
    return (
        f"  <page>\n    <title>{title}</title>\n    <ns>0</ns>\n    <id>{FIRST_ID + number}</id>\n{mark}"
        f"    <revision>\n      <id>{number + 10_000}</id>\n      <model>wikitext</model>\n"
        f'      <format>text/x-wiki</format>\n      <text xml:space="preserve">{text}</text>\n'
        "    </revision>\n  </page>\n"
    )


def _item(number: int, title: str) -> str:
    links = {"jawiki": {"site": "jawiki", "title": title, "badges": []}}
    if number % 7:
        links["enwiki"] = {"site": "enwiki", "title": f"Name {number}", "badges": []}
    item = {
        "type": "item",
        "id": f"Q{FIRST_ID + number}",
        "labels": {"en": {"language": "en", "value": f"name {number}"}},
        "claims": {},
        "sitelinks": links,
    }
    return json.dumps(item)

"""Made-up dumps of some megabytes, as large and as linked as real ones on average, to measure a machine's rates with."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import random
from pathlib import Path

WORDS = 20_000
LINK_EVERY = 25
"""Words between two links."""


class _Text:
    def __init__(self, draw: random.Random):
        self._draw = draw
        self._words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 11))) for _ in range(WORDS)]
        self._weights = list(itertools.accumulate(1 / (rank + 5) for rank in range(WORDS)))

    def words(self, count: int) -> str:
        return " ".join(self._draw.choices(self._words, cum_weights=self._weights, k=count))


def write_sample(folder: Path, raw_bytes: int, wikidata_format: str) -> tuple[Path, Path]:
    """A wiki's dump and a Wikidata dump of about `raw_bytes` each, before compression; their paths."""
    draw = random.Random(7)
    text = _Text(draw)
    pages = max(50, raw_bytes // 8_000)
    titles = [f"{text.words(2).title()} {number}" for number in range(pages)]
    wiki = folder / "enwiki-sample-pages-articles.xml.bz2"
    wiki.write_bytes(bz2.compress(_wiki(titles, raw_bytes, draw, text).encode()))
    items = _items(titles, raw_bytes, draw, text).encode()
    if wikidata_format == "gzip":
        wikidata = folder / "wikidata-sample-all.json.gz"
        wikidata.write_bytes(gzip.compress(items, 6))
    else:
        wikidata = folder / "wikidata-sample-all.json.bz2"
        wikidata.write_bytes(bz2.compress(items))
    return wiki, wikidata


def _wiki(titles: list[str], raw_bytes: int, draw: random.Random, text: _Text) -> str:
    pieces = ["<mediawiki>\n<siteinfo><dbname>enwiki</dbname></siteinfo>\n"]
    size = 0
    for number, title in enumerate(titles, 1):
        if number % 3 == 0:
            body = f"#REDIRECT [[{draw.choice(titles)}]]"
        else:
            paragraphs = (
                f"{text.words(LINK_EVERY)} [[{draw.choice(titles)}|{text.words(1)}]] {{{{cite|{text.words(6)}}}}}"
                for _ in range(1 + int(draw.expovariate(1 / 60)))
            )
            body = "\n".join(paragraphs)
        pieces.append(
            f"<page><title>{title}</title><ns>0</ns><id>{number}</id><revision><id>{number}</id>"
            f"<model>wikitext</model><format>text/x-wiki</format><text>{body}</text></revision></page>\n"
        )
        size += len(pieces[-1])
        if size > raw_bytes:
            break
    return "".join([*pieces, "</mediawiki>\n"])


def _items(titles: list[str], raw_bytes: int, draw: random.Random, text: _Text) -> str:
    lines: list[str] = []
    size = number = 0
    while size < raw_bytes:
        number += 1
        linked = number % 4 == 1
        title = draw.choice(titles) if linked else text.words(2)
        languages = ["en", *(f"l{code}" for code in range(1 + int(draw.expovariate(1 / 14))))]
        statements = {
            f"P{key}": [
                {
                    "mainsnak": {
                        "snaktype": "value",
                        "property": f"P{key}",
                        "hash": f"{draw.getrandbits(160):040x}",
                        "datavalue": {
                            "value": {"entity-type": "item", "numeric-id": draw.randrange(10**6), "id": f"Q{key}"},
                            "type": "wikibase-entityid",
                        },
                        "datatype": "wikibase-item",
                    },
                    "type": "statement",
                    "id": f"Q{number}${draw.getrandbits(128):032X}",
                    "rank": "normal",
                    "references": [
                        {"hash": f"{draw.getrandbits(160):040x}", "snaks": {}, "snaks-order": ["P143", "P813"]}
                    ],
                }
            ]
            for key in draw.sample(range(1, 3000), 1 + int(draw.expovariate(1 / 20)))
        }
        entity = {
            "type": "item",
            "id": f"Q{number}",
            "labels": {code: {"language": code, "value": title} for code in languages},
            "descriptions": {code: {"language": code, "value": "a thing"} for code in languages},
            "aliases": {},
            "claims": statements,
            "sitelinks": {f"{code}wiki": {"site": f"{code}wiki", "title": title, "badges": []} for code in ("de", "en")}
            if linked
            else {},
        }
        lines.append(json.dumps(entity, separators=(",", ":")))
        size += len(lines[-1])
    return "[\n" + ",\n".join(lines) + "\n]\n"

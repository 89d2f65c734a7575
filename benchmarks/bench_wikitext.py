"""How fast does wikitext become text and anchors, and do other readers of the same articles find the same links?

    python benchmarks/bench_wikitext.py [--data ../shared/data] [--rounds 3]

Reads the articles of the real dumps under `--data`, or of the bundled sample where that folder is not (their bz2 and XML
are no part of the time), and prints MB/s of UTF-8
wikitext on one core, by CPU time, the best of some rounds:

- extract: this package, as a build calls it, and with `as_rendered`;
- mwparserfromhell: `parse(text).strip_code()`, which gives no offsets (the first 40 articles);
- wikiextractor: PyPI's 3.1.0, `Extractor.clean_text` with links kept, alone and followed by BeautifulSoup, which the
  reference used to get anchors from its HTML (both only where they are installed).

Then, of the links that mwparserfromhell finds in an article outside of templates, tags, files and headings, the share that
`extract` has as anchors with the same target; those it has not are listed with `--list`.
"""

from __future__ import annotations

import argparse
import bz2
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lxml import etree

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from leia_beam.titles import parse_target
from leia_beam.wikis import Wiki, load_wiki
from leia_beam.wikitext import ExtractionOptions, extract

ROOT = Path(__file__).resolve().parent.parent
DUMPS = {"ja": "jawiki-20190601-head.xml.bz2", "en": "enwiki-p10p30302-excerpt.xml.bz2"}
SLOW_READERS_ARTICLES = 40

Article = tuple[str, str]


def dumps(folder: Path, scratch: str) -> list[tuple[str, Path]]:
    """(language, dump) of the real dumps, or of the bundled sample, which is written to a scratch folder."""
    if folder.is_dir():
        return [(code, folder / name) for code, name in DUMPS.items()]
    subprocess.run([sys.executable, ROOT / "tests/data/sample/pack.py", scratch], check=True, capture_output=True)
    return [(path.name[:2], path) for path in sorted(Path(scratch).glob("*.xml.bz2"))]


def articles_of(dump: Path) -> Iterator[Article]:
    """(title, wikitext) of the pages of namespace 0 that are no redirects."""
    with bz2.open(dump) as stream:
        for _, page in etree.iterparse(stream, tag="{*}page"):
            text = page.findtext("{*}revision/{*}text")
            if page.findtext("{*}ns") == "0" and page.find("{*}redirect") is None and text:
                yield page.findtext("{*}title"), text
            page.clear()


def megabytes_per_second(articles: Sequence[Article], read: Callable[[str, str], object], rounds: int) -> float:
    """The best of some rounds, by CPU time."""
    size = sum(len(text.encode()) for _, text in articles)
    best = float("inf")
    for _ in range(rounds):
        begin = time.process_time()
        for title, text in articles:
            read(title, text)
        best = min(best, time.process_time() - begin)
    return size / best / 1e6


def readers(wiki: Wiki) -> Iterator[tuple[str, int | None, Callable[[str, str], object]]]:
    """(name, number of articles or None for all, reader) of what is installed."""
    rendered = ExtractionOptions(as_rendered=True)
    yield "extract", None, lambda title, text: extract(text, title, wiki)
    yield "extract, as rendered", None, lambda title, text: extract(text, title, wiki, rendered)
    try:
        import mwparserfromhell
    except ImportError:
        print("mwparserfromhell is not installed: pip install 'leia-lm[dev]'")
    else:
        yield "mwparserfromhell", SLOW_READERS_ARTICLES, lambda title, text: mwparserfromhell.parse(text).strip_code()
    try:
        from bs4 import BeautifulSoup
        from wikiextractor.extract import Extractor
    except ImportError:
        print("wikiextractor and beautifulsoup4 are not installed: they are compared only where they are")
        return

    def clean(title: str, text: str) -> str:
        extractor = Extractor("1", "1", "https://x.invalid", title, [], keepLinks=True, HtmlFormatting=True)
        return "\n".join(extractor.clean_text(text, html_safe=False))

    yield "wikiextractor", None, clean
    yield (
        "wikiextractor + BeautifulSoup",
        None,
        lambda title, text: BeautifulSoup(clean(title, text), "lxml").get_text(),
    )


def compare_links(articles: Sequence[Article], wiki: Wiki, is_listed: bool) -> None:
    """Print how many of another parser's links are anchors here too."""
    import mwparserfromhell
    from mwparserfromhell.nodes import Wikilink

    found = missed = 0
    for title, text in articles:
        extraction = extract(text, title, wiki, ExtractionOptions(as_rendered=True))
        ours = Counter(anchor.target for anchor in extraction.anchors)
        for node in mwparserfromhell.parse(text).nodes:
            target = parse_target(str(node.title), wiki) if isinstance(node, Wikilink) else None
            if target is None or target.namespace != 0 or target.interwiki is not None or target.title in ("", title):
                continue
            if ours[target.title]:
                ours[target.title] -= 1
                found += 1
            else:
                missed += 1
                if is_listed:
                    print(f"    {title}: {node}")
    print(f"  links of mwparserfromhell that are anchors here: {found:,} of {found + missed:,}")


def measure(code: str, dump: Path, rounds: int, is_listed: bool) -> None:
    """Print what the readers do with the articles of a dump."""
    articles = list(articles_of(dump))
    wiki = load_wiki(code)
    print(f"{dump.name}: {len(articles)} articles, {sum(len(text.encode()) for _, text in articles) / 1e6:.2f} MB")
    speeds: dict[str, float] = {}
    for reader, limit, read in readers(wiki):
        speeds[reader] = megabytes_per_second(articles[:limit], read, rounds if limit is None else 1)
        ratio = speeds["extract"] / speeds[reader]
        print(f"  {reader:32s} {speeds[reader]:6.1f} MB/s   extract is {ratio:5.2f} times as fast")
    if "mwparserfromhell" in speeds:
        compare_links(articles, wiki, is_listed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--list", action="store_true", help="list the links that are no anchors here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for code, dump in dumps(options.data, scratch):
            measure(code, dump, options.rounds, options.list)


if __name__ == "__main__":
    main()

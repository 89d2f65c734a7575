"""The bundled sample: what is packed is a pair of well-formed dumps that hold what its README promises."""

from __future__ import annotations

import bz2
import collections
import html
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
from lxml import etree

SAMPLE = Path(__file__).resolve().parent / "data" / "sample"
WIKIS = ("jawiki", "eswiki")
EXPORT = "{http://www.mediawiki.org/xml/export-0.11/}"
DUMP_NAMES = [f"{wiki}-20260101-pages-articles-multistream.xml.bz2" for wiki in WIKIS]
ALL_NAMES = [
    *DUMP_NAMES,
    "wikidata-20260101-all.json.bz2",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
]
EXPECTATIONS = json.loads((SAMPLE / "expectations.json").read_text(encoding="utf-8"))
REASONS = {"missing page", "loop", "section", "other namespace", "no item", "no sitelink", "self", "refused name"}


def load_pack() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_pack", SAMPLE / "pack.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


PACK = load_pack()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packed sample, written by the command line."""
    output = tmp_path_factory.mktemp("sample")
    run_pack(output, cwd=output)
    return output


def run_pack(output: Path, *, cwd: Path, **environment: str) -> None:
    command = [sys.executable, str(SAMPLE / "pack.py"), str(output)]
    subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)


def dump_bytes(packed: Path, wiki: str) -> bytes:
    return (packed / f"{wiki}-20260101-pages-articles-multistream.xml.bz2").read_bytes()


def parsed_pages(packed: Path, wiki: str) -> dict[str, Any]:
    """Title → <page> element, in the dump's order."""
    root = etree.fromstring(bz2.decompress(dump_bytes(packed, wiki)))
    return {page.findtext(f"{EXPORT}title"): page for page in root.iter(f"{EXPORT}page")}


def page_text(page: Any) -> str:
    return page.findtext(f"{EXPORT}revision/{EXPORT}text") or ""


def is_redirect(page: Any) -> bool:
    return page.find(f"{EXPORT}redirect") is not None


def namespace(page: Any) -> int:
    return int(page.findtext(f"{EXPORT}ns"))


def articles(packed: Path, wiki: str) -> dict[str, str]:
    """Title → wikitext of the pages of namespace 0 that are no redirects."""
    pages = parsed_pages(packed, wiki)
    return {t: page_text(p) for t, p in pages.items() if namespace(p) == 0 and not is_redirect(p)}


def entities(packed: Path) -> list[dict[str, Any]]:
    lines = bz2.decompress((packed / ALL_NAMES[2]).read_bytes()).decode("ascii").splitlines()
    return [json.loads(line.removesuffix(",")) for line in lines[1:-1]]


def readme_rows() -> list[tuple[str, str, str, str]]:
    """(construct, wiki, title, literal) for each filled cell of the README's last table."""
    table = (SAMPLE / "README.md").read_text(encoding="utf-8").split("## What stands where")[1]
    rows = []
    for line in table.splitlines():
        if not line.startswith("| ") or line.startswith("| construct"):
            continue
        construct, *cells = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        for wiki, cell in zip(WIKIS, cells, strict=True):
            if cell:
                match = re.fullmatch(r"(.+?): `(.+)`", cell)
                assert match is not None, f"cell {cell!r} is not 'TITLE: `LITERAL`'"
                rows.append((construct, wiki, match[1], match[2].replace(r"\|", "|")))
    return rows


class Resolver:
    """The sample's rules for names, written a second time and as plainly as they can be."""

    def __init__(self, packed: Path, wiki: str) -> None:
        pages = parsed_pages(packed, wiki)
        self.namespaces = {title: namespace(page) for title, page in pages.items()}
        self.redirects = {
            title: re.search(r"\[\[([^|\]]+)", page_text(page))[1] for title, page in pages.items() if is_redirect(page)
        }
        self.items = {
            entity["sitelinks"][wiki]["title"]: entity
            for entity in entities(packed)
            if entity.get("sitelinks") and wiki in entity["sitelinks"]
        }
        siteinfo = json.loads((SAMPLE / wiki / "siteinfo.json").read_text(encoding="utf-8"))
        self.prefixes = {name for name in siteinfo["namespaces"].values() if name}

    def outcome(self, page: str, target: str) -> tuple[str | None, str | None]:
        """(name, reason) of a link's target as the wikitext has it; one of both is None."""
        target = html.unescape(unquote(target)).replace("_", " ").strip().removeprefix(":")
        if "#" in target:
            return None, "section"
        title = target[:1].upper() + target[1:]
        if title.partition(":")[0] in self.prefixes or self.namespaces.get(title, 0) != 0:
            return None, "other namespace"
        if title == page:
            return None, "self"
        seen = set()
        while title not in self.items and title in self.redirects:
            if title in seen:
                return None, "loop"
            seen.add(title)
            title = self.redirects[title]
            if "#" in title:
                return None, "section"
        if title not in self.namespaces:
            return None, "missing page"
        if title not in self.items:
            return None, "no item"
        return self.item_name(self.items[title])

    @staticmethod
    def item_name(item: dict[str, Any]) -> tuple[str | None, str | None]:
        if "enwiki" not in item["sitelinks"]:
            return None, "no sitelink"
        title = item["sitelinks"]["enwiki"]["title"]
        if title.startswith("List of "):
            return None, "refused name"
        name = re.sub(r" \([^()]*\)$", "", title)
        label = item["labels"]["en"]["value"]
        return (label if label.lower() == name.lower() else name), None


def test_packing_gives_the_same_bytes_whatever_the_hash_seed_threads_and_folder(packed: Path, tmp_path: Path) -> None:
    """Two more processes, each with another hash seed, thread count and working folder, write equal files."""
    for seed, threads, cwd in (("1", "1", tmp_path), ("4321", "2", SAMPLE)):
        output = tmp_path / seed
        run_pack(output, cwd=cwd, PYTHONHASHSEED=seed, RAYON_NUM_THREADS=threads, TZ="Asia/Tokyo", LANG="C")
        assert sorted(str(p.relative_to(output)) for p in output.rglob("*.*")) == sorted(ALL_NAMES)
        for name in ALL_NAMES:
            assert (output / name).read_bytes() == (packed / name).read_bytes(), name


@pytest.mark.parametrize("wiki", WIKIS)
def test_dump_is_a_multistream_file_whose_streams_hold_whole_pages(packed: Path, wiki: str) -> None:
    """Header, pages by twenty, and the closing tag each stand in a bzip2 stream of their own."""
    streams, rest = [], dump_bytes(packed, wiki)
    while rest:
        decompressor = bz2.BZ2Decompressor()
        streams.append(decompressor.decompress(rest).decode("utf-8"))
        assert decompressor.eof
        rest = decompressor.unused_data
    assert streams[0].startswith("<mediawiki ") and streams[0].endswith("  </siteinfo>\n")
    assert streams[-1] == "</mediawiki>\n"
    sizes = [stream.count("  <page>\n") for stream in streams[1:-1]]
    assert len(sizes) >= 6 and set(sizes[:-1]) == {20} and 1 <= sizes[-1] <= 20
    assert all(stream.startswith("  <page>\n") and stream.endswith("  </page>\n") for stream in streams[1:-1])


@pytest.mark.parametrize("wiki", WIKIS)
def test_pages_carry_what_export_0_11_has(packed: Path, wiki: str) -> None:
    """Byte counts and hashes fit the text, ids and revision ids are unique and rise, redirects are elements."""
    root = etree.fromstring(bz2.decompress(dump_bytes(packed, wiki)))
    assert root.get("version") == "0.11" and root.findtext(f"{EXPORT}siteinfo/{EXPORT}dbname") == wiki
    ids = [int(page.findtext(f"{EXPORT}id")) for page in root.iter(f"{EXPORT}page")]
    assert ids == sorted(set(ids))
    for title, page in parsed_pages(packed, wiki).items():
        revision = page.find(f"{EXPORT}revision")
        text = revision.find(f"{EXPORT}text")
        if text.get("deleted"):
            assert text.text is None and text.get("deleted") == "deleted"
            continue
        data = text.text.encode("utf-8")
        assert int(text.get("bytes")) == len(data), title
        assert text.get("sha1") == revision.findtext(f"{EXPORT}sha1") == PACK.sha1_base36(data), title
        target = re.match(r"#(?:転送|リダイレクト|REDIREC\w+) \[\[([^#\]]+)", text.text)
        redirect = page.find(f"{EXPORT}redirect")
        assert (target and target[1]) == (redirect.get("title") if redirect is not None else None), title


@pytest.mark.parametrize("wiki", WIKIS)
def test_counts_are_those_found_by_hand(packed: Path, wiki: str) -> None:
    """Pages by namespace, redirects, articles and the special pages are as expectations.json says."""
    pages = parsed_pages(packed, wiki)
    counts = EXPECTATIONS[wiki]["counts"]
    resolver = Resolver(packed, wiki)
    by_namespace = collections.Counter(str(namespace(page)) for page in pages.values())
    redirects = [title for title, page in pages.items() if is_redirect(page)]
    deleted = [t for t, p in pages.items() if p.find(f"{EXPORT}revision/{EXPORT}text").get("deleted")]
    texts = articles(packed, wiki)
    found = {
        "pages": len(pages),
        "pages_by_namespace": dict(by_namespace),
        "redirects": len(redirects),
        "redirects_in_namespace_0": sum(namespace(pages[title]) == 0 for title in redirects),
        "articles": len(texts),
        "articles_with_deleted_text": len(deleted),
        "disambiguation_pages": [t for t, x in texts.items() if "{{aimai}}" in x or "{{desambiguación}}" in x],
        "lists": [t for t in texts if t in resolver.items and resolver.outcome("", t)[1] == "refused name"],
        "articles_without_links": [t for t, x in texts.items() if "[[" not in x and t not in deleted],
        "articles_without_item": [t for t in texts if t not in resolver.items],
        "redirects_in_a_loop": sorted(t for t in redirects if resolver.outcome("", t)[1] == "loop"),
    }
    assert found == counts
    assert len(texts) >= 60 and len(redirects) >= 8


@pytest.mark.parametrize(("construct", "wiki", "title", "literal"), readme_rows())
def test_every_construct_of_the_readme_stands_in_its_page(
    packed: Path, construct: str, wiki: str, title: str, literal: str
) -> None:
    """A row of the README's table names a page and text that really is in it."""
    assert literal in page_text(parsed_pages(packed, wiki)[title]), construct


@pytest.mark.parametrize("wiki", WIKIS)
def test_articles_are_richly_linked(packed: Path, wiki: str) -> None:
    """Six links an article or more on average, nine of ten with an English name, and every outcome occurs."""
    resolver, outcomes, texts = Resolver(packed, wiki), collections.Counter(), articles(packed, wiki)
    for title, text in texts.items():
        for target in re.findall(r"\[\[([^|\]]+)", re.sub(r"<!--.*?-->|<nowiki>.*?</nowiki>", "", text)):
            name, reason = resolver.outcome(title, target)
            outcomes[reason if name is None else "name"] += 1
    assert set(outcomes) == REASONS | {"name"}
    to_articles = sum(outcomes.values()) - outcomes["other namespace"]
    assert to_articles / len(texts) >= 6
    assert outcomes["name"] / to_articles >= 0.9


@pytest.mark.parametrize("wiki", WIKIS)
def test_hand_written_links_come_out_by_the_rules(packed: Path, wiki: str) -> None:
    """Each expectation's text stands in its page, and the rules give its name or its reason."""
    pages, resolver = parsed_pages(packed, wiki), Resolver(packed, wiki)
    links = EXPECTATIONS[wiki]["links"]
    for link in links:
        assert link["source"] in page_text(pages[link["page"]]), link
        inside = re.search(r"\[\[([^|\]]+)", link["source"])
        if inside is None:
            assert link["name"] in link["source"] and link["target"] in link["source"], link
        else:
            assert resolver.outcome(link["page"], inside[1]) == (link["name"], link.get("reason")), link
    assert len(links) >= 25
    assert {link.get("reason") for link in links} == REASONS | {None}


def test_wikidata_is_an_array_of_one_entity_a_line(packed: Path) -> None:
    """ASCII lines between [ and ], each but the last with a comma, keys in today's order."""
    lines = bz2.decompress((packed / ALL_NAMES[2]).read_bytes()).decode("ascii").split("\n")
    assert lines[0] == "[" and lines[-2:] == ["]", ""]
    assert all(line.endswith("},") for line in lines[1:-3]) and lines[-3].endswith("}")
    found = entities(packed)
    types = collections.Counter(entity["type"] for entity in found)
    assert {"entities": len(found), "items": types["item"], "properties": types["property"],
            "lexemes": types["lexeme"]} == EXPECTATIONS["wikidata"]  # fmt: skip
    order = ["type", "id", "labels", "descriptions", "aliases", "claims", "sitelinks",
             "pageid", "ns", "title", "lastrevid", "modified"]  # fmt: skip
    assert all(list(e) == [k for k in order if k in e] for e in found if e["type"] == "item")
    sitelinks = [entity.get("sitelinks", "absent") for entity in found if entity["type"] == "item"]
    assert {} in sitelinks and [] in sitelinks and "absent" in sitelinks
    links = [link for item_links in sitelinks if isinstance(item_links, dict) for link in item_links.values()]
    assert {"Q70893996", "Q70894304"} < {badge for link in links for badge in link["badges"]}


def test_tokenizer_gives_back_every_article_exactly(packed: Path) -> None:
    """Encoding puts <s> first and nothing else, never yields <unk>, and decodes to the same text."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(packed / "tokenizer" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == PACK.VOCABULARY_SIZE
    assert [tokenizer.token_to_id(token) for token in PACK.SPECIAL_TOKENS] == [0, 1, 2, 3]
    for wiki in WIKIS:
        for text in [*articles(packed, wiki).values(), "  two\n\n\tspaces 12345 🗻 x̌ "]:
            ids = tokenizer.encode(text).ids
            assert ids[0] == 1 and not {0, 1, 2, 3} & set(ids[1:])
            assert tokenizer.decode(ids[1:], skip_special_tokens=False) == text
    assert len(tokenizer.encode(" Japan").ids) == 2, "a frequent English name is one piece"


@pytest.mark.parametrize("wiki", WIKIS)
def test_questions_are_well_formed_and_balanced(wiki: str) -> None:
    """At least 40 questions, four distinct choices each, answers spread evenly over A to D."""
    lines = (SAMPLE / "eval" / f"{wiki}.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    language = wiki.removesuffix("wiki")
    assert [q["id"] for q in questions] == [f"{language}-{n:03d}" for n in range(1, len(questions) + 1)]
    for question in questions:
        assert set(question) == {"id", "lang", "question", "answerKey"} and question["lang"] == language
        choices = question["question"]["choices"]
        assert choices["label"] == ["A", "B", "C", "D"] and len(set(choices["text"])) == 4
    gold = collections.Counter(question["answerKey"] for question in questions)
    assert len(questions) >= 40 and set(gold) == set("ABCD") and max(gold.values()) - min(gold.values()) <= 1
    assert len({question["question"]["stem"] for question in questions}) == len(questions)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no header\n", "text before the first"),
        ("@@@ A | id=1\ntext\n", "needs id and ns"),
        ("@@@ A\ntext\n", "is not '@@@ TITLE"),
        ("@@@ A | id=1 | ns=0 | colour=red\n", "may have"),
        ("@@@ A | id=1 | ns=0\n@@@ B | id=1 | ns=0\n", "page id used twice: 1"),
        ("@@@ A | id=1 | ns=0\n@@@ A | id=2 | ns=0\n", "page title used twice: A"),
    ],
)
def test_mistakes_in_pages_wiki_are_named(source: str, message: str) -> None:
    """Who edits the pages is told what is wrong."""
    with pytest.raises(ValueError, match=message):
        PACK.parse_pages(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("  en A\n", "line 1: .* before the first entity id"),
        ("Tokyo\n", "line 1: 'Tokyo' is no entity id"),
        ("Q1\n  en\n", "line 2, Q1: 'en' has no value"),
        ("Q1\n  ? x\n", "line 2, Q1: .* begins with no language"),
        ("Q1\n  ! sitelinks none\n", "line 2, Q1: .* is not '! PART FORM'"),
        ("Q1\n  enwiki A\n\nQ2\n  enwiki A\n", "'enwiki A' is in Q1 and in Q2"),
    ],
)
def test_mistakes_in_items_txt_are_named(source: str, message: str) -> None:
    """Who edits the items is told what is wrong, with the line."""
    with pytest.raises(ValueError, match=message):
        PACK.parse_entities(source)

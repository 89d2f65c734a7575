"""From the sample's readable sources to the files a build reads: two wiki dumps, a Wikidata dump, a tokenizer.

The sources are edited by hand (README.md has their format); everything a reader of dumps expects
beside the text (revision ids, timestamps, hashes, statement ids) is derived from page and item ids,
so the same sources give the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import bz2
import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
DUMP_DATE = "20260101"
WIKIS = ("jawiki", "eswiki")
PAGES_PER_STREAM = 20  # 100 in real dumps; 20 gives the small sample several streams
VOCABULARY_SIZE = 2000
NAME_WEIGHT = 8  # how often an English name is shown to the tokenizer
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
# Llama 3's split: contractions, words with one leading character, one to three digits, marks, white space.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_PAGE_HEADER = re.compile(r"@@@ (?P<title>[^|\n]+?)(?P<fields>(?: \| [a-z]+=[^|\n]+)+)")
_PAGE_FIELDS = frozenset({"id", "ns", "model", "format", "deleted"})
_REDIRECT = re.compile(r"#(?:転送|リダイレクト|REDIRECCI[ÓO]N|REDIRECT)\s*:?\s*\[\[([^\]|]+)", re.IGNORECASE)
_ENTITY_HEADER = re.compile(r"[QPL]\d+(?: [a-z]+=\S+)*")
_SITE = re.compile(r"[a-z_]+(?:wiki|wikiquote|wikisource|wikivoyage|wiktionary)")
_SITELINK = re.compile(r"(?P<title>.+?)(?: \[(?P<badges>Q\d+(?:, Q\d+)*)\])?")
_EMPTY_FORMS: dict[str, Any] = {"[]": [], "{}": {}, "absent": None}
_EMPTY_PARTS = ("labels", "descriptions", "aliases", "claims", "sitelinks")
_FIRST_REVISION = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class SourcePage:
    """One page of pages.wiki: its header line and the wikitext under it."""

    title: str
    page_id: int
    namespace: int
    wikitext: str
    model: str = "wikitext"
    format: str = "text/x-wiki"
    text_is_deleted: bool = False

    @property
    def redirect_target(self) -> str | None:
        """The target of a redirect page, with its fragment; None for any other page.

        >>> SourcePage(title="江戸", page_id=1, namespace=0, wikitext="#転送 [[東京#歴史]]").redirect_target
        '東京#歴史'
        """
        match = _REDIRECT.match(self.wikitext)
        return match[1].strip() if match else None


@dataclass(kw_only=True)
class SourceEntity:
    """One block of items.txt: its first line and the lines under it."""

    entity_id: str
    header: dict[str, str]
    labels: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    claims: list[tuple[str, str]] = field(default_factory=list)
    sitelinks: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    empty: dict[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------- pages


def parse_pages(source: str) -> list[SourcePage]:
    """The pages of a pages.wiki, in the order of their ids.

    Raises ValueError for text before the first header, a header that is not understood, and an id or
    title that is used twice.
    """
    pages: list[SourcePage] = []
    chunks = re.split(r"^(?=@@@ )", source, flags=re.MULTILINE)
    if chunks[0].strip():
        raise ValueError(f"text before the first '@@@ ' line: {chunks[0][:60]!r}")
    for chunk in chunks[1:]:
        header, _, wikitext = chunk.partition("\n")
        pages.append(_parse_page(header, wikitext.rstrip()))
    for name, values in (("id", [str(p.page_id) for p in pages]), ("title", [p.title for p in pages])):
        twice = sorted(value for value, times in Counter(values).items() if times > 1)
        if twice:
            raise ValueError(f"page {name} used twice: {', '.join(twice)}")
    return sorted(pages, key=lambda page: page.page_id)


def _parse_page(header: str, wikitext: str) -> SourcePage:
    match = _PAGE_HEADER.fullmatch(header)
    if match is None:
        raise ValueError(f"page header {header!r} is not '@@@ TITLE | id=NUMBER | ns=NUMBER'")
    fields = dict(part.split("=", 1) for part in match["fields"].split(" | ")[1:])
    if not {"id", "ns"} <= fields.keys() <= _PAGE_FIELDS:
        raise ValueError(f"page header {header!r} needs id and ns and may have {sorted(_PAGE_FIELDS)}")
    if fields.get("deleted", "text") != "text":
        raise ValueError(f"page header {header!r}: only deleted=text is known")
    return SourcePage(
        title=match["title"],
        page_id=int(fields["id"]),
        namespace=int(fields["ns"]),
        wikitext=wikitext,
        model=fields.get("model", "wikitext"),
        format=fields.get("format", "text/x-wiki"),
        text_is_deleted="deleted" in fields,
    )


def pack_pages(source: str, siteinfo: dict[str, Any], *, pages_per_stream: int = PAGES_PER_STREAM) -> bytes:
    """A multistream pages-articles dump (export 0.11, bzip2) of the pages in a pages.wiki.

    The first stream holds the header, the last one only `</mediawiki>`, as in Wikimedia's files.
    """
    pages = parse_pages(source)
    parts = [header_xml(siteinfo)]
    for first in range(0, len(pages), pages_per_stream):
        parts.append("".join(page_xml(page) for page in pages[first : first + pages_per_stream]))
    parts.append("</mediawiki>\n")
    return b"".join(bz2.compress(part.encode("utf-8")) for part in parts)


def header_xml(siteinfo: dict[str, Any]) -> str:
    """The opening tag and the <siteinfo> of a dump."""
    namespace_lines = []
    for key, name in siteinfo["namespaces"].items():
        element = f'<namespace key="{key}" case="{siteinfo["case"]}"'
        element += f">{escape(name)}</namespace>" if name else " />"
        namespace_lines.append(f"      {element}\n")
    export = "http://www.mediawiki.org/xml/export-0.11"
    return (
        f'<mediawiki xmlns="{export}/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        f' xsi:schemaLocation="{export}/ {export}.xsd" version="0.11" xml:lang="{siteinfo["lang"]}">\n'
        "  <siteinfo>\n"
        f"    <sitename>{escape(siteinfo['sitename'])}</sitename>\n"
        f"    <dbname>{siteinfo['dbname']}</dbname>\n"
        f"    <base>{escape(siteinfo['base'])}</base>\n"
        f"    <generator>{siteinfo['generator']}</generator>\n"
        f"    <case>{siteinfo['case']}</case>\n"
        "    <namespaces>\n" + "".join(namespace_lines) + "    </namespaces>\n"
        "  </siteinfo>\n"
    )


def page_xml(page: SourcePage) -> str:
    """One <page> element as MediaWiki's exporter writes it."""
    revision_id = 1_000_000 + page.page_id * 10
    timestamp = _FIRST_REVISION + timedelta(hours=page.page_id)
    text, sha1 = _text_xml(page)
    lines = [
        "  <page>",
        f"    <title>{_xml(page.title)}</title>",
        f"    <ns>{page.namespace}</ns>",
        f"    <id>{page.page_id}</id>",
        *_redirect_xml(page),
        "    <revision>",
        f"      <id>{revision_id}</id>",
        *([f"      <parentid>{revision_id - 3}</parentid>"] if page.page_id % 4 else []),
        f"      <timestamp>{timestamp:%Y-%m-%dT%H:%M:%SZ}</timestamp>",
        *_contributor_xml(page.page_id),
        *(["      <minor />"] if page.page_id % 3 == 0 else []),
        *([f"      <comment>/* {_xml(page.title)} */ &lt;ref&gt;</comment>"] if page.page_id % 5 else []),
        f"      <origin>{revision_id}</origin>",
        f"      <model>{page.model}</model>",
        f"      <format>{page.format}</format>",
        f"      {text}",
        f"      {sha1}",
        "    </revision>",
        "  </page>",
    ]
    return "\n".join(lines) + "\n"


def _redirect_xml(page: SourcePage) -> list[str]:
    """The <redirect> of a redirect page; as in real dumps its title is without the fragment the text has."""
    target = page.redirect_target
    return [] if target is None else [f'    <redirect title="{_xml(target.partition("#")[0])}" />']


def _text_xml(page: SourcePage) -> tuple[str, str]:
    data = page.wikitext.encode("utf-8")
    sha1 = sha1_base36(data)
    attributes = f'bytes="{len(data)}" sha1="{sha1}"'
    if page.text_is_deleted:
        return f'<text {attributes} deleted="deleted" />', "<sha1 />"
    return f'<text {attributes} xml:space="preserve">{_xml(page.wikitext)}</text>', f"<sha1>{sha1}</sha1>"


def _contributor_xml(page_id: int) -> list[str]:
    """An account, and now and then an address (of the documentation range) or a hidden name."""
    if page_id % 17 == 0:
        return ['      <contributor deleted="deleted" />']
    if page_id % 7 == 0:
        inside = [f"        <ip>192.0.2.{page_id % 256}</ip>"]
    else:
        inside = ["        <username>Sample editor</username>", "        <id>1</id>"]
    return ["      <contributor>", *inside, "      </contributor>"]


def sha1_base36(data: bytes) -> str:
    """MediaWiki's form of a SHA-1: base 36, 31 digits.

    >>> sha1_base36(b"")
    'phoiac9h4m842xq45sp7s6u21eteeq1'
    """
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    number = int.from_bytes(hashlib.sha1(data).digest(), "big")
    out = ""
    while number:
        number, digit = divmod(number, 36)
        out = digits[digit] + out
    return out.rjust(31, "0")


def _xml(text: str) -> str:
    return escape(text, {'"': "&quot;"})


# ------------------------------------------------------------------------------------------------- Wikidata


def parse_entities(source: str) -> list[SourceEntity]:
    """The entities of an items.txt, in its order.

    Raises ValueError for a line that is not understood and for an id or a (site, title) that is used twice.
    """
    entities: list[SourceEntity] = []
    for number, line in enumerate(source.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith("  "):
            if not _ENTITY_HEADER.fullmatch(line):
                raise ValueError(f"items.txt line {number}: {line!r} is no entity id and not indented")
            entity_id, *fields = line.split(" ")
            header = dict(part.split("=", 1) for part in fields)
            entities.append(SourceEntity(entity_id=entity_id, header=header))
        elif not entities:
            raise ValueError(f"items.txt line {number}: {line!r} stands before the first entity id")
        else:
            try:
                _add_line(entities[-1], line.strip())
            except ValueError as error:
                raise ValueError(f"items.txt line {number}, {entities[-1].entity_id}: {error}") from error
    _refuse_doubles(entities)
    return entities


def _add_line(entity: SourceEntity, line: str) -> None:
    key, _, value = line.partition(" ")
    if not value:
        raise ValueError(f"{line!r} has no value")
    if key == "!":
        part, _, form = value.partition(" ")
        if part not in _EMPTY_PARTS or form not in _EMPTY_FORMS:
            raise ValueError(f"{line!r} is not '! PART FORM' with {_EMPTY_PARTS} and {list(_EMPTY_FORMS)}")
        entity.empty[part] = form
    elif re.fullmatch(r"P\d+", key):
        entity.claims.append((key, value))
    elif _SITE.fullmatch(key):
        match = _SITELINK.fullmatch(value)
        assert match is not None, "the pattern takes any title"
        entity.sitelinks[key] = (match["title"], match["badges"].split(", ") if match["badges"] else [])
    elif re.fullmatch(r"[a-z]{2,3}(?:-[a-z]+)*", key):
        label, *more = value.split(" | ")
        entity.labels[key] = label
        if more and more[0]:
            entity.descriptions[key] = more[0]
        if len(more) > 1:
            entity.aliases[key] = more[1].split("; ")
    else:
        raise ValueError(f"{line!r} begins with no language, property, site or '!'")


def _refuse_doubles(entities: Sequence[SourceEntity]) -> None:
    seen: dict[str, str] = {}
    for entity in entities:
        links = [f"{site} {title}" for site, (title, _) in entity.sitelinks.items()]
        for key in [entity.entity_id, *links]:
            if key in seen:
                raise ValueError(f"items.txt: {key!r} is in {seen[key]} and in {entity.entity_id}")
            seen[key] = entity.entity_id


def entity_json(entity: SourceEntity, *, page_id: int) -> dict[str, Any]:
    """The full JSON object of an entity, keys in the order of today's dumps."""
    kind = {"Q": "item", "P": "property", "L": "lexeme"}[entity.entity_id[0]]
    out: dict[str, Any] = {"type": kind}
    if kind == "property":
        out["datatype"] = entity.header["datatype"]
    out["id"] = entity.entity_id
    if kind == "lexeme":
        language, lemma = entity.header["lemma"].split(":", 1)
        out["lemmas"] = {language: {"language": language, "value": lemma}}
        out["lexicalCategory"] = entity.header["category"]
        out["language"] = entity.header["language"]
    else:
        out["labels"] = _terms(entity.labels)
        out["descriptions"] = _terms(entity.descriptions)
        out["aliases"] = {
            language: [{"language": language, "value": value} for value in values]
            for language, values in entity.aliases.items()
        }
    out["claims"] = _claims(entity)
    if kind == "lexeme":
        out["forms"], out["senses"] = [], []
    if kind == "item":
        out["sitelinks"] = {
            site: {"site": site, "title": title, "badges": badges}
            for site, (title, badges) in sorted(entity.sitelinks.items())
        }
    for part, form in entity.empty.items():
        if out[part]:
            raise ValueError(f"{entity.entity_id}: '! {part} {form}', but the block has {part}")
        out[part] = _EMPTY_FORMS[form]
        if form == "absent":
            del out[part]
    namespace, prefix = {"item": (0, ""), "property": (120, "Property:"), "lexeme": (146, "Lexeme:")}[kind]
    modified = _FIRST_REVISION + timedelta(hours=page_id)
    out["pageid"] = page_id
    out["ns"] = namespace
    out["title"] = prefix + entity.entity_id
    out["lastrevid"] = 2_000_000_000 + page_id
    out["modified"] = f"{modified:%Y-%m-%dT%H:%M:%SZ}"
    return out


def _terms(terms: dict[str, str]) -> dict[str, dict[str, str]]:
    return {language: {"language": language, "value": value} for language, value in terms.items()}


def _claims(entity: SourceEntity) -> dict[str, list[dict[str, Any]]]:
    claims: dict[str, list[dict[str, Any]]] = {}
    for number, (property_id, value) in enumerate(entity.claims):
        digest = hashlib.sha1(f"{entity.entity_id} {number} {property_id} {value}".encode()).hexdigest()
        uuid = "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32])).upper()
        datatype, datavalue = claim_value(value)
        snak = {"snaktype": "value", "property": property_id, "datavalue": datavalue, "datatype": datatype}
        statement = {"mainsnak": snak, "type": "statement", "id": f"{entity.entity_id}${uuid}", "rank": "normal"}
        claims.setdefault(property_id, []).append(statement)
    return claims


def claim_value(value: str) -> tuple[str, dict[str, Any]]:
    """(datatype, datavalue) of a claim as items.txt writes it.

    >>> claim_value("Q17")[1]
    {'value': {'entity-type': 'item', 'numeric-id': 17, 'id': 'Q17'}, 'type': 'wikibase-entityid'}
    """
    if re.fullmatch(r"Q\d+", value):
        item = {"entity-type": "item", "numeric-id": int(value[1:]), "id": value}
        return "wikibase-item", {"value": item, "type": "wikibase-entityid"}
    if re.fullmatch(r'".*"', value):
        return "commonsMedia", {"value": value[1:-1], "type": "string"}
    if re.fullmatch(r"\+\d{4}-\d\d-\d\d", value):
        time = {"time": f"{value}T00:00:00Z", "timezone": 0, "before": 0, "after": 0, "precision": 11,
                "calendarmodel": "http://www.wikidata.org/entity/Q1985727"}  # fmt: skip
        return "time", {"value": time, "type": "time"}
    if re.fullmatch(r"\d+", value):
        return "quantity", {"value": {"amount": f"+{value}", "unit": "1"}, "type": "quantity"}
    place = re.fullmatch(r"(-?\d+\.\d+),(-?\d+\.\d+)", value)
    if place is None:
        raise ValueError(f'claim value {value!r} is no item, "text", date, number or place')
    globe = {"latitude": float(place[1]), "longitude": float(place[2]), "altitude": None, "precision": 0.01,
             "globe": "http://www.wikidata.org/entity/Q2"}  # fmt: skip
    return "globe-coordinate", {"value": globe, "type": "globecoordinate"}


def pack_wikidata(source: str) -> bytes:
    """A Wikidata JSON dump (array form, one entity a line, ASCII, bzip2) of the entities in an items.txt."""
    lines = [
        json.dumps(entity_json(entity, page_id=100 + number), separators=(",", ":"))
        for number, entity in enumerate(parse_entities(source))
    ]
    return bz2.compress(("[\n" + ",\n".join(lines) + "\n]\n").encode("ascii"))


# ------------------------------------------------------------------------------------------------ tokenizer


def training_lines(page_sources: Sequence[str], items_source: str) -> Iterator[str]:
    """What the tokenizer is trained on: the articles without most markup, and the English names of their items.

    A name stands in the wikis' text only once it is inserted there, hence its weight.
    """
    for source in page_sources:
        for page in parse_pages(source):
            if page.namespace == 0 and page.redirect_target is None and not page.text_is_deleted:
                yield from (line + "\n" for line in without_markup(page.wikitext).splitlines() if line)
    for entity in parse_entities(items_source):
        if "enwiki" in entity.sitelinks and not entity.sitelinks.keys().isdisjoint(WIKIS):
            yield from [f" {entity.sitelinks['enwiki'][0]}\n"] * NAME_WEIGHT


def without_markup(wikitext: str) -> str:
    """Roughly the text a reader sees; enough to train a tokenizer on, and no more than that.

    >>> without_markup("'''[[国|日本]]'''の{{lang|en|x}}首都<ref>a</ref>。")
    '日本の首都。'
    """
    text = re.sub(r"<!--.*?-->|<ref[^>]*/>|<ref.*?</ref>", "", wikitext, flags=re.DOTALL)
    text = re.sub(r"\{\{[^{}]*\}\}|\{\|.*?\|\}|\[\[[^\]|]*:(?:[^\[\]]|\[\[[^\]]*\]\])*\]\]", "", text, flags=re.DOTALL)
    text = re.sub(r"\[\[(?:[^\]|]*\|)?([^\]]*)\]\]", r"\1", text)
    return html.unescape(re.sub(r"'{2,}|</?\w[^>]*>", "", text))


def train_tokenizer(lines: Sequence[str], *, vocabulary_size: int = VOCABULARY_SIZE) -> str:
    """The tokenizer.json of a byte-level BPE trained on `lines`: `<s>` first, no space put before a text.

    The order of the lines and the number of threads do not show in it (seen with tokenizers 0.23, 1 to 8 threads).
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=None, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, indent=1) + "\n"


def tokenizer_config() -> str:
    """The tokenizer_config.json that lets transformers load the tokenizer with its special tokens."""
    config = {
        "add_prefix_space": False,
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "model_max_length": 2048,
        "pad_token": "<pad>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    }
    return json.dumps(config, indent=2) + "\n"


# ------------------------------------------------------------------------------------------------- all of it


def pack_sample(output: Path, *, sample: Path = HERE) -> list[Path]:
    """Write the sample's dumps and its tokenizer under `output`; returns the paths written."""
    sources = {wiki: (sample / wiki / "pages.wiki").read_text(encoding="utf-8") for wiki in WIKIS}
    items = (sample / "wikidata" / "items.txt").read_text(encoding="utf-8")
    files: dict[str, bytes] = {}
    for wiki, source in sources.items():
        siteinfo = json.loads((sample / wiki / "siteinfo.json").read_text(encoding="utf-8"))
        files[f"{wiki}-{DUMP_DATE}-pages-articles-multistream.xml.bz2"] = pack_pages(source, siteinfo)
    files[f"wikidata-{DUMP_DATE}-all.json.bz2"] = pack_wikidata(items)
    lines = list(training_lines(list(sources.values()), items))
    files["tokenizer/tokenizer.json"] = train_tokenizer(lines).encode("utf-8")
    files["tokenizer/tokenizer_config.json"] = tokenizer_config().encode("utf-8")
    written = []
    for name, data in files.items():
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: `python pack.py OUTPUT_DIR`."""
    parser = argparse.ArgumentParser(description="Write the sample's dumps and tokenizer into a folder.")
    parser.add_argument("output", type=Path, metavar="OUTPUT_DIR", help="folder to write to, made if missing")
    for path in pack_sample(parser.parse_args(arguments).output):
        print(f"{path.stat().st_size:>9,} bytes  {path}")


if __name__ == "__main__":
    main()

"""The stage `shards`: from articles, the entity table and a tokenizer to rows that a trainer consumes.

A unit is a file of the stage `articles`, so shard k holds the articles of range k of the dump; nothing crosses a
shuffle. The tokenizer's files are copied beside the shards, so that the folder can be used alone. Pages that lost against
another of the same title or id are left out. Names that are held out are looked for in texts and in longer names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from leia_beam.entity_names import refusal_of
from leia_beam.holdout import LeakFinder
from leia_beam.linking import LinkedAnchor, LinkRules, is_equal, link_anchor, template_name
from leia_beam.lookup import LOOKUP_TABLES, EntityLookup, open_lookup
from leia_beam.mentions import later_mentions
from leia_beam.plans import StagePlan, identity_of, upstream
from leia_beam.records import INTERLANGUAGE_TEMPLATE, LATER_MENTION
from leia_beam.schema import SHARDS
from leia_beam.siteinfo import SiteInfo, wiki_with
from leia_beam.stage_folders import local_copy, stage_manifest
from leia_beam.storage import LocalStorage, Storage
from leia_beam.tables import read_rows
from leia_beam.tokenization import TextEncoder, TokenSpan, align_spans, find_added_ids
from leia_beam.tokenizer_identity import TokenizerFiles
from leia_beam.units import Unit, UnitOutput
from leia_beam.wikis import Wiki

VERSIONS = ("leia-lm", "pyarrow", "tokenizers", "unicodedata")
NO_LINK = "no link"


@dataclass(frozen=True, kw_only=True)
class ShardsStage:
    """`tokenizer` is what `find_tokenizer` found; workers get its bytes with the stage, not a path."""

    folder: str
    articles_folder: str
    entities_folder: str
    wiki_code: str
    siteinfo: SiteInfo | None
    name_wikis: tuple[str, ...]
    tokenizer: TokenizerFiles
    alignment: str
    name_space: str
    document_start: str
    rules: LinkRules = field(default_factory=LinkRules)
    later_mentions: bool = False
    storage: Storage = field(default_factory=LocalStorage)

    @cached_property
    def plan(self) -> StagePlan:
        encoder = open_encoder(self.tokenizer, self.name_space, self.document_start)
        identity = encoder.identity
        return StagePlan(
            stage="shards",
            identity=identity_of(
                "shards",
                [
                    upstream(self.articles_folder, "articles", self.storage),
                    upstream(self.entities_folder, "entities", self.storage),
                ],
                {
                    "wiki": self.wiki_code,
                    "name_wikis": list(self.name_wikis),
                    "tokenizer_sha256": hashlib.sha256(self.tokenizer.tokenizer_json).hexdigest(),
                    "tokenizer_config_sha256": _sha256(self.tokenizer.config_json),
                    "align": self.alignment,
                    "name_space": self.name_space,
                    "document_start": self.document_start,
                    "links": asdict(self.rules),
                    "later_mentions": self.later_mentions,
                },
                VERSIONS,
            ),
            unit_count=len(self.units()),
            details={
                "tokenizer": {
                    "name": self.tokenizer.name,
                    "path": "tokenizer/tokenizer.json",
                    "sha256": _sha256(self.tokenizer.tokenizer_json),
                    "config_path": "tokenizer/tokenizer_config.json" if self.tokenizer.config_json else None,
                    "config_sha256": _sha256(self.tokenizer.config_json),
                    "fingerprint": identity.fingerprint,
                    "probe_fingerprint": identity.probe_fingerprint,
                    "vocabulary_size": identity.vocabulary_size,
                    "document_start_ids": list(encoder.document_start_ids),
                    "eos_id": identity.eos_id,
                    "names_take_a_space": encoder.spaced_names,
                }
            },
        )

    def units(self) -> list[Unit]:
        files = stage_manifest(self.storage, self.articles_folder).files_of("articles")
        return [
            Unit(
                number=number,
                count=len(files),
                path=f"{self.articles_folder}/{file.path}",
                name=Path(file.path).name,
                size_bytes=file.size_bytes,
                end=file.size_bytes,
            )
            for number, file in enumerate(files)
        ]

    def publish_tokenizer(self) -> None:
        """Put the tokenizer's files beside the shards."""
        self.storage.write(f"{self.folder}/tokenizer/tokenizer.json", self.tokenizer.tokenizer_json)
        if self.tokenizer.config_json is not None:
            self.storage.write(f"{self.folder}/tokenizer/tokenizer_config.json", self.tokenizer.config_json)

    def process(self, unit: Unit, output: UnitOutput) -> None:
        """Each article of the file: a row, or filtered because it has no link."""
        manifest_sha256 = str(upstream(self.entities_folder, "entities", self.storage)["manifest_sha256"])
        maker = _RowMaker(
            encoder=open_encoder(self.tokenizer, self.name_space, self.document_start),
            lookup=open_lookup(local_copy(self.storage, self.entities_folder, LOOKUP_TABLES), manifest_sha256),
            wiki=wiki_with(self.wiki_code, self.siteinfo),
            name_wikis=self.name_wikis,
            alignment=self.alignment,
            rules=self.rules,
            later_mentions=self.later_mentions,
            leaks=_open_leak_finder(
                self.storage, self.entities_folder, manifest_sha256, self.articles_folder, self.name_wikis, self.rules
            ),
            losing=_losing_pages(self.storage, self.entities_folder, manifest_sha256).get(unit.number, {}),
            output=output,
        )
        table = output.table("train", SHARDS)
        for number, article in enumerate(read_rows(self.storage.table_file(unit.path))):
            row = maker.make(article, number)
            if row is not None:
                table.write(row, 8 * len(row["input_ids"]) + 200 * len(row["entity_ordinals"]))
        if maker.held_out:
            path = output.file("held-out-templates", "lists", "jsonl", len(maker.held_out))
            lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in maker.held_out)
            Path(path).write_text("".join(lines), encoding="utf-8")


@lru_cache(maxsize=2)
def _open_leak_finder(
    storage: Storage,
    entities_folder: str,
    manifest_sha256: str,
    articles_folder: str,
    name_wikis: tuple[str, ...],
    rules: LinkRules,
) -> LeakFinder:
    """What finds the names that are held out, and their aliases: of titles, and of the templates of all articles."""
    files = stage_manifest(storage, entities_folder).files_of("held-out")
    sources = (storage.table_file(f"{entities_folder}/{file.path}") for file in files)
    rows = (row for source in sources for row in read_rows(source, ["name", "aliases"]))
    names = {name for row in rows for name in (row["name"], *row["aliases"])}
    if rules.holdout.share:
        names |= _held_out_of_templates(storage, articles_folder, name_wikis, rules)
    return LeakFinder(sorted(names))


def _held_out_of_templates(
    storage: Storage, articles_folder: str, name_wikis: tuple[str, ...], rules: LinkRules
) -> set[str]:
    """Names that interlanguage templates give and that are held out, over all articles: two columns of each file."""
    found: set[str] = set()
    for file in stage_manifest(storage, articles_folder).files_of("articles"):
        columns = [f"anchors.list.element.{name}" for name in ("foreign_wiki", "foreign_title", "kind")]
        pairs: set[tuple[str, str]] = set()
        with pq.ParquetFile(storage.table_file(f"{articles_folder}/{file.path}")) as articles:
            for batch in articles.iter_batches(columns=columns):
                anchors = pc.list_flatten(batch.column(0))
                anchors = anchors.filter(pc.equal(anchors.field("kind"), INTERLANGUAGE_TEMPLATE))
                foreign = (anchors.field(name).to_pylist() for name in ("foreign_wiki", "foreign_title"))
                pairs.update(zip(*foreign, strict=True))
        names = (template_name(title, code) for code, title in pairs if code in name_wikis)
        found |= {
            name for name in names if name and refusal_of(name, rules.names) is None and rules.holdout.holds(name)
        }
    return found


@lru_cache(maxsize=2)
def _losing_pages(storage: Storage, entities_folder: str, manifest_sha256: str) -> dict[int, dict[int, str]]:
    """Unit → row → reason, of the articles that are left out for another page of the same title or id."""
    found: dict[int, dict[int, str]] = {}
    for step in ("_titles", "_redirects"):
        folder = f"{entities_folder}/{step}"
        for file in stage_manifest(storage, folder).files_of("duplicates"):
            for row in read_rows(storage.table_file(f"{folder}/{file.path}")):
                if row["table"] == "articles":
                    found.setdefault(row["unit"], {})[row["row"]] = row["reason"]
    return found


@lru_cache(maxsize=2)
def open_encoder(tokenizer: TokenizerFiles, name_space: str, document_start: str) -> TextEncoder:
    """The encoder of a tokenizer, made once a process."""
    return TextEncoder(tokenizer, name_space, document_start)


def _sha256(content: bytes | None) -> str | None:
    return hashlib.sha256(content).hexdigest() if content is not None else None


@dataclass(frozen=True, slots=True)
class _NamedLink:
    """An anchor that has a name. `ordinal` is its number in the article; later mentions count on behind the links."""

    ordinal: int
    anchor: Mapping[str, Any]
    link: LinkedAnchor


@dataclass(frozen=True, kw_only=True)
class _RowMaker:
    """Turns articles into shard rows."""

    encoder: TextEncoder
    lookup: EntityLookup
    wiki: Wiki
    name_wikis: tuple[str, ...]
    alignment: str
    rules: LinkRules
    later_mentions: bool
    leaks: LeakFinder
    losing: Mapping[int, str]
    """Row of the file → why that article is left out."""
    output: UnitOutput
    held_out: list[dict[str, Any]] = field(default_factory=list)
    """Names of interlanguage templates that are held out, which no table of titles lists."""

    def make(self, article: Mapping[str, Any], number: int) -> dict[str, Any] | None:
        """The row of article `number` of the file, or None where it is filtered or rejected (and counted)."""
        output, anchors = self.output, article["anchors"]
        output.count("articles/read")
        if number in self.losing:
            output.count(f"articles/filtered/{self.losing[number]}")
            return None
        if not anchors:
            output.count(f"articles/filtered/{NO_LINK}")
            return None
        text_ids, offsets = self.encoder.encode(article["text"])
        added = find_added_ids(text_ids, self.encoder.added_ids)
        if added:
            raw = json.dumps({"title": article["title"], "ids": list(added)}, ensure_ascii=False).encode()
            output.reject("articles", "added token from text", None, str(article["page_id"]), raw)
            return None
        start_ids = self.encoder.document_start_ids
        row = {
            "wiki": article["wiki"],
            "page_id": article["page_id"],
            "revision_id": article["revision_id"],
            "title": article["title"],
            "qid": self._own_qid(article["title"]),
            "flags": article["flags"],
            "input_ids": [*start_ids, *text_ids.tolist()],
            **self._entity_columns(anchors, offsets, article["text"], len(start_ids)),
        }
        output.count("articles/emitted")
        output.count("tokens/emitted", len(row["input_ids"]))
        output.count("characters/emitted", len(article["text"]))
        return row

    def _own_qid(self, title: str) -> str | None:
        row = self.lookup.find(title)
        return row.qid if row is not None else None

    def _entity_columns(self, anchors: list[Any], offsets: Any, text: str, shift: int) -> dict[str, list[Any]]:
        """The columns about names: token positions are shifted by what stands before the text."""
        columns: dict[str, list[Any]] = {
            name: [] for name in SHARDS.names if name.startswith(("entity_", "alternative_"))
        }
        entries = self._named_links(anchors, text)
        spans = [(entry.anchor["start_char"], entry.anchor["end_char"]) for entry in entries]
        for entry, span in zip(entries, align_spans(offsets, text, spans, self.alignment), strict=True):
            thing = "mentions" if entry.anchor["kind"] == LATER_MENTION else "anchors"
            if isinstance(span, TokenSpan):
                self._add_entity(columns, entry, span, shift)
                self.output.count(f"{thing}/emitted")
            else:
                self.output.count(f"{thing}/filtered/{span}")
        if self.leaks:
            self._count_leaks(text, entries)
        return columns

    def _named_links(self, anchors: list[Any], text: str) -> list[_NamedLink]:
        """The anchors that have a name, later mentions among them, in the order of the text; the others are counted."""
        self.output.count("anchors/read", len(anchors))
        entries = []
        for number, anchor in enumerate(anchors):
            shown = text[anchor["start_char"] : anchor["end_char"]]
            link = link_anchor(anchor, self.lookup, self.wiki, self.name_wikis, self.rules, shown)
            if link.name is None:
                self.output.count(f"anchors/filtered/{link.reason}")
                if link.held_out_name is not None:
                    self.held_out.append({"title": anchor["target"], "name": link.held_out_name})
                continue
            if is_equal(link.name, shown):
                self.output.count("names equal to the anchor")
            entries.append(_NamedLink(number, anchor, link))
        if not self.later_mentions or not entries:
            return entries
        link_of = {entry.anchor["start_char"]: entry.link for entry in entries}
        mentions = later_mentions(text, anchors, [entry.anchor for entry in entries])
        self.output.count("mentions/read", len(mentions))
        entries += [
            _NamedLink(len(anchors) + number, mention, link_of[first])
            for number, (mention, first) in enumerate(mentions)
        ]
        return sorted(entries, key=lambda entry: int(entry.anchor["start_char"]))

    def _count_leaks(self, text: str, entries: list[_NamedLink]) -> None:
        """Held-out names that the trainer sees all the same: in longer names, and in the text itself."""
        for entry in entries:
            self.output.count("leaks/in longer names", sum(1 for _ in self.leaks.find(entry.link.name or "")))
        self.output.count("leaks/in texts", sum(1 for _ in self.leaks.find(text)))

    def _add_entity(self, columns: dict[str, list[Any]], entry: _NamedLink, span: TokenSpan, shift: int) -> None:
        link, anchor = entry.link, entry.anchor
        name_ids = self.encoder.encode_name(link.name or "")
        columns["entity_start_positions"].append(span.start + shift)
        columns["entity_end_positions"].append(span.end + shift)
        columns["alternative_entity_input_ids"].append(name_ids)
        columns["entity_qids"].append(link.qid)
        columns["entity_ordinals"].append(entry.ordinal)
        columns["entity_kinds"].append(anchor["kind"])
        columns["entity_blocks"].append(anchor["block"])
        columns["entity_edges"].append(span.edge)
        columns["entity_name_languages"].append(link.name_language)
        columns["entity_name_sources"].append(link.name_source)
        self.output.count(f"edges/{span.edge}")
        self.output.count("name_tokens/emitted", len(name_ids))

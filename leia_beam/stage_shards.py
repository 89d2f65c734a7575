"""The stage `shards`: from articles, the entity table and a tokenizer to rows that a trainer consumes.

A unit is a file of the stage `articles`, so shard k holds the articles of range k of the dump; nothing crosses a
shuffle. The tokenizer's files are copied beside the shards, so that the folder can be used alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from leia_beam.linking import link_anchor
from leia_beam.lookup import EntityLookup, open_lookup
from leia_beam.manifest import read_manifest
from leia_beam.plans import StagePlan, identity_of, upstream
from leia_beam.schema import SHARDS
from leia_beam.siteinfo import SiteInfo, wiki_with
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
    storage: Storage = field(default_factory=LocalStorage)

    @property
    def plan(self) -> StagePlan:
        encoder = open_encoder(self.tokenizer, self.name_space, self.document_start)
        identity = encoder.identity
        return StagePlan(
            stage="shards",
            identity=identity_of(
                "shards",
                [upstream(self.articles_folder, "articles"), upstream(self.entities_folder, "entities")],
                {
                    "wiki": self.wiki_code,
                    "name_wikis": list(self.name_wikis),
                    "tokenizer_sha256": hashlib.sha256(self.tokenizer.tokenizer_json).hexdigest(),
                    "tokenizer_config_sha256": _sha256(self.tokenizer.config_json),
                    "align": self.alignment,
                    "name_space": self.name_space,
                    "document_start": self.document_start,
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
        files = read_manifest(self.articles_folder).files_of("articles")
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
        manifest_sha256 = str(upstream(self.entities_folder, "entities")["manifest_sha256"])
        maker = _RowMaker(
            encoder=open_encoder(self.tokenizer, self.name_space, self.document_start),
            lookup=open_lookup(self.entities_folder, manifest_sha256),
            wiki=wiki_with(self.wiki_code, self.siteinfo),
            name_wikis=self.name_wikis,
            alignment=self.alignment,
            output=output,
        )
        table = output.table("train", SHARDS)
        for article in read_rows(unit.path):
            row = maker.make(article)
            if row is not None:
                table.write(row, 8 * len(row["input_ids"]) + 200 * len(row["entity_ordinals"]))


@lru_cache(maxsize=2)
def open_encoder(tokenizer: TokenizerFiles, name_space: str, document_start: str) -> TextEncoder:
    """The encoder of a tokenizer, made once a process."""
    return TextEncoder(tokenizer, name_space, document_start)


def _sha256(content: bytes | None) -> str | None:
    return hashlib.sha256(content).hexdigest() if content is not None else None


@dataclass(frozen=True, kw_only=True)
class _RowMaker:
    """Turns articles into shard rows."""

    encoder: TextEncoder
    lookup: EntityLookup
    wiki: Wiki
    name_wikis: tuple[str, ...]
    alignment: str
    output: UnitOutput

    def make(self, article: Mapping[str, Any]) -> dict[str, Any] | None:
        """The row of an article, or None where it is filtered or rejected (and counted)."""
        output, anchors = self.output, article["anchors"]
        output.count("articles/read")
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
        linked = [link_anchor(anchor, self.lookup, self.wiki, self.name_wikis) for anchor in anchors]
        self.output.count("anchors/read", len(anchors))
        for link in linked:
            if link.name is None:
                self.output.count(f"anchors/filtered/{link.reason}")
        named = [number for number, link in enumerate(linked) if link.name is not None]
        spans = [(anchors[number]["start_char"], anchors[number]["end_char"]) for number in named]
        for number, span in zip(named, align_spans(offsets, text, spans, self.alignment), strict=True):
            if isinstance(span, TokenSpan):
                self._add_entity(columns, number, anchors[number], linked[number], span, shift)
            else:
                self.output.count(f"anchors/filtered/{span}")
        return columns

    def _add_entity(
        self, columns: dict[str, list[Any]], number: int, anchor: Any, link: Any, span: TokenSpan, shift: int
    ) -> None:
        name_ids = self.encoder.encode_name(link.name)
        columns["entity_start_positions"].append(span.start + shift)
        columns["entity_end_positions"].append(span.end + shift)
        columns["alternative_entity_input_ids"].append(name_ids)
        columns["entity_qids"].append(link.qid)
        columns["entity_ordinals"].append(number)
        columns["entity_kinds"].append(anchor["kind"])
        columns["entity_blocks"].append(anchor["block"])
        columns["entity_edges"].append(span.edge)
        columns["entity_name_languages"].append(link.name_language)
        columns["entity_name_sources"].append(link.name_source)
        self.output.count("anchors/emitted")
        self.output.count(f"edges/{span.edge}")
        self.output.count("name_tokens/emitted", len(name_ids))

"""The stage `shards`: from articles, the entity table and a tokenizer to rows that a trainer consumes.

A unit is a file of the stage `articles`, so shard k holds the articles of range k of the dump; nothing crosses a
shuffle. The tokenizer's files are copied beside the shards, so that the folder can be used alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from leia_beam.article_filters import DUPLICATE, losing_pages, repeated_texts
from leia_beam.article_rows import read_articles
from leia_beam.held_out_names import open_leak_finder
from leia_beam.linking import Linker, LinkRules
from leia_beam.lookup import LOOKUP_TABLES, open_lookup
from leia_beam.plans import StagePlan, identity_of, upstream
from leia_beam.schema import SHARDS
from leia_beam.shard_rows import RowMaker, RowOptions
from leia_beam.siteinfo import SiteInfo, wiki_with
from leia_beam.stage_folders import local_copy, stage_manifest
from leia_beam.storage import LocalStorage, Storage
from leia_beam.tokenization import EncodingOptions, TextEncoder, identify_once
from leia_beam.tokenizer_identity import TokenizerFiles
from leia_beam.units import Unit, UnitOutput

VERSIONS = ("leia-lm", "pyarrow", "tokenizers", "unicodedata")


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
    encoding: EncodingOptions = field(default_factory=EncodingOptions)
    rows: RowOptions = field(default_factory=RowOptions)
    rules: LinkRules = field(default_factory=LinkRules)
    storage: Storage = field(default_factory=LocalStorage)

    @cached_property
    def plan(self) -> StagePlan:
        encoder = open_encoder(self.tokenizer, self.encoding)
        identity = identify_once(self.tokenizer)
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
                    "tokenizer_sha256": _sha256(self.tokenizer.tokenizer_json),
                    "tokenizer_config_sha256": _sha256(self.tokenizer.config_json),
                    "encoding": asdict(self.encoding),
                    "rows": asdict(self.rows),
                    "links": asdict(self.rules),
                },
                VERSIONS,
            ),
            unit_count=len(self.units()),
            details={
                **self._partial(),
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
                    "document_end_ids": list(encoder.document_end_ids),
                    "eos_id": identity.eos_id,
                    "names_take_a_space": encoder.spaced_names,
                },
            },
        )

    def _partial(self) -> dict[str, list[str]]:
        """What the articles' manifest says is missing of the dump, so that shards which are copied away say it too."""
        partial = stage_manifest(self.storage, self.articles_folder).details.get("partial")
        return {"partial": list(partial)} if partial else {}

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
        """Each article of the file: a row, or filtered, or rejected."""
        entities_sha256 = str(upstream(self.entities_folder, "entities", self.storage)["manifest_sha256"])
        lookup = open_lookup(local_copy(self.storage, self.entities_folder, LOOKUP_TABLES), entities_sha256)
        wiki = wiki_with(self.wiki_code, self.siteinfo)
        repeated: Mapping[int, frozenset[int]] = {}
        if DUPLICATE in self.rows.filters.drop:
            repeated = repeated_texts(
                self.storage, self.articles_folder, self.entities_folder, entities_sha256, self.rows.filters, lookup
            )
        maker = RowMaker(
            wiki_code=self.wiki_code,
            encoder=open_encoder(self.tokenizer, self.encoding),
            lookup=lookup,
            linker=Linker(lookup, wiki, self.name_wikis, self.rules),
            leaks=open_leak_finder(
                self.storage, self.entities_folder, entities_sha256, self.articles_folder, self.name_wikis, self.rules
            ),
            options=self.rows,
            losing=losing_pages(self.storage, self.entities_folder, entities_sha256).get(unit.number, {}),
            repeated=repeated.get(unit.number, frozenset()),
            output=output,
        )
        table = output.table("train", SHARDS)
        for row in maker.rows(read_articles(self.storage.table_file(unit.path))):
            table.write(row, 8 * len(row["input_ids"]) + 200 * len(row["entity_ordinals"]))
        output.statistics = maker.statistics.as_json()
        if maker.held_out:
            path = output.file("held-out-templates", "lists", "jsonl", len(maker.held_out))
            lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in maker.held_out)
            Path(path).write_text("".join(lines), encoding="utf-8")


@lru_cache(maxsize=2)
def open_encoder(tokenizer: TokenizerFiles, options: EncodingOptions) -> TextEncoder:
    """The encoder of a tokenizer, made once a process."""
    return TextEncoder(tokenizer, options)


def _sha256(content: bytes | None) -> str | None:
    return hashlib.sha256(content).hexdigest() if content is not None else None

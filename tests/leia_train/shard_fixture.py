"""From a few sentences to a finished folder of shards, as the corpus builder writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from leia_beam.manifest import MANIFEST_NAME, Manifest, StageFile, manifest_bytes
from leia_beam.schema import SCHEMA_VERSION, SHARDS
from leia_beam.tokenizer_identity import find_tokenizer, identify

SENTENCES = (
    ("東京", "Tokyo", "は日本の首都である。"),
    ("Nairobi", "Nairobi", " ni mji mkuu wa Kenya."),
    ("京都", "Kyoto", "は古い都である。"),
    ("Ziwa Viktoria", "Lake Victoria", " ni ziwa kubwa."),
    ("富士山", "Mount Fuji", "は日本一高い山である。"),
)
BLOCKS = ("prose", "list", "heading")
EDGES = ("exact", "exact", "start widened", "end refused", "start widened, end refused")


@dataclass(frozen=True, kw_only=True)
class Entity:
    """A span of tokens of an article with its name."""

    start: int
    end: int
    name_ids: tuple[int, ...]
    edge: str = "exact"


@dataclass(frozen=True, kw_only=True)
class Article:
    """An article as the shards have it."""

    page_id: int
    input_ids: tuple[int, ...]
    entities: tuple[Entity, ...]


def write_tokenizer(folder: Path, *, vocabulary_size: int = 330, eos: bool = True) -> Path:
    """A byte-level BPE tokenizer with BOS and, by option, EOS, trained on the sentences."""
    specials = ["<s>", "</s>"] if eos else ["<s>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([" ".join(part) for part in SENTENCES] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "tokenizer_class": "LlamaTokenizer", **({"eos_token": "</s>"} if eos else {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def make_articles(tokenizer_folder: Path, count: int, first_page: int = 1) -> list[Article]:
    """Articles of one to seven sentences, each with an entity at its start; edges of all kinds."""
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    articles = []
    for page in range(first_page, first_page + count):
        ids, entities = [0], []
        for number in range(1 + page % 7):
            anchor, name, rest = SENTENCES[(page + number) % len(SENTENCES)]
            anchor_ids = encode(anchor)
            edge = EDGES[(page + number) % len(EDGES)]
            start, end = len(ids), len(ids) + len(anchor_ids)
            entities.append(Entity(start=start, end=end, name_ids=tuple(encode(name)), edge=edge))
            ids += [*anchor_ids, *encode(rest)]
        articles.append(Article(page_id=page, input_ids=tuple(ids), entities=tuple(entities)))
    return articles


def qid_number(name_ids: Sequence[int]) -> int:
    """The number of a name's made-up item; every third has none."""
    number = 1 + sum(31**place * token for place, token in enumerate(name_ids)) % 99_991
    return number if number % 3 else -1


def shard_row(article: Article, wiki: str) -> dict[str, Any]:
    """A row of the table."""
    entities = article.entities
    return {
        "wiki": wiki,
        "page_id": article.page_id,
        "revision_id": None,
        "title": f"Page {article.page_id}",
        "qid": None,
        "flags": [],
        "input_ids": list(article.input_ids),
        "entity_start_positions": [entity.start for entity in entities],
        "entity_end_positions": [entity.end for entity in entities],
        "alternative_entity_input_ids": [list(entity.name_ids) for entity in entities],
        "entity_qids": [None if (number := qid_number(entity.name_ids)) < 0 else f"Q{number}" for entity in entities],
        "entity_ordinals": [2 * number for number in range(len(entities))],  # some anchors of a page have no name
        "entity_kinds": ["link"] * len(entities),
        "entity_blocks": [BLOCKS[number % len(BLOCKS)] for number in range(len(entities))],
        "entity_edges": [entity.edge for entity in entities],
        "entity_name_languages": ["en"] * len(entities),
        "entity_name_sources": ["sitelink"] * len(entities),
    }


def write_shards(
    folder: Path, tokenizer_folder: Path, articles: Sequence[Article], wiki: str = "jawiki", files: int = 2
) -> Path:
    """A finished folder of shards; the articles are dealt over some files."""
    (folder / "data").mkdir(parents=True)
    (folder / "tokenizer").mkdir()
    found = find_tokenizer(str(tokenizer_folder))
    identity = identify(found)
    (folder / "tokenizer/tokenizer.json").write_bytes(found.tokenizer_json)
    (folder / "tokenizer/tokenizer_config.json").write_bytes(found.config_json or b"")
    written = []
    for unit in range(files):
        path = f"data/train-{unit:05d}-of-{files:05d}-0123abcd.parquet"
        rows = [shard_row(article, wiki) for article in articles[unit::files]]
        table = pa.Table.from_pylist(rows, schema=SHARDS)
        pq.write_table(table, folder / path, row_group_size=3, write_page_checksum=True, compression="zstd")
        content = (folder / path).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        written.append(
            StageFile(path=path, table="train", unit=unit, rows=len(rows), size_bytes=len(content), sha256=digest)
        )
    details = {
        "name": tokenizer_folder.name,
        "path": "tokenizer/tokenizer.json",
        "sha256": hashlib.sha256(found.tokenizer_json).hexdigest(),
        "config_path": "tokenizer/tokenizer_config.json",
        "config_sha256": hashlib.sha256(found.config_json or b"").hexdigest(),
        "fingerprint": identity.fingerprint,
        "probe_fingerprint": identity.probe_fingerprint,
        "vocabulary_size": identity.vocabulary_size,
        "document_start_ids": list(identity.document_start_ids),
        "document_end_ids": [],
        "eos_id": identity.eos_id,
    }
    manifest = Manifest(
        stage="shards",
        fingerprint="0123abcd" * 8,
        schema_version=SCHEMA_VERSION,
        versions={},
        inputs=(),
        options={},
        files=tuple(written),
        counters={},
        details={"tokenizer": details},
    )
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    return folder

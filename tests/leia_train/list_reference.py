"""A straightforward implementation with Python lists, one article at a time, to compare the vectorised one with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from shard_fixture import BLOCKS, Article, Entity, qid_number
from tokenizers import Tokenizer, models

from leia_train.insertion import EDGE_BITS, Documents
from leia_train.shard_folders import BuildTokenizer
from leia_train.store import Category, Store

TOKENIZER_JSON = Tokenizer(models.WordLevel({"<unk>": 0}, "<unk>")).to_str().encode()
MASK = 2**64 - 1
GOOD = {
    "right": {"exact", "start widened", "expanded"},
    "left": {"exact", "end refused", "expanded"},
    "replace": {"exact", "expanded"},
    "none": set(),
}


def mix(value: int) -> int:
    """splitmix64 on a Python integer."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def key(purpose: int, seed: int, epoch: int, wiki: str, page_id: int) -> int:
    """The 64 bits of an article."""
    wiki_bits = int.from_bytes(hashlib.sha256(wiki.encode()).digest()[:8], "little")
    value = mix(purpose) ^ seed
    value = mix(value) ^ epoch
    return mix(mix(mix(value) ^ wiki_bits) ^ page_id)


def uniform(value: int) -> float:
    """A number in [0, 1)."""
    return (value >> 11) / 2**53


def augment(
    ids: Sequence[int],
    entities: Sequence[tuple[Entity, bool]],
    strategy: str,
    markers: tuple[tuple[int, ...], tuple[int, ...]] | None,
    end_id: int | None,
) -> list[tuple[int, str]]:
    """(token, kind) of an article, where each entity says whether its name goes in."""
    out: list[tuple[int, str]] = []
    position = 0
    for entity, inserted in entities:
        if not inserted:
            continue
        name = [(token, "name") for token in entity.name_ids]
        if markers is not None:
            before, after = ([(token, "marker") for token in ids_] for ids_ in markers)
            name = [*before, *name, *after]
        until = entity.end if strategy == "right" else entity.start
        out += [(token, "text") for token in ids[position:until]] + name
        position = entity.end if strategy == "replace" else until
    out += [(token, "text") for token in ids[position:]]
    return out + ([(end_id, "end")] if end_id is not None else [])


@dataclass(frozen=True, kw_only=True)
class ListPlan:
    """An endless stream of rows, made with lists."""

    articles: Sequence[tuple[str, Article]]
    strategy: str
    probability: float
    markers: tuple[tuple[int, ...], tuple[int, ...]] | None
    end_id: int | None
    length: int
    seed: int
    share: float
    name_loss: bool
    cross_document: bool

    def stream(self) -> Iterator[tuple[int, str, int]]:
        """(token, kind, position in its document), epoch after epoch."""
        kept = [pair for pair in self.articles if uniform(key(3, 0, 0, pair[0], pair[1].page_id)) >= self.share]
        epoch = 0
        while True:
            for wiki, article in sorted(kept, key=lambda pair: key(2, self.seed, epoch, pair[0], pair[1].page_id)):
                base = key(1, self.seed, epoch, wiki, article.page_id)
                entities = [
                    (entity, self._inserted(entity, uniform(mix(base ^ (2 * number)))))
                    for number, entity in enumerate(article.entities)
                ]
                tokens = augment(article.input_ids, entities, self.strategy, self.markers, self.end_id)
                yield from ((token, kind, position) for position, (token, kind) in enumerate(tokens))
            epoch += 1

    def _inserted(self, entity: Entity, draw: float) -> bool:
        return entity.edge in GOOD[self.strategy] and draw < self.probability

    def rows(self, count: int) -> dict[str, list[list[int]]]:
        """The first rows: tokens, positions, labels."""
        stream = self.stream()
        rows: dict[str, list[list[int]]] = {"input_ids": [], "position_ids": [], "labels": []}
        for _ in range(count):
            row = [next(stream) for _ in range(self.length)]
            positions: list[int] = []
            for column, (_, _, position) in enumerate(row):
                restart = column == 0 or (position == 0 and not self.cross_document)
                positions.append(0 if restart else positions[-1] + 1)
            ignored = {"marker"} if self.name_loss else {"marker", "name"}
            rows["input_ids"].append([token for token, _, _ in row])
            rows["position_ids"].append(positions)
            rows["labels"].append(
                [-100 if kind in ignored or at == 0 else token for (token, kind, _), at in zip(row, positions)]
            )
        return rows


def make_documents(articles: Sequence[Article]) -> Documents:
    """The flat columns of some articles."""
    entities = [entity for article in articles for entity in article.entities]

    def offsets(lengths: list[int]) -> np.ndarray:
        return np.cumsum([0, *lengths], dtype=np.int64)

    return Documents(
        tokens=np.array([token for article in articles for token in article.input_ids], np.int32),
        token_offsets=offsets([len(article.input_ids) for article in articles]),
        entity_offsets=offsets([len(article.entities) for article in articles]),
        entity_starts=np.array([entity.start for entity in entities], np.int32),
        entity_ends=np.array([entity.end for entity in entities], np.int32),
        name_tokens=np.array([token for entity in entities for token in entity.name_ids], np.int32),
        name_offsets=offsets([len(entity.name_ids) for entity in entities]),
    )


def make_store(articles: Sequence[tuple[str, Article]], eos_id: int | None) -> Store:
    """A store in memory; ordinals, qids and words are those of the shards of the fixture."""
    entities = [entity for _, article in articles for entity in article.entities]
    ordinals = [2 * number for _, article in articles for number in range(len(article.entities))]
    wikis = tuple(dict.fromkeys(wiki for wiki, _ in articles))
    words = {
        "entity_edges": tuple(EDGE_BITS),
        "entity_kinds": ("link",),
        "entity_blocks": BLOCKS,
        "entity_name_languages": ("en",),
        "entity_name_sources": ("sitelink",),
    }
    codes = {name: np.zeros(len(entities), np.uint16) for name in words}
    codes["entity_edges"][:] = [list(EDGE_BITS).index(entity.edge) for entity in entities]
    codes["entity_blocks"][:] = [(ordinal // 2) % len(BLOCKS) for ordinal in ordinals]
    return Store(
        fingerprint="",
        tokenizer=BuildTokenizer(
            name="list",
            tokenizer_json=TOKENIZER_JSON,
            config_json=None,
            fingerprint="",
            probe_fingerprint="",
            vocabulary_size=100,
            document_start_ids=(0,),
            document_end_ids=(),
            eos_id=eos_id,
        ),
        documents=make_documents([article for _, article in articles]),
        entity_ordinals=np.array(ordinals, np.int32),
        page_ids=np.array([article.page_id for _, article in articles], np.int64),
        wiki_indices=np.array([wikis.index(wiki) for wiki, _ in articles], np.int32),
        wikis=wikis,
        entity_qids=np.array([qid_number(entity.name_ids) for entity in entities], np.int64),
        categories={name: Category(codes=codes[name], words=words[name]) for name in words},
    )

"""How fast do rows come out of the loader, and does it depend on the vocabulary?

    python benchmarks/bench_train_loader.py [--articles 20000] [--rounds 3]

Generated articles of about 550 tokens with a link every 25, of a vocabulary of 32,000 and of 256,000 tokens. Ours: rows of
2,048 tokens in steps of 64 through the plan, the packing and the labels, one after the other and at random, on one core.
Yardstick, in the same run: a loop over the articles that inserts names into a list and cuts rows from it, as a plain
script would. The same rows with a quarter of texts without entities and a tenth of another wiki beside them show what a mix
costs. Beside it, for information: what a collator costs that looks the vocabulary up for the markers' ids in each
batch. CPU seconds of one thread, the best of some rounds; a stage is told by the tokens that it hands on.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import tokenizers
from tokenizers import Tokenizer, models

from leia_train.config import DataConfig
from leia_train.insertion import Documents, offsets_of
from leia_train.opening import mixed_plan
from leia_train.plan import TrainingPlan
from leia_train.shard_folders import BuildTokenizer
from leia_train.store import Category, Store
from leia_train.store_columns import CATEGORIES

LENGTH, BATCH = 2048, 64
LINK_EVERY = 25


def build_tokenizer(vocabulary_size: int) -> BuildTokenizer:
    """A tokenizer of which only the size and the special ids are looked at."""
    return BuildTokenizer(
        name="generated",
        tokenizer_json=Tokenizer(models.WordLevel({"</s>": 2}, "</s>")).to_str().encode(),
        config_json=None,
        fingerprint="",
        probe_fingerprint="",
        vocabulary_size=vocabulary_size,
        document_start_ids=(1,),
        document_end_ids=(),
        eos_id=2,
    )


def make_store(articles: int, vocabulary_size: int, wiki: str = "jawiki") -> Store:
    """Articles with sorted, separate entities, but for `texts`; names of one to six tokens."""
    generator = np.random.default_rng(0)
    lengths = generator.geometric(1 / 550, articles).astype(np.int64) + 30
    counts = lengths // LINK_EVERY * (wiki != "texts")
    total, entities = int(lengths.sum()), int(counts.sum())
    starts = np.concatenate([np.arange(count) * LINK_EVERY + 5 for count in counts.tolist()])
    name_lengths = generator.integers(1, 7, entities)
    documents = Documents(
        tokens=generator.integers(3, vocabulary_size, total, dtype=np.int32),
        token_offsets=offsets_of(lengths),
        entity_offsets=offsets_of(counts),
        entity_starts=starts.astype(np.int32),
        entity_ends=(starts + generator.integers(1, 5, entities)).astype(np.int32),
        name_tokens=generator.integers(3, vocabulary_size, int(name_lengths.sum()), dtype=np.int32),
        name_offsets=offsets_of(name_lengths),
    )
    return Store(
        fingerprint="",
        tokenizer=build_tokenizer(vocabulary_size),
        documents=documents,
        entity_ordinals=np.concatenate([np.arange(count) for count in counts.tolist()]).astype(np.int32),
        page_ids=np.arange(articles),
        wiki_indices=np.zeros(articles, np.int32),
        wikis=(wiki,),
        entity_qids=np.arange(entities),
        categories={name: Category(codes=np.zeros(entities, np.uint16), words=("exact",)) for name in CATEGORIES},
    )


def list_loop(store: Store, markers: tuple[int, int], rows: int) -> Iterator[tuple[list[int], list[int]]]:
    """Rows with labels as a plain script makes them: article by article, entity by entity."""
    documents = store.documents
    draw = random.Random(0)
    buffer: list[int] = []
    made = 0
    for article in range(len(store)):
        tokens = documents.tokens[documents.token_offsets[article] : documents.token_offsets[article + 1]].tolist()
        for entity in reversed(range(documents.entity_offsets[article], documents.entity_offsets[article + 1])):
            if draw.random() <= 0.5:
                name = documents.name_tokens[
                    documents.name_offsets[entity] : documents.name_offsets[entity + 1]
                ].tolist()
                end = documents.entity_ends[entity]
                tokens[end:end] = [markers[0], *name, markers[1]]
        buffer += tokens
        while len(buffer) >= LENGTH:
            row, buffer = buffer[:LENGTH], buffer[LENGTH:]
            yield row, [-100 if token in markers else token for token in row]
            made += 1
            if made == rows:
                return


def vocabulary_lookup(vocabulary_size: int) -> Callable[[], None]:
    """What some collators do for each batch: ask the tokenizer for its whole vocabulary to find two ids."""
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(vocabulary_size)}, "w0"))

    def look_up() -> None:
        vocabulary = tokenizer.get_vocab()
        assert vocabulary["w1"] == 1

    return look_up


def best_s(action: Callable[[], None], rounds: int) -> float:
    """The least CPU seconds of this thread."""
    found = []
    for _ in range(rounds):
        started_s = time.thread_time()
        action()
        found.append(time.thread_time() - started_s)
    return min(found)


def measure(articles: int, vocabulary_size: int, rounds: int) -> list[tuple[str, float]]:
    """Names of ways and their M tokens a second."""
    store = make_store(articles, vocabulary_size)
    markers = (vocabulary_size, vocabulary_size + 1)
    data = DataConfig(shards=("-",), validation_share=0, max_length=LENGTH)
    plan = TrainingPlan(store, data, 0, ((markers[0],), (markers[1],)))
    shares = ("texts=-:0.25", "eswiki=-:0.1,strategy=right")
    others = {name: make_store(articles // 2, vocabulary_size, name) for name in ("texts", "eswiki")}
    mixed = mixed_plan(store, others, replace(data, mix=shares), 0, ((markers[0],), (markers[1],)))
    steps = plan.epoch(0).end // (LENGTH * BATCH)
    order = np.random.default_rng(1).permutation(steps * BATCH)[:512].tolist()

    def in_order() -> None:
        for step in range(steps):
            assert plan.rows(step * BATCH, BATCH).label_count

    def in_order_mixed() -> None:
        for step in range(steps):
            assert mixed.rows(step * BATCH, BATCH).label_count

    def at_random_mixed() -> None:
        for row in order:
            assert mixed.rows(row, 1).label_count

    def at_random() -> None:
        for row in order:
            assert plan.rows(row, 1).label_count

    def new_epoch() -> None:
        plan._make_epoch(0)

    loop_rows = min(steps * BATCH, 2000)

    def loop() -> None:
        assert sum(1 for _ in list_loop(store, markers, loop_rows)) == loop_rows

    look_up = vocabulary_lookup(vocabulary_size)
    step_tokens = BATCH * LENGTH
    epoch_s = best_s(new_epoch, rounds)
    loop_s = best_s(loop, rounds) / (loop_rows * LENGTH)
    pairs = [(best_s(in_order, 1), best_s(in_order_mixed, 1)) for _ in range(rounds)]  # in turn: the machine is shared
    in_order_s, mixed_s = (min(times) / (steps * step_tokens) for times in zip(*pairs, strict=True))
    return [
        ("a loop over lists", 1e-6 / loop_s),
        (
            "the same, looking up the vocabulary in each batch of 8 rows",
            1e-6 / (loop_s + best_s(look_up, rounds) / (8 * LENGTH)),
        ),
        ("ours, steps of 64 rows in order", 1e-6 / in_order_s),
        ("ours, with the epoch's plan", 1e-6 / (in_order_s + epoch_s / plan.epoch(0).end)),
        ("ours, steps of 64 rows in order, a mix of three sources", 1e-6 / mixed_s),
        ("ours, single rows at random", 1e-6 / (best_s(at_random, rounds) / (len(order) * LENGTH))),
        ("ours, single rows at random, a mix", 1e-6 / (best_s(at_random_mixed, rounds) / (len(order) * LENGTH))),
    ]


def main() -> None:
    """Measure both vocabularies and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, numpy {np.__version__}, tokenizers {tokenizers.__version__}")
    print("\n| way | vocabulary | M tokens/s | ratio to the loop |\n|---|---|---|---|")
    for vocabulary_size in (32_000, 256_000):
        found = measure(options.articles, vocabulary_size, options.rounds)
        for name, rate in found:
            print(f"| {name} | {vocabulary_size:,} | {rate:.2f} | {rate / found[0][1]:.1f} |")


if __name__ == "__main__":
    main()

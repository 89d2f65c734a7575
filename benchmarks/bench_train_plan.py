"""How much memory and time do a plan and its epochs cost for a whole wiki?

    python benchmarks/bench_train_plan.py [--articles 3000000] [--entities 60000000]

Generated columns in memory, the text's own tokens not among them (a plan looks at their offsets alone). Each way is measured
in a process of its own: what the plan keeps after two epochs, the most that it needs while it is made, by tracemalloc, which
numpy tells of each array; the seconds of an epoch; and a row far inside of the second one. The columns themselves are not
counted: they are mapped from the store's files, and all processes of a machine share them. Yardstick: one array of 8 bytes
an entity.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from bench_train_loader import build_tokenizer

from leia_train.config import DataConfig
from leia_train.insertion import Documents, offsets_of
from leia_train.plan import TrainingPlan
from leia_train.store import Category, Store
from leia_train.store_columns import CATEGORIES

LENGTH, BATCH = 2048, 64
NAMES = 2_000_000
WAYS = {
    "names, p 0.5": {},
    "doses by name": {"probability_buckets": (0.0, 0.25, 0.5, 1.0)},
    "permuted names": {"names": "permuted"},
    "anchors": {"names": "anchor"},
    "chosen entities": {"entities": ("blocks=prose", "qids!=none")},
    "target tokens": {"budget": "target_tokens", "strategy": "replace"},
    "compat leia": {"compat": "leia"},
}


def make_store(articles: int, entities: int) -> Store:
    """Articles of 500 tokens or so, entities of one to four tokens in equal distances, names out of two million."""
    generator = np.random.default_rng(0)
    counts = generator.multinomial(entities, np.full(articles, 1 / articles))
    entity_offsets = offsets_of(counts)
    ordinals = (np.arange(entities) - np.repeat(entity_offsets[:-1], counts)).astype(np.int32)
    starts = ordinals * 25 + 5
    chosen = generator.integers(0, NAMES, entities, dtype=np.int32)
    name_lengths = 1 + chosen % 6
    name_offsets = offsets_of(name_lengths)
    name_tokens = np.repeat(chosen, name_lengths) % 30_000 + 3
    lengths = counts * 25 + 30
    words = {name: ("exact",) if name == "entity_edges" else ("prose", "list") for name in CATEGORIES}
    return Store(
        fingerprint="",
        tokenizer=build_tokenizer(32_000),
        documents=Documents(
            tokens=np.zeros(int(lengths.sum()), np.int32),  # never touched, so no memory either
            token_offsets=offsets_of(lengths),
            entity_offsets=entity_offsets,
            entity_starts=starts,
            entity_ends=starts + 1 + chosen % 4,
            name_tokens=name_tokens,
            name_offsets=name_offsets,
        ),
        entity_ordinals=ordinals,
        page_ids=np.arange(articles),
        wiki_indices=np.zeros(articles, np.int32),
        wikis=("jawiki",),
        entity_qids=np.zeros(entities, np.int64),
        categories={name: Category(codes=np.zeros(entities, np.uint16), words=words[name]) for name in CATEGORIES},
    )


def measure(articles: int, entities: int, way: str) -> dict[str, float]:
    """One way in this process: MB kept, MB at most, seconds of an epoch, milliseconds of a far row."""
    store = make_store(articles, entities)
    data = DataConfig(shards=("-",), max_length=LENGTH, **WAYS[way])
    tracemalloc.start()
    plan = TrainingPlan(store, data, 0, ((32_000,), (32_001,)))
    started_s = time.perf_counter()
    end = plan.epoch(0).end
    plan.epoch(1)
    epoch_s = time.perf_counter() - started_s
    plan.steps(100, BATCH)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    started_s = time.perf_counter()
    plan.rows((end + end // 2) // LENGTH, 1)
    row_s = time.perf_counter() - started_s
    return {"kept": kept / 1e6, "most": most / 1e6, "epoch_s": epoch_s, "row_ms": row_s * 1e3}


def main() -> None:
    """Run each way in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=int, default=3_000_000)
    parser.add_argument("--entities", type=int, default=60_000_000)
    parser.add_argument("--way", choices=tuple(WAYS))
    options = parser.parse_args()
    if options.way is not None:
        print(json.dumps(measure(options.articles, options.entities, options.way)))
        return
    yardstick = 8 * options.entities / 1e6
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {options.articles:,} articles, ", end="")
    print(f"{options.entities:,} entities; 8 bytes an entity are {yardstick:,.0f} MB\n")
    print("| way | kept, MB | at most, MB | ratio to the yardstick | a second epoch, s | a far row, ms |")
    print("|---|---|---|---|---|---|")
    for way in WAYS:
        command = [sys.executable, __file__, "--articles", str(options.articles)]
        command += ["--entities", str(options.entities), "--way", way]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        row = (found["kept"], found["most"], found["most"] / yardstick, found["epoch_s"], found["row_ms"])
        print(f"| {way} | {row[0]:,.0f} | {row[1]:,.0f} | {row[2]:.2f} | {row[3]:.1f} | {row[4]:.1f} |", flush=True)


if __name__ == "__main__":
    main()

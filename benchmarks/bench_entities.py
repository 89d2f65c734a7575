"""From N titles, N redirects and N sitelinks to the entity table: time and memory as N grows, and what a lookup costs.

    python benchmarks/bench_entities.py --millions 0.5 1 2 5          the stage `entities` on two processes
    python benchmarks/bench_entities.py --lookup 5                    ways to look titles up, at 5 M titles
    python benchmarks/bench_entities.py --links 5 --count 60          M links of articles resolved against 5 M titles

Titles are made, in Japanese, Arabic and English words and lengths as the wikis have them (8, 20 and 19 characters on
average); a tenth of the redirects lead to redirects. The yardstick for time is the smallest N (CPU time a title), for a
lookup a dictionary in memory. Peak memory is what the kernel says of a process (VmHWM), imports included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from leia_beam.finish import MaxRejects, finish_stage
from leia_beam.linking import link_anchor
from leia_beam.lookup import EntityLookup, bucket_of, build_trie, write_lookup_rows
from leia_beam.manifest import Manifest, StageFile, manifest_bytes
from leia_beam.plans import StagePlan, claim_folder, identity_of
from leia_beam.schema import ARTICLES, REDIRECTS, SCHEMA_VERSION, SITELINKS
from leia_beam.storage import LocalStorage
from leia_beam.title_buckets import MAX_BUCKETS
from leia_beam.units import Unit, run_chain
from leia_beam.wikis import load_wiki

ROWS_A_FILE = 250_000
_KANJI = "日本東京大学山川田中高校市町村駅線国道県立公園神社寺城島海空南北西東上下新古金木水火土月星花鳥風雪雨"
_KATAKANA = (
    "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモ"
    "ラリルレロンーヴァィュョッガギグゲゴザジズダデドバビブベボパピプペポ"
)
_ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"
_ENGLISH = (
    "river mountain station school church county district album song film season football club the of and in saint "
    "north south east west new old great king battle house bridge railway airport museum university party election"
).split()


def titles(language: str, count: int, seed: int) -> list[str]:
    """Distinct titles that look like those of a wiki."""
    rng = random.Random(f"{language} {seed}")
    made: dict[str, None] = {}
    while len(made) < count:
        made[_title(language, rng)] = None
    return list(made)


def _title(language: str, rng: random.Random) -> str:
    if language == "ja":
        letters = rng.choice((_KANJI, _KATAKANA, _KATAKANA))
        text = "".join(rng.choices(letters, k=rng.randrange(3, 9)))
        ends = ("", "", f"{rng.randrange(3000)}年", f"{rng.choice(_KANJI)}駅", " (曖昧さ回避)")
        return text + rng.choice(ends)
    if language == "ar":
        words = ["".join(rng.choices(_ARABIC, k=rng.randrange(3, 8))) for _ in range(rng.randrange(2, 5))]
        return " ".join(words)
    name = "".join(rng.choices("aeioulnrstdmkbg", k=rng.randrange(3, 9))).capitalize()
    words = [name, *rng.choices(_ENGLISH, k=rng.randrange(0, 4))]
    rng.shuffle(words)
    text = " ".join(words)
    return text[:1].upper() + text[1:]


@dataclass(frozen=True, kw_only=True)
class MadeStage:
    """A finished stage of made rows: `tables` is called for each unit and gives (table, schema, rows) each."""

    folder: str
    name: str
    options: dict[str, Any]
    count: int
    tables: Callable[[int], list[tuple[str, pa.Schema, Iterable[dict[str, Any]]]]]
    storage: LocalStorage = field(default_factory=LocalStorage)

    @property
    def plan(self) -> StagePlan:
        """By name, options and size alone."""
        return StagePlan(stage=self.name, identity=identity_of(self.name, [], self.options, ()), unit_count=self.count)

    def units(self) -> list[Unit]:
        """One for each ROWS_A_FILE titles."""
        return [Unit(number=number, count=self.count) for number in range(self.count)]

    def process(self, unit: Unit, output: Any) -> None:
        """Write the unit's tables."""
        for table, schema, rows in self.tables(unit.number):
            writer = output.table(table, schema)
            for row in rows:
                writer.write(row, 100)

    def make(self) -> None:
        """Write all units and the manifest."""
        claim_folder(self.storage, self.folder, self.plan, overwrite=False)
        for unit in self.units():
            assert run_chain(self, [unit])[0].error is None
        finish_stage(self.storage, self.folder, self.plan, MaxRejects(count=0))


def make_stages(folder: str, language: str, count: int) -> None:
    """The stages `articles` and `sitelinks` with `count` titles, redirects and items."""
    wiki = f"{language}wiki"
    pages, moved = titles(language, count, 1), [f"{title}'" for title in titles(language, count, 2)]
    names = titles("en", count, 3)
    files = -(-count // ROWS_A_FILE)

    def of_file(rows: list[str], number: int) -> Iterator[tuple[int, str]]:
        first = number * ROWS_A_FILE
        return enumerate(rows[first : first + ROWS_A_FILE], first)

    def articles(number: int) -> list[tuple[str, pa.Schema, Iterable[dict[str, Any]]]]:
        common: dict[str, Any] = {"wiki": wiki, "revision_id": 1, "text": "", "anchors": [], "flags": []}
        found = ({**common, "page_id": n + 1, "title": title} for n, title in of_file(pages, number))
        lead = (
            {
                "wiki": wiki,
                "page_id": count + n + 1,
                "from": title,
                "to": moved[n - 1] if n % 10 == 9 else pages[n],
                "fragment": None,
                "to_interwiki": None,
            }
            for n, title in of_file(moved, number)
        )
        return [("articles", ARTICLES, found), ("redirects", REDIRECTS, lead)]

    def items(number: int) -> list[tuple[str, pa.Schema, Iterable[dict[str, Any]]]]:
        rows = (
            {
                "qid": f"Q{n + 1}",
                "sitelinks": [
                    {"wiki": "dewiki", "title": names[n]},
                    {"wiki": "enwiki", "title": names[n]},
                    {"wiki": wiki, "title": title},
                ],
                "labels": [{"language": "en", "label": names[n]}],
            }
            for n, title in of_file(pages, number)
        )
        return [("sitelinks", SITELINKS, rows)]

    options = {"wiki": wiki, "siteinfo": None}
    MadeStage(folder=f"{folder}/articles", name="articles", options=options, count=files, tables=articles).make()
    MadeStage(folder=f"{folder}/sitelinks", name="sitelinks", options=options, count=files, tables=items).make()


_RUN = """
import json, sys, time
from leia_beam.console import Console
from pipelines.build import run_entities
from pipelines.runners import RunnerOptions
from pipelines.stage_options import EntityOptions
from pipelines.stage_runs import Build, RunOptions
if __name__ == "__main__":
    output, wiki, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    build = Build(RunOptions(output=output, runner=RunnerOptions(workers=workers), console=Console('leia-beam', quiet=True)))
    began = time.monotonic()
    run_entities(build, wiki, ["en"], output + "/sitelinks", EntityOptions())
    steps = {str(note["stage"]): note["elapsed_s"] for note in build.notes}
    print(json.dumps({"s": time.monotonic() - began, "steps": steps}))
"""


def run_stage(folder: str, language: str, workers: int) -> dict[str, Any]:
    """The stage `entities` in a process of its own, with its time, its CPU time, and peak memory of driver and workers."""
    script = Path(folder) / "run.py"
    script.write_text(_RUN)
    command = [sys.executable, str(script), folder, f"{language}wiki", str(workers)]
    peaks: dict[str, float] = {"driver": 0.0, "worker": 0.0}
    before = os.times()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peaks["driver"] = max(peaks["driver"], peak_mib(process.pid))
            peaks["worker"] = max([peaks["worker"], *map(peak_mib, children_of(process.pid))])
            time.sleep(0.2)
        assert process.stdout is not None and process.stderr is not None
        output, errors = process.stdout.read(), process.stderr.read()
    assert process.returncode == 0, errors
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {**json.loads(output), **peaks, "cpu": cpu}


def children_of(pid: int) -> list[int]:
    """The processes that a process started (Linux)."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def peak_mib(pid: int) -> float:
    """A living process's peak of resident memory, 0 if it has ended (Linux)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def lookup_bytes(folder: str) -> int:
    """Size of the finished lookup."""
    return sum(path.stat().st_size for path in Path(folder, "entities/lookup").iterdir())


def rate(function: Callable[[str], Any], keys: list[str]) -> float:
    """Calls a second, CPU time."""
    began = time.process_time()
    for key in keys:
        function(key)
    return len(keys) / (time.process_time() - began)


def bench_scale(options: argparse.Namespace) -> None:
    """The table of time and memory."""
    print(
        "| M titles + redirects + items | s | CPU s | CPU µs a title | driver MiB | worker MiB | titles, redirects, entities s |"
    )
    print("|---|---|---|---|---|---|---|")
    for millions in options.millions:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            count = int(millions * 1e6)
            make_stages(folder, options.language, count)
            found = run_stage(folder, options.language, options.workers)
            steps = found["steps"]
            print(
                f"| {millions} + {millions} + {millions} | {found['s']:.1f} | {found['cpu']:.1f} "
                f"| {found['cpu'] / count * 1e6:.1f} | {found['driver']:.0f} | {found['worker']:.0f} "
                f"| {steps['titles']:.1f}, {steps['redirects']:.1f}, {steps['entities']:.1f} |",
                flush=True,
            )
            if options.keep:
                shutil.copytree(folder, options.keep, dirs_exist_ok=True)


def bench_lookup(options: argparse.Namespace) -> None:
    """Bytes a title and lookups a second: the lookup of the builder against others."""
    count = int(options.lookup * 1e6)
    print("| titles | way | bytes a title | lookups a second | ratio to a dictionary |\n|---|---|---|---|---|")
    for language in ("ja", "ar", "en"):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            keys = titles(language, count, 1)
            write_table(folder, keys, titles("en", min(count, 500_000), 3))
            rng = random.Random(9)
            wanted = [keys[rng.randrange(len(keys))] if n % 10 else f"x{n}" for n in range(300_000)]
            table = {title: number for number, title in enumerate(keys)}
            yardstick = rate(table.get, wanted)
            print(f"| {language} | dictionary in memory, title → number | | {yardstick:,.0f} | 1.00 |")
            lookup = EntityLookup(f"{folder}/entities")
            ways = {
                "the builder's (marisa-trie, Arrow), title → row": (lookup_bytes(folder), lookup.find),
                **other_ways(table, Path(folder)),
            }
            for name, (size_bytes, find) in ways.items():
                found = rate(find, wanted)
                each = size_bytes / len(table)
                print(f"| {language} | {name} | {each:.1f} | {found:,.0f} | {found / yardstick:.2f} |", flush=True)


def write_table(folder: str, keys: list[str], names: list[str]) -> None:
    """A finished lookup of titles with names, as the stage writes it (256 buckets)."""
    buckets: list[list[str]] = [[] for _ in range(MAX_BUCKETS)]
    for title in keys:
        buckets[bucket_of(title, MAX_BUCKETS)].append(title)
    Path(folder, "entities/lookup").mkdir(parents=True)
    files = []
    for bucket, own in enumerate(buckets):
        trie = build_trie(own)
        named = [names[(bucket + 7 * n) % len(names)] for n in range(len(own))]
        paths = [f"lookup/{table}-{bucket:03d}" for table in ("lookup-titles", "lookup-rows")]
        trie.save(f"{folder}/entities/{paths[0]}")
        write_lookup_rows(
            f"{folder}/entities/{paths[1]}",
            np.arange(1, len(own) + 1),
            pa.array(named, pa.string()),
            [("en", "sitelink", None)],
            np.zeros(len(own), np.uint8),
        )
        for table, path in zip(("lookup-titles", "lookup-rows"), paths, strict=True):
            files.append(StageFile(path=path, table=table, unit=bucket, rows=len(own), size_bytes=0, sha256=""))
    manifest = Manifest(
        stage="entities",
        fingerprint="",
        schema_version=SCHEMA_VERSION,
        versions={},
        inputs=(),
        options={},
        files=tuple(files),
        counters={},
    )
    Path(folder, "entities/_manifest.json").write_bytes(manifest_bytes(manifest))


def other_ways(table: dict[str, int], folder: Path) -> dict[str, tuple[int, Callable[[str], Any]]]:
    """Name → (bytes on disk, function) of other ways from a title to its number."""
    ways: dict[str, tuple[int, Callable[[str], Any]]] = {}
    trie = build_trie(list(table))
    trie.save(str(folder / "one.marisa"))
    ways["one marisa-trie, title → number"] = ((folder / "one.marisa").stat().st_size, trie.get)
    hashes = np.array([hash(title) for title in table], np.int64)
    order = np.argsort(hashes)
    hashes = hashes[order]

    def by_hash(title: str) -> int | None:
        at = int(np.searchsorted(hashes, hash(title)))
        return int(order[at]) if at < len(hashes) and hashes[at] == hash(title) else None

    ways["sorted 64-bit hashes (the titles themselves are not kept)"] = (hashes.nbytes + 4 * len(order), by_hash)
    try:
        import lmdb
    except ImportError:
        print("(lmdb is not installed and is left out)")
        return ways
    environment = lmdb.open(str(folder / "lmdb"), map_size=1 << 35, sync=False)
    with environment.begin(write=True) as transaction:
        for title in sorted(table, key=str.encode):
            transaction.put(title.encode(), table[title].to_bytes(4), append=True)
    reading = environment.begin()
    size = os.stat(folder / "lmdb" / "data.mdb").st_blocks * 512
    ways["LMDB, title → number"] = (size, lambda title: reading.get(title.encode()))
    return ways


def bench_links(options: argparse.Namespace) -> None:
    """Links of articles resolved one after another, as the stage `shards` does it."""
    titles_count, links = int(options.links * 1e6), int(options.count * 1e6)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        keys = titles(options.language, titles_count, 1)
        write_table(folder, keys, titles("en", min(titles_count, 500_000), 3))
        lookup, wiki = EntityLookup(f"{folder}/entities"), load_wiki(f"{options.language}wiki")
        rng = np.random.default_rng(4)
        named, began, cpu = 0, time.monotonic(), time.process_time()
        for _ in range(links // 30):
            # Half of a wiki's links lead to few titles: 30 links an article, from a Pareto and from all alike.
            often = np.minimum((rng.pareto(1.0, 15) * 100).astype(np.int64), titles_count - 1)
            for number in [*often.tolist(), *rng.integers(0, titles_count, 15).tolist()]:
                anchor = {"target": keys[number], "fragment": None, "kind": "link", "foreign_wiki": None}
                named += link_anchor(anchor, lookup, wiki, ("enwiki",)).name is not None
        elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
        peak = peak_mib(os.getpid())
        print(
            f"{links / 1e6:g} M links against {options.links:g} M titles in one process: {elapsed:.0f} s "
            f"({cpu:.0f} s CPU), {links / cpu:,.0f} links a second, {named / 1e6:g} M named; "
            f"peak {peak:.0f} MiB, the {titles_count / 1e6:g} M titles to draw from among it"
        )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--millions", type=float, nargs="*", default=[], metavar="M")
    parser.add_argument("--lookup", type=float, metavar="M", help="M titles")
    parser.add_argument("--links", type=float, metavar="M", help="M titles")
    parser.add_argument("--count", type=float, default=10, metavar="M", help="M links")
    parser.add_argument("--language", default="ja", choices=("ja", "ar", "en"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where the files go (default: the system's folder for temporary files)")
    parser.add_argument("--keep", help="keep the last build here")
    options = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("apache-beam", "pyarrow", "marisa-trie"))
    print(f"Python {platform.python_version()}, {packages}; {os.cpu_count()} cores, {options.workers} workers\n")
    if options.millions:
        bench_scale(options)
    if options.lookup:
        bench_lookup(options)
    if options.links:
        bench_links(options)


if __name__ == "__main__":
    main()

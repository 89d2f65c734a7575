"""How fast do dumps become items and pages, against the decompressor alone on the same cores?

    python benchmarks/bench_reading.py [--raw-mb 700] [--rounds 2] [--folder DIR]

Generates a Wikidata dump (lines of 15 kB on average, about 15 : 1 in .bz2, as .bz2 and .gz) and a wiki dump (pages of
8 kB, about 3.5 : 1), `--raw-mb` MB raw each, and reads them on two processes:

- bz2 → sitelinks: the stage as a build runs it, Parquet and commit records included;
- bz2 → pages: pages cut, parsed by lxml and counted, nothing written;
- gz → sitelinks: the stage on one process (whose second thread decodes).

Yardsticks in the same run: `lbzip2 -dc -n2 FILE` to nowhere, and the loop that people write, bz2.open and json.loads in
one process (on the first 60 MB). Ratios are of CPU seconds, so that other work on the machine counts for little; wall
seconds stand beside them. Processes are started and have imported all before the clock starts; that time is printed
apart, as is the peak memory of a process above that of its imports, for the whole input and for a tenth of it.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PLAIN_LOOP_BYTES = 60_000_000
RANGES = 12
"""Into which a dump is cut: a multiple of the processes, among which ranges are dealt beforehand."""


class Vocabulary:
    """Words drawn as in a language."""

    def __init__(self, rng: random.Random):
        self._rng = rng
        self._words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 11))) for _ in range(20_000)]
        self._weights = list(itertools.accumulate(1 / (rank + 5) for rank in range(len(self._words))))

    def text(self, count: int) -> str:
        """Some words."""
        return " ".join(self._rng.choices(self._words, cum_weights=self._weights, k=count))


def item_line(number: int, rng: random.Random, words: Vocabulary, languages: list[str]) -> str:
    """An entity with labels, descriptions, statements with references, and sitelinks; the long statements dominate."""
    qid, title = f"Q{number}", words.text(2)
    spoken = rng.sample(languages, min(len(languages), 1 + int(rng.expovariate(1 / 14))))
    linked = rng.sample(languages, min(len(languages), int(rng.expovariate(1 / 6)) if rng.random() < 0.5 else 0))
    statements = {}
    for number_of_property in rng.sample(range(1, 3000), 1 + int(rng.expovariate(1 / 14))):
        name = f"P{number_of_property}"
        target = rng.randrange(10**6)
        statements[name] = [
            {
                "mainsnak": {
                    "snaktype": "value",
                    "property": name,
                    "hash": f"{rng.getrandbits(160):040x}",
                    "datavalue": {
                        "value": {"entity-type": "item", "numeric-id": target, "id": f"Q{target}"},
                        "type": "wikibase-entityid",
                    },
                    "datatype": "wikibase-item",
                },
                "type": "statement",
                "id": f"{qid}${rng.getrandbits(128):032X}",
                "rank": "normal",
                "references": [
                    {
                        "snaks": {
                            "P143": [
                                {
                                    "snaktype": "value",
                                    "property": "P143",
                                    "datavalue": {
                                        "value": {"entity-type": "item", "numeric-id": 328, "id": "Q328"},
                                        "type": "wikibase-entityid",
                                    },
                                    "datatype": "wikibase-item",
                                }
                            ],
                            "P813": [
                                {
                                    "snaktype": "value",
                                    "property": "P813",
                                    "datavalue": {
                                        "value": {
                                            "time": f"+20{rng.randrange(10, 26)}-01-01T00:00:00Z",
                                            "timezone": 0,
                                            "before": 0,
                                            "after": 0,
                                            "precision": 11,
                                            "calendarmodel": "http://www.wikidata.org/entity/Q1985727",
                                        },
                                        "type": "time",
                                    },
                                    "datatype": "time",
                                }
                            ],
                        },
                        "snaks-order": ["P143", "P813"],
                    }
                ],
            }
        ]
    entity = {
        "type": "item",
        "id": qid,
        "labels": {code: {"language": code, "value": title} for code in spoken},
        "descriptions": {code: {"language": code, "value": "a thing"} for code in spoken},
        "aliases": {},
        "claims": statements,
        "sitelinks": {f"{code}wiki": {"site": f"{code}wiki", "title": title, "badges": []} for code in sorted(linked)},
        "lastrevid": rng.randrange(10**9),
    }
    return json.dumps(entity, separators=(",", ":"))


def write_wikidata(path: Path, raw_bytes: int) -> int:
    """A dump in array form. Returns its raw size."""
    rng = random.Random(1)
    words = Vocabulary(rng)
    from leia_beam.wikis import wikipedia_codes

    languages = sorted(code.removesuffix("wiki") for code in wikipedia_codes())
    written = number = 0
    with path.open("w", encoding="ascii") as file:
        file.write("[\n")
        while written < raw_bytes:
            number += 1
            written += file.write(item_line(number, rng, words, languages) + ",\n")
        file.write(item_line(number + 1, rng, words, languages) + "\n]\n")
    return path.stat().st_size


def write_wiki(path: Path, raw_bytes: int) -> int:
    """A dump of pages, a third of them of another namespace. Returns its raw size."""
    rng = random.Random(2)
    words = Vocabulary(rng)
    written = number = 0
    with path.open("w", encoding="ascii") as file:
        file.write('<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11">\n')
        while written < raw_bytes:
            number += 1
            paragraphs = (words.text(1 + int(rng.expovariate(1 / 60))) for _ in range(1 + int(rng.expovariate(1 / 16))))
            written += file.write(
                f"  <page>\n    <title>{words.text(2)}</title>\n    <ns>{rng.choice((0, 0, 1))}</ns>\n    <id>{number}</id>\n"
                f"    <revision>\n      <id>{number}</id>\n      <model>wikitext</model>\n"
                f'      <text bytes="1" xml:space="preserve">{"[[x]].&#10;&quot;".join(paragraphs)}</text>\n'
                "    </revision>\n  </page>\n"
            )
        file.write("</mediawiki>\n")
    return path.stat().st_size


@dataclass(frozen=True)
class Timing:
    """Seconds of a way of reading, and memory of its largest process."""

    cpu_s: float
    wall_s: float
    startup_s: float = 0.0
    imports_mib: float = 0.0
    above_mib: float = 0.0


def timed_command(command: list[str]) -> Timing:
    """A program whose output goes nowhere."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with open(os.devnull, "wb") as nowhere:
        subprocess.run(command, stdout=nowhere, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timing(cpu_s, time.perf_counter() - begin)


def read_sitelinks(path: str, folder: str, share: int, shares: int) -> int:
    """A share of the stage's units. Returns how many items it wrote."""
    from leia_beam.dumps import find_dump
    from leia_beam.stage_sitelinks import SitelinksStage
    from leia_beam.units import chains, run_chain

    dump = find_dump(path)
    range_bytes = dump.size_bytes // RANGES + 1
    stage = SitelinksStage(
        folder=f"{folder}/sitelinks", dumps=(dump,), label_languages=("en",), range_bytes=range_bytes
    )
    mine = chains(stage.units())[share::shares]
    return sum(record.counters["lines/emitted"] for chain in mine for record in run_chain(stage, chain))


def read_pages(path: str, folder: str, share: int, shares: int) -> int:
    """A share of the pages, parsed. Returns how many of them are articles."""
    from leia_beam.dumps import DumpReader, ReadOptions, byte_ranges, find_dump
    from leia_beam.pages import PAGE_END, namespace_of, page_start, parse_page
    from leia_beam.ranges import RangeReport

    dump = find_dump(path)
    count = 0
    with DumpReader(dump, PAGE_END, ReadOptions(max_record_bytes=64 << 20)) as reader:
        for start, end in byte_ranges(dump, dump.size_bytes // RANGES + 1)[share::shares]:
            for record in reader.records(start, end, RangeReport()):
                at = page_start(record.data)
                if at >= 0 and namespace_of(page := record.data[at:] + PAGE_END) == 0:
                    count += parse_page(page).namespace == 0
    return count


def _worker(work: Callable[..., int], arguments: tuple[Any, ...], connection: Connection) -> None:
    import leia_beam.stage_articles
    import leia_beam.stage_sitelinks  # noqa: F401 (imports are no part of the work)

    imports_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection.send("ready")
    connection.recv()
    begin = time.process_time()
    count = work(*arguments)
    cpu_s = time.process_time() - begin
    connection.send((count, cpu_s, imports_kib / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def timed_processes(work: Callable[..., int], path: Path, processes: int) -> tuple[int, Timing]:
    """Work shared by some processes, timed once all are ready."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        running = []
        for share in range(processes):
            ours, theirs = context.Pipe()
            arguments = (str(path), folder, share, processes)
            process = context.Process(target=_worker, args=(work, arguments, theirs))
            process.start()
            running.append((process, ours))
        for _, connection in running:
            connection.recv()
        ready = time.perf_counter()
        for _, connection in running:
            connection.send("go")
        results = [connection.recv() for _, connection in running]
        done = time.perf_counter()
        for process, _ in running:
            process.join()
    return sum(count for count, *_ in results), Timing(
        cpu_s=sum(cpu_s for _, cpu_s, _, _ in results),
        wall_s=done - ready,
        startup_s=ready - began,
        imports_mib=max(imports for _, _, imports, _ in results),
        above_mib=max(peak - imports for _, _, imports, peak in results),
    )


def plain_loop(path: Path) -> tuple[int, float]:
    """bz2.open and json.loads, line by line: (bytes read, CPU seconds)."""
    read, begin = 0, time.process_time()
    with bz2.open(path, "rb") as lines:
        for line in lines:
            read += len(line)
            text = line.strip().rstrip(b",")
            if len(text) > 1:
                json.loads(text).get("sitelinks")
            if read > PLAIN_LOOP_BYTES:
                break
    return read, time.process_time() - begin


def best(timings: list[Timing]) -> Timing:
    """The one with the least CPU time."""
    return min(timings, key=lambda timing: timing.cpu_s)


def compressed(path: Path) -> Path:
    """The file as one bzip2 stream a block of lbzip2's."""
    subprocess.run(["lbzip2", "-k", "-f", "-9", "-n2", str(path)], check=True)
    return path.with_name(path.name + ".bz2")


def row(name: str, raw: int, timing: Timing, yardstick: Timing) -> None:
    """One line of the table."""
    print(
        f"| {name} | {raw / timing.cpu_s / 1e6:.0f} | {timing.cpu_s:.2f} | {timing.wall_s:.2f} "
        f"| {yardstick.cpu_s / timing.cpu_s:.2f} | {yardstick.wall_s / timing.wall_s:.2f} "
        f"| {timing.startup_s:.2f} | {timing.imports_mib:.0f} + {timing.above_mib:.0f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw-mb", type=int, default=700)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keeps the generated files for another run")
    options = parser.parse_args()
    if shutil.which("lbzip2") is None:
        sys.exit("lbzip2 is not installed (Debian package lbzip2)")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        measure(folder, options.raw_mb * 1_000_000, options.rounds)


def prepared(folder: Path, name: str, raw_bytes: int, write: Callable[[Path, int], int]) -> tuple[Path, int]:
    """(the .bz2 file, its raw size), made where it is not there."""
    plain = folder / f"{name}-{raw_bytes}"
    packed = plain.with_name(plain.name + ".bz2")
    if not packed.exists():
        write(plain, raw_bytes)
        compressed(plain)
    return packed, plain.stat().st_size


def measure(folder: Path, raw_bytes: int, rounds: int) -> None:
    """All ways in turn, `rounds` times."""
    wikidata, wikidata_raw = prepared(folder, "wikidata.json", raw_bytes, write_wikidata)
    small, small_raw = prepared(folder, "wikidata.json", raw_bytes // 10, write_wikidata)
    wiki, wiki_raw = prepared(folder, "wiki.xml", raw_bytes, write_wiki)
    packed_gz = wikidata.with_suffix(".gz")
    if not packed_gz.exists():
        with wikidata.with_suffix("").open("rb") as source, gzip.open(packed_gz, "wb", 6) as target:
            shutil.copyfileobj(source, target, 1 << 20)
    print(
        f"Wikidata {wikidata_raw / 1e6:.0f} MB raw, {wikidata_raw / wikidata.stat().st_size:.1f} : 1; "
        f"wiki {wiki_raw / 1e6:.0f} MB raw, {wiki_raw / wiki.stat().st_size:.1f} : 1; {rounds} rounds, the best of each"
    )
    lbzip2: dict[Path, list[Timing]] = {wikidata: [], wiki: [], small: []}
    ours: dict[str, list[Timing]] = {name: [] for name in ("sitelinks", "small", "pages", "gz")}
    for _ in range(rounds):
        for path, timings in lbzip2.items():
            timings.append(timed_command(["lbzip2", "-dc", "-n2", str(path)]))
        items, timing = timed_processes(read_sitelinks, wikidata, 2)
        ours["sitelinks"].append(timing)
        ours["small"].append(timed_processes(read_sitelinks, small, 2)[1])
        pages, timing = timed_processes(read_pages, wiki, 2)
        ours["pages"].append(timing)
        gz_items, timing = timed_processes(read_sitelinks, packed_gz, 1)
        ours["gz"].append(timing)
        assert gz_items == items
    loop_bytes, loop_s = plain_loop(wikidata)
    print(f"{items:,} items with links or labels, {pages:,} articles")
    print("| way | MB/s raw a core | CPU s | wall s | ratio, CPU | ratio, wall | start-up s | imports + peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    yardsticks = {path: best(timings) for path, timings in lbzip2.items()}
    row("lbzip2 -dc -n2, Wikidata", wikidata_raw, yardsticks[wikidata], yardsticks[wikidata])
    row("bz2 → sitelinks, 2 processes", wikidata_raw, best(ours["sitelinks"]), yardsticks[wikidata])
    row("the same, a tenth of the input", small_raw, best(ours["small"]), yardsticks[small])
    row("lbzip2 -dc -n2, wiki", wiki_raw, yardsticks[wiki], yardsticks[wiki])
    row("bz2 → pages, 2 processes", wiki_raw, best(ours["pages"]), yardsticks[wiki])
    row("gz → sitelinks, 1 process", wikidata_raw, best(ours["gz"]), yardsticks[wikidata])
    bz2_rate, gz_rate = (wikidata_raw / best(ours[name]).cpu_s for name in ("sitelinks", "gz"))
    print(f"gz → sitelinks a core: {gz_rate / bz2_rate:.1f} times bz2 → sitelinks")
    print(
        f"bz2.open and json.loads in one process: {loop_bytes / loop_s / 1e6:.0f} MB/s, "
        f"{loop_bytes / loop_s / bz2_rate:.2f} of bz2 → sitelinks a core"
    )


if __name__ == "__main__":
    main()

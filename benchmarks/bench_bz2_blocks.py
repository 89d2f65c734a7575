"""How fast are records read out of a .bz2 file, by blocks, against `bzip2 -dc FILE > /dev/null` on the same core?

    python benchmarks/bench_bz2_blocks.py [--raw-mb 200] [--rounds 3]

Generates files of about `--raw-mb` MB raw, one of JSON lines of 3 kB (about 11 : 1; the Wikidata dump has 17 : 1) and
one of text lines of 4 kB (about 3.5 : 1, as page dumps), and times each way in turn, the best CPU time of `--rounds`; the
ratio is the speed relative to bzip2 (1.0: equal). Then the same files are read as ranges of 8 MB, whose additional cost
is the blocks that two ranges both decode. Shorter records cost 0.5 us more each.
"""

from __future__ import annotations

import argparse
import bz2
import itertools
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from leia_beam.bz2_blocks import read_records
from leia_beam.ranges import RangeReport, split_points

ROWS_AT_ONCE = 500


def json_lines(rng: random.Random, words: list[str], cum_weights: list[float]) -> str:
    """Lines as the Wikidata dump has them: one item each, mostly the same keys."""
    lines = []
    for _ in range(ROWS_AT_ONCE):
        names = rng.choices(words, cum_weights=cum_weights, k=1 + int(rng.expovariate(1 / 50)))
        sites = ",".join(
            f'"{name[:2]}wiki":{{"site":"{name[:2]}wiki","title":"{name} {rng.randrange(10_000)}","badges":[]}}'
            for name in names
        )
        lines.append(f'{{"type":"item","id":"Q{rng.randrange(10**8)}","sitelinks":{{{sites}}}}},\n')
    return "".join(lines)


def text_lines(rng: random.Random, words: list[str], cum_weights: list[float]) -> str:
    """Lines of words drawn as in a language, without the phrases of one."""
    return "".join(" ".join(rng.choices(words, cum_weights=cum_weights, k=500)) + "\n" for _ in range(ROWS_AT_ONCE))


def write_dump(path: Path, raw_bytes: int, lines: Callable[[random.Random, list[str], list[float]], str]) -> int:
    """Write one bzip2 stream of generated lines; returns the raw size."""
    rng = random.Random(20240211)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 11))) for _ in range(20_000)]
    cum_weights = list(itertools.accumulate(1 / (rank + 5) for rank in range(len(words))))
    compressor = bz2.BZ2Compressor(9)
    written = 0
    with path.open("wb") as file:
        while written < raw_bytes:
            text = lines(rng, words, cum_weights).encode()
            written += len(text)
            file.write(compressor.compress(text))
        file.write(compressor.flush())
    return written


def read_in_ranges(path: Path, range_bytes: int) -> tuple[int, int]:
    """Read every range in turn; returns records and their bytes, delimiters included."""
    records = size = 0
    for start, end in split_points(path.stat().st_size, range_bytes):
        with path.open("rb") as file:
            for record in read_records(file, path.name, start, end, b"\n", RangeReport()):
                records += 1
                size += record.size_bytes + 1
    return records, size


def best_cpu_s(rounds: int, *jobs: Callable[[], None]) -> list[float]:
    """The least CPU seconds, own and children's, of each job; the jobs take turns, so that noise meets all of them."""
    best = [float("inf")] * len(jobs)
    for _ in range(rounds):
        for i, job in enumerate(jobs):
            before = os.times()
            job()
            after = os.times()
            best[i] = min(best[i], sum(after[:4]) - sum(before[:4]))
    return best


def compare(path: Path, raw: int, rounds: int) -> None:
    """Time the three ways of reading one file and print the table."""
    size = path.stat().st_size
    seen: list[tuple[int, int]] = []

    def run_bzip2() -> None:
        subprocess.run(["bzip2", "-dc", str(path)], stdout=subprocess.DEVNULL, check=True)

    def run_whole() -> None:
        seen.append(read_in_ranges(path, size))

    def run_ranges() -> None:
        seen.append(read_in_ranges(path, 8_000_000))

    bzip2_s, whole_s, ranges_s = best_cpu_s(rounds, run_bzip2, run_whole, run_ranges)
    if len(set(seen)) != 1 or seen[0][1] != raw:
        sys.exit(f"(records, bytes) differ: {set(seen)}, where {raw:,} bytes were written")
    print(f"\n{path.name}: {raw:,} bytes raw, {size:,} compressed ({raw / size:.1f} : 1), {seen[0][0]:,} records")
    print(f"{'':24}{'CPU s':>8}{'raw MB/s':>10}{'ratio':>8}")
    for name, seconds in (("bzip2 -dc", bzip2_s), ("one range", whole_s), ("ranges of 8 MB", ranges_s)):
        print(f"{name:24}{seconds:8.2f}{raw / seconds / 1e6:10.1f}{bzip2_s / seconds:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw-mb", type=int, default=200, help="size of each file before compression, MB")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is timed; the best counts")
    options = parser.parse_args()
    if shutil.which("bzip2") is None:
        sys.exit("bzip2 is not installed; it is the yardstick of this benchmark (Debian package bzip2)")
    with tempfile.TemporaryDirectory() as folder:
        for name, lines in (("json.bz2", json_lines), ("text.bz2", text_lines)):
            path = Path(folder) / name
            compare(path, write_dump(path, options.raw_mb * 1_000_000, lines), options.rounds)
    print(f"\npeak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()

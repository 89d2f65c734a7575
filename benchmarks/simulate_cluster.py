"""How long would a build of full dumps take on 1 to 2,000 workers, and how well does the simulation predict real runs?

Yardstick: real runs with 1, 2 and 4 local processes in the same run of this file; the error of the prediction is printed.
Per-range times are measured in one process, range by range, over made-up dumps (or over real ones given with --pages and
--wikidata), with their skew; start-up is the time of a run with next to no input. Both are replayed at the sizes of the
dumps of 2026: units are pulled (Dataflow, Prism) or dealt beforehand (local processes, Flink), with failures.

    python benchmarks/simulate_cluster.py
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from leia_beam.arguments import size_bytes
from leia_beam.calibration import calibrate
from leia_beam.dumps import find_dump
from leia_beam.planning import Rates
from leia_beam.sample_dumps import write_sample
from leia_beam.scheduling import DEALT, PULLED, Failures, run_stage
from leia_beam.stage_articles import ArticlesStage, read_siteinfo
from leia_beam.stage_sitelinks import SitelinksStage
from leia_beam.title_buckets import default_bucket_count
from leia_beam.units import RangeStage, run_chain
from leia_beam.wikitext import ExtractionOptions

GB = 10**9
RANGE_BYTES = 48 << 20
DUMPS_OF_2026 = {"en": 25 * GB, "ja": 5 * GB}
"""pages-articles .bz2, about."""
WIKIDATA_OF_2026 = 105 * GB
"""latest-all.json.bz2, about."""
WORKERS = (1, 4, 16, 64, 256, 1000, 2000)
REAL_WORKERS = (1, 2, 4)
FAILURES_A_WORKER_HOUR = 0.05
RANGES = 24
"""Of a measured dump."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds a compressed byte of each range of a stage, in the order of the dump."""

    sitelinks: Sequence[float]
    articles: Sequence[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=size_bytes, default=size_bytes("40MB"), help="of made-up dumps, uncompressed")
    parser.add_argument("--pages", type=Path, help="a wiki's .bz2 to measure with instead")
    parser.add_argument("--wiki", default="enwiki", help="the wiki that it is of")
    parser.add_argument("--wikidata", type=Path, help="a Wikidata .bz2 to measure with instead")
    parser.add_argument("--rounds", type=int, default=1, help="real runs of each number of workers; the best counts")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="leia-simulate-") as scratch:
        folder = Path(scratch)
        pages, wikidata = write_sample(folder, options.sample, "bz2")
        pages, wikidata = options.pages or pages, options.wikidata or wikidata
        wiki = options.wiki if options.pages else "enwiki"
        measured = Measured(
            sitelinks=unit_rates(sitelinks_stage(wikidata, folder / "sitelinks")),
            articles=unit_rates(articles_stage(pages, wiki, folder / "articles")),
        )
        for stage, rates in (("sitelinks", measured.sitelinks), ("articles", measured.articles)):
            mean = statistics.mean(rates)
            print(
                f"{stage:<10} {len(rates)} ranges, {1e-6 / mean:.2f} MB/s compressed, slowest range {max(rates) / mean:.2f} "
                f"times the mean"
            )
        check(wikidata, folder, options.rounds)
    replay(measured, calibrate(options.sample // 2, "bz2", None))


def sitelinks_stage(path: Path, folder: Path) -> SitelinksStage:
    return SitelinksStage(
        folder=str(folder),
        dumps=(find_dump(str(path)),),
        label_languages=("en",),
        claims=("P31",),
        range_bytes=-(-path.stat().st_size // RANGES),
    )


def articles_stage(path: Path, wiki: str, folder: Path) -> ArticlesStage:
    dump = find_dump(str(path))
    return ArticlesStage(
        folder=str(folder),
        wiki_code=wiki,
        dumps=(dump,),
        siteinfo=read_siteinfo(dump, wiki),
        extraction=ExtractionOptions(),
        range_bytes=-(-path.stat().st_size // RANGES),
        max_page_bytes=64 << 20,
    )


def unit_rates(stage: RangeStage, clock: Callable[[], float] = time.process_time) -> list[float]:
    """Seconds a compressed byte, of each unit: of processor time, so that other work on the machine counts little.

    The first unit, which imports, is run twice.
    """
    rates = []
    units = stage.units()
    run_chain(stage, units[:1])
    for unit in units:
        Path(stage.folder, f"_done/{unit.number:05d}.json").unlink(missing_ok=True)
        began = clock()
        run_chain(stage, [unit])
        rates.append((clock() - began) / (unit.end - unit.start))
    return rates


def check(wikidata: Path, folder: Path, rounds: int) -> None:
    """Real runs beside their prediction, both by the clock on the wall, so that both meet the same other work.

    Workers beyond the cores share them. Each run is predicted from units that were measured just before it.
    """
    size = wikidata.stat().st_size
    range_bytes = -(-size // RANGES)
    tiny = write_sample_of(folder / "tiny", 30_000)
    print(
        f"\nload {os.getloadavg()[0]:.1f}\n{'workers':>7} {'start s':>8} {'predicted s':>12} {'real s':>8} {'error':>7}"
    )
    for workers in REAL_WORKERS:
        start_s = min(real_run(tiny, workers, 1 << 10, folder) for _ in range(rounds))
        slower = max(1.0, workers / (os.cpu_count() or 1))
        rates = unit_rates(sitelinks_stage(wikidata, folder / "sitelinks"), time.perf_counter)
        units = [rate * range_bytes * slower for rate in rates]
        predicted = run_stage(units, workers, dealing=DEALT, start_s=start_s).wall_s
        real = min(real_run(wikidata, workers, range_bytes, folder) for _ in range(rounds))
        print(f"{workers:>7} {start_s:>8.1f} {predicted:>12.1f} {real:>8.1f} {predicted / real - 1:>+7.0%}")


def write_sample_of(folder: Path, raw_bytes: int) -> Path:
    folder.mkdir()
    return write_sample(folder, raw_bytes, "bz2")[1]


def real_run(wikidata: Path, workers: int, range_bytes: int, folder: Path) -> float:
    """Seconds of the stage sitelinks, as the build notes them, of a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        code = (
            "import sys, pipelines.local as local; local.BYTES_FOR_A_PROCESS = 1; "
            "from leia_beam.cli import main; sys.exit(main(sys.argv[1:]))"
        )  # as many processes as asked for, whatever little there is to do
        command = [sys.executable, "-c", code, "sitelinks", "--quiet", "--wikidata", str(wikidata)]
        command += ["--output", f"{output}/out", "--workers", str(workers), "--range-bytes", str(range_bytes)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        [notes] = Path(output, "out/_run").glob("*.json")
        return float(json.loads(notes.read_text())["stages"][0]["elapsed_s"])


def replay(measured: Measured, rates: Rates) -> None:
    """The table of predictions."""
    failing = Failures(per_worker_hour=FAILURES_A_WORKER_HOUR, restart_s=120)
    ways = {
        "pulled": (PULLED, Failures()),
        "pulled, failures": (PULLED, failing),
        "dealt": (DEALT, Failures()),
        "dealt, failures": (
            DEALT,
            Failures(per_worker_hour=FAILURES_A_WORKER_HOUR, restart_s=120, stops_all=True),
        ),
    }
    print(
        f"\nranges of 48 MiB; failures: {FAILURES_A_WORKER_HOUR} a worker and hour, back after 120 s; dealt: all stop"
    )
    for wiki, page_bytes in DUMPS_OF_2026.items():
        stages = stages_of(page_bytes, measured, rates)
        critical_s = sum(rates.start_s + max(units) for units in stages.values())
        total_s = sum(sum(units) for units in stages.values())
        print(
            f"\n{wiki} ({page_bytes / GB:.0f} GB) and Wikidata ({WIKIDATA_OF_2026 / GB:.0f} GB): {total_s / 3600:,.1f} "
            f"worker hours, critical path {critical_s / 60:.1f} min"
        )
        print(f"{'workers':>7}  {'way':<17} {'wall':>9} {'efficiency':>10} {'critical path':>13} {'failures':>8}")
        for workers in WORKERS:
            for way, (dealing, failures) in ways.items():
                outcomes = [
                    run_stage(units, workers, dealing=dealing, start_s=rates.start_s, failures=failures, seed=number)
                    for number, units in enumerate(stages.values())
                ]
                wall_s = sum(outcome.wall_s for outcome in outcomes)
                print(
                    f"{workers:>7}  {way:<17} {wall_s / 3600:>7.2f} h {total_s / (wall_s * workers):>10.0%} "
                    f"{critical_s / wall_s:>13.0%} {sum(outcome.failed for outcome in outcomes):>8,}"
                )


def stages_of(page_bytes: int, measured: Measured, rates: Rates) -> dict[str, list[float]]:
    """Seconds of the units of a build. Both dumps are one job; each unit's rate is one of those measured, by chance."""
    draw = random.Random(page_bytes)

    def ranges(size: int, unit_rates: Sequence[float]) -> list[float]:
        return [draw.choice(unit_rates) * RANGE_BYTES for _ in range(-(-size // RANGE_BYTES))]

    titles = int(page_bytes * rates.titles_a_byte)
    buckets = default_bucket_count(titles)
    mean = statistics.mean(measured.articles)
    skewed = [rates.reading_s["shards"] * rate / mean for rate in measured.articles]
    return {
        "dumps": ranges(WIKIDATA_OF_2026, measured.sitelinks) + ranges(page_bytes, measured.articles),
        "titles": [titles * rates.titles_s / buckets] * buckets,
        "redirects": [titles * rates.redirects_s],
        "entities": [titles * rates.entities_s / buckets] * buckets,
        "shards": ranges(page_bytes, skewed),
    }


if __name__ == "__main__":
    main()

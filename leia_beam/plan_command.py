"""The command `leia-beam plan`: what a build will take, before it is begun."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from leia_beam.arguments import Parser, new_command, positive, size_bytes
from leia_beam.configuration import add_recipe_options
from leia_beam.derived import fetched_dumps
from leia_beam.errors import UsageError
from leia_beam.recipe import CORPUS
from leia_beam.recipe_use import RecipeUse

if TYPE_CHECKING:
    from leia_beam.planning import BuildEstimate, DumpSize, Rates

_PULLING_RUNNERS = ("dataflow", "prism")
_FORMATS = {"bz2": "bz2", "gz": "gzip", "zst": "zstd"}


def add_command(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command to the parser's subcommands."""
    plan = new_command(
        commands,
        "plan",
        "time, disk and memory of a build, from rates measured on this machine",
        "leia-beam plan --pages 4GB --wikidata 150GB:gz --workers 32",
    )
    for name, what in (("pages", "the wiki's dumps"), ("wikidata", "the Wikidata dumps")):
        plan.add_argument(
            f"--{name}",
            metavar="FILE|SIZE",
            nargs="+",
            default=[],
            help=f"{what}: files, or sizes such as 24GB or 150GB:gz (of .bz2 where nothing follows)",
        )
    plan.add_argument("--workers", metavar="N", type=positive, default=os.cpu_count() or 1, help="worker processes")
    plan.add_argument("--range-bytes", metavar="SIZE", type=size_bytes, default="48MiB", help="of a unit of work")
    plan.add_argument(
        "--runner", metavar="NAME", default="local", help="dataflow and prism pull units, others deal them"
    )
    plan.add_argument("--tokenizer", metavar="DIR|FILE|NAME", help="the one to measure with (default: a small one)")
    plan.add_argument(
        "--sample",
        metavar="SIZE",
        type=size_bytes,
        default="24MB",
        help="of made-up dumps to measure with, uncompressed",
    )
    plan.add_argument("--json", action="store_true", help="write all of it as JSON")
    plan.set_defaults(run=_run)
    add_recipe_options(
        plan, RecipeUse(section=CORPUS, names={"json": ""}, derive=partial(fetched_dumps, kinds=("pages", "wikidata")))
    )


def _run(options: argparse.Namespace, beam_options: Sequence[str]) -> None:
    from leia_beam.calibration import calibrate
    from leia_beam.planning import PAGES, WIKIDATA, estimate
    from leia_beam.scheduling import DEALT, PULLED

    dumps = [
        _dump_of(given, kind, beam_options)
        for kind, files in ((WIKIDATA, options.wikidata), (PAGES, options.pages))
        for given in files
    ]
    if not any(dump.kind == PAGES for dump in dumps):
        raise UsageError(
            "give the wiki's dumps, or their sizes, with --pages, such as --pages 300MB --wikidata 150GB:gz"
        )
    formats = [dump.format for dump in dumps if dump.kind == WIKIDATA]
    options.console.status("plan", "measuring rates on this machine with made-up dumps")
    rates = calibrate(options.sample, formats[0] if formats else "bz2", options.tokenizer)
    dealing = PULLED if options.runner.lower().removesuffix("runner") in _PULLING_RUNNERS else DEALT
    found = estimate(
        dumps,
        rates,
        workers=options.workers,
        range_bytes=options.range_bytes,
        dealing=dealing,
        is_local=options.runner == "local",
    )
    options.console.clear()
    if options.json:
        print(json.dumps({"rates": asdict(rates), "plan": asdict(found)}, indent=1))
    else:
        print("\n".join(plan_lines(found, rates, options.workers, dealing)))


def _dump_of(given: str, kind: str, beam_options: Sequence[str]) -> DumpSize:
    """A dump from its file, or from its size.

    Raises: UsageError where it is neither.
    """
    from leia_beam.planning import DumpSize
    from leia_beam.storage import LocalStorage

    if "://" in given or os.path.exists(given):
        from leia_beam.dumps import find_dump

        if "://" in given:
            from leia_beam.sources import storage_of

            dump = find_dump(given, storage_of(given, beam_options))
        else:
            dump = find_dump(given, LocalStorage())
        return DumpSize(kind=kind, name=dump.name, format=dump.format, size_bytes=dump.size_bytes)
    size, _, suffix = given.partition(":")
    try:
        return DumpSize(kind=kind, name=given, format=_FORMATS[suffix or "bz2"], size_bytes=size_bytes(size))
    except (UsageError, KeyError) as error:
        raise UsageError(f"--{kind} {given}: neither a file nor a size; give one such as 24GB or 150GB:gz") from error


def plan_lines(found: BuildEstimate, rates: Rates, workers: int, dealing: str) -> list[str]:
    """The plan as a table."""
    lines = [
        f"{'stage':<10} {'units':>7} {'a unit':>9} {'wall':>11} {'writes':>9}  what more workers would not shorten"
    ]
    for stage in found.stages:
        lines.append(
            f"{stage.stage:<10} {stage.units:>7,} {_seconds(stage.unit_s):>9} {_seconds(stage.wall_s):>11} "
            f"{_size(stage.written_bytes):>9}  {stage.limit}".rstrip()
        )
    lines.append(
        f"{'together':<10} {'':>7} {'':>9} {_seconds(found.wall_s):>11} {_size(found.written_bytes):>9}  "
        f"{workers:,} workers, units {dealing}, {found.titles:,} titles"
    )
    lines.append(
        f"memory: {_size(rates.peak_bytes)} a worker process (measured), {_size(found.redirects_bytes)} for the one unit "
        "that follows redirects"
    )
    lines.append("rates are of one process on this machine, on made-up dumps; real ones differ by some tens of percent")
    return lines


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def _size(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"

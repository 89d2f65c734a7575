"""The commands over a build's folder: what became of its links, and the manifests that a dead job left unwritten."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from leia_beam.arguments import Parser, not_negative
from leia_beam.errors import UsageError
from leia_beam.options import add_max_rejects, add_tolerance


def add_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the commands to the parser's subcommands."""
    stats = commands.add_parser("stats", help="what became of a build's links: by reason, by target, by language")
    stats.add_argument("output", metavar="DIR", help="a build's folder")
    stats.add_argument("--top", metavar="N", type=not_negative, default=20, help="targets most missed that are shown")
    stats.add_argument("--json", metavar="FILE", help="write all of it as JSON too")
    stats.add_argument("--picture", metavar="FILE", help="draw the funnel as SVG too")
    stats.set_defaults(run=_stats)
    finish = commands.add_parser("finish", help="write the manifest of stages whose units are all done")
    finish.add_argument("output", metavar="DIR", help="a build's folder")
    add_max_rejects(finish)
    add_tolerance(finish)
    finish.set_defaults(run=_finish)


def _stats(options: argparse.Namespace, beam_options: Sequence[str]) -> None:
    from leia_beam.stats import build_stats, stats_json, stats_lines, stats_picture
    from leia_beam.storage import LocalStorage

    stats = build_stats(options.output.rstrip("/"), options.top)
    for path, content in ((options.json, stats_json), (options.picture, stats_picture)):
        if path:
            LocalStorage().write(path, content(stats).encode("utf-8", "backslashreplace"))
    print("\n".join(stats_lines(stats)))


def _finish(options: argparse.Namespace, beam_options: Sequence[str]) -> None:
    from leia_beam.coverage import Tolerance
    from leia_beam.finish import MaxRejects, finish_stage, read_finished
    from leia_beam.plans import read_plan
    from leia_beam.storage import LocalStorage

    storage, max_rejects = LocalStorage(), MaxRejects.parse(options.max_rejects)
    tolerance = Tolerance(max_bad_blocks=options.max_bad_blocks, salvage=options.salvage)
    found = False
    for stage in (
        "sitelinks",
        "langlinks",
        "articles",
        "entities/_titles",
        "entities/_redirects",
        "entities",
        "shards",
    ):
        folder = f"{options.output.rstrip('/')}/{stage}"
        plan = read_plan(storage, folder)
        if plan is None:
            continue
        found = True
        if read_finished(storage, folder, plan.fingerprint) is None:
            finish_stage(storage, folder, plan, max_rejects, tolerance)
            print(f"{plan.stage}: manifest written", file=sys.stderr)
        else:
            print(f"{plan.stage}: finished before", file=sys.stderr)
    if not found:
        raise UsageError(f"{options.output}: holds no build")

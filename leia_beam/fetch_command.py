"""The command `leia-beam fetch`: a wiki's dumps and Wikidata's, into a folder that `leia-beam build --dumps` reads."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leia_beam import options
from leia_beam.arguments import Parser, add_output_of_progress, names, new_command, positive
from leia_beam.configuration import add_recipe_options
from leia_beam.derived import output_of_fetch
from leia_beam.errors import UsageError
from leia_beam.recipe import CORPUS
from leia_beam.recipe_use import RecipeUse
from leia_beam.suggestions import nearest

if TYPE_CHECKING:
    from leia_beam.fetching import FetchPlan

_KINDS = ("pages", "wikidata", "langlinks")
_EXAMPLE = """leia-beam fetch --wiki sw --output dumps --contact me@example.org
  leia-beam fetch -c recipe.yaml --set language=sw"""
_DESCRIPTION = """\
Downloads a wiki's dumps and Wikidata's with their sums verified, for leia-beam build --dumps. The same command goes on after
an interruption, with the same files: `latest` is written into OUTPUT/dumps.lock.json as the date that it was. Wikidata's
.json.gz is larger than its .json.bz2, but one core reads it nine times as fast, so it is taken by default; above about twenty
cores the .bz2 wins, which all of them share."""


def add_command(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command to the parser's subcommands."""
    fetch = new_command(
        commands,
        "fetch",
        "download a wiki's dumps and Wikidata's, with their sums verified",
        _EXAMPLE,
        description=_DESCRIPTION,
    )
    options.add_wiki(fetch)
    fetch.add_argument(
        "--output",
        metavar="DIR",
        required=True,
        help="folder of the dump files and their lock; several wikis may share it",
    )
    fetch.add_argument("--dry-run", action="store_true", help="list the files and their sizes, download none")
    which = fetch.add_argument_group("which dumps")
    which.add_argument(
        "--date",
        metavar="DATE",
        default="latest",
        help="of the wiki's dump: 20260101, or latest",
    )
    which.add_argument(
        "--layout",
        choices=("auto", "classic", "content"),
        default="auto",
        help="classic: pages-articles; content: the file exports, which have all name spaces; auto: classic unless it lags",
    )
    options.add_sitelinks_from(fetch)
    which.add_argument(
        "--wikidata-date",
        metavar="DATE",
        default="nearest",
        help="of Wikidata: 20260105, latest, or nearest to the wiki's",
    )
    which.add_argument(
        "--wikidata-format", choices=("gz", "bz2"), help="of Wikidata's JSON (default: what is there, else gz)"
    )
    which.add_argument(
        "--fetch-only",
        metavar="KIND[,KIND…]",
        type=names,
        help=f"of {', '.join(_KINDS)} (default: pages, and what --sitelinks-from says)",
    )
    which.add_argument("--update", action="store_true", help="look for other dates than those that the lock holds")
    how = fetch.add_argument_group("from where, and how")
    how.add_argument(
        "--mirror",
        metavar="NAME|URL",
        default="wikimedia",
        help="wikimedia, accum, your.org, or the address of the folder that has the wikis'",
    )
    how.add_argument(
        "--trust-mirror",
        action="store_true",
        help="take dates and sums from the mirror too (default: from Wikimedia by HTTPS; a mirror on this machine is trusted)",
    )
    how.add_argument(
        "--contact", metavar="ADDRESS", default="", help="your e-mail or page, told to the server; some refuse without"
    )
    how.add_argument("--connections", metavar="N", type=positive, default=2, help="at once, 1 or 2")
    how.add_argument(
        "--max-wait",
        metavar="SECONDS",
        type=positive,
        default=900,
        help="the longest that a busy server may ask us to wait",
    )
    add_output_of_progress(fetch)
    fetch.set_defaults(run=_run)
    add_recipe_options(fetch, RecipeUse(section=CORPUS, names={"output": "dumps"}, derive=output_of_fetch))


def _run(chosen: argparse.Namespace, beam_options: Sequence[str]) -> None:
    from leia_beam.dump_layouts import LATEST, NEAREST
    from leia_beam.dump_lock import iso_date
    from leia_beam.dump_mirrors import find_mirror
    from leia_beam.fetching import Source, Wanted, check_space, fetch, plan_fetch
    from leia_beam.http_requests import check_contact
    from leia_beam.wikis import wiki_code

    wanted = Wanted(
        wiki=wiki_code(chosen.wiki),
        kinds=_kinds(chosen.fetch_only, chosen.sitelinks_from),
        date=chosen.date if chosen.date == LATEST else iso_date(chosen.date),
        layout=chosen.layout,
        wikidata_date=chosen.wikidata_date
        if chosen.wikidata_date in (LATEST, NEAREST)
        else iso_date(chosen.wikidata_date),
        wikidata_format=chosen.wikidata_format,
    )
    source = Source(
        mirror=find_mirror(chosen.mirror),
        believed=chosen.trust_mirror,
        contact=check_contact(chosen.contact),
        connections=chosen.connections,
        max_wait_s=chosen.max_wait,
    )
    folder = Path(chosen.output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder}: is a file; give a folder")
    plan = plan_fetch(wanted, source, folder, chosen.console, update=chosen.update)
    _print(plan_lines(plan, folder))
    if chosen.dry_run:
        check_space(plan, folder)
        return
    fetch(plan, source, folder, chosen.console)
    for name in plan.superseded:
        chosen.console.say(f"note: {name} is of another date and no longer needed; remove it if you like")


def _kinds(given: Sequence[str] | None, sitelinks_from: str) -> tuple[str, ...]:
    """The kinds of dumps.

    Raises: UsageError.
    """
    if given is None:
        return ("pages", sitelinks_from)
    for kind in given:
        if kind not in _KINDS:
            raise UsageError(
                f"--fetch-only {','.join(given)}: {kind!r} is none of {', '.join(_KINDS)}{nearest(kind, _KINDS)}"
            )
    return tuple(dict.fromkeys(given))


def _print(lines: Sequence[str]) -> None:
    """Print, though the reader may have gone: that is no reason to end the downloads."""
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def plan_lines(plan: FetchPlan, folder: Path) -> list[str]:
    """The files, what of each is there, and the disk."""
    from leia_beam.console import amount
    from leia_beam.disk_space import free_bytes
    from leia_beam.downloading import is_there, present_bytes
    from leia_beam.fetching import needed_bytes

    lines = []
    for file in plan.files:
        size = "size unknown" if file.size_bytes is None else amount(file.size_bytes, "bytes")
        part = present_bytes(folder, file)
        there = "there" if is_there(folder, file) else f"{amount(part, 'bytes')} there" if part else ""
        if file.size_bytes is not None and not file.size_is_listed:
            there = f"{there}, size as the server says" if there else "size as the server says"
        lines.append(f"{file.kind:<10} {file.date}  {file.name:<60} {size:>12}  {there}".rstrip())
    needed, free = needed_bytes(plan, folder), free_bytes(str(folder))
    lines.append(f"to come: {amount(needed, 'bytes')}, free in {folder}: {amount(free, 'bytes')}")
    return lines

"""The command `leia-beam`: from a command line to a build, and from what went wrong to one line and an exit code.

Beam, pyarrow and the tokenizers are imported when a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import NoReturn

from leia_beam import fetch_command, folder_commands, options, plan_command
from leia_beam.arguments import Parser
from leia_beam.console import Console
from leia_beam.errors import Interrupted, LeiaError, MissingResource, exit_code_of

_EXAMPLE = """example:
  leia-beam build --pages jawiki-20260101-pages-articles-multistream.xml.bz2 \\
    --wikidata wikidata-20260101-all.json.bz2 --wiki jawiki --name-languages en \\
    --tokenizer my-model/ --output build/ja

exit codes: 0 done · 2 usage · 3 damaged input · 4 too many rejects · 5 environment ·
            6 output holds another build · 75 interrupted, run again to resume"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit code; errors are one line on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    given, beam_options = _split_beam_options(given)
    console = Console("leia-beam", quiet="--quiet" in given, as_json="--log-json" in given)
    try:
        with _termination_as_interrupt():
            chosen = _parser().parse_strict(given)
            console.quiet = getattr(chosen, "quiet", False)  # a recipe may have it
            chosen.console = console
            chosen.run(chosen, beam_options)
    except KeyboardInterrupt as error:
        kept = str(error) or "finished units are kept, run the same command again to go on"
        console.interrupted(f"interrupted; {kept}", Interrupted.exit_code)
        return Interrupted.exit_code
    except LeiaError as error:
        console.error(str(error), exit_code_of(error))
        return exit_code_of(error)
    except BrokenPipeError:  # a reader such as `head` that has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        console.error(str(error), MissingResource.exit_code)
        return MissingResource.exit_code
    except MemoryError as error:
        console.error("out of memory; give fewer --workers or a machine with more", exit_code_of(error))
        return exit_code_of(error)
    finally:
        console.clear()
    return 0


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does; the handler that was there is put back."""
    before = signal.signal(signal.SIGTERM, _raise_interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _split_beam_options(given: list[str]) -> tuple[list[str], list[str]]:
    """What follows `--` goes to Beam."""
    if "--" not in given:
        return given, []
    at = given.index("--")
    return given[:at], given[at + 1 :]


def _parser() -> Parser:
    parser = Parser(
        prog="leia-beam",
        description="Wikipedia and Wikidata dumps to tokenized Parquet shards with the English name of each linked entity.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"leia-beam {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    build = commands.add_parser("build", help="dumps to shards: all four stages, skipping what is finished")
    options.add_dumps(build)
    options.add_pages(build, required=False)
    options.add_wikidata(build, required=False)
    options.add_facts(build)
    options.add_langlinks(build, required=False)
    options.add_sitelinks_from(build)
    options.add_wiki(build)
    options.add_names(build)
    options.add_tokenizer(build)
    options.add_reading(build).add_argument(
        "--strict-dates", action="store_true", help="refuse dumps whose dates lie more than 45 days apart"
    )
    options.add_common(build)
    stage = commands.add_parser("sitelinks", help="Wikidata dump to one row an item")
    options.add_wikidata(stage)
    stage.add_argument(
        "--label-languages", metavar="LANG[,LANG…]", default="en", help="languages whose labels are kept"
    )
    options.add_facts(stage)
    options.add_reading(stage)
    options.add_common(stage)
    stage = commands.add_parser("langlinks", help="a wiki's table of links between languages to one row a link")
    options.add_langlinks(stage)
    options.add_wiki(stage)
    options.add_reading(stage)
    options.add_common(stage)
    stage = commands.add_parser("articles", help="wiki dump to articles with anchors, and redirects")
    options.add_pages(stage)
    options.add_wiki(stage)
    options.add_reading(stage)
    options.add_common(stage)
    stage = commands.add_parser("entities", help="titles, redirects and sitelinks to the entity table")
    stage.add_argument(
        "--sitelinks", metavar="DIR", help="a finished sitelinks or langlinks folder (default: the one in OUTPUT)"
    )
    options.add_sitelinks_from(stage)
    options.add_wiki(stage)
    options.add_names(stage)
    options.add_common(stage)
    stage = commands.add_parser("shards", help="articles and entities to tokenized shards")
    options.add_tokenizer(stage)
    options.add_common(stage)
    for name in ("build", "articles", "entities", "shards"):
        options.add_profile(commands.choices[name])
    for parser_of_stage in commands.choices.values():
        parser_of_stage.set_defaults(run=_run_build_command)
    folder_commands.add_commands(commands)
    plan_command.add_command(commands)
    fetch_command.add_command(commands)
    return parser


def _run_build_command(chosen: argparse.Namespace, beam_options: Sequence[str]) -> None:
    from leia_beam.log_file import hold_log

    hold_log()  # before Beam is imported, which warns of what it misses
    from pipelines.commands import run_command

    run_command(chosen, beam_options)


def _version() -> str:
    try:
        return version("leia-lm")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())

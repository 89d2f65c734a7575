"""The commands over a finished build's folder, or over one that a job left behind: they look, tell, and tidy up."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leia_beam.arguments import Parser, new_command, not_negative, positive
from leia_beam.configuration import add_recipe_options
from leia_beam.derived import output_of_build
from leia_beam.errors import DamagedInput, UsageError
from leia_beam.options import add_max_rejects, add_tolerance
from leia_beam.recipe import CORPUS
from leia_beam.recipe_use import RecipeUse
from leia_beam.storage import LocalStorage, Storage


def add_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the commands to the parser's subcommands."""
    stats = new_command(
        commands,
        "stats",
        "what became of a build's links: by reason, by target, by language",
        "leia-beam stats build/ja --picture funnel.svg",
    )
    stats.add_argument("output", metavar="DIR", help="a build's folder")
    stats.add_argument("--top", metavar="N", type=not_negative, default=20, help="targets most missed that are shown")
    stats.add_argument("--json", metavar="FILE", help="write all of it as JSON too")
    stats.add_argument("--picture", metavar="FILE", help="draw the funnel as SVG too")
    stats.add_argument("--html", metavar="FILE", help="write all of it as one page that needs nothing else too")
    stats.set_defaults(run=_stats)
    finish = new_command(
        commands,
        "finish",
        "write the manifest of stages whose units are all done",
        "leia-beam finish gs://bucket/build/ja",
    )
    finish.add_argument("output", metavar="DIR", help="a build's folder")
    add_max_rejects(finish)
    add_tolerance(finish)
    finish.set_defaults(run=_finish)
    validate = new_command(
        commands,
        "validate",
        "look at every file and every row of a build, or of a stage",
        "leia-beam validate build/ja",
    )
    validate.add_argument("output", metavar="DIR", help="a build's folder, or a stage's that was copied away")
    validate.add_argument("--show", metavar="N", type=not_negative, default=50, help="violations that are shown")
    validate.add_argument("--json", metavar="FILE", help="write all of them as JSON too")
    validate.set_defaults(run=_validate)
    preview = new_command(
        commands,
        "preview",
        "single articles as people see them, with the names beside their links",
        "leia-beam preview build/ja --least-covered 5 --html preview.html",
    )
    preview.add_argument("output", metavar="DIR", help="a build's folder, or a folder of shards alone")
    which = preview.add_mutually_exclusive_group()
    which.add_argument("--title", metavar="TITLE", nargs="+", default=[], help="the articles of these titles")
    which.add_argument("--random", metavar="N", type=positive, default=3, help="some at random")
    which.add_argument(
        "--most-covered", metavar="N", type=positive, default=0, help="those with the most names a token"
    )
    which.add_argument("--least-covered", metavar="N", type=positive, default=0, help="those with the fewest")
    preview.add_argument("--seed", metavar="N", type=not_negative, default=0, help="draws those at random")
    preview.add_argument("--tokens", action="store_true", help="show the tokens too")
    preview.add_argument("--html", metavar="FILE", help="write one page that needs nothing else")
    preview.add_argument("--json", metavar="FILE", help="write them as JSON; - for standard output")
    preview.add_argument(
        "--characters", metavar="N", type=not_negative, default=2000, help="of a text on the terminal; 0 for all"
    )
    preview.set_defaults(run=_preview)
    card = new_command(commands, "card", "write the dataset card of a build's shards", "leia-beam card build/ja")
    card.add_argument("output", metavar="DIR", help="a build's folder, or a folder of shards alone")
    card.add_argument("--file", metavar="FILE", help="where to (default: README.md among the shards; - to print it)")
    card.set_defaults(run=_card)
    clean = new_command(
        commands,
        "clean",
        "remove what killed runs and other builds left in a folder",
        "leia-beam clean build/ja --dry-run",
    )
    clean.add_argument("output", metavar="DIR", help="a build's folder, or a stage's")
    clean.add_argument("--dry-run", action="store_true", help="say what would be removed")
    clean.set_defaults(run=_clean)
    for command in (stats, finish, validate, preview, card, clean):
        others = {action.dest: "" for action in command._actions if action.dest not in _FROM_RECIPES}
        add_recipe_options(command, RecipeUse(section=CORPUS, names=others, derive=output_of_build))


_FROM_RECIPES = ("output", "max_rejects", "max_bad_blocks", "salvage")
"""What these commands take from a recipe: where the corpus is, and what was let pass of it."""


def _stats(options: argparse.Namespace, beam_options: Sequence[str]) -> None:
    from leia_beam.stats import build_stats, stats_json, stats_lines, stats_picture
    from leia_beam.stats_html import stats_page

    stats = build_stats(options.output.rstrip("/"), options.top)
    for path, content in ((options.json, stats_json), (options.picture, stats_picture), (options.html, stats_page)):
        if path:
            LocalStorage().write(path, content(stats).encode("utf-8", "backslashreplace"))
    print("\n".join(stats_lines(stats)))


def _finish(options: argparse.Namespace, beam_options: Sequence[str]) -> None:
    from leia_beam.coverage import Tolerance
    from leia_beam.finish import MaxRejects, finish_stage, read_finished
    from leia_beam.plans import read_plan

    storage, max_rejects = _storage_of(options.output, beam_options), MaxRejects.parse(options.max_rejects)
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


def _storage_of(output: str, beam_options: Sequence[str]) -> Storage:
    """What a folder lies on. Beam is imported only where an object store is meant."""
    if "://" not in output:
        return LocalStorage()
    from leia_beam.sources import storage_of

    return storage_of(output, beam_options)


def _validate(options: argparse.Namespace, beam_options: Sequence[str]) -> None:
    from leia_beam.terminal_text import printable
    from leia_beam.validate import validate

    found = validate(options.output, options.console.progress)
    options.console.clear()
    _write_json(options.json, found.as_json())
    for violation in found.violations[: options.show]:
        print(printable(str(violation)))
    more = len(found.violations) - options.show
    if more > 0:
        print(f"… and {more:,} more")
    for folder in found.unfinished:
        print(f"{printable(folder)}: not finished, not looked at")
    looked_at = (
        f"{len(found.stages)} stages, {found.files:,} files, {found.size_bytes / 1e6:,.1f} MB, {found.rows:,} rows"
    )
    if found.violations:
        raise DamagedInput(
            f"{options.output}: {len(found.violations):,} violations in {looked_at}; the same build command with "
            "--overwrite makes damaged units again"
        )
    print(f"{printable(options.output)}: {looked_at}, all as they were written")


def _write_json(path: str | None, content: Mapping[str, Any]) -> None:
    if path:
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        LocalStorage().write(path, text.encode("utf-8", "backslashreplace"))


def _preview(options: argparse.Namespace, beam_options: Sequence[str]) -> None:
    import pyarrow as pa

    from leia_beam.preview import Choice, Preview
    from leia_beam.preview_html import preview_page
    from leia_beam.preview_text import article_lines
    from leia_beam.terminal_text import json_text

    preview = Preview(options.output)
    choice = Choice(
        titles=options.title,
        random=options.random,
        seed=options.seed,
        most_covered=options.most_covered,
        least_covered=options.least_covered,
    )
    try:
        articles = list(preview.articles(choice, options.tokens))
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DamagedInput(f"{options.output}: {reason}; `leia-beam validate` says which file it is") from error
    if not articles:
        raise UsageError(f"{options.output}: these shards hold no article")
    if options.html:
        page = preview_page(articles, f"{preview.manifest.options['wiki']}: articles with the names of their links")
        LocalStorage().write(options.html, page.encode("utf-8", "backslashreplace"))
        options.console.say(f"{len(articles)} articles: {options.html}")
    text = json_text([article.as_json() for article in articles])
    if options.json == "-":
        sys.stdout.write(text)
    elif options.json:
        LocalStorage().write(options.json, text.encode("utf-8", "backslashreplace"))
    if not options.html and not options.json:
        is_coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        for article in articles:
            print("\n".join(article_lines(article, is_coloured, options.characters or None)))


def _card(options: argparse.Namespace, beam_options: Sequence[str]) -> None:
    from leia_beam.card import card
    from leia_beam.manifest import MANIFEST_NAME
    from leia_beam.terminal_text import printable

    text = card(options.output)
    if options.file == "-":
        sys.stdout.write(printable(text, "\n"))
        return
    root = Path(options.output)
    path = options.file or str((root if (root / MANIFEST_NAME).is_file() else root / "shards") / "README.md")
    LocalStorage().write(path, text.encode("utf-8", "backslashreplace"))
    print(f"{path}: written", file=sys.stderr)


def _clean(options: argparse.Namespace, beam_options: Sequence[str]) -> None:
    from contextlib import nullcontext

    from leia_beam.clean import find_leftovers, no_build_running, remove
    from leia_beam.terminal_text import printable

    with nullcontext() if options.dry_run else no_build_running(options.output):
        found = find_leftovers(options.output)
        for leftover in found:
            print(f"{printable(str(leftover.path))}  {leftover.size_bytes:,} bytes  {leftover.reason}")
        if not options.dry_run:
            remove(found)
    outcome = "would be removed" if options.dry_run else "removed"
    print(f"{len(found):,} files, {sum(each.size_bytes for each in found) / 1e6:,.1f} MB {outcome}")

"""The command `leia-beam`: from a command line to a build, and from what went wrong to one line and an exit code.

Beam, pyarrow and the tokenizers are imported when a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from leia_beam.arguments import Parser, not_negative, positive, share, size_bytes
from leia_beam.errors import Interrupted, LeiaError, MissingResource, UsageError, exit_code_of

if TYPE_CHECKING:
    from leia_beam.coverage import Tolerance
    from leia_beam.wikitext import ExtractionOptions
    from pipelines.build import Build, EntityOptions, ShardOptions

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
    try:
        with _termination_as_interrupt():
            options = _parser().parse_strict(given)
            _run(options, beam_options)
    except KeyboardInterrupt:
        print("leia-beam: interrupted; finished units are kept, run the same command again to go on", file=sys.stderr)
        return Interrupted.exit_code
    except LeiaError as error:
        print(f"leia-beam: error: {error}", file=sys.stderr)
        return exit_code_of(error)
    except OSError as error:
        print(f"leia-beam: error: {error}", file=sys.stderr)
        return MissingResource.exit_code
    except MemoryError:
        print("leia-beam: error: out of memory; give fewer --workers or a machine with more", file=sys.stderr)
        return exit_code_of(MemoryError())
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
    _pages(build)
    _wikidata(build, required=False)
    _facts(build)
    _langlinks(build, required=False)
    _sitelinks_from(build)
    _wiki(build)
    _names(build)
    _tokenizer(build)
    _reading(build).add_argument(
        "--strict-dates", action="store_true", help="refuse dumps whose dates lie more than 45 days apart"
    )
    _common(build)
    stage = commands.add_parser("sitelinks", help="Wikidata dump to one row an item")
    _wikidata(stage)
    stage.add_argument(
        "--label-languages", metavar="LANG[,LANG…]", default="en", help="languages whose labels are kept"
    )
    _facts(stage)
    _reading(stage)
    _common(stage)
    stage = commands.add_parser("langlinks", help="a wiki's table of links between languages to one row a link")
    _langlinks(stage)
    _wiki(stage)
    _reading(stage)
    _common(stage)
    stage = commands.add_parser("articles", help="wiki dump to articles with anchors, and redirects")
    _pages(stage)
    _wiki(stage)
    _reading(stage)
    _common(stage)
    stage = commands.add_parser("entities", help="titles, redirects and sitelinks to the entity table")
    stage.add_argument(
        "--sitelinks", metavar="DIR", help="a finished sitelinks or langlinks folder (default: the one in OUTPUT)"
    )
    _sitelinks_from(stage)
    _wiki(stage)
    _names(stage)
    _common(stage)
    stage = commands.add_parser("shards", help="articles and entities to tokenized shards")
    _tokenizer(stage)
    _common(stage)
    stats = commands.add_parser("stats", help="what became of a build's links: by reason, by target, by language")
    stats.add_argument("output", metavar="DIR", help="a build's folder")
    stats.add_argument("--top", metavar="N", type=not_negative, default=20, help="targets most missed that are shown")
    stats.add_argument("--json", metavar="FILE", help="write all of it as JSON too")
    stats.add_argument("--picture", metavar="FILE", help="draw the funnel as SVG too")
    finish = commands.add_parser("finish", help="write the manifest of stages whose units are all done")
    finish.add_argument("output", metavar="DIR", help="a build's folder")
    _max_rejects(finish)
    _tolerance(finish)
    return parser


def _version() -> str:
    try:
        return version("leia-lm")
    except PackageNotFoundError:
        return "(not installed)"


def _pages(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the wiki's dump")
    group.add_argument(
        "--pages",
        metavar="FILE",
        nargs="+",
        required=True,
        help="pages-articles XML: .bz2, .gz, .zst or plain; wildcards too",
    )
    group.add_argument(
        "--max-page-bytes", metavar="SIZE", type=size_bytes, default="64MiB", help="larger pages are rejected"
    )
    group.add_argument("--ignore-siteinfo", action="store_true", help="keep to the package's facts about the wiki")
    group.add_argument("--tables", action="store_true", help="keep the text of tables")
    group.add_argument("--captions", action="store_true", help="keep the captions of files")
    group.add_argument("--no-lists", action="store_true", help="drop lists")
    group.add_argument("--no-headings", action="store_true", help="drop headings")
    group.add_argument(
        "--end-matter", action="store_true", help="keep references, see also, external links and the like"
    )
    group.add_argument("--as-rendered", action="store_true", help="keep all of it, as the page's reader sees it")


def _wikidata(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--wikidata",
        metavar="FILE",
        nargs="+",
        required=required,
        help="Wikidata JSON dump: .gz, .bz2 or plain; or the folder of a finished sitelinks stage",
    )


def _langlinks(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--langlinks",
        metavar="FILE",
        nargs="+",
        required=required,
        help="the wiki's own …-langlinks.sql.gz, or the folder of a finished langlinks stage: names without Wikidata",
    )


def _sitelinks_from(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sitelinks-from",
        choices=("wikidata", "langlinks"),
        default="wikidata",
        help="where names come from: Wikidata, or the wiki's own table, which has no items",
    )


def _facts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--claims",
        metavar="P[,P…]",
        help="properties whose items are kept, or none (default: P31, an item's types: lists and the like get no name)",
    )
    parser.add_argument("--aliases", action="store_true", help="keep the aliases in the languages of the labels")


def _wiki(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wiki", metavar="WIKI", required=True, help="database name (jawiki) or language (ja)")


def _names(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("names")
    group.add_argument(
        "--name-languages", metavar="LANG[,LANG…]", default="en", help="languages of the names, in order of preference"
    )
    group.add_argument(
        "--name-source",
        choices=("sitelink", "label", "sitelink-then-label"),
        default="sitelink",
        help="the title of the linked article, Wikidata's label, or the label where there is no article",
    )
    group.add_argument(
        "--no-label-case", action="store_true", help="keep the title's case where the label has another (Dog, dog)"
    )
    group.add_argument("--refuse-numbers", action="store_true", help="give bare numbers, years and dates no name")
    group.add_argument(
        "--section-links",
        choices=("refuse", "article"),
        default="refuse",
        help="links and redirects to a section: no name, or the article's",
    )
    group.add_argument(
        "--redirect-items",
        choices=("own", "target"),
        default="own",
        help="a redirect that has an item: its own name, or that of where it leads",
    )
    group.add_argument(
        "--missing-pages",
        choices=("name", "refuse"),
        default="name",
        help="titles that an item links to but the dump has no page of: named, or counted as missing pages",
    )
    group.add_argument(
        "--holdout", metavar="SHARE", type=share, default=0.0, help="share of names, 0 to 1, kept from insertion"
    )
    group.add_argument("--seed", metavar="N", type=not_negative, default=0, help="draws the names that are held out")
    group.add_argument(
        "--buckets",
        metavar="N",
        type=positive,
        help="parts of the entity table (default: one for 65,536 titles, at most 256)",
    )


def _tokenizer(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("tokens")
    group.add_argument(
        "--tokenizer", metavar="DIR|FILE|NAME", required=True, help="a tokenizer.json, its folder, or a name on the hub"
    )
    group.add_argument(
        "--align",
        choices=("edge", "strict"),
        default="edge",
        help="anchors off token edges: widen a bad start and refuse a bad end, or drop the anchor",
    )
    group.add_argument(
        "--equal-names",
        choices=("keep", "skip"),
        default="keep",
        help="names that are the anchor's own text but for case",
    )
    group.add_argument(
        "--link-later-mentions",
        action="store_true",
        help="treat later mentions of an article's linked texts as links too",
    )
    group.add_argument(
        "--name-space", choices=("auto", "yes", "no"), default="auto", help="encode names with a space before them"
    )
    group.add_argument(
        "--document-start", choices=("auto", "bos", "eos", "none"), default="auto", help="the token before each article"
    )


def _common(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the run")
    group.add_argument("--output", metavar="DIR", required=True, help="the build's folder")
    group.add_argument("--workers", metavar="N", type=positive, default=os.cpu_count() or 1, help="processes")
    group.add_argument("--runner", metavar="NAME", default="local", help="local, or a runner of Beam by name")
    group.add_argument(
        "--range-bytes", metavar="SIZE", type=size_bytes, default="48MiB", help="compressed bytes of a unit of work"
    )
    _max_rejects(group)
    group.add_argument("--overwrite", action="store_true", help="replace stages of another build in this folder")
    group.add_argument("--dry-run", action="store_true", help="say what would be done")
    group.add_argument("--quiet", action="store_true", help="no progress lines")


def _max_rejects(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--max-rejects",
        metavar="SHARE|COUNT",
        default="0.1%",
        help="records of a stage that may be rejected; of a share never fewer than 20",
    )


def _reading(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("reading the dumps")
    _tolerance(group)
    group.add_argument(
        "--verify-inputs",
        action="store_true",
        help="first compare each dump with the sums in sha1sums.txt beside it, which reads it once more",
    )
    return group


def _tolerance(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--max-bad-blocks",
        metavar="N",
        type=not_negative,
        default=0,
        help="bzip2 blocks of a dump that may be skipped since they do not decode; the pages in them are lost and listed",
    )
    parser.add_argument(
        "--salvage", action="store_true", help="of a dump that ends early keep what is whole, and mark the manifest"
    )


def _run(options: argparse.Namespace, beam_options: Sequence[str]) -> None:
    if options.command == "finish":
        _finish(options)
        return
    if options.command == "stats":
        _stats(options)
        return
    from leia_beam.log_file import hold_log

    hold_log()  # before Beam is imported, which warns of what it misses
    from leia_beam.finish import MaxRejects
    from pipelines.build import Build, RunOptions

    build = Build(
        RunOptions(
            output=options.output,
            workers=options.workers,
            runner=options.runner,
            max_rejects=MaxRejects.parse(options.max_rejects),
            tolerance=_tolerance_of(options),
            verify_inputs=getattr(options, "verify_inputs", False),
            strict_dates=getattr(options, "strict_dates", False),
            overwrite=options.overwrite,
            dry_run=options.dry_run,
            quiet=options.quiet,
            beam_options=tuple(beam_options),
        )
    )
    outcome = "failed"
    try:
        _run_command(options, build)
        outcome = "done"
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    finally:
        build.write_notes(outcome)


def _run_command(options: argparse.Namespace, build: Build) -> None:
    from leia_beam.tokenizer_identity import find_tokenizer
    from pipelines import articles, langlinks, sitelinks
    from pipelines import build as steps

    if options.command == "build":
        steps.run_build(
            build,
            steps.BuildInputs(
                pages=options.pages,
                wikidata=options.wikidata or (),
                langlinks=_links_between_languages(options),
                wiki=options.wiki,
                name_languages=_list(options.name_languages),
                tokenizer=options.tokenizer,
                extraction=_extraction(options),
                range_bytes=options.range_bytes,
                max_page_bytes=options.max_page_bytes,
                ignore_siteinfo=options.ignore_siteinfo,
                shards=_shard_options(options),
                entities=_entity_options(options),
                claims=_properties(options.claims),
                aliases=options.aliases,
            ),
        )
    elif options.command == "sitelinks":
        items = steps.ItemOptions(
            label_languages=_list(options.label_languages),
            claims=_properties(options.claims),
            aliases=options.aliases,
        )
        stage = steps.sitelinks_stage(build, options.wikidata, items, options.range_bytes)
        if stage is None:
            raise UsageError("--wikidata: this is a finished sitelinks folder; give a dump to make another")
        build.prepare_output()
        build.run(stage, sitelinks.graph)
    elif options.command == "langlinks":
        links = steps.langlinks_stage(build, options.langlinks, options.wiki, options.range_bytes)
        if links is None:
            raise UsageError("--langlinks: this is a finished langlinks folder; give a dump to make another")
        build.prepare_output()
        build.run(links, langlinks.graph)
    elif options.command == "articles":
        articles_stage = steps.articles_stage(
            build,
            options.pages,
            options.wiki,
            _extraction(options),
            options.range_bytes,
            options.max_page_bytes,
            options.ignore_siteinfo,
        )
        build.prepare_output()
        build.run(articles_stage, articles.graph)
    elif options.command == "entities":
        name = "langlinks" if options.sitelinks_from == "langlinks" else "sitelinks"
        sitelinks_folder = options.sitelinks or build.folder(name)
        languages = _list(options.name_languages)
        steps.run_entities(build, options.wiki, languages, sitelinks_folder, _entity_options(options))
    else:
        tokenizer = find_tokenizer(options.tokenizer)
        steps.run_shards(build, tokenizer, _shard_options(options))


def _entity_options(options: argparse.Namespace) -> EntityOptions:
    from leia_beam.entity_names import NameRules
    from leia_beam.holdout import Holdout
    from pipelines.build import EntityOptions

    return EntityOptions(
        buckets=options.buckets,
        names=NameRules(
            source=options.name_source, label_case=not options.no_label_case, refuse_numbers=options.refuse_numbers
        ),
        holdout=Holdout(share=options.holdout, seed=options.seed),
        sections=options.section_links,
        redirect_items=options.redirect_items,
        missing_pages=options.missing_pages,
    )


def _shard_options(options: argparse.Namespace) -> ShardOptions:
    from pipelines.build import ShardOptions

    return ShardOptions(
        alignment=options.align,
        name_space=options.name_space,
        document_start=options.document_start,
        skip_equal=options.equal_names == "skip",
        later_mentions=options.link_later_mentions,
    )


def _links_between_languages(options: argparse.Namespace) -> list[str]:
    """The files of --langlinks where names come from them; [] where they come from Wikidata.

    Raises: UsageError where one of both is asked for and the other one given.
    """
    if options.sitelinks_from == "langlinks":
        if not options.langlinks:
            raise UsageError("--sitelinks-from langlinks: give the wiki's …-langlinks.sql.gz with --langlinks")
        if options.wikidata:
            raise UsageError("--wikidata and --sitelinks-from langlinks: give one of both")
        return list(options.langlinks)
    if options.langlinks:
        raise UsageError("--langlinks: add --sitelinks-from langlinks, in place of --wikidata")
    if not options.wikidata:
        raise UsageError("the following arguments are required: --wikidata")
    return []


def _properties(text: str | None) -> list[str] | None:
    """The properties of --claims, [] for none, None where it is not given.

    Raises: UsageError.
    """
    if text is None:
        return None
    if text.strip().lower() in ("", "none"):
        return []
    names = _list(text)
    for name in names:
        if not re.fullmatch("P[1-9][0-9]*", name):
            raise UsageError(f"--claims {text}: {name!r} is no property; give some such as P31,P17, or none")
    return names


def _tolerance_of(options: argparse.Namespace) -> Tolerance:
    from leia_beam.coverage import STRICT, Tolerance

    if "salvage" not in options:  # a stage that reads no dump
        return STRICT
    return Tolerance(max_bad_blocks=options.max_bad_blocks, salvage=options.salvage)


def _extraction(options: argparse.Namespace) -> ExtractionOptions:
    from leia_beam.wikitext import ExtractionOptions

    return ExtractionOptions(
        tables=options.tables,
        captions=options.captions,
        lists=not options.no_lists,
        headings=not options.no_headings,
        end_matter=options.end_matter,
        as_rendered=options.as_rendered,
    )


def _list(text: str) -> list[str]:
    """The parts of a comma-separated option.

    Raises: UsageError if there is none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError("give at least one language, such as en")
    return parts


def _stats(options: argparse.Namespace) -> None:
    from leia_beam.stats import build_stats, stats_json, stats_lines, stats_picture
    from leia_beam.storage import LocalStorage

    stats = build_stats(options.output.rstrip("/"), options.top)
    for path, content in ((options.json, stats_json), (options.picture, stats_picture)):
        if path:
            LocalStorage().write(path, content(stats).encode("utf-8", "backslashreplace"))
    print("\n".join(stats_lines(stats)))


def _finish(options: argparse.Namespace) -> None:
    from leia_beam.finish import MaxRejects, finish_stage, read_finished
    from leia_beam.plans import read_plan
    from leia_beam.storage import LocalStorage

    storage, max_rejects = LocalStorage(), MaxRejects.parse(options.max_rejects)
    tolerance = _tolerance_of(options)
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


if __name__ == "__main__":
    sys.exit(main())

"""From a command line's options to the stage or the build that it asks for.

What an option means is decided here, once: the stages and the steps of a build know dataclasses alone.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from leia_beam.article_filters import ArticleFilters
from leia_beam.coverage import STRICT, Tolerance
from leia_beam.dump_lock import LANGLINKS, PAGES, WIKIDATA, WIKIDATA_WIKI, fetched_paths
from leia_beam.entity_names import NameRules
from leia_beam.errors import UsageError
from leia_beam.finish import MaxRejects
from leia_beam.holdout import Holdout
from leia_beam.shard_rows import RowOptions
from leia_beam.tokenization import EncodingOptions
from leia_beam.wikis import wiki_code
from leia_beam.wikitext import ExtractionOptions
from pipelines import articles, langlinks, sitelinks
from pipelines.build import BuildInputs, run_build, run_entities, run_shards
from pipelines.flink import FlinkOptions
from pipelines.late_stages import find_tokenizer_at
from pipelines.runners import RunnerOptions
from pipelines.stage_options import (
    EntityOptions,
    ItemOptions,
    ShardOptions,
    articles_stage,
    langlinks_stage,
    sitelinks_stage,
)
from pipelines.stage_runs import Build, RunOptions


def run_command(options: argparse.Namespace, beam_options: Sequence[str]) -> None:
    """Run a stage or the whole build, and note in the output folder what it took."""
    with Build(run_options(options, beam_options)).noted() as build:
        _run_steps(options, build)


def run_options(options: argparse.Namespace, beam_options: Sequence[str]) -> RunOptions:
    """How the stages of a command run."""
    return RunOptions(
        output=options.output,
        runner=_runner(options, beam_options),
        max_rejects=MaxRejects.parse(options.max_rejects),
        tolerance=_tolerance_of(options),
        verify_inputs=getattr(options, "verify_inputs", False),
        strict_dates=getattr(options, "strict_dates", False),
        overwrite=options.overwrite,
        dry_run=options.dry_run,
        console=options.console,
    )


def build_inputs(options: argparse.Namespace) -> BuildInputs:
    """What `leia-beam build` reads, and how.

    Raises: UsageError where dumps are missing, or two kinds of them are given.
    """
    _take_fetched(options)
    return BuildInputs(
        pages=options.pages,
        wikidata=options.wikidata or (),
        langlinks=_links_between_languages(options),
        wiki=options.wiki,
        name_languages=options.name_languages,
        tokenizer=options.tokenizer,
        extraction=_extraction(options),
        range_bytes=options.range_bytes,
        max_page_bytes=options.max_page_bytes,
        ignore_siteinfo=options.ignore_siteinfo,
        shards=_shard_options(options),
        entities=_entity_options(options),
        claims=_properties(options.claims),
        aliases=options.aliases,
    )


def _run_steps(options: argparse.Namespace, build: Build) -> None:

    if options.command == "build":
        run_build(build, build_inputs(options))
    elif options.command == "sitelinks":
        items = ItemOptions(
            label_languages=options.label_languages,
            claims=_properties(options.claims),
            aliases=options.aliases,
        )
        stage = sitelinks_stage(build, options.wikidata, items, options.range_bytes)
        if stage is None:
            raise UsageError("--wikidata: this is a finished sitelinks folder; give a dump to make another")
        build.prepare_output()
        build.run(stage, sitelinks.graph)
    elif options.command == "langlinks":
        links = langlinks_stage(build, options.langlinks, options.wiki, options.range_bytes)
        if links is None:
            raise UsageError("--langlinks: this is a finished langlinks folder; give a dump to make another")
        build.prepare_output()
        build.run(links, langlinks.graph)
    elif options.command == "articles":
        stage_of_articles = articles_stage(
            build,
            options.pages,
            options.wiki,
            _extraction(options),
            options.range_bytes,
            options.max_page_bytes,
            options.ignore_siteinfo,
        )
        build.prepare_output()
        build.run(stage_of_articles, articles.graph)
    elif options.command == "entities":
        name = "langlinks" if options.sitelinks_from == "langlinks" else "sitelinks"
        sitelinks_folder = options.sitelinks or build.folder(name)
        languages = options.name_languages
        run_entities(build, options.wiki, languages, sitelinks_folder, _entity_options(options))
    else:
        tokenizer = find_tokenizer_at(options.tokenizer, build.storage_with(options.tokenizer))
        run_shards(build, tokenizer, _shard_options(options))


def _take_fetched(options: argparse.Namespace) -> None:
    """Name the dumps of --dumps where no others are given.

    Raises: UsageError where neither is.
    """
    if options.dumps is None:
        if not options.pages:
            raise UsageError("the following arguments are required: --pages (or --dumps, a folder that fetch filled)")
        return
    wiki = wiki_code(options.wiki)
    if not options.pages:
        options.pages = fetched_paths(options.dumps, PAGES, wiki)
    if options.sitelinks_from == "langlinks":
        options.langlinks = options.langlinks or fetched_paths(options.dumps, LANGLINKS, wiki)
    else:
        options.wikidata = options.wikidata or fetched_paths(options.dumps, WIKIDATA, WIKIDATA_WIKI)


def _runner(options: argparse.Namespace, beam_options: Sequence[str]) -> RunnerOptions:
    return RunnerOptions(
        name=options.runner,
        workers=options.workers,
        beam_options=tuple(beam_options),
        flink=FlinkOptions(
            master=options.flink_master,
            job_server_jar=options.flink_job_server_jar,
            worker_command=options.flink_worker_command,
            worker_pool=options.flink_worker_pool,
            probe_s=options.flink_probe_seconds,
        ),
    )


def _entity_options(options: argparse.Namespace) -> EntityOptions:

    return EntityOptions(
        buckets=options.buckets,
        names=NameRules(
            source=options.name_source,
            label_case=options.label_case,
            refuse_numbers=options.refuse_numbers,
            parentheses=options.name_parentheses,
        ),
        holdout=Holdout(share=options.holdout, seed=options.seed),
        sections=options.section_links,
        redirect_items=options.redirect_items,
        missing_pages=options.missing_pages,
    )


def _shard_options(options: argparse.Namespace) -> ShardOptions:
    return ShardOptions(
        encoding=EncodingOptions(name_space=options.name_space, document_start=options.document_start, eos=options.eos),
        rows=RowOptions(
            alignment=options.align,
            filters=ArticleFilters(drop=_kinds(options.drop_articles), min_length=options.min_length),
            later_mentions=options.link_later_mentions,
            max_length=options.max_length,
        ),
        skip_equal=options.equal_names == "skip",
    )


def _kinds(names: Sequence[str]) -> tuple[str, ...]:
    """The kinds of --drop-articles, none of them for `none`."""
    return tuple(sorted(set(names) - {"none"}))


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
        raise UsageError("the following arguments are required: --wikidata (or --dumps, a folder that fetch filled)")
    return []


def _properties(names: Sequence[str] | None) -> Sequence[str] | None:
    """The properties of --claims, [] for none, None where it is not given.

    Raises: UsageError.
    """
    if names is None:
        return None
    if [name.lower() for name in names] == ["none"]:
        return []
    for name in names:
        if not re.fullmatch("P[1-9][0-9]*", name):
            raise UsageError(f"--claims {','.join(names)}: {name!r} is no property; give some such as P31,P17, or none")
    return names


def _tolerance_of(options: argparse.Namespace) -> Tolerance:
    if "salvage" not in options:  # a stage that reads no dump
        return STRICT
    return Tolerance(max_bad_blocks=options.max_bad_blocks, salvage=options.salvage)


def _extraction(options: argparse.Namespace) -> ExtractionOptions:

    return ExtractionOptions(
        tables=options.tables,
        captions=options.captions,
        lists=options.lists,
        headings=options.headings,
        end_matter=options.end_matter,
        as_rendered=options.as_rendered,
    )

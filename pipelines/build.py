"""The whole build: sitelinks and articles, entities, shards, each stage from the manifest of those before it.

Everything that can be checked before work begins is checked before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from leia_beam.dump_dates import dates_apart
from leia_beam.errors import UsageError
from leia_beam.funnel import funnel, funnel_lines
from leia_beam.manifest import Manifest
from leia_beam.planning import needs_of
from leia_beam.stage_articles import ArticlesStage
from leia_beam.stage_langlinks import LangLinksStage
from leia_beam.stage_sitelinks import SitelinksStage
from leia_beam.tokenizer_identity import TokenizerFiles
from leia_beam.wikitext import ExtractionOptions
from pipelines import articles, entities, langlinks, shards, sitelinks
from pipelines.dataflow import DATAFLOW, Job, run_dataflow
from pipelines.late_stages import StoredTokenizer, find_tokenizer_at
from pipelines.one_job import JobRules
from pipelines.stage_options import (
    EntityOptions,
    ItemOptions,
    ShardOptions,
    articles_stage,
    entity_steps,
    label_languages,
    langlinks_stage,
    shards_step,
    sitelinks_stage,
)
from pipelines.stage_runs import Build, RunOptions


@dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """What the whole build reads, and how."""

    pages: Sequence[str]
    wiki: str
    name_languages: Sequence[str]
    tokenizer: str
    extraction: ExtractionOptions
    range_bytes: int
    max_page_bytes: int
    ignore_siteinfo: bool
    shards: ShardOptions
    wikidata: Sequence[str] = ()
    langlinks: Sequence[str] = ()
    """Instead of Wikidata: the wiki's own table."""
    entities: EntityOptions = field(default_factory=EntityOptions)
    claims: Sequence[str] | None = None
    aliases: bool = False


def build_corpus(options: RunOptions, inputs: BuildInputs) -> None:
    """Dumps → shards in `options.output`, with notes of what it took in its `_run/`.

    Raises: LeiaError of the kind that `leia-beam build` would end with.
    """
    with Build(options).noted() as build:
        run_build(build, inputs)


def run_build(build: Build, inputs: BuildInputs) -> None:
    """Dumps → shards. All inputs are looked at before the first stage begins."""
    tokenizer = find_tokenizer_at(inputs.tokenizer, build.storage_with(inputs.tokenizer))
    first = _links_stage(build, inputs)
    second = articles_stage(
        build,
        inputs.pages,
        inputs.wiki,
        inputs.extraction,
        inputs.range_bytes,
        inputs.max_page_bytes,
        inputs.ignore_siteinfo,
    )
    given = inputs.langlinks or inputs.wikidata
    apart = dates_apart([dump.name for dump in second.dumps], _dump_names(build, first, given))
    if apart is not None and build.options.strict_dates:
        raise UsageError(f"--strict-dates: {apart}; take dumps of one month")
    build.prepare_output()
    if apart is not None:
        build.say(f"warning: {apart}; pages without an item there will have no name")
    sitelinks_folder = first.folder if first is not None else given[0]
    if build.options.runner.name == DATAFLOW and not build.options.dry_run:
        _run_on_dataflow(
            build, inputs, [stage for stage in (first, second) if stage is not None], sitelinks_folder, tokenizer
        )
        return
    if first is not None:
        build.run(first, langlinks.graph if isinstance(first, LangLinksStage) else sitelinks.graph)
    build.run(second, articles.graph)
    if build.options.dry_run:
        build.say("entities   would read the titles of both into the entity table")
        build.say(f"shards     would tokenize with {tokenizer.name}")
        return
    run_entities(build, inputs.wiki, inputs.name_languages, sitelinks_folder, inputs.entities)
    manifest = run_shards(build, tokenizer, inputs.shards)
    if apart is not None and manifest is not None:
        build.say(
            f"warning: {apart}; {_share_without_item(manifest.counters):.1%} of the anchors have no item or sitelink"
        )


def _run_on_dataflow(
    build: Build,
    inputs: BuildInputs,
    first: Sequence[SitelinksStage | LangLinksStage | ArticlesStage],
    sitelinks_folder: str,
    tokenizer: TokenizerFiles,
) -> None:
    """All stages as one job."""
    output = build.options.output.rstrip("/")
    job = Job(
        output=output,
        first=first,
        entities=entity_steps(build, inputs.wiki, inputs.name_languages, sitelinks_folder, inputs.entities),
        shards=shards_step(build, StoredTokenizer.put(build.storage, output, tokenizer), inputs.shards),
        rules=JobRules(
            max_rejects=build.options.max_rejects,
            tolerance=build.options.tolerance,
            overwrite=build.options.overwrite,
        ),
        storage=build.storage,
        needs=needs_of(
            sum(len(stage.units()) for stage in first),
            sum(dump.size_bytes for stage in first if isinstance(stage, ArticlesStage) for dump in stage.dumps),
            inputs.range_bytes,
        ),
    )
    run_dataflow(job, build.options.runner.workers, build.options.beam_options, build.say)


def _links_stage(build: Build, inputs: BuildInputs) -> SitelinksStage | LangLinksStage | None:
    if inputs.langlinks:
        return langlinks_stage(build, inputs.langlinks, inputs.wiki, inputs.range_bytes)
    items = ItemOptions(
        label_languages=label_languages(inputs.name_languages), claims=inputs.claims, aliases=inputs.aliases
    )
    return sitelinks_stage(build, inputs.wikidata, items, inputs.range_bytes)


def _dump_names(build: Build, stage: SitelinksStage | LangLinksStage | None, given: Sequence[str]) -> list[str]:
    """The names of the dumps that the links between languages are from."""
    if stage is not None:
        return [dump.name for dump in stage.dumps]
    return [str(entry["name"]) for entry in build.manifest(given[0]).inputs]


def _share_without_item(counters: Mapping[str, int]) -> float:
    missed = sum(counters.get(f"anchors/filtered/{reason}", 0) for reason in ("no item", "no sitelink"))
    return missed / max(1, counters.get("anchors/read", 0))


def run_entities(
    build: Build, wiki: str, languages: Sequence[str], sitelinks_folder: str, options: EntityOptions
) -> None:
    """The three steps of `entities`."""
    build.prepare_output()
    made = entity_steps(build, wiki, languages, sitelinks_folder, options)
    build.run(made.titles(), entities.titles_graph)
    build.run(made.redirects(), entities.redirects_graph)
    build.run(made.table(), entities.graph)


def run_shards(build: Build, tokenizer: TokenizerFiles, options: ShardOptions) -> Manifest | None:
    """The stage `shards`, and the funnel of the whole build."""
    build.prepare_output()
    made = shards_step(build, tokenizer, options)
    manifest = build.run(made.stage(), shards.graph)
    if manifest is not None:
        articles_counters = build.manifest(build.folder("articles")).counters
        print("\n".join(funnel_lines(funnel(articles_counters, manifest.counters))))
    return manifest

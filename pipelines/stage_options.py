"""From what a user asks for to the stages of a build, each checked against its inputs before any work begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from leia_beam.dumps import Dump, find_dump
from leia_beam.entity_names import INSTANCE_OF, NameRules
from leia_beam.errors import UsageError
from leia_beam.holdout import Holdout
from leia_beam.manifest import Manifest
from leia_beam.shard_rows import RowOptions
from leia_beam.sources import storage_of
from leia_beam.stage_articles import ArticlesStage, read_siteinfo
from leia_beam.stage_entities import NAME_MISSING
from leia_beam.stage_langlinks import LangLinksStage, check_langlinks
from leia_beam.stage_redirects import NO_SECTIONS, OWN_ITEM
from leia_beam.stage_sitelinks import SitelinksStage, check_wikidata
from leia_beam.tokenization import EncodingOptions
from leia_beam.tokenizer_identity import TokenizerFiles
from leia_beam.wikis import label_language, wiki_code
from leia_beam.wikitext import ExtractionOptions
from pipelines.late_stages import EntitySteps, ShardsStep, StoredTokenizer
from pipelines.stage_runs import Build


def find_dumps(paths: Sequence[str], flag: str, beam_options: Sequence[str] = ()) -> tuple[Dump, ...]:
    """The dump files of an option: those that each path or pattern means, in the order given.

    Raises: UsageError if one is missing or two have the same base name, which is all that a manifest holds of them.
    """
    dumps: list[Dump] = []
    for pattern in paths:
        storage = storage_of(pattern, beam_options)
        found = storage.find(pattern)
        if not found:
            raise UsageError(f"{flag} {pattern}: no file has such a name")
        dumps += [find_dump(path, storage) for path in found]
    names = [dump.name for dump in dumps]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{flag}: two files are called {name}; give each file once")
    return tuple(dumps)


@dataclass(frozen=True, kw_only=True)
class ItemOptions:
    """What is kept of an item beside its sitelinks. `claims` None: the types alone, as far as a finished stage has them."""

    label_languages: Sequence[str]
    claims: Sequence[str] | None = None
    aliases: bool = False


def sitelinks_stage(
    build: Build, wikidata: Sequence[str], options: ItemOptions, range_bytes: int
) -> SitelinksStage | None:
    """The stage over Wikidata dumps, or None where `wikidata` is the folder of a finished one.

    Raises: UsageError, DamagedInput.
    """
    if len(wikidata) == 1 and build.is_stage(wikidata[0]):
        manifest = build.manifest(wikidata[0])
        if manifest.stage != "sitelinks":
            raise UsageError(f"--wikidata {wikidata[0]}: a finished stage {manifest.stage}, not sitelinks")
        _check_finished(wikidata[0], manifest, options)
        if INSTANCE_OF not in manifest.options.get("claims", ()):
            build.say(f"note: {wikidata[0]} has no types (P31); lists and the like are not told by them")
        return None
    dumps = find_dumps(wikidata, "--wikidata", build.options.beam_options)
    for dump in dumps:
        check_wikidata(dump)
    return SitelinksStage(
        folder=build.folder("sitelinks"),
        dumps=build.verified(dumps),
        storage=build.storage,
        label_languages=tuple(sorted(set(options.label_languages))),
        claims=tuple(sorted({INSTANCE_OF} if options.claims is None else set(options.claims))),
        aliases=options.aliases,
        range_bytes=range_bytes,
        max_bad_blocks=build.options.tolerance.max_bad_blocks,
        salvage=build.options.tolerance.salvage,
    )


def langlinks_stage(build: Build, tables: Sequence[str], wiki: str, range_bytes: int) -> LangLinksStage | None:
    """The stage over a wiki's links between languages, or None where `tables` is the folder of a finished one.

    Raises: UsageError, DamagedInput.
    """
    code = wiki_code(wiki)
    if len(tables) == 1 and build.is_stage(tables[0]):
        manifest = build.manifest(tables[0])
        if manifest.stage != "langlinks" or manifest.options.get("wiki") != code:
            raise UsageError(
                f"--langlinks {tables[0]}: a finished stage {manifest.stage} of "
                f"{manifest.options.get('wiki', 'no wiki')}, not langlinks of {code}"
            )
        return None
    dumps = find_dumps(tables, "--langlinks", build.options.beam_options)
    for dump in dumps:
        check_langlinks(dump, code)
    return LangLinksStage(
        folder=build.folder("langlinks"),
        wiki_code=code,
        dumps=build.verified(dumps),
        storage=build.storage,
        range_bytes=range_bytes,
        salvage=build.options.tolerance.salvage,
    )


def _check_finished(folder: str, manifest: Manifest, options: ItemOptions) -> None:
    wanted = (
        ("labels in", options.label_languages, "label_languages"),
        ("claims of", options.claims or (), "claims"),
    )
    for what, names, option in wanted:
        missing = sorted(set(names) - set(manifest.options.get(option, ())))
        if missing:
            raise UsageError(
                f"--wikidata {folder}: has no {what} {', '.join(missing)}; build the sitelinks again with them"
            )
    if options.aliases and not manifest.options.get("aliases"):
        raise UsageError(f"--wikidata {folder}: has no aliases; build the sitelinks again with them")


def articles_stage(
    build: Build,
    pages: Sequence[str],
    wiki: str,
    extraction: ExtractionOptions,
    range_bytes: int,
    max_page_bytes: int,
    ignore_siteinfo: bool,
) -> ArticlesStage:
    """The stage over a wiki's dump files, whose headers are read here.

    Raises: UsageError, DamagedInput.
    """
    code = wiki_code(wiki)
    dumps = build.verified(find_dumps(pages, "--pages", build.options.beam_options))
    headers = [None if ignore_siteinfo else read_siteinfo(dump, code) for dump in dumps]
    return ArticlesStage(
        folder=build.folder("articles"),
        wiki_code=code,
        dumps=dumps,
        storage=build.storage,
        siteinfo=headers[0],
        extraction=extraction,
        range_bytes=range_bytes,
        max_page_bytes=max_page_bytes,
        max_bad_blocks=build.options.tolerance.max_bad_blocks,
        salvage=build.options.tolerance.salvage,
    )


def name_wikis(name_languages: Sequence[str]) -> tuple[str, ...]:
    """The wikis whose titles are names, in order of preference.

    Raises: UsageError for an unknown language.
    """
    try:
        return tuple(dict.fromkeys(wiki_code(language) for language in name_languages))
    except UsageError as error:
        raise UsageError(f"--name-languages: {error}") from error


def label_languages(name_languages: Sequence[str]) -> list[str]:
    """The languages whose labels are kept for the names' sake."""
    return [label_language(code) for code in name_wikis(name_languages)]


@dataclass(frozen=True, kw_only=True)
class EntityOptions:
    """What becomes of a title, beyond the facts."""

    buckets: int | None = None
    names: NameRules = field(default_factory=NameRules)
    holdout: Holdout = field(default_factory=Holdout)
    sections: str = NO_SECTIONS
    redirect_items: str = OWN_ITEM
    missing_pages: str = NAME_MISSING


def entity_steps(
    build: Build, wiki: str, languages: Sequence[str], sitelinks_folder: str, options: EntityOptions
) -> EntitySteps:
    """The steps of `entities`, to be made when what they read is finished."""
    return EntitySteps(
        output=build.options.output.rstrip("/"),
        sitelinks_folder=sitelinks_folder,
        wiki_code=wiki_code(wiki),
        name_wikis=name_wikis(languages),
        buckets=options.buckets,
        rules=options.names,
        holdout=options.holdout,
        sections=options.sections,
        redirect_items=options.redirect_items,
        missing_pages=options.missing_pages,
        storage=build.storage_with(sitelinks_folder),
    )


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """How texts and names become tokens, which articles become rows, and what is decided link by link."""

    encoding: EncodingOptions = field(default_factory=EncodingOptions)
    rows: RowOptions = field(default_factory=RowOptions)
    skip_equal: bool = False


def shards_step(build: Build, tokenizer: TokenizerFiles | StoredTokenizer, options: ShardOptions) -> ShardsStep:
    """The stage `shards`, to be made when what it reads is finished."""
    return ShardsStep(
        output=build.options.output.rstrip("/"),
        tokenizer=tokenizer,
        encoding=options.encoding,
        rows=options.rows,
        skip_equal=options.skip_equal,
        storage=build.storage,
    )

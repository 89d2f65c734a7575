"""The whole build: sitelinks and articles, entities, shards, each stage from the manifest of those before it.

A stage that is finished is skipped; one that was interrupted does only the units that it lacks; one of another build is
refused. Everything that can be checked before work begins is checked before.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from leia_beam.commits import read_record
from leia_beam.console import Console
from leia_beam.coverage import STRICT, Tolerance
from leia_beam.disk_space import check_free, needed_bytes
from leia_beam.dump_dates import dates_apart
from leia_beam.dump_lock import with_origin
from leia_beam.dumps import Dump, find_dump
from leia_beam.entity_names import INSTANCE_OF, NameRules
from leia_beam.errors import LeiaError, MissingResource, UsageError
from leia_beam.finish import MaxRejects, drop_damaged_units, finish_stage, read_finished
from leia_beam.funnel import funnel, funnel_lines
from leia_beam.holdout import Holdout
from leia_beam.log_file import LOG_NAME, write_log_to
from leia_beam.manifest import MANIFEST_NAME, Manifest
from leia_beam.planning import needs_of
from leia_beam.plans import claim_folder
from leia_beam.shard_rows import RowOptions
from leia_beam.sources import is_remote, storage_for, storage_of
from leia_beam.stage_articles import ArticlesStage, read_siteinfo
from leia_beam.stage_entities import (
    NAME_MISSING,
    NO_SECTIONS,
    OWN_ITEM,
)
from leia_beam.stage_folders import stage_manifest
from leia_beam.stage_langlinks import LangLinksStage, check_langlinks
from leia_beam.stage_shards import ShardsStage
from leia_beam.stage_sitelinks import SitelinksStage, check_wikidata
from leia_beam.storage import Storage
from leia_beam.sums import check_sum, stated_sum
from leia_beam.tokenization import EncodingOptions
from leia_beam.tokenizer_identity import TokenizerFiles
from leia_beam.units import AnyStage
from leia_beam.wikis import label_language, wiki_code
from leia_beam.wikitext import ExtractionOptions
from pipelines import articles, entities, langlinks, shards, sitelinks
from pipelines.dataflow import DATAFLOW, Job, run_dataflow
from pipelines.engine import Engine, Graph
from pipelines.late_stages import EntitySteps, ShardsStep, StoredTokenizer, find_tokenizer_at
from pipelines.lock import StageLock
from pipelines.one_job import JobRules
from pipelines.progress import Progress
from pipelines.runners import RunnerOptions, open_engine, run_units


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a build runs; nothing here changes what it writes, but `overwrite`."""

    output: str
    runner: RunnerOptions = field(default_factory=RunnerOptions)
    max_rejects: MaxRejects = field(default_factory=lambda: MaxRejects(share=0.001))
    tolerance: Tolerance = STRICT
    verify_inputs: bool = False
    strict_dates: bool = False
    overwrite: bool = False
    dry_run: bool = False
    console: Console = field(default_factory=lambda: Console("leia-beam"))

    @property
    def beam_options(self) -> Sequence[str]:
        """What goes to Beam as it is."""
        return self.runner.beam_options


@dataclass
class Build:
    """Runs stages into one output folder and notes what they took in `_run/`."""

    options: RunOptions
    began: float = field(default_factory=time.monotonic)
    notes: list[dict[str, object]] = field(default_factory=list)
    _engine: Engine | None = None
    _log_folder: tempfile.TemporaryDirectory[str] | None = None

    def folder(self, stage: str) -> str:
        """The folder of a stage."""
        return f"{self.options.output.rstrip('/')}/{stage}"

    @property
    def storage(self) -> Storage:
        """What the output folder lies on."""
        return self.storage_with(self.options.output)

    def storage_with(self, *folders: str) -> Storage:
        """A storage of the output folder and of other folders."""
        return storage_for([self.options.output, *folders], self.options.beam_options)

    def manifest(self, folder: str) -> Manifest:
        """The manifest of a finished stage."""
        return stage_manifest(self.storage_with(folder), folder)

    def is_stage(self, path: str) -> bool:
        """Whether a path is no file but the folder of a stage."""
        if not is_remote(path):
            return Path(path).is_dir()
        return self.storage_with(path).size(f"{path.rstrip('/')}/{MANIFEST_NAME}") is not None

    @property
    def engine(self) -> Engine:
        """What runs the units; one for all stages."""
        if self._engine is None:
            self._engine = open_engine(self.options.runner, self.options.output, self.say)
        return self._engine

    def close(self) -> None:
        """End what the engine keeps."""
        if self._engine is not None:
            self._engine.close()

    def prepare_output(self) -> None:
        """Make the output folder and its log file; nothing in a dry run. An object store gets the log at the end."""
        if self.options.dry_run:
            return
        if not is_remote(self.options.output):
            check_output(self.options.output)
            write_log_to(self.options.output)
        elif self._log_folder is None:
            self._log_folder = tempfile.TemporaryDirectory(prefix="leia-log-")
            write_log_to(self._log_folder.name)

    def verified(self, dumps: tuple[Dump, ...]) -> tuple[Dump, ...]:
        """The dumps, with what the lock beside them says; with `--verify-inputs` after their sums were found to be as the
        lists beside them say.

        Raises: UsageError, DamagedInput.
        """
        dumps = tuple(with_origin(dump) for dump in dumps)
        if not self.options.verify_inputs:
            return dumps
        checked = []
        for dump in dumps:
            stated = stated_sum(dump)
            self.say(
                f"{dump.name}: reading {dump.size_bytes / 1e6:,.0f} MB once more for its {stated.partition(':')[0]}"
            )
            check_sum(dump, stated, self.options.console.progress)
            self.options.console.clear()
            checked.append(replace(dump, verified_sum=stated))
        return tuple(checked)

    def run(self, stage: AnyStage, graph: Graph) -> Manifest | None:
        """Bring a stage to its manifest (None in a dry run).

        Raises: OtherBuild; the error of a unit; what `finish_stage` raises.
        """
        plan = stage.plan
        units = f"{plan.unit_count:,} unit" + ("s" if plan.unit_count != 1 else "")
        if self.options.dry_run:
            inputs = ", ".join(str(entry["name"]) for entry in plan.identity["inputs"])
            self.say(f"{plan.stage:<10} would read {inputs} in {units} into {stage.folder}")
            return None
        with StageLock(self.options.output, plan.stage):
            return self._run_claimed(stage, graph, units)

    def _run_claimed(self, stage: AnyStage, graph: Graph, units: str) -> Manifest:
        storage = stage.storage
        plan = claim_folder(storage, stage.folder, stage.plan, self.options.overwrite)
        if self.options.overwrite and not is_remote(stage.folder):
            damaged = drop_damaged_units(storage, stage.folder, plan)
            if damaged:
                self.say(f"{plan.stage:<10} units whose files are not as they were written, made again: {damaged:,}")
        if isinstance(stage, ShardsStage):
            stage.publish_tokenizer()
        finished = read_finished(storage, stage.folder, plan.fingerprint)
        if finished is not None:
            self.say(f"{plan.stage:<10} finished before, skipped")
            return finished
        began = time.monotonic()
        if not is_remote(stage.folder):
            self._check_disk(stage)
        with Progress(stage, stage.units(), self.options.console):
            run_units(self.engine, graph, stage)
        if isinstance(stage, (SitelinksStage, LangLinksStage, ArticlesStage)):
            for dump in stage.dumps:
                dump.check_unchanged()
        manifest = finish_stage(storage, stage.folder, plan, self.options.max_rejects, self.options.tolerance)
        elapsed_s = time.monotonic() - began
        self.notes.append({"stage": plan.stage, "units": plan.unit_count, "elapsed_s": round(elapsed_s, 3)})
        self.say(f"{plan.stage:<10} {_summary(manifest)} in {units}, {elapsed_s:.1f} s")
        for warning in manifest.warnings:
            self.say(f"           warning: {warning}")
        return manifest

    def _check_disk(self, stage: AnyStage) -> None:
        fingerprint = stage.plan.fingerprint
        pending = [u for u in stage.units() if read_record(stage.storage, stage.folder, u.number, fingerprint) is None]
        warning = check_free(stage.folder, needed_bytes(stage.plan.stage, pending))
        if warning is not None:
            self.say(f"{stage.plan.stage:<10} warning: {warning}")

    def say(self, line: str) -> None:
        """A note or a warning, on standard error so that results alone are on standard output."""
        self.options.console.say(line)

    def write_notes(self, outcome: str) -> None:
        """Times, host, runner and workers of this run: never compared, never read by a stage."""
        remote = is_remote(self.options.output)
        if self.options.dry_run or not (remote or Path(self.options.output).is_dir()):
            return
        run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
        content = {
            "outcome": outcome,
            "elapsed_s": round(time.monotonic() - self.began, 3),
            "host": platform.node(),
            "python": platform.python_version(),
            "runner": self.options.runner.name,
            "workers": self.options.runner.workers,
            "stages": self.notes,
        }
        path = f"{self.options.output.rstrip('/')}/_run/{run_id}"
        # What the run failed of is what a user should read, not that the notes of it cannot be written either.
        with contextlib.nullcontext() if outcome == "done" else contextlib.suppress(LeiaError):
            self.storage.write(f"{path}.json", (json.dumps(content, indent=1) + "\n").encode())
            if self._log_folder is not None and os.path.getsize(f"{self._log_folder.name}/{LOG_NAME}"):
                self.storage.publish(f"{self._log_folder.name}/{LOG_NAME}", f"{path}.log")


def _summary(manifest: Manifest) -> str:
    rows = {table: manifest.rows_of(table) for table in dict.fromkeys(file.table for file in manifest.files)}
    rejected = rows.pop("rejects", 0)
    shown = {
        "train": "articles",
        "sitelinks": "items",
        "langlinks": "links",
        "held-out": "titles held out",
        "titles-rows": "titles",
        "redirect-ends": "titles",
    }
    hidden = ("titles-trie", "lookup-titles", "lookup-rows", "facts")
    parts = [f"{count:,} {shown.get(table, table)}" for table, count in rows.items() if table not in hidden]
    return ", ".join(parts) + (f", {rejected:,} rejected" if rejected else "")


def check_output(output: str) -> None:
    """Make the output folder, or find that it is there.

    Raises: MissingResource if it cannot be written to; UsageError if it is a file.
    """
    path = Path(output)
    if path.exists() and not path.is_dir():
        raise UsageError(f"--output {output}: is a file; give a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingResource(f"--output {output}: cannot be made ({error.strerror}); give another folder") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise MissingResource(f"--output {output}: cannot be written to; give another folder")


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


def run_entities(
    build: Build, wiki: str, languages: Sequence[str], sitelinks_folder: str, options: EntityOptions
) -> None:
    """The three steps of `entities`."""
    build.prepare_output()
    made = entity_steps(build, wiki, languages, sitelinks_folder, options)
    build.run(made.titles(), entities.titles_graph)
    build.run(made.redirects(), entities.redirects_graph)
    build.run(made.table(), entities.graph)


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


def run_shards(build: Build, tokenizer: TokenizerFiles, options: ShardOptions) -> Manifest | None:
    """The stage `shards`, and the funnel of the whole build."""
    build.prepare_output()
    made = shards_step(build, tokenizer, options)
    manifest = build.run(made.stage(), shards.graph)
    if manifest is not None:
        articles_counters = build.manifest(build.folder("articles")).counters
        print("\n".join(funnel_lines(funnel(articles_counters, manifest.counters))))
    return manifest


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

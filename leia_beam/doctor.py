"""From the options of a build to whether it can run here: dumps, tokenizer, disk, memory, output.

Nothing is downloaded, nothing is changed; small dumps are read for their sums, large ones only if that is asked for.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leia_beam.console import Tell, amount
from leia_beam.disk_space import WRITTEN_A_BYTE
from leia_beam.dump_dates import dates_apart
from leia_beam.dump_lock import LANGLINKS, LOCK_NAME, PAGES, WIKIDATA, WIKIDATA_WIKI, DumpLock, read_lock, with_origin
from leia_beam.dumps import Dump, find_dump
from leia_beam.errors import LeiaError, UsageError
from leia_beam.findings import NOTE, OK, PROBLEM, WARNING, Finding, checked
from leia_beam.hub_checks import hub_finding
from leia_beam.machine_checks import disk_finding, memory_finding, output_findings, usable_cores
from leia_beam.manifest import MANIFEST_NAME, read_manifest
from leia_beam.planning import PROCESS_BYTES, REDIRECT_BYTES_A_TITLE, TITLES_A_PAGE_BYTE
from leia_beam.storage import LocalStorage
from leia_beam.sums import check_sum, stated_sum
from leia_beam.wikis import wiki_code

SUMMED_BYTES = 1 << 30
"""Dumps up to this size are read for their sums without being asked to."""
_DUMP_OF = re.compile(r"([a-z][a-z0-9_]*)-\d{4}-?\d{2}-?\d{2}-")


@dataclass(frozen=True, kw_only=True)
class BuildWanted:
    """What of a build the doctor looks at; what is not given is not looked at."""

    wiki: str | None = None
    pages: Sequence[str] = ()
    wikidata: Sequence[str] = ()
    langlinks: Sequence[str] = ()
    dumps: str | None = None
    sitelinks_from: str = WIKIDATA
    tokenizer: str | None = None
    output: str | None = None
    workers: int | None = None
    is_local: bool = True
    verify_inputs: bool = False
    ignore_siteinfo: bool = False
    strict_dates: bool = False
    tell: Tell | None = None


@dataclass
class _Dumps:
    """What was found of the dumps: their sizes by kind, and their names."""

    sizes: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, dump: Dump) -> None:
        self.sizes[kind] = self.sizes.get(kind, 0) + dump.size_bytes
        self.names.setdefault(kind, []).append(dump.name)


def examine_build(wanted: BuildWanted) -> Iterator[Finding]:
    """Look at all but the packages and the runner."""
    yield from _wiki(wanted)
    found = _Dumps()
    yield from _dumps(wanted, found)
    if wanted.tokenizer is not None:
        yield from checked("tokenizer", lambda: _tokenizer(str(wanted.tokenizer)))
    yield from _machine(wanted, found)
    if wanted.output is not None and "://" not in wanted.output:
        yield from output_findings(wanted.output)
    for path in (wanted.output, *wanted.pages, *wanted.wikidata):
        yield from _store(path or "")


def _wiki(wanted: BuildWanted) -> Iterator[Finding]:
    if wanted.wiki is not None:
        try:
            yield Finding(state=OK, subject="wiki", text=wiki_code(wanted.wiki))
        except UsageError as error:
            yield Finding(state=PROBLEM, subject="wiki", text=str(error))


def _dumps(wanted: BuildWanted, found: _Dumps) -> Iterator[Finding]:
    """The dumps that are named, else those of the folder that fetch filled."""
    links, kind = (wanted.langlinks, LANGLINKS) if wanted.sitelinks_from == LANGLINKS else (wanted.wikidata, WIKIDATA)
    named = {PAGES: wanted.pages, kind: links}
    for each, paths in named.items():
        for path in paths:
            yield from checked(f"--{each}", lambda each=each, path=path: _named(wanted, found, each, path))  # type: ignore[misc]
    missing = [each for each, paths in named.items() if not paths]
    if wanted.dumps is not None and missing:
        yield from checked("--dumps", lambda: _fetched(wanted, found, missing))
    elif wanted.wiki is not None and missing:
        yield Finding(
            state=PROBLEM,
            subject="dumps",
            text=f"neither --{missing[0]} nor a folder that fetch filled",
            advice="run leia-beam fetch with the same recipe, or give --dumps",
        )
    apart = dates_apart(found.names.get(PAGES, ()), found.names.get(WIKIDATA, ()))
    if apart is not None:
        state = PROBLEM if wanted.strict_dates else WARNING
        yield Finding(state=state, subject="dates", text=apart, advice="take dumps of one month")


def _named(wanted: BuildWanted, found: _Dumps, kind: str, path: str) -> Iterator[Finding]:
    """A dump that is named, or those that a pattern means."""
    if "://" in path:
        yield Finding(state=NOTE, subject=f"--{kind}", text=f"{path} lies elsewhere and was not looked at")
        return
    if Path(path).is_dir():
        stage = read_manifest(path)
        rows = ", ".join(
            f"{stage.rows_of(table):,} {table}" for table in ("sitelinks", "langlinks") if stage.rows_of(table)
        )
        yield Finding(state=OK, subject=f"--{kind}", text=f"{path}: a finished stage {stage.stage}, {rows}")
        return
    paths = LocalStorage().find(path)
    if not paths:
        raise UsageError(f"{path}: no such file; run leia-beam fetch, or name it as it is called")
    for each in paths:
        yield _look_at(wanted, found, kind, each)


def _fetched(wanted: BuildWanted, found: _Dumps, kinds: Sequence[str]) -> Iterator[Finding]:
    """The dumps that the lock of a folder names."""
    folder = str(wanted.dumps)
    lock = read_lock(folder)
    if lock is None:
        raise UsageError(f"{folder}: no {LOCK_NAME} there; run leia-beam fetch with the same recipe")
    if wanted.wiki is None:
        return
    for kind in kinds:
        files = lock.of(kind, WIKIDATA_WIKI if kind == WIKIDATA else wiki_code(wanted.wiki))
        if not files:
            raise UsageError(
                f"{folder}: no {kind} were fetched for {wanted.wiki}; run leia-beam fetch with the same recipe"
            )
        for file in files:
            path = Path(folder, file.name)
            if not file.done or not path.is_file():
                size = amount(file.size_bytes, "bytes") if file.size_bytes else "of unknown size"
                yield Finding(
                    state=PROBLEM,
                    subject=kind,
                    text=f"{path} is not whole ({size})",
                    advice="run the same leia-beam fetch again, it goes on where it stopped",
                )
            else:
                yield from checked(kind, lambda kind=kind, path=path: [_look_at(wanted, found, kind, str(path))])  # type: ignore[misc]
    yield from _to_come(folder, lock)


def _to_come(folder: str, lock: DumpLock) -> Iterator[Finding]:
    """Space for what is not fetched yet."""
    missing = sum(file.size_bytes or 0 for file in (*lock.files, *lock.pending) if not file.done)
    if missing:
        yield disk_finding(folder, missing, "dumps that are to come", "free some space, or fetch into another folder")


def _look_at(wanted: BuildWanted, found: _Dumps, kind: str, path: str) -> Finding:
    """A dump's kind, size, sum and wiki.

    Raises: DamagedInput; UsageError for another wiki's dump.
    """
    dump = with_origin(find_dump(path))
    found.add(kind, dump)
    text = f"{path}, {amount(dump.size_bytes, 'bytes')} of {dump.format}"
    summed = _summed(wanted, dump)
    if wanted.wiki is not None and kind != WIKIDATA:
        _check_wiki(kind, dump, wiki_code(wanted.wiki), wanted.ignore_siteinfo)
    return Finding(state=OK, subject=kind, text=text + summed)


def _summed(wanted: BuildWanted, dump: Dump) -> str:
    """What is known of a dump's sum.

    Raises: DamagedInput for another one than the listed.
    """
    try:
        stated = stated_sum(dump)
    except LeiaError:
        return "; no list of sums beside it has it"
    if dump.size_bytes > SUMMED_BYTES and not wanted.verify_inputs:
        return "; not read for its sum (--verify-inputs does)"
    check_sum(dump, stated, wanted.tell)
    return f", {stated.partition(':')[0].upper()} as listed"


def _check_wiki(kind: str, dump: Dump, code: str, ignore_siteinfo: bool) -> None:
    """By what stands at the dump's head, as the build does; where a header does not say it, by the file's name.

    Raises: UsageError for another wiki's; DamagedInput for what is no dump.
    """
    from leia_beam.stage_articles import read_siteinfo
    from leia_beam.stage_langlinks import check_langlinks

    if kind == LANGLINKS:
        check_langlinks(dump, code)
    elif not ignore_siteinfo and read_siteinfo(dump, code) is None:
        named = _DUMP_OF.match(dump.name)
        if named is not None and named.group(1) != code:
            raise UsageError(f"{dump.path}: by its name a dump of {named.group(1)}, not of {code}; give --wiki")


def _tokenizer(where: str) -> Iterator[Finding]:
    from leia_beam.tokenizer_identity import find_tokenizer

    if "://" in where:
        yield Finding(state=NOTE, subject="tokenizer", text=f"{where} lies elsewhere and was not looked at")
        return
    if Path(where).exists() or where.count("/") != 1 or where.startswith((".", "~", "/")):
        found = find_tokenizer(where)
        yield Finding(
            state=OK, subject="tokenizer", text=f"{where}: {len(found.tokenizer_json):,} bytes of tokenizer.json"
        )
        return
    yield hub_finding(where, "tokenizer.json", "tokenizer")


def _machine(wanted: BuildWanted, found: _Dumps) -> Iterator[Finding]:
    """Cores, memory and disk, as far as the dumps' sizes tell."""
    cores = usable_cores()
    workers = wanted.workers or cores
    if not wanted.is_local:
        yield Finding(state=OK, subject="cores", text=f"{cores} here; the cluster's count")
    elif workers > cores:
        yield Finding(
            state=WARNING,
            subject="cores",
            text=f"{workers} worker processes were asked for, {cores} cores can be used: they will share them",
            advice=f"--workers {cores}",
        )
    else:
        yield Finding(state=OK, subject="cores", text=f"{cores} can be used, by {workers} worker processes")
    titles = int(found.sizes.get(PAGES, 0) * TITLES_A_PAGE_BYTE)
    if wanted.is_local:
        needed = workers * PROCESS_BYTES + titles * REDIRECT_BYTES_A_TITLE
        what = f"{workers} worker processes" + (f" and {titles:,} titles" if titles else "")
        yield memory_finding(needed, what, "give fewer --workers")
    if wanted.output is None or "://" in wanted.output:
        return
    writes = {"sitelinks": WIKIDATA, "langlinks": LANGLINKS, "articles": PAGES, "shards": PAGES}
    to_write = sum(
        int(found.sizes.get(kind, 0) * WRITTEN_A_BYTE[stage])
        for stage, kind in writes.items()
        if not os.path.isfile(f"{wanted.output}/{stage}/{MANIFEST_NAME}")
    )
    if found.sizes:
        yield disk_finding(wanted.output, to_write, "the build", "free some space, or give another --output")


def _store(path: str) -> Iterator[Finding]:
    """Whether the client of a path's object store is installed."""
    scheme = path.partition("://")[0] if "://" in path else ""
    module, extra = {"gs": ("google.cloud.storage", "gcp"), "s3": ("boto3", "aws")}.get(scheme, ("", ""))
    if module and not _is_installed(module):
        yield Finding(
            state=PROBLEM,
            subject=f"{scheme}://",
            text=f"{path}: {module} is not installed",
            advice=f"pip install 'leia-lm[{extra}]'",
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent
        return False

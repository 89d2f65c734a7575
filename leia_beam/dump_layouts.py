"""From a wiki, a date and the lists of a server to the dump files that there are.

Two layouts of a wiki's pages. `classic`: a folder a date with `dumpstatus.json`, which has each job's state and its files'
sizes and sums; of the articles one multistream file, or parts of it where that one is not made yet. `content`, which
succeeds it: a file for each range of page ids, of all name spaces (so about twice the bytes), and a list of SHA-256 sums
that is put there last. Wikidata's dumps are of one layout: a folder a date, with a list of sums.

What is found here is believed, so it is read from the primary host, or by a way on which nobody else can change it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from leia_beam.dump_dates import MAX_DAYS_APART
from leia_beam.dump_lock import LANGLINKS, PAGES, WIKIDATA, WIKIDATA_WIKI, LockedFile, compact_date, iso_date
from leia_beam.dump_mirrors import DUMPS, ENTITIES, OTHER, Mirror
from leia_beam.errors import DamagedInput, UsageError
from leia_beam.http_requests import NotFound
from leia_beam.sums import sums_in

CLASSIC, CONTENT, AUTO = "classic", "content", "auto"
LAYOUTS = (AUTO, CLASSIC, CONTENT)
LATEST, NEAREST = "latest", "nearest"
WIKIDATA_FORMATS = ("gz", "bz2")
_CONTENT_SET = "mediawiki_content_current"
_LOOKED_AT = 8
"""Dates that are asked for, from the newest on, until one is complete."""

_COMPACT_FOLDER = re.compile(r'href="[^"]*?(?<![\d-])(\d{8})/?"')
_DASHED_FOLDER = re.compile(r'href="[^"]*?(?<![\d-])(\d{4}-\d{2}-\d{2})/?"')
_LINK = re.compile(r'href="(?:[^"]*/)?([^"/?]+)"')
_ARTICLE_JOBS = (
    ("articlesmultistreamdumprecombine", r"pages-articles-multistream\.xml\.bz2"),
    ("articlesmultistreamdump", r"pages-articles-multistream(?:\d+)?\.xml(?:-p\d+p\d+)?\.bz2"),
    ("articlesdumprecombine", r"pages-articles\.xml\.bz2"),
    ("articlesdump", r"pages-articles(?:\d+)?\.xml(?:-p\d+p\d+)?\.bz2"),
)
"""Jobs of dumpstatus.json that make a wiki's articles, in order of preference, and the files of each that hold pages."""
_LANGLINKS_JOB = "langlinkstable"

Text = Callable[[str], str]
"""The text at an address; raises NotFound."""


@dataclass(frozen=True, slots=True)
class Lists:
    """Where lists are read: a host that is believed, and how it is asked."""

    mirror: Mirror
    text: Text

    def read(self, area: str, path: str) -> str:
        """The text at the first of an area's addresses that has it.

        Raises: NotFound.
        """
        missing: NotFound | None = None
        for url in self.mirror.urls(area, path):
            try:
                return self.text(url)
            except NotFound as error:
                missing = missing or error
        assert missing is not None
        raise missing

    def folders(self, area: str, path: str, form: re.Pattern[str]) -> list[str]:
        """The dates of the folders in a folder, newest first; none where it is not there."""
        try:
            page = self.read(area, f"{path}/" if path else "")
        except NotFound:
            return []
        found = set()
        for written in form.findall(page):
            try:
                found.add(iso_date(written))
            except UsageError:
                continue  # 99999999/ is no date
        return sorted(found, reverse=True)

    @property
    def origin(self) -> str:
        """The address that a lock names."""
        return self.mirror.dumps[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The files of one dump."""

    date: str
    layout: str
    files: tuple[LockedFile, ...]


def find_pages(lists: Lists, wiki: str, wanted: str, layout: str) -> Found:
    """A wiki's pages: of a date, or the newest that are complete (`latest`).

    `auto` takes the classic layout, which has half the bytes, unless it lacks the date or has become old (45 days behind).

    Raises: UsageError with the dates that there are.
    """
    if layout == CLASSIC:
        return _classic_pages(lists, wiki, wanted)
    if layout == CONTENT:
        return _content_pages(lists, wiki, wanted)
    try:
        classic = _classic_pages(lists, wiki, wanted)
    except UsageError as error:
        try:
            return _content_pages(lists, wiki, wanted)
        except UsageError as other:
            raise UsageError(f"{error}; and of the content exports: {other}") from other
    if wanted == LATEST:
        newest = next(iter(lists.folders(OTHER, f"{_CONTENT_SET}/{wiki}", _DASHED_FOLDER)), classic.date)
        if days_between(newest, classic.date) > MAX_DAYS_APART:
            try:
                content = _content_pages(lists, wiki, wanted)
            except UsageError:
                return classic
            return content if days_between(content.date, classic.date) > MAX_DAYS_APART else classic
    return classic


def find_langlinks(lists: Lists, wiki: str, near: str) -> Found:
    """A wiki's table of links between languages: of the classic dump nearest to a date, where it is complete.

    Raises: UsageError.
    """
    dates = lists.folders(DUMPS, wiki, _COMPACT_FOLDER)
    for when in sorted(dates, key=lambda each: (days_between(each, near), each))[:_LOOKED_AT]:
        job = _jobs(lists, wiki, when).get(_LANGLINKS_JOB, {})
        if job.get("status") == "done":
            files = _job_files(lists, wiki, when, job, LANGLINKS, r"langlinks\.sql\.gz")
            if files:
                return Found(date=when, layout=CLASSIC, files=files)
    raise UsageError(f"no {wiki}-…-langlinks.sql.gz is complete on {lists.mirror.host}{_that_exist(dates)}")


def find_wikidata(lists: Lists, wanted: str, near: str, form: str) -> Found:
    """Wikidata's entities in one file: of a date, the newest (`latest`), or the nearest to the wiki's (`nearest`).

    `form` is gz or bz2. Only what a list of sums names is complete.

    Raises: UsageError with the dates that there are.
    """
    dates = lists.folders(ENTITIES, "", _COMPACT_FOLDER)
    if wanted in (LATEST, NEAREST):
        order = dates if wanted == LATEST else sorted(dates, key=lambda each: (days_between(each, near), each))
        for when in order[:_LOOKED_AT]:
            file = _wikidata_file(lists, when, form)
            if file is not None:
                return Found(date=when, layout=CLASSIC, files=(file,))
        raise UsageError(
            f"no Wikidata dump .json.{form} is complete on {lists.mirror.host}{_that_exist(dates)}; "
            f"try --wikidata-format {'bz2' if form == 'gz' else 'gz'}"
        )
    file = _wikidata_file(lists, wanted, form) if wanted in dates else None
    if file is None:
        why = "is not complete" if wanted in dates else "is not there"
        raise UsageError(f"Wikidata's .json.{form} of {compact_date(wanted)} {why}{_that_exist(dates)}")
    return Found(date=wanted, layout=CLASSIC, files=(file,))


def days_between(one: str, other: str) -> int:
    """Days between two dates, either way.

    >>> days_between("2026-01-01", "2025-12-31")
    1
    """
    return abs((date.fromisoformat(one) - date.fromisoformat(other)).days)


def _classic_pages(lists: Lists, wiki: str, wanted: str) -> Found:
    dates = lists.folders(DUMPS, wiki, _COMPACT_FOLDER)
    if wanted == LATEST:
        for when in dates[:_LOOKED_AT]:
            files = _articles(lists, wiki, when, _jobs(lists, wiki, when))
            if files:
                return Found(date=when, layout=CLASSIC, files=files)
        raise UsageError(f"no dump of {wiki} is complete on {lists.mirror.host}{_that_exist(dates)}")
    jobs = _jobs(lists, wiki, wanted)
    files = _articles(lists, wiki, wanted, jobs)
    if files:
        return Found(date=wanted, layout=CLASSIC, files=files)
    if not jobs:
        raise UsageError(f"{wiki} of {compact_date(wanted)}: there is no such dump{_that_exist(dates)}")
    states = {str(jobs[name].get("status")) for name, _ in _ARTICLE_JOBS if name in jobs} or {"not begun"}
    raise UsageError(
        f"{wiki} of {compact_date(wanted)}: its articles are not ready ({', '.join(sorted(states))})"
        f"{_that_exist([each for each in dates if each != wanted])}"
    )


def _jobs(lists: Lists, wiki: str, when: str) -> dict[str, dict[str, Any]]:
    """The jobs of dumpstatus.json; none where it is not there yet."""
    path = f"{wiki}/{compact_date(when)}/dumpstatus.json"
    try:
        content = lists.read(DUMPS, path)
    except NotFound:
        return {}
    try:
        jobs = json.loads(content)["jobs"]
        return {str(name): dict(job) for name, job in jobs.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedInput(
            f"{lists.mirror.urls(DUMPS, path)[0]}: not a dump's status, it starts with {content[:40]!r}; "
            "a proxy may have answered: try again, or give another --mirror"
        ) from error


def _articles(lists: Lists, wiki: str, when: str, jobs: dict[str, dict[str, Any]]) -> tuple[LockedFile, ...]:
    """The files of the first job that is done; none where none is."""
    for name, form in _ARTICLE_JOBS:
        job = jobs.get(name, {})
        if job.get("status") == "done":
            files = _job_files(lists, wiki, when, job, PAGES, form)
            if files:
                return files
    return ()


def _job_files(lists: Lists, wiki: str, when: str, job: dict[str, Any], kind: str, form: str) -> tuple[LockedFile, ...]:
    """Those of a job's files whose names are of a form, with their sums, which some servers keep in lists alone."""
    folder, prefix = f"{wiki}/{compact_date(when)}", f"{wiki}-{compact_date(when)}"
    listed = job.get("files") or {}
    if not isinstance(listed, dict):
        raise DamagedInput(
            f"{lists.origin}: dumpstatus.json of {wiki} has no list of files by name; try another --mirror"
        )
    chosen = {
        name: facts
        for name, facts in sorted(listed.items())
        if re.fullmatch(rf"{re.escape(prefix)}-{form}", name) and isinstance(facts, dict)
    }
    sums = {
        name: {each: str(facts[each]).lower() for each in ("sha1", "md5") if facts.get(each)}
        for name, facts in chosen.items()
    }
    if not all(sums.values()):
        listed = _listed_sums(lists, DUMPS, folder, [f"{prefix}-{each}sums.txt" for each in ("sha1", "md5")])
        sums = {name: of or listed.get(name, {}) for name, of in sums.items()}
    return tuple(
        LockedFile(
            kind=kind,
            wiki=wiki,
            date=when,
            layout=CLASSIC,
            area=DUMPS,
            path=f"{folder}/{name}",
            url="",
            size_bytes=facts["size"] if isinstance(facts.get("size"), int) else None,
            size_is_listed=isinstance(facts.get("size"), int),
            sums=sums[name],
            sums_from=lists.origin,
        )
        for name, facts in chosen.items()
    )


def _content_pages(lists: Lists, wiki: str, wanted: str) -> Found:
    dates = lists.folders(OTHER, f"{_CONTENT_SET}/{wiki}", _DASHED_FOLDER)
    for when in dates[:_LOOKED_AT] if wanted == LATEST else [wanted]:
        folder = f"{_CONTENT_SET}/{wiki}/{when}/xml/bzip2"
        sums = _listed_sums(lists, OTHER, folder, ["SHA256SUMS"])
        form = re.compile(rf"{re.escape(wiki)}-{when}-p\d[\dpr]*\.xml\.bz2")
        names = [name for name in sums if form.fullmatch(name)]
        if names:
            files = (
                LockedFile(
                    kind=PAGES,
                    wiki=wiki,
                    date=when,
                    layout=CONTENT,
                    area=OTHER,
                    path=f"{folder}/{name}",
                    url="",
                    sums=sums[name],
                    sums_from=lists.origin,
                )
                for name in sorted(names)
            )
            return Found(date=when, layout=CONTENT, files=tuple(files))
    if wanted == LATEST:
        raise UsageError(f"no content export of {wiki} is complete on {lists.mirror.host}{_that_exist(dates)}")
    state = "is not complete (no SHA256SUMS)" if wanted in dates else "is not there"
    raise UsageError(
        f"{wiki} of {wanted}: the content export {state}{_that_exist([each for each in dates if each != wanted])}"
    )


def _wikidata_file(lists: Lists, when: str, form: str) -> LockedFile | None:
    """The file of a date; None where no list of sums names it yet. Its name may have another date than its folder."""
    folder = compact_date(when)
    try:
        names = set(_LINK.findall(lists.read(ENTITIES, f"{folder}/")))
    except NotFound:
        return None
    sums = _listed_sums(lists, ENTITIES, folder, sorted(each for each in names if each.endswith("sums.txt")))
    complete = sorted(name for name in sums if re.fullmatch(rf"wikidata-\d{{8}}-all\.json\.{form}", name))
    if not complete:
        return None
    return LockedFile(
        kind=WIKIDATA,
        wiki=WIKIDATA_WIKI,
        date=when,
        layout=CLASSIC,
        area=ENTITIES,
        path=f"{folder}/{complete[-1]}",
        url="",
        sums=sums[complete[-1]],
        sums_from=lists.origin,
    )


def _listed_sums(lists: Lists, area: str, folder: str, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """File → algorithm → sum, from lists of sums, those that are there."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        try:
            content = lists.read(area, f"{folder}/{name}")
        except NotFound:
            continue
        for algorithm, value, file in sums_in(content.encode()):
            found.setdefault(file, {})[algorithm] = value
    return found


def _that_exist(dates: Sequence[str]) -> str:
    """For the end of a message."""
    if not dates:
        return "; it has no date at all: look whether the wiki's name is right, or give another --mirror"
    return (
        f"; dates that are there: {', '.join(compact_date(each) for each in sorted(dates, reverse=True)[:_LOOKED_AT])}"
    )

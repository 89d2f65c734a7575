"""From a wiki and dates to a folder of whole dump files and its lock: found, pinned, downloaded two at a time.

What is found is written into the lock before the first byte comes, so that a run that was killed, and `latest` a week later,
go on with the same files. Lists are read from the primary host unless the mirror is believed; files come from the mirror.
"""

from __future__ import annotations

import fcntl
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from leia_beam.console import Console, Measure, Rate, amount, duration
from leia_beam.disk_space import free_bytes
from leia_beam.downloading import Watcher, download, is_there, present_bytes
from leia_beam.dump_layouts import AUTO, LATEST, NEAREST, Found, Lists, find_langlinks, find_pages, find_wikidata
from leia_beam.dump_lock import (
    LANGLINKS,
    PAGES,
    WIKIDATA,
    WIKIDATA_WIKI,
    DumpLock,
    LockedFile,
    compact_date,
    names_of,
    read_lock,
    write_lock,
)
from leia_beam.dump_mirrors import MIRRORS, PRIMARY_NAME, Mirror, find_mirror, is_trusted_way
from leia_beam.errors import MissingResource, OtherBuild, UsageError
from leia_beam.http_requests import Http, NotFound, Stopped

MOST_CONNECTIONS = 2
"""What Wikimedia's servers and mirrors ask of those who download."""
_CLAIM_NAME = ".fetch.lock"
_SPARE_BYTES = 64 << 20
_END_S = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which dumps: of a wiki's database name. `date` is latest or 2026-01-01, `wikidata_date` these or nearest."""

    wiki: str
    kinds: Sequence[str] = (PAGES, WIKIDATA)
    date: str = LATEST
    layout: str = AUTO
    wikidata_date: str = NEAREST
    wikidata_format: str | None = None
    """gz or bz2; None for the one that is there, else gz."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where dumps come from, and how. `believed`: the mirror's own lists and sums are taken."""

    mirror: Mirror = field(default_factory=lambda: find_mirror(PRIMARY_NAME))
    primary: Mirror = field(default_factory=lambda: find_mirror(PRIMARY_NAME))
    believed: bool = False
    contact: str = ""
    connections: int = MOST_CONNECTIONS
    max_wait_s: float = 900
    backoff_s: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.connections <= MOST_CONNECTIONS:
            raise UsageError(
                f"--connections {self.connections}: give 1 or {MOST_CONNECTIONS}, which is what the servers of dumps ask for"
            )

    @property
    def lists_from(self) -> Mirror:
        """The host whose lists and sums are taken."""
        own = self.believed or all(is_trusted_way(base) and _is_local(base) for base in self.mirror.dumps)
        return self.mirror if own else self.primary


def _is_local(url: str) -> bool:
    return not url.startswith("https:") and is_trusted_way(url)


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchPlan:
    """The files that are wanted, and all that the folder's lock will hold."""

    files: tuple[LockedFile, ...]
    lock: DumpLock
    superseded: tuple[str, ...] = ()
    """Names of files of other dates that the lock held."""

    def missing(self, folder: Path) -> list[LockedFile]:
        """Those that are not there yet."""
        return [file for file in self.files if not is_there(folder, file)]


def plan_fetch(wanted: Wanted, source: Source, folder: Path, console: Console, *, update: bool = False) -> FetchPlan:
    """What is to be fetched: as the folder's lock has it, else as the lists say; with address and size.

    Raises: OtherBuild where the lock has another date than is asked for; UsageError, MissingResource, DamagedInput.
    """
    http = _http(source, console, threading.Event())
    lists = Lists(source.lists_from, http.text)
    if not lists.mirror.is_private:
        console.warn(f"{lists.mirror.host}: its sums come by plain HTTP, which whoever stands between can change")
    lock = read_lock(folder) or DumpLock()
    files: list[LockedFile] = []
    superseded: list[str] = []
    page_date = ""
    for kind in sorted(wanted.kinds, key=(PAGES, WIKIDATA, LANGLINKS).index):
        wiki = WIKIDATA_WIKI if kind == WIKIDATA else wanted.wiki
        there, pending = lock.of(kind, wiki), lock.pending_of(kind, wiki)
        if there and not update:
            _check_same(kind, there, wanted, folder)
            if pending:
                console.say(f"note: the update to {names_of(pending)} is not whole; --update goes on with the newest")
            of_kind = there
        else:
            console.say(f"{kind:<10} looking for {wiki} on {lists.mirror.host}")
            of_kind = list(_find(kind, wanted, lists, page_date or _date_of_pages(lock, wanted)).files)
            kept = {file.content: file for file in (*there, *pending)}
            of_kind = [kept.get(file.content, file) for file in of_kind]
            superseded += [file.name for file in there if file.name not in {each.name for each in of_kind}]
        if kind == PAGES:
            page_date = of_kind[0].date
        files += of_kind
    located = [file if is_there(folder, file) else _located(file, source.mirror, http) for file in files]
    return FetchPlan(files=tuple(located), lock=lock.with_files(located), superseded=tuple(superseded))


def needed_bytes(plan: FetchPlan, folder: Path) -> int:
    """What will be written yet, of files whose sizes are known."""
    return sum(max(0, (file.size_bytes or 0) - present_bytes(folder, file)) for file in plan.missing(folder))


def check_space(plan: FetchPlan, folder: Path) -> None:
    """Raises: MissingResource where the files will not fit."""
    needed, free = needed_bytes(plan, folder), free_bytes(str(folder))
    if plan.missing(folder) and free < needed + _SPARE_BYTES:
        raise MissingResource(
            f"--output {folder}: {amount(needed, 'bytes')} are to come, {amount(free, 'bytes')} are free there; free some "
            "space, or give a folder on another disk"
        )


def fetch(plan: FetchPlan, source: Source, folder: Path, console: Console) -> DumpLock:
    """Download what is missing, and keep the lock; the lock with all files done.

    Raises: what `downloading.download` raises, for the first file that fails, when all others are ended; UsageError where
    another fetch writes into the folder; KeyboardInterrupt with what is kept.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingResource(
            f"--output {folder}: cannot be made ({error.strerror or error}); give another folder"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MissingResource(f"--output {folder}: cannot be written to; give another folder")
    with _claimed(folder):
        plan = _as_it_is_now(plan, folder)
        check_space(plan, folder)
        session = _Session(plan, source, folder, console)
        return session.run()


def _as_it_is_now(plan: FetchPlan, folder: Path) -> FetchPlan:
    """The plan with what another fetch has put into the lock since it was made."""
    lock = read_lock(folder) or DumpLock()
    done = {(file.wiki, file.content): file for file in (*lock.files, *lock.pending) if file.done}
    files = tuple(done.get((file.wiki, file.content), file) for file in plan.files)
    return replace(plan, files=files, lock=lock.with_files(files))


class _Session:
    """The downloads of one command: workers, the lock that they share, and one line of progress for all."""

    def __init__(self, plan: FetchPlan, source: Source, folder: Path, console: Console):
        self._source, self._folder, self._console = source, folder, console
        self._lock = plan.lock
        self._wanted = plan.files
        self._missing = plan.missing(folder)
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._total = sum(file.size_bytes or 0 for file in plan.files)
        self._came = sum(present_bytes(folder, file) for file in plan.files)
        self._rate = Rate(self._total, self._came)
        self._running: list[str] = []

    def run(self) -> DumpLock:
        self._write_lock()
        work: queue.SimpleQueue[LockedFile] = queue.SimpleQueue()
        for file in sorted(self._missing, key=lambda each: -(each.size_bytes or 0)):
            work.put(file)
        threads = [
            threading.Thread(target=self._work, args=(work,), name=f"fetch-{number}", daemon=True)
            for number in range(min(self._source.connections, len(self._missing)))
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
        except KeyboardInterrupt:
            self._stop.set()
            for thread in threads:  # a thread that waits for its server is left to the end of the process
                thread.join(_END_S)
            raise KeyboardInterrupt(self._kept()) from None
        finally:
            self._console.clear()
        if self._failure is not None:
            raise self._failure
        return self._lock

    def _kept(self) -> str:
        done = sum(is_there(self._folder, self._lock.named(file.name) or file) for file in self._wanted)
        return (
            f"{done} of {len(self._wanted)} files are whole, {amount(self._came, 'bytes')} of "
            f"{amount(self._total, 'bytes')} are kept in {self._folder}; the same command goes on from there"
        )

    def _work(self, work: queue.SimpleQueue[LockedFile]) -> None:
        http = _http(self._source, self._console, self._stop)
        watcher = Watcher(note=self._note, came=self._tell, warn=self._console.warn)
        while not self._stop.is_set():
            try:
                file = work.get_nowait()
            except queue.Empty:
                return
            try:
                with self._mutex:
                    self._running.append(file.name)
                done = download(http, self._folder, file, watcher)
                algorithm = (file.strongest_sum or ("", ""))[0]
                size = amount(done.size_bytes or 0, "bytes")
                self._console.say(f"{file.kind:<10} {file.name}, {size}, {algorithm.upper()} as listed")
            except Stopped:
                return
            except BaseException as error:  # noqa: BLE001, raised again by the thread that waits for this one
                with self._mutex:
                    self._failure = self._failure or _explained(error, file)
                self._stop.set()
                return
            finally:
                with self._mutex:
                    self._running.remove(file.name)

    def _note(self, file: LockedFile) -> None:
        with self._mutex:
            self._lock = self._lock.with_file(file)
            self._write_lock()

    def _write_lock(self) -> None:
        try:
            write_lock(self._folder, self._lock)
        except OSError as error:
            raise MissingResource(
                f"{self._folder}: the lock of the dumps cannot be written ({error.strerror or error}); mend that, and the "
                "same command goes on"
            ) from error

    def _tell(self, count: int) -> None:
        if self._stop.is_set():
            raise Stopped
        with self._mutex:
            self._came += count
            self._rate.note(self._came)
            rate, left_s = self._rate.a_second, self._rate.left_s
            text = f"{amount(self._came, 'bytes')} of {amount(self._total, 'bytes')}"
            if rate is not None and left_s is not None:
                text += f", {amount(rate, 'bytes')}/s, {duration(left_s)} left"
            text += f"  {', '.join(self._running)}"
            measure = Measure(
                stage="fetch", done=self._came, total=self._total, unit="bytes", text=text, rate=rate, left_s=left_s
            )
        self._console.progress(measure)


def _http(source: Source, console: Console, stop: threading.Event) -> Http:
    return Http(
        contact=source.contact,
        max_wait_s=source.max_wait_s,
        warn=console.warn,
        stop=stop,
        backoff_s=source.backoff_s,
    )


def _find(kind: str, wanted: Wanted, lists: Lists, page_date: str) -> Found:
    if kind == PAGES:
        return find_pages(lists, wanted.wiki, wanted.date, wanted.layout)
    near = page_date or (wanted.date if wanted.date != LATEST else "")
    if not near:
        near = find_pages(lists, wanted.wiki, wanted.date, wanted.layout).date
    if kind == LANGLINKS:
        return find_langlinks(lists, wanted.wiki, near)
    return find_wikidata(lists, wanted.wikidata_date, near, wanted.wikidata_format or "gz")


def _date_of_pages(lock: DumpLock, wanted: Wanted) -> str:
    """The date of the pages that are there already."""
    there = lock.of(PAGES, wanted.wiki)
    return there[0].date if there else ""


def _check_same(kind: str, there: Sequence[LockedFile], wanted: Wanted, folder: Path) -> None:
    asked = {PAGES: wanted.date, WIKIDATA: wanted.wikidata_date}.get(kind, NEAREST)
    date = there[0].date
    if asked not in (LATEST, NEAREST, date):
        raise OtherBuild(
            f"--output {folder}: holds {there[0].wiki} of {compact_date(date)} ({names_of(there)}), not of "
            f"{compact_date(asked)}; give another folder, or --update to replace it"
        )
    if kind == WIKIDATA and wanted.wikidata_format and not there[0].name.endswith(f".{wanted.wikidata_format}"):
        raise OtherBuild(
            f"--output {folder}: holds {names_of(there)}, not the .{wanted.wikidata_format}; give another folder, or --update "
            "to replace it"
        )
    if kind == PAGES and wanted.layout not in (AUTO, there[0].layout):
        raise OtherBuild(
            f"--output {folder}: holds {there[0].wiki} in the layout {there[0].layout}, not {wanted.layout}; give another "
            "folder, or --update to replace it"
        )


def _located(file: LockedFile, mirror: Mirror, http: Http) -> LockedFile:
    """The file with its address on a mirror, and its size.

    Raises: UsageError where the mirror lacks it; DamagedInput where it has another file of this name.
    """
    for url in mirror.urls(file.area, file.path):
        head = http.head(url)
        if head is None:
            continue
        if url != file.url:
            file = replace(file, etag="", last_modified="")
        is_page = head.content_type.partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")
        size = file.listed_bytes if file.size_is_listed or is_page else head.size_bytes  # of a login page, say
        return replace(file, url=url, size_bytes=size, done=False)
    raise UsageError(
        f"{mirror.urls(file.area, file.path)[0]}: not there (404); the mirror has not got it yet, or has removed it: give "
        f"another --mirror ({', '.join(MIRRORS)}), another --date, or --update for the newest"
    )


def _explained(error: BaseException, file: LockedFile) -> BaseException:
    if isinstance(error, NotFound):
        return UsageError(f"{error}; it has gone meanwhile: give another --mirror, or --update for the newest date")
    return error


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Hold the folder, so that no second fetch writes into it.

    Raises: MissingResource.
    """
    with (folder / _CLAIM_NAME).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MissingResource(
                f"--output {folder}: another leia-beam fetch is writing there; wait for it"
            ) from error
        yield

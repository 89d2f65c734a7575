"""From a folder of fetched dumps to what lies there: `dumps.lock.json`, with each file's date, address, size and sums.

`latest` is looked up once and noted here as its date, so that the same command goes on with the same files, and a build can
say what it was made from. Dumps of several wikis may share a folder, and with it one Wikidata dump. A file counts as
there once it is `done`: its sums were found to be as listed. Files that come in place of others that are done stand under
`pending` until the last of them is done, so that a build has a whole dump at any time.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from leia_beam.dumps import Dump
from leia_beam.errors import DamagedInput, UsageError

LOCK_NAME = "dumps.lock.json"
FORMAT, VERSION = "leia-dumps-lock", 1
PAGES, WIKIDATA, LANGLINKS = "pages", "wikidata", "langlinks"
KINDS = (PAGES, WIKIDATA, LANGLINKS)
WIKIDATA_WIKI = "wikidatawiki"

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_SUM_LENGTHS = {"sha256": 64, "sha1": 40, "md5": 32}


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedFile:
    """One dump file. `date` is the dump's, as 2026-01-01; `area` and `path` say where every mirror has it.

    `sums` are those that were listed for it, `sha256` is that of what came, once it is done. `size_bytes` counts only where
    `size_is_listed`, beside the sums or because all came and their sum was right; else it is what a server said, which may
    be wrong. `etag` and `last_modified` are those of the bytes that came so far, by which a download goes on only with the
    same file.
    """

    kind: str
    wiki: str
    date: str
    layout: str
    area: str
    path: str
    url: str
    size_bytes: int | None = None
    size_is_listed: bool = False
    sums: Mapping[str, str] = field(default_factory=dict)
    sums_from: str = ""
    etag: str = ""
    last_modified: str = ""
    sha256: str = ""
    done: bool = False

    def __post_init__(self) -> None:
        if not _PLAIN_NAME.fullmatch(self.name):
            raise UsageError(f"{self.path[:200]!r}: no name of a dump file")
        if self.kind not in KINDS or not _DATE.fullmatch(self.date):
            raise UsageError(f"{self.name}: of kind {self.kind!r} and date {self.date!r}, which no dump is")
        for name, value in self.all_sums.items():
            if len(value) != _SUM_LENGTHS.get(name) or not re.fullmatch("[0-9a-f]+", value):
                raise UsageError(f"{self.name}: {value[:80]!r} is no sum {name}")

    @property
    def name(self) -> str:
        """The base name, which is the file's name in the folder."""
        return self.path.rpartition("/")[2]

    @property
    def strongest_sum(self) -> tuple[str, str] | None:
        """(algorithm, sum in hex) of the strongest listed."""
        return next(((name, self.sums[name]) for name in _SUM_LENGTHS if name in self.sums), None)

    @property
    def listed_bytes(self) -> int | None:
        """The size that the file must have; None where only its sum tells."""
        return self.size_bytes if self.size_is_listed else None

    @property
    def content(self) -> tuple[str, str, tuple[str, str] | None]:
        """What tells it from other files, and from another version of itself."""
        return (self.kind, self.name, self.strongest_sum)

    @property
    def origin(self) -> dict[str, str]:
        """What a manifest says of it: no address, no path, no time."""
        return {"date": self.date, "layout": self.layout, **self.all_sums}

    @property
    def all_sums(self) -> dict[str, str]:
        """The listed ones, and that of what came."""
        return {**self.sums, **({"sha256": self.sha256} if self.sha256 else {})}


@dataclass(frozen=True, slots=True)
class DumpLock:
    """All files of a folder, by kind and wiki, in the order of their names; `pending` come in place of some of them."""

    files: tuple[LockedFile, ...] = ()
    pending: tuple[LockedFile, ...] = ()

    def of(self, kind: str, wiki: str) -> list[LockedFile]:
        """The files of one kind, of one wiki."""
        return [file for file in self.files if (file.kind, file.wiki) == (kind, wiki)]

    def pending_of(self, kind: str, wiki: str) -> list[LockedFile]:
        """Those that come in place of them."""
        return [file for file in self.pending if (file.kind, file.wiki) == (kind, wiki)]

    def named(self, name: str) -> LockedFile | None:
        """The file of a name."""
        return next((file for file in (*self.files, *self.pending) if file.name == name), None)

    def with_files(self, files: Iterable[LockedFile]) -> DumpLock:
        """With these files in place of all others of the same kinds and wikis: at once, or once they are done."""
        groups: dict[tuple[str, str], list[LockedFile]] = {}
        for file in files:
            groups.setdefault((file.kind, file.wiki), []).append(file)
        waiting = {group for group, new in groups.items() if _waits(self.of(*group), new)}
        now = [file for group, new in groups.items() if group not in waiting for file in new]
        later = [file for group in waiting for file in groups[group]]
        replaced = {group for group, new in groups.items() if _names(self.of(*group)) != _names(new)}
        return DumpLock(
            _in_order([*(file for file in self.files if (file.kind, file.wiki) not in groups.keys() - waiting), *now]),
            _in_order([*(file for file in self.pending if (file.kind, file.wiki) not in replaced), *later]),
        )

    def with_file(self, changed: LockedFile) -> DumpLock:
        """With one file changed; where it was the last that its group waited for, the group takes its place."""
        pending = self.pending_of(changed.kind, changed.wiki)
        if changed.name in {file.name for file in pending}:
            return self.with_files(changed if file.name == changed.name else file for file in pending)
        return replace(self, files=tuple(changed if file.name == changed.name else file for file in self.files))


def _waits(old: Sequence[LockedFile], new: Sequence[LockedFile]) -> bool:
    """Whether files must be done before they replace others: those are whole, and are not overwritten by these."""
    before = {file.name: file.content for file in old}
    overwritten = any(before.get(file.name, file.content) != file.content for file in new)
    is_whole = bool(old) and all(file.done for file in old)
    return _names(old) != _names(new) and is_whole and not overwritten and not all(file.done for file in new)


def _names(files: Iterable[LockedFile]) -> set[str]:
    return {file.name for file in files}


def _in_order(files: Iterable[LockedFile]) -> tuple[LockedFile, ...]:
    return tuple(sorted(files, key=lambda file: (file.kind, file.wiki, _natural(file.name))))


def _natural(name: str) -> list[Any]:
    """Parts of a dump in the order of their numbers: 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def lock_bytes(lock: DumpLock) -> bytes:
    """The lock as it stands on disk."""
    content = {"format": FORMAT, "version": VERSION, "files": [asdict(file) for file in lock.files]}
    if lock.pending:
        content["pending"] = [asdict(file) for file in lock.pending]
    return (json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def parse_lock(content: bytes, where: str) -> DumpLock:
    """A lock from its bytes; `where` names it in messages.

    Raises: DamagedInput.
    """
    try:
        read = json.loads(content)
        if (read["format"], read["version"]) != (FORMAT, VERSION):
            raise DamagedInput(
                f"{where}: of format {read['format']!r} {read['version']!r}, this reads {FORMAT} {VERSION}"
            )
        return DumpLock(tuple(map(_file_of, read["files"])), tuple(map(_file_of, read.get("pending", ()))))
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise DamagedInput(
            f"{where}: not a lock that leia-beam fetch wrote ({error}); remove it and fetch again"
        ) from error


def _file_of(entry: Mapping[str, Any]) -> LockedFile:
    """A file as the lock has it; what a later version may add is passed over."""
    known = {each.name for each in fields(LockedFile)}
    file = LockedFile(**{name: value for name, value in entry.items() if name in known})
    return replace(file, size_is_listed=True) if file.done else file  # earlier locks do not say so


def read_lock(folder: str | Path) -> DumpLock | None:
    """The lock of a folder on this machine; None where there is none.

    Raises: DamagedInput.
    """
    path = Path(folder) / LOCK_NAME
    try:
        return parse_lock(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None


def write_lock(folder: str | Path, lock: DumpLock) -> None:
    """Replace the lock of a folder at once."""
    path = Path(folder) / LOCK_NAME
    temporary = path.with_name(f".{LOCK_NAME}.{os.getpid()}")
    with temporary.open("wb") as stream:
        stream.write(lock_bytes(lock))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def fetched_paths(folder: str, kind: str, wiki: str) -> list[str]:
    """The paths of the fetched dumps of a kind.

    Raises: UsageError where there is none or not all of them are there.
    """
    lock = read_lock(folder)
    if lock is None:
        raise UsageError(
            f"--dumps {folder}: no {LOCK_NAME} there; run leia-beam fetch --output {folder} first, or with the same recipe"
        )
    files = lock.of(kind, wiki)
    if not files:
        there = ", ".join(sorted({f"{file.kind} of {file.wiki}" for file in lock.files})) or "nothing"
        raise UsageError(f"--dumps {folder}: no {kind} of {wiki} were fetched, {there} is there; run leia-beam fetch")
    missing = [file.name for file in files if not file.done]
    if missing:
        raise UsageError(
            f"--dumps {folder}: {missing[0]} is not whole yet ({len(missing)} of {len(files)} files are missing); "
            "run the same leia-beam fetch again, it goes on where it stopped"
        )
    return [str(Path(folder) / file.name) for file in files]


def with_origin(dump: Dump) -> Dump:
    """A dump with what the lock beside it says of it, where there is one.

    Raises: DamagedInput where it has another size than when it was fetched.
    """
    folder = dump.path.rpartition("/")[0] or "."
    content = dump.storage.read(f"{folder}/{LOCK_NAME}")
    file = None if content is None else parse_lock(content, f"{folder}/{LOCK_NAME}").named(dump.name)
    if file is None or not file.done:
        return dump
    if file.size_bytes != dump.size_bytes:
        raise DamagedInput(
            f"{dump.path}: {dump.size_bytes:,} bytes, but {file.size_bytes:,} when it was fetched ({LOCK_NAME}); "
            "remove it and run leia-beam fetch again"
        )
    return replace(dump, origin=tuple(sorted(file.origin.items())))


def iso_date(text: str) -> str:
    """A date as the lock has it, from 20260101 or 2026-01-01.

    Raises: UsageError.

    >>> iso_date("20260101"), iso_date("2026-01-01")
    ('2026-01-01', '2026-01-01')
    """
    from datetime import date

    digits = text.replace("-", "")
    try:
        if not re.fullmatch(r"\d{8}|\d{4}-\d{2}-\d{2}", text):
            raise ValueError
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).isoformat()
    except ValueError:
        raise UsageError(f"{text[:40]!r} is no date; give one such as 20260101, or latest") from None


def compact_date(iso: str) -> str:
    """As the names of dumps have it.

    >>> compact_date("2026-01-01")
    '20260101'
    """
    return iso.replace("-", "")


def names_of(files: Sequence[LockedFile]) -> str:
    """Files for a message: the first, and how many more."""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return (files[0].name if files else "none") + more

"""A storage on any of Beam's file systems does what local storage does, with an object store's habits."""

from __future__ import annotations

import bz2
import gc
import io
import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem
from apache_beam.io.filesystemio import Uploader, UploaderStream

from leia_beam.cli import main
from leia_beam.dumps import DumpReader, ReadOptions, find_dump
from leia_beam.errors import DamagedInput, MissingResource, UsageError
from leia_beam.ranges import RangeReport
from leia_beam.sources import BeamStorage, storage_of
from leia_beam.storage import LocalStorage, Storage

OBJECTS: dict[str, bytes] = {}
FAILURES: dict[str, int] = {}


class _Uploader(Uploader):  # type: ignore[misc]
    """An object stands under its name once it is finished, whole or not."""

    def __init__(self, path: str):
        self._path = path
        self._content = b""

    def put(self, data: memoryview) -> None:
        _fail_if_asked("put")
        self._content += data

    def finish(self) -> None:
        _fail_if_asked("finish")
        OBJECTS[self._path] = self._content


def _fail_if_asked(name: str) -> None:
    if FAILURES.get(name, 0):
        FAILURES[name] -= 1
        raise OSError("connection reset")


class ObjectStore(FileSystem):
    """An object store in memory, as Beam sees one: `memory://bucket/name`."""

    @classmethod
    def scheme(cls) -> str:
        return "memory"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None:
        raise AssertionError("an object store has no folders")

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path, content in sorted(OBJECTS.items()):
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(content), 1.0)

    def create(self, path: str, mime_type: str = "", compression_type: str = "") -> Any:
        if path.startswith("memory://closed/"):
            raise BeamIOError("access denied", {path: OSError("403")})
        return io.BufferedWriter(UploaderStream(_Uploader(path)), buffer_size=1000)  # as Beam's Azure and HDFS do

    def open(self, path: str, mime_type: str = "", compression_type: str = "") -> Any:
        return io.BytesIO(OBJECTS[path])

    def exists(self, path: str) -> bool:
        return path in OBJECTS

    def size(self, path: str) -> int:
        return len(OBJECTS[path])

    def last_updated(self, path: str) -> float:
        return 1.0

    def checksum(self, path: str) -> str:
        return f"etag {hash(OBJECTS[path])}"

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, len(OBJECTS[path]), 1.0)

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            del OBJECTS[path]

    def copy(self, sources: list[str], destinations: list[str]) -> None:
        raise NotImplementedError

    def rename(self, sources: list[str], destinations: list[str]) -> None:
        raise AssertionError("an object store has no rename")


@pytest.fixture(autouse=True)
def _empty_store() -> Iterator[None]:
    OBJECTS.clear()
    FAILURES.clear()
    yield
    OBJECTS.clear()


@pytest.mark.parametrize("kind", ["local", "beam"])
def test_both_storages_keep_one_contract(kind: str, tmp_path: Any) -> None:
    """Read, write, size, list, find, publish, remove; what is not there is None or empty."""
    root = str(tmp_path) if kind == "local" else "memory://bucket/build"
    storage: Storage = pickle.loads(pickle.dumps(storage_of(root)))
    assert isinstance(storage, LocalStorage if kind == "local" else BeamStorage)
    assert (
        storage.read(f"{root}/a/x") is None and storage.size(f"{root}/a/x") is None and storage.list(f"{root}/a") == []
    )
    assert storage.stat(f"{root}/a/x") is None
    storage.write(f"{root}/a/x", b"one")
    storage.write(f"{root}/a/deep/y", b"two")
    (tmp_path / "local").write_bytes(b"three" * 5_000_000)
    storage.publish(str(tmp_path / "local"), f"{root}/a/z.bin")
    assert storage.read(f"{root}/a/x") == b"one" and storage.size(f"{root}/a/z.bin") == 25_000_000
    assert storage.list(f"{root}/a") == ["deep", "x", "z.bin"]
    assert storage.find(f"{root}/a/*.bin") == [f"{root}/a/z.bin"]
    assert storage.find(f"{root}/a/none*") == [] and storage.find(f"{root}/no") == [f"{root}/no"]
    before = storage.stat(f"{root}/a/x")
    storage.write(f"{root}/a/x", b"two")
    after = storage.stat(f"{root}/a/x")
    assert before and after and before.size_bytes == after.size_bytes and before.version != after.version
    with storage.open(f"{root}/a/x") as file:
        file.seek(1)
        assert file.read() == b"wo"
    storage.remove(f"{root}/a")
    storage.remove(f"{root}/a")
    assert storage.list(f"{root}/a") == []


@pytest.mark.parametrize(("breaks", "times"), [("put", 1), ("put", 100), ("finish", 1), ("finish", 2)])
@pytest.mark.parametrize("size", [7, 100_000])
def test_an_upload_that_breaks_is_one_line_and_leaves_nothing(breaks: str, times: int, size: int) -> None:
    """The next attempt writes it whole, and no remains of the first one are finished over it later."""
    storage = BeamStorage()
    content = bytes(range(100)) * (size // 100) + b"content"
    FAILURES[breaks] = times
    with pytest.raises(
        MissingResource, match=r"^memory://b/x: cannot be written \(connection reset\); run the same command"
    ) as raised:
        storage.write("memory://b/x", content)
    FAILURES.clear()
    assert OBJECTS == {}
    storage.write("memory://b/x", b"next")
    del raised  # its traceback holds the first attempt's stream, which the collector takes now
    gc.collect()
    assert storage.read("memory://b/x") == b"next"


def test_what_no_file_system_takes_is_one_line() -> None:
    """Refused by the store, and by a scheme that no one knows."""
    storage = BeamStorage()
    with pytest.raises(MissingResource, match=r"memory://closed/x: cannot be written \(access denied"):
        storage.write("memory://closed/x", b"content")
    with pytest.raises(UsageError, match="nowhere://x"):
        storage.read("nowhere://x")


def test_dumps_are_read_in_ranges_from_an_object_store() -> None:
    """Any format; an object that was replaced is told by its version."""
    content = b"".join(b"%d\n" % number for number in range(100_000))
    OBJECTS["memory://dumps/x.bz2"] = bz2.compress(content, 1)
    dump = find_dump("memory://dumps/x.bz2", BeamStorage())
    assert dump.name == "x.bz2" and dump.format == "bz2"
    half = dump.size_bytes // 2
    with DumpReader(dump, b"\n", ReadOptions(max_record_bytes=100)) as reader:
        records = [*reader.records(0, half, RangeReport()), *reader.records(half, dump.size_bytes, RangeReport())]
        assert [record.data for record in records] == content.split(b"\n")[:-1]
        OBJECTS["memory://dumps/x.bz2"] = OBJECTS["memory://dumps/x.bz2"][:-1] + b"x"
        with pytest.raises(DamagedInput, match="replaced since the build began"):
            list(reader.records(0, half, RangeReport()))


def test_a_stage_reads_from_and_writes_to_an_object_store(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    """The same files and manifest as on the local disk, with records; a later stage says what it misses."""
    lines = [json.dumps({"id": f"Q{n}", "sitelinks": {"enwiki": {"title": f"T {n}"}}}) for n in range(1, 2_000)]
    dump = bz2.compress(("[\n" + ",\n".join(lines) + "\n]\n").encode(), 1)
    OBJECTS["memory://dumps/wikidata.json.bz2"] = dump
    (tmp_path / "wikidata.json.bz2").write_bytes(dump)
    options = ["--range-bytes", "1000", "--quiet"]
    remote = ["sitelinks", "--wikidata", "memory://dumps/*.bz2", "--output", "memory://out/b", *options]
    assert main(remote) == 0
    local = ["sitelinks", "--wikidata", str(tmp_path / "wikidata.json.bz2"), "--output", str(tmp_path / "b"), *options]
    assert main(local) == 0
    kept = {
        path.removeprefix("memory://out/b/"): content for path, content in OBJECTS.items() if "/b/sitelinks/" in path
    }
    on_disk = {
        str(path.relative_to(tmp_path / "b")): path.read_bytes() for path in (tmp_path / "b/sitelinks").rglob("*.*")
    }
    assert kept == on_disk and len(kept) > 6
    assert any("/b/_run/" in path for path in OBJECTS)
    assert main(["entities", "--wiki", "en", "--output", "memory://out/b"]) == 2
    assert "memory://out/b/articles/_manifest.json: no such file; the stage is not finished" in capsys.readouterr().err

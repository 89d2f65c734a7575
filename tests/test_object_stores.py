"""Storage on emulated gs:// and s3://: one contract, exact ranges, whole uploads, faults in one line, the same bytes."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leia_beam import ranged_files
from leia_beam.errors import DamagedInput, LeiaError, MissingResource, UsageError
from leia_beam.ranged_files import TAIL_STEP_BYTES, RangedFile
from leia_beam.sources import BeamStorage, storage_for
from tests.object_emulators import EMULATORS, Store

CONTENT = bytes(range(256)) * 20_000


@pytest.fixture(params=["gs", "s3"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty bucket; waits between tries are short."""
    monkeypatch.setattr(ranged_files, "WAITS_S", (0.01, 0.01))
    with EMULATORS[request.param]() as found:
        yield found


def test_a_storage_reads_back_what_it_wrote(store: Store, tmp_path: Path) -> None:
    """Read, write, size, list, find, publish, remove, ranges; what is not there is None or empty."""
    storage, root = pickle.loads(pickle.dumps(store.storage)), f"{store.root}/b"
    assert storage == store.storage and hash(storage) == hash(store.storage)
    assert (storage.read(f"{root}/x"), storage.size(f"{root}/x"), storage.list(root)) == (None, None, [])
    storage.write(f"{root}/x", b"one")
    storage.write(f"{root}/deep/er/y.bin", b"two")
    storage.write(f"{root}/empty", b"")
    (tmp_path / "local").write_bytes(CONTENT)
    storage.publish(str(tmp_path / "local"), f"{root}/z.bin")
    assert storage.read(f"{root}/x") == b"one" and storage.read(f"{root}/empty") == b""
    assert storage.read(f"{root}/z.bin") == CONTENT and storage.size(f"{root}/z.bin") == len(CONTENT)
    assert storage.list(root) == ["deep", "empty", "x", "z.bin"] and storage.list(f"{root}/deep") == ["er"]
    assert storage.find(f"{root}/*.bin") == [f"{root}/z.bin"] and storage.find(f"{root}/*/er/y*") == [
        f"{root}/deep/er/y.bin"
    ]
    assert storage.find(f"{root}/none*") == [] and storage.find(f"{root}/no") == [f"{root}/no"]
    before = storage.stat(f"{root}/x")
    storage.write(f"{root}/x", b"two")
    after = storage.stat(f"{root}/x")
    assert before.size_bytes == after.size_bytes and before.version != after.version
    with storage.open(f"{root}/z.bin") as file:
        file.seek(-3, io.SEEK_END)
        assert file.read(10) == CONTENT[-3:] and file.read() == b""
    storage.remove(f"{root}/deep")
    storage.remove(f"{root}/nothing")
    assert storage.list(root) == ["empty", "x", "z.bin"]
    storage.remove(root)
    assert store.objects() == {}


def test_a_storage_of_objects_serves_local_paths_too(store: Store, tmp_path: Path) -> None:
    """A finished stage may lie on disk while the output lies in a store."""
    storage = storage_for([store.root, str(tmp_path)], store.options)
    storage.write(f"{tmp_path}/x", b"here")
    assert storage.read(f"{tmp_path}/x") == b"here" and storage.table_file(f"{tmp_path}/x") == f"{tmp_path}/x"
    assert storage.copies_folder(str(tmp_path)) is None and storage.copies_folder(store.root)


def test_a_range_is_fetched_and_hardly_more(store: Store) -> None:
    """Bytes from the store, counted on the wire: the range, and 64 KiB for what is read behind its end."""
    store.put("x", CONTENT)
    start, end = 1_000_000, 3_000_000
    state = store.storage.stat(f"{store.root}/x")
    assert state is not None
    store.proxy.reset()
    with store.storage.open_range(f"{store.root}/x", start, end, state.version) as file:
        found = bytearray()
        while len(found) < end - start:
            found += file.read(1 << 20)
        assert bytes(found) == CONTENT[start:end]
        assert end - start < store.proxy.received < end - start + 20_000
        assert file.read(1 << 20) == CONTENT[end : end + TAIL_STEP_BYTES]
        assert store.proxy.received < end - start + TAIL_STEP_BYTES + 20_000


def test_a_file_of_ranges_reads_as_a_file_does() -> None:
    """Any order of seeks and reads gives the object's bytes; reads that begin in what is held fetch nothing."""
    fetched: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        fetched.append((start, end))
        return CONTENT[start:end]

    exact = RangedFile("x", len(CONTENT), fetch)
    for at, size in ((0, 10), (4_000_000, 1 << 20), (5, 1), (len(CONTENT) - 2, 9)):
        exact.seek(at)
        assert exact.read(size) == CONTENT[at : at + size]
    assert fetched == [
        (0, 10),
        (4_000_000, 4_000_000 + (1 << 20)),
        (5, 6),
        (len(CONTENT) - 2, len(CONTENT)),
    ]
    exact.seek(0)
    assert exact.readall() == CONTENT
    fetched.clear()
    ranged = RangedFile("x", len(CONTENT), fetch, (0, 2_000_000))
    pieces = list(iter(lambda: ranged.read(100_000), b""))
    assert b"".join(pieces) == CONTENT
    sizes = [end - start for start, end in fetched]
    assert sizes[:3] == [262_144, 524_288, 1_048_576] and sum(sizes[:4]) == 2_000_000
    assert set(sizes[4:-1]) == {TAIL_STEP_BYTES}


def test_a_connection_cut_in_mid_read_is_tried_again(store: Store) -> None:
    """Two cuts, then the bytes; cut for ever: one line, exit code 5."""
    store.put("x", CONTENT)
    store.proxy.cuts, store.proxy.cut_received_after = 2, 100_000
    assert store.storage.read(f"{store.root}/x") == CONTENT
    assert store.proxy.cuts_done == 2
    store.proxy.cuts = 1_000_000
    with pytest.raises(MissingResource, match=rf"^{store.root}/x: cannot be read \(.*\); run the same command again$"):
        store.storage.read(f"{store.root}/x")
    assert store.proxy.cuts_done == 5, "each of three tries was cut"


def test_an_answer_that_is_cut_in_its_headers_is_tried_again(store: Store) -> None:
    """Python's HTTP takes what came for all of the headers: no length, no type."""
    store.put("b/x", b"content")
    for action in (
        lambda: store.storage.stat(f"{store.root}/b/x"),
        lambda: store.storage.list(f"{store.root}/b"),
        lambda: store.storage.read(f"{store.root}/b/x"),
    ):
        action()
        store.proxy.cuts, store.proxy.cut_received_after = 1_000_000, -1
        with pytest.raises(MissingResource, match=r"cannot be (read|listed) \("):
            action()
        store.proxy.reset()


def test_a_connection_cut_in_mid_write_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """Neither a part of the object nor an object of part of the bytes; tried again it is whole."""
    (tmp_path / "x").write_bytes(CONTENT)
    store.proxy.cuts, store.proxy.cut_sent_after = 1_000_000, 100_000
    with pytest.raises(MissingResource, match=rf"^{store.root}/x: cannot be written \(.*nothing was left half-written"):
        store.storage.publish(str(tmp_path / "x"), f"{store.root}/x")
    assert store.objects() == {} and store.proxy.cuts_done >= 3
    store.proxy.reset()
    store.proxy.cuts, store.proxy.cut_sent_after = 1, 100_000
    store.storage.publish(str(tmp_path / "x"), f"{store.root}/x")
    assert store.proxy.cuts_done == 1 and store.objects() == {"x": CONTENT}


class _BreakingFile(io.BytesIO):
    """A file that breaks where half of it is read."""

    def __init__(self, error: BaseException):
        super().__init__(CONTENT)
        self._error = error

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        if self.tell() > len(CONTENT) // 2:
            raise self._error
        return piece

    def readinto(self, buffer: Any) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_exception_in_mid_write_leaves_what_was_there(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException, before: bytes | None
) -> None:
    """What Beam's own files would publish as far as it was written (local and s3://) is not there at all."""
    if before is not None:
        store.put("x", before)
    upload = type(store.storage._of(store.root)._store).upload  # type: ignore[attr-defined]

    def breaks(self: Any, bucket: str, key: str, source: Any, size_bytes: int) -> None:
        upload(self, bucket, key, _BreakingFile(error), len(CONTENT))

    monkeypatch.setattr(type(store.storage._of(store.root)._store), "upload", breaks)  # type: ignore[attr-defined]
    with pytest.raises(type(error)):
        store.storage.write(f"{store.root}/x", CONTENT)
    assert store.objects() == ({} if before is None else {"x": before})


def test_a_bucket_that_is_not_there_is_one_line(store: Store, tmp_path: Path) -> None:
    """For reading, listing and writing."""
    path = f"{store.scheme}://nosuchbucket/x"
    (tmp_path / "x").write_bytes(b"x")
    for action in (
        lambda: store.storage.read(path),
        lambda: store.storage.stat(path),
        lambda: store.storage.list(path),
        lambda: store.storage.write(path, b"x"),
        lambda: store.storage.publish(str(tmp_path / "x"), path),
    ):
        with pytest.raises(UsageError, match=rf"^{path}: no such bucket; make it, or correct the name$"):
            action()


@pytest.mark.parametrize("code", [401, 403])
def test_refused_access_is_one_line_at_the_first_try(store: Store, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """What would be refused again is not tried again."""
    tries = _answers(store, monkeypatch, code)
    with pytest.raises(
        MissingResource, match=rf"^{store.root}/x: access refused, it cannot be written \(({code}: |Anonymous)"
    ):
        store.storage.write(f"{store.root}/x", b"x")
    with pytest.raises(
        MissingResource, match=rf"^{store.root}/x: access refused, it cannot be read \(({code}: |Anonymous)"
    ):
        store.storage.stat(f"{store.root}/x")
    assert len(tries) == 2


@pytest.mark.parametrize("code", [429, 500, 503])
def test_an_overloaded_store_is_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """As often as there are waits, then one line."""
    tries = _answers(store, monkeypatch, code)
    with pytest.raises(MissingResource, match=r"cannot be read \(.*run the same command again$"):
        store.storage.stat(f"{store.root}/x")
    assert len(tries) == 3


def _answers(store: Store, monkeypatch: pytest.MonkeyPatch, code: int) -> list[int]:
    """Every request is answered with an error code; the list grows by one for each."""
    tries: list[int] = []
    if store.scheme == "gs":
        import requests

        def refuse(self: Any, request: Any, **options: Any) -> Any:
            if "/o" in request.path_url:  # beside what it asks of the bucket for its own traces
                tries.append(code)
            answer = requests.Response()
            answer.status_code, answer._content, answer.request = code, b"no", request
            answer.url = request.url
            return answer

        monkeypatch.setattr(requests.Session, "send", refuse)
    else:
        from botocore.awsrequest import AWSResponse
        from botocore.httpsession import URLLib3Session

        class Raw(io.BytesIO):
            def stream(self, **options: Any) -> Iterator[bytes]:
                yield self.read()

        def refuse_s3(self: Any, request: Any) -> Any:
            tries.append(code)
            return AWSResponse(request.url, code, {}, Raw(b"<Error><Code>No</Code><Message>no</Message></Error>"))

        monkeypatch.setattr(URLLib3Session, "send", refuse_s3)
    return tries


def _refuse_generation(monkeypatch: pytest.MonkeyPatch, generation: str) -> None:
    """Answer 412 to whoever asks for this generation."""
    import requests

    send = requests.Session.send

    def refuse(self: Any, request: Any, **options: Any) -> Any:
        if f"ifGenerationMatch={generation}" not in request.url:
            return send(self, request, **options)
        answer = requests.Response()
        answer.status_code, answer._content, answer.request, answer.url = 412, b"no", request, request.url
        return answer

    monkeypatch.setattr(requests.Session, "send", refuse)


def test_an_object_that_is_replaced_in_mid_read_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader never gets half of one version and half of another."""
    store.put("x", CONTENT)
    state = store.storage.stat(f"{store.root}/x")
    assert state is not None
    with store.storage.open_range(f"{store.root}/x", 0, len(CONTENT), state.version) as file:
        assert file.read(100) == CONTENT[:100]
        store.put("x", CONTENT[::-1])
        if store.scheme == "gs":  # the emulator does not look at the condition, so the store's answer is given here
            _refuse_generation(monkeypatch, state.version.removeprefix("generation "))
        with pytest.raises(DamagedInput, match="x: replaced while it was read"):
            while file.read(1 << 20):
                pass


def test_nobody_listens_is_one_line() -> None:
    """A wrong endpoint."""
    storage = BeamStorage(("--s3_endpoint_url=http://127.0.0.1:9", "--s3_access_key_id=a", "--s3_secret_access_key=b"))
    pytest.importorskip("boto3", reason="pip install 'apache-beam[aws]'")
    waits = ranged_files.WAITS_S
    ranged_files.WAITS_S = ()
    try:
        with pytest.raises(MissingResource, match=r"^s3://b/x: cannot be read \(Could not connect"):
            storage.stat("s3://b/x")
    finally:
        ranged_files.WAITS_S = waits


def test_copies_are_fetched_once_by_many(store: Store, tmp_path: Path) -> None:
    """Eight at once want a stage's files: each is fetched once, compared with its sum, and found by all."""
    from leia_beam.manifest import Manifest, StageFile, manifest_bytes
    from leia_beam.schema import SCHEMA_VERSION
    from leia_beam.stage_folders import local_copy

    def manifest(sha256: str) -> bytes:
        file = StageFile(path="lookup/a", table="t", unit=0, rows=1, size_bytes=len(CONTENT), sha256=sha256)
        return manifest_bytes(
            Manifest(
                stage="s",
                fingerprint="f",
                schema_version=SCHEMA_VERSION,
                versions={},
                inputs=(),
                options={},
                files=(file,),
                counters={},
            )
        )

    store.put("s/_manifest.json", manifest(hashlib.sha256(CONTENT).hexdigest()))
    store.put("s/lookup/a", CONTENT)
    storage = BeamStorage(store.storage.options, str(tmp_path / "copies"))
    store.proxy.reset()
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(local_copy(storage, f"{store.root}/s", ["t"]))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert Path(found[0], "lookup/a").read_bytes() == CONTENT
    assert len(CONTENT) < store.proxy.received < 1.1 * len(CONTENT)
    store.put("s/_manifest.json", manifest("0" * 64))
    with pytest.raises(DamagedInput, match=r"s/lookup/a: SHA-256 mismatch"):
        local_copy(storage, f"{store.root}/s", ["t"])
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if name.endswith(".tmp")]


def test_copies_are_not_kept_where_others_may_write(store: Store, tmp_path: Path) -> None:
    """A folder that somebody else made in the common temporary folder."""
    from leia_beam.stage_folders import local_copy

    shared = tmp_path / "copies"
    shared.mkdir()
    shared.chmod(0o777)
    store.put("s/_manifest.json", b"{}")
    storage = BeamStorage(store.storage.options, str(shared))
    with pytest.raises(LeiaError):
        local_copy(storage, f"{store.root}/s", ["t"])


def test_many_records_take_one_list_and_a_request_each(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher asks the store of a stage with 60 units of three files, one of them not whole, one failed."""
    from leia_beam.commits import DONE, FAILED, CommitRecord, read_stage_records, write_record
    from leia_beam.manifest import StageFile

    storage, folder = store.storage, f"{store.root}/b/articles"
    for unit in range(60):
        files = [
            StageFile(path=f"data/{table}-{unit}", table=table, unit=unit, rows=1, size_bytes=4, sha256="0")
            for table in ("a", "b", "c")
        ]
        status = FAILED if unit == 7 else DONE
        record = CommitRecord(
            stage="articles",
            fingerprint="f",
            unit=unit,
            unit_count=61,
            status=status,
            input={},
            files=files if status == DONE else (),
            counters={},
        )
        write_record(storage, folder, record)
        for file in record.files:
            store.put(f"b/articles/{file.path}", b"1" if (unit, file.table) == (9, "b") else b"1234")
    files_of = storage._of(store.root)
    asked: list[str] = []
    for name in ("whole", "state", "entries", "fetch"):
        original = getattr(files_of._store, name)  # type: ignore[attr-defined]

        def counted(*arguments: Any, _name: str = name, _original: Any = original, **options: Any) -> Any:
            asked.append(_name)
            return _original(*arguments, **options)

        monkeypatch.setattr(files_of._store, name, counted)  # type: ignore[attr-defined]
    records = read_stage_records(storage, folder, 61, "f")
    assert [number for number, record in enumerate(records) if record is None] == [9, 60]
    assert [record.unit for record in records if record is not None and record.status == FAILED] == [7]
    of_a_record = ["whole"] if store.scheme == "s3" else ["fetch", "state", "whole"]
    assert sorted(asked) == sorted(["entries", *of_a_record * 60])
    assert read_stage_records(storage, folder, 61, "other") == [None] * 61

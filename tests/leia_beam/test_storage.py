"""storage: a final name is there whole or not at all, and what the environment refuses is one line with exit code 5."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from leia_beam.errors import LeiaError, MissingResource
from leia_beam.storage import LocalStorage, sha256_of

STORAGE = LocalStorage()


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(b"content" * 1000)
    return str(path)


def test_what_was_written_is_read_back(tmp_path):
    """Folders are made; an existing file is replaced."""
    path = f"{tmp_path}/a/b/x"
    for content in (b"one", b"", b"other"):
        STORAGE.write(path, content)
        assert (STORAGE.read(path), STORAGE.size(path)) == (content, len(content))
    assert STORAGE.list(f"{tmp_path}/a/b") == ["x"]


def test_what_is_not_there_is_none():
    """No exception for what a resume looks for."""
    assert (STORAGE.read("/nosuch/x"), STORAGE.size("/nosuch/x"), STORAGE.list("/nosuch")) == (None, None, [])
    STORAGE.remove("/nosuch/x")


def test_a_path_below_a_file_is_not_there_or_one_line(tmp_path):
    """An --output that is a file, or a folder where a file should be, is no traceback."""
    (tmp_path / "file").write_text("x")
    for look in (
        lambda: STORAGE.read(f"{tmp_path}/file/x"),
        lambda: STORAGE.size(f"{tmp_path}/file/x"),
        lambda: STORAGE.list(f"{tmp_path}/file"),
        lambda: STORAGE.read(str(tmp_path)),
    ):
        with contextlib.suppress(LeiaError):
            assert look() in (None, [])


def test_a_published_file_is_a_copy(tmp_path, source):
    """The local file stays the caller's."""
    STORAGE.publish(source, f"{tmp_path}/final/x")
    assert files_below(tmp_path / "final") == {"x": Path(source).read_bytes()}
    assert os.path.isfile(source)


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("step", ["copyfile", "fsync", "replace"])
def test_an_exception_leaves_nothing_behind(tmp_path, source, monkeypatch, step, before, error):
    """Neither a half-written final file nor a temporary one; what was there before is there still."""
    folder = tmp_path / "final"
    if before is not None:
        STORAGE.write(f"{folder}/x", before)
    module = shutil if step == "copyfile" else os
    original = getattr(module, step)

    def fails(*arguments, **options):
        if step == "copyfile":
            Path(arguments[1]).write_bytes(b"half")
        raise error

    monkeypatch.setattr(module, step, fails)
    with pytest.raises(type(error)):
        STORAGE.publish(source, f"{folder}/x")
    monkeypatch.setattr(module, step, original)
    assert files_below(folder) == ({} if before is None else {"x": before})


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space and run the same command again"),
        (errno.EDQUOT, "free some space and run the same command again"),
        (errno.EROFS, "give another --output"),
        (errno.EACCES, "give another --output, or the right to write there"),
        (errno.EIO, "nothing was left half-written; run the same command again"),
    ],
)
@pytest.mark.parametrize("step", ["copyfile", "fsync", "replace", "makedirs"])
def test_what_the_environment_refuses_is_one_line(tmp_path, source, monkeypatch, number, advice, step):
    """A full disk, a read-only folder: path, reason, advice, exit code 5; nothing stays under the final name."""

    def fails(*arguments, **options):
        raise OSError(number, os.strerror(number))

    if step == "makedirs":
        monkeypatch.setattr(Path, "mkdir", fails)
    else:
        monkeypatch.setattr(shutil if step == "copyfile" else os, step, fails)
    with pytest.raises(
        MissingResource, match=rf"/final/x: cannot be written \({os.strerror(number)}\); {advice}$"
    ) as caught:
        STORAGE.publish(source, f"{tmp_path}/final/x")
    assert caught.value.exit_code == 5
    assert files_below(tmp_path) == {"source": Path(source).read_bytes()}


def test_a_full_disk_on_a_small_write_leaves_nothing(tmp_path, monkeypatch):
    """The same for a commit record."""

    def fails(self, content):
        with open(self, "wb") as file:
            file.write(content[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(MissingResource, match="free some space"):
        STORAGE.write(f"{tmp_path}/x.json", b"content")
    assert files_below(tmp_path) == {}


def test_a_taken_name_is_one_line(tmp_path, source):
    """A folder under the final name, a file where a folder should be."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(MissingResource, match="give another --output: a folder has this name"):
        STORAGE.publish(source, f"{tmp_path}/taken")
    with pytest.raises(MissingResource, match="cannot be written"):
        STORAGE.publish(source, f"{source}/below")
    with pytest.raises(MissingResource, match="a part of this path is a file"):
        STORAGE.publish(source, f"{source}/deep/below")
    assert sorted(os.listdir(tmp_path)) == ["source", "taken"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_one_line(tmp_path, source):
    """A real read-only folder."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(MissingResource, match="or the right to write there"):
        STORAGE.publish(source, f"{folder}/x")


def test_many_writers_of_one_name_leave_one_whole_file(tmp_path):
    """Two attempts of a unit at once: temporary names are their own, and no reader sees a mixture."""
    contents = [bytes([65 + number]) * 50_000 for number in range(8)]
    path, seen = f"{tmp_path}/x", []

    def write(content):
        for _ in range(10):
            STORAGE.write(path, content)
            seen.append(STORAGE.read(path))

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 80 and set(seen) <= set(contents)
    assert os.listdir(tmp_path) == ["x"]


def test_a_folder_is_removed_but_a_link_is_not_followed(tmp_path):
    """What `--overwrite` clears is the link, never what it leads to."""
    kept = tmp_path / "kept"
    STORAGE.write(f"{kept}/x", b"1")
    STORAGE.write(f"{tmp_path}/folder/sub/y", b"2")
    (tmp_path / "link").symlink_to(kept)
    for name in ("folder", "link"):
        STORAGE.remove(f"{tmp_path}/{name}")
    assert os.listdir(tmp_path) == ["kept"] and files_below(kept) == {"x": b"1"}


def test_the_sum_is_sha_256(tmp_path):
    """Of the bytes of the file."""
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(str(tmp_path / "x")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

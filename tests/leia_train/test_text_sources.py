"""Texts of every form are the same documents; what is damaged or empty is one line with the place and exit code 3."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from leia_beam.errors import DamagedInput, UsageError
from leia_train import text_sources
from leia_train.mix_sources import read_source
from leia_train.text_sources import open_texts, read_records

DOCUMENTS = ["One line.", "Two\nlines, and 日本語.", "  An indented one", "é" * 300, "The last."]
COMPRESSED = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: zstandard.ZstdCompressor(write_checksum=True).compress(content),
}


def write(folder, name, content):
    """A file; its bytes are compressed as its name says."""
    folder.mkdir(exist_ok=True)
    suffix = "." + name.rpartition(".")[2]
    path = folder / name
    path.write_bytes(COMPRESSED.get(suffix, bytes)(content if isinstance(content, bytes) else content.encode()))
    return path


def texts_of(path, settings="", first=0):
    """All records of a source."""
    source = open_texts(read_source(f"x={path}:0.1{settings}"))
    return [text for file in source.files for text, _ in read_records(source, file, first)]


@pytest.mark.parametrize("compression", COMPRESSED)
def test_plain_text_and_json_lines_of_any_compression_hold_the_same_documents(tmp_path, compression):
    """Blocks between blank lines, or a line's text; from any record on; the place in the file grows to its end."""
    blocks = write(tmp_path, f"a.txt{compression}", "\n\n" + "\n\n \n".join(DOCUMENTS) + "\n")
    lines = write(
        tmp_path, f"a.jsonl{compression}", "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in DOCUMENTS)
    )
    for path in (blocks, lines):
        assert texts_of(path) == DOCUMENTS
        assert texts_of(path, first=3) == DOCUMENTS[3:] and texts_of(path, first=9) == []
        source = open_texts(read_source(f"x={path}:0.1"))
        places = [place for _, place in read_records(source, source.files[0])]
        assert places == sorted(places) and places[-1] == path.stat().st_size


def test_a_text_file_is_read_by_line_by_block_or_whole(tmp_path):
    """With any ends of lines and with a byte order mark."""
    path = write(tmp_path, "a.txt", "\ufeffa\r\nb\r\n\r\nc\n")
    assert texts_of(path) == ["a\nb", "c"]
    assert [text for text in texts_of(path, ",documents=line") if text] == ["a", "b", "c"]
    assert texts_of(path, ",documents=file") == ["a\nb\n\nc"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_is_read_from_any_row_of_any_row_group(tmp_path, kind):
    """A column by its name; null is no document."""
    path = tmp_path / "a.parquet"
    column = pa.array([*DOCUMENTS, None], pa.string()).cast(kind)
    pq.write_table(pa.table({"id": range(6), "body": column}), path, row_group_size=2)
    for first in range(7):
        assert texts_of(path, ",column=body", first) == [*DOCUMENTS, ""][first:]


def test_a_folder_or_a_pattern_is_its_files_in_the_order_of_their_names(tmp_path):
    """Other files of a folder are left out; names of files are not part of what identifies a source, their order is."""
    for number in (2, 1, 3):
        write(tmp_path / "in", f"part-{number}.txt.gz", f"text {number}")
    write(tmp_path / "in", "README.md", "no text")
    write(tmp_path / "in", ".hidden.txt", "no text")
    assert texts_of(tmp_path / "in") == ["text 1", "text 2", "text 3"]
    assert texts_of(f"{tmp_path}/in/part-[13].txt*") == ["text 1", "text 3"]
    before = open_texts(read_source(f"x={tmp_path}/in:0.1")).fingerprint
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    assert open_texts(read_source(f"y={tmp_path}/elsewhere:0.2")).fingerprint == before
    (tmp_path / "elsewhere/part-1.txt.gz").rename(tmp_path / "elsewhere/part-4.txt.gz")
    assert open_texts(read_source(f"x={tmp_path}/elsewhere:0.1")).fingerprint != before


FAULTS = {
    "empty": ("a.txt", b"", "a.txt is empty"),
    "latin 1": ("a.txt", b"good\n\ncaf\xe9 x", r"a.txt: no UTF-8 at byte 9;"),
    "utf-16": ("a.txt", "ab".encode("utf-16-le"), r"a.txt: the line at byte 0 holds a NUL"),
    "no json": ("a.jsonl", b'{"text": "a"}\n{"text": "b"', r"a.jsonl: line 2 \(byte 14\): not a JSON object"),
    "a list": ("a.jsonl", b"[1]\n", r"line 1 \(byte 0\): not a JSON object \(no object\)"),
    "deep": ("a.jsonl", b"[" * 100_000 + b"\n", r"line 1 \(byte 0\): not a JSON object"),
    "long number": ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}", r"line 1 \(byte 0\): not a JSON object"),
    "a number": ("a.jsonl", b'{"text": 3}', r"line 1 \(byte 0\): 'text' is no text \(int\)"),
    "half a pair": ("a.jsonl", b'{"text": "\\ud800"}', r"line 1 \(byte 0\): 'text' holds half of a surrogate pair"),
    "no parquet": ("a.parquet", b"PAR1 no", r"a.parquet: not readable as Parquet"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_files_are_refused_with_their_place(tmp_path, fault):
    """One line, exit code 3."""
    name, content, message = FAULTS[fault]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedInput, match=message) as error:
        texts_of(tmp_path / name)
    assert "\n" not in str(error.value) and error.value.exit_code == 3


@pytest.mark.parametrize("compression", [kind for kind in COMPRESSED if kind])
def test_compressed_files_that_end_early_or_are_something_else_are_refused(tmp_path, compression):
    """Cut anywhere, one bit flipped, or an error page under the file's name; two files one after the other are one."""
    content = "".join(f"text {number} {number * 2654435761 % 2**61}\n\n" for number in range(4000)).encode()
    whole = COMPRESSED[compression](content)
    path = tmp_path / f"a.txt{compression}"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 16
    for damaged in (whole[: len(whole) // 2], whole[:-1], bytes(flipped), b"<html>not here</html>"):
        path.write_bytes(damaged)
        with pytest.raises(DamagedInput, match=r"a\.txt"):
            texts_of(path)
    path.write_bytes(whole + whole)
    assert len(texts_of(path)) == 8000


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.txt", "no such file or folder"),
        ("b-*.txt", "no file fits it"),
        ("a.csv", r"must end with one of \.txt"),
        ("a.parquet.gz", r"must end with one of \.txt"),
        ("folder", "holds no .txt"),
    ],
)
def test_paths_without_texts_are_usage_errors(tmp_path, path, message):
    """Exit code 2."""
    (tmp_path / "folder").mkdir()
    for name in ("a.csv", "a.parquet.gz"):
        (tmp_path / name).write_text("x")
    with pytest.raises(UsageError, match=message):
        texts_of(tmp_path / path)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    """In JSON lines and in Parquet; a column of numbers is none either."""
    write(tmp_path, "a.jsonl", '{"id": 1, "content": "a"}\n')
    pq.write_table(pa.table({"id": [1], "content": ["a"]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(UsageError, match=r"has no (column )?'text' \(it has id, content\); add column=NAME"):
            texts_of(tmp_path / name)
    with pytest.raises(UsageError, match="column 'id' holds int64, not text"):
        texts_of(tmp_path / "a.parquet", ",column=id")


def test_a_document_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    """A file without blank lines, one without any line, a long value: with what to do."""
    monkeypatch.setattr(text_sources, "LONGEST_BYTES", 100)
    lines = write(tmp_path, "a.txt", "short line\n" * 20)
    with pytest.raises(UsageError, match=r"no blank line for 0 MiB from byte 0 on.*documents=line"):
        texts_of(lines)
    assert len(texts_of(lines, ",documents=line")) == 20
    with pytest.raises(UsageError, match="take documents=block or documents=line"):
        texts_of(lines, ",documents=file")
    with pytest.raises(UsageError, match="line at byte 0 is longer"):
        texts_of(write(tmp_path, "b.txt", "x" * 200))
    pq.write_table(pa.table({"text": ["x" * 200]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="row 1: is longer"):
        texts_of(tmp_path / "a.parquet")

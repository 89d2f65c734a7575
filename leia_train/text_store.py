"""From the documents of a text source to a store like that of shards, with articles without any entity.

They are encoded once, by the builder's own rules: no added token comes from text, and what the manifest says stands around
each document. The store goes by the content of the files and by the tokenizer, so runs may share it. Encoding takes minutes
a gigabyte; tokens are put on the disk as they come, with a note of how far it is, and an encoding that was ended goes on
from the last note. Memory does not grow with the files.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from leia_beam.console import Counter, Tell
from leia_beam.errors import DamagedInput, LeiaError
from leia_beam.tokenization import EncodingOptions, TextEncoder
from leia_beam.tokenizer_identity import TokenizerFiles
from leia_train.files import disk_errors, fsync_file, write_json
from leia_train.shard_folders import BuildTokenizer
from leia_train.store import Store, find_store, finish_store, store_folder, written_store
from leia_train.store_columns import CATEGORIES, COLUMNS
from leia_train.text_sources import TextSource, read_records

TEXT_STORE_VERSION = 1
_NOTE, _TOKENS, _LENGTHS = "_encoding.json", "tokens.bin", "lengths.bin"
_BATCH_CHARACTERS = 1 << 19
_NOTED_CHARACTERS = 1 << 22
"""Between two notes: two or three seconds of work."""
_CHUNK = 1 << 20


def text_store_fingerprint(texts_fingerprint: str, tokenizer: BuildTokenizer) -> str:
    """What the tokens depend on: the texts, and the tokenizer with what it puts around a document."""
    content = [
        TEXT_STORE_VERSION,
        texts_fingerprint,
        hashlib.sha256(tokenizer.tokenizer_json).hexdigest(),
        tokenizer.document_start_ids,
        tokenizer.document_end_ids,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def open_text_store(source: TextSource, tokenizer: BuildTokenizer, output: Path, tell: Tell | None = None) -> Store:
    """The store of a source under `output`, encoded where there is none.

    Raises: DamagedInput for damaged files, or files without any document; UsageError.
    """
    fingerprint = text_store_fingerprint(source.fingerprint, tokenizer)
    folder = store_folder(output, fingerprint)
    with disk_errors(output), _locked(folder):
        store = find_store(folder, fingerprint) or written_store(
            folder, fingerprint, lambda: _Encoding(source, tokenizer, folder, fingerprint, tell).run()
        )
    return replace(store, wikis=(source.name,))


def find_text_store(name: str, texts_fingerprint: str, tokenizer: BuildTokenizer, output: Path) -> Store | None:
    """The store of the texts of a source under `output`, or None where there is none."""
    fingerprint = text_store_fingerprint(texts_fingerprint, tokenizer)
    store = find_store(store_folder(output, fingerprint), fingerprint)
    return None if store is None else replace(store, wikis=(name,))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time encodes into a folder; the others wait, then find the store."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@dataclass(kw_only=True, slots=True)
class _Note:
    """How far an encoding is: `records` of file number `file` are done, and so much stands on the disk."""

    file: int = 0
    records: int = 0
    documents_of_file: int = 0
    documents: int = 0
    tokens: int = 0
    empty: int = 0
    tokens_crc: int = 0
    lengths_crc: int = 0


class _Encoding:
    """One source on its way into the folder `store-….part`."""

    def __init__(self, source: TextSource, tokenizer: BuildTokenizer, final: Path, fingerprint: str, tell: Tell | None):
        self._source, self._tokenizer = source, tokenizer
        self._final, self._fingerprint, self._tell = final, fingerprint, tell
        self._folder = final.with_name(f"{final.name}.part")
        files = TokenizerFiles(
            name=tokenizer.name, tokenizer_json=tokenizer.tokenizer_json, config_json=tokenizer.config_json
        )
        with _parallel():  # the encoder turns it off, for the builder's many processes
            self._encoder = TextEncoder(files, EncodingOptions(document_start="none"))

    def run(self) -> None:
        """Encode what is left, and give the store its name."""
        self._folder.mkdir(exist_ok=True)
        note = self._read_note()
        with (
            _parallel(),
            self._append(_TOKENS, note.tokens) as tokens,
            self._append(_LENGTHS, note.documents) as lengths,
        ):
            self._encode(note, tokens, lengths)
        self._write_other_columns(note)
        words = {"wiki": ["text"], **{name: [] for name in CATEGORIES}}
        finish_store(self._folder, self._final, self._fingerprint, words, self._tokenizer)
        for name in (_NOTE, _LENGTHS):
            (self._final / name).unlink()

    def _read_note(self) -> _Note:
        """The last note whose tokens are on the disk as they were written; else that of a beginning."""
        try:
            content: dict[str, Any] = json.loads((self._folder / _NOTE).read_bytes())
            fingerprint = content.pop("fingerprint")
            note = _Note(**content)
            sums = (_crc(self._folder / _TOKENS, note.tokens), _crc(self._folder / _LENGTHS, note.documents))
        except (OSError, ValueError, KeyError, TypeError):
            return _Note()
        return note if (fingerprint, sums) == (self._fingerprint, (note.tokens_crc, note.lengths_crc)) else _Note()

    @contextmanager
    def _append(self, name: str, count: int) -> Iterator[BinaryIO]:
        """A column of int32 that is cut after `count` values and goes on from there."""
        with (self._folder / name).open("ab") as stream:
            stream.truncate(4 * count)
            yield stream

    def _encode(self, note: _Note, tokens: BinaryIO, lengths: BinaryIO) -> None:
        files = self._source.files
        total = sum(file.size_bytes for file in files)
        done = sum(file.size_bytes for file in files[: note.file])
        progress = Counter(self._tell, f"encode {self._source.name}", total, "bytes", done)
        since = 0
        for number in range(note.file, len(files)):
            file = files[number]
            for batch, records, position in _batches(read_records(self._source, file, note.records)):
                self._write(batch, note, tokens, lengths)
                note.records += records
                note.empty += records - len(batch)
                since += sum(map(len, batch))
                progress.advance(done + position - progress.done)
                if since >= _NOTED_CHARACTERS:
                    since = 0
                    self._keep(note, tokens, lengths)
            if not note.documents_of_file:
                raise DamagedInput(f"--mix {self._source.name}: {file.path} holds no document; leave it out")
            note.file, note.records, note.documents_of_file = number + 1, 0, 0
            done += file.size_bytes
            progress.advance(done - progress.done)
        self._keep(note, tokens, lengths)

    def _write(self, texts: list[str], note: _Note, tokens: BinaryIO, lengths: BinaryIO) -> None:
        start, end = self._tokenizer.document_start_ids, self._tokenizer.document_end_ids
        pieces: list[NDArray[np.int32]] = []
        for encoded in self._encoder.encode_batch(texts, [()] * len(texts)):
            added = self._encoder.added_in(encoded.ids)
            if added:
                raise LeiaError(
                    f"--mix {self._source.name}: a text of {self._source.files[note.file].path} came to the added token "
                    f"{added[0]}, which no text may; please report this tokenizer"
                )
            pieces.append(np.concatenate([np.array(start, "<i4"), encoded.ids.astype("<i4"), np.array(end, "<i4")]))
        content = b"".join(piece.tobytes() for piece in pieces)
        sizes = np.array([len(piece) for piece in pieces], "<i4").tobytes()
        tokens.write(content)
        lengths.write(sizes)
        note.tokens_crc, note.lengths_crc = zlib.crc32(content, note.tokens_crc), zlib.crc32(sizes, note.lengths_crc)
        note.tokens += len(content) // 4
        note.documents += len(pieces)
        note.documents_of_file += len(pieces)

    def _keep(self, note: _Note, tokens: BinaryIO, lengths: BinaryIO) -> None:
        """Put what was encoded on the disk, then the note of it."""
        for stream in (tokens, lengths):
            stream.flush()
            os.fsync(stream.fileno())
        write_json(self._folder / _NOTE, {"fingerprint": self._fingerprint, **asdict(note)})

    def _write_other_columns(self, note: _Note) -> None:
        """The offsets of the documents, their numbers as page ids, and the columns of no entity."""
        lengths = np.memmap(self._folder / _LENGTHS, "<i4", "r", shape=(note.documents,))
        for name, dtype in COLUMNS.items():
            if name == _TOKENS.removesuffix(".bin"):
                continue
            with (self._folder / f"{name}.bin").open("wb") as stream:
                if name in ("token_offsets", "entity_offsets", "name_offsets"):
                    np.zeros(1, dtype).tofile(stream)
                end = 0
                for start in range(0, note.documents, _CHUNK):
                    part = lengths[start : start + _CHUNK].astype(np.int64)
                    if name == "token_offsets":
                        (end + np.cumsum(part)).astype(dtype).tofile(stream)
                        end += int(part.sum())
                    elif name in ("entity_offsets", "wiki_indices"):
                        np.zeros(len(part), dtype).tofile(stream)
                    elif name == "page_ids":
                        np.arange(start, start + len(part), dtype=dtype).tofile(stream)
            fsync_file(self._folder / f"{name}.bin")


@contextmanager
def _parallel() -> Iterator[None]:
    """Let the tokenizer use all cores: the order of its results, and so the store, does not depend on it."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _batches(records: Iterator[tuple[str, int]]) -> Iterator[tuple[list[str], int, int]]:
    """Some documents, how many records they were among, and the byte of the file up to which these go."""
    batch: list[str] = []
    characters = count = position = 0
    for record, position in records:
        count += 1
        if record.strip():
            batch.append(record)
            characters += len(record)
        if characters >= _BATCH_CHARACTERS or count - len(batch) >= _CHUNK:
            yield batch, count, position
            batch, characters, count = [], 0, 0
    if count:
        yield batch, count, position


def _crc(path: Path, count: int) -> int:
    """The CRC-32 of the first `count` int32 of a file.

    Raises: ValueError where there are fewer.
    """
    left, crc = 4 * count, 0
    with path.open("rb") as stream:
        while left:
            piece = stream.read(min(left, _CHUNK))
            if not piece:
                raise ValueError("too short")
            crc = zlib.crc32(piece, crc)
            left -= len(piece)
    return crc

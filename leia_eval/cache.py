"""From a request to its answer of an earlier run, and back: so an interrupted run goes on, and processes share work.

A key is the SHA-256 of everything that decides the answer: the weights' fingerprint, configuration, tokenizer, compute
dtype and backend, and the token ids of the request with its generation options. So two models never share an entry
(lm-eval's cache, keyed by the prompt alone, returns one model's score for another).

A folder holds one file a process, only ever appended to, whole batches at a time: no locks, on any file system that
several nodes see. A line that a kill cut short fails its checksum, is counted and passed over; its request is answered
again. All files are read at the start and when all processes are through.
"""

import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
"""``{"log_likelihood": -1.5}``, or ``{"text": "…", "ended": true}``."""


def request_key(model_key: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """What an answer is stored under."""
    return hashlib.sha256(json.dumps([model_key, request], sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """The answers in a folder, and a file of this process's own to add to."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._own = folder / f"answers-{uuid.uuid4().hex}.jsonl"
        self._answers: dict[str, Answer] = {}
        self.damaged_lines = 0
        self.reload()

    def reload(self) -> None:
        """Reads what all processes have written."""
        self.damaged_lines = 0
        for path in sorted(self._folder.glob("answers-*.jsonl")):
            for line in path.read_bytes().split(b"\n"):
                entry = _parse(line)
                if entry is not None:
                    self._answers[entry[0]] = entry[1]
                elif line:
                    self.damaged_lines += 1

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def add(self, answers: Sequence[tuple[str, Answer]]) -> None:
        """A batch's answers, on disk when this returns."""
        self._answers.update(answers)
        with self._own.open("ab") as file:
            file.write(b"".join(_lines(answers)))
            file.flush()
            os.fsync(file.fileno())


def _lines(answers: Iterable[tuple[str, Answer]]) -> Iterable[bytes]:
    for key, answer in answers:
        body = json.dumps([key, answer], ensure_ascii=True, sort_keys=True, allow_nan=False).encode()
        yield b"%08x %b\n" % (zlib.crc32(body), body)


def _parse(line: bytes) -> tuple[str, Answer] | None:
    checksum, _, body = line.partition(b" ")
    if len(checksum) != 8 or b"%08x" % zlib.crc32(body) != checksum:
        return None
    key, answer = json.loads(body)
    return key, answer

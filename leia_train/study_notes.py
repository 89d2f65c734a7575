"""From what the steps of a study were done with to FOLDER/report/study.json, so that no step is done twice.

The notes only spare work: they may be removed, which costs a scoring from the answers that leia-eval keeps.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from leia_train.files import write_json

NOTES_NAME = "study.json"
SCORED, DRAWN, SEARCHED, COMPARED = "scored", "drawn", "contamination", "compared"
"""The parts of the notes: runs that were scored, the page of the training, the search for test items, the comparison."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """What each step was done with, by part and name, and the file where that stands."""

    path: Path
    keys: dict[str, dict[str, str]]

    def get(self, part: str, name: str = "key") -> str | None:
        """What a step was done with; None where it never was."""
        return self.keys[part].get(name)

    def write(self, part: str, key: str, name: str = "key") -> None:
        """Note what a step was done with.

        Raises: MissingResource where the disk is full or refuses.
        """
        self.keys[part][name] = key
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.keys)


def read_notes(path: Path) -> Notes:
    """The notes of a study so far; none where they are damaged."""
    empty: dict[str, dict[str, str]] = {part: {} for part in (SCORED, DRAWN, SEARCHED, COMPARED)}
    try:
        found = json.loads(path.read_bytes())
        return Notes(path=path, keys={part: dict(found.get(part, {})) for part in empty})
    except (OSError, ValueError, AttributeError, TypeError):
        return Notes(path=path, keys=empty)


def key_of(text: str) -> str:
    """A text as a key: its SHA-256 in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()

"""From a local JSONL file of multiple-choice items to checked documents, and from those to lm-eval's dataset.

lm-eval's own way to local data, ``dataset_path: json``, goes through the cache of `datasets`, which writes to the
user's home and needs a fingerprint to tell two files apart. Here lm-eval's ``custom_dataset`` hook builds the set in
memory from the file as it is now: nothing is cached, so nothing can be stale, and every item is checked once, with
its line, before a model is loaded.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leia_beam.errors import DamagedInput, UsageError

SPLIT = "validation"

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ItemFile:
    """The checked items of one data file; ``lines[i]`` is the 1-based line of ``documents[i]``."""

    path: Path
    sha256: str
    documents: list[Document]
    lines: list[int]

    def place(self, index: int) -> str:
        """Where item `index` stands, as file:line."""
        return f"{self.path}:{self.lines[index]}"


def find_data_file(data_dir: Path, names: Sequence[str], task: str) -> Path:
    """The one file of `names` that `data_dir` holds.

    Raises: UsageError where there is none, or where two could be meant.
    """
    if not data_dir.is_dir():
        raise UsageError(f"--data-dir {data_dir} is not a folder; give the folder that holds the data of task '{task}'")
    found = [path for path in (data_dir / name for name in names) if path.exists()]
    if not found:
        looked = ", ".join(str(data_dir / name) for name in names)
        raise UsageError(f"no data for task '{task}': looked for {looked}; put the file there or change --data-dir")
    if len(found) > 1:
        both = " and ".join(map(str, found))
        raise UsageError(f"two data files for task '{task}': {both}; leave one of them in --data-dir")
    if not found[0].is_file():
        raise UsageError(f"the data of task '{task}' at {found[0]} is not a file")
    return found[0]


def read_items(path: Path, languages: Sequence[str] = ()) -> ItemFile:
    """All items of `path`, each checked; blank lines are passed over.

    languages: the values that an item's ``lang`` may have; none given, any.
    Raises: DamagedInput with file and line for the first item that breaks a rule, UsageError for an unreadable file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the data file {path}: {error.strerror}") from error
    documents: list[Document] = []
    lines: list[int] = []
    line_of_id: dict[str, int] = {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        document = parse_item(line, f"{path}:{number}", languages)
        first = line_of_id.setdefault(document["id"], number)
        if first != number:
            raise DamagedInput(f"item id {document['id']!r} at {path}:{number} was already used on line {first}")
        documents.append(document)
        lines.append(number)
    if not documents:
        raise DamagedInput(f"the data file {path} holds no items")
    return ItemFile(path=path, sha256=hashlib.sha256(content).hexdigest(), documents=documents, lines=lines)


def parse_item(line: bytes, place: str, languages: Sequence[str] = ()) -> Document:
    """The item in `line` with the fields of the schema and no others.

    Raises: DamagedInput with the rule, the value found and `place`.
    """

    def damaged(rule: str) -> DamagedInput:
        return DamagedInput(f"damaged item at {place}: {rule}")

    def text_of(value: object, name: str) -> str:
        if not isinstance(value, str) or not value.strip():
            raise damaged(f"{name} must be text, found {_shown(value)}")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise damaged(f"{name} holds half a surrogate pair, {_shown(value)}") from error
        return value

    def object_of(value: object, name: str, fields: Sequence[str]) -> Document:
        if not isinstance(value, dict):
            raise damaged(f"{name} must be an object with {', '.join(fields)}, found {_shown(value)}")
        missing = [field for field in fields if field not in value]
        if missing:
            raise damaged(f"{name} has no {missing[0]!r}; found {sorted(value)}")
        return value

    try:
        loaded = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(f"not a JSON object in UTF-8 ({error})") from error
    item = object_of(loaded, "the item", ("id", "lang", "question", "answerKey"))
    question = object_of(item["question"], "'question'", ("stem", "choices"))
    choices = object_of(question["choices"], "'choices'", ("label", "text"))
    for field in ("label", "text"):
        if not isinstance(choices[field], list) or len(choices[field]) < 2:
            raise damaged(f"'choices.{field}' must be a list of two or more, found {_shown(choices[field])}")
    labels = [text_of(label, "a choice's label") for label in choices["label"]]
    texts = [text_of(text, "a choice's text") for text in choices["text"]]
    if len(labels) != len(texts):
        raise damaged(f"{len(labels)} labels for {len(texts)} choices")
    if len(set(labels)) != len(labels):
        raise damaged(f"the labels {labels} are not distinct")
    answer = text_of(item["answerKey"], "'answerKey'")
    if answer not in labels:
        raise damaged(f"answerKey {answer!r} is not among the labels {labels}")
    language = text_of(item["lang"], "'lang'")
    if languages and language not in languages:
        raise damaged(f"lang {language!r} where the task is in {' or '.join(map(repr, languages))}")
    return {
        "id": text_of(item["id"], "'id'"),
        "lang": language,
        "question": {
            "stem": text_of(question["stem"], "'question.stem'"),
            "choices": {"label": labels, "text": texts},
        },
        "answerKey": answer,
    }


def load_dataset(
    *,
    data_dir: str | None = None,
    data_files: Sequence[str] = (),
    languages: Sequence[str] = (),
    config_source: str = "a leia task",
    **_metadata: object,
) -> Document:
    """What lm-eval's ``custom_dataset`` calls, with a task's ``dataset_kwargs`` and the run's metadata."""
    import datasets

    task = Path(config_source).stem
    if data_dir is None:
        raise UsageError(
            f"task '{task}' reads local files: give leia-eval --data-dir DIR, or lm-eval --metadata "
            """'{"data_dir": "DIR"}'"""
        )
    items = read_items(find_data_file(Path(data_dir), data_files, task), languages)
    return {SPLIT: datasets.Dataset.from_list(items.documents)}


def _shown(value: object, limit: int = 60) -> str:
    shown = repr(value)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"

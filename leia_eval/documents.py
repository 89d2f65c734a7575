"""From a task's data, in a local folder or on the hub, to checked documents, and from those to lm-eval's dataset.

lm-eval's own way to local data, ``dataset_path: json``, goes through the cache of `datasets`, which writes to the
user's home and needs a fingerprint to tell two files apart. Here lm-eval's ``custom_dataset`` hook builds the set in
memory from the file as it is now: nothing is cached, so nothing can be stale, and every item is checked once, with
its place, before a model is loaded. Without a folder the set is read from the hub, through the same checks.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leia_beam.errors import DamagedInput, MissingResource, UsageError
from leia_eval.data_files import Row
from leia_eval.forms import Document, form_named

SPLIT = "validation"
SHOT_SPLIT = "shots"
"""Our own names for the evaluated split and for the one that shots come from, whatever the source calls them."""


@dataclass(frozen=True, kw_only=True)
class HubSet:
    """A data set on the hub; `shot_split` is None where there is only one split."""

    path: str
    name: str | None
    split: str
    shot_split: str | None = None

    def __str__(self) -> str:
        return f"{self.path} ({self.name})" if self.name else self.path


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a task's documents are: what its ``dataset_kwargs`` say."""

    form: str
    languages: tuple[str, ...] = ()
    data_files: tuple[str, ...]
    shot_files: tuple[str, ...] = ()
    shot_ids: tuple[str, ...] = ()
    """The ids of the reference's fixed list of shots."""
    hub: HubSet | None = None
    get_from: str = ""
    """Who publishes the data, for a message."""

    @classmethod
    def of(cls, dataset_kwargs: Mapping[str, Any]) -> "Source":
        """The source that a task's YAML describes."""
        hub = dataset_kwargs.get("hub")
        named = {
            name: tuple(dataset_kwargs.get(name, ())) for name in ("languages", "data_files", "shot_files", "shot_ids")
        }
        return cls(
            form=dataset_kwargs["form"],
            hub=HubSet(**hub) if hub else None,
            get_from=dataset_kwargs.get("get_from", ""),
            **named,
        )


@dataclass(frozen=True, kw_only=True)
class ItemFile:
    """The checked items of one file or split; ``places[i]`` is where ``documents[i]`` stands."""

    name: str
    sha256: str
    documents: list[Document] = field(repr=False)
    places: list[str] = field(repr=False)
    without_answer: int = 0
    """Rows that the set itself marks as having no answer, or that are of another language: read, not evaluated."""

    @property
    def empty_choices(self) -> int:
        """Items with a choice that is empty text (six of X-CSQA's German ones are)."""
        return sum(
            any(not text.strip() for text in document["question"]["choices"]["text"])
            for document in self.documents
            if isinstance(document["question"], dict)
        )


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A task's items, and those that shots come from where they are a set of their own."""

    items: ItemFile
    shots: ItemFile | None


def read_source(source: Source, data_dir: Path | None, task: str) -> TaskData:
    """The data of a task, from `data_dir`, or from the hub where that is None.

    Raises: UsageError for missing data, DamagedInput for a damaged item, MissingResource where the hub is not reached.
    """
    if data_dir is None:
        return _read_hub(source, task)
    path = find_data_file(data_dir, source.data_files, task, source.get_from or str(source.hub or ""))
    found = [data_dir / name for name in source.shot_files if (data_dir / name).is_file()]
    return TaskData(
        items=read_items(path, source.form, source.languages),
        shots=read_items(found[0], source.form, source.languages) if found else None,
    )


def find_data_file(data_dir: Path, names: Sequence[str], task: str, get_from: str = "") -> Path:
    """The one file of `names` that `data_dir` holds.

    Raises: UsageError where there is none, or where two could be meant.
    """
    if not data_dir.is_dir():
        raise UsageError(f"--data-dir {data_dir} is not a folder; give the folder that holds the data of task '{task}'")
    found = [path for path in (data_dir / name for name in names) if path.exists()]
    if not found:
        looked = ", ".join(str(data_dir / name) for name in names)
        where = f" (published as {get_from})" if get_from else ""
        raise UsageError(
            f"no data for task '{task}': looked for {looked}; put the file there{where} or change --data-dir"
        )
    if len(found) > 1:
        both = " and ".join(map(str, found))
        raise UsageError(f"two data files for task '{task}': {both}; leave one of them in --data-dir")
    if not found[0].is_file():
        raise UsageError(f"the data of task '{task}' at {found[0]} is not a file")
    return found[0]


def read_items(path: Path, form: str = "xcsr", languages: Sequence[str] = ()) -> ItemFile:
    """All items of `path`, each checked.

    languages: the values that an item's ``lang`` may have; none given, any.
    Raises: DamagedInput with file and place for the first item that breaks a rule, UsageError for an unreadable file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the data file {path}: {error.strerror}") from error
    rows = form_named(form).rows(content, str(path))
    return _checked_items(path.name, hashlib.sha256(content).hexdigest(), rows, form, languages, str(path))


def load_dataset(
    *,
    data_dir: str | None = None,
    config_source: str = "a leia task",
    dataset_kwargs: Mapping[str, Any] | None = None,
    **described: Any,
) -> dict[str, Any]:
    """What lm-eval's ``custom_dataset`` calls, with a task's ``dataset_kwargs`` and the run's metadata."""
    import datasets

    data = read_source(
        Source.of(dataset_kwargs or described), Path(data_dir) if data_dir else None, Path(config_source).stem
    )
    splits = {SPLIT: datasets.Dataset.from_list(data.items.documents)}
    if data.shots is not None:
        splits[SHOT_SPLIT] = datasets.Dataset.from_list(data.shots.documents)
    return splits


def _read_hub(source: Source, task: str) -> TaskData:
    if source.hub is None:
        raise UsageError(
            f"task '{task}' reads local files (published as {source.get_from}): give leia-eval --data-dir DIR, or "
            """lm-eval --metadata '{"data_dir": "DIR"}'"""
        )
    import datasets

    def read(split: str) -> ItemFile:
        assert source.hub is not None
        try:
            found = datasets.load_dataset(source.hub.path, source.hub.name, split=split)
        except (OSError, ValueError, RuntimeError) as error:
            # no network, no such set, or one that only a loading script makes: `datasets` says these in the three
            reason = " ".join(str(error).split())
            raise MissingResource(
                f"cannot read {source.hub}, split {split}, from the hub ({reason}); give --data-dir DIR with "
                f"{' or '.join(source.data_files)}"
            ) from error
        rows = [dict(row) for row in found]
        digest = hashlib.sha256("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())
        name = f"hub:{source.hub}/{split}"
        numbered = ((f"{name}:{number}", row) for number, row in enumerate(rows, start=1))
        return _checked_items(name, digest.hexdigest(), numbered, source.form, source.languages, name)

    return TaskData(items=read(source.hub.split), shots=read(source.hub.shot_split) if source.hub.shot_split else None)


def _checked_items(
    name: str, sha256: str, rows: Iterable[tuple[str, Row]], form: str, languages: Sequence[str], where: str
) -> ItemFile:
    convert = form_named(form).convert
    documents: list[Document] = []
    places: list[str] = []
    place_of_id: dict[str, str] = {}
    passed_over = 0
    for place, row in rows:
        document = convert(row, place, languages)
        if document is None:
            passed_over += 1
            continue
        first = place_of_id.setdefault(document["id"], place)
        if first != place:
            raise DamagedInput(f"item id {document['id']!r} at {place} was already used at {first}")
        documents.append(document)
        places.append(place)
    if not documents:
        raise DamagedInput(f"the data file {where} holds no items")
    return ItemFile(name=name, sha256=sha256, documents=documents, places=places, without_answer=passed_over)

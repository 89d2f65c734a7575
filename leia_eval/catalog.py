"""From the YAML files under ``leia_eval/tasks`` to the tasks that a command line can name.

Reads only what listing and checking need (name, tags, data), with yaml alone: importing lm-eval takes a second, and a
mistyped task name should not wait for it. lm-eval reads the same files itself when a task is run. Groups name tasks
that lm-eval brings with it; of these only the name is known here.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leia_beam.errors import UsageError
from leia_eval.documents import Source

TASKS_FOLDER = Path(__file__).parent / "tasks"


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """One task's file, and what it says about its data; `source` is None for a task that lm-eval brings."""

    name: str
    path: Path
    version: str
    tags: tuple[str, ...]
    source: Source | None
    metadata: Mapping[str, Any]

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that an item may be in."""
        return self.source.languages if self.source else ()

    @property
    def data_files(self) -> tuple[str, ...]:
        """The names under which a folder may hold the items."""
        return self.source.data_files if self.source else ()

    @property
    def language(self) -> str | None:
        """The task's language, where it is known."""
        return self.languages[0] if self.languages else None


def read_catalog(folder: Path = TASKS_FOLDER) -> dict[str, TaskEntry]:
    """All tasks under `folder`, and those of lm-eval that its groups name, by name, sorted."""
    entries = [entry for path in sorted(folder.glob("**/*.yaml")) for entry in _read_entries(path)]
    return {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.name)}


def select_tasks(names: Iterable[str], catalog: Mapping[str, TaskEntry]) -> list[TaskEntry]:
    """The entries of `names` (tasks, or tags and groups that stand for all their tasks), each once, in the order given.

    Raises: UsageError with the nearest names for an unknown one.
    """
    by_tag: dict[str, list[TaskEntry]] = {}
    for entry in catalog.values():
        for tag in entry.tags:
            by_tag.setdefault(tag, []).append(entry)
    selected: dict[str, TaskEntry] = {}
    for name in names:
        if name not in catalog and name not in by_tag:
            raise UsageError(f"unknown task '{name}'; {nearest(name, [*catalog, *by_tag], 'leia-eval ls')}")
        for entry in [catalog[name]] if name in catalog else by_tag[name]:
            selected[entry.name] = entry
    if not selected:
        raise UsageError("no task was named; `leia-eval ls` lists them")
    return list(selected.values())


def nearest(name: str, known: Iterable[str], listing: str) -> str:
    """The end of a message about an unknown name: the nearest known ones, or where all of them are listed.

    >>> nearest("--shot", ["--shots", "--limit"], "leia-eval run --help")
    'did you mean --shots?'
    """
    close = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"`{listing}` lists what there is"


def _read_entries(path: Path) -> list[TaskEntry]:
    config = _load(path)
    metadata = config.get("metadata", {})
    version = str(metadata["version"])
    if "group" in config:
        members = config["task"]
        return [
            TaskEntry(name=name, path=path, version=version, tags=(config["group"],), source=None, metadata={})
            for name in members
        ]
    tags = config.get("tag", [])
    return [
        TaskEntry(
            name=config["task"],
            path=path,
            version=version,
            tags=(tags,) if isinstance(tags, str) else tuple(tags),
            source=Source.of(config["dataset_kwargs"]),
            metadata=metadata,
        )
    ]


def _load(path: Path) -> dict[str, Any]:
    """A task's YAML over the file that it includes; ``!function`` stays a string."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    config = yaml.load(path.read_text(encoding="utf-8"), Loader)  # a SafeLoader: builds no objects
    included = config.pop("include", None)
    return {**_load(path.parent / included), **config} if included else config

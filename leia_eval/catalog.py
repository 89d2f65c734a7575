"""From the YAML files under ``leia_eval/tasks`` to the tasks that a command line can name.

Reads only what listing and checking need (name, tags, data files), with yaml alone: importing lm-eval takes a second,
and a mistyped task name should not wait for it. lm-eval reads the same files itself when a task is run.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leia_beam.errors import UsageError

TASKS_FOLDER = Path(__file__).parent / "tasks"


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """One task's file, and what it says about its data."""

    name: str
    path: Path
    version: str
    tags: tuple[str, ...]
    languages: tuple[str, ...]
    data_files: tuple[str, ...]


def read_catalog(folder: Path = TASKS_FOLDER) -> dict[str, TaskEntry]:
    """All tasks under `folder`, by name, sorted."""
    entries = (_read_entry(path) for path in sorted(folder.glob("**/*.yaml")))
    return {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.name)}


def select_tasks(names: Iterable[str], catalog: Mapping[str, TaskEntry]) -> list[TaskEntry]:
    """The entries of `names` (tasks, or tags that stand for all their tasks), each once, in the order given.

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


def _read_entry(path: Path) -> TaskEntry:
    config = _load(path)
    data = config.get("dataset_kwargs", {})
    tags = config.get("tag", [])
    return TaskEntry(
        name=config["task"],
        path=path,
        version=str(config["metadata"]["version"]),
        tags=(tags,) if isinstance(tags, str) else tuple(tags),
        languages=tuple(data.get("languages", ())),
        data_files=tuple(data.get("data_files", ())),
    )


def _load(path: Path) -> dict[str, Any]:
    """A task's YAML over the file that it includes; ``!function`` stays a string."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    config = yaml.load(path.read_text(encoding="utf-8"), Loader)  # a SafeLoader: builds no objects
    included = config.pop("include", None)
    return {**_load(path.parent / included), **config} if included else config

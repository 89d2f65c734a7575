"""From options and data files to what the scores of a model depend on, and to how a folder's results were made otherwise.

Neither a model nor a prompt is needed, and of data a file's SHA-256 alone, so that a study can ask for all of its runs before
it trains any. Data of the hub have no file, and are compared where a run reads them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from leia_beam.errors import DamagedInput, OtherBuild, UsageError
from leia_eval.catalog import TaskEntry, read_catalog, select_tasks
from leia_eval.documents import find_data_file
from leia_eval.model_options import ModelOptions
from leia_eval.preparing import PromptOptions
from leia_eval.results import scored_options
from leia_eval.run_folder import RESULTS, Json, read_results


def conditions(prompts: PromptOptions, model: ModelOptions) -> Json:
    """Model, options, and by task the sums of its items' and its shots' files; None for what is not there.

    Raises: UsageError for an unknown task.
    """
    entries = select_tasks(prompts.tasks, read_catalog())
    return {
        "model": str(model.model),
        "options": scored_options(prompts, model),
        "tasks": {entry.name: _sums(entry, prompts.data_dir) for entry in entries},
    }


def differences(found: Json, folder: Path) -> list[str]:
    """What a folder's results were made with otherwise than `conditions` found; nothing where it holds no results."""
    if not (folder / RESULTS).is_file():
        return []
    try:
        results = read_results(folder)
        stored = {task["name"]: (task["data_sha256"], task["shots_sha256"]) for task in results["tasks"]}
        return [*_other_options(results["options"], found["options"]), *_other_tasks(stored, found["tasks"])]
    except (DamagedInput, UsageError, KeyError, TypeError):
        return ["its results cannot be read"]


def check_results(differing: Sequence[str], folder: Path) -> None:
    """Raises: OtherBuild where there are differences."""
    if differing:
        raise OtherBuild(
            f"--output {folder} holds the results of another run ({'; '.join(differing)}); give another folder or --overwrite"
        )


def _other_options(stored: Json, now: Json) -> Iterator[str]:
    for name, value in now.items():
        if stored.get(name) != value:
            yield f"{name} {stored.get(name)} there, {value} now"


def _other_tasks(stored: dict[str, tuple[str, str | None]], now: dict[str, Json]) -> Iterator[str]:
    """Tasks that came or went, and those whose files have changed. lm-eval's own are groups of others: they are passed over."""
    own = {name for name, entry in read_catalog().items() if entry.source is not None}
    for name in sorted((stored.keys() ^ now.keys()) & own):
        yield f"task {name} {'there' if name in stored else 'now'} alone"
    for name in sorted(stored.keys() & now.keys()):
        (items, shots), sums = stored[name], now[name]
        if sums["items"] is not None and sums["items"] != items:
            yield f"{name} of other items"
        elif sums["items"] is not None and shots is not None and sums["shots"] != shots:
            yield f"{name} with other shots"


def _sums(entry: TaskEntry, data_dir: Path | None) -> Json:
    """The SHA-256 of a task's files in a local folder."""
    sums: Json = {"items": None, "shots": None}
    if entry.source is None or data_dir is None:
        return sums
    try:
        sums["items"] = _sum_of(find_data_file(data_dir, entry.source.data_files, entry.name))
    except (UsageError, OSError):
        return sums  # the run itself says what is missing
    for name in entry.source.shot_files:
        if (data_dir / name).is_file():
            sums["shots"] = _sum_of(data_dir / name)
            break
    return sums


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""From a run's results to its folder, and back with every file checked.

    OUTPUT/results.json         last to be written; a pure function of model, data, options and versions; no times
           samples/<task>.jsonl one line an item: prompt's hash, log-likelihoods, prediction, right or wrong
           report.md, report.html, run.json (times, paths, host's Python), eval.log (what the libraries said)

Each file is written beside its place and renamed. A folder without results.json is an unfinished run.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leia_beam.errors import DamagedInput, OtherBuild, UsageError

RESULTS = "results.json"
FORMAT = 3

Json = dict[str, Any]
Samples = dict[str, list[Json]]  # by task, in the data file's order


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A finished run as read back: its results, and by task its samples in the data file's order."""

    folder: Path
    results: Json
    samples: Samples


def to_json(value: object) -> bytes:
    """`value` as JSON with sorted keys; a NaN is refused."""
    return (json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def to_jsonl(rows: Iterable[object]) -> bytes:
    """One line a row."""
    return "".join(json.dumps(row, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n" for row in rows).encode()


def write_file(path: Path, content: bytes) -> None:
    """`content` under `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def prepare_folder(folder: Path, key: Json, *, overwrite: bool) -> None:
    """Makes `folder` ready for the run that `key` names (model, data and options).

    Raises: OtherBuild where it holds the results of another run; UsageError for a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file; give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESULTS
    if path.exists() and not overwrite:
        try:
            stored = _read_json(path).get("key", {})
            differing = sorted(name for name, value in key.items() if stored.get(name) != value)
        except DamagedInput:
            differing = ["everything"]
        if differing:
            raise OtherBuild(
                f"--output {folder} holds the results of another run ({', '.join(differing)} differ); "
                "give another folder or --overwrite"
            )


def write_run(
    folder: Path,
    results: Json,
    samples: Samples,
    pages: dict[str, bytes],
    run: Json,
) -> Json:
    """Writes all files, results.json last; returns the results with each samples file's SHA-256."""
    (folder / RESULTS).unlink(missing_ok=True)
    for stale in (folder / "samples").glob("*.jsonl"):
        if stale.stem not in samples:
            stale.unlink()
    for task in results["tasks"]:
        content = to_jsonl(samples[task["name"]])
        task["samples_sha256"] = hashlib.sha256(content).hexdigest()
        write_file(folder / "samples" / f"{task['name']}.jsonl", content)
    for name, content in pages.items():
        write_file(folder / name, content)
    write_file(folder / "run.json", to_json(run))
    write_file(folder / RESULTS, to_json(results))
    return results


def read_results(folder: Path) -> Json:
    """What results.json of a finished run holds.

    Raises: UsageError where there is none or it is of another format, DamagedInput where it is damaged.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise UsageError(f"{folder} holds no {RESULTS}; give the --output folder of a finished `leia-eval run`")
    results = _read_json(path)
    if results.get("format") != FORMAT:
        raise UsageError(f"{path} has format {results.get('format')!r}; this leia-eval reads format {FORMAT}")
    lacking = [part for part in ("model", "options", "tasks", "versions") if part not in results]
    if lacking:
        raise DamagedInput(f"{path} is damaged (no {lacking[0]!r}); run the evaluation again")
    return results


def read_run(folder: Path) -> StoredRun:
    """A finished run.

    Raises: UsageError where there is none, DamagedInput where a file is not what results.json says.
    """
    results, path = read_results(folder), folder / RESULTS
    samples = {}
    for task in results["tasks"]:
        file = folder / "samples" / f"{task['name']}.jsonl"
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DamagedInput(f"cannot read the samples {file}: {error.strerror}; run the evaluation again") from error
        if hashlib.sha256(content).hexdigest() != task["samples_sha256"]:
            raise DamagedInput(f"{file} is not the file that {path} names (SHA-256 differs); run the evaluation again")
        samples[task["name"]] = [json.loads(line) for line in content.split(b"\n") if line]
    return StoredRun(folder=folder, results=results, samples=samples)


def _read_json(path: Path) -> Json:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedInput(f"{path} is damaged ({error}); run the evaluation again") from error
    if not isinstance(value, dict):
        raise DamagedInput(f"{path} is damaged (not a JSON object); run the evaluation again")
    return value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""From two or more stored runs to paired differences, task by task; nothing is evaluated again.

The first run is the base, and every other is compared with it on the same items. Runs are comparable only where data,
prompts and compute dtype are equal: everything else that differs is named beside the numbers.
"""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from leia_beam.errors import DamagedInput, UsageError
from leia_eval import stats
from leia_eval.run_folder import FORMAT, Json, StoredRun

METRICS = ("acc", "acc_norm", "acc_bytes")
_MUST_AGREE = ("data_sha256", "prompts_sha256", "version")


def compare_runs(runs: Sequence[tuple[str, StoredRun]], *, seed: int) -> Json:
    """Every run after the first against the first; what ``compare --output X.json`` holds.

    Raises: UsageError where two runs did not see the same data and prompts, or share no task.
    """
    (base_name, base), others = runs[0], runs[1:]
    shared = [task["name"] for task in base.results["tasks"] if all(task["name"] in run.samples for _, run in others)]
    if not shared:
        raise UsageError(f"the runs {', '.join(name for name, _ in runs)} have no task in common")
    for name, run in others:
        _check_comparable(base_name, base, name, run, shared)
    rows = [
        _compare_task(task, metric, base, name, run, seed)
        for task in shared
        for name, run in others
        for metric in METRICS
    ]
    return {
        "format": FORMAT,
        "base": base_name,
        "runs": {name: {part: run.results[part] for part in ("model", "options", "versions")} for name, run in runs},
        "seed": seed,
        "resamples": stats.RESAMPLES,
        "rows": rows,
        "notes": _notes(runs, shared),
    }


def _check_comparable(base_name: str, base: StoredRun, name: str, run: StoredRun, shared: Sequence[str]) -> None:
    for task in shared:
        first, second = _task(base, task), _task(run, task)
        differing = [field for field in _MUST_AGREE if first[field] != second[field]]
        if differing:
            raise UsageError(
                f"{base_name} and {name} cannot be compared on {task}: {' and '.join(differing)} differ; "
                "run both with the same --data-dir, --shots, --limit and --seed"
            )
        if [row["id"] for row in base.samples[task]] != [row["id"] for row in run.samples[task]]:
            raise DamagedInput(f"the samples of {task} in {base.folder} and {run.folder} are of different items")
    first, second = base.results["model"]["computed_dtype"], run.results["model"]["computed_dtype"]
    if first != second:
        raise UsageError(f"{base_name} was computed in {first} and {name} in {second}; run both with one --dtype")


def _compare_task(task: str, metric: str, base: StoredRun, name: str, run: StoredRun, seed: int) -> Json:
    first, second = base.samples[task], run.samples[task]
    found = stats.compare_items(
        np.array([row[metric] for row in first]), np.array([row[metric] for row in second]), seed=seed
    )
    pairs = list(zip(first, second, strict=True))
    return {
        "task": task,
        "metric": metric,
        "run": name,
        "chance": _task(base, task)["chance"],
        **asdict(found),
        "only_base_ids": [a["id"] for a, b in pairs if a[metric] > b[metric]],
        "only_other_ids": [a["id"] for a, b in pairs if b[metric] > a[metric]],
    }


def _notes(runs: Sequence[tuple[str, StoredRun]], shared: Sequence[str]) -> list[str]:
    notes = [
        "One checkpoint an arm: the intervals are over items, and the noise of training is not in them.",
        "p values are of single tests; nothing is corrected for their number.",
    ]
    (base_name, base), others = runs[0], runs[1:]
    for name, run in others:
        for package, version in base.results["versions"].items():
            if run.results["versions"].get(package) != version:
                notes.append(
                    f"{package}: {base_name} ran with {version}, {name} with {run.results['versions'].get(package)}."
                )
        for field in ("stored_dtypes", "tokenizer_sha256", "parameters"):
            if run.results["model"][field] != base.results["model"][field]:
                notes.append(
                    f"{base_name} and {name} differ in {field}: {_plain(base.results['model'][field])} and "
                    f"{_plain(run.results['model'][field])}."
                )
        for option in ("device", "batch_size"):
            if run.results["options"][option] != base.results["options"][option]:
                notes.append(
                    f"{base_name} and {name} differ in {option}: {base.results['options'][option]} and "
                    f"{run.results['options'][option]}."
                )
        if run.results["model"]["weights_sha256"] == base.results["model"]["weights_sha256"]:
            notes.append(f"{base_name} and {name} have the same weights.")
    for name, run in runs:
        left_out = sorted(set(run.samples) - set(shared))
        if left_out:
            notes.append(f"Not in all runs, left out: {', '.join(left_out)} of {name}.")
    return notes


def _task(run: StoredRun, name: str) -> Json:
    return next(task for task in run.results["tasks"] if task["name"] == name)


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

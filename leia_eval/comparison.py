"""From stored runs to paired differences of arms, task by task; nothing is evaluated again.

An arm is one run or several (training seeds). Every arm is compared with the first, and `leia`, where an arm has that
name, with every other. Runs are comparable only where data, prompts and compute dtype are equal: everything else that
differs is named beside the numbers. One endpoint is primary, fixed before; Holm's adjustment is over all the rest.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from leia_beam.errors import DamagedInput, UsageError
from leia_eval import stats
from leia_eval.run_folder import FORMAT, Json, StoredRun

_MUST_AGREE = ("data_sha256", "prompts_sha256", "version")
_BINARY = ("acc", "acc_norm", "acc_bytes", "acc_pmi", "exact_match", "jasquad_match")
ENGLISH_TASKS = ("leia_xcsqa_en", "leia_xcodah_en", "leia_xnli_en")

Arms = Sequence[tuple[str, Sequence[StoredRun]]]


@dataclass(frozen=True, kw_only=True)
class Primary:
    """The endpoint that was fixed before: the mean over the languages (without English) of `arm` minus `against`."""

    arm: str = "leia"
    against: str = "plain"
    metric: str | None = None
    """None: each task's own first metric."""
    groups: tuple[str, ...] = ()
    """Tasks of these names and groups (tags); none given, all."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What is compared how. `seen`: by task, the ids of items whose text the training shards hold."""

    seed: int = 42
    primary: Primary = field(default_factory=Primary)
    floor: StoredRun | None = None
    seen: Mapping[str, Collection[str]] = field(default_factory=dict)


def compare_runs(arms: Sequence[tuple[str, StoredRun | Sequence[StoredRun]]], *, seed: int) -> Json:
    """The comparison with everything else as it is by default."""
    return compare_arms(
        [(name, [runs] if isinstance(runs, StoredRun) else runs) for name, runs in arms], CompareOptions(seed=seed)
    )


def compare_arms(arms: Arms, options: CompareOptions) -> Json:
    """All contrasts on all shared tasks; what ``compare --output X.json`` holds.

    Raises: UsageError where two runs did not see the same data and prompts, or share no task.
    """
    named = [(_run_name(name, i, runs), run) for name, runs in arms for i, run in enumerate(runs)]
    (first_name, first), others = named[0], named[1:]
    shared = [task["name"] for task in first.results["tasks"] if all(task["name"] in run.samples for _, run in others)]
    if not shared:
        raise UsageError(f"the runs {', '.join(name for name, _ in named)} have no task in common")
    for name, run in others:
        _check_comparable(first_name, first, name, run, shared)
    by_name = dict(arms)
    contrasts = _contrasts([name for name, _ in arms])
    rows = [
        row
        for task in shared
        for base, other in contrasts
        for metric in _metrics(named, task)
        for row in _rows_of(task, metric, base, by_name[base], other, by_name[other], options)
    ]
    primary = _primary_row(by_name, shared, first, options)
    adjusted = stats.holm([row["p"] for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row["p_holm"] = p
    return {
        "format": FORMAT,
        "base": arms[0][0],
        "arms": {name: [_run_name(name, i, runs) for i in range(len(runs))] for name, runs in arms},
        "runs": {name: {part: run.results[part] for part in ("model", "options", "versions")} for name, run in named},
        "tasks": {
            task: {**_task_facts(_task(first, task), options), "metric": next(iter(_metrics(named, task)), None)}
            for task in shared
        },
        "flags": {
            task: {name: run_task["flags"] for name, run in named if (run_task := _task(run, task))["flags"]}
            for task in shared
            if _task(first, task)["flags"]
        },
        "seed": options.seed,
        "resamples": stats.RESAMPLES,
        "primary": primary,
        "rows": rows,
        "notes": _notes(arms, named, shared, primary, options),
    }


def _run_name(arm: str, index: int, runs: Sequence[StoredRun]) -> str:
    return arm if len(runs) == 1 else f"{arm}[{index + 1}]"


def _contrasts(names: Sequence[str]) -> list[tuple[str, str]]:
    """(base, other) pairs: each arm against the first, then leia against each that is left."""
    found = [(names[0], name) for name in names[1:]]
    if "leia" in names[1:]:
        found += [(name, "leia") for name in names[1:] if name != "leia"]
    return found


def _metrics(named: Sequence[tuple[str, StoredRun]], task: str) -> list[str]:
    """The metrics that all runs have (JaSQuAD's need packages that one machine may lack), the task's main one first."""
    first = named[0][1]
    scores = [
        name for name in _task(first, task)["scores"] if all(name in _task(run, task)["scores"] for _, run in named)
    ]
    main = _task(first, task)["metric"]
    ordered = [*(name for name in _BINARY if name in scores), *(name for name in scores if name not in _BINARY)]
    return [*([main] if main in scores else []), *(metric for metric in ordered if metric != main)]


def _check_comparable(base_name: str, base: StoredRun, name: str, run: StoredRun, shared: Sequence[str]) -> None:
    for task in shared:
        first, second = _task(base, task), _task(run, task)
        differing = [part for part in _MUST_AGREE if first[part] != second[part]]
        if differing:
            raise UsageError(
                f"{base_name} and {name} cannot be compared on {task}: {' and '.join(differing)} differ; "
                "run both with the same --data-dir, --shots, --limit and --seed"
            )
        if [row["id"] for row in base.samples[task]] != [row["id"] for row in run.samples[task]]:
            raise DamagedInput(f"the samples of {task} in {base.folder} and {run.folder} are of different items")
    first_dtype, second_dtype = (of.results["model"]["computed_dtype"] for of in (base, run))
    if first_dtype != second_dtype:
        raise UsageError(
            f"{base_name} was computed in {first_dtype} and {name} in {second_dtype}; run both with one --dtype"
        )


def _rows_of(
    task: str,
    metric: str,
    base: str,
    base_runs: Sequence[StoredRun],
    other: str,
    other_runs: Sequence[StoredRun],
    options: CompareOptions,
) -> list[Json]:
    """The contrast on all items, and on clean and seen ones where that is known."""
    samples = base_runs[0].samples[task]
    subsets = {"all": list(range(len(samples)))}
    if task in options.seen:
        marked = [row["id"] in options.seen[task] for row in samples]
        subsets["clean"] = [i for i, seen in enumerate(marked) if not seen]
        subsets["seen"] = [i for i, seen in enumerate(marked) if seen]
    return [
        {
            "task": task,
            "language": _task(base_runs[0], task)["language"],
            "metric": metric,
            "against": base,
            "run": other,
            "items": subset,
            "chance": _task(base_runs[0], task)["chance"],
            "floor": _floor(task, metric, options),
            **_contrast(task, metric, base_runs, other_runs, indices, options.seed),
        }
        for subset, indices in subsets.items()
        if indices
    ]


def _contrast(
    task: str,
    metric: str,
    base_runs: Sequence[StoredRun],
    other_runs: Sequence[StoredRun],
    indices: Sequence[int],
    seed: int,
) -> Json:
    base, other = (_scores(runs, task, metric, indices) for runs in (base_runs, other_runs))
    samples = base_runs[0].samples[task]
    clusters = [samples[i]["cluster"] for i in indices]
    single = len(base) == len(other) == 1
    won: Json = {}
    if single and metric in _BINARY:
        ids = [samples[i]["id"] for i in indices]
        won["only_base_ids"] = [id_ for id_, a, b in zip(ids, base[0], other[0], strict=True) if a > b]
        won["only_other_ids"] = [id_ for id_, a, b in zip(ids, base[0], other[0], strict=True) if b > a]
        if len(set(clusters)) == len(clusters):
            found = asdict(stats.compare_items(base[0], other[0], seed=seed))
            return {**found, **won, "p": found["p_mcnemar"], "test": "McNemar", "clusters": len(indices)}
    difference = stats.two_level_difference([stats.Clustered.of(clusters, base, other)], seed=seed)
    return {
        "n": len(indices),
        "clusters": len(set(clusters)),
        **asdict(difference),
        "detectable": difference.detectable,
        "p_mcnemar": stats.mcnemar_exact(len(won["only_base_ids"]), len(won["only_other_ids"])) if won else None,
        "only_base": len(won["only_base_ids"]) if won else None,
        "only_other": len(won["only_other_ids"]) if won else None,
        "test": "bootstrap",
        **won,
    }


def _primary_row(
    arms: Mapping[str, Sequence[StoredRun]], shared: Sequence[str], first: StoredRun, options: CompareOptions
) -> Json | None:
    primary = options.primary
    if primary.arm not in arms or primary.against not in arms:
        return None
    chosen = [
        task
        for task in shared
        if _task(first, task)["language"] != "en"
        and (not primary.groups or {task, _task(first, task)["group"]} & set(primary.groups))
    ]
    clustered = []
    for task in chosen:
        metric = primary.metric or _task(first, task)["metric"]
        of_both = [run for name in (primary.against, primary.arm) for run in arms[name]]
        if any(metric not in _task(run, task)["scores"] for run in of_both):
            raise UsageError(
                f"the primary endpoint's metric {metric!r} is none of {task}'s in all runs; name another in the recipe"
            )
        samples = first.samples[task]
        indices = range(len(samples))
        base, other = (_scores(arms[name], task, metric, indices) for name in (primary.against, primary.arm))
        group = _task(first, task)["group"]  # items of one name in two sets are no cluster
        clustered.append(stats.Clustered.of([f"{group}\0{row['cluster']}" for row in samples], base, other))
    if not clustered:
        return None
    found = stats.two_level_difference(clustered, seed=options.seed)
    return {
        "arm": primary.arm,
        "against": primary.against,
        "metric": primary.metric,
        "tasks": chosen,
        **asdict(found),
        "detectable": found.detectable,
        "seeds": [len(arms[primary.against]), len(arms[primary.arm])],
    }


def _scores(runs: Sequence[StoredRun], task: str, metric: str, indices: Sequence[int]) -> np.ndarray:
    """(runs, items)"""
    return np.array([[float(run.samples[task][i][metric]) for i in indices] for run in runs])


def _floor(task: str, metric: str, options: CompareOptions) -> float | None:
    if options.floor is None or task not in options.floor.samples:
        return None
    score = _task(options.floor, task)["scores"].get(metric)
    return None if score is None else float(score["value"])


def _task_facts(task: Json, options: CompareOptions) -> Json:
    parts = ("language", "group", "metric", "n", "clusters", "from_wikipedia", "data_sha256", "prompts_sha256")
    seen = options.seen.get(task["name"])
    return {**{part: task[part] for part in parts}, "seen": None if seen is None else len(seen)}


def _notes(
    arms: Arms,
    named: Sequence[tuple[str, StoredRun]],
    shared: Sequence[str],
    primary: Json | None,
    options: CompareOptions,
) -> list[str]:
    notes = []
    alone = [name for name, runs in arms if len(runs) == 1]
    if alone:
        notes.append(
            f"One checkpoint an arm ({', '.join(alone)}): the intervals are over items, and the noise of training is not "
            "in them."
        )
    if not any(_task(named[0][1], task)["language"] == "en" for task in shared):
        groups = {_task(named[0][1], task)["group"] for task in shared}
        own = [name for name in ENGLISH_TASKS if name.rpartition("_")[0] in groups]
        notes.append(
            "No English task (regression): what the training cost in English is not seen; run every arm on "
            f"{' and '.join(own or ENGLISH_TASKS[:1])} too."
        )
    notes.append("Holm's p values are adjusted over all rows of the table; the primary endpoint is not among them.")
    if primary is None:
        wanted = options.primary
        notes.append(
            f"No primary endpoint: it needs arms named {wanted.arm} and {wanted.against}, and a task"
            + (f" of {', '.join(wanted.groups)}" if wanted.groups else "")
            + ", not an English one."
        )
    if options.floor is None:
        notes.append("No floor: run an untrained model (leia-eval run --untrained SEED) and give it as --floor.")
    else:
        _check_comparable(
            named[0][0], named[0][1], "the floor", options.floor, [t for t in shared if t in options.floor.samples]
        )
    (base_name, base), others = named[0], named[1:]
    for name, run in others:
        for package, version in base.results["versions"].items():
            if run.results["versions"].get(package) != version:
                notes.append(
                    f"{package}: {base_name} ran with {version}, {name} with {run.results['versions'].get(package)}."
                )
        for part in ("stored_dtypes", "tokenizer_sha256", "settings_sha256", "parameters"):
            if run.results["model"][part] != base.results["model"][part]:
                notes.append(
                    f"{base_name} and {name} differ in {part}: {_plain(base.results['model'][part])} and "
                    f"{_plain(run.results['model'][part])}."
                )
        for option in ("device", "batch_size", "backend"):
            if run.results["options"][option] != base.results["options"][option]:
                notes.append(
                    f"{base_name} and {name} differ in {option}: {base.results['options'][option]} and "
                    f"{run.results['options'][option]}."
                )
        if run.results["model"]["weights_sha256"] == base.results["model"]["weights_sha256"]:
            notes.append(f"{base_name} and {name} have the same weights.")
    for name, run in named:
        left_out = sorted(set(run.samples) - set(shared))
        if left_out:
            notes.append(f"Not in all runs, left out: {', '.join(left_out)} of {name}.")
        for task in shared:
            lacking = sorted(set(_task(run, task)["scores"]) - set(_metrics(named, task)))
            if lacking:
                notes.append(f"Not in all runs, left out: {', '.join(lacking)} of {task} of {name}.")
    return notes


def _task(run: StoredRun, name: str) -> Json:
    return next(task for task in run.results["tasks"] if task["name"] == name)


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

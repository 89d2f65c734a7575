"""From a model, tasks and a data folder to scores, through lm-eval, with everything checked before weights are read.

Order: options, task names, data files and items, shots; then tokenizer and request lengths; then the weights. lm-eval
builds the prompts, scores the choices and counts what is right; this module gives it the data and the fixed shots,
stops at the first log-likelihood that is no number, and keeps per item what a paired comparison needs.
"""

import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leia_beam.errors import DamagedInput, MissingResource, UsageError
from leia_eval.catalog import TASKS_FOLDER, TaskEntry, read_catalog, select_tasks
from leia_eval.chatter import ProgressLine, chatter_to
from leia_eval.documents import SPLIT, ItemFile, find_data_file, read_items
from leia_eval.run_folder import FORMAT, Json, Samples, prepare_folder, write_run

if TYPE_CHECKING:
    from leia_eval.models import ModelIdentity, RequestEncoder

DTYPES = ("auto", "float32", "bfloat16", "float16")
DISTRIBUTION = "leia-lm"
METRICS = ("acc", "acc_norm", "acc_bytes")
PACKAGES = ("lm_eval", "transformers", "torch", "tokenizers", "datasets", "numpy")
PROMPTS_IN_DRY_RUN = 3


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """What decides the prompts: tasks, data and shots."""

    tasks: tuple[str, ...]
    data_dir: Path
    shots: int = 0
    limit: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise UsageError(f"--shots {self.shots} must be 0 or more")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit} must be 1 or more")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed} must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What decides the scores of given prompts."""

    model: Path
    batch_size: int = 8
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size} must be 1 or more")
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype} is none of {', '.join(DTYPES)}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One choice of one item as lm-eval will score it."""

    task: str
    item_index: int
    label: str
    context: str
    continuation: str


@dataclass(frozen=True, kw_only=True)
class PreparedTask:
    """A task with its checked items, lm-eval's task object, and the requests of the items to be scored."""

    entry: TaskEntry
    items: ItemFile
    task: Any
    requests: list[Request]
    prompts_sha256: str

    def where(self, request: Request) -> str:
        """Item, choice, task and place of a request, for a message."""
        item = self.items.documents[request.item_index]["id"]
        place = self.items.place(request.item_index)
        return f"item {item!r} (choice {request.label!r}) of {self.entry.name} at {place}"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A share of items that are right, with Wilson's 95 % interval."""

    correct: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One task's scores, and what they were computed from. `ties`: items whose best choice was not alone."""

    name: str
    version: str
    n: int
    items_in_file: int
    chance: float
    acc: Score
    acc_norm: Score
    acc_bytes: Score
    ties: int
    data_file: str
    data_sha256: str
    prompts_sha256: str


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run, in memory."""

    model: "ModelIdentity"
    parameters: int
    computed_dtype: str
    tasks: list[TaskResult]
    samples: Samples = field(repr=False)


def prepare_tasks(options: PromptOptions) -> list[PreparedTask]:
    """Tasks with items, shots and prompts; needs no model.

    Raises: UsageError for an unknown task, missing data or too many shots; DamagedInput for a damaged item.
    """
    go_offline()
    entries = select_tasks(options.tasks, read_catalog())
    files = [
        read_items(find_data_file(options.data_dir, entry.data_files, entry.name), entry.languages) for entry in entries
    ]
    if options.shots:
        for entry, items in zip(entries, files, strict=True):
            _check_shots(entry, items, options)
    from lm_eval.tasks import TaskManager

    manager = TaskManager(
        include_path=TASKS_FOLDER, include_defaults=False, metadata={"data_dir": str(options.data_dir)}
    )
    tasks = manager.load([entry.name for entry in entries])["tasks"]
    return [
        _prepare_task(entry, items, tasks[entry.name], options) for entry, items in zip(entries, files, strict=True)
    ]


def run(prompts: PromptOptions, model: ModelOptions, output: Path, *, overwrite: bool = False) -> Json:
    """Evaluates and writes `output`; returns what results.json holds."""
    started = time.time()
    with chatter_to(None):
        prepared = prepare_tasks(prompts)
        from leia_eval import models

        models.check_device(model.device)
        identity = models.identify_model(model.model)
        encoder = models.load_encoder(model.model)
        check_requests(prepared, encoder)
    key = _key(prompts, model, prepared, identity)
    prepare_folder(output, key, overwrite=overwrite)
    progress = ProgressLine(sum(len(task.requests) for task in prepared), "choices")
    with chatter_to(output / "eval.log"):
        try:
            result = evaluate(prepared, encoder, identity, model, progress)
        finally:
            progress.close()
    return _write(output, key, result, prompts, model, started)


def check_requests(prepared: Sequence[PreparedTask], encoder: "RequestEncoder") -> None:
    """Raises UsageError for the first request that the model cannot read whole (lm-eval would cut it from the left)."""
    for task in prepared:
        for request in task.requests:
            context, continuation = encoder.encode_pair(request.context, request.continuation)
            length = len(context) + len(continuation) - 1  # the last token is predicted, never read
            if length > encoder.max_length:
                raise UsageError(
                    f"{task.where(request)} is {length} tokens long with its shots, and the model reads "
                    f"{encoder.max_length}; lower --shots or leave the item out"
                )
            if not continuation:
                raise UsageError(
                    f"{task.where(request)} has no token of its own: {request.continuation!r} after the "
                    "prompt changes nothing in the tokenizer's output"
                )
            if max(*context, *continuation) >= encoder.vocabulary_size:
                raise UsageError(
                    f"{task.where(request)} holds token id {max(*context, *continuation)}, and the model "
                    f"has {encoder.vocabulary_size} embeddings; its tokenizer is another model's"
                )


def evaluate(
    prepared: Sequence[PreparedTask],
    encoder: "RequestEncoder",
    identity: "ModelIdentity",
    options: ModelOptions,
    progress: ProgressLine,
) -> RunResult:
    """Loads the weights and scores all requests through lm-eval."""
    from lm_eval.evaluator import evaluate as lm_evaluate

    from leia_eval import models

    lm = models.load_model(encoder, dtype=options.dtype, device=options.device, batch_size=options.batch_size)
    lm.set_cache_hook(_FiniteOnly(prepared, progress))
    tasks = {task.entry.name: task.task for task in prepared}
    limit = max(_item_count(task) for task in prepared)  # the first items of each, all where it has fewer
    try:
        found = lm_evaluate(lm, {"tasks": tasks}, limit=limit, bootstrap_iters=0)
    except RuntimeError as error:
        if "out of memory" in str(error).lower():
            raise MissingResource(f"out of memory at --batch-size {options.batch_size}; lower it") from error
        raise
    samples = {name: [_sample_row(sample) for sample in rows] for name, rows in found["samples"].items()}
    return RunResult(
        model=identity,
        parameters=sum(parameter.numel() for parameter in lm.model.parameters()),
        computed_dtype=str(lm.model.dtype).removeprefix("torch."),
        tasks=[_task_result(task, samples[task.entry.name]) for task in prepared],
        samples=samples,
    )


def dry_run(options: PromptOptions, n: int = PROMPTS_IN_DRY_RUN) -> str:
    """The first `n` full prompts of each task, with their choices; needs no model."""
    with chatter_to(None):
        prepared = prepare_tasks(options)
    lines = []
    for task in prepared:
        lines.append(f"== {task.entry.name}: {_item_count(task)} items of {task.items.path}, {options.shots} shots")
        for index in range(min(n, _item_count(task))):
            document = task.items.documents[index]
            requests = [request for request in task.requests if request.item_index == index]
            lines += [f"-- item {document['id']!r}", requests[0].context]
            for request in requests:
                mark = "*" if request.label == document["answerKey"] else " "
                lines.append(f" {mark} {request.label}:{request.continuation}")
    return "\n".join(lines)


def go_offline() -> None:
    """Keeps the Hugging Face libraries off the network; they read these when they are first imported."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def own_version() -> str:
    """This package's version, or what stands for it in a source tree that was never installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+not.installed"


class _FiniteOnly:
    """lm-eval's cache hook, told of every answer as it comes: counts it, and stops at one that is no number."""

    def __init__(self, prepared: Sequence[PreparedTask], progress: ProgressLine):
        self._where = {
            (request.context, request.continuation): (task, request) for task in prepared for request in task.requests
        }
        self._progress = progress

    def add_partial(self, _kind: str, request: tuple[str, str], answer: tuple[float, bool]) -> None:
        self._progress.advance()
        if not math.isfinite(answer[0]):
            task, found = self._where[request]
            raise DamagedInput(
                f"the model's log-likelihood of {task.where(found)} is {answer[0]}; its weights hold "
                "NaN or infinity, or --dtype is too narrow (try float32)"
            )


def _check_shots(entry: TaskEntry, items: ItemFile, options: PromptOptions) -> None:
    from leia_eval.prompts import ShotPool

    pool = ShotPool(items.documents)
    for document in items.documents:
        try:
            pool.draw(document, options.shots, options.seed)
        except UsageError as error:
            raise UsageError(f"{entry.name}: {error}") from error


def _prepare_task(entry: TaskEntry, items: ItemFile, task: Any, options: PromptOptions) -> PreparedTask:
    if list(task.dataset[SPLIT]) != items.documents:
        raise DamagedInput(f"the data file {items.path} changed while it was read; start again")
    task.set_config("num_fewshot", options.shots)
    task.set_fewshot_seed(options.seed)
    task.build_all_requests(limit=options.limit, rank=0, world_size=1)
    requests = [
        Request(
            task=entry.name,
            item_index=instance.doc_id,
            label=items.documents[instance.doc_id]["question"]["choices"]["label"][instance.idx],
            context=instance.args[0],
            continuation=instance.args[1],
        )
        for instance in task.instances
    ]
    digest = hashlib.sha256(
        "".join(json.dumps([request.context, request.continuation]) + "\n" for request in requests).encode()
    )
    return PreparedTask(entry=entry, items=items, task=task, requests=requests, prompts_sha256=digest.hexdigest())


def _item_count(task: PreparedTask) -> int:
    return len({request.item_index for request in task.requests})


def _sample_row(sample: Json) -> Json:
    """What is kept of an item: enough to compare runs and to score again without the model."""
    document = sample["doc"]
    choices = document["question"]["choices"]
    log_likelihoods = [float(answer[0]) for answer in sample["filtered_resps"]]
    best = max(log_likelihoods)
    return {
        "id": document["id"],
        "lang": document["lang"],
        "stem": document["question"]["stem"],
        "labels": list(choices["label"]),
        "choices": list(choices["text"]),
        "answer": document["answerKey"],
        "prediction": choices["label"][log_likelihoods.index(best)],
        "log_likelihoods": log_likelihoods,
        "tied": log_likelihoods.count(best) > 1,
        "prompt_sha256": hashlib.sha256(sample["arguments"][0][0].encode()).hexdigest(),
        **{metric: int(sample[metric]) for metric in METRICS},
    }


def _task_result(task: PreparedTask, rows: list[Json]) -> TaskResult:
    from leia_eval.stats import wilson_interval

    def score(metric: str) -> Score:
        correct = sum(row[metric] for row in rows)
        low, high = wilson_interval(correct, len(rows))
        return Score(correct=correct, value=correct / len(rows), low=low, high=high)

    return TaskResult(
        name=task.entry.name,
        version=task.entry.version,
        n=len(rows),
        items_in_file=len(task.items.documents),
        chance=math.fsum(1 / len(row["choices"]) for row in rows) / len(rows),
        acc=score("acc"),
        acc_norm=score("acc_norm"),
        acc_bytes=score("acc_bytes"),
        ties=sum(row["tied"] for row in rows),
        data_file=task.items.path.name,
        data_sha256=task.items.sha256,
        prompts_sha256=task.prompts_sha256,
    )


def _key(prompts: PromptOptions, model: ModelOptions, tasks: Sequence[PreparedTask], identity: "ModelIdentity") -> Json:
    """What must be equal for two runs to be the same run."""
    return {
        "model": [identity.weights_sha256, identity.config_sha256, identity.tokenizer_sha256],
        "tasks": {task.entry.name: [task.items.sha256, task.prompts_sha256] for task in tasks},
        "options": {
            "shots": prompts.shots, "limit": prompts.limit, "seed": prompts.seed,
            "batch_size": model.batch_size, "device": model.device, "dtype": model.dtype,
        },
    }  # fmt: skip


def _write(
    output: Path, key: Json, result: RunResult, prompts: PromptOptions, model: ModelOptions, started: float
) -> Json:
    from leia_eval import report

    versions = {"leia": own_version(), "python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in PACKAGES}
    results = {
        "format": FORMAT,
        "key": key,
        "model": {**asdict(result.model), "parameters": result.parameters, "computed_dtype": result.computed_dtype},
        "options": key["options"],
        "interval": "Wilson 95 %",
        "versions": versions,
        "tasks": [asdict(task) for task in result.tasks],
    }
    pages = {
        "report.md": report.run_markdown(results).encode(),
        "report.html": report.page("leia-eval run", report.run_html(results, result.samples)).encode(),
    }
    about = {
        "started_unix_s": round(started, 3),
        "elapsed_s": round(time.time() - started, 3),
        "model": str(model.model.resolve()),
        "data_dir": str(prompts.data_dir.resolve()),
        "command": sys.argv,
    }
    return write_run(output, results, result.samples, pages, about)

"""From a model and prepared tasks to scores, with everything checked before weights are read.

Order: options, task names, data and items, shots; then tokenizer and request lengths; then the weights, and those only
if an answer is not in the cache. Under torchrun every process does all of this, answers its share of the batches, and
the first one scores and writes.
"""

import contextlib
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leia_beam.chatter import chatter_held
from leia_beam.console import Console, Counter
from leia_beam.errors import UsageError
from leia_eval import jasquad, scoring
from leia_eval.answering import Answerer, EncodedRequest
from leia_eval.cache import Answer, AnswerCache, request_key
from leia_eval.preparing import PreparedTask, PromptOptions, Request, gold_index, labels_of, prepare_tasks
from leia_eval.processes import Processes, join
from leia_eval.run_folder import FORMAT, Json, Samples, prepare_folder, write_run

if TYPE_CHECKING:
    from leia_eval.checkpoints import ModelIdentity
    from leia_eval.encoders import RequestEncoder
    from leia_eval.scoring_model import ScoringModel

DTYPES = ("auto", "float32", "bfloat16", "float16")
BACKENDS = ("hf", "vllm")
DISTRIBUTION = "leia-lm"
PACKAGES = ("lm_eval", "transformers", "torch", "tokenizers", "datasets", "numpy")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What decides the scores of given prompts. `untrained_seed`: random weights instead of the checkpoint's."""

    model: Path | str
    batch_size: int = 8
    device: str = "cpu"
    dtype: str = "float32"
    backend: str = "hf"
    untrained_seed: int | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size} must be 1 or more")
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype} is none of {', '.join(DTYPES)}")
        if self.backend not in BACKENDS:
            raise UsageError(f"--backend {self.backend} is none of {', '.join(BACKENDS)}")
        if self.untrained_seed is not None and (self.untrained_seed < 0 or self.backend != "hf"):
            raise UsageError(f"--untrained {self.untrained_seed} must be 0 or more, and needs --backend hf")


@dataclass(frozen=True, kw_only=True)
class About:
    """What is known of a model once it is loaded."""

    parameters: int | None
    computed_dtype: str


def run(
    prompts: PromptOptions,
    options: ModelOptions,
    output: Path,
    *,
    overwrite: bool = False,
    console: Console | None = None,
) -> Json | None:
    """Evaluates and writes `output`; returns what results.json holds, or None in all processes but the first.

    What libraries say goes to a log in `output`.
    """
    started = time.time()
    if prompts.data_dir is not None and Path(options.model).is_dir():
        go_offline()
    console = console or Console("leia-eval", quiet=True)
    console.status("answers", "reading the tasks and the model's tokenizer")
    with chatter_held() as log:
        prepared = prepare_tasks(prompts)
        from leia_eval import checkpoints, encoders, models

        if options.device != "auto":
            models.check_device(options.device)
        folder = checkpoints.find_checkpoint(str(options.model))
        identity = checkpoints.identify_model(folder, options.untrained_seed)
        encoder = encoders.load_encoder(folder, prompts.profile, options.backend)
        encoded = [encode_requests(task, encoder) for task in prepared]
        processes = join(options.device)
        key = _key(prompts, options, prepared, identity)
        if processes.is_first:
            prepare_folder(output, key, overwrite=overwrite)
        processes.wait()
        log.write_to(output / _log_name(processes))
        cache = AnswerCache(options.cache_dir or output / "cache")
        progress = _progress(encoded, processes, console)
        answerer = Answerer(
            load=lambda: _load(encoder, options, processes, cache, identity),
            model_key=_model_key(identity, options),
            cache=cache,
            batch_size=options.batch_size,
            advance=progress.advance,
        )
        with _saying_what_is_kept(progress):
            for requests in encoded:
                answerer.answer(requests, rank=processes.rank, world_size=processes.world_size)
            processes.wait()
        cache.reload()
    console.clear()
    if not processes.is_first:
        return None
    samples = {
        task.entry.name: score_task(task, answerer.answers(requests))
        for task, requests in zip(prepared, encoded, strict=True)
    }
    if _about_key(identity, options) not in cache:  # its line was damaged
        answerer.load()
    about = About(**cache[_about_key(identity, options)])
    cut = {task.entry.name: _items_cut(task, requests) for task, requests in zip(prepared, encoded, strict=True)}
    results = _results(key, prepared, samples, identity, about, cut)
    work = {
        "started_unix_s": round(started, 3),
        "elapsed_s": round(time.time() - started, 3),
        "model": str(folder.resolve()),
        "data_dir": str(prompts.data_dir.resolve()) if prompts.data_dir else None,
        "command": sys.argv,
        "processes": processes.world_size,
        "answers_from_cache": answerer.from_cache,
        "requests_at_once": answerer.at_once,
        "damaged_cache_lines": cache.damaged_lines,
    }
    return _write(output, results, samples, work)


def encode_requests(task: PreparedTask, encoder: "RequestEncoder") -> list[EncodedRequest]:
    """Token ids of all requests; in the reference profile what is too long is cut from the left, as the reference did.

    Raises: UsageError for the first request that the model cannot read whole otherwise (lm-eval would cut it unsaid).
    """
    return [_encode(task, request, encoder) for request in task.requests]


def score_task(task: PreparedTask, answers: Sequence[Answer]) -> list[scoring.Row]:
    """One row an item, in the order of the data."""
    of_item: dict[int, list[tuple[Request, Answer]]] = {}
    for request, answer in zip(task.requests, answers, strict=True):
        of_item.setdefault(request.item_index, []).append((request, answer))
    return [_score_item(task, index, of_item[index]) for index in sorted(of_item)]


def scored_options(prompts: PromptOptions, model: ModelOptions) -> Json:
    """The options that decide the scores of a given model on given data."""
    return {
        "profile": prompts.profile, "shots": prompts.shots, "seed": prompts.seed,
        "limit": prompts.limit, "limit_seed": None if prompts.limit is None else prompts.limit_seed,
        "pmi": prompts.pmi, "batch_size": model.batch_size, "device": model.device, "dtype": model.dtype,
        "backend": model.backend, "untrained_seed": model.untrained_seed,
    }  # fmt: skip


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


def _encode(task: PreparedTask, request: Request, encoder: "RequestEncoder") -> EncodedRequest:
    from leia_eval import reference

    where = task.where(request)
    most, continuation = 0, None
    if request.continuation is None:
        whole = encoder.encode_prompt(request.context)
        most = request.max_new_tokens or reference.generation_length(encoder.encode_plain, request.length_of)
        longest = encoder.max_length - most
    else:
        whole, continuation = encoder.encode_pair(request.context, request.continuation)
        longest = encoder.longest_pair - len(continuation)
        if not continuation:
            raise UsageError(
                f"{where} has no token of its own: {request.continuation!r} after the "
                "prompt changes nothing in the tokenizer's output"
            )
    context = whole
    if encoder.profile == "reference":
        with contextlib.suppress(ValueError):  # said below
            context = reference.cut_context(whole, continuation, encoder.max_length)
    if len(context) > longest:
        more = most if continuation is None else len(continuation) - 1  # the last is predicted only
        raise UsageError(
            f"{where} is {len(context) + more} tokens long with its shots"
            + (" and its longest answer" if continuation is None else "")
            + f", and the model reads {longest + more}; lower --shots or leave the item out"
        )
    ids = [*context, *(continuation or ())]
    if max(ids) >= encoder.vocabulary_size:
        raise UsageError(
            f"{where} holds token id {max(ids)}, and the model "
            f"has {encoder.vocabulary_size} embeddings; its tokenizer is another model's"
        )
    return EncodedRequest(
        context_ids=tuple(context),
        continuation_ids=None if continuation is None else tuple(continuation),
        until=request.until,
        max_new_tokens=most,
        cut=len(whole) - len(context),
        where=where,
    )


def _score_item(task: PreparedTask, index: int, found: Sequence[tuple[Request, Answer]]) -> scoring.Row:
    document = task.items.documents[index]
    asked = [(request, answer) for request, answer in found if not request.unconditional]
    id_, prompt = task.id_of(index), asked[0][0].context
    if asked[0][0].continuation is None and task.entry.source is not None:
        answer = asked[0][1]
        return scoring.generation_row(
            document,
            id_=id_,
            generated=answer["text"],
            ended=answer["ended"],
            prompt=prompt,
            by_words=_by_words(task),
            keep_names=task.profile == "reference",
        )
    if asked[0][0].continuation is None or task.task.multiple_input:
        return _score_by_lm_eval(task, document, id_, asked)
    unconditional = [answer["log_likelihood"] for request, answer in found if request.unconditional]
    choices = list(task.task.doc_to_choice(document))
    return scoring.choices_row(
        document,
        id_=id_,
        labels=labels_of(document)[: len(choices)],
        choices=choices,
        gold=gold_index(task.task, document),
        log_likelihoods=[answer["log_likelihood"] for _, answer in asked],
        unconditional=unconditional or None,
        prompt=prompt,
    )


def _by_words(task: PreparedTask) -> bool:
    """Whether the task's answers are also scored by JaSQuAD's rule."""
    return task.entry.metadata.get("scorer") == "jasquad" and jasquad.is_installed()


def _items_cut(task: PreparedTask, requests: Sequence[EncodedRequest]) -> int:
    """How many items lost a part of their context."""
    pairs = zip(task.requests, requests, strict=True)
    return len({request.item_index for request, encoded in pairs if encoded.cut})


def _score_by_lm_eval(
    task: PreparedTask, document: Json, id_: str, asked: Sequence[tuple[Request, Answer]]
) -> scoring.Row:
    """By the filters and the counting of a set that lm-eval brings; the first filter's scores are kept."""
    instances = [instance for instance in task.task.instances if instance.doc_id == asked[0][0].item_index]
    for instance, (_, answer) in zip(instances, asked, strict=True):
        instance.resps = [answer["text"] if "text" in answer else (answer["log_likelihood"], False)]
    first = task.task._filters[0]
    first.apply(instances)
    responses = [instance.filtered_resps[first.name] for instance in instances]
    scores = task.task.process_results(document, responses)
    said = [answer.get("text", answer.get("log_likelihood")) for _, answer in asked]
    return scoring.other_row(document, id_=id_, scores=scores, prompt=asked[0][0].context, response=said)


def _progress(encoded: Sequence[Sequence[EncodedRequest]], processes: Processes, console: Console) -> Counter:
    total = sum(len(set(requests)) for requests in encoded) // processes.world_size
    return Counter(console.progress if processes.is_first else None, "answers", total, "requests")


@contextlib.contextmanager
def _saying_what_is_kept(progress: Counter) -> Iterator[None]:
    """An interruption says how much was answered."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; {progress.done:,.0f} of {progress.total:,.0f} requests are answered and kept; "
            "the same command goes on from there"
        ) from None


def _log_name(processes: Processes) -> str:
    return "eval.log" if processes.is_first else f"eval-{processes.rank}.log"


def _load(
    encoder: "RequestEncoder",
    options: ModelOptions,
    processes: Processes,
    cache: AnswerCache,
    identity: "ModelIdentity",
) -> "ScoringModel":
    from leia_eval import models, vllm_model

    if options.backend == "vllm":
        model: ScoringModel = vllm_model.load_vllm(encoder, dtype=options.dtype)
    else:
        model = models.load_model(
            encoder,
            dtype=options.dtype,
            device=processes.device_of(options.device),
            batch_size=options.batch_size,
            untrained_seed=options.untrained_seed,
        )
    about = About(parameters=model.parameters, computed_dtype=model.computed_dtype)
    cache.add([(_about_key(identity, options), asdict(about))])
    return model


def _model_key(identity: "ModelIdentity", options: ModelOptions) -> Json:
    return {
        "weights": identity.weights_sha256,
        "config": identity.config_sha256,
        "tokenizer": identity.tokenizer_sha256,
        "settings": identity.settings_sha256,
        "dtype": options.dtype,
        "device": options.device.split(":")[0],
        "backend": options.backend,
    }


def _about_key(identity: "ModelIdentity", options: ModelOptions) -> str:
    return request_key(_model_key(identity, options), {"about": "the model"})


def _key(prompts: PromptOptions, model: ModelOptions, tasks: Sequence[PreparedTask], identity: "ModelIdentity") -> Json:
    """What must be equal for two runs to be the same run."""
    return {
        "model": [
            identity.weights_sha256, identity.config_sha256, identity.tokenizer_sha256, identity.settings_sha256
        ],
        "tasks": {task.entry.name: [task.items.sha256, task.prompts_sha256] for task in tasks},
        "options": scored_options(prompts, model),
    }  # fmt: skip


def _results(
    key: Json,
    prepared: Sequence[PreparedTask],
    samples: Samples,
    identity: "ModelIdentity",
    about: About,
    cut: dict[str, int],
) -> Json:
    versions = {"leia": own_version(), "python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in PACKAGES}
    if any(map(_by_words, prepared)):
        versions |= jasquad.versions()
    return {
        "format": FORMAT,
        "key": key,
        "model": {**asdict(identity), **asdict(about)},
        "options": key["options"],
        "interval": "95 %: Wilson for right or wrong, else a bootstrap over clusters of items",
        "versions": versions,
        "tasks": [_task_result(task, samples[task.entry.name], cut[task.entry.name]) for task in prepared],
    }


def _task_result(task: PreparedTask, rows: list[scoring.Row], cut: int) -> Json:
    from leia_eval.stats import score_interval

    metadata_ = task.entry.metadata
    preferred = metadata_.get("reference_metric") if task.profile == "reference" else None
    lacks_words = metadata_.get("scorer") == "jasquad" and not _by_words(task)
    return {
        "name": task.entry.name,
        "version": task.entry.version,
        "group": task.entry.tags[0] if task.entry.tags else task.entry.name,
        "language": task.entry.language,
        "n": len(rows),
        "items_in_file": len(task.items.documents),
        "without_answer": task.items.without_answer,
        "empty_choices": task.items.empty_choices if task.entry.source else 0,
        "clusters": len({row["cluster"] for row in rows}),
        "shots": task.shots,
        "shots_from": task.shots_from.removeprefix(",").strip(),
        "chance": scoring.chance_of(rows),
        "metric": scoring.main_metric(rows, preferred),
        "scores": {metric: asdict(score_interval(rows, metric)) for metric in scoring.metrics_of(rows)},
        "flags": scoring.flag_shares(rows),
        "cut": cut,
        "left_out": f"JaSQuAD's scores need packages that are not installed: {jasquad.INSTALL}" if lacks_words else "",
        "ties": sum(row.get("tied", False) for row in rows),
        "from_wikipedia": bool(metadata_.get("from_wikipedia")),
        "data_file": task.items.name,
        "data_sha256": task.items.sha256,
        "shots_sha256": task.data.shots.sha256 if task.data.shots and task.shots else None,
        "prompts_sha256": task.prompts_sha256,
    }


def _write(output: Path, results: Json, samples: Samples, work: dict[str, Any]) -> Json:
    from leia_eval import report

    pages = {
        "report.md": report.run_markdown(results).encode(),
        "report.html": report.run_page(results, samples).encode(),
    }
    return write_run(output, results, samples, pages, work)

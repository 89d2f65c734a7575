"""From a model and prepared tasks to scores, with everything checked before weights are read.

Order: options, task names, data and items, shots; then tokenizer and request lengths; then the weights, and those only
if an answer is not in the cache. Under torchrun every process does all of this, answers its share of the batches, and
the first one scores and writes.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leia_beam.chatter import chatter_held
from leia_beam.console import Console, Counter
from leia_eval.answering import Answerer, EncodedRequest
from leia_eval.cache import AnswerCache
from leia_eval.encoding import encode_requests, items_cut
from leia_eval.model_options import ModelOptions
from leia_eval.preparing import PromptOptions, prepare_tasks
from leia_eval.processes import Processes, join
from leia_eval.results import About, about_key, model_key, run_key, run_results
from leia_eval.run_folder import Json, Samples, prepare_folder, write_run
from leia_eval.task_scoring import score_task

if TYPE_CHECKING:
    from leia_eval.checkpoints import ModelIdentity
    from leia_eval.encoders import RequestEncoder
    from leia_eval.scoring_model import ScoringModel

__all__ = ["ModelOptions", "run"]


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
        key = run_key(prompts, options, prepared, identity)
        if processes.is_first:
            prepare_folder(output, key, overwrite=overwrite)
        processes.wait()
        log.write_to(output / _log_name(processes))
        cache = AnswerCache(options.cache_dir or output / "cache")
        progress = _progress(encoded, processes, console)
        answerer = Answerer(
            load=lambda: _load(encoder, options, processes, cache, identity),
            model_key=model_key(identity, options),
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
    if about_key(identity, options) not in cache:  # its line was damaged
        answerer.load()
    about = About(**cache[about_key(identity, options)])
    cut = {task.entry.name: items_cut(task, requests) for task, requests in zip(prepared, encoded, strict=True)}
    results = run_results(key, prepared, samples, identity, about, cut)
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


def go_offline() -> None:
    """Keeps the Hugging Face libraries off the network; they read these when they are first imported."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


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
    cache.add([(about_key(identity, options), asdict(about))])
    return model


def _write(output: Path, results: Json, samples: Samples, work: dict[str, Any]) -> Json:
    from leia_eval import report

    pages = {
        "report.md": report.run_markdown(results).encode(),
        "report.html": report.run_page(results, samples).encode(),
    }
    return write_run(output, results, samples, pages, work)

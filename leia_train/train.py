"""From a TrainConfig to a trained checkpoint: a plain accelerate loop over the plan's rows.

Not transformers' Trainer, which logs NaN as 0.0, resumes by skipping data and never falls back to an older checkpoint.
A step's loss is the sum over its tokens by the number of its labels over all processes; weights and optimizer state are
float32 (at lr 5e-6 most coordinates of bfloat16 weights would not move at all).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
from accelerate import Accelerator
from torch import Tensor

from leia_beam.errors import Interrupted, LeiaError, UsageError
from leia_train.attention import candidates, settle
from leia_train.checkpoints import (
    FINAL_NAME,
    Checkpoint,
    is_whole,
    load_more,
    load_training,
    newest_checkpoint,
    remove_old,
    remove_temporary,
    save_checkpoint,
    step_name,
)
from leia_train.config import TrainConfig
from leia_train.evaluation import (
    INSERTED,
    VALIDATION,
    Evaluation,
    Text,
    evaluate,
    file_texts,
    inserted_texts,
    store_texts,
)
from leia_train.files import disk_errors
from leia_train.loader import RowLoader, StepRows
from leia_train.loss import TokenLoss, agrees, is_finite, step_loss
from leia_train.markers import CheckpointTokenizer, add_markers
from leia_train.metrics import MetricsLog, SpikeWatch, StepMetrics
from leia_train.model import embedding_weights, load_model
from leia_train.optimizer import MarkerRows, make_optimizer
from leia_train.packing import PackedRows
from leia_train.plan import TrainingPlan
from leia_train.processes import close_processes, is_lost_process, make_accelerator, on_main, summed
from leia_train.runs import (
    CODE,
    STATUS_NAME,
    StopRequest,
    check_output,
    code_fingerprint,
    locked,
    read_status,
    write_run,
    write_status,
)
from leia_train.schedule import learning_rate
from leia_train.speed import flops_per_token, peak_tflops, utilisation
from leia_train.store import ShardFolder, open_shards, open_store, store_fingerprint
from leia_train.tracking import Tracking, choose_tracker

Report = Callable[[str], None]
_MARKER_START = "markers.start"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """Where the final model is, and the losses of the last evaluation by the name of its texts."""

    checkpoint: Path
    step: int
    evaluation: Evaluation | None
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class _Run:
    """What a loop works with; `step` is the number of updates that were done, `model` is a TokenLoss."""

    config: TrainConfig
    output: Path
    accelerator: Accelerator
    plan: TrainingPlan
    texts: Mapping[str, Sequence[Text]]
    tokenizer: CheckpointTokenizer
    model: Any
    optimizer: Any
    marker_rows: MarkerRows | None
    steps: int
    step: int
    stop: StopRequest
    report: Report
    progress: Report
    log: MetricsLog | None = None
    tracking: Tracking | None = None

    @property
    def bare_model(self) -> Any:
        """The causal LM itself."""
        return self.accelerator.unwrap_model(self.model).model


def train(config: TrainConfig, *, report: Report, progress: Report) -> TrainingResult:
    """Train, or go on with the run that the output folder holds. `progress` is told of each step.

    Raises: Interrupted after SIGTERM or SIGINT, when a checkpoint is saved; any LeiaError.
    """
    accelerator = make_accelerator(config)
    try:
        return _train(config, accelerator, *(_on_main_alone(accelerator, say) for say in (report, progress)))
    except RuntimeError as error:
        if accelerator.num_processes > 1 and is_lost_process(error):
            raise LeiaError("another process of this run ended; its message says why") from error
        raise
    finally:
        close_processes()


def _on_main_alone(accelerator: Accelerator, say: Report) -> Report:
    return say if accelerator.is_main_process else lambda line: None


def _train(config: TrainConfig, accelerator: Accelerator, report: Report, progress: Report) -> TrainingResult:
    tracker = choose_tracker(config.run.tracker)
    folders = open_shards(config.data.shards)
    identity = {**config.identity(), "data_fingerprint": store_fingerprint(folders), CODE: code_fingerprint()}
    output = Path(config.run.output)
    check_output(output, identity, accept_other_code=config.run.accept_other_code)
    tokenizer = add_markers(folders[0].tokenizer, config.data.markers, config.data.marker_text)
    with locked(output) if accelerator.is_main_process else nullcontext(), StopRequest().listening() as stop:
        finished = _finished(output, config)
        if finished is not None:
            report(f"this run is finished: {finished.checkpoint}")
            return finished
        on_main(accelerator, lambda: remove_temporary(output))
        run = _prepare(config, accelerator, folders, tokenizer, stop, report, progress)
        with RowLoader(
            run.plan,
            batch=config.optimization.batch,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
            first_step=run.step,
            steps=run.steps,
        ) as loader:
            on_main(accelerator, lambda: _begin(run, identity, tracker))
            _loop(run, loader)
            return _finish(run)


def _begin(run: _Run, identity: Mapping[str, Any], tracker: str | None) -> None:
    """Note what the run is, once all of it was checked, and open its logs."""
    (run.output / STATUS_NAME).unlink(missing_ok=True)
    write_run(run.output, identity, _versions())
    run.log = MetricsLog(run.output, run.step)
    run.tracking = Tracking(tracker, run.output, identity, run.report)


def _versions() -> dict[str, str]:
    modules = {"torch": torch, "transformers": transformers, "accelerate": accelerate}
    return {name: str(module.__version__) for name, module in modules.items()}


def _finished(output: Path, config: TrainConfig) -> TrainingResult | None:
    """The result of a run that is done already and whose final checkpoint is whole."""
    status = read_status(output)
    final = output / FINAL_NAME
    if status.get("status") != "finished" or not is_whole(final):
        return None
    found = {name: Evaluation(**values) for name, values in status.get("evaluations", {}).items()}
    if status.get("evaluation"):
        found[VALIDATION] = Evaluation(**status["evaluation"])
    return TrainingResult(
        checkpoint=final, step=int(status["step"]), evaluation=found.get(VALIDATION), evaluations=found
    )


def _prepare(
    config: TrainConfig,
    accelerator: Accelerator,
    folders: list[ShardFolder],
    tokenizer: CheckpointTokenizer,
    stop: StopRequest,
    report: Report,
    progress: Report,
) -> _Run:
    """Plan, model and optimizer, as the newest whole checkpoint left them or new, after the attention was probed."""
    output = Path(config.run.output)
    with accelerator.local_main_process_first(), disk_errors(output):
        store = open_store(folders, output)
    plan = TrainingPlan(store, config.data, config.optimization.seed, tokenizer.markers)
    texts = _evaluation_texts(config, plan, accelerator)
    checkpoint = newest_checkpoint(output, report)
    source = config.model if checkpoint is None else replace(config.model, model=str(checkpoint.path))
    loaded = load_model(source, store.tokenizer, tokenizer, config.data.max_length, config.optimization.seed)
    for warning in loaded.warnings:
        report(f"warning: {warning}")
    steps = plan.steps(config.optimization.steps, config.optimization.batch)
    _say_what_runs(report, plan, checkpoint, config.optimization.steps, steps)
    loss = _make_loss(config, accelerator, loaded.model, store.tokenizer.vocabulary_size, tokenizer, report)
    marker_rows = None
    if tokenizer.marker_ids is not None:
        marker_rows = MarkerRows(embedding_weights(loaded.model), tokenizer.marker_ids)
    optimizer = make_optimizer(loss, config.optimization, weights=config.model.weights, rounding=config.model.rounding)
    model, prepared = accelerator.prepare(loss, optimizer)
    if checkpoint is not None:
        load_training(checkpoint, prepared)
        start = load_more(checkpoint).get(_MARKER_START)
        if marker_rows is not None and start is not None:
            marker_rows.start = start
    return _Run(
        config=config,
        output=output,
        accelerator=accelerator,
        plan=plan,
        texts=texts,
        tokenizer=tokenizer,
        model=model,
        optimizer=prepared,
        marker_rows=marker_rows,
        steps=steps,
        step=checkpoint.step if checkpoint is not None else 0,
        stop=stop,
        report=report,
        progress=progress,
    )


def _make_loss(
    config: TrainConfig,
    accelerator: Accelerator,
    model: Any,
    vocabulary_size: int,
    tokenizer: CheckpointTokenizer,
    report: Report,
) -> TokenLoss:
    """The model with its loss on its device; the kernel of its attention is settled, and its logits are compared."""
    model.to(accelerator.device)
    settle(
        model,
        candidates(config.model.attention, accelerator.device, config.model.dtype),
        vocabulary_size,
        accelerator.autocast,
        config.model.dtype,
        report,
        isolated=not config.data.cross_document,
    )
    chunked = agrees(model, vocabulary_size)
    if not chunked:
        report(f"{type(model).__name__} makes its logits in a way of its own: they will stand in memory whole")
    if config.model.compile:
        (model.base_model if chunked else model).compile()  # what TokenLoss calls
    excluded = () if config.model.marker_logits or tokenizer.marker_ids is None else tokenizer.marker_ids
    return TokenLoss(model, chunk_tokens=config.model.loss_chunk, excluded_ids=excluded, chunked=chunked)


def _evaluation_texts(config: TrainConfig, plan: TrainingPlan, accelerator: Accelerator) -> dict[str, Sequence[Text]]:
    """What is evaluated, by name: the validation articles, with names too, and the texts and shards that were given."""
    texts: dict[str, Sequence[Text]] = {VALIDATION: store_texts(plan.store, plan.validation_documents)}
    if config.run.eval_inserted and config.data.strategy != "none" and len(plan.validation_documents):
        texts[INSERTED] = inserted_texts(plan)
    for path in config.run.eval_text:
        texts[Path(path).name] = file_texts(path, plan.store.tokenizer)
    for path in config.run.eval_shards:
        folders = open_shards([path])
        if folders[0].tokenizer.fingerprint != plan.store.tokenizer.fingerprint:
            raise UsageError(f"--eval-shards {path}: made with another tokenizer ({folders[0].tokenizer.name})")
        with accelerator.local_main_process_first():
            store = open_store(folders, config.run.output)
        texts[path] = store_texts(store, torch.arange(len(store)).numpy())
    return texts


def _say_what_runs(report: Report, plan: TrainingPlan, checkpoint: Checkpoint | None, asked: int, steps: int) -> None:
    store, data = plan.store, plan.data
    report(
        f"{len(plan.training_documents):,} articles, {len(store.documents.tokens):,} tokens, "
        f"{len(store.entity_ordinals):,} named entities, {plan.usable_entities:,} usable for strategy {data.strategy}"
    )
    if data.compat == "leia":
        report("compat leia: the reference's stream and loss; documents see each other, no article is held out")
    if steps != asked:
        report(f"{steps:,} steps read as many of the articles' own tokens as {asked:,} steps without insertion")
    if not len(plan.validation_documents) and data.compat != "leia":
        report(
            f"no evaluation loss: --validation-share {data.validation_share:g} leaves none of {len(store):,} articles"
        )
    if checkpoint is not None:
        report(f"going on from {checkpoint.path} after step {checkpoint.step}")


def _loop(run: _Run, loader: RowLoader) -> None:
    """Do the steps that are left; stop after the one in which a signal came."""
    watch = SpikeWatch(run.config.run.spike)
    settings = run.config.run
    flops = flops_per_token(run.bare_model, run.config.data.max_length)
    peak = peak_tflops(run.accelerator.device)
    run.model.train()
    while run.step < run.steps:
        if _stop_requested(run):
            _interrupt(run)
        metrics = do_step(run, loader.next())
        run.step = metrics.step
        if run.log is not None and run.tracking is not None:
            run.log.write(metrics)
            run.tracking.write(metrics.step, asdict(metrics))
            rate = metrics.tokens / max(metrics.seconds, 1e-9)
            used = utilisation(rate, flops, run.accelerator.num_processes, peak)
            run.progress(metrics.line(run.steps, used))
        spike = watch.warning(metrics.step, metrics.loss)
        if spike is not None:
            run.report(spike)
        if run.step < run.steps:
            if settings.eval_every and run.step % settings.eval_every == 0:
                _evaluate(run, final=False)
            if settings.save_every and run.step % settings.save_every == 0:
                _save(run)


def _stop_requested(run: _Run) -> bool:
    """Whether any process was told to stop."""
    return summed(run.accelerator, [float(run.stop.signal_name is not None)])[0] > 0


def do_step(run: _Run, given: StepRows) -> StepMetrics:
    """One update: the rows of this process, micro-batch by micro-batch.

    Raises: LeiaError where the loss or the gradient is not finite, before the weights are touched.
    """
    started_s = time.perf_counter()
    rows = given.rows
    counts = [rows.input_ids.size, rows.label_count, rows.inserted_count, rows.name_label_count]
    tokens, labels, inserted, name_labels = (int(count) for count in summed(run.accelerator, counts))
    parts = accumulate_gradients(run, rows, labels)
    norm = _clip(run)
    loss, name_nats = summed(run.accelerator, torch.stack(parts).double().sum(dim=0).tolist())
    if not (is_finite(loss) and is_finite(norm)):
        _refuse_update(run, rows, parts, loss, norm)
    rate = learning_rate(run.config.optimization, run.step, run.steps)
    moved = _update(run, rate)
    return StepMetrics(
        step=run.step + 1,
        loss=loss,
        learning_rate=rate,
        gradient_norm=norm,
        tokens=tokens,
        label_tokens=labels,
        inserted_tokens=inserted,
        target_tokens=tokens - inserted,
        name_label_tokens=name_labels,
        name_loss=name_nats / name_labels if name_labels else None,
        epoch=given.epoch,
        moved_share=moved,
        seconds=time.perf_counter() - started_s + given.waited_s,
        waited_s=given.waited_s,
    )


def accumulate_gradients(run: _Run, rows: PackedRows, label_count: int) -> list[Tensor]:
    """The gradients of all rows of a step; each micro-batch's part of the loss, and its names' loss in nats (2,)."""
    size = run.config.optimization.micro_batch
    starts = range(0, len(rows.input_ids), size)
    parts = []
    for start in starts:
        last = start == starts[-1]
        with nullcontext() if last else run.accelerator.no_sync(run.model):
            part = micro_batch_loss(run, rows.part(start, start + size), label_count)
            run.accelerator.backward(part[0] * run.accelerator.num_processes)  # DDP takes the mean over processes
        parts.append(part.detach())
    return parts


def micro_batch_loss(run: _Run, rows: PackedRows, label_count: int) -> Tensor:
    """The part of a step's loss that some of its rows add, and the sum of their inserted names' loss (2,)."""
    device = run.accelerator.device
    input_ids, position_ids, labels = (
        torch.from_numpy(part).to(device) for part in (rows.input_ids, rows.position_ids, rows.labels)
    )
    with run.accelerator.autocast():
        losses = run.model(input_ids, position_ids, labels)
    names = losses.detach().masked_fill(torch.from_numpy(~rows.inserted).to(device), 0).sum()
    if run.config.data.compat == "leia":
        per_row = torch.from_numpy(rows.row_label_counts).to(device)
        loss = step_loss(losses, label_count, per_row, run.config.optimization.batch)
    else:
        loss = step_loss(losses, label_count)
    return torch.stack([loss, names])


def _clip(run: _Run) -> float:
    """The gradient's norm, before it was clipped."""
    limit = run.config.optimization.clip or float("inf")
    norm = run.accelerator.clip_grad_norm_(run.model.parameters(), limit)
    return float(norm)


def _update(run: _Run, rate: float) -> float | None:
    """Move the weights; at a step with a checkpoint, the share of them that moved."""
    settings = run.config
    every = settings.run.save_every
    counted = run.step + 1 == run.steps or (every > 0 and (run.step + 1) % every == 0)
    before = None
    if counted and run.accelerator.is_main_process:  # on the CPU, where there is room for them
        before = [weight.detach().to("cpu", copy=True) for weight in run.model.parameters()]
    own_rate = settings.optimization.marker_learning_rate
    stretched = run.marker_rows if own_rate and rate else None
    rows = stretched.copies() if stretched is not None else []
    apply_update(run, rate)
    if stretched is not None:
        stretched.stretch_step(rows, own_rate / settings.optimization.learning_rate)
    if before is None:
        return None
    moved = sum(int((new.cpu() != old).sum()) for new, old in zip(run.model.parameters(), before, strict=True))
    return float(moved / sum(weight.numel() for weight in before))


def apply_update(run: _Run, rate: float) -> None:
    """One step of the optimizer."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.step()
    run.optimizer.zero_grad()


def _refuse_update(run: _Run, rows: PackedRows, parts: list[Tensor], loss: float, norm: float) -> None:
    """Say which process and rows are to blame, and keep the rows in a file.

    Raises: LeiaError, the same on all processes but for the file's.
    """
    size = run.config.optimization.micro_batch
    rows_here = len(rows.input_ids)
    bad = [index for index, part in enumerate(parts) if not is_finite(part[0])]
    found = torch.tensor([bad[0] if bad else -1], device=run.accelerator.device)
    first_bad = [int(index) for index in run.accelerator.gather(found).tolist()]
    process = next((number for number, index in enumerate(first_bad) if index >= 0), 0)
    index = first_bad[process]
    start, stop = (index * size, min(index * size + size, rows_here)) if index >= 0 else (0, rows_here)
    first = run.step * run.config.optimization.batch + process * rows_here
    path = run.output / f"bad-rows-step-{run.step + 1:08d}-process-{process}.safetensors"
    if process == run.accelerator.process_index:
        _keep_rows(path, rows.part(start, stop))
    raise LeiaError(
        f"step {run.step + 1}, process {process}, rows {first + start} to {first + stop - 1}: loss {loss}, gradient norm "
        f"{norm}; the weights were not changed. Lower --learning-rate or look at these rows, which are in {path}"
    )


def _keep_rows(path: Path, rows: PackedRows) -> None:
    from safetensors.numpy import save_file

    with disk_errors(path):
        save_file({name: getattr(rows, name).copy() for name in ("input_ids", "position_ids", "labels")}, path)


def _save(run: _Run) -> Path:
    """A checkpoint to resume from; then the old ones go."""
    path = run.output / step_name(run.step)
    on_main(run.accelerator, partial(_save_here, run, path))
    return path


def _save_here(run: _Run, path: Path) -> None:
    if not is_whole(path):
        more = {} if run.marker_rows is None else {_MARKER_START: run.marker_rows.start}
        save_checkpoint(run.output, path.name, run.bare_model, run.tokenizer, (run.optimizer, run.step), more)
    remove_old(run.output, run.config.run.keep)


def _interrupt(run: _Run) -> None:
    """Save and say so.

    Raises: Interrupted.
    """
    checkpoint = _save(run)
    on_main(run.accelerator, lambda: write_status(run.output, "interrupted", run.step, checkpoint))
    raise Interrupted(
        f"{run.stop.signal_name or 'a signal to another process'} after step {run.step} of {run.steps}; "
        f"saved {checkpoint}; the same command goes on from there"
    )


def _evaluate(run: _Run, *, final: bool) -> dict[str, Evaluation]:
    """The losses on all texts, noted in the log."""
    token_loss = run.accelerator.unwrap_model(run.model)
    share_rows = not run.config.data.cross_document
    found = {}
    for name, texts in run.texts.items():
        evaluation = evaluate(token_loss, texts, run.config.data.max_length, run.accelerator, share_rows=share_rows)
        if evaluation is not None:
            found[name] = evaluation
    if run.log is not None and found:
        noted = {name: asdict(evaluation) for name, evaluation in found.items()}
        record: dict[str, Any] = {"step": run.step, "evaluation": noted.pop(VALIDATION, None)}
        run.log.write({**record, **({"evaluations": noted} if noted else {}), **({"final": True} if final else {})})
        if run.tracking is not None:
            values = {f"bits_per_byte/{name}": evaluation.bits_per_byte for name, evaluation in found.items()}
            run.tracking.write(run.step, values)
        for name, evaluation in found.items():
            run.report(_evaluation_line(name, evaluation))
    return found


def _evaluation_line(name: str, evaluation: Evaluation) -> str:
    names = (
        ""
        if evaluation.nats_per_name_token is None
        else f", {evaluation.nats_per_name_token:.4f} nats a token on {evaluation.name_tokens:,} tokens of names"
    )
    return f"{name}: {evaluation.bits_per_byte:.4f} bits per byte on {evaluation.documents:,} texts{names}"


def _finish(run: _Run) -> TrainingResult:
    """Save the final model, then evaluate it and note that the run is finished."""
    final = run.output / FINAL_NAME
    on_main(run.accelerator, lambda: save_checkpoint(run.output, FINAL_NAME, run.bare_model, run.tokenizer, None))
    if run.marker_rows is not None:
        run.report(f"the markers moved by at most {run.marker_rows.movement():.2%} of a typical weight of theirs")
    found = _evaluate(run, final=True)
    on_main(run.accelerator, lambda: _note_finish(run, final, found))
    return TrainingResult(checkpoint=final, step=run.step, evaluation=found.get(VALIDATION), evaluations=found)


def _note_finish(run: _Run, final: Path, found: Mapping[str, Evaluation]) -> None:
    noted = {name: asdict(evaluation) for name, evaluation in found.items()}
    validation = noted.pop(VALIDATION, None)
    more = {"evaluations": noted} if noted else {}
    write_status(run.output, "finished", run.step, final, evaluation=validation, **more)
    if run.tracking is not None:
        run.tracking.close()

"""From a TrainConfig to a trained checkpoint: a plain accelerate loop over the plan's rows.

Not transformers' Trainer, which logs NaN as 0.0, resumes by skipping data and never falls back to an older checkpoint.
A step's loss is the sum over its tokens by the number of its labels over all processes; weights and optimizer state are
float32 (at lr 5e-6 most coordinates of bfloat16 weights would not move at all).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
from accelerate import Accelerator
from torch import Tensor
from torch.optim import AdamW, Optimizer

from leia_beam.errors import Interrupted, LeiaError, UsageError
from leia_train.attention import check_isolation, packed_logits
from leia_train.checkpoints import (
    FINAL_NAME,
    Checkpoint,
    is_whole,
    load_training,
    newest_checkpoint,
    remove_old,
    remove_temporary,
    save_checkpoint,
    step_name,
)
from leia_train.config import OptimizationConfig, TrainConfig
from leia_train.evaluation import Evaluation, evaluate
from leia_train.files import disk_errors
from leia_train.loss import is_finite, step_loss, summed_token_loss
from leia_train.markers import CheckpointTokenizer, add_markers
from leia_train.metrics import MetricsLog, StepMetrics
from leia_train.model import load_model
from leia_train.packing import PackedRows
from leia_train.plan import TrainingPlan
from leia_train.runs import STATUS_NAME, StopRequest, check_output, locked, read_status, write_run, write_status
from leia_train.schedule import learning_rate
from leia_train.store import Store, open_shards, open_store, store_fingerprint

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """Where the final model is, and the loss on the validation articles where there are any."""

    checkpoint: Path
    step: int
    evaluation: Evaluation | None


@dataclass(kw_only=True, slots=True)
class _Run:
    """What a loop works with; `step` is the number of updates that were done."""

    config: TrainConfig
    output: Path
    accelerator: Accelerator
    plan: TrainingPlan
    tokenizer: CheckpointTokenizer
    model: Any
    optimizer: Any
    step: int
    stop: StopRequest
    report: Report
    progress: Report


def train(config: TrainConfig, *, report: Report, progress: Report) -> TrainingResult:
    """Train, or go on with the run that the output folder holds. `progress` is told of each step.

    Raises: Interrupted after SIGTERM or SIGINT, when a checkpoint is saved; any LeiaError.
    """
    accelerator = _make_accelerator(config)
    folders = open_shards(config.data.shards)
    identity = {**config.identity(), "data_fingerprint": store_fingerprint(folders)}
    output = Path(config.run.output)
    check_output(output, identity)
    tokenizer = add_markers(folders[0].tokenizer, config.data.markers, config.data.marker_text)
    with locked(output) if accelerator.is_main_process else nullcontext(), StopRequest().listening() as stop:
        finished = _finished(output, config)
        if finished is not None:
            report(f"this run is finished: {finished.checkpoint}")
            return finished
        if accelerator.is_main_process:
            remove_temporary(output)
        with accelerator.local_main_process_first(), disk_errors(output):
            store = open_store(folders, output)
        plan = TrainingPlan(store, config.data, config.optimization.seed, tokenizer.markers)
        run = _prepare(config, accelerator, plan, tokenizer, stop, report, progress)
        if accelerator.is_main_process:
            (output / STATUS_NAME).unlink(missing_ok=True)
            write_run(output, identity, _versions())
        _loop(run)
        return _finish(run)


def _make_accelerator(config: TrainConfig) -> Accelerator:
    accelerator = Accelerator(
        cpu=config.run.device == "cpu", mixed_precision="bf16" if config.model.dtype == "bfloat16" else "no"
    )
    if config.optimization.batch % accelerator.num_processes:
        raise UsageError(
            f"--batch {config.optimization.batch}: must be a multiple of the {accelerator.num_processes} processes"
        )
    return accelerator


def _versions() -> dict[str, str]:
    modules = {"torch": torch, "transformers": transformers, "accelerate": accelerate}
    return {name: str(module.__version__) for name, module in modules.items()}


def _finished(output: Path, config: TrainConfig) -> TrainingResult | None:
    """The result of a run that is done already and whose final checkpoint is whole."""
    status = read_status(output)
    final = output / FINAL_NAME
    if status.get("status") != "finished" or not is_whole(final):
        return None
    found = status.get("evaluation")
    return TrainingResult(
        checkpoint=final, step=config.optimization.steps, evaluation=Evaluation(**found) if found else None
    )


def _prepare(
    config: TrainConfig,
    accelerator: Accelerator,
    plan: TrainingPlan,
    tokenizer: CheckpointTokenizer,
    stop: StopRequest,
    report: Report,
    progress: Report,
) -> _Run:
    """Model and optimizer, as the newest whole checkpoint left them or new, after the attention was probed."""
    store = plan.store
    output = Path(config.run.output)
    checkpoint = newest_checkpoint(output, report)
    source = config.model if checkpoint is None else replace(config.model, model=str(checkpoint.path))
    loaded = load_model(source, store.tokenizer, tokenizer, config.data.max_length, config.optimization.seed)
    for warning in loaded.warnings:
        report(f"warning: {warning}")
    _say_what_runs(report, store, plan, checkpoint)
    if not config.data.cross_document:
        error = check_isolation(loaded.model, store.tokenizer.vocabulary_size)
        report(f"documents of a packed row do not see each other (packed and separate logits differ by {error:.1e})")
    optimizer = make_optimizer(loaded.model, config.optimization)
    model, prepared = accelerator.prepare(loaded.model, optimizer)
    if checkpoint is not None:
        load_training(checkpoint, prepared)
    return _Run(
        config=config,
        output=output,
        accelerator=accelerator,
        plan=plan,
        tokenizer=tokenizer,
        model=model,
        optimizer=prepared,
        step=checkpoint.step if checkpoint is not None else 0,
        stop=stop,
        report=report,
        progress=progress,
    )


def _say_what_runs(report: Report, store: Store, plan: TrainingPlan, checkpoint: Checkpoint | None) -> None:
    report(
        f"{len(plan.training_documents):,} articles, {len(store.documents.tokens):,} tokens, "
        f"{len(store.entity_ordinals):,} named entities, {plan.usable_entities:,} usable for "
        f"strategy {plan.data.strategy}"
    )
    if not len(plan.validation_documents):
        report(
            f"no evaluation loss: --validation-share {plan.data.validation_share:g} leaves none of {len(store):,} articles"
        )
    if checkpoint is not None:
        report(f"going on from {checkpoint.path} after step {checkpoint.step}")


def make_optimizer(model: torch.nn.Module, config: OptimizationConfig) -> Optimizer:
    """AdamW with the paper's betas; weight decay on matrices, not on norms and biases."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), eps=config.epsilon)


def _loop(run: _Run) -> None:
    """Do the steps that are left; stop after the one in which a signal came."""
    log = MetricsLog(run.output, run.step) if run.accelerator.is_main_process else None
    run.model.train()
    while run.step < run.config.optimization.steps:
        if _stop_requested(run):
            _interrupt(run)
        metrics = do_step(run)
        run.step = metrics.step
        if log is not None:
            log.write(metrics)
            run.progress(metrics.line(run.config.optimization.steps))
        every = run.config.run.save_every
        if every and run.step % every == 0 and run.step < run.config.optimization.steps:
            _save(run)


def _stop_requested(run: _Run) -> bool:
    """Whether any process was told to stop."""
    if run.accelerator.num_processes == 1:
        return run.stop.signal_name is not None
    flag = torch.tensor([float(run.stop.signal_name is not None)], device=run.accelerator.device)
    return bool(run.accelerator.reduce(flag, "sum").item() > 0)


def do_step(run: _Run) -> StepMetrics:
    """One update: the rows of this process, micro-batch by micro-batch.

    Raises: LeiaError where the loss or the gradient is not finite, before the weights are touched.
    """
    started_s = time.perf_counter()
    settings = run.config.optimization
    rows_here = settings.batch // run.accelerator.num_processes
    first = run.step * settings.batch + run.accelerator.process_index * rows_here
    rows = run.plan.rows(first, rows_here)
    tokens, labels, inserted = _summed_over_processes(run, [rows.input_ids.size, rows.label_count, rows.inserted_count])
    losses = accumulate_gradients(run, rows, labels)
    norm = _clip(run)
    loss = run.accelerator.reduce(torch.stack(losses).double().sum(), "sum").item()
    if not (is_finite(loss) and is_finite(norm)):
        raise LeiaError(_not_finite(run, losses, loss, norm, first))
    rate = learning_rate(settings, run.step)
    apply_update(run, rate)
    return StepMetrics(
        step=run.step + 1,
        loss=loss,
        learning_rate=rate,
        gradient_norm=norm,
        tokens=tokens,
        label_tokens=labels,
        inserted_tokens=inserted,
        epoch=run.plan.epoch_of_row(first),
        seconds=time.perf_counter() - started_s,
    )


def _summed_over_processes(run: _Run, counts: list[int]) -> list[int]:
    if run.accelerator.num_processes == 1:
        return counts
    total = run.accelerator.reduce(torch.tensor(counts, device=run.accelerator.device), "sum")
    return [int(count) for count in total.tolist()]


def accumulate_gradients(run: _Run, rows: PackedRows, label_count: int) -> list[Tensor]:
    """The gradients of all rows of a step, and each micro-batch's part of the loss."""
    size = run.config.optimization.micro_batch
    starts = range(0, len(rows.input_ids), size)
    losses = []
    for start in starts:
        last = start == starts[-1]
        with nullcontext() if last else run.accelerator.no_sync(run.model):
            loss = micro_batch_loss(run, rows.part(start, start + size), label_count)
            run.accelerator.backward(loss * run.accelerator.num_processes)  # DDP takes the mean over processes
        losses.append(loss.detach())
    return losses


def micro_batch_loss(run: _Run, rows: PackedRows, label_count: int) -> Tensor:
    """The part of a step's loss that some of its rows add."""
    device = run.accelerator.device
    input_ids, position_ids, labels = (
        torch.from_numpy(part).to(device) for part in (rows.input_ids, rows.position_ids, rows.labels)
    )
    with run.accelerator.autocast():
        logits = packed_logits(run.model, input_ids, position_ids)
    return step_loss(summed_token_loss(logits, labels), label_count)


def _clip(run: _Run) -> float:
    """The gradient's norm, before it was clipped."""
    limit = run.config.optimization.clip or float("inf")
    norm = run.accelerator.clip_grad_norm_(run.model.parameters(), limit)
    return float(norm)


def apply_update(run: _Run, rate: float) -> None:
    """Move the weights."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.step()
    run.optimizer.zero_grad()


def _not_finite(run: _Run, losses: list[Tensor], loss: float, norm: float, first: int) -> str:
    """Step, process and rows: those of the first micro-batch whose loss is not finite, else all of the process."""
    size = run.config.optimization.micro_batch
    rows_here = run.config.optimization.batch // run.accelerator.num_processes
    bad = [index for index, part in enumerate(losses) if not is_finite(part)]
    start, stop = (bad[0] * size, min(bad[0] * size + size, rows_here)) if bad else (0, rows_here)
    return (
        f"step {run.step + 1}, process {run.accelerator.process_index}, rows {first + start} to {first + stop - 1}: loss "
        f"{loss}, gradient norm {norm}; the weights were not changed. Lower --learning-rate or look at these rows"
    )


def _save(run: _Run) -> Path:
    """A checkpoint to resume from; then the old ones go."""
    run.accelerator.wait_for_everyone()
    path = run.output / step_name(run.step)
    if run.accelerator.is_main_process:
        if not is_whole(path):
            model = run.accelerator.unwrap_model(run.model)
            save_checkpoint(run.output, path.name, model, run.tokenizer, (run.optimizer, run.step))
        remove_old(run.output, run.config.run.keep)
    run.accelerator.wait_for_everyone()
    return path


def _interrupt(run: _Run) -> None:
    """Save and say so.

    Raises: Interrupted.
    """
    checkpoint = _save(run)
    if run.accelerator.is_main_process:
        write_status(run.output, "interrupted", run.step, checkpoint)
    raise Interrupted(
        f"{run.stop.signal_name or 'a signal to another process'} after step {run.step} of "
        f"{run.config.optimization.steps}; saved {checkpoint}; the same command goes on from there"
    )


def _finish(run: _Run) -> TrainingResult:
    """Save the final model, then evaluate it and note that the run is finished."""
    run.accelerator.wait_for_everyone()
    final = run.output / FINAL_NAME
    model = run.accelerator.unwrap_model(run.model)
    evaluation = None
    if run.accelerator.is_main_process:
        save_checkpoint(run.output, FINAL_NAME, model, run.tokenizer, None)
        evaluation = evaluate(
            model,
            run.plan.store,
            run.plan.validation_documents,
            run.config.data.max_length,
            run.accelerator,
            share_rows=not run.config.data.cross_document,
        )
        noted = None if evaluation is None else asdict(evaluation)
        if noted is not None:
            MetricsLog(run.output, run.step).write({"step": run.step, "evaluation": noted})
            run.report(f"validation: {noted['bits_per_byte']:.4f} bits per byte on {noted['documents']:,} articles")
        write_status(run.output, "finished", run.step, final, evaluation=noted)
    run.accelerator.wait_for_everyone()
    return TrainingResult(checkpoint=final, step=run.step, evaluation=evaluation)

"""From a Run at some step to its figures: losses on all texts and scores on tasks, in the log, the tracker and on the terminal.

A signal ends an evaluation at once; the checkpoint that is then saved is gone on from with that evaluation.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from leia_train.checkpoints import FINAL_NAME, TEMPORARY_PREFIX, is_distributed, is_whole, step_name
from leia_train.evaluation import VALIDATION, Evaluation, evaluate
from leia_train.lora_files import is_adapter
from leia_train.metrics import read_metrics
from leia_train.preparing import Run
from leia_train.processes import on_main, summed
from leia_train.run_config import RunConfig
from leia_train.tasks import FOLDER_NAME, TaskScore, score_tasks


class Stopped(Exception):
    """An evaluation was ended by a signal, in all processes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Losses by the name of their texts, and scores by task."""

    losses: Mapping[str, Evaluation] = field(default_factory=dict)
    tasks: Mapping[str, TaskScore] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """As the log and the status have it."""
        noted = {name: asdict(evaluation) for name, evaluation in self.losses.items()}
        content: dict[str, Any] = {"evaluation": noted.pop(VALIDATION, None)}
        if noted:
            content["evaluations"] = noted
        if self.tasks:
            content["tasks"] = {name: asdict(score) for name, score in self.tasks.items()}
        return content


def read_figures(content: Mapping[str, Any]) -> Figures:
    """What `Figures.content` made."""
    losses = {name: Evaluation(**values) for name, values in content.get("evaluations", {}).items()}
    if content.get("evaluation"):
        losses[VALIDATION] = Evaluation(**content["evaluation"])
    return Figures(
        losses=losses, tasks={name: TaskScore(**values) for name, values in content.get("tasks", {}).items()}
    )


def due(settings: RunConfig, step: int) -> tuple[bool, bool]:
    """Whether losses, and whether tasks, are evaluated after a step that is not the last."""
    return (
        settings.eval_every > 0 and step % settings.eval_every == 0,
        bool(settings.eval_tasks) and settings.eval_tasks_every > 0 and step % settings.eval_tasks_every == 0,
    )


def evaluate_step(run: Run) -> None:
    """What is due after a step that is not the last, unless the log has it already (a run that goes on from here).

    Raises: Stopped.
    """
    with_losses, with_tasks = due(run.config.run, run.step)
    if (with_losses or with_tasks) and not _is_noted(run):
        _note(run, _figures(run, with_losses, with_tasks, step_name(run.step)), {})


def evaluate_final(run: Run) -> Figures:
    """All figures of the final checkpoint.

    Raises: Stopped.
    """
    figures = _figures(run, True, bool(run.config.run.eval_tasks), FINAL_NAME)
    _note(run, figures, {"final": True})
    return figures


def _is_noted(run: Run) -> bool:
    def look() -> bool:
        return any(record["step"] == run.step and "evaluation" in record for record in read_metrics(run.output))

    return summed(run.accelerator, [float(bool(on_main(run.accelerator, look)))])[0] > 0


def _figures(run: Run, with_losses: bool, with_tasks: bool, checkpoint: str) -> Figures:
    losses = _losses(run) if with_losses else {}
    tasks = _tasks(run, checkpoint) if with_tasks else {}
    return Figures(losses=losses, tasks=tasks)


def _losses(run: Run) -> dict[str, Evaluation]:
    share_rows = not run.config.data.cross_document
    found = {}
    for name, texts in run.texts.items():
        with run.parallelism.without_backward():
            evaluation = evaluate(
                run.parallelism.token_loss,
                texts,
                run.config.data.max_length,
                run.accelerator,
                share_rows=share_rows,
                stopped=run.stop.requested,
                tell=run.progress,
                together=run.parallelism.sharded,
            )
        if evaluation is None:
            raise Stopped
        if evaluation.size_bytes:
            found[name] = evaluation
    return found


def _tasks(run: Run, checkpoint: str) -> dict[str, TaskScore]:
    """The tasks' scores on the first process, which the others wait for; empty on those."""
    found = _score_saved(run, run.output / checkpoint)
    if summed(run.accelerator, [float(run.accelerator.is_main_process and found is None)])[0]:
        raise Stopped
    return found or {}


def _score_saved(run: Run, checkpoint: Path) -> dict[str, TaskScore] | None:
    """The scores of a checkpoint that is on the disk in Hugging Face's form, or of one that is written for this and removed."""

    def look() -> bool:
        return is_whole(checkpoint) and not is_distributed(checkpoint) and not is_adapter(checkpoint)

    if summed(run.accelerator, [float(bool(on_main(run.accelerator, look)))])[0]:
        return on_main(run.accelerator, lambda: _score(run, checkpoint))
    around = run.output / f"{TEMPORARY_PREFIX}tasks-{run.step}"
    try:
        on_main(run.accelerator, around.mkdir)
        run.parallelism.save_model(around, checkpoint.name, run.tokenizer)
        return on_main(run.accelerator, lambda: _score(run, around / checkpoint.name))
    finally:
        if run.accelerator.is_main_process:
            shutil.rmtree(around, ignore_errors=True)


def _score(run: Run, folder: Path) -> dict[str, TaskScore] | None:
    """Score a checkpoint in Hugging Face's form."""
    config = run.config
    device = run.accelerator.device
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the other process loads the model a second time beside the training's memory

    return score_tasks(
        config.run,
        folder,
        run.output / FOLDER_NAME / folder.name,
        device=str(device),
        dtype=config.model.dtype,
        stopped=run.stop.requested,
    )


def _note(run: Run, figures: Figures, more: Mapping[str, Any]) -> None:
    if run.log is None or not (figures.losses or figures.tasks):
        return
    run.log.write({"step": run.step, **figures.content(), **more})
    if run.tracking is not None:
        values = {f"bits_per_byte/{name}": evaluation.bits_per_byte for name, evaluation in figures.losses.items()}
        values |= {f"tasks/{name}": score.score for name, score in figures.tasks.items()}
        run.tracking.write(run.step, values)
    for name, evaluation in figures.losses.items():
        run.report(f"step {run.step}: {_loss_line(name, evaluation)}")
    for name, score in figures.tasks.items():
        chance = "" if score.chance is None else f", chance {score.chance:.4f}"
        run.report(f"step {run.step}: task {name}: {score.metric} {score.score:.4f} on {score.n:,} items{chance}")


def _loss_line(name: str, evaluation: Evaluation) -> str:
    names = (
        ""
        if evaluation.nats_per_name_token is None
        else f", {evaluation.nats_per_name_token:.4f} nats a token on {evaluation.name_tokens:,} tokens of names"
    )
    return f"{name}: {evaluation.bits_per_byte:.4f} bits per byte on {evaluation.documents:,} texts{names}"

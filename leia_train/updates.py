"""From the rows of a step to one update of the weights, or to a stop before it.

The loss is the sum over the step's tokens by the number of its labels over all processes, whatever the micro-batches. What
is random in a model (dropout) is drawn from the seed and the row alone, so a resume needs no generator's state.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leia_beam.errors import LeiaError
from leia_train.files import disk_errors
from leia_train.loader import StepRows
from leia_train.loss import is_finite, step_loss
from leia_train.metrics import StepMetrics
from leia_train.packing import PackedRows
from leia_train.preparing import Run
from leia_train.processes import summed
from leia_train.schedule import learning_rate


def do_step(run: Run, given: StepRows) -> StepMetrics:
    """One update: the rows of this process, micro-batch by micro-batch.

    Raises: LeiaError where the loss or the gradient is not finite, before the weights are touched.
    """
    started_s = time.perf_counter()
    rows = given.rows
    counts = [rows.input_ids.size, rows.label_count, rows.inserted_count, rows.name_label_count]
    tokens, labels, inserted, name_labels, *of_sources = (
        int(count) for count in summed(run.accelerator, counts + _source_counts(run, rows))
    )
    parts = accumulate_gradients(run, rows, labels)
    norm = clip(run)
    loss, name_nats, *source_nats = summed(run.accelerator, torch.stack(parts).double().sum(dim=0).tolist())
    if not (is_finite(loss) and is_finite(norm)):
        refuse_update(run, rows, parts, loss, norm)
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
        mean_segment=rows.mean_segment,
        epoch=given.epoch,
        moved_share=moved,
        seconds=time.perf_counter() - started_s + given.waited_s,
        waited_s=given.waited_s,
        **_of_sources(run, of_sources, source_nats),
    )


def _source_counts(run: Run, rows: PackedRows) -> list[int]:
    """The tokens of each source in the rows, then the tokens in the loss of each; nothing where there is one source."""
    if rows.sources is None:
        return []
    size = len(run.plan.names)
    here = np.bincount(rows.sources, minlength=size) * rows.input_ids.shape[1]
    labels = np.bincount(rows.sources, weights=rows.row_label_counts, minlength=size)
    return [*here.tolist(), *labels.astype(int).tolist()]


def _of_sources(run: Run, counts: list[int], nats: list[float]) -> dict[str, Any]:
    """Tokens and mean loss by source."""
    if not counts:
        return {}
    names = run.plan.names
    tokens, labels = counts[: len(names)], counts[len(names) :]
    losses = {name: total / count if count else None for name, total, count in zip(names, nats, labels, strict=True)}
    return {"source_tokens": dict(zip(names, tokens, strict=True)), "source_losses": losses}


def accumulate_gradients(run: Run, rows: PackedRows, label_count: int) -> list[Tensor]:
    """The gradients of all rows of a step; each micro-batch's part of the loss, and its names' and sources' in nats (2 + K,)."""
    size = run.config.optimization.micro_batch
    starts = range(0, len(rows.input_ids), size)
    first = run.step * run.config.optimization.batch + run.accelerator.process_index * len(rows.input_ids)
    parts = []
    for start in starts:
        last = start == starts[-1]
        torch.manual_seed(row_seed(run.config.optimization.seed, first + start))
        with run.parallelism.accumulating(last=last):
            part = micro_batch_loss(run, rows.part(start, start + size), label_count)
            run.parallelism.backward(part[0])
        parts.append(part.detach())
    return parts


def row_seed(seed: int, row: int) -> int:
    """The seed of what is random in the model for a micro-batch that begins with a row of the stream."""
    return int.from_bytes(hashlib.sha256(f"{seed} {row}".encode()).digest()[:8], "big") >> 1


def micro_batch_loss(run: Run, rows: PackedRows, label_count: int) -> Tensor:
    """The part of a step's loss that some of its rows add, and the sums of their inserted names' loss and of each source's.

    (2 + K,), or (2,) in a run of one source.
    """
    device = run.accelerator.device
    input_ids, position_ids, labels = (
        torch.from_numpy(part).to(device) for part in (rows.input_ids, rows.position_ids, rows.labels)
    )
    with run.accelerator.autocast():
        losses = run.parallelism.model(input_ids, position_ids, labels)
    names = losses.detach().masked_fill(torch.from_numpy(~rows.inserted).to(device), 0).sum()
    if run.config.data.compat == "leia":
        per_row = torch.from_numpy(rows.row_label_counts).to(device)
        loss = step_loss(losses, label_count, per_row, run.config.optimization.batch)
    else:
        loss = step_loss(losses, label_count)
    if rows.sources is None:
        return torch.stack([loss, names])
    sources = torch.from_numpy(rows.sources).to(device)
    of_rows = losses.detach().reshape(len(rows.input_ids), -1).sum(dim=1)
    nats = torch.zeros(len(run.plan.names), dtype=of_rows.dtype, device=device).index_add(0, sources, of_rows)
    return torch.cat([torch.stack([loss, names]), nats])


def clip(run: Run) -> float:
    """The gradient's norm, before it was clipped."""
    return run.parallelism.clip(run.config.optimization.clip or float("inf"))


def _update(run: Run, rate: float) -> float | None:
    """Move the weights; at a step with a checkpoint, the share of them that moved."""
    settings = run.config
    every = settings.run.save_every
    counted = run.step + 1 == run.steps or (every > 0 and (run.step + 1) % every == 0)
    before = None
    if counted and (run.parallelism.sharded or run.accelerator.is_main_process):  # on the CPU, where there is room
        before = [part.to("cpu", copy=True) for part in run.parallelism.local_weights()]
    own_rate = settings.optimization.marker_learning_rate
    stretched = run.marker_rows if own_rate and rate else None
    rows = stretched.copies() if stretched is not None else []
    apply_update(run, rate)
    if stretched is not None:
        stretched.stretch_step(rows, own_rate / settings.optimization.learning_rate)
    if before is None:
        return None
    pairs = zip(run.parallelism.local_weights(), before, strict=True)
    moved: float = sum(int((new.cpu() != old).sum()) for new, old in pairs)
    count: float = sum(weight.numel() for weight in before)
    if run.parallelism.sharded:
        moved, count = summed(run.accelerator, [moved, count])
    return float(moved / count)


def apply_update(run: Run, rate: float) -> None:
    """One step of the optimizer."""
    run.parallelism.update(rate)


def refuse_update(run: Run, rows: PackedRows, parts: list[Tensor], loss: float, norm: float) -> None:
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

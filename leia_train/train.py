"""From a TrainConfig to a trained checkpoint: a plain accelerate loop over the plan's rows.

Not transformers' Trainer, which logs NaN as 0.0, resumes by skipping data and never falls back to an older checkpoint.
A step's loss is the sum over its tokens by the number of its labels over all processes; weights and optimizer state are
float32 (at lr 5e-6 most coordinates of bfloat16 weights would not move at all).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import accelerate
import torch
import transformers
from accelerate import Accelerator

from leia_beam.console import Rate, Tell
from leia_beam.errors import AnotherProcess, Interrupted, LeiaError, MissingResource
from leia_train.asked_parallelism import Sharding, ZeroSettings, asked_parallelism
from leia_train.checkpoints import FINAL_NAME, is_whole, remove_old, remove_temporary, step_name
from leia_train.config import TrainConfig
from leia_train.evaluating import Figures, Stopped, evaluate_final, evaluate_step, read_figures
from leia_train.files import disk_errors
from leia_train.loader import RowLoader
from leia_train.markers import add_markers
from leia_train.metrics import MetricsLog, SpikeWatch
from leia_train.opening import open_data
from leia_train.preparing import Run, prepare, to_keep
from leia_train.processes import check_same_folder, close_processes, is_lost_process, make_accelerator, on_main, summed
from leia_train.runs import (
    CODE,
    LOG_NAME,
    STATUS_NAME,
    StopRequest,
    check_output,
    code_fingerprint,
    locked,
    read_status,
    write_run,
    write_status,
)
from leia_train.speed import flops_per_token, peak_tflops, utilisation
from leia_train.tasks import check_tasks
from leia_train.tracking import Tracking, choose_tracker
from leia_train.updates import do_step

Report = Callable[[str], None]
Result = TypeVar("Result")
Told = TypeVar("Told")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """Where the final model is, and its figures."""

    checkpoint: Path
    step: int
    figures: Figures


def train(
    config: TrainConfig, *, report: Report, progress: Tell, log_to: Callable[[Path], None] = lambda path: None
) -> TrainingResult:
    """Train, or go on with the run that the output folder holds. `progress` is told of each step, `log_to` where what
    libraries say is to go, as soon as the folder is known to be this run's.

    Raises: Interrupted after SIGTERM or SIGINT, when a checkpoint is saved; MissingResource where memory is out; any
    LeiaError.
    """
    sharding = asked_parallelism(config)
    accelerator = make_accelerator(config)
    try:
        report, progress = _on_main_alone(accelerator, report), _on_main_alone(accelerator, progress)
        result = _train(config, accelerator, sharding, report, progress, log_to)
        close_processes()
        return result
    except torch.OutOfMemoryError as error:
        raise MissingResource(
            f"{accelerator.device}: out of memory ({first_line(error)}); lower --micro-batch or --max-length, or give "
            "--activation-checkpointing full; leia-train plan estimates what is needed"
        ) from error
    except RuntimeError as error:
        if "not enough memory" in str(error):  # what torch says of the CPU's
            raise MissingResource(f"{first_line(error)}; lower --micro-batch or --max-length") from error
        if accelerator.num_processes > 1 and is_lost_process(error):
            raise AnotherProcess(
                "another process of this run ended; its message says why, and without one it was killed, usually for lack of "
                "memory"
            ) from error
        raise
    except LeiaError as error:
        if isinstance(error, Interrupted):
            close_processes()
        raise  # the group ends with this process, after its message: the others would else end first, and it with them


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _on_main_alone(accelerator: Accelerator, say: Callable[[Told], None]) -> Callable[[Told], None]:
    return say if accelerator.is_main_process else lambda told: None


def _train(
    config: TrainConfig,
    accelerator: Accelerator,
    sharding: Sharding | ZeroSettings | None,
    report: Report,
    progress: Tell,
    log_to: Callable[[Path], None],
) -> TrainingResult:
    tracker = choose_tracker(config.run.tracker)
    opened = open_data(config.data)
    identity = {**config.identity(), **opened.identity(), CODE: code_fingerprint()}
    output = Path(config.run.output)
    check_output(output, identity, accept_other_code=config.run.accept_other_code)
    tokenizer = add_markers(opened.tokenizer, config.data.markers, config.data.marker_text)
    lock = locked(output) if accelerator.is_main_process else nullcontext("")
    with lock as holder, StopRequest().listening() as stop:
        check_same_folder(accelerator, output, holder)
        finished = _finished(output, accelerator)
        if finished is not None:
            report(f"this run is finished: {finished.checkpoint}")
            return finished
        on_main(accelerator, lambda: _clear(config, output))
        process = accelerator.process_index
        with disk_errors(output):
            log_to(output / (f"train-{process}.log" if process else LOG_NAME))
        run = prepare(config, accelerator, opened, tokenizer, stop, report, progress, sharding)
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


def _clear(config: TrainConfig, output: Path) -> None:
    """Check what only the first process needs, then remove what a killed run left half-written."""
    if config.run.eval_tasks:
        check_tasks(config.run)
    remove_temporary(output)


def _begin(run: Run, identity: Mapping[str, Any], tracker: str | None) -> None:
    """Note what the run is, once all of it was checked, and open its logs."""
    (run.output / STATUS_NAME).unlink(missing_ok=True)
    write_run(run.output, identity, _versions(run.config), **run.parallelism.described)
    run.log = MetricsLog(run.output, run.step)
    run.tracking = Tracking(tracker, run.output, identity, run.report)


def _versions(config: TrainConfig) -> dict[str, str]:
    modules = {"torch": torch, "transformers": transformers, "accelerate": accelerate}
    if config.model.lora:
        import peft

        modules["peft"] = peft
    return {name: str(module.__version__) for name, module in modules.items()}


def _finished(output: Path, accelerator: Accelerator) -> TrainingResult | None:
    """The result of a run that is done already and whose final checkpoint is whole: the first process looks."""
    final = output / FINAL_NAME

    def look() -> bool:
        return read_status(output).get("status") == "finished" and is_whole(final)

    if not summed(accelerator, [float(bool(on_main(accelerator, look)))])[0]:
        return None
    status = read_status(output)
    return TrainingResult(checkpoint=final, step=int(status["step"]), figures=read_figures(status))


def _loop(run: Run, loader: RowLoader) -> None:
    """Do the steps that are left; stop after the one in which a signal came."""
    watch, pace = SpikeWatch(run.config.run.spike), Rate(run.steps, run.step)
    settings = run.config.run
    held = run.parallelism.held
    alone = flops_per_token(run.bare_model, 0, held)
    seen = flops_per_token(run.bare_model, 1, held) - alone
    peak = peak_tflops(run.accelerator.device)
    run.parallelism.model.train()
    if 0 < run.step < run.steps:
        _saving_first(run, evaluate_step)  # which the run may have been stopped in
    while run.step < run.steps:
        if _stop_requested(run):
            _interrupt(run)
        metrics = do_step(run, loader.next())
        run.step = metrics.step
        pace.note(run.step)
        run.count_sources(metrics)
        if run.log is not None and run.tracking is not None:
            run.log.write(metrics)
            run.tracking.write(metrics.step, metrics.values())
            rate = metrics.tokens / max(metrics.seconds, 1e-9)
            flops = alone + seen * metrics.mean_segment
            used = utilisation(rate, flops, run.accelerator.num_processes, peak)
            run.progress(metrics.measure(run.steps, used, pace))
        spike = watch.warning(metrics.step, metrics.loss)
        if spike is not None:
            run.report(spike)
        if run.step < run.steps:
            if settings.save_every and run.step % settings.save_every == 0:
                _save(run)
            _saving_first(run, evaluate_step)


def _stop_requested(run: Run) -> bool:
    """Whether any process was told to stop."""
    return summed(run.accelerator, [float(run.stop.requested())])[0] > 0


def _save(run: Run, *, said: bool = True) -> Path:
    """A checkpoint to resume from; then the old ones go."""
    path = run.output / step_name(run.step)
    if not summed(run.accelerator, [float(bool(on_main(run.accelerator, partial(is_whole, path))))])[0]:
        began_s = time.perf_counter()
        run.parallelism.save_checkpoint(run.output, path.name, run.tokenizer, run.step, to_keep(run))
        if said:
            run.report(_saved_line(run, path, began_s))
    on_main(run.accelerator, partial(remove_old, run.output, run.config.run.keep))
    return path


def _saved_line(run: Run, path: Path, began_s: float) -> str:
    return f"step {run.step}: saved {path} in {time.perf_counter() - began_s:.1f} s"


def _interrupt(run: Run) -> NoReturn:
    """Save and say so.

    Raises: Interrupted.
    """
    checkpoint = _save(run, said=False)
    on_main(run.accelerator, lambda: write_status(run.output, "interrupted", run.step, checkpoint))
    raise Interrupted(
        f"{run.stop.signal_name or 'a signal to another process'} after step {run.step} of {run.steps}; "
        f"saved {checkpoint}; the same command goes on from there"
    )


def _finish(run: Run) -> TrainingResult:
    """Save the final model, then evaluate it and note that the run is finished."""
    final = run.output / FINAL_NAME
    _check_sources(run)
    began_s = time.perf_counter()
    run.parallelism.save_model(run.output, FINAL_NAME, run.tokenizer)
    run.report(_saved_line(run, final, began_s))
    if run.marker_rows is not None:
        moved = run.marker_rows.movement()
        run.report(f"the markers moved by at most {moved:.2%} of the embeddings' standard deviation")
    figures = _saving_first(run, evaluate_final)
    on_main(run.accelerator, lambda: write_status(run.output, "finished", run.step, final, **figures.content()))
    if run.tracking is not None:
        run.tracking.close()
    return TrainingResult(checkpoint=final, step=run.step, figures=figures)


def _check_sources(run: Run) -> None:
    """Say what was read of each source, from the first step on, and hold it against its share.

    Raises: LeiaError.
    """
    if not run.plan.is_mixed:
        return
    run.plan.check_shares(run.step * run.config.optimization.batch, run.source_tokens)
    total = sum(run.source_tokens)
    parts = (f"{name} {tokens:,} ({tokens / total:.2%})" for name, tokens in zip(run.plan.names, run.source_tokens))
    run.report(f"tokens of each source: {', '.join(parts)}")


def _saving_first(run: Run, evaluation: Callable[[Run], Result]) -> Result:
    """The result of an evaluation. One that a signal or a fault ends costs no step: all of the state is saved first.

    Raises: Interrupted; what the tasks raise.
    """
    try:
        return evaluation(run)
    except Stopped:
        _interrupt(run)
    except LeiaError:
        _save(run)
        raise

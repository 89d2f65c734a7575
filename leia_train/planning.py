"""From a TrainConfig to what `train` would do with it: rows, tokens, steps, memory, and the checks that it would make.

Everything is computed from the shards and the model's configuration; no weights are read and nothing is trained. The store
is built, because a run needs it anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leia_beam.console import Tell
from leia_beam.errors import MissingResource, UsageError
from leia_train.asked_parallelism import ZeroSettings
from leia_train.attention import candidates
from leia_train.checkpoints import FINAL_NAME, is_whole, newest_checkpoint
from leia_train.config import TrainConfig
from leia_train.estimates import USABLE_SHARE, cheapest_fit, fits, share_of_peak, training_seconds
from leia_train.gpus import Gpu, gpu_here
from leia_train.lora import add_adapter
from leia_train.lora import describe as describe_adapter
from leia_train.markers import CheckpointTokenizer, add_markers
from leia_train.memory import host_bytes, memory_bytes
from leia_train.mixture import MixedPlan
from leia_train.model import check_model, unfilled_model
from leia_train.model_config import TINY_LLAMA
from leia_train.opening import make_plan, open_data
from leia_train.parts_memory import Parts
from leia_train.plan import TrainingPlan
from leia_train.planned_processes import PlannedProcesses, planned_processes
from leia_train.runs import CODE, check_output, code_fingerprint, read_status
from leia_train.schedule import learning_rate
from leia_train.shard_folders import BuildTokenizer
from leia_train.speed import flops_per_token
from leia_train.start_memory import StartMemory, start_memory
from leia_train.tracking import choose_tracker

_GIB = 1 << 30
_OFFERED_RANK = 16


def describe(
    config: TrainConfig,
    *,
    report: Callable[[str], None],
    gpus: str = "",
    accelerate_config: str = "",
    tell: Tell | None = None,
) -> Iterator[str]:
    """The lines of the plan; `gpus`, such as 8xH100, are those to plan for, else the one that is here.

    `accelerate_config`: the file that the run is launched with. `tell` is told how far the stores are.

    Raises: what `train` would raise before its first step, but for damaged weights.
    """
    processes = planned_processes(config, gpus, accelerate_config)
    config = processes.config
    opened = open_data(config.data)
    identity = {**config.identity(), **opened.identity(), CODE: code_fingerprint()}
    output = Path(config.run.output)
    check_output(output, identity, accept_other_code=config.run.accept_other_code)
    tokenizer = add_markers(opened.tokenizer, config.data.markers, config.data.marker_text)
    plan = make_plan(opened, config.optimization.seed, tokenizer.markers, output, tell)
    yield from _wikis(plan.main)
    yield from _amounts(config, plan)
    yield from _settings(config, tokenizer)
    yield from _model(processes, plan, tokenizer)
    checkpoint = newest_checkpoint(output, report)
    if read_status(output).get("status") == "finished" and is_whole(output / FINAL_NAME, sums=False):
        state = "finished; train would do nothing"
    else:
        state = (
            "a new run, whose store is there now" if checkpoint is None else f"goes on after step {checkpoint.step:,}"
        )
    yield f"output        {output}: {state}"


def _wikis(plan: TrainingPlan) -> Iterator[str]:
    """Rows and names by wiki, in the first epoch."""
    store, length = plan.store, plan.data.max_length
    epoch = plan.epoch(0)
    lengths = np.diff(epoch.offsets)
    counts = np.diff(store.documents.entity_offsets)
    trained = np.zeros(len(store), bool)
    trained[epoch.order] = True
    for index, wiki in enumerate(store.wikis):
        here = store.wiki_indices[epoch.order] == index
        entities = np.repeat(trained & (store.wiki_indices == index), counts)
        yield (
            f"{wiki:<13} {int(here.sum()):,} articles in training, {int(lengths[here].sum()) / length:,.1f} rows an epoch, "
            f"{int(entities.sum()):,} named entities, {int((entities & plan.usable).sum()):,} usable for "
            f"{plan.data.strategy}, {int((entities & epoch.inserted).sum()):,} inserted in epoch 0"
        )
    yield f"validation    {len(plan.validation_documents):,} articles, in no epoch"


def _amounts(config: TrainConfig, plan: MixedPlan) -> Iterator[str]:
    """Tokens of an epoch of the shards, and of the run."""
    settings = config.optimization
    counts = plan.main.epoch_counts(0)
    steps = plan.steps(settings.steps, settings.batch)
    rows = steps * settings.batch
    tokens = rows * config.data.max_length
    share = counts.target_tokens / counts.tokens
    amounts = plan.amounts(rows)
    of_shards = amounts[0].tokens
    among = f", {of_shards:,} of them of the shards" if plan.is_mixed else ""
    yield (
        f"epoch 0       {counts.tokens:,} tokens: {counts.target_tokens:,} of the articles and their ends, "
        f"{counts.tokens - counts.target_tokens:,} inserted ({1 - share:.1%}) with {counts.insertions:,} names"
    )
    yield (
        f"run           {steps:,} steps x {settings.batch:,} rows x {config.data.max_length:,} tokens = {tokens:,} tokens"
        f"{among}, about {round(of_shards * share):,} of them the articles' own; {of_shards / counts.tokens:.2f} epochs; "
        f"budget {config.data.budget}"
    )
    for amount in amounts:
        if plan.is_mixed:
            yield f"source        {amount.line()}"
        warning = amount.warning()
        if warning is not None:
            yield f"warning       {warning}"
    rates = [learning_rate(settings, step, steps) for step in (0, steps // 2, steps - 1)]
    yield (
        f"learning rate {settings.schedule}: {rates[0]:.2e} at the first step, {rates[1]:.2e} in the middle, "
        f"{rates[2]:.2e} at the last"
    )


def _settings(config: TrainConfig, tokenizer: CheckpointTokenizer) -> Iterator[str]:
    data = config.data
    documents = "documents of a row see each other" if data.cross_document else "documents of a row are kept apart"
    dose = f"probabilities {list(data.probability_buckets)}" if data.probability_buckets else f"p {data.probability:g}"
    yield (
        f"names         {data.names}, {data.strategy}, {dose}, markers {tokenizer.kind}{_ids(tokenizer)}, "
        f"names {'in' if data.name_loss else 'not in'} the loss; {documents}; compat {data.compat}"
    )


def _ids(tokenizer: CheckpointTokenizer) -> str:
    """The tokens of the two markers, for people."""
    if tokenizer.markers is None:
        return ""
    before, after = (" ".join(map(str, ids)) for ids in tokenizer.markers)
    return f" (ids {before} and {after})"


def _model(processes: PlannedProcesses, plan: MixedPlan, tokenizer: CheckpointTokenizer) -> Iterator[str]:
    """What the model is, the kernel, and the memory and time of a process."""
    config, gpu, parts = processes.config, processes.gpu, processes.parts
    has_markers = False
    if config.model.model != TINY_LLAMA:
        warnings, has_markers = check_model(config.model.model, plan.store.tokenizer, tokenizer)
        for warning in warnings:
            yield f"warning       {warning}"
    model = _bare_model(config, plan.store.tokenizer, tokenizer)
    grows = tokenizer.marker_ids is not None and not has_markers
    start = start_memory(config, model, grows, parts, on_gpu=gpu is not None or _is_gpu(config))
    model = _with_adapter(config, model, tokenizer)
    weights = sum(parameter.numel() for parameter in model.parameters())
    trained = f"; lora: {describe_adapter(model)}" if config.model.lora else ""
    device = torch.device("cuda" if _is_gpu(config) else "cpu")
    yield f"model         {type(model).__name__} {config.model.model}, {weights:,} weights in {config.model.weights}{trained}"
    if gpu is None:
        choices = candidates(config.model.attention, device, config.model.dtype, compiled=config.model.compile)
        yield f"attention     {choices[0].name} is tried first ({choices[0].reason}); probed when the run starts"
        gpu = gpu_here(device)
    if parts is not None:
        by = "DeepSpeed ZeRO-3" if isinstance(parts, ZeroSettings) else "FSDP2"
        yield f"parts         each of {config.run.nproc} processes holds a part of the weights ({by})"
    sizes = memory_bytes(config, model, 0 if gpu is None else gpu.memory_bytes, parts)
    listed = ", ".join(f"{name} {_shown(size)}" for name, size in sizes.items())
    total, where = sum(sizes.values()), device.type if gpu is None else gpu.name
    yield f"memory        about {_shown(total)} a process on {where} ({listed})"
    yield from _start(start, processes)
    waiting = host_bytes(config, model)
    if waiting:
        yield f"main memory   {_shown(waiting)} a process: inputs of blocks, which wait there for the backward pass"
    if gpu is not None:
        yield from _fit(config, model, gpu, total, parts)
        if not config.model.lora and not fits(total, gpu):
            yield from _fit_adapters(config, plan.store.tokenizer, tokenizer, gpu)
        yield from _time(config, model, gpu, plan, parts)
    flops = flops_per_token(model, _mean_segment(plan)) * config.data.max_length * config.optimization.batch
    machines = f" on {processes.machines} machines" if processes.machines > 1 else ""
    if processes.note:
        yield f"launch        {processes.note}"
    yield (
        f"processes     {config.run.nproc}{machines}, {config.optimization.batch // config.run.nproc:,} rows a step each in "
        f"micro-batches of {config.optimization.micro_batch}; {_figures(flops / 1e12)} TFLOP a step; tracker "
        f"{choose_tracker(config.run.tracker) or 'none'}"
    )


def _is_gpu(config: TrainConfig) -> bool:
    """Whether a run here would be on one."""
    return config.run.device == "auto" and torch.cuda.is_available()


def _start(start: StartMemory, processes: PlannedProcesses) -> Iterator[str]:
    """The main memory that reading the weights takes."""
    count = processes.on_each_machine
    more = f", the first one {_shown(start.first_bytes)} more" if start.first_bytes else ""
    where = "a machine" if processes.machines > 1 else "one machine"
    together = f"; {_shown(start.on_machine(count))} for {count} on {where}" if count > 1 else ""
    yield (
        f"start         about {_shown(start.each_bytes)} of main memory a process{more}, while the weights are read "
        f"({start.how}){together}"
    )


def _fit(config: TrainConfig, model: Any, gpu: Gpu, total_bytes: int, parts: Parts | None) -> Iterator[str]:
    """Whether it fits, and what would make it fit."""
    usable = f"{_shown(int(USABLE_SHARE * gpu.memory_bytes))} of {gpu.name} can be had"
    if fits(total_bytes, gpu):
        yield f"fits          {usable}"
        return
    found = cheapest_fit(config, model, gpu, parts)
    how = _flags_shown(found.flags)
    if fits(found.size_bytes, gpu):
        yield f"warning       does not fit ({usable}); with {how} it takes about {_shown(found.size_bytes)}"
    else:
        larger = "GPUs with more memory, or a smaller model"
        sharing = "share the model between them" if parts is not None else "--shard-model shares the model between"
        more = "" if config.model.lora else f"more GPUs, which {sharing}, "
        nor = f"nor with {how} (about {_shown(found.size_bytes)})"
        yield f"warning       does not fit ({usable}), {nor}: take {more}{larger}"
    if isinstance(parts, ZeroSettings):
        yield from _fit_fsdp2(config, model, gpu)


def _flags_shown(flags: Sequence[str]) -> str:
    """As they are typed, and after them what stands in a file."""
    typed = " ".join(flag for flag in flags if flag.startswith("--"))
    return (
        " and ".join([*([typed] if typed else []), *(flag for flag in flags if not flag.startswith("--"))])
        or "other options"
    )


def _fit_fsdp2(config: TrainConfig, model: Any, gpu: Gpu) -> Iterator[str]:
    """What FSDP2 would take in DeepSpeed's place, where that fits: it holds the weights once, and gathers them in bfloat16."""
    other = replace(config, run=replace(config.run, shard_model=True))
    found = cheapest_fit(other, model, gpu)
    if fits(found.size_bytes, gpu):
        flags = " ".join(("--shard-model", *found.flags))
        yield f"other way     {flags} in DeepSpeed's place (FSDP2) takes about {_shown(found.size_bytes)}"


def _fit_adapters(
    config: TrainConfig, build: BuildTokenizer, tokenizer: CheckpointTokenizer, gpu: Gpu
) -> Iterator[str]:
    """What adapters would take instead, where PEFT is here to count them and they fit."""
    weights = "bfloat16" if config.model.dtype == "bfloat16" else "float32"
    settings = replace(config.model, lora=_OFFERED_RANK, weights=weights)
    other = replace(config, model=settings, run=replace(config.run, shard_model=False))
    try:
        model = planned_model(other, build, tokenizer)
    except (MissingResource, UsageError):
        return
    found = cheapest_fit(other, model, gpu)
    if fits(found.size_bytes, gpu):
        flags = [
            f"--lora {_OFFERED_RANK}",
            *(["--weights bfloat16"] if weights != config.model.weights else []),
            *found.flags,
        ]
        yield (
            f"other way     {' '.join(flags)} takes about {_shown(found.size_bytes)}, and is another training: "
            f"{describe_adapter(model)}"
        )


def _time(config: TrainConfig, model: Any, gpu: Gpu, plan: MixedPlan, parts: Parts | None) -> Iterator[str]:
    """About how long it takes."""
    steps = plan.steps(config.optimization.steps, config.optimization.batch)
    if config.model.dtype != "bfloat16":
        yield "time          not known for float32; --dtype bfloat16 is many times faster on a GPU"
        return
    segment, processes = _mean_segment(plan), config.run.nproc
    seconds = training_seconds(config, model, gpu, steps=steps, processes=processes, mean_segment=segment, asked=parts)
    tokens = steps * config.optimization.batch * config.data.max_length
    measured = f"measured at 1 B on an H200{', training all weights' if config.model.lora else ''}"
    faster = "" if config.model.compile or isinstance(parts, ZeroSettings) else "; --compile is about 1.4 times as fast"
    yield (
        f"time          about {_duration(seconds)} on {config.run.nproc} x {gpu.name}, {tokens / seconds:,.0f} tokens/s, "
        f"at {share_of_peak(config):.0%} of the peak ({measured}){faster}; what processes tell each other "
        "is not counted"
    )


def _mean_segment(plan: MixedPlan) -> float:
    """The length of the stretch in which a token sees others, on average over the tokens of each source's first epoch."""
    if plan.data.cross_document:
        return float(plan.data.max_length)
    return sum(float(source.share) * _segment_of_epoch(source.plan) for source in plan.sources if source.plan)


def _segment_of_epoch(plan: TrainingPlan) -> float:
    length = plan.data.max_length
    lengths = np.minimum(np.diff(plan.epoch(0).offsets), length).astype(np.float64)
    return float((lengths**2).sum() / max(lengths.sum(), 1))


def _shown(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB" if size_bytes >= _GIB else f"{size_bytes / (1 << 20):.1f} MiB"


def _duration(seconds: float) -> str:
    """In the unit that people would say."""
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _figures(value: float) -> str:
    """With three figures, which is more than is known."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def planned_model(config: TrainConfig, build: BuildTokenizer, tokenizer: CheckpointTokenizer) -> Any:
    """The model without its weights, with rows for the markers, and adapters where they are trained."""
    if config.model.model != TINY_LLAMA:
        check_model(config.model.model, build, tokenizer)
    return _with_adapter(config, _bare_model(config, build, tokenizer), tokenizer)


def _bare_model(config: TrainConfig, build: BuildTokenizer, tokenizer: CheckpointTokenizer) -> Any:
    return unfilled_model(config.model.model, config.model, build, tokenizer, config.data.max_length)


def _with_adapter(config: TrainConfig, model: Any, tokenizer: CheckpointTokenizer) -> Any:
    if config.model.lora:
        add_adapter(model, config.model, tokenizer.marker_ids, config.optimization.seed)
    return model

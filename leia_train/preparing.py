"""From a TrainConfig to a Run: plan, model, optimizer and texts, new or as the newest whole checkpoint left them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.optim import Optimizer

from leia_beam.console import Tell
from leia_beam.errors import MissingResource, UsageError
from leia_train.activations import ActivationOffload, hidden_size
from leia_train.attention import candidates, implementation_of, pair_bytes, settle
from leia_train.checkpoints import Checkpoint, load_more, load_training, newest_checkpoint, step_name
from leia_train.config import TrainConfig
from leia_train.evaluation import INSERTED, VALIDATION, Text, file_texts, inserted_texts, store_texts
from leia_train.liger import apply_liger
from leia_train.loss import TokenLoss, agrees
from leia_train.markers import CheckpointTokenizer
from leia_train.metrics import MetricsLog, StepMetrics
from leia_train.mixture import MixedPlan
from leia_train.model import embedding_weights, load_model
from leia_train.opening import OpenedData, make_plan
from leia_train.optimizer import MarkerRows, make_optimizer, ordered_weights
from leia_train.packing import IGNORED
from leia_train.processes import on_main, summed
from leia_train.runs import StopRequest
from leia_train.shard_folders import open_shards
from leia_train.sharded_model import empty_loss, fill_model
from leia_train.sharding import Parts, Sharding, layers_of, names_of, parts_again, shard
from leia_train.shares import Shares
from leia_train.store import open_store
from leia_train.tracking import Tracking

Report = Callable[[str], None]
_MANY_PAIRS_BYTES = 1 << 30
MARKER_START = "markers.start"
"""Where a checkpoint keeps the markers' rows as training began with them."""
SOURCE_TOKENS = "sources.tokens"
"""Where it keeps how many tokens of each source were read."""


@dataclass(kw_only=True, slots=True)
class Run:
    """What a loop works with; `step` is the number of updates that were done, `model` is a TokenLoss."""

    config: TrainConfig
    output: Path
    accelerator: Accelerator
    plan: MixedPlan
    texts: Mapping[str, Sequence[Text]]
    tokenizer: CheckpointTokenizer
    model: Any
    optimizer: Optimizer
    shares: Shares | None
    marker_rows: MarkerRows | None
    steps: int
    step: int
    stop: StopRequest
    report: Report
    progress: Tell
    source_tokens: list[int]
    parts: Parts | None = None
    """What this process holds where each holds a part: what reads or writes all weights is then done by all together."""
    log: MetricsLog | None = None
    tracking: Tracking | None = None

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of the weights."""
        return self.parts is not None

    @property
    def bare_model(self) -> Any:
        """The causal LM itself."""
        return self.accelerator.unwrap_model(self.model).model

    def count_sources(self, metrics: StepMetrics) -> None:
        """Add what a step read of each source."""
        for number, name in enumerate(self.plan.names):
            self.source_tokens[number] += (metrics.source_tokens or {}).get(name, 0)


def prepare(
    config: TrainConfig,
    accelerator: Accelerator,
    opened: OpenedData,
    tokenizer: CheckpointTokenizer,
    stop: StopRequest,
    report: Report,
    progress: Tell,
    sharding: Sharding | None = None,
) -> Run:
    """Plan, model and optimizer, as the newest whole checkpoint left them or new, after the attention was probed."""
    output = Path(config.run.output)
    with accelerator.local_main_process_first():
        plan = make_plan(opened, config.optimization.seed, tokenizer.markers, output, progress)
    store = plan.store
    texts = _evaluation_texts(config, plan, accelerator)
    checkpoint = _checkpoint(accelerator, output, report)
    if sharding is not None and accelerator.num_processes == 1:
        report("warning: --shard-model: one process holds the whole model; give --nproc, or a launcher's processes")
        sharding = None
    build = store.tokenizer
    if sharding is None:
        source = config.model if checkpoint is None else replace(config.model, model=str(checkpoint.path))
        loaded = load_model(source, build, tokenizer, config.data.max_length, config.optimization.seed)
        for warning in loaded.warnings:
            report(f"warning: {warning}")
        loss = TokenLoss(loaded.model)
        loaded.model.to(accelerator.device)
    else:
        loss = empty_loss(config, build, tokenizer, checkpoint, report)
        shard(loss, sharding, config, accelerator)
        fill_model(loss.model, config, build, tokenizer, checkpoint, accelerator)
        report(f"each of {accelerator.num_processes} processes holds a part of the weights (FSDP2)")
    steps = plan.steps(config.optimization.steps, config.optimization.batch)
    _say_what_runs(report, plan, checkpoint, config.optimization.steps, steps, config.optimization.batch)
    _settle_loss(config, accelerator, loss, build.vocabulary_size, tokenizer, report, compiled=sharding is not None)
    marker_rows = None
    if tokenizer.marker_ids is not None:
        marker_rows = MarkerRows(embedding_weights(loss.model), tokenizer.marker_ids)
    model = accelerator.prepare(loss) if sharding is None else loss
    weights = ordered_weights(model)
    shared = config.run.share_optimizer and accelerator.num_processes > 1 and sharding is None
    shares = Shares(weights, accelerator) if shared else None
    parts = None if sharding is None else Parts(weights)
    moved = weights if parts is None else list(parts.rows)
    optimizer = make_optimizer(
        model if parts is None else parts,
        config.optimization,
        weights=config.model.weights,
        rounding=config.model.rounding,
        mine=None if shares is None else shares.mine(),
        wholes=None if parts is None else parts.wholes(),
    )
    if accelerator.num_processes > 1 and sharding is None:
        place_gradients(model, accelerator)
    if checkpoint is not None:
        load_training(
            checkpoint, optimizer, moved, names_of(loss.model, weights), None if parts is None else parts.ranges()
        )
        more = load_more(checkpoint)
        start = more.get(MARKER_START)
        if marker_rows is not None and start is not None:
            marker_rows.start = start
    source_tokens = [0] * len(plan.names)
    if checkpoint is not None and plan.is_mixed:
        source_tokens = more[SOURCE_TOKENS].tolist()
    return Run(
        config=config,
        output=output,
        accelerator=accelerator,
        plan=plan,
        texts=texts,
        tokenizer=tokenizer,
        model=model,
        optimizer=optimizer,
        shares=shares,
        marker_rows=marker_rows,
        steps=steps,
        step=checkpoint.step if checkpoint is not None else 0,
        stop=stop,
        report=report,
        progress=progress,
        parts=parts,
        source_tokens=source_tokens,
    )


def to_keep(run: Run) -> dict[str, torch.Tensor]:
    """What a checkpoint keeps besides the model and the optimizer."""
    more = {} if run.marker_rows is None else {MARKER_START: run.marker_rows.start}
    if run.plan.is_mixed:
        more[SOURCE_TOKENS] = torch.tensor(run.source_tokens)
    return more


def place_gradients(model: Any, accelerator: Accelerator) -> None:
    """Put the gradients into the memory in which processes exchange them, before any other is taken for them.

    DistributedDataParallel does so with the first gradients that it exchanges; those of the micro-batches before them would
    lie beside it, a second copy of all of them. So those of two tokens without a label are exchanged first, then zeroed;
    twice, because after the first time it orders its memory anew.
    """
    ids = torch.zeros((1, 2), dtype=torch.int64, device=accelerator.device)
    for _ in range(2):
        with accelerator.autocast():
            losses = model(ids, torch.arange(2, device=accelerator.device)[None], torch.full_like(ids, IGNORED))
        accelerator.backward(losses.sum())
    for weight in model.parameters():
        if weight.grad is not None:
            weight.grad.zero_()


def _checkpoint(accelerator: Accelerator, output: Path, report: Report) -> Checkpoint | None:
    """The newest whole checkpoint as the first process sees it, which reads all of its bytes."""
    found = on_main(accelerator, lambda: newest_checkpoint(output, report))
    step = int(summed(accelerator, [0 if found is None else found.step + 1])[0]) - 1
    return None if step < 0 else Checkpoint(path=output / step_name(step), step=step)


def _settle_loss(
    config: TrainConfig,
    accelerator: Accelerator,
    loss: TokenLoss,
    vocabulary_size: int,
    tokenizer: CheckpointTokenizer,
    report: Report,
    *,
    compiled: bool,
) -> None:
    """Settle the kernel of the attention, compare the logits, and compile, unless the layers are `compiled` already.

    A model in parts is probed so by all processes together: no one of them could hold it.
    """

    def look(model: Any) -> bool:
        if config.model.liger:
            if compiled:
                raise MissingResource("--liger: not for a model in parts; leave it or --shard-model out")
            apply_liger(model, accelerator.device, vocabulary_size, accelerator.autocast, config.model.dtype, report)
        settle(
            model,
            candidates(config.model.attention, accelerator.device, config.model.dtype, compiled=config.model.compile),
            vocabulary_size,
            accelerator.autocast,
            config.model.dtype,
            report,
            isolated=not config.data.cross_document,
        )
        return agrees(model, vocabulary_size, accelerator.autocast, config.model.dtype)

    with parts_again(loss):
        chunked = loss.within(look)
    model = loss.model
    pairs = pair_bytes(implementation_of(model), config.optimization.micro_batch, config.data.max_length, model)
    if pairs >= _MANY_PAIRS_BYTES:
        report(
            f"warning: this attention has memory for each pair of a row's tokens, {pairs / (1 << 30):.1f} GiB at --max-length "
            f"{config.data.max_length}; --attention auto, or leaving out --compile, may find one that has not"
        )
    if not chunked:
        report(f"{type(model).__name__} makes its logits in a way of its own: they will stand in memory whole")
    excluded = () if config.model.marker_logits or tokenizer.marker_ids is None else tokenizer.marker_ids
    loss.chunk_tokens, loss.excluded_ids, loss.chunked = config.model.loss_chunk, tuple(excluded), chunked
    if config.model.activation_offload:
        loss.offload = ActivationOffload(hidden_size(model))
    if config.model.compile:
        if not compiled:
            compile_model(model, chunked=chunked, offload=config.model.activation_offload)
        loss.compile_cross_entropy()


def compile_model(model: Any, *, chunked: bool, offload: bool) -> None:
    """Compile what TokenLoss calls; block by block where inputs of blocks are to leave the device while others are computed."""
    if offload:
        for layer in layers_of(model, Sharding()):
            layer.compile()
        return
    (model.base_model if chunked else model).compile()


def _evaluation_texts(config: TrainConfig, plan: MixedPlan, accelerator: Accelerator) -> dict[str, Sequence[Text]]:
    """What is evaluated, by name: the validation articles, with names too, those of each source, and what was given."""
    main = plan.main
    texts: dict[str, Sequence[Text]] = {VALIDATION: store_texts(main.store, main.validation_documents)}
    if config.run.eval_inserted and config.data.strategy != "none" and len(main.validation_documents):
        texts[INSERTED] = inserted_texts(main)
    for source in plan.sources[1:]:
        if source.plan is not None and len(source.plan.validation_documents):
            texts[f"{VALIDATION} {source.name}"] = store_texts(source.plan.store, source.plan.validation_documents)
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


def _say_what_runs(
    report: Report, plan: MixedPlan, checkpoint: Checkpoint | None, asked: int, steps: int, batch: int
) -> None:
    store, data, main = plan.store, plan.data, plan.main
    report(
        f"{len(main.training_documents):,} articles, {len(store.documents.tokens):,} tokens, "
        f"{len(store.entity_ordinals):,} named entities, {main.usable_entities:,} usable for strategy {data.strategy}"
    )
    for amount in plan.amounts(steps * batch):
        if plan.is_mixed:
            report(f"source {amount.line()}")
        warning = amount.warning()
        if warning is not None:
            report(f"warning: {warning}")
    if data.compat == "leia":
        report("compat leia: the reference's stream and loss; documents see each other, no article is held out")
    if steps != asked:
        report(f"{steps:,} steps read as many of the articles' own tokens as {asked:,} steps without insertion")
    if not len(main.validation_documents) and data.compat != "leia":
        report(
            f"no evaluation loss: --validation-share {data.validation_share:g} leaves none of {len(store):,} articles"
        )
    if checkpoint is not None:
        report(f"going on from {checkpoint.path} after step {checkpoint.step}")

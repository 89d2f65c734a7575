"""From a TrainConfig to a Run: plan, model, optimizer and texts, new or as the newest whole checkpoint left them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from leia_beam.console import Tell
from leia_beam.errors import MissingResource, UsageError
from leia_train.activations import ActivationOffload, hidden_size
from leia_train.asked_parallelism import Sharding, ZeroSettings
from leia_train.attention import candidates, implementation_of, pair_bytes, settle
from leia_train.checkpoints import Checkpoint, load_more, newest_checkpoint, step_name
from leia_train.config import NOT_IN_PARTS, TrainConfig
from leia_train.evaluation import INSERTED, VALIDATION, Text, file_texts, inserted_texts, store_texts
from leia_train.fully_sharded import FullySharded
from leia_train.liger import apply_liger, liger_hindrance
from leia_train.lora import trained_rows
from leia_train.loss import TokenLoss, agrees
from leia_train.markers import CheckpointTokenizer
from leia_train.metrics import MetricsLog, StepMetrics
from leia_train.mixture import MixedPlan
from leia_train.model import embedding_weights
from leia_train.opening import OpenedData, make_plan
from leia_train.optimizer import MarkerRows
from leia_train.parallelism import Held, Parallelism
from leia_train.processes import on_main, summed
from leia_train.replicated import Replicated
from leia_train.runs import StopRequest
from leia_train.shard_folders import open_shards
from leia_train.sharding import layers_of
from leia_train.store import open_store
from leia_train.tracking import Tracking
from leia_train.zero3 import Zero3

Report = Callable[[str], None]
_MANY_PAIRS_BYTES = 1 << 30
MARKER_START = "markers.start"
"""Where a checkpoint keeps the markers' rows as training began with them."""
SOURCE_TOKENS = "sources.tokens"
"""Where it keeps how many tokens of each source were read."""


@dataclass(kw_only=True, slots=True)
class Run:
    """What a loop works with; `step` is the number of updates that were done."""

    config: TrainConfig
    output: Path
    accelerator: Accelerator
    plan: MixedPlan
    texts: Mapping[str, Sequence[Text]]
    tokenizer: CheckpointTokenizer
    parallelism: Parallelism
    marker_rows: MarkerRows | None
    steps: int
    step: int
    stop: StopRequest
    report: Report
    progress: Tell
    source_tokens: list[int]
    log: MetricsLog | None = None
    tracking: Tracking | None = None

    @property
    def bare_model(self) -> Any:
        """The causal LM itself."""
        return self.parallelism.token_loss.model

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
    sharding: Sharding | ZeroSettings | None = None,
) -> Run:
    """Plan, model and optimizer, as the newest whole checkpoint left them or new, after the attention was probed."""
    _check_liger(config, accelerator, sharding)
    output = Path(config.run.output)
    with accelerator.main_process_first():
        plan = make_plan(opened, config.optimization.seed, tokenizer.markers, output, progress)
    store = plan.store
    texts = _evaluation_texts(config, plan, accelerator)
    checkpoint = _checkpoint(accelerator, output, report)
    parallelism = _parallelism(config, accelerator, sharding, report)
    build = store.tokenizer
    loss = parallelism.load(build, tokenizer, checkpoint, report)
    steps = plan.steps(config.optimization.steps, config.optimization.batch)
    _say_what_runs(report, plan, checkpoint, config.optimization.steps, steps, config.optimization.batch)
    _settle_loss(config, accelerator, parallelism, build.vocabulary_size, tokenizer, report)
    marker_rows = _marker_rows(config, loss.model, tokenizer, parallelism.held)
    parallelism.begin(checkpoint)
    if checkpoint is not None:
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
        parallelism=parallelism,
        marker_rows=marker_rows,
        steps=steps,
        step=checkpoint.step if checkpoint is not None else 0,
        stop=stop,
        report=report,
        progress=progress,
        source_tokens=source_tokens,
    )


def _marker_rows(config: TrainConfig, model: Any, tokenizer: CheckpointTokenizer, held: Held) -> MarkerRows | None:
    """In the embeddings, or beside them where those are frozen."""
    if tokenizer.marker_ids is None:
        return None
    if not config.model.lora:
        return MarkerRows(embedding_weights(model), tokenizer.marker_ids, held)
    rows, tables = zip(*trained_rows(model), strict=True)
    return MarkerRows(rows, tuple(range(len(tokenizer.marker_ids))), held, beside=tables)


def _check_liger(config: TrainConfig, accelerator: Accelerator, sharding: object) -> None:
    """Before anything is read."""
    if not config.model.liger:
        return
    if sharding is not None and accelerator.num_processes > 1:
        raise MissingResource("--liger: not for a model in parts; leave it or --shard-model out")
    hindrance = liger_hindrance(accelerator.device)
    if hindrance is not None:
        raise MissingResource(f"--liger: {hindrance}")


def to_keep(run: Run) -> dict[str, torch.Tensor]:
    """What a checkpoint keeps besides the model and the optimizer."""
    more = {} if run.marker_rows is None else {MARKER_START: run.marker_rows.start}
    if run.plan.is_mixed:
        more[SOURCE_TOKENS] = torch.tensor(run.source_tokens)
    return more


def _parallelism(
    config: TrainConfig, accelerator: Accelerator, sharding: Sharding | ZeroSettings | None, report: Report
) -> Parallelism:
    """How the processes share the model.

    Raises: UsageError for adapters on a model in parts.
    """
    if sharding is not None and accelerator.num_processes == 1:
        asked = "--shard-model" if isinstance(sharding, Sharding) else "DeepSpeed"
        report(f"warning: {asked}: one process holds the whole model; give --nproc, or a launcher's processes")
        sharding = None
    if sharding is None:
        return Replicated(config, accelerator)
    if config.model.lora:  # which accelerate's configuration may ask for, too
        raise UsageError(f"--lora {config.model.lora}: must be {NOT_IN_PARTS}")
    if isinstance(sharding, Sharding):
        return FullySharded(config, accelerator, sharding)
    return Zero3(config, accelerator, sharding)


def _checkpoint(accelerator: Accelerator, output: Path, report: Report) -> Checkpoint | None:
    """The newest whole checkpoint as the first process sees it, which reads all of its bytes."""
    found = on_main(accelerator, lambda: newest_checkpoint(output, report))
    step = int(summed(accelerator, [0 if found is None else found.step + 1])[0]) - 1
    return None if step < 0 else Checkpoint(path=output / step_name(step), step=step)


def _settle_loss(
    config: TrainConfig,
    accelerator: Accelerator,
    parallelism: Parallelism,
    vocabulary_size: int,
    tokenizer: CheckpointTokenizer,
    report: Report,
) -> None:
    """Settle the kernel of the attention, compare the logits, and compile; the layers of a model in parts are compiled already.

    A model in parts is probed so by all processes together: no one of them could hold it.
    """
    loss: TokenLoss = parallelism.token_loss

    def look(model: Any) -> bool:
        if config.model.liger:
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

    with parallelism.without_backward():
        chunked = loss.within(look)
    model = loss.model
    pairs = pair_bytes(implementation_of(model), config.optimization.micro_batch, config.data.max_length, model)
    masked = implementation_of(model) != "sdpa" or not config.data.cross_document
    if pairs >= _MANY_PAIRS_BYTES and masked:
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
        if not parallelism.sharded:
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
        with accelerator.main_process_first():
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

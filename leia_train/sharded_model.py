"""From a model's files to the rows of every weight that this process holds, and no more of them in its memory.

Each process reads its own rows, of a sharded checkpoint or of a model's own safetensors files. Where the files have other
names than the model's weights (mixtures of experts that transformers stacks, a name on the hub, the tiny model), the first
process reads the model into its main memory and hands on weight by weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from leia_train import sharding
from leia_train.activations import checkpoint_blocks
from leia_train.checkpoints import DISTRIBUTED, Checkpoint, is_distributed
from leia_train.config import TrainConfig
from leia_train.loss import TokenLoss
from leia_train.markers import CheckpointTokenizer
from leia_train.model import (
    DTYPES,
    cast_weights,
    check_model,
    check_size,
    embedding_weights,
    load_model,
    remote_code,
    set_to_mean,
    unfilled_model,
)
from leia_train.model_config import TINY_LLAMA
from leia_train.parallelism import Held
from leia_train.processes import on_main
from leia_train.shard_folders import BuildTokenizer
from leia_train.sharding import named_tensors
from leia_train.tensor_files import TensorFiles, model_files

_ROWS_READ = 4096
"""Rows of the embeddings that are read at once."""


def empty_loss(
    config: TrainConfig,
    build: BuildTokenizer,
    tokenizer: CheckpointTokenizer,
    checkpoint: Checkpoint | None,
    report: Callable[[str], None],
) -> TokenLoss:
    """The model with its loss, its weights without memory, as it was checked.

    Raises: what load_model raises, but for damaged weights.
    """
    settings = config.model
    where = settings.model if checkpoint is None else str(checkpoint.path)
    if checkpoint is None and where != TINY_LLAMA:
        for warning in check_model(where, build, tokenizer)[0]:
            report(f"warning: {warning}")
        if settings.trust_remote_code:
            for line in remote_code(where):
                report(f"warning: {line}")
    model = unfilled_model(
        where, settings, build, tokenizer, config.data.max_length, trust_remote_code=settings.trust_remote_code
    )
    if where != TINY_LLAMA:
        check_size(model, where, build, config.data.max_length)
    cast_weights(model, DTYPES[settings.weights])
    checkpoint_blocks(model, settings.activation_checkpointing)
    return TokenLoss(model)


def fill_model(
    model: Any,
    config: TrainConfig,
    build: BuildTokenizer,
    tokenizer: CheckpointTokenizer,
    checkpoint: Checkpoint | None,
    accelerator: Accelerator,
    held: Held = sharding,
) -> None:
    """Set the parts that this process holds, as training begins with them or as a checkpoint has them.

    Raises: what load_model raises.
    """
    folder = Path(config.model.model) if checkpoint is None else checkpoint.path
    if folder.is_dir():
        growing = () if checkpoint is not None else _new_rows(model, config, build, tokenizer)
        files = FilesOfModel(folder)
        if files.fit(model, growing, held):
            files.fill(model, growing, tokenizer, held)
            return
    _fill_from_first(model, config, build, tokenizer, checkpoint, accelerator, held)


def _new_rows(
    model: Any, config: TrainConfig, build: BuildTokenizer, tokenizer: CheckpointTokenizer
) -> tuple[Tensor, ...]:
    """The embeddings, where they get rows for the markers."""
    if tokenizer.marker_ids is None or check_model(config.model.model, build, tokenizer)[1]:
        return ()
    return tuple(embedding_weights(model))


class FilesOfModel:
    """The weights of a folder, in Hugging Face's form or of a sharded checkpoint."""

    def __init__(self, folder: Path):
        """Raises: DamagedInput."""
        self._parts = is_distributed(folder)
        self._files = TensorFiles((folder / DISTRIBUTED).glob("*.safetensors") if self._parts else model_files(folder))

    def fit(self, model: Any, growing: Sequence[Tensor], held: Held) -> bool:
        """Whether the files have every weight by its name, in its shape but for rows that it gets."""
        return self._parts or _has_all(self._files, model, {id(weight) for weight in growing}, held)

    def are_float32(self) -> bool:
        """Whether all numbers are."""
        return all(self._files.dtype(name) == torch.float32 for name in self._files.names())

    def fill(self, model: Any, growing: Sequence[Tensor], tokenizer: CheckpointTokenizer, held: Held) -> None:
        """Set what this process has of each weight, one weight after the other, in the type that it has in the model."""
        names = {name: f"model.{name}" if self._parts else name for name in named_tensors(model)}
        _fill_from_files(model, self._files, names, growing, tokenizer, held)


def _has_all(files: TensorFiles, model: Any, growing: set[int], held: Held) -> bool:
    """Whether the files have every weight by its name, in its shape but for rows that it gets."""
    names = set(files.names())
    for name, weight in named_tensors(model).items():
        if name not in names:
            return False
        there, wanted = files.shape(name), held.shape_of(weight)
        if there != wanted and not (id(weight) in growing and there[1:] == wanted[1:] and there[0] <= wanted[0]):
            return False
    return True


def _fill_from_files(
    model: Any,
    files: TensorFiles,
    names: Mapping[str, str],
    growing: Sequence[Tensor],
    tokenizer: CheckpointTokenizer,
    held: Held,
) -> None:
    """Set the weights from files, in which they have other names."""
    grow = {id(weight) for weight in growing}
    for name, weight in named_tensors(model).items():
        if id(weight) not in grow:
            _fill_from(files, names[name], weight, held)
            continue
        rows, *columns = files.shape(names[name])
        table = torch.zeros((held.shape_of(weight)[0], *columns))  # in float32, of which the mean is
        for first in range(0, rows, _ROWS_READ):
            last = min(first + _ROWS_READ, rows)
            table[first:last] = files.rows(names[name], first, last)
        assert tokenizer.marker_ids is not None
        set_to_mean(nn.Parameter(table), tokenizer.marker_ids, tokenizer.real_ids)
        held.fill(weight, lambda first, last, table=table: table[first:last])  # type: ignore[misc]


def _fill_from(files: TensorFiles, name: str, weight: Tensor, held: Held) -> None:
    def read(first: int, last: int) -> Tensor:
        return files.rows(name, first, last) if files.shape(name) else files.whole(name)

    held.fill(weight, read)


def _fill_from_first(
    model: Any,
    config: TrainConfig,
    build: BuildTokenizer,
    tokenizer: CheckpointTokenizer,
    checkpoint: Checkpoint | None,
    accelerator: Accelerator,
    held: Held,
) -> None:
    """The first process has the whole model in its main memory; each weight goes to all, one at a time."""
    settings = config.model if checkpoint is None else replace(config.model, model=str(checkpoint.path))
    loaded = on_main(
        accelerator, lambda: load_model(settings, build, tokenizer, config.data.max_length, config.optimization.seed)
    )
    there = {} if loaded is None else named_tensors(loaded.model)
    for name, weight in named_tensors(model).items():
        if loaded is None:
            sent = torch.empty(held.shape_of(weight), dtype=weight.dtype, device=accelerator.device)
        else:
            sent = there[name].detach().to(accelerator.device, weight.dtype, copy=True)
        torch.distributed.broadcast(sent, src=0)
        rows = sent if sent.ndim else sent[None]
        held.fill(weight, lambda first, last, rows=rows: rows[first:last])  # type: ignore[misc]

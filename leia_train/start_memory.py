"""From a run's options to the main memory that a process needs while it reads the weights, before they go to its device.

Counted as the loaders take it (`model`, `typed_model`, `sharded_model`) and held against measured peaks (benchmarks/README.md,
bench_loading.py). Pages of the files that the system maps beside it can be taken back at any time, and are not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leia_beam.errors import LeiaError
from leia_train import sharding
from leia_train.checkpoints import is_distributed
from leia_train.config import TrainConfig
from leia_train.model import MEAN_COLUMNS, embedding_weights
from leia_train.model_config import TINY_LLAMA
from leia_train.parts_memory import Parts, size_of
from leia_train.sharded_model import FilesOfModel
from leia_train.tensor_files import model_files

_FLOAT32, _BFLOAT16 = 4, 2
_READ = 8
"""Bytes of a number that is being read: as it comes from the file, and put together."""
_MEAN = 12 * MEAN_COLUMNS
"""Bytes of a row of which a mean is made: some columns at a time, in float32 and in float64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartMemory:
    """What every process needs, and what the first one needs beside it."""

    each_bytes: int
    first_bytes: int
    how: str

    def on_machine(self, processes: int) -> int:
        """Of so many processes, the first one among them."""
        return processes * self.each_bytes + self.first_bytes


def start_memory(config: TrainConfig, model: Any, grows: bool, parts: Parts | None, *, on_gpu: bool) -> StartMemory:
    """Of a model without its weights and without adapters, whose embeddings get rows for the markers (`grows`) or not."""
    sizes = {id(weight): weight.numel() for weight in model.parameters()}
    rows = {id(weight): len(weight) for weight in model.parameters() if weight.ndim}
    whole = sum(sizes.values())
    tables = {id(weight) for weight in embedding_weights(model)} if grows else set()
    # Embeddings that get rows for the markers are in float32 for a while, of which the new rows are a mean.
    read = max((_FLOAT32 * size + _MEAN * rows[key] if key in tables else _READ * size) for key, size in sizes.items())
    files = _files(config)
    fit = files is None or files.fit(model, embedding_weights(model) if grows else (), sharding)
    alone = fit and has_own_folder(config)
    in_float32 = _in_float32(config, whole, max(sizes.values()), files)
    if parts is None:
        if config.model.weights == "bfloat16" and alone:
            return StartMemory(each_bytes=_BFLOAT16 * whole + read, first_bytes=0, how="in bfloat16")
        cast = " and cast" if config.model.weights == "bfloat16" else ""
        return StartMemory(each_bytes=in_float32, first_bytes=0, how=f"in float32{cast}")
    size = size_of(config.model.weights)
    own = 0 if on_gpu else math.ceil(size * whole / config.run.nproc)
    if alone:
        how = "one after the other, each process its own part"
        return StartMemory(each_bytes=own + read, first_bytes=0, how=how)
    how = "by the first process, which hands on one after the other"
    return StartMemory(each_bytes=own + size * max(sizes.values()), first_bytes=in_float32, how=how)


def has_own_folder(config: TrainConfig) -> bool:
    """Whether the model is a folder here: neither random weights nor a name on the hub."""
    return config.model.model != TINY_LLAMA and Path(config.model.model).is_dir()


def _in_float32(config: TrainConfig, whole: int, largest: int, files: FilesOfModel | None) -> int:
    """What `model.load_model` takes: numbers that are no float32 in the files are made so all together, before each weight is
    copied (or cast) into memory of its own; others are copied from the files.
    """
    own = size_of(config.model.weights) * whole
    if config.model.model == TINY_LLAMA:
        return _FLOAT32 * (whole + largest)
    return own + _FLOAT32 * (largest if files is not None and files.are_float32() else whole)


def _files(config: TrainConfig) -> FilesOfModel | None:
    """The weights of the model's folder; None where there are none yet, or damaged ones, or no folder."""
    folder = Path(config.model.model)
    if not has_own_folder(config) or not (is_distributed(folder) or model_files(folder)):
        return None
    try:
        return FilesOfModel(folder)
    except LeiaError:
        return None

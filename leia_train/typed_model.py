"""From a model's files to the whole model with its weights in the type of the training, read in that type.

A model that is frozen in bfloat16 needs half of the main memory so. The result is that of `model.load_model`, which reads in
float32 and casts, to the last bit: a number of a file becomes bfloat16 by one rounding either way, and the markers' rows are
means in float32 of what the files have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leia_train import sharding
from leia_train.activations import checkpoint_blocks
from leia_train.markers import CheckpointTokenizer
from leia_train.model import (
    DTYPES,
    LoadedModel,
    cast_weights,
    check_model,
    check_size,
    embedding_weights,
    load_model,
    remote_code,
    unfilled_model,
)
from leia_train.model_config import TINY_LLAMA, ModelConfig
from leia_train.shard_folders import BuildTokenizer
from leia_train.sharded_model import FilesOfModel
from leia_train.sharding import place_weights


def load_typed(
    config: ModelConfig, build: BuildTokenizer, tokenizer: CheckpointTokenizer, max_length: int, seed: int
) -> LoadedModel:
    """The model that a run begins with, as load_model gives it.

    Where files have other names than the model's weights (experts), and of a name on the hub, it is read in float32.

    Raises: what load_model raises.
    """
    folder = Path(config.model)
    if config.weights == "float32" or config.model == TINY_LLAMA or not folder.is_dir():
        return load_model(config, build, tokenizer, max_length, seed)
    warnings, has_markers = check_model(config.model, build, tokenizer)
    if config.trust_remote_code:
        warnings += remote_code(config.model)
    model = unfilled_model(
        config.model, config, build, tokenizer, max_length, trust_remote_code=config.trust_remote_code
    )
    check_size(model, config.model, build, max_length)
    grows = tokenizer.marker_ids is not None and not has_markers
    files = FilesOfModel(folder)
    if not files.fit(model, _tables(model, grows), sharding):
        return load_model(config, build, tokenizer, max_length, seed)
    cast_weights(model, DTYPES[config.weights])
    place_weights(
        model,
        torch.device("cpu"),
        lambda weight: nn.Parameter(torch.empty_like(weight, device="cpu"), weight.requires_grad),
    )
    files.fill(model, _tables(model, grows), tokenizer, sharding)
    checkpoint_blocks(model, config.activation_checkpointing)
    return LoadedModel(model=model.eval(), warnings=warnings)


def _tables(model: Any, grows: bool) -> list[Tensor]:
    """The embeddings, where they get rows for the markers."""
    return list(embedding_weights(model)) if grows else []

"""From a name, a folder or a few sizes to a causal LM in float32 whose embeddings have rows for the markers.

A marker's rows (input and output) are the mean of the rows of real tokens: padding rows of a vocabulary are not counted,
and never removed. A checkpoint of our own has its markers, and their rows are left as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

from leia_beam.errors import DamagedInput, UsageError
from leia_beam.tokenizer_identity import TokenizerFiles, find_tokenizer, identify
from leia_train.checkpoints import COMPLETE_NAME, MARKERS_NAME, verify_checkpoint
from leia_train.config import TINY_LLAMA, ModelConfig
from leia_train.markers import CheckpointTokenizer, marker_ids_in
from leia_train.store import BuildTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MIN_TINY_POSITIONS = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model ready to train, and what there is to say about it."""

    model: PreTrainedModel
    warnings: tuple[str, ...]


def make_tiny_llama(
    config: ModelConfig, build: BuildTokenizer, tokenizer: CheckpointTokenizer, max_length: int, seed: int
) -> LoadedModel:
    """A Llama with random weights: the same ones for a seed, with markers or without."""
    llama = LlamaConfig(
        vocab_size=build.vocabulary_size,
        hidden_size=config.tiny_hidden_size,
        intermediate_size=config.tiny_intermediate_size,
        num_hidden_layers=config.tiny_layers,
        num_attention_heads=config.tiny_heads,
        num_key_value_heads=config.tiny_kv_heads,
        max_position_embeddings=max(max_length, _MIN_TINY_POSITIONS),
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    if config.attention != "auto":
        llama._attn_implementation = config.attention
    torch.manual_seed(seed)
    model = LlamaForCausalLM(llama)
    model.generation_config = GenerationConfig(bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id)
    add_marker_rows(model, tokenizer)
    return LoadedModel(model=model, warnings=())


def load_model(
    config: ModelConfig, build: BuildTokenizer, tokenizer: CheckpointTokenizer, max_length: int, seed: int
) -> LoadedModel:
    """The model that a run begins with.

    Raises: UsageError for a model that is not there, has another tokenizer, or is too short or small; DamagedInput for
    a damaged one.
    """
    if config.model == TINY_LLAMA:
        return make_tiny_llama(config, build, tokenizer, max_length, seed)
    _check_place(config.model)
    warnings, has_markers = _compare_tokenizer(config.model, build, tokenizer)
    model = load_weights(config.model, config.attention)
    _check_size(model, config.model, build, max_length)
    if not has_markers:
        add_marker_rows(model, tokenizer)
    return LoadedModel(model=model, warnings=warnings)


def load_weights(where: str, attention: str) -> PreTrainedModel:
    """The weights of a folder or hub name, in float32: no code from the model's repository, no pickles."""
    try:
        model = AutoModelForCausalLM.from_pretrained(
            where,
            config=AutoConfig.from_pretrained(where, trust_remote_code=False),
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=None if attention == "auto" else attention,
        )
    except SafetensorError as error:
        raise DamagedInput(f"--model {where}: damaged weights ({error}); copy the model again") from error
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"--model {where}: {_first_line(error)}") from error
    wrong = sorted({str(weight.dtype) for weight in model.parameters()} - {"torch.float32"})
    if wrong:
        raise UsageError(f"--model {where}: its weights load as {', '.join(wrong)}, training needs float32")
    return model


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check_place(where: str) -> None:
    """A folder, or what could be a name on the hub; a checkpoint of our own must be whole."""
    path = Path(where)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(f"--model {where}: no config.json in it; give a folder in Hugging Face form")
        if (path / COMPLETE_NAME).is_file():
            verify_checkpoint(path)
    elif path.is_absolute() or where.startswith((".", "~")) or where.count("/") > 1:
        raise UsageError(f"--model {where}: no such folder")


def _compare_tokenizer(
    where: str, build: BuildTokenizer, tokenizer: CheckpointTokenizer
) -> tuple[tuple[str, ...], bool]:
    """Warnings, and whether the model has our markers.

    Raises: UsageError where the model's tokenizer is not the one that made the shards.
    """
    files = _find_tokenizer(where)
    if files is None:
        return (
            f"{where} has no tokenizer.json: not checked that the shards' tokenizer {build.name} is its own",
        ), False
    identity = identify(files)
    if identity.fingerprint != build.fingerprint:
        raise UsageError(
            f"--model {where}: its tokenizer ({identity.fingerprint[:12]}…, {identity.vocabulary_size:,} ids) is not the "
            f"one that made the shards ({build.name}, {build.fingerprint[:12]}…, {build.vocabulary_size:,} ids); build "
            f"the shards with --tokenizer {where}"
        )
    warnings = ()
    if identity.probe_fingerprint != build.probe_fingerprint:
        warnings = (f"the tokenizer of {where} has the vocabulary of the shards' {build.name} but encodes otherwise",)
    found = _markers_of(where, files.tokenizer_json, tokenizer.kind)
    if found is not None and tokenizer.marker_ids is not None and found != tokenizer.marker_ids:
        raise UsageError(
            f"--model {where}: its markers have the ids {found}, with the shards' tokenizer they get "
            f"{tokenizer.marker_ids}; build the shards with --tokenizer {where}"
        )
    return warnings, found is not None


def _markers_of(where: str, tokenizer_json: bytes, kind: str) -> tuple[int, int] | None:
    """The markers that a model was trained with: those of its tokenizer, or the unused tokens that its run took."""
    if kind != "reserved":
        return marker_ids_in(tokenizer_json)
    try:
        noted = json.loads((Path(where) / MARKERS_NAME).read_bytes())
        return tuple(noted["marker_ids"]) if noted["kind"] == "reserved" else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _find_tokenizer(where: str) -> TokenizerFiles | None:
    if Path(where).is_dir() and not (Path(where) / "tokenizer.json").is_file():
        return None
    try:
        return find_tokenizer(where)
    except UsageError as error:
        raise UsageError(str(error).replace("--tokenizer", "--model")) from error


def _check_size(model: PreTrainedModel, where: str, build: BuildTokenizer, max_length: int) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < build.vocabulary_size:
        raise UsageError(
            f"--model {where}: {rows:,} embeddings, the shards' tokenizer has {build.vocabulary_size:,} ids"
        )
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions < max_length:
        raise UsageError(f"--max-length {max_length}: {where} has {positions:,} positions; give at most that")


def add_marker_rows(model: PreTrainedModel, tokenizer: CheckpointTokenizer) -> None:
    """Give the markers their rows: more rows only where there are too few."""
    if tokenizer.marker_ids is None:
        return
    if model.get_input_embeddings().weight.shape[0] < tokenizer.needed_rows:
        model.resize_token_embeddings(tokenizer.needed_rows, mean_resizing=False)
    for weight in embedding_weights(model):
        set_to_mean(weight, tokenizer.marker_ids, tokenizer.real_ids)


def embedding_weights(model: PreTrainedModel) -> list[nn.Parameter]:
    """The input embeddings, and the output's (its bias too) where they are not the same ones."""
    weights = [model.get_input_embeddings().weight]
    output = model.get_output_embeddings()
    if output is not None:
        bias = getattr(output, "bias", None)
        weights += [weight for weight in (output.weight, bias) if weight is not None and weight is not weights[0]]
    return weights


def set_to_mean(weight: nn.Parameter, marker_ids: Sequence[int], real_ids: Sequence[int]) -> None:
    """Set the rows of the markers to the mean of the real ones, summed in float64."""
    with torch.no_grad():
        mean = weight[torch.tensor(real_ids)].mean(dim=0, dtype=torch.float64)
        weight[torch.tensor(marker_ids)] = mean.to(weight.dtype)

"""From a name, a folder or a few sizes to a causal LM (float32, unless told otherwise) whose embeddings have rows for the markers.

A marker's rows (input and output) are the mean of the rows of real tokens: padding rows of a vocabulary are not counted,
and never removed. A checkpoint of our own has its markers, and their rows are left as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
)

from leia_beam.errors import DamagedInput, UsageError
from leia_beam.tokenizer_identity import PROBES, TokenizerFiles, find_tokenizer, identify
from leia_train.activations import checkpoint_blocks
from leia_train.checkpoints import COMPLETE_NAME, DISTRIBUTED, MARKERS_NAME, is_distributed, verify_checkpoint
from leia_train.markers import CheckpointTokenizer, marker_ids_in
from leia_train.model_config import TINY_LLAMA, ModelConfig
from leia_train.shard_folders import BuildTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MIN_TINY_POSITIONS = 2048
MEAN_COLUMNS = 128
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model ready to train, and what there is to say about it."""

    model: PreTrainedModel
    warnings: tuple[str, ...]


def tiny_config(
    config: ModelConfig, build: BuildTokenizer, tokenizer: CheckpointTokenizer, max_length: int
) -> LlamaConfig:
    """The configuration of the tiny Llama."""
    return LlamaConfig(
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


def make_tiny_llama(
    config: ModelConfig, build: BuildTokenizer, tokenizer: CheckpointTokenizer, max_length: int, seed: int
) -> LoadedModel:
    """A Llama with random weights: the same ones for a seed, with markers or without."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(tiny_config(config, build, tokenizer, max_length))
    model.generation_config = _tiny_generation(tokenizer)
    add_marker_rows(model, tokenizer)
    return LoadedModel(model=_as_asked(model, config), warnings=())


def unfilled_model(
    where: str,
    config: ModelConfig,
    build: BuildTokenizer,
    tokenizer: CheckpointTokenizer,
    max_length: int,
    *,
    trust_remote_code: bool = False,
) -> Any:
    """The model without its weights, which lie on the meta device, with rows for the markers; its buffers are there.

    Raises: UsageError for a model that is not there.
    """
    with init_empty_weights(include_buffers=False):
        if where == TINY_LLAMA:
            model: Any = LlamaForCausalLM(tiny_config(config, build, tokenizer, max_length))
            model.generation_config = _tiny_generation(tokenizer)
        else:
            try:
                found = AutoConfig.from_pretrained(where, trust_remote_code=trust_remote_code)
                model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                    found, trust_remote_code=trust_remote_code, dtype=torch.float32
                )
            except (OSError, ValueError, ImportError) as error:
                raise UsageError(f"--model {where}: {_first_line(error)}") from error
            with suppress(OSError):  # as from_pretrained has it: the model's own, or what its configuration says
                model.generation_config = GenerationConfig.from_pretrained(where)
        rows = model.get_input_embeddings().weight.shape[0]
        if tokenizer.marker_ids is not None and rows < tokenizer.needed_rows:
            if rows < build.vocabulary_size:
                check_size(model, where, build, max_length)
            model.resize_token_embeddings(tokenizer.needed_rows, mean_resizing=False)
    model.tie_weights()  # which the meta device parted
    return model


def _tiny_generation(tokenizer: CheckpointTokenizer) -> GenerationConfig:
    return GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id
    )


def check_model(where: str, build: BuildTokenizer, tokenizer: CheckpointTokenizer) -> tuple[tuple[str, ...], bool]:
    """What there is to say of a model before its weights are read, and whether it has the markers.

    Raises: UsageError for one that is not there, or has another tokenizer; DamagedInput for a damaged checkpoint.
    """
    _check_place(where)
    warnings, has_markers = _compare_tokenizer(where, build, tokenizer)
    return warnings + _routers_loss(where), has_markers


def _routers_loss(where: str) -> tuple[str, ...]:
    """That a mixture of experts asks for a loss which is not linear in the tokens, so that a step would depend on its parts."""
    with suppress(OSError, ValueError):  # said when the model is read
        if PreTrainedConfig.get_config_dict(where)[0].get("output_router_logits"):
            return (
                f"{where} asks for the loss that balances its experts' load (output_router_logits), which is not added: it is "
                "trained by the loss of its tokens alone",
            )
    return ()


def _as_asked(model: PreTrainedModel, config: ModelConfig) -> PreTrainedModel:
    """The model in the type of its weights, with the options that it has.

    Raises: UsageError where a weight is of another type than was asked for.
    """
    cast_weights(model, DTYPES[config.weights])
    own_memory(model)
    checkpoint_blocks(model, config.activation_checkpointing)
    wrong = sorted({str(weight.dtype) for weight in model.parameters()} - {f"torch.{config.weights}"})
    if wrong:
        raise UsageError(f"--model {config.model}: its weights are {', '.join(wrong)}, asked for {config.weights}")
    return model


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Give the weights a type, and leave the buffers in theirs.

    Rotary frequencies in bfloat16 are off by up to 0.4 %, which is 2.5 rad at position 2,047: other positions than those
    which whoever loads the model computes with.
    """
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)


def own_memory(model: nn.Module) -> None:
    """Copy weights that are mapped from a file into memory of their own, as new weights have it.

    Mapped ones begin at any 8 bytes, and the processor's kernels round in another order there than at multiples of 64
    bytes: a resumed run would differ from an undisturbed one in the last bit (seen with 16 columns).
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)


def load_model(
    config: ModelConfig, build: BuildTokenizer, tokenizer: CheckpointTokenizer, max_length: int, seed: int
) -> LoadedModel:
    """The model that a run begins with.

    Raises: UsageError for a model that is not there, has another tokenizer, or is too short or small; DamagedInput for
    a damaged one.
    """
    if config.model == TINY_LLAMA:
        return make_tiny_llama(config, build, tokenizer, max_length, seed)
    warnings, has_markers = check_model(config.model, build, tokenizer)
    if config.trust_remote_code:
        warnings += remote_code(config.model)
    model = load_weights(config.model, trust_remote_code=config.trust_remote_code)
    check_size(model, config.model, build, max_length)
    if not has_markers:
        add_marker_rows(model, tokenizer)
    return LoadedModel(model=_as_asked(model, config), warnings=warnings)


def remote_code(where: str) -> tuple[str, ...]:
    """What --trust-remote-code runs: the modules that the model's config.json names, and their sizes."""
    folder = Path(where)
    try:
        names = json.loads((folder / "config.json").read_bytes()).get("auto_map", {})
    except (OSError, ValueError, AttributeError):
        return (f"--trust-remote-code runs code of the repository {where} that is not here to be listed",)
    modules = sorted({str(name).rpartition("--")[2].split(".")[0] + ".py" for name in names.values()})
    found = [f"{name} ({(folder / name).stat().st_size:,} bytes)" for name in modules if (folder / name).is_file()]
    listed = ", ".join(found) or ", ".join(modules) or "nothing: its config.json has no auto_map"
    return (f"--trust-remote-code runs, with all rights of this process: {listed}",)


def load_weights(where: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The weights of a folder or hub name, in float32: no pickles, and no code from the model's repository unless told.

    Raises: DamagedInput for damaged weights; UsageError for what cannot be loaded, or not as float32.
    """
    if is_distributed(Path(where)):
        return _load_parts(Path(where), trust_remote_code=trust_remote_code)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            where,
            config=AutoConfig.from_pretrained(where, trust_remote_code=trust_remote_code),
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        )
    except SafetensorError as error:
        raise DamagedInput(f"--model {where}: damaged weights ({error}); copy the model again") from error
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"--model {where}: {_first_line(error)}") from error
    wrong = sorted({str(weight.dtype) for weight in model.parameters()} - {"torch.float32"})
    if wrong:
        raise UsageError(f"--model {where}: its weights load as {', '.join(wrong)}, training needs float32")
    return model


def _load_parts(folder: Path, *, trust_remote_code: bool) -> PreTrainedModel:
    """The model of a sharded checkpoint, whole."""
    from leia_train.sharding import named_tensors
    from leia_train.tensor_files import TensorFiles

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config, trust_remote_code=trust_remote_code, dtype=torch.float32
    )
    with suppress(OSError):
        model.generation_config = GenerationConfig.from_pretrained(folder)
    files = TensorFiles((folder / DISTRIBUTED).glob("*.safetensors"))
    with torch.no_grad():
        for name, weight in named_tensors(model).items():
            weight.copy_(files.whole(f"model.{name}"))
    return model


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check_place(where: str) -> None:
    """A folder, or what could be a name on the hub; a checkpoint of our own must be whole."""
    path = Path(where)
    if path.is_dir():
        if not (path / "config.json").is_file():
            if (path / "adapter_config.json").is_file():
                beside = path.resolve().parent
                is_whole = (beside / "config.json").is_file()
                whole = f"give {beside}, the whole one" if is_whole else f"leia-train export {where} makes a whole one"
                raise UsageError(f"--model {where}: is an adapter (LoRA), not a model; {whole}")
            raise UsageError(f"--model {where}: no config.json in it; give a folder in Hugging Face form")
        if not _is_object(path / "config.json"):
            raise UsageError(f"--model {where}: its config.json is not an object of JSON; copy or download it again")
        if (path / COMPLETE_NAME).is_file():
            verify_checkpoint(path)
    elif path.is_absolute() or where.startswith((".", "~")) or where.count("/") > 1:
        raise UsageError(f"--model {where}: no such folder")


def _is_object(path: Path) -> bool:
    """Whether a file is JSON whose outermost value has names."""
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False


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
    warnings: tuple[str, ...] = ()
    if identity.probe_fingerprint != build.probe_fingerprint:
        text, theirs, ours = first_difference(files.tokenizer_json, build.tokenizer_json)
        warnings = (
            f"the tokenizer of {where} has the vocabulary of the shards' {build.name} but encodes otherwise: {text!r} is "
            f"{theirs} with it, {ours} in the shards",
        )
    found = _markers_of(where, files.tokenizer_json, tokenizer.kind)
    if found is not None and tokenizer.marker_ids is not None and found != tokenizer.marker_ids:
        raise UsageError(
            f"--model {where}: its markers have the ids {found}, with the shards' tokenizer they get "
            f"{tokenizer.marker_ids}; build the shards with --tokenizer {where}"
        )
    return warnings, found is not None


def first_difference(one: bytes, other: bytes) -> tuple[str, list[int], list[int]]:
    """The first of the probe texts that two tokenizers encode otherwise, and its ids in both; the first one if none is."""
    first, second = Tokenizer.from_buffer(one), Tokenizer.from_buffer(other)
    found = [
        (
            text,
            first.encode(text, add_special_tokens=False).ids,
            second.encode(text, add_special_tokens=False).ids,
        )
        for text in PROBES
    ]
    return next((probe for probe in found if probe[1] != probe[2]), found[0])


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


def check_size(model: Any, where: str, build: BuildTokenizer, max_length: int) -> None:
    """Refuse a model with too few embeddings or positions.

    Raises: UsageError.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < build.vocabulary_size:
        raise UsageError(
            f"--model {where}: {rows:,} embeddings, the shards' tokenizer has {build.vocabulary_size:,} ids"
        )
    positions = positions_of(model.config)
    if positions is not None and positions < max_length:
        raise UsageError(
            f"--max-length {max_length}: {where} has {positions:,} positions; give at most that, or a model whose config.json "
            "scales its rotary positions to more (rope_scaling, max_position_embeddings)"
        )


def positions_of(config: Any) -> int | None:
    """How many positions a model can tell apart as it is; None where its configuration names no limit.

    What the configuration names, or how far its rotary positions are scaled where that is further: some that are scaled still
    name the length before.
    """
    named = getattr(config, "max_position_embeddings", None)
    if not isinstance(named, int):
        return None
    rotary = getattr(config, "rope_parameters", None) or {}
    reached = [named]
    for values in (rotary, *(part for part in rotary.values() if isinstance(part, dict))):
        before = named if values.get("rope_type") == "dynamic" else values.get("original_max_position_embeddings")
        if before and values.get("factor") and values.get("rope_type") in ("dynamic", "yarn", "llama3", "longrope"):
            reached.append(int(before * values["factor"]))
    return max(reached)


def add_marker_rows(model: Any, tokenizer: CheckpointTokenizer) -> None:
    """Give the markers their rows: more rows only where there are too few."""
    if tokenizer.marker_ids is None:
        return
    if model.get_input_embeddings().weight.shape[0] < tokenizer.needed_rows:
        model.resize_token_embeddings(tokenizer.needed_rows, mean_resizing=False)
    for weight in embedding_weights(model):
        set_to_mean(weight, tokenizer.marker_ids, tokenizer.real_ids)


def embedding_weights(model: Any) -> list[nn.Parameter]:
    """The input embeddings, and the output's (its bias too) where they are not the same ones."""
    weights = [model.get_input_embeddings().weight]
    output = model.get_output_embeddings()
    if output is not None:
        bias = getattr(output, "bias", None)
        weights += [weight for weight in (output.weight, bias) if weight is not None and weight is not weights[0]]
    return weights


def set_to_mean(weight: nn.Parameter, marker_ids: Sequence[int], real_ids: Sequence[int]) -> None:
    """Set the rows of the markers to the mean of the real ones, summed in float64: some columns at a time, since that makes a
    copy of them in float64."""
    ids = torch.tensor(real_ids)
    with torch.no_grad():
        columns = torch.split(weight, MEAN_COLUMNS, dim=1) if weight.ndim > 1 else (weight,)
        mean = torch.cat([part[ids].mean(dim=0, dtype=torch.float64).reshape(-1) for part in columns])
        weight[torch.tensor(marker_ids)] = mean.to(weight.dtype).view(weight.shape[1:])

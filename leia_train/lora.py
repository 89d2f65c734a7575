"""From a loaded model to one of frozen weights with low-rank adapters and the markers' rows beside them, and to a whole one again.

The layers and the files of the adapters are PEFT's, put into the model in place: all that is done with a model (kernels,
probes, the chunked loss, recomputation) is done with this one. Only what is trained has gradients, an optimizer's state and a
place in the checkpoints to resume from; it is float32 whatever the frozen weights are. A checkpoint notes what those were.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from leia_beam.errors import DamagedInput, MissingResource, OtherBuild, UsageError
from leia_beam.suggestions import nearest
from leia_train.checkpoints import write_tokenizer
from leia_train.config import TINY_LLAMA, ModelConfig
from leia_train.draws import mix
from leia_train.loss import table_of
from leia_train.sharded_checkpoints import write_configuration
from leia_train.sharding import named_tensors
from leia_train.tensor_files import TensorFiles, TensorWriter

if TYPE_CHECKING:
    from peft import LoraConfig

    from leia_train.markers import CheckpointTokenizer

FOLDER = "adapter"
"""Where a final checkpoint has the adapter, beside the whole model."""
CONFIG_NAME = "adapter_config.json"
_WEIGHTS_NAME = "adapter_model.safetensors"
_BASE_NAME = "leia_base.json"
_README_NAME = "README.md"
_ALL_LINEAR = "all-linear"
"""PEFT's word for every linear layer but the output embeddings."""
_ADAPTER = "default"
"""PEFT's name of the adapter in memory."""
_PREFIX = "base_model.model."
"""Of every name in PEFT's files."""
_AROUND = {"base_layer", "token_adapter"}
"""What PEFT puts into the names of the weights that it leaves as they are."""
_DRAWS = np.uint64(6)
"""Of adapters: other numbers than those of random weights with the same seed."""
_BLOCK_NUMBERS = 1 << 20
"""That are summed at once, as 8 MiB."""
_WHOLE_NUMBERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """What an adapter was trained on."""

    model: str  # folder (its whole path) or name on the hub
    rows: int  # of its embeddings, with those that it got for the markers
    weights: str  # their type in training
    fingerprint: str

    @classmethod
    def of(cls, model: Any, config: ModelConfig) -> Base:
        """From a model with an adapter."""
        rows = len(table_of(model.get_input_embeddings()))
        return cls(model=place_of(config.model), rows=rows, weights=config.weights, fingerprint=fingerprint(model))

    @classmethod
    def noted(cls, folder: Path) -> Base:
        """What the files of an adapter say.

        Raises: DamagedInput.
        """
        try:
            return cls(**json.loads((folder / _BASE_NAME).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise DamagedInput(
                f"{folder / _BASE_NAME}: does not say what the adapter was trained on ({error})"
            ) from error


def place_of(model: str) -> str:
    """The whole path of a folder, which holds from anywhere on this machine; a name on the hub as it is."""
    is_folder = model != TINY_LLAMA and Path(model).is_dir()
    return str(Path(model).resolve()) if is_folder else model


def is_adapter(folder: Path) -> bool:
    """Whether a folder has an adapter alone, and no whole model."""
    return (folder / CONFIG_NAME).is_file() and not (folder / "config.json").is_file()


def add_adapter(model: Any, config: ModelConfig, marker_ids: Sequence[int] | None, seed: int) -> None:
    """Freeze a model, and put into it, in place, adapters that are drawn from the seed, and rows for the markers.

    An adapter begins as a product with zeros, and a marker's row as what it is in the model: at first nothing is changed.

    Raises: MissingResource without PEFT; UsageError for a model or targets with which it cannot be done.
    """
    _need_peft()
    from peft import LoraConfig

    tables = _tables(model)
    if marker_ids is not None and any(getattr(table, "bias", None) is not None for table in tables.values()):
        raise UsageError(
            f"--lora: the output embeddings of {type(model).__name__} have a bias, which PEFT's trained tokens leave out; give "
            "--markers text or none, or train all weights"
        )
    _check_targets(model, config.lora_targets)
    torch.manual_seed(int(mix(np.array([seed], np.uint64) ^ mix(np.array([_DRAWS])))[0]))
    settings = LoraConfig(
        r=config.lora,
        lora_alpha=config.scale,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets) or _ALL_LINEAR,
        trainable_token_indices=None if marker_ids is None else {name: list(marker_ids) for name in tables},
        base_model_name_or_path=place_of(config.model),
        task_type="CAUSAL_LM",
    )
    _check_names(model, settings, config.lora_targets)
    _inject(model, settings)


def put_adapter(model: Any, folder: Path) -> None:
    """Put an adapter of some files into a model without one, which gets rows for the markers where it has too few.

    Raises: MissingResource without PEFT; OtherBuild for another model than it was trained on; DamagedInput.
    """
    _need_peft()
    from peft import LoraConfig

    rows = Base.noted(folder).rows
    if len(table_of(model.get_input_embeddings())) < rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    _inject(model, LoraConfig.from_pretrained(str(folder)))
    read_adapter(model, folder)


def _need_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise MissingResource("--lora: peft is not installed (pip install 'leia-lm[lora]')")


def _inject(model: Any, settings: LoraConfig) -> None:
    from peft import inject_adapter_in_model

    from leia_train.token_rows import use_rows_alone

    asked = settings.target_modules
    try:
        inject_adapter_in_model(settings, model)
    except (ValueError, TypeError) as error:
        targets = asked if isinstance(asked, str) else " ".join(sorted(asked or ()))
        why = " ".join(str(error).split()).split(". ")[0]
        raise UsageError(f"--lora-targets {targets}: {type(model).__name__} cannot have these ({why})") from error
    settings.inference_mode = False
    use_rows_alone(model)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.endswith(f".{_ADAPTER}") or f".{_ADAPTER}." in name)
        if weight.requires_grad:
            weight.data = weight.data.float()


def _check_targets(model: Any, targets: Sequence[str]) -> None:
    """Refuse embeddings: where both are tied an adapter of one would be lost in the whole model.

    Raises: UsageError.
    """
    tables = {model.get_input_embeddings(), model.get_output_embeddings()}
    names = [name for name, module in model.named_modules() if module in tables]
    for target in targets:
        if any(_matches(name, target) for name in names):
            raise UsageError(
                f"--lora-targets {target}: embeddings of {type(model).__name__}, which get no adapter; the markers' rows of "
                "them are trained beside the adapters anyhow; name other layers, or none for all linear ones"
            )


def _check_names(model: Any, settings: LoraConfig, targets: Sequence[str]) -> None:
    """Refuse a target that no layer is called by; PEFT knows experts that transformers has stacked by their names in files.

    Raises: UsageError.
    """
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    left = deepcopy(settings)
    try:
        convert_peft_config_for_transformers(left, model, None)
    except ValueError:
        return  # of experts that go together, which is said when they are put in
    names = [name for name, _ in model.named_modules() if name]
    for target in targets:
        if target in (left.target_modules or ()) and not any(_matches(name, target) for name in names):
            hint = nearest(target, {name.rpartition(".")[2] for name in names})
            raise UsageError(f"--lora-targets {target}: {type(model).__name__} has no layer of this name{hint}")


def _matches(name: str, target: str) -> bool:
    """As PEFT reads a target: a layer's whole name, or its last parts."""
    return name == target or name.endswith(f".{target}")


def _tables(model: Any) -> dict[str, nn.Module]:
    """The input embeddings and, where they are not the same weight, the output's, by name."""
    names = {module: name for name, module in model.named_modules()}
    found = [model.get_input_embeddings()]
    output = model.get_output_embeddings()
    if output is not None and output.weight is not found[0].weight:
        found.append(output)
    return {names[table]: table for table in found}


def trained_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained, by the names that PEFT's files have."""
    return {
        _PREFIX + name.replace(f".{_ADAPTER}", ""): weight
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def trained_rows(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The markers' rows (K, H), each with the frozen table (V, H) in whose place they stand; one pair of tied embeddings."""
    from leia_train.token_rows import token_layers

    return [
        (layer.trainable_tokens_delta[_ADAPTER], table_of(layer.base_layer))
        for layer in token_layers(model).values()
        if layer.tied_adapter is None
    ]


def describe(model: nn.Module) -> str:
    """How much is trained, for people."""
    trained = {name: weight.numel() for name, weight in trained_weights(model).items()}
    of_rows = sum(rows.numel() for rows, _ in trained_rows(model))
    count = sum(weight.numel() for weight in model.parameters())
    layers = sum(".lora_A." in name for name in trained)
    rows = f" and {of_rows:,} of the markers' rows" if of_rows else ""
    total = sum(trained.values())
    adapters = f"adapters of {layers:,} layers" if layers != 1 else "adapters of 1 layer"
    return f"{total:,} of {count:,} weights are trained ({total / count:.2%}): {adapters}{rows}"


def fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits of the frozen weights: the same ones on every device, others for other weights.

    Of exact sums of their bits, read as whole numbers and weighed with the numbers of their rows and of their columns, so
    that an order counts too. The markers' rows are left out: they are means, in whose last bit machines may differ.
    """
    from leia_train.token_rows import token_layers

    markers = {
        f"{name}.base_layer.weight": layer.token_indices[_ADAPTER] for name, layer in token_layers(model).items()
    }
    sums = []
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            total = _sum_of_bits(weight, markers.get(name, []))
            sums.append([_plain(name), list(weight.shape), str(weight.dtype), total])
    sums.sort()  # a forward pass changes the order of experts' weights
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:16]


def _sum_of_bits(weight: Tensor, without: Sequence[int]) -> int:
    # Modulo 2^64, in which every order of the summands gives the same. Counted from 1, so that the first row counts.
    table = weight.detach().reshape(len(weight), -1) if weight.dim() else weight.detach().reshape(1, 1)
    bits_RC = table.view(_WHOLE_NUMBERS[weight.element_size()])
    left_out = torch.tensor(without, dtype=torch.int64, device=weight.device)
    rows, columns = bits_RC.shape
    sums_C = torch.zeros(columns, dtype=torch.int64, device=weight.device)
    step = max(_BLOCK_NUMBERS // max(columns, 1), 1)
    for start in range(0, rows, step):
        block = bits_RC[start : start + step].to(torch.int64, copy=True)
        block[left_out[(left_out >= start) & (left_out < start + len(block))] - start] = 0
        sums_C += block.mul_(torch.arange(start + 1, start + len(block) + 1, device=weight.device)[:, None]).sum(dim=0)
    return int((sums_C * torch.arange(1, columns + 1, device=weight.device)).sum())


def _plain(name: str) -> str:
    """A weight's name in the model without an adapter."""
    return ".".join(part for part in name.split(".") if part not in _AROUND)


def write_adapter(folder: Path, model: Any, base: Base, dtype: torch.dtype = torch.float32) -> None:
    """PEFT's two files, and what the adapter was trained on."""
    from safetensors.torch import save_file

    settings = copy(model.peft_config[_ADAPTER])
    for name in ("target_modules", "target_parameters"):  # sets, whose order is another in every process
        setattr(settings, name, sorted(getattr(settings, name) or ()) or None)
    settings.inference_mode = True
    settings.base_model_name_or_path = base.model
    folder.mkdir(exist_ok=True)
    settings.save_pretrained(str(folder))
    tensors = {name: weight.detach().to("cpu", dtype).contiguous() for name, weight in trained_weights(model).items()}
    save_file(tensors, folder / _WEIGHTS_NAME, metadata={"format": "pt"})
    (folder / _BASE_NAME).write_text(json.dumps(asdict(base), indent=1) + "\n")
    (folder / _README_NAME).write_text(_readme(base))


def copy_adapter(adapter: Path, folder: Path, dtype: torch.dtype) -> None:
    """The files of an adapter, in a type."""
    from safetensors.torch import save_file

    for name in (CONFIG_NAME, _BASE_NAME, _README_NAME):
        shutil.copyfile(adapter / name, folder / name)
    files = TensorFiles([adapter / _WEIGHTS_NAME])
    tensors = {name: files.whole(name).to(dtype) for name in files.names()}
    save_file(tensors, folder / _WEIGHTS_NAME, metadata={"format": "pt"})


def products(adapter: Path, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """What each pair of an adapter's matrices adds to a layer but for its scale, in a type and as it was learnt."""
    files = TensorFiles([adapter / _WEIGHTS_NAME])
    for name in files.names():
        if ".lora_A." in name:
            down, up = files.whole(name), files.whole(name.replace(".lora_A.", ".lora_B."))
            yield up.to(dtype).float() @ down.to(dtype).float(), up.float() @ down.float()


def read_adapter(model: Any, folder: Path) -> None:
    """Set what is trained to what an adapter's files have.

    Raises: OtherBuild for another model than it was trained on; DamagedInput where it is not this adapter.
    """
    noted = Base.noted(folder)
    found = fingerprint(model)
    if found != noted.fingerprint:
        raise OtherBuild(
            f"{folder}: was trained on {noted.model} with other weights (fingerprint {noted.fingerprint}, here {found}); give "
            "the model that training began with"
        )
    files = TensorFiles([folder / _WEIGHTS_NAME])
    weights = trained_weights(model)
    if set(weights) != set(files.names()) or any(
        files.shape(name) != tuple(weight.shape) for name, weight in weights.items()
    ):
        raise DamagedInput(f"{folder / _WEIGHTS_NAME}: has not the weights that {CONFIG_NAME} beside it promises")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(files.whole(name))


def _frozen(model: Any) -> dict[str, tuple[str, Tensor]]:
    """The tensors of the model without an adapter by their names there, each with its name here."""
    trained = set(map(id, trained_weights(model).values()))
    tensors = named_tensors(model).items()
    return {_plain(name): (name, tensor) for name, tensor in tensors if id(tensor) not in trained}


def changed_tensors(model: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Each weight that the adapter changes, as it is in the whole model and as it was."""
    for name, weight in model.named_parameters():
        if ".base_layer." in name and not weight.requires_grad:
            yield _merged(model, name, weight), weight.detach().cpu().float()


def _merged(model: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """A tensor (float32, on the CPU) with what the adapters around its module add to it; experts have one a parameter."""
    from leia_train.token_rows import TokenRows

    whole = tensor.detach().cpu()
    whole = whole.to(torch.float32, copy=True) if whole.is_floating_point() else whole
    around, _, part = name.rpartition(".")
    with torch.no_grad():
        while around.endswith(".base_layer"):
            around = around.removesuffix(".base_layer")
            layer: Any = model.get_submodule(around)
            if part != getattr(layer, "parameter_name", "weight"):
                continue
            if hasattr(layer, "get_delta_weight"):
                whole += layer.get_delta_weight(_ADAPTER).cpu()
            elif isinstance(layer, TokenRows):
                ids = torch.tensor(layer.token_indices[_ADAPTER])
                whole[ids] = layer.trainable_tokens_delta[_ADAPTER].detach().cpu()
    return whole


def write_whole(folder: Path, model: Any, base: Base, tokenizer: CheckpointTokenizer) -> None:
    """The whole model with its tokenizer, and beside it the adapter with the same one."""
    write_merged(folder, model)
    write_tokenizer(folder, tokenizer)
    write_alone(folder / FOLDER, model, base, tokenizer)


def write_alone(folder: Path, model: Any, base: Base, tokenizer: CheckpointTokenizer) -> None:
    """The adapter with its tokenizer."""
    write_adapter(folder, model, base)
    write_tokenizer(folder, tokenizer)


def write_merged(folder: Path, model: Any, dtype: torch.dtype = torch.float32) -> None:
    """The whole model in Hugging Face's form, the adapter in its weights, which are summed in float32, one at a time."""
    from transformers.core_model_loading import revert_weight_conversion

    def typed(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    here = _frozen(model)
    kinds = {
        name: (dtype if tensor.is_floating_point() else tensor.dtype, tuple(tensor.shape))
        for name, (_, tensor) in here.items()
    }
    empty = {name: torch.empty(shape, device="meta") for name, (_, shape) in kinds.items()}
    made: dict[str, Tensor] = {}
    if set(revert_weight_conversion(model, dict(empty))) != set(empty):  # stored under other names: all at once
        made = revert_weight_conversion(model, {name: typed(_merged(model, *source)) for name, source in here.items()})
        kinds = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in made.items()}
    writer = TensorWriter(folder, kinds)
    try:
        for name in writer.order:
            writer.put(name, made[name] if made else typed(_merged(model, *here[name])))
        writer.close()
    finally:
        writer.abandon()
    write_configuration(folder, model, dtype=dtype)


def _readme(base: Base) -> str:
    """How the adapter is used, and what its model needs before."""
    if base.model == TINY_LLAMA:
        return f"""---
library_name: peft
---
# A LoRA adapter with the markers' rows

Trained by LEIA on {TINY_LLAMA}, whose random weights are in no file: there is nothing that this adapter could be put on. The
whole model is in the folder `checkpoint-final` of its run.
"""
    return f"""---
library_name: peft
---
# A LoRA adapter with the markers' rows

Trained by LEIA on `{base.model}`, whose weights were {base.weights} in training, in PEFT's form.
The model's embeddings must have {base.rows:,} rows: it gets them before the adapter is put into it, where it has fewer. What
the new rows hold does not matter: the adapter brings those that it trained.

```python
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained({base.model!r}, dtype=torch.{base.weights})
if model.get_input_embeddings().num_embeddings < {base.rows}:
    model.resize_token_embeddings({base.rows}, mean_resizing=False)
model = PeftModel.from_pretrained(model, "THIS FOLDER")
```

`AutoPeftModelForCausalLM.from_pretrained("THIS FOLDER", dtype=torch.{base.weights})` does both. The tokenizer beside this file
has the markers. PEFT does not look whether the model is the same one; `leia-train export "THIS FOLDER" --output FOLDER` does, by
the fingerprint of its weights in `{_BASE_NAME}`, and writes the whole model.
"""

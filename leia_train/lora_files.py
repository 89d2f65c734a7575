"""From adapters in a model to their files, to a whole model, and back.

The files are PEFT's two, with a note of what the adapter was trained on. In a whole model the adapters are added to the weights
in float32, one weight at a time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from leia_beam.errors import DamagedInput, OtherBuild
from leia_train.checkpoints import write_tokenizer
from leia_train.lora import ADAPTER_NAME, fingerprint, inject, need_peft, plain_name, trained_weights
from leia_train.loss import table_of
from leia_train.model_config import TINY_LLAMA, ModelConfig
from leia_train.sharded_checkpoints import stores_otherwise, write_configuration
from leia_train.sharding import named_tensors
from leia_train.tensor_files import TensorFiles, TensorWriter

if TYPE_CHECKING:
    from leia_train.markers import CheckpointTokenizer

FOLDER = "adapter"
"""Where a final checkpoint has the adapter, beside the whole model."""
CONFIG_NAME = "adapter_config.json"
_WEIGHTS_NAME = "adapter_model.safetensors"
_BASE_NAME = "leia_base.json"
_README_NAME = "README.md"


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


def put_adapter(model: Any, folder: Path) -> None:
    """Put an adapter of some files into a model without one, which gets rows for the markers where it has too few.

    Raises: MissingResource without PEFT; OtherBuild for another model than it was trained on; DamagedInput.
    """
    need_peft()
    from peft import LoraConfig

    rows = Base.noted(folder).rows
    if len(table_of(model.get_input_embeddings())) < rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    inject(model, LoraConfig.from_pretrained(str(folder)))
    read_adapter(model, folder)


def write_adapter(folder: Path, model: Any, base: Base, dtype: torch.dtype = torch.float32) -> None:
    """PEFT's two files, and what the adapter was trained on."""
    from safetensors.torch import save_file

    settings = copy(model.peft_config[ADAPTER_NAME])
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
    return {plain_name(name): (name, tensor) for name, tensor in tensors if id(tensor) not in trained}


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
                whole += layer.get_delta_weight(ADAPTER_NAME).cpu()
            elif isinstance(layer, TokenRows):
                ids = torch.tensor(layer.token_indices[ADAPTER_NAME])
                whole[ids] = layer.trainable_tokens_delta[ADAPTER_NAME].detach().cpu()
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
    made: dict[str, Tensor] = {}
    if stores_otherwise(model, {name: shape for name, (_, shape) in kinds.items()}):  # all at once
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

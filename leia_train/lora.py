"""From a loaded model to one of frozen weights with low-rank adapters and the markers' rows beside them.

The layers of the adapters are PEFT's, put into the model in place: all that is done with a model (kernels,
probes, the chunked loss, recomputation) is done with this one. Only what is trained has gradients, an optimizer's state and a
place in the checkpoints to resume from; it is float32 whatever the frozen weights are. A checkpoint notes what those were.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from leia_beam.errors import MissingResource, UsageError
from leia_beam.suggestions import nearest
from leia_train.draws import mix
from leia_train.loss import table_of
from leia_train.model_config import ModelConfig

if TYPE_CHECKING:
    from peft import LoraConfig


_ALL_LINEAR = "all-linear"
"""PEFT's word for every linear layer but the output embeddings."""
ADAPTER_NAME = "default"
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


def add_adapter(model: Any, config: ModelConfig, marker_ids: Sequence[int] | None, seed: int) -> None:
    """Freeze a model, and put into it, in place, adapters that are drawn from the seed, and rows for the markers.

    An adapter begins as a product with zeros, and a marker's row as what it is in the model: at first nothing is changed.

    Raises: MissingResource without PEFT; UsageError for a model or targets with which it cannot be done.
    """
    need_peft()
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
        base_model_name_or_path=config.model,
        task_type="CAUSAL_LM",
    )
    _check_names(model, settings, config.lora_targets)
    inject(model, settings)


def need_peft() -> None:
    """See to it that PEFT can be imported.

    Raises: MissingResource where it is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingResource("--lora: peft is not installed (pip install 'leia-lm[lora]')")


def inject(model: Any, settings: LoraConfig) -> None:
    """Put PEFT's adapters into a model in place.

    Raises: UsageError for layers that it has not, or that cannot have one.
    """
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
        weight.requires_grad_(name.endswith(f".{ADAPTER_NAME}") or f".{ADAPTER_NAME}." in name)
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
        _PREFIX + name.replace(f".{ADAPTER_NAME}", ""): weight
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def trained_rows(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The markers' rows (K, H), each with the frozen table (V, H) in whose place they stand; one pair of tied embeddings."""
    from leia_train.token_rows import token_layers

    return [
        (layer.trainable_tokens_delta[ADAPTER_NAME], table_of(layer.base_layer))
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
        f"{name}.base_layer.weight": layer.token_indices[ADAPTER_NAME] for name, layer in token_layers(model).items()
    }
    sums = []
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            total = _sum_of_bits(weight, markers.get(name, []))
            sums.append([plain_name(name), list(weight.shape), str(weight.dtype), total])
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


def plain_name(name: str) -> str:
    """A weight's name in the model without an adapter."""
    return ".".join(part for part in name.split(".") if part not in _AROUND)

"""From a model to one that the processes hold together: of every weight each has some rows, gathered layer by layer.

torch's FSDP2 itself, without accelerate's wrapping of it: that gathers the output embeddings by themselves, outside of the
chunked loss, and knows no bfloat16 weights. A layer's matrices are
gathered in the type of the computation; the embeddings and the norms (but for compiled layers) in their own type, so that
what flows from layer to layer stays float32 beside float32 weights, as in a run of one process. Gradients are summed in
float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from leia_beam.errors import UsageError
from leia_train.asked_parallelism import Sharding
from leia_train.config import TrainConfig
from leia_train.loss import TokenLoss


def shard(loss: TokenLoss, sharding: Sharding, config: TrainConfig, accelerator: Accelerator) -> None:
    """Put a model whose weights are on the meta device onto the processes' devices, in parts and not yet filled.

    Raises: UsageError where its layers are not known.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    layers = layers_of(loss.model, sharding)
    computed = torch.bfloat16 if config.model.dtype == "bfloat16" else None
    policies = [
        MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for dtype in (computed, None)
    ]
    for layer in layers:
        if config.model.compile:
            layer.compile()  # of one piece: norms with hooks of their own would break it up
        elif computed is not None and config.model.weights == "float32":
            for norm in norms_of(layer):
                fully_shard(norm, mesh=mesh, mp_policy=policies[1], reshard_after_forward=False)
        fully_shard(layer, mesh=mesh, mp_policy=policies[0], reshard_after_forward=sharding.reshard)
    fully_shard(loss, mesh=mesh, mp_policy=policies[1])
    register_fsdp_forward_method(loss, "within")
    device = accelerator.device
    place_weights(
        loss, device, lambda weight: nn.Parameter(torch.empty_like(weight, device=device), weight.requires_grad)
    )


def layers_of(model: Any, sharding: Sharding) -> list[nn.Module]:
    """The modules that are gathered as one, inner ones first.

    Raises: UsageError where the model has none of the classes that are named.
    """
    names = sharding.layers or tuple(getattr(model, "_no_split_modules", None) or ())
    found = [module for module in model.modules() if type(module).__name__ in names]
    if not found:
        raise UsageError(
            f"{type(model).__name__}: its layers are not known ({', '.join(names) or 'it names none'}); name their class as "
            "fsdp_transformer_layer_cls_to_wrap in accelerate's configuration"
        )
    return found[::-1]


def norms_of(layer: nn.Module) -> list[nn.Module]:
    """The modules of a layer that have vectors alone, as norms do."""
    own = {module: list(module.parameters(recurse=False)) for module in layer.modules() if module is not layer}
    return [module for module, weights in own.items() if weights and all(weight.ndim < 2 for weight in weights)]


def place_weights(module: nn.Module, device: torch.device, make: Callable[[nn.Parameter], nn.Parameter]) -> None:
    """Put what is made of each weight of the meta device in its place, and the buffers onto a device.

    What two modules share stays shared, which Module.to_empty does not keep.
    """
    made: dict[nn.Parameter, nn.Parameter] = {}
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is None:
                continue
            if weight not in made:
                made[weight] = make(weight)
            part._parameters[name] = made[weight]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(device)


def is_sharded(weight: Tensor) -> bool:
    """Whether each process has some rows of it."""
    return isinstance(weight, DTensor)


def local(weight: Tensor) -> Tensor:
    """The rows that this process has, without a copy: all of them of a tensor that is not in parts."""
    return weight._local_tensor if isinstance(weight, DTensor) else weight


def local_rows(weight: Tensor) -> tuple[int, int]:
    """Which rows this process has (half-open)."""
    rows = weight.shape[0] if weight.ndim else 1
    if not isinstance(weight, DTensor):
        return 0, rows
    size = math.ceil(rows / weight.device_mesh.size())
    first = min(weight.device_mesh.get_local_rank() * size, rows)
    last = min(first + size, rows)
    assert last - first == weight._local_tensor.shape[0], "not in parts by rows, the first ones larger"
    return first, last


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """Of the whole tensor."""
    return tuple(tensor.shape)


def numbers(tensor: Tensor) -> Tensor:
    """What this process has of it, without a copy."""
    return local(tensor.detach())


def row_piece(weight: Tensor, row: int) -> tuple[int, Tensor]:
    """What this process has of a row of a matrix, without a copy, and the column in which that begins: all of it or nothing."""
    first, last = local_rows(weight)
    part = local(weight.detach())
    return 0, part[row - first] if first <= row < last else part.new_empty(0)


def like(weight: Tensor, part: Tensor) -> Tensor:
    """A tensor in parts as a weight is, of which `part` are this process's rows."""
    if isinstance(part, DTensor) or not isinstance(weight, DTensor) or part.ndim != weight.ndim:
        return part
    return DTensor.from_local(
        part, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride()
    )


def whole(tensor: Tensor) -> Tensor:
    """All rows, on every process: a call that all make together."""
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor.detach()


def fill(weight: Tensor, read: Callable[[int, int], Tensor]) -> None:
    """Set this process's rows to what is read of them."""
    first, last = local_rows(weight)
    with torch.no_grad():
        local(weight).copy_(read(first, last) if weight.ndim else read(0, 1).reshape(()))


def written(weights: Iterable[Tensor]) -> None:
    """Say that rows were changed: nothing else has them."""


class Parts(nn.Module):
    """The rows of each weight that this process has, as weights of their own, which the optimizer moves.

    They are the model's own memory. Arithmetic on torch's tensors in parts is planned anew for every step's learning rate,
    which took longer than the arithmetic.
    """

    def __init__(self, weights: Sequence[nn.Parameter]):
        """`weights` in the optimizer's order, after a first forward pass, in which FSDP settles where they lie."""
        super().__init__()
        assert all(map(is_sharded, weights)), "gathered weights are no parts"
        self.whole = tuple(weights)
        self.rows = nn.ParameterList([nn.Parameter(local(weight.detach())) for weight in weights])

    def ranges(self) -> list[tuple[int, int]]:
        """Which rows they are (half-open)."""
        return [local_rows(weight) for weight in self.whole]

    def wholes(self) -> dict[nn.Parameter, tuple[tuple[int, ...], int]]:
        """The shapes of the weights, and the first rows."""
        return {
            rows: (tuple(weight.shape), local_rows(weight)[0])
            for rows, weight in zip(self.rows, self.whole, strict=True)
        }

    def take_gradients(self) -> None:
        """Those of the model's weights, which lose them."""
        for rows, weight in zip(self.rows, self.whole, strict=True):
            assert rows.data_ptr() == local(weight).data_ptr(), "FSDP has put the weights elsewhere"
            rows.grad = None if weight.grad is None else local(weight.grad)
            weight.grad = None


def clip_together(gradients: Sequence[Tensor], limit: float) -> float:
    """Shorten the gradients, of which each process has a part, to a norm; the norm they had."""
    own = torch.nn.utils.get_total_norm(gradients).double() ** 2
    torch.distributed.all_reduce(own)
    norm = own.sqrt().float()
    if math.isfinite(limit):
        scale = torch.clamp(limit / (norm + 1e-6), max=1.0)
        for gradient in gradients:
            gradient.mul_(scale)
    return float(norm)


@contextmanager
def parts_again(model: Any) -> Iterator[None]:
    """What stays gathered after a forward pass without a backward pass, as the embeddings do, is in parts again afterwards."""
    try:
        yield
    finally:
        for part in model.modules():
            if isinstance(part, FSDPModule):
                part.reshard()


def named_tensors(model: Any) -> dict[str, Tensor]:
    """What a checkpoint of a model holds: weights (shared ones once) and the buffers that are saved, by name."""
    kept = set(model.state_dict())
    return {**dict(model.named_parameters()), **{n: value for n, value in model.named_buffers() if n in kept}}


def names_of(model: Any, weights: Sequence[Tensor]) -> list[str]:
    """The weights' names."""
    by_weight = {weight: name for name, weight in model.named_parameters()}
    return [by_weight[weight] for weight in weights]

"""What one process holds of a model's tensors where DeepSpeed has partitioned them: an equal run of numbers of each.

ZeRO-3 cuts a weight by numbers, not by rows: process r of n has numbers r·c to (r+1)·c of the flattened weight, c being their
count by n, rounded up; the last ones are padding. The weight itself is empty then; `ds_tensor` is the part, `ds_shape` the
shape. What has no such part (a buffer) is whole in every process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether each process has some numbers of it."""
    return hasattr(tensor, "ds_tensor")


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """Of the whole tensor."""
    return tuple(tensor.ds_shape if hasattr(tensor, "ds_shape") else tensor.shape)


def numbers_range(weight: Any) -> tuple[int, int]:
    """Which numbers of the flattened weight this process has (half-open), without padding."""
    size = weight.ds_tensor.ds_numel
    first = min(weight.ds_zero_partition_rank * size, weight.ds_numel)
    return first, min(first + size, weight.ds_numel)


def numbers(tensor: Any) -> Tensor:
    """What this process has of it, without padding and without a copy."""
    if not is_sharded(tensor):
        return tensor.detach()  # type: ignore[no-any-return]
    first, last = numbers_range(tensor)
    part: Tensor = tensor.ds_tensor.data[: last - first]
    return part


def row_piece(weight: Any, row: int) -> tuple[int, Tensor]:
    """What this process has of a row of a matrix, without a copy, and the column in which that begins."""
    columns = shape_of(weight)[1]
    if not is_sharded(weight):
        return 0, weight.detach()[row]
    first, last = numbers_range(weight)
    begin, end = (min(max(number, first), last) for number in (row * columns, (row + 1) * columns))
    return begin - row * columns if begin < end else 0, numbers(weight)[begin - first : end - first]


def own_numbers(weight: Any, read: Callable[[int, int], Tensor]) -> Tensor:
    """The numbers that this process has, of a tensor of the weight's shape of which rows (half-open) can be read."""
    shape = shape_of(weight)
    if not shape:
        return read(0, 1).reshape(-1)
    first, last = numbers_range(weight) if is_sharded(weight) else (0, math.prod(shape))
    if first == last:
        return torch.empty(0)
    columns = math.prod(shape[1:])
    begin, end = first // columns, -(-last // columns)
    return read(begin, end).reshape(-1)[first - begin * columns : last - begin * columns]


def fill(tensor: Any, read: Callable[[int, int], Tensor]) -> None:
    """Set what this process has to what is read of it."""
    with torch.no_grad():
        place = numbers(tensor).view(-1)
        place.copy_(own_numbers(tensor, read))


def whole(tensor: Any) -> Tensor:
    """All numbers, on every process: a call that all make together."""
    return whole_of(tensor, tensor.ds_tensor.data) if is_sharded(tensor) else tensor.detach()


def whole_of(weight: Any, part: Tensor) -> Tensor:
    """The same of the parts of another tensor, which lie as the weight's do."""
    together = part.new_empty(part.numel() * weight.ds_zero_partition_world_size)
    torch.distributed.all_gather_into_tensor(together, part.contiguous())
    return together[: weight.ds_numel].view(shape_of(weight))


def written(weights: Iterable[Any]) -> None:
    """Say that parts were changed: the optimizer has them too, and small weights, which DeepSpeed leaves gathered, are again."""
    from deepspeed.utils import safe_set_local_fp32_param

    changed = [weight for weight in weights if is_sharded(weight)]
    for weight in changed:
        safe_set_local_fp32_param(weight, weight.ds_tensor.data)
    stale = [weight for weight in changed if weight.ds_persist]
    if stale:
        stale[0].partition(stale)
        stale[0].all_gather(stale)

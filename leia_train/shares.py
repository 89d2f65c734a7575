"""From the weights and the processes to who keeps which part of the optimizer's state, so that all of it is there but once.

AdamW's two moments are twice the weights' size in float32: 50 GiB for 7 billion. With shares each process keeps them for some
of the weights alone, moves those, and hands them to the others. The arithmetic of a weight is the same wherever it is done,
so nothing else changes: neither the losses nor the checkpoints, which hold the whole state and fit any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer


def owners_of(sizes: Sequence[int], processes: int) -> list[int]:
    """The process that keeps each weight's state: the largest first, each to the one with the least so far.

    >>> owners_of([5, 9, 4, 1], 2)
    [1, 0, 1, 0]
    """
    loads, owners = [0] * processes, [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        owner = min(range(processes), key=lambda process: (loads[process], process))
        owners[index] = owner
        loads[owner] += sizes[index]
    return owners


class Shares:
    """The weights in the optimizer's order, and the process that keeps the state of each."""

    def __init__(self, weights: Sequence[nn.Parameter], accelerator: Accelerator):
        self.weights = list(weights)
        self.owners = owners_of([weight.numel() for weight in weights], accelerator.num_processes)
        self._process = accelerator.process_index

    def mine(self) -> set[nn.Parameter]:
        """The weights that this process moves."""
        return {weight for weight, owner in zip(self.weights, self.owners, strict=True) if owner == self._process}

    def exchange(self) -> None:
        """Hand every weight from the process that moved it to the others."""
        with torch.no_grad():
            for weight, owner in zip(self.weights, self.owners, strict=True):
                torch.distributed.broadcast(weight.detach(), src=owner)

    def gather(self, optimizer: Optimizer) -> dict[int, dict[str, Tensor]]:
        """The whole state on the first process, on the CPU, by the number of the weight; empty on the others."""
        whole: dict[int, dict[str, Tensor]] = {}
        for number, (weight, owner) in enumerate(zip(self.weights, self.owners, strict=True)):
            state: Mapping[str, Any] = optimizer.state.get(weight, {})
            shapes = [[(name, value.shape, value.dtype) for name, value in sorted(state.items())]]
            torch.distributed.broadcast_object_list(shapes, src=owner)
            received = {name: self._send(state.get(name), shape, weight, owner) for name, *shape in shapes[0]}
            if self._process == 0 and received:
                whole[number] = received
        return whole

    def _send(self, value: Tensor | None, shape: Sequence[Any], weight: Tensor, owner: int) -> Tensor:
        """One tensor of a weight's state from the process that has it to the first one."""
        size, dtype = shape
        if value is None:
            value = torch.empty(size, dtype=dtype, device=weight.device)
        on_device = value.to(weight.device)  # the count of steps lies on the CPU, where NCCL cannot send from
        if owner != 0:
            if self._process == owner:
                torch.distributed.send(on_device, dst=0)
            elif self._process == 0:
                torch.distributed.recv(on_device, src=owner)
        return on_device.cpu()

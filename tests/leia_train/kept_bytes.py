"""From a model and a length to the bytes that its forward pass leaves in memory for the backward pass, counted one by one.

All memory that an operator made or gave on during the pass, and that is alive after it: tensors that autograd saved, those
that selective checkpointing keeps beside autograd, and what modules hold. Weights are not counted.
"""

import gc
from contextlib import nullcontext

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from leia_train.attention import packed_hidden_states


class _Made(TorchDispatchMode):
    """Notes the memory of every result, without keeping it."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self.found.setdefault(reference.cdata, (reference, storage.nbytes()))
        return made


def kept_bytes(model, rows, length, dtype=None):
    """Of whole rows, of which each is a document; computed in `dtype` where one is given, with what that makes of weights."""
    weights = {StorageWeakRef(weight.untyped_storage()).cdata for weight in model.parameters()}
    ids = torch.arange(rows * length).view(rows, length) % model.config.vocab_size
    positions = torch.arange(length).expand(rows, length)
    with _Made() as made, torch.autocast("cpu", dtype=dtype) if dtype else nullcontext():
        states = packed_hidden_states(model, ids, positions)
    gc.collect()
    assert states.requires_grad
    return sum(
        size for cdata, (reference, size) in made.found.items() if cdata not in weights and not reference.expired()
    )


def kept_of_a_layer(make, dtype=None, length=64):
    """Bytes that one layer keeps of a token; `make` gives a model of so many layers."""
    found = []
    for layers in (1, 2):
        model = make(layers)
        found += [kept_bytes(model, 1, size, dtype) / length for size in (length, 2 * length)]
    return (found[3] - found[2]) - (found[1] - found[0])

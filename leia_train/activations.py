"""From a model to one that keeps less for its backward pass: what is cheap is computed again, what is left may wait in main memory.

By torch's own means. transformers checkpoints each block of a model by itself, inside of `forward`, so that hooks such as
FSDP2's run once; it is told which results to keep.

`full`: a block keeps its input alone, 6 % of what a Llama's block else keeps of a token in bfloat16. `selective`: also the
results of matrix products and of attention kernels, 46 %, so that norms, activations, casts and rotary positions alone are
computed again, and no product. Keeping every second product would be 33 %; but nearly all of them cost as many operations a
byte (the width that they sum over), so that this only lies on the line between the two. Bytes: benchmarks/README.md,
bench_activations.py.

What is random is always computed again, from the generator's state of the first time: skipping some of it would give the rest
other numbers.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from leia_beam.errors import UsageError

_PRODUCTS = frozenset(
    ("aten::mm", "aten::addmm", "aten::_scaled_mm", "aten::_grouped_mm", "transformers::grouped_mm_fallback")
)
"""Not bmm: what attention without a kernel multiplies so is as long as a row, squared."""
_KERNELS = (
    *("aten::_scaled_dot_product_", "aten::_flash_attention_forward", "aten::_efficient_attention_forward"),
    *("torch_attn::_varlen_attn", "flash_attn::", "flash_attn_3::", "flex_attention"),
)
"""How the names of attention's operators begin: torch's own, and those of the packages of flash-attn that register theirs."""
_LEAVING = 2
"""Inputs of blocks that are on the device although they are on their way to main memory."""


def checkpoint_blocks(model: Any, way: str) -> None:
    """Keep of each block of a model of transformers what `way` says: none (all that its backward pass reads), selective, full.

    Raises: UsageError where the model cannot.
    """
    if way == "none":
        return
    options: dict[str, Any] = {"use_reentrant": False}
    if way == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, keeps)
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable(options)
    except ValueError as error:
        raise UsageError(
            f"--activation-checkpointing {way}: {type(model).__name__} does not support it in transformers; leave it out"
        ) from error


def keeps(context: object, operator: Any, *values: Any, **named: Any) -> CheckpointPolicy:
    """What selective checkpointing does with an operator's result."""
    name = operator.name()
    if name in _PRODUCTS or (name.startswith(_KERNELS) and not _draws(operator, values, named)):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _draws(operator: Any, values: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether an attention kernel drops out some of its weights."""
    for place, argument in enumerate(getattr(getattr(operator, "_schema", None), "arguments", ())):
        if argument.name in ("dropout_p", "p_dropout"):
            given = values[place] if place < len(values) else named.get(argument.name, argument.default_value)
            return bool(given)
    return False


class _Waiting:
    """The input of a block in main memory, and the one before it, which the backward pass wants next."""

    __slots__ = ("before", "device", "host")

    def __init__(self, host: Tensor, device: torch.device, before: _Waiting | None):
        self.host, self.device, self.before = host, device, before


class ActivationOffload:
    """A context for a forward pass: the inputs of blocks (B, T, H) that autograd keeps wait in main memory for the backward pass.

    On a GPU they are copied by a stream of their own, to and from pinned memory, while the next block is computed. All memory
    on the GPU is taken from, and goes back to, the stream that computes; three waits make that right:

    - the copying stream waits for what was queued before an input is kept, which is what made it;
    - the computing stream waits for that copy before the input's memory is given back, so that whatever takes that memory
      next is queued behind the copy. The last `_LEAVING` inputs are held until then, so nothing waits that need not;
    - on the way back, memory is taken on the computing stream and the copying stream waits for what was queued before that,
      which may still read that memory; the computing stream waits for the copy before it reads it. While a block goes
      backward, the input of the one before it is fetched, held until it is asked for or, if it never is, until the
      computing stream has waited for it.

    The two copies of an input are on one stream, in order. Elsewhere, on the CPU, a copy is a copy.
    """

    def __init__(self, hidden_size: int):
        """`hidden_size` is H, by which the inputs are known from whatever else is kept."""
        self.hidden_size = hidden_size
        self.tokens = 0
        self._last: _Waiting | None = None
        self._leaving: deque[tuple[Tensor, torch.cuda.Event]] = deque()
        self._ahead: tuple[_Waiting, Tensor, torch.cuda.Event] | None = None
        self._stream: torch.cuda.Stream | None = None
        self._hooks: saved_tensors_hooks | None = None

    def of(self, input_ids_BT: Tensor) -> ActivationOffload:
        """The context for these tokens."""
        self.tokens = input_ids_BT.numel()
        if input_ids_BT.is_cuda and self._stream is None:
            self._stream = torch.cuda.Stream(input_ids_BT.device)  # type: ignore[no-untyped-call]
        return self

    def __enter__(self) -> None:
        self._forget()
        self._hooks = saved_tensors_hooks(self._send, self._fetch)
        self._hooks.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._hooks is not None
        self._hooks.__exit__(kind, error, trace)
        self._forget()

    def _forget(self) -> None:
        """Give back all memory that copies may still be at work on, after them."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
        self._leaving.clear()
        self._last = self._ahead = None

    def _send(self, kept: Tensor) -> Tensor | _Waiting:
        """What autograd is to hold in place of a tensor."""
        shape = kept.shape
        is_input = len(shape) == 3 and shape[-1] == self.hidden_size and shape[0] * shape[1] == self.tokens
        if not (is_input and kept.is_floating_point()):
            return kept
        if self._stream is None:
            self._last = _Waiting(kept.to("cpu", copy=True), kept.device, self._last)
            return self._last
        computing = torch.cuda.current_stream(kept.device)
        host = _pinned_like(kept)
        self._stream.wait_stream(computing)
        with torch.cuda.stream(self._stream):
            _begin_copy(host, kept)
        self._leaving.append((kept, self._stream.record_event()))
        while len(self._leaving) > _LEAVING:
            computing.wait_event(self._leaving[0][1])
            self._leaving.popleft()
        self._last = _Waiting(host, kept.device, self._last)
        return self._last

    def _fetch(self, held: Tensor | _Waiting) -> Tensor:
        """The tensor again."""
        if isinstance(held, Tensor):
            return held
        if self._stream is None:
            return held.host.to(held.device, copy=True)
        computing = torch.cuda.current_stream(held.device)
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            computing.wait_event(ahead[2])
        if ahead is not None and ahead[0] is held:
            found = ahead[1]
        else:
            found, arrived = self._begin_fetch(held)
            computing.wait_event(arrived)
        if held.before is not None:
            self._ahead = (held.before, *self._begin_fetch(held.before))
        return found

    def _begin_fetch(self, held: _Waiting) -> tuple[Tensor, torch.cuda.Event]:
        """Memory on the device, and when it has what it is for."""
        assert self._stream is not None
        found = torch.empty_like(held.host, device=held.device)
        self._stream.wait_stream(torch.cuda.current_stream(held.device))
        with torch.cuda.stream(self._stream):
            _begin_copy(found, held.host)
        return found, self._stream.record_event()


def _pinned_like(kept: Tensor) -> Tensor:
    return torch.empty_like(kept, device="cpu", pin_memory=True)


def _begin_copy(into: Tensor, source: Tensor) -> None:
    """Queue a copy on the current stream. torch gives pinned memory to nobody else before the copies of it are done."""
    into.copy_(source, non_blocking=True)


def hidden_size(model: Any) -> int:
    """The width of what flows from block to block."""
    return int(model.config.get_text_config().hidden_size)

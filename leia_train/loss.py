"""From packed rows to the loss of each token; the step sums them and divides by its global number of labels.

A mean over each micro-batch would weigh tokens by how many labels their micro-batch has (the known error of gradient
accumulation); the sum does not depend on how the batch is cut. The logits of a large vocabulary never stand in memory
whole: only tokens with a label are multiplied with the output embeddings, some at a time, and again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from leia_train.activations import ActivationOffload
from leia_train.attention import Contexts, packed_hidden_states, packed_logits
from leia_train.packing import IGNORED

MIN_CHUNK_BYTES = 256 << 20
"""Of float32 logits that are in memory at once, unless --loss-chunk says otherwise; on a GPU a 64th of its memory, if that
is more: each chunk moves the gradients of the whole output matrix, which was a tenth of a step on an H200."""
_CHUNK_SHARE = 64
Result = TypeVar("Result")
_MAX_DIFFERENCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Of losses in nats; a scale or a cap of the logits that is not known here changes them by more."""


class TokenLoss(nn.Module):
    """A model with its loss, as one module, so that all of it runs inside DistributedDataParallel's forward.

    `excluded_ids` are left out of the softmax. With `chunked` off the model makes all logits itself.
    """

    def __init__(self, model: Any, *, chunk_tokens: int = 0, excluded_ids: Sequence[int] = (), chunked: bool = True):
        super().__init__()
        self.model = model
        self.chunk_tokens = chunk_tokens
        self.chunked = chunked
        self.excluded_ids = tuple(excluded_ids)
        self.offload: ActivationOffload | None = None
        """Where what the blocks keep waits in main memory."""

    def forward(self, input_ids_BT: Tensor, position_ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
        """-log p(label) in nats and float32 (B, T) at the label's place, which the states before it predict; 0 without."""
        wanted = labels_BT != IGNORED
        wanted[:, 0] = False
        targets = labels_BT[wanted]
        before = wanted.roll(-1, dims=1)
        with nullcontext() if self.offload is None else self.offload.of(input_ids_BT):
            make = packed_hidden_states if self.chunked else packed_logits
            states = make(self.model, input_ids_BT, position_ids_BT)
        found = self._chunked(states[before], targets) if self.chunked else self._cross_entropy(states[before], targets)
        losses = torch.zeros(labels_BT.shape, dtype=torch.float32, device=labels_BT.device)
        return losses.masked_scatter(wanted, found)

    def within(self, function: Callable[[Any], Result]) -> Result:
        """What a function gives for the model; where processes hold parts of it, the parts are gathered as in `forward`."""
        return function(self.model)

    def compile_cross_entropy(self) -> None:
        """Compile what follows the logits, whose number differs from batch to batch."""
        self._cross_entropy = torch.compile(self._cross_entropy, dynamic=True)  # type: ignore[method-assign]

    def _chunked(self, states_NH: Tensor, targets_N: Tensor) -> Tensor:
        size = self.chunk_tokens or default_chunk(self._vocabulary_size(), gpu_bytes(states_NH.device))
        if len(targets_N) <= size:
            return self._losses(states_NH, targets_N)
        parts = [
            checkpoint(
                self._losses,
                states_NH[start : start + size],
                targets_N[start : start + size],
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for start in range(0, len(targets_N), size)
        ]
        return torch.cat(parts)

    def _vocabulary_size(self) -> int:
        output = self.model.get_output_embeddings()  # whose weight is empty where DeepSpeed has not gathered it
        return int(getattr(output, "out_features", None) or len(table_of(output)))

    def _losses(self, states_NH: Tensor, targets_N: Tensor) -> Tensor:
        logits = self.model.get_output_embeddings()(states_NH)
        return self._cross_entropy(_scaled(logits, self.model.config), targets_N)

    def _cross_entropy(self, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        logits = logits_NV.float()
        if self.excluded_ids:
            outside = torch.tensor(self.excluded_ids, device=logits.device)
            logits = logits.index_fill(-1, outside, float("-inf"))
        return cross_entropy(logits, targets_N, reduction="none")


def table_of(embeddings: Any) -> nn.Parameter:
    """The weight (V, H) of input or output embeddings, also of those that PEFT wrapped, which would make a copy of it."""
    weight: nn.Parameter = getattr(embeddings, "original_module", embeddings).weight
    return weight


def default_chunk(vocabulary_size: int, gpu_bytes: int) -> int:
    """Tokens whose logits are in memory at once, on a GPU of so much memory; 0 for none."""
    return max(max(MIN_CHUNK_BYTES, gpu_bytes // _CHUNK_SHARE) // (4 * vocabulary_size), 16)


def gpu_bytes(device: torch.device) -> int:
    """The memory of a GPU; 0 for other devices."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0


def _scaled(logits: Tensor, config: Any) -> Tensor:
    """What some models do to their logits (Cohere, Granite, Gemma); `agrees` finds what is not known here."""
    if getattr(config, "logit_scale", None) is not None:
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:
        logits = logits / config.logits_scaling
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def agrees(model: Any, vocabulary_size: int, context: Contexts = nullcontext, dtype: str = "float32") -> bool:
    """Whether the chunked loss is the one of the model's own logits, tried on a few tokens in the training's context."""
    device = next(model.parameters()).device
    ids = torch.arange(16, device=device)[None] % vocabulary_size
    positions = torch.arange(16, device=device)[None]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), context():
            chunked, whole = (TokenLoss(model, chunked=way)(ids, positions, ids) for way in (True, False))
    except (AttributeError, TypeError):
        return False
    finally:
        model.train(was_training)
    limit = _MAX_DIFFERENCE[dtype]
    return bool(torch.allclose(chunked, whole, rtol=limit, atol=limit))


def step_loss(losses_BT: Tensor, label_count: int, row_label_counts_B: Tensor | None = None, rows: int = 1) -> Tensor:
    """The part of a step's loss that some of its rows add; 0 where a step has no labels at all.

    Without `row_label_counts_B` every label of the step counts the same; with them every row of the step's `rows` does,
    as in the reference.
    """
    if row_label_counts_B is None:
        return losses_BT.sum() / max(label_count, 1)
    return (losses_BT.sum(dim=1) / row_label_counts_B.clamp_min(1)).sum() / rows


def is_finite(value: Tensor | float) -> bool:
    """Neither NaN nor infinite."""
    return bool(torch.isfinite(torch.as_tensor(value)).all())

"""From a model to the same one with Liger's fused kernels for norms, rotary positions and the feed-forward part.

22 % more tokens a second than transformers' own at 1 B on an H200, and a seventh less memory (benchmarks/README.md,
bench_step.py); torch.compile gives more, where it works. The loss stays ours. That the kernels change nothing but rounding is
looked at on the model at hand, because they replace modules of transformers by the name of the model's type.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from leia_beam.errors import MissingResource
from leia_train.attention import MAX_DIFFERENCE, Contexts, largest_difference

_PROBE_TOKENS = 32
MAX_DIFFERENCE_BF16 = 0.1
"""Of a token's logits before and after, as of packed and separate ones (attention.py)."""


def liger_hindrance(device: torch.device) -> str | None:
    """Why Liger's kernels cannot be used here; None where they can."""
    if device.type != "cuda":
        return f"it needs CUDA, this is {device.type}"
    if importlib.util.find_spec("liger_kernel") is None:
        return "liger-kernel is not installed (pip install liger-kernel)"
    return None


def apply_liger(
    model: Any, device: torch.device, vocabulary_size: int, context: Contexts, dtype: str, report: Callable[[str], None]
) -> None:
    """Replace the model's kernels in place.

    Raises: MissingResource where that cannot be done, or changes what the model computes.
    """
    kind = str(model.config.model_type)
    if kind not in _known_kinds():
        raise MissingResource(f"--liger: liger-kernel has no kernels for models of type {kind}; leave it out")
    before = _logits(model, device, vocabulary_size, context)
    from transformers.integrations.liger import apply_liger_kernel

    apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})  # type: ignore[no-untyped-call]
    error = largest_difference(_logits(model, device, vocabulary_size, context), before)
    limit = MAX_DIFFERENCE_BF16 if dtype == "bfloat16" else MAX_DIFFERENCE
    if not error <= limit:
        raise MissingResource(
            f"--liger: its kernels change what {type(model).__name__} computes (a token's logits by {error:.2g} standard "
            f"deviations, at most {limit:g} is rounding in {dtype}); leave it out"
        )
    report(f"liger: fused norms, rotary positions and feed-forward (logits differ by {error:.1e})")


def _known_kinds() -> set[str]:
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    return set(MODEL_TYPE_TO_APPLY_LIGER_FN)


def _logits(model: Any, device: torch.device, vocabulary_size: int, context: Contexts) -> Tensor:
    """Logits (T, V) of a few tokens."""
    ids = torch.arange(_PROBE_TOKENS, device=device)[None] % vocabulary_size
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), context():
            logits: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    finally:
        model.train(was_training)
    return logits

"""From packed rows to logits in which documents do not see each other, and the proof of it on the model at hand.

transformers finds the documents of a row from position_ids alone, and only where no attention mask is passed and no cache
is made: a mask of ones or use_cache=True mixes them silently (logits differ by 0.54 where rounding gives 2e-7).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from leia_beam.errors import MissingResource

_PROBE_LENGTHS = (7, 1, 12, 5)
MAX_RELATIVE_DIFFERENCE = 1e-3
"""Of packed and separate logits in float32, by their standard deviation: rounding gives 1e-5, a leak above 0.1."""


def packed_logits(model: nn.Module, input_ids_BT: Tensor, position_ids_BT: Tensor) -> Tensor:
    """Logits (B, T, V) of packed rows: no mask, no cache."""
    return model(input_ids=input_ids_BT, position_ids=position_ids_BT, use_cache=False).logits


def isolation_error(model: nn.Module, vocabulary_size: int) -> float:
    """How far the logits of documents in one row are from those of each alone, by their standard deviation."""
    device = next(model.parameters()).device
    generator = np.random.default_rng(0)
    documents = [torch.from_numpy(generator.integers(0, vocabulary_size, size)) for size in _PROBE_LENGTHS]
    row = torch.cat(documents)[None].to(device)
    positions = torch.cat([torch.arange(size) for size in _PROBE_LENGTHS])[None].to(device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            packed = packed_logits(model, row, positions)[0]
            separate = torch.cat([_alone(model, document.to(device)) for document in documents])
    finally:
        model.train(was_training)
    return float((packed - separate).abs().max() / separate.std().clamp_min(1e-12))


def _alone(model: nn.Module, document: Tensor) -> Tensor:
    return model(input_ids=document[None], use_cache=False).logits[0]


def check_isolation(model: nn.Module, vocabulary_size: int) -> float:
    """Refuse a model whose documents see each other in a packed row; the error found.

    Raises: MissingResource.
    """
    error = isolation_error(model, vocabulary_size)
    if not error <= MAX_RELATIVE_DIFFERENCE:
        raise MissingResource(
            f"documents of a packed row see each other in {type(model).__name__} (logits differ by {error:.2g} standard "
            f"deviations from those of separate documents, at most {MAX_RELATIVE_DIFFERENCE:g} is rounding); try another "
            "--attention, or --cross-document to train as the reference does"
        )
    return error

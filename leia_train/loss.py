"""From logits and labels to the loss: the sum over tokens, which the step divides by its global number of labels.

A mean over each micro-batch would weigh tokens by how many labels their micro-batch has (the known error of gradient
accumulation); the sum does not depend on how the batch is cut.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from leia_train.packing import IGNORED


def summed_token_loss(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """The sum of -log p(label), in nats and float32; the token at t is predicted by the logits at t - 1."""
    predictions = logits_BTV[:, :-1].flatten(0, 1).float()
    targets = labels_BT[:, 1:].flatten()
    return cross_entropy(predictions, targets, ignore_index=IGNORED, reduction="sum")


def step_loss(summed_loss: Tensor, label_count: int) -> Tensor:
    """The part of a step's loss that a micro-batch adds; 0 where a step has no labels at all."""
    return summed_loss / max(label_count, 1)


def is_finite(value: Tensor | float) -> bool:
    """Neither NaN nor infinite."""
    return bool(torch.isfinite(torch.as_tensor(value)).all())

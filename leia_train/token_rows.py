"""From PEFT's layer of trained tokens to the same one that touches the rows of those tokens alone.

PEFT puts the trained rows into a copy of the whole table on every call, and computes the gradient of all of it: with the loss
in chunks that is a table of 128k x 4,096 for each of them. Here a token's row takes the place of its embedding, and its logit
is a product of its own. What is computed is the same, and so are the weights, their names and PEFT's files.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import Tensor, nn
from torch.nn.functional import linear


class TokenRows(TrainableTokensLayer):
    """Input or output embeddings some of whose rows are trained."""

    def forward_adapters(self, x: Tensor, active_adapters: list[str], *args: Any, **kwargs: Any) -> Tensor:
        """Embeddings (…, H) of ids, or logits (…, V) of states (…, H)."""
        made: Tensor = self.base_layer(x, *args, **kwargs)
        for name in active_adapters:
            rows_KH, ids = self.trainable_tokens_delta[name], self.token_indices[name]
            if isinstance(self.base_layer, nn.Embedding):
                scale = self._get_embed_scale()  # type: ignore[no-untyped-call]
                for row, token in zip(rows_KH if scale is None else rows_KH * scale, ids, strict=True):
                    made = torch.where((x == token)[..., None], row.to(made.dtype), made)
            else:
                logits = linear(x, rows_KH.to(x.dtype)).to(made.dtype)
                made = made.index_copy_(-1, torch.tensor(ids, device=made.device), logits)  # nobody else has it
        return made


def use_rows_alone(model: nn.Module) -> None:
    """Let PEFT's layers of trained tokens compute as above."""
    for layer in token_layers(model).values():
        layer.__class__ = TokenRows


def token_layers(model: nn.Module) -> dict[str, TrainableTokensLayer]:
    """Those of the input embeddings and of the output's by name; where both are tied, the second has the first one's rows."""
    return {name: module for name, module in model.named_modules() if isinstance(module, TrainableTokensLayer)}

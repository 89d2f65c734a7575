"""From queries, keys and values of rows laid end to end to their attention within documents, by torch's sdpa, without a mask.

The mask that transformers makes of packed rows grows with the square of a row: 1 GiB at 32,768 tokens, 4 in float32, and the
kernel computes all of it. Here sdpa is called for one document after the other, causal by itself, so that work and memory are
those of the documents: a twelfth of the time and a third of the memory for a row of 32,768 tokens on a CPU
(benchmarks/README.md, bench_segment_attention.py). Documents of equal length, such as
whole rows, are one call. A window is cut into stretches of queries, each with a mask of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from leia_beam.errors import MissingResource

SEGMENTED = "leia_sdpa"
_STRETCH = 1024
"""Queries that share a mask, where a document is longer than a window."""


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """sdpa in the form that transformers calls: (B, H, T, D) to (B, T, H, D).

    `cu_seq_lens_q` (on the CPU, so that nothing waits for a GPU) says where the documents of one long row begin, and its end;
    without it each row is a document.

    Raises: MissingResource for a model that does more than sdpa can.
    """
    if options.get("softcap") or options.get("s_aux") is not None or options.get("position_bias") is not None:
        raise MissingResource(
            "--attention sdpa: this model caps, sinks or biases its attention, which torch's sdpa cannot"
        )
    if attention_mask is not None:
        raise MissingResource("--attention sdpa: this model makes a mask of its own")
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    if query.shape[1] != key.shape[1] and kind == "cuda" and dtype == torch.float32:
        key, value = _for_each_head(query, key, value)  # no kernel for float32 shares keys among heads there
    attend = partial(_document, scaling=scaling, dropout=dropout, window=sliding_window)
    if cu_seq_lens_q is None:
        return attend(query, key, value), None
    lengths = cu_seq_lens_q.diff().tolist()
    if len(set(lengths)) == 1:
        rows = (
            part[0].view(part.shape[1], len(lengths), lengths[0], -1).transpose(0, 1) for part in (query, key, value)
        )
        return attend(*rows).flatten(0, 1)[None], None
    # Split at once: of slices each would have a gradient as long as the rows.
    queries, keys, values = (torch.split(part, lengths, dim=2) for part in (query, key, value))
    return torch.cat([attend(*parts) for parts in zip(queries, keys, values, strict=True)], dim=1), None


def _document(
    query: Tensor, key: Tensor, value: Tensor, *, scaling: float | None, dropout: float, window: int | None
) -> Tensor:
    """Causal attention (B, T, H, D) of rows (B, H, T, D), each a document; a token sees itself and `window` - 1 before it."""
    length = query.shape[2]
    if window is None or length <= window:
        made = scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=True,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return made.transpose(1, 2)
    key, value = _for_each_head(query, key, value)
    found = []
    for start in range(0, length, _STRETCH):
        stop, first = min(start + _STRETCH, length), max(start - window + 1, 0)
        ahead = torch.arange(first, stop, device=query.device) - torch.arange(start, stop, device=query.device)[:, None]
        made = scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, first:stop],
            value[:, :, first:stop],
            attn_mask=(ahead <= 0) & (ahead > -window),
            dropout_p=dropout,
            scale=scaling,
        )
        found.append(made.transpose(1, 2))
    return torch.cat(found, dim=1)


def _for_each_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of every head, where several share them."""
    times = query.shape[1] // key.shape[1]
    if times == 1:
        return key, value
    return key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)


ALL_ATTENTION_FUNCTIONS.register(SEGMENTED, segment_attention)

"""From packed rows to hidden states and logits in which documents do not see each other, and the proof of it.

Two ways. flash-attn, torch's varlen, and sdpa document by document (segment_attention.py): the rows are laid end to end and
the boundaries are passed explicitly (cu_seqlens), so no mask is ever made. eager, flex, and sdpa where that does not work:
transformers finds the documents of a row from position_ids alone, and only where no attention mask is passed and no cache is
made: a mask of ones or use_cache=True mixes them silently (logits differ by 0.54 where rounding gives 2e-7). Which one is
decided once, and each is probed on the model at hand.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from leia_beam.errors import MissingResource
from leia_train.segment_attention import SEGMENTED

VARLEN = "leia_varlen"
_IMPLEMENTATIONS = {"varlen": VARLEN, "flex": "flex_attention"}
"""Our names, and those of transformers where they are others."""
_FLASH = (("flash_attention_3", (9, 0)), ("flash_attention_2", (8, 0)), ("flash_attention_4", (9, 0)))
"""Packages of flash-attn in the order in which they are taken, and the compute capability that each needs."""
_WITH_OFFSETS = (*(name for name, _ in _FLASH), VARLEN, SEGMENTED)
_PROBE_LENGTHS = (7, 1, 12, 5)
_MIN_FLEX_LENGTH = 128
"""Of rows; shorter ones are filled up. torch has another kernel for them, which in bfloat16 mixes everything or does not
compile (2.11 on an H200)."""
MAX_DIFFERENCE = 1e-3
"""Of a token's packed and separate logits in float32, the norm of the difference by their standard deviation and the root of
their number: rounding gives up to 7e-6 in models of 2 to 48 layers, a leak above 1 at the token that it touches most."""
MAX_SHARE_OF_LEAK = 0.2
"""The same in bfloat16, as a share of what it is where documents do see each other, which is 1.2 to 1.6. Rounding gives 5e-3
to 8e-3 as a rule, 7e-2 in 32 layers of large weights, and 0.1 where it sends a token to another expert. The largest
difference of single logits would be no measure: it grows with the vocabulary (4.3e-2 of 128k in 16 layers)."""

Contexts = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A kernel by our name and transformers', and why it may be taken here."""

    name: str
    implementation: str
    reason: str


def _choice(name: str, reason: str) -> Choice:
    implementation = (
        (_flash_installed() or "flash_attention_2") if name == "flash" else _IMPLEMENTATIONS.get(name, name)
    )
    return Choice(name=name, implementation=implementation, reason=reason)


def _sdpa(reason: str, compiled: bool) -> list[Choice]:
    """sdpa document by document, and with a mask: the way of models with which the first does not work, and of torch.compile,
    which would compile anew for the documents of every batch.
    """
    masked = Choice(name="sdpa", implementation="sdpa", reason=f"{reason}; with a mask of each pair of a row's tokens")
    return [masked] if compiled else [Choice(name="sdpa", implementation=SEGMENTED, reason=reason), masked]


def candidates(requested: str, device: torch.device, dtype: str, *, compiled: bool = False) -> list[Choice]:
    """The kernels to try, the fastest first; a requested one alone. `compiled`: for a model that torch.compile compiles.

    Raises: MissingResource where a requested one is not to be had.
    """
    hindered = {"flash": flash_hindrance(device, dtype), "varlen": varlen_hindrance(device, dtype)}
    if requested == "flex" and device.type == "cpu":
        raise MissingResource("--attention flex: torch has no backward pass for it on the CPU; use --attention sdpa")
    if requested != "auto":
        if hindered.get(requested):
            raise MissingResource(f"--attention {requested}: {hindered[requested]}; --attention auto takes what works")
        return _sdpa("asked for", compiled) if requested == "sdpa" else [_choice(requested, "asked for")]
    found = [_choice(name, "boundaries are passed explicitly") for name, why in hindered.items() if not why]
    why_not = ", ".join(f"no {name}: {why}" for name, why in hindered.items() if why)
    return [*found, *_sdpa(why_not, compiled), _choice("eager", why_not)]


def flash_hindrance(device: torch.device, dtype: str) -> str | None:
    """Why flash-attn cannot be used here; None where it can."""
    why = _gpu_hindrance(device, dtype)
    if why is None and _flash_installed() is None:
        why = "flash-attn is not installed for this GPU (pip install 'leia-lm[flash]')"
    return why


def _flash_installed() -> str | None:
    """transformers' name of the package of flash-attn that is installed and made for this GPU."""
    from transformers.utils import import_utils

    if not torch.cuda.is_available():
        return None
    capability = torch.cuda.get_device_capability()
    for name, needed in _FLASH:
        is_available = getattr(import_utils, f"is_flash_attn_{name[-1]}_available")
        if capability >= needed and is_available():
            return name
    return None


def varlen_hindrance(device: torch.device, dtype: str) -> str | None:
    """Why torch's own varlen attention cannot be used here; None where it can."""
    why = _gpu_hindrance(device, dtype)
    if why is None and VARLEN_KERNEL is None:
        why = f"torch {torch.__version__} has no varlen attention with windows"
    return why


def _gpu_hindrance(device: torch.device, dtype: str) -> str | None:
    if device.type != "cuda":
        return f"it needs CUDA, this is {device.type}"
    if dtype != "bfloat16":
        return "it computes in bfloat16, --dtype is float32"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs compute capability 8.0"
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class VarlenKernel:
    """torch's varlen attention, and whether it wants to be told that heads share keys (2.11 does so unasked)."""

    call: Callable[..., Any]
    says_grouped: bool


def _find_varlen() -> VarlenKernel | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    options = inspect.signature(varlen_attn).parameters
    if not {"window_size", "scale"} <= set(options):
        return None
    return VarlenKernel(call=varlen_attn, says_grouped="enable_gqa" in options)


VARLEN_KERNEL = _find_varlen()
"""None where this torch has none that takes windows."""


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """torch's varlen attention in the form that transformers calls: (B, H, T, D) to (B, T, H, D).

    Raises: MissingResource where torch's kernel cannot do what the model asks for.
    """
    if options.get("softcap") or options.get("s_aux") is not None:
        raise MissingResource("--attention varlen: this model caps or sinks its attention, which torch's kernel cannot")
    kernel = VARLEN_KERNEL
    if kernel is None:
        raise MissingResource("--attention varlen: this torch has no varlen attention with windows")
    batch, heads, length, _ = query.shape
    if cu_seq_lens_q is None or max_length_q is None:  # whole rows: each is a document
        cu_seq_lens_q = torch.arange(0, batch * length + 1, length, dtype=torch.int32, device=query.device)
        max_length_q = length
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    flat = [part.transpose(1, 2).flatten(0, 1).to(dtype) for part in (query, key, value)]
    grouped = {"enable_gqa": heads != key.shape[1]} if kernel.says_grouped else {}
    out: Tensor = kernel.call(
        *flat,
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        **grouped,
    )
    return out.view(batch, length, *out.shape[1:]), None


ALL_ATTENTION_FUNCTIONS.register(VARLEN, varlen_attention)


def packed_inputs(implementation: str, input_ids_BT: Tensor, position_ids_BT: Tensor) -> dict[str, Any]:
    """What a model is called with: no mask, no cache; rows end to end with their boundaries where the kernel takes them."""
    if implementation not in _WITH_OFFSETS:
        return {"input_ids": input_ids_BT, "position_ids": position_ids_BT, "use_cache": False}
    positions = position_ids_BT.flatten()
    starts = torch.nonzero(positions == 0).flatten()
    offsets = torch.cat([starts, starts.new_tensor([positions.numel()])]).to(torch.int32)
    longest = int((offsets[1:] - offsets[:-1]).max())
    if implementation == SEGMENTED:
        offsets = offsets.cpu()
    return {
        "input_ids": input_ids_BT.flatten()[None],
        "position_ids": positions[None],
        "use_cache": False,
        "cu_seq_lens_q": offsets,
        "cu_seq_lens_k": offsets,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def packed_logits(model: nn.Module, input_ids_BT: Tensor, position_ids_BT: Tensor) -> Tensor:
    """Logits (B, T, V) of packed rows."""
    return _packed(model, input_ids_BT, position_ids_BT, lambda inputs: model(**inputs).logits)


def packed_hidden_states(model: nn.Module, input_ids_BT: Tensor, position_ids_BT: Tensor) -> Tensor:
    """The states (B, T, H) from which the model's output embeddings make the logits."""
    return _packed(
        model,
        input_ids_BT,
        position_ids_BT,
        lambda inputs: model.base_model(**inputs).last_hidden_state,  # type: ignore[operator]
    )


def _packed(model: nn.Module, input_ids_BT: Tensor, position_ids_BT: Tensor, call: Callable[..., Tensor]) -> Tensor:
    """What a call of the model gives for packed rows (B, T, …)."""
    implementation = implementation_of(model)
    length = input_ids_BT.shape[1]
    missing = _MIN_FLEX_LENGTH - length if implementation == "flex_attention" else 0
    if missing > 0:  # with tokens that are documents of their own
        input_ids_BT, position_ids_BT = (pad(part, (0, missing)) for part in (input_ids_BT, position_ids_BT))
    made = call(packed_inputs(implementation, input_ids_BT, position_ids_BT))
    return made.view(*input_ids_BT.shape, -1)[:, :length]


def implementation_of(model: nn.Module) -> str:
    """transformers' name of the attention that a model uses."""
    return str(model.config._attn_implementation)  # type: ignore[union-attr]


def pair_bytes(implementation: str, rows: int, length: int, model: nn.Module) -> int:
    """What an attention has in memory for the pairs of tokens of some rows, at the least: a mask, and of eager scores too."""
    pairs = rows * length**2
    if implementation == "sdpa":
        return pairs
    return pairs * 4 * (1 + int(model.config.num_attention_heads)) if implementation == "eager" else 0  # type: ignore[union-attr,arg-type]


def isolation_errors(model: nn.Module, vocabulary_size: int, context: Contexts = nullcontext) -> tuple[float, float]:
    """How far tokens' logits in a packed row are from those of their documents alone, and how far if they see each other.

    Of the token that differs most: the norm of the difference by the logits' standard deviation and the root of their number.
    """
    device = next(model.parameters()).device
    generator = np.random.default_rng(0)
    documents = [torch.from_numpy(generator.integers(0, vocabulary_size, size)).to(device) for size in _PROBE_LENGTHS]
    row = torch.cat(documents)[None]
    positions = torch.cat([torch.arange(size) for size in _PROBE_LENGTHS])[None].to(device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), context():
            packed = packed_logits(model, row, positions)[0]
            separate = torch.cat([_alone(model, document) for document in documents])
            together = _alone(model, row[0])
    finally:
        model.train(was_training)
    return largest_difference(packed, separate), largest_difference(together, separate)


def _alone(model: nn.Module, document: Tensor) -> Tensor:
    """Logits (T, V) of a document in a call of its own."""
    if implementation_of(model) == "flex_attention":  # which takes no short rows
        return packed_logits(model, document[None], torch.arange(len(document), device=document.device)[None])[0]
    logits: Tensor = model(input_ids=document[None], use_cache=False).logits[0]
    return logits


def largest_difference(found_TV: Tensor, true_TV: Tensor) -> float:
    """Of the token whose logits (T, V) differ most: the norm of the difference (V,) by the true logits' standard deviation and
    the root of V."""
    true_TV = true_TV.float()
    scale = true_TV.std().clamp_min(1e-12) * true_TV.shape[-1] ** 0.5
    return float((found_TV.float() - true_TV).norm(dim=-1).max() / scale)


def check_isolation(
    model: nn.Module, vocabulary_size: int, context: Contexts = nullcontext, dtype: str = "float32"
) -> float:
    """Refuse a model whose documents see each other in a packed row; the error found.

    Raises: MissingResource.
    """
    error, leak = isolation_errors(model, vocabulary_size, context)
    limit = MAX_SHARE_OF_LEAK * leak if dtype == "bfloat16" else MAX_DIFFERENCE
    if not error <= limit:
        raise MissingResource(
            f"documents of a packed row see each other in {type(model).__name__} (a token's logits differ by {error:.2g} "
            f"standard deviations from those in its document alone, at most {limit:.1g} is rounding in {dtype}); try another "
            "--attention, or --cross-document to train as the reference does"
        )
    return error


def settle(
    model: Any,
    choices: list[Choice],
    vocabulary_size: int,
    context: Contexts,
    dtype: str,
    report: Callable[[str], None],
    *,
    isolated: bool,
) -> None:
    """Give the model the first of the kernels with which it keeps documents apart; which one is reported.

    Where documents see each other anyway, the first one that the model takes.

    Raises: MissingResource where none does.
    """
    said = ""
    for choice in choices:
        last = choice is choices[-1]
        try:
            model.set_attn_implementation(choice.implementation)
            error = check_isolation(model, vocabulary_size, context, dtype) if isolated else None
        except (MissingResource, ImportError, ValueError, RuntimeError, NotImplementedError) as failure:
            line = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
            if last:
                raise (
                    failure
                    if isinstance(failure, MissingResource)
                    else MissingResource(f"--attention {choice.name}: {line}")
                ) from failure
            failed = f"attention: {choice.name} does not work here ({line})"
            if failed != said:
                report(failed)
            said = failed
            continue
        proof = (
            "documents of a row see each other, as in the reference"
            if error is None
            else f"documents of a packed row do not see each other (packed and separate logits differ by {error:.1e})"
        )
        report(f"attention: {choice.name} ({choice.reason}); {proof}")
        return

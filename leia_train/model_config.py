"""From options to which model is trained: its weights, kernels, adapters, and what it keeps for the backward pass."""

from __future__ import annotations

from dataclasses import dataclass

from leia_beam.errors import UsageError
from leia_train.option_fields import check, check_choice, option

DTYPES = ("float32", "bfloat16")
ATTENTIONS = ("auto", "flash", "varlen", "flex", "sdpa", "eager")
CHECKPOINTINGS = ("none", "selective", "full")
ROUNDINGS = ("stochastic", "kahan")
TINY_LLAMA = "tiny-llama"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which model is trained; the tiny sizes are read for `tiny-llama` alone, which has random weights."""

    model: str = option(f"folder or hub name of a causal LM, or {TINY_LLAMA} (random weights)", required=True)
    tiny_hidden_size: int = option(f"{TINY_LLAMA}: width", default=64)
    tiny_intermediate_size: int = option(f"{TINY_LLAMA}: width of the feed-forward part", default=128)
    tiny_layers: int = option(f"{TINY_LLAMA}: layers", default=2)
    tiny_heads: int = option(f"{TINY_LLAMA}: attention heads", default=4)
    tiny_kv_heads: int = option(f"{TINY_LLAMA}: key and value heads", default=2)
    attention: str = option(
        "flash-attn, torch's own varlen or flex, sdpa, eager; auto takes the first that works here",
        default="auto",
        choices=ATTENTIONS,
    )
    dtype: str = option(
        "type of the computation; weights and optimizer stay float32", default="float32", choices=DTYPES
    )
    weights: str = option(
        "type of the weights; bfloat16 saves half of their memory; those that are trained are rounded as --rounding says",
        default="float32",
        choices=DTYPES,
    )
    rounding: str = option("how bfloat16 weights are updated", default="stochastic", choices=ROUNDINGS)
    lora: int = option(
        "rank of adapters (LoRA) that are trained with the markers' rows in place of all weights; 0 for none", default=0
    )
    lora_alpha: int = option("scale of the adapters, which is divided by the rank; 0 for twice the rank", default=0)
    lora_dropout: float = option("share of an adapter's inputs that are left out at random (0 to 1)", default=0.0)
    lora_targets: tuple[str, ...] = option(
        "layers that get an adapter, like q_proj v_proj; none for all linear ones but the output embeddings",
        default=(),
        metavar="LAYER",
    )
    loss_chunk: int = option(
        "tokens whose logits are in memory at once; 0 for as many as fit 256 MiB, or 1/64 of a GPU's memory", default=0
    )
    marker_logits: bool = option(
        "the markers' logits are in the softmax (with tied embeddings: leave them out)", default=True
    )
    activation_checkpointing: str = option(
        "what a block keeps for its backward pass: none: all that it needs; selective: results of matrix products and "
        "attention; full: its input; the rest is computed again",
        default="none",
        choices=CHECKPOINTINGS,
    )
    activation_offload: bool = option(
        "blocks' inputs wait for the backward pass in main memory; with --activation-checkpointing full or selective",
        default=False,
    )
    compile: bool = option("compile the model with torch.compile", default=False)
    liger: bool = option("Liger's fused kernels, where liger-kernel is installed; GPUs alone", default=False)
    trust_remote_code: bool = option("run the code in the model's repository; it is listed first", default=False)

    def __post_init__(self) -> None:
        check(self.model != "", "model", "''", f"a folder, a hub name or {TINY_LLAMA}")
        for name in ("hidden_size", "intermediate_size", "layers", "heads", "kv_heads"):
            value = getattr(self, f"tiny_{name}")
            check(value >= 1, f"tiny-{name.replace('_', '-')}", value, "at least 1")
        even_heads = self.tiny_hidden_size % (2 * self.tiny_heads) == 0
        check(even_heads, "tiny-hidden-size", self.tiny_hidden_size, "a multiple of twice --tiny-heads")
        check(self.tiny_heads % self.tiny_kv_heads == 0, "tiny-heads", self.tiny_heads, "a multiple of --tiny-kv-heads")
        check_choice("attention", self.attention, ATTENTIONS)
        check_choice("dtype", self.dtype, DTYPES)
        check_choice("weights", self.weights, DTYPES)
        check_choice("rounding", self.rounding, ROUNDINGS)
        check(self.loss_chunk >= 0, "loss-chunk", self.loss_chunk, "0 or above")
        way = self.activation_checkpointing
        check_choice("activation-checkpointing", way, CHECKPOINTINGS)
        if self.activation_offload and way == "none":
            raise UsageError(
                "--activation-offload: moves blocks' inputs alone; give --activation-checkpointing selective or full with it"
            )
        self._check_lora()
        both = self.weights == "float32" or self.dtype == "bfloat16"
        check(both, "weights", self.weights, "float32 unless --dtype is bfloat16 too")

    @property
    def scale(self) -> int:
        """Of the adapters, before it is divided by the rank."""
        return self.lora_alpha or 2 * self.lora

    def _check_lora(self) -> None:
        check(self.lora >= 0, "lora", self.lora, "0 or above")
        check(self.lora_alpha >= 0, "lora-alpha", self.lora_alpha, "0 or above")
        check(0 <= self.lora_dropout < 1, "lora-dropout", self.lora_dropout, "from 0 to below 1")
        for name in ("alpha", "dropout", "targets"):
            value = getattr(self, f"lora_{name}")
            given = " ".join(value) if isinstance(value, tuple) else value
            check(bool(self.lora) or not value, f"lora-{name}", given, "left out without --lora")

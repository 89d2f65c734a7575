"""What is kept for the backward pass changes nothing but memory: the same losses and gradients, bit for bit, from fewer bytes."""

import gc
import weakref
from collections import defaultdict
from contextlib import nullcontext

import pytest
import torch
from kept_bytes import kept_bytes
from test_attention import VOCABULARY_SIZE, make_causal_lm
from torch.utils.checkpoint import CheckpointPolicy

from leia_beam.errors import UsageError
from leia_train import activations
from leia_train.activations import ActivationOffload, checkpoint_blocks, hidden_size, keeps
from leia_train.cli import main
from leia_train.config import ModelConfig
from leia_train.loss import TokenLoss
from leia_train.packing import IGNORED

FAMILIES = {
    "llama": {},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gpt_neox": {},
    "gemma2": {"head_dim": 8},
    "gpt2": {"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2},
}
WAYS = [("selective", False), ("full", False), ("selective", True), ("full", True)]
LENGTHS = ((30, 1, 17), (48,))
"""Of the documents of two rows."""


def batch():
    """Ids, positions and labels (2, 48)."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY_SIZE, (2, 48), generator=generator)
    positions = torch.stack([torch.cat([torch.arange(size) for size in row]) for row in LENGTHS])
    return ids, positions, torch.where(positions == 0, IGNORED, ids)


def gradients(family, way, offload=None, *, frozen=lambda name: False, compiled=False, dtype=None):
    """The losses of a batch and all gradients, of a model made anew."""
    model = make_causal_lm(family, **FAMILIES[family]).train()
    for name, weight in model.named_parameters():
        weight.requires_grad_(not frozen(name))
    checkpoint_blocks(model, way)
    loss = TokenLoss(model, chunk_tokens=32)
    loss.offload = offload(hidden_size(model)) if offload else None
    if compiled:
        for layer in model.model.layers:
            layer.compile()
    torch.manual_seed(7)
    with nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype):
        losses = loss(*batch())
    losses.sum().backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return losses.detach(), found


def same(one, other):
    """Bit for bit."""
    assert torch.equal(one[0], other[0]) and one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        assert torch.equal(gradient, other[1][name]), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("way", "offload"), WAYS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_losses_and_gradients_do_not_depend_on_what_is_kept(family, way, offload, dtype):
    """In each family, with dropout too: what is computed again is computed from the same numbers, in the same order."""
    expected = gradients(family, "none", dtype=dtype)
    assert len(expected[1]) > 10 and all(bool(torch.isfinite(part).all()) for part in expected[1].values())
    same(gradients(family, way, ActivationOffload if offload else None, dtype=dtype), expected)


@pytest.mark.parametrize(("way", "offload"), WAYS)
def test_a_frozen_base_gives_its_few_weights_their_gradients(way, offload):
    """Embeddings and first layers without gradients, as under adapters: the blocks' inputs have none of their own."""

    def frozen(name):
        return "layers.1.mlp" not in name

    expected = gradients("llama", "none", frozen=frozen)
    assert len(expected[1]) == 3
    same(gradients("llama", way, ActivationOffload if offload else None, frozen=frozen), expected)


def model_to_count(family="llama", **options):
    """A wider model, of which activations are the larger part."""
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "head_dim": 16}
    return make_causal_lm(family, **{**FAMILIES[family], **sizes, **options}).train()


@pytest.mark.parametrize("family", ["llama", "qwen3", "qwen3_moe", "gpt_neox", "gemma2"])
def test_full_keeps_less_than_selective_and_that_less_than_nothing_recomputed(family):
    """Bytes of all memory that is alive after the forward pass because of it."""
    kept = {}
    for way in ("none", "selective", "full"):
        model = model_to_count(family)
        checkpoint_blocks(model, way)
        kept[way] = kept_bytes(model, 2, 128)
    print(family, kept)
    assert 2 * kept["full"] < kept["selective"] < 0.7 * kept["none"]


class Counted(ActivationOffload):
    """Counts what autograd holds on the device, and what it sent away."""

    kept = sent = 0

    def _send(self, kept):
        held = super()._send(kept)
        size = kept.numel() * kept.element_size()
        if isinstance(held, torch.Tensor):
            self.kept += size
        else:
            self.sent += size
        return held


def test_offload_sends_the_input_of_each_block_away():
    """And what the last norm keeps, which is as wide; nothing as large is left on the device."""
    model = model_to_count()
    checkpoint_blocks(model, "full")
    loss, counted = TokenLoss(model), Counted(64)
    loss.offload = counted
    ids, positions, labels = batch()
    with torch.no_grad():
        loss(ids, positions, labels)
    assert counted.sent == 0
    loss(ids, positions, labels).sum().backward()
    state = ids.numel() * 64 * 4
    assert counted.sent >= 4 * state and counted.sent % state == 0
    assert counted.kept < state


class Stream:
    """A stream that does as little as it may, as late as it may: what is queued is done when another waits for it."""

    def __init__(self):
        self.queued, self.waited_for, self.device = [], False, None

    def wait_stream(self, other):
        self.waited_for = True
        other.finish()

    def wait_event(self, event):
        stream, count = event
        stream.finish(count)

    def record_event(self):
        return self, len(self.queued)

    def finish(self, count=None):
        """Do what was queued, up to an event."""
        for place in range(len(self.queued) if count is None else count):
            if self.queued[place] is not None:
                self.queued[place]()
                self.queued[place] = None


@pytest.fixture
def streams(monkeypatch):
    """The computing stream and the copying one, whose copies are late; copies between memory that is gone are an error."""
    computing, copying = Stream(), Stream()
    current, counts = [computing], defaultdict(int)

    class On:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            current.append(self.stream)

        def __exit__(self, *error):
            current.pop()

    def begin_copy(into, source):
        assert current[-1] is copying and copying.waited_for, "queued on the wrong stream, or before what made it"
        copying.waited_for = False
        ends = weakref.ref(into.untyped_storage()), weakref.ref(source.untyped_storage())
        shape = into.shape

        def do():
            target, origin = (end() for end in ends)
            assert target is not None and origin is not None, "memory was given back before its copy was done"
            torch.empty(0).set_(target).view(shape).copy_(torch.empty(0).set_(origin).view(shape))
            counts["done"] += 1

        copying.queued.append(do)
        counts["queued"] += 1
        counts["most"] = max(counts["most"], sum(work is not None for work in copying.queued))

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: current[-1])
    monkeypatch.setattr(torch.cuda, "stream", On)
    monkeypatch.setattr(activations, "_begin_copy", begin_copy)
    monkeypatch.setattr(activations, "_pinned_like", lambda kept: torch.full_like(kept, float("nan")))
    return computing, copying, counts


def test_copies_by_a_stream_of_their_own_are_waited_for(streams):
    """With the latest copies that the waits allow, all is as without: no memory is read or given back before its copy."""
    _, copying, counts = streams
    expected = gradients("llama", "full")

    def offload(width):
        made = ActivationOffload(width)
        made._stream = copying
        return made

    same(gradients("llama", "full", offload), expected)
    gc.collect()
    assert counts["queued"] == counts["done"] >= 2 * 2 * 2
    assert counts["most"] > 1  # several were under way at once


def test_the_late_copies_of_this_test_show_a_wait_that_is_missing(streams, monkeypatch):
    """Else the test above would show nothing."""
    _, copying, _ = streams

    def offload(width):
        made = ActivationOffload(width)
        made._stream = copying
        return made

    expected = gradients("llama", "full")
    monkeypatch.setattr(Stream, "wait_event", lambda self, event: None)
    monkeypatch.setattr(Stream, "wait_stream", lambda self, other: setattr(self, "waited_for", True))
    with pytest.raises(AssertionError):
        same(gradients("llama", "full", offload), expected)


def test_an_attention_kernel_that_draws_is_computed_again():
    """Its result would be kept, but the generator would then stand elsewhere for what draws after it."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention.default
    part = torch.zeros(1, 1, 2, 8)
    assert keeps(None, flash, part, part, part) is CheckpointPolicy.MUST_SAVE
    assert keeps(None, flash, part, part, part, 0.0, True) is CheckpointPolicy.MUST_SAVE
    for given in ((part, part, part, 0.1, True), (part, part, part)):
        named = {} if len(given) > 3 else {"dropout_p": 0.1}
        assert keeps(None, flash, *given, **named) is CheckpointPolicy.PREFER_RECOMPUTE
    assert keeps(None, torch.ops.aten.mm.default, part[0, 0], part[0, 0]) is CheckpointPolicy.MUST_SAVE
    for other in (torch.ops.aten.bmm.default, torch.ops.aten.mul.Tensor, torch.ops.aten._to_copy.default):
        assert keeps(None, other, part, part) is CheckpointPolicy.PREFER_RECOMPUTE


@pytest.mark.parametrize(("way", "offload"), WAYS)
def test_compiled_blocks_have_the_losses_and_gradients_of_others(way, offload):
    """Up to the rounding of other kernels; their inputs leave the device too."""
    expected = gradients("llama", "none")
    counted = Counted(32)
    found = gradients("llama", way, (lambda width: counted) if offload else None, compiled=True)
    assert (counted.sent >= 2 * 2 * 48 * 32 * 4) == offload
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, expected[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_run_has_the_same_bytes_whatever_it_keeps(arguments, tmp_path):
    """Losses and weights of whole runs, which may go on with another way."""
    finals = []
    for place, more in enumerate(
        (
            (),
            ("--activation-checkpointing", "selective"),
            ("--activation-checkpointing", "full"),
            ("--activation-checkpointing", "full", "--activation-offload"),
        )
    ):
        output = tmp_path / str(place)
        assert main(arguments("--tiny-layers", 2, *more, output=output)) == 0
        finals.append((output / "checkpoint-final/model.safetensors").read_bytes())
    assert len(set(finals)) == 1


def test_wrong_options_are_told(arguments, capsys):
    """The name of before leads to today's; what is to be offloaded must be said."""
    with pytest.raises(UsageError, match=r"--activation-offload: .* give --activation-checkpointing selective or full"):
        ModelConfig(model="m", activation_offload=True)
    with pytest.raises(UsageError, match="--activation-checkpointing all: must be one of none, selective, full"):
        ModelConfig(model="m", activation_checkpointing="all")
    assert main(arguments("--gradient-checkpointing")) == UsageError.exit_code
    assert "did you mean '--activation-checkpointing'?" in capsys.readouterr().err


def test_a_recipe_with_the_name_of_before_is_told_of_todays(tmp_path, capsys):
    """With its place."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text("training:\n  model: tiny-llama\n  gradient_checkpointing: true\n")
    assert main(["train", "-c", str(recipe)]) == UsageError.exit_code
    said = capsys.readouterr().err
    assert "did you mean 'activation_checkpointing'?" in said and "r.yaml:3" in said


def test_a_model_that_cannot_is_told():
    """Exit 2."""

    class Model:
        def activation_checkpointing_enable(self, options):
            raise ValueError("Model does not support activation checkpointing.")

    with pytest.raises(UsageError, match="--activation-checkpointing full: Model does not support it in transformers"):
        checkpoint_blocks(Model(), "full")

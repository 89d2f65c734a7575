"""Attention of one document after the other is that of masked rows, and no memory grows with a row's length squared."""

import pytest
import torch
from test_attention import VOCABULARY_SIZE, make_causal_lm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from leia_beam.errors import MissingResource
from leia_train import segment_attention
from leia_train.attention import check_isolation, packed_logits
from leia_train.segment_attention import SEGMENTED

LENGTHS = ((40, 1, 7), (24, 24), (48,), (16, 16, 16))
"""Of the documents of four rows."""


def rows():
    """Ids and positions (4, 48)."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY_SIZE, (len(LENGTHS), 48), generator=generator)
    return ids, torch.stack([torch.cat([torch.arange(size) for size in row]) for row in LENGTHS])


def logits_and_gradients(model, implementation, ids, positions):
    """Of packed rows."""
    model.set_attn_implementation(implementation)
    model.zero_grad()
    logits = packed_logits(model, ids, positions)
    logits.square().mean().backward()
    return logits.detach(), [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {}),
        ("qwen3", {"head_dim": 8}),
        ("mistral", {"sliding_window": 8}),
        ("gemma3_text", {"head_dim": 8, "sliding_window": 8}),
        ("gpt_neox", {}),
        ("gpt2", {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
        ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2}),
    ],
)
@pytest.mark.parametrize("stretch", [1024, 3])
def test_logits_and_gradients_are_those_of_masks(family, options, stretch, monkeypatch):
    """Windows, heads that share keys, documents of one token; stretches of three queries."""
    monkeypatch.setattr(segment_attention, "_STRETCH", stretch)
    model = make_causal_lm(family, **options)
    expected = logits_and_gradients(model, "sdpa", *rows())
    found = logits_and_gradients(model, SEGMENTED, *rows())
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    assert check_isolation(model, VOCABULARY_SIZE) < 1e-4


def test_documents_of_equal_length_are_one_call(monkeypatch):
    """Such as rows in which documents see each other."""
    calls = []
    kernel = segment_attention.scaled_dot_product_attention
    monkeypatch.setattr(
        segment_attention,
        "scaled_dot_product_attention",
        lambda *parts, **options: calls.append(parts[0].shape[0]) or kernel(*parts, **options),
    )
    model = make_causal_lm("llama", num_hidden_layers=1)
    ids, positions = rows()
    found = logits_and_gradients(model, SEGMENTED, ids, torch.arange(48).expand(4, 48))
    assert calls == [4]
    torch.testing.assert_close(found[0], model(input_ids=ids, use_cache=False).logits, rtol=1e-4, atol=1e-5)
    calls.clear()
    logits_and_gradients(model, SEGMENTED, ids, positions)
    assert calls == [1] * sum(map(len, LENGTHS))


class _Largest(TorchDispatchMode):
    """The most numbers of a tensor that was made."""

    numbers = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


@pytest.mark.parametrize("window", [None, 64])
def test_no_tensor_is_as_large_as_a_mask_of_a_row(window):
    """In one long document and in many; with transformers' sdpa there is one."""
    length = 4096
    model = make_causal_lm("mistral", sliding_window=window, num_hidden_layers=1)
    ids = torch.zeros((1, length), dtype=torch.int64)
    for positions in (torch.arange(length)[None], torch.arange(length // 2).repeat(2)[None]):
        for implementation, many in ((SEGMENTED, False), ("sdpa", True)):
            model.set_attn_implementation(implementation)
            with torch.no_grad(), _Largest() as largest:
                packed_logits(model, ids, positions)
            if many and (window or positions[0, -1] < length - 1):
                assert largest.numbers >= length**2
            elif not many:
                assert largest.numbers < length**2 / 8


@pytest.mark.parametrize("options", [{"softcap": 30.0}, {"s_aux": torch.zeros(2)}])
def test_what_sdpa_cannot_is_refused(options):
    """Exit 5, or the next kernel."""
    part = torch.zeros(1, 2, 5, 8)
    with pytest.raises(MissingResource, match="caps, sinks or biases its attention"):
        segment_attention.segment_attention(torch.nn.Identity(), part, part, part, None, **options)
    with pytest.raises(MissingResource, match="makes a mask of its own"):
        segment_attention.segment_attention(torch.nn.Identity(), part, part, part, torch.ones(1, 1, 5, 5))


def test_a_model_that_does_not_hand_the_boundaries_on_gets_a_mask():
    """The probe finds it out."""
    model = make_causal_lm("stablelm")
    model.set_attn_implementation(SEGMENTED)
    with pytest.raises(MissingResource, match="documents of a packed row see each other"):
        check_isolation(model, VOCABULARY_SIZE)
    model.set_attn_implementation("sdpa")
    assert check_isolation(model, VOCABULARY_SIZE) < 1e-4

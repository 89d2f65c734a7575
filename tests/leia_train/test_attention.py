"""Documents of a packed row do not see each other, and a model in which they do is refused."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from leia_beam.errors import MissingResource
from leia_train import attention
from leia_train.attention import check_isolation, packed_logits

VOCABULARY_SIZE = 64


@pytest.fixture(params=["eager", "sdpa"])
def model(request):
    """A tiny Llama of two layers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation=request.param,
    )
    return LlamaForCausalLM(config)


def test_packed_logits_equal_separate_ones_in_a_batch(model):
    """Two rows cut at other places, in training mode."""
    generator = torch.Generator().manual_seed(0)
    rows = [[9, 1, 14], [5, 18, 1]]
    documents = [[torch.randint(VOCABULARY_SIZE, (size,), generator=generator) for size in row] for row in rows]
    input_ids = torch.stack([torch.cat(row) for row in documents])
    position_ids = torch.stack([torch.cat([torch.arange(len(part)) for part in row]) for row in documents])
    packed = packed_logits(model.train(), input_ids, position_ids)
    separate = [torch.cat([model(input_ids=part[None]).logits[0] for part in row]) for row in documents]
    torch.testing.assert_close(packed, torch.stack(separate), rtol=0, atol=1e-5)


def test_the_probe_passes_and_keeps_the_mode(model):
    """The error is rounding."""
    assert check_isolation(model.train(), VOCABULARY_SIZE) < 1e-4
    assert model.training


@pytest.mark.parametrize(
    "leak",
    [
        {"use_cache": True},
        {"use_cache": False, "attention_mask": "ones"},
        {"use_cache": False, "position_ids": None},
    ],
    ids=["cache", "mask of ones", "no positions"],
)
def test_the_probe_refuses_every_known_way_to_leak(model, monkeypatch, leak):
    """A cache, a mask of ones and positions that run through mix documents silently; the probe does not let them."""

    def leaking(model, input_ids, position_ids):
        options = {"position_ids": position_ids, **leak}
        if "attention_mask" in options:
            options["attention_mask"] = torch.ones_like(input_ids)
        return model(input_ids=input_ids, **options).logits

    monkeypatch.setattr(attention, "packed_logits", leaking)
    with pytest.raises(MissingResource, match="documents of a packed row see each other in LlamaForCausalLM"):
        check_isolation(model, VOCABULARY_SIZE)

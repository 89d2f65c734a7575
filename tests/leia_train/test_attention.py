"""Documents of a packed row do not see each other, and a model in which they do is refused."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from leia_beam.errors import MissingResource
from leia_train import attention
from leia_train.attention import check_isolation, packed_logits
from leia_train.loss import agrees

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


TINY = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def make_causal_lm(family, **options):
    """A tiny model with random weights of a family of transformers."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **TINY, **options))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("mistral", {"sliding_window": 8}),
        ("qwen3", {"head_dim": 8}),
        ("gemma2", {"head_dim": 8}),
        ("gemma3_text", {"head_dim": 8}),
        ("gpt2", {}),
        ("gpt_neox", {}),
        ("cohere2", {"logit_scale": 0.3}),
        ("granite", {"logits_scaling": 4.0}),
        ("qwen3_moe", {}),
    ],
)
def test_families_keep_documents_apart_and_their_losses_are_chunked(family, options):
    """Windows, caps, scales, tied embeddings, learnt positions, experts: the probe passes and no logits stand whole."""
    model = make_causal_lm(family, **options)
    assert check_isolation(model, VOCABULARY_SIZE) < 1e-4
    assert agrees(model, VOCABULARY_SIZE)


@pytest.mark.parametrize("family", ["opt", "bloom", "mamba"])
def test_families_that_cannot_keep_documents_apart_are_refused(family):
    """Their positions come from a mask, or they have a state: told, not trained."""
    with pytest.raises(MissingResource, match="documents of a packed row see each other"):
        check_isolation(make_causal_lm(family), VOCABULARY_SIZE)


def segment_kernel(query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """What torch's varlen kernel is to compute, on the CPU: causal attention inside each segment."""
    assert window_size == (-1, 0) and torch.equal(cu_q, cu_k) and cu_q.dtype == torch.int32
    lengths = (cu_q[1:] - cu_q[:-1]).tolist()
    assert max(lengths) == max_q == max_k and sum(lengths) == len(query)
    out = []
    for start, stop in zip(cu_q[:-1].tolist(), cu_q[1:].tolist()):
        parts = [part[start:stop].transpose(0, 1)[None] for part in (query, key, value)]
        made = torch.nn.functional.scaled_dot_product_attention(
            *parts, is_causal=True, scale=scale, enable_gqa=enable_gqa
        )
        out.append(made[0].transpose(0, 1))
    return torch.cat(out)


def test_varlen_attention_gets_the_boundaries_of_all_rows(model, monkeypatch):
    """Rows end to end: the logits are those of transformers' own masks, in a batch, and the probe passes."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(VOCABULARY_SIZE, (2, 9), generator=generator)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2], [0, 0, 1, 2, 3, 4, 5, 6, 0]])
    expected = packed_logits(model, input_ids, positions)
    monkeypatch.setattr(attention, "_varlen_kernel", lambda: segment_kernel)
    model.set_attn_implementation(attention.VARLEN)
    torch.testing.assert_close(packed_logits(model, input_ids, positions), expected, rtol=1e-4, atol=1e-5)
    assert check_isolation(model, VOCABULARY_SIZE) < 1e-4
    monkeypatch.setattr(attention, "_varlen_kernel", lambda: leaking_kernel)
    with pytest.raises(MissingResource, match="see each other"):
        check_isolation(model, VOCABULARY_SIZE)


def leaking_kernel(query, key, value, cu_q, *rest, scale, window_size, enable_gqa):
    """A kernel that forgets the boundaries."""
    parts = [part.transpose(0, 1)[None] for part in (query, key, value)]
    made = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True, scale=scale, enable_gqa=enable_gqa)
    return made[0].transpose(0, 1)


def test_kernels_that_need_a_gpu_are_refused_by_name_and_passed_over_by_auto():
    """Exit 5 with the reason; auto says why and takes sdpa."""
    cpu = torch.device("cpu")
    for name in ("flash", "varlen"):
        with pytest.raises(MissingResource, match=f"--attention {name}: it needs CUDA, this is cpu"):
            attention.candidates(name, cpu, "bfloat16")
    found = attention.candidates("auto", cpu, "bfloat16")
    assert [choice.name for choice in found] == ["sdpa", "eager"]
    assert found[0].reason == "no flash: it needs CUDA, this is cpu, no varlen: it needs CUDA, this is cpu"
    with pytest.raises(MissingResource, match="--attention flex: torch has no backward pass for it on the CPU"):
        attention.candidates("flex", cpu, "float32")
    assert [choice.name for choice in attention.candidates("eager", cpu, "float32")] == ["eager"]


def test_a_kernel_that_fails_its_probe_is_passed_over_with_a_line(model, monkeypatch):
    """The next one is taken; the last one's failure is the run's."""
    said = []
    probe = attention.check_isolation

    def check(tried, *rest):
        if attention.implementation_of(tried) == "sdpa":
            raise RuntimeError("no kernel image\nis available")
        return probe(tried, *rest)

    monkeypatch.setattr(attention, "check_isolation", check)
    choices = attention.candidates("auto", torch.device("cpu"), "float32")
    settings = (VOCABULARY_SIZE, attention.nullcontext, "float32", said.append)
    attention.settle(model, choices, *settings, isolated=True)
    assert said[0] == "attention: sdpa does not work here (no kernel image)"
    assert said[1].startswith("attention: eager (") and attention.implementation_of(model) == "eager"
    with pytest.raises(MissingResource, match="--attention sdpa: no kernel image"):
        attention.settle(model, choices[:1], *settings, isolated=True)


def test_the_limit_in_bfloat16_is_above_rounding_and_below_a_leak(model, monkeypatch):
    """Rounding of a model of two layers passes, and of one of eight; each way to leak does not."""

    def bfloat16():
        return torch.autocast("cpu", dtype=torch.bfloat16)

    deep = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=8,
            num_attention_heads=4,
            initializer_range=0.1,
        )
    )
    for tried in (model, deep):
        assert check_isolation(tried, VOCABULARY_SIZE, bfloat16, "bfloat16") < attention.MAX_RELATIVE_DIFFERENCE_BF16
    monkeypatch.setattr(
        attention, "packed_logits", lambda model, ids, positions: model(input_ids=ids, use_cache=False).logits
    )
    for tried in (model, deep):
        with pytest.raises(MissingResource, match="rounding in bfloat16"):
            check_isolation(tried, VOCABULARY_SIZE, bfloat16, "bfloat16")

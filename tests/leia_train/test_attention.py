"""Documents of a packed row do not see each other, and a model in which they do is refused."""

import inspect
from contextlib import nullcontext

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from leia_beam.errors import MissingResource
from leia_train import attention
from leia_train.attention import VarlenKernel, check_isolation, isolation_errors, packed_inputs, packed_logits
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
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**TINY, **options}))


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
    monkeypatch.setattr(attention, "VARLEN_KERNEL", VarlenKernel(call=segment_kernel, says_grouped=True))
    model.set_attn_implementation(attention.VARLEN)
    torch.testing.assert_close(packed_logits(model, input_ids, positions), expected, rtol=1e-4, atol=1e-5)
    assert check_isolation(model, VOCABULARY_SIZE) < 1e-4
    monkeypatch.setattr(attention, "VARLEN_KERNEL", VarlenKernel(call=leaking_kernel, says_grouped=True))
    with pytest.raises(MissingResource, match="see each other"):
        check_isolation(model, VOCABULARY_SIZE)


def test_varlen_attention_of_a_torch_that_takes_no_enable_gqa(model, monkeypatch):
    """torch 2.11's kernel shares keys among heads unasked."""

    def kernel(query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size):
        assert query.shape[1] == 2 * key.shape[1]
        return segment_kernel(
            query, key, value, cu_q, cu_k, max_q, max_k, scale=scale, window_size=window_size, enable_gqa=True
        )

    input_ids = torch.arange(18).view(2, 9) % VOCABULARY_SIZE
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2], [0, 0, 1, 2, 3, 4, 5, 6, 0]])
    expected = packed_logits(model, input_ids, positions)
    monkeypatch.setattr(attention, "VARLEN_KERNEL", VarlenKernel(call=kernel, says_grouped=False))
    model.set_attn_implementation(attention.VARLEN)
    torch.testing.assert_close(packed_logits(model, input_ids, positions), expected, rtol=1e-4, atol=1e-5)


def test_short_rows_are_filled_up_for_flex(model):
    """Its kernel for them is another one, and wrong on GPUs; here its forward pass alone runs."""
    input_ids = torch.arange(18).view(2, 9) % VOCABULARY_SIZE
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2], [0, 0, 1, 2, 3, 4, 5, 6, 0]])
    expected = packed_logits(model, input_ids, positions)
    model.set_attn_implementation("flex_attention")
    seen = []
    hook = model.model.embed_tokens.register_forward_hook(lambda module, given, made: seen.append(given[0].shape))
    with torch.no_grad():
        found = packed_logits(model, input_ids, positions)
    hook.remove()
    assert seen == [(2, 128)] and found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert check_isolation(model, VOCABULARY_SIZE) < 1e-4


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
    assert [choice.implementation for choice in found] == ["leia_sdpa", "sdpa", "eager"]
    assert [choice.name for choice in found] == ["sdpa", "sdpa", "eager"]
    assert found[0].reason == "no flash: it needs CUDA, this is cpu, no varlen: it needs CUDA, this is cpu"
    with pytest.raises(MissingResource, match="--attention flex: torch has no backward pass for it on the CPU"):
        attention.candidates("flex", cpu, "float32")
    assert [choice.name for choice in attention.candidates("eager", cpu, "float32")] == ["eager"]
    compiled = attention.candidates("auto", cpu, "float32", compiled=True)  # the documents of a batch are no shape
    assert [choice.implementation for choice in compiled] == ["sdpa", "eager"]
    asked = attention.candidates("sdpa", cpu, "float32")
    assert [choice.implementation for choice in asked] == ["leia_sdpa", "sdpa"]
    assert asked[1].reason == "asked for; with a mask of each pair of a row's tokens"


def test_a_kernel_that_fails_its_probe_is_passed_over_with_a_line(model, monkeypatch):
    """The next one is taken; the last one's failure is the run's."""
    said = []
    probe = attention.check_isolation

    def check(tried, *rest):
        if attention.implementation_of(tried).endswith("sdpa"):
            raise RuntimeError("no kernel image\nis available")
        return probe(tried, *rest)

    monkeypatch.setattr(attention, "check_isolation", check)
    choices = attention.candidates("auto", torch.device("cpu"), "float32")
    settings = (VOCABULARY_SIZE, attention.nullcontext, "float32", said.append)
    attention.settle(model, choices, *settings, isolated=True)
    assert said[0] == "attention: sdpa does not work here (no kernel image)"  # once, of its two ways
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
        error, leak = isolation_errors(tried, VOCABULARY_SIZE, bfloat16)
        assert error < attention.MAX_SHARE_OF_LEAK * leak / 3 and leak > 1
        assert check_isolation(tried, VOCABULARY_SIZE, bfloat16, "bfloat16") == error
    monkeypatch.setattr(
        attention, "packed_logits", lambda model, ids, positions: model(input_ids=ids, use_cache=False).logits
    )
    for tried in (model, deep):
        with pytest.raises(MissingResource, match="rounding in bfloat16"):
            check_isolation(tried, VOCABULARY_SIZE, bfloat16, "bfloat16")


def flash_varlen(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False,
    window_size=(-1, -1), softcap=0.0, deterministic=False,
):  # fmt: skip
    """What flash_attn_varlen_func of flash-attn 2 is to compute, with its parameters, on the CPU."""
    assert causal and window_size == (-1, -1) and dropout_p == 0.0 and softcap == 0.0
    return segment_kernel(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
        scale=softmax_scale, window_size=(-1, 0), enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip


def flash_dense(
    q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, deterministic=False
):
    """The same of flash_attn_func."""
    parts = [part.transpose(1, 2) for part in (q, k, v)]
    made = torch.nn.functional.scaled_dot_product_attention(
        *parts, is_causal=causal, scale=softmax_scale, enable_gqa=q.shape[2] != k.shape[2]
    )
    return made.transpose(1, 2)


@pytest.fixture
def flash_attn(monkeypatch):
    """transformers' own path to flash-attn, with kernels of its parameters in place of the package."""
    from transformers import PreTrainedModel, modeling_flash_attention_utils

    for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn"):
        monkeypatch.setattr(modeling_flash_attention_utils, name, None)
    kernels = (flash_dense, flash_varlen, None, None, None)
    monkeypatch.setattr(modeling_flash_attention_utils, "_lazy_imports", lambda *args, **options: kernels)
    monkeypatch.setattr(PreTrainedModel, "_check_and_adjust_attn_implementation", lambda model, name, **options: name)


@pytest.mark.parametrize("implementation", ["flash_attention_2", "flash_attention_3", "flash_attention_4"])
def test_flash_attention_gets_the_boundaries_of_all_rows_through_transformers(model, flash_attn, implementation):
    """No GPU ran this: the arguments that reach flash-attn, and that transformers makes no mask of its own."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(VOCABULARY_SIZE, (2, 9), generator=generator)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2], [0, 0, 1, 2, 3, 4, 5, 6, 0]])
    expected = packed_logits(model, input_ids, positions)
    model.set_attn_implementation(implementation)
    found = packed_logits(model, input_ids, positions)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.sum().backward()
    assert check_isolation(model, VOCABULARY_SIZE) < 1e-4


def test_torchs_varlen_attention_takes_what_it_is_given(monkeypatch):
    """The installed torch's own operator and its backward pass, on tensors without content; grouped heads, a window."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # it knows no autocast for such tensors
    from torch.nn.attention.varlen import varlen_attn

    assert VarlenKernel(call=varlen_attn, says_grouped=True) == attention.VARLEN_KERNEL
    names = list(inspect.signature(varlen_attn).parameters)
    assert names[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    shapes = [(2, heads, 12, 32) for heads in (8, 2, 2)]
    parts = [torch.empty(shape, device="meta", dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    offsets = torch.empty(6, device="meta", dtype=torch.int32)
    for window in (None, 8):
        made, _ = attention.varlen_attention(
            torch.nn.Identity(),
            *parts,
            None,
            scaling=0.2,
            sliding_window=window,
            cu_seq_lens_q=offsets,
            max_length_q=12,
        )
        assert made.shape == (2, 12, 8, 32) and made.dtype == torch.bfloat16
        made.sum().backward()
    assert [part.grad.shape for part in parts] == [torch.Size(shape) for shape in shapes]


def test_a_window_of_varlen_attention_is_transformers_own(monkeypatch):
    """W tokens with the current one: W - 1 to the left, none to the right."""
    seen = []

    def kernel(query, *rest, **options):
        seen.append(options)
        return query

    monkeypatch.setattr(attention, "VARLEN_KERNEL", VarlenKernel(call=kernel, says_grouped=True))
    part = torch.zeros(1, 2, 5, 8)
    attention.varlen_attention(torch.nn.Identity(), part, part, part, None, scaling=0.5, sliding_window=4)
    attention.varlen_attention(torch.nn.Identity(), part, part, part, None)
    assert [options["window_size"] for options in seen] == [(3, 0), (-1, 0)]
    assert [options["scale"] for options in seen] == [0.5, None]
    with pytest.raises(MissingResource, match="caps or sinks"):
        attention.varlen_attention(torch.nn.Identity(), part, part, part, None, softcap=30.0)


def test_packed_inputs_have_neither_mask_nor_cache():
    """Rows as they are for kernels that read positions; end to end with their boundaries for those that take them."""
    ids = torch.arange(8).view(2, 4)
    positions = torch.tensor([[0, 1, 0, 1], [0, 1, 2, 0]])
    plain = packed_inputs("sdpa", ids, positions)
    assert set(plain) == {"input_ids", "position_ids", "use_cache"} and plain["use_cache"] is False
    flat = packed_inputs("flash_attention_2", ids, positions)
    assert flat["cu_seq_lens_q"].tolist() == flat["cu_seq_lens_k"].tolist() == [0, 2, 4, 7, 8]
    assert flat["max_length_q"] == flat["max_length_k"] == 3 and flat["use_cache"] is False
    assert flat["input_ids"].shape == flat["position_ids"].shape == (1, 8) and "attention_mask" not in flat


@pytest.mark.parametrize(
    ("capability", "installed", "expected"),
    [
        ((9, 0), {2, 3, 4}, "flash_attention_3"),
        ((9, 0), {2, 4}, "flash_attention_2"),
        ((10, 0), {4}, "flash_attention_4"),
        ((8, 6), {3, 4}, None),
        ((8, 0), {2, 3}, "flash_attention_2"),
        ((9, 0), set(), None),
    ],
)
def test_the_flash_package_that_fits_the_gpu_is_taken(monkeypatch, capability, installed, expected):
    """2 or newer; on a GPU that none is made for, torch's own kernel comes first."""
    from transformers.utils import import_utils

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    for version in (2, 3, 4):
        monkeypatch.setattr(import_utils, f"is_flash_attn_{version}_available", lambda here=version: here in installed)
    found = attention.candidates("auto", torch.device("cuda"), "bfloat16")
    names = ["varlen", "sdpa", "sdpa", "eager"]
    assert [choice.name for choice in found] == (["flash", *names] if expected else names)
    if expected:
        assert found[0].implementation == expected
    else:
        assert "flash-attn is not installed for this GPU" in found[1].reason


def test_the_loss_is_compared_in_the_types_that_it_is_trained_in(monkeypatch):
    """A kernel that refuses float32, as those of GPUs do, is called with bfloat16 alone."""

    def strict(query, *rest, **options):
        if query.dtype != torch.bfloat16:
            raise RuntimeError("only bfloat16")
        return segment_kernel(query, *rest, **options)

    made = make_causal_lm("llama")
    monkeypatch.setattr(attention, "VARLEN_KERNEL", VarlenKernel(call=strict, says_grouped=True))
    made.set_attn_implementation(attention.VARLEN)
    assert agrees(made, VOCABULARY_SIZE, lambda: torch.autocast("cpu", dtype=torch.bfloat16), "bfloat16")
    with pytest.raises(RuntimeError, match="only bfloat16"):
        agrees(made, VOCABULARY_SIZE, nullcontext)
    odd = make_causal_lm("llama")
    forward = odd.lm_head.forward
    odd.lm_head.forward = lambda states: forward(states) * (1.5 if states.ndim == 3 else 1)
    assert not agrees(odd, VOCABULARY_SIZE, lambda: torch.autocast("cpu", dtype=torch.bfloat16), "bfloat16")

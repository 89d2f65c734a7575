"""On a GPU: each attention kernel keeps documents apart, forward and backward, and whole runs train, stop and go on.

Skipped where torch sees no GPU, as on the machines that tests run on by default; benchmarks/README.md says when and where
they last ran.
"""

import json
from contextlib import nullcontext

import pytest
import torch
from test_attention import VOCABULARY_SIZE, make_causal_lm

from leia_beam.errors import MissingResource
from leia_train import attention, loss
from leia_train.activations import ActivationOffload, checkpoint_blocks, hidden_size
from leia_train.attention import candidates, check_isolation, packed_logits
from leia_train.cli import main
from leia_train.loss import TokenLoss, agrees

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")

CUDA = torch.device("cuda")
LENGTHS = ((200, 3, 1, 52), (17, 239), (256,))
"""Of the documents of three rows."""
FAMILIES = {
    "llama": {"hidden_size": 128, "num_attention_heads": 8},
    "qwen3": {"hidden_size": 128, "head_dim": 32},
    "mistral": {"hidden_size": 128, "sliding_window": 24},
    "qwen3_moe": {"hidden_size": 128, "head_dim": 32},
}


def bfloat16():
    """The context in which a run of --dtype bfloat16 computes."""
    return torch.autocast("cuda", dtype=torch.bfloat16)


def packed_rows():
    """Ids and positions (3, 256) of random documents."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY_SIZE, (len(LENGTHS), 256), generator=generator)
    positions = torch.stack([torch.cat([torch.arange(size) for size in row]) for row in LENGTHS])
    return ids.to(CUDA), positions.to(CUDA)


def logits_of_each_alone(model, ids):
    """Logits (3, 256, V) of the documents, each in a call of its own."""
    rows = []
    for row, lengths in zip(ids, LENGTHS):
        parts = torch.split(row, list(lengths))
        rows.append(torch.cat([model(input_ids=part[None], use_cache=False).logits[0] for part in parts]))
    return torch.stack(rows)


def kernels(dtype):
    """Those that can be had here."""
    found = [choice.name for choice in candidates("auto", CUDA, dtype)]
    return [*dict.fromkeys(found), "flex", "masked sdpa"]


def gradients(model, losses):
    """All gradients as one vector in float32."""
    model.zero_grad()
    losses.backward()
    return torch.cat([weight.grad.float().flatten() for weight in model.parameters() if weight.grad is not None])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kernel", ["flash", "varlen", "flex", "sdpa", "masked sdpa", "eager"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_packed_documents_are_those_alone_forward_and_backward(family, kernel, dtype):
    """Logits and gradients of packed rows are as near to those of separate documents in float32 as the type lets them be."""
    if kernel not in kernels(dtype):
        pytest.skip(f"{kernel} cannot be had here in {dtype}")
    model = make_causal_lm(family, initializer_range=0.1, **FAMILIES[family]).to(CUDA)
    context = bfloat16 if dtype == "bfloat16" else nullcontext
    ids, positions = packed_rows()

    def logits_and_gradient(compute, context):
        with context():
            logits = compute()
        return logits.detach().float(), gradients(model, logits.float().square().mean())

    model.set_attn_implementation("eager")
    exact = logits_and_gradient(lambda: logits_of_each_alone(model, ids), nullcontext)
    rounded = logits_and_gradient(lambda: logits_of_each_alone(model, ids), context)
    choice = candidates(kernel.removeprefix("masked "), CUDA, dtype, compiled=kernel.startswith("masked"))[0]
    model.set_attn_implementation(choice.implementation)
    packed = logits_and_gradient(lambda: packed_logits(model, ids, positions), context)
    with torch.no_grad(), context():
        leak = model(input_ids=ids, use_cache=False).logits.float()
    leaked = distance(leak, exact[0])
    for what, true, near, found in zip(("logits", "gradient"), exact, rounded, packed):
        rounding, error = distance(near, true), distance(found, true)
        print(f"{family} {kernel} {dtype}: {what} off by {error:.1e}, rounding {rounding:.1e}, a leak {leaked:.1e}")
        assert error < 1.5 * rounding + 2e-3  # float32 products of a GPU may be rounded to 10 bits
        assert leaked > 10 * error  # else nothing was shown
    check_isolation(model, VOCABULARY_SIZE, context, dtype)


def distance(found, true):
    """The norm of the difference by that of what is true."""
    return float((found - true).norm() / true.norm())


@pytest.mark.parametrize("kernel", ["varlen", "sdpa"])
def test_chunked_losses_and_gradients_are_those_of_whole_logits(kernel, monkeypatch):
    """In bfloat16, with chunks of 64 tokens."""
    if kernel not in kernels("bfloat16"):
        pytest.skip(f"{kernel} cannot be had here")
    model = make_causal_lm("llama", **FAMILIES["llama"]).to(CUDA)
    choice = candidates(kernel, CUDA, "bfloat16")[0]
    model.set_attn_implementation(choice.implementation)
    assert agrees(model, VOCABULARY_SIZE, bfloat16, "bfloat16")
    ids, positions = packed_rows()
    labels = torch.where(positions == 0, loss.IGNORED, ids)
    with bfloat16():
        chunked = TokenLoss(model, chunk_tokens=64)(ids, positions, labels)
    gradient = gradients(model, chunked.sum())
    with bfloat16():
        whole = TokenLoss(model, chunked=False)(ids, positions, labels)
    expected = gradients(model, whole.sum())
    assert torch.equal(chunked == 0, labels == loss.IGNORED)
    torch.testing.assert_close(chunked, whole, rtol=2e-2, atol=2e-2)
    assert (gradient - expected).norm() / expected.norm() < 2e-2


@pytest.fixture
def on_gpu(arguments, fresh_accelerator):
    """A run of the tests' tiny model on the GPU; its metrics by step."""

    def run(output, *more):
        fresh_accelerator()
        assert main(arguments("--device", "auto", "--tiny-hidden-size", 32, *more, output=output)) == 0
        lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
        return [record for record in lines if "loss" in record and "final" not in record]

    return run


def test_a_run_in_float32_has_the_losses_of_one_on_the_cpu(on_gpu, arguments, fresh_accelerator, tmp_path):
    """Step by step."""
    there = on_gpu(tmp_path / "gpu", "--steps", 6)
    fresh_accelerator()
    assert main(arguments("--tiny-hidden-size", 32, "--steps", 6, output=tmp_path / "cpu")) == 0
    lines = map(json.loads, (tmp_path / "cpu/metrics.jsonl").read_text().splitlines())
    here = [record for record in lines if "loss" in record and "final" not in record]
    assert [record["step"] for record in there] == [record["step"] for record in here] == list(range(1, 7))
    for one, other in zip(there, here):
        assert one["loss"] == pytest.approx(other["loss"], rel=2e-3)
        assert one["label_tokens"] == other["label_tokens"]


@pytest.mark.parametrize(
    "options",
    [
        ("--dtype", "bfloat16"),
        ("--dtype", "bfloat16", "--weights", "bfloat16"),
        ("--dtype", "bfloat16", "--weights", "bfloat16", "--rounding", "kahan"),
        ("--dtype", "bfloat16", "--activation-checkpointing", "full"),
        ("--dtype", "bfloat16", "--activation-checkpointing", "selective"),
        ("--dtype", "bfloat16", "--activation-checkpointing", "full", "--activation-offload"),
        ("--dtype", "bfloat16", "--activation-checkpointing", "full", "--activation-offload", "--compile"),
        ("--dtype", "bfloat16", "--compile"),
        ("--dtype", "bfloat16", "--attention", "flex"),
        ("--dtype", "float32"),
    ],
    ids=" ".join,
)
def test_runs_learn_and_say_which_kernel_they_use(on_gpu, tmp_path, capsys, options):
    """The loss falls; the markers move; the kernel is the fastest that there is."""
    records = on_gpu(tmp_path / "run", "--steps", 12, *options)
    said = capsys.readouterr().err
    best = "flex" if "flex" in options else candidates("auto", CUDA, options[1])[0].name
    assert f"attention: {best} (" in said and "do not see each other" in said
    assert "the markers moved by at most" in said
    assert records[-1]["loss"] < records[0]["loss"] - 0.2


@pytest.mark.parametrize(
    ("way", "offload"), [("selective", False), ("full", False), ("selective", True), ("full", True)]
)
@pytest.mark.parametrize("kernel", ["flash", "varlen", "sdpa"])
def test_what_is_kept_changes_nothing_but_memory(kernel, way, offload):
    """Losses and gradients in bfloat16, and the peak of the memory of two steps of a model whose blocks' inputs are large."""
    if kernel not in kernels("bfloat16"):
        pytest.skip(f"{kernel} cannot be had here")
    sizes = {**FAMILIES["llama"], "num_hidden_layers": 8, "hidden_size": 512}
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY_SIZE, (4, 2048), generator=generator).to(CUDA)
    positions = torch.arange(512, device=CUDA).repeat(4, 4)

    def two_steps(way, offload):
        model = make_causal_lm("llama", **sizes).to(CUDA).train()
        model.set_attn_implementation(candidates(kernel, CUDA, "bfloat16")[0].implementation)
        checkpoint_blocks(model, way)
        token_loss = TokenLoss(model)
        token_loss.offload = ActivationOffload(hidden_size(model)) if offload else None
        for step in range(2):
            if step:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            with bfloat16():
                losses = token_loss(ids, positions, ids)
            gradient = gradients(model, losses.sum())
        return losses.detach(), gradient, torch.cuda.max_memory_allocated()

    expected, found = two_steps("none", False), two_steps(way, offload)
    off, share = distance(found[1], expected[1]), found[2] / expected[2]
    print(f"{kernel} {way} {offload}: gradient off by {off:.1e}, {share:.2f} of the peak")
    torch.testing.assert_close(found[0], expected[0], rtol=1e-3, atol=1e-3)
    assert off < 1e-2  # sums of gradients are in no fixed order there
    assert share < 0.8
    if offload:
        assert found[2] < two_steps(way, False)[2]


def test_a_resumed_run_is_the_undisturbed_one(on_gpu, tmp_path):
    """To the last bit where the kernels are deterministic (float32, eager), nearly in bfloat16."""
    from safetensors.torch import load_file

    for options, limit in (
        (("--attention", "eager"), 0.0),
        (("--dtype", "bfloat16", "--weights", "bfloat16"), 2e-2),
    ):
        name = options[1]
        whole, parted = tmp_path / f"whole-{name}", tmp_path / f"parted-{name}"
        on_gpu(whole, "--steps", 6, "--save-every", 3, *options)
        on_gpu(parted, "--steps", 6, "--save-every", 3, "--keep", 5, *options)
        for path in (parted / "checkpoint-final").iterdir():
            path.unlink()
        (parted / "checkpoint-final").rmdir()
        (parted / "_status.json").unlink(missing_ok=True)
        on_gpu(parted, "--steps", 6, "--save-every", 3, "--keep", 5, *options)
        one, other = (load_file(run / "checkpoint-final/model.safetensors") for run in (whole, parted))
        furthest = max(float((one[key].float() - other[key].float()).abs().max()) for key in one)
        print(f"{name}: weights differ by at most {furthest:.1e}")
        assert furthest <= limit


def test_memory_that_is_out_is_one_line_and_exit_5(arguments, tmp_path, capsys):
    """What to lower is said."""
    torch.cuda.set_per_process_memory_fraction(0.0005)
    try:
        big = arguments(
            *("--device", "auto", "--tiny-hidden-size", 512, "--tiny-layers", 8, "--batch", 16, "--micro-batch", 16),
            *("--max-length", 64),
            output=tmp_path / "run",
        )
        assert main(big) == MissingResource.exit_code
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert "out of memory" in capsys.readouterr().err


def test_the_kernel_of_torch_is_what_auto_takes_here_without_flash_attn():
    """Unless flash-attn is installed, or torch is older than 2.11."""
    names = [choice.name for choice in candidates("auto", CUDA, "bfloat16")]
    flash, varlen = attention.flash_hindrance(CUDA, "bfloat16"), attention.varlen_hindrance(CUDA, "bfloat16")
    print(f"flash: {flash}; varlen: {varlen}")
    assert names == [name for name, why in (("flash", flash), ("varlen", varlen)) if not why] + [
        "sdpa",
        "sdpa",
        "eager",
    ]

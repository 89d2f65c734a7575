"""Rows of 32,768 tokens: the losses and gradients of the same documents in short rows, whole runs, and models with positions."""

import pytest
import torch
from test_attention import VOCABULARY_SIZE, make_causal_lm
from transformers import AutoConfig

from leia_beam.errors import UsageError
from leia_train import preparing
from leia_train.activations import ActivationOffload, checkpoint_blocks, hidden_size
from leia_train.attention import candidates, pair_bytes
from leia_train.cli import main
from leia_train.loss import TokenLoss
from leia_train.metrics import read_metrics
from leia_train.model import positions_of
from leia_train.packing import IGNORED

LONG, SHORT = 32_768, 2048
LENGTHS = (1000, 24, 1024)
"""Of the documents of a short row, of which sixteen are a long one."""


def losses_and_gradients(rows):
    """Of the same documents in so many rows, with all that saves memory."""
    model = make_causal_lm("llama", max_position_embeddings=LONG, hidden_size=16, intermediate_size=32).train()
    model.set_attn_implementation(candidates("auto", torch.device("cpu"), "float32")[0].implementation)
    checkpoint_blocks(model, "full")
    loss = TokenLoss(model, chunk_tokens=4096)
    loss.offload = ActivationOffload(hidden_size(model))
    ids = torch.randint(VOCABULARY_SIZE, (LONG,), generator=torch.Generator().manual_seed(0)).view(rows, -1)
    positions = torch.cat([torch.arange(size) for size in LENGTHS]).repeat(LONG // SHORT).view(rows, -1)
    found = loss(ids, positions, torch.where(positions == 0, IGNORED, ids))
    found.sum().backward()
    return found.detach().flatten(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


def test_a_row_of_32k_has_the_losses_and_gradients_of_short_rows():
    """No document is cut in either."""
    long, short = losses_and_gradients(1), losses_and_gradients(LONG // SHORT)
    torch.testing.assert_close(long[0], short[0], rtol=1e-5, atol=1e-5)
    assert int((long[0] == 0).sum()) == 3 * LONG // SHORT
    assert (long[1] - short[1]).norm() < 1e-5 * short[1].norm()


@pytest.mark.parametrize("more", [(), ("--activation-checkpointing", "full", "--activation-offload")], ids=["", "full"])
def test_a_run_trains_on_rows_of_32k(arguments, tmp_path, capsys, more):
    """Steps, evaluation, two sources; no mask of a row's pairs is spoken of."""
    text = tmp_path / "english.txt"
    text.write_text("Tokyo is the capital of Japan. It lies on a bay of the Pacific Ocean.\n\n" * 40)
    flags = ("--max-length", LONG, "--batch", 2, "--micro-batch", 1, "--steps", 2, "--mix", f"english={text}:50%")
    assert main(arguments(*flags, "--tiny-heads", 1, "--tiny-kv-heads", 1, *more)) == 0
    records = [record for record in read_metrics(tmp_path / "run") if "loss" in record and "final" not in record]
    assert [record["tokens"] for record in records[:2]] == [2 * LONG] * 2
    assert records[1]["loss"] < records[0]["loss"]
    assert "for each pair of a row's tokens" not in capsys.readouterr().err


def test_an_attention_with_memory_for_each_pair_says_so(arguments, capsys, monkeypatch):
    """A mask, and scores of each head."""
    llama = make_causal_lm("llama")
    assert pair_bytes("sdpa", 2, LONG, llama) == 2 << 30
    assert pair_bytes("eager", 1, LONG, llama) == 5 * 4 << 30
    assert pair_bytes("leia_sdpa", 4, LONG, llama) == pair_bytes("leia_varlen", 4, LONG, llama) == 0
    monkeypatch.setattr(preparing, "_MANY_PAIRS_BYTES", 1000)
    assert main(arguments("--attention", "eager", "--steps", 1, "--warmup", 0)) == 0
    assert "warning: this attention has memory for each pair of a row's tokens, 0.0 GiB at --max-length 24" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("kind", "options", "positions"),
    [
        ("llama", {"max_position_embeddings": 4096}, 4096),
        ("llama", {"max_position_embeddings": 131_072, "rope_parameters": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 500_000.0,
            "original_max_position_embeddings": 8192,
        }}, 131_072),
        ("qwen2", {"max_position_embeddings": 32_768, "rope_parameters": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768, "rope_theta": 1e6,
        }}, 131_072),
        ("llama", {"max_position_embeddings": 4096, "rope_parameters": {
            "rope_type": "dynamic", "factor": 8.0, "rope_theta": 1e4,
        }}, 32_768),
        ("llama", {"max_position_embeddings": 4096, "rope_parameters": {
            "rope_type": "linear", "factor": 8.0, "rope_theta": 1e4,
        }}, 4096),
        ("gpt2", {"n_positions": 1024}, 1024),
        ("bloom", {}, None),
    ],
)  # fmt: skip
def test_positions_reach_as_far_as_they_are_scaled(kind, options, positions):
    """For linear scaling the configuration itself must name the new length: it does not say whether it does."""
    assert positions_of(AutoConfig.for_model(kind, **options)) == positions


def test_a_model_with_fewer_positions_is_refused_with_what_can_be_done(tmp_path, tokenizer_folder, arguments, capsys):
    """Exit 2."""
    import shutil

    folder = tmp_path / "model"
    make_causal_lm("llama", vocab_size=340, max_position_embeddings=4096).save_pretrained(folder)
    shutil.copy(tokenizer_folder / "tokenizer.json", folder)
    assert main(arguments("--model", folder, "--max-length", LONG)) == UsageError.exit_code
    said = capsys.readouterr().err
    assert "has 4,096 positions; give at most that, or a model whose config.json scales its rotary positions" in said

"""Adapters and the markers' rows are trained, nothing else; PEFT reads them; what is merged computes the same."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from interrupting import Killed, kill_at, steps, weights
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, inject_adapter_in_model
from safetensors.torch import load_file
from test_processes import ROOT, environment, same_training
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from leia_beam.errors import DamagedInput, MissingResource, OtherBuild, UsageError
from leia_eval.checkpoints import identify_model
from leia_train import lora
from leia_train.cli import main
from leia_train.config import DataConfig, ModelConfig, OptimizationConfig, RunConfig, TrainConfig
from leia_train.lora import add_adapter, describe, fingerprint, trained_weights
from leia_train.lora_files import Base, is_adapter, products, put_adapter, write_merged
from leia_train.loss import TokenLoss
from leia_train.memory import memory_bytes
from leia_train.metrics import read_metrics
from leia_train.speed import flops_per_token
from leia_train.token_rows import use_rows_alone

RESERVED = ("Ā", "ā")
"""Two of the tokenizer's bytes that no text of the shards has."""
KINDS = [(tied, markers) for tied in (True, False) for markers in ("special", "reserved")]
FLAGS = ("--lora", 4, "--activation-checkpointing", "full", "--activation-offload")


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{'tied' if kind[0] else 'untied'}-{kind[1]}")
def trained(request, tmp_path_factory, tokenizer_folder, shards):
    """The folder of a model, a run that trained adapters on it, its markers' ids, and whether its embeddings are tied."""
    tied, markers = request.param
    folder = tmp_path_factory.mktemp("lora")
    base = make_base(folder / "base", tokenizer_folder, tied)
    flags = ["train", "--shards", shards, "--output", folder / "run", "--model", base, "--device", "cpu", "--quiet"]
    flags += ["--max-length", 24, "--batch", 4, "--steps", 5, "--learning-rate", 1e-2, "--save-every", 2, *FLAGS]
    flags += [
        "--markers",
        markers,
        *(("--marker-text", *RESERVED) if markers == "reserved" else ()),
        "--tracker",
        "none",
    ]
    assert main([str(flag) for flag in flags]) == 0
    ids = json.loads((folder / "run/checkpoint-final/leia_markers.json").read_text())["marker_ids"]
    return base, folder / "run", ids, tied


def make_base(folder, tokenizer_folder, tied, seed=3):
    """A small Llama with the shards' tokenizer."""
    make_llama(tied, seed).save_pretrained(folder)
    shutil.copy(tokenizer_folder / "tokenizer.json", folder)
    return folder


def make_llama(tied, seed=3, rows=330):
    """One layer; the output embeddings are the input's or others."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=rows, num_key_value_heads=1, tie_word_embeddings=tied, initializer_range=0.2, **sizes)
    )


def logits_of(model):
    """Of a few tokens, markers among them."""
    ids = torch.tensor([[0, 5, 330 % len(model.get_input_embeddings().weight), 17, 256, 257, 9]])
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def test_only_adapters_and_the_rows_of_the_markers_change(trained):
    """All else of the whole model is the base bit for bit; a checkpoint to resume from has nothing of the base."""
    base, run, ids, tied = trained
    before, after = (load_file(folder / "model.safetensors") for folder in (base, run / "checkpoint-final"))
    assert set(before) == set(after) and ("lm_head.weight" in after) == (not tied)
    for name, weight in after.items():
        if "embed_tokens" in name or "lm_head" in name:
            others = [row for row in range(len(before[name])) if row not in ids]
            assert torch.equal(weight[others], before[name][others]), name
            mean = before[name][others].double().mean(dim=0).float()
            assert all(not torch.allclose(weight[row], mean, atol=1e-3) for row in ids), name
        else:
            assert torch.equal(weight, before[name]) == ("proj" not in name), name
    kept = load_file(run / "checkpoint-00000004/adapter_model.safetensors")
    assert len(kept) == 2 * 7 + 1 + (not tied) and {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert max(tensor.numel() for tensor in kept.values()) == 4 * 32
    assert not (run / "checkpoint-00000004/config.json").exists()


def test_peft_loads_the_adapter_and_computes_what_the_whole_model_does(trained):
    """In both ways of its README; PEFT's own merge gives the same weights."""
    base, run, ids, _ = trained
    final = AutoModelForCausalLM.from_pretrained(run / "checkpoint-final")
    expected, adapter = logits_of(final), run / "checkpoint-final/adapter"
    alone = AutoModelForCausalLM.from_pretrained(base)
    rows = Base.noted(adapter).rows
    assert rows == max(330, *(token + 1 for token in ids))
    if alone.get_input_embeddings().num_embeddings < rows:
        alone.resize_token_embeddings(rows, mean_resizing=False)
    found = PeftModel.from_pretrained(alone, adapter)
    torch.testing.assert_close(logits_of(found), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        logits_of(AutoPeftModelForCausalLM.from_pretrained(adapter)), expected, rtol=0, atol=1e-5
    )
    for name, weight in found.merge_and_unload().state_dict().items():
        torch.testing.assert_close(weight, final.state_dict()[name], rtol=0, atol=1e-6, msg=name)
    assert (
        AutoTokenizer.from_pretrained(adapter).get_vocab()
        == AutoTokenizer.from_pretrained(run / "checkpoint-final").get_vocab()
    )


def test_a_checkpoint_is_exported_whole_and_as_an_adapter(trained, tmp_path, capsys):
    """The last one with a step more than the exported one; in bfloat16 with its cosine; the adapter with what it needs."""
    base, run, _, _ = trained
    step = run / "checkpoint-00000004"
    assert main(["export", str(step), "--output", str(tmp_path / "whole")]) == 0
    expected = logits_of(AutoPeftModelForCausalLM.from_pretrained(step))
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype="auto")
    torch.testing.assert_close(logits_of(found), expected, rtol=0, atol=1e-5)
    assert found.dtype == torch.float32
    said = {}
    for name, source in (("step", step), ("final", run)):
        capsys.readouterr()
        assert main(["export", str(source), "--output", str(tmp_path / name), "--dtype", "bfloat16"]) == 0
        said[name] = float(re.search(r"has a cosine of (\d\.\d+)", capsys.readouterr().err)[1])
        assert AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype="auto").dtype == torch.bfloat16
    assert said["step"] == pytest.approx(said["final"], abs=0.01) and said["step"] > 0.9
    assert (
        main(["export", str(run), "--output", str(tmp_path / "adapter"), "--form", "adapter", "--dtype", "float16"])
        == 0
    )
    rows = Base.noted(step).rows
    said = capsys.readouterr().err
    assert f"the adapter is for {base} with {rows} rows of embeddings" in said
    assert "in float16 what the adapter adds has a cosine of 1.0000 with what was learnt" in said
    assert f"must have {rows} rows" in (tmp_path / "adapter/README.md").read_text()
    made = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    final = AutoModelForCausalLM.from_pretrained(run / "checkpoint-final")
    torch.testing.assert_close(logits_of(made), logits_of(final), rtol=0, atol=1e-2)
    kinds = {tensor.dtype for tensor in load_file(tmp_path / "adapter/adapter_model.safetensors").values()}
    assert kinds == {torch.float16}


def test_what_a_type_takes_of_an_adapter_is_of_its_products(trained):
    """As the layers' own sums have it."""
    base, run, _, _ = trained
    final = load_file(run / "checkpoint-final/model.safetensors")
    before = load_file(base / "model.safetensors")
    learnt = {name: final[name] - weight for name, weight in before.items() if "proj" in name}
    adapter = run / "checkpoint-final/adapter"
    pairs = list(products(adapter, torch.bfloat16))
    assert len(pairs) == 7
    expected = sorted(float(update.norm()) for update in learnt.values())
    assert sorted(float(true.norm()) * 2 for _, true in pairs) == pytest.approx(expected, rel=1e-3)
    assert all(0 < float((kept - true).norm()) < 0.02 * float(true.norm()) for kept, true in pairs)


def test_an_adapter_is_exported_without_its_run_and_with_its_own_base_alone(
    trained, tmp_path, tokenizer_folder, capsys
):
    """What it notes is found; another model is refused, given or found (exit 6)."""
    _, run, _, tied = trained
    copy = shutil.copytree(run / "checkpoint-00000004", tmp_path / "alone/checkpoint")
    assert main(["export", str(copy), "--output", str(tmp_path / "whole")]) == 0
    other = make_base(tmp_path / "other", tokenizer_folder, tied, seed=4)
    for source in (copy, run / "checkpoint-00000004"):
        assert main(["export", str(source), "--base", str(other), "--output", str(tmp_path / "x")]) == 6
        assert "with other weights" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_a_run_says_what_is_trained_how_much_moved_and_what_on(trained):
    """The share is of the weights that are trained; the base's fingerprint is in the run's description."""
    _, run, _, _ = trained
    moved = [record["moved_share"] for record in read_metrics(run) if record.get("moved_share") is not None]
    assert len(moved) == 3 and all(0.8 < share <= 1 for share in moved)
    described = json.loads((run / "_run.json").read_text())
    assert described["base"] == json.loads((run / "checkpoint-00000004/leia_base.json").read_text())
    assert described["identity"]["lora"] == 4 and "peft" in described["versions"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_rows_alone_compute_what_peft_does_with_whole_tables(tied, kind):
    """Losses and gradients, of embeddings that are scaled too; the chunked loss is the one of the model's own logits."""
    losses, gradients = {}, {}
    for ours in (False, True):
        model = make_llama(tied) if kind == "llama" else make_gemma(tied)
        names = ["model.embed_tokens", *([] if tied else ["lm_head"])]
        settings = LoraConfig(
            r=2, target_modules="all-linear", trainable_token_indices={name: [7, 3] for name in names}
        )
        torch.manual_seed(1)
        inject_adapter_in_model(settings, model)
        if ours:
            use_rows_alone(model)
        ids = torch.tensor([[3, 7, 1, 3, 9, 7, 7, 2]])
        for chunked in (True, False):
            loss = TokenLoss(model, chunk_tokens=3, chunked=chunked)(ids, torch.arange(8)[None], ids)
            model.zero_grad()
            loss.sum().backward()
            losses[ours, chunked] = loss.detach()
            gradients[ours, chunked] = {n: w.grad for n, w in model.named_parameters() if w.grad is not None}
    assert any("trainable_tokens_delta" in name for name in gradients[True, True])
    for key, found in gradients.items():
        torch.testing.assert_close(losses[key], losses[False, False])
        assert set(found) == set(gradients[False, False])
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, gradients[False, False][name], msg=f"{key} {name}")


def make_gemma(tied):
    """A small Gemma 3, which multiplies its embeddings."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(3)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    return Gemma3ForCausalLM(
        Gemma3TextConfig(vocab_size=40, num_key_value_heads=1, tie_word_embeddings=tied, pad_token_id=0, **sizes)
    )


def test_losses_fall(arguments, tmp_path, tokenizer_folder):
    """With adapters and the markers' rows alone."""
    base = make_base(tmp_path / "base", tokenizer_folder, tied=False)
    flags = ("--steps", 30, "--learning-rate", 2e-2, "--batch", 8, "--max-length", 48, "--save-every", 0, "--lora", 8)
    assert main(arguments("--model", base, *flags)) == 0
    losses = [record["loss"] for record in read_metrics(tmp_path / "run") if "loss" in record]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("flags", [(), ("--lora-dropout", 0.3, "--marker-learning-rate", 0.1)])
def test_a_killed_run_goes_on_bit_for_bit(arguments, tmp_path, monkeypatch, flags, tokenizer_folder):
    """Killed at any step; dropout is drawn again as it was."""
    base = make_base(tmp_path / "base", tokenizer_folder, tied=True)
    given = ("--model", base, "--lora", 4, *flags)
    whole = tmp_path / "whole"
    assert main(arguments(*given, output=whole)) == 0
    for killed_at in (1, 3):
        run = tmp_path / f"run-{killed_at}"
        with monkeypatch.context() as patch:
            kill_at(patch, killed_at)
            with pytest.raises(Killed):
                main(arguments(*given, output=run))
        assert main(arguments(*given, output=run)) == 0
        assert steps(run) == steps(whole) and weights(run) == weights(whole)
        last = "checkpoint-00000003/adapter_model.safetensors"
        assert (run / last).read_bytes() == (whole / last).read_bytes()


def test_a_run_goes_on_with_the_model_that_it_began_with_alone(arguments, tmp_path, tokenizer_folder, capsys):
    """A model that was replaced in its folder is refused (exit 6); one with its bytes elsewhere has another name (2)."""
    base = make_base(tmp_path / "base", tokenizer_folder, tied=False)
    flags = ("--model", base, "--lora", 4)
    assert main(arguments(*flags, "--steps", 4)) == 0
    for name in ("checkpoint-00000003", "checkpoint-final"):
        shutil.rmtree(tmp_path / "run" / name)
    make_llama(False, seed=4).save_pretrained(base)
    assert main(arguments(*flags)) == 6
    said = capsys.readouterr().err
    assert "was trained on" in said and "give the model that training began with" in said
    make_base(base, tokenizer_folder, tied=False)
    assert main(arguments(*flags)) == 0


@pytest.mark.parametrize("flags", [(), ("--share-optimizer",)])
def test_two_processes_train_as_one(arguments, tmp_path, flags):
    """The same losses, norms and weights within 1e-6."""
    given = ("--batch", 4, "--micro-batch", 2, "--steps", 4, "--lora", 4, "--lora-dropout", 0.2)
    for name, more in (("one", ()), ("two", ("--nproc", 2, *flags))):
        command = [sys.executable, "-m", "leia_train", *arguments(*given, *more, output=tmp_path / name)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, cwd=ROOT, timeout=900)
        assert done.returncode == 0, done.stderr[-2000:]
    same_training(tmp_path / "one", tmp_path / "two")


def test_a_frozen_bfloat16_model_has_float32_adapters(arguments, tmp_path, tokenizer_folder, fresh_accelerator):
    """Trained by AdamW without rounding; the whole model is summed in float32, and is exported from the same base."""
    base = make_base(tmp_path / "base", tokenizer_folder, tied=True)
    flags = ("--model", base, "--lora", 4, "--dtype", "bfloat16", "--weights", "bfloat16", "--steps", 3)
    assert main(arguments(*flags)) == 0
    run = tmp_path / "run"
    for file in ("adapter_model.safetensors", "training/optimizer.safetensors"):
        kinds = {tensor.dtype for tensor in load_file(run / "checkpoint-00000002" / file).values()}
        assert kinds == {torch.float32}, file
    adapter = load_file(run / "checkpoint-00000002/adapter_model.safetensors").values()
    assert all(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in adapter)
    final, before = load_file(run / "checkpoint-final/model.safetensors"), load_file(base / "model.safetensors")
    norm = "model.norm.weight"
    assert torch.equal(final[norm], before[norm].bfloat16().float())
    query = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(final[query], final[query].bfloat16().float())
    assert main(["export", str(run / "checkpoint-00000002"), "--output", str(tmp_path / "whole")]) == 0
    step = load_file(tmp_path / "whole/model.safetensors")
    assert torch.equal(step[norm], final[norm]) and not torch.equal(step[query], final[query])
    assert main(["export", str(run), "--output", str(tmp_path / "b"), "--dtype", "bfloat16"]) == 0


def test_a_learning_rate_for_all_weights_is_warned_of(arguments, capsys):
    """The default is one; what is trained is said."""
    assert main(arguments("--lora", 4, "--steps", 1, "--learning-rate", 5e-6)) == 0
    said = capsys.readouterr().err
    assert "warning: --learning-rate 5e-06 is one for all weights" in said
    assert "lora: 1,088 of 14,064 weights are trained (7.74%): adapters of 7 layers and 64 of the markers' rows" in said
    assert "the markers moved by at most" in said


def test_tasks_are_scored_on_the_whole_model(arguments, tmp_path, monkeypatch):
    """Also where the checkpoint on the disk is an adapter; and leia-eval says what that is."""
    monkeypatch.setenv("PYTHONPATH", ROOT)
    data = f"{ROOT}/tests/data/sample/eval"
    flags = ("--eval-tasks", "leia_sample_ja", "--eval-tasks-data", data, "--eval-tasks-limit", 2)
    assert main(arguments("--lora", 4, *flags, "--eval-tasks-every", 2, "--save-every", 2, "--steps", 3)) == 0
    run = tmp_path / "run"
    assert [record["step"] for record in read_metrics(run) if "tasks" in record] == [2, 3]
    assert is_adapter(run / "checkpoint-00000002") and not list(run.glob(".tmp-*"))
    with pytest.raises(UsageError, match=r"is an adapter \(LoRA\), not a model; leia-train export \S+ makes a whole"):
        identify_model(run / "checkpoint-00000002")


def test_kernels_recomputation_and_micro_batches_change_nothing(arguments, tmp_path):
    """Losses of eager attention and of recomputed activations are those of sdpa."""
    found = []
    ways = [("--activation-checkpointing", "full"), ("--activation-checkpointing", "selective", "--activation-offload")]
    for number, flags in enumerate([(), ("--attention", "eager"), ("--micro-batch", 1), *ways]):
        output = tmp_path / str(number)
        assert main(arguments("--lora", 4, *flags, output=output)) == 0
        found.append([record["loss"] for record in read_metrics(output) if "loss" in record])
    for losses in found[1:]:
        assert losses == pytest.approx(found[0], rel=1e-5)


def test_adapters_are_drawn_from_the_seed_and_change_nothing_at_first():
    """The same ones for all arms of a study; a model without markers has no rows that are trained."""
    made = [make_llama(True) for _ in range(3)]
    for model, seed in zip(made, (1, 1, 2)):
        torch.manual_seed(99)
        add_adapter(model, ModelConfig(model="m", lora=2, lora_targets=("q_proj", "v_proj")), None, seed)
    weights = [trained_weights(model) for model in made]
    assert list(weights[0]) == [
        f"base_model.model.model.layers.0.self_attn.{layer}.lora_{part}.weight"
        for layer in ("q_proj", "v_proj")
        for part in "AB"
    ]
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]) and torch.equal(weight, weights[2][name]) == ("lora_B" in name)
    assert torch.equal(logits_of(made[0]), logits_of(make_llama(True)))


def test_a_fingerprint_is_of_the_frozen_weights_without_the_markers_rows():
    """Trained weights and the markers' rows do not change it; any other number does."""
    found = []
    for change in ("", "trained", "row", "norm", "embedding", "type"):
        model = make_llama(False)
        with torch.no_grad():
            if change == "row":
                model.lm_head.weight[329] += 1
            elif change == "norm":
                model.model.norm.weight[3] += 1e-6
            elif change == "embedding":
                model.model.embed_tokens.weight[1, 1] *= -1
        if change == "type":
            model.bfloat16()
        add_adapter(model, ModelConfig(model="m", lora=2), (328, 329), 1)
        if change == "trained":
            for weight in trained_weights(model).values():
                weight.data += 1
        found.append(fingerprint(model))
    assert found[0] == found[1] == found[2] and len(set(found)) == 4


@pytest.mark.parametrize("order", ["rows", "columns", "norm"])
@pytest.mark.parametrize("numbers", [1 << 20, 20])
def test_a_fingerprint_sees_another_order(order, numbers, monkeypatch):
    """Of rows, of columns, of a vector; summed at once or in blocks."""
    found = []
    for is_other in (False, True):
        model = make_llama(False)
        weight = model.model.norm.weight if order == "norm" else model.model.layers[0].mlp.up_proj.weight
        with torch.no_grad():
            model.model.norm.weight += torch.arange(16)
            if is_other:
                weight.copy_(weight.flip(0) if order != "columns" else weight.flip(1))
        add_adapter(model, ModelConfig(model="m", lora=2), (328, 329), 1)
        found.append(fingerprint(model))
        with monkeypatch.context() as patch:
            patch.setattr(lora, "_BLOCK_NUMBERS", numbers)
            assert fingerprint(model) == found[-1]
    assert found[0] != found[1]


def make_mixtral():
    """A small mixture of experts."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return MixtralForCausalLM(MixtralConfig(vocab_size=40, num_key_value_heads=1, num_local_experts=2, **sizes))


def test_a_fingerprint_of_experts_is_the_same_after_a_forward_pass():
    """In which PEFT registers a weight again, after the others; their names in files are targets too."""
    model = make_mixtral()
    add_adapter(model, ModelConfig(model="m", lora=2, lora_targets=("q_proj", "w1", "w3")), (38, 39), 1)
    assert any("experts" in name for name in trained_weights(model))
    order, before = [name for name, _ in model.named_parameters()], fingerprint(model)
    model(torch.tensor([[3, 38, 5, 39, 7]])).logits.sum().backward()
    assert [name for name, _ in model.named_parameters()] != order
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    ("targets", "message"),
    [(("w1", "w2"), "cannot have these .*w1.*w3"), (("w1", "w2", "w3", "w4"), "w4: MixtralForCausalLM has no layer")],
)
def test_experts_that_cannot_be_are_refused(targets, message):
    """A part of what lies in one tensor, and one that there is not."""
    with pytest.raises(UsageError, match=message):
        add_adapter(make_mixtral(), ModelConfig(model="m", lora=2, lora_targets=targets), (38, 39), 1)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "model.embed_tokens"])
@pytest.mark.parametrize("markers", [None, (328, 329)])
def test_embeddings_get_no_adapter(tied, target, markers):
    """Of tied ones the whole model would lack it, beside the markers' rows PEFT cannot have it."""
    message = f"--lora-targets {target}: embeddings of LlamaForCausalLM.* the markers' rows .* name other layers"
    with pytest.raises(UsageError, match=message):
        add_adapter(make_llama(tied), ModelConfig(model="m", lora=2, lora_targets=("q_proj", target)), markers, 1)


def test_what_changes_nothing_is_not_in_the_identity():
    """The default scale said or not, and a rounding that nothing is rounded by."""

    def identity(**options):
        parts = {"data": DataConfig(shards=("-",)), "optimization": OptimizationConfig(), "run": RunConfig(output="-")}
        return TrainConfig(model=ModelConfig(model="m", **options), **parts).identity()

    adapted = identity(lora=4)
    assert adapted == identity(lora=4, lora_alpha=8) == identity(lora=4, rounding="kahan")
    assert adapted != identity(lora=4, lora_alpha=4) and adapted["lora_alpha"] == 8
    assert identity() != identity(rounding="kahan") and "lora_alpha" not in identity()


def test_adapters_are_other_numbers_than_the_random_weights_of_the_same_seed(monkeypatch):
    """Which a tiny Llama's are drawn from."""
    seeds = []
    monkeypatch.setattr(lora.torch, "manual_seed", seeds.append)
    for seed in (7, 8, 2**63 - 1):
        add_adapter(make_llama(True), ModelConfig(model="m", lora=2), None, seed)
    drawn = [seed for seed in seeds if seed != 3]  # make_llama's own
    assert len(set(drawn)) == 3 and not {7, 8} & set(drawn) and all(0 <= seed < 2**64 for seed in drawn)


def test_a_plan_counts_what_is_trained(arguments, capsys):
    """The numbers of the real model; gradients and AdamW's moments are of those alone; frozen weights cost 4 operations."""
    model = make_llama(False)
    flops = flops_per_token(model, 10)
    every = sum(weight.numel() for weight in model.parameters())
    add_adapter(model, ModelConfig(model="m", lora=4), (328, 329), 1)
    trained = sum(weight.numel() for weight in trained_weights(model).values())
    layers = {
        "q": (16, 16),
        "k": (16, 8),
        "v": (16, 8),
        "o": (16, 16),
        "gate": (16, 32),
        "up": (16, 32),
        "down": (32, 16),
    }
    assert trained == 4 * sum(map(sum, layers.values())) + 2 * 2 * 16
    assert describe(model).startswith(f"{trained:,} of {every + trained:,} weights are trained (")
    assert flops_per_token(model, 10) == flops - 2 * (every - 330 * 16) + 6 * trained
    config = TrainConfig(
        data=DataConfig(shards=("-",)),
        model=ModelConfig(model="m", lora=4, weights="bfloat16", dtype="bfloat16"),
        optimization=OptimizationConfig(),
        run=RunConfig(output="-"),
    )
    parts = memory_bytes(config, model, 0)
    assert (parts["weights"], parts["gradients"], parts["optimizer"]) == (
        2 * every + 4 * trained,
        4 * trained,
        8 * trained,
    )
    assert "copies" not in parts
    copied = replace(config, model=ModelConfig(model="m", lora=4, dtype="bfloat16"))
    assert memory_bytes(copied, model, 0)["copies"] == 2 * every
    assert main(["plan", *arguments("--lora", 4, "--lora-targets", "q_proj")[1:]]) == 0
    lines = capsys.readouterr().out
    assert f"lora: {4 * (16 + 16) + 4 * 16} of " in lines and "adapters of 1 layer and 64 of the markers' rows" in lines


def test_a_plan_that_does_not_fit_offers_adapters(arguments, tmp_path, tokenizer_folder, capsys):
    """Last, and as another training."""
    sizes = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 30, "num_attention_heads": 64}
    config = LlamaConfig(vocab_size=330, num_key_value_heads=8, architectures=["LlamaForCausalLM"], **sizes)
    config.save_pretrained(tmp_path / "large")
    shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path / "large")
    flags = ("--model", tmp_path / "large", "--dtype", "bfloat16", "--gpus", "H100")
    assert main(["plan", *arguments(*flags)[1:]]) == 0
    said = capsys.readouterr().out
    assert "does not fit" in said and re.search(
        r"other way     --lora 16 --weights bfloat16.* is another training", said
    )
    assert main(["plan", *arguments(*flags, "--lora", 16)[1:]]) == 0
    assert "with --weights bfloat16 it takes about" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--lora", 4, "--shard-model"), "--lora 4: must be 0 with --shard-model or DeepSpeed"),
        (("--lora", -1), "--lora -1: must be 0 or above"),
        (("--lora-alpha", 4), "--lora-alpha 4: must be left out without --lora"),
        (("--lora-targets", "q_proj"), "--lora-targets q_proj: must be left out without --lora"),
        (("--lora", 4, "--lora-dropout", 1), "--lora-dropout 1.0: must be from 0 to below 1"),
        (
            ("--lora", 4, "--lora-targets", "nothing"),
            "--lora-targets nothing: LlamaForCausalLM has no layer of this name\n",
        ),
        (
            ("--lora", 4, "--lora-targets", "q_proj", "v_prj"),
            "--lora-targets v_prj: LlamaForCausalLM has no layer of this name; did you mean 'v_proj'?",
        ),
        (
            ("--lora", 4, "--lora-targets", "q_proj", "mlp"),
            "--lora-targets mlp q_proj: LlamaForCausalLM cannot have these",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments, flags, message, capsys):
    """Exit 2, in one line."""
    assert main(arguments(*flags)) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def test_parts_that_accelerate_asks_for_are_refused_too(arguments, tmp_path):
    """By each process, before the weights are read."""
    env = {**environment(), "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    command = [sys.executable, "-m", "leia_train", *arguments("--lora", 4, "--nproc", 2)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.returncode == 2 and "--lora 4: must be 0 with --shard-model or DeepSpeed" in done.stderr


def test_without_peft_it_is_said_what_to_install(monkeypatch):
    """Exit 5."""
    monkeypatch.setattr(lora.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingResource, match=r"--lora: peft is not installed \(pip install 'leia-lm\[lora\]'\)"):
        add_adapter(make_llama(True), ModelConfig(model="m", lora=2), None, 1)


def test_output_embeddings_with_a_bias_are_refused_where_their_rows_are_trained():
    """PEFT's trained tokens would leave it out."""
    model = make_llama(False)
    model.lm_head = torch.nn.Linear(16, 330, bias=True)
    with pytest.raises(UsageError, match="output embeddings of LlamaForCausalLM have a bias"):
        add_adapter(model, ModelConfig(model="m", lora=2), (1, 2), 1)
    add_adapter(model, ModelConfig(model="m", lora=2), None, 1)


def test_an_adapter_is_no_model_to_train(trained, arguments, capsys):
    """It is said where there is one."""
    _, run, _, _ = trained
    assert main(arguments("--model", run / "checkpoint-final/adapter")) == 2
    whole = f"is an adapter (LoRA), not a model; give {run / 'checkpoint-final'}, the whole one"
    assert whole in capsys.readouterr().err
    with pytest.raises(UsageError, match=re.escape(whole)):
        identify_model(run / "checkpoint-final/adapter")
    assert main(arguments("--model", run / "checkpoint-00000004")) == 2
    assert "leia-train export" in capsys.readouterr().err


def test_an_adapters_folder_is_exported_to_the_whole_model(trained, tmp_path, capsys):
    """The run's final one bit for bit: within the run, alone, and with --base where what it notes is not there."""
    base, run, _, _ = trained
    expected = (run / "checkpoint-final/model.safetensors").read_bytes()
    alone, moved = tmp_path / "alone", tmp_path / "moved"
    assert main(["export", str(run), "--output", str(alone), "--form", "adapter"]) == 0
    shutil.copytree(alone, moved)
    for name in ("leia_base.json", "adapter_config.json"):
        (moved / name).write_text((moved / name).read_text().replace(str(base), "/nowhere/base"))
    for number, (adapter, *more) in enumerate(
        [(run / "checkpoint-final/adapter",), (alone,), (moved, "--base", str(base))]
    ):
        output = tmp_path / str(number)
        assert main(["export", str(adapter), *more, "--output", str(output)]) == 0
        assert (output / "model.safetensors").read_bytes() == expected
        assert (output / "tokenizer.json").read_bytes() == (run / "checkpoint-final/tokenizer.json").read_bytes()
    capsys.readouterr()
    assert main(["export", str(moved), "--output", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert "the adapter's model /nowhere/base: " in said and "give --base the model that training began with" in said


def test_an_adapter_of_a_damaged_checkpoint_is_not_exported(trained, tmp_path, capsys):
    """Whose sums are those of the checkpoint around it; one to go on from without sums is not whole."""
    _, run, _, _ = trained
    copy = shutil.copytree(run, tmp_path / "run")
    with (copy / "checkpoint-final/adapter/adapter_model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    (copy / "checkpoint-00000004/_COMPLETE").unlink()
    for name, said in (("checkpoint-final/adapter", "SHA-256 mismatch"), ("checkpoint-00000004", "not whole")):
        assert main(["export", str(copy / name), "--output", str(tmp_path / "x")]) == 3
        assert said in capsys.readouterr().err


def test_an_adapter_says_what_it_belongs_on(arguments, tmp_path, tokenizer_folder, monkeypatch, fresh_accelerator):
    """With the type of its weights, from any folder; as its README says the model computes what the whole one does."""
    base = make_base(tmp_path / "models/base", tokenizer_folder, tied=False)
    monkeypatch.chdir(base.parent)
    run = tmp_path / "run"
    assert main(arguments("--model", "base", "--lora", 2, "--dtype", "bfloat16", "--weights", "bfloat16")) == 0
    readme = (run / "checkpoint-final/adapter/README.md").read_text()
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    assert f"from_pretrained('{base.resolve()}', dtype=torch.bfloat16)" in code and "leia_base.json" in readme
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.replace("THIS FOLDER", str(run / "checkpoint-final/adapter")), names)
    final = AutoModelForCausalLM.from_pretrained(run / "checkpoint-final")
    torch.testing.assert_close(logits_of(names["model"]).float(), logits_of(final), rtol=0.1, atol=0.1)
    config = json.loads((run / "checkpoint-final/adapter/adapter_config.json").read_text())
    assert (
        config["base_model_name_or_path"] == str(base.resolve()) == Base.noted(run / "checkpoint-final/adapter").model
    )


def test_a_tiny_llamas_adapter_belongs_on_nothing(arguments, tmp_path, capsys):
    """Which it says; its run's checkpoint is exported whole."""
    assert main(arguments("--lora", 2, output=tmp_path / "tiny")) == 0
    adapter = tmp_path / "tiny/checkpoint-final/adapter"
    assert "nothing that this adapter could be put on" in (adapter / "README.md").read_text()
    assert main(["export", str(adapter), "--output", str(tmp_path / "whole")]) == 0
    expected = (tmp_path / "tiny/checkpoint-final/model.safetensors").read_bytes()
    assert (tmp_path / "whole/model.safetensors").read_bytes() == expected
    capsys.readouterr()
    assert main(["export", str(tmp_path / "tiny"), "--form", "adapter", "--output", str(tmp_path / "adapter")]) == 0
    assert "warning: it was trained on tiny-llama, whose weights are in no file" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "adapter"), "--output", str(tmp_path / "x")]) == 2
    assert "export its run's checkpoint" in capsys.readouterr().err


def test_damaged_adapters_are_refused(trained, tmp_path):
    """Whose note is none, or whose weights are others."""
    base, run, _, _ = trained
    adapter = shutil.copytree(run / "checkpoint-final/adapter", tmp_path / "adapter")
    (adapter / "leia_base.json").write_text("{}")
    with pytest.raises(DamagedInput, match=r"leia_base.json: does not say what"):
        put_adapter(AutoModelForCausalLM.from_pretrained(base), adapter)
    shutil.copy(run / "checkpoint-final/adapter/leia_base.json", adapter)
    content = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**content, "r": 3}))
    with pytest.raises(DamagedInput, match=r"has not the weights that adapter_config\.json beside it promises"):
        put_adapter(AutoModelForCausalLM.from_pretrained(base), adapter)


def test_all_weights_have_no_adapter_to_export(arguments, tmp_path, capsys):
    """Exit 2."""
    assert main(arguments("--steps", 1)) == 0
    assert main(["export", str(tmp_path / "run"), "--output", str(tmp_path / "x"), "--form", "adapter"]) == 2
    assert "all weights were trained" in capsys.readouterr().err


def test_layers_of_gpt2_are_adapted_and_merged_too(tmp_path):
    """Its matrices lie the other way round."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    add_adapter(model, ModelConfig(model="m", lora=2), (38, 39), 1)
    with torch.no_grad():
        for weight in trained_weights(model).values():
            weight += 0.1
    write_merged(tmp_path, model)
    found = GPT2LMHeadModel.from_pretrained(tmp_path)
    ids = torch.tensor([[3, 38, 5, 39, 7]])
    torch.testing.assert_close(found(ids).logits, model.eval()(ids).logits, rtol=0, atol=1e-5)


def test_a_mixture_of_experts_is_merged_under_the_names_of_its_files(tmp_path):
    """transformers stacks the experts in memory, and its files have them apart."""
    make_mixtral().save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    add_adapter(model, ModelConfig(model="m", lora=2), (38, 39), 1)
    with torch.no_grad():
        for weight in trained_weights(model).values():
            weight += 0.1
    (tmp_path / "whole").mkdir()
    write_merged(tmp_path / "whole", model)
    assert set(load_file(tmp_path / "whole/model.safetensors")) == set(load_file(tmp_path / "base/model.safetensors"))
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    ids = torch.tensor([[3, 38, 5, 39, 7]])
    torch.testing.assert_close(found(ids).logits, model.eval()(ids).logits, rtol=0, atol=1e-5)


def test_an_adapter_of_another_model_is_refused(trained):
    """By its fingerprint."""
    _, run, _, tied = trained
    model = make_llama(tied, seed=4)
    with pytest.raises(OtherBuild, match=r"was trained on .* with other weights \(fingerprint [0-9a-f]{16}, here "):
        put_adapter(model, run / "checkpoint-final/adapter")

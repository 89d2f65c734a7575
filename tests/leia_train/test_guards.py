"""Faults of a run: spikes, bad rows, other code, code and pickles of others, secrets."""

import json
import os
import re
import signal
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from interrupting import interrupted_at
from safetensors.numpy import load_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from leia_train import evaluating, runs, train, updates
from leia_train.cli import main
from leia_train.metrics import SpikeWatch, read_metrics
from leia_train.packing import PackedRows

TIMED = ("seconds", "waited_s")


@pytest.fixture(autouse=True)
def fresh(fresh_accelerator):
    """For every test here."""


def poison(monkeypatch, step):
    """Make the loss of one micro-batch of a step infinite."""
    part = updates.micro_batch_loss

    def poisoned(run, rows, label_count):
        found = part(run, rows, label_count)
        return found * float("inf") if run.step == step and len(rows.input_ids) == 1 else found

    monkeypatch.setattr(updates, "micro_batch_loss", poisoned)


def test_the_rows_of_a_bad_step_are_kept_in_a_file(arguments, tmp_path, monkeypatch, capsys):
    """Which are those of the plan; the run can be gone on with in the same folder."""
    with monkeypatch.context() as patch:
        poison(patch, 2)
        assert main(arguments()) == 1
    path = tmp_path / "run/bad-rows-step-00000003-process-0.safetensors"
    assert str(path) in capsys.readouterr().err
    rows = load_file(path)
    assert rows["input_ids"].shape == (1, 24) and set(rows) == {"input_ids", "position_ids", "labels"}
    assert main(arguments("--save-every", 2)) == 0
    from leia_train.exposures import plan_of_run

    plan, _ = plan_of_run(tmp_path / "run")
    assert np.array_equal(plan.rows(11, 1).labels, rows["labels"])


def test_a_gradient_that_is_not_finite_stops_the_run_too(arguments, monkeypatch, capsys, tmp_path):
    """Though every loss is finite; no row is to blame alone."""
    clip = updates.clip
    monkeypatch.setattr(updates, "clip", lambda run: float("nan") if run.step == 1 else clip(run))
    assert main(arguments()) == 1
    assert re.search(r"step 2, process 0, rows 4 to 7: loss \d.*gradient norm nan", capsys.readouterr().err)
    assert [record["step"] for record in read_metrics(tmp_path / "run")] == [1]


def test_spikes_are_warned_of():
    """Against the median of the steps before, once there are some; 0 turns it off."""
    watch = SpikeWatch(2.0)
    assert [watch.warning(step, loss) for step, loss in enumerate([9.0, 2.0, 2.1, 1.9, 2.0, 2.0])] == [None] * 6
    assert watch.warning(7, 4.5) == (
        "warning: step 7: loss 4.5000 is 2.2 times the median of the last 6 steps (2.0000)"
    )
    quiet = SpikeWatch(0.0)
    assert [quiet.warning(step, 10.0**step) for step in range(9)] == [None] * 9


def test_a_run_that_other_code_began_is_not_gone_on_with_unless_told(arguments, monkeypatch, capsys):
    """Both fingerprints are named; a change of the code that makes rows or updates changes it."""
    assert main(arguments("--steps", 1, "--warmup", 0)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(train, "code_fingerprint", lambda: "0" * 16)
        assert main(arguments("--steps", 1, "--warmup", 0)) == 6
        said = capsys.readouterr().err
        assert f"(code {runs.code_fingerprint()} -> {'0' * 16})" in said and "--accept-other-code" in said
        assert main(arguments("--steps", 1, "--warmup", 0, "--accept-other-code")) == 0
    before = runs.code_fingerprint()
    monkeypatch.setattr(runs, "_CODE_MODULES", runs._CODE_MODULES[1:])
    assert runs.code_fingerprint() != before


def test_other_shards_are_refused_on_resume(arguments, capsys, tmp_path, tokenizer_folder):
    """By their manifest, whatever their path."""
    from shard_fixture import make_articles, write_shards

    assert main(arguments("--steps", 1, "--warmup", 0)) == 0
    other = write_shards(tmp_path / "other", tokenizer_folder, make_articles(tokenizer_folder, 19))
    assert main(arguments("--steps", 1, "--warmup", 0, "--shards", other)) == 6
    assert "data_fingerprint" in capsys.readouterr().err


@pytest.fixture
def model_with_code(tmp_path, tokenizer_folder):
    """A model whose repository brings a module that leaves a trace when it is run."""
    import shutil

    folder = tmp_path / "model"
    config = LlamaConfig(
        vocab_size=340, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copy(tokenizer_folder / "tokenizer.json", folder)
    content = json.loads((folder / "config.json").read_text())
    content["auto_map"] = {
        "AutoConfig": "odd_code.OddConfig",
        "AutoModelForCausalLM": "odd_code.OddModel",
    }
    content["model_type"] = "odd"
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "odd_code.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'was_run')!r}).write_text('x')\n"
        "from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM\n"
        "class OddConfig(LlamaConfig):\n    model_type = 'odd'\n"
        "class OddModel(LlamaForCausalLM):\n    config_class = OddConfig\n"
    )
    return folder


def test_code_of_a_models_repository_is_not_run(arguments, model_with_code, tmp_path, capsys, monkeypatch):
    """Exit 2 without the flag; with it, what is run is listed first."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    assert main(arguments("--model", model_with_code)) == 2
    assert not (tmp_path / "was_run").exists()
    capsys.readouterr()
    main(arguments("--model", model_with_code, "--trust-remote-code", "--steps", 1, "--warmup", 0))
    said = capsys.readouterr().err
    assert re.search(
        r"warning: --trust-remote-code runs, with all rights of this process: odd_code.py \([\d,]+ bytes\)", said
    )
    assert (tmp_path / "was_run").exists()


class Trap:
    """An object whose unpickling leaves a trace."""

    def __reduce__(self):
        return (os.mkdir, (Trap.place,))


def test_pickles_in_a_checkpoint_are_never_opened(arguments, tmp_path, capsys):
    """Neither weights of a model, nor anything beside a checkpoint of ours."""
    Trap.place = str(tmp_path / "was_run")
    assert main(arguments("--steps", 2, "--save-every", 1)) == 0
    run = tmp_path / "run"
    for name in ("optimizer.bin", "pytorch_model.bin", "training/optimizer.pt", "random_states_0.pkl"):
        torch.save({"x": Trap()}, run / "checkpoint-00000001" / name)
    (run / "checkpoint-final/model.safetensors").unlink()
    torch.save({"x": Trap()}, run / "checkpoint-final/pytorch_model.bin")
    assert main(arguments("--steps", 2, "--save-every", 1)) == 0
    assert main(arguments("--model", run / "checkpoint-final", "--steps", 1, output=tmp_path / "again")) == 0
    assert not (tmp_path / "was_run").exists()


def test_no_secret_of_the_environment_is_written(arguments, tmp_path, monkeypatch, capsys):
    """Tokens of the hub and of trackers are in no file and on no line."""
    secret = "hf_" + "s3cr3t" * 4
    for name in ("HF_TOKEN", "WANDB_API_KEY", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, secret)
    assert main(arguments("--steps", 2)) == 0
    assert main(["plan", *arguments("--steps", 2)[1:]]) == 0
    assert main(["doctor"]) == 0
    captured = capsys.readouterr()
    assert secret not in captured.out + captured.err
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 10 and not any(secret.encode() in path.read_bytes() for path in files)


def test_compile_compiles_what_a_step_calls(arguments, tmp_path, monkeypatch):
    """The layers and the loss, by torch.compile's own entry (its compiler stands in here); names of weights stay."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: compiled.append(type(module).__name__))
    monkeypatch.setattr(torch, "compile", lambda function, **options: (compiled.append(function.__name__), function)[1])
    assert main(arguments("--compile", "--steps", 1, "--warmup", 0)) == 0
    assert compiled == ["LlamaModel", "_cross_entropy"]


def test_evaluations_come_at_their_steps_and_survive_a_kill(arguments, tmp_path):
    """Every second step and at the end, on the validation articles, a file and other shards; the log reads the same."""
    text = tmp_path / "english.txt"
    text.write_text("Nairobi is the capital of Kenya.", encoding="utf-8")
    flags = ("--steps", 5, "--eval-every", 2, "--eval-text", text)
    assert main(arguments(*flags, output=tmp_path / "undisturbed")) == 0
    with interrupted_at(3):
        assert main(arguments(*flags)) == 75
    assert main(arguments(*flags)) == 0
    logs = [
        [
            {key: value for key, value in record.items() if key not in ("seconds", "waited_s")}
            for record in read_metrics(folder)
        ]
        for folder in (tmp_path / "undisturbed", tmp_path / "run")
    ]
    assert logs[0] == logs[1]
    evaluated = [record for record in logs[0] if "evaluation" in record]
    assert [record["step"] for record in evaluated] == [2, 4, 5]
    assert set(evaluated[0]["evaluations"]) == {"validation with names", "english.txt"}
    assert evaluated[0]["evaluations"]["english.txt"]["size_bytes"] == 32


@pytest.mark.parametrize(
    "flags",
    [
        ("--dtype", "bfloat16", "--weights", "bfloat16"),
        ("--dtype", "bfloat16", "--weights", "bfloat16", "--rounding", "kahan"),
        ("--marker-learning-rate", 0.1),
        ("--activation-checkpointing", "full"),
        ("--activation-checkpointing", "selective", "--activation-offload"),
        ("--loss-chunk", 3),
        ("--no-marker-logits",),
        ("--markers", "text", "--marker-text", " (", ")"),
        ("--compat", "leia"),
        ("--names", "anchor", "--schedule", "wsd"),
        ("--attention", "eager"),
    ],
    ids=lambda flags: " ".join(map(str, flags[-2:])),
)
def test_a_killed_run_goes_on_bit_for_bit_with_every_option(arguments, tmp_path, flags):
    """The state of each option is restored: the same losses and bytes of weights as undisturbed."""
    assert main(arguments(*flags, output=tmp_path / "undisturbed")) == 0
    with interrupted_at(2):
        assert main(arguments(*flags)) == 75
    assert main(arguments(*flags)) == 0
    folders = [tmp_path / "undisturbed", tmp_path / "run"]
    losses = [[record["loss"] for record in read_metrics(folder) if "loss" in record] for folder in folders]
    assert losses[0] == losses[1] and len(losses[0]) == 4 and all(np.isfinite(losses[0]))
    final, again = ((folder / "checkpoint-final/model.safetensors").read_bytes() for folder in folders)
    assert final == again


@pytest.fixture
def model_with_dropout(tmp_path, tokenizer_folder):
    """A GPT-2 whose layers drop a tenth of what they hold."""
    import shutil

    folder = tmp_path / "gpt2"
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=340, n_embd=16, n_layer=1, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=1, resid_pdrop=0.3
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    shutil.copy(tokenizer_folder / "tokenizer.json", folder)
    return folder


def test_dropout_is_drawn_by_row_so_a_resume_and_other_processes_draw_the_same(arguments, model_with_dropout, tmp_path):
    """Killed and gone on with in another state of torch's generator: the same losses and bytes; each step draws anew."""
    flags = ("--model", model_with_dropout, "--micro-batch", 2)
    assert main(arguments(*flags, output=tmp_path / "undisturbed")) == 0
    with interrupted_at(2):
        assert main(arguments(*flags)) == 75
    torch.manual_seed(12345)
    assert main(arguments(*flags)) == 0
    folders = [tmp_path / "undisturbed", tmp_path / "run"]
    losses = [[record["loss"] for record in read_metrics(folder) if "loss" in record] for folder in folders]
    assert losses[0] == losses[1]
    final, again = ((folder / "checkpoint-final/model.safetensors").read_bytes() for folder in folders)
    assert final == again
    assert len({updates.row_seed(42, row) for row in range(1000)}) == 1000
    assert updates.row_seed(42, 7) != updates.row_seed(43, 7)


def test_a_micro_batch_draws_by_its_first_row_in_the_stream(monkeypatch):
    """The second of two processes begins where the first one's rows end; the step before has other rows."""
    seen = []
    monkeypatch.setattr(updates.torch, "manual_seed", seen.append)
    monkeypatch.setattr(updates, "micro_batch_loss", lambda run, rows, count: torch.zeros(2))
    for process, processes in ((0, 1), (0, 2), (1, 2)):
        accelerator = SimpleNamespace(process_index=process)
        parallelism = SimpleNamespace(accumulating=lambda last: nullcontext(), backward=lambda loss: None)
        settings = SimpleNamespace(optimization=SimpleNamespace(micro_batch=2, batch=8, seed=1))
        run = SimpleNamespace(config=settings, accelerator=accelerator, step=3, parallelism=parallelism)
        ids = np.zeros((8 // processes, 3), np.int64)
        updates.accumulate_gradients(run, PackedRows(input_ids=ids, position_ids=ids, labels=ids, kinds=ids), 1)
    assert seen[:4] == seen[4:] == [updates.row_seed(1, row) for row in (24, 26, 28, 30)]


@pytest.mark.parametrize("step", [2, 4])
def test_a_signal_in_an_evaluation_ends_it_and_the_run_goes_on_with_it(arguments, tmp_path, monkeypatch, step):
    """In the middle of one, and in the last: 75 at once, and then the log and weights of an undisturbed run."""
    flags = ("--eval-every", 2, "--save-every", 0, "--max-length", 16)
    assert main(arguments(*flags, output=tmp_path / "undisturbed")) == 0

    def send(run, *rest):
        if run.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses(run, *rest)

    losses = evaluating._losses
    with monkeypatch.context() as patch:
        patch.setattr(evaluating, "_losses", send)
        assert main(arguments(*flags)) == 75
    status = json.loads((tmp_path / "run/_status.json").read_text())
    assert (status["status"], status["step"]) == ("interrupted", step)
    assert not any("evaluation" in record and record["step"] == step for record in read_metrics(tmp_path / "run"))
    assert main(arguments(*flags)) == 0
    logs = [
        [{key: value for key, value in record.items() if key not in TIMED} for record in read_metrics(folder)]
        for folder in (tmp_path / "undisturbed", tmp_path / "run")
    ]
    assert [record["step"] for record in logs[0] if "evaluation" in record] == [2, 4]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
            "cpu: out of memory (CUDA out of",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:1] data. DefaultCPUAllocator: not enough memory: you tried"),
            "alloc",
        ),
    ],
)
def test_memory_that_is_out_exits_5_with_what_to_do(arguments, monkeypatch, capsys, error, message):
    """One line instead of a traceback; any other RuntimeError stays one."""

    def fail(*rest):
        raise error

    monkeypatch.setattr(updates, "micro_batch_loss", fail)
    assert main(arguments()) == 5
    said = capsys.readouterr().err
    assert message in said and "lower --micro-batch" in said and "more" not in said.splitlines()[-1]
    monkeypatch.setattr(updates, "micro_batch_loss", lambda *rest: torch.ones(2) + torch.ones(3))
    with pytest.raises(RuntimeError, match="must match the size"):
        main(arguments())

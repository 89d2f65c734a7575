"""Runs of a very small model: what they write, how they go on, how they stop."""

import errno
import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import torch
from interrupting import Killed, kill_at, steps, weights
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from leia_beam.errors import MissingResource
from leia_train import attention, checkpoints, optimizer, replicated, train, updates
from leia_train.checkpoints import COMPLETE_NAME, step_checkpoints
from leia_train.cli import main
from leia_train.insertion import NAME
from leia_train.metrics import read_metrics


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, shards):
    """A run that nothing disturbed, by the flags that it was given besides the fixture's."""
    made = {}

    def run(arguments, *flags):
        if flags not in made:
            made[flags] = tmp_path_factory.mktemp("undisturbed") / "run"
            assert main(arguments(*flags, output=made[flags])) == 0
        return made[flags]

    return run


def test_a_run_leaves_a_checkpoint_a_log_and_a_status(arguments, undisturbed, capsys):
    """Names, counts and the evaluation; nothing temporary."""
    run = undisturbed(arguments)
    names = sorted(path.name for path in run.iterdir() if not path.name.startswith("store-"))
    assert names == sorted(
        [
            *("checkpoint-00000002", "checkpoint-00000003", "checkpoint-final"),
            *(".lock", "_run.json", "_status.json", "metrics.jsonl", "train.log"),
        ]
    )
    records = read_metrics(run)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 4]
    assert [record["tokens"] for record in records[:4]] == [4 * 24] * 4
    assert all(0 < record["inserted_tokens"] < record["label_tokens"] < 96 for record in records[:4])
    rates = [record["learning_rate"] for record in records[:4]]
    assert rates == pytest.approx([1e-2, 1e-2, 0.75e-2, 0.25e-2])
    evaluation = records[4]["evaluation"]
    assert evaluation["documents"] > 0 and 0 < evaluation["bits_per_byte"] < 10
    status = json.loads((run / "_status.json").read_text())
    others = records[4]["evaluations"]
    assert list(others) == ["validation with names"] and others["validation with names"]["name_tokens"] > 0
    assert status == {
        "status": "finished",
        "step": 4,
        "checkpoint": "checkpoint-final",
        "evaluation": evaluation,
        "evaluations": others,
    }


def test_a_run_without_a_terminal_says_what_it_saved_what_it_evaluated_and_its_last_step(arguments, tmp_path, capsys):
    """Each with its step, on standard error and in the log, also of a run that takes less than a minute."""
    assert main(arguments("--save-every", 2, "--eval-every", 3)) == 0
    out = tmp_path / "run"
    said = capsys.readouterr().err.splitlines()
    shown = [line for line in said if re.match(r"(training +)?step \d", line)]
    expected = [
        rf"step 2: saved {out}/checkpoint-00000002 in \d+\.\d s",
        r"step 3: validation: \d\.\d+ bits per byte on \d texts",
        r"step 3: validation with names: \d.*",
        r"training   step 4/4  .* tokens/s  0 s left  loss .*",
        rf"step 4: saved {out}/checkpoint-final in \d+\.\d s",
        r"step 4: validation: .*",
        r"step 4: validation with names: .*",
    ]
    assert len(shown) == len(expected) and all(map(re.fullmatch, expected, shown)), shown
    log = (out / "train.log").read_text()
    assert all(f"INFO leia: {line}\n" in log for line in shown)


def test_the_final_checkpoint_loads_and_training_from_it_works(arguments, undisturbed, tmp_path):
    """With the auto classes, and as --model of another run, whose markers begin where they ended."""
    final = undisturbed(arguments) / "checkpoint-final"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(final), AutoTokenizer.from_pretrained(final)
    start, end = tokenizer.convert_tokens_to_ids(["<translate>", "</translate>"])
    assert model.get_input_embeddings().weight.shape[0] == end + 1 == start + 2
    output = tmp_path / "again"
    assert main(arguments("--model", final, "--steps", 1, "--learning-rate", 1e-12, output=output)) == 0
    again = AutoModelForCausalLM.from_pretrained(output / "checkpoint-final")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=0, atol=1e-6, msg=name)


def test_losses_fall(arguments, tmp_path):
    """Twenty steps halve the loss, and the weights are float32."""
    flags = ("--steps", 20, "--learning-rate", 3e-2, "--batch", 8, "--max-length", 48, "--save-every", 0)
    assert main(arguments(*flags)) == 0
    losses = [record["loss"] for record in read_metrics(tmp_path / "run") if "loss" in record]
    assert len(losses) == 20 and losses[-1] < losses[0] / 2
    model = load_file(tmp_path / "run/checkpoint-final/model.safetensors")
    assert {tensor.dtype for tensor in model.values()} == {torch.float32}


def test_plain_and_leia_runs_differ_in_what_they_read_alone(arguments, undisturbed):
    """The same first weights, other rows: `none` inserts nothing, `right` does."""
    leia, plain = undisturbed(arguments), undisturbed(arguments, "--strategy", "none")
    assert [record["inserted_tokens"] for record in steps(plain)[:4]] == [0] * 4
    assert weights(leia) != weights(plain)
    assert (leia / "checkpoint-final/tokenizer.json").read_bytes() == (
        plain / "checkpoint-final/tokenizer.json"
    ).read_bytes()


@pytest.mark.parametrize("flags", [("--dtype", "bfloat16"), ("--cross-document",), ("--no-name-loss",)])
def test_options_change_the_run(arguments, undisturbed, flags):
    """bfloat16 computation, documents that see each other, names without loss: other losses, all finite."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        losses = [record["loss"] for record in steps(undisturbed(arguments, *flags))[:4]]
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    expected = [record["loss"] for record in steps(undisturbed(arguments))[:4]]
    assert losses != expected
    assert np.allclose(losses, expected, rtol=0.3)


def test_the_micro_batch_does_not_change_the_loss(arguments, undisturbed):
    """Rows one by one or all at once: losses and norms agree within rounding."""
    found = {flags: steps(undisturbed(arguments, *flags)) for flags in [(), ("--micro-batch", 1), ("--micro-batch", 9)]}
    for key in ("loss", "gradient_norm"):
        values = [[record[key] for record in records[:4]] for records in found.values()]
        assert np.allclose(values, values[0], rtol=1e-3), key


@pytest.mark.parametrize("killed_at", [0, 1, 2, 3])
def test_a_killed_run_goes_on_bit_for_bit(arguments, undisturbed, tmp_path, monkeypatch, killed_at):
    """Killed at any step, the same command gives the same losses and the same bytes of weights."""
    with monkeypatch.context() as patch:
        kill_at(patch, killed_at)
        with pytest.raises(Killed):
            main(arguments())
    assert [record["step"] for record in steps(tmp_path / "run")] == list(range(1, killed_at + 1))
    assert main(arguments()) == 0
    expected = undisturbed(arguments)
    assert steps(tmp_path / "run") == steps(expected)
    assert weights(tmp_path / "run") == weights(expected)


def test_a_killed_run_with_the_fused_optimizer_of_gpus_goes_on_bit_for_bit(arguments, tmp_path, monkeypatch):
    """Its count of steps lies beside the weights."""
    monkeypatch.setattr(optimizer, "_is_fused", lambda weights: True)
    with monkeypatch.context() as patch:
        kill_at(patch, 2)
        with pytest.raises(Killed):
            main(arguments())
    assert main(arguments()) == 0
    assert main(arguments(output=tmp_path / "whole")) == 0
    assert steps(tmp_path / "run") == steps(tmp_path / "whole")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", COMPLETE_NAME])
def test_a_run_killed_while_it_saves_goes_on_from_the_checkpoint_before(
    arguments, undisturbed, tmp_path, monkeypatch, name
):
    """After any file of the third checkpoint: what is half-written is not taken, and goes."""
    after = {"model.safetensors": "_write_model", "tokenizer.json": "_write_training", COMPLETE_NAME: "rename_folder"}
    with monkeypatch.context() as patch:
        saves = []
        target = after[name]
        write = getattr(checkpoints, target)

        def die(*arguments):
            saves.append(1)
            if len(saves) == 3:
                if target == "_write_model":
                    write(*arguments)
                raise Killed
            write(*arguments)

        patch.setattr(checkpoints, target, die)
        patch.setattr(shutil, "rmtree", lambda *args, **options: None)  # a killed process removes nothing
        with pytest.raises(Killed):
            main(arguments())
    assert len(list((tmp_path / "run").glob(".tmp-checkpoint-*"))) == 1
    assert main(arguments()) == 0
    assert not list((tmp_path / "run").glob(".tmp-*"))
    assert weights(tmp_path / "run") == weights(undisturbed(arguments))


@pytest.mark.parametrize("damage", ["flipped", "truncated", "no optimizer", "not complete"])
def test_a_damaged_newest_checkpoint_is_passed_over(arguments, undisturbed, tmp_path, monkeypatch, capsys, damage):
    """With a message that names it; the result is that of an undisturbed run."""
    with monkeypatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(Killed):
            main(arguments())
    newest = step_checkpoints(tmp_path / "run")[-1].path
    if damage == "flipped":
        content = bytearray((newest / "model.safetensors").read_bytes())
        content[-7] ^= 16
        (newest / "model.safetensors").write_bytes(content)
    elif damage == "truncated":
        os.truncate(newest / "training/optimizer.safetensors", 100)
    elif damage == "no optimizer":
        (newest / "training/optimizer.safetensors").unlink()
    else:
        (newest / COMPLETE_NAME).unlink()
    capsys.readouterr()
    assert main(arguments()) == 0
    said = capsys.readouterr().err
    assert "passed over a damaged checkpoint" in said and newest.name in said
    assert "after step 2" in said
    assert weights(tmp_path / "run") == weights(undisturbed(arguments))
    assert steps(tmp_path / "run") == steps(undisturbed(arguments))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_exits_75(arguments, undisturbed, tmp_path, monkeypatch, capsys, number):
    """Sent twice for SIGTERM; the status names the checkpoint; the same command goes on bit for bit."""
    update = updates.apply_update

    def signalled(run, rate):
        if run.step == 1:
            os.kill(os.getpid(), number)
            if number == signal.SIGTERM:
                os.kill(os.getpid(), number)
        update(run, rate)

    with monkeypatch.context() as patch:
        patch.setattr(updates, "apply_update", signalled)
        assert main(arguments("--save-every", 0)) == 75
    said = capsys.readouterr().err
    assert f"{signal.Signals(number).name} after step 2 of 4" in said and said.count("saved") == 1
    log = (tmp_path / "run/train.log").read_text()
    assert f"WARNING leia: {signal.Signals(number).name} after step 2 of 4" in log, "the log has why the run ended"
    status = json.loads((tmp_path / "run/_status.json").read_text())
    assert status == {"status": "interrupted", "step": 2, "checkpoint": "checkpoint-00000002"}
    assert main(arguments("--save-every", 0)) == 0
    assert weights(tmp_path / "run") == weights(undisturbed(arguments))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_loss_that_is_not_finite_stops_before_the_update(arguments, tmp_path, monkeypatch, capsys):
    """Step and rows are named; the step before is the last that is logged and saved."""
    part = updates.micro_batch_loss

    def poisoned(run, rows, label_count):
        loss = part(run, rows, label_count)
        return loss * float("nan") if run.step == 2 and len(rows.input_ids) == 1 else loss

    monkeypatch.setattr(updates, "micro_batch_loss", poisoned)
    assert main(arguments()) == 1
    said = capsys.readouterr().err
    assert "step 3, process 0, rows 11 to 11: loss nan" in said and "the weights were not changed" in said
    assert "ERROR leia: step 3, process 0, rows 11 to 11: loss nan" in (tmp_path / "run/train.log").read_text()
    assert [record["step"] for record in steps(tmp_path / "run")] == [1, 2]
    assert step_checkpoints(tmp_path / "run")[-1].step == 2
    assert not (tmp_path / "run/_status.json").exists()


def test_a_full_disk_leaves_the_checkpoint_before(arguments, undisturbed, tmp_path, monkeypatch, capsys):
    """Exit 5 with the place; after room was made the same command goes on."""
    write = checkpoints._write_training

    def full(folder, optimizer, step):
        if step == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder, optimizer, step)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_write_training", full)
        assert main(arguments()) == MissingResource.exit_code
    assert "checkpoint-00000003: No space left on device" in capsys.readouterr().err
    assert [checkpoint.step for checkpoint in step_checkpoints(tmp_path / "run")] == [1, 2]
    assert not list((tmp_path / "run").glob(".tmp-*"))
    assert main(arguments()) == 0
    assert weights(tmp_path / "run") == weights(undisturbed(arguments))


def test_a_finished_run_is_not_run_again(arguments, tmp_path, monkeypatch, capsys):
    """The same command says so; with a damaged final checkpoint it goes on from the newest one."""
    assert main(arguments()) == 0
    before = weights(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(train, "do_step", None)
        assert main(arguments()) == 0
    assert "this run is finished" in capsys.readouterr().err
    (tmp_path / "run/checkpoint-final/model.safetensors").write_bytes(before[:-1])
    assert main(arguments()) == 0
    assert "after step 3" in capsys.readouterr().err
    assert weights(tmp_path / "run") == before
    assert [record["step"] for record in read_metrics(tmp_path / "run")] == [1, 2, 3, 4, 4]


def test_old_checkpoints_are_removed_after_the_new_one_is_whole(arguments, tmp_path, monkeypatch):
    """One is kept; while it is written the one before is still there."""
    seen = []
    save = replicated.save_checkpoint

    def watched(output, name, *rest):
        path = save(output, name, *rest)
        seen.append([checkpoint.step for checkpoint in step_checkpoints(output)])
        return path

    monkeypatch.setattr(replicated, "save_checkpoint", watched)
    assert main(arguments("--keep", 1)) == 0
    assert seen == [[1], [1, 2], [2, 3], [3]]


def test_no_validation_article_is_said(arguments, capsys):
    """And the run goes through without an evaluation."""
    assert main(arguments("--validation-share", 0, "--steps", 1)) == 0
    assert "no evaluation loss: --validation-share 0 leaves none of 20 articles" in capsys.readouterr().err


def test_a_model_that_mixes_documents_is_refused(arguments, monkeypatch, capsys, tmp_path):
    """Exit 5, and nothing that looks like a run is left; --cross-document does not ask."""
    monkeypatch.setattr(attention, "check_isolation", lambda *args: _leak())
    assert main(arguments()) == 5
    assert "see each other" in capsys.readouterr().err
    assert not (tmp_path / "run/_run.json").exists()
    assert main(arguments("--cross-document", "--steps", 1)) == 0


def _leak():
    raise MissingResource("documents of a packed row see each other")


@pytest.mark.parametrize("compat", ["none", "leia"])
def test_a_steps_loss_and_gradient_are_those_of_the_models_own_logits(arguments, tmp_path, compat):
    """By hand, over a step's rows from a plain forward pass with weights of before the step.

    The sum over all labels by their number; as in the reference the mean of the rows' means. Rows of a document apart.
    """
    from leia_train.exposures import plan_of_run

    flags = ("--compat", compat, "--steps", 1, "--warmup", 0, "--clip", 0, "--learning-rate", 1e-12)
    assert main(arguments(*flags, "--no-name-loss" if compat == "leia" else "--name-loss")) == 0
    run = tmp_path / "run"
    model = AutoModelForCausalLM.from_pretrained(run / "checkpoint-final")
    rows = plan_of_run(run)[0].rows(0, 4)
    losses, of_names = [], []
    for ids, positions, labels, kinds in zip(rows.input_ids, rows.position_ids, rows.labels, rows.kinds):
        starts = [column for column, position in enumerate(positions) if position == 0]
        found = []
        for start, stop in zip(starts, [*starts[1:], len(ids)]):
            logits = model(input_ids=torch.from_numpy(ids[None, start:stop])).logits[0].log_softmax(-1)
            labelled = [column for column in range(start + 1, stop) if labels[column] != -100]
            here = {column: -logits[column - start - 1, labels[column]] for column in labelled}
            found += here.values()
            of_names += [here[column].item() for column in labelled if kinds[column] == NAME]
        losses.append(torch.stack(found))
    counts = [len(found) for found in losses]
    assert len(set(counts)) > 1, "else both ways are one"
    loss = torch.stack([found.mean() for found in losses]).mean() if compat == "leia" else torch.cat(losses).mean()
    loss.backward()
    norm = torch.stack([weight.grad.norm() for weight in model.parameters()]).norm()
    record = read_metrics(run)[0]
    assert record["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert record["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert record["label_tokens"] == sum(counts)
    assert record["name_label_tokens"] == len(of_names)
    assert record["name_loss"] == (pytest.approx(np.mean(of_names), rel=1e-5) if of_names else None)
    assert bool(of_names) == (compat == "none")


def test_the_gradient_is_clipped_before_the_update(arguments, tmp_path, monkeypatch):
    """Its norm is told as it was, and is at most the limit where the weights move."""
    seen = []
    update = updates.apply_update

    def look(run, rate):
        seen.append(torch.stack([weight.grad.norm() for weight in run.parallelism.model.parameters()]).norm().item())
        update(run, rate)

    monkeypatch.setattr(updates, "apply_update", look)
    assert main(arguments("--clip", 0.01, "--steps", 2)) == 0
    told = [record["gradient_norm"] for record in read_metrics(tmp_path / "run") if "loss" in record]
    assert min(told) > 0.05 and seen == pytest.approx([0.01, 0.01], rel=1e-3)


def test_the_weights_move_by_the_rate_that_is_logged(arguments, tmp_path):
    """Half the rate at the second step, half the move there: Adam's steps do not depend on the gradient's size."""
    moves = {}
    for schedule in ("constant", "linear"):
        output = tmp_path / schedule
        flags = (
            "--schedule",
            schedule,
            "--steps",
            2,
            "--warmup",
            0,
            "--weight-decay",
            0,
            "--clip",
            0,
            "--epsilon",
            1e-12,
        )
        assert main(arguments(*flags, "--learning-rate", 1e-6, output=output)) == 0
        first = load_file(output / "checkpoint-00000001/model.safetensors")
        last = load_file(output / "checkpoint-final/model.safetensors")
        moves[schedule] = torch.cat([(last[name].double() - first[name].double()).flatten() for name in first])
        assert read_metrics(output)[1]["learning_rate"] == (1e-6 if schedule == "constant" else 0.5e-6)
    assert (moves["linear"].norm() / moves["constant"].norm()).item() == pytest.approx(0.5, rel=0.02)


def test_the_markers_have_a_rate_and_logits_of_their_own(arguments, tmp_path):
    """Ten times the rate: ten times as far, and nothing else differs; out of the softmax their output rows stay."""
    plain = ("--steps", 1, "--warmup", 0, "--weight-decay", 0, "--learning-rate", 1e-4)
    flags = {"plain": (), "faster": ("--marker-learning-rate", 1e-3), "outside": ("--no-marker-logits",)}
    found = {}
    for name, more in flags.items():
        assert main(arguments(*plain, *more, output=tmp_path / name)) == 0
        found[name] = load_file(tmp_path / name / "checkpoint-final/model.safetensors")
    inside, outside = "model.embed_tokens.weight", "lm_head.weight"
    real = slice(0, len(found["plain"][outside]) - 2)
    for name in found["plain"]:
        rows = real if name in (inside, outside) else slice(None)
        assert torch.equal(found["plain"][name][rows], found["faster"][name][rows]), name
    start = base_weights(tmp_path / "plain")[outside][-2:]
    moved = {name: weights[outside][-2:] - start for name, weights in found.items()}
    torch.testing.assert_close(moved["faster"], 10 * moved["plain"], rtol=1e-2, atol=1e-7)
    assert (moved["plain"] != 0).all() and (moved["outside"] == 0).all()


def base_weights(run):
    """What a run of random weights began with."""
    from leia_train.command_configs import ExportConfig
    from leia_train.export import _load_base

    base = _load_base(ExportConfig(checkpoint="-", output="-"), run / "checkpoint-final", print)
    return {name: weight.detach() for name, weight in base.named_parameters()}


def test_how_far_the_markers_moved_is_told_from_the_runs_beginning(arguments, tmp_path, monkeypatch, capsys):
    """Also where it was killed in the middle; the share of weights that moved is told at the last step too."""
    flags = ("--save-every", 3)
    assert main(arguments(*flags, output=tmp_path / "undisturbed")) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "the markers moved by at most" in line]
    with monkeypatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(Killed):
            main(arguments(*flags))
    assert main(arguments(*flags)) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if "the markers moved by at most" in line] == told
    assert len(told) == 1
    moved = [record["moved_share"] for record in read_metrics(tmp_path / "run") if "loss" in record]
    assert [share is not None for share in moved] == [False, False, True, True]


def test_a_status_is_of_the_last_run_alone(arguments, tmp_path, monkeypatch):
    """One that was interrupted, then killed, is not interrupted any more."""
    update = updates.apply_update

    def signalled(run, rate):
        os.kill(os.getpid(), signal.SIGTERM)
        update(run, rate)

    with monkeypatch.context() as patch:
        patch.setattr(updates, "apply_update", signalled)
        assert main(arguments()) == 75
    assert (tmp_path / "run/_status.json").exists()
    with monkeypatch.context() as patch:
        kill_at(patch, 2)
        with pytest.raises(Killed):
            main(arguments())
    assert not (tmp_path / "run/_status.json").exists()

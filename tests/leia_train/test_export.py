"""Exported models are the checkpoint's, and say what a shorter type takes away."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from leia_train.cli import main
from leia_train.export import update_cosine


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards):
    """A run of two steps with a small learning rate."""
    output = tmp_path_factory.mktemp("export") / "run"
    flags = ["train", "--shards", shards, "--output", output, "--model", "tiny-llama", "--device", "cpu", "--quiet"]
    flags += ["--max-length", 24, "--batch", 4, "--steps", 2, "--learning-rate", 5e-6, "--save-every", 1]
    assert main([str(flag) for flag in flags]) == 0
    return output


def test_float32_is_the_final_checkpoint_without_what_a_resume_needs(run, tmp_path, capsys):
    """The same weights and tokenizer; loads with the auto classes."""
    assert main(["export", str(run), "--output", str(tmp_path / "model")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "model")
    final, made = (load_file(folder / "model.safetensors") for folder in (run / "checkpoint-final", tmp_path / "model"))
    assert all(torch.equal(made[name], weight) for name, weight in final.items())
    assert not (tmp_path / "model/training").exists() and not (tmp_path / "model/_COMPLETE").exists()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert len(tokenizer("<translate>", add_special_tokens=False)["input_ids"]) == 1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").dtype == torch.float32


def test_bfloat16_says_how_much_of_a_small_update_is_left(run, tmp_path, capsys):
    """At 5e-6 most of it rounds away: a warning with the cosine; the base is found by what the run notes."""
    assert (
        main(["export", str(run / "checkpoint-00000001"), "--output", str(tmp_path / "b"), "--dtype", "bfloat16"]) == 0
    )
    said = capsys.readouterr().err
    assert "warning: in bfloat16 the update has a cosine of 0." in said and "--dtype float32 keeps it" in said
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "b", dtype="auto").dtype == torch.bfloat16


def test_the_cosine_is_one_for_large_updates_and_zero_for_lost_ones():
    """Of weights that bfloat16 can tell apart, or not."""

    def layer(value):
        made = torch.nn.Linear(4, 4, bias=False)
        torch.nn.init.constant_(made.weight, value)
        return made

    assert update_cosine(layer(1.5), layer(1.0), torch.bfloat16) == pytest.approx(1)
    assert update_cosine(layer(1.0001), layer(1.0), torch.bfloat16) == 0
    assert update_cosine(layer(1.0), layer(1.0), torch.bfloat16) == 1


def test_damaged_checkpoints_folders_in_use_and_other_folders_are_refused(run, tmp_path, capsys):
    """Exit codes 3, 6 and 2; nothing is written."""
    (tmp_path / "used").mkdir()
    (tmp_path / "used/mine.txt").write_text("mine")
    assert main(["export", str(run), "--output", str(tmp_path / "used")]) == 6
    assert main(["export", str(tmp_path), "--output", str(tmp_path / "x")]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    import shutil

    copy = shutil.copytree(run / "checkpoint-final", tmp_path / "copy")
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert main(["export", str(copy), "--output", str(tmp_path / "x")]) == 3
    assert not (tmp_path / "x").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "used"]


def test_a_run_says_how_far_its_markers_moved_and_which_share_of_weights(run, capsys):
    """In its log and on the terminal."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [0.9 < record["moved_share"] <= 1 for record in records if "loss" in record] == [True, True]

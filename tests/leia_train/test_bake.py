"""Baked rows are the trainer's own, readable by datasets and by transformers' Trainer."""

import json
import shutil
import sys
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from tokenizers import Tokenizer

from leia_train import bake as bake_module
from leia_train.cli import main
from leia_train.config import DataConfig
from leia_train.insertion import MARKER, NAME
from leia_train.markers import add_markers
from leia_train.plan import TrainingPlan
from leia_train.shard_folders import open_shards
from leia_train.store import open_store

OPTIONS = ("--max-length", 24, "--validation-share", 0.3, "--seed", 9)


@pytest.fixture
def bake(shards, tmp_path):
    """Run `leia-train bake`; the folder."""

    def run(*flags, output=tmp_path / "baked", code=0):
        arguments = ["bake", "--shards", shards, "--output", output, *OPTIONS, *flags]
        assert main([str(argument) for argument in arguments]) == code
        return output

    return run


@pytest.fixture
def plan(shards, tmp_path):
    """The plan of the same options."""

    def make(**options):
        store = open_store(open_shards([str(shards)]), tmp_path / "plan")
        data = DataConfig(shards=(str(shards),), max_length=24, validation_share=0.3, **options)
        return TrainingPlan(store, data, 9, add_markers(store.tokenizer, data.markers).markers)

    return make


def rows_of(folder):
    """All rows, by the manifest's order of the files."""
    files = json.loads((folder / "_bake.json").read_text())["files"]
    return [row for file in files for row in pq.read_table(folder / file["path"]).to_pylist()]


def test_baked_rows_are_the_rows_of_a_run(bake, plan):
    """Of steps x batch rows over several files and epochs: ids, labels and positions."""
    folder = bake("--steps", 5, "--batch", 7, "--rows-per-file", 16, "--no-name-loss")
    expected = plan(name_loss=False).rows(0, 35)
    found = rows_of(folder)
    assert len(found) == 35 and len(list((folder / "data").iterdir())) == 3
    for name in ("input_ids", "labels", "position_ids"):
        assert [row[name] for row in found] == getattr(expected, name).tolist(), name
    assert plan().epoch_of_row(34) > 0
    manifest = json.loads((folder / "_bake.json").read_text())
    assert manifest["rows"] == 35 and all(len(file["sha256"]) == 64 for file in manifest["files"])


def test_a_plain_trainer_learns_from_baked_rows(bake, tmp_path):
    """datasets reads them, transformers' Trainer takes them as they are, and its loss is that of our own labels."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, default_data_collator

    folder = bake("--rows", 8)
    rows = load_dataset(
        "parquet", data_files=str(folder / "data/*.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows.column_names == ["input_ids", "labels", "position_ids"] and len(rows) == 8
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=400,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            use_cache=False,
        )
    )
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        max_steps=2,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=1,
        save_strategy="no",
    )
    before = own_loss(model, rows)
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=default_data_collator)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(before, rel=1e-3)
    assert losses[1] < losses[0]


def own_loss(model, rows):
    """The mean loss over all labels of the rows, with documents apart."""
    from leia_train.loss import TokenLoss

    batch = [torch.tensor(rows[name]) for name in ("input_ids", "position_ids", "labels")]
    with torch.no_grad():
        return TokenLoss(model)(*batch).sum().item() / int((batch[2] != -100).sum())


def test_documents_for_axolotl_are_one_a_row_and_cut_at_the_length(bake, plan):
    """Joined again they are the epoch's articles; markers and first tokens have no label."""
    folder = bake("--form", "axolotl", "--rows-per-file", 6, "--epochs", 2, "--max-length", 40)
    made_plan = plan()
    found = rows_of(folder)
    tokens = [token for row in found for token in row["input_ids"]]
    expected = [made_plan.augmented(made_plan.epoch(number), 0, len(made_plan.training_documents)) for number in (0, 1)]
    assert tokens == np.concatenate([made.tokens for made in expected]).tolist()
    kinds = np.concatenate([made.kinds for made in expected])
    lengths = [length for made in expected for length in np.diff(made.offsets).tolist()]
    assert [len(row["input_ids"]) for row in found] == [
        min(40, length - start) for length in lengths for start in range(0, length, 40)
    ]
    assert max(lengths) > 40
    at = 0
    for row in found:
        labels = [
            -100 if column == 0 or kinds[at + column] == MARKER else token
            for column, token in enumerate(row["input_ids"])
        ]
        assert row["labels"] == labels
        assert row["attention_mask"] == [1] * len(labels)
        at += len(labels)


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_texts_are_the_articles_with_their_names(bake, plan, file_format, capsys):
    """By the same draws: encoding a text gives back its tokens; the lost masks are said."""
    folder = bake("--form", "text", "--file-format", file_format, "--rows-per-file", 5)
    assert "plain text does not say which tokens have no loss" in capsys.readouterr().err
    made_plan = plan()
    epoch = made_plan.epoch(0)
    made = made_plan.augmented(epoch, 0, len(epoch.order))
    if file_format == "parquet":
        found = rows_of(folder)
    else:
        files = json.loads((folder / "_bake.json").read_text())["files"]
        found = [json.loads(line) for file in files for line in (folder / file["path"]).read_text().splitlines()]
    assert [row["page_id"] for row in found] == made_plan.store.page_ids[epoch.order].tolist()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer/tokenizer.json"))
    spans = [(begin + 1, end - 1) for begin, end in pairwise(made.offsets.tolist())]
    decoded = [tokenizer.decode(made.tokens[slice(*span)].tolist(), skip_special_tokens=False) for span in spans]
    assert [row["text"] for row in found] == decoded
    assert sum(text.count("<translate>") for text in decoded) == int((made.kinds == MARKER).sum()) // 2 > 5
    assert any("東京<translate>Tokyo</translate>は" in text for text in decoded)
    assert not any("<s>" in text or "</s>" in text for text in decoded)
    assert int((made.kinds == NAME).sum()) > 0


def test_a_baking_that_was_killed_goes_on(bake, monkeypatch, tmp_path):
    """Finished files are kept as they are; the result is that of an undisturbed one."""
    flags = ("--rows", 30, "--rows-per-file", 8)
    undisturbed = bake(*flags, output=tmp_path / "undisturbed")
    replace = bake_module.os.replace
    done = []

    def die(source, target):
        if str(target).endswith(".parquet"):
            done.append(1)
            if len(done) == 3:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(bake_module.os, "replace", die)
        bake(*flags, code=75)
    first = tmp_path / "baked/data/train-00000-of-00004.parquet"
    written = first.stat().st_mtime_ns
    assert not (tmp_path / "baked/_bake.json").exists()
    again = bake(*flags)
    assert first.stat().st_mtime_ns == written
    assert (again / "_bake.json").read_bytes() == (undisturbed / "_bake.json").read_bytes()


def test_a_folder_of_other_rows_is_refused(bake, tmp_path, capsys):
    """Another seed, or files that are not ours."""
    bake("--rows", 3)
    bake("--rows", 3, "--seed", 8, code=6)
    assert "baked with other options" in capsys.readouterr().err
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("mine")
    bake("--rows", 3, output=tmp_path / "notes", code=6)
    shutil.rmtree(tmp_path / "baked")
    bake("--rows", 3, "--file-format", "jsonl", code=2)


def test_the_store_is_not_needed_to_read_what_was_baked(bake, tmp_path):
    """Rows and tokenizer can be copied away; nothing of this machine is in the manifest."""
    folder = bake("--rows", 3)
    text = (folder / "_bake.json").read_text()
    assert str(tmp_path) not in text and sys.prefix not in text

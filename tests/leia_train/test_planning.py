"""`plan` prints what `train` then does; `doctor` says what it would find."""

import re
import shutil
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from leia_train.cli import main
from leia_train.metrics import read_metrics

RECIPE = Path(__file__).resolve().parents[2] / "recipes/leia-paper.yaml"


def plan_of(arguments, capsys, *flags, code=0, **options):
    """The lines of `plan`, by their first word."""
    assert main(["plan", *arguments(*flags, **options)[1:]]) == code
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: line for line in lines}


def number_before(line, words):
    """The number that stands before some words."""
    return int(re.search(rf"([\d,]+) {words}", line).group(1).replace(",", ""))


@pytest.mark.parametrize("budget", ["tokens", "target_tokens"])
def test_a_plan_is_what_the_run_then_does(arguments, capsys, tmp_path, budget):
    """Steps, tokens and the articles' own tokens, within the share's rounding; the store is built once."""
    flags = ("--budget", budget, "--steps", 20, "--warmup", 0, "--save-every", 0)
    lines = plan_of(arguments, capsys, *flags)
    assert main(arguments(*flags)) == 0
    records = [record for record in read_metrics(tmp_path / "run") if "loss" in record]
    assert number_before(lines["run"], "steps") == len(records) >= 20
    assert number_before(lines["run"], "tokens,") == sum(record["tokens"] for record in records)
    own = sum(record["target_tokens"] for record in records)
    assert number_before(lines["run"], "of them the articles' own") == pytest.approx(own, rel=0.05)
    if budget == "target_tokens":
        asked = 20 * 4 * 24
        assert asked <= own < asked + 4 * 24
        assert len(records) > 20
    assert "a new run" in lines["output"]
    assert "2 rows" not in lines["memory"] and "MiB" in lines["memory"]
    after = plan_of(arguments, capsys, *flags)
    assert after["run"] == lines["run"]


def test_rows_add_up_over_the_wikis(arguments, capsys, tmp_path, tokenizer_folder):
    """One line a source; together they are the epoch."""
    from shard_fixture import make_articles, write_shards

    folders = [
        write_shards(tmp_path / wiki, tokenizer_folder, make_articles(tokenizer_folder, count), wiki)
        for wiki, count in (("jawiki", 20), ("swwiki", 9))
    ]
    lines = plan_of(arguments, capsys, "--shards", *folders)
    assert {"jawiki", "swwiki"} <= set(lines)
    rows = [float(re.search(r"([\d.,]+) rows an epoch", lines[wiki]).group(1)) for wiki in ("jawiki", "swwiki")]
    assert sum(rows) * 24 == pytest.approx(number_before(lines["epoch"], "tokens:"), abs=3)
    names = sum(number_before(lines[wiki], "inserted in epoch 0") for wiki in ("jawiki", "swwiki"))
    assert names == number_before(lines["epoch"], "names")


def test_a_plan_makes_the_checks_of_a_run(arguments, capsys, tmp_path, tokenizer_folder):
    """Another tokenizer, a batch that does not fit the processes, a folder in use: the same exit codes."""
    assert main(["plan", *arguments("--nproc", 3)[1:]]) == 2
    assert "must be a multiple of the 3 processes" in capsys.readouterr().err
    assert main(["plan", *arguments("--model", tmp_path / "missing")[1:]]) == 2
    assert main(["plan", *arguments("--attention", "flash")[1:]]) == 5
    (tmp_path / "used").mkdir()
    (tmp_path / "used/mine").write_text("mine")
    assert main(["plan", *arguments(output=tmp_path / "used")[1:]]) == 6


def test_the_memory_of_a_model_is_planned_without_its_weights(arguments, capsys, tmp_path, tokenizer_folder, shards):
    """From its configuration alone: the file of weights may even be damaged."""
    config = LlamaConfig(
        vocab_size=340, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "model")
    shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path / "model")
    (tmp_path / "model/model.safetensors").write_bytes(b"damaged")
    lines = plan_of(arguments, capsys, "--model", tmp_path / "model")
    assert number_before(lines["model"], "weights") == sum(weight.numel() for weight in model.parameters())


@pytest.fixture
def llama_2_7b(tmp_path, tokenizer_folder):
    """The configuration of the paper's model, with the tests' tokenizer beside it and no weights at all."""
    folder = tmp_path / "llama-2-7b"
    LlamaConfig(
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)
    shutil.copy(tokenizer_folder / "tokenizer.json", folder)
    return folder


def test_the_papers_recipe_can_be_planned(shards, tmp_path, capsys, llama_2_7b):
    """`plan` with the recipe as it is in the repository, on generated shards and a model of the paper's sizes."""
    arguments = ["plan", "-c", RECIPE, "--shards", shards, "--output", tmp_path / "run", "--nproc", 8]
    arguments += ["--model", llama_2_7b, "--device", "cpu"]
    assert main([str(argument) for argument in arguments]) == 0
    said = capsys.readouterr()
    lines = {line.split()[0]: line for line in said.out.splitlines()}
    assert number_before(lines["run"], "steps x") == 50
    assert number_before(lines["run"], "rows x") == 2048
    assert number_before(lines["run"], "tokens,") == 50 * 2048 * 2048
    assert "cosine: 5.00e-06 at the first step, 2.50e-06 in the middle, 4.93e-09 at the last" in lines["learning"]
    assert "true, right, p 0.5, markers special" in lines["names"] and "compat leia" in lines["names"]
    assert "see each other" in lines["names"]
    assert number_before(lines["validation"], "articles, in no epoch") == 0
    assert number_before(lines["model"], "weights in float32") == 6_738_415_616
    assert (
        lines["processes"].split()[1:6] == ["8,", "256", "rows", "a", "step"]
        and "micro-batches of 1;" in lines["processes"]
    )
    assert re.search(r"optimizer 6\.3 GiB", lines["memory"]) and re.search(
        r"about [56]\d\.\d GiB a process", lines["memory"]
    )
    assert "a new run" in lines["output"]


def test_the_papers_recipe_is_the_papers():
    """Every number of the published training, read from the recipe in the repository."""
    from leia_train.recipe import train_config

    config = train_config(str(RECIPE))
    assert (config.data.strategy, config.data.probability, config.data.max_length) == ("right", 0.5, 2048)
    assert config.data.compat == "leia" and config.data.cross_document and config.data.validation_share == 0
    made = config.optimization
    assert (made.steps, made.batch, made.learning_rate, made.schedule, made.warmup) == (50, 8 * 256, 5e-6, "cosine", 0)
    assert (made.beta1, made.beta2, made.epsilon, made.weight_decay, made.clip) == (0.9, 0.95, 1e-6, 0.1, 1.0)
    assert (config.model.dtype, config.model.weights) == ("bfloat16", "float32")

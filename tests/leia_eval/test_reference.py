"""The reference profile equals an independent writing of the reference's rules, prompt by prompt and score by score."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from eval_fixtures import make_items, save_tiny_model, write_items
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from leia_beam.errors import UsageError
from leia_eval import reference
from leia_eval.preparing import PromptOptions, prepare_tasks
from leia_eval.runner import ModelOptions, run

N = 300


def rules_prompts(items: list[dict], shots: int) -> dict[str, str]:
    """The prompts of X-CSQA by the rules, written apart from the package."""
    generator = random.Random(42)
    order = list(items)
    generator.shuffle(order)

    def ask(item):
        return f"Question: {item['question']['stem']}\nAnswer:"

    def solve(item):
        texts = item["question"]["choices"]["text"]
        return f"{ask(item)} {texts['ABCDE'.index(item['answerKey'])]}\n\n"

    prompts = {}
    for item in order:
        drawn = generator.sample(order, shots + 1) if shots else []
        others = [other for other in drawn if other is not item][:shots]
        prompts[item["id"]] = "".join(map(solve, others)) + ask(item)
    return prompts


def rules_sum(model, start: list[int], rest: list[int]) -> float:
    """The sum of log-likelihoods of `rest` after `start`, in double precision."""
    ids = start + rest
    with torch.no_grad():
        logits = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
    return sum(logits[i - 1, ids[i]].item() for i in range(len(start), len(ids)))


def reference_run(model_dir: Path, data: Path, output: Path, task: str, shots: int) -> list[dict]:
    """The samples of a run in the reference profile."""
    run(
        PromptOptions(tasks=(task,), data_dir=data, profile="reference", shots=shots),
        ModelOptions(model=model_dir, batch_size=32),
        output,
    )
    return [json.loads(line) for line in (output / f"samples/{task}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def double(model_dir):
    """The tiny model in double precision, and its tokenizer without special tokens."""
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    model = LlamaForCausalLM.from_pretrained(model_dir, dtype=torch.float64).eval()
    return model, lambda text: tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("shots", [0, 2])
def test_every_prediction_of_x_csqa_is_that_of_the_rules(model_dir, double, tmp_path, shots):
    """300 items: prompts by one generator, answers tokenised apart, no BOS: sums within 1e-4, predictions equal."""
    model, encode = double
    items = make_items(N, seed=5)
    write_items(tmp_path / "data/xcsqa_ja.jsonl", items)
    rows = reference_run(model_dir, tmp_path / "data", tmp_path / "out", "leia_xcsqa_ja", shots)
    prompts = rules_prompts(items, shots)
    prepared = prepare_tasks(
        PromptOptions(tasks=("leia_xcsqa_ja",), data_dir=tmp_path / "data", profile="reference", shots=shots)
    )[0]
    assert {prepared.id_of(request.item_index): request.context for request in prepared.requests} == prompts
    equal = 0
    for row, item in zip(rows, items, strict=True):
        texts = item["question"]["choices"]["text"]
        sums = [rules_sum(model, encode(prompts[item["id"]]), encode(f" {text}")) for text in texts]
        assert row["log_likelihoods"] == pytest.approx(sums, abs=1e-4)
        top = sorted(sums)
        if top[-1] - top[-2] > 1e-4:
            assert row["prediction"] == "ABCDE"[int(np.argmax(sums))]
            equal += 1
    assert equal > N - 15


def test_every_prediction_of_x_codah_is_that_of_whole_texts_after_eos(model_dir, double, tmp_path):
    """200 items with empty stems: the likeliest text after the EOS token alone."""
    model, encode = double
    items = make_items(200, seed=6, choices=4)
    for item in items:
        item["question"]["stem"] = ""
    write_items(tmp_path / "data/xcodah_ja.jsonl", items)
    rows = reference_run(model_dir, tmp_path / "data", tmp_path / "out", "leia_xcodah_ja", 3)
    for row, item in zip(rows, items, strict=True):
        sums = [rules_sum(model, [1], encode(text)) for text in item["question"]["choices"]["text"]]
        assert row["log_likelihoods"] == pytest.approx(sums, abs=1e-4)
    assert len({row["prediction"] for row in rows}) == 4


def test_no_document_is_among_its_own_shots_and_all_have_as_many():
    """By the rules the document itself is taken out of n + 1."""
    items = make_items(12)
    shots = reference.draw_shots(items, 5, train=None)
    assert all(len(drawn) == 5 for drawn in shots.values())
    assert all(id_ not in [shot["id"] for shot in drawn] for id_, drawn in shots.items())
    assert len({tuple(shot["id"] for shot in drawn) for drawn in shots.values()}) > 6


def test_shots_from_a_training_set_and_from_a_fixed_list():
    """`sample(train, n)` by the shuffled order; the first n of a list for all; what is missing is said."""
    items, train = make_items(6), make_items(20, seed=3)
    drawn = reference.draw_shots(items, 2, train=train, needs_train=True)
    generator = random.Random(42)
    order = list(items)
    generator.shuffle(order)
    assert {item["id"]: generator.sample(train, 2) for item in order} == drawn
    fixed = reference.draw_shots(items, 2, train=train, fixed_ids=("item-0004", "item-0001", "item-0002"))
    assert all([shot["id"] for shot in shots] == ["item-0004", "item-0001"] for shots in fixed.values())
    with pytest.raises(UsageError, match="takes its shots from a training set, which is not in --data-dir"):
        reference.draw_shots(items, 2, train=None, needs_train=True)
    with pytest.raises(UsageError, match="'nobody' is not in the shots' file"):
        reference.draw_shots(items, 1, train=train, fixed_ids=("nobody",))


def test_a_context_that_is_too_long_loses_its_beginning(double, tmp_path):
    """A model of 40 tokens on items with 3 shots: the ends of the prompts by the rules, sums equal, and it is counted."""
    _, encode = double
    items = make_items(30, seed=8)
    write_items(tmp_path / "data/xcsqa_ja.jsonl", items)
    narrow = save_tiny_model(tmp_path / "narrow", seed=0, max_length=40)
    rows = reference_run(narrow, tmp_path / "data", tmp_path / "out", "leia_xcsqa_ja", 3)
    model = LlamaForCausalLM.from_pretrained(narrow, dtype=torch.float64).eval()
    prompts = rules_prompts(items, 3)
    for row, item in zip(rows, items, strict=True):
        for found, text in zip(row["log_likelihoods"], item["question"]["choices"]["text"], strict=True):
            start, rest = encode(prompts[item["id"]]), encode(f" {text}")
            if len(start) + len(rest) > 40:
                start = start[-(40 - len(rest) + 1) :]
            assert found == pytest.approx(rules_sum(model, start, rest), abs=1e-4)
    (task,) = json.loads((tmp_path / "out/results.json").read_text())["tasks"]
    assert task["cut"] == 30
    assert (
        "30 items cut from the left to the context, as the reference does." in (tmp_path / "out/report.md").read_text()
    )


def test_a_prompt_to_be_continued_keeps_256_tokens_free_and_one_that_leaves_nothing_is_refused():
    """`[-(max_length - 256):]`, whatever the answer's length."""
    assert reference.cut_context(list(range(500)), None, 512) == list(range(244, 500))
    assert reference.cut_context(list(range(9)), None, 512) == list(range(9))
    assert reference.cut_context([1, 2, 3], [4, 5], 4) == [1, 2, 3]
    assert reference.cut_context([1, 2, 3], [4, 5], 3) == [2, 3]
    for continuation, longest in ((None, 256), ([1] * 9, 8)):
        with pytest.raises(ValueError, match="no token of the context fits"):
            reference.cut_context([1, 2, 3], continuation, longest)


def test_an_answer_may_be_as_long_as_the_longest_gold_answer(double):
    """JSQuAD's length, which gives away a part of the answer."""
    _, encode = double
    assert reference.generation_length(encode, ["kasa", "東京都"]) == max(len(encode("kasa")), len(encode("東京都")))

"""Whole runs on sets that are not at hand, from generated files of their published forms: X-CODAH, XNLI, JAQKET, JSQuAD."""

import json
import random
from pathlib import Path

import pytest
import torch
from eval_fixtures import make_items, save_tiny_model, write_items
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from leia_eval import jasquad
from leia_eval.preparing import PreparedTask, PromptOptions, prepare_tasks
from leia_eval.runner import ModelOptions, run
from leia_eval.stats import wilson_interval

XNLI_HEADER = (
    "language gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse sentence1 sentence2 "
    "promptID pairID genre label1 label2 label3 label4 label5 sentence1_tokenized sentence2_tokenized match"
).split()
LABELS = ("entailment", "neutral", "contradiction")
GERMAN = ("Ja", "Auch", "Nein")


def words(draw: random.Random, n: int) -> str:
    """So many short words."""
    return " ".join("".join(draw.choice("ksanmiotu") for _ in range(4)) for _ in range(n))


def rows_of(output: Path, task: str) -> list[dict]:
    """A run's samples."""
    return [json.loads(line) for line in (output / f"samples/{task}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("profile", ["standard", "reference"])
def test_an_untrained_model_is_at_chance_on_x_codah(tmp_path, profile):
    """Four whole texts of equal length, answers uniform: random weights are inside the 99.9 % interval round 25 %."""
    items = make_items(360, seed=11, lang="jap", equal_length=True, choices=4)
    draw = random.Random(12)
    for item in items:
        item["question"]["stem"] = ""
        item["question"]["choices"]["text"] = [words(draw, 5) for _ in range(4)]
    write_items(tmp_path / "data/X-CODAH/jap/dev.jsonl", items)
    model = save_tiny_model(tmp_path / "model", seed=0)
    results = run(
        PromptOptions(tasks=("leia_xcodah_ja",), data_dir=tmp_path / "data", profile=profile),
        ModelOptions(model=model, batch_size=64, untrained_seed=5),
        tmp_path / "out",
    )
    (task,) = results["tasks"]
    assert (task["n"], task["chance"], task["clusters"], task["shots"]) == (360, 0.25, 360, 0)
    low, high = wilson_interval(task["scores"]["acc"]["correct"], 360, confidence=0.999)
    assert low <= 0.25 <= high
    predictions = [row["prediction"] for row in rows_of(tmp_path / "out", "leia_xcodah_ja")]
    assert min(predictions.count(label) for label in "ABCD") > 40, "the model must choose among all of them"


@pytest.fixture(scope="module")
def xnli(tmp_path_factory) -> tuple[Path, list[dict], list[dict]]:
    """The published file of all languages, ten premises of three hypotheses each, and a training file of German."""
    folder = tmp_path_factory.mktemp("xnli")
    draw = random.Random(3)
    items, lines = [], ["\t".join(XNLI_HEADER)]
    for number in range(30):
        if number % 3 == 0:
            premise = words(draw, 6)
        for language in ("en", "de", "sw"):
            item = {"premise": f"{language} {premise}", "hypothesis": words(draw, 4), "label": draw.randrange(3)}
            cells = dict.fromkeys(XNLI_HEADER, "x") | {
                "language": language, "gold_label": LABELS[item["label"]], "sentence1": item["premise"],
                "sentence2": item["hypothesis"], "promptID": str(number // 3), "pairID": str(number),
            }  # fmt: skip
            lines.append("\t".join(cells[name] for name in XNLI_HEADER))
            if language == "de":
                items.append(item)
    (folder / "xnli.test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    train = [{"premise": words(draw, 5), "hypothesis": words(draw, 3), "label": draw.randrange(3)} for _ in range(20)]
    (folder / "xnli_de_train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train), encoding="utf-8")
    return folder, items, train


@pytest.mark.parametrize("shots", [0, 2])
def test_xnli_is_three_whole_texts_after_eos_and_its_premise_is_the_cluster(model_dir, tmp_path, xnli, shots):
    """Against the reference's rule written out: solved texts of `sample(train, n)` before, sums over all of it."""
    folder, items, train = xnli
    prompts = PromptOptions(tasks=("leia_xnli_de",), data_dir=folder, profile="reference", shots=shots)
    results = run(prompts, ModelOptions(model=model_dir, batch_size=32), tmp_path / "out")
    (task,) = results["tasks"]
    assert (task["n"], task["clusters"], task["without_answer"], round(task["chance"], 3)) == (30, 10, 60, 0.333)
    generator = random.Random(42)
    order = list(range(30))
    generator.shuffle(order)

    def text(item: dict, label: int) -> str:
        return f"{item['premise']}, richtig? {GERMAN[label]}, {item['hypothesis']}"

    before = {
        number: "".join(text(shot, shot["label"]) + "\n\n" for shot in generator.sample(train, shots))
        for number in order
    }
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    model = LlamaForCausalLM.from_pretrained(model_dir, dtype=torch.float64).eval()
    for number, (row, item) in enumerate(zip(rows_of(tmp_path / "out", "leia_xnli_de"), items, strict=True)):
        for label, found in enumerate(row["log_likelihoods"]):
            ids = tokenizer.encode(before[number] + text(item, label), add_special_tokens=False).ids
            with torch.no_grad():
                logits = torch.log_softmax(model(torch.tensor([[1, *ids]])).logits[0], dim=-1)
            assert found == pytest.approx(sum(logits[i, token].item() for i, token in enumerate(ids)), abs=2e-4)
        assert row["answer"] == LABELS[item["label"]]


def jaqket(n: int, seed: int) -> list[dict]:
    """Questions with seven passages, of which the third or none has the answer."""
    draw = random.Random(seed)
    return [
        {
            "qid": f"QA-{seed}-{i}",
            "question": f"{words(draw, 3)}？",
            "answers": {"text": [words(draw, 1), words(draw, 2)], "answer_start": [-1, -1]},
            "ctxs": {
                "id": list("1234567"),
                "title": list("abcdefg"),
                "text": [words(draw, 4) for _ in range(7)],
                "has_answer": [k == 2 and i % 2 == 0 for k in range(7)],
            },
        }
        for i in range(n)
    ]


def prepared(data: Path, task: str, monkeypatch) -> PreparedTask:
    """A task in the reference profile, whether its scorer is installed or not."""
    monkeypatch.setattr(jasquad, "is_installed", lambda: True)
    return prepare_tasks(PromptOptions(tasks=(task,), data_dir=data, profile="reference"))[0]


def test_jaqkets_prompt_is_that_of_the_harness(tmp_path, monkeypatch):
    """One shot from the training set with its first useful passage, then five passages, question and answer's mark."""
    items, train = jaqket(12, 1), jaqket(9, 2)
    for name, rows in (("jaqket_v2.jsonl", items), ("jaqket_v2_train.jsonl", train)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = prepared(tmp_path, "leia_jaqket_v2", monkeypatch)
    generator = random.Random(42)
    order = list(items)
    generator.shuffle(order)
    shots = {item["qid"]: generator.sample(train, 1)[0] for item in order}
    for request, item in zip(task.requests, items, strict=True):
        shot = shots[item["qid"]]
        useful = shot["ctxs"]["text"][2 if True in shot["ctxs"]["has_answer"] else 0]
        assert request.context == (
            "質問に対する回答を文章から一言で抽出してください。回答は名詞で答えてください。\n\n"
            f"文章:{useful}\n質問:{shot['question']}\n回答:{shot['answers']['text'][0]}\n\n"
            f"文章:{chr(10).join(item['ctxs']['text'][:5])}\n質問:{item['question']}\n回答:"
        )
        assert (request.until, request.length_of) == (("\n",), tuple(item["answers"]["text"]))


def test_jsquads_prompt_is_that_of_the_reference(tmp_path, monkeypatch):
    """Four shots of `sample(train, 4)`, the passage without its title."""
    sets = {}
    for name, n, seed in (("valid-v1.3.json", 5, 3), ("train-v1.3.json", 8, 4)):
        draw = random.Random(seed)
        sets[name] = [
            {"title": f"t{i}", "context": words(draw, 6), "id": f"{seed}-{i}", "question": words(draw, 3), "answer": words(draw, 1)}
            for i in range(n)
        ]  # fmt: skip
        articles = [
            {
                "title": row["title"],
                "paragraphs": [
                    {
                        "context": f"{row['title']} [SEP] {row['context']} ",
                        "qas": [{"id": row["id"], "question": row["question"], "answers": [{"text": row["answer"]}]}],
                    }
                ],
            }
            for row in sets[name]
        ]
        (tmp_path / name).write_text(json.dumps({"version": "1.1", "data": articles}), encoding="utf-8")
    items, train = sets.values()
    task = prepared(tmp_path, "leia_jsquad", monkeypatch)
    generator = random.Random(42)
    order = list(items)
    generator.shuffle(order)
    shots = {item["id"]: generator.sample(train, 4) for item in order}

    def asked(row: dict) -> str:
        return (
            "### 指示:\n与えられた文脈から、質問に対する答えを抜き出してください。\n\n"
            f"### 入力:\n文脈：{row['context']}\n質問：{row['question']}\n\n### 応答:\n"
        )

    for request, item in zip(task.requests, items, strict=True):
        solved = "".join(asked(shot) + shot["answer"] + "\n\n" for shot in shots[item["id"]])
        start = (
            "以下は、タスクを説明する指示と、文脈のある入力の組み合わせです。要求を適切に満たす応答を書きなさい。\n\n"
        )
        assert request.context == start + solved + asked(item)


def test_jaqket_and_x_codah_run_whole_beside_each_other(model_dir, tmp_path):
    """Generated answers with flags and sums of texts in one run, from a folder alone."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "jaqket_v2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in jaqket(6, 5)), encoding="utf-8")
    items = make_items(6, choices=4)
    for item in items:
        item["question"]["stem"] = ""
    write_items(data / "xcodah_ja.jsonl", items)
    prompts = PromptOptions(tasks=("leia_jaqket_v2", "leia_xcodah_ja"), data_dir=data, shots=1)
    results = run(
        prompts, ModelOptions(model=save_tiny_model(tmp_path / "m", seed=0, max_length=2048)), tmp_path / "out"
    )
    first, second = results["tasks"]
    assert (first["n"], first["chance"], set(first["flags"])) == (
        6, None, {"wrong_script", "english_name", "marker", "no_end"},
    )  # fmt: skip
    assert {"exact_match", "char_f1"} <= set(first["scores"])
    assert (second["n"], second["chance"], second["flags"]) == (6, 0.25, None)

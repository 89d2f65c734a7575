"""Scores equal an independent computation, item by item, and do not depend on what they should not depend on."""

import hashlib
import json
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from eval_fixtures import make_items, save_tiny_model, write_items
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from leia_beam.errors import DamagedInput, UsageError
from leia_eval import models
from leia_eval.cli import main
from leia_eval.encoding import encode_requests
from leia_eval.preparing import PromptOptions, draw_items, prepare_tasks
from leia_eval.runner import ModelOptions, run
from leia_eval.stats import wilson_interval


def scored(model, data, output, **options) -> tuple[dict, dict[str, list[dict]]]:
    """A run's results and samples."""
    tasks = tuple(options.pop("tasks", ("leia_sample_ja",)))
    of_model = {name: options.pop(name) for name in ("batch_size", "dtype") if name in options}
    prompts = PromptOptions(tasks=tasks, data_dir=data, **options)
    results = run(prompts, ModelOptions(model=model, **of_model), output)
    return results, {name: rows_of(output, name) for name in tasks}


def rows_of(output, task="leia_sample_ja") -> list[dict]:
    """A run's samples of one task."""
    return [json.loads(line) for line in (output / f"samples/{task}.jsonl").read_text().splitlines()]


def independent_log_likelihoods(model_dir, context: str, continuations: list[str]) -> list[float]:
    """One unbatched forward pass a choice; ids from tokenizer.json by the tokenizers library alone."""
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    model = LlamaForCausalLM.from_pretrained(model_dir, dtype=torch.float64).eval()
    prompt = tokenizer.encode(context).ids
    found = []
    for continuation in continuations:
        whole = tokenizer.encode(context + continuation).ids
        with torch.no_grad():
            log_probabilities = torch.log_softmax(model(torch.tensor([whole])).logits[0], dim=-1)
        found.append(sum(log_probabilities[i - 1, whole[i]].item() for i in range(len(prompt), len(whole))))
    return found


@pytest.mark.parametrize("shots", [0, 2])
def test_every_log_likelihood_and_prediction_equals_an_independent_computation(model_dir, data_dir, tmp_path, shots):
    """100 items: sums within 1e-4 and predictions by sum, per character and per byte equal; so the accuracies do."""
    results, samples = scored(model_dir, data_dir, tmp_path / "out", shots=shots)
    items = {item["id"]: item for item in make_items(100)}
    rows = samples["leia_sample_ja"]
    assert [row["id"] for row in rows] == list(items)
    from leia_eval.prompts import ShotPool

    pool = ShotPool(list(items.values()))
    right = {"acc": 0, "acc_norm": 0, "acc_bytes": 0}
    close = 0
    for row in rows:
        item = items[row["id"]]
        choices = item["question"]["choices"]
        context = ""
        for shot in pool.draw(item, shots, 42):
            answer = shot["question"]["choices"]["text"]["ABCDE".index(shot["answerKey"])]
            context += f"Question: {shot['question']['stem']}\nAnswer: {answer}\n\n"
        context += f"Question: {item['question']['stem']}\nAnswer:"
        expected = np.array(independent_log_likelihoods(model_dir, context, [f" {text}" for text in choices["text"]]))
        assert row["log_likelihoods"] == pytest.approx(expected, abs=1e-4)
        assert row["prompt_sha256"] == hashlib.sha256(context.encode()).hexdigest()
        lengths = {
            "acc": np.ones(5),
            "acc_norm": np.array([len(text) for text in choices["text"]]),
            "acc_bytes": np.array([len(text.encode()) for text in choices["text"]]),
        }
        gold = choices["label"].index(item["answerKey"])
        for metric, length in lengths.items():
            best = np.sort(expected / length)
            if best[-1] - best[-2] < 1e-4:  # equal choices: the first counts, which rounding could turn
                close += 1
                continue
            assert row[metric] == int(np.argmax(expected / length) == gold), (row["id"], metric)
        assert row["prediction"] == choices["label"][int(np.argmax(row["log_likelihoods"]))]
        for metric in right:
            right[metric] += row[metric]
    assert close <= 9
    task = results["tasks"][0]
    assert {metric: task["scores"][metric]["correct"] for metric in right} == right
    assert (task["scores"]["acc"]["low"], task["scores"]["acc"]["high"]) == wilson_interval(right["acc"], 100)
    assert (task["n"], task["chance"]) == (100, 0.2)
    assert len({row["prediction"] for row in rows}) == 5, "the model must not always say the same"


def test_lm_evals_own_entry_gives_the_same_scores(model_dir, data_dir, tmp_path):
    """The task files under lm_eval.simple_evaluate, without this package's runner, with the same seed and shots."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    from leia_eval.catalog import TASKS_FOLDER

    results, samples = scored(model_dir, data_dir, tmp_path / "out", tasks=["leia_sample_es"], shots=2)
    manager = TaskManager(include_path=TASKS_FOLDER, include_defaults=False, metadata={"data_dir": str(data_dir)})
    found = lm_eval.simple_evaluate(
        "hf",
        {"pretrained": str(model_dir), "dtype": "float32"},
        tasks=["leia_sample_es"],
        task_manager=manager,
        num_fewshot=2,
        fewshot_random_seed=42,
        device="cpu",
        batch_size=3,
        bootstrap_iters=0,
    )
    scores = found["results"]["leia_sample_es"]
    for metric in ("acc", "acc_norm", "acc_bytes"):
        assert scores[f"{metric},none"] == results["tasks"][0]["scores"][metric]["value"]
    ours = [row["log_likelihoods"] for row in samples["leia_sample_es"]]
    theirs = [[answer[0] for answer in row["filtered_resps"]] for row in found["samples"]["leia_sample_es"]]
    assert np.array(ours) == pytest.approx(np.array(theirs), abs=1e-4)


def test_pmi_is_what_the_question_adds_to_each_answer(model_dir, data_dir, tmp_path):
    """log P(answer | question) - log P(answer | nothing), each by an independent pass, and the prediction by it."""
    _, samples = scored(model_dir, data_dir, tmp_path / "out", tasks=["leia_sample_es"], pmi=True)
    items = {item["id"]: item for item in make_items(30, seed=1, lang="es", choices=3)}
    others = 0
    for row in samples["leia_sample_es"]:
        item = items[row["id"]]
        choices = [f" {text}" for text in item["question"]["choices"]["text"]]
        context = f"Question: {item['question']['stem']}\nAnswer:"
        given = np.array(independent_log_likelihoods(model_dir, context, choices))
        alone = np.array(independent_log_likelihoods(model_dir, "", choices))
        assert row["unconditional"] == pytest.approx(alone, abs=1e-4)
        best = int(np.argmax(given - alone))
        assert row["acc_pmi"] == int("ABC"[best] == item["answerKey"])
        others += best != int(np.argmax(given))
    assert others > 3, "PMI must choose otherwise sometimes"


@pytest.mark.parametrize("other", ["weights", "dtype", "settings", "untrained"])
def test_runs_that_share_a_cache_answer_as_alone(model_dir, other_model_dir, data_dir, tmp_path, other):
    """Another model, dtype, generation setting or random weights behind the same prompts: never the first one's answers."""
    changed = Path(shutil.copytree(model_dir, tmp_path / "model"))
    options: dict = {}
    if other == "weights":
        shutil.copy(other_model_dir / "model.safetensors", changed / "model.safetensors")
    elif other == "dtype":
        options["dtype"] = "bfloat16"
    elif other == "untrained":
        options["untrained_seed"] = 3
    else:
        config = json.loads((changed / "generation_config.json").read_text())
        (changed / "generation_config.json").write_text(json.dumps({**config, "repetition_penalty": 1.5}))
    prompts = PromptOptions(tasks=("leia_sample_es",), data_dir=data_dir, limit=8)
    run(prompts, ModelOptions(model=model_dir, cache_dir=tmp_path / "cache"), tmp_path / "first")
    run(prompts, ModelOptions(model=changed, cache_dir=tmp_path / "cache", **options), tmp_path / "second")
    run(prompts, ModelOptions(model=changed, **options), tmp_path / "alone")
    work = json.loads((tmp_path / "second/run.json").read_text())
    assert work["answers_from_cache"] == 0
    assert rows_of(tmp_path / "second", "leia_sample_es") == rows_of(tmp_path / "alone", "leia_sample_es")
    if other != "settings":  # which decides generated texts alone
        assert rows_of(tmp_path / "first", "leia_sample_es") != rows_of(tmp_path / "alone", "leia_sample_es")


def test_two_runs_write_the_same_bytes(model_dir, data_dir, finished_run, tmp_path):
    """results.json, samples and both reports are equal byte for byte; times stand in run.json alone."""
    arguments = ["--model", str(model_dir), "--data-dir", str(data_dir), "--output", str(tmp_path / "again")]
    assert main(["run", "--tasks", "leia_sample_ja,leia_sample_es", *arguments]) == 0
    first, second = (
        {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.parent.name != "cache"
        }
        for folder in (finished_run, tmp_path / "again")
    )
    assert set(first) == set(second)
    assert {name for name in first if first[name] != second[name]} <= {"run.json", "eval.log"}
    assert "elapsed_s" in json.loads((finished_run / "run.json").read_text())


def test_batch_size_and_limit_change_no_items_score(model_dir, data_dir, finished_run, tmp_path):
    """Other batches, and a run over ten of the items only, give the log-likelihoods of the whole run."""
    whole = {row["id"]: row for row in rows_of(finished_run)}
    results, samples = scored(model_dir, data_dir, tmp_path / "out", batch_size=1, limit=10)
    assert (results["tasks"][0]["n"], results["tasks"][0]["items_in_file"]) == (10, 100)
    for row in samples["leia_sample_ja"]:
        assert row["stem"] == whole[row["id"]]["stem"]
        assert row["log_likelihoods"] == pytest.approx(whole[row["id"]]["log_likelihoods"], abs=1e-4)


def test_a_limit_above_one_tasks_items_takes_all_of_them(model_dir, data_dir, tmp_path):
    """--limit 40 over sets of 100 and 30 items scores 40 and 30."""
    results, _ = scored(model_dir, data_dir, tmp_path / "out", tasks=["leia_sample_ja", "leia_sample_es"], limit=40)
    assert [task["n"] for task in results["tasks"]] == [40, 30]


@given(ids=st.lists(st.text(max_size=5), unique=True, min_size=1, max_size=30), n=st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_items_are_drawn_by_id_whatever_the_order_and_fewer_are_a_part_of_more(ids, n):
    """In the file's order, as many as asked for; another order of the file draws the same ids."""
    drawn = draw_items(ids, n, 42)
    assert drawn == sorted(drawn) and len(drawn) == min(n, len(ids))
    assert set(drawn) <= set(draw_items(ids, n + 1, 42))
    turned = ids[::-1]
    assert {turned[i] for i in draw_items(turned, n, 42)} == {ids[i] for i in drawn}


def test_two_languages_draw_the_same_items_and_another_seed_draws_others(model_dir, tmp_path):
    """So clusters across languages stay whole under --limit."""
    for name, lang in (("jawiki", "ja"), ("eswiki", "es")):
        write_items(tmp_path / f"data/{name}.jsonl", make_items(60, lang=lang))
    tasks = ("leia_sample_ja", "leia_sample_es")

    def drawn(**options) -> list[list[str]]:
        prepared = prepare_tasks(PromptOptions(tasks=tasks, data_dir=tmp_path / "data", limit=15, **options))
        return [[task.id_of(index) for index in task.scored] for task in prepared]

    first, second = drawn()
    assert first == second and len(first) == 15 and first != drawn(limit_seed=1)[0]
    assert first == drawn(seed=1)[0], "the seed of the shots draws no items"


def test_an_untrained_model_is_at_chance_on_choices_of_equal_length(tmp_path):
    """Answers uniform over five equally long choices: accuracy inside its 99.9 % interval round 20 %, seed fixed."""
    write_items(tmp_path / "data/jawiki.jsonl", make_items(600, seed=9, equal_length=True))
    model = save_tiny_model(tmp_path / "model", seed=9)
    results, _ = scored(model, tmp_path / "data", tmp_path / "out", batch_size=64)
    for metric in ("acc", "acc_norm", "acc_bytes"):
        low, high = wilson_interval(results["tasks"][0]["scores"][metric]["correct"], 600, confidence=0.999)
        assert low <= 0.2 <= high
    predictions = [row["prediction"] for row in rows_of(tmp_path / "out")]
    assert min(predictions.count(label) for label in "ABCDE") > 60, "the model must choose among all of them"


def test_the_result_says_what_was_measured(model_dir, data_dir, finished_run):
    """Hashes of data and weights, dtype, versions, options; and no path of this machine."""
    text = (finished_run / "results.json").read_text()
    results = json.loads(text)
    weights = {"model.safetensors": hashlib.sha256((model_dir / "model.safetensors").read_bytes()).hexdigest()}
    assert results["model"]["weights_sha256"] == hashlib.sha256(json.dumps(weights).encode()).hexdigest()
    assert results["model"]["stored_dtypes"] == ["F32"]
    assert results["model"]["computed_dtype"] == "float32"
    assert results["tasks"][0]["data_sha256"] == hashlib.sha256((data_dir / "jawiki.jsonl").read_bytes()).hexdigest()
    assert results["versions"]["lm_eval"] == metadata.version("lm_eval")
    assert str(model_dir) not in text
    assert str(data_dir) not in text


def test_an_item_longer_than_the_context_is_named_before_the_weights_are_read(tmp_path, monkeypatch):
    """The line names item, choice, place and both lengths; nothing is written."""
    model = save_tiny_model(tmp_path / "model", seed=0, max_length=64)
    items = make_items(3)
    items[1]["question"]["choices"]["text"][2] = "kasatana" * 12
    path = write_items(tmp_path / "data/jawiki.jsonl", items)
    monkeypatch.setattr(models, "load_model", None)  # calling it would be a TypeError
    message = r"item 'item-0001' \(choice 'C'\) of leia_sample_ja at .*jawiki.jsonl:2 is \d+ tokens long with its shots"
    with pytest.raises(UsageError, match=f"{message}, and the model reads 64; lower --shots"):
        scored(model, path.parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_item_that_just_fits_is_scored_uncut(tmp_path):
    """At the context's exact length, where one more token would be refused, the score is still the independent one."""
    items = make_items(1)
    items[0]["question"]["choices"]["text"] = ["kasa" * 9, "a", "b", "c", "d"]
    write_items(tmp_path / "data/jawiki.jsonl", items)
    context = f"Question: {items[0]['question']['stem']}\nAnswer:"
    model = save_tiny_model(tmp_path / "wide", seed=0)
    length = len(Tokenizer.from_file(str(model / "tokenizer.json")).encode(f"{context} {'kasa' * 9}").ids) - 1
    exact = save_tiny_model(tmp_path / "exact", seed=0, max_length=length)
    _, samples = scored(exact, tmp_path / "data", tmp_path / "out")
    expected = independent_log_likelihoods(exact, context, [f" {'kasa' * 9}"])
    assert samples["leia_sample_ja"][0]["log_likelihoods"][0] == pytest.approx(expected[0], abs=1e-4)
    narrow = save_tiny_model(tmp_path / "narrow", seed=0, max_length=length - 1)
    with pytest.raises(UsageError, match=f"is {length} tokens long"):
        scored(narrow, tmp_path / "data", tmp_path / "out-narrow")


def test_a_model_that_answers_nan_stops_the_run_and_names_the_item(data_dir, tmp_path):
    """NaN weights: one line with item and choice, exit code 3, and no results."""
    model = save_tiny_model(tmp_path / "model", seed=0)
    broken = LlamaForCausalLM.from_pretrained(model)
    broken.model.layers[1].mlp.up_proj.weight.data[:] = float("nan")
    broken.save_pretrained(model)
    message = r"of item 'item-\d{4}' \(choice '[A-E]'\) of leia_sample_ja at .*jawiki.jsonl:\d+ is nan"
    with pytest.raises(DamagedInput, match=f"the model's log-likelihood {message}"):
        scored(model, data_dir, tmp_path / "out")
    assert not (tmp_path / "out/results.json").exists()


def test_bfloat16_is_near_float32_and_said_to_be_bfloat16(model_dir, data_dir, finished_run, tmp_path):
    """The dtype reaches the model: other log-likelihoods, close to the first, and the result says which."""
    results, samples = scored(model_dir, data_dir, tmp_path / "out", dtype="bfloat16", limit=10)
    whole = rows_of(finished_run)
    found = np.concatenate([row["log_likelihoods"] for row in samples["leia_sample_ja"]])
    ids = {row["id"] for row in samples["leia_sample_ja"]}
    expected = np.concatenate([row["log_likelihoods"] for row in whole if row["id"] in ids])
    assert results["model"]["computed_dtype"] == "bfloat16"
    assert found == pytest.approx(expected, rel=0.1)
    assert np.abs(found - expected).max() > 1e-3


class FakeEncoder:
    """An encoder that gives what it was told."""

    max_length, longest_pair, vocabulary_size, profile = 10, 11, 50, "standard"

    def __init__(self, context, continuation):
        self.encoded = context, continuation

    def encode_pair(self, context, continuation):
        return self.encoded


@pytest.mark.parametrize(
    ("context", "continuation", "message"),
    [
        ([1, 2], [], r"item 'item-0002' \(choice 'A'\) of leia_sample_es at .* has no token of its own: ' \w+' after"),
        ([1, 2], [50], r"item 'item-0002' .* holds token id 50, and the model has 50 embeddings"),
        ([1] * 10, [2, 3], r"item 'item-0002' .* is 11 tokens long with its shots, and the model reads 10"),
    ],
)
def test_requests_that_a_model_cannot_score_are_refused(data_dir, context, continuation, message):
    """A choice without tokens, ids beyond the embeddings, and one token too many; what just fits passes."""
    prepared = prepare_tasks(PromptOptions(tasks=("leia_sample_es",), data_dir=data_dir, limit=2))
    with pytest.raises(UsageError, match=message):
        encode_requests(prepared[0], FakeEncoder(context, continuation))
    assert encode_requests(prepared[0], FakeEncoder([49] * 10, [49]))

"""Shots are a function of seed, document and set, and never hold the document's own question."""

from pathlib import Path

import pytest
from eval_fixtures import make_items, write_items
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_beam.errors import UsageError
from leia_eval.preparing import PromptOptions, prepare_tasks
from leia_eval.prompts import FixedShots, ShotPool

TWINS = [*make_items(6), {**make_items(1)[0], "id": "twin"}]  # two ids, one question


@given(n=st.integers(0, 5), seed=st.integers(0, 99), index=st.integers(0, 6), order=st.permutations(TWINS))
@settings(max_examples=60, deadline=None)
def test_shots_are_distinct_others_whatever_the_files_order(n, seed, index, order):
    """No document, nor its twin, is among its own shots; the order of the file changes nothing."""
    document = TWINS[index]
    shots = ShotPool(order).draw(document, n, seed)
    assert len({shot["id"] for shot in shots}) == n
    assert all(shot["question"]["stem"] != document["question"]["stem"] for shot in shots)
    assert shots == ShotPool(TWINS).draw(document, n, seed)


@pytest.mark.parametrize("shared", ["context", "premise", "question"])
def test_what_two_items_share_is_never_in_the_others_prompt(shared):
    """A passage with several questions, a premise with several hypotheses, a question asked twice: eight of two kinds."""
    documents = [
        {"id": str(i), "question": f"q{i}", "context": "", "answers": ["a"], shared: f"the {'ab'[i % 2]}"}
        for i in range(8)
    ]
    pool = ShotPool(documents)
    for document in documents:
        drawn = [shot[shared] for shot in pool.draw(document, 4, 7)]
        assert drawn == ["the b" if document[shared] == "the a" else "the a"] * 4


def test_another_seed_and_another_document_draw_other_shots():
    """Draws differ between documents and between seeds, and all documents are drawn somewhere."""
    items = make_items(30)
    pool = ShotPool(items)
    drawn = {(item["id"], seed): [shot["id"] for shot in pool.draw(item, 4, seed)] for item in items for seed in (1, 2)}
    assert len(set(map(tuple, drawn.values()))) == 60
    assert {shot for shots in drawn.values() for shot in shots} == {item["id"] for item in items}


def test_a_draw_is_pinned():
    """Prompts of published scores stay the same: this draw may never change."""
    shots = ShotPool(make_items(20)).draw(make_items(1)[0], 4, 42)
    assert [shot["id"] for shot in shots] == ["item-0004", "item-0013", "item-0007", "item-0003"]


def test_too_few_documents_for_the_shots():
    """The message has the numbers, and what to lower."""
    with pytest.raises(UsageError, match=r"3 shots for item 'item-0000' but only 2 other questions"):
        ShotPool(make_items(3)).draw(make_items(1)[0], 3, 0)


def test_the_sampler_must_know_which_document_is_evaluated():
    """A task whose two splits differ would let a document into its own prompt: refused."""
    with pytest.raises(ValueError, match="fewshot_split must equal test_split"):
        FixedShots(make_items(3)).sample(1)


def contexts(data_dir: Path, **options) -> dict[str, str]:
    """Each item's prompt as lm-eval builds it."""
    task = prepare_tasks(PromptOptions(tasks=("leia_sample_ja",), data_dir=data_dir, **options))[0]
    return {task.items.documents[request.item_index]["id"]: request.context for request in task.requests}


def test_lm_evals_prompts_are_the_template_over_these_shots(data_dir):
    """Whole prompts, for every item: shots with answers, blank lines between, and the item's own question last."""
    items = {item["id"]: item for item in make_items(100)}
    pool = ShotPool(list(items.values()))

    def question(item):
        return f"Question: {item['question']['stem']}\nAnswer:"

    def answer(item):
        choices = item["question"]["choices"]
        return choices["text"][choices["label"].index(item["answerKey"])]

    found = contexts(data_dir, shots=3, seed=5)
    for name, item in items.items():
        shots = [f"{question(shot)} {answer(shot)}\n\n" for shot in pool.draw(item, 3, 5)]
        assert found[name] == "".join(shots) + question(item)
        assert found[name].count(item["question"]["stem"]) == 1


def test_shots_do_not_depend_on_the_limit(data_dir):
    """The first seven prompts are the same with --limit 7 and without."""
    limited, whole = contexts(data_dir, shots=2, limit=7), contexts(data_dir, shots=2)
    assert len(limited) == 7
    assert limited == {name: whole[name] for name in limited}
    assert limited != contexts(data_dir, shots=2, limit=7, seed=1)


def test_the_prompts_are_equal_for_every_share_of_a_run_on_several_processes(data_dir):
    """lm-eval's request builder, asked for both halves of two processes, gives the prompts of one."""
    task = prepare_tasks(PromptOptions(tasks=("leia_sample_ja",), data_dir=data_dir, shots=2))[0]
    whole = {instance.doc["id"]: instance.args[0] for instance in task.task.instances}
    parts = {}
    for rank in (0, 1):
        task.task.build_all_requests(rank=rank, world_size=2)
        parts |= {instance.doc["id"]: instance.args[0] for instance in task.task.instances}
    assert parts == whole
    assert len(parts) == 100


def test_text_that_looks_like_a_template_is_text(tmp_path):
    """Braces, quotes and digits in items reach the prompt and the choices as they are."""
    items = make_items(2)
    items[0]["question"]["stem"] = "{{ 7 * 7 }} {% raw %}"
    items[0]["question"]["choices"]["text"] = ["1", "['a']", 'it\'s "x"', "{{id}}", "a\\nb"]
    write_items(tmp_path / "jawiki.jsonl", items)
    task = prepare_tasks(PromptOptions(tasks=("leia_sample_ja",), data_dir=tmp_path))[0]
    first = [request for request in task.requests if request.item_index == 0]
    assert first[0].context == "Question: {{ 7 * 7 }} {% raw %}\nAnswer:"
    assert [request.continuation for request in first] == [" 1", " ['a']", ' it\'s "x"', " {{id}}", " a\\nb"]

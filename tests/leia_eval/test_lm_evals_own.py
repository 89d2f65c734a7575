"""Tasks that lm-eval brings run through the same answers and cache; the hub's rows are stood in for by generated ones."""

import json
from pathlib import Path

import datasets
import pytest

from leia_eval.preparing import PromptOptions
from leia_eval.runner import ModelOptions, run

ROWS = {
    "facebook/belebele": [
        {
            "link": f"article-{i // 2}",
            "question_number": i,
            "flores_passage": f"kasa {i}",
            "question": f"sa {i}?",
            **{f"mc_answer{k}": f"ta{k}" for k in range(1, 5)},
            "correct_answer_num": str(1 + i % 4),
        }
        for i in range(6)
    ],
    "Muennighoff/xwinograd": [
        {"sentence": f"kasa {i} _ tana", "option1": "sa", "option2": "ta", "answer": str(1 + i % 2)} for i in range(6)
    ],
    "juletxara/mgsm": [
        {"question": f"{i} + 1?", "answer": None, "answer_number": i + 1, "equation_solution": None} for i in range(3)
    ],
}


TASKS = {"belebele_spa_Latn": ("acc", 3), "xwinograd_en": ("acc", 6), "mgsm_direct_es": ("exact_match", 3)}
"""Choices after a prompt, one ending after two contexts, text through lm-eval's filters: metric, and clusters."""


@pytest.fixture(scope="module")
def output(model_dir, tmp_path_factory) -> Path:
    """One run of all three: lm-eval reads the list of all its tasks once."""

    def load(path, name=None, **_kwargs):
        rows = datasets.Dataset.from_list(ROWS[path])
        return datasets.DatasetDict({"test": rows, "train": rows})

    output = tmp_path_factory.mktemp("own") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", load)
        run(PromptOptions(tasks=tuple(TASKS)), ModelOptions(model=model_dir), output)
    return output


@pytest.mark.parametrize("task", TASKS)
def test_a_task_of_lm_evals_own_is_scored(output, task):
    """The mean of its rows, prompts of their own, and clusters by article where rows name one."""
    metric, clusters = TASKS[task]
    (found,) = (of for of in json.loads((output / "results.json").read_text())["tasks"] if of["name"] == task)
    rows = [json.loads(line) for line in (output / f"samples/{task}.jsonl").read_text().splitlines()]
    assert (found["metric"], found["n"], found["clusters"]) == (metric, len(rows), clusters)
    assert found["scores"][metric]["value"] == pytest.approx(sum(row[metric] for row in rows) / len(rows))
    assert len({row["prompt_sha256"] for row in rows}) == len(rows)

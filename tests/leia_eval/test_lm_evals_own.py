"""Tasks that lm-eval brings run through the same answers and cache; the hub's rows are stood in for by generated ones."""

import json

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


@pytest.mark.parametrize(
    ("task", "metric", "clusters"),
    [("belebele_spa_Latn", "acc", 3), ("xwinograd_en", "acc", 6), ("mgsm_direct_es", "exact_match", 3)],
)
def test_a_task_of_lm_evals_own_is_scored(model_dir, tmp_path, monkeypatch, task, metric, clusters):
    """Choices after a prompt, one ending after two contexts, and text through lm-eval's filters; clusters by article."""

    def load(path, name=None, **_kwargs):
        rows = datasets.Dataset.from_list(ROWS[path])
        return datasets.DatasetDict({"test": rows, "train": rows})

    monkeypatch.setattr(datasets, "load_dataset", load)
    results = run(PromptOptions(tasks=(task,)), ModelOptions(model=model_dir), tmp_path / "out")
    (found,) = results["tasks"]
    rows = [json.loads(line) for line in (tmp_path / f"out/samples/{task}.jsonl").read_text().splitlines()]
    assert (found["metric"], found["n"], found["clusters"]) == (metric, len(rows), clusters)
    assert found["scores"][metric]["value"] == pytest.approx(sum(row[metric] for row in rows) / len(rows))
    assert len({row["prompt_sha256"] for row in rows}) == len(rows)

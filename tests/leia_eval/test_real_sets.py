"""The published files themselves, where they are at hand: counts, clusters, and whole runs with a tiny random model."""

import json
from pathlib import Path

import pytest
from eval_fixtures import save_tiny_model

from leia_eval.catalog import read_catalog
from leia_eval.cli import main
from leia_eval.documents import read_source
from leia_eval.preparing import PromptOptions, prepare_tasks
from leia_eval.prompts import ShotPool

DATA = Path(__file__).parents[3] / "shared/data/eval"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the published sets at {DATA}")


@pytest.mark.parametrize(
    ("task", "items", "clusters", "without_answer", "shots"),
    [
        ("leia_jcommonsenseqa", 1119, 1119, 0, None),
        ("leia_jsquad", 4442, 59, 0, None),
        ("leia_niilc", 198, 192, 2, 795),
        ("leia_jemhopqa", 120, 114, 0, 1059),
        ("leia_xcopa_it", 500, 500, 0, 100),
    ],
)
def test_the_published_files_have_these_items(task, items, clusters, without_answer, shots):
    """LEIA's 198 questions of NIILC are 200 less two that have no answer; JSQuAD's come from 59 articles."""
    source = read_catalog()[task].source
    data = read_source(source, DATA, task)
    assert len(data.items.documents) == items
    assert len({document["cluster"] for document in data.items.documents}) == clusters
    assert data.items.without_answer == without_answer
    assert (len(data.shots.documents) if data.shots else None) == shots


def test_the_references_shots_are_in_the_files_and_stand_first():
    """NIILC and JEMHopQA: the same four for every item, in the list's order, and never the item itself."""
    for task in prepare_tasks(
        PromptOptions(tasks=("leia_niilc", "leia_jemhopqa"), data_dir=DATA, profile="reference", limit=5)
    ):
        starts = {request.context.rsplit("### 入力：", 1)[0] for request in task.requests}
        assert len(starts) == 1
        assert starts.pop().count("### 回答：\n") == 4


def test_shots_of_jsquad_never_hold_the_items_own_passage():
    """Without a training file shots are from the same set, and another question on the passage would be a leak.

    By the id alone, a dozen of these 17,768 draws would be of the item's own passage.
    """
    documents = read_source(read_catalog()["leia_jsquad"].source, DATA, "leia_jsquad").items.documents
    pool = ShotPool(documents)
    for document in documents:
        assert document["context"] not in [shot["context"] for shot in pool.draw(document, 4, 42)]


def test_real_items_are_scored_offline_with_a_small_random_model(tmp_path, capsys):
    """JCommonsenseQA, NIILC, JEMHopQA and XCOPA from the folder alone; chance and flags are reported, not asserted."""
    model = save_tiny_model(tmp_path / "model", seed=0, max_length=4096)
    tasks = "leia_jcommonsenseqa,leia_niilc,leia_jemhopqa,leia_xcopa_it"
    options = {"--model": model, "--data-dir": DATA, "--output": tmp_path / "out", "--limit": 20, "--shots": 1}
    flat = [str(part) for option in options.items() for part in option]
    assert main(["run", "--tasks", tasks, "--pmi", *flat]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    found = {task["name"]: task for task in results["tasks"]}
    assert {name: task["n"] for name, task in found.items()} == dict.fromkeys(tasks.split(","), 20)
    assert [found[name]["chance"] for name in tasks.split(",")] == [0.2, None, None, 0.5]
    assert set(found["leia_xcopa_it"]["scores"]) == {"acc", "acc_norm", "acc_bytes", "acc_pmi"}
    assert set(found["leia_niilc"]["flags"]) == {"wrong_script", "english_name", "marker", "no_end"}
    assert found["leia_jemhopqa"]["from_wikipedia"]
    assert "without an end" in capsys.readouterr().out


def test_jsquad_runs_on_the_published_file_and_a_limit_draws_from_many_articles(tmp_path):
    """40 of 4,442 questions with a small random model: from far more articles than the first 40, which are of one."""
    model = save_tiny_model(tmp_path / "model", seed=0, max_length=4096)
    options = {"--model": model, "--data-dir": DATA, "--output": tmp_path / "out", "--limit": 40, "--batch-size": 40}
    flat = [str(part) for option in options.items() for part in option]
    assert main(["run", "--tasks", "leia_jsquad", *flat]) == 0
    (task,) = json.loads((tmp_path / "out/results.json").read_text())["tasks"]
    assert (task["n"], task["items_in_file"], task["from_wikipedia"]) == (40, 4442, True)
    assert task["clusters"] > 20
    rows = [json.loads(line) for line in (tmp_path / "out/samples/leia_jsquad.jsonl").read_text().splitlines()]
    assert len({row["prompt_sha256"] for row in rows}) == 40


def test_dry_run_of_real_items_prints_whole_prompts(capsys):
    """Three a task, with gold answers or marked choices."""
    options = ["--data-dir", str(DATA), "--limit", "20"]
    assert main(["run", "--dry-run", "--tasks", "leia_niilc,leia_jcommonsenseqa", *options]) == 0
    text = capsys.readouterr().out
    assert text.count("-- item ") == 6
    assert text.count("### 回答：\n\n * ") == 3
    assert text.count("\n * ") == 6

"""What scores depend on is told before a model is read, and results that were made otherwise are refused with what differs."""

import json
import shutil
from pathlib import Path

import pytest

from leia_eval.cli import main
from leia_eval.run_folder import RESULTS

TASKS = "leia_sample_ja,leia_sample_es"


@pytest.fixture
def run_folder(finished_run, tmp_path) -> Path:
    """A copy of finished results."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def data(data_dir, tmp_path) -> Path:
    """A copy of their data."""
    return Path(shutil.copytree(data_dir, tmp_path / "data"))


def check(capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and the error of `run --check`."""
    code = main(["run", "--check", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_results_of_the_same_options_and_data_are_as_asked_for(capsys, run_folder, data):
    """A model that is not there is none of this command's business, nor is a folder without results."""
    arguments = ["--model", "nowhere", "--data-dir", data, "--output"]
    code, out, _ = check(capsys, *arguments, run_folder, "--tasks", TASKS)
    found = json.loads(out)
    assert code == 0 and found["differing"] == [] and found["options"]["batch_size"] == 8
    stored = {task["name"]: task["data_sha256"] for task in json.loads((run_folder / RESULTS).read_text())["tasks"]}
    assert {name: sums["items"] for name, sums in found["tasks"].items()} == stored
    assert check(capsys, *arguments, run_folder.parent / "none", "--tasks", "leia_sample_ja")[0] == 0


@pytest.mark.parametrize(
    ("more", "differs"),
    [
        (("--limit", 3), r"(limit None there, 3 now; limit_seed None there, 42 now)"),
        (("--batch-size", 9, "--shots", 1), "(shots None there, 1 now; batch_size 8 there, 9 now)"),
        (("--tasks", "leia_sample_ja"), "(task leia_sample_es there alone)"),
        (("--tasks", "leia_sample,leia_xcsqa_ja"), "(task leia_xcsqa_ja now alone)"),
    ],
)
def test_other_options_and_tasks_are_named(capsys, run_folder, data, more, differs):
    """Exit 6; with --overwrite they are told and not refused."""
    tasks = [] if "--tasks" in more else ["--tasks", TASKS]
    arguments = ["--model", "m", "--data-dir", data, "--output", run_folder, *tasks, *more]
    code, out, err = check(capsys, *arguments)
    assert code == 6 and out == "" and f"holds the results of another run {differs}; give another folder" in err
    code, out, err = check(capsys, *arguments, "--overwrite")
    assert code == 0 and f"({'; '.join(json.loads(out)['differing'])})" == differs


def test_changed_data_are_named_and_missing_ones_are_not(capsys, run_folder, data):
    """By the file's sum; shots' files where there were shots."""
    arguments = ["--model", "m", "--data-dir", data, "--output", run_folder, "--tasks", TASKS]
    with (data / "eswiki.jsonl").open("a") as file:
        file.write("\n")
    code, _, err = check(capsys, *arguments)
    assert code == 6 and "(leia_sample_es of other items)" in err
    (data / "eswiki.jsonl").unlink()
    assert check(capsys, *arguments)[0] == 0
    (run_folder / RESULTS).write_text("{")
    code, _, err = check(capsys, *arguments)
    assert code == 6 and "its results cannot be read" in err


def test_shots_of_a_file_that_changed_are_named(capsys, run_folder, data):
    """Where the results say that shots came from one."""
    results = json.loads((run_folder / RESULTS).read_text())
    (task,) = [task for task in results["tasks"] if task["name"] == "leia_sample_ja"]
    task["shots_sha256"] = "0" * 64
    (run_folder / RESULTS).write_text(json.dumps(results))
    code, _, err = check(
        capsys, "--model", "m", "--data-dir", data, "--output", run_folder, "--tasks", "leia_sample_ja,leia_sample_es"
    )
    assert code == 6 and "(leia_sample_ja with other shots)" in err

"""Tasks are scored while training by leia-eval, in a process of its own that training waits for and can end."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from leia_beam.errors import DamagedInput, LeiaError, MissingResource, UsageError
from leia_train import tasks
from leia_train.cli import main
from leia_train.config import RunConfig
from leia_train.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/data/sample/eval"
FLAGS = ("--eval-tasks", "leia_sample_ja", "--eval-tasks-data", DATA, "--eval-tasks-limit", 3)


@pytest.fixture(autouse=True)
def from_this_tree(monkeypatch):
    """The other process imports what this one does."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_tasks_are_scored_at_their_steps_and_at_the_end(arguments, tmp_path, capsys):
    """By a checkpoint that is written for it and removed, and by the final one; log, status and folder have them."""
    flags = (*FLAGS, "--eval-tasks-every", 2, "--save-every", 0, "--steps", 3, "--max-length", 24)
    assert main(arguments(*flags)) == 0
    run = tmp_path / "run"
    scored = {record["step"]: record["tasks"] for record in read_metrics(run) if "tasks" in record}
    assert list(scored) == [2, 3]
    for step, found in scored.items():
        assert list(found) == ["leia_sample_ja"] and found["leia_sample_ja"]["n"] == 3, step
        folder = run / "tasks" / ("checkpoint-final" if step == 3 else f"checkpoint-{step:08d}")
        (task,) = json.loads((folder / "results.json").read_text())["tasks"]
        assert found["leia_sample_ja"]["score"] == task["scores"][task["metric"]]["value"]
    assert json.loads((run / "_status.json").read_text())["tasks"] == scored[3]
    assert "task leia_sample_ja: " in capsys.readouterr().err
    assert not list(run.glob(".tmp-*")) and not (run / "checkpoint-00000002").exists()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--eval-tasks", "leia_smaple_ja", "--eval-tasks-data", DATA), 2, "--eval-tasks: .*leia_smaple_ja"),
        (("--eval-tasks", "leia_sample_ja", "--eval-tasks-data", ROOT / "missing"), 2, "--eval-tasks: .*missing"),
    ],
)
def test_tasks_that_cannot_be_scored_stop_a_run_before_its_first_step(
    arguments, tmp_path, capsys, flags, code, message
):
    """With what leia-eval says, and its exit code."""
    import re

    assert main(arguments(*flags)) == code
    said = capsys.readouterr().err
    assert re.search(message, said) and len(said.splitlines()) == 1, said
    assert not (tmp_path / "run/_run.json").exists()


def test_without_tasks_no_module_of_the_evaluation_is_loaded():
    """Nor is lm-eval needed."""
    import subprocess

    program = "import sys, leia_train.train\nprint([name for name in sys.modules if name.split('.')[0] in "
    program += "('leia_eval', 'lm_eval', 'datasets')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tasks_need_their_packages(monkeypatch):
    """Said with the extra that has them."""
    monkeypatch.setattr(tasks.importlib.util, "find_spec", lambda name: None if name == "lm_eval" else 1)
    with pytest.raises(MissingResource, match=r"lm_eval is not installed: pip install 'leia-lm\[eval\]'"):
        tasks.check_tasks(RunConfig(output="-", eval_tasks=("x",)))


def stand_in(monkeypatch, program):
    """Run a program in leia-eval's place."""
    popen = tasks.subprocess.Popen
    started = []

    def start(command, **options):
        started.append(popen([sys.executable, "-c", program], **options))
        return started[-1]

    monkeypatch.setattr(tasks.subprocess, "Popen", start)
    return started


@pytest.mark.parametrize(("code", "kind"), [(2, UsageError), (3, DamagedInput), (5, MissingResource), (9, LeiaError)])
def test_exit_codes_of_a_scoring_become_the_runs_own(monkeypatch, code, kind):
    """With its last line; a process that only fills its pipe is read all the time."""
    program = f"import sys; print('x' * 200_000, file=sys.stderr); print('why', file=sys.stderr); sys.exit({code})"
    stand_in(monkeypatch, program)
    with pytest.raises(kind, match=r"^--eval-tasks: why$") as raised:
        tasks._run([], lambda: False)
    assert raised.type is kind


def test_a_scoring_ends_where_the_training_is_told_to_stop(monkeypatch):
    """Whatever it is at, and it leaves nothing behind."""
    (started, asked) = stand_in(monkeypatch, "import time; time.sleep(600)"), []
    assert not tasks._run([], lambda: bool(asked) or asked.append(1))
    assert started[0].poll() is not None


def test_a_scoring_knows_whose_step_it_is(monkeypatch):
    """So that it ends with a training that is killed, and does not keep the GPU's memory."""
    stand_in(monkeypatch, "import os, sys; sys.exit(os.environ.get('LEIA_PARENT') != str(os.getppid()))")
    assert tasks._run([], lambda: False)


def test_a_scoring_that_fails_costs_no_step(arguments, tmp_path, monkeypatch, capsys):
    """The state is saved; without the tasks, or once they work, the same command goes on from there."""
    monkeypatch.setattr("leia_train.train.check_tasks", lambda settings: None)
    monkeypatch.setattr("leia_train.evaluating.score_tasks", lambda *args, **options: (_ for _ in ()).throw(_full()))
    flags = ("--save-every", 0, "--steps", 3, "--eval-tasks", "x", "--eval-tasks-every", 2)
    assert main(arguments(*flags)) == 5
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-00000002"]
    capsys.readouterr()
    assert main(arguments("--save-every", 0, "--steps", 3)) == 0
    assert "after step 2" in capsys.readouterr().err


def _full():
    return MissingResource("--eval-tasks: out of memory")


def test_a_signal_while_tasks_are_scored_is_gone_on_with(arguments, tmp_path, monkeypatch):
    """75, and the scoring is done when the run goes on."""
    calls = []

    def score(settings, checkpoint, output, *, stopped, **options):
        calls.append(checkpoint.name)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            end = time.monotonic() + 60
            while not stopped() and time.monotonic() < end:
                time.sleep(0.01)
            return None
        return {"x": tasks.TaskScore(metric="acc", score=0.5, n=1, chance=None)}

    monkeypatch.setattr("leia_train.train.check_tasks", lambda settings: None)
    monkeypatch.setattr("leia_train.evaluating.score_tasks", score)
    flags = ("--save-every", 0, "--steps", 3, "--eval-tasks", "x", "--eval-tasks-every", 2)
    assert main(arguments(*flags)) == 75
    assert main(arguments(*flags)) == 0
    assert calls == ["checkpoint-00000002", "checkpoint-00000002", "checkpoint-final"]
    assert [record["step"] for record in read_metrics(tmp_path / "run") if "tasks" in record] == [2, 3]


def test_results_that_are_not_leia_evals_are_refused(tmp_path):
    """With the file."""
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(DamagedInput, match=r"results.json: not the results of leia-eval"):
        tasks.read_scores(tmp_path)


def test_a_scoring_is_no_process_of_the_launcher():
    """It would wait for the others of a group that it is not in."""
    environment = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "TORCHELASTIC_RUN_ID": "y", "PATH": "/bin"}
    environment |= {"LEIA_TRAIN_RENDEZVOUS": "z", "ACCELERATE_USE_CPU": "true", "HF_TOKEN": "t"}
    assert tasks.own_environment(environment) == {"PATH": "/bin", "HF_TOKEN": "t"}

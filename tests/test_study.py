"""`leia-train study`: a recipe's arms and seeds are trained, scored and compared; it goes on, skips, and refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from leia_beam.cli import main as build
from leia_beam.errors import Interrupted, LeiaError, OtherBuild, UsageError
from leia_beam.recipe import Recipe, read_recipe
from leia_train import opening, study_work
from leia_train.cli import main
from leia_train.command_configs import StudyConfig
from leia_train.study import study_runs
from leia_train.study_notes import read_notes
from leia_train.study_state import Study
from leia_train.study_steps import run_step
from tests.conftest import ROOT, SAMPLE_SOURCES, Sample
from tests.leia_train.interrupting import held

LIMIT_S = 600
"""Of a wait that ends at once but for a fault."""
RECIPE = """\
name: a small study
folder: work
corpus: {{wiki: ja, pages: "{pages}", wikidata: "{wikidata}", tokenizer: "{tokenizer}"}}
training:
  model: tiny-llama
  tiny_hidden_size: 16
  tiny_intermediate_size: 32
  tiny_layers: 1
  tiny_heads: 2
  tiny_kv_heads: 1
  max_length: 256
  batch: 4
  micro_batch: 4
  steps: 30
  learning_rate: 1e-3
  save_every: 1
  validation_share: 0.05
  device: cpu
  tracker: none
evaluation:
  tasks: leia_sample_ja
  data_dir: {data}
  limit: 6
  contamination: ${{folder}}/seen.json
  contamination_n: 4
arms:
  plain: {{training: {{strategy: none}}}}
  leia: {{}}
seeds: [1, 2]
primary: {{arm: leia, against: plain, metric: acc, groups: [leia_sample]}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sample: Sample) -> Iterator[Path]:
    """A folder with a recipe, its data and its corpus, which is the working folder of these tests."""
    made = tmp_path_factory.mktemp("study")
    shutil.copytree(SAMPLE_SOURCES / "eval", made / "data")
    (made / "recipe.yaml").write_text(
        RECIPE.format(
            pages=sample.pages("jawiki"),
            wikidata=sample.wikidata,
            tokenizer=sample.tokenizer,
            data="data",
        )
    )
    before = Path.cwd()
    os.chdir(made)
    try:
        assert build(["build", "-c", "recipe.yaml", "--quiet"]) == 0
        assert (made / "work/corpus/shards/_manifest.json").is_file()
        yield made
    finally:
        os.chdir(before)


def study(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a study in a process of its own."""
    command = [sys.executable, "-m", "leia_train", "study", "-c", "recipe.yaml", *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return done.returncode, done.stdout, done.stderr


def times() -> dict[Path, int]:
    """When each file of the study was written, but for what says how often it was looked at."""
    return {path: path.stat().st_mtime_ns for path in Path("work").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def first_seed(folder: Path) -> tuple[int, str, str]:
    """The study of the first seed alone, from nothing."""
    return study("--seeds", "1")


def test_a_study_trains_scores_and_compares_all_arms(first_seed: tuple[int, str, str]) -> None:
    """Two runs in their folders, each with its own arm and seed and the same prompts; the report has the primary endpoint."""
    code, out, err = first_seed
    assert code == 0, err
    assert "training plain-1 (1 of 2)" in err and "scoring leia-1 (2 of 2)" in err and "comparing the arms" in err
    for place in (
        "plain-1: model work/training/plain-1/checkpoint-final, scores work/evaluation/plain-1/report.html",
        "test items in the corpus: work/seen.json",
        "curves of the trainings: work/report/training.html",
        "comparison: work/report/comparison.html and work/report/comparison.md",
    ):
        assert place in out.splitlines()
    assert re.search(
        r"^primary endpoint: leia minus plain [+-]\d+\.\d points, 95 % interval .* over 1 tasks$", out, re.M
    )
    runs = {
        arm: json.loads(Path(f"work/training/{arm}-1/_run.json").read_bytes())["identity"] for arm in ("plain", "leia")
    }
    assert (runs["plain"]["strategy"], runs["leia"]["strategy"]) == ("none", "right")
    assert {run["seed"] for run in runs.values()} == {1}
    comparison = json.loads(Path("work/report/comparison.json").read_bytes())
    assert comparison["primary"]["tasks"] == ["leia_sample_ja"] and comparison["base"] == "plain"
    assert comparison["tasks"]["leia_sample_ja"]["seen"] is not None, "the search for test items is part of the report"
    assert "Primary endpoint." in Path("work/report/comparison.html").read_text()
    assert "plain-1" in Path("work/report/training.html").read_text()
    assert "Training of 2 runs" in Path("work/report/training.html").read_text()


def test_the_same_study_again_does_nothing(first_seed: tuple[int, str, str]) -> None:
    """No file is written again, and it is said where everything is."""
    before = times()
    code, out, err = study("--seeds", "1")
    assert code == 0 and out == first_seed[1]
    assert err.count("training: finished; scores: finished") == 2 and "scoring" not in err
    assert times() == before


def test_a_dry_run_says_what_is_there_and_what_is_missing(first_seed: tuple[int, str, str]) -> None:
    """Nothing is written."""
    before = times()
    code, out, err = study("--dry-run")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "plain-1  training: finished; scores: finished",
        "leia-1   training: finished; scores: finished",
        "plain-2  training: a new run; scores: to do",
        "leia-2   training: a new run; scores: to do",
        "test items in the corpus are looked for: work/seen.json",
        "report: work/report",
    ]
    assert times() == before


def test_a_changed_recipe_is_refused_before_anything_is_done(first_seed: tuple[int, str, str]) -> None:
    """Exit 6 with what differs, also where the first run that is missing would come before; finished runs stay."""
    before = times()
    code, _, err = study("--set", "training.learning_rate=2e-3")
    assert code == 6 and err.count("\n") == 1
    assert (
        "plain-1: --output work/training/plain-1: holds a run with other options (learning_rate 0.001 -> 0.002)" in err
    )
    assert err.endswith("also trained otherwise: leia-1\n")
    code, _, err = study("--set", "evaluation.limit=5")
    assert code == 6 and err.count("\n") == 1
    assert "plain-1: --output work/evaluation/plain-1 holds the results of another run (limit 6 there, 5 now)" in err
    assert err.endswith("--set evaluation.overwrite=true scores again what differs; also scored otherwise: leia-1\n")
    assert times() == before


def test_changed_data_are_refused_before_anything_is_done(first_seed: tuple[int, str, str]) -> None:
    """Scores of two data sets are never compared: by the file's sum, for all runs; what is not there is no reason."""
    before = times()
    data = Path("data/jawiki.jsonl")
    content = data.read_bytes()
    try:
        data.write_bytes(b"".join(content.splitlines(keepends=True)[1:]))
        code, out, err = study()
        assert code == 6 and out == "" and err.count("\n") == 1
        assert "plain-1: " in err and "(leia_sample_ja of other items)" in err
        assert err.endswith("also scored otherwise: leia-1\n")
        code, out, _ = study("--dry-run", "--arms", "leia", "--set", "evaluation.overwrite=true")
        assert code == 0 and out.count("leia-1  training: finished; scores: to do") == 1
        data.unlink()
        assert study("--seeds", "1")[0] == 0
    finally:
        data.write_bytes(content)
    assert times() == before


def test_ctrl_c_keeps_what_is_there_and_the_same_command_goes_on(
    first_seed: tuple[int, str, str], tmp_path: Path
) -> None:
    """SIGINT in the training of the third run: exit 75, one line, no process left; then all four runs are compared."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    environment = held(environment, tmp_path, steps=3, of="plain-2")
    command = [sys.executable, "-m", "leia_train", "study", "-c", "recipe.yaml"]
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's job in the background ignores it
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=listen, env=environment
    )
    metrics = Path("work/training/plain-2/metrics.jsonl")
    while not (metrics.is_file() and metrics.read_bytes().count(b"\n") == 3):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 75, err
    lines = [line for line in err.splitlines() if "interrupted in the training of plain-2" in line]
    assert len(lines) == 1 and "2 of 4 runs are trained and scored, and what was begun is kept" in lines[0]
    assert "Traceback" not in err and "SIGTERM" not in err and out == ""
    assert [line for line in err.splitlines() if "interrupted" in line] == lines, "its step leaves that to the study"
    assert json.loads(Path("work/training/plain-2/_status.json").read_bytes())["status"] == "interrupted"
    assert re.search(r"^plain-2  training: goes on after step \d;", study("--dry-run")[1], re.M), "it was held there"
    finished = {path: time for path, time in times().items() if {"plain-1", "leia-1"} & set(path.parts)}
    code, out, err = study()
    assert code == 0, err
    assert "training plain-2 (1 of 2)" in err and "training plain-1" not in err and "training leia-1" not in err
    comparison = json.loads(Path("work/report/comparison.json").read_bytes())
    assert comparison["arms"] == {"plain": ["plain[1]", "plain[2]"], "leia": ["leia[1]", "leia[2]"]}
    assert comparison["primary"]["seeds"] == [2, 2]
    assert {path: time for path, time in times().items() if path in finished} == finished
    before = times()
    code, out, err = study("--seeds", "1")  # a part of the study leaves the report of the whole
    assert code == 0 and times() == before
    assert "in the report too: plain-2, leia-2" in out.splitlines() and "report: work/report" in err.splitlines()
    assert "plain-2" in Path("work/report/training.html").read_text()


def test_a_damaged_or_missing_note_costs_a_scoring_from_kept_answers(first_seed: tuple[int, str, str]) -> None:
    """The note is a hint alone: without it the scores are the same, and with a changed model they are made again."""
    results = Path("work/evaluation/plain-1/results.json").read_bytes()
    Path("work/report/study.json").write_text("[1")
    code, _, err = study("--seeds", "1", "--arms", "plain")
    assert code == 0, err
    assert "scoring plain-1 (1 of 1)" in err and "one arm alone: nothing to compare" in err
    assert "warning: not in the report: leia-1: nothing says that its scores are of the model that is there" in err
    assert Path("work/evaluation/plain-1/results.json").read_bytes() == results


def test_a_lost_checkpoint_is_trained_again(first_seed: tuple[int, str, str]) -> None:
    """A run whose final checkpoint lacks a file is no finished one."""
    shutil.copytree("work/training/leia-1", "saved")
    try:
        next(Path("work/training/leia-1/checkpoint-final").glob("*.safetensors")).unlink()
        assert "leia-1   training: goes on after step 29; scores: to do" in study("--dry-run", "--seeds", "1")[1]
    finally:
        shutil.rmtree("work/training/leia-1")
        shutil.move("saved", "work/training/leia-1")


def recipe_of(text: str) -> Recipe:
    """A recipe of a few words."""
    Path("small.yaml").write_text(text)
    return read_recipe("small.yaml")


def names_of(recipe: Recipe, **chosen: tuple[object, ...]) -> list[str]:
    """The names of a study's runs."""
    return [run.name for run in study_runs(recipe, StudyConfig(**chosen))]


def test_runs_are_arms_by_seeds_and_models_that_are_not_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed by seed, so that a first comparison is possible early; chosen arms and seeds alone."""
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of(
        "folder: f\narms: {base: {evaluation: {model: m}}, plain: {}, leia: {training: {steps: 3}}}\nseeds: [3, 1]"
    )
    assert names_of(recipe) == ["base", "plain-3", "leia-3", "plain-1", "leia-1"]
    assert names_of(recipe, arms=("leia", "base"), seeds=(1,)) == ["base", "leia-1"]
    runs = study_runs(recipe, StudyConfig())
    assert [str(run.scores) for run in runs[:2]] == ["f/evaluation/base", "f/evaluation/plain-3"]
    assert runs[0].folder is None and str(runs[1].folder) == "f/training/plain-3"
    assert names_of(recipe_of("folder: f")) == ["leia-42"]
    with pytest.raises(UsageError, match=r"--arms lea: the recipe has base, plain, leia; did you mean 'leia'\?"):
        names_of(recipe, arms=("lea",))
    with pytest.raises(UsageError, match=r"--seeds 2: the recipe has 3, 1"):
        names_of(recipe, seeds=(2,))
    with pytest.raises(UsageError, match=r"small.yaml: a study needs `folder`"):
        names_of(recipe_of("seeds: [1]"))
    with pytest.raises(UsageError, match=r"training.output is one folder for 2 runs; leave it out and give `folder`"):
        names_of(recipe_of("folder: f\nseeds: [1, 2]\ntraining: {output: o}"))


def test_test_items_are_looked_for_again_where_what_is_trained_on_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards, or the content of what is searched beside them; not where that is gone, which a finished search stands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("one")
    recipe = recipe_of("folder: f\ntraining: {model: tiny-llama, shards: s, mix: ['b=b.txt:0.1']}")
    parts = {"recipe": recipe, "flags": ["-c", "small.yaml"], "loudness": [], "runs": [], "contamination": Path("seen")}
    study = Study(**dict.fromkeys(Study.__dataclass_fields__) | parts | {"notes": read_notes(tmp_path / "notes.json")})
    mix = ["a=a.txt:0.1"]
    told_config = "evaluation:\n  contamination_mix: {}  # default"
    monkeypatch.setattr(study_work, "output_of", lambda words, what: told_config.format(json.dumps(mix)))
    monkeypatch.setattr(study_work, "run_step", lambda words, what: (tmp_path / "seen").write_text("{}"))

    def looked() -> bool:
        opening.source_fingerprint.cache_clear()
        told: list[str] = []
        study_work._search_for_items(study, told.append)
        return bool(told)

    assert looked() and not looked()
    (tmp_path / "a.txt").write_text("two")
    assert looked() and not looked()
    (tmp_path / "f/corpus/shards").mkdir(parents=True)
    (tmp_path / "f/corpus/shards/_manifest.json").write_text("{}")
    assert looked() and not looked()
    (tmp_path / "seen").unlink()
    assert looked() and not looked()
    (tmp_path / "a.txt").unlink()
    assert not looked()
    (tmp_path / "a.txt").write_text("three")
    assert looked() and not looked()
    mix[:] = ["none"]
    assert looked() and not looked()
    (tmp_path / "a.txt").write_text("four")
    assert not looked(), "it is not searched"


def test_a_study_needs_a_recipe_and_starts_its_processes_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Exit 2, one line."""
    monkeypatch.chdir(tmp_path)
    assert main(["study"]) == 2
    assert "give the study's recipe with -c FILE" in capsys.readouterr().err
    recipe_of("folder: f")
    monkeypatch.setenv("RANK", "0")
    assert main(["study", "-c", "small.yaml"]) == 2
    assert "a study starts its processes itself" in capsys.readouterr().err


def test_what_a_step_ends_with_is_what_the_study_ends_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit codes of the contract become its errors, others a plain one; an interruption is one."""
    (tmp_path / "ends.py").write_text(
        "import os, sys\nn = int(sys.argv[1])\nos.kill(os.getpid(), -n) if n < 0 else sys.exit(n)"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    run_step(["ends", "0"], "x")
    for number, error in ((2, UsageError), (6, OtherBuild), (75, Interrupted), (9, LeiaError), (-15, Interrupted)):
        with pytest.raises(error, match="the step") as caught:
            run_step(["ends", str(number)], "the step")
        assert type(caught.value) is error
    (tmp_path / "knows.py").write_text("import os, sys\nsys.exit(os.environ['LEIA_PARENT'] != str(os.getppid()))")
    run_step(["knows"], "a step that ends with a study that is killed")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

"""A recipe of one's own, for the sample's Spanish wiki: fetch from a mirror, build, and a study, in three commands."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from leia_beam.cli import main as leia_beam
from leia_beam.configuration import parse
from leia_beam.errors import UsageError
from leia_eval.cli import main as leia_eval
from leia_eval.recipe import run_options as scoring_options
from leia_train.cli import main as leia_train
from leia_train.recipe import train_config
from leia_train.train import train
from pipelines.build import build_corpus
from pipelines.flink import FlinkOptions
from pipelines.recipe import build_options
from tests.conftest import SAMPLE_SOURCES, Sample
from tests.local_mirror import serving, write_mirror

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sample: Sample) -> Iterator[Path]:
    """A working folder with the CPU's recipe, changed by hand for another language and a model that is not fetched."""
    made = tmp_path_factory.mktemp("own")
    text = (ROOT / "recipes/cpu.yaml").read_text(encoding="utf-8")
    for before, after in (
        ("language: sw", "language: es"),
        ("model: Qwen/Qwen3-0.6B-Base", "model: tiny-llama"),
        ("  tokenizer: ${model}\n", f"  tokenizer: {sample.tokenizer}\n  mirror: MIRROR\n"),
        ("  marker_logits: false\n", "  marker_logits: false\n  tracker: none\n"),
        ("steps: 20", "steps: 3"),
        ("batch: 8", "batch: 4"),
        (
            "tasks: leia_xcsqa_${language},leia_xcsqa_en",
            f"tasks: leia_sample_es\n  data_dir: {SAMPLE_SOURCES / 'eval'}",
        ),
        ("limit: 100", "limit: 8"),
        ("groups: [leia_xcsqa]", "groups: [leia_sample]"),
        ("seeds: [1, 2, 3]", "seeds: [7]"),
    ):
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (made / "es.yaml").write_text(text, encoding="utf-8")
    here = Path.cwd()
    os.chdir(made)
    try:
        yield made
    finally:
        os.chdir(here)


@pytest.fixture(scope="module")
def corpus(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fetch` and `build` with the recipe alone."""
    patch = pytest.MonkeyPatch()
    patch.setenv("NO_PROXY", "127.0.0.1")
    with serving(write_mirror(tmp_path_factory.mktemp("mirror"))) as server, patch.context():
        recipe = folder / "es.yaml"
        recipe.write_text(recipe.read_text().replace("MIRROR", server.address))
        assert leia_beam(["fetch", "-c", "es.yaml", "--quiet"]) == 0
    assert leia_beam(["build", "-c", "es.yaml", "--quiet"]) == 0
    patch.undo()
    return folder / "work/cpu/es/corpus"


def test_fetched_dumps_are_what_every_command_takes(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build's manifests name them, and the stages and `plan` find them by the lock in the recipe's folder."""
    inputs = json.loads((corpus / "articles/_manifest.json").read_text())["inputs"]
    assert [entry["name"] for entry in inputs] == ["eswiki-20260101-pages-articles-multistream.xml.bz2"]
    for command, flag in (("articles", "pages"), ("sitelinks", "wikidata"), ("plan", "pages"), ("plan", "wikidata")):
        assert leia_beam([command, "-c", "es.yaml", "--print-config"]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"  {flag}: "))
        assert "work/cpu/es/dumps/" in line and line.endswith("# fetched, derived from folder, es.yaml:13"), line
    assert leia_beam(["stats", "-c", "es.yaml"]) == 0
    assert leia_beam(["validate", "-c", "es.yaml"]) == 0


def test_every_command_says_from_the_recipe_what_it_would_do(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is trained: the build's stages, the training's amounts, three prompts, the study's runs."""
    assert leia_beam(["build", "-c", "es.yaml", "--dry-run"]) == 0
    assert "articles   would read eswiki-20260101-pages-articles-multistream.xml.bz2" in capsys.readouterr().err
    assert (
        leia_train(["plan", "-c", "es.yaml", "--arm", "plain", "--set", "folder=other", "--shards", f"{corpus}/shards"])
        == 0
    )
    assert "3 steps x 4 rows x 256 tokens" in capsys.readouterr().out
    assert leia_eval(["run", "-c", "es.yaml", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("-- item ") == 3
    assert leia_train(["study", "-c", "es.yaml", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("plain-7     training: a new run; scores: to do\nleia-7      training")


def test_the_study_is_one_command_after_that(corpus: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Three arms of a seed, compared, with the report where it says; then the reports again from the same recipe."""
    assert leia_train(["study", "-c", "es.yaml", "--quiet"]) == 0
    out = capfd.readouterr().out
    assert "comparison: work/cpu/es/report/comparison.html and work/cpu/es/report/comparison.md" in out
    found = json.loads(Path("work/cpu/es/report/comparison.json").read_bytes())
    assert found["base"] == "plain" and set(found["arms"]) == {"plain", "leia", "permuted"}
    names = {
        arm: json.loads(Path(f"work/cpu/es/training/{arm}-7/_run.json").read_bytes())["identity"]
        for arm in found["arms"]
    }
    assert {arm: (run["strategy"], run["names"]) for arm, run in names.items()} == {
        "plain": ("none", "true"),
        "leia": ("right", "true"),
        "permuted": ("right", "permuted"),
    }
    assert leia_eval(["compare", "-c", "es.yaml"]) == 0
    assert leia_eval(["report", "-c", "es.yaml"]) == 0


def test_settings_of_a_recipe_are_dataclasses_for_python(corpus: Path, tmp_path: Path) -> None:
    """The same functions as the commands': a build, a training and the options of a scoring, each from the recipe."""
    options, inputs = build_options("es.yaml", [f"corpus.output={tmp_path / 'corpus'}", "corpus.quiet=true"])
    assert (inputs.wiki, inputs.pages[0].rpartition("/")[2].partition("-")[0]) == ("es", "eswiki")
    build_corpus(options, inputs)
    written = [(base / "shards/_manifest.json").read_bytes() for base in (tmp_path / "corpus", corpus)]
    assert written[0] == written[1]
    settings = [f"corpus.output={tmp_path / 'corpus'}", f"folder={tmp_path}", "training.steps=1"]
    config = train_config("es.yaml", settings, arm="plain", seed=3)
    assert config.run.output == f"{tmp_path}/training/plain-3" and config.data.shards == (f"{tmp_path}/corpus/shards",)
    result = train(config, report=lambda line: None, progress=lambda measure: None)
    prompts, model, output = scoring_options("es.yaml", settings, arm="plain", training_seed=3)
    assert (str(result.checkpoint), str(output)) == (model.model, f"{tmp_path}/evaluation/plain-3")
    assert (prompts.tasks, prompts.limit, prompts.seed) == (("leia_sample_es",), 8, 42)


def test_a_build_from_a_recipe_has_the_runner_and_all_options_that_are_typed(corpus: Path) -> None:
    """Every option of Flink, and what goes to Beam as it is, from the file as from the command line."""
    from leia_beam.command_line import make_parser
    from leia_beam.console import Console
    from pipelines.commands import build_inputs, run_options

    Path("flink.yaml").write_text(
        "corpus:\n  wiki: es\n  pages: [a]\n  wikidata: [b]\n  tokenizer: t\n  output: o\n  runner: flink\n  workers: 4\n"
        "  flink_master: cluster:8081\n  flink_job_server_jar: jar\n  flink_worker_command: w\n"
        "  flink_probe_seconds: 0\n  beam: [--sdk_worker_parallelism=2, --no_auth]\n  max_rejects: 5\n"
        "  range_bytes: 1MiB\n  salvage: true\n  max_bad_blocks: 2\n  verify_inputs: true\n  name_languages: [en, de]\n"
        "  lists: false\n  holdout: 0.01\n  claims: P31,P17\n  drop_articles: none\n  profile: reference\n"
    )
    words = (
        "--wiki es --pages a --wikidata b --tokenizer t --output o --runner flink --workers 4 --flink-master cluster:8081 "
        "--flink-job-server-jar jar --flink-worker-command w --flink-probe-seconds 0 "
        "--max-rejects 5 --range-bytes 1MiB --salvage --max-bad-blocks 2 --verify-inputs --name-languages en,de --no-lists "
        "--holdout 0.01 --claims P31,P17 --drop-articles none --profile reference"
    )
    typed = parse(make_parser(), ["build", *words.split()], {"beam": ["--sdk_worker_parallelism=2", "--no_auth"]})
    typed.console = Console("leia-beam")
    options, inputs = build_options("flink.yaml")
    assert replace(options, console=typed.console) == run_options(typed, typed.beam)
    assert inputs == build_inputs(typed)
    assert options.runner.flink == FlinkOptions(
        master="cluster:8081", job_server_jar="jar", worker_command="w", probe_s=0
    )
    assert options.runner.beam_options == ("--sdk_worker_parallelism=2", "--no_auth")


def test_what_is_not_fetched_yet_is_said_with_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2 and the folder."""
    assert leia_beam(["build", "-c", "es.yaml", "--set", "folder=elsewhere"]) == 2
    error = capsys.readouterr().err
    assert "elsewhere/dumps" in error and "leia-beam fetch" in error and error.count("\n") == 1


def test_a_scoring_that_has_nowhere_to_go_is_refused(tmp_path: Path) -> None:
    """Neither a folder nor an output."""
    (tmp_path / "r.yaml").write_text("evaluation: {tasks: leia_sample_es, model: m}")
    with pytest.raises(UsageError, match=r"evaluation.output is not given, and does not follow from a folder"):
        scoring_options(str(tmp_path / "r.yaml"))

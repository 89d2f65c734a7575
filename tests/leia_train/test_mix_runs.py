"""Runs on several sources: what they log and check, how they go on, what they refuse; and the commands beside `train`."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from interrupting import Killed, held, kill_at, steps, weights
from shard_fixture import SENTENCES, make_articles, write_shards, write_tokenizer

from leia_beam.configuration import parse
from leia_beam.errors import OtherBuild
from leia_train import loader, text_store
from leia_train.cli import main
from leia_train.command_line import make_config, make_parser
from leia_train.exposures import plan_of_run
from leia_train.metrics import read_metrics
from leia_train.study import FINISHED, StudyRun, training_state

ROOT = str(Path(__file__).resolve().parents[2])
NAMES = ["shards", "english", "spanish", "code"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory, tokenizer_folder):
    """A folder with texts, another wiki's shards, and a Parquet file of few texts; not to be changed by a test."""
    folder = tmp_path_factory.mktemp("sources")
    texts = [f"{name} is the capital of number {number}." for number in range(12) for _, name, _ in SENTENCES]
    (folder / "english.txt").write_text("\n\n".join(texts))
    write_shards(folder / "spanish", tokenizer_folder, make_articles(tokenizer_folder, 15), "eswiki")
    pq.write_table(pa.table({"body": ["a = 1", "b = a + 2", "print(b)"]}), folder / "code.parquet")
    return folder


@pytest.fixture
def mix(sources):
    """Half shards, a quarter English, 15 % Spanish with names, 10 % code."""
    return [
        "--mix",
        f"english={sources}/english.txt:25%",
        f"spanish={sources}/spanish:0.15,strategy=right,probability=1",
        "--mix",  # a flag that adds up
        f"code={sources}/code.parquet:0.1,column=body,validation_share=0",
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, shards):
    """A run on the mix that nothing disturbed."""
    made = []

    def run(arguments, mix):
        if not made:
            made.append(tmp_path_factory.mktemp("undisturbed") / "run")
            assert main(arguments(*mix, output=made[0])) == 0
        return made[0]

    return run


def test_a_run_logs_tokens_and_losses_of_each_source_and_checks_the_shares(
    arguments, mix, undisturbed, tmp_path, capsys
):
    """Counted over the rows that were read; the losses' mean is the step's; each source's validation texts are evaluated."""
    run = undisturbed(arguments, mix)
    records = [record for record in steps(run) if "loss" in record]
    assert all(list(record["source_tokens"]) == NAMES for record in records)
    totals = {name: sum(record["source_tokens"][name] for record in records) for name in NAMES}
    rows = {name: tokens / 24 for name, tokens in totals.items()}
    assert sum(rows.values()) == 16
    for name, share in zip(NAMES, (0.5, 0.25, 0.15, 0.1)):
        assert abs(rows[name] - 16 * share) < 1 and rows[name] == int(rows[name])
    for record in records:
        losses = [loss for loss in record["source_losses"].values() if loss is not None]
        assert min(losses) <= record["loss"] <= max(losses)
        read = {name for name, tokens in record["source_tokens"].items() if tokens}
        assert read == {name for name, loss in record["source_losses"].items() if loss is not None}
    evaluated = read_metrics(run)[-1]["evaluations"]
    assert {"validation english", "validation spanish"} < set(evaluated) and "validation code" not in evaluated
    assert main(arguments(*mix, output=tmp_path / "again")) == 0
    said = capsys.readouterr().err
    assert (
        f"tokens of each source: shards {totals['shards']:,} (50.00%), english {totals['english']:,} (25.00%)" in said
    )
    assert "source code 0.1: 2 rows, 48 tokens" in said


def test_a_run_without_a_mix_logs_nothing_of_sources(arguments, tmp_path):
    """Nor does its identity know any; a share of 0 reads the same rows, and its path is not looked at."""
    assert main(arguments()) == 0
    assert main(arguments("--mix", "english=/not/there.txt:0", output=tmp_path / "zero")) == 0
    for folder in ("run", "zero"):
        identity = json.loads((tmp_path / folder / "_run.json").read_text())["identity"]
        assert "sources" not in identity and identity.get("mix") in (None, ["english=-:0"])
    assert steps(tmp_path / "run") == steps(tmp_path / "zero")
    assert "source_tokens" not in steps(tmp_path / "run")[0]
    assert weights(tmp_path / "run") == weights(tmp_path / "zero")


@pytest.mark.parametrize("killed_at", [0, 1, 2, 3])
def test_a_killed_run_on_a_mix_goes_on_bit_for_bit(arguments, mix, undisturbed, tmp_path, monkeypatch, killed_at):
    """Killed at any step: the same rows, losses and weights, and the tokens of each source over both parts are checked."""
    with monkeypatch.context() as patch:
        kill_at(patch, killed_at)
        with pytest.raises(Killed):
            main(arguments(*mix))
    assert main(arguments(*mix)) == 0
    expected = undisturbed(arguments, mix)
    assert steps(tmp_path / "run") == steps(expected)
    assert weights(tmp_path / "run") == weights(expected)


def launch(arguments, hold=None, **more):
    """A command in a process of its own; with a folder, one that waits after its first step until it is told to stop."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment = {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT, "HF_HUB_OFFLINE": "1"}
    if hold is not None:
        environment = held(environment, hold, steps=1)
    return subprocess.Popen([sys.executable, "-m", "leia_train", *arguments], env=environment, text=True, **more)


def test_two_processes_read_the_rows_of_one_and_go_on_bit_for_bit(arguments, mix, undisturbed, tmp_path):
    """The losses of one process within rounding; killed and started again, the bytes of two that nothing disturbed."""
    flags = (*mix, "--nproc", 2, "--micro-batch", 2)
    for output in ("whole", "killed"):
        command = arguments(*flags, output=tmp_path / output)
        process = launch(command, tmp_path if output == "killed" else None, stderr=subprocess.PIPE)
        if output == "killed":
            while not any("loss" in each for each in read_metrics(tmp_path / output)):
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            process.kill()  # its processes notice, save what they have and end
            process.communicate(timeout=900)
            assert json.loads((tmp_path / output / "_status.json").read_text())["status"] == "interrupted"
            process = launch(command, stderr=subprocess.PIPE)
        said = process.communicate(timeout=900)[1]
        assert process.returncode == 0, said[-2000:]
    assert steps(tmp_path / "whole") == steps(tmp_path / "killed")
    assert weights(tmp_path / "whole") == weights(tmp_path / "killed")
    alone = [record for record in steps(undisturbed(arguments, mix)) if "loss" in record]
    for one, two in zip(alone, steps(tmp_path / "whole")):
        assert one["source_tokens"] == two["source_tokens"] and one["label_tokens"] == two["label_tokens"]
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)


def test_arms_read_the_same_of_every_source(arguments, mix, undisturbed, tmp_path):
    """plain, leia and permuted names: the same tokens of each source in every step, the same English rows."""
    runs = [undisturbed(arguments, mix), tmp_path / "plain", tmp_path / "permuted"]
    assert main(arguments(*mix, "--strategy", "none", output=runs[1])) == 0
    assert main(arguments(*mix, "--names", "permuted", output=runs[2])) == 0
    logged = [[record["source_tokens"] for record in steps(run)[:4]] for run in runs]
    assert logged[0] == logged[1] == logged[2]
    rows = [plan_of_run(run)[0].rows(0, 16) for run in runs]
    replayed = (rows[0].sources == 1) | (rows[0].sources == 3)
    assert replayed.sum() == 6
    for other in rows[1:]:
        assert np.array_equal(other.sources, rows[0].sources)
        assert np.array_equal(other.input_ids[replayed], rows[0].input_ids[replayed])
        assert not np.array_equal(other.input_ids[rows[0].sources == 0], rows[0].input_ids[rows[0].sources == 0])


def test_rows_of_other_sources_than_planned_end_the_run(arguments, mix, monkeypatch, tmp_path, capsys):
    """The check at the end can fail: a loader that gives one row of another source."""
    given = loader.RowLoader.next

    def wrong(self):
        made = given(self)
        if made.step == 2:
            made.rows.sources[0] = (made.rows.sources[0] + 1) % 2
        return made

    monkeypatch.setattr(loader.RowLoader, "next", wrong)
    assert main(arguments(*mix)) == 1
    assert "tokens were read in 16 rows of 24, its share is" in capsys.readouterr().err
    assert not (tmp_path / "run/checkpoint-final").exists()


def copied(sources, folder):
    """Sources that a test may change."""
    shutil.copytree(sources, folder)
    return folder


def test_a_changed_source_and_other_shares_are_refused_with_exit_6(
    arguments, sources, tokenizer_folder, tmp_path, capsys
):
    """By content, not by path; shards by their manifest; the message names the source."""
    mine = copied(sources, tmp_path / "mine")

    def run(folder, *more, share="0.25"):
        return main(arguments("--mix", f"en={folder}/english.txt:{share}", f"es={folder}/spanish:0.25", *more))

    assert run(mine) == 0
    assert run(sources) == 0  # the same content elsewhere
    (mine / "english.txt").write_text((mine / "english.txt").read_text() + "\n\nOne more.")
    capsys.readouterr()
    assert run(mine) == 6
    assert "source 'en' had other content" in capsys.readouterr().err
    assert run(sources, share="0.3") == 6
    assert "mix ['en=-:0.25'" in capsys.readouterr().err
    assert main(arguments("--mix", f"en={sources}/english.txt:0.25")) == 6
    write_shards(mine / "fewer", tokenizer_folder, make_articles(tokenizer_folder, 14), "eswiki")
    capsys.readouterr()
    flags = ["--mix", f"en={sources}/english.txt:0.25", f"es={mine}/fewer:0.25"]
    assert main(["plan", *arguments(*flags)[1:]]) == 6
    assert "source 'es' had other content" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mix", "code", "message"),
    [
        ("en=missing.txt:0.1", 2, "missing.txt: no such file or folder"),
        ("en=empty.txt:0.1", 3, "empty.txt is empty"),
        ("en=latin.txt:0.1", 3, "latin.txt: no UTF-8 at byte 3"),
        ("en=cut.jsonl.gz:0.1", 3, "cut.jsonl.gz: damaged, or ends early"),
        ("en=english.txt:0.1,strategy=right", 2, "strategy=right is given for text, which has no entities"),
        ("es=spanish:0.1,documents=line", 2, "documents=line is given for shards"),
        ("es=damaged:0.1", 3, "damaged/data"),
        ("es=build:0.1", 2, "is a build's folder; give"),
        ("es=other:0.1", 2, "was built with tokenizer"),
        ("en=english.txt:0.1,validation_share=0.9999999", 2, "--mix en: no tokens to train on"),
    ],
)
def test_faults_of_sources_are_one_line(arguments, sources, tmp_path, capsys, monkeypatch, mix, code, message):
    """With the exit code of FORMATS.md, before a model is read; nothing is left that looks like a run."""
    folder = copied(sources, tmp_path / "faults")
    monkeypatch.chdir(folder)
    Path("empty.txt").touch()
    Path("latin.txt").write_bytes(b"caf\xe9")
    Path("cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 99)[:-4])
    shutil.copytree("spanish", "damaged")
    shard = next(Path("damaged/data").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    shutil.copytree("spanish", "build/shards")
    other = write_tokenizer(folder / "tokenizer", vocabulary_size=300)
    write_shards(folder / "other", other, make_articles(other, 5), "eswiki")
    assert main(arguments("--mix", mix)) == code
    said = capsys.readouterr().err
    assert message in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "run/_run.json").exists() and not (tmp_path / "run/checkpoint-final").exists()


def test_plan_prints_what_the_run_takes_of_each_source(arguments, mix, capsys):
    """Tokens, epochs, and a warning above four; nothing is trained."""
    assert main(["plan", *arguments(*mix, "--steps", 40, "--warmup", 0)[1:]]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = {line.split()[1]: line for line in lines if line.startswith("source ")}
    assert list(told) == NAMES
    assert "english 0.25: 40 rows, 960 tokens, " in told["english"] and " epochs of " in told["english"]
    warned = [line.split()[1] for line in lines if line.startswith("warning ")]
    assert "code:" in warned and all(name[:-1] in NAMES for name in warned)
    run = next(line for line in lines if line.startswith("run "))
    assert "= 3,840 tokens, 1,920 of them of the shards" in run
    assert main(["plan", *arguments("--steps", 400, "--warmup", 0)[1:]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("warning       shards: read") for line in lines)
    assert not any(line.startswith("source ") for line in lines)


def test_a_recipe_lists_sources_and_a_setting_replaces_them(shards, sources, tmp_path, capsys):
    """A YAML list, with variables; `--set` with brackets; each is a flag's words."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"variables: {{replay: 0.25, texts: {sources}}}\n"
        "training:\n  model: tiny-llama\n  mix:\n    - english=${texts}/english.txt:${replay}\n"
        "    - code=${texts}/code.parquet:5%,column=body\n"
    )
    flags = ["plan", "-c", recipe, "--shards", shards, "--output", tmp_path / "run", "--steps", 25, "--batch", 4]
    for more, expected in (
        ([], ["shards 0.7", "english 0.25", "code 0.05"]),
        (["--set", "replay=0.1"], ["shards 0.85", "english 0.1", "code 0.05"]),
        (["--set", f"training.mix=[en={sources}/english.txt:1]"], ["shards 0", "en 1"]),
        (["--set", "replay=0", "--mix", f"code={sources}/code.parquet:0.5,column=body"], ["shards 0.5", "code 0.5"]),
    ):
        assert main([str(flag) for flag in (*flags, *more)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line[14:].partition(":")[0] for line in lines if line.startswith("source ")] == expected
    assert main([str(flag) for flag in (*flags, "--set", "replay=x")]) == 2
    assert "recipe.yaml:4" in capsys.readouterr().err


def test_a_recipe_with_a_folder_keeps_the_texts_tokens_for_all_arms(tmp_path, capsys):
    """FOLDER/sources; without a mix, and where it is given, not."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "folder: work\ncorpus: {}\ntraining: {model: m, mix: [en=en.txt:10%]}\narms: {plain: {}, leia: {}}\n"
    )
    for flags, expected in (
        ([], "mix_store: work/sources  # derived from folder"),
        (["--mix-store", "x"], "mix_store: x  # --mix-store"),
        (["--set", "training.mix="], "mix_store: ''  # default"),
    ):
        assert main(["train", "-c", str(recipe), "--arm", "plain", "--print-config", *flags]) == 0
        assert expected in capsys.readouterr().out.replace('""', "''")


def test_a_study_knows_the_sources_of_a_finished_run(arguments, mix, sources, undisturbed):
    """Finished for the same content; another source's content is refused before anything is done."""
    run = undisturbed(arguments, mix)
    study_run = StudyRun(arm="leia", seed=42, folder=run, scores=run)

    def state(*flags):
        return training_state(study_run, make_config(parse(make_parser(), arguments(*flags, output=run))))

    assert state(*mix) == FINISHED
    other = [words.replace("english.txt", "code.parquet") + ",column=body" * ("english" in words) for words in mix]
    with pytest.raises(OtherBuild, match=r"source .english. had other content|other options"):
        state(*other)


def test_stores_of_texts_are_shared_between_runs(arguments, sources, tmp_path, monkeypatch):
    """With --mix-store: encoded once; the runs are those with a store of their own."""
    mix = ["--mix", f"english={sources}/english.txt:0.25"]
    assert main(arguments(*mix, output=tmp_path / "own")) == 0
    encoded = []
    run = text_store._Encoding.run
    monkeypatch.setattr(text_store._Encoding, "run", lambda self: encoded.append(1) or run(self))
    for output in ("one", "two"):
        assert main(arguments(*mix, "--mix-store", tmp_path / "shared", output=tmp_path / output)) == 0
        assert weights(tmp_path / output) == weights(tmp_path / "own")
    assert encoded == [1] and len(list((tmp_path / "shared").glob("store-????????"))) == 1


@pytest.mark.parametrize("form", ["rows", "axolotl", "text"])
def test_baked_rows_say_of_which_source_they_are(arguments, mix, undisturbed, tmp_path, form):
    """`rows` are those of the run, in order; document by document each source has its share within some documents."""
    flags = arguments(*mix)[1:]
    kept = [*flags[: flags.index("--model")], "--max-length", "24", "--validation-share", "0.3", *mix]
    kept = [str(flag) for flag in kept if flag != "--output"]
    kept.remove(str(tmp_path / "run"))
    command = ["bake", *kept, "--output", str(tmp_path / "baked"), "--form", form, "--steps", "4", "--batch", "4"]
    assert main([*command, "--rows-per-file", "7", "--epochs", "3"]) == 0
    files = sorted((tmp_path / "baked/data").iterdir())
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    assert len(files) > 1 and {row["source"] for row in rows} == set(NAMES)
    if form == "rows":
        plan = plan_of_run(undisturbed(arguments, mix))[0]
        wanted = plan.rows(0, 16)
        assert [row["source"] for row in rows] == [NAMES[number] for number in wanted.sources]
        assert [row["input_ids"] for row in rows] == wanted.input_ids.tolist()
        return
    if form == "text":
        assert any(row["source"] == "english" and "is the capital of number" in row["text"] for row in rows)
        assert all("<translate>" not in row["text"] for row in rows if row["source"] in ("english", "code"))
        assert any("<translate>" in row["text"] for row in rows if row["source"] == "spanish")
        assert {row["wiki"] for row in rows} == {"jawiki", "english", "eswiki", "code"}
        return
    tokens = {name: sum(len(row["input_ids"]) for row in rows if row["source"] == name) for name in NAMES}
    total = sum(tokens.values())
    longest = 150
    for name, share in zip(NAMES, (0.5, 0.25, 0.15, 0.1)):
        assert abs(tokens[name] - total * share) < 2 * longest


def test_exposures_are_counted_by_source(arguments, mix, undisturbed, tmp_path, capsys):
    """Of the shards and of the other wiki; together they are the inserted tokens that the run logged."""
    run = undisturbed(arguments, mix)
    logged = sum(record["inserted_tokens"] for record in steps(run)[:4])
    capsys.readouterr()
    assert main(["exposures", str(run), "--output", str(tmp_path / "out.parquet")]) == 0
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert {row["source"] for row in rows} == {"shards", "spanish"}
    assert sum(row["inserted_tokens"] for row in rows) == logged
    assert [row["occurrences"] for row in rows] == sorted((row["occurrences"] for row in rows), reverse=True)
    said = capsys.readouterr().err
    assert "until step 4 of shards:" in said and "until step 4 of spanish:" in said
    assert main(["exposures", str(run)]) == 0
    assert ", spanish" in capsys.readouterr().out

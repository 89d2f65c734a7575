"""The command line: help without heavy imports, errors as one line with their exit code."""

import fcntl
import json
import re
import subprocess
import sys
import warnings
from dataclasses import MISSING, fields

import pytest
from interrupting import interrupted_at
from shard_fixture import write_tokenizer

from leia_beam.configuration import parse
from leia_beam.errors import UsageError
from leia_train.cli import main
from leia_train.command_line import COMMANDS, make_config, make_parser
from leia_train.config import GROUPS, DataConfig, ModelConfig, OptimizationConfig, RunConfig, TrainConfig

HEAVY = ("torch", "transformers", "accelerate", "numpy", "pyarrow", "tokenizers")
WITHOUT_TORCH = (
    *(
        "store",
        "plan",
        "insertion",
        "packing",
        "draws",
        "config",
        "command_configs",
        "markers",
        "metrics",
        "runs",
        "files",
        "bake",
    ),
    *("exposures", "names", "entity_filter", "reference_stream", "recipe", "loader", "launcher", "tasks"),
    *("derived", "command_line", "report", "study", "study_steps", "study_state", "study_work", "study_command"),
    *("shard_folders", "store_columns"),
)


def error_of(capsys, *arguments):
    """The exit code and the one line of a command that fails."""
    code = main([str(argument) for argument in arguments])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("leia-train: error: "), lines
    return code, lines[0].removeprefix("leia-train: error: ")


def modules_after(code, names):
    """Which of some modules a fresh interpreter has loaded after some code."""
    program = f"import sys, json\n{code}\nprint(json.dumps([name for name in {names!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_help_imports_nothing_heavy_and_shows_every_flag_with_its_default():
    """No torch, not even numpy, so that it is there at once."""
    code = "from leia_train.cli import main\nassert main(['train', '--help']) == 0"
    assert modules_after(code, HEAVY) == []
    done = subprocess.run([sys.executable, "-m", "leia_train", "train", "--help"], capture_output=True, text=True)
    text = re.sub(r"\s+", " ", done.stdout)
    for config_class in GROUPS.values():
        for name in config_class.__dataclass_fields__:
            assert f"--{name.replace('_', '-')}" in text, name
    assert "highest learning rate (default: 5e-06)" in text
    with_default = [
        field for config_class in GROUPS.values() for field in fields(config_class) if field.default is not MISSING
    ]
    assert text.count("(default: ") == len(with_default) + 1  # and --arm
    for command in COMMANDS:
        assert main([command, "--help"]) == 0, command


def test_the_data_modules_import_no_torch_and_this_test_can_fail():
    """Each by itself; the model's module does import it."""
    for name in WITHOUT_TORCH:
        assert modules_after(f"import leia_train.{name}", ("torch", "transformers", "apache_beam")) == [], name
    assert modules_after("import leia_train.loss", ("torch",)) == ["torch"]


def test_version_and_bare_command(capsys):
    """Both are no errors."""
    assert main(["--version"]) == 0
    assert re.fullmatch(r"leia-train \S+ \(python \S+, torch \S+, .*\)\n", capsys.readouterr().out)
    assert main([]) == 0
    assert "COMMAND" in capsys.readouterr().out


def test_flags_become_a_config(arguments):
    """Every group; unnamed flags have the paper's values."""
    flags = arguments("--strategy", "replace", "--no-name-loss", "--cross-document", "--shards", "a", "b")
    config = make_config(parse(make_parser(), flags))
    assert config == TrainConfig(
        data=DataConfig(
            shards=("a", "b"),
            strategy="replace",
            name_loss=False,
            cross_document=True,
            max_length=24,
            validation_share=0.3,
        ),
        model=ModelConfig(
            model="tiny-llama",
            tiny_hidden_size=16,
            tiny_intermediate_size=32,
            tiny_layers=1,
            tiny_heads=2,
            tiny_kv_heads=1,
        ),
        optimization=OptimizationConfig(steps=4, batch=4, micro_batch=3, learning_rate=1e-2, warmup=1),
        run=RunConfig(output=config.run.output, save_every=1, device="cpu", tracker="none"),
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--probabilty", 1],
            r"unknown argument '--probabilty'; did you mean '--probability'\? \(see leia-train train",
        ),
        (["--probability", 1.5], r"--probability 1.5: must be from 0 to 1"),
        (["--probability", "nan"], r"--probability nan: must be from 0 to 1"),
        (["--probability", "half"], r"--probability: 'half' is no number"),
        (
            ["--strategy", "up"],
            r"--strategy: 'up' is none of right, left, replace, none \(see leia-train train --help\)",
        ),
        (["--max-length", 1], r"--max-length 1: must be at least 2 tokens"),
        (["--validation-share", 1], r"--validation-share 1.0: must be from 0 to below 1"),
        (["--batch", 0], r"--batch 0: must be at least 1"),
        (["--learning-rate", 0], r"--learning-rate 0.0: must be above 0"),
        (["--learning-rate", "inf"], r"--learning-rate inf: must be above 0"),
        (["--warmup", 9], r"--warmup 9: must be from 0 to --steps \(4\)"),
        (["--seed", -1], r"--seed -1: must be from 0"),
        (["--tiny-hidden-size", 15], r"--tiny-hidden-size 15: must be a multiple of twice --tiny-heads"),
        (["--keep", 0], r"--keep 0: must be at least 1"),
    ],
)
def test_wrong_flags_exit_2_with_the_flag_and_the_rule(arguments, capsys, tmp_path, flags, message):
    """Before anything is read or written."""
    code, line = error_of(capsys, *arguments(*flags))
    assert code == 2 and re.match(message, line), line
    assert not (tmp_path / "run").exists()


def test_missing_flags_and_unknown_commands_exit_2(capsys):
    """They are named."""
    assert error_of(capsys, "train", "--shards", "x")[1].startswith("the following arguments are required: --model")
    code, line = error_of(capsys, "trian")
    assert code == 2 and line == "unknown command 'trian'; did you mean 'train'? (see leia-train --help)"


def test_shards_that_are_not_there_or_damaged_keep_their_exit_codes(arguments, capsys, tmp_path, shards):
    """2 for a missing folder, 3 for a flipped bit; no output folder is made."""
    import shutil

    code, line = error_of(capsys, *arguments("--shards", tmp_path / "missing"))
    assert code == 2 and "no such folder; give the folder of a build" in line
    copy = shutil.copytree(shards, tmp_path / "copy")
    shard = sorted(copy.glob("data/*.parquet"))[0]
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    code, line = error_of(capsys, *arguments("--shards", copy))
    assert code == 3 and "SHA-256 mismatch" in line
    assert not (tmp_path / "run").exists()


def test_a_model_with_another_tokenizer_exits_2(arguments, capsys, tmp_path):
    """The fingerprints are compared before the weights are read."""
    folder = write_tokenizer(tmp_path / "other", vocabulary_size=300)
    (folder / "config.json").write_text("{}")
    code = main(arguments("--model", folder))
    assert code == 2
    assert "is not the one that made the shards" in capsys.readouterr().err


def test_an_output_of_something_else_exits_6(arguments, capsys, tmp_path):
    """A folder with other files, and a folder whose _run.json is not ours; they stay as they were."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    code, line = error_of(capsys, *arguments())
    assert code == 6 and "holds 'notes.txt'" in line
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    (tmp_path / "run/_run.json").write_text("[]")
    assert error_of(capsys, *arguments())[0] == 6


def test_an_output_of_a_run_with_other_options_exits_6_with_what_differs(arguments, capsys):
    """Seed and probability are named with both values; what does not change the weights may change."""
    assert main(arguments("--steps", 1, "--warmup", 0)) == 0
    capsys.readouterr()
    code, line = error_of(capsys, *arguments("--steps", 1, "--warmup", 0, "--seed", 7, "--probability", 0.25))
    assert code == 6 and "(probability 0.5 -> 0.25, seed 42 -> 7)" in line
    assert main(arguments("--steps", 1, "--warmup", 0, "--save-every", 5, "--micro-batch", 1, "--keep", 3)) == 0


def test_an_output_that_another_run_holds_exits_5(arguments, capsys, tmp_path):
    """Two runs never write into one folder."""
    (tmp_path / "run").mkdir()
    with (tmp_path / "run/.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert main(arguments()) == 5
    assert "another run is writing to it" in capsys.readouterr().err


def test_options_are_checked_where_they_are_made():
    """Not only on the command line."""
    with pytest.raises(UsageError, match="--shards : must be at least one folder"):
        DataConfig(shards=())
    with pytest.raises(UsageError, match="--attention linear: must be one of auto"):
        ModelConfig(model="x", attention="linear")


def test_a_run_says_what_it_does_and_its_log_has_it_and_the_libraries(arguments, capsys, tmp_path, monkeypatch):
    """Notes on standard error, or JSON; what libraries print and warn of in train.log alone, which a resume appends to."""
    from leia_train import train

    do_step = train.do_step

    def chatty(*given):
        print("a library prints")
        warnings.warn("a library warns", stacklevel=1)
        return do_step(*given)

    monkeypatch.setattr(train, "do_step", chatty)
    assert main(arguments("--steps", 2, "--log-json")) == 0
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert any(note["message"].startswith("step 2: validation: ") for note in said)
    assert [note["done"] for note in said if note["event"] == "progress"] == [2], "the last step"
    assert {note["event"] for note in said} == {"note", "progress"}
    assert main(arguments("--steps", 2, "--quiet")) == 0
    assert capsys.readouterr().err == ""
    log = (tmp_path / "run/train.log").read_text()
    for text in ("a library prints", "a library warns", *(note["message"] for note in said)):
        assert text in log


def test_an_interruption_says_what_is_kept(arguments, capsys, monkeypatch):
    """Where a checkpoint was saved, its path; where Python itself is interrupted, that the same command goes on."""
    with interrupted_at(2):
        assert main(arguments("--steps", 3)) == 75
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "leia-train: interrupted; what is finished is kept, and the same command goes on from there"
    monkeypatch.setattr("leia_train.train._stop_requested", lambda run: run.step == 2)
    assert main(arguments("--steps", 3)) == 75
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("leia-train: a signal to another process after step 2 of 3; saved ")
    assert line.endswith("checkpoint-00000002; the same command goes on from there")

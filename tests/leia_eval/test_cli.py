"""The command line: exit codes, one-line errors, nothing heavy before the options are known to be good."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from eval_fixtures import make_items, write_items

from leia_eval import cli
from leia_eval.cli import main

REPOSITORY = Path(__file__).parents[2]


def failure(capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and the one line on stderr of a command that fails."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("leia-eval: error: ")
    assert captured.err.count("\n") == 1, captured.err
    return code, captured.err.removeprefix("leia-eval: error: ").rstrip("\n")


@pytest.fixture
def arguments(model_dir, data_dir, tmp_path) -> dict[str, object]:
    """The options of a good run."""
    return {"--model": model_dir, "--tasks": "leia_sample_es", "--data-dir": data_dir, "--output": tmp_path / "out"}


def flat(options: dict[str, object]) -> list[str]:
    """Options as a command line."""
    return ["run", *(str(part) for option in options.items() for part in option)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "unknown command 'rum'; did you mean 'run'? (see leia-eval --help)"),
        (["frobnicate"], "unknown command 'frobnicate' (see leia-eval --help)"),
        (["run", "--shot", "1"], "unknown argument '--shot'; did you mean '--shots'? (see leia-eval run --help)"),
        (["run", "--batch_size=1"], "unknown argument '--batch_size'; did you mean '--batch-size'?"),
        (["--verison"], "unknown argument '--verison'; did you mean '--version'?"),
        (["run"], "--tasks and --model and --output must be given; see `leia-eval run --help`"),
        (["run", "--dry-run"], "--tasks must be given"),
        (["run", "--limit", "x"], "--limit: 'x' is no whole number"),
        (["run", "--tasks"], "--tasks: expected one argument"),
        (["run", "extra"], "unknown argument 'extra'"),
        (["ls", "--data-dir", "no-such-folder"], "--data-dir no-such-folder is not a folder"),
        (["compare"], "0 runs to compare; give two or more"),
        (["compare", "base=x"], "1 runs to compare"),
        (["compare", "x", "y"], "'x' is not NAME=DIR"),
        (["compare", "a=x", "a=y"], "two runs are named 'a'"),
        (
            ["compare", "a=x", "b=y", "--output", "f.txt"],
            "--output f.txt must end in .md, .html, .json, or in nothing for a folder",
        ),
        (["compare", "a=no-such-folder", "b=y"], "no-such-folder holds no results.json"),
    ],
)
def test_usage_errors(capsys, arguments, message):
    """Exit code 2 and one line with what was wrong."""
    code, line = failure(capsys, *arguments)
    assert code == 2
    assert message in line


@pytest.mark.parametrize(
    ("option", "value", "code", "message"),
    [
        ("--tasks", "leia_sampel_es", 2, "unknown task 'leia_sampel_es'; did you mean leia_sample_es"),
        ("--tasks", ",", 2, "--tasks: ',' names nothing; give at least one"),
        ("--tasks", "leia_xcsqa_ja", 2, "no data for task 'leia_xcsqa_ja': looked for "),
        ("--data-dir", "no-such-folder", 2, "--data-dir no-such-folder is not a folder"),
        ("--model", "no-such-folder", 2, "--model no-such-folder is not a folder"),
        ("--shots", "-1", 2, "--shots -1 must be 0 or more"),
        ("--shots", "30", 2, "leia_sample_es: 30 shots for item 'item-0000' but only 29 other questions"),
        ("--limit", "0", 2, "--limit 0 must be 1 or more"),
        ("--seed", "-1", 2, "--seed -1 must be 0 or more"),
        ("--batch-size", "0", 2, "--batch-size 0 must be 1 or more"),
        ("--dtype", "int8", 2, "--dtype int8 is none of auto, float32, bfloat16, float16"),
        ("--device", "qpu", 2, "--device qpu is no device"),
        ("--device", "cuda:99", 5, "--device cuda:99: this machine has "),
    ],
)
def test_a_bad_option_is_found_before_anything_is_written(capsys, arguments, option, value, code, message):
    """Each has its exit code and line, and the output folder is not made."""
    found, line = failure(capsys, *flat({**arguments, option: value}))
    assert found == code
    assert message in line
    assert not Path(arguments["--output"]).exists()


def test_bad_data_is_found_before_the_model_is_looked_at(capsys, arguments, tmp_path):
    """A damaged item is exit code 3 with file and line, even where --model is wrong as well."""
    items = make_items(3, lang="es")
    items[2]["answerKey"] = "Z"
    path = write_items(tmp_path / "bad/eswiki.jsonl", items)
    code, line = failure(capsys, *flat({**arguments, "--data-dir": path.parent, "--model": "no-such-folder"}))
    assert code == 3
    assert line == f"damaged item at {path}:3: answerKey 'Z' is not among the labels ['A', 'B', 'C', 'D', 'E']"


def test_results_of_another_run_are_kept_unless_overwrite_is_given(capsys, arguments):
    """Exit code 6 for other options, 0 for the same run again and for --overwrite."""
    assert main(flat({**arguments, "--limit": 3})) == 0
    results = Path(arguments["--output"]) / "results.json"
    before = results.read_bytes()
    assert main(flat({**arguments, "--limit": 3})) == 0
    assert results.read_bytes() == before
    capsys.readouterr()
    code, line = failure(capsys, *flat({**arguments, "--limit": 4}))
    assert code == 6
    assert "holds the results of another run (options, tasks differ); give another folder or --overwrite" in line
    assert results.read_bytes() == before
    assert main([*flat({**arguments, "--limit": 4}), "--overwrite"]) == 0
    assert json.loads(results.read_text())["tasks"][0]["n"] == 4


def test_a_dry_run_prints_three_whole_prompts_a_task_and_needs_no_model(capsys, data_dir):
    """Every line of the first item, the count of the others, and no model nor output named."""
    tasks = ["--tasks", "leia_sample_ja,leia_sample_es", "--data-dir", str(data_dir)]
    assert main(["run", "--dry-run", "--shots", "1", *tasks]) == 0
    captured = capsys.readouterr()
    blocks = captured.out.split("-- item ")
    assert len(blocks) == 1 + 3 + 3
    item = make_items(100)[0]
    choices = item["question"]["choices"]
    assert captured.out.startswith("== leia_sample_ja: 100 items of jawiki.jsonl, 1 shots from the same set\n")
    assert f"\n\nQuestion: {item['question']['stem']}\nAnswer:\n" in blocks[1]
    for label, text in zip(choices["label"], choices["text"], strict=True):
        assert f" {'*' if label == item['answerKey'] else ' '} {label}: {text}\n" in blocks[1]
    assert captured.err == ""


def test_the_list_of_tasks_says_whose_data_is_there(capsys, data_dir):
    """A line a task; the sample's two with their files, first, and what lm-eval brings last."""
    assert main(["ls", "--data-dir", str(data_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("leia_xcsqa_") and "no data: " in line for line in lines) == 16
    assert [line.split()[0] for line in lines[:2]] == ["leia_sample_es", "leia_sample_ja"]
    kinds = ["lm-eval's own" in line for line in lines]
    assert kinds == sorted(kinds)
    assert any(line.startswith("leia_sample_ja ") and f"data: {data_dir / 'jawiki.jsonl'}" in line for line in lines)


def test_other_failures_have_their_codes(capsys, monkeypatch, arguments):
    """Ctrl-C is 75, no memory, no disk and no package are 5, a fault of the program is 1 and shows where it is."""
    for error, code, message in (
        (KeyboardInterrupt(), 75, "interrupted"),
        (MemoryError(), 5, "out of memory"),
        (OSError(28, "No space left on device", "x/y"), 5, "No space left on device: x/y"),
        (ModuleNotFoundError("no", name="lm_eval"), 5, "'lm_eval' is not installed; pip install 'leia-lm[eval]'"),
        (ZeroDivisionError("by zero"), 1, "unexpected ZeroDivisionError: by zero"),
    ):
        monkeypatch.setattr(cli, "_run", lambda _options, error=error: (_ for _ in ()).throw(error))
        assert main(["run"]) == code
        lines = capsys.readouterr().err.splitlines()
        assert message in lines[-1]
        assert len(lines) == 1 or code == 1


def test_sigterm_ends_a_run_as_ctrl_c_does(capsys, arguments, monkeypatch):
    """Batch systems send it; the handler that was there is put back."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "_run", lambda options: os.kill(os.getpid(), signal.SIGTERM))
    assert main(flat(arguments)) == 75
    assert "the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interruption_says_how_much_was_answered_and_the_same_command_goes_on(capsys, arguments, monkeypatch):
    """The answers are kept; on a collector's request each line is an object; --quiet says nothing of the rest."""
    from leia_eval.answering import Answerer

    answer_batch, answered = Answerer._answer_batch, []

    def interrupt_at_third(self, batch):
        if len(answered) == 2:
            raise KeyboardInterrupt
        answered.append(batch)
        answer_batch(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Answerer, "_answer_batch", interrupt_at_third)
        assert main([*flat({**arguments, "--batch-size": 4}), "--log-json"]) == 75
    (said,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert re.fullmatch(
        r"interrupted; 8 of \d+ requests are answered and kept; the same command goes on from there", said["message"]
    )
    assert (said["event"], said["exit_code"]) == ("interrupted", 75)
    assert main([*flat({**arguments, "--batch-size": 4}), "--quiet"]) == 0
    assert json.loads((arguments["--output"] / "run.json").read_text())["answers_from_cache"] == 8


@pytest.mark.parametrize("command", [[], ["run"], ["compare"], ["ls"], ["report"], ["contamination"]])
def test_help_is_printed_without_heavy_imports(command):
    """--help ends with 0, names every default, and imports neither torch, lm_eval, numpy nor yaml."""
    program = (
        "import sys; from leia_eval.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'lm_eval', 'transformers', 'datasets', 'numpy', 'yaml'} & set(sys.modules);"
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"usage: {' '.join(['leia-eval', *command])} [")
    if command == ["run"]:
        for default in ("(default: standard)", "(default: 42)", "(default: 8)", "(default: cpu)", "(default: float32)"):
            assert default in " ".join(done.stdout.split())


def test_the_command_alone_says_what_it_can_do(capsys):
    """No arguments: help and 0; --version: one line."""
    assert main([]) == 0
    assert "compare" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("leia-eval ")


def test_a_whole_run_in_its_own_process_leaves_nothing_at_home(arguments, tmp_path):
    """`python -m leia_eval run` with an empty home: a table on stdout, silence on stderr, no cache anywhere."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "leia_eval", *flat(arguments)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("| task | items | metric | score [95 %] |")
    assert list(home.iterdir()) == []
    output = Path(arguments["--output"])
    names = {
        str(path.relative_to(output)) for path in output.rglob("*") if path.is_file() and "cache" not in path.parts
    }
    samples = "samples/leia_sample_es.jsonl"
    assert names == {"results.json", "run.json", "report.md", "report.html", "eval.log", samples}
    assert "lm_eval" in (output / "eval.log").read_text()


def test_what_would_steer_a_terminal_is_shown_as_an_escape(capsys, tmp_path):
    """ESC and the right-to-left override in an item (fault S3); line ends and Japanese stay."""
    items = make_items(2)
    items[0]["question"]["stem"] = "日本\x1b[31m\u202e?"
    write_items(tmp_path / "jawiki.jsonl", items)
    assert main(["run", "--dry-run", "--tasks", "leia_sample_ja", "--data-dir", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "Question: 日本\\u001b[31m\\u202e?\nAnswer:\n" in text
    assert not {"\x1b", "\u202e"} & set(text)


def test_the_reference_profile_says_what_it_does_not_have(capsys, arguments):
    """A task that the paper did not score, and a task of lm-eval's own with a folder."""
    code, line = failure(capsys, *flat({**arguments, "--tasks": "leia_xcopa_it", "--profile": "reference"}))
    assert (code, line.startswith("the reference profile has no leia_xcopa_it")) == (2, True)
    code, line = failure(capsys, *flat({**arguments, "--tasks": "leia_belebele"}))
    assert (code, "is lm-eval's own and reads the hub" in line) == (2, True)
    code, line = failure(
        capsys, *flat({**arguments, "--backend": "vllm", "--cache": Path(arguments["--output"]) / "c"})
    )
    assert (code, "the package 'vllm' is not installed" in line) == (5, True)

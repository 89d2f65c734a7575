"""From a command that a page shows but does not run to whether it is one: our options, targets, files and extras exist.

Commands of ours are held against what `--help` prints, so that an option which is gone is found wherever a page names it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from tests.docs_blocks import ROOT

MODULES = {"leia-beam": "leia_beam.cli", "leia-train": "leia_train.cli", "leia-eval": "leia_eval.cli"}
_PLACEHOLDER = re.compile(r"[A-Z…<\[]|.*…")
_CODE_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_FENCED = re.compile(r"^( *)(`{3,}).*?^\1\2$", re.MULTILINE | re.DOTALL)

OTHERS_OPTIONS = {
    "Beam": "--direct_running_mode --direct_num_workers --prism_location --sdk_worker_parallelism "
    "--number_of_execution_retries --s3_endpoint_url --s3_region_name --project --region --temp_location "
    "--sdk_container_image --flexrs_goal --machine_type --disk_size_gb --setup_file",
    "accelerate": "--config_file --num_processes --mixed_precision",
    "docker": "--target --build-arg",
    "lm-eval": "--include_path",
    "the reference's scripts": "--model_name --model_name_or_path --preprocessed_dataset_dir --wikidata_id_file --output_dir "
    "--max_length --num_workers --input_ids_dtype --dump_file --output_file --languages --redirect_file "
    "--wikiextractor_output_dir --wikipedia_dataset_dir --trans_insertion_strategy --trans_insertion_prob "
    "--trans_insertion_prob_decay --trans_insertion_min_prob --disable_trans_token_loss --text_dataset_path "
    "--text_dataset_name --text_dataset_sampling_prob --use_flash_attention_2 --eval_tasks --max_eval_samples_for_tasks "
    "--num_fewshot_samples_for_tasks --use_dynamic_generation_length --eval_at_first_step --task --tasks "
    "--num_fewshot_samples --max_samples --batch_size --html-safe --links --no-templates --dataset_dir "
    "--per_device_train_batch_size --gradient_accumulation_steps --learning_rate --lr_scheduler_type --max_steps "
    "--warmup_steps --weight_decay --adam_beta1 --adam_beta2 --adam_epsilon --save_steps --seed "
    "--gradient_checkpointing --bf16 --resume_from_checkpoint",
    "pip": "--no-build-isolation",
    "pytest": "--hypothesis-profile",
    "our scripts": "--write",
}
"""Options of others that pages name, by whose they are."""


class NoSuchCommand(Exception):
    """A page shows a command that would not be understood."""


@cache
def help_of(program: str, *path: str) -> str:
    """What `PROGRAM [PATH…] --help` prints.

    Raises: NoSuchCommand if there is no such command.
    """
    main = importlib.import_module(MODULES[program]).main
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*path, "--help"])
        except SystemExit as end:
            code = end.code
    if code:
        raise NoSuchCommand(f"{program} {' '.join(path)}: {err.getvalue().strip()}")
    return out.getvalue()


@cache
def commands_of(program: str) -> frozenset[str]:
    """The names of a program's commands."""
    listed = re.findall(r"^ {2,6}([a-z][a-z-]*)(?: |$)", help_of(program), re.MULTILINE)
    return frozenset(name for name in listed if _has_help(program, name))


def _has_help(program: str, name: str) -> bool:
    try:
        return f"{program} {name}" in help_of(program, name)
    except NoSuchCommand:
        return False


@cache
def options_of(program: str, command: str) -> dict[str, tuple[str, ...]]:
    """The options of a command: flag → the values that it takes, or () for any."""
    text = re.sub(r"\s+", " ", help_of(program, command))
    options: dict[str, tuple[str, ...]] = {}
    for flag, choices in re.findall(r"(?<![\w-])(--?[a-z][\w-]*)(?:[ =]\{([^}]*)\})?", text):
        values = tuple(value.strip() for value in choices.split(",")) if choices else ()
        options[flag] = options.get(flag) or values
    return options


@cache
def all_options() -> frozenset[str]:
    """Every option that a page may name: ours and those of OTHERS_OPTIONS."""
    found = {"--help", "--version", "--"}
    for program in MODULES:
        found |= set(_OPTION.findall(help_of(program)))
        for command in commands_of(program):
            found |= set(options_of(program, command))
    return frozenset(found).union(*(names.split() for names in OTHERS_OPTIONS.values()))


def check_script(script: str) -> int:
    """Check each command of a shell script; how many there were.

    Raises: NoSuchCommand.
    """
    count = 0
    for line in re.sub(r"\\\n", " ", script).splitlines():
        for words in _simple_commands(line):
            check_command(words)
            count += 1
    return count


def _simple_commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|&;"):
            if words:
                yield words
            words = []
        elif words or not re.fullmatch(r"[A-Z_]+=.*", word):
            words.append(word)
    if words:
        yield words


def check_command(words: Sequence[str]) -> None:
    """Check one command by what it names.

    Raises: NoSuchCommand.
    """
    program, rest = words[0], list(words[1:])
    if program in MODULES:
        _check_ours(program, rest)
    elif program == "leia-beam-worker" or program in ("cd", "cp", "git", "ls", "source", "export", "cat"):
        return
    elif program in ("make", "pip", "docker", "kubectl", "python", "torchrun", "accelerate", "lm-eval"):
        _CHECKS[program](rest)
    else:
        raise NoSuchCommand(f"{program}: no way is known to check it; add one to tests/docs_commands.py")


def _check_ours(program: str, words: Sequence[str]) -> None:
    words = list(words[: words.index("--")]) if "--" in words else list(words)
    if not words or words[0].startswith("-"):
        unknown = [word for word in words if word not in help_of(program)]
        if unknown:
            raise NoSuchCommand(f"{program}: no option {unknown[0]}")
        return
    command = words[0]
    if _PLACEHOLDER.match(command):
        return
    if command not in commands_of(program):
        raise NoSuchCommand(f"{program}: no command {command!r} (there are {', '.join(sorted(commands_of(program)))})")
    options = options_of(program, command)
    for word, value in zip(words, [*words[1:], ""]):
        flag, equals, given = word.partition("=")
        if not re.fullmatch(r"--?[a-z][\w-]*", flag):
            continue
        if flag not in options:
            raise NoSuchCommand(f"{program} {command}: no option {flag}")
        given = given if equals else value
        choices = options[flag]
        if choices and given not in choices and not _PLACEHOLDER.match(given or "…"):
            raise NoSuchCommand(f"{program} {command} {flag} {given}: is none of {', '.join(choices)}")


def _check_make(words: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in words:
        if "=" not in target and not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
            raise NoSuchCommand(f"make {target}: the Makefile has no such target")


def _check_pip(words: Sequence[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word, before in zip(words, ["", *words]):
        if before == "-c":
            _check_path(word)
        extras = re.fullmatch(r"(?:\.|leia-lm|dist/\S+)\[([\w,]+)\]", word)
        for extra in extras[1].split(",") if extras else ():
            if extra not in project["optional-dependencies"]:
                raise NoSuchCommand(f"pip install {word}: there is no extra {extra}")
        if word.startswith("leia") and not re.match(r"leia-lm(\[|==|$)|leia_lm-", word):
            raise NoSuchCommand(f"pip install {word}: the distribution is called leia-lm")


def _check_files(words: Sequence[str]) -> None:
    for word, before in zip(words, ["", *words]):
        if before == "-f":
            _check_path(word)


def _check_python(words: Sequence[str]) -> None:
    if words and words[0] == "-m":
        module = words[1].replace("_", "-")
        if module in MODULES:
            _check_ours(module, words[2:])
        return
    _check_path(words[0])


def _check_launcher(words: Sequence[str]) -> None:
    at = words.index("-m")
    for word, before in zip(words[:at], ["", *words]):
        if before == "--config_file":
            _check_path(word)
    _check_ours(words[at + 1].replace("_", "-"), words[at + 2 :])


def _check_lm_eval(words: Sequence[str]) -> None:
    for word, before in zip(words, ["", *words]):
        if before == "--include_path":
            _check_path(word)


def _check_path(name: str) -> None:
    if not _PLACEHOLDER.match(name) and not (ROOT / name).exists():
        raise NoSuchCommand(f"{name}: no such file in the project")


_CHECKS = {
    "make": _check_make,
    "pip": _check_pip,
    "docker": _check_files,
    "kubectl": _check_files,
    "python": _check_python,
    "torchrun": _check_launcher,
    "accelerate": _check_launcher,
    "lm-eval": _check_lm_eval,
}


def code_spans(page: Path) -> list[str]:
    """The code within the sentences of a page."""
    return _CODE_SPAN.findall(_FENCED.sub("", page.read_text(encoding="utf-8")))


def check_code_span(span: str) -> int:
    """Check a piece of code in a sentence: 1 if it was a command of ours, else 0.

    Raises: NoSuchCommand.
    """
    words = span.split()
    if words[0] in MODULES and len(words) > 1:
        _check_ours(words[0], shlex.split(span)[1:])
        return 1
    if words[0] in ("accelerate", "torchrun") and "-m" in words:
        check_command(shlex.split(span))
        return 1
    if words[0] == "make" and len(words) > 1 and not _PLACEHOLDER.match(words[1]):
        _check_make(words[1:2])
        return 1
    for option in _OPTION.findall(span):
        if option not in all_options() and not option.endswith("-"):
            raise NoSuchCommand(f"`{span}`: no command has an option {option}")
    return 0

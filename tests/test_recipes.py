"""All commands and recipes: what `--print-config` prints is a recipe that gives the same configuration again."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import leia_beam.command_line
import leia_eval.command_line
import leia_train.command_line
from leia_beam.arguments import Parser, names, not_negative, positive, share, size_bytes
from leia_beam.configuration import Options, _from_recipes, config_lines, parse
from leia_beam.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(path for path in (ROOT / "recipes").glob("**/*.yaml") if path.parent.name != "accelerate")
PARSERS = {
    "leia-beam": leia_beam.command_line.make_parser,
    "leia-train": leia_train.command_line.make_parser,
    "leia-eval": leia_eval.command_line.build_parser,
}
COMMANDS = [
    (program, command)
    for program, make in PARSERS.items()
    for command, parser in make().command_parsers().items()
    if parser.recipe_use is not None and list(_from_recipes(parser))
]

_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda text: not text.startswith("-")
)
_NAMES = st.text("abcXYZ.0129_-", min_size=1, max_size=6).filter(lambda text: not text.startswith("-"))
_TEXTS: dict[Any, st.SearchStrategy[str]] = {
    None: _WORDS
    | st.sampled_from(["no", "null", "~", "010", "1e3", "${x}", "$${x}", "a: b", "#c", "[d]", "true", "${"]),
    str: _WORDS | st.sampled_from(["no", "null", "yes", "0x1", "2026-01-01", "${folder}"]),
    int: st.integers(-(10**9), 10**18).map(str).filter(lambda text: not text.startswith("-")),
    float: st.floats(0, allow_nan=False).map(repr),
    Path: _NAMES,
    names: st.lists(st.text("abcXYZ019", min_size=1, max_size=4), min_size=1, max_size=3).map(",".join),
    positive: st.integers(1, 10**12).map(str),
    not_negative: st.integers(0, 10**12).map(str),
    share: st.floats(0, 1).map(repr),
    size_bytes: st.sampled_from(["1", "48MiB", "1.5K", "10 MB", "3GiB"]),
}


def _typed(action: argparse.Action, draw: st.DrawFn) -> Iterator[str]:
    """Words of a command line that give an option some value."""
    flags = action.option_strings
    if action.nargs == 0:
        yield draw(st.sampled_from(flags))
        return
    values = st.sampled_from(list(action.choices)).map(str) if action.choices else _TEXTS[action.type]
    count = draw(st.integers(1, 3)) if action.nargs in ("+", "*") else 1
    found = [draw(values) for _ in range(count)]
    if not flags:
        yield from found
    elif len(found) == 1:
        yield f"{flags[0]}={found[0]}"
    else:
        yield from (flags[0], *found)


@st.composite
def command_lines(draw: st.DrawFn, program: str, command: str) -> list[str]:
    """A command line of all that must be given and some of what may be."""
    chosen = PARSERS[program]().command_parsers()[command]
    words: list[str] = []
    positional: list[str] = []
    for action in _from_recipes(chosen):
        if action.required or draw(st.booleans()):
            (words if action.option_strings else positional).extend(_typed(action, draw))
    # A list of several words would swallow what follows it; the positional ones go first.
    return [command, *positional, *words]


def _values(options: Options) -> dict[str, Any]:
    return {action.dest: _plain(getattr(options, action.dest)) for action in _from_recipes(options.parser)}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else str(value) if isinstance(value, PurePath) else value


@pytest.mark.parametrize(("program", "command"), COMMANDS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_printed_configuration_is_a_recipe_of_the_same_configuration(
    tmp_path: Path, program: str, command: str, data: st.DataObject
) -> None:
    """Whatever was typed for whichever options: the recipe alone gives every value, and names itself as their origin."""
    first = parse(PARSERS[program](), data.draw(command_lines(program, command)))
    recipe = tmp_path / "printed.yaml"
    recipe.write_text("\n".join(config_lines(first)) + "\n", encoding="utf-8")
    second = parse(PARSERS[program](), [command, "-c", str(recipe)])
    assert _values(second) == _values(first)
    # What is null or an empty list in the recipe is not given.
    given = {name for name, value in _values(second).items() if value is not None and value != ()}
    assert all(second.origins[name].startswith(str(recipe)) for name in given)
    assert [line.rpartition("  # ")[0] for line in config_lines(second)] == [
        line.rpartition("  # ")[0] for line in config_lines(first)
    ]


def test_the_property_is_tried_on_every_command_with_a_section() -> None:
    """All of the three sections, and lists, switches, numbers and texts among the options."""
    assert len(COMMANDS) >= 17
    kinds = set()
    for program, command in COMMANDS:
        for action in _from_recipes(PARSERS[program]().command_parsers()[command]):
            kinds.add("switch" if action.nargs == 0 else "list" if action.nargs in ("+", "*") else action.type)
    assert {"switch", "list", names, int, float, size_bytes} <= kinds


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
@pytest.mark.parametrize(
    ("program", "command"),
    [
        *(("leia-beam", command) for command in ("fetch", "build", "entities", "shards", "stats")),
        *(("leia-train", command) for command in ("train", "plan", "study", "bake", "export", "exposures", "report")),
        *(("leia-eval", command) for command in ("run", "compare", "contamination", "ls", "report")),
    ],
)
def test_the_recipes_of_the_repository_are_read_by_all_commands(recipe: Path, program: str, command: str) -> None:
    """Each is complete: nothing more has to be typed, for any arm."""
    parser = PARSERS[program]()
    use = parser.command_parsers()[command].recipe_use
    assert use is not None
    made = read_recipe(str(recipe))
    for arm in list(made.arms) if use.has_arms else [None]:
        if program == "leia-train" and arm is not None and not made.is_trained(arm):
            continue
        parse(PARSERS[program](), [command, "-c", str(recipe), *([] if arm is None else ["--arm", arm])])


@pytest.mark.parametrize("program", PARSERS)
def test_help_takes_no_heavy_import_and_has_an_example(program: str) -> None:
    """Every command: its options in groups, an example that its own parser takes, and neither YAML nor anything heavier."""
    parser = PARSERS[program]()
    for command, chosen in parser.command_parsers().items():
        text = chosen.format_help()
        assert f"example:\n  {program} {command}" in text, command
    module = program.replace("-", "_")
    code = (
        f"import sys; from {module}.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'apache_beam', 'yaml', 'lm_eval', 'transformers', 'shtab'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _examples() -> Iterator[tuple[str, list[str]]]:
    """The example lines of all commands."""
    for program, make in PARSERS.items():
        for chosen in make().command_parsers().values():
            lines = (chosen.epilog or "").replace("\\\n", " ").splitlines()[1:]
            yield from ((program, line.split()) for line in lines)


@pytest.mark.parametrize(
    ("program", "words"), list(_examples()), ids=lambda value: value if isinstance(value, str) else "-"
)
def test_the_examples_of_the_help_are_command_lines(
    program: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They parse as they stand, with a recipe that has what any of them needs."""
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(
        "variables: {language: ja}\nfolder: work\ncorpus: {pages: [p], wiki: ja, tokenizer: t}\n"
        "training: {model: m}\nevaluation: {tasks: x}\narms: {plain: {}, leia: {}}\n"
    )
    assert words[0] == program
    parse(PARSERS[program](), words[1:])


@pytest.mark.parametrize("program", PARSERS)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_commands_and_options(
    program: str, shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `--print-completion SHELL` prints them."""
    with pytest.raises(SystemExit) as ended:
        parse(PARSERS[program](), ["--print-completion", shell])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    flag = {"leia-beam": "name-languages", "leia-train": "learning-rate", "leia-eval": "batch-size"}[program]
    for command in PARSERS[program]().command_parsers():
        assert command in text
    assert flag in text and program in text


def test_bash_completes_a_command_an_option_and_a_choice(tmp_path: Path) -> None:
    """The script in a real bash: `leia-beam bui` becomes build, `--alig` becomes --align, and its values are listed."""
    from leia_beam.completion import completion_script

    script = tmp_path / "completion.bash"
    script.write_text(completion_script(leia_beam.command_line.make_parser(), "bash"))
    program = f"""source {script}
complete_words() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_leia_beam; echo "${{COMPREPLY[*]}}"; }}
complete_words leia-beam bui
complete_words leia-beam build --alig
complete_words leia-beam build --align s
"""
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert [line.split() for line in done.stdout.splitlines()] == [["build"], ["--align"], ["split", "strict"]]


def test_a_parser_of_another_kind_is_completed_too() -> None:
    """Without subcommands."""
    from leia_beam.completion import completion_script

    parser = Parser(prog="leia-x")
    parser.add_argument("--folder", metavar="DIR")
    assert "--folder" in completion_script(parser, "bash")

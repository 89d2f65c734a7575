"""From the words of a command line to typed values: messages of one line, help that prints defaults, types with units.

The parsers of all three commands are of this kind. How what is typed and what a recipe says come together stands in
configuration.py.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from leia_beam.errors import UsageError
from leia_beam.recipe_use import RecipeUse
from leia_beam.suggestions import nearest

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?i?B?)\s*", re.IGNORECASE)
_LISTED_OPTIONS = 12
_CHOICE = re.compile(r"argument (.+?): invalid choice: '(.*?)' \(choose from (.*)\)", re.DOTALL)
_NUMBER = re.compile(r"argument (.+?): invalid (int|float) value: '(.*)'", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError with one line, and suggests the nearest name.

    `profiles` maps what `--profile` may be to the defaults that it changes, by destination. `recipe_use` says what a command
    takes from a recipe.
    """

    profiles: Mapping[str, Mapping[str, object]] = {}
    recipe_use: RecipeUse | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("formatter_class", _HelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{said(message)} (see {self.prog} --help)")

    def format_help(self) -> str:
        """The help, whose first line names what must be given alone where there are many options."""
        if self.usage is None and len(self._actions) > _LISTED_OPTIONS:
            words = [self.prog.replace("%", "%%"), *(_usage_of(action) for action in self._actions if action.required)]
            self.usage = " ".join([*words, "[OPTION …]"])
        return super().format_help()

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """A text as the option's type has it; what the types of this module say of it comes with the option's name."""
        try:
            return super()._get_value(action, arg_string)
        except UsageError as error:
            raise argparse.ArgumentError(action, str(error)) from error

    def command_parsers(self) -> Mapping[str, Parser]:
        """The parsers of the subcommands by name."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                choices: dict[str, Parser] = dict(action.choices)
                return choices
        return {}


def add_output_of_progress(parser: argparse._ActionsContainer) -> None:
    """What a command that takes long says on standard error."""
    parser.add_argument("--quiet", action="store_true", help="no notes and no progress: warnings and the error alone")
    parser.add_argument(
        "--log-json", action="store_true", help="on standard error one JSON object a line, for collectors of logs"
    )


def new_command(
    commands: argparse._SubParsersAction[Parser], name: str, summary: str, example: str, description: str = ""
) -> Parser:
    """A subcommand with its summary and an example, which stands at the end of its help."""
    return commands.add_parser(
        name, help=summary, description=description or summary, epilog=f"example:\n  {example.strip()}"
    )


def _usage_of(action: argparse.Action) -> str:
    """How a required argument is given."""
    metavar = str(action.metavar or action.dest)
    value = metavar + ("…" if action.nargs in ("+", "*") else "")
    return " ".join([*action.option_strings[:1], value])


def said(message: str) -> str:
    """What argparse says, with the nearest of the choices and without Python's names of types.

    >>> said("argument --align: invalid choice: 'edgy' (choose from 'edge', 'strict')")
    "--align: 'edgy' is none of edge, strict; did you mean 'edge'?"
    >>> said("argument --steps: invalid int value: 'x'")
    "--steps: 'x' is no whole number"
    """
    choice, number = _CHOICE.fullmatch(message), _NUMBER.fullmatch(message)
    if choice:
        name, value, listed = choice.groups()
        choices = [each.strip(" '") for each in listed.split(",")]
        if name == "COMMAND":
            return f"unknown command {value!r}{nearest(value, choices)}"
        return f"{name}: {value!r} is none of {', '.join(choices)}{nearest(value, choices)}"
    if number:
        name, kind, value = number.groups()
        return f"{name}: {value!r} is no {'whole ' if kind == 'int' else ''}number"
    return re.sub(r"^argument (\S+): ", r"\1: ", message)


class Switch(argparse.BooleanOptionalAction):
    """`--x` and `--no-x`, whose default is printed once, in any version of Python, as on or off."""

    def __init__(self, option_strings: Sequence[str], dest: str, default: bool = False, **kwargs: Any):
        super().__init__(option_strings, dest, default=argparse.SUPPRESS, **kwargs)
        self.default = default


class _HelpFormatter(argparse.HelpFormatter):
    """Prints a default where there is one to speak of, and keeps the lines of an example."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help, action.default
        if text is None or default in (None, argparse.SUPPRESS) or action.required:
            return text
        if isinstance(action, Switch):
            return f"{text} (default: {'on' if default else 'off'})"
        if action.nargs == 0 or type(action) is argparse._AppendAction:
            return text
        shown = "none" if default in ((), [], "") else default
        if isinstance(shown, (list, tuple)):
            shown = ("," if action.type in (names, whole_numbers) else " ").join(map(str, shown))
        return f"{text} (default: {str(shown).replace('%', '%%')})"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "\n".join(f"{indent}{line}" for line in text.splitlines())


def size_bytes(text: str) -> int:
    """A size from '48MiB', '10 MB' or '1000'.

    Raises: UsageError.

    >>> size_bytes("48MiB"), size_bytes("10 MB"), size_bytes("1000")
    (50331648, 10000000, 1000)
    """
    match = _SIZE.fullmatch(text)
    unit = match.group(2).upper() if match else ""
    unit = unit if unit in _UNITS else unit + "B"
    size = float(match.group(1)) * _UNITS[unit] if match is not None and unit in _UNITS else 0.0
    if not 1 <= size < 2**63:
        raise UsageError(f"{text[:40]!r} is no size; give one such as 48MiB")
    return int(size)


def positive(text: str) -> int:
    """A whole number of at least 1.

    Raises: UsageError.
    """
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{text!r}: give a whole number of at least 1")
    return int(text)


def not_negative(text: str) -> int:
    """A whole number, 0 among them.

    Raises: UsageError.
    """
    if not text.isdecimal():
        raise UsageError(f"{text!r}: give a whole number, 0 or more")
    return int(text)


def share(text: str) -> float:
    """A share from 0 to 1.

    Raises: UsageError.

    >>> share("0.01"), share("1")
    (0.01, 1.0)
    """
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise UsageError(f"{text[:40]!r}: give a share from 0 to 1, such as 0.01")
    return number


def names(text: str) -> tuple[str, ...]:
    """Names that are parted by commas, each once; in a recipe a list of names too.

    Raises: UsageError where there is none.

    >>> names("en, fr,en")
    ('en', 'fr')
    """
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise UsageError(f"{text!r} names nothing; give at least one, parted by commas")
    return found


def whole_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers of 0 or more that are parted by commas, each once.

    Raises: UsageError.

    >>> whole_numbers("3, 1")
    (3, 1)
    """
    return tuple(not_negative(part) for part in names(text))

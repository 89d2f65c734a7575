"""From a command line to its options: unknown names are errors that name the nearest one, defaults are printed."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NoReturn

from leia_beam.errors import UsageError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?i?B?)\s*", re.IGNORECASE)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError with one line, and suggests the nearest name.

    `profiles` maps what `--profile` may be to the defaults that it changes, by destination.
    """

    profiles: Mapping[str, Mapping[str, object]] = {}

    def __init__(self, *args: object, **kwargs: object):
        kwargs.setdefault("formatter_class", _HelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        match = re.fullmatch(r"argument (?:\S+): invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if match:
            choices = [choice.strip(" '") for choice in match.group(2).split(",")]
            raise UsageError(f"{match.group(1)!r} is none of {', '.join(choices)}{nearest(match.group(1), choices)}")
        raise UsageError(f"{message} (see {self.prog} --help)")

    def parse_strict(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all of `arguments`.

        Raises: UsageError, with the nearest option for one that is unknown (before what is missing is complained of).
        """
        chosen = self._chosen(arguments)
        flags = [flag for action in chosen._actions for flag in action.option_strings]
        for argument in arguments:
            name = argument.partition("=")[0]
            if name.startswith("--") and name not in flags and name not in self._option_string_actions:
                raise UsageError(f"unknown argument {name!r}{nearest(name, flags)} (see {chosen.prog} --help)")
        if isinstance(chosen, Parser):
            chosen._take_profile(arguments)
        namespace, unknown = self.parse_known_args(list(arguments))
        if unknown:
            raise UsageError(f"unknown argument {unknown[0]!r} (see {chosen.prog} --help)")
        return namespace

    def _take_profile(self, arguments: Sequence[str]) -> None:
        """Change the defaults to those of the profile, so that options which are given count more."""
        given = [argument.removeprefix("--profile=") for argument in arguments if argument.startswith("--profile=")]
        given += [value for name, value in pairwise(arguments) if name == "--profile"]
        known = {action.dest for action in self._actions}
        defaults = self.profiles.get(given[-1] if given else "", {})
        self.set_defaults(**{name: value for name, value in defaults.items() if name in known})

    def _chosen(self, arguments: Sequence[str]) -> argparse.ArgumentParser:
        """The parser of the subcommand that is given, if any."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                choices: dict[str, argparse.ArgumentParser] = dict(action.choices)
                command = next((argument for argument in arguments if not argument.startswith("-")), "")
                return choices.get(command, self)
        return self


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Prints a default only where there is one to speak of."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False) or action.required or action.nargs == 0:
            return action.help
        return super()._get_help_string(action)


def nearest(name: str, names: Sequence[str]) -> str:
    """A hint at the nearest of several names, or ''.

    >>> nearest("--tokeniser", ["--tokenizer", "--output"])
    "; did you mean '--tokenizer'?"
    """
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


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

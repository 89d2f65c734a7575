"""From a command line to a run: `leia-train train`. Flags are made from the fields of config.py.

Nothing heavy is imported before the options are known to be right, so `--help` takes well under 0.3 s.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from importlib import metadata
from typing import Any, NoReturn

from leia_beam.errors import LeiaError, MissingResource, UsageError, exit_code_of
from leia_train.config import GROUPS, TrainConfig

PROGRAM = "leia-train"
DISTRIBUTION = "leia-lm"


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except (LeiaError, KeyboardInterrupt, MemoryError) as error:
        message = str(error) or type(error).__name__
        print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
        return exit_code_of(error)


def _run(arguments: Sequence[str]) -> int:
    parser = make_parser()
    try:
        options, unknown = parser.parse_known_args(list(arguments))
    except SystemExit as end:  # --help and --version; errors raise UsageError
        return int(end.code or 0)
    if unknown:
        raise UsageError(_unknown_message(unknown[0], parser, options))
    if options.command is None:
        parser.print_help()
        return 0
    return _train(make_config(options))


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are UsageErrors."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog=PROGRAM, description="Train a causal language model on LEIA's shards.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    summary = "train on finished shards; the same command again resumes from the newest whole checkpoint"
    train = commands.add_parser("train", help=summary, description=summary, allow_abbrev=False)
    for name, config_class in GROUPS.items():
        group = train.add_argument_group(name)
        types = typing.get_type_hints(config_class)
        for field in fields(config_class):
            _add_flag(group, field, types[field.name])
    return parser


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+source"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _add_flag(group: argparse._ArgumentGroup, field: Field[Any], kind: Any) -> None:
    """The flag of one field: its type, its choices, and its default in its help."""
    required = field.default is MISSING
    shown = "" if required else f" (default: {_shown(field.default)})"
    common: dict[str, Any] = {"help": field.metadata["help"].replace("%", "%%") + shown}
    if not required:
        common["default"] = field.default
    if kind is bool:
        group.add_argument(_flag(field.name), action=argparse.BooleanOptionalAction, **common)
    elif typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        group.add_argument(
            _flag(field.name), nargs="+", type=item, required=required, metavar=field.metadata["metavar"], **common
        )
    else:
        choices = field.metadata["choices"]
        metavar = "{" + ",".join(choices) + "}" if choices else _METAVARS.get(kind, "TEXT")
        group.add_argument(_flag(field.name), type=kind, required=required, metavar=metavar, **common)


_METAVARS: dict[Any, str] = {int: "N", float: "X"}


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return str(default) if default != () else "none"


def _unknown_message(word: str, parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """What is unknown, and the nearest flag of the command that was given."""
    chosen = parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and options.command is not None:
            chosen = action.choices[options.command]
    flags = [flag for action in chosen._actions for flag in action.option_strings]
    near = difflib.get_close_matches(word.partition("=")[0], flags, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown argument {word!r}{hint} (see {chosen.prog} --help)"


def make_config(options: argparse.Namespace) -> TrainConfig:
    """The configuration that the flags say.

    Raises: UsageError for a value out of its range.
    """
    groups = {}
    for name, config_class in GROUPS.items():
        given = {field.name: getattr(options, field.name) for field in fields(config_class)}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        groups[name] = config_class(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        )
    return TrainConfig(**groups)


def _train(config: TrainConfig) -> int:
    try:
        from transformers.utils.logging import disable_progress_bar

        from leia_train.train import train
    except ImportError as error:
        raise MissingResource(
            f"training needs {error.name}, which is not installed: pip install '{DISTRIBUTION}[train]'"
        ) from error

    disable_progress_bar()  # its bars for reading and writing weights cut our lines
    result = train(config, report=_say, progress=_progress(config))
    print(f"{result.checkpoint}")
    return 0


def _say(line: str) -> None:
    print(f"{PROGRAM}: {line}", file=sys.stderr, flush=True)


def _progress(config: TrainConfig) -> Callable[[str], None]:
    """Each step's line on a terminal; elsewhere a tenth of them, so that log files stay short."""
    every = 1 if sys.stderr.isatty() else max(config.optimization.steps // 10, 1)
    seen = 0

    def show(line: str) -> None:
        nonlocal seen
        seen += 1
        if not config.run.quiet and seen % every == 0:
            print(line, file=sys.stderr, flush=True)

    return show

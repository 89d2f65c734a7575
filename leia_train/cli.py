"""From a command line to a command of `leia-train`. Flags are made from the fields of config.py.

A value comes from its flag, else from `--set`, else from the recipe, else from its default. Nothing heavy is imported
before the options are known to be right, so `--help` takes well under 0.3 s.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from leia_beam.errors import LeiaError, MissingResource, UsageError, exit_code_of
from leia_train.config import (
    GROUPS,
    BakeConfig,
    DataConfig,
    ExportConfig,
    ExposuresConfig,
    OptimizationConfig,
    ReportConfig,
    TrainConfig,
)
from leia_train.recipe import read_recipe

PROGRAM = "leia-train"
DISTRIBUTION = "leia-lm"


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except (LeiaError, KeyboardInterrupt, MemoryError) as error:
        message = str(error) or type(error).__name__
        who = f"process {_process()}: " if _process() else ""
        print(f"{PROGRAM}: error: {who}{' '.join(message.split())}", file=sys.stderr)
        return exit_code_of(error)


def _process() -> int:
    """The number of this process among those of the run, which every launcher notes."""
    number = os.environ.get("RANK", "0")
    return int(number) if number.isdecimal() else 0


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
    return COMMANDS[options.command].run(options, arguments)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are UsageErrors."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Command:
    """A command: its summary, the groups of its flags, and what it does."""

    summary: str
    groups: Mapping[str, type]
    run: Callable[[argparse.Namespace, Sequence[str]], int]
    positional: str | None = None
    recipe: bool = True


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog=PROGRAM, description="Train a causal language model on LEIA's shards.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        made = commands.add_parser(name, help=command.summary, description=command.summary, allow_abbrev=False)
        if command.recipe:
            made.add_argument("-c", "--recipe", metavar="FILE", help="YAML recipe with the sections data, model, …")
            made.add_argument(
                *("--set", "-s"),
                dest="settings",
                metavar="SECTION.NAME=VALUE",
                action="append",
                default=[],
                help="a value of the recipe; may be given several times",
            )
        for group_name, config_class in command.groups.items():
            group = made.add_argument_group(group_name)
            types = typing.get_type_hints(config_class)
            for field in fields(config_class):
                _add_flag(group, field, types[field.name], field.name == command.positional)
    return parser


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+source"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _add_flag(group: argparse._ArgumentGroup, field: Field[Any], kind: Any, positional: bool) -> None:
    """The flag of one field: its type, its choices, and its default in its help; absent where it is not given."""
    required = field.default is MISSING
    shown = "" if required else f" (default: {_shown(field.default)})"
    common: dict[str, Any] = {"help": field.metadata["help"].replace("%", "%%") + shown, "default": argparse.SUPPRESS}
    name = field.name.upper() if positional else _flag(field.name)
    if positional:
        several = "+" if typing.get_origin(kind) is tuple else None
        group.add_argument(field.name, nargs=several, metavar=field.metadata["metavar"] or name, help=common["help"])
    elif kind is bool:
        group.add_argument(name, action=argparse.BooleanOptionalAction, **common)
    elif typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        group.add_argument(name, nargs="+", type=item, metavar=field.metadata["metavar"], **common)
    else:
        choices = field.metadata["choices"]
        metavar = "{" + ",".join(choices) + "}" if choices else _METAVARS.get(kind, "TEXT")
        group.add_argument(name, type=kind, metavar=metavar, **common)


_METAVARS: dict[Any, str] = {int: "N", float: "X"}


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return str(default) if default not in ((), "") else "none"


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


def make_groups(options: argparse.Namespace) -> dict[str, Any]:
    """The configurations of a command's groups, by group.

    Raises: UsageError for a value that is missing or out of its range.
    """
    command = COMMANDS[options.command]
    values = {group: dict[str, Any]() for group in command.groups}
    if command.recipe:
        sections = {**GROUPS, **command.groups}
        found = read_recipe(options.recipe, options.settings, sections)
        values |= {group: found[group] for group in command.groups}
    missing = []
    for group, config_class in command.groups.items():
        for field in fields(config_class):
            if hasattr(options, field.name):
                given = getattr(options, field.name)
                values[group][field.name] = tuple(given) if isinstance(given, list) else given
            elif field.default is MISSING and field.name not in values[group]:
                missing.append(_flag(field.name))
    if missing:
        raise UsageError(
            f"the following arguments are required: {', '.join(missing)} (see {PROGRAM} {options.command} --help)"
        )
    return {group: config_class(**values[group]) for group, config_class in command.groups.items()}


def make_config(options: argparse.Namespace) -> TrainConfig:
    """The configuration that the flags and the recipe say.

    Raises: UsageError for a value that is missing or out of its range.
    """
    return TrainConfig(**make_groups(options))


def _train(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    config = make_config(options)
    with _needs("training"):
        from leia_train.launcher import is_launched, launch

        if config.run.nproc > 1 and not is_launched(os.environ):
            return launch(list(arguments), config.run.nproc, Path(config.run.output))
        from leia_train.train import train
    _no_bars()
    result = train(config, report=_say, progress=_progress(config))
    if _process() == 0:
        print(f"{result.checkpoint}")
    return 0


def _no_bars() -> None:
    """No bars of transformers for reading and writing weights: they cut our lines."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]


def _plan(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    config = make_config(options)
    with _needs("planning"):
        from leia_train.planning import describe
    for line in describe(config, report=_say):
        print(line)
    return 0


def _bake(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    groups = make_groups(options)
    with _needs("baking"):
        from leia_train.bake import bake
    print(bake(groups["data"], groups["optimization"], groups["bake"], report=_say))
    return 0


def _export(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    config: ExportConfig = make_groups(options)["export"]
    with _needs("exporting"):
        from leia_train.export import export
    _no_bars()
    print(export(config, report=_say))
    return 0


def _exposures(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    config: ExposuresConfig = make_groups(options)["exposures"]
    with _needs("counting"):
        from leia_train.exposures import write_exposures
    for line in write_exposures(config, report=_say):
        print(line)
    return 0


def _report(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    config: ReportConfig = make_groups(options)["report"]
    with _needs("the report"):
        from leia_train.report import write_report
    print(write_report(config))
    return 0


def _doctor(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    with _needs("the check"):
        from leia_train.doctor import examine
    findings = examine()
    for finding in findings:
        print(finding.line())
    return max(finding.exit_code for finding in findings)


COMMANDS: Mapping[str, _Command] = {
    "train": _Command(
        summary="train on finished shards; the same command again resumes from the newest whole checkpoint",
        groups=GROUPS,
        run=_train,
    ),
    "plan": _Command(summary="print what `train` with these options would do", groups=GROUPS, run=_plan),
    "bake": _Command(
        summary="write the rows that `train` would read, for any other trainer",
        groups={"data": DataConfig, "optimization": OptimizationConfig, "bake": BakeConfig},
        run=_bake,
    ),
    "export": _Command(
        summary="write a checkpoint as a model in Hugging Face form, by choice in another type",
        groups={"export": ExportConfig},
        run=_export,
        positional="checkpoint",
        recipe=False,
    ),
    "exposures": _Command(
        summary="count for each entity how often a run saw it, and how often with its name",
        groups={"exposures": ExposuresConfig},
        run=_exposures,
        positional="run",
        recipe=False,
    ),
    "report": _Command(
        summary="write one page of a run's curves, figures, exposures and configuration, or of several runs'",
        groups={"report": ReportConfig},
        run=_report,
        positional="runs",
        recipe=False,
    ),
    "doctor": _Command(summary="say what training would find on this machine", groups={}, run=_doctor, recipe=False),
}


@contextmanager
def _needs(what: str) -> Iterator[None]:
    """Turn a missing package into one line that names its extra."""
    try:
        yield
    except ImportError as error:
        raise MissingResource(
            f"{what} needs {error.name}, which is not installed: pip install '{DISTRIBUTION}[train]'"
        ) from error


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

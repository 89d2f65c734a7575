"""From a command line to a command of `leia-train`, and from what went wrong to one line and an exit code.

Nothing heavy is imported before the options are known to be right, so `--help` takes well under 0.3 s.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from leia_beam.configuration import Options, config_lines, parse, told_where
from leia_beam.console import LOGGER, Console
from leia_beam.errors import AnotherProcess, Interrupted, LeiaError, MissingResource, UsageError, exit_code_of
from leia_beam.termination import end_with_parent
from leia_beam.version import DISTRIBUTION
from leia_train.command_configs import ExportConfig, ExposuresConfig, PlanConfig, ReportConfig, StudyConfig
from leia_train.command_line import PROGRAM, make_config, make_groups, make_parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    console = Console(PROGRAM, quiet="--quiet" in arguments, as_json="--log-json" in arguments)
    who = f"process {_process()}: " if _process() else ""
    try:
        end_with_parent()
        return _run(arguments, console)
    except (Interrupted, KeyboardInterrupt) as error:
        kept = "interrupted; what is finished is kept, and the same command goes on from there"
        if not (isinstance(error, Interrupted) and _is_said_by_another()):
            console.interrupted(f"{who}{str(error) or kept}", exit_code_of(error))
        return exit_code_of(error)
    except BrokenPipeError:  # a reader such as `head` that has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except AnotherProcess as error:
        if not _is_said_by_another():
            console.error(f"{who}{error}", exit_code_of(error))
        return exit_code_of(error)
    except (LeiaError, MemoryError) as error:
        message = str(error) or "out of memory; lower --micro-batch or --max-length"
        console.error(f"{who}{' '.join(message.split())}", exit_code_of(error))
        return exit_code_of(error)
    finally:
        console.clear()


def _process() -> int:
    """The number of this process among those of the run, which every launcher notes."""
    number = os.environ.get("RANK", "0")
    return int(number) if number.isdecimal() else 0


def _is_said_by_another() -> bool:
    """Whether the first process of this machine says what happened to all."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def _run(arguments: Sequence[str], console: Console) -> int:
    parser = make_parser()
    try:
        options = parse(parser, arguments)
    except SystemExit as end:  # --help and the like; errors raise UsageError
        return int(end.code or 0)
    if options.command is None:
        parser.print_help()
        return 0
    options.console = console
    console.settle(quiet=getattr(options, "quiet", False), as_json=getattr(options, "log_json", False))
    with told_where(options):
        if getattr(options, "print_config", False):
            if options.command != "doctor":
                make_groups(options)
            print("\n".join(config_lines(options)))
            return 0
        return _HANDLERS[options.command](options, arguments)


def _train(options: Options, arguments: Sequence[str]) -> int:
    config = make_config(options)
    if _process() == 0 and not config.run.quiet:
        options.console.status("training", "loading torch")
    with _needs("training"):
        from leia_train.launcher import is_launched, launch

        if config.run.nproc > 1 and not is_launched(os.environ):
            options.console.clear()  # the first process draws its own
            return launch(list(arguments), config.run.nproc, Path(config.run.output))
        from leia_train.train import train
    from leia_beam.chatter import chatter_held

    console: Console = options.console
    console.quiet = config.run.quiet
    with chatter_held() as log, _end_logged():
        result = train(config, report=console.say, progress=console.progress, log_to=log.write_to)
    if _process() == 0:
        print(f"{result.checkpoint}")
    return 0


@contextmanager
def _end_logged() -> Iterator[None]:
    """Why a run ended goes into its log too, while that is open; of a fault of the program all of it."""
    logger = logging.getLogger(LOGGER)
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        logger.warning("%s", str(error) or "interrupted; the same command goes on from the newest checkpoint")
        raise
    except LeiaError as error:
        logger.error("%s", error)
        raise
    except BaseException:
        logger.exception("the run ended with this")
        raise


def _no_bars() -> None:
    """No bars of transformers for reading and writing weights: they cut our lines."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]


def _plan(options: Options, arguments: Sequence[str]) -> int:
    config = make_config(options)
    with _needs("planning"):
        from leia_train.planning import describe
    plan: PlanConfig = make_groups(options)["plan"]
    console: Console = options.console
    asked = {"gpus": plan.gpus, "accelerate_config": plan.accelerate_config}
    for line in describe(config, report=console.say, tell=console.progress, **asked):
        print(line)
    return 0


def _bake(options: Options, arguments: Sequence[str]) -> int:
    groups = make_groups(options)
    with _needs("baking"):
        from leia_train.bake import bake
    console: Console = options.console
    print(bake(groups["data"], groups["optimization"], groups["bake"], report=console.say, tell=console.progress))
    return 0


def _export(options: Options, arguments: Sequence[str]) -> int:
    config: ExportConfig = make_groups(options)["export"]
    with _needs("exporting"):
        from leia_train.export import export
    _no_bars()
    print(export(config, report=options.console.say))
    return 0


def _exposures(options: Options, arguments: Sequence[str]) -> int:
    config: ExposuresConfig = make_groups(options)["exposures"]
    with _needs("counting"):
        from leia_train.exposures import write_exposures
    for line in write_exposures(config, report=options.console.say):
        print(line)
    return 0


def _report(options: Options, arguments: Sequence[str]) -> int:
    config: ReportConfig = make_groups(options)["report"]
    with _needs("the report"):
        from leia_train.report import write_report
    print(write_report(config))
    return 0


def _doctor(options: Options, arguments: Sequence[str]) -> int:
    from leia_beam.chatter import chatter_to
    from leia_beam.findings import exit_code_of_findings, show
    from leia_train.doctor import examine

    required = {"--shards": options.shards, "--model": options.model, "--output": options.output}
    given = [flag for flag, value in required.items() if value]
    if given and len(given) < len(required):
        lacking = ", ".join(flag for flag in required if flag not in given)
        raise UsageError(f"{', '.join(given)}: give {lacking} too, or none of them to look at the machine alone")
    config = make_config(options) if given else None
    with chatter_to(None):
        findings = list(examine(config))
    show(findings, as_json=False)
    return exit_code_of_findings(findings)


def _study(options: Options, arguments: Sequence[str]) -> int:
    from leia_train.study_command import run_study

    config: StudyConfig = make_groups(options)["study"]
    options.console.quiet = config.quiet
    return run_study(options, config, report=options.console.say)


_HANDLERS: Mapping[str, Callable[[Options, Sequence[str]], int]] = {
    "train": _train,
    "study": _study,
    "plan": _plan,
    "bake": _bake,
    "export": _export,
    "exposures": _exposures,
    "report": _report,
    "doctor": _doctor,
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

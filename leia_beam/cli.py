"""The command `leia-beam`: from a command line to a build, and from what went wrong to one line and an exit code.

Beam, pyarrow and the tokenizers are imported when a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

from leia_beam.command_line import make_parser
from leia_beam.configuration import Options, config_lines, parse, told_where
from leia_beam.console import Console
from leia_beam.errors import Interrupted, LeiaError, MissingResource, exit_code_of
from leia_beam.findings import Finding
from leia_beam.termination import termination_as_interrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit code; errors are one line on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    given, beam_options = _split_beam_options(given)
    console = Console("leia-beam", quiet="--quiet" in given, as_json="--log-json" in given)
    try:
        with termination_as_interrupt():
            _run(given, beam_options, console)
            sys.stdout.flush()  # here, where a reader that has gone is no error
    except KeyboardInterrupt as error:
        kept = str(error) or "finished units are kept, run the same command again to go on"
        console.interrupted(f"interrupted; {kept}", Interrupted.exit_code)
        return Interrupted.exit_code
    except LeiaError as error:
        console.error(str(error), exit_code_of(error))
        return exit_code_of(error)
    except BrokenPipeError:  # a reader such as `head` that has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        console.error(str(error), MissingResource.exit_code)
        return MissingResource.exit_code
    except MemoryError as error:
        console.error("out of memory; give fewer --workers or a machine with more", exit_code_of(error))
        return exit_code_of(error)
    finally:
        console.clear()
    return 0


def _run(given: Sequence[str], beam_options: list[str], console: Console) -> None:
    chosen = parse(make_parser(), given, {"beam": beam_options} if beam_options else {})
    beam_options = beam_options or getattr(chosen, "beam", [])
    chosen.console = console
    console.settle(quiet=getattr(chosen, "quiet", False), as_json=getattr(chosen, "log_json", False))
    chosen.examine_runner = _examine_runner
    with told_where(chosen):
        if getattr(chosen, "print_config", False):
            print("\n".join(config_lines(chosen)))
        else:
            getattr(chosen, "run", _build)(chosen, beam_options)


def _split_beam_options(given: list[str]) -> tuple[list[str], list[str]]:
    """What follows `--` goes to Beam."""
    if "--" not in given:
        return given, []
    at = given.index("--")
    return given[:at], given[at + 1 :]


def _build(chosen: Options, beam_options: Sequence[str]) -> None:
    from leia_beam.log_file import hold_log

    hold_log()  # before Beam is imported, which warns of what it misses
    from pipelines.commands import run_command

    run_command(chosen, beam_options)


def _examine_runner(chosen: argparse.Namespace, beam_options: Sequence[str]) -> Iterator[Finding]:
    """What the doctor finds of a build's runner, which only the pipelines know."""
    from leia_beam.log_file import hold_log

    hold_log()
    from pipelines.doctor import runner_findings

    yield from runner_findings(chosen, beam_options)


if __name__ == "__main__":
    sys.exit(main())

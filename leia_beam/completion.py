"""From a command's parser to a script that completes its commands, options and files in a shell."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from leia_beam.arguments import Parser
from leia_beam.errors import MissingResource

SHELLS = ("bash", "zsh", "fish")
_FOLDERS = re.compile(r"(^|\|)DIR")
_FILES = re.compile(r"FILE|PATH")


class PrintCompletion(argparse.Action):
    """`--print-completion SHELL`: prints the script and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any):
        super().__init__(
            option_strings,
            dest,
            default=argparse.SUPPRESS,
            choices=SHELLS,
            metavar="SHELL",
            help=f"print what makes a shell complete this command, and end: {', '.join(SHELLS)}",
        )

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, shell: Any, flag: str | None = None) -> None:
        print(completion_script(parser, shell), end="")
        parser.exit()


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for one of SHELLS; options whose value is a file or a folder complete those.

    Raises: MissingResource where shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise MissingResource("--print-completion needs the package shtab: pip install shtab") from error
    for each in (parser, *(parser.command_parsers().values() if isinstance(parser, Parser) else ())):
        for action in each._actions:
            metavar = action.metavar if isinstance(action.metavar, str) else ""
            if _FILES.search(metavar):
                action.complete = shtab.FILE
            elif _FOLDERS.search(metavar):
                action.complete = shtab.DIRECTORY
    script: str = shtab.complete(parser, shell)
    return script

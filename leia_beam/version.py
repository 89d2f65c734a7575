"""From the installed packages to the line that `--version` prints; none of them is imported."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from typing import Any

DISTRIBUTION = "leia-lm"


def installed_version(distribution: str) -> str:
    """The version of an installed distribution; 'none' where it is not installed."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"


def version_line(program: str, packages: Sequence[str]) -> str:
    """The program's version and those that decide what it writes.

    >>> version_line("leia-x", ["no-such-package"]).partition(" (")[2].partition(",")[2]
    ' no-such-package none)'
    """
    own = installed_version(DISTRIBUTION)
    versions = [f"python {platform.python_version()}", *(f"{name} {installed_version(name)}" for name in packages)]
    return f"{program} {own if own != 'none' else '(not installed)'} ({', '.join(versions)})"


class ShowVersion(argparse.Action):
    """`--version`: the versions are looked up when they are asked for, so that nothing else waits for them."""

    def __init__(self, option_strings: Sequence[str], dest: str, packages: Sequence[str] = (), **kwargs: Any):
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="print the versions and end")
        self._packages = packages

    def __call__(self, parser: argparse.ArgumentParser, *arguments: object) -> None:
        print(version_line(parser.prog, self._packages))
        parser.exit()

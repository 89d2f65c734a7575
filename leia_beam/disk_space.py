"""From the units that a stage has still to do to the disk space that they will take, and whether it is there.

What a stage writes for a byte that it reads was measured on real dumps: articles 0.8 to 1.1 of a .bz2, shards 0.4 to 0.8
of the articles, sitelinks 0.03 of today's .bz2. So only far too little space is refused; somewhat too little is a warning.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from leia_beam.errors import MissingResource

if TYPE_CHECKING:
    from leia_beam.units import Unit

WRITTEN_A_BYTE = {"sitelinks": 0.03, "langlinks": 0.5, "articles": 1.0, "shards": 0.8}
_PLAIN = 0.25
"""A dump that is not compressed comes to about a quarter."""


def needed_bytes(stage: str, units: Sequence[Unit]) -> int:
    """About what a stage will write for some units; 0 for stages that write little."""
    read = sum(
        (unit.end - unit.start) * (_PLAIN if unit.dump is not None and unit.name.endswith((".xml", ".json")) else 1.0)
        for unit in units
    )
    return int(read * WRITTEN_A_BYTE.get(stage, 0.0))


def check_free(folder: str, needed: int, free: int | None = None) -> str | None:
    """A warning where the disk that holds a folder may be too full for so many bytes; None where it is not.

    Raises: MissingResource where not even half of them would fit.
    """
    free = free_bytes(folder) if free is None else free
    if free >= needed:
        return None
    message = f"about {_size(needed)} will be written to {folder}, {_size(free)} are free there"
    if free < needed / 2:
        raise MissingResource(f"{message}; free some space, or give another --output")
    return message


def free_bytes(folder: str) -> int:
    """Free for whoever is not root, on the disk of the nearest folder above that is there."""
    path = os.path.abspath(folder)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 5e8 else f"{size_bytes / 1e6:,.1f} MB"

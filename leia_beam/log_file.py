"""From what libraries log to OUTPUT/build.log, so that a terminal shows the build's own lines alone."""

from __future__ import annotations

import logging
from logging.handlers import MemoryHandler

LOG_NAME = "build.log"
_HELD_RECORDS = 10_000


def hold_log() -> None:
    """Hold what is logged until there is an output folder to write it to."""
    root = logging.getLogger()
    root.handlers[:] = [MemoryHandler(_HELD_RECORDS, flushLevel=logging.CRITICAL + 1, flushOnClose=False)]
    root.setLevel(logging.WARNING)


def write_log_to(output: str) -> None:
    """Append what was held, and all that follows, to the log file of an output folder."""
    root = logging.getLogger()
    file = logging.FileHandler(f"{output.rstrip('/')}/{LOG_NAME}", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for handler in list(root.handlers):
        if isinstance(handler, MemoryHandler):
            handler.setTarget(file)
            handler.flush()
            handler.close()
    root.handlers[:] = [file]

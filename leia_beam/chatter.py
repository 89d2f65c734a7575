"""From what libraries print, log and draw to one log file, so that the terminal shows a program's own lines only.

Python-level output alone: the handlers of the named loggers, `warnings`, and whatever writes to sys.stdout and
sys.stderr (progress bars among it). Everything is put back at the end. What a console says is logged too.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from leia_beam.console import LOGGER

LIBRARIES = ("lm_eval", "transformers", "datasets", "accelerate", "huggingface_hub", "torch", "py.warnings", LOGGER)
_FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class ChatterLog(io.TextIOBase):
    """Stands in for stdout and stderr, and takes what is logged: held in memory until there is a file for it.

    A library may keep it beyond the end, when it swallows what it is given.
    """

    def __init__(self) -> None:
        self._file: TextIO | None = io.StringIO()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._file is not None:
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def write_to(self, path: Path) -> None:
        """Append what was held, and all that follows, to a file."""
        held = self._file
        self._file = path.open("a", encoding="utf-8")
        if isinstance(held, io.StringIO):
            self._file.write(held.getvalue())
        elif held is not None:
            held.close()

    def end(self) -> None:
        """Take no more."""
        if self._file is not None:
            self._file.close()
        self._file = None


@contextlib.contextmanager
def chatter_held() -> Iterator[ChatterLog]:
    """Within it, the libraries write to a log that is yet to be given its file; to nowhere, where it is given none."""
    with contextlib.ExitStack() as stack:
        log = ChatterLog()
        stack.callback(log.end)
        handler = logging.StreamHandler(log)
        handler.setFormatter(logging.Formatter(_FORM))
        for name in LIBRARIES:
            stack.enter_context(_handled_by(logging.getLogger(name), handler))
        stack.enter_context(warnings.catch_warnings())
        logging.captureWarnings(True)
        stack.callback(logging.captureWarnings, False)
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        yield log


@contextlib.contextmanager
def chatter_to(log_path: Path | None) -> Iterator[None]:
    """Within it, the libraries write to `log_path` (appended to), or nowhere."""
    with chatter_held() as log:
        if log_path is not None:
            log.write_to(log_path)
        yield


@contextlib.contextmanager
def _handled_by(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before

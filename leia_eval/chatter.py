"""From what libraries print, log and draw to one log file, so that the terminal shows this program's own lines only.

Python-level output alone: the handlers of the named loggers, `warnings`, and whatever writes to sys.stdout and
sys.stderr (progress bars among it). Everything is put back at the end.
"""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

LIBRARIES = ("lm_eval", "transformers", "datasets", "accelerate", "huggingface_hub", "torch", "py.warnings")


class _LogStream(io.TextIOBase):
    """Stands in for stdout and stderr. A library may keep it beyond the end, when it swallows what it is given."""

    def __init__(self, file: TextIO):
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not self._file.closed:
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()


@contextlib.contextmanager
def chatter_to(log_path: Path | None) -> Iterator[None]:
    """Within it, the libraries write to `log_path` (appended to), or nowhere."""
    with contextlib.ExitStack() as stack:
        file: TextIO = log_path.open("a", encoding="utf-8") if log_path else io.StringIO()
        stack.enter_context(file)
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        for name in LIBRARIES:
            stack.enter_context(_handled_by(logging.getLogger(name), handler))
        stack.enter_context(warnings.catch_warnings())
        logging.captureWarnings(True)
        stack.callback(logging.captureWarnings, False)
        stream = _LogStream(file)
        stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(contextlib.redirect_stderr(stream))
        yield


@contextlib.contextmanager
def _handled_by(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before


class ProgressLine:
    """A line with count, rate and time left, drawn over itself; on a terminal only."""

    def __init__(self, total: int, unit: str, stream: TextIO | None = None):
        import time

        self._stream = stream or sys.stderr
        self._clock = time.monotonic
        self._total, self._unit = total, unit
        self._done, self._start, self._drawn = 0, self._clock(), 0.0
        self._shown = self._stream.isatty()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        now = self._clock()
        if self._shown and (now - self._drawn > 0.2 or self._done >= self._total):
            rate = self._done / max(now - self._start, 1e-9)
            left_s = max(0, self._total - self._done) / rate
            line = f"{self._done:,}/{self._total:,} {self._unit}, {rate:,.1f}/s, {left_s:,.0f} s left"
            self._stream.write(f"\r{line:<70}")
            self._stream.flush()
            self._drawn = now

    def close(self) -> None:
        """Ends the line."""
        if self._shown and self._done:
            self._stream.write("\n")
            self._stream.flush()

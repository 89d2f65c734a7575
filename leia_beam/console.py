"""From what a command has to say to lines on standard error: a bar on a terminal, a line a minute elsewhere, JSON by option.

Results go to standard output, all else comes here: notes, warnings, the error that ends a command, progress. `--quiet`
leaves warnings and the error. With `--log-json` each line is one JSON object, for whoever collects logs. Everything but a
bar's redrawing also goes to the logger LOGGER, and with it into the log file of the output folder.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from leia_beam.terminal_text import printable

LOGGER = "leia"
STEP_VARIABLE = "LEIA_STEP"
"""Set by a command that runs others as its steps, and says itself that it was interrupted: then they leave it to their logs."""
LINE_EVERY_S = 60.0
"""Between two lines of progress where there is no terminal."""
_DRAW_EVERY_S = 0.1
_WINDOW_S = 60.0
_BAR_CELLS = 24
_SHORTEST_TEXT = 20
_WARNING_LINE = re.compile(r"\s*(?:\S+ +)?warning: ")
_INFO, _WARNING, _ERROR = "info", "warning", "error"
_LEVELS = {_INFO: logging.INFO, _WARNING: logging.WARNING, _ERROR: logging.ERROR}


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """How far a stage is. `total` 0: not known. `text` is what people read of it, rate and time left among it."""

    stage: str
    done: float
    total: float
    unit: str
    text: str
    rate: float | None = None
    """Of `unit`, a second."""
    left_s: float | None = None
    last: bool = False
    """Said even where another was within the minute, so that something short leaves a line too."""


Tell = Callable[[Measure], None]


class Console:
    """Says things on a stream (standard error as it is when this is made), from any thread.

    The stream is kept, so that what libraries print can be sent elsewhere meanwhile.
    """

    def __init__(
        self,
        program: str,
        *,
        quiet: bool = False,
        as_json: bool = False,
        stream: TextIO | None = None,
        line_every_s: float = LINE_EVERY_S,
    ):
        self.program = program
        self.quiet = quiet
        self._as_json = as_json
        self._stream = sys.stderr if stream is None else stream
        self._line_every_s = line_every_s
        self._draws = not as_json and _is_terminal(self._stream)
        self._lock = threading.RLock()
        self._drawn = ""
        self._drawn_s = 0.0
        self._told_s = time.monotonic()
        self._logger = logging.getLogger(LOGGER)
        self._logger.setLevel(logging.INFO)
        if not self._logger.handlers:
            self._logger.addHandler(logging.NullHandler())  # else logging itself prints warnings where none is set up

    def settle(self, *, quiet: bool, as_json: bool) -> None:
        """What a recipe may say otherwise than the command line, which alone was read when the console was made."""
        self.quiet, self._as_json = quiet, as_json
        self._draws = not as_json and _is_terminal(self._stream)

    def say(self, line: str) -> None:
        """A note; or a warning, where the line says so at its start, perhaps after the name of a stage."""
        if _WARNING_LINE.match(line):
            self.warn(_WARNING_LINE.sub("", line, count=1), shown=line)
        else:
            self._tell(_INFO, "note", line, line)

    def warn(self, message: str, *, shown: str | None = None) -> None:
        """Something that a user should know though the work goes on; shown with `--quiet` too."""
        self._tell(_WARNING, "note", message, shown or f"warning: {message}")

    def error(self, message: str, exit_code: int) -> None:
        """Why a command ends."""
        self._tell(_ERROR, "error", message, f"{self.program}: error: {message}", exit_code=exit_code)

    def interrupted(self, message: str, exit_code: int) -> None:
        """That a command was told to stop: what is kept, and how to go on. A step of another command logs it alone."""
        if os.environ.get(STEP_VARIABLE):
            self.clear()
            self._logger.warning("%s: %s", self.program, message)
            return
        self._tell(_WARNING, "interrupted", message, f"{self.program}: {message}", exit_code=exit_code)

    def progress(self, measure: Measure) -> None:
        """How far something is: drawn over itself on a terminal, elsewhere said once a minute, and where it is the last."""
        now = time.monotonic()
        with self._lock:
            if self._draws and not self.quiet and (measure.last or now - self._drawn_s >= _DRAW_EVERY_S):
                self._drawn_s = now
                self._draw(bar_line(measure, _columns(self._stream), _has_blocks(self._stream)))
            if not measure.last and now - self._told_s < self._line_every_s:
                return
            self._told_s = now
            line = f"{measure.stage:<10} {measure.text}"
            fields = {"stage": measure.stage, "done": measure.done, "total": measure.total, "unit": measure.unit}
            fields |= {"rate": measure.rate, "left_s": measure.left_s}
            if self._draws:
                self._logger.info(line)
            else:
                self._tell(_INFO, "progress", line, line, **fields)

    def status(self, stage: str, text: str) -> None:
        """What is being done before there is anything to count; on a terminal alone."""
        with self._lock:
            if self._draws and not self.quiet:
                self._draw(
                    bar_line(Measure(stage=stage, done=0, total=0, unit="", text=text), _columns(self._stream), False)
                )

    def clear(self) -> None:
        """Take a bar off the terminal."""
        with self._lock:
            if self._drawn:
                self._put("\r" + " " * len(self._drawn) + "\r")
                self._drawn = ""

    def _draw(self, line: str) -> None:
        self._put("\r" + line.ljust(len(self._drawn)))
        self._drawn = line

    def _tell(self, level: str, event: str, message: str, shown: str, **fields: Any) -> None:
        with self._lock:
            self._logger.log(_LEVELS[level], "%s", shown)
            if self.quiet and level == _INFO:
                return
            if self._as_json:
                content = {"time": _now(), "program": self.program, "level": level, "event": event}
                self._put(json.dumps({**content, "message": message.strip(), **fields}, ensure_ascii=False) + "\n")
            else:
                self.clear()
                self._put(printable(shown, "\n\t") + "\n")

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (BrokenPipeError, ValueError):  # nobody listens any more: that is no reason to end the work
            return


class Rate:
    """A rate of the last minute, from what was done at which time; what was done before it began does not count.

    >>> rate = Rate(total=100, done=50, now_s=0.0)
    >>> rate.note(60, now_s=5.0)
    >>> rate.a_second, rate.left_s
    (2.0, 20.0)
    """

    def __init__(self, total: float, done: float = 0, *, now_s: float | None = None):
        self._total = total
        self._noted = deque([(time.monotonic() if now_s is None else now_s, float(done))])

    def note(self, done: float, *, now_s: float | None = None) -> None:
        """So much is done by now, of all."""
        now_s = time.monotonic() if now_s is None else now_s
        self._noted.append((now_s, float(done)))
        while len(self._noted) > 2 and now_s - self._noted[1][0] >= _WINDOW_S:
            self._noted.popleft()

    @property
    def a_second(self) -> float | None:
        """None while there is nothing to go by."""
        (first_s, first), (last_s, last) = self._noted[0], self._noted[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s and last > first else None

    @property
    def left_s(self) -> float | None:
        """None where the rate is not known."""
        rate = self.a_second
        return None if rate is None else max(0.0, (self._total - self._noted[-1][1]) / rate)


class Counter:
    """Progress of a loop over things that are alike: told how many more are done, it tells how far it is, and at what rate.

    `tell` is a console's `progress`, or None where nobody is to be told.
    """

    def __init__(self, tell: Tell | None, stage: str, total: float, unit: str, done: float = 0):
        self._tell, self._stage, self._unit = tell, stage, unit
        self.total, self.done = total, done
        self._rate = Rate(total, done)

    def advance(self, count: float = 1) -> None:
        """So many more are done."""
        self.done += count
        if self._tell is None:
            return
        self._rate.note(self.done)
        rate, left_s = self._rate.a_second, self._rate.left_s
        text = f"{amount(self.done, self._unit)} of {amount(self.total, self._unit)}"
        if self._unit != "bytes":
            text += f" {self._unit}"
        if rate is not None and left_s is not None:
            text += f", {amount(rate, self._unit)}/s, {duration(left_s)} left"
        self._tell(
            Measure(
                stage=self._stage,
                done=self.done,
                total=self.total,
                unit=self._unit,
                text=text,
                rate=rate,
                left_s=left_s,
            )
        )


def amount(value: float, unit: str) -> str:
    """A number of things, or a size.

    >>> amount(1234, "rows"), amount(0.25, "steps"), amount(12_300_000, "bytes"), amount(4_560, "bytes")
    ('1,234', '0.25', '12.3 MB', '4.6 kB')
    """
    if unit != "bytes":
        return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
    for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:,.1f} {name}"
    return f"{value:,.0f} bytes"


def duration(seconds: float) -> str:
    """A duration as people say it.

    >>> duration(9), duration(75), duration(7300)
    ('9 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def bar_line(measure: Measure, columns: int, has_blocks: bool) -> str:
    """A bar and its text in at most so many columns.

    >>> bar_line(Measure(stage="articles", done=1, total=4, unit="units", text="1 of 4 units"), 80, False)
    'articles   [######------------------]  25 %  1 of 4 units'
    """
    text = f"{measure.stage:<10} "
    if measure.total > 0:
        share = min(1.0, max(0.0, measure.done / measure.total))
        bar = ""
        if columns >= len(text) + _BAR_CELLS + _SHORTEST_TEXT:
            full, empty = ("█", "░") if has_blocks else ("#", "-")
            cells = int(share * _BAR_CELLS)
            bar = f"[{full * cells}{empty * (_BAR_CELLS - cells)}] "
        text += f"{bar}{int(100 * share):>3} %  "
    line = printable(text + measure.text)
    return line if len(line) < columns else line[: max(0, columns - 2)] + "…"


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or shutil.get_terminal_size().columns
    except (OSError, ValueError, AttributeError):
        return shutil.get_terminal_size().columns


def _has_blocks(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

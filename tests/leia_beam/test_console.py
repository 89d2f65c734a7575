"""console: what is said, on a terminal, on a pipe, as JSON, and with --quiet."""

from __future__ import annotations

import io
import json
import logging
import threading
from dataclasses import replace
from datetime import datetime

import pytest

from leia_beam.console import Console, Counter, Measure, Rate, bar_line


class _Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")


def _measure(done: float = 1, text: str = "1 of 4 units") -> Measure:
    return Measure(stage="articles", done=done, total=4, unit="units", text=text, rate=0.5, left_s=6.0)


def _screen(raw: str) -> list[str]:
    """What a terminal shows in the end of what was written to it."""
    lines, column = [""], 0
    for letter in raw:
        if letter == "\n":
            lines.append("")
            column = 0
        elif letter == "\r":
            column = 0
        else:
            lines[-1] = lines[-1][:column].ljust(column) + letter + lines[-1][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def test_a_terminal_has_one_bar_that_notes_push_down() -> None:
    """The bar is drawn over itself, a note takes its place, and at the end nothing of it is left."""
    stream = _Terminal()
    console = Console("leia-beam", stream=stream)
    console.progress(_measure())
    assert _screen(stream.getvalue()) == ["articles   [██████░░░░░░░░░░░░░░░░░░]  25 %  1 of 4 units"]
    console.say("a note")
    console.progress(replace(_measure(4, "done"), last=True))
    assert _screen(stream.getvalue()) == ["a note", "articles   [████████████████████████] 100 %  done"]
    console.clear()
    assert _screen(stream.getvalue()) == ["a note", ""]


def test_a_pipe_gets_a_line_a_minute_and_the_last() -> None:
    """No bar and no carriage return; the clock decides, not the number of calls."""
    stream = io.StringIO()
    console = Console("leia-beam", stream=stream)
    for _ in range(1000):
        console.progress(_measure())
    assert stream.getvalue() == ""
    console.progress(replace(_measure(), last=True))
    assert stream.getvalue() == "articles   1 of 4 units\n"
    often = Console("leia-beam", stream=stream, line_every_s=0)
    often.progress(_measure(2, "2 of 4 units"))
    assert stream.getvalue().splitlines()[1:] == ["articles   2 of 4 units"]


def test_a_status_is_a_sign_of_life_on_a_terminal_alone() -> None:
    """Before there is anything to count; what comes next takes its place."""
    terminal, pipe = _Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        console = Console("leia-train", stream=stream)
        console.status("training", "loading torch")
        console.say("a note")
    assert terminal.getvalue().startswith("\rtraining   loading torch")
    assert _screen(terminal.getvalue()) == ["a note", ""] and pipe.getvalue() == "a note\n"
    quiet = _Terminal()
    Console("leia-train", stream=quiet, quiet=True).status("training", "loading torch")
    assert quiet.getvalue() == ""


def test_quiet_leaves_warnings_and_the_error() -> None:
    """On a terminal and on a pipe."""
    for stream in (io.StringIO(), _Terminal()):
        console = Console("leia-beam", quiet=True, stream=stream, line_every_s=0)
        console.say("a note")
        console.progress(replace(_measure(), last=True))
        console.say("articles   warning: little space")
        console.error("no such file", 2)
        assert stream.getvalue() == "articles   warning: little space\nleia-beam: error: no such file\n"


def test_json_is_one_object_a_line() -> None:
    """Each with time, program, level, event and message; progress with its numbers; nothing is drawn."""
    stream = _Terminal()
    console = Console("leia-train", as_json=True, stream=stream, line_every_s=0)
    console.say("first\nsecond \u202e")
    console.say("warning: hot")
    console.progress(_measure())
    console.interrupted("stopped", 75)
    console.error("broken", 5)
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all(datetime.fromisoformat(entry.pop("time")).tzinfo is not None for entry in found)
    assert all(entry.pop("program") == "leia-train" for entry in found)
    assert found == [
        {"level": "info", "event": "note", "message": "first\nsecond \u202e"},
        {"level": "warning", "event": "note", "message": "hot"},
        {
            "level": "info",
            "event": "progress",
            "message": "articles   1 of 4 units",
            "stage": "articles",
            "done": 1,
            "total": 4,
            "unit": "units",
            "rate": 0.5,
            "left_s": 6.0,
        },
        {"level": "warning", "event": "interrupted", "message": "stopped", "exit_code": 75},
        {"level": "error", "event": "error", "message": "broken", "exit_code": 5},
    ]


def test_nothing_that_is_said_steers_the_terminal() -> None:
    """An escape or a change of reading direction in a name is shown as what it is."""
    stream = _Terminal()
    console = Console("x", stream=stream)
    console.say("a\x1b[31m\u202eb")
    console.progress(_measure(text="\x1b[2J"))
    assert "\x1b" not in stream.getvalue() and "\u202e" not in stream.getvalue()


def test_a_bar_fits_its_columns() -> None:
    """Cut, never wrapped: a wrapped bar cannot be drawn over. Narrow terminals get no bar but the share."""
    measure = _measure(text="x" * 200)
    for columns in (20, 40, 79, 80, 200):
        assert len(bar_line(measure, columns, True)) < columns
    assert bar_line(_measure(), 40, True) == "articles    25 %  1 of 4 units"
    unknown = Measure(stage="x", done=5, total=0, unit="bytes", text="5 bytes")
    assert bar_line(unknown, 80, True) == "x          5 bytes"


def test_everything_is_logged_with_its_level(caplog: pytest.LogCaptureFixture) -> None:
    """Also what a quiet console does not show; for the log file."""
    console = Console("x", quiet=True, stream=io.StringIO(), line_every_s=0)
    with caplog.at_level(logging.INFO):
        console.say("note")
        console.warn("careful")
        console.progress(_measure())
        console.error("end", 2)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "note"),
        ("WARNING", "warning: careful"),
        ("INFO", "articles   1 of 4 units"),
        ("ERROR", "x: error: end"),
    ]


def test_a_reader_that_has_gone_ends_no_work() -> None:
    """A closed stream is no reason to stop a build."""
    stream = io.StringIO()
    console = Console("x", stream=stream)
    stream.close()
    console.say("to nobody")


def test_threads_do_not_cut_each_others_lines() -> None:
    """Two downloads say things at once."""
    stream = io.StringIO()
    console = Console("x", stream=stream)
    threads = [threading.Thread(target=lambda word=word: [console.say(word * 50) for _ in range(200)]) for word in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(stream.getvalue().splitlines()) == {"a" * 50, "b" * 50}


def test_a_rate_is_of_the_last_minute() -> None:
    """A slow beginning is forgotten, what was done before does not count, and nothing is said of nothing."""
    rate = Rate(total=1000, done=500, now_s=0.0)
    assert (rate.a_second, rate.left_s) == (None, None)
    rate.note(500, now_s=1.0)
    assert rate.a_second is None
    for second in range(100, 200):
        rate.note(500 + 2 * (second - 100), now_s=float(second))
    assert rate.a_second == pytest.approx(2.0)
    assert rate.left_s == pytest.approx((1000 - 698) / 2)


def test_a_counter_tells_how_far_it_is() -> None:
    """Counts, shares and sizes in people's units."""
    told: list[Measure] = []
    counter = Counter(told.append, "store", 2_000_000, "bytes")
    counter.advance(500_000)
    assert told[0].text.startswith("500.0 kB of 2.0 MB") and (told[0].done, told[0].unit) == (500_000, "bytes")
    rows = Counter(told.append, "store", 4000, "rows")
    rows.advance(1000)
    assert told[-1].text.startswith("1,000 of 4,000 rows")
    Counter(None, "store", 1, "rows").advance()

"""What libraries say goes to the log, and the terminal is as before afterwards."""

import io
import logging
import sys
import warnings

import pytest

from leia_eval.chatter import LIBRARIES, ProgressLine, chatter_to


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_prints_logs_and_warnings_go_to_the_log_only(capsys, tmp_path):
    """All four ways to the terminal end in the file, appended to what it held."""
    path = tmp_path / "eval.log"
    path.write_text("before\n")
    with chatter_to(path):
        print("printed")
        sys.stderr.write("drawn\n")
        logging.getLogger("lm_eval.models").warning("logged")
        warnings.warn("warned", stacklevel=1)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    text = path.read_text()
    assert text.startswith("before\n")
    for word in ("printed\n", "drawn\n", "WARNING lm_eval.models: logged\n", "UserWarning: warned"):
        assert word in text


def test_everything_is_put_back_even_after_an_error(capsys):
    """Streams and handlers are the old ones, and a stream that a library kept swallows what it is given."""
    before = [(logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in LIBRARIES]
    kept = None
    with pytest.raises(ZeroDivisionError), chatter_to(None):
        kept = sys.stderr
        raise ZeroDivisionError
    assert [(logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in LIBRARIES] == before
    kept.write("late")
    kept.flush()
    print("shown")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("shown\n", "")


def test_progress_is_drawn_on_a_terminal_and_nowhere_else():
    """The last line has the whole count; a pipe gets nothing."""
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        line = ProgressLine(3, "choices", stream)
        for _ in range(3):
            line.advance()
        line.close()
    assert terminal.getvalue().split("\r")[-1].startswith("3/3 choices, ")
    assert "0 s left" in terminal.getvalue()
    assert pipe.getvalue() == ""

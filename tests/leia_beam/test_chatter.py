"""What libraries say goes to the log, and the terminal is as before afterwards."""

import logging
import sys
import warnings

import pytest

from leia_beam.chatter import LIBRARIES, chatter_held, chatter_to
from leia_beam.console import Console


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


def test_what_was_said_before_there_is_a_file_is_in_it(capsys, tmp_path):
    """Held until the output folder is known to be this run's; nothing is lost, nothing is shown."""
    with chatter_held() as log:
        print("early")
        logging.getLogger("transformers.x").warning("also early")
        assert not list(tmp_path.iterdir())
        log.write_to(tmp_path / "train.log")
        print("late")
    assert capsys.readouterr() == ("", "")
    text = (tmp_path / "train.log").read_text()
    assert text.index("early") < text.index("also early") < text.index("late")


def test_what_a_console_says_is_shown_and_logged(capsys, tmp_path):
    """The console keeps the stream that it was made with; a quiet one still logs."""
    console, quiet = Console("leia-train"), Console("leia-train", quiet=True)
    with chatter_to(tmp_path / "train.log"):
        console.say("shown")
        quiet.say("not shown")
    assert capsys.readouterr().err == "shown\n"
    assert [line.split(": ")[1] for line in (tmp_path / "train.log").read_text().splitlines()] == ["shown", "not shown"]

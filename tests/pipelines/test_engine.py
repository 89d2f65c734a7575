"""engine: what Beam raises becomes the error that a worker raised, or one line about the runner."""

from __future__ import annotations

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from leia_beam.errors import DamagedInput, LeiaError, MissingResource
from pipelines.engine import beams_errors
from pipelines.runners import opens_ports


def raised(text: str, where: str = "") -> BaseException:
    """What becomes of a RuntimeError with this text."""
    with pytest.raises(Exception) as caught, beams_errors(where):
        raise RuntimeError(text)
    return caught.value


def test_an_error_of_ours_keeps_its_class_and_line() -> None:
    """Out of a worker's traceback, without the step that Beam adds."""
    text = "Traceback (most recent call last):\n  File x\nleia_beam.errors.DamagedInput: a.bz2: ends early [while running 'S']\n"
    error = raised(text, "--runner X")
    assert type(error) is DamagedInput and str(error) == "a.bz2: ends early"
    with pytest.raises(DamagedInput, match=r"^bad$"), beams_errors():
        raise DamagedInput("bad [while running 'Articles/Run']")


def test_what_a_runner_loses_is_the_environments_fault_and_what_we_break_is_ours() -> None:
    """Only with the runner's name: an in-memory run has nothing to lose."""
    error = raised(
        "Pipeline leia-x_1 failed in state FAILED: java.lang.Exception: task manager\n lost", "--flink-master h:1"
    )
    assert type(error) is MissingResource
    assert str(error).startswith("--flink-master h:1: the job failed (java.lang.Exception: task manager lost); run")
    error = raised("Traceback (most recent call last):\n  File x\nKeyError: 'wiki' [while running 'A']\n", "--runner X")
    assert type(error) is LeiaError
    assert (
        str(error) == "--runner X: a worker failed (KeyError: 'wiki'); this is a fault of the program, please report it"
    )
    assert type(raised("lost")) is RuntimeError


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("FnApiRunner", [], False),
        ("FnApiRunner", ["--direct_running_mode=multi_processing"], True),
        ("PrismRunner", [], True),
        ("DirectRunner", [], True),
        ("apache_beam.runners.portability.flink_runner.FlinkRunner", [], True),
        ("DataflowRunner", [], False),
        ("dataflow", [], False),
    ],
)
def test_which_runners_listen(name: str, options: list[str], expected: bool) -> None:
    """All of Beam's but the in-memory one; Dataflow runs elsewhere."""
    assert opens_ports(name, PipelineOptions(options)) is expected

"""From a recipe to the options of a build, for those who call from Python.

options, inputs = build_options("recipe.yaml", ["language=sw"])
build_corpus(options, inputs)
"""

from __future__ import annotations

from collections.abc import Sequence

from leia_beam.command_line import make_parser
from leia_beam.configuration import parse
from leia_beam.console import Console
from pipelines.build import BuildInputs
from pipelines.commands import build_inputs, run_options
from pipelines.stage_runs import RunOptions


def build_options(path: str, settings: Sequence[str] = ()) -> tuple[RunOptions, BuildInputs]:
    """What `leia-beam build -c PATH --set SETTING…` would do.

    Raises: UsageError for what is wrong in the recipe, with its line.
    """
    options = parse(make_parser(), ["build", "-c", path, *(f"--set={setting}" for setting in settings)])
    options.console = Console("leia-beam", quiet=options.quiet, as_json=options.log_json)
    return run_options(options, options.beam), build_inputs(options)

"""From the parameters of a Flex Template to the command line of `leia-beam build`.

Dataflow's launcher gives all as `--name=value`: the template's own parameters (deploy/dataflow/metadata.json), which have
the names of the command's options with underscores, and Beam's options, among them where to put the job's description.
"""

from __future__ import annotations

from collections.abc import Sequence

from leia_beam.errors import UsageError

LISTS = ("pages", "wikidata", "langlinks")
"""Parameters of several files, parted by commas."""
PARAMETERS = (
    *LISTS,
    "wiki",
    "name_languages",
    "tokenizer",
    "output",
    "range_bytes",
    "workers",
    "max_rejects",
    "sitelinks_from",
    "profile",
)
_DROPPED = ("runner",)
"""Beam's options that the command sets itself."""


def build_command(arguments: Sequence[str]) -> list[str]:
    """The arguments of `leia-beam`.

    Raises: UsageError for an argument that is no option.

    >>> build_command(["--pages=gs://b/1.bz2,gs://b/2.bz2", "--runner=DataflowRunner", "--project=p", "--no_auth"])
    ['build', '--pages', 'gs://b/1.bz2', 'gs://b/2.bz2', '--runner', 'dataflow', '--', '--project=p', '--no_auth']
    """
    own: list[str] = []
    beams: list[str] = []
    for argument in arguments:
        if not argument.startswith("--"):
            raise UsageError(f"{argument!r}: no option; give parameters as --name=value")
        name, _, value = argument[2:].partition("=")
        if name in PARAMETERS:
            values = value.split(",") if name in LISTS else [value]
            own += [f"--{name.replace('_', '-')}", *values]
        elif name not in _DROPPED:
            beams.append(argument)
    return ["build", *own, "--runner", "dataflow", "--", *beams]

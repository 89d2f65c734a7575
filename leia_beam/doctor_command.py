"""The command `leia-beam doctor`: whether a build could run here; what is missing, what it means, what to do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from leia_beam import options
from leia_beam.arguments import Parser, new_command
from leia_beam.configuration import add_recipe_options
from leia_beam.derived import folders_of_build
from leia_beam.errors import MissingResource
from leia_beam.findings import Finding, counted
from leia_beam.recipe import CORPUS
from leia_beam.recipe_use import RecipeUse

_OPTIONAL = ("huggingface_hub", "google-cloud-storage", "boto3")
_EXAMPLE = """leia-beam doctor
  leia-beam doctor -c recipe.yaml --set language=sw
  leia-beam doctor --wiki ja --dumps dumps --tokenizer my-model/ --output build/ja --workers 32"""
_DESCRIPTION = """\
Looks at packages, dumps and their sums, tokenizer, cores, memory, disk, output and runner, as the build's options or a recipe
say. Nothing is downloaded and nothing is changed. Exit code 5 where a problem means that the build cannot run here."""


def add_command(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command to the parser's subcommands: it takes the options of `build`, of which none is needed."""
    doctor = new_command(
        commands, "doctor", "what a build would find on this machine", _EXAMPLE, description=_DESCRIPTION
    )
    options.add_wiki(doctor)
    options.add_pages(doctor, required=False)
    options.add_dumps(doctor)
    options.add_wikidata(doctor, required=False)
    options.add_langlinks(doctor, required=False)
    options.add_sitelinks_from(doctor)
    options.add_tokenizer(doctor)
    options.add_reading(doctor).add_argument("--strict-dates", action="store_true", help=argparse.SUPPRESS)
    options.add_common(doctor)
    doctor.add_argument("--json", action="store_true", help="write the findings as JSON")
    for action in doctor._actions:
        action.required = False
    doctor.set_defaults(run=_run)
    add_recipe_options(doctor, RecipeUse(section=CORPUS, names={"json": ""}, derive=folders_of_build))


def _run(chosen: argparse.Namespace, beam_options: Sequence[str]) -> None:
    from leia_beam.findings import PROBLEM, show
    from leia_beam.package_checks import package_findings

    findings = list(package_findings(optional=_OPTIONAL))
    try:
        findings += _build_findings(chosen)
        findings += chosen.examine_runner(chosen, beam_options)
    except ImportError as error:
        text = f"cannot be imported ({error}), so the rest was not looked at"
        findings.append(Finding(state=PROBLEM, subject=error.name or "a package", text=text))
    chosen.console.clear()
    show(findings, as_json=chosen.json)
    if problems := [finding for finding in findings if finding.state == PROBLEM]:
        subjects = ", ".join(dict.fromkeys(finding.subject for finding in problems))
        raise MissingResource(
            f"the doctor found {counted(len(problems), 'problem')} ({subjects}); each says what to do"
        )


def _build_findings(chosen: argparse.Namespace) -> Iterator[Finding]:
    from leia_beam.doctor import BuildWanted, examine_build

    wanted = BuildWanted(
        wiki=chosen.wiki,
        pages=chosen.pages or (),
        wikidata=chosen.wikidata or (),
        langlinks=chosen.langlinks or (),
        dumps=chosen.dumps,
        sitelinks_from=chosen.sitelinks_from,
        tokenizer=chosen.tokenizer,
        output=chosen.output,
        workers=chosen.workers,
        is_local=chosen.runner == "local",
        verify_inputs=chosen.verify_inputs,
        ignore_siteinfo=chosen.ignore_siteinfo,
        strict_dates=chosen.strict_dates,
        tell=chosen.console.progress,
    )
    yield from examine_build(wanted)

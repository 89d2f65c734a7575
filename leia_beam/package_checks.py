"""From the requirements that this package was published with to which of them are met here."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata

from leia_beam.findings import NOTE, OK, PROBLEM, Finding

DISTRIBUTION = "leia-lm"


def package_findings(extras: Sequence[str] = (), optional: Sequence[str] = ()) -> Iterator[Finding]:
    """Each package of the base install and of some extras, and optional ones: there, and of a version that fits."""
    yield _python_finding()
    from packaging.requirements import Requirement

    try:
        texts = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Finding(
            state=NOTE,
            subject=DISTRIBUTION,
            text="not installed, but run from its source: what it requires is not known",
            advice="pip install -e .",
        )
        return
    wanted: dict[str, tuple[Requirement, str]] = {}
    for text in texts:
        requirement = Requirement(text)
        for extra in ("", *extras):
            is_of = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if is_of and not requirement.name.lower().startswith(DISTRIBUTION):
                wanted.setdefault(requirement.name, (requirement, extra))
                break
    for name, (requirement, extra) in wanted.items():
        install = f"pip install '{DISTRIBUTION}{f'[{extra}]' if extra else ''}'"
        found = _version(name)
        if found is None:
            yield Finding(state=PROBLEM, subject=name, text="not installed", advice=install)
        elif not requirement.specifier.contains(found, prereleases=True):
            yield Finding(
                state=PROBLEM,
                subject=name,
                text=f"{found}, but {requirement.specifier} is needed",
                advice=f"pip install '{name}{requirement.specifier}'",
            )
        else:
            yield Finding(state=OK, subject=name, text=found)
    for name in optional:
        if name not in wanted:
            found = _version(name)
            yield Finding(
                state=NOTE if found is None else OK, subject=name, text=found or "not installed, which is optional"
            )


def _python_finding() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    try:
        needed = metadata.metadata(DISTRIBUTION)["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        needed = ""
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(needed).contains(found, prereleases=True):
        return Finding(state=OK, subject="Python", text=found)
    return Finding(
        state=PROBLEM, subject="Python", text=f"{found}, but {needed} is needed", advice="make a new environment"
    )


def _version(name: str) -> str | None:
    """The version of a package, by any spelling of its name."""
    try:
        return metadata.version(re.sub(r"[-_.]+", "-", name))
    except metadata.PackageNotFoundError:
        return None

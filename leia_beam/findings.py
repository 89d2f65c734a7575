"""From what a doctor looked at to lines and an exit code: what is there, what it means, what to do.

`ok` is as it should be; a `note` is worth knowing; a `warning` will cost time or may fail; a `problem` means that what was
asked for cannot run here. All three commands' doctors speak so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from leia_beam.errors import LeiaError, MissingResource
from leia_beam.terminal_text import printable

OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"
STATES = (OK, NOTE, WARNING, PROBLEM)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at; `advice` is what to do, for what is not as it should be."""

    state: str
    subject: str
    text: str
    advice: str = ""

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"{self.state!r} is none of {', '.join(STATES)}")

    def line(self) -> str:
        """What a terminal shows."""
        advice = f"; {self.advice}" if self.advice else ""
        return printable(f"{self.state:<8} {self.subject}: {self.text}{advice}")


def exit_code_of_findings(findings: Iterable[Finding]) -> int:
    """5 where something is missing, else 0."""
    return MissingResource.exit_code if any(finding.state == PROBLEM for finding in findings) else 0


def show(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print all findings, and in one line what they come to."""
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False, indent=1))
        return
    for finding in findings:
        print(finding.line())
    problems, warnings = (sum(each.state == state for each in findings) for state in (PROBLEM, WARNING))
    found = f"{counted(len(findings), 'check')}, {counted(problems, 'problem')}, {counted(warnings, 'warning')}"
    print(f"{found}: {'what was asked for cannot run here' if problems else 'nothing is in the way of it here'}")


def counted(count: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "problem"), counted(2, "problem")
    ('1 problem', '2 problems')
    """
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def checked(subject: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; the error by which it ends is a problem of its subject."""
    try:
        yield from check()
    except LeiaError as error:
        yield Finding(state=PROBLEM, subject=subject, text=str(error))

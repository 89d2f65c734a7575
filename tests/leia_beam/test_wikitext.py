"""wikitext: the golden cases, one a construct's detail; what holds whatever the input; hostile pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from golden_wikitext import GoldenCase, faults_of, read_cases, run_case

CASES = Path(__file__).resolve().parents[1] / "data" / "wikitext"


def _cases() -> list[GoldenCase]:
    return [case for path in sorted(CASES.glob("*.wikitest")) for case in read_cases(path)]


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.place} {case.name}") for case in _cases()])
def test_a_golden_case(case: GoldenCase):
    """Text, anchors and flags are those of the case; a known failure fails still."""
    faults = faults_of(case, run_case(case))
    if case.known_failure:
        assert faults, f"{case.place}: {case.name!r} works now: take its `!! known failure` out"
    else:
        assert not faults, f"{case.place}: " + "; ".join(faults)


def test_the_names_of_the_cases_are_unique():
    """A case is named once, so that a failure says which."""
    names = [case.name for case in _cases()]
    assert sorted(names) == sorted(set(names))
    assert len(names) > 20


SMALL = """a comment
!! case small
!! wiki jawiki
!! title T
!! option no lists, end matter
!! wikitext
[[a#b|c]]

* d
!! text
c
!! anchors
c -> A #b {kind=link}
!! end
"""


def test_the_runner_reads_every_field(tmp_path):
    """A case is read whole: an anchor's extras, options, an empty line in the wikitext."""
    path = tmp_path / "small.wikitest"
    path.write_text(SMALL)
    assert read_cases(path) == [
        GoldenCase(
            name="small",
            place="small.wikitest:2",
            wiki="jawiki",
            title="T",
            options=("no lists", "end matter"),
            wikitext="[[a#b|c]]\n\n* d",
            text="c",
            anchors=["c -> A #b {kind=link}"],
        )
    ]


def test_the_runner_can_fail(tmp_path):
    """A wrong text, target, extra, flag, and an anchor too many are each a fault."""
    path = tmp_path / "small.wikitest"
    path.write_text(SMALL.replace(" {kind=link}", ""))
    (case,) = read_cases(path)
    assert faults_of(case, run_case(case)) == []
    for wrong in (
        replace(case, text="c "),
        replace(case, anchors=["c -> B #b"]),
        replace(case, anchors=["c -> A"]),
        replace(case, anchors=["c -> A #b {block=list}"]),
        replace(case, anchors=[]),
        replace(case, flags=["disambiguation"]),
    ):
        assert len(faults_of(wrong, run_case(wrong))) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("!! case a\n!! wikitext\n", "small.wikitest:1: case 'a' has no `!! end`"),
        ("!! case a\n!! wikitxt\n", "small.wikitest:2: '!! wikitxt' is no field"),
        ("!! case a\n!! case b\n", "small.wikitest:2: `!! case` within another case"),
        ("!! text\n", "small.wikitest:1: `!! text` outside a case"),
    ],
)
def test_a_mistake_in_a_case_is_told(tmp_path, content, message):
    """A case that is written wrongly is no case that passes."""
    path = tmp_path / "small.wikitest"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_cases(path)

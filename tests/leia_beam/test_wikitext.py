"""wikitext: the golden cases, one a construct's detail; what holds whatever the input; hostile pages."""

from __future__ import annotations

import gc
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from golden_wikitext import GoldenCase, faults_of, read_cases, run_case
from hostile_wikitext import SHAPES
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_beam.wikis import load_wiki
from leia_beam.wikitext import ExtractionOptions, extract

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


PIECES = st.sampled_from(
    "a|b c|[[|]]|[[d]]s|[[e#f|g]]|[[#h]]|[[Page]]|[[:Category:i]]|[[Category:j]]|[[File:k.jpg|thumb|l [[m]] n]]|[[:de:o|p]]"
    "|''|'''|'''''|<b>|</b>|<br>|<div>|<ref>|</ref>|<nowiki>|</nowiki>|<pre>|</pre>|<!--|-->|{{|}}|{{{|}}}|{{lang¦en¦[[q]]}}|{{x}}"
    "|(|)|, |\n|\n\n|\n* |\n; |:|\n== r ==|\n{¦|\n¦-|\n¦}|\n¦ s|¦¦|&amp;|&#10;|&nbsp;|[http://t u]|[http://v]|__TOC__|\u3000|\u200f"
    "|-{|}-|-{zh-hans:w;zh-hant:x}-|<gallery>|</gallery>|<poem>|</poem>|<table>|<td>|</table>|\x02|\x07|{{ill¦y¦en¦Z}}|{{ill¦y[¦en¦Z}}|[|%".split(
        "|"
    )
).map(lambda piece: piece.replace("¦", "|"))
OPTIONS = st.builds(
    ExtractionOptions,
    tables=st.booleans(),
    captions=st.booleans(),
    lists=st.booleans(),
    headings=st.booleans(),
    end_matter=st.booleans(),
    as_rendered=st.booleans(),
)


def test_what_holds_whatever_the_page():
    """Text is clean, anchors are sorted, apart, not empty, without blanks at their ends, and the same every time."""
    seen = {"anchor": 0, "caption": 0, "table": 0, "list": 0, "foreign": 0}

    @settings(max_examples=1500, deadline=None)
    @given(st.lists(PIECES, max_size=14).map("".join), OPTIONS, st.sampled_from(["enwiki", "zhwiki", "arwiki"]))
    def check(wikitext, options, code):
        wiki = load_wiki(code)
        found = extract(wikitext, "Page", wiki, options)
        assert found == extract(wikitext, "Page", wiki, options)
        assert found.text == found.text.strip()
        assert not re.search("[\x00-\x08\x0b-\x1f]", found.text)
        assert "<pre>" in wikitext or not re.search("\n\n\n| \n|\n ", found.text)
        end = 0
        for anchor in found.anchors:
            assert end <= anchor.start_char < anchor.end_char <= len(found.text)
            shown = found.text[anchor.start_char : anchor.end_char]
            assert shown == shown.strip()
            assert anchor.target or anchor.foreign_wiki
            end = anchor.end_char
            seen["anchor"] += 1
            seen["foreign"] += anchor.foreign_wiki is not None
            seen[anchor.block] = seen.get(anchor.block, 0) + 1
        assert found.counters.get("anchors/extracted", 0) == len(found.anchors)

    check()
    assert sum(seen.values()) > 100, seen
    assert min(seen["anchor"], seen["table"], seen["list"], seen["foreign"]) > 0, seen


@pytest.mark.parametrize("shape", SHAPES)
def test_twice_the_page_costs_twice_the_time(shape):
    """Time is linear in the page, whatever stands in it: with four times the cost of half the page it would not be."""
    wiki, options = load_wiki("zhwiki"), ExtractionOptions(as_rendered=True)

    def cost(size):
        page = SHAPES[shape](size)
        gc.disable()  # else a pass over all that other tests hold falls into one measurement and not into the next
        begin = time.process_time()
        extract(page, "Page", wiki, options)
        elapsed = time.process_time() - begin
        gc.enable()
        return elapsed

    size = 1000
    while cost(size) < 0.02 and size < 64_000:
        size *= 2
    ratios = []
    while len(ratios) < 5 and (not ratios or min(ratios) > 2.7):
        ratios.append(min(cost(2 * size) for _ in range(2)) / max(min(cost(size) for _ in range(2)), 1e-6))
    assert min(ratios) < 3.3, f"{shape}: {size} costs {cost(size):.3f} s, twice of it {ratios} times as much"


def test_what_is_dropped_is_counted_by_name():
    """Templates that are not rendered and sections that are not running text, by the names that pages give them."""
    found = extract("{{Cite  web|a}} {{cite_web}} {{lang|en|b}}\n== References ==\nc\n", "Page", load_wiki("en"))
    assert found.tallies == {"templates": {"cite web": 2}, "end matter": {"references": 1}}
    assert found.counters["templates/dropped"] == 2
    assert found.counters["templates/rendered"] == 1
    assert found.counters["sections/dropped"] == 1


def test_links_are_counted_by_what_became_of_them():
    """Every link is an anchor or dropped by a reason."""
    page = "[[a]] [[Page]] [[#b]] [[Category:c]] [[de:d]] [[wikt:e]] [[Media:f.ogg]] [[File:g.jpg|[[h]]]] [[:de:i]] [[j|<b></b>]]"
    found = extract(page, "Page", load_wiki("en"))
    assert found.counters == {
        "anchors/extracted": 2,
        "anchors/dropped/self": 2,
        "anchors/dropped/category": 1,
        "anchors/dropped/interlanguage": 1,
        "anchors/dropped/other project": 1,
        "anchors/dropped/media": 1,
        "anchors/dropped/in a file's parameters": 1,
        "anchors/dropped/no text": 1,
        "files/dropped": 1,
    }

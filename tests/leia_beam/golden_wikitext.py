"""From a file of golden wikitext cases (tests/data/wikitext/README.md has the form) to cases, and from a case to its faults."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from leia_beam.records import LINK, PROSE, Anchor, Extraction
from leia_beam.wikis import load_wiki
from leia_beam.wikitext import ExtractionOptions, extract

FIELDS = ("case", "wiki", "title", "option", "known failure", "wikitext", "text", "anchors", "flags", "end")
_FIELD = re.compile(rf"!! ({'|'.join(FIELDS)})(?: |:|$)(.*)")
_EXTRAS = re.compile(r" \{([^{}]*)\}$")
_FRAGMENT = re.compile(r"(.*?) ?#(.*)")
ANCHOR_FIELDS = {
    "block": "block",
    "kind": "kind",
    "wiki": "foreign_wiki",
    "title": "foreign_title",
    "qid": "foreign_qid",
}


@dataclass(kw_only=True)
class GoldenCase:
    """One case: what is read, and what must come of it. `anchors` are lines as `written` makes them."""

    name: str
    place: str
    wiki: str = "enwiki"
    title: str = "Page"
    options: tuple[str, ...] = ()
    known_failure: str = ""
    wikitext: str = ""
    text: str = ""
    anchors: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


def read_cases(path: Path) -> list[GoldenCase]:
    """The cases of a file, in its order.

    Raises: ValueError with file and line, for a field that is unknown or out of place.
    """
    cases: list[GoldenCase] = []
    case: GoldenCase | None = None
    block, lines = "", list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        place = f"{path.name}:{number}"
        if not line.startswith("!!"):
            lines.append(line)
            continue
        match = _FIELD.match(line)
        if match is None:
            raise ValueError(f"{place}: {line!r} is no field of a case; the fields are {', '.join(FIELDS)}")
        name, value = match.group(1), match.group(2).strip()
        if (name == "case") != (case is None):
            raise ValueError(f"{place}: `!! {name}` {'within another case' if case else 'outside a case'}")
        if case is None:
            case = GoldenCase(name=value, place=place)
        else:
            _take_block(case, block, lines)
            _take_value(case, name, value)
        block, lines = name, []
        if name == "end":
            cases.append(case)
            case = None
    if case is not None:
        raise ValueError(f"{case.place}: case {case.name!r} has no `!! end`")
    return cases


def _take_block(case: GoldenCase, block: str, lines: list[str]) -> None:
    if block == "wikitext":
        case.wikitext = "\n".join(lines)
    elif block == "text":
        case.text = "\n".join(lines)
    elif block == "anchors":
        case.anchors = [_normal_form(line) for line in lines if line.strip()]


def _take_value(case: GoldenCase, name: str, value: str) -> None:
    if name == "wiki":
        case.wiki = value
    elif name == "title":
        case.title = value
    elif name == "option":
        case.options = tuple(part.strip() for part in value.split(","))
    elif name == "known failure":
        case.known_failure = value or "no reason given"
    elif name == "flags":
        case.flags = value.split()


def _normal_form(line: str) -> str:
    """An anchor's line with what stands in braces sorted."""
    extras = _EXTRAS.search(line)
    if extras is None:
        return line
    return line[: extras.start()] + " {" + ", ".join(sorted(extras.group(1).split(", "))) + "}"


def written(anchor: Anchor, text: str) -> str:
    """An anchor as a line of a case: only what is not the default is in braces."""
    shown = text[anchor.start_char : anchor.end_char].replace("\n", "\\n")
    line = f"{shown} -> {anchor.target or '-'}"
    if anchor.fragment is not None:
        line += f" #{anchor.fragment}"
    defaults = {"block": PROSE, "kind": LINK, "wiki": None, "title": None, "qid": None}
    values = {name: getattr(anchor, attribute) for name, attribute in ANCHOR_FIELDS.items()}
    extras = sorted(f"{name}={value}" for name, value in values.items() if value != defaults[name])
    return line + (" {" + ", ".join(extras) + "}" if extras else "")


def options_of(case: GoldenCase) -> ExtractionOptions:
    """`no lists` turns an option off, its name alone turns it on."""
    return ExtractionOptions(
        **{name.removeprefix("no ").replace(" ", "_"): not name.startswith("no ") for name in case.options}
    )


def run_case(case: GoldenCase) -> Extraction:
    """What the extractor makes of a case."""
    return extract(case.wikitext, case.title, load_wiki(case.wiki), options_of(case))


def faults_of(case: GoldenCase, found: Extraction) -> list[str]:
    """Where an extraction is not what the case says; empty where all is well."""
    faults = []
    if found.text != case.text:
        faults.append(f"text is {found.text!r}, not {case.text!r}")
    anchors = [written(anchor, found.text) for anchor in found.anchors]
    if anchors != case.anchors:
        faults.append(f"anchors are {anchors}, not {case.anchors}")
    if list(found.flags) != case.flags:
        faults.append(f"flags are {list(found.flags)}, not {case.flags}")
    return faults

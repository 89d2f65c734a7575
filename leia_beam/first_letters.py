"""From the first letter of a title to the form that MediaWiki gives it, by one of MediaWiki's two rules.

MediaWiki's upper-casing is neither Python's nor that of one Unicode version. Until 1.39 Wikimedia's wikis had the
simple case mapping of Unicode 3.2 (what HHVM knew, kept by an override when PHP knew more): 801 letters differ from
Python's `upper`. Since then a title begins with Unicode's title case, ß excepted (phabricator T292552: pages were
renamed): ǆ → ǅ, ﬁ → Fi, ⴀ → Ⴀ. Georgian letters stay by both. A dump says by which it was made (`<generator>`).

The tables stand in data/first_letters.json, whole and not as exceptions to Python's, so that a later Python with a
later Unicode changes nothing; `python -m leia_beam.first_letters` writes the file again from Python's Unicode data.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Mapping
from functools import cache
from importlib import resources
from unicodedata import ucd_3_2_0

SIMPLE, TITLE_CASE = "simple case of Unicode 3.2", "title case"
_TITLE_CASE_SINCE = (1, 40)

_UNICODE_3_2 = {"ϲ": "Σ"}
"""Where a later Unicode changed a mapping that 3.2 had."""
_UNICODE_12_AND_LATER = "ʂᶎⱟꞔꞻꞽꞿꟁꟃꟈꟊꟑꟗꟙꟶ\U0001e943" + "".join(map(chr, range(0x10597, 0x105BD)))
"""Letters whose capitals are younger than the simple rule, and than the table of exceptions that pywikibot has: no
wiki of that time has two pages that differ in their case, so they have the capital that they have today."""


def rule_of(generator: str) -> str:
    """The rule of the MediaWiki that wrote a dump; SIMPLE where its version is not known.

    >>> rule_of("MediaWiki 1.34.0-wmf.7") == SIMPLE, rule_of("MediaWiki 1.46.0-wmf.16") == TITLE_CASE
    (True, True)
    """
    version = generator.removeprefix("MediaWiki ").split(".")
    if len(version) < 2 or not all(part.isascii() and part.isdecimal() for part in version[:2]):
        return SIMPLE
    return TITLE_CASE if (int(version[0]), int(version[1])) >= _TITLE_CASE_SINCE else SIMPLE


@cache
def first_letters(rule: str) -> Mapping[str, str]:
    """Letter → its form at the start of a title, for each letter that does not stay as it is.

    >>> first_letters(SIMPLE)["é"], "ა" in first_letters(SIMPLE), first_letters(TITLE_CASE)["ﬁ"]
    ('É', False, 'Fi')
    """
    text = resources.files("leia_beam").joinpath("data/first_letters.json").read_text(encoding="utf-8")
    return {pair[0]: pair[1:] for pair in json.loads(text)[rule]}


def make_tables() -> dict[str, list[str]]:
    """Both tables from Python's Unicode data: pairs of a letter and its form, in the order of code points."""
    codes = (code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    letters = [letter for letter in map(chr, codes) if unicodedata.is_normalized("NFC", letter)]
    made = {}
    for rule, form_of in ((SIMPLE, _simple), (TITLE_CASE, _title_case)):
        made[rule] = [letter + form for letter in letters if (form := form_of(letter)) != letter]
    return made


def _simple(letter: str) -> str:
    """Only letters (not ⅰ or ⓐ) that had a case mapping of one letter to one letter in Unicode 3.2."""
    form = _UNICODE_3_2.get(letter) or letter.title()
    if letter in _UNICODE_12_AND_LATER:
        return form
    known = all(ucd_3_2_0.category(each) != "Cn" for each in (letter, *form))
    if len(form) != 1 or not known or unicodedata.category(letter) not in ("Ll", "Lt"):
        return letter
    return form


def _title_case(letter: str) -> str:
    return letter if letter == "ß" else unicodedata.normalize("NFC", letter.title())


def main() -> None:
    """Write data/first_letters.json to standard output."""
    print(json.dumps(make_tables(), ensure_ascii=False))


if __name__ == "__main__":
    main()

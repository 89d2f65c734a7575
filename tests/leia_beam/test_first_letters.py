"""first_letters: the two tables against an oracle that others made, and against Python's Unicode data."""

from __future__ import annotations

import importlib.util
import sys
import unicodedata
from pathlib import Path

import pytest

from leia_beam.first_letters import SIMPLE, TITLE_CASE, first_letters, make_tables, rule_of

EVERY_LETTER = [
    letter
    for letter in (chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    if unicodedata.is_normalized("NFC", letter)
]
"""Titles are composed (NFC) before their first letter is looked at."""
GEORGIAN = "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰჱჲჳჴჵჶჷჸჹჺჽჾჿ"


def pywikibot_s_exceptions() -> dict[str, str]:
    """The table of pywikibot, read from its file: importing the package would want a user's configuration."""
    package = importlib.util.find_spec("pywikibot")
    if package is None or not package.submodule_search_locations:
        pytest.skip("pywikibot is not installed (pip install leia-lm[dev])")
    path = Path(package.submodule_search_locations[0]) / "tools" / "_unidata.py"
    spec = importlib.util.spec_from_file_location("pywikibot_unidata", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    exceptions: dict[str, str] = module._first_upper_exception_dict
    return exceptions


def test_the_simple_rule_is_pywikibot_s_for_every_letter():
    """801 exceptions to Python's upper-casing, made by others from MediaWiki's answers; no letter differs."""
    exceptions, table = pywikibot_s_exceptions(), first_letters(SIMPLE)
    assert len(exceptions) == 801
    differing = [
        letter
        for letter in EVERY_LETTER
        if table.get(letter, letter) != unicodedata.normalize("NFC", exceptions.get(letter) or letter.upper())
    ]
    assert differing == []


def test_the_newer_rule_is_unicode_s_title_case_but_for_sharp_s():
    """As MediaWiki's configuration says; the form is composed as titles are."""
    table = first_letters(TITLE_CASE)
    expected = {letter: unicodedata.normalize("NFC", letter.title()) for letter in EVERY_LETTER if letter != "ß"}
    assert {letter: form for letter, form in expected.items() if form != letter} == table


def test_georgian_has_no_capitals_by_either_rule():
    """Mtavruli letters are for emphasis; Python's upper() has them."""
    assert all(letter.upper() != letter for letter in GEORGIAN)
    for rule in (SIMPLE, TITLE_CASE):
        assert not set(GEORGIAN) & set(first_letters(rule))


def test_a_form_has_no_other_form():
    """So a title that is in its normal form stays in it, by the same rule."""
    for rule in (SIMPLE, TITLE_CASE):
        table = first_letters(rule)
        assert len(table) > 700
        assert [form for form in table.values() if form[0] in table] == []


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="the file was made from Unicode 14 (Python 3.11)")
def test_the_file_is_what_the_generator_writes():
    """`python -m leia_beam.first_letters > leia_beam/data/first_letters.json` changes nothing."""
    assert make_tables() == {
        rule: [letter + form for letter, form in first_letters(rule).items()] for rule in (SIMPLE, TITLE_CASE)
    }


@pytest.mark.parametrize(
    ("generator", "rule"),
    [
        ("MediaWiki 1.27.0-wmf.22", SIMPLE),
        ("MediaWiki 1.39.0-wmf.28", SIMPLE),
        ("MediaWiki 1.40.0-wmf.1", TITLE_CASE),
        ("MediaWiki 1.46.0-wmf.16", TITLE_CASE),
        ("MediaWiki 2.0", TITLE_CASE),
        ("", SIMPLE),
        ("MediaWiki", SIMPLE),
        ("MediaWiki x.y", SIMPLE),
        ("MediaWiki ¹.⁴", SIMPLE),
    ],
)
def test_a_dump_tells_its_rule(generator, rule):
    """By the version of the MediaWiki that wrote it; an unknown one has the simple rule."""
    assert rule_of(generator) == rule

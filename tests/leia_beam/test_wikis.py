"""wikis: every database name is known with its facts, and what is nearly one is answered with the right one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from leia_beam.errors import UsageError
from leia_beam.wikis import (
    CASE_SENSITIVE,
    FIRST_LETTER,
    Wiki,
    fold_namespace,
    language_of,
    load_wiki,
    wiki_code,
    wikipedia_codes,
    with_siteinfo,
)

SITEINFO = Path(__file__).resolve().parents[3] / "shared" / "data" / "siteinfo"


def test_there_are_more_than_three_hundred_wikipedias_and_no_sister_project():
    """The list has every Wikipedia, none of the other `…wiki`s."""
    codes = wikipedia_codes()
    assert len(codes) > 300
    assert not {"commonswiki", "specieswiki", "metawiki", "wikidatawiki", "sourceswiki", "mediawikiwiki"} & codes
    assert {"jawiki", "zh_min_nanwiki", "be_x_oldwiki", "roa_rupwiki", "simplewiki", "nowiki", "nnwiki"} <= codes


def test_every_code_loads_with_facts_that_work():
    """For each wiki: its name, its own prefix, namespaces, a redirect word, a link trail that is a class."""
    for code in sorted(wikipedia_codes()):
        wiki = load_wiki(code)
        assert wiki.code == code == wiki_code(code)
        assert wiki.own_prefixes, code
        assert {wiki.wikipedia_prefixes[prefix] for prefix in wiki.own_prefixes} == {code}
        assert 0 not in wiki.namespaces
        assert {-2, -1, 1, 2, 3, 4, 6, 10, 14} <= set(wiki.namespaces)
        assert all(
            wiki.namespace_numbers[fold_namespace(name)] == n for n, names in wiki.namespaces.items() for name in names
        )
        assert "#REDIRECT" in [word.upper() for word in wiki.redirect_words]
        for characters in (wiki.link_trail, wiki.link_prefix):
            assert not characters or re.compile(f"[{characters}]+")
        assert wiki.case in (FIRST_LETTER, CASE_SENSITIVE)


def test_every_code_is_found_by_its_language():
    """The language of a wiki leads back to it."""
    assert {code: wiki_code(language_of(code)) for code in wikipedia_codes()} == {
        code: code for code in wikipedia_codes()
    }


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("ja", "jawiki"),
        ("jawiki", "jawiki"),
        ("simple", "simplewiki"),
        ("zh-min-nan", "zh_min_nanwiki"),
        ("nan", "zh_min_nanwiki"),
        ("nb", "nowiki"),
        ("no", "nowiki"),
        ("be-tarask", "be_x_oldwiki"),
        ("be-x-old", "be_x_oldwiki"),
        ("roa-rup", "roa_rupwiki"),
        ("zh-yue", "zh_yuewiki"),
    ],
)
def test_a_language_stands_for_its_wiki(given, code):
    """Languages whose wiki has another name are in the table."""
    assert wiki_code(given) == code


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("JA", "did you mean jawiki"),
        ("JAWIKI", "did you mean jawiki"),
        ("jp", r"did you mean 'ja' \(jawiki\)"),
        ("cz", r"did you mean 'cs' \(cswiki\)"),
        ("zh_min_nan", "did you mean zh_min_nanwiki"),
        ("zh-min-nanwiki", "did you mean zh_min_nanwiki"),
        ("jawikii", "did you mean jawiki"),
        ("jaawiki", "did you mean .*jawiki"),
        ("%%%", "give a database name such as jawiki"),
        ("", "give a database name such as jawiki"),
        ("commonswiki", "unknown wiki 'commonswiki'"),
    ],
)
def test_what_is_no_wiki_is_answered_with_the_nearest(given, hint):
    """A typing mistake costs one line, which has the right name in it."""
    with pytest.raises(UsageError, match=hint):
        wiki_code(given)


def test_the_facts_are_loaded_once():
    """Caches that are keyed by a wiki stay small: the same object comes back."""
    assert load_wiki("ja") is load_wiki("jawiki")


def test_a_dump_s_header_completes_the_facts():
    """Its names come first and the table's aliases stay; case and case-sensitive namespaces are the header's."""
    wiki = with_siteinfo(
        load_wiki("de"), {0: "", 6: "Bild", 14: "Kategorie", 3000: "Neu"}, CASE_SENSITIVE, frozenset({3000})
    )
    assert wiki.namespaces[6][0] == "Bild"
    assert {"Datei", "File", "Image"} <= set(wiki.namespaces[6])
    assert list(wiki.namespaces[6]).count("Bild") == 1
    assert wiki.namespaces[3000] == ("Neu",)
    assert (wiki.namespace_numbers["neu"], wiki.namespace_numbers["datei"], wiki.namespace_numbers["bild"]) == (
        3000,
        6,
        6,
    )
    assert (wiki.case, wiki.case_sensitive_namespaces) == (CASE_SENSITIVE, frozenset({3000}))
    assert "" not in wiki.namespace_numbers
    assert load_wiki("de").case == FIRST_LETTER


def test_names_of_namespaces_are_compared_without_case_and_by_one_space():
    """`User_talk`, `user  Talk` and `USER TALK` are one name."""
    assert {fold_namespace(name) for name in ("User_talk", "user  Talk", " USER TALK ", "User__talk")} == {"user talk"}


def test_an_unheard_of_wiki_has_sensible_defaults():
    """English names work everywhere."""
    wiki = Wiki(code="xxwiki", language="xx")
    assert (wiki.case, wiki.namespaces[6], wiki.link_trail) == (FIRST_LETTER, ("File", "Image"), "a-z")


@pytest.mark.skipif(not SITEINFO.is_dir(), reason="the wikis' own site information is not here")
def test_the_table_agrees_with_the_wikis_own_site_information():
    """For the ten wikis at hand: every namespace name and alias gives its number."""
    compared = 0
    for path in sorted(SITEINFO.glob("*wiki.json")):
        query = json.loads(path.read_text(encoding="utf-8"))["query"]
        wiki = load_wiki(path.stem)
        names = [(n["id"], n.get("name", n.get("*"))) for n in query["namespaces"].values()]
        names += [(n["id"], n.get("alias", n.get("*"))) for n in query["namespacealiases"]]
        for number, name in names:
            if number != 0:
                assert wiki.namespace_numbers[fold_namespace(name)] == number, (path.stem, name)
                compared += 1
        assert wiki.case == query["general"]["case"]
    assert compared > 300

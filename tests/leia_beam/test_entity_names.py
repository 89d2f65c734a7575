"""entity_names: one name of an item's sitelinks and labels, by rules that a table can show."""

from __future__ import annotations

import pytest

from leia_beam.entity_names import LABEL_CASE, NO_SITELINK, REFUSED_NAME, SITELINK, Name, choose_name, clean_title
from leia_beam.wikis import load_wiki

EN, JA, DE = load_wiki("en"), load_wiki("ja"), load_wiki("de")


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Tokyo", "Tokyo"),
        ("Mercury (planet)", "Mercury"),
        ("Mercury  (planet)", "Mercury"),
        ("PC(USA)", "PC(USA)"),
        ("Thallium(I) fluoride", "Thallium(I) fluoride"),
        ("Iron (II) oxide", "Iron (II) oxide"),
        ("(500) Days of Summer", "(500) Days of Summer"),
        ("(A)", "(A)"),
        (" (A)", "(A)"),
        ("()", "()"),
        ("A ()", "A"),
        ("A (b) (c)", "A (b)"),
        ("A (b (c))", "A (b (c))"),
        ("A (b", "A (b"),
        ("A b)", "A b)"),
        ("1 (number)", "1"),
        ("東京 (曖昧さ回避)", "東京"),
        ("東京（曖昧さ回避）", "東京（曖昧さ回避）"),
        ("A (b).", "A (b)."),
        ("", ""),
    ],
)
def test_a_trailing_parenthesis_goes_only_after_a_space(title, name):
    """One parenthesis at the end, with a space before it and something before that."""
    assert clean_title(title) == name


def test_cleaning_takes_linear_time():
    """A title of many spaces or brackets is no trap."""
    for title in ("a" + " " * 20_000 + "b", "a " + "(" * 20_000, "a (" * 10_000, "a" + " (" * 10_000 + ")"):
        assert clean_title(title)


@pytest.mark.parametrize(
    ("sitelinks", "labels", "wikis", "expected"),
    [
        ([("enwiki", "Tokyo")], [], [EN], Name(name="Tokyo", language="en", source=SITELINK)),
        ([("enwiki", "Tokyo")], [("en", "Tokyo")], [EN], Name(name="Tokyo", language="en", source=SITELINK)),
        ([("enwiki", "Dog")], [("en", "dog")], [EN], Name(name="dog", language="en", source=LABEL_CASE)),
        ([("enwiki", "Dog")], [("en", "hound")], [EN], Name(name="Dog", language="en", source=SITELINK)),
        ([("enwiki", "Dog")], [("ja", "dog")], [EN], Name(name="Dog", language="en", source=SITELINK)),
        ([("enwiki", "IPod (device)")], [("en", "iPod")], [EN], Name(name="iPod", language="en", source=LABEL_CASE)),
        (
            [("enwiki", "Mercury (planet)")],
            [("en", "Mercury")],
            [EN],
            Name(name="Mercury", language="en", source=SITELINK),
        ),
        (
            [("enwiki", "Mercury (planet)")],
            [("en", "mercury (planet)")],
            [EN],
            Name(name="Mercury", language="en", source=SITELINK),
        ),
        ([("jawiki", "東京")], [("en", "Tokyo")], [EN], Name(reason=NO_SITELINK)),
        ([], [], [EN], Name(reason=NO_SITELINK)),
        ([("enwiki", "Tokyo")], [], [], Name(reason=NO_SITELINK)),
        ([("enwiki", "Category:Tokyo")], [], [EN], Name(reason=REFUSED_NAME)),
        ([("enwiki", "image:x")], [], [EN], Name(reason=REFUSED_NAME)),
        ([("enwiki", "Alien: Covenant")], [], [EN], Name(name="Alien: Covenant", language="en", source=SITELINK)),
        ([("dewiki", "Kategorie:X")], [], [DE], Name(reason=REFUSED_NAME)),
        ([("enwiki", "Kategorie:X")], [], [EN], Name(name="Kategorie:X", language="en", source=SITELINK)),
        ([("dewiki", "Hund"), ("enwiki", "Dog")], [], [EN, DE], Name(name="Dog", language="en", source=SITELINK)),
        ([("dewiki", "Hund"), ("enwiki", "Dog")], [], [DE, EN], Name(name="Hund", language="de", source=SITELINK)),
        ([("dewiki", "Hund")], [("en", "hund")], [EN, DE], Name(name="Hund", language="de", source=SITELINK)),
        (
            [("dewiki", "Hund"), ("enwiki", "Category:Dogs")],
            [],
            [EN, DE],
            Name(name="Hund", language="de", source=SITELINK),
        ),
        ([("dewiki", "Vorlage:X"), ("enwiki", "Category:Dogs")], [], [EN, DE], Name(reason=REFUSED_NAME)),
        ([("jawiki", "東京")], [], [EN, JA], Name(name="東京", language="ja", source=SITELINK)),
    ],
)
def test_the_name_of_an_item(sitelinks, labels, wikis, expected):
    """The first wiki in order of preference that has one; the label's case; other namespaces refused."""
    assert choose_name(sitelinks, labels, wikis) == expected


@pytest.mark.parametrize(
    ("code", "label_language"),
    [
        ("nowiki", "nb"),
        ("be_x_oldwiki", "be-tarask"),
        ("zh_min_nanwiki", "nan"),
        ("bat_smgwiki", "sgs"),
        ("alswiki", "gsw"),
    ],
)
def test_the_label_s_case_is_found_where_wikidata_has_another_language_code(code, label_language):
    """Wikidata's labels have language codes, which some wikis' names are not."""
    name = choose_name([(code, "Xyz")], [(label_language, "xyz")], [load_wiki(code)])
    assert (name.name, name.source) == ("xyz", LABEL_CASE)

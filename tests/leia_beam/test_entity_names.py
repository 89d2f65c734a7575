"""entity_names: one name of an item's sitelinks and labels, by rules that a table can show."""

from __future__ import annotations

import pytest

from leia_beam.entity_names import (
    CATEGORY,
    CONTROL,
    DISAMBIGUATION,
    LABEL,
    LABEL_CASE,
    LIST,
    NO_LABEL,
    NO_SITELINK,
    NUMBER,
    REFUSED_NAME,
    SITELINK,
    SITELINK_THEN_LABEL,
    Name,
    NameRules,
    choose_name,
    clean_title,
    is_number_or_date,
)
from leia_beam.errors import UsageError
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


def title_name(name):
    return Name(name=name, language="en", source=SITELINK)


def label_name(name, language="en"):
    return Name(name=name, language=language, source=LABEL)


DOG = [("enwiki", "Dog")], [("en", "dog")]


@pytest.mark.parametrize(
    ("source", "sitelinks", "labels", "wikis", "expected"),
    [
        (SITELINK, *DOG, [EN], Name(name="dog", language="en", source=LABEL_CASE)),
        (LABEL, *DOG, [EN], label_name("dog")),
        (LABEL, [("enwiki", "Dog")], [], [EN], Name(reason=NO_LABEL)),
        (LABEL, [], [("de", "Hund"), ("en", " dog ")], [EN, DE], label_name("dog")),
        (LABEL, [], [("de", "Hund")], [EN, DE], label_name("Hund", "de")),
        (LABEL, [], [("en", "Category:Dogs")], [EN], Name(reason=REFUSED_NAME)),
        (SITELINK, [], [("en", "dog")], [EN], Name(reason=NO_SITELINK)),
        (SITELINK_THEN_LABEL, [], [("en", "dog")], [EN], label_name("dog")),
        (SITELINK_THEN_LABEL, *DOG, [EN], Name(name="dog", language="en", source=LABEL_CASE)),
        (SITELINK_THEN_LABEL, [("dewiki", "Hund")], [("en", "dog")], [EN, DE], label_name("dog")),
        (SITELINK_THEN_LABEL, [], [("en", "  ")], [EN], Name(reason=NO_SITELINK)),
    ],
)
def test_a_name_comes_from_the_source_that_is_asked_for(source, sitelinks, labels, wikis, expected):
    """The article's title, Wikidata's label, or the label where there is no article in the language."""
    assert choose_name(sitelinks, labels, wikis, NameRules(source=source)) == expected


def test_the_title_s_case_can_be_kept():
    """As the reference has it."""
    assert choose_name(*DOG, [EN], NameRules(label_case=False)) == title_name("Dog")


def test_an_unknown_source_is_refused():
    """With those there are."""
    with pytest.raises(UsageError, match=r"^name source 'alias': give one of sitelink, label, sitelink-then-label$"):
        NameRules(source="alias")


@pytest.mark.parametrize(
    ("types", "reason"),
    [
        (("Q13406463",), LIST),
        (("Q5", "Q4167410"), DISAMBIGUATION),
        (("Q22808320",), DISAMBIGUATION),
        (("Q4167836",), CATEGORY),
        (("Q5",), None),
        ((), None),
    ],
)
def test_an_item_s_type_refuses_it_whatever_it_is_called(types, reason):
    """And nothing is refused for what it is called: an article may well be about a list."""
    found = choose_name([("enwiki", "List of lists")], [], [EN], NameRules(), types)
    assert found == (title_name("List of lists") if reason is None else Name(reason=reason))


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("1984", True),
        ("١٩٨٤", True),
        ("100,000", True),
        ("−1", True),
        ("3.14", True),
        ("1990s", True),
        ("44 BC", True),
        ("AD 79", True),
        ("May 1", True),
        ("1 May", True),
        ("May 1, 1990", True),
        ("May 1990", True),
        ("21st century", True),
        ("5th century BC", True),
        ("May", False),
        ("May Day", False),
        ("1984 in film", False),
        ("Apollo 11", False),
        ("7-Eleven", False),
        ("24", True),
        ("?", False),
        ("C", False),
        ("第1", False),
    ],
)
def test_numbers_years_and_dates_are_told(name, is_one):
    """No letter at all, or an English form of a date and nothing else."""
    assert is_number_or_date(name) == is_one
    expected = Name(reason=NUMBER) if is_one else title_name(name)
    assert choose_name([("enwiki", name)], [], [EN], NameRules(refuse_numbers=True)) == expected
    assert choose_name([("enwiki", name)], [], [EN]) == title_name(name)


def test_a_date_in_another_language_is_told_by_its_type():
    """Where types are kept."""
    rules = NameRules(refuse_numbers=True)
    assert choose_name([("dewiki", "1. Mai")], [], [DE], rules, ("Q14795564",)) == Name(reason=NUMBER)


@pytest.mark.parametrize("mark", ["\u202e", "\u2066", "\x85", "\t"])
def test_a_name_with_a_control_or_direction_character_is_refused(mark):
    """It would stand in the training text."""
    assert choose_name([("enwiki", f"A{mark}B")], [], [EN]) == Name(reason=CONTROL)


def test_a_refused_name_in_one_language_leaves_the_next():
    """The first reason is given where none is left."""
    rules = NameRules(refuse_numbers=True)
    assert choose_name([("enwiki", "1984"), ("dewiki", "Hund")], [], [EN, DE], rules).name == "Hund"
    assert choose_name([("enwiki", "1984"), ("dewiki", "Kategorie:X")], [], [EN, DE], rules) == Name(reason=NUMBER)

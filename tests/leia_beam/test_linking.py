"""linking: each anchor gets the name that its target has, or the one reason why it gets none."""

from __future__ import annotations

from typing import ClassVar

import pytest

from leia_beam.entity_names import (
    CONTROL,
    EQUAL_TO_ANCHOR,
    HELD_OUT,
    LIST,
    LOOP,
    MISSING,
    NO_ITEM,
    NO_SITELINK,
    NUMBER,
    OTHER_NAMESPACE,
    OTHER_WIKI,
    SECTION,
    SITELINK,
    TEMPLATE,
    NameRules,
)
from leia_beam.holdout import Holdout
from leia_beam.linking import LinkedAnchor, LinkRules, is_equal, link_anchor
from leia_beam.lookup import EntityRow
from leia_beam.records import INTERLANGUAGE_TEMPLATE, Anchor
from leia_beam.wikis import load_wiki

JA = load_wiki("ja")
TOKYO = EntityRow(qid="Q1490", name="Tokyo", name_language="en", name_source=SITELINK, reason=None)


class Table:
    """A lookup in a dictionary."""

    rows: ClassVar = {
        "東京": TOKYO,
        "名無し": EntityRow(qid="Q5", name=None, name_language=None, name_source=None, reason=NO_SITELINK),
        "項目無し": EntityRow(qid=None, name=None, name_language=None, name_source=None, reason=NO_ITEM),
        "輪": EntityRow(qid=None, name=None, name_language=None, name_source=None, reason=LOOP),
        "Re:ゼロ": TOKYO,
        "一覧": EntityRow(qid="Q6", name=None, name_language=None, name_source=None, reason=LIST),
        "取置": EntityRow(qid="Q7", name=None, name_language=None, name_source=None, reason=HELD_OUT),
    }

    def find(self, title):
        return self.rows.get(title)


def link(target, name_wikis=("enwiki",), rules=LinkRules(), shown=None, **fields):  # noqa: B008
    anchor = Anchor(start_char=0, end_char=1, target=target, **fields)
    return link_anchor(anchor._asdict(), Table(), JA, name_wikis, rules, shown)


NAMED = LinkedAnchor(qid="Q1490", name="Tokyo", name_language="en", name_source=SITELINK)


@pytest.mark.parametrize(
    ("target", "fields", "expected"),
    [
        ("東京", {}, NAMED),
        ("東京", {"fragment": ""}, NAMED),
        ("東京", {"fragment": "歴史"}, LinkedAnchor(reason=SECTION)),
        ("無い", {}, LinkedAnchor(reason=MISSING)),
        ("無い", {"fragment": "x"}, LinkedAnchor(reason=SECTION)),
        ("名無し", {}, LinkedAnchor(qid="Q5", reason=NO_SITELINK)),
        ("項目無し", {}, LinkedAnchor(reason=NO_ITEM)),
        ("輪", {}, LinkedAnchor(reason=LOOP)),
        ("Category:Cats", {}, LinkedAnchor(reason=OTHER_NAMESPACE)),
        ("Wikipedia:x", {}, LinkedAnchor(reason=OTHER_NAMESPACE)),
        ("Re:ゼロ", {}, NAMED),
        ("Re:無い", {}, LinkedAnchor(reason=MISSING)),
        ("", {"foreign_wiki": "dewiki", "foreign_title": "X"}, LinkedAnchor(reason=OTHER_WIKI)),
        ("", {}, LinkedAnchor(reason=MISSING)),
    ],
)
def test_a_link_has_a_name_or_a_reason(target, fields, expected):
    """Found, missing, section, other namespace, other wiki, and what the table itself says."""
    assert link(target, **fields) == expected


@pytest.mark.parametrize(
    ("target", "foreign", "expected"),
    [
        ("無い", ("enwiki", "Tokyo (city)"), LinkedAnchor(name="Tokyo", name_language="en", name_source=TEMPLATE)),
        ("", ("enwiki", "Tokyo"), LinkedAnchor(name="Tokyo", name_language="en", name_source=TEMPLATE)),
        ("名無し", ("enwiki", "N"), LinkedAnchor(qid="Q5", name="N", name_language="en", name_source=TEMPLATE)),
        ("東京", ("enwiki", "Edo"), NAMED),
        ("無い", ("dewiki", "Tokio"), LinkedAnchor(reason=MISSING)),
        ("無い", ("enwiki", None), LinkedAnchor(reason=MISSING)),
        ("無い", ("enwiki", ""), LinkedAnchor(reason=MISSING)),
        ("無い", (None, None), LinkedAnchor(reason=MISSING)),
    ],
)
def test_an_interlanguage_template_names_the_foreign_article_itself(target, foreign, expected):
    """It counts where the wiki has no name of its own, and only for the wikis whose names are wanted."""
    found = link(target, kind=INTERLANGUAGE_TEMPLATE, foreign_wiki=foreign[0], foreign_title=foreign[1])
    assert found == expected


def test_only_a_template_names_a_foreign_article():
    """An ordinary link with a foreign title keeps its reason."""
    assert link("無い", foreign_wiki="enwiki", foreign_title="Tokyo") == LinkedAnchor(reason=MISSING)


def test_every_anchor_has_a_name_or_a_reason_never_both():
    """Over all targets and kinds."""
    found = [
        link(target, kind=kind, fragment=fragment, foreign_wiki=wiki, foreign_title="X" if wiki else None)
        for target in (*Table.rows, "", "無い", "Category:X")
        for kind in ("link", INTERLANGUAGE_TEMPLATE)
        for fragment in (None, "x")
        for wiki in (None, "enwiki", "dewiki")
    ]
    assert all((anchor.name is None) != (anchor.reason is None) for anchor in found)
    assert {anchor.name is None for anchor in found} == {True, False}


def template(title, target="無い", **others):
    return link(target, kind=INTERLANGUAGE_TEMPLATE, foreign_wiki="enwiki", foreign_title=title, **others)


def test_a_link_to_a_section_can_have_the_article_s_name():
    """By option; what the article's title has is taken, a reason too."""
    rules = LinkRules(sections=True)
    assert [link(target, fragment="歴史", rules=rules) for target in ("東京", "無い", "一覧")] == [
        NAMED,
        LinkedAnchor(reason=MISSING),
        LinkedAnchor(qid="Q6", reason=LIST),
    ]


@pytest.mark.parametrize("target", ["一覧", "取置"])
def test_a_template_does_not_name_what_was_refused_or_held_out(target):
    """Else a list, or a held-out name's item, would be named through it."""
    assert template("Some name", target) == link(target)


def test_a_template_s_name_is_held_out_as_others_are():
    """By the hash of the name, whatever its case and parenthesis."""
    rules = LinkRules(holdout=Holdout(share=0.5, seed=2))
    names = [f"Name {number}" for number in range(100)]
    found = [template(f"{name} (x)", rules=rules) for name in names]
    held = [rules.holdout.holds(name.upper()) for name in names]
    assert [anchor.reason == HELD_OUT for anchor in found] == held and 20 < sum(held) < 80
    assert [anchor.held_out_name for anchor in found if anchor.reason] == [
        name for name, is_held in zip(names, held, strict=True) if is_held
    ]
    assert all((anchor.name is None) == is_held for anchor, is_held in zip(found, held, strict=True))


@pytest.mark.parametrize(("title", "reason"), [("1984 (year)", NUMBER), ("A\u2066B", CONTROL)])
def test_a_template_s_name_is_refused_as_others_are(title, reason):
    """By the rules for names."""
    rules = LinkRules(names=NameRules(refuse_numbers=True))
    assert template(title, rules=rules) == LinkedAnchor(reason=reason)


@pytest.mark.parametrize(
    ("shown", "is_kept"), [("Tokyo", False), ("TOKYO", False), ("Tokyo ", False), ("Tokyo-to", True), ("東京", True)]
)
def test_a_name_that_is_the_anchor_s_own_text_can_be_left_out(shown, is_kept):
    """But for case and white space; kept unless asked for."""
    assert link("東京", shown=shown) == NAMED
    skipped = LinkedAnchor(qid="Q1490", reason=EQUAL_TO_ANCHOR)
    assert link("東京", shown=shown, rules=LinkRules(skip_equal=True)) == (NAMED if is_kept else skipped)
    assert is_equal("Tokyo", shown) == (not is_kept)

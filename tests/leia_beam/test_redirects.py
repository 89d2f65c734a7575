"""redirects: a redirect page's own link says where it leads, in every language's words, with its section."""

from __future__ import annotations

import pytest

from leia_beam.records import Page
from leia_beam.redirects import Redirect, redirect_of
from leia_beam.wikis import load_wiki


def redirect(text, title="Target", wiki="jawiki"):
    page = Page(page_id=1, namespace=0, title="x", revision_id=1, redirect_title=title, model="wikitext", text=text)
    return redirect_of(page, load_wiki(wiki))


@pytest.mark.parametrize(
    ("text", "wiki", "expected"),
    [
        ("#REDIRECT [[東京]]", "jawiki", Redirect(to="東京")),
        ("#redirect[[東京]]", "jawiki", Redirect(to="東京")),
        ("  \n#Redirect : [[tokyo_Tower]] more", "jawiki", Redirect(to="Tokyo Tower")),
        ("#転送 [[東京]]", "jawiki", Redirect(to="東京")),
        ("#リダイレクト [[東京]]", "jawiki", Redirect(to="東京")),
        ("#WEITERLEITUNG [[Hund]]", "dewiki", Redirect(to="Hund")),
        ("#перенаправление [[Москва]]", "ruwiki", Redirect(to="Москва")),
        ("#REDIRECCIÓN [[Madrid]]", "eswiki", Redirect(to="Madrid")),
        ("#تحويل [[القاهرة]]", "arwiki", Redirect(to="القاهرة")),
        ("#REDIRECT [[東京#歴史]]", "jawiki", Redirect(to="東京", fragment="歴史")),
        ("#REDIRECT [[東京#]]", "jawiki", Redirect(to="東京")),
        ("#REDIRECT [[東京|anything]]", "jawiki", Redirect(to="東京")),
        ("#REDIRECT [[:en:Tokyo]]", "jawiki", Redirect(to="Tokyo", to_interwiki="en")),
        ("#REDIRECT [[ja:東京]]", "jawiki", Redirect(to="東京")),
        ("#REDIRECT [[Category:cats]]", "enwiki", Redirect(to="Category:Cats")),
        ("#REDIRECT [[%E6%9D%B1%E4%BA%AC]]", "jawiki", Redirect(to="東京")),
    ],
)
def test_the_link_says_where_it_leads(text, wiki, expected):
    """The wiki's own words and English, the section, other wikis."""
    assert redirect(text, "Other", wiki) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        "no redirect",
        "#REDIRECT",
        "#REDIRECT [[]]",
        "#REDIRECT [[a<b]]",
        "#REDIRECT [[#section]]",
        "#NOSUCH [[x]]",
    ],
)
def test_the_dump_s_element_stands_in_where_no_link_can_be_read(text):
    """Without a readable link the title in the element is where it leads."""
    assert redirect(text, "tokyo_Tower") == Redirect(to="Tokyo Tower")


@pytest.mark.parametrize("title", ["", "a<b", "#x", "A|B"])
def test_a_redirect_to_no_legal_title_leads_to_nothing(title):
    """`to` is '' then, which the stage counts as a reject."""
    assert redirect("#REDIRECT [[]]", title).to == ""


def test_a_page_without_the_element_is_no_redirect():
    """What only looks like one in its text is an article."""
    assert redirect("#REDIRECT [[東京]]", None) is None


def test_a_long_page_without_a_redirect_word_costs_nothing():
    """The pattern is bounded: a megabyte of brackets or white space is read in no time."""
    for text in ("#REDIRECT " + "[[" * 500_000, " " * 1_000_000 + "#REDIRECT", "#REDIRECT [[" + "a" * 1_000_000):
        assert redirect(text, "A") == Redirect(to="A")

"""templates: the table that speakers extend is sound, and what a call comes to."""

from __future__ import annotations

import json
import re
from importlib import resources

import pytest

from leia_beam.markup.page_state import ExtractionOptions, PageState
from leia_beam.markup.templates import end_matter_titles, expand, fill, template_name
from leia_beam.wikis import load_wiki
from leia_beam.wikitext import extract

TABLE = json.loads(resources.files("leia_beam").joinpath("data/templates.json").read_text(encoding="utf-8"))
LANGUAGES = ("ja", "zh", "ar", "es", "hi", "ru", "sw", "en", "de", "fr")
RECIPES = [
    (language, name, recipe) for language, recipes in TABLE["inline"].items() for name, recipe in recipes.items()
]
FIELD = re.compile(r"\{([^{}]*)\}")


def page(language: str = "en", **options: bool) -> PageState:
    return PageState("Page", load_wiki(language), ExtractionOptions(**options))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_languages_of_the_paper_and_its_neighbours_have_their_words(language):
    """Inline templates, titles of end matter and templates of disambiguation."""
    assert TABLE["inline"][language]
    assert len(end_matter_titles(language)) >= 4
    assert TABLE["disambiguation"][language]


def test_names_are_as_they_are_looked_up():
    """Lower case, one space, no white space around: another form would never be found."""
    assert len(RECIPES) > 300
    for language, name, _ in RECIPES:
        assert name == re.sub(r"\s+", " ", name.strip()).lower(), (language, name)
    for language, recipes in TABLE["interlanguage"].items():
        for name in recipes:
            assert name == name.strip().lower().replace("_", " "), (language, name)


def test_recipes_are_whole():
    """Fields have a name or a number, optional parts are closed, nothing is left of the syntax once they are filled."""
    arguments = {str(number): str(number) for number in range(1, 10)}
    arguments |= {"u": "u", "text": "t", "texte": "t", "Text": "t"}
    for language, name, recipe in RECIPES:
        place = f"{language}: {name}: {recipe}"
        assert recipe.count("<") == recipe.count(">"), place
        for field in FIELD.findall(recipe):
            assert re.fullmatch(r"\*[^{}]*|\w+\?[^:]*:[^:]*|\w+(\|\w+)*(:(number|month))?", field), place
        assert not re.search(r"[{}]", fill(recipe, arguments, language).replace("\\{", "")), place
        assert recipe.count("[[") == recipe.count("]]"), place


def test_a_part_is_left_out_without_its_fields():
    """Brackets and commas go with what they hold."""
    recipe = "{1}< ({2}<, {3}>)>"
    assert fill(recipe, {"1": "a"}) == "a"
    assert fill(recipe, {"1": "a", "3": "c"}) == "a"
    assert fill(recipe, {"1": "a", "2": "b"}) == "a (b)"
    assert fill(recipe, {"1": "a", "2": "b", "3": "c"}) == "a (b, c)"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("nowrap|a b", "a b"),
        ("NOWRAP |a b", "a b"),
        ("Template:nowrap|a", "a"),
        ("nowrap|1=a", "a"),
        ("nowrap", None),
        ("no such template|a", None),
        ("formatnum:1234567", "1,234,567"),
        ("#if:x|a|b", "a"),
        ("#if:|a|b", "b"),
        ("#ifeq:01|1|a|b", "a"),
        ("#switch:b|a=1|b|c=2|#default=3", "2"),
        ("#switch:x|a=1|#default=3", "3"),
        ("lc:ABC", "abc"),
        ("plural:1|page|pages", "page"),
        ("padleft:7|3|0", "007"),
        ("PAGENAME", "Page"),
        ("#invoke:a|b", None),
        ("a<b|c", "{{a<b|c}}"),
    ],
)
def test_what_a_call_comes_to(body, shown):
    """A recipe's text, a function's value, nothing, or the call as it stands where no template can have the name."""
    assert expand(body, page()) == shown


def test_an_interlanguage_template_carries_the_foreign_article_and_the_item():
    """Language, title and qid beside the wiki's own title; English where there are several."""
    found = extract("{{仮リンク|鉄橋|de|Eisenbrücke|en|Iron bridge|label=橋}}", "頁", load_wiki("ja"))
    (anchor,) = found.anchors
    assert (found.text, anchor.target, anchor.foreign_wiki, anchor.foreign_title) == (
        "橋",
        "鉄橋",
        "enwiki",
        "Iron bridge",
    )
    found = extract("{{ill|Bridge|WD=Q42}}", "Page", load_wiki("en"))
    assert [anchor.foreign_qid for anchor in found.anchors] == ["Q42"]
    found = extract("{{ill|Bridge|xx-none|T|WD=Q0}}", "Page", load_wiki("en"))
    assert [(anchor.foreign_qid, anchor.foreign_wiki) for anchor in found.anchors] == [(None, None)]


def test_the_note_on_the_language_is_for_readers_of_the_page_only():
    """`as_rendered` shows it, the corpus does not."""
    wikitext, wiki = "{{仮リンク|鉄橋|en|Iron bridge}}", load_wiki("ja")
    assert extract(wikitext, "頁", wiki).text == "鉄橋"
    assert extract(wikitext, "頁", wiki, ExtractionOptions(as_rendered=True)).text == "鉄橋（英語版）"


def test_a_template_is_counted_by_its_name():
    """Whatever its case, white space, namespace and arguments."""
    wiki = load_wiki("ja")
    names = {
        template_name(body, wiki) for body in ("Cite_web|a", " cite  web ", "Template:Cite web", "subst:cite web|b")
    }
    assert names == {"cite web"}
    assert template_name("#invoke:a|b", wiki) == "#invoke:"

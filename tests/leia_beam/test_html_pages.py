"""Parts of pages: data never becomes markup, whatever it holds; colours can be read in light and in dark."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html

from leia_beam.html_pages import Html, Number, Prose, element, escaped, joined, page, section, table, text_in

HOSTILE = "<script>alert('1')</script>\"onload=x>&amp;\u202eevil\u2066\u200f\x1b[31m</style></title><!--"
COLOURS = dict(
    re.findall(
        r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}, #[0-9a-f]{6})\);",
        resources.files("leia_beam").joinpath("data/page.css").read_text(encoding="utf-8"),
    )
)
TEXTS = [
    *((text, back) for text in ("text", "soft", "accent", "good", "bad", "none") for back in ("page", "card")),
    *(("text", "track"), ("text", "part-back"), ("part", "part-back"), ("name", "name-back"), ("accent", "track")),
    *(("soft", "track"), ("text", "name-back")),
]
"""(text, what it stands on): 4.5 and more."""
DRAWN = [
    *((f"series-{number}", back) for number in range(1, 7) for back in ("card", "page")),
    *(("bar", "track"), ("bar", "card"), ("frame", "card"), ("name", "card"), ("none", "card")),
]
"""(line or bar, what it stands on): 3 and more."""


def luminance(colour: str) -> float:
    """The relative luminance that WCAG 2 defines."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """The contrast ratio that WCAG 2 defines, from 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_the_standard_does() -> None:
    """Black on white is 21; a grey that is known to fall short does."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("pairs", "least"), [(TEXTS, 4.5), (DRAWN, 3.0)], ids=["text", "lines"])
def test_colours_can_be_told_from_what_they_stand_on(pairs: list[tuple[str, str]], least: float, scheme: int) -> None:
    """WCAG AA, of every pair that pages use."""
    found = {pair: round(contrast(*(COLOURS[name].split(", ")[scheme] for name in pair)), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in found.items() if ratio < least} == {}


def test_every_colour_that_is_used_is_defined_once_for_both_schemes() -> None:
    """No name without a pair of colours, none without a use, and no bare colour beside them but of shadows."""
    css = resources.files("leia_beam").joinpath("data/page.css").read_text(encoding="utf-8")
    used = set(re.findall(r"var\(--([a-z0-9-]+)", css)) - {"y-width", "series"}
    assert used == set(COLOURS)
    bare = re.sub(r"light-dark\([^)]*\)", "", css)
    assert re.findall(r"#[0-9a-f]{3,8}\b", bare) == ["#ffffff"], "the page's own in print"
    assert "http" not in css and "url(" not in css and "@import" not in css


def test_data_does_not_become_markup() -> None:
    """In titles, headings, cells, names of columns and attributes: no element that the page did not make."""
    made = page(
        HOSTILE,
        section(HOSTILE, element("p", HOSTILE, title=HOSTILE, lang=HOSTILE)),
        table(HOSTILE, [HOSTILE, Number(HOSTILE), Prose(HOSTILE)], [[HOSTILE, HOSTILE, HOSTILE]]),
        text_in(HOSTILE, HOSTILE),
        HOSTILE,
        kind=HOSTILE,
        lede=HOSTILE,
    )
    tree = html.document_fromstring(made)
    tags = "html head meta title style body header main section h1 h2 p bdi div table caption thead tbody tr th td span"
    assert {node.tag for node in tree.iter()} <= set(tags.split())
    assert len(tree.findall(".//style")) == 1
    attributes = {name for node in tree.iter() for name in node.attrib}
    assert not [name for name in attributes if name.startswith("on")] and "src" not in attributes
    assert not set("\u202e\u2066\u200f\x1b") & set(made)
    assert tree.text_content().count("<script>alert('1')</script>\"onload=x>&amp;RLOevilLRIRLMU+001B[31m") >= 9


def test_characters_that_nobody_sees_are_shown_by_name_and_joiners_are_left_alone() -> None:
    """Marks of direction, soft hyphens and controls; not what words of Persian or emoji are made of, nor spaces."""
    assert re.sub(r"<[^>]*>", "", escaped("a\u200eb\u00adc\ufeff\ue000")) == "aLRMbSHYcBOMU+E000"
    for text in ("می‌خواهم", "👩‍👩‍👧", "a\u00a0b", "東京", "a\nb"):
        assert escaped(text) == text


@given(st.text(), st.text())
def test_what_was_escaped_comes_back_as_it_was(text: str, attribute: str) -> None:
    """Parsed, text and attribute are what they were, but for what is shown by name; escaping is done once."""
    once = escaped(text)
    assert escaped(once) is once and isinstance(joined([once, text]), Html)
    parsed = html.fragment_fromstring(element("p", text, title=attribute))
    assert parsed.tag == "p" and set(parsed.attrib) == {"title"}
    if text.isprintable():
        assert parsed.text_content() == text
    if attribute.isprintable():
        assert parsed.attrib["title"] == attribute


def test_html_that_something_is_added_to_is_text_again() -> None:
    """So it is escaped rather than trusted."""
    assert not isinstance(element("b", "x") + "<i>", Html)
    assert element("p", element("b", "x") + "<i>") == "<p>&lt;b&gt;x&lt;/b&gt;&lt;i&gt;</p>"


def test_a_table_says_which_cells_are_heads() -> None:
    """Scope of rows and columns, a caption, a scrolling region that a keyboard reaches; cells as many as columns."""
    tree = html.fragment_fromstring(table("Towns", ["town", Number("n")], [["東京", "12"], ["Madrid", "3"]]))
    assert (tree.get("role"), tree.get("tabindex"), tree.get("aria-label")) == ("region", "0", "Towns")
    assert [node.get("scope") for node in tree.iter("th")] == ["col", "col", "row", "row"]
    assert [node.get("class") for node in tree.iter("td")] == ["number", "number"]
    assert tree.findtext(".//caption") == "Towns"
    named = table("Tasks", ["task", "file"], [["leia_sample_ja", "a_b"], [text_in("ja", "a_b"), "c"]])
    assert "leia_<wbr>sample_<wbr>ja" in named and named.count("<wbr>") == 2
    with pytest.raises(ValueError, match="zip"):
        table("t", ["a", "b"], [["1"]])

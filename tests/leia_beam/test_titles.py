"""titles: what MediaWiki takes for one title comes to one string, whichever side of a join it is written on."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_beam.first_letters import TITLE_CASE
from leia_beam.titles import MAX_TITLE_BYTES, Target, first_letter, is_legal, normalise_title, parse_target, title_fault
from leia_beam.wikis import CASE_SENSITIVE, load_wiki, with_siteinfo

BIDI_MARKS = re.compile("[\u200e\u200f\u202a-\u202e]")
EN, JA, DE, TR, RU, FR = (load_wiki(code) for code in ("enwiki", "jawiki", "dewiki", "trwiki", "ruwiki", "frwiki"))


def title_of(raw, wiki=JA):
    """The title of a link, '' for a section of the page, None for no link."""
    target = parse_target(raw, wiki)
    return None if target is None else target.title


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("東京", "東京"),
        ("tokyo_Tower", "Tokyo Tower"),
        ("__Tokyo  _ Tower__", "Tokyo Tower"),
        ("Tokyo\u00a0\u2003\u3000Tower", "Tokyo Tower"),
        ("Tokyo\u2028Tower", "Tokyo Tower"),
        ("\u200eTokyo\u202a Tower\u202c", "Tokyo Tower"),
        ("Cafe\u0301", "Café"),
        ("\u30ab\u3099", "ガ"),
        ("%E6%9D%B1%E4%BA%AC", "東京"),
        ("100%", "100%"),
        ("100% wool", "100% wool"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("Tom & Jerry", "Tom & Jerry"),
        ("A&nbsp;B", "A B"),
        ("O&#39;Neill", "O'Neill"),
        ("O&#x27;Neill", "O'Neill"),
        ("C%2B%2B", "C++"),
        ("Tokyo#History", "Tokyo"),
        ("a/b", "A/b"),
        ("AC/DC", "AC/DC"),
        (".hack", ".hack"),
        ("Re:Zero", "Re:Zero"),
        ("re:zero", "Re:zero"),
        ("Alien: Covenant", "Alien: Covenant"),
        ("2001: a space odyssey", "2001: a space odyssey"),
        ("(500) Days", "(500) Days"),
        ("\U00010428x", "\U00010400x"),
    ],
)
def test_a_link_target_has_one_spelling(raw, expected):
    """White space, marks, composition, percent signs, entities and fragments do not make another title."""
    assert parse_target(raw, JA) == Target(namespace=0, title=expected, fragment="History" if "#H" in raw else None)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        " ",
        "_",
        ":",
        "#",
        "A<b",
        "A>b",
        "A[b",
        "A]b",
        "A{b",
        "A}b",
        "A|b",
        "A\tb",
        "A\nb",
        "A\x7fb",
        "A\0b",
        "A~~~b",
        "A%2541",
        "A&lt;b",
        "A%5Bb",
        "A\ufffdb",
        "A\ud800b",
        ".",
        "..",
        "./A",
        "../A",
        "A/./B",
        "A/../B",
        "A/.",
        "A/..",
        "あ" * 86,
        "Category:",
        "File:#x",
    ],
)
def test_an_illegal_title_is_no_link(raw):
    """What MediaWiki shows as plain brackets has no target."""
    assert parse_target(raw, JA) is None


@pytest.mark.parametrize("raw", ["A\tb", "A|b", "A<b", "", "  ", "A\ud800", "あ" * 86, "A\x00", "A\r"])
def test_an_illegal_title_of_a_dump_is_none(raw):
    """The other side refuses the same titles."""
    assert normalise_title(raw, JA) is None


def test_255_bytes_are_the_limit():
    """A title of 255 bytes of UTF-8 is legal, one of 256 is not."""
    longest = "あ" * 85
    assert (len(longest.encode()), is_legal(longest), is_legal(longest + "a")) == (MAX_TITLE_BYTES, True, False)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("a", "A"),
        ("é", "É"),
        ("я", "Я"),
        ("ω", "Ω"),
        ("ა", "ა"),
        ("ჿ", "ჿ"),
        ("ß", "ß"),
        ("ŉ", "ŉ"),
        ("ﬁ", "ﬁ"),
        ("ǰ", "ǰ"),
        ("あ", "あ"),
        ("A", "A"),
        ("1", "1"),
        ("'", "'"),
    ],
)
def test_the_first_letter_is_what_mediawiki_makes_of_it(first, expected):
    """Letters without a single capital, and Georgian, stay as they are (MediaWiki until 1.39)."""
    assert [first_letter(first + rest, EN) for rest in ("", "x", "あ")] == [expected + rest for rest in ("", "x", "あ")]


@pytest.mark.parametrize(
    ("code", "expected"), [("trwiki", "İlçe"), ("azwiki", "İlçe"), ("enwiki", "Ilçe"), ("dewiki", "Ilçe")]
)
def test_the_capital_of_i_has_its_dot_in_turkish_and_azerbaijani(code, expected):
    """LanguageTr and LanguageAz of MediaWiki have an upper-casing of their own for a first `i`."""
    wiki = load_wiki(code)
    assert (title_of("ilçe", wiki), normalise_title("ilçe", wiki)) == (expected, expected)


def test_a_newer_wiki_has_title_case():
    """Since 1.40 ligatures are spelled out and more letters have capitals; Georgian and ß stay as they are."""
    wiki = with_siteinfo(EN, {}, "first-letter", frozenset(), TITLE_CASE)
    given = ("ტესტი", "ßa", "ǆa", "ŉa", "ﬁa", "ⴀa", "éa", "ⅳ", "ӏа", "ΰa")
    assert [title_of(title, wiki) for title in given] == [
        "ტესტი",
        "ßa",
        "ǅa",
        "ʼNa",
        "Fia",
        "Ⴀa",
        "Éa",
        "Ⅳ",
        "Ӏа",
        "Ϋ́a",
    ]
    assert [normalise_title(title, wiki) for title in given] == [title_of(title, wiki) for title in given]


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        ("", "empty"),
        (" _\u00a0", "empty"),
        ("A\tB", "control or direction character"),
        ("A\nB", "control or direction character"),
        ("A\rB", "control or direction character"),
        ("A\x85B", "control or direction character"),
        ("A\u2066B\u2069", "control or direction character"),
        ("あ" * 86, "over 255 bytes"),
        ("A/../B", "relative path"),
        (":A", "leading colon"),
        ("A|B", "character"),
        ("A\ud800", "character"),
        ("A%41", "character"),
        ("A\u202eB", None),
        ("A\u2028B", None),
        ("A\u200bB", None),
        ("東京", None),
    ],
)
def test_an_illegal_title_has_a_reason(raw, fault):
    """Refused with a reason exactly where there is no normal form; white space and bidi marks are MediaWiki's to drop."""
    assert title_fault(raw) == fault
    assert (normalise_title(raw, JA) is None) == (fault is not None)


def test_a_case_sensitive_wiki_keeps_the_first_letter_but_for_some_namespaces():
    """User, MediaWiki and special pages have a capital on every wiki (Wiktionary's rule)."""
    wiki = replace(EN, case=CASE_SENSITIVE)
    names = ("word", "User:bob", "Special:search", "MediaWiki:common.css", "Template:foo", "Category:foo")
    assert [title_of(name, wiki) for name in names] == [
        "word",
        "User:Bob",
        "Special:Search",
        "MediaWiki:Common.css",
        "Template:foo",
        "Category:foo",
    ]


def test_a_case_sensitive_namespace_keeps_the_first_letter():
    """The case of a namespace comes from the dump's header and holds for that namespace alone."""
    wiki = with_siteinfo(EN, {2300: "Gadget"}, "first-letter", frozenset({2300}))
    assert [title_of(name, wiki) for name in ("Gadget:foo", "foo")] == ["Gadget:foo", "Foo"]


@pytest.mark.parametrize(
    ("raw", "wiki", "namespace", "title"),
    [
        ("Category:cats", JA, 14, "Category:Cats"),
        ("category : cats", JA, 14, "Category:Cats"),
        ("File:a_b.jpg", JA, 6, "ファイル:A b.jpg"),
        ("Image:a.jpg", JA, 6, "ファイル:A.jpg"),
        ("画像:a.jpg", JA, 6, "ファイル:A.jpg"),
        ("WP:foo", JA, 4, "Wikipedia:Foo"),
        ("Project:foo", JA, 4, "Wikipedia:Foo"),
        ("USER_TALK:bob", EN, 3, "User talk:Bob"),
        ("Kategorie:Hund", DE, 14, "Kategorie:Hund"),
        ("Category:Hund", DE, 14, "Kategorie:Hund"),
        ("Файл:a.jpg", RU, 6, "Файл:A.jpg"),
        ("template:a:b", EN, 10, "Template:A:b"),
        ("Special:Random", EN, -1, "Special:Random"),
        ("Media:a.ogg", EN, -2, "Media:A.ogg"),
    ],
)
def test_a_namespace_is_known_by_its_names_and_aliases(raw, wiki, namespace, title):
    """Local names, English names and aliases, in any case, come to the local name."""
    assert parse_target(raw, wiki) == Target(namespace=namespace, title=title)


@pytest.mark.parametrize("raw", ["ja:東京", ":ja:東京", "w:ja:東京", ":w:ja:東京", "JA : 東京", "ja:w:ja:東京"])
def test_the_wiki_s_own_prefix_counts_for_nothing(raw):
    """A link through the wiki's own interwiki prefix is a link within it."""
    assert title_of(raw) == "東京"


@pytest.mark.parametrize(
    ("raw", "interwiki", "title"),
    [
        ("en:Tokyo", "en", "Tokyo"),
        (":en:Tokyo", "en", "Tokyo"),
        ("w:Tokyo", "en", "Tokyo"),
        ("W:en:Tokyo", "en", "Tokyo"),
        ("zh-min-nan:Tang-kiaⁿ", "zh-min-nan", "Tang-kiaⁿ"),
        ("wikt:word", "wikt", "word"),
        ("ja:en:Tokyo", "en", "Tokyo"),
    ],
)
def test_a_link_to_another_wiki_says_which(raw, interwiki, title):
    """Prefixes of other wikis are kept in lower case, with what stands after them."""
    target = parse_target(raw, JA)
    assert (target.namespace, target.interwiki, target.title) == (0, interwiki, title)


def test_what_is_no_prefix_stays_in_the_title():
    """A colon alone makes no namespace and no wiki."""
    assert parse_target("Nosuch:thing", JA) == Target(namespace=0, title="Nosuch:thing")


@pytest.mark.parametrize(
    ("raw", "title", "fragment"),
    [
        ("#歴史", "", "歴史"),
        ("東京#歴史", "東京", "歴史"),
        ("東京 # 歴史 ", "東京", "歴史"),
        ("東京#", "東京", ""),
        ("東京#a#b", "東京", "a#b"),
        ("東京#a_b", "東京", "a b"),
    ],
)
def test_the_fragment_is_taken_off(raw, title, fragment):
    """A link to a section has its page's title, '' for the page itself."""
    assert parse_target(raw, JA) == Target(namespace=0, title=title, fragment=fragment)


def test_a_leading_colon_is_told():
    """`[[:Category:Cats]]` is a link, `[[Category:Cats]]` is not."""
    assert [parse_target(raw, EN).leading_colon for raw in (":Category:Cats", "Category:Cats", ": Category:Cats")] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("raw", ["::Tokyo", "ja:::Tokyo", "Category::x"])
def test_a_second_leading_colon_is_illegal(raw):
    """MediaWiki refuses a title that begins with a colon ("title-invalid-leading-colon")."""
    assert parse_target(raw, JA) is None


@pytest.mark.parametrize("raw", ["Rock&region", "Rock&notes", "A&copyright", "P&LT", "AT&T", "R&D", "Q&ampere"])
def test_an_ampersand_without_a_semicolon_is_no_entity(raw):
    """MediaWiki decodes `&name;` alone; HTML's names without a semicolon are text."""
    assert title_of(raw) == raw


def test_the_two_sides_agree_on_a_title_with_a_number_sign():
    """No page can have `#` in its name, so it is no title on either side of a join."""
    assert normalise_title("A#B", JA) is None


@pytest.mark.parametrize("raw", ["AT&amp;amp;T", "A&amp;eacute;s"])
def test_a_title_with_an_entity_in_it_is_illegal(raw):
    """After decoding, `&name;` in a title is refused by MediaWiki."""
    assert parse_target(raw, JA) is None


def test_a_dump_s_title_keeps_its_colon():
    """The namespace is what the dump says; a colon in a title of namespace 0 means nothing."""
    assert [normalise_title(raw, JA) for raw in ("Re:ゼロ", "re:ゼロ", "Alien: Covenant")] == [
        "Re:ゼロ",
        "Re:ゼロ",
        "Alien: Covenant",
    ]


def test_a_dump_s_title_of_another_namespace_has_the_letter_after_the_prefix_raised():
    """`Category:cats` and `Category:Cats` are one page."""
    assert normalise_title("Category:cats_and dogs", EN, 14) == "Category:Cats and dogs"


TITLE_TEXT = st.text(
    st.one_of(
        st.sampled_from(" _aAbßŉﬁǆაée\u0301\u200e\u202aı\u0307İiあ東ガ\u3099カ&;:#%2F.~/'\u00a0\u3000İ"),
        st.characters(codec="utf-8"),
    ),
    max_size=20,
)


def test_normalising_a_normalised_title_changes_nothing():
    """The normal form is a fixed point, so a title can pass through any number of stages."""
    exercised = 0

    @settings(deadline=None, max_examples=400, derandomize=True)
    @given(st.lists(TITLE_TEXT, min_size=5, max_size=5), st.sampled_from([EN, JA, DE, TR, RU]))
    def check(texts, wiki):
        nonlocal exercised
        for raw in texts:
            once = normalise_title(raw, wiki)
            composed = unicodedata.normalize("NFC", BIDI_MARKS.sub("", raw)).strip(" _\u00a0\u3000")
            # The one exception is MediaWiki's own: a capital that composes with the mark after it (ı and a dot above).
            if once is not None and unicodedata.is_normalized("NFC", first_letter(composed, wiki)):
                assert normalise_title(once, wiki) == once
                exercised += once != raw

    check()
    assert exercised > 200


def test_a_mark_between_a_letter_and_its_accent_leaves_one_letter():
    """Marks of direction are taken out before letters are composed, not after."""
    assert [normalise_title(f"e{mark}\u0301", EN) for mark in "\u200e\u200f\u202a\u202e"] == ["É"] * 4
    assert title_of("e\u200e\u0301") == "É"


def test_a_page_s_title_is_found_by_a_link_to_it():
    """Both sides agree on every legal title, written plainly or percent-encoded."""
    exercised = 0

    @settings(deadline=None, max_examples=300, derandomize=True)
    @given(st.lists(TITLE_TEXT, min_size=5, max_size=5), st.sampled_from([EN, JA, DE, RU, FR]))
    def check(texts, wiki):
        nonlocal exercised
        for raw in texts:
            title = normalise_title(raw, wiki)
            if title is None or any(mark in title for mark in ":#%&") or not unicodedata.is_normalized("NFC", title):
                continue
            for written in (
                title,
                title.replace(" ", "_"),
                quote(title),
                f":{title}",
                f"{title}#section",
                f" {title} ",
            ):
                assert parse_target(written, wiki).title == title, written
            exercised += 1

    check()
    assert exercised > 200


def test_a_link_never_leads_to_an_illegal_title():
    """Whatever stands in brackets, what comes out is legal, or '' with a fragment, or another wiki's."""
    exercised = 0

    @settings(deadline=None, max_examples=300, derandomize=True)
    @given(st.lists(TITLE_TEXT, min_size=5, max_size=5))
    def check(texts):
        nonlocal exercised
        for raw in texts:
            target = parse_target(raw, JA)
            if target is None or target.interwiki:
                continue
            name = target.title.partition(":")[2] if target.namespace else target.title
            assert is_legal(name) or (target.title == "" and target.fragment)
            assert target.title == target.title.strip(" ")
            assert not {"_", "\u200e", "\u202a", "#", "|"} & set(target.title)
            exercised += 1

    check()
    assert exercised > 200

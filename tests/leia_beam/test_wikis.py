"""wikis: every database name is known with its facts, and what is nearly one is answered with the right one."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import pytest

from leia_beam.errors import UsageError
from leia_beam.wikis import (
    CASE_SENSITIVE,
    COUNTRIES,
    FIRST_LETTER,
    Wiki,
    fold_namespace,
    language_of,
    load_wiki,
    wiki_code,
    wikipedia_codes,
    with_siteinfo,
)

ENGLISH_SWITCHES = {"__TOC__", "__NOTOC__", "__FORCETOC__", "__NOEDITSECTION__", "__DISAMBIG__", "__INDEX__"}
ENGLISH_OPTIONS = {
    "shown": {"thumb", "thumbnail", "thumb=$1", "thumbnail=$1", "frame", "framed", "enframed"},
    "other": {"$1px", "alt=$1", "border", "centre", "frameless", "left", "link=$1", "page $1", "upright", "upright=$1"},
}
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
            assert not characters or re.compile(f"[{characters}]+").pattern
        assert re.compile(wiki.link_trail_expression).match("") is None, code
        assert wiki.case in (FIRST_LETTER, CASE_SENSITIVE)
        assert all(re.match(r"__.|＿＿.", word) for word in wiki.behaviour_switches), code
        assert set(wiki.behaviour_switches) >= ENGLISH_SWITCHES
        assert sorted(wiki.image_options) == ["other", "shown"]
        shown, other = (set(wiki.image_options[kind]) for kind in ("shown", "other"))
        assert shown >= ENGLISH_OPTIONS["shown"] and other >= ENGLISH_OPTIONS["other"], code
        assert not shown & other, code
        assert all(word.count("$1") <= 1 and word.strip() == word != "$1" for word in shown | other), code


def test_every_code_is_found_by_its_language():
    """The language of a wiki leads back to it."""
    codes = wikipedia_codes() - {"krwiki", "sewiki"}
    assert len(codes) > 300 and {code: wiki_code(language_of(code)) for code in codes} == {code: code for code in codes}


@pytest.mark.parametrize("country", COUNTRIES)
def test_a_countrys_code_is_answered_with_its_language(country):
    """As people mistake them; a Wikipedia that has such a code is meant by its whole name alone."""
    for given in (country, country.upper(), f"{country}wiki"):
        if given in wikipedia_codes():
            assert wiki_code(given) == given
            continue
        with pytest.raises(
            UsageError, match=f"'{given}', which is a country's code; did you mean '{COUNTRIES[country][0]}'"
        ):
            wiki_code(given)
    assert all(wiki_code(language) in wikipedia_codes() for language in COUNTRIES[country])


def test_swedens_code_says_whose_wiki_it_is():
    """Northern Sami has a wiki of that code: a wrong guess would build another language."""
    with pytest.raises(UsageError, match=r"did you mean 'sv' \(svwiki\)\?; sewiki is another language's"):
        wiki_code("se")
    assert wiki_code("sewiki") == "sewiki"


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


@pytest.mark.parametrize(
    ("code", "behind", "trail"),
    [
        ("en", "s, and", "s"),
        ("de", "ße und", "ße"),
        ("fr", "ées.", "ées"),
        ("fr", "œuvre", ""),
        ("es", "ción.", "ción"),
        ("pt", "ções do", "ções"),
        ("it", "ità di", "ità"),
        ("ru", "ого языка", "ого"),
        ("ru", "Ого", ""),
        ("uk", "їв» та", "їв»"),
        ("pl", "ówki i", "ówki"),
        ("cs", "ové ", "ové"),
        ("sk", "ĺžok ", "ĺžok"),
        ("hu", "ről.", "ről"),
        ("ro", "ștean", "ștean"),
        ("lv", "Ņas ", "Ņas"),
        ("sr", "ovaћ ", "ovaћ"),
        ("el", "ών Ελλ", "ών"),
        ("tr", "İşi ", "İşi"),
        ("az", "ləri ", "ləri"),
        ("kk", "дың» ", "дың»"),
        ("hy", "ների ", "ների"),
        ("ka", "ების “", "ების"),
        ("he", "ים של", "ים"),
        ("ar", "ية في", "ية"),
        ("fa", "\u200cهای ", "\u200cهای"),
        ("ur", "وں کا", "وں"),
        ("hi", "ों की", "ों"),
        ("hi", "।", ""),
        ("mr", "ांचा ", "ांचा"),
        ("bn", "ের ", "ের"),
        ("bn", "s", ""),
        ("ta", "களின் ", "களின்"),
        ("te", "లో ", "లో"),
        ("ja", "sの", "s"),
        ("ko", "의", ""),
        ("th", "ทย", ""),
        ("zh", "abc", ""),
        ("no", "ørnå.", "ørnå"),
        ("simple", "s.", "s"),
        ("ab", "ҟәа ", "ҟәа"),
        ("ba", "ҙең» ", "ҙең»"),
        ("be-tarask", "ўскі ", "ўскі"),
        ("br", "c'hoù ha", "c'hoù"),
        ("br", "c' h", "c"),
        ("is", "–ið ", "–ið"),
        ("ml", "യുടെ ", "യുടെ"),
        ("kaa", "’lar ", "’lar"),
        ("zu", "sé", "s"),
        ("ca", "'aigua, ", "'aigua"),
        ("ca", "·lecció ", "·lecció"),
        ("ca", "s'' i", "s"),
        ("ca", "''", ""),
        ("ca", "l'''", "l"),
    ],
)
def test_a_link_takes_in_the_trail_of_its_language(code, behind, trail):
    """What stands right behind `]]`, as MediaWiki's language files have it: French lacks œ, zh takes nothing."""
    match = re.match(load_wiki(code).link_trail_expression, behind)
    assert (match.group() if match else "") == trail


@pytest.mark.parametrize(
    ("code", "taken", "left"),
    [("ar", "وx", " -"), ("uk", "„«", "ва"), ("ka", "სA\U00010348", "\x7f-"), ("hy", "«ա", "(."), ("ca", "", "l'а")],
)
def test_a_link_takes_in_what_its_language_puts_before_it(code, taken, left):
    """Few wikis have link prefixes; Georgian and Armenian take any letter and all that is not ASCII."""
    prefix = load_wiki(code).link_prefix
    pattern = re.compile(f"[{prefix}]" if prefix else "(?!)")
    assert [bool(pattern.match(character)) for character in taken + left] == [True] * len(taken) + [False] * len(left)


@pytest.mark.parametrize(
    ("code", "shown", "other"),
    [
        ("de", ["mini", "miniatur=$1", "gerahmt"], ["hochkant", "hochkant=$1", "$1px", "alternativtext=$1", "rechts"]),
        ("ja", ["サムネイル", "フレーム"], ["$1ピクセル", "なし", "代替文=$1"]),
        ("ru", ["мини", "миниатюра=$1", "обрамить"], ["$1пкс", "слева", "страница $1"]),
        ("zh", ["缩略图", "縮圖"], ["左", "替代文本=$1"]),
        ("hi", ["अंगूठाकार", "अंगूठा=$1"], ["$1पिक्सेल"]),
        ("ko", ["섬네일"], ["왼쪽"]),
        ("sr", ["мини", "умањено=$1"], ["десно"]),
        ("gl", ["miniatura", "miniaturadaimaxe"], ["dereita", "direita"]),
        ("sk", ["náhľad", "náhled"], ["vpravo", "$1pixelů"]),
        ("no", ["miniatyr", "mini=$1", "ramma"], ["venstre", "høgre"]),
        ("ab", ["мини", "обрамить"], ["слева", "$1пкс"]),
        ("als", ["mini", "gerahmt"], ["hochkant", "rechts"]),
        ("zh-classical", ["縮圖", "缩略图"], ["左", "链接=$1"]),
    ],
)
def test_a_wiki_has_the_words_of_its_image_syntax(code, shown, other):
    """Its own, those of the languages that MediaWiki falls back to, and the English ones, which come last."""
    options, english = load_wiki(code).image_options, load_wiki("en").image_options
    assert set(shown) <= set(options["shown"])
    assert set(other) <= set(options["other"])
    for kind, words in options.items():
        assert words[-len(english[kind]) :] == english[kind]


@pytest.mark.parametrize(
    ("code", "number", "names"),
    [
        ("hi", 6, ["चित्र", "File", "Image"]),
        ("sw", 14, ["Jamii", "Category"]),
        ("sr", 14, ["Категорија", "Kategorija"]),
        ("kk", 10, ["Үлгі", "Ülgi", "ۇلگى"]),
        ("fa", 4, ["ویکی\u200cپدیا", "ويكي پديا", "WP"]),
        ("pl", 2, ["Wikipedysta", "Wikipedystka", "Użytkowniczka"]),
        ("he", 10, ["תבנית", "תב"]),
        ("uk", 6, ["Файл", "Зображення", "Изображение"]),
        ("no", 6, ["Fil", "Bilde"]),
        ("simple", 4, ["Wikipedia", "WP"]),
        ("vi", 828, ["Mô đun", "Module"]),
        ("sk", 5, ["Project talk", "Komentár k Wikipédii"]),
        ("als", 6, ["Datei", "Bild", "Image"]),
        ("ab", 4, ["Project", "Wikipedia", "WP"]),
        ("zu", 6, ["File", "Image"]),
    ],
)
def test_a_namespace_is_found_by_each_of_its_names(code, number, names):
    """The local name first, then aliases, those of other scripts and genders too."""
    wiki = load_wiki(code)
    assert wiki.namespaces[number][0] == names[0]
    assert [wiki.namespace_numbers[fold_namespace(name)] for name in names] == [number] * len(names)


@pytest.mark.parametrize(
    ("code", "redirect", "switch"),
    [
        ("hi", "#पुनर्प्रेषित", "__अनुक्रम__"),
        ("ko", "#넘겨주기", "__동음이의__"),
        ("pl", "#PATRZ", "__SPIS__"),
        ("sv", "#OMDIRIGERING", "__INGENINNEHÅLLSFÖRTECKNING__"),
        ("gl", "#REDIRECCIÓN", "__SENÍNDICE__"),
        ("no", "#OMDIRIGERING", "__INGENINNHOLDSFORTEGNELSE__"),
        ("sw", "#REDIRECT", "__TOC__"),
        ("ab", "#перенаправление", "__ОГЛ__"),
        ("ab", "#перенаправление", "__АИНДЕКС__"),
        ("ml", "#തിരിച്ചുവിടുക", "__ഉള്ളടക്കം__"),
        ("zu", "#REDIRECT", "__TOC__"),
    ],
)
def test_a_wiki_has_its_redirect_words_and_switches(code, redirect, switch):
    """In its own language, and in English everywhere."""
    wiki = load_wiki(code)
    assert redirect in wiki.redirect_words
    assert switch in wiki.behaviour_switches


def test_wikis_of_several_scripts_have_their_variants():
    """The wiki's own code first, as MediaWiki falls back to it."""
    assert load_wiki("sr").variants == ("sr", "sr-ec", "sr-el")
    assert load_wiki("kk").variants[:3] == ("kk", "kk-cyrl", "kk-latn")
    assert load_wiki("zh").variants[0] == "zh"
    assert load_wiki("uz").variants == ("uz", "uz-latn", "uz-cyrl")
    assert load_wiki("de").variants == load_wiki("zu").variants == ()


def test_the_table_is_sorted_and_says_nothing_twice():
    """Wikis by name; words that English or the wiki of `like` gives are not repeated; `like` goes one step, never two."""
    facts = json.loads((resources.files("leia_beam") / "data" / "wikis.json").read_text(encoding="utf-8"))["facts"]
    assert list(facts) == sorted(facts)
    assert set(facts) <= wikipedia_codes()
    english, shared = facts["enwiki"], 0
    for code, own in facts.items():
        if code == "enwiki":
            continue
        other = facts[own["like"]] if "like" in own else {}
        assert "like" not in other, code
        for source in (english, other):
            repeated = set(own.get("behaviour_switches", ())) & set(source.get("behaviour_switches", ()))
            for kind, words in own.get("image_options", {}).items():
                repeated |= set(words) & set(source.get("image_options", {}).get(kind, ()))
            assert not repeated, code
            shared += bool(source)
        default = {"link_trail": "a-z", "link_prefix": "", "variants": [], "redirect_words": ["#REDIRECT"]}
        assert not [key for key, value in default.items() if own.get(key) == value], code
    assert shared > len(facts)


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
    """English names and words work everywhere; a Wikipedia of which the table has nothing but its prefix is like that."""
    wiki = Wiki(code="xxwiki", language="xx")
    assert (wiki.case, wiki.namespaces[6], wiki.link_trail) == (FIRST_LETTER, ("File", "Image"), "a-z")
    known, english = load_wiki("zu"), load_wiki("en")
    for name in ("case", "redirect_words", "link_trail", "link_trail_expression", "link_prefix", "variants"):
        assert getattr(wiki, name) == getattr(known, name), name
    assert list(wiki.behaviour_switches) == list(known.behaviour_switches) == list(english.behaviour_switches)
    for kind in ("shown", "other"):
        assert tuple(wiki.image_options[kind]) == known.image_options[kind] == english.image_options[kind]
    assert re.match(wiki.link_trail_expression, "sé").group() == "s"


@pytest.mark.parametrize("code", ["lv", "hi", "zu"])
def test_a_dump_s_names_win_over_the_table_s(code):
    """Where the header has another name than the table, the header's comes first and the table's still works."""
    table = load_wiki(code)
    wiki = with_siteinfo(table, {4: "Newer name", 6: "Another"}, FIRST_LETTER, frozenset())
    assert (wiki.namespaces[4][0], wiki.namespaces[6][0]) == ("Newer name", "Another")
    for name in ("Newer name", *table.namespaces[4]):
        assert wiki.namespace_numbers[fold_namespace(name)] == 4
    assert (wiki.link_trail, wiki.image_options) == (table.link_trail, table.image_options)


@pytest.mark.skipif(
    not SITEINFO.is_dir(),
    reason="no ../shared/data/siteinfo beside the checkout to compare with",
)
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


@pytest.mark.skipif(
    not SITEINFO.is_dir(),
    reason="no ../shared/data/siteinfo beside the checkout to compare with",
)
def test_words_and_trails_agree_with_the_wikis_own_site_information():
    """For the ten wikis at hand: image options, redirect words, switches, trail and prefix, character for character."""
    paths = sorted(SITEINFO.glob("*wiki.json"))
    for path in paths:
        query = json.loads(path.read_text(encoding="utf-8"))["query"]
        wiki = load_wiki(path.stem)
        words = {word["name"]: word["aliases"] for word in query["magicwords"]}
        images = {name: set(aliases) for name, aliases in words.items() if name.startswith("img_")}
        assert all(word["case-sensitive"] for word in query["magicwords"] if word["name"] in images)
        shown = images["img_thumbnail"] | images["img_manualthumb"] | images["img_framed"]
        assert set(wiki.image_options["shown"]) == shown, path.stem
        assert set(wiki.image_options["other"]) == set().union(*images.values()) - shown, path.stem
        assert list(wiki.redirect_words) == words["redirect"]
        assert set(wiki.behaviour_switches) == {word for name in query["doubleunderscores"] for word in words[name]}
        general = query["general"]
        trail = re.fullmatch(r"/\^\((?:\[(.+)\]\+)?\)\(\.\*\)\$/\w+", general["linktrail"])[1]
        assert _characters(wiki.link_trail) == _characters(trail or ""), path.stem
        assert _characters(wiki.link_prefix) == _characters(general["linkprefixcharset"]), path.stem
        assert list(wiki.variants) == [variant["code"] for variant in general.get("variants", ())]
    assert len(paths) == 10


def _characters(character_class: str) -> set[str]:
    """Those below U+10000 that belong to a class, in Python's writing or in PCRE's."""
    python = re.sub(r"\\x\{([0-9A-Fa-f]+)\}", lambda found: re.escape(chr(int(found[1], 16))), character_class)
    pattern = re.compile(f"[{python}]" if python else "(?!)")
    return {chr(code) for code in range(0x10000) if pattern.match(chr(code))}

"""entities: a line of the Wikidata dump gives what a plain reading of its JSON gives, or one reason why it does not."""

from __future__ import annotations

import bz2
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_beam import entities
from leia_beam.entities import FilteredLine, ItemParts, RejectedLine, entity_id, entity_json, parse_item
from leia_beam.records import Item
from leia_beam.wikis import wikipedia_codes

WIKIS, LANGUAGES = frozenset({"jawiki", "enwiki", "zh_min_nanwiki"}), frozenset({"en", "ja"})


def entity(**changes):
    content = {
        "type": "item",
        "id": "Q1490",
        "labels": {"en": {"language": "en", "value": "Tokyo"}, "de": {"language": "de", "value": "Tokio"}},
        "descriptions": {"en": {"language": "en", "value": "capital"}},
        "claims": {"P31": [{"mainsnak": {"datavalue": {"value": {"sitelinks": {"jawiki": 1}}}}}]},
        "sitelinks": {
            "jawiki": {"site": "jawiki", "title": "東京都", "badges": []},
            "enwiki": {"site": "enwiki", "title": "Tokyo", "badges": []},
            "commonswiki": {"site": "commonswiki", "title": "Tokyo", "badges": []},
            "jawikiquote": {"site": "jawikiquote", "title": "東京", "badges": []},
        },
    }
    content.update(changes)
    return {key: value for key, value in content.items() if value is not ...}


def parse(content, wikis=WIKIS, languages=LANGUAGES):
    raw = (
        content
        if isinstance(content, bytes)
        else json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")
    )
    return parse_item(raw, ItemParts(wikis=frozenset(wikis), label_languages=frozenset(languages)))


TOKYO = Item(qid="Q1490", sitelinks=[("enwiki", "Tokyo"), ("jawiki", "東京都")], labels=[("en", "Tokyo")])


def test_an_item_gives_its_wikipedias_and_the_labels_asked_for():
    """Other projects whose site ends in `wiki`, other languages and all else are left out; both lists are sorted."""
    assert parse(entity()) == TOKYO


def test_all_wikipedias_are_told_by_the_table():
    """commonswiki, specieswiki and the like are no Wikipedias."""
    sites = [
        "commonswiki",
        "specieswiki",
        "metawiki",
        "sourceswiki",
        "wikidatawiki",
        "be_x_oldwiki",
        "simplewiki",
        "enwiki",
    ]
    links = {site: {"site": site, "title": "T"} for site in sites}
    assert [site for site, _ in parse(entity(sitelinks=links), wikipedia_codes()).sitelinks] == [
        "be_x_oldwiki",
        "enwiki",
        "simplewiki",
    ]


@pytest.mark.parametrize("empty", [[], {}, None, ...], ids=["list", "object", "null", "absent"])
def test_an_empty_map_may_be_written_in_any_way(empty):
    """PHP writes `[]` for `{}`; absent and null mean the same."""
    assert parse(entity(sitelinks=empty)) == Item(qid="Q1490", sitelinks=[], labels=TOKYO.labels)
    assert parse(entity(labels=empty)) == Item(qid="Q1490", sitelinks=TOKYO.sitelinks, labels=[])
    with pytest.raises(FilteredLine, match=r"^no link or label$"):
        parse(entity(labels=empty, sitelinks=empty))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("property", "type property"),
        ("lexeme", "type lexeme"),
        ("mediainfo", "type mediainfo"),
        ("entity-schema", "other type"),
        (7, "other type"),
        (["item"], "other type"),
        (None, "other type"),
    ],
)
def test_what_is_no_item_is_filtered_by_its_type(kind, reason):
    """Properties, lexemes and files on Commons have lines of their own."""
    with pytest.raises(FilteredLine, match=f"^{reason}$"):
        parse(entity(type=kind, id="P31"))


def test_an_item_without_a_type_is_an_item():
    """Old dumps have none."""
    assert parse(entity(type=...)) == TOKYO


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "malformed JSON"),
        (b"{", "malformed JSON"),
        (b'{"id":"Q1"', "malformed JSON"),
        (b'{"id":"Q1"} x', "malformed JSON"),
        (b'{"id":"Q1","labels":{"en":{"value":"\xff"}}}', "malformed JSON"),
        (b"[" * 100_000, "malformed JSON"),
        (b'{"a":' * 100_000, "malformed JSON"),
        (b"[]", "not an object"),
        (b'"Q1"', "not an object"),
        (b"null", "not an object"),
        (entity(id=...), "no item id"),
        (entity(id=1490), "no item id"),
        (entity(id="P31"), "no item id"),
        (entity(id="Q"), "no item id"),
        (entity(id="Q01"), "no item id"),
        (entity(id="Q1\n"), "no item id"),
        (entity(id="Q１"), "no item id"),
        (entity(sitelinks=[{"site": "jawiki", "title": "東京"}]), "sitelinks is no object"),
        (entity(sitelinks="x"), "sitelinks is no object"),
        (entity(labels=3), "labels is no object"),
        (entity(sitelinks={"jawiki": None}), "title is no text"),
        (entity(sitelinks={"jawiki": "東京"}), "title is no text"),
        (entity(sitelinks={"jawiki": {"title": None}}), "title is no text"),
        (entity(sitelinks={"jawiki": {"title": ""}}), "title is no text"),
        (entity(sitelinks={"jawiki": {"title": 5}}), "title is no text"),
        (entity(labels={"en": {}}), "value is no text"),
        (entity(sitelinks={"jawiki": {"title": "a\u0000b"}}), "control character in title"),
        (entity(sitelinks={"jawiki": {"title": "a\nb"}}), "control character in title"),
        (entity(labels={"en": {"value": "a\u001b[31mb"}}), "control character in value"),
        (
            json.dumps(entity(labels={"en": {"value": "a\x01b"}})).replace("\\u0001", "\x01").encode(),
            "(control character in value|malformed JSON)",
        ),
        (json.dumps(entity(sitelinks={"jawiki": {"title": "\ud800x"}})).encode(), "lone surrogate in title"),
        (json.dumps(entity(labels={"en": {"value": "x\udfff"}})).encode(), "lone surrogate in value"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_line_that_cannot_be_used_has_one_reason(content, reason):
    """Each damage ends as a counted reject, no crash, and nothing of it reaches a file."""
    with pytest.raises(RejectedLine, match=f"^{reason}$"):
        parse(content)


@pytest.mark.parametrize(
    "extra",
    [
        '"claims":' + "9" * 5_000,
        '"claims":NaN',
        '"claims":[Infinity,-Infinity]',
        '"claims":1e999',
        '"claims":"\\ud800"',
    ],
)
def test_numbers_and_texts_that_are_not_read_do_no_harm(extra):
    """What stands in unread fields is passed over or rejects this one line."""
    content = json.dumps(entity())[:-1] + "," + extra + "}"
    try:
        assert parse(content.encode()) == TOKYO
    except RejectedLine as reason:
        assert str(reason) == "malformed JSON"


def test_damage_in_what_is_not_kept_does_not_reject_the_item():
    """A bad label of an unwanted language or a bad title on another project costs nothing."""
    content = entity()
    content["labels"]["de"] = None
    content["sitelinks"]["commonswiki"] = {"title": "a\nb"}
    assert parse(content) == TOKYO


def test_of_duplicate_keys_the_last_counts():
    """As in every JSON reader, and the same on every run."""
    content = b'{"id":"Q1","id":"Q2","labels":{"en":{"value":"A"},"en":{"value":"B"}}}'
    assert parse(content) == Item(qid="Q2", sitelinks=[], labels=[("en", "B")])


def test_escaped_surrogate_pairs_and_letters_beyond_the_bmp_are_one_text():
    """`\\ud83d\\uddfc` is the tower itself."""
    content = json.dumps(entity(labels={"en": {"value": "🗼 東京"}}), ensure_ascii=True).encode()
    assert parse(content).labels == [("en", "🗼 東京")]


@pytest.mark.parametrize(
    ("line", "expected", "ends"),
    [
        (b"[", b"", False),
        (b"[\r", b"", False),
        (b"\xef\xbb\xbf[", b"", False),
        (b"]", b"", True),
        (b"]\r", b"", True),
        (b"[]", b"", True),
        (b"", b"", False),
        (b"  \t", b"", False),
        (b",", b"", False),
        (b'{"id":"Q1"},', b'{"id":"Q1"}', False),
        (b',{"id":"Q1"}', b'{"id":"Q1"}', False),
        (b'{"id":"Q1"}', b'{"id":"Q1"}', False),
        (b' {"id":"Q1"} , \r', b'{"id":"Q1"}', False),
        (b'\xef\xbb\xbf[{"id":"Q1"},', b'{"id":"Q1"}', False),
        (b'[{"id":"Q1"}]', b'{"id":"Q1"}', True),
        (b'{"id":"Q1"}]', b'{"id":"Q1"}', True),
        (b'{"id":"Q1"},]', b'{"id":"Q1"}', True),
        (b'{"a":[{"b":[]}]},', b'{"a":[{"b":[]}]}', False),
    ],
)
def test_the_array_around_the_lines_is_taken_off(line, expected, ends):
    """BOM, brackets, commas, CRLF and white space, in every place where dumps have them; the closing bracket is told."""
    assert entity_json(line) == (expected, ends)


def test_an_id_is_found_for_messages_in_what_cannot_be_parsed():
    """Of a line that is cut or damaged, where its beginning is whole."""
    assert entity_id(b'{"type":"item","id":"Q42","labels":{"en":{"lang') == "Q42"
    assert entity_id(b'{"type":"item"') is None


TEXT = st.text(st.one_of(st.characters(), st.sampled_from("aé東\u0000\n\ud800\u202e")), max_size=6)
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), TEXT, st.just([]), st.just({}))
MEMBER = st.one_of(
    ANYTHING, st.fixed_dictionaries({}, optional={"title": ANYTHING, "value": ANYTHING, "badges": ANYTHING})
)
GOOD = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)
SITES = st.sampled_from(["jawiki", "enwiki", "commonswiki", "jawikiquote", "zh_min_nanwiki", "", "en"])
LINKS = st.one_of(
    ANYTHING,
    st.dictionaries(SITES, MEMBER, max_size=3),
    st.dictionaries(SITES, st.builds(lambda title: {"title": title, "badges": []}, GOOD), max_size=6),
)
LABELS = st.one_of(
    ANYTHING,
    st.dictionaries(st.sampled_from(["en", "ja", "de", ""]), MEMBER, max_size=3),
    st.dictionaries(st.sampled_from(["en", "ja", "de"]), st.builds(lambda value: {"value": value}, GOOD), max_size=4),
)
ENTITY = st.fixed_dictionaries(
    {},
    optional={
        "id": st.one_of(
            st.integers(1, 10**9).map(lambda number: f"Q{number}"),
            ANYTHING,
            st.sampled_from(["P31", "Q0", "q1", "Q1x"]),
        ),
        "type": st.one_of(st.just("item"), st.sampled_from(["property", "lexeme"]), ANYTHING),
        "sitelinks": LINKS,
        "labels": LABELS,
        "claims": ANYTHING,
    },
)
GOOD_ENTITY = st.fixed_dictionaries(
    {
        "id": st.integers(1, 10**9).map(lambda number: f"Q{number}"),
        "sitelinks": st.dictionaries(SITES, st.builds(lambda title: {"title": title, "badges": []}, GOOD), max_size=6),
        "labels": st.dictionaries(
            st.sampled_from(["en", "ja", "de"]), st.builds(lambda value: {"value": value}, GOOD), max_size=4
        ),
    }
)


def plain_reading(content: bytes) -> tuple:
    """What `parse_item` should give, read as simply as can be: ('item', …), ('filtered',) or ('rejected',)."""
    loaded = json.loads(content)
    if loaded.get("type", "item") != "item":
        return ("filtered",)
    if not isinstance(loaded.get("id"), str) or not re.fullmatch("Q[1-9][0-9]*", loaded["id"]):
        return ("rejected",)
    kept = []
    for field, key, wanted in (("sitelinks", "title", WIKIS), ("labels", "value", LANGUAGES)):
        members = loaded.get(field) or ({} if loaded.get(field) in (None, [], {}) else "damaged")
        if not isinstance(members, dict):
            return ("rejected",)
        pairs = []
        for name, member in sorted(members.items()):
            if name in wanted:
                text = member.get(key) if isinstance(member, dict) else None
                if (
                    not isinstance(text, str)
                    or not text
                    or any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in text)
                ):
                    return ("rejected",)
                pairs.append((name, text))
        kept.append(pairs)
    return ("item", loaded["id"], *kept) if any(kept) else ("filtered",)


def test_every_item_is_what_a_plain_reading_gives():
    """On random entities, whole and damaged, the reader and a few lines of json agree."""
    outcomes = {"item": 0, "filtered": 0, "rejected": 0}

    @settings(deadline=None, max_examples=150, derandomize=True)
    @given(st.lists(st.one_of(ENTITY, GOOD_ENTITY), min_size=8, max_size=8), st.booleans())
    def check(entities, ascii_only):
        for content in entities:
            raw = json.dumps(content, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
            try:
                raw.decode()
            except UnicodeDecodeError:
                raw = json.dumps(content).encode()
            expected = plain_reading(raw)
            try:
                item = parse(raw)
                found = ("item", item.qid, list(item.sitelinks), list(item.labels))
            except FilteredLine:
                found = ("filtered",)
            except RejectedLine:
                found = ("rejected",)
            assert found == expected
            outcomes[expected[0]] += 1

    check()
    assert min(outcomes.values()) > 50, outcomes


def test_damage_of_any_byte_is_an_item_or_a_reason():
    """Random bytes in a line never raise anything but the two reasons, and what is kept is clean text."""
    rng = random.Random(3)
    whole = json.dumps(entity(), ensure_ascii=False).encode()
    outcomes = {"kept": 0, "not": 0}
    for _ in range(4_000):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            item = parse(entity_json(bytes(damaged))[0])
        except (FilteredLine, RejectedLine):
            outcomes["not"] += 1
            continue
        outcomes["kept"] += 1
        for _, text in (*item.sitelinks, *item.labels):
            assert text.encode() and not re.search("[\x00-\x1f\x7f]", text)
    assert min(outcomes.values()) > 300, outcomes


def test_a_depth_bomb_is_refused():
    """100,000 brackets cost no recursion."""
    with pytest.raises(RejectedLine, match="malformed JSON"):
        parse(b'{"id":"Q1","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


# ---- the fast reading against the full one


def fully_read(content: bytes):
    """What `parse_item` gives when ujson parses the whole line: the outcome as comparable values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entities, "_members_by_simdjson", lambda *_: None)
        return outcome_of(content)


def outcome_of(content: bytes):
    try:
        item = parse(content)
    except (FilteredLine, RejectedLine) as reason:
        return type(reason).__name__, str(reason)
    return item.qid, list(item.sitelinks), list(item.labels)


def written(value, draw) -> str:
    """A value as JSON that no serializer would write: white space, escapes of plain letters, keys twice, any order."""
    blank = draw(st.sampled_from(["", "", "", " ", "\t ", "\r"]))
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        members = (f"{written(key, draw)}{blank}:{blank}{written(member, draw)}" for key, member in value)
        return "{" + blank + f"{blank},".join(members) + blank + "}"
    if isinstance(value, str):
        escaped = json.dumps(value, ensure_ascii=draw(st.booleans()))
        if value and value.isascii() and value.isalnum() and draw(st.integers(0, 5)) == 0:
            escaped = f'"\\u{ord(value[0]):04x}{value[1:]}"'
        return escaped
    return value.raw if isinstance(value, Raw) else json.dumps(value)


class Raw:
    """JSON, or nearly JSON, as it stands."""

    def __init__(self, raw):
        self.raw = raw

    def __repr__(self):
        return self.raw


def usually(common, rare):
    """One time in thirteen the rare strategy."""
    return st.integers(0, 12).flatmap(lambda number: rare if number == 7 else common)


DAMAGED = [
    "1e999",
    "9" * 4_400,
    "01",
    "1.",
    "-",
    "tru",
    '"\\ud800"',
    '"\x01"',
    '"\\x"',
    "[1,]",
    "NaN",
    "-Infinity",
    "9" * 30,
]
VALID = [
    "null",
    "true",
    "[]",
    "{}",
    '{"sitelinks":{"jawiki":{"title":"nested"}}}',
    '[{"labels":{}}]',
    '"\\"sitelinks\\":{}"',
    "1.5",
]
ODD = usually(st.sampled_from(VALID), st.sampled_from(DAMAGED)).map(Raw)
TITLE = st.one_of(GOOD, st.sampled_from(['","sitelinks":{"', "\\", '"', "}}", "東京"]))
GOOD_LINK = st.builds(
    lambda title, last: [("site", "x"), ("title", title), *last], TITLE, st.sampled_from([[], [("badges", [])]])
)
ODD_LINK = st.lists(
    st.tuples(st.sampled_from(["title", "title", "badges"]), st.one_of(TITLE, ODD)), min_size=1, max_size=3
)
LABEL = st.builds(lambda value: [("language", "en"), ("value", value)], TITLE)
SITE_MEMBERS = st.lists(st.tuples(SITES, usually(GOOD_LINK, ODD_LINK)), min_size=1, max_size=4)
LABEL_MEMBERS = st.lists(st.tuples(st.sampled_from(["en", "ja", "de"]), LABEL), min_size=1, max_size=4)
ROOT_MEMBERS = {
    "sitelinks": usually(SITE_MEMBERS, ODD),
    "labels": usually(LABEL_MEMBERS, ODD),
    "type": st.sampled_from(["item", "item", "item", "property"]),
    "claims": st.one_of(ODD, SITE_MEMBERS),
    "aliases": ODD,
    "": SITE_MEMBERS,
}


@st.composite
def hostile_lines(draw):
    """An entity with an id somewhere among some members; sometimes one of them stands twice."""
    names = draw(st.lists(st.sampled_from(sorted(ROOT_MEMBERS)), min_size=2, max_size=5, unique=True))
    if names and draw(st.integers(0, 4)) == 0:
        names.append(draw(st.sampled_from(names)))
    members = [(name, draw(ROOT_MEMBERS[name])) for name in names]
    members.insert(draw(st.integers(0, len(members))), ("id", f"Q{draw(st.integers(1, 10**9))}"))
    return written(members, draw)


def test_every_line_is_read_as_a_full_parse_by_ujson_reads_it():
    """Also lines with keys twice, in keys' escapes, in nested objects and in strings; damage at a byte; cuts."""
    seen = {"item": 0, "other": 0, "by simdjson": 0, "by ujson": 0}

    @settings(max_examples=1_500)
    @given(hostile_lines(), usually(st.none(), st.tuples(st.integers(0, 400), st.integers(0, 255))), st.booleans())
    def check(line, damage, is_cut):
        content = bytearray(line.encode("utf-8", "surrogatepass"))
        if damage is not None:
            at = damage[0] % len(content)
            content[at:] = b"" if is_cut else bytes([damage[1]]) + content[at + 1 :]
        raw = bytes(content)
        found = outcome_of(raw)
        assert found == fully_read(raw), raw
        seen["item" if found[0].startswith("Q") else "other"] += 1
        try:
            members = entities._members_by_simdjson(raw, LANGUAGES)
        except (ValueError, RuntimeError, AttributeError, TypeError):
            members = None
        seen["by ujson" if members is None else "by simdjson"] += 1

    check()
    assert min(seen.values()) > 150, seen


def test_lines_of_the_real_excerpt_are_read_as_a_full_parse_reads_them(shared_data):
    """400 items and 1,304 properties of 2014, none by the slow way."""
    lines = bz2.decompress((shared_data / "wikidata-2014-excerpt.json.bz2").read_bytes()).split(b"\n")
    contents = [content for content, _ in map(entity_json, lines) if content]
    assert len(contents) == 1_704
    assert [outcome_of(content) for content in contents] == [fully_read(content) for content in contents]
    assert all(entities._members_by_simdjson(content, LANGUAGES) is not None for content in contents)


# ---- claims and aliases


def statement(value, rank="normal", kind="item"):
    snak = {
        "snaktype": "value",
        "datavalue": {"value": {"entity-type": kind, "id": value}, "type": "wikibase-entityid"},
    }
    return {"mainsnak": snak, "rank": rank}


UNKNOWN = {"mainsnak": {"snaktype": "somevalue"}, "rank": "preferred"}
OLD = {"mainsnak": {"datavalue": {"value": {"entity-type": "item", "numeric-id": 17}}}, "rank": "normal"}
TEXT = {"mainsnak": {"datavalue": {"value": "Q5", "type": "string"}}, "rank": "normal"}
ALL_PARTS = ItemParts(
    wikis=WIKIS, label_languages=LANGUAGES, alias_languages=LANGUAGES, properties=frozenset({"P31", "P17"})
)


def facts_of(**parts):
    """(claims, aliases) of an item, found by simdjson and again, as it must be the same, by ujson."""
    content = json.dumps(entity(**parts)).encode()
    found = parse_item(content, ALL_PARTS)
    assert parse_item(content.replace(b"{", b'{"n": NaN, ', 1), ALL_PARTS) == found, "simdjson refuses NaN"
    return list(found.claims), list(found.aliases)


@pytest.mark.parametrize(
    ("statements", "values"),
    [
        ([statement("Q5")], ["Q5"]),
        ([statement("Q6"), statement("Q5")], ["Q5", "Q6"]),
        ([statement("Q5"), statement("Q5")], ["Q5"]),
        ([statement("Q5"), statement("Q6", "preferred")], ["Q6"]),
        ([statement("Q5"), statement("Q6", "deprecated")], ["Q5"]),
        ([statement("Q6", "deprecated")], []),
        ([statement("Q5"), UNKNOWN], []),
        ([OLD], ["Q17"]),
        ([statement("P5", kind="property")], []),
        ([statement("L5", kind="lexeme")], []),
        ([TEXT], []),
        ([{"rank": "normal"}], []),
        ([], []),
    ],
)
def test_the_items_of_best_rank_are_the_values(statements, values):
    """Preferred ones where there are any, deprecated ones never; only items are values."""
    assert facts_of(claims={"P31": statements})[0] == [("P31", value) for value in values]


def test_only_the_properties_asked_for_are_kept():
    """Sorted by property."""
    claims = {"P31": [statement("Q5")], "P21": [statement("Q6")], "P17": [statement("Q7")]}
    assert facts_of(claims=claims)[0] == [("P17", "Q7"), ("P31", "Q5")]
    assert parse(entity(claims=claims)).claims == ()


def test_aliases_are_kept_in_the_languages_asked_for():
    """Sorted; an empty object may be written as a list."""
    aliases = {"ja": [{"value": "東京府"}], "en": [{"value": "Tokyo-to"}, {"value": "Edo"}], "fr": [{"value": "X"}]}
    assert facts_of(aliases=aliases)[1] == [("en", "Edo"), ("en", "Tokyo-to"), ("ja", "東京府")]
    assert facts_of(aliases=[], claims=[]) == ([], [])
    assert facts_of(aliases=..., claims=...) == ([], [])


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"claims": "x"}, "claims is no object"),
        ({"claims": {"P31": {}}}, "claims is no list of objects"),
        ({"claims": {"P31": [5]}}, "claims is no list of objects"),
        ({"aliases": {"en": {}}}, "aliases is no list"),
        ({"aliases": {"en": [{}]}}, "value is no text"),
    ],
)
def test_damaged_claims_and_aliases_are_rejected(parts, reason):
    """The line is counted and written down; nothing of it is guessed."""
    with pytest.raises(RejectedLine, match=f"^{reason}$"):
        parse_item(json.dumps(entity(**parts)).encode(), ALL_PARTS)

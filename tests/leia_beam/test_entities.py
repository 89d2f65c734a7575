"""entities: a line of the Wikidata dump gives what a plain reading of its JSON gives, or one reason why it does not."""

from __future__ import annotations

import json
import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_beam.entities import FilteredLine, RejectedLine, entity_json, parse_item
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
    return parse_item(raw, languages, wikis)


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
    ("line", "expected"),
    [
        (b"[", b""),
        (b"[\r", b""),
        (b"\xef\xbb\xbf[", b""),
        (b"]", b""),
        (b"]\r", b""),
        (b"", b""),
        (b"  \t", b""),
        (b'{"id":"Q1"},', b'{"id":"Q1"}'),
        (b'{"id":"Q1"}', b'{"id":"Q1"}'),
        (b' {"id":"Q1"} , \r', b'{"id":"Q1"}'),
        (b'\xef\xbb\xbf[{"id":"Q1"},', b'{"id":"Q1"}'),
        (b'[{"id":"Q1"}]', b'{"id":"Q1"}'),
        (b'{"id":"Q1"}]', b'{"id":"Q1"}'),
        (b'{"a":[{"b":[]}]},', b'{"a":[{"b":[]}]}'),
    ],
)
def test_the_array_around_the_lines_is_taken_off(line, expected):
    """BOM, brackets, commas, CRLF and white space, in every place where dumps have them."""
    assert entity_json(line) == expected


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
            item = parse(entity_json(bytes(damaged)))
        except (FilteredLine, RejectedLine):
            outcomes["not"] += 1
            continue
        outcomes["kept"] += 1
        for _, text in (*item.sitelinks, *item.labels):
            assert text.encode() and not re.search("[\x00-\x1f\x7f]", text)
    assert min(outcomes.values()) > 300, outcomes


def test_a_depth_bomb_is_refused_at_once():
    """100,000 brackets cost no recursion and no time."""
    start = time.perf_counter()
    with pytest.raises(RejectedLine):
        parse(b'{"id":"Q1","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert time.perf_counter() - start < 1

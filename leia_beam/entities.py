"""From one line of the Wikidata dump to the links of its item.

The dump is a JSON array with one entity a line. Kept are the sitelinks of all Wikipedias (so that another wiki never
costs another pass), the labels of the languages asked for, and, where they are asked for, aliases and the items that are
values of some properties. Sites are told by the table of Wikipedias, never by the
ending `wiki`, which commonswiki, specieswiki and others share.

A line is read by simdjson, which checks all of it and makes objects of what is asked for alone: some 900 MB/s where
ujson's parse makes 200 (benchmarks/bench_decoders.py). What it refuses is given to ujson, whose answer counts: not-a-number,
integers of any size, control characters, lone surrogates. So the result is always that of a full parse by ujson, and a
damaged line is found wherever its damage stands.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import simdjson
import ujson

from leia_beam.records import Item

LINE_END = b"\n"
_QID = re.compile(r"Q[1-9][0-9]{0,17}")
_RAW_ID = re.compile(rb'"id"\s*:\s*"([A-Z][0-9]{1,18})"')
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_RANKS = ("preferred", "normal")
_PARSER = simdjson.Parser()


class RejectedLine(ValueError):
    """One line that cannot be read. The message is the reason under which it is counted."""


class FilteredLine(ValueError):
    """One line that is no item, or one without any link or label. The message is the reason."""


def entity_json(line: bytes) -> tuple[bytes, bool]:
    """(the JSON of an entity's line, whether the array ends there): without white space, commas and the array's brackets.

    >>> entity_json(b'{"id":"Q1"},\\r'), entity_json(b"["), entity_json(b"]"), entity_json(b'{"id":"Q2"}]')
    ((b'{"id":"Q1"}', False), (b'', False), (b'', True), (b'{"id":"Q2"}', True))
    """
    stripped = line.removeprefix(_BYTE_ORDER_MARK).strip()
    if stripped.startswith(b"{"):
        if stripped.endswith(b","):
            return stripped[:-1].rstrip(), False
        if not stripped.endswith(b"]"):
            return stripped, False
    stripped = stripped.removeprefix(b",").lstrip()
    if stripped.startswith(b"["):
        stripped = stripped[1:].lstrip()
    ends_array = stripped.endswith(b"]")
    if ends_array:
        stripped = stripped[:-1].rstrip()
    return stripped.removesuffix(b",").rstrip(), ends_array


def entity_id(line: bytes) -> str | None:
    """The first id that stands in a line, for messages about lines that are not parsed."""
    match = _RAW_ID.search(line, 0, 1000)
    return match.group(1).decode() if match else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemParts:
    """What is kept of an item: sitelinks of `wikis`, labels and aliases of languages, item values of properties."""

    wikis: frozenset[str]
    label_languages: frozenset[str]
    alias_languages: frozenset[str] = frozenset()
    properties: frozenset[str] = frozenset()

    @property
    def chosen_members(self) -> dict[str, frozenset[str]]:
        """The parts of an entity of which only some members are looked at."""
        members = {"labels": self.label_languages, "aliases": self.alias_languages, "claims": self.properties}
        return {part: names for part, names in members.items() if names or part == "labels"}


def parse_item(content: bytes, parts: ItemParts) -> Item:
    """The item in an entity's JSON.

    Raises: FilteredLine for a property, a lexeme, or an item that has no link or label; RejectedLine for damage.
    """
    entity = _needed_members(content, parts)
    kind = entity.get("type", "item")
    if kind != "item":
        raise FilteredLine(f"type {kind}" if kind in ("property", "lexeme", "mediainfo") else "other type")
    qid = entity.get("id")
    if not isinstance(qid, str) or not _QID.fullmatch(qid):
        raise RejectedLine("no item id")
    sitelinks = _sitelinks(entity, parts.wikis)
    labels = _labels(entity, parts.label_languages)
    if not sitelinks and not labels:
        raise FilteredLine("no link or label")
    claims = _claims(entity, parts.properties) if parts.properties else ()
    aliases = _aliases(entity, parts.alias_languages) if parts.alias_languages else ()
    return Item(qid=qid, sitelinks=sitelinks, labels=labels, claims=claims, aliases=aliases)


def _needed_members(content: bytes, parts: ItemParts) -> Mapping[str, Any]:
    """The members of an entity that are looked at; where a key stands twice the last one counts."""
    if content.startswith(b"{"):
        try:
            members = _members_by_simdjson(content, parts.chosen_members)
        except (ValueError, RuntimeError):
            members = None
        if members is not None:
            return members
    try:
        entity = ujson.loads(content)
    except (ValueError, RecursionError) as error:
        raise RejectedLine("malformed JSON") from error
    if not isinstance(entity, dict):
        raise RejectedLine("not an object")
    return entity


def _members_by_simdjson(content: bytes, chosen: Mapping[str, Collection[str]]) -> dict[str, Any] | None:
    """None where a key that is looked at stands twice: simdjson would find the first one."""
    root: Any = _PARSER.parse(content)
    keys = list(root)
    found: dict[str, Any] = {}
    for key in ("type", "id", "sitelinks", *chosen):
        count = keys.count(key)
        if count > 1:
            return None
        if not count:
            continue
        value = root[key]
        if key in chosen and isinstance(value, simdjson.Object):
            value = _some_members(value, chosen[key])
            if value is None:
                return None
        found[key] = _plain(value)
    return found


def _some_members(value: Any, names: Collection[str]) -> dict[str, Any] | None:
    """The members of an object that have one of a few names; None where a name stands twice."""
    keys = list(value)
    counts = {name: keys.count(name) for name in names}
    if any(count > 1 for count in counts.values()):
        return None
    return {name: _plain(value[name]) for name, count in counts.items() if count}


def _plain(value: Any) -> Any:
    """What simdjson found, as objects that outlive the parser's next line; the last of equal keys counts in it."""
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def _sitelinks(entity: Mapping[str, Any], wikis: Collection[str]) -> list[tuple[str, str]]:
    links = []
    for site, link in _members(entity, "sitelinks"):
        if site in wikis:
            links.append((site, _text(link, "title")))
    return sorted(links)


def _labels(entity: Mapping[str, Any], languages: Collection[str]) -> list[tuple[str, str]]:
    return sorted(
        (language, _text(label, "value")) for language, label in _members(entity, "labels") if language in languages
    )


def _aliases(entity: Mapping[str, Any], languages: Collection[str]) -> list[tuple[str, str]]:
    found = []
    for language, aliases in _members(entity, "aliases"):
        if language not in languages:
            continue
        if not isinstance(aliases, list):
            raise RejectedLine("aliases is no list")
        found += [(language, _text(alias, "value")) for alias in aliases]
    return sorted(found)


def _claims(entity: Mapping[str, Any], properties: Collection[str]) -> list[tuple[str, str]]:
    """The items that are values of best rank: preferred ones where there are any, never deprecated ones."""
    found: set[tuple[str, str]] = set()
    for name, statements in _members(entity, "claims"):
        if name not in properties:
            continue
        if not isinstance(statements, list) or not all(isinstance(each, dict) for each in statements):
            raise RejectedLine("claims is no list of objects")
        by_rank = {rank: [each for each in statements if each.get("rank", "normal") == rank] for rank in _RANKS}
        values = [_item_value(statement) for statement in by_rank["preferred"] or by_rank["normal"]]
        found |= {(name, value) for value in values if value is not None}
    return sorted(found)


def _item_value(statement: Mapping[str, Any]) -> str | None:
    """The item that is a statement's value; None for unknown values and those that are no items."""
    snak = statement.get("mainsnak")
    data = snak.get("datavalue") if isinstance(snak, dict) else None
    value = data.get("value") if isinstance(data, dict) else None
    if not isinstance(value, dict) or value.get("entity-type", "item") != "item":
        return None
    qid = value.get("id")
    if qid is None and isinstance(value.get("numeric-id"), int):  # dumps until 2017
        qid = f"Q{value['numeric-id']}"
    return qid if isinstance(qid, str) and _QID.fullmatch(qid) else None


def _members(entity: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    """The members of an object that PHP writes as `[]` when it is empty."""
    value = entity.get(key)
    if value is None or value == []:
        return []
    if not isinstance(value, dict):
        raise RejectedLine(f"{key} is no object")
    return list(value.items())


def _text(member: Any, key: str) -> str:
    text = member.get(key) if isinstance(member, dict) else None
    if not isinstance(text, str) or not text:
        raise RejectedLine(f"{key} is no text")
    if _CONTROL.search(text):
        raise RejectedLine(f"control character in {key}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RejectedLine(f"lone surrogate in {key}") from error
    return text

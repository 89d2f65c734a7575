"""From one line of the Wikidata dump to the links of its item.

The dump is a JSON array with one entity a line. Kept are the sitelinks of all Wikipedias (so that another wiki never
costs another pass) and the labels of the languages asked for. Sites are told by the table of Wikipedias, never by the
ending `wiki`, which commonswiki, specieswiki and others share.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import ujson

from leia_beam.records import Item

LINE_END = b"\n"
_QID = re.compile(r"Q[1-9][0-9]{0,17}")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class RejectedLine(ValueError):
    """One line that cannot be read. The message is the reason under which it is counted."""


class FilteredLine(ValueError):
    """One line that is no item, or one without any link or label. The message is the reason."""


def entity_json(line: bytes) -> bytes:
    """The JSON of an entity's line: without white space, the comma after it, and the array's brackets ('' for those).

    >>> entity_json(b'{"id":"Q1"},\\r'), entity_json(b"["), entity_json(b"]")
    (b'{"id":"Q1"}', b'', b'')
    """
    stripped = line.removeprefix(_BYTE_ORDER_MARK).strip()
    if stripped in (b"[", b"]"):
        return b""
    if stripped.startswith(b"[{"):
        stripped = stripped[1:]
    if stripped.endswith(b"}]"):
        stripped = stripped[:-1]
    return stripped.removesuffix(b",").rstrip()


def parse_item(content: bytes, label_languages: Collection[str], wikis: Collection[str]) -> Item:
    """The item in an entity's JSON.

    Raises: FilteredLine for a property, a lexeme, or an item that has nothing to keep; RejectedLine for damage.
    """
    try:
        entity = ujson.loads(content)
    except (ValueError, RecursionError) as error:
        raise RejectedLine("malformed JSON") from error
    if not isinstance(entity, dict):
        raise RejectedLine("not an object")
    kind = entity.get("type", "item")
    if kind != "item":
        raise FilteredLine(f"type {kind}" if kind in ("property", "lexeme", "mediainfo") else "other type")
    qid = entity.get("id")
    if not isinstance(qid, str) or not _QID.fullmatch(qid):
        raise RejectedLine("no item id")
    sitelinks = _sitelinks(entity, wikis)
    labels = _labels(entity, label_languages)
    if not sitelinks and not labels:
        raise FilteredLine("no link or label")
    return Item(qid=qid, sitelinks=sitelinks, labels=labels)


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

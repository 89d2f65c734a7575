"""From the bytes of one `<page>…</page>` of a dump to a `Page`.

Pages are cut by bytes before anything is parsed, so the damage of one page stays with that page; each page is then
parsed on its own by lxml with entities, network and DTDs off. Pages of other namespaces are told by their `<ns>` and
never parsed (about half of a dump's pages).
"""

from __future__ import annotations

import html
import re

from lxml import etree

from leia_beam.records import Page

PAGE_END = b"</page>"
END_TAG = b"</mediawiki>"

_PAGE_START = re.compile(rb"<page[\s>]")
_NAMESPACE = re.compile(rb"<ns>\s*(-?\d{1,9})\s*</ns>")
_ID = re.compile(rb"<id>\s*(\d{1,18})\s*</id>")
_TITLE = re.compile(rb"<title[^<>]*>([^<]*)</title>")
_HEADER_BYTES = 4096
"""Where a page's title, namespace and id stand: titles have at most 255 bytes."""
_NUMBER = re.compile(r"\s*(-?[0-9]{1,18})\s*")
_DOCTYPE = b"<!DOCTYPE"


class RejectedPage(ValueError):
    """One page that cannot be read. The message is the reason under which it is counted."""


def hardened_parser() -> etree.XMLParser:
    """A parser that opens no file and no socket, expands nothing and guesses nothing."""
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=True, recover=False
    )


def page_start(record: bytes) -> int:
    """Where `<page>` begins in a record that ends just before `</page>`; -1 if there is none."""
    match = _PAGE_START.search(record)
    return match.start() if match else -1


def last_page_start(page: bytes) -> int:
    """Where the last `<page>` begins in bytes that begin with one: behind 0 where a page before it does not end."""
    at = page.rfind(b"<page")
    while at > 0 and not _PAGE_START.match(page, at):
        at = page.rfind(b"<page", 0, at)
    return at


def identifier_of(page: bytes) -> str | None:
    """The page's id from its header as a message names it, without parsing; None if it has none there.

    >>> identifier_of(b"<page><title>A</title><ns>0</ns><id>7</id><revision>")
    'page id 7'
    """
    match = _ID.search(page, 0, _HEADER_BYTES)
    return f"page id {int(match.group(1))}" if match else None


def title_of(page: bytes) -> str | None:
    """The page's title from its header, without parsing all of it; None if it has none there."""
    match = _TITLE.search(page, 0, _HEADER_BYTES)
    return html.unescape(match.group(1).decode("utf-8", "replace")) if match else None


def namespace_of(page: bytes) -> int | None:
    """The page's namespace from its header, without parsing; None if it has no `<ns>`."""
    match = _NAMESPACE.search(page, 0, _HEADER_BYTES)
    return int(match.group(1)) if match else None


def parse_page(page: bytes, namespace: int | None = None) -> Page:
    """The page of `page`, which begins with `<page>` and ends with `</page>`. `namespace` stands in for a missing `<ns>`.

    Raises: RejectedPage with a reason.
    """
    if _DOCTYPE in page:
        raise RejectedPage("DOCTYPE in a page")
    try:
        root = etree.fromstring(page, hardened_parser())
    except etree.XMLSyntaxError as error:
        raise RejectedPage("not well-formed XML") from error
    title, page_id, stated_namespace = root.findtext("title"), root.findtext("id"), root.findtext("ns")
    if not title or not title.strip():
        raise RejectedPage("no title")
    number = _int64(page_id)
    namespace_number = namespace if stated_namespace is None else _int64(stated_namespace)
    if number is None or number < 0:
        raise RejectedPage("no id")
    if namespace_number is None:
        raise RejectedPage("no namespace")
    revision = _newest_revision(root)
    text = revision.find("text")
    if text is None:
        raise RejectedPage("no text")
    if len(text) or len(root.find("title")):
        raise RejectedPage("mark-up inside text")
    redirect = root.find("redirect")
    return Page(
        page_id=number,
        namespace=namespace_number,
        title=title,
        revision_id=_int64(revision.findtext("id")),
        redirect_title=redirect.get("title") if redirect is not None else None,
        model=revision.findtext("model") or "wikitext",
        text=None if text.get("deleted") is not None else (text.text or ""),
    )


def _newest_revision(page: etree._Element) -> etree._Element:
    revisions = page.findall("revision")
    if not revisions:
        raise RejectedPage("no revision")
    return max(revisions, key=lambda each: (each.findtext("timestamp") or "", _int64(each.findtext("id")) or 0))


def _int64(text: str | None) -> int | None:
    """A whole number that fits the columns, or None."""
    match = _NUMBER.fullmatch(text) if text is not None else None
    return int(match.group(1)) if match else None

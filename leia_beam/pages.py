"""From the bytes of one `<page>…</page>` of a dump to a `Page`.

Pages are cut by bytes before anything is parsed, so the damage of one page stays with that page; each page is then
parsed on its own by lxml with entities, network and DTDs off. Pages of other namespaces are told by their `<ns>` and
never parsed (about half of a dump's pages).
"""

from __future__ import annotations

import re

from lxml import etree

from leia_beam.records import Page

PAGE_END = b"</page>"
END_TAG = b"</mediawiki>"

_PAGE_START = re.compile(rb"<page[\s>]")
_NAMESPACE = re.compile(rb"<ns>\s*(-?\d+)\s*</ns>")
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


def namespace_of(page: bytes) -> int | None:
    """The page's namespace from its header, without parsing; None if it has no `<ns>`."""
    match = _NAMESPACE.search(page, 0, 4096)
    return int(match.group(1)) if match else None


def parse_page(page: bytes) -> Page:
    """The page of `page`, which begins with `<page>` and ends with `</page>`.

    Raises: RejectedPage with a reason.
    """
    if _DOCTYPE in page:
        raise RejectedPage("DOCTYPE in a page")
    try:
        root = etree.fromstring(page, hardened_parser())
    except etree.XMLSyntaxError as error:
        raise RejectedPage("not well-formed XML") from error
    title, page_id, namespace = root.findtext("title"), root.findtext("id"), root.findtext("ns")
    if not title or not title.strip():
        raise RejectedPage("no title")
    number, namespace_number = _int64(page_id), _int64(namespace)
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

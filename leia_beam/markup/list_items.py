"""Lines: items of lists (`*`, `#`, `:`, `; term : definition`), horizontal rules, preformatted lines."""

from __future__ import annotations

import re

from leia_beam.markup.marks import BREAK, CLOSE, ITEM, OPEN
from leia_beam.markup.page_state import PageState

_RULE = re.compile(r"(?:(?<=\n)|\A)-----*")
_ITEM = re.compile(r"\n([*#:;]+)([^\n]*)")
_TERM_MARK = re.compile(f"[{OPEN}{CLOSE}:]|-\\{{|\\}}-")
_ADDRESS_SCHEME = re.compile(
    r"(?:https?|ftps?|ircs?|mailto|news|tel|urn|magnet|git|svn|ssh|sftp|gopher|nntp|xmpp)\Z", re.IGNORECASE
)


def with_rules_marked(text: str) -> str:
    """`----` at the start of a line is a line across the page; the rest of the line follows it."""
    return _RULE.sub(BREAK, text) if "----" in text else text


def with_items_marked(text: str, page: PageState) -> str:
    """The page with a mark before each item of a list, or without lists."""
    keeps_lists = page.options.keeps("lists")

    def item(match: re.Match[str]) -> str:
        marks, content = match.groups()
        content = content.strip(" \t")
        if not keeps_lists:
            page.counters["lists/dropped"] += 1
            return "\n"
        if marks.endswith(";"):
            term, definition = split_term(content)
            return "".join(f"\n{ITEM}{part.strip()}" for part in (term, definition) if part.strip())
        return f"\n{ITEM}{content}" if content else ""

    return _ITEM.sub(item, "\n" + text)


def split_term(content: str) -> tuple[str, str]:
    """`term : definition` parted at the first colon that is in no tag, no address and no variant (findColonNoLinks).

    >>> split_term("a : b : c"), split_term("http://x : y")
    (('a ', ' b : c'), ('http://x ', ' y'))
    """
    if ":" not in content:
        return content, ""
    depth = 0
    for match in _TERM_MARK.finditer(content):
        mark = match.group()
        if mark in (OPEN, "-{"):
            depth += 1
        elif mark in (CLOSE, "}-"):
            depth = max(0, depth - 1)
        elif depth == 0 and not (
            content.startswith("//", match.end())
            or _ADDRESS_SCHEME.search(content, max(0, match.start() - 8), match.start())
        ):
            return content[: match.start()], content[match.end() :]
    return content, ""

"""`-{ … }-` of wikis with language variants: the text of the wiki's first variant, as its converter has it."""

from __future__ import annotations

import re
from functools import lru_cache

from leia_beam.markup.page_state import PageState, ShownLink
from leia_beam.wikis import Wiki

_MARK = re.compile(r"-\{|\}-")
_MAX_DEPTH = 10
_HIDDEN_FLAGS = frozenset("TH-")


def with_variants_chosen(text: str, page: PageState) -> str:
    """The text, and the labels of its links, in one variant."""
    if not page.wiki.variants:
        return text
    for number, payload in enumerate(page.payloads):
        if isinstance(payload, ShownLink) and "-{" in payload.label:
            page.payloads[number] = payload._replace(label=one_variant(payload.label, page.wiki))
    return one_variant(text, page.wiki) if "-{" in text else text


def one_variant(text: str, wiki: Wiki) -> str:
    """A text with one variant.

    >>> from leia_beam.wikis import load_wiki
    >>> one_variant("-{zh-hant:甲;zh-hans:乙}--{T|zh:題}--{丙}-", load_wiki("zh"))
    '乙丙'
    """
    stack: list[list[str]] = [[]]
    position = 0
    for match in _MARK.finditer(text):
        stack[-1].append(text[position : match.start()])
        position = match.end()
        if match.group() == "-{" and len(stack) <= _MAX_DEPTH:
            stack.append([])
        elif match.group() == "-{" or len(stack) == 1:
            stack[-1].append(match.group())
        else:
            rule = "".join(stack.pop())
            stack[-1].append(_shown(rule, wiki))
    stack[-1].append(text[position:])
    return "-{".join("".join(pieces) for pieces in stack)


@lru_cache(maxsize=64)
def _rule_pattern(variants: tuple[str, ...]) -> re.Pattern[str]:
    codes = "|".join(map(re.escape, sorted(variants, key=len, reverse=True)))
    return re.compile(rf"(?:^|;)\s*(?P<from>[^;:=]*=>\s*)?(?P<code>{codes})\s*:", re.IGNORECASE)


def _shown(rule: str, wiki: Wiki) -> str:
    """What stands between `-{` and `}-` as it is shown: flags, then texts by variant, or one text for all."""
    flags, bar, shown = rule.partition("|")
    named = {flag.strip().upper() for flag in flags.split(";")} if bar else set()
    if not bar or "\n" in flags or len(flags) > 200:
        shown, named = (shown if bar else rule), set()
    if "R" in named:
        return shown
    if named & _HIDDEN_FLAGS:
        return ""
    marks = list(_rule_pattern(tuple(wiki.variants)).finditer(shown))
    if not marks or shown[: marks[0].start()].strip():
        return shown
    ends = [*(mark.start() for mark in marks[1:]), len(shown)]
    texts = {mark.group("code").lower(): shown[mark.end() : end] for mark, end in zip(marks, ends, strict=True)}
    first = next(code for code in wiki.variants if code.lower() in texts)
    return texts[first.lower()].strip().removesuffix(";").strip()

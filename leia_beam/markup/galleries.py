"""`<gallery>`: its captions, one a line."""

from __future__ import annotations

import re

from leia_beam.markup.bars import split_at_bars
from leia_beam.markup.marks import CAPTION, CAPTION_END
from leia_beam.markup.page_state import PageState

_TITLE = re.compile(r"\bcaption\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|(\S+))", re.IGNORECASE)


def gallery_captions(tag: str, content: str, page: PageState) -> str:
    """The gallery's own caption and those of its files: a line is `file|options|caption`, the last part the caption."""
    title = _TITLE.search(tag)
    captions = [next(part for part in title.groups() if part is not None)] if title else []
    for line in content.split("\n"):
        file, bar, rest = line.partition("|")
        if bar and file.strip() and rest.strip():
            captions.append(split_at_bars(rest)[-1])
    return "".join(f"\n{CAPTION}{caption.strip()}{CAPTION_END}\n" for caption in captions if caption.strip())

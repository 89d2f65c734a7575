"""From the bundled sample to docs/how-leia-works.svg: one sentence on its way from the dump to what a model reads.

Everything in the picture is read from a build of the sample; nothing is written by hand but the headings. Every text has
its width stated, so that it fits whatever font a reader has.

    python docs/make_picture.py [BUILD]
"""

from __future__ import annotations

import json
import sys
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "how-leia-works.svg"
TITLE = "東京"
SENTENCES = 2
WIDTH, MARGIN, SIZE = 980, 24, 16
STYLE = """
 .page{fill:#ffffff}.frame{fill:#f4f5f7;stroke:#c9ced6}.text{fill:#1c2430}.quiet{fill:#5a6472}.head{fill:#1c2430;font-weight:600}
 .link{fill:#0b57a4}.name{fill:#8a3b00}.token{fill:#ffffff;stroke:#c9ced6}.span{fill:#e3effb;stroke:#0b57a4}
 .inserted{fill:#fdeedd;stroke:#8a3b00}.arrow{stroke:#5a6472;fill:none}
 @media (prefers-color-scheme:dark){.page{fill:#14181d}.frame{fill:#1d232a;stroke:#3a434e}.text,.head{fill:#e8ebef}
 .quiet{fill:#a3adb9}.link{fill:#7cb8f5}.name{fill:#f0a868}.token{fill:#14181d;stroke:#3a434e}.span{fill:#17314b;stroke:#7cb8f5}
 .inserted{fill:#43290f;stroke:#f0a868}.arrow{stroke:#a3adb9}}
 text{font-family:system-ui,"Noto Sans","Noto Sans CJK JP",sans-serif}
"""


@dataclass
class Drawing:
    """SVG elements from the top down; `y` is where the next one goes."""

    elements: list[str] = field(default_factory=list)
    y: float = MARGIN

    def rectangle(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """A box with round corners."""
        self.elements.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4"/>'
        )

    def text(self, x: float, y: float, text: str, kind: str = "text", size: float = SIZE) -> float:
        """A text whose baseline is y; where it ends."""
        width = width_of(text, size)
        self.elements.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" textLength="{width:.1f}" '
            f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{escape(text)}</text>'
        )
        return x + width

    def heading(self, number: int, text: str, remark: str) -> None:
        """The heading of a step."""
        end = self.text(MARGIN, self.y + SIZE, f"{number}  {text}", "head")
        self.text(end + 12, self.y + SIZE, remark, "quiet", 13)
        self.y += SIZE + 14

    def flow(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Pieces of text (text, kind) one after the other in a frame, broken between characters."""
        lines = _broken(pieces, WIDTH - 2 * MARGIN - 32)
        height = len(lines) * 27 + 17
        self.rectangle(MARGIN, self.y, WIDTH - 2 * MARGIN, height, "frame")
        for number, line in enumerate(lines):
            x = float(MARGIN + 16)
            for text, kind in line:
                x = self.text(x, self.y + 28 + 27 * number, text, kind)
        self.y += height + 26

    def boxes(self, boxes: Sequence[tuple[str, str]]) -> None:
        """Boxes (text, kind), one a token, broken between them."""
        x, row, placed = float(MARGIN + 12), 0, []
        for text, kind in boxes:
            width = width_of(text, 14) + 10
            if x + width > WIDTH - MARGIN - 12:
                x, row = float(MARGIN + 12), row + 1
            placed.append((x, row, width, text, kind))
            x += width + 3
        height = (row + 1) * 32 + 16
        self.rectangle(MARGIN, self.y, WIDTH - 2 * MARGIN, height, "frame")
        for x, row, width, text, kind in placed:
            top = self.y + 10 + 32 * row
            self.rectangle(x, top, width, 26, kind)
            self.text(
                x + 5, top + 18, text, "text" if kind == "token" else ("name" if kind == "inserted" else "link"), 14
            )
        self.y += height + 26

    def svg(self, title: str, description: str) -> str:
        """The whole file."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.y:.0f}" role="img" '
                'aria-labelledby="t d" lang="en">',
                f'<title id="t">{escape(title)}</title><desc id="d">{escape(description)}</desc>',
                f"<style>{STYLE}</style>",
                f'<rect class="page" width="{WIDTH}" height="{self.y:.0f}"/>',
                *self.elements,
                "</svg>\n",
            ]
        )


def width_of(text: str, size: float) -> float:
    """About how wide a text is: wide letters one em, others by their shape.

    >>> width_of("東京", 10), round(width_of("ab", 10), 1), round(width_of("il", 10), 1)
    (20.0, 11.6, 7.2)
    """
    return sum(size * _em(letter) for letter in text)


def _em(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    return 0.36 if letter in "iIjlft.,:;'()[]{}|! " else 0.86 if letter in "mwMW→" else 0.58


def _broken(pieces: Sequence[tuple[str, str]], width: float) -> list[list[tuple[str, str]]]:
    """Lines of pieces that are at most so wide; Latin words and marks stay whole."""
    lines: list[list[tuple[str, str]]] = [[]]
    used = 0.0
    for text, kind in pieces:
        for part in _parts(text):
            wide = width_of(part, SIZE)
            if used + wide > width:
                lines.append([])
                used = 0.0
            if lines[-1] and lines[-1][-1][1] == kind:
                lines[-1][-1] = (lines[-1][-1][0] + part, kind)
            else:
                lines[-1].append((part, kind))
            used += wide
    return lines


def _parts(text: str) -> list[str]:
    parts: list[str] = []
    for letter in text:
        narrow = unicodedata.east_asian_width(letter) not in "WF"
        if parts and narrow and unicodedata.east_asian_width(parts[-1][-1]) not in "WF" and parts[-1][-1] not in " >":
            parts[-1] += letter
        else:
            parts.append(letter)
    return parts


def _row(folder: Path, table: str) -> dict[str, Any]:
    """The row of TITLE in a table of a stage."""
    manifest = json.loads((folder / "_manifest.json").read_bytes())
    for file in manifest["files"]:
        if file["table"] == table:
            for row in pq.read_table(folder / file["path"]).to_pylist():
                if row["title"] == TITLE:
                    return row
    raise SystemExit(f"{folder}: no article {TITLE}")


def _wikitext() -> str:
    """The first sentences of TITLE as the sample's source has them: the line that begins with its name in bold."""
    source = (ROOT / "tests/data/sample/jawiki/pages.wiki").read_text(encoding="utf-8")
    line = next(line for line in source.splitlines() if line.startswith(f"'''{TITLE}'''"))
    return "。".join(line.split("。")[:SENTENCES]) + "。"


def draw(build: Path) -> str:
    """The picture from a build of the sample's Japanese wiki."""
    article, shard = _row(build / "articles", "articles"), _row(build / "shards", "train")
    tokenizer = Tokenizer.from_file(str(build / "shards/tokenizer/tokenizer.json"))
    text = article["text"]
    end_char = [at for at, letter in enumerate(text) if letter == "。"][SENTENCES - 1] + 1
    anchors = [anchor for anchor in article["anchors"] if anchor["end_char"] <= end_char]
    entities = _entities(shard, len(anchors))

    drawing = Drawing()
    drawing.heading(1, "The wiki's dump", "wikitext: links, templates, references")
    drawing.flow(_marked(_wikitext(), [f"[[{anchor['target']}]]" for anchor in anchors], "link"))
    drawing.heading(2, "Text and anchors", "templates and references are gone; each link is a span of characters")
    drawing.flow(_spans(text[:end_char], [(anchor["start_char"], anchor["end_char"]) for anchor in anchors]))
    drawing.heading(3, "Each link's English name", "page, redirects, Wikidata item, the item's article in English")
    _draw_names(drawing, anchors, entities, tokenizer)
    drawing.heading(4, "The shard", "token ids, the span of each link, the ids of each name")
    stop = _token_count(tokenizer, shard["input_ids"], text[:end_char])
    drawing.boxes(_tokens(tokenizer, shard["input_ids"][:stop], entities, inserted=False))
    drawing.heading(
        5, "What the model reads", "names go in while training, each with a probability, between two new tokens"
    )
    drawing.boxes(_tokens(tokenizer, shard["input_ids"][:stop], entities, inserted=True))
    drawing.y -= 10
    names = ", ".join(
        f"{text[a['start_char'] : a['end_char']]} → {tokenizer.decode(e[2]).strip()}" for a, e in zip(anchors, entities)
    )
    return drawing.svg(
        "How LEIA turns a linked sentence into training text",
        f"The first sentences of the sample's article {TITLE}: links become English names ({names}), which are inserted "
        "behind the linked words, between the markers <translate> and </translate>.",
    )


Entity = tuple[int, int, list[int], str]
"""Start and end of its span, the ids of its name, its item."""


def _entities(shard: dict[str, Any], count: int) -> list[Entity]:
    columns = ("entity_start_positions", "entity_end_positions", "alternative_entity_input_ids", "entity_qids")
    return list(zip(*(shard[name] for name in columns), strict=True))[:count]


def _marked(text: str, marks: Sequence[str], kind: str) -> list[tuple[str, str]]:
    pieces = []
    for mark in marks:
        before, found, text = text.partition(mark)
        pieces += [(before, "text"), (found, kind)]
    return [piece for piece in [*pieces, (text, "text")] if piece[0]]


def _spans(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[str, str]]:
    pieces, at = [], 0
    for start, end in spans:
        pieces += [(text[at:start], "text"), (text[start:end], "link")]
        at = end
    return [piece for piece in [*pieces, (text[at:], "text")] if piece[0]]


def _draw_names(
    drawing: Drawing, anchors: Sequence[dict[str, Any]], entities: Sequence[Entity], tokenizer: Tokenizer
) -> None:
    column = (WIDTH - 2 * MARGIN) / len(anchors)
    drawing.rectangle(MARGIN, drawing.y, WIDTH - 2 * MARGIN, 52, "frame")
    for number, (anchor, entity) in enumerate(zip(anchors, entities, strict=True)):
        x = drawing.text(MARGIN + 16 + column * number, drawing.y + 32, anchor["target"], "link")
        x = drawing.text(x, drawing.y + 32, f"  →  {entity[3]}  →  ", "quiet")
        drawing.text(x, drawing.y + 32, tokenizer.decode(entity[2]).strip(), "name")
    drawing.y += 52 + 26


def _token_count(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> int:
    """How many tokens hold the text."""
    for count in range(1, len(ids) + 1):
        if len(tokenizer.decode(ids[:count]).strip()) >= len(text):
            return count
    raise SystemExit("the shard's row is shorter than its text")


def _tokens(
    tokenizer: Tokenizer, ids: Sequence[int], entities: Sequence[Entity], inserted: bool
) -> list[tuple[str, str]]:
    """Boxes of the tokens; those that hold a part of a letter are drawn together."""
    boxes: list[tuple[str, str]] = []
    within = {at for start, end, _, _ in entities for at in range(start, end)}
    names = {end: name for _, end, name, _ in entities} if inserted else {}
    held: list[int] = []
    for at, token in enumerate(ids):
        held.append(token)
        shown = tokenizer.decode(held, skip_special_tokens=False)
        if "\ufffd" not in shown:
            boxes.append((shown.replace(" ", "␣").replace("\n", "⏎"), "span" if at in within else "token"))
            held = []
        if at + 1 in names:
            name = [tokenizer.decode([part]).replace(" ", "␣") for part in names[at + 1]]
            boxes += [(part, "inserted") for part in ("<translate>", *name, "</translate>")]
    return boxes


def main() -> int:
    """Draw from the build that is named, or from one made here."""
    if len(sys.argv) > 1:
        PICTURE.write_text(draw(Path(sys.argv[1])), encoding="utf-8")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        PICTURE.write_text(draw(build_sample(Path(folder))), encoding="utf-8")
    return 0


def build_sample(folder: Path) -> Path:
    """A build of the sample's Japanese wiki within a folder.

    Raises: SystemExit if it fails.
    """
    sys.path.insert(0, str(ROOT))
    from leia_beam.cli import main as build
    from tests.data.sample.pack import pack_sample

    pack_sample(folder)
    output = folder / "ja"
    code = build(
        [
            *("build", "--pages", str(folder / "jawiki-20260101-pages-articles-multistream.xml.bz2")),
            *("--wikidata", str(folder / "wikidata-20260101-all.json.bz2"), "--wiki", "jawiki"),
            *("--tokenizer", str(folder / "tokenizer"), "--output", str(output), "--workers", "1", "--quiet"),
        ]
    )
    if code:
        raise SystemExit(code)
    return output


if __name__ == "__main__":
    sys.exit(main())

"""From the bytes of a published file to raw rows, each with its place for messages: one reader a file format.

Rows come out with the fields that the same set has on the hub, so that `forms` needs one converter for both.
"""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any

from leia_beam.errors import DamagedInput
from leia_eval.row_checks import CheckedRow, shown

Row = dict[str, Any]

XNLI_LABELS = ("entailment", "neutral", "contradiction")
"""In the order of the hub's label numbers."""


def jsonl_rows(content: bytes, path: str) -> Iterator[tuple[str, Row]]:
    """A JSON object a line; blank lines are passed over, and U+2028 in a text ends no line."""
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            place = f"{path}:{number}"
            yield place, _parsed(line, place)


def json_rows(content: bytes, path: str) -> Iterator[tuple[str, Row]]:
    """One JSON list of objects.

    Raises: DamagedInput for what is no such list.
    """
    rows = _parsed(content.removeprefix(b"\xef\xbb\xbf"), path)
    if not isinstance(rows, list):
        raise DamagedInput(f"the data file {path} must hold a JSON list, found {shown(rows)}")
    for number, row in enumerate(rows, start=1):
        yield f"{path}, entry {number}", row


def squad_rows(content: bytes, path: str) -> Iterator[tuple[str, Row]]:
    """SQuAD's nesting of articles, paragraphs and questions, as the flat rows of the hub."""
    whole = CheckedRow(_parsed(content.removeprefix(b"\xef\xbb\xbf"), path), path, ("data",), "the file")
    for article_number, article in enumerate(whole.rows("data"), start=1):
        place = f"{path}, article {article_number}"
        checked = CheckedRow(article, place, ("title", "paragraphs"), "the article")
        for paragraph_number, paragraph in enumerate(checked.rows("paragraphs"), start=1):
            at = f"{place}, paragraph {paragraph_number}"
            inner = CheckedRow(paragraph, at, ("context", "qas"), "the paragraph")
            for question in inner.rows("qas"):
                asked = CheckedRow(question, at, ("id", "question", "answers"), "the question")
                answers = [CheckedRow(a, at, ("text",), "the answer").text("text") for a in asked.rows("answers")]
                yield (
                    f"{at}, question {asked.name('id')}",
                    {
                        "id": asked.row["id"],
                        "title": checked.row["title"],
                        "context": inner.row["context"],
                        "question": asked.row["question"],
                        "answers": {"text": answers},
                    },
                )


def niilc_rows(content: bytes, path: str) -> Iterator[tuple[str, Row]]:
    """NIILC's <question> elements: id, text, answers, and E.3, the article that holds the answer.

    Raises: DamagedInput for what is no XML, or declares entities.
    """
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise DamagedInput(f"the data file {path} declares entities, which NIILC does not; download it again")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise DamagedInput(f"damaged item at {path}:{error.position[0]}: not XML ({error})") from error
    for number, question in enumerate(root.iter("question"), start=1):
        yield (
            f"{path}, question {number}",
            {
                "id": question.get("id"),
                "text": (question.findtext("text") or "").strip(),
                "answers": [(answer.text or "").strip() for answer in question.findall("answers/answer")],
                "article": (question.findtext("meta/E.3") or "").strip(),
            },
        )


def xnli_rows(content: bytes, path: str) -> Iterator[tuple[str, Row]]:
    """XNLI's tab-separated file of all languages (xnli.test.tsv), or JSON lines with the hub's fields.

    Raises: DamagedInput with the line that is damaged.
    """
    if content.lstrip().startswith(b"{"):
        yield from jsonl_rows(content, path)
        return
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    header = lines[0].decode("utf-8", "replace").rstrip("\r").split("\t")
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            cells = line.decode("utf-8").rstrip("\r").split("\t")
        except UnicodeDecodeError as error:
            raise DamagedInput(f"damaged item at {place}: not UTF-8 ({error})") from error
        if len(cells) != len(header):
            raise DamagedInput(f"damaged item at {place}: {len(cells)} cells where the header has {len(header)}")
        row = dict(zip(header, cells, strict=True))
        fields = CheckedRow(row, place, ("language", "gold_label", "sentence1", "sentence2", "promptID", "pairID"))
        if fields.row["gold_label"] not in XNLI_LABELS:
            raise fields.damaged(f"'gold_label' must be {', '.join(XNLI_LABELS)}, found {row['gold_label']!r}")
        yield (
            place,
            {
                "language": row["language"],
                "id": row["pairID"],
                "prompt": row["promptID"],
                "premise": row["sentence1"],
                "hypothesis": row["sentence2"],
                "label": XNLI_LABELS.index(row["gold_label"]),
            },
        )


def _parsed(content: bytes, place: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedInput(f"damaged item at {place}: not a JSON object in UTF-8 ({error})") from error

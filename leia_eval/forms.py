"""From the published forms of evaluation sets to documents: one reader and one converter a form, no file and no model.

A form is two functions. `rows` cuts a file's bytes into raw rows with the place of each, for messages; `convert` checks
one row and gives its document. Rows of the same sets on the hub have the same fields, so they go through `convert` too.

    choices     {"id", "lang", "cluster", "question": {"stem", "choices": {"label": […], "text": […]}}, "answerKey"}
    generation  {"id", "lang", "cluster", "question", "context", "answers": […]}
    xcopa       the published fields, with "id", "lang" and "cluster"

`cluster` names what items have in common, and is what a bootstrap resamples: the item across languages (X-CSQA,
X-CODAH, XCOPA), the premise (XNLI), the article (JSQuAD, NIILC), the pair of articles (JEMHopQA).
"""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from leia_beam.errors import DamagedInput

Document = dict[str, Any]
Row = dict[str, Any]

NO_ANSWER = "-"
"""What NIILC writes where a question has no answer; llm-jp-eval leaves these out (200 - 2 = LEIA's 198 questions)."""

XNLI_WORDS = {
    "ar": ("صحيح", "نعم", "لذا", "رقم"),
    "bg": ("правилно", "да", "така", "не"),
    "de": ("richtig", "Ja", "Auch", "Nein"),
    "el": ("σωστός", "Ναί", "Έτσι", "όχι"),
    "en": ("right", "Yes", "Also", "No"),
    "es": ("correcto", "Sí", "Asi que", "No"),
    "fr": ("correct", "Oui", "Aussi", "Non"),
    "hi": ("सही", "हाँ", "इसलिए", "नहीं"),
    "ru": ("правильно", "Да", "Так", "Нет"),
    "sw": ("sahihi", "Ndiyo", "Hivyo", "Hapana"),
    "th": ("ถูกต้อง", "ใช่", "ดังนั้น", "ไม่"),
    "tr": ("doğru", "Evet", "Böylece", "Hayır"),
    "ur": ("صحیح", "جی ہاں", "اس لئے", "نہیں"),
    "vi": ("đúng", "Vâng", "Vì vậy", "Không"),
    "zh": ("正确", "是的", "所以", "不是的"),
}
"""The question word, and what stands for entailment, neutral and contradiction: XGLM's prompts, as LEIA has them."""
XNLI_LABELS = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True, kw_only=True)
class Form:
    """How to read one published form. `suffixes`: the file endings by which `rows` was meant."""

    name: str
    rows: Callable[[bytes, str], Iterator[tuple[str, Row]]]
    convert: Callable[[Row, str, Sequence[str]], Document | None]


class _Checked:
    """A raw row whose fields are read with checks; every message ends in one line with the place."""

    def __init__(self, row: object, place: str, fields: Sequence[str], name: str = "the item"):
        self.place = place
        if not isinstance(row, dict):
            raise self.damaged(f"{name} must be an object with {', '.join(fields)}, found {_shown(row)}")
        missing = [field for field in fields if field not in row]
        if missing:
            raise self.damaged(f"{name} has no {missing[0]!r}; found {sorted(row)}")
        self.row = row

    def damaged(self, rule: str) -> DamagedInput:
        return DamagedInput(f"damaged item at {self.place}: {rule}")

    def text(self, field: str, *, empty: bool = False) -> str:
        return self.text_of(self.row[field], f"'{field}'", empty=empty)

    def text_of(self, value: object, name: str, *, empty: bool = False) -> str:
        if not isinstance(value, str) or not (empty or value.strip()):
            raise self.damaged(f"{name} must be text, found {_shown(value)}")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self.damaged(f"{name} holds half a surrogate pair, {_shown(value)}") from error
        return value

    def name(self, field: str) -> str:
        """An id: text or a number."""
        value = self.row[field]
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else self.text(field)

    def index(self, field: str, length: int) -> int:
        value = self.row[field]
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < length:
            raise self.damaged(f"'{field}' must be a whole number from 0 to {length - 1}, found {_shown(value)}")
        return value

    def texts(self, value: object, name: str, *, at_least: int = 1) -> list[str]:
        if not isinstance(value, list) or len(value) < at_least:
            many = "two or more" if at_least == 2 else "one or more"
            raise self.damaged(f"{name} must be a list of {many}, found {_shown(value)}")
        return [self.text_of(text, f"an entry of {name}") for text in value]


def form_named(name: str) -> Form:
    """The form of that name.

    Raises: KeyError where there is none: a task file is wrong, not what a user gave.
    """
    return {form.name: form for form in _FORMS}[name]


# ---- files to rows


def jsonl_rows(content: bytes, path: str) -> Iterator[tuple[str, Row]]:
    """A JSON object a line; blank lines are passed over, and U+2028 in a text ends no line."""
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            place = f"{path}:{number}"
            yield place, _parsed(line, place)


def json_rows(content: bytes, path: str) -> Iterator[tuple[str, Row]]:
    """One JSON list of objects."""
    rows = _parsed(content.removeprefix(b"\xef\xbb\xbf"), path)
    if not isinstance(rows, list):
        raise DamagedInput(f"the data file {path} must hold a JSON list, found {_shown(rows)}")
    for number, row in enumerate(rows, start=1):
        yield f"{path}, entry {number}", row


def squad_rows(content: bytes, path: str) -> Iterator[tuple[str, Row]]:
    """SQuAD's nesting of articles, paragraphs and questions, as the flat rows of the hub."""
    whole = _Checked(_parsed(content.removeprefix(b"\xef\xbb\xbf"), path), path, ("data",), "the file")
    for article_number, article in enumerate(whole.row["data"], start=1):
        place = f"{path}, article {article_number}"
        checked = _Checked(article, place, ("title", "paragraphs"), "the article")
        for paragraph_number, paragraph in enumerate(checked.row["paragraphs"], start=1):
            at = f"{place}, paragraph {paragraph_number}"
            inner = _Checked(paragraph, at, ("context", "qas"), "the paragraph")
            for question in inner.row["qas"]:
                asked = _Checked(question, at, ("id", "question", "answers"), "the question")
                answers = [_Checked(a, at, ("text",), "the answer").text("text") for a in asked.row["answers"]]
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
    """NIILC's <question> elements: id, text, answers, and E.3, the article that holds the answer."""
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
    """XNLI's tab-separated file of all languages (xnli.test.tsv), or JSON lines with the hub's fields."""
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
        fields = _Checked(row, place, ("language", "gold_label", "sentence1", "sentence2", "promptID", "pairID"))
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


# ---- rows to documents


def xcsr_document(row: Row, place: str, languages: Sequence[str]) -> Document:
    """X-CSQA and X-CODAH. X-CODAH's stems are empty, and a few of X-CSQA's German choices are."""
    item = _Checked(row, place, ("id", "lang", "question", "answerKey"))
    question = _Checked(item.row["question"], place, ("stem", "choices"), "'question'")
    choices = _Checked(question.row["choices"], place, ("label", "text"), "'choices'")
    for field in ("label", "text"):
        found = choices.row[field]
        if not isinstance(found, list) or len(found) < 2:
            raise item.damaged(f"'choices.{field}' must be a list of two or more, found {_shown(found)}")
    labels = [item.text_of(label, "a choice's label") for label in choices.row["label"]]
    texts = [item.text_of(text, "a choice's text", empty=True) for text in choices.row["text"]]
    if len(labels) != len(texts):
        raise item.damaged(f"{len(labels)} labels for {len(texts)} choices")
    if len(set(labels)) != len(labels):
        raise item.damaged(f"the labels {labels} are not distinct")
    answer = item.text("answerKey")
    if answer not in labels:
        raise item.damaged(f"answerKey {answer!r} is not among the labels {labels}")
    return _choices_document(
        id_=item.name("id"),
        lang=_language(item, "lang", languages),
        cluster=item.name("id"),
        stem=item.text_of(question.row["stem"], "'question.stem'", empty=True),
        labels=labels,
        texts=texts,
        answer=answer,
    )


def jcommonsenseqa_document(row: Row, place: str, languages: Sequence[str]) -> Document:
    """JGLUE's JCommonsenseQA: five choices in fields of their own."""
    names = [f"choice{i}" for i in range(5)]
    item = _Checked(row, place, ("q_id", "question", *names, "label"))
    labels = list("ABCDE")
    return _choices_document(
        id_=item.name("q_id"),
        lang="ja",
        cluster=item.name("q_id"),
        stem=item.text("question"),
        labels=labels,
        texts=[item.text(name) for name in names],
        answer=labels[item.index("label", 5)],
    )


def xnli_document(row: Row, place: str, languages: Sequence[str]) -> Document | None:
    """XNLI as XGLM and LEIA prompt it: three whole texts, of which the likeliest is the answer.

    A row of another language (the published file holds all of them) gives None.
    """
    item = _Checked(row, place, ("premise", "hypothesis", "label"))
    language = item.row.get("language", languages[0])
    if language not in languages:
        return None
    premise, hypothesis = item.text("premise"), item.text("hypothesis")
    word, *said = XNLI_WORDS[language]
    answer = XNLI_LABELS[item.index("label", 3)]
    return _choices_document(
        id_=item.name("id") if "id" in item.row else place.rsplit(":", 1)[-1],
        lang=language,
        cluster=item.name("prompt") if "prompt" in item.row else premise,
        stem="",
        labels=list(XNLI_LABELS),
        texts=[f"{premise}, {word}? {label}, {hypothesis}" for label in said],
        answer=answer,
    )


def jsquad_document(row: Row, place: str, languages: Sequence[str]) -> Document:
    """JSQuAD: the paragraph without the title that stands before ``[SEP]``."""
    item = _Checked(row, place, ("id", "title", "context", "question", "answers"))
    answers = _Checked(item.row["answers"], place, ("text",), "'answers'")
    return _generation_document(
        id_=item.name("id"),
        cluster=item.text("title"),
        question=item.text("question"),
        context=item.text("context").split("[SEP]")[-1].strip(),
        answers=item.texts(answers.row["text"], "'answers'"),
    )


def niilc_document(row: Row, place: str, languages: Sequence[str]) -> Document | None:
    """NIILC; a question without an answer gives None."""
    item = _Checked(row, place, ("id", "text", "answers"))
    found = [answer for answer in item.row["answers"] if answer != ""]
    if not found or NO_ANSWER in found:
        return None
    answers = item.texts(found, "'answers'")
    return _generation_document(
        id_=item.name("id"),
        cluster=item.row.get("article") or item.name("id"),
        question=item.text("text"),
        context="",
        answers=[",".join(answers)],
    )


def jemhopqa_document(row: Row, place: str, languages: Sequence[str]) -> Document:
    """JEMHopQA: a question over two articles."""
    item = _Checked(row, place, ("qid", "question", "answer"))
    pages = item.row.get("page_ids") or [item.name("qid")]
    return _generation_document(
        id_=item.name("qid"),
        cluster="+".join(sorted(map(str, pages))),
        question=item.text("question"),
        context="",
        answers=[item.text("answer")],
    )


def jaqket_document(row: Row, place: str, languages: Sequence[str]) -> Document:
    """JAQKET v2 with retrieved passages; `context` is the first five, `shot_context` the first that has the answer."""
    item = _Checked(row, place, ("qid", "question", "answers", "ctxs"))
    answers = _Checked(item.row["answers"], place, ("text",), "'answers'").row["text"]
    passages = _Checked(item.row["ctxs"], place, ("text", "has_answer"), "'ctxs'").row
    texts = item.texts(passages["text"], "'ctxs.text'")
    useful = [text for text, has in zip(texts, passages["has_answer"], strict=True) if has]
    document = _generation_document(
        id_=item.name("qid"),
        cluster=item.name("qid"),
        question=item.text("question"),
        context="\n".join(texts[:5]),
        answers=item.texts([answers] if isinstance(answers, str) else answers, "'answers'"),
    )
    return {**document, "shot_context": useful[0] if useful else texts[0]}


def xcopa_document(row: Row, place: str, languages: Sequence[str]) -> Document:
    """XCOPA, with the fields that lm-eval's prompts read."""
    item = _Checked(row, place, ("premise", "choice1", "choice2", "question", "label", "idx"))
    if item.row["question"] not in ("cause", "effect"):
        raise item.damaged(f"'question' must be cause or effect, found {_shown(item.row['question'])}")
    return {
        "id": item.name("idx"),
        "lang": languages[0],
        "cluster": item.name("idx"),
        **{field: item.text(field) for field in ("premise", "choice1", "choice2", "question")},
        "label": item.index("label", 2),
    }


def _choices_document(
    *, id_: str, lang: str, cluster: str, stem: str, labels: list[str], texts: list[str], answer: str
) -> Document:
    return {
        "id": id_,
        "lang": lang,
        "cluster": cluster,
        "question": {"stem": stem, "choices": {"label": labels, "text": texts}},
        "answerKey": answer,
    }


def _generation_document(*, id_: str, cluster: str, question: str, context: str, answers: list[str]) -> Document:
    return {
        "id": id_,
        "lang": "ja",
        "cluster": cluster,
        "question": question,
        "context": context,
        "answers": answers,
    }


def _language(item: _Checked, field: str, languages: Sequence[str]) -> str:
    language = item.text(field)
    if languages and language not in languages:
        raise item.damaged(f"{field} {language!r} where the task is in {' or '.join(map(repr, languages))}")
    return language


def _parsed(content: bytes, place: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedInput(f"damaged item at {place}: not a JSON object in UTF-8 ({error})") from error


def _shown(value: object, limit: int = 60) -> str:
    shown = repr(value)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


_FORMS = (
    Form(name="xcsr", rows=jsonl_rows, convert=xcsr_document),
    Form(name="jcommonsenseqa", rows=jsonl_rows, convert=jcommonsenseqa_document),
    Form(name="xnli", rows=xnli_rows, convert=xnli_document),
    Form(name="jsquad", rows=squad_rows, convert=jsquad_document),
    Form(name="niilc", rows=niilc_rows, convert=niilc_document),
    Form(name="jemhopqa", rows=json_rows, convert=jemhopqa_document),
    Form(name="jaqket", rows=jsonl_rows, convert=jaqket_document),
    Form(name="xcopa", rows=jsonl_rows, convert=xcopa_document),
)

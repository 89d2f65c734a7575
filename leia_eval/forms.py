"""From raw rows of the published sets to documents: one converter a form, no file and no model.

A form is two functions. `rows` (of `data_files`) cuts a file's bytes into raw rows with the place of each; `convert`
checks one row and gives its document. Rows of the same sets on the hub have the same fields and go through `convert` too.

    choices     {"id", "lang", "cluster", "question": {"stem", "choices": {"label": […], "text": […]}}, "answerKey"}
    generation  {"id", "lang", "cluster", "question", "context", "answers": […]}
    xcopa       the published fields, with "id", "lang" and "cluster"

`cluster` names what items have in common, and is what a bootstrap resamples: the item across languages (X-CSQA,
X-CODAH, XCOPA), the premise (XNLI), the article (JSQuAD, NIILC), the pair of articles (JEMHopQA).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from leia_eval.data_files import XNLI_LABELS, Row, json_rows, jsonl_rows, niilc_rows, squad_rows, xnli_rows
from leia_eval.row_checks import CheckedRow, shown

Document = dict[str, Any]

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


@dataclass(frozen=True, kw_only=True)
class Form:
    """How to read one published form: see the module."""

    name: str
    rows: Callable[[bytes, str], Iterator[tuple[str, Row]]]
    convert: Callable[[Row, str, Sequence[str]], Document | None]


def form_named(name: str) -> Form:
    """The form of that name.

    Raises: KeyError where there is none: a task file is wrong, not what a user gave.
    """
    return {form.name: form for form in _FORMS}[name]


def xcsr_document(row: Row, place: str, languages: Sequence[str]) -> Document:
    """X-CSQA and X-CODAH. X-CODAH's stems are empty, and a few of X-CSQA's German choices are."""
    item = CheckedRow(row, place, ("id", "lang", "question", "answerKey"))
    question = CheckedRow(item.row["question"], place, ("stem", "choices"), "'question'")
    choices = CheckedRow(question.row["choices"], place, ("label", "text"), "'choices'")
    for field in ("label", "text"):
        found = choices.row[field]
        if not isinstance(found, list) or len(found) < 2:
            raise item.damaged(f"'choices.{field}' must be a list of two or more, found {shown(found)}")
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
    item = CheckedRow(row, place, ("q_id", "question", *names, "label"))
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
    item = CheckedRow(row, place, ("premise", "hypothesis", "label"))
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
    item = CheckedRow(row, place, ("id", "title", "context", "question", "answers"))
    answers = CheckedRow(item.row["answers"], place, ("text",), "'answers'")
    return _generation_document(
        id_=item.name("id"),
        cluster=item.text("title"),
        question=item.text("question"),
        context=item.text("context").split("[SEP]")[-1].strip(),
        answers=item.texts(answers.row["text"], "'answers'"),
    )


def niilc_document(row: Row, place: str, languages: Sequence[str]) -> Document | None:
    """NIILC; a question without an answer gives None."""
    item = CheckedRow(row, place, ("id", "text", "answers"))
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
    item = CheckedRow(row, place, ("qid", "question", "answer"))
    pages = item.rows("page_ids") if item.row.get("page_ids") else [item.name("qid")]
    return _generation_document(
        id_=item.name("qid"),
        cluster="+".join(sorted(map(str, pages))),
        question=item.text("question"),
        context="",
        answers=[item.text("answer")],
    )


def jaqket_document(row: Row, place: str, languages: Sequence[str]) -> Document:
    """JAQKET v2 with retrieved passages; `context` is the first five, `shot_context` the first that has the answer."""
    item = CheckedRow(row, place, ("qid", "question", "answers", "ctxs"))
    answers = CheckedRow(item.row["answers"], place, ("text",), "'answers'").row["text"]
    passages = CheckedRow(item.row["ctxs"], place, ("text", "has_answer"), "'ctxs'")
    texts, found = item.texts(passages.row["text"], "'ctxs.text'"), passages.rows("has_answer")
    if len(texts) != len(found):
        raise item.damaged(f"{len(texts)} passages, and {len(found)} marks of which hold the answer")
    useful = [text for text, has_answer in zip(texts, found, strict=True) if has_answer]
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
    item = CheckedRow(row, place, ("premise", "choice1", "choice2", "question", "label", "idx"))
    if item.row["question"] not in ("cause", "effect"):
        raise item.damaged(f"'question' must be cause or effect, found {shown(item.row['question'])}")
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


def _language(item: CheckedRow, field: str, languages: Sequence[str]) -> str:
    language = item.text(field)
    if languages and language not in languages:
        raise item.damaged(f"{field} {language!r} where the task is in {' or '.join(map(repr, languages))}")
    return language


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

"""Pieces of reports: numbers as text, tables in Markdown, an item with what was said to it, a whole page.

Pages are made of the parts that all of LEIA's pages are made of, which escape every text that comes from data, models or
options; in Markdown tables, bars and line ends are escaped too.
"""

import html
from collections.abc import Iterable, Sequence

from leia_beam.html_pages import Html, element, joined, text_in
from leia_beam.html_pages import page as whole_page
from leia_eval.run_folder import Json

KIND = "LEIA · evaluation"
METRIC_NAMES = {
    "acc": "accuracy", "acc_norm": "per character", "acc_bytes": "per byte", "acc_pmi": "PMI",
    "exact_match": "exact match", "char_f1": "character F1",
    "jasquad_match": "JaSQuAD exact match", "jasquad_f1": "JaSQuAD word F1",
}  # fmt: skip
_FLAG_NAMES = {
    "wrong_script": "in the wrong script", "english_name": "with an English name",
    "marker": "with a marker", "no_end": "without an end",
}  # fmt: skip
ITEMS_SHOWN = 5
_MAX_SHOWN = 200
"""Characters of a text that an item shows."""


def page(title: str, fragment: Html) -> str:
    """A page that holds `fragment`."""
    return whole_page(title, fragment, kind=KIND)


def item_html(row: Json, said: Sequence[tuple[str, Json]] | None = None, language: str | None = None) -> Html:
    """An item with its choices, the right answer, and what each of `said` (name, sample) answered."""
    lines = [element("p", element("span", row["id"], class_="soft"), " ", text_in(language, _shown(row["stem"])))]
    if "choices" in row:
        choices = zip(row["labels"], row["choices"], strict=True)
        lines.append(element("ul", *(_choice(row, label, text, language) for label, text in choices), class_="choices"))
    gold = row["answer"] if "answer" in row else " | ".join(row.get("answers", ()))
    answers = [element("span", "answer ", element("b", text_in(language, gold)), class_="said")]
    answers += [_answer(name, of_run, language) for name, of_run in said or (("model", row),)]
    return element("div", *lines, element("p", *answers), class_="item")


def _choice(row: Json, label: str, text: str, language: str | None) -> Html:
    return element(
        "li", element("b", label), " ", text_in(language, text), class_="gold" if label == row.get("answer") else None
    )


def _answer(name: str, row: Json, language: str | None) -> Html:
    """What a model said, with a mark that needs no colour."""
    is_right = row.get("acc", row.get("jasquad_match", row.get("exact_match")))
    said = text_in(language, _shown(str(row.get("prediction", ""))))
    mark = element("span", "✓" if is_right else "✗", role="img", aria_label="right" if is_right else "wrong")
    words = joined([f"{name}: ", said, " ", mark])
    return element("span", words, class_=f"said {'right' if is_right else 'wrong'}")


def metric_name(metric: str) -> str:
    """A metric as a reader knows it."""
    return METRIC_NAMES.get(metric, metric)


def flags_line(shares: Json | None) -> str:
    """What was wrong with generated answers, as a sentence; empty where nothing was generated."""
    if not shares:
        return ""
    return (
        " Of the answers, in percent: "
        + ", ".join(f"{name} {percent(shares[flag])}" for flag, name in _FLAG_NAMES.items())
        + "."
    )


def _shown(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def share_text(share: float | None) -> str:
    """A share in percent, or a dash."""
    return "–" if share is None else percent(share)


def percent(share: float) -> str:
    """A share in percent with one decimal."""
    return f"{100 * share:.1f}"


def interval_text(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """A value with its interval, in percent."""
    form = "+.1f" if signed else ".1f"
    return f"{100 * value:{form}} [{100 * low:{form}}, {100 * high:{form}}]"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(plain_markdown(cell) for cell in line) + " |\n" for line in lines)


def plain_markdown(text: str) -> str:
    """Text that cannot end a table's cell or line, nor be taken for HTML."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")

"""From a document and the model's answers to it to one row: what was right, by every way of counting.

The row is what a run stores of an item, and all that comparing and reporting read: nothing is asked of a model again.
Ways to choose among answers: `acc` by the sum of log-likelihoods (the paper's), `acc_norm` by the sum per character,
`acc_bytes` per UTF-8 byte, and `acc_pmi` by what the question adds: log P(answer | question) - log P(answer | nothing).
In a tie the first choice counts. An empty choice has no length, and is never chosen by length.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from leia_eval import answers, jasquad
from leia_eval.forms import Document

Row = dict[str, Any]

CHOICE_METRICS = ("acc", "acc_norm", "acc_bytes", "acc_pmi")
GENERATION_METRICS = (*answers.SCORES, *jasquad.SCORES)

_CLUSTER_FIELDS = ("cluster", "link", "passage_id", "InputStoryid", "sample_id")
"""Where sets that lm-eval brings name what items have in common: belebele's article, xstorycloze's story, MMLU's item."""


def choices_row(
    document: Document,
    *,
    id_: str,
    labels: Sequence[str],
    choices: Sequence[str],
    gold: int,
    log_likelihoods: Sequence[float],
    unconditional: Sequence[float] | None,
    prompt: str,
) -> Row:
    """An item with choices. `unconditional`: of each choice after nothing, where that was asked."""
    scores = {
        "acc": list(log_likelihoods),
        "acc_norm": _per(log_likelihoods, [len(choice) for choice in choices]),
        "acc_bytes": _per(log_likelihoods, [len(choice.encode()) for choice in choices]),
    }
    if unconditional is not None:
        scores["acc_pmi"] = [a - b for a, b in zip(log_likelihoods, unconditional, strict=True)]
    chosen = {metric: values.index(max(values)) for metric, values in scores.items()}
    best = max(log_likelihoods)
    return {
        **_about(document, id_, prompt),
        "labels": list(labels),
        "choices": list(choices),
        "answer": labels[gold],
        "prediction": labels[chosen["acc"]],
        "log_likelihoods": list(log_likelihoods),
        **({} if unconditional is None else {"unconditional": list(unconditional)}),
        "tied": list(log_likelihoods).count(best) > 1,
        **{metric: int(index == gold) for metric, index in chosen.items()},
    }


def generation_row(
    document: Document,
    *,
    id_: str,
    generated: str,
    ended: bool,
    prompt: str,
    by_words: bool = False,
    keep_names: bool = False,
) -> Row:
    """An item that the model answers in its own words.

    by_words: also by JaSQuAD's scores, which need their packages. keep_names: as the reference read answers.
    """
    gold = document["answers"]
    prediction = answers.first_line(generated, keep_names=keep_names)
    flags = answers.flags(generated, ended=ended, language=document["lang"], question=document["question"], gold=gold)
    return {
        **_about(document, id_, prompt),
        "answers": list(gold),
        "generated": generated,
        "prediction": prediction,
        "flags": flags,
        **answers.score_answer(prediction, gold),
        **(jasquad.score(prediction, gold) if by_words else {}),
    }


def other_row(document: Document, *, id_: str, scores: Mapping[str, Any], prompt: str, response: object) -> Row:
    """An item of a set that lm-eval counts by itself; only scores that are numbers are kept."""
    numbers = {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}
    return {**_about(document, id_, prompt), "response": response, **numbers}


def main_metric(rows: Sequence[Row], preferred: str | None = None) -> str:
    """The metric that a task's first column shows: the preferred, else the paper's, else the first that lm-eval gives."""
    metrics = metrics_of(rows)
    return next((name for name in (preferred, "acc", "char_f1", "exact_match") if name in metrics), metrics[0])


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """The metrics of a task's rows."""
    known = [name for name in (*CHOICE_METRICS, *GENERATION_METRICS) if name in rows[0]]
    others = [name for name in rows[0] if name not in known and name not in _NO_METRIC]
    return [*known, *sorted(others)]


def chance_of(rows: Sequence[Row]) -> float | None:
    """The share right by guessing, where there is something to guess among."""
    if "choices" not in rows[0]:
        return None
    return math.fsum(1 / len(row["choices"]) for row in rows) / len(rows)


def flag_shares(rows: Sequence[Row]) -> dict[str, float] | None:
    """The share of generated answers with each flag."""
    if "flags" not in rows[0]:
        return None
    return {name: sum(row["flags"][name] for row in rows) / len(rows) for name in answers.FLAGS}


_NO_METRIC = frozenset(
    "id cluster lang stem context prompt_sha256 labels choices answer prediction log_likelihoods unconditional tied "
    "answers generated flags response".split()
)


def _about(document: Document, id_: str, prompt: str) -> Row:
    question = document.get("question", "")
    return {
        "id": id_,
        "cluster": next((str(document[name]) for name in _CLUSTER_FIELDS if document.get(name) is not None), id_),
        "lang": document.get("lang"),
        "stem": question["stem"] if isinstance(question, dict) else str(document.get("premise") or question),
        "context": document.get("context") or "",
        "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
    }


def _per(log_likelihoods: Sequence[float], lengths: Sequence[int]) -> list[float]:
    return [value / length if length else -math.inf for value, length in zip(log_likelihoods, lengths, strict=True)]

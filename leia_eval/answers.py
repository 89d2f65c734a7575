"""From a generated text to its answer, its scores, and what is wrong with it.

Two scores. `exact_match`: equal after NFKC, case folding and without white space. `char_f1`: the Japanese sets' score,
llm-jp-eval's and LEIA's, which is fuzzywuzzy's token_sort_ratio after NFKC: U+0080 to U+00FF taken out, all but
letters, digits and underscores turned into spaces, lower case, the words sorted, then twice the matching characters
over all characters, in whole percent. fuzzywuzzy takes the matching blocks of difflib, as here; with
python-Levenshtein beside it it would count a longest common subsequence. Checked against fuzzywuzzy 0.18.0 itself:
equal on 20,000 random pairs. The best over all gold answers counts, which for NIILC and JEMHopQA is one.

The reference decoded answers without special tokens, LEIA's markers among them, and kept the name between them; here
the name goes with its markers, but in the reference profile.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

MARKERS = ("<translate>", "</translate>")
SCORES = ("exact_match", "char_f1")
FLAGS = ("wrong_script", "english_name", "marker", "no_end")
"""What is reported of generated answers, each as a share."""

_INSERTED_NAME = re.compile(r"<translate>(?:(?!<translate>).)*?</translate>", re.DOTALL)
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ]{2,}")
_NOT_WORD = re.compile(r"\W")
_SCRIPTS = {
    "ar": ("ARABIC",), "fa": ("ARABIC",), "ur": ("ARABIC",), "bg": ("CYRILLIC",), "ru": ("CYRILLIC",),
    "el": ("GREEK",), "hi": ("DEVANAGARI",), "ja": ("CJK", "HIRAGANA", "KATAKANA"), "ko": ("HANGUL",),
    "th": ("THAI",), "zh": ("CJK",),
}  # fmt: skip
"""The first words of the Unicode names of a language's letters; a language that is not here is written in Latin."""


def without_markers(text: str) -> str:
    """`text` as a reader would see it: an English name between LEIA's markers goes with them, a lone marker alone.

    >>> without_markers("東京<translate>Tokyo</translate>です<translate>")
    '東京です'
    """
    text = _INSERTED_NAME.sub("", text)
    for marker in MARKERS:
        text = text.replace(marker, "")
    return text


def exact_match(prediction: str, gold: str) -> float:
    """1 where the two are equal after NFKC, case folding and without white space."""
    return float(_squeezed(prediction) == _squeezed(gold))


def char_f1(prediction: str, gold: str) -> float:
    """The character F1 of llm-jp-eval 1.0 and of LEIA, from 0 to 1 in whole percent.

    >>> char_f1("福沢諭吉", "福沢 諭吉。"), char_f1("", "福沢")
    (0.89, 0.0)
    """
    return _token_sort_percent(*(unicodedata.normalize("NFKC", text) for text in (prediction, gold))) / 100


def score_answer(prediction: str, gold: Sequence[str]) -> dict[str, float]:
    """Both scores of an answer; the best over the gold ones."""
    return {
        "exact_match": max(exact_match(prediction, answer) for answer in gold),
        "char_f1": max(char_f1(prediction, answer) for answer in gold),
    }


def first_line(generated: str, *, keep_names: bool = False) -> str:
    """The answer in a generated text: its first line without markers, and without the names between them or with."""
    if keep_names:
        for marker in MARKERS:
            generated = generated.replace(marker, "")
    return without_markers(generated).split("\n")[0].strip()


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """What lm-eval calls, from the tasks' YAML."""
    return score_answer(first_line(results[0]), doc["answers"])


def flags(generated: str, *, ended: bool, language: str, question: str, gold: Sequence[str]) -> dict[str, bool]:
    """What is wrong with a generated answer.

    wrong_script: most letters are of another script than the language's, and those of a gold answer are not.
    english_name: a Latin word of two letters or more that is in no gold answer nor in the question; False for
    languages that are written in Latin, where it cannot be told. no_end: it was cut at the longest length.
    """
    answer = first_line(generated)
    known = " ".join([question, *gold]).casefold()
    scripts = _SCRIPTS.get(language)
    return {
        "wrong_script": _is_foreign(answer, scripts) and not any(_is_foreign(text, scripts) for text in gold),
        "english_name": scripts is not None
        and any(word.casefold() not in known for word in _LATIN_WORD.findall(unicodedata.normalize("NFKC", answer))),
        "marker": any(marker in generated for marker in MARKERS),
        "no_end": not ended,
    }


def _is_foreign(text: str, scripts: Sequence[str] | None) -> bool:
    letters = [unicodedata.name(char, "") for char in unicodedata.normalize("NFKC", text) if char.isalpha()]
    own = sum(name.startswith(tuple(scripts or ("LATIN",))) for name in letters)
    return 2 * own < len(letters)


def _squeezed(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def _token_sort_percent(first: str, second: str) -> int:
    a, b = (" ".join(sorted(_NOT_WORD.sub(" ", _plain(text)).lower().split())) for text in (first, second))
    if a == b:
        return 100
    return round(100 * SequenceMatcher(None, a, b).ratio()) if a and b else 0


def _plain(text: str) -> str:
    """fuzzywuzzy's ``force_ascii`` takes away U+0080 to U+00FF and nothing above."""
    return "".join(char for char in text if not "\x80" <= char <= "\xff")

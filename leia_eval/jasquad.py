"""From an answer and a gold one to the two scores of JaSQuAD, by which the reference scored JSQuAD and JAQKET.

The rule (the Stability harness's, and LEIA's own): emoji are taken out, neologdn normalises, white space is one space.
`jasquad_match` is 1 where the results are equal. `jasquad_f1` is the F1 of their bags of words, cut by MeCab with
unidic-lite (fugashi), without the words that are one punctuation character. The best over the gold answers counts, of
each score on its own. It is exact for equal versions of the four packages (LEIA had fugashi 1.3.0, unidic-lite 1.0.8,
neologdn 0.5.2, emoji 2.8.0); they are an extra, and without them the scores are left out, which results and report say.
"""

import functools
import importlib.util
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

SCORES = ("jasquad_match", "jasquad_f1")
PACKAGES = ("emoji", "fugashi", "neologdn", "unidic_lite")
INSTALL = "pip install 'leia-lm[japanese]'"

_EMOJI_BLOCKS = re.compile("[\U0001f1e6-\U0001f1ff\U0001f300-\U0001f64f\U0001f680-\U0001f6ff✂-➰]")
_PUNCTUATION = frozenset(
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
    + string.punctuation
)


def is_installed() -> bool:
    """Whether all packages are there."""
    return all(importlib.util.find_spec(package) is not None for package in PACKAGES)


def versions() -> dict[str, str]:
    """The packages' versions, which the scores depend on."""
    return {package: metadata.version(package) for package in PACKAGES}


def score(prediction: str, gold: Sequence[str]) -> dict[str, float]:
    """Both scores."""
    given = normalise(prediction)
    answers = [normalise(answer) for answer in gold]
    cut = _words()
    return {
        "jasquad_match": float(given in answers),
        "jasquad_f1": max(word_f1(cut(given), cut(answer)) for answer in answers),
    }


def normalise(text: str) -> str:
    """What two answers are compared as."""
    import emoji
    import neologdn

    plain = "".join(char for char in _EMOJI_BLOCKS.sub("", text) if not emoji.is_emoji(char))
    return " ".join(neologdn.normalize(plain).split())


def word_f1(given: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two bags of words without punctuation; 0 where they share none, as two empty answers do.

    >>> word_f1(["東京", "都", "。"], ["東京"])
    0.6666666666666666
    """
    bags = [Counter(word for word in words if word not in _PUNCTUATION) for words in (given, gold)]
    shared = (bags[0] & bags[1]).total()
    return 2 * shared / (bags[0].total() + bags[1].total()) if shared else 0.0


@functools.cache
def _words() -> Callable[[str], list[str]]:
    import fugashi
    import unidic_lite

    folder = Path(unidic_lite.DICDIR)  # named, or fugashi would take the large UniDic where that is installed too
    tagger = fugashi.Tagger(f'-Owakati -r "{folder / "mecabrc"}" -d "{folder}"')
    return lambda text: tagger.parse(text).split()

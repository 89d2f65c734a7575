"""From a name to whether it is held out of insertion, and from held-out names to where they leak all the same.

Which names are held out is a hash of the case-folded name, so all items of one name go together, names of
interlanguage templates too, and nothing depends on the order of anything.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from leia_beam.errors import UsageError

_WORD = re.compile(r"[0-9A-Za-zÀ-ÖØ-öø-ɏ]+|[^\W_0-9A-Za-zÀ-ÖØ-öø-ɏ]+")
"""Runs of Latin letters and digits, or of any others: "東京はTokyo" has two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holdout:
    """A share of all names, from 0 to 1, drawn by a seed."""

    share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UsageError(f"--holdout {self.share}: give a share from 0 to 1")

    def holds(self, name: str) -> bool:
        """Whether a name is held out.

        >>> Holdout(share=1.0).holds("Tokyo"), Holdout(share=0.0).holds("Tokyo")
        (True, False)
        """
        if not self.share:
            return False
        digest = hashlib.sha256(f"{self.seed}\0{folded(name)}".encode()).digest()
        return int.from_bytes(digest[:8]) < self.share * 2**64


def folded(name: str) -> str:
    """A name as it is compared: composed, without case, one space between words."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


class LeakFinder:
    """Finds held-out names, and their aliases, as whole words in other texts.

    >>> finder = LeakFinder(["New York", "Edo"])
    >>> list(finder.find("ニューヨーク(New York City)は、Edogawaとnew  york")), list(LeakFinder([]).find("Edo"))
    (['new york', 'new york'], [])
    """

    def __init__(self, names: Iterable[str]):
        self._by_first: dict[str, set[tuple[str, ...]]] = {}
        for name in names:
            words = _words(name)
            if words:
                self._by_first.setdefault(words[0], set()).add(words)
        self._longest = {first: max(map(len, names)) for first, names in self._by_first.items()}

    def __bool__(self) -> bool:
        return bool(self._by_first)

    def find(self, text: str) -> Iterator[str]:
        """Each occurrence: the longest name that begins at a word."""
        if not self._by_first:
            return
        words = _words(text)
        for at, word in enumerate(words):
            names = self._by_first.get(word)
            if names is None:
                continue
            for length in range(min(self._longest[word], len(words) - at), 0, -1):
                if words[at : at + length] in names:
                    yield " ".join(words[at : at + length])
                    break


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(folded(text)))

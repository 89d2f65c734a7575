"""What any backend does for the rest: log-likelihoods of given token ids, and greedy texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Written:
    """A generated text up to its end. `ended`: the model ended it, by EOS or a stop string, within the length."""

    text: str
    ended: bool


class ScoringModel(Protocol):
    """What answers requests, given as token ids."""

    parameters: int | None
    computed_dtype: str

    def log_likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Of each continuation after its context."""

    def generate(self, contexts: Sequence[list[int]], until: Sequence[str], max_new_tokens: int) -> list[Written]:
        """The greedy text after each context."""

"""From the rows of a shard to what people ask of it: tokens, names, lengths, and how much insertion would add."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PROBABILITIES = (0.5, 1.0)
MARKER_TOKENS = 2
"""Tokens of the two markers around a name, where they are one token each."""
_SUMMED = ("articles", "tokens", "characters", "names", "names_cut_otherwise_alone", "name_tokens")


@dataclass(kw_only=True)
class ShardStatistics:
    """Sums over the rows of a shard."""

    articles: int = 0
    tokens: int = 0
    """Of texts, with what stands before and behind them."""
    characters: int = 0
    """Of the texts that became those tokens."""
    names: int = 0
    names_cut_otherwise_alone: int = 0
    """Names that would be cut into other pieces if they were encoded alone."""
    name_tokens: int = 0
    """Of names, without markers."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of each article."""

    def as_json(self) -> dict[str, Any]:
        """What the commit record and the manifest hold: sums that can be added up, and shares of this shard alone."""
        sums = {name: getattr(self, name) for name in _SUMMED}
        ordered = sorted(self.lengths)
        return {
            **sums,
            **shares(sums),
            "length_histogram": histogram(ordered),
            "shortest": ordered[0] if ordered else 0,
            "median": ordered[len(ordered) // 2] if ordered else 0,
            "longest": ordered[-1] if ordered else 0,
        }


def shares(sums: Mapping[str, int]) -> dict[str, Any]:
    """Tokens a character, names that are cut otherwise alone, and the share of inserted tokens by insertion probability."""
    return {
        "tokens_per_character": _share(sums["tokens"], sums["characters"]),
        "share_of_names_cut_otherwise_alone": _share(sums["names_cut_otherwise_alone"], sums["names"]),
        "inserted_token_share": {f"{p:g}": inserted_share(sums, p) for p in PROBABILITIES},
    }


def inserted_share(sums: Mapping[str, int], probability: float) -> float:
    """The share of a row's tokens that are inserted, markers among them, if each name is with this probability.

    >>> inserted_share({"tokens": 100, "name_tokens": 10, "names": 5}, 0.5)
    0.090909
    """
    inserted = probability * (sums["name_tokens"] + MARKER_TOKENS * sums["names"])
    return _share(inserted, sums["tokens"] + inserted)


def histogram(lengths: Iterable[int]) -> dict[str, int]:
    """How many lengths are at most a power of two and more than the one before it, by that power.

    >>> histogram([1, 2, 3, 4, 5])
    {'1': 1, '2': 1, '4': 2, '8': 1}
    """
    counts = Counter(1 << max(0, length - 1).bit_length() for length in lengths)
    return {str(power): counts[power] for power in sorted(counts)}


def total(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The statistics of all shards together; no median, which sums do not give."""
    sums = {name: sum(shard[name] for shard in shards) for name in _SUMMED}
    counts: Counter[str] = Counter()
    for shard in shards:
        counts.update(shard["length_histogram"])
    filled = [shard for shard in shards if shard["articles"]]
    return {
        **sums,
        **shares(sums),
        "length_histogram": dict(sorted(counts.items(), key=lambda item: int(item[0]))),
        "shortest": min((shard["shortest"] for shard in filled), default=0),
        "longest": max((shard["longest"] for shard in filled), default=0),
    }


def _share(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0

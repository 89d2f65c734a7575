"""From per-item scores of one run or two to intervals, p values and what a set of this size can show.

Numpy and the standard library only. A single score gets Wilson's interval, which holds near 0 and 1 and for small n;
a difference of two runs on the same items gets a bootstrap over items and McNemar's exact test, since both runs find
the same items hard (for gains of 1 to 4 points on 300 to 1,000 items the unpaired test sees next to nothing).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
ALPHA = 0.05
POWER = 0.80
RESAMPLES = 10_000
_RESAMPLES_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Two runs on the same n items; `difference` is other minus base, `low` to `high` its 95 % interval."""

    n: int
    base: float
    other: float
    difference: float
    low: float
    high: float
    p_mcnemar: float
    only_base: int
    only_other: int
    detectable: float | None


def wilson_interval(correct: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval for a share of `correct` out of `n`."""
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} correct of {n} items is no share")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    low = 0.0 if correct == 0 else centre - half  # the formula gives these two up to rounding
    high = 1.0 if correct == n else centre + half
    return low, high


def paired_bootstrap(
    base: np.ndarray, other: np.ndarray, *, seed: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Percentile interval of mean(other - base) under resampling of items with replacement.

    A resample is drawn as multinomial counts over the distinct differences: the same distribution as drawing n items,
    at three columns for right/wrong scores instead of n.
    """
    differences = _paired(other) - _paired(base, like=other)
    n = len(differences)
    values, counts = np.unique(differences, return_counts=True)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        part = means[start : start + _RESAMPLES_AT_ONCE]
        part[:] = generator.multinomial(n, counts / n, size=len(part)) @ values / n
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def mcnemar_exact(only_base: int, only_other: int) -> float:
    """Two-sided exact p of McNemar's test: a fair coin over the items that only one of two runs got right.

    >>> mcnemar_exact(1, 9)
    0.021484375
    """
    discordant = only_base + only_other
    smaller = min(only_base, only_other)
    ways = sum(math.comb(discordant, i) for i in range(smaller + 1))
    return min(1.0, float(2 * ways / 2**discordant))


def detectable_difference(n: int, discordant: int, *, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """The least true difference that McNemar's test finds with this power on n items; None where no difference is.

    Connor (1987) for a share d of discordant items: n D^2 = (z_alpha sqrt(d) + z_power sqrt(d - D^2))^2. A difference
    cannot exceed d; where the observed d is too small for any, the least is the one with every discordant item on one
    side, D = d.
    """
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)

    def surplus(difference: float, share: float) -> float:
        spread = math.sqrt(max(share - difference * difference, 0.0))
        return float(difference * math.sqrt(n) - z_alpha * math.sqrt(share) - z_power * spread)

    share = discordant / n
    if surplus(share, share) >= 0 and share > 0:
        return _root(lambda difference: surplus(difference, share), share)
    if surplus(1.0, 1.0) < 0:
        return None
    return _root(lambda difference: surplus(difference, difference), 1.0)


def compare_items(base: np.ndarray, other: np.ndarray, *, seed: int) -> PairedComparison:
    """All of the above for two runs' right (1) and wrong (0) over the same items in the same order."""
    base, other = _paired(base), _paired(other, like=base)
    if not set(np.unique(np.concatenate([base, other]))) <= {0.0, 1.0}:
        raise ValueError("scores must be 0 or 1")
    only_base, only_other = int(np.sum(base > other)), int(np.sum(other > base))
    low, high = paired_bootstrap(base, other, seed=seed)
    return PairedComparison(
        n=len(base),
        base=float(base.mean()),
        other=float(other.mean()),
        difference=(only_other - only_base) / len(base),
        low=low,
        high=high,
        p_mcnemar=mcnemar_exact(only_base, only_other),
        only_base=only_base,
        only_other=only_other,
        detectable=detectable_difference(len(base), only_base + only_other),
    )


def _paired(scores: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    array = np.asarray(scores, dtype=float)
    if array.ndim != 1 or len(array) == 0 or (like is not None and len(array) != len(like)):
        raise ValueError("two runs to compare must have one score for each of the same items, and at least one item")
    return array


def _root(increasing: Callable[[float], float], high: float) -> float:
    """Where a function that rises through 0 on (0, high] does so."""
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < 0 else (low, middle)
    return high

"""From the counters of a build's stages to the funnel: pages → articles → anchors → resolved → named → aligned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leia_beam.alignment import UNALIGNED
from leia_beam.entity_names import UNRESOLVED


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """What is left after a step, and what was dropped on the way to it, by reason."""

    name: str
    count: int
    dropped: Mapping[str, int]


def funnel(articles: Mapping[str, int], shards: Mapping[str, int]) -> list[FunnelStep]:
    """The steps from the counters of the stages `articles` and `shards`."""
    anchors_dropped = _reasons(shards, "anchors/filtered/")
    unresolved = {reason: n for reason, n in anchors_dropped.items() if reason in UNRESOLVED}
    unaligned = {reason: n for reason, n in anchors_dropped.items() if reason in UNALIGNED}
    unnamed = {
        reason: n for reason, n in anchors_dropped.items() if reason not in unresolved and reason not in unaligned
    }
    anchors = shards.get("anchors/read", 0)
    resolved = anchors - sum(unresolved.values())
    named = resolved - sum(unnamed.values())
    return [
        FunnelStep("pages", articles.get("pages/read", 0), {}),
        FunnelStep(
            "articles",
            articles.get("pages/emitted/article", 0),
            {
                **_reasons(articles, "pages/filtered/"),
                "redirect": articles.get("pages/emitted/redirect", 0),
                **{f"rejected: {reason}": n for reason, n in _reasons(articles, "pages/rejected/").items()},
            },
        ),
        FunnelStep("articles in shards", shards.get("articles/emitted", 0), _reasons(shards, "articles/filtered/")),
        FunnelStep("anchors", anchors, {}),
        FunnelStep("resolved", resolved, unresolved),
        FunnelStep("with a name", named, unnamed),
        FunnelStep("aligned to tokens", shards.get("anchors/emitted", 0), unaligned),
    ]


def funnel_lines(steps: Sequence[FunnelStep]) -> list[str]:
    """The funnel as text: one line a step, with what was dropped before it."""
    width = max(len(f"{step.count:,}") for step in steps)
    lines = []
    for step in steps:
        dropped = ", ".join(
            f"{reason} {n:,}" for reason, n in sorted(step.dropped.items(), key=lambda item: -item[1]) if n
        )
        lines.append(f"  {step.name:<18} {step.count:>{width},}" + (f"   (dropped: {dropped})" if dropped else ""))
    return lines


def _reasons(counters: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in counters.items() if name.startswith(prefix)}

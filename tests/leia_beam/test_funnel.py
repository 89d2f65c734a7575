"""funnel: from two stages' counters to the steps from pages to aligned names, with what was dropped at each."""

from __future__ import annotations

from leia_beam.alignment import UNALIGNED
from leia_beam.entity_names import UNRESOLVED
from leia_beam.funnel import FunnelStep, funnel, funnel_lines

ARTICLES = {
    "pages/read": 1000,
    "pages/emitted/article": 600,
    "pages/emitted/redirect": 200,
    "pages/filtered/other namespace": 190,
    "pages/filtered/other content model": 4,
    "pages/rejected/no title": 6,
}
SHARDS = {
    "articles/read": 600,
    "articles/emitted": 550,
    "articles/filtered/no link": 50,
    "anchors/read": 5000,
    "anchors/emitted": 3000,
    "anchors/filtered/missing page": 700,
    "anchors/filtered/section": 100,
    "anchors/filtered/no sitelink": 900,
    "anchors/filtered/refused name": 200,
    "anchors/filtered/no token": 60,
    "anchors/filtered/token shared with the anchor before": 40,
}


def test_the_steps_are_in_order_and_add_up():
    """What is left at a step and what was dropped before it make what was there."""
    steps = funnel(ARTICLES, SHARDS)
    assert steps == [
        FunnelStep("pages", 1000, {}),
        FunnelStep(
            "articles",
            600,
            {"other namespace": 190, "other content model": 4, "redirect": 200, "rejected: no title": 6},
        ),
        FunnelStep("articles in shards", 550, {"no link": 50}),
        FunnelStep("anchors", 5000, {}),
        FunnelStep("resolved", 4200, {"missing page": 700, "section": 100}),
        FunnelStep("with a name", 3100, {"no sitelink": 900, "refused name": 200}),
        FunnelStep("aligned to tokens", 3000, {"no token": 60, "token shared with the anchor before": 40}),
    ]
    for before, after in ((0, 1), (1, 2), (3, 4), (4, 5), (5, 6)):
        assert steps[before].count == steps[after].count + sum(steps[after].dropped.values())


def test_every_reason_has_its_step():
    """Reasons that lead to no page, reasons of tokens, and all others are of the step between."""
    reasons = [*UNRESOLVED, *UNALIGNED, "something new"]
    steps = funnel({}, {f"anchors/filtered/{reason}": 1 for reason in reasons} | {"anchors/read": len(reasons)})
    assert [set(step.dropped) for step in steps[4:]] == [set(UNRESOLVED), {"something new"}, set(UNALIGNED)]
    assert [step.count for step in steps[3:]] == [12, 7, 6, 0]


def test_the_lines_have_the_largest_loss_first():
    """Counts with thousands, aligned; reasons that never came up are left out."""
    steps = [FunnelStep("pages", 12345, {}), FunnelStep("articles", 7, {"few": 2, "many": 12000, "none": 0})]
    assert funnel_lines(steps) == [
        "  pages              12,345",
        "  articles                7   (dropped: many 12,000, few 2)",
    ]


def test_a_build_of_nothing_has_a_funnel_of_zeros():
    """No counter at all."""
    assert [step.count for step in funnel({}, {})] == [0] * 7

"""From a build's statistics to one self-contained page: funnel, reasons, names, lengths, what was left out, rejects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leia_beam.funnel import FunnelStep
from leia_beam.html_bars import Bar, bars, count_bars, percent, short_count
from leia_beam.html_pages import Html, Number, Prose, bullets, callout, element, page, section, table, text_in, tiles
from leia_beam.stats import PAGE_STEPS, BuildStats
from leia_beam.wikis import label_language

KIND = "LEIA · statistics of a corpus"
MAX_REASONS = 6
MAX_SHARDS = 50
MAX_REJECTS = 20


def stats_page(stats: BuildStats) -> str:
    """The page. Nothing in it is loaded from anywhere."""
    language = label_language(stats.wiki)
    return page(
        f"{stats.wiki}: what became of its links",
        _overview(stats),
        *(callout("Warning", warning) for warning in stats.warnings),
        section("From pages to links with a name", funnel_bars(stats.funnel)),
        element(
            "div",
            *(
                *_counted("Names by language", stats.name_languages),
                *_counted("Names by source", stats.name_sources),
                *_counted("Titles of the wiki", stats.titles),
                *_counted("Redirects of the wiki", stats.redirects),
                *_lengths(stats.tokens),
                *_insertion(stats.tokens),
            ),
            class_="columns",
        ),
        *_missed(stats, language),
        element("div", *(_dropped(kind, names, language) for kind, names in stats.dropped.items()), class_="grid top"),
        *_rejects(stats),
        *_besides(stats.others),
        *_shards(stats.shards),
        kind=KIND,
    )


def _overview(stats: BuildStats) -> Html:
    tokens = stats.tokens
    steps = {step.name: step.count for step in stats.funnel}
    links, names = steps.get("anchors", 0), steps.get("aligned to tokens", 0)
    return tiles(
        [
            ("articles", short_count(tokens["articles"])),
            ("tokens", short_count(tokens["tokens"])),
            ("tokens a character", f"{tokens['tokens_per_character']:.3f}"),
            ("links", short_count(links)),
            ("with a name", short_count(names)),
            ("share of links", percent(names / links) if links else "–"),
        ]
    )


def funnel_bars(steps: Sequence[FunnelStep]) -> Html:
    """A bar a step: of those that count pages by the pages that were read, of the others by the links."""
    pages = max((step.count for step in steps if step.name in PAGE_STEPS), default=0) or 1
    links = max((step.count for step in steps if step.name not in PAGE_STEPS), default=0) or 1
    return bars((_step(step, pages if step.name in PAGE_STEPS else links) for step in steps), long=True)


def _step(step: FunnelStep, whole: int) -> Bar:
    reasons = sorted(((reason, n) for reason, n in step.dropped.items() if n), key=lambda item: (-item[1], item[0]))
    shown = [f"{reason} {n:,}" for reason, n in reasons[:MAX_REASONS]]
    more = sum(n for _, n in reasons[MAX_REASONS:])
    shown += [f"other reasons {more:,}"] if more else []
    share = step.count / whole
    return Bar(
        label=step.name,
        count=f"{step.count:,}",
        length=share,
        share=percent(share),
        note=f"dropped before it: {', '.join(shown)}" if shown else "",
    )


def _counted(heading: str, counts: Mapping[str, int]) -> Iterable[Html]:
    if counts:
        yield section(heading, count_bars(list(counts.items())))


def _lengths(tokens: Mapping[str, Any]) -> Iterable[Html]:
    histogram: Mapping[str, int] = tokens["length_histogram"]
    if not histogram:
        return
    counts = [(f"up to {int(power):,}", count) for power, count in histogram.items()]
    about = f"From {tokens['shortest']:,} to {tokens['longest']:,} tokens an article."
    yield section("Lengths of articles in tokens", element("p", about, class_="soft"), count_bars(counts))


def _insertion(tokens: Mapping[str, Any]) -> Iterable[Html]:
    if not tokens["names"]:
        return
    largest = max(tokens["inserted_token_share"].values()) or 1
    shares = bars(
        Bar(label=f"each with probability {p}", count=percent(share), length=share / largest)
        for p, share in tokens["inserted_token_share"].items()
    )
    about = (
        f"{tokens['names']:,} names of {tokens['name_tokens']:,} tokens, "
        f"{tokens['name_tokens'] / tokens['names']:.1f} a name; "
        f"{percent(tokens['share_of_names_cut_otherwise_alone'])} of them would be cut otherwise alone. "
        "The share of a row's tokens that insertion adds, two markers a name among them:"
    )
    yield section("What insertion adds", element("p", about, class_="soft"), shares)


def _missed(stats: BuildStats, language: str) -> Iterable[Html]:
    if not stats.missed:
        return
    rows = [[text_in(language, each.target), each.reason, f"{each.links:,}"] for each in stats.missed]
    yield section(
        "Targets most missed",
        element("p", "What links most often lead to without getting a name.", class_="soft"),
        table("Targets most missed", ["target", "why", Number("links")], rows),
    )


def _dropped(kind: str, names: Sequence[tuple[str, int]], language: str) -> Html:
    heading = f"Most frequent of dropped {kind}"
    rows = [[text_in(language, name), f"{count:,}"] for name, count in names]
    return section(heading, table(heading, ["name", Number("times")], rows))


def _rejects(stats: BuildStats) -> Iterable[Html]:
    if not stats.rejects:
        yield section("Rejects", element("p", "Every record of the inputs could be read.", class_="soft"))
        return
    columns = [*("reason", "stage", "file", "record"), Number("byte"), Prose("begins")]
    rows = [
        [
            sample["reason"],
            sample["stage"],
            sample["file"] or "–",
            sample["id"] or "–",
            "–" if sample["byte"] is None else f"{sample['byte']:,}",
            sample["first_bytes"],
        ]
        for sample in stats.reject_samples[:MAX_REJECTS]
    ]
    yield section("Rejects", count_bars(list(stats.rejects.items())), table("Some of the rejects", columns, rows))


def _besides(others: Mapping[str, int]) -> Iterable[Html]:
    if others:
        yield section("Besides", bullets(f"{name}: {count:,}" for name, count in others.items()))


def _shards(shards: Sequence[Mapping[str, Any]]) -> Iterable[Html]:
    if not shards:
        return
    names = ["articles", "tokens", "characters", "names", "shortest", "median", "longest"]
    rows = [
        [str(number), *(f"{shard[name]:,}" for name in names), f"{shard['tokens_per_character']:.3f}"]
        for number, shard in enumerate(shards[:MAX_SHARDS])
    ]
    columns = ["shard", *(Number(name) for name in (*names, "tokens a character"))]
    more = f", the first {MAX_SHARDS} of {len(shards):,}" if len(shards) > MAX_SHARDS else ""
    yield section(f"Shards{more}", table("Statistics of the shards", columns, rows))

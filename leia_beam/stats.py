"""From a finished build to what became of its links: the funnel by reason, the targets most missed, names by language.

Counts are those of the manifests. Missed targets are found again: the distinct links of each file of articles are looked
up in the entity table, so links that have a name but no token of their own are not among them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from leia_beam.funnel import FunnelStep, funnel, funnel_lines
from leia_beam.linking import LinkRules, link_anchor
from leia_beam.lookup import EntityLookup
from leia_beam.manifest import MANIFEST_NAME, Manifest, read_manifest
from leia_beam.shard_statistics import total
from leia_beam.siteinfo import siteinfo_from_json, wiki_with
from leia_beam.terminal_text import printable
from leia_beam.validate import STAGES

_LINK_COLUMNS = ("target", "fragment", "kind", "foreign_wiki", "foreign_title")
_OTHERS = ("titles without", "redirects with", "names equal", "mentions/", "leaks/")
_BAR_WIDTH, _ROW_HEIGHT = 420, 44
PAGE_STEPS = ("pages", "articles", "articles in shards")
"""The steps of the funnel that count pages; the others count links."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MissedTarget:
    """A target whose links have no name: how many they are, and why."""

    target: str
    reason: str
    links: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildStats:
    """What became of the links of a build. Counters by what they count; shares are of all anchors that were read."""

    wiki: str
    funnel: Sequence[FunnelStep]
    missed: Sequence[MissedTarget]
    name_languages: Mapping[str, int]
    name_sources: Mapping[str, int]
    titles: Mapping[str, int]
    """What became of the wiki's titles, and of its redirects, by outcome."""
    redirects: Mapping[str, int]
    tokens: Mapping[str, Any]
    """Tokens, names, lengths of all shards together; see shard_statistics."""
    shards: Sequence[Mapping[str, Any]]
    """The same of each shard."""
    others: Mapping[str, int]
    """Titles without a page, redirects with an item, names equal to their anchors, later mentions, leaks of held-out names."""
    rejects: Mapping[str, int] = field(default_factory=dict)
    """Records that could not be read, by stage, kind and reason."""
    reject_samples: Sequence[Mapping[str, Any]] = ()
    """Some of them, each with its stage and where it stands."""
    warnings: Sequence[str] = ()
    """What the stages found odd in their inputs, each with its stage."""
    dropped: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    """What was left out of texts most often, by kind (templates, end matter), then by name."""


def build_stats(folder: str, top: int) -> BuildStats:
    """The statistics of a finished build, with the `top` targets most missed.

    Raises: UsageError where a stage is not finished.
    """
    articles, entities, shards = (read_manifest(f"{folder}/{stage}") for stage in ("articles", "entities", "shards"))
    redirects = read_manifest(f"{folder}/entities/_redirects")
    stages = {
        stage: read_manifest(f"{folder}/{stage}")
        for stage in STAGES
        if os.path.isfile(f"{folder}/{stage}/{MANIFEST_NAME}")
    }
    languages, sources = _names(folder, shards)
    return BuildStats(
        wiki=entities.options["wiki"],
        funnel=funnel(articles.counters, shards.counters),
        missed=_missed(folder, articles, entities, shards, top),
        name_languages=languages,
        name_sources=sources,
        titles=_outcomes(entities.counters, "titles/emitted/"),
        redirects=_outcomes(redirects.counters, "redirects/emitted/"),
        tokens=total(shards.details.get("statistics", [])),
        shards=shards.details.get("statistics", []),
        others={
            name: count
            for counters in (entities.counters, redirects.counters, shards.counters)
            for name, count in counters.items()
            if name.startswith(_OTHERS)
        },
        rejects=_by_count(
            {
                f"{stage}: {name.replace('/rejected/', ', ')}": count
                for stage, manifest in stages.items()
                for name, count in manifest.counters.items()
                if "/rejected/" in name and count
            }
        ),
        reject_samples=[
            {"stage": stage, **sample} for stage, manifest in stages.items() for sample in manifest.reject_samples
        ],
        warnings=[f"{stage}: {warning}" for stage, manifest in stages.items() for warning in manifest.warnings],
        dropped={
            kind: [(name, count) for name, count in names[:top]]
            for kind, names in articles.details.get("most_frequent", {}).items()
        },
    )


def _outcomes(counters: Mapping[str, int], prefix: str) -> dict[str, int]:
    found = {name.removeprefix(prefix): count for name, count in counters.items() if name.startswith(prefix)}
    return _by_count(found)


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _names(folder: str, shards: Manifest) -> tuple[dict[str, int], dict[str, int]]:
    """How many inserted names are of each language, and of each source."""
    found: dict[str, Counter[str]] = {"entity_name_languages": Counter(), "entity_name_sources": Counter()}
    for file in shards.files_of("train"):
        with pq.ParquetFile(f"{folder}/shards/{file.path}") as parquet:
            for batch in parquet.iter_batches(1024, columns=list(found)):
                for name, counter in found.items():
                    counter.update(batch.column(name).flatten().to_pylist())
    languages, sources = (_by_count(counter) for counter in found.values())
    return languages, sources


def _missed(folder: str, articles: Manifest, entities: Manifest, shards: Manifest, top: int) -> list[MissedTarget]:
    lookup = EntityLookup(f"{folder}/entities")
    wiki = wiki_with(entities.options["wiki"], siteinfo_from_json(articles.options["siteinfo"]))
    rules = replace(LinkRules.from_options(shards.options["links"]), skip_equal=False)
    missed: Counter[tuple[str, str]] = Counter()
    for file in articles.files_of("articles"):
        for link, count in _distinct_links(f"{folder}/articles/{file.path}"):
            linked = link_anchor(link, lookup, wiki, entities.options["name_wikis"], rules)
            if linked.name is None:
                missed[link["target"] or link["foreign_title"] or "", linked.reason or ""] += count
    ordered = sorted(missed.items(), key=lambda item: (-item[1], item[0]))
    return [MissedTarget(target=target, reason=reason, links=count) for (target, reason), count in ordered[:top]]


def _distinct_links(path: str) -> list[tuple[dict[str, Any], int]]:
    """The different links of a file of articles, and how often each stands there."""
    with pq.ParquetFile(path) as parquet:
        pieces = [batch.column("anchors").flatten() for batch in parquet.iter_batches(1024, columns=["anchors"])]
    columns = {name: pa.chunked_array([piece.field(name) for piece in pieces], pa.string()) for name in _LINK_COLUMNS}
    grouped = pa.table(columns).group_by(list(_LINK_COLUMNS)).aggregate([([], "count_all")])
    return [({name: row[name] for name in _LINK_COLUMNS}, row["count_all"]) for row in grouped.to_pylist()]


def stats_lines(stats: BuildStats) -> list[str]:
    """The statistics as text."""
    lines = [f"{stats.wiki}: what became of its links", *funnel_lines(stats.funnel)]
    for heading, counts in (
        ("titles", stats.titles),
        ("redirects", stats.redirects),
        ("inserted names by language", stats.name_languages),
        ("inserted names by source", stats.name_sources),
        ("besides", stats.others),
        ("rejected", stats.rejects),
        *((f"{kind} dropped most", dict(names)) for kind, names in stats.dropped.items()),
    ):
        if counts:
            width = max(len(f"{count:,}") for count in counts.values())
            lines += ["", heading, *(f"  {count:>{width},}  {printable(name)}" for name, count in counts.items())]
    lines += ["", "tokens", *(f"  {line}" for line in _token_lines(stats.tokens))]
    if stats.missed:
        width = max(len(f"{missed.links:,}") for missed in stats.missed)
        lines += ["", "targets most missed"]
        lines += [f"  {each.links:>{width},}  {printable(each.target)}  ({each.reason})" for each in stats.missed]
    return lines


def _token_lines(tokens: Mapping[str, Any]) -> list[str]:
    inserted = ", ".join(f"{share:.2%} at probability {p}" for p, share in tokens["inserted_token_share"].items())
    lengths = ", ".join(f"≤{int(power):,}: {count:,}" for power, count in tokens["length_histogram"].items())
    return [
        f"{tokens['tokens']:,} tokens of {tokens['characters']:,} characters, {tokens['tokens_per_character']:.3f} a character",
        f"{tokens['names']:,} names of {tokens['name_tokens']:,} tokens; "
        f"{tokens['share_of_names_cut_otherwise_alone']:.1%} would be cut otherwise alone",
        f"inserted, with two markers a name: {inserted}",
        f"tokens an article, {tokens['shortest']:,} to {tokens['longest']:,}: {lengths}",
    ]


def stats_json(stats: BuildStats) -> str:
    """The statistics as JSON."""
    return json.dumps(asdict(stats), ensure_ascii=False, indent=1) + "\n"


def stats_picture(stats: BuildStats) -> str:
    """The funnel as SVG: a bar a step, each as long as its share of the largest count of its kind."""
    steps = list(stats.funnel)
    pages = max((step.count for step in steps if step.name in PAGE_STEPS), default=1) or 1
    links = max((step.count for step in steps if step.name not in PAGE_STEPS), default=1) or 1
    height = _ROW_HEIGHT * len(steps) + 50
    rows = []
    for number, step in enumerate(steps):
        y = 40 + _ROW_HEIGHT * number
        whole = pages if step.name in PAGE_STEPS else links
        color = "#8a8f98" if step.name in PAGE_STEPS else "#2f6f9f"
        dropped = ", ".join(f"{reason} {count:,}" for reason, count in _by_count(step.dropped).items() if count)
        rows += [
            f'<text x="170" y="{y + 15}" text-anchor="end">{escape(step.name)}</text>',
            f'<rect x="180" y="{y}" width="{max(1, round(_BAR_WIDTH * step.count / whole))}" height="20" fill="{color}"/>',
            f'<text x="{190 + _BAR_WIDTH}" y="{y + 15}">{step.count:,}</text>',
            f'<text x="180" y="{y + 33}" class="dropped">{escape(("dropped: " + dropped) if dropped else "")}</text>',
        ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_BAR_WIDTH + 300} {height}" role="img">',
            "<style>text{font:13px sans-serif;fill:#222}.dropped{font-size:10px;fill:#777}</style>",
            f'<rect width="100%" height="100%" fill="#fff"/><text x="20" y="24">{escape(stats.wiki)}: pages and links</text>',
            *rows,
            "</svg>\n",
        ]
    )

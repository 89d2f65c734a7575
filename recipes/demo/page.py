"""From the demo's results to one self-contained HTML page: funnel, articles with their names, losses, scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from leia_beam.funnel import funnel
from leia_beam.html_pages import Html, Number, bullets, element, joined, page, section, table
from leia_beam.manifest import Manifest, read_manifest
from leia_beam.stats_html import funnel_bars
from leia_beam.svg_charts import Curve, curves_chart, interval_svg
from leia_beam.tables import read_rows
from leia_beam.wikis import direction_of, label_language

ARTICLES_SHOWN = {"jawiki": ("東京", "アポロ11号"), "eswiki": ("Madrid",)}
MAX_TOKENS_SHOWN = 220


def demo_page(
    *,
    builds: Mapping[str, Path],
    metrics: Mapping[str, Sequence[Mapping[str, float]]],
    scores: Mapping[str, Path],
    comparison: Path,
    commands: Sequence[str],
    elapsed_s: float,
) -> str:
    """The page as HTML. `builds` maps a wiki to its build's folder; `metrics` an arm to its steps, `scores` to its folder."""
    results = {arm: json.loads((folder / "results.json").read_bytes()) for arm, folder in scores.items()}
    return page(
        "LEIA, end to end",
        section("What became of the links", *(_funnel(wiki, folder) for wiki, folder in builds.items())),
        element(
            "section",
            element("h2", "Three articles as the model reads them"),
            _key(),
            *(_article(builds[wiki], wiki, title) for wiki, titles in ARTICLES_SHOWN.items() for title in titles),
        ),
        section("Training", _losses(metrics)),
        _scores(results),
        section("The two models, item by item", _links(scores, comparison)),
        _comparison(scores, comparison),
        section("How to do this yourself", *(element("pre", command) for command in commands)),
        kind="LEIA · demo",
        is_text=True,
        lede="Two small wikis and a Wikidata, from dumps to shards, two tiny models from random weights, and their scores, in "
        f"{elapsed_s:.0f} seconds on this machine.",
    )


def _funnel(wiki: str, folder: Path) -> Html:
    steps = funnel(read_manifest(folder / "articles").counters, read_manifest(folder / "shards").counters)
    return element("div", element("h3", wiki), funnel_bars(steps))


def _key() -> Html:
    return element(
        "p",
        "Each box is a token. A ",
        element("span", element("span", "link", class_="t"), class_="link"),
        " is followed by the English name of its entity, between two markers: ",
        _name([element("span", "Name", class_="t")]),
        ". In training a name is inserted with probability ½; here all are.",
        class_="soft",
    )


def _name(tokens: Iterable[Html]) -> Html:
    start, end = (element("span", marker, class_="m") for marker in ("<translate>", "</translate>"))
    return element("span", start, *tokens, end, class_="name", lang="en")


def _article(build: Path, wiki: str, title: str) -> Html:
    shards = build / "shards"
    manifest = read_manifest(shards)
    tokenizer = Tokenizer.from_file(str(shards / manifest.details["tokenizer"]["path"]))
    row = _row_of(shards, manifest, title)
    language, direction = label_language(wiki), direction_of(wiki)
    return element(
        "article",
        element("h3", title, lang=language, dir=direction),
        element("div", *_pieces(row, tokenizer), " …", class_="text read", lang=language, dir=direction),
        class_="card",
    )


def _row_of(shards: Path, manifest: Manifest, title: str) -> dict[str, Any]:
    for file in manifest.files_of("train"):
        for row in read_rows(str(shards / file.path)):
            if row["title"] == title:
                return row
    raise LookupError(f"{shards}: no article {title!r}")


def _pieces(row: Mapping[str, Any], tokenizer: Tokenizer) -> Iterator[Html]:
    """The first tokens of an article with the names inserted after their anchors, as HTML."""
    ids, at = row["input_ids"], 0
    spans = zip(
        row["entity_start_positions"],
        row["entity_end_positions"],
        row["alternative_entity_input_ids"],
        row["entity_edges"],
        strict=True,
    )
    for start, end, name_ids, edge in spans:
        if end > MAX_TOKENS_SHOWN:
            break
        if "end refused" in edge:
            continue
        yield from _tokens(ids[at:start], tokenizer)
        yield element("span", *_tokens(ids[start:end], tokenizer), class_="link")
        yield _name(_tokens(name_ids, tokenizer))
        at = end
    yield from _tokens(ids[at : max(at, MAX_TOKENS_SHOWN)], tokenizer)


def _tokens(ids: Sequence[int], tokenizer: Tokenizer) -> Iterator[Html]:
    """Each token as a span; tokens that are parts of one character are shown together."""
    pending: list[int] = []
    for token_id in ids:
        pending.append(token_id)
        text = tokenizer.decode(pending, skip_special_tokens=False)
        if "\ufffd" in text:
            continue
        yield element("span", text, class_="t") if text.strip("\n") else joined([text])
        pending.clear()


def _losses(metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> Html:
    curves = [
        Curve(name=arm, points=[(row["step"], row["loss"]) for row in rows], colour=colour)
        for colour, (arm, rows) in enumerate(metrics.items(), start=1)
    ]
    return curves_chart("Loss", "nats a token, by step", curves)


def _scores(results: Mapping[str, Mapping[str, Any]]) -> Html:
    rows = [
        [
            arm,
            task["name"],
            str(task["n"]),
            f"{100 * score['value']:.1f} %",
            f"{100 * score['low']:.1f} to {100 * score['high']:.1f}",
            interval_svg(score["low"], score["value"], score["high"], mark=task["chance"], span=(0.0, 1.0)),
            f"{100 * task['chance']:.1f} %",
        ]
        for arm, result in results.items()
        for task, score in ((task, task["scores"]["acc"]) for task in result["tasks"])
    ]
    columns = ["arm", "task", Number("items"), Number("accuracy"), Number("95 % interval"), "0 to 100 %, chance marked"]
    about = (
        "A model of this size, trained for seconds from random weights, knows nothing: expect chance. The intervals say "
        "how little so few items can tell."
    )
    return section("Scores", table("Scores", [*columns, Number("chance")], rows), element("p", about, class_="soft"))


def _links(scores: Mapping[str, Path], comparison: Path) -> Html:
    """Links to the reports below the page's folder."""
    root = comparison.parents[1]
    pages = {f"scores of {arm}": folder / "report.html" for arm, folder in scores.items()}
    pages |= {"comparison": comparison, "curves of the trainings": comparison.with_name("training.html")}
    paths = {name: path.with_suffix(".html").relative_to(root).as_posix() for name, path in pages.items()}
    return bullets(element("a", name, href=path) for name, path in paths.items())


def _comparison(scores: Mapping[str, Path], comparison: Path) -> Html:
    """The comparison's own report, from its file and the samples of the runs."""
    from leia_eval.comparison_report import comparison_html
    from leia_eval.run_folder import read_run

    found = json.loads(comparison.read_bytes())
    samples = {name: read_run(scores[name]).samples for name in found["runs"]}
    return comparison_html(found, samples)

"""stats: the numbers are those of the manifests, and missed targets those that a plain count of the links finds."""

from __future__ import annotations

import bz2
import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree, html

from leia_beam.cli import main
from leia_beam.linking import link_anchor
from leia_beam.lookup import EntityLookup
from leia_beam.manifest import read_manifest
from leia_beam.shard_statistics import total
from leia_beam.stats import build_stats, printable, stats_lines, stats_picture
from leia_beam.stats_html import stats_page
from leia_beam.wikis import load_wiki
from tests.build_files import rows_of
from tests.conftest import Sample


@pytest.fixture(scope="module")
def build(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the Japanese sample."""
    output = tmp_path_factory.mktemp("stats") / "ja"
    assert main([*sample.build_arguments("jawiki", output), "--quiet"]) == 0
    return output


def test_missed_targets_are_those_of_a_plain_count(build: Path) -> None:
    """Each link looked up by itself; the most missed first, equal ones by title."""
    lookup, wiki = EntityLookup(str(build / "entities")), load_wiki("jawiki")
    expected: Counter[tuple[str, str | None]] = Counter()
    for row in rows_of(build, "articles", "articles"):
        for anchor in row["anchors"]:
            linked = link_anchor(anchor, lookup, wiki, ["enwiki"])
            if linked.name is None:
                expected[anchor["target"] or anchor["foreign_title"] or "", linked.reason] += 1
    found = build_stats(str(build), 10_000).missed
    assert {(each.target, each.reason): each.links for each in found} == expected and len(found) > 10
    assert [each.links for each in found] == sorted((each.links for each in found), reverse=True)
    assert build_stats(str(build), 3).missed == found[:3]


def test_numbers_are_those_of_the_manifests(build: Path) -> None:
    """Names by language and source add up to the anchors; titles and redirects to those that were read."""
    stats, counters = build_stats(str(build), 0), read_manifest(build / "shards").counters
    assert sum(stats.name_languages.values()) == sum(stats.name_sources.values()) == counters["anchors/emitted"]
    assert set(stats.name_languages) == {"en"} and stats.missed == []
    entities, redirects = (read_manifest(build / step).counters for step in ("entities", "entities/_redirects"))
    assert sum(stats.titles.values()) == entities["titles/read"]
    assert sum(stats.redirects.values()) == redirects["redirects/read"]
    assert [step.count for step in stats.funnel][-1] == counters["anchors/emitted"]
    assert any("refused name: list" in line for line in stats_lines(stats))


def test_what_was_left_out_of_texts_is_that_of_the_manifest(build: Path) -> None:
    """The names of templates counted most, by number."""
    stats, articles = build_stats(str(build), 3), read_manifest(build / "articles")
    assert stats.dropped["templates"] == [tuple(entry) for entry in articles.details["most_frequent"]["templates"][:3]]
    assert [count for _, count in stats.dropped["templates"]] == sorted(dict(stats.dropped["templates"]).values())[::-1]


def test_rejects_and_warnings_of_all_stages_are_told(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dump with a page that cannot be read: by stage, kind and reason, with the place; the page shows it as text."""
    content = bz2.decompress(Path(sample.pages("jawiki")).read_bytes()).decode()
    broken = content.replace("<title>東京</title>", "<title>東京</title><b onclick='x'></title>", 1)
    (tmp_path / "pages.xml").write_text(broken, encoding="utf-8")
    arguments = sample.build_arguments("jawiki", tmp_path / "ja")
    arguments[arguments.index("--pages") + 1] = str(tmp_path / "pages.xml")
    assert main([*arguments, "--quiet"]) == 0
    stats, articles = build_stats(str(tmp_path / "ja"), 3), read_manifest(tmp_path / "ja/articles")
    (reason,) = (name.removeprefix("pages/rejected/") for name in articles.counters if "/rejected/" in name)
    assert stats.rejects == {f"articles: pages, {reason}": 1}
    assert [(each["stage"], each["reason"], each["file"]) for each in stats.reject_samples] == [
        ("articles", reason, "pages.xml")
    ]
    assert any(f"articles: pages, {reason}" in line for line in stats_lines(stats))
    content = stats_page(replace(stats, warnings=["articles: <i>odd</i>"]))
    tree = html.document_fromstring(content)
    (row,) = tree.xpath("//section[h2='Rejects']//tbody/tr")
    assert "<b onclick='x'>" in row.text_content() or "<page>" in row.text_content()
    assert tree.xpath("//p[@class='callout warning']")[0].text_content() == "Warning: articles: <i>odd</i>"
    assert not tree.xpath("//*[@onclick]") and not tree.xpath("//i")


def test_the_page_has_all_of_it(build: Path) -> None:
    """Each number of the statistics, the missed targets in their language, every section under its heading in order."""
    stats = build_stats(str(build), 5)
    tree = html.document_fromstring(stats_page(stats))
    text = tree.text_content()
    assert all(f"{step.count:,}" in text and step.name in text for step in stats.funnel)
    bars = tree.xpath("//section[h2='From pages to links with a name']//li")
    assert [bar.xpath("string(span[1])") for bar in bars] == [step.name for step in stats.funnel]
    missed = tree.xpath("//section[h2='Targets most missed']//tbody/tr")
    assert [row.xpath("string(th)") for row in missed] == [each.target for each in stats.missed]
    assert {node.get("lang") for row in missed for node in row.iter("bdi")} == {"ja"}
    dropped = tree.xpath("//section[h2='Most frequent of dropped templates']//tbody/tr")
    assert [(row.xpath("string(th)"), row.xpath("string(td)")) for row in dropped] == [
        (name, f"{count:,}") for name, count in stats.dropped["templates"]
    ]
    assert len(tree.xpath("//section[h2='Rejects']//tbody/tr")) == len(stats.reject_samples)
    assert len(tree.xpath("//section[h2='Shards']//tbody/tr")) == len(stats.shards)
    levels = [int(node.tag[1]) for node in tree.iter("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_command_writes_table_json_picture_and_page(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The picture is well-formed SVG with a bar a step; JSON has what the table has."""
    files = [str(tmp_path / "s.json"), str(tmp_path / "s.svg"), str(tmp_path / "s.html")]
    written = ["--json", files[0], "--picture", files[1], "--html", files[2]]
    assert main(["stats", str(build), "--top", "5", *written]) == 0
    assert Path(files[2]).read_text(encoding="utf-8") == stats_page(build_stats(str(build), 5))
    lines = capsys.readouterr().out.splitlines()
    content = json.loads(Path(files[0]).read_text(encoding="utf-8"))
    assert [step["name"] for step in content["funnel"]][:2] == ["pages", "articles"] and len(content["missed"]) == 5
    assert all(any(printable(each["target"]) in line for line in lines) for each in content["missed"])
    picture = etree.parse(files[1]).getroot()
    bars = picture.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + len(content["funnel"])


def test_a_picture_of_nothing_and_of_strange_names(build: Path) -> None:
    """Names are escaped; no count divides by nothing."""
    stats = build_stats(str(build), 0)
    empty = type(stats)(
        wiki="<b>&",
        funnel=[type(step)(step.name, 0, {"<x>": 1}) for step in stats.funnel],
        missed=[],
        name_languages={},
        name_sources={},
        titles={},
        redirects={},
        tokens=total([]),
        shards=[],
        others={},
    )
    assert etree.fromstring(stats_picture(empty)) is not None and "<x>" not in stats_picture(empty)
    page = stats_page(empty)
    assert "&lt;x&gt;" in page and "<x>" not in page and "&lt;b&gt;&amp;" in page


def test_a_build_that_is_not_finished_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says what is missing."""
    assert main(["stats", str(tmp_path)]) == 2
    assert "no such folder; give the folder of a build" in capsys.readouterr().err

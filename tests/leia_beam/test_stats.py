"""stats: the numbers are those of the manifests, and missed targets those that a plain count of the links finds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from lxml import etree

from leia_beam.cli import main
from leia_beam.linking import link_anchor
from leia_beam.lookup import EntityLookup
from leia_beam.manifest import read_manifest
from leia_beam.shard_statistics import total
from leia_beam.stats import build_stats, printable, stats_lines, stats_picture
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


def test_the_command_writes_table_json_and_picture(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The picture is well-formed SVG with a bar a step; JSON has what the table has."""
    files = [str(tmp_path / "s.json"), str(tmp_path / "s.svg")]
    assert main(["stats", str(build), "--top", "5", "--json", files[0], "--picture", files[1]]) == 0
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


def test_a_build_that_is_not_finished_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says what is missing."""
    assert main(["stats", str(tmp_path)]) == 2
    assert "the stage is not finished" in capsys.readouterr().err

"""The options about names, on the command line: one build with all of them, and what is refused before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from leia_beam.cli import main
from leia_beam.entity_names import HELD_OUT
from leia_beam.holdout import Holdout
from leia_beam.manifest import read_manifest
from tests.build_files import rows_of
from tests.conftest import Sample

OPTIONS = [
    *("--claims", "P31,P17", "--aliases", "--name-languages", "en,de", "--name-source", "sitelink-then-label"),
    *("--refuse-numbers", "--section-links", "article", "--redirect-items", "target", "--no-label-case"),
    *("--holdout", "0.2", "--seed", "3", "--equal-names", "skip", "--link-later-mentions"),
]


@pytest.fixture(scope="module")
def builds(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The Japanese sample with all options, and with none."""
    folder = tmp_path_factory.mktemp("options")
    assert main([*sample.build_arguments("jawiki", folder / "all"), *OPTIONS, "--quiet"]) == 0
    assert main([*sample.build_arguments("jawiki", folder / "none"), "--quiet"]) == 0
    return folder / "all", folder / "none"


def test_claims_and_aliases_stand_beside_the_sitelinks(builds: tuple[Path, Path]) -> None:
    """In the order of the sitelinks, for items that have any; the types alone where nothing is asked for."""
    with_all, with_none = builds
    qids = [row["qid"] for row in rows_of(with_all, "sitelinks", "sitelinks")]
    facts = rows_of(with_all, "sitelinks", "facts")
    assert [row["qid"] for row in facts] == [qid for qid in qids if qid in {row["qid"] for row in facts}]
    assert {claim["property"] for row in facts for claim in row["claims"]} == {"P17", "P31"}
    assert {alias["language"] for row in facts for alias in row["aliases"]} <= {"en", "de"}
    assert any(row["aliases"] for row in facts)
    usual = rows_of(with_none, "sitelinks", "facts")
    assert {claim["property"] for row in usual for claim in row["claims"]} == {"P31"}
    assert not any(row["aliases"] for row in usual)
    counters = read_manifest(with_all / "sitelinks").counters
    assert counters["aliases/emitted"] == sum(len(row["aliases"]) for row in facts)


def test_what_is_held_out_is_listed_and_never_inserted(builds: tuple[Path, Path]) -> None:
    """By the hash of the name alone; the links to them are counted, and where their names leak."""
    output, _ = builds
    holdout = Holdout(share=0.2, seed=3)
    entities = {row["title"]: row for row in rows_of(output, "entities", "entities")}
    listed = {row["title"]: row["name"] for row in rows_of(output, "entities", "held-out")}
    assert len(listed) > 5 and all(holdout.holds(name) for name in listed.values())
    held = {title for title, row in entities.items() if row["reason"] == HELD_OUT and row["resolved_title"] == title}
    assert held <= set(listed) and all(entities[title]["resolved_title"] != title for title in set(listed) - held)
    assert not any(holdout.holds(row["name"]) for row in entities.values() if row["name"])
    inserted = {qid for row in rows_of(output, "shards", "train") for qid in row["entity_qids"]}
    assert not inserted & {row["qid"] for row in entities.values() if row["reason"] == HELD_OUT}
    counters = read_manifest(output / "shards").counters
    assert counters["anchors/filtered/held out"] > 5 and counters["leaks/in texts"] >= 0


def test_later_mentions_are_counted_apart(builds: tuple[Path, Path]) -> None:
    """Their kind stands in the shards; the anchors' counts are those of links alone."""
    with_all, with_none = builds
    kinds = [kind for row in rows_of(with_all, "shards", "train") for kind in row["entity_kinds"]]
    counters = read_manifest(with_all / "shards").counters
    assert kinds.count("later mention") == counters["mentions/emitted"] > 10
    assert len(kinds) == counters["anchors/emitted"] + counters["mentions/emitted"]
    assert counters["anchors/read"] == read_manifest(with_none / "shards").counters["anchors/read"]


def test_links_to_sections_have_the_article_s_name(builds: tuple[Path, Path]) -> None:
    """By option; without it they are counted as such."""
    with_all, with_none = (read_manifest(build / "shards").counters for build in builds)
    assert "anchors/filtered/section" not in with_all and with_none["anchors/filtered/section"] == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--claims", "31"], "--claims 31: '31' is no property; give some such as P31,P17, or none"),
        (["--holdout", "2"], "'2': give a share from 0 to 1, such as 0.01"),
        (["--seed", "-1"], "give a whole number, 0 or more"),
        (["--name-source", "alias"], "'alias' is none of sitelink, label, sitelink-then-label"),
        (["--name-languages", "en,xx"], "--name-languages: unknown wiki 'xx'"),
    ],
)
def test_mistakes_are_refused_before_anything_is_read(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    """One line, exit code 2, no folder."""
    assert main([*sample.build_arguments("jawiki", tmp_path / "out"), *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_finished_sitelinks_must_have_what_is_asked_for(
    sample: Sample, builds: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Claims and aliases are not made up: the message says to build the sitelinks again."""
    arguments = sample.build_arguments("jawiki", tmp_path / "out")
    arguments[arguments.index("--wikidata") + 1] = str(builds[1] / "sitelinks")
    for more, message in ((["--claims", "P17"], "has no claims of P17"), (["--aliases"], "has no aliases")):
        assert main([*arguments, *more]) == 2
        assert message in capsys.readouterr().err

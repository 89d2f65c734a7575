"""What a build's folder may suffer, and how its owner gets over it: damage, other folders, stages made anew beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from leia_beam.card import card
from leia_beam.clean import find_leftovers
from leia_beam.cli import main
from leia_beam.manifest import read_manifest
from leia_beam.preview import Choice, Preview
from leia_beam.validate import validate
from tests.build_files import kept_files
from tests.conftest import Sample


@pytest.fixture(scope="module")
def finished(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build in several units."""
    folder = tmp_path_factory.mktemp("repair") / "build"
    assert main(_arguments(sample, folder)) == 0
    return folder


def _arguments(sample: Sample, folder: Path) -> list[str]:
    return [*sample.build_arguments("jawiki", folder), "--range-bytes", "8KiB", "--workers", "1", "--quiet"]


@pytest.fixture
def build(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "build")


@pytest.mark.parametrize("what", ["bit", "record", "tokenizer bit"])
def test_overwrite_makes_what_is_damaged_again_and_nothing_else(
    sample: Sample, finished: Path, build: Path, what: str
) -> None:
    """A flipped bit changes no size: the sums of all files are looked at."""
    path = {
        "bit": sorted((build / "shards/data").iterdir())[1],
        "record": build / "articles/_done/00001.json",
        "tokenizer bit": build / "shards/tokenizer/tokenizer.json",
    }[what]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    assert validate(build).violations
    others = {each: each.stat().st_mtime_ns for each in (build / "shards/data").iterdir() if each != path}
    assert main([*_arguments(sample, build), "--overwrite"]) == 0
    assert validate(build).violations == [] and kept_files(build) == kept_files(finished)
    assert {each: each.stat().st_mtime_ns for each in others} == others


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_file_that_is_gone_or_cut_is_made_again_by_the_same_command(
    sample: Sample, finished: Path, build: Path, damage: str
) -> None:
    """Its size tells; the tokenizer beside the shards is put there again too."""
    shard = sorted((build / "shards/data").iterdir())[0]
    shutil.rmtree(build / "shards/tokenizer")
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1])
    assert main(_arguments(sample, build)) == 0
    assert validate(build).violations == [] and kept_files(build) == kept_files(finished)


def test_a_resume_with_the_tokenizer_in_another_folder_ends_with_the_same_manifest(
    sample: Sample, finished: Path, build: Path, tmp_path: Path
) -> None:
    """What decides no byte of data is as it was when the stage was begun."""
    (build / "shards/_manifest.json").unlink()
    (build / "shards/_done/00000.json").unlink()
    moved = Path(shutil.copytree(sample.tokenizer, tmp_path / "another-name"))
    output = ("--output", str(build), "--workers", "1", "--quiet")
    assert main(["shards", "--tokenizer", str(moved), *output]) == 0
    assert kept_files(build) == kept_files(finished) and validate(build).violations == []


def test_clean_takes_nothing_that_a_build_did_not_write(build: Path) -> None:
    """Files of other programs, under names of their own, anywhere in the folder."""
    for name in (
        ".draft.tmp",
        "notes/.x.tmp",
        "shards/data/notes.md",
        "shards/data/.DS_Store",
        "articles/data/mine.parquet",
    ):
        (build / name).parent.mkdir(exist_ok=True)
        (build / name).write_bytes(b"x")
    assert find_leftovers(build, now_s=1e12) == []
    assert {Path(each.path).name for each in validate(build).violations} == {"notes.md", "mine.parquet"}


def test_articles_that_were_made_anew_are_not_taken_for_those_of_the_shards(sample: Sample, build: Path) -> None:
    """A preview decodes the shards instead, and the card is silent of the dump."""
    output = ("--output", str(build), "--overwrite", "--quiet")
    options = ("--no-lists", "--no-headings", "--range-bytes", "8KiB")
    assert main(["articles", "--pages", sample.pages("jawiki"), "--wiki", "ja", *options, *output]) == 0
    for article in Preview(build).articles(Choice(random=20)):
        assert not article.unnamed and article.names > 0
    assert "dump of articles" not in card(build) and "dump of sitelinks" in card(build)
    assert any("was made from another articles" in each.rule for each in validate(build).violations)


def test_sitelinks_of_another_folder_are_no_fault(sample: Sample, finished: Path, build: Path, tmp_path: Path) -> None:
    """One pass over Wikidata serves many wikis; those that lie in this folder may be older, and are not what the card names."""
    arguments = _arguments(sample, build)
    arguments[arguments.index("--wikidata") + 1] = str(finished / "sitelinks")
    shutil.rmtree(build / "sitelinks")
    older = shutil.copy(sample.wikidata, tmp_path / "wikidata-20250101-all.json.bz2")
    assert main(["sitelinks", "--wikidata", str(older), "--aliases", "--output", str(build), "--quiet"]) == 0
    assert main(arguments) == 0
    assert validate(build).violations == []
    (named,) = [line for line in card(build).splitlines() if line.startswith("| dump of sitelinks |")]
    assert Path(sample.wikidata).name in named and older.name not in named


def test_the_card_says_what_was_verified_and_what_is_missing(sample: Sample, tmp_path: Path) -> None:
    """The dump's sum where it was compared; that the dump ended early, also of shards that were copied away."""
    dumps = Path(shutil.copytree(sample.folder, tmp_path / "dumps"))
    pages = Path(dumps / Path(sample.pages("jawiki")).name)
    pages.write_bytes(pages.read_bytes()[: pages.stat().st_size * 2 // 3])
    arguments = _arguments(sample, tmp_path / "out")
    arguments[arguments.index("--pages") + 1] = str(pages)
    assert main([*arguments, "--salvage"]) == 0
    assert "| **not whole** |" in card(tmp_path / "out")
    shutil.copytree(tmp_path / "out/shards", tmp_path / "away")
    assert "| **not whole** |" in card(tmp_path / "away")
    assert read_manifest(tmp_path / "away").details["partial"]
    assert validate(tmp_path / "out").violations == []


def test_a_preview_of_damaged_shards_is_one_line(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 3, and what says more."""
    for shard in (build / "shards/data").iterdir():
        shard.write_bytes(shard.read_bytes()[:-40])
    assert main(["preview", str(build)]) == 3
    error = capsys.readouterr().err
    assert "`leia-beam validate` says which file it is" in error and error.count("\n") == 1
    shutil.rmtree(build / "shards/tokenizer")
    assert main(["preview", str(build)]) == 3
    assert "tokenizer.json: missing, but the manifest lists it" in capsys.readouterr().err


def test_escapes_in_a_manifest_do_not_reach_the_terminal(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shards may come from anybody."""
    from dataclasses import replace

    from leia_beam.manifest import manifest_bytes

    manifest = read_manifest(build / "shards")
    details = json.loads(json.dumps(manifest.details))
    details["tokenizer"]["name"] = "\x1b]0;owned\x07\u202e"
    (build / "shards/_manifest.json").write_bytes(manifest_bytes(replace(manifest, details=details)))
    assert main(["card", str(build), "--file", "-"]) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output and "\u202e" not in output and "\\x1b]0;owned" in output

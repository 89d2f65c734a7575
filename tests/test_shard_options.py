"""The options about articles and tokens, on the command line: --profile reference, lengths, kinds, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from leia_beam.cli import main
from leia_beam.manifest import read_manifest
from tests.build_files import kept_files, rows_of
from tests.conftest import Sample

REFERENCE = [
    *("--align", "strict", "--name-space", "no", "--no-lists", "--name-parentheses", "all", "--no-label-case"),
    *("--section-links", "refuse", "--drop-articles", "no-link"),
]


@pytest.fixture(scope="module")
def reference(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as the reference has it."""
    folder = tmp_path_factory.mktemp("profile") / "reference"
    assert main([*sample.build_arguments("jawiki", folder), "--profile", "reference", "--quiet"]) == 0
    return folder


def test_the_profile_is_its_options(sample: Sample, reference: Path, tmp_path: Path) -> None:
    """The same bytes as with each option given by itself, whole or stage by stage."""
    assert main([*sample.build_arguments("jawiki", tmp_path / "options"), *REFERENCE, "--quiet"]) == 0
    assert kept_files(tmp_path / "options") == kept_files(reference)
    output = ("--output", str(tmp_path / "steps"), "--quiet")
    profile = ("--profile=reference",)
    assert main(["sitelinks", "--wikidata", sample.wikidata, *output]) == 0
    assert main(["articles", "--pages", sample.pages("jawiki"), "--wiki", "ja", *profile, *output]) == 0
    assert main(["entities", "--wiki", "ja", *profile, *output]) == 0
    assert main(["shards", "--tokenizer", sample.tokenizer, *profile, *output]) == 0
    assert kept_files(tmp_path / "steps") == kept_files(reference)


def test_the_profile_does_what_it_says(sample: Sample, reference: Path, tmp_path: Path) -> None:
    """No lists, no parentheses in names, titles in their own case, exact edges alone, names as they stand alone."""
    assert main([*sample.build_arguments("jawiki", tmp_path / "usual"), "--quiet"]) == 0
    usual = {row["title"]: row["name"] for row in rows_of(tmp_path / "usual", "entities", "entities")}
    names = {row["title"]: row["name"] for row in rows_of(reference, "entities", "entities")}
    assert names != usual and not any("(" in name for name in names.values() if name)
    rows = rows_of(reference, "shards", "train")
    assert {block for row in rows for block in row["entity_blocks"]} == {"prose"}
    assert "list" in {block for row in rows_of(tmp_path / "usual", "shards", "train") for block in row["entity_blocks"]}
    assert {edge for row in rows for edge in row["entity_edges"]} == {"exact"}
    shards = read_manifest(reference / "shards")
    assert not shards.details["tokenizer"]["names_take_a_space"]


def test_an_option_that_is_given_counts_more_than_the_profile(sample: Sample, tmp_path: Path) -> None:
    """Whether it stands before or after it."""
    for number, order in enumerate(
        (["--align", "split", "--profile", "reference"], ["--profile=reference", "--align=split"])
    ):
        output = tmp_path / str(number)
        assert main([*sample.build_arguments("jawiki", output), *order, "--lists", "--quiet"]) == 0
        assert read_manifest(output / "shards").options["rows"]["alignment"] == "split"
        assert read_manifest(output / "articles").options["extraction"]["lists"] is True
        assert read_manifest(output / "shards").options["encoding"]["name_space"] == "no"


def test_kinds_and_lengths_are_in_the_manifest_and_obeyed(sample: Sample, reference: Path, tmp_path: Path) -> None:
    """Each in the fingerprint; no row shorter or longer."""
    given = ["--drop-articles", "list, disambiguation,no-link", "--min-length", "140", "--max-length", "200", "--eos"]
    assert main([*sample.build_arguments("jawiki", tmp_path / "out"), *given, "--quiet"]) == 0
    manifest = read_manifest(tmp_path / "out/shards")
    assert manifest.options["rows"] == {
        "alignment": "edge",
        "filters": {"drop": ["disambiguation", "list", "no-link"], "min_length": 140},
        "later_mentions": False,
        "max_length": 200,
    }
    lengths = [len(row["input_ids"]) for row in rows_of(tmp_path / "out", "shards", "train")]
    assert min(lengths) >= 140 and max(lengths) == 200
    assert (
        manifest.counters["articles/filtered/short"] > 0 and manifest.counters["articles cut at the maximal length"] > 0
    )
    ends = {row["input_ids"][-1] for row in rows_of(tmp_path / "out", "shards", "train")}
    assert ends == {manifest.details["tokenizer"]["eos_id"]}
    assert main([*sample.build_arguments("jawiki", tmp_path / "out"), "--drop-articles", "none", "--quiet"]) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--drop-articles", "stubs"],
            "--drop-articles: 'stubs' is none of no-link, disambiguation, list, duplicate, none",
        ),
        (["--max-length", "9"], "--max-length 9: give at least 16 tokens"),
        (["--min-length", "50", "--max-length", "40"], "--max-length 40: give at least 50 tokens"),
        (["--profile", "referense"], "'referense' is none of default, reference; did you mean 'reference'?"),
        (["--align", "splitt"], "'splitt' is none of edge, split, expand, strict; did you mean 'split'?"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    """One line that says what there is."""
    assert main([*sample.build_arguments("jawiki", tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()

"""card: the hub's metadata, the provenance, and code that runs as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import duckdb
import pytest
from huggingface_hub import DatasetCard

from leia_beam.card import card
from leia_beam.cli import main
from leia_beam.errors import UsageError
from leia_beam.manifest import read_manifest
from tests.conftest import Sample


@pytest.fixture(scope="module")
def build(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the sample in several shards."""
    folder = tmp_path_factory.mktemp("card") / "build"
    assert main([*sample.build_arguments("jawiki", folder), "--range-bytes", "8KiB", "--quiet"]) == 0
    return folder


def test_the_metadata_are_what_the_hub_reads(build: Path) -> None:
    """Parsed by the hub's own library: licences, languages, size, the files of the split."""
    data = DatasetCard(card(build)).data
    fingerprint = read_manifest(build / "shards").fingerprint
    assert data.license == ["cc-by-sa-4.0", "gfdl", "cc0-1.0"]
    assert (data.language, data.size_categories) == (["ja", "en"], ["n<1K"])
    pattern = f"data/train-*-{fingerprint[:8]}.parquet"
    assert data.to_dict()["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": pattern}]}
    ]


def test_the_provenance_names_dumps_stages_and_tokenizer(build: Path) -> None:
    """With their sizes, dates and sums, and the funnel."""
    text = card(build)
    shards = read_manifest(build / "shards")
    for entry in shards.inputs:
        assert f"manifest SHA-256 `{entry['manifest_sha256']}`" in text
    assert "`jawiki-20260101-pages-articles-multistream.xml.bz2`" in text and "of 2026-01-01" in text
    assert shards.details["tokenizer"]["sha256"] in text and shards.fingerprint in text
    assert "aligned to tokens" in text and f"| articles | {shards.rows_of('train'):,} |" in text


def test_the_provenance_names_the_wikidata_dump_of_a_finished_folder(
    sample: Sample, build: Path, tmp_path: Path
) -> None:
    """`--wikidata FOLDER`: the folder lies anywhere, or is gone; its dump is named as if it had been read here."""
    there = next(line for line in card(build).splitlines() if line.startswith("| dump of sitelinks |"))
    assert Path(sample.wikidata).name in there
    shutil.copytree(build / "sitelinks", tmp_path / "shared")
    arguments = sample.build_arguments("jawiki", tmp_path / "build")
    arguments[arguments.index("--wikidata") + 1] = str(tmp_path / "shared")
    assert main([*arguments, "--quiet"]) == 0
    shutil.rmtree(tmp_path / "shared")
    assert not (tmp_path / "build/sitelinks").exists()
    assert there in card(tmp_path / "build").splitlines()


def test_shards_that_were_copied_away_have_a_card(build: Path, tmp_path: Path) -> None:
    """It says less of where they come from."""
    shutil.copytree(build / "shards", tmp_path / "away")
    text = card(tmp_path / "away")
    assert "dump of" not in text and "stage articles" in text and "aligned to tokens" not in text
    assert card(build / "shards") == text


def test_the_card_s_own_code_runs(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of Python and SQL, in the folder of the shards."""
    monkeypatch.chdir(build / "shards")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    blocks = re.findall(r"```(python|sql)\n(.*?)```", card(build), re.DOTALL)
    rows = read_manifest(build / "shards").rows_of("train")
    counted = []
    for language, code in blocks:
        if language == "sql":
            assert len(duckdb.sql(code).fetchall()) == 10
            continue
        names: dict = {}
        exec(code, names)
        counted.append(sum(1 for _ in names["rows"]) if "rows" in names else names["frame"].collect().height)
    assert counted == [rows, rows] and len(blocks) == 3


def test_the_command_writes_it_among_the_shards(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As README.md, where the hub looks; or where it is told, or on standard output. The build stays valid."""
    folder = shutil.copytree(build, tmp_path / "build")
    assert main(["card", str(folder)]) == 0
    assert (folder / "shards/README.md").read_text() == card(folder)
    assert main(["card", str(folder), "--file", "-"]) == 0
    assert capsys.readouterr().out == card(folder)
    assert main(["card", str(folder), "--file", str(tmp_path / "card.md")]) == 0
    assert (tmp_path / "card.md").read_text() == card(folder)
    assert main(["validate", str(folder)]) == 0


def test_a_stage_that_is_no_shards_is_refused(build: Path) -> None:
    """With what it is."""
    with pytest.raises(UsageError, match="holds the stage articles, not shards"):
        card(build / "articles")

"""The whole run on the bundled sample: dumps → shards, compared with what was worked out by hand."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from leia_beam.cli import main
from leia_beam.entity_names import UNRESOLVED
from leia_beam.linking import link_anchor
from leia_beam.lookup import EntityLookup
from leia_beam.manifest import check_file, read_manifest
from leia_beam.wikis import load_wiki
from tests.build_files import STAGES, kept_files, rows_of
from tests.conftest import SAMPLE_SOURCES, Sample, own_host

EXPECTATIONS = json.loads((SAMPLE_SOURCES / "expectations.json").read_text(encoding="utf-8"))
WIKIS = ("jawiki", "eswiki")


@pytest.fixture(scope="session")
def builds(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A build of each wiki, in this process."""
    folder = tmp_path_factory.mktemp("builds")
    for wiki in WIKIS:
        assert main(sample.build_arguments(wiki, folder / wiki)) == 0
    return {wiki: folder / wiki for wiki in WIKIS}


@pytest.mark.parametrize("wiki", WIKIS)
def test_every_page_of_the_dump_is_accounted_for(builds: dict[str, Path], wiki: str) -> None:
    """Pages by namespace, redirects and articles are as many as the sources have."""
    expected = EXPECTATIONS[wiki]["counts"]
    counters = read_manifest(builds[wiki] / "articles").counters
    in_namespace_0 = expected["pages_by_namespace"]["0"]
    assert {
        "read": counters["pages/read"],
        "other namespace": counters["pages/filtered/other namespace"],
        "articles": counters["pages/emitted/article"],
        "redirects": counters["pages/emitted/redirect"],
        "deleted": counters.get("pages/filtered/deleted text", 0),
    } == {
        "read": expected["pages"],
        "other namespace": expected["pages"] - in_namespace_0,
        "articles": in_namespace_0 - expected["redirects_in_namespace_0"] - expected["articles_with_deleted_text"],
        "redirects": expected["redirects_in_namespace_0"],
        "deleted": expected["articles_with_deleted_text"],
    }


@pytest.mark.parametrize("wiki", WIKIS)
def test_each_expected_link_has_its_name_in_real_tokens_or_its_reason(builds: dict[str, Path], wiki: str) -> None:
    """Links found by hand in the sources: the name's tokens stand in the shards, or the reason is the expected one."""
    build = builds[wiki]
    tokenizer = Tokenizer.from_file(str(build / "shards/tokenizer/tokenizer.json"))
    articles = {row["title"]: row for row in rows_of(build, "articles", "articles")}
    shards = {row["title"]: row for row in rows_of(build, "shards", "train")}
    lookup, facts = EntityLookup(str(build / "entities")), load_wiki(wiki)
    wrong, named, unnamed = [], 0, 0
    for link in EXPECTATIONS[wiki]["links"]:
        if link.get("reason") == "self" or link["source"].startswith("[[#"):
            continue
        article = articles[link["page"]]
        found = [
            (number, anchor)
            for number, anchor in enumerate(article["anchors"])
            if article["text"][anchor["start_char"] : anchor["end_char"]] == link["anchor"]
            and (anchor["target"] == link["target"] or link["target"] is None)
        ]
        if not found:
            wrong.append((link, "no such anchor"))
            continue
        number, anchor = found[0]
        if link["name"] is None:
            reason = link_anchor(anchor, lookup, facts, ["enwiki"]).reason
            unnamed += 1
            if reason is None or reason.partition(":")[0] != link["reason"]:
                wrong.append((link, reason))
            continue
        shard = shards[link["page"]]
        if number not in shard["entity_ordinals"]:
            wrong.append((link, "not in the shard"))
            continue
        at = shard["entity_ordinals"].index(number)
        name = tokenizer.decode(shard["alternative_entity_input_ids"][at]).strip()
        start, end = shard["entity_start_positions"][at], shard["entity_end_positions"][at]
        shown = tokenizer.decode(shard["input_ids"][start:end]).strip()
        named += 1
        if name != link["name"] or (shard["entity_edges"][at] == "exact" and shown != link["anchor"]):
            wrong.append((link, (name, shown)))
    assert wrong == []
    assert named >= 20 and unnamed >= 5


@pytest.mark.parametrize("wiki", WIKIS)
def test_tokens_decode_to_the_article_and_spans_are_sorted(builds: dict[str, Path], wiki: str) -> None:
    """Each row's tokens are the article's text after the document start; spans are apart, inside, and have names."""
    build = builds[wiki]
    details = read_manifest(build / "shards").details["tokenizer"]
    tokenizer = Tokenizer.from_file(str(build / "shards/tokenizer/tokenizer.json"))
    articles = {row["page_id"]: row for row in rows_of(build, "articles", "articles")}
    rows = rows_of(build, "shards", "train")
    spans = 0
    for row in rows:
        start_ids = details["document_start_ids"]
        assert row["input_ids"][: len(start_ids)] == start_ids
        assert tokenizer.decode(row["input_ids"][len(start_ids) :]) == articles[row["page_id"]]["text"]
        edges = [
            edge
            for pair in zip(row["entity_start_positions"], row["entity_end_positions"], strict=True)
            for edge in pair
        ]
        assert edges == sorted(edges) and len(set(edges[::2])) == len(edges[::2])
        assert all(len(start_ids) <= edge <= len(row["input_ids"]) for edge in edges)
        assert all(row["alternative_entity_input_ids"])
        spans += len(edges) // 2
    assert len(rows) >= 60 and spans > 400


@pytest.mark.parametrize("wiki", WIKIS)
def test_manifests_hold_the_sums_of_all_files_and_counts_are_conserved(builds: dict[str, Path], wiki: str) -> None:
    """Every file of every stage is listed, as it is on disk; anchors that are read are named or dropped by a reason."""
    build = builds[wiki]
    for stage in STAGES:
        manifest = read_manifest(build / stage)
        for file in manifest.files:
            check_file(build / stage, file)
        on_disk = {
            str(path.relative_to(build / stage))
            for folder in ("data", "lookup", "rejects")
            for path in (build / stage / folder).glob("*")
        }
        assert on_disk == {file.path for file in manifest.files}
    counters = read_manifest(build / "shards").counters
    dropped = {name: n for name, n in counters.items() if name.startswith("anchors/filtered/")}
    assert counters["anchors/read"] == counters["anchors/emitted"] + sum(dropped.values())
    assert any(name.rpartition("/")[2] in UNRESOLVED for name in dropped)


def test_a_manifest_says_nothing_of_the_machine_or_the_time(builds: dict[str, Path], sample: Sample) -> None:
    """No path, no host, no clock: two builds of the same input are the same bytes."""
    for stage in STAGES:
        text = (builds["jawiki"] / stage / "_manifest.json").read_text(encoding="utf-8")
        for word in (str(builds["jawiki"]), str(sample.folder), own_host(), "elapsed"):
            assert word not in text


def test_a_finished_build_is_skipped_and_left_as_it_is(
    builds: dict[str, Path], sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    """Running the same command again does nothing but say so."""
    before = kept_files(builds["jawiki"])
    assert main(sample.build_arguments("jawiki", builds["jawiki"])) == 0
    assert capsys.readouterr().err.count("finished before, skipped") == len(STAGES)
    assert kept_files(builds["jawiki"]) == before


def test_the_bytes_do_not_depend_on_the_number_of_processes(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process, two and four, and a runner named by Beam's name write the same files, records and manifests."""
    monkeypatch.setattr("pipelines.local.BYTES_FOR_A_PROCESS", 1)
    results = {}
    for name, options in {
        "one": ["--workers", "1"],
        "two": ["--workers", "2"],
        "four": ["--workers", "4"],
        "beam": ["--runner", "FnApiRunner"],
    }.items():
        arguments = sample.build_arguments("jawiki", tmp_path / name)
        assert main([*arguments, *options, "--range-bytes", "4KiB", "--buckets", "5", "--quiet"]) == 0
        results[name] = kept_files(tmp_path / name)
    assert results["one"] == results["two"] == results["four"] == results["beam"]
    units = len(list((tmp_path / "one/articles/_done").iterdir()))
    assert units >= 10, "several units, so that processes had something to share"


KILLED_AFTER_THREE_UNITS = """
import os, signal, sys
from leia_beam import units
from leia_beam.cli import main

write_record = units.write_record

def write_and_die(storage, folder, record):
    write_record(storage, folder, record)
    if record.stage == "articles" and len(os.listdir(f"{folder}/_done")) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

units.write_record = write_and_die
sys.exit(main(sys.argv[1:]))
"""


def test_a_build_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    sample: Sample, builds: dict[str, Path], tmp_path: Path
) -> None:
    """SIGKILL in the middle: nothing is taken for finished, and the same command finishes with equal bytes."""
    arguments = [*sample.build_arguments("jawiki", tmp_path / "killed"), "--range-bytes", "2KiB", "--buckets", "7"]
    killed = subprocess.run([sys.executable, "-c", KILLED_AFTER_THREE_UNITS, *arguments, "--quiet"])
    assert killed.returncode == -signal.SIGKILL
    records = tmp_path / "killed/articles/_done"
    assert len(_names(records)) == 3 and not (tmp_path / "killed/articles/_manifest.json").exists()
    assert main([*arguments, "--quiet"]) == 0
    undisturbed = sample.build_arguments("jawiki", tmp_path / "undisturbed")
    assert main([*undisturbed, "--range-bytes", "2KiB", "--buckets", "7", "--quiet"]) == 0
    assert kept_files(tmp_path / "killed") == kept_files(tmp_path / "undisturbed")
    assert len(_names(records)) > 3, "the kill came before the end"


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.json")] if folder.is_dir() else []


def test_the_stages_can_be_run_one_by_one(sample: Sample, builds: dict[str, Path], tmp_path: Path) -> None:
    """The stage commands write what `build` writes, and `build` finds it."""
    output = ["--output", str(tmp_path / "staged")]
    assert main(["sitelinks", "--wikidata", sample.wikidata, *output]) == 0
    assert main(["articles", "--pages", sample.pages("jawiki"), "--wiki", "ja", *output]) == 0
    assert main(["entities", "--wiki", "jawiki", *output]) == 0
    assert main(["shards", "--tokenizer", sample.tokenizer, *output]) == 0
    assert kept_files(tmp_path / "staged") == kept_files(builds["jawiki"])


def test_another_wiki_takes_the_finished_sitelinks(sample: Sample, builds: dict[str, Path], tmp_path: Path) -> None:
    """One pass over Wikidata serves many wikis."""
    arguments = sample.build_arguments("eswiki", tmp_path / "es")
    arguments[arguments.index("--wikidata") + 1] = str(builds["jawiki"] / "sitelinks")
    assert main(arguments) == 0
    assert not (tmp_path / "es/sitelinks").exists()
    assert rows_of(tmp_path / "es", "shards", "train") == rows_of(builds["eswiki"], "shards", "train")


def test_finish_writes_the_same_manifest_from_the_records_alone(
    sample: Sample, builds: dict[str, Path], tmp_path: Path
) -> None:
    """A job that died before its last step is finished by `leia-beam finish`."""
    import shutil

    shutil.copytree(builds["jawiki"], tmp_path / "copy")
    before = kept_files(tmp_path / "copy")
    for stage in STAGES:
        (tmp_path / "copy" / stage / "_manifest.json").unlink()
    assert main(["finish", str(tmp_path / "copy")]) == 0
    assert kept_files(tmp_path / "copy") == before

"""Whole builds with dumps and output in emulated object stores: the same bytes, hardly more fetched than the dump."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipelines.stage_runs
from leia_beam import ranged_files
from leia_beam.cli import main
from leia_beam.errors import MissingResource
from leia_beam.ranged_files import StoreFault
from leia_beam.storage import LocalStorage
from tests.build_files import kept_files
from tests.conftest import Sample
from tests.object_emulators import EMULATORS, Store

OPTIONS = ("--range-bytes", "8KiB", "--buckets", "3", "--quiet")


@pytest.fixture(params=["gs", "s3"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """An empty bucket; waits between tries are short, copies are the test's own."""
    monkeypatch.setattr(ranged_files, "WAITS_S", (0.01, 0.01))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with EMULATORS[request.param]() as found:
        yield found


@pytest.fixture(scope="module")
def local_build(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The sums of a build on the local disk."""
    output = tmp_path_factory.mktemp("local") / "build"
    assert main([*sample.build_arguments("jawiki", output), "--workers", "1", *OPTIONS]) == 0
    return kept_files(output)


def arguments(store: Store, sample: Sample, output: str = "out") -> list[str]:
    """`leia-beam build …` with all in the store, where the dumps are put."""
    paths = {}
    for option, path in (("--pages", sample.pages("jawiki")), ("--wikidata", sample.wikidata)):
        key = f"in/{Path(path).name}"
        store.put(key, Path(path).read_bytes())
        paths[option] = f"{store.root}/{key}"
    given = sample.build_arguments("jawiki", Path("output"))
    for option, path in {**paths, "--output": f"{store.root}/{output}"}.items():
        given[given.index(option) + 1] = path
    return [*given, *OPTIONS]


def kept_objects(store: Store, output: str = "out") -> dict[str, str]:
    """As `kept_files`."""
    return {
        key.removeprefix(f"{output}/"): hashlib.sha256(content).hexdigest()
        for key, content in sorted(store.objects(f"{output}/").items())
        if not key.removeprefix(f"{output}/").startswith(("_run", "build.log"))
    }


def test_a_build_in_a_store_is_that_on_the_disk(store: Store, sample: Sample, local_build: dict[str, str]) -> None:
    """Every data file, record and manifest, by one process; the second run finds all finished. The tokenizer too is there."""
    command = [*arguments(store, sample), "--workers", "1", "--", *store.options]
    for path in Path(sample.tokenizer).iterdir():
        store.put(f"in/tokenizer/{path.name}", path.read_bytes())
    command[command.index("--tokenizer") + 1] = f"{store.root}/in/tokenizer"
    assert main(command) == 0
    assert kept_objects(store) == local_build and len(local_build) > 40
    assert any(key.startswith("out/_run/") for key in store.objects())
    before = store.objects("out/shards/")
    assert main(command) == 0
    assert store.objects("out/shards/") == before
    store.storage.remove(f"{store.root}/out/shards/_manifest.json")
    assert main(["finish", f"{store.root}/out", "--", *store.options]) == 0
    assert store.objects("out/shards/") == before


def test_several_processes_fetch_the_entity_table_once(
    store: Store,
    sample: Sample,
    local_build: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Worker processes of their own, which get the store's options and nothing else of the launcher's."""
    command = arguments(store, sample)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.build.run_shards", lambda *arguments: None)
        assert main([*command, "--workers", "1", "--", *store.options]) == 0
    monkeypatch.setattr("pipelines.local.BYTES_FOR_A_PROCESS", 1)
    assert main([*command, "--workers", "2", "--", *store.options]) == 0
    assert kept_objects(store) == local_build
    copies = [path for path in tmp_path.rglob("lookup-titles-*") if "leia-copies" in str(path)]
    assert len(copies) == 3, "one of each of three buckets"


def test_the_log_and_the_reason_of_a_failure_survive(
    store: Store, sample: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What libraries log lies beside the notes of the run; that these cannot be written hides no reason."""

    def fails(*_: object) -> None:
        logging.getLogger("library").warning("it rains")
        raise MissingResource(f"{store.root}/x: cannot be read (it went away); run the same command again")

    monkeypatch.setattr(pipelines.stage_runs, "claim_folder", fails)
    command = [*arguments(store, sample), "--workers", "1", "--", *store.options]
    assert main(command) == 5
    [log] = [content for key, content in store.objects("out/_run/").items() if key.endswith(".log")]
    assert b"WARNING library: it rains" in log
    capsys.readouterr()

    def gone(*_: object) -> None:
        raise StoreFault("it went away", passing=True)

    monkeypatch.setattr(type(store.storage._of(store.root)._store), "upload", gone)  # type: ignore[attr-defined]
    assert main(command) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "/x: cannot be read (it went away)" in error


def test_hardly_more_is_fetched_than_the_dump(store: Store, tmp_path: Path) -> None:
    """All bytes from the store are counted, on the wire: at most 1.1 times the dump."""
    dump = generated_dump(12_000_000)
    store.put("in/enwiki-20260101-pages-articles.xml.bz2", dump)
    store.proxy.reset()
    command = ["articles", "--pages", f"{store.root}/in/*.bz2", "--wiki", "enwiki", "--output", str(tmp_path / "out")]
    assert main([*command, "--range-bytes", "4MB", "--workers", "1", "--quiet", "--", *store.options]) == 0
    assert len(LocalStorage().list(f"{tmp_path}/out/articles/_done")) == 4
    assert len(dump) < store.proxy.received < 1.1 * len(dump)


def test_a_gzip_dump_is_fetched_once(store: Store, tmp_path: Path) -> None:
    """Its ranges are read by one reader, which goes on; a run that goes on behind what is done fetches it once more."""
    draw = random.Random(9)
    lines = [
        json.dumps({"id": f"Q{number}", "sitelinks": {"enwiki": {"title": f"T {draw.getrandbits(400):x}"}}})
        for number in range(1, 60_000)
    ]
    dump = gzip.compress(("[\n" + ",\n".join(lines) + "\n]\n").encode(), 1)
    store.put("in/wikidata.json.gz", dump)
    command = ["sitelinks", "--wikidata", f"{store.root}/in/wikidata.json.gz", "--output", str(tmp_path / "out")]
    command += ["--range-bytes", "1MiB", "--workers", "2", "--quiet", "--", *store.options]
    store.proxy.reset()
    assert main(command) == 0
    records = LocalStorage().list(f"{tmp_path}/out/sitelinks/_done")
    # Beside the dump its head, which is looked at first: of so small a one more than a tenth.
    assert len(records) >= 4 and len(dump) < store.proxy.received < 1.2 * len(dump)
    for path in (records[-1], "../_manifest.json"):
        (tmp_path / "out/sitelinks/_done" / path).unlink()
    store.proxy.reset()
    assert main(command) == 0
    assert len(dump) < store.proxy.received < 1.2 * len(dump)


def generated_dump(size_bytes: int) -> bytes:
    """About so much of a wiki's dump, in one stream.

    Its blocks are of 100 kB, not 900, as the ranges here are of 4 MB, not 48 MiB: what is read twice at an edge is a block.
    """
    draw = random.Random(8)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(40_000)]
    compressor = bz2.BZ2Compressor(1)
    header = "<mediawiki><siteinfo><dbname>enwiki</dbname></siteinfo>\n"
    pieces = [compressor.compress(header.encode())]
    size, page_id = 0, 0
    while size < size_bytes:
        page_id += 1
        text = " ".join(draw.choices(words, k=1_500))
        page = (
            f"<page><title>Title {page_id}</title><ns>0</ns><id>{page_id}</id><revision><id>{page_id}</id>"
            f"<model>wikitext</model><format>text/x-wiki</format><text>{text}</text></revision></page>\n"
        )
        pieces.append(compressor.compress(page.encode()))
        size += len(pieces[-1])
    pieces += [compressor.compress(b"</mediawiki>\n"), compressor.flush()]
    return b"".join(pieces)


def test_a_build_goes_on_after_connections_were_cut(
    store: Store, sample: Sample, local_build: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut in mid-read: tried again, nobody notices. Cut for ever: one line, exit code 5; the next run ends well."""
    command = [*arguments(store, sample), "--workers", "1", "--", *store.options]
    store.proxy.cuts, store.proxy.cut_received_after = 2, 3_000
    assert main(command) == 0
    assert store.proxy.cuts_done == 2 and kept_objects(store) == local_build
    command = [*arguments(store, sample, "other"), "--workers", "1", "--", *store.options]
    store.proxy.cuts, store.proxy.cut_received_after = 10**6, 3_000
    capsys.readouterr()
    assert main(command) == 5
    error = capsys.readouterr().err
    assert error.startswith("leia-beam: error: ") and error.count("\n") == 1 and "cannot be read" in error
    store.proxy.reset()
    assert main(command) == 0
    assert kept_objects(store, "other") == local_build


def test_uploads_that_are_cut_leave_no_half_commit(
    store: Store, sample: Sample, local_build: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every upload above 4,000 bytes is cut: one line, exit code 5, all that is there is whole; the next run ends well."""
    command = [*arguments(store, sample), "--workers", "1", "--", *store.options]
    store.proxy.cuts, store.proxy.cut_sent_after = 10**6, 4_000
    assert main(command) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot be written" in error and "nothing was left half-written" in error
    found = kept_objects(store)
    assert found.items() <= local_build.items()
    store.proxy.reset()
    assert main(command) == 0
    assert kept_objects(store) == local_build


def test_a_bucket_that_is_not_there_is_one_line(
    store: Store, sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    """As output and as input."""
    whole = [*arguments(store, sample), "--workers", "1", "--", *store.options]
    for path in (f"{store.root}/out", whole[whole.index("--pages") + 1]):
        command = list(whole)
        command[command.index(path)] = path.replace("dumps", "nosuchbucket")
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "no such bucket; make it, or correct the name" in error
    assert kept_objects(store) == {}

"""The same bytes from every engine: local processes, Beam's own runners, Prism, an embedded and a standalone Flink."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from leia_beam.cli import main
from leia_beam.manifest import read_manifest
from tests.build_files import STAGES, kept_files
from tests.conftest import Sample
from tests.engines import (
    Flink,
    Space,
    job_server_jar,
    prism,
    standalone_flink,
    worker_command,
)
from tests.generated_dump import GeneratedDump, generated_dump
from tests.object_emulators import gcs_emulator
from tests.watched_workers import Watch

pytestmark = pytest.mark.runners

OPTIONS = ("--range-bytes", "192KiB", "--buckets", "5", "--quiet")
BUILD_LIMIT_S = 1_200


@dataclass(frozen=True)
class Inputs:
    """The bundled sample and the generated dump, in one build."""

    sample: Sample
    generated: GeneratedDump

    def arguments(self, output: Path) -> list[str]:
        """`leia-beam build …`."""
        return [
            "build",
            *("--pages", self.sample.pages("jawiki"), str(self.generated.pages)),
            *("--wikidata", self.sample.wikidata, str(self.generated.wikidata)),
            *("--wiki", "jawiki"),
            *("--tokenizer", self.sample.tokenizer),
            *("--output", str(output)),
            *OPTIONS,
        ]


@pytest.fixture(scope="module")
def inputs(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Some tens of MB of pages."""
    return Inputs(sample, generated_dump(tmp_path_factory.mktemp("dump"), articles=4_000))


@pytest.fixture(scope="module")
def expected(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build of one local process."""
    output = tmp_path_factory.mktemp("expected") / "one"
    assert main([*inputs.arguments(output), "--workers", "1"]) == 0
    return output


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flink]:
    """Two task managers with two slots each."""
    with standalone_flink(tmp_path_factory.mktemp("flink") / "cluster") as cluster:
        yield cluster


def build_in(space: Space, inputs: Inputs, output: Path, *options: object) -> None:
    """A build by the command line, in a name space."""
    done = space.run(
        [sys.executable, "-m", "leia_beam", *inputs.arguments(output), *options],
        timeout_s=BUILD_LIMIT_S,
        env={"HOME": str(output.parent)},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_build_is_large_enough_to_tell(inputs: Inputs, expected: Path) -> None:
    """At least 20 units, tens of MB, a page that cannot be read, and links of every outcome."""
    assert inputs.generated.raw_bytes > 20_000_000
    assert len(list((expected / "articles/_done").iterdir())) >= 20
    articles, shards = (read_manifest(expected / stage).counters for stage in ("articles", "shards"))
    assert articles["pages/rejected/not well-formed XML"] == 2
    assert {name for name in shards if name.startswith("anchors/filtered/")} >= {
        "anchors/filtered/no item",
        "anchors/filtered/missing page",
        "anchors/filtered/no sitelink",
    }


@pytest.mark.parametrize("workers", [2, 4])
def test_local_processes_write_the_same_bytes(
    inputs: Inputs, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """N processes, each with its share of the units."""
    monkeypatch.setattr("pipelines.local.BYTES_FOR_A_PROCESS", 1)
    assert main([*inputs.arguments(tmp_path / "out"), "--workers", str(workers)]) == 0
    assert_same(tmp_path / "out", expected)


def test_beams_worker_processes_write_the_same_bytes(
    inputs: Inputs, expected: Path, space: Space, tmp_path: Path
) -> None:
    """FnApiRunner with two processes of its own."""
    beams = ["--", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    build_in(space, inputs, tmp_path / "out", "--runner", "FnApiRunner", *beams)
    assert_same(tmp_path / "out", expected)


def test_prism_writes_the_same_bytes(inputs: Inputs, expected: Path, space: Space, tmp_path: Path) -> None:
    """Beam's own portable runner, which pulls units one by one."""
    build_in(space, inputs, tmp_path / "out", "--runner", "PrismRunner", "--", f"--prism_location={prism()}")
    assert_same(tmp_path / "out", expected)


@pytest.mark.parametrize("run", [1, 2])
def test_an_embedded_flink_writes_the_same_bytes(
    inputs: Inputs, expected: Path, space: Space, tmp_path: Path, run: int
) -> None:
    """Flink inside the job server, with two worker processes; twice, since its shuffle has no order."""
    flinks = ["--runner", "flink", "--flink-job-server-jar", job_server_jar(), "--workers", 2]
    build_in(space, inputs, tmp_path / "out", *flinks, "--flink-worker-command", worker_command(tmp_path))
    assert_same(tmp_path / "out", expected)


@pytest.mark.parametrize("run", [1, 2])
def test_a_standalone_flink_writes_the_same_bytes(
    inputs: Inputs, expected: Path, flink: Flink, tmp_path: Path, run: int
) -> None:
    """Two task managers with a process for each of their two slots: four processes share each stage's units."""
    watch = Watch.begin(tmp_path / "watch")
    command = worker_command(tmp_path, watch.exports())
    flinks = ["--runner", "flink", "--flink-master", flink.master, "--flink-job-server-jar", job_server_jar()]
    build_in(flink.space, inputs, tmp_path / "out", *flinks, "--flink-worker-command", command, *PROBE)
    assert_same(tmp_path / "out", expected)
    for stage in ("articles", "shards"):
        assert len(watch.processes(stage)) == 4
        assert set(watch.works(stage).values()) == {1}


def test_an_object_store_gets_the_same_bytes(
    inputs: Inputs, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dumps, tokenizer and output at gs://, in an emulator on loopback."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with gcs_emulator() as store:
        arguments = inputs.arguments(Path("output"))
        arguments[arguments.index("--output") + 1] = f"{store.root}/out"
        files = [Path(argument) for argument in arguments if argument.endswith(".bz2")]
        for file in files:
            store.put(f"in/{file.name}", file.read_bytes())
            arguments[arguments.index(str(file))] = f"{store.root}/in/{file.name}"
        assert main([*arguments, "--workers", "1", "--", *store.options]) == 0
        found = {
            key.removeprefix("out/"): hashlib.sha256(content).hexdigest()
            for key, content in store.objects("out/").items()
            if not key.startswith(("out/_run", "out/build.log"))
        }
    assert found == kept_files(expected)


PROBE = ("--flink-probe-seconds", "300")
"""No test decides by the clock of a busy machine."""


def assert_same(output: Path, expected: Path) -> None:
    """SHA-256 of every file that is kept, manifests and so the funnel's counters among them."""
    assert kept_files(output) == kept_files(expected)
    for stage in STAGES:
        assert read_manifest(output / stage).counters == read_manifest(expected / stage).counters

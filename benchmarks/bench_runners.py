"""What does each runner cost on the same work: local processes, Beam's own, Prism, an embedded and a standalone Flink.

    python benchmarks/bench_runners.py --articles 20000           about 110 MB of pages; all ways that can run here
    python benchmarks/bench_runners.py --ways local-1 local-2

A generated dump is built once a way in a network name space of its own. The yardstick is one local process in the same run.
`fixed` is the same build of a dump that holds next to nothing: what starting costs, before any work. Seconds are the
wall's, from `_run/` in the output folder, which has them by stage.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.build_files import kept_files  # noqa: E402 (the tests' runners are what is timed)
from tests.engines import Space, job_server_jar, network_space, prism, standalone_flink, worker_command  # noqa: E402
from tests.generated_dump import GeneratedDump, generated_dump  # noqa: E402

LOCALS = {"local-1": ["--workers", "1"], "local-2": ["--workers", "2"], "local-4": ["--workers", "4"]}
BEAMS = {
    "fnapi-2": ["--runner", "FnApiRunner", "--", "--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    "prism": ["--runner", "PrismRunner", "--"],
}
WAYS = (*LOCALS, *BEAMS, "flink-embedded-2", "flink-standalone-2x1")


@contextmanager
def way_of(name: str, folder: Path) -> Iterator[tuple[Space, list[str]]]:
    """Where a way runs, and the options that it takes."""
    folder.mkdir()
    flinks = ["--runner", "flink", "--workers", "2", "--flink-worker-command", str(worker_command(folder))]
    if name == "flink-standalone-2x1":
        with standalone_flink(folder / "cluster", task_managers=2, slots=1) as flink:
            at = ["--flink-master", flink.master, "--flink-probe-seconds", "300"]
            yield flink.space, [*flinks, *at, "--flink-job-server-jar", str(job_server_jar())]
        return
    with network_space() as space:
        if name == "flink-embedded-2":
            yield space, [*flinks, "--flink-job-server-jar", str(job_server_jar())]
        elif name == "prism":
            yield space, [*BEAMS[name], f"--prism_location={prism()}"]
        else:
            yield space, {**LOCALS, **BEAMS}[name]


def build(
    space: Space, dump: GeneratedDump, tokenizer: Path, output: Path, options: Sequence[str]
) -> tuple[float, Mapping[str, float]]:
    """Seconds of a build in all, and by stage."""
    files = ["--pages", dump.pages, "--wikidata", dump.wikidata, "--wiki", "jawiki", "--tokenizer", tokenizer]
    command = [
        sys.executable,
        "-m",
        "leia_beam",
        "build",
        *files,
        "--output",
        output,
        "--quiet",
        "--range-bytes",
        "1MiB",
    ]
    began = time.monotonic()
    done = space.run([*command, *options], timeout_s=7_200, env={"HOME": str(output.parent)})
    elapsed_s = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{options}: {done.stderr[-2000:]}")
    (notes,) = (json.loads(path.read_text()) for path in (output / "_run").glob("*.json"))
    return elapsed_s, {stage["stage"]: stage["elapsed_s"] for stage in notes["stages"]}


def sample_tokenizer(folder: Path) -> Path:
    """The bundled sample's tokenizer."""
    pack = ROOT / "tests" / "data" / "sample" / "pack.py"
    subprocess.run([sys.executable, str(pack), str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder / "tokenizer"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=int, default=20_000, help="about 5.4 KB of pages each")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--folder", type=Path, help="where the builds go (default: a temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        dumps = {}
        for size, articles in (("work", given.articles), ("fixed", 40)):
            (folder / size).mkdir()
            dumps[size] = generated_dump(folder / size, articles=articles)
        tokenizer = sample_tokenizer(folder)
        raw_mb, packed_mb = dumps["work"].raw_bytes / 1e6, dumps["work"].pages.stat().st_size / 1e6
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, Beam {version('apache-beam')}"
        )
        print(f"{given.articles:,} articles, {raw_mb:.0f} MB of pages, {packed_mb:.1f} MB compressed")
        stages: list[str] = []
        expected: dict[str, str] | None = None
        yardstick_s = 0.0
        for way in given.ways:
            with way_of(way, folder / way) as (space, options):
                fixed_s, _ = build(space, dumps["fixed"], tokenizer, folder / way / "fixed", options)
                elapsed_s, by_stage = build(space, dumps["work"], tokenizer, folder / way / "out", options)
            found = kept_files(folder / way / "out")
            if expected is None:
                expected, yardstick_s, stages = found, elapsed_s, list(by_stage)
                print("| way | s | ratio | fixed s | " + " | ".join(stages) + " | load before |")
                print("|---" * (len(stages) + 5) + "|")
            assert found == expected, f"{way}: other bytes"
            cells = " | ".join(f"{by_stage[stage]:.1f}" for stage in stages)
            load = os.getloadavg()[0]
            print(
                f"| {way} | {elapsed_s:.1f} | {elapsed_s / yardstick_s:.2f} | {fixed_s:.1f} | {cells} | {load:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

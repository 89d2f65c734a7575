"""The same bytes from another engine: Prism, Beam's own portable runner, in a network name space of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leia_beam.cli import main
from tests.build_files import kept_files
from tests.conftest import Sample

RUNNERS = Path(__file__).resolve().parents[2] / "shared" / "runners"


def prism() -> Path:
    """The runner's archive, or a skip that says what is missing."""
    given = os.environ.get("LEIA_PRISM")
    found = [Path(given)] if given else sorted(RUNNERS.glob("prism-*-linux-amd64.zip"))
    if not found:
        pytest.skip("no Prism: put its zip beside the checkout in ../shared/runners, or name it in LEIA_PRISM")
    return found[0]


def alone() -> list[str]:
    """A command that runs another one with nothing but a loopback device, or a skip."""
    command = ["unshare", "--map-root-user", "--net"] if os.geteuid() else ["unshare", "--net"]
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("unshare and ip are needed: Prism listens on all interfaces")
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network name space may be made here: Prism listens on all interfaces")
    return [*command, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def test_prism_writes_the_same_bytes(sample: Sample, tmp_path: Path) -> None:
    """All stages of the sample on Prism: files, commit records and manifests are those of one local process."""
    command, runner = alone(), prism()
    options = ["--range-bytes", "4KiB", "--buckets", "5", "--quiet"]
    assert main([*sample.build_arguments("jawiki", tmp_path / "local"), "--workers", "1", *options]) == 0
    arguments = [*sample.build_arguments("jawiki", tmp_path / "prism"), "--runner", "PrismRunner", *options]
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [*command, sys.executable, "-m", "leia_beam", *arguments, "--", f"--prism_location={runner}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert kept_files(tmp_path / "prism") == kept_files(tmp_path / "local")
    assert len(list((tmp_path / "prism/articles/_done").iterdir())) >= 10

"""The distributions hold what they should, and work where nothing else of the project is.

They are built from a copy of what git holds, so that stray files of a work tree neither help nor harm. Installing needs a
package index; without one the tests that install skip, but in CI they fail.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Sample

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("leia_beam", "leia_beam/markup", "leia_train", "leia_eval", "pipelines")
PROGRAMS = ("leia-beam", "leia-train", "leia-eval", "leia-beam-worker")
MAX_BASE_MB = 700
"""The base install, all that it depends on among it; Beam, pyarrow and what they need are nearly all of it."""
NOT_IN_BASE = ("torch", "transformers", "accelerate", "lm_eval", "datasets", "nvidia")
BUILDERS_TESTS = ("tests/leia_beam", "tests/test_sample.py", "tests/test_stages.py", "tests/test_shard_format.py")
NEEDS_OTHER_READERS = "tests/leia_beam/test_card.py"
"""Reads shards with datasets, duckdb and polars, which the base install does not bring."""


def _git_files() -> list[str]:
    result = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if result.returncode != 0:
        pytest.skip("not a git work tree: what the distributions should hold is not known")
    return sorted(name for name in result.stdout.decode().split("\0") if name and (ROOT / name).is_file())


@dataclass(frozen=True, kw_only=True)
class Distributions:
    """The two files, and a copy of the tree that they were built from."""

    sdist: Path
    wheel: Path
    tree: Path


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """`python -m build`: the sdist from a copy of the tree, the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("distributions")
    tree, output = folder / "tree", folder / "dist"
    for name in _git_files():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(tree)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    warned = [line for line in result.stdout.splitlines() if "Deprecat" in line or "no files found" in line]
    assert not warned, warned
    (sdist,), (wheel,) = output.glob("*.tar.gz"), output.glob("*.whl")
    return Distributions(sdist=sdist, wheel=wheel, tree=tree)


def test_the_sdist_holds_what_git_does(distributions: Distributions) -> None:
    """All of it, and nothing but what setuptools adds."""
    with tarfile.open(distributions.sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames() if not file.getmember(name).isdir()}
    added = {name for name in names if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert names - added == set(_git_files())


def test_the_wheel_holds_the_packages_and_their_data(distributions: Distributions) -> None:
    """Modules, tables, tasks, py.typed of each package; no tests, pages or recipes."""
    with zipfile.ZipFile(distributions.wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
        (entries,) = (name for name in file.namelist() if name.endswith("entry_points.txt"))
        programs = re.findall(r"^(\S+) =", file.read(entries).decode(), re.MULTILINE)
    expected = {name for name in _git_files() if name.startswith(tuple(f"{package}/" for package in PACKAGES))}
    assert names == expected
    assert {f"{package}/py.typed" for package in PACKAGES if "/" not in package} <= names
    assert sorted(programs) == sorted(PROGRAMS)


def _interpreter(version: str) -> str | None:
    """A Python of that version: the one that runs this, or one on the path that starts."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    candidates = [shutil.which(f"python{version}")]
    candidates += [str(path) for path in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
        result = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if result.returncode == 0 and result.stdout.strip() == version:
            return candidate
    return None


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A virtual environment with one of the distributions in it."""

    folder: Path
    seconds: float
    size_mb: float

    def run(self, *command: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, with nothing of this process's Python."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        result = subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            cwd=cwd,
            env={**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result


def _install(python: str, folder: Path, what: str, *others: str) -> Environment:
    """An empty environment with a distribution and what it depends on; skips where no package index is to be had."""
    began = time.monotonic()
    subprocess.run([python, "-m", "venv", str(folder)], check=True, capture_output=True)
    empty_bytes = _size_bytes(folder)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([*pip, what, *others], capture_output=True, text=True, check=False, env=kept)
    if result.returncode != 0:
        if not os.environ.get("CI") and re.search(r"connection|resolve|No matching distribution", result.stderr, re.I):
            pytest.skip(f"no package index is to be had here: {result.stderr.strip().splitlines()[-1]}")
        pytest.fail(result.stdout + result.stderr)
    seconds = time.monotonic() - began
    return Environment(folder=folder, seconds=seconds, size_mb=(_size_bytes(folder) - empty_bytes) / 1e6)


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _check_build(environment: Environment, sample: Sample, tmp_path: Path) -> None:
    """The installed commands build the sample; what is not there says which extra has it."""
    output = tmp_path / "ja"
    environment.run(*("leia-beam", *sample.build_arguments("jawiki", output), "--quiet"), cwd=tmp_path)
    found = environment.run("leia-beam", "validate", str(output), cwd=tmp_path)
    assert "all as they were written" in found.stdout
    for program in PROGRAMS[:3]:
        assert environment.run(program, "--version", cwd=tmp_path).stdout.startswith(program)
    failed = environment.run(
        *("leia-train", "train", "--shards", str(output / "shards"), "--model", "tiny-llama", "--output", "run"),
        cwd=tmp_path,
        check=False,
    )
    assert failed.returncode == 5 and "leia-lm[train]" in failed.stderr


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_base_installs_by_itself_without_torch(
    kind: str, distributions: Distributions, sample: Sample, tmp_path: Path
) -> None:
    """Into an empty environment; it is small, its dependencies agree, and it builds."""
    environment = _install(sys.executable, tmp_path / "environment", str(getattr(distributions, kind)))
    print(f"base install from the {kind}: {environment.size_mb:.0f} MB, {environment.seconds:.0f} s")
    environment.run("python", "-m", "pip", "check", cwd=tmp_path)
    (site,) = environment.folder.glob("lib/python*/site-packages")
    present = [name for name in NOT_IN_BASE if (site / name).exists()]
    assert not present
    assert environment.size_mb < MAX_BASE_MB
    _check_build(environment, sample, tmp_path)


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_builders_tests_pass_with_the_base_install_on_another_python(
    version: str, distributions: Distributions, sample: Sample, tmp_path: Path
) -> None:
    """The wheel in an empty environment of that Python, and the tests of the builder from a copy of the tree."""
    python = _interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on the path or in ~/.pyenv")
    environment = _install(
        python, tmp_path / "environment", str(distributions.wheel), "pytest", "pytest-xdist", "hypothesis"
    )
    environment.run("python", "-m", "pip", "check", cwd=tmp_path)
    _check_build(environment, sample, tmp_path)
    tests = tmp_path / "tests-alone"
    tests.mkdir()
    for name in ("tests", "recipes", "docs", "pyproject.toml", "README.md", "CONTRIBUTING.md"):
        source = distributions.tree / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, tests / name)
    done = environment.run(
        *(
            "python",
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "--hypothesis-profile=few",
            f"--ignore={NEEDS_OTHER_READERS}",
            *BUILDERS_TESTS,
        ),
        cwd=tests,
    )
    print(f"Python {version}: {environment.seconds:.0f} s to install, {done.stdout.strip().splitlines()[-1]}")
    assert "passed" in done.stdout

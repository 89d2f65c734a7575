"""A build that is killed at any step, again and again, ends with the bytes of one that nobody disturbed.

A kill is what SIGKILL is: the process is gone without a word, no `finally` runs. It comes before a file is put under its
final name, after it, in the middle of writing it, and in the middle of the work; each run then goes a little further.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leia_beam.clean import find_leftovers, remove
from leia_beam.cli import main
from leia_beam.commits import conservation_errors
from leia_beam.errors import UsageError
from leia_beam.manifest import MANIFEST_NAME, read_manifest
from leia_beam.validate import STAGES, validate
from tests.build_files import kept_files
from tests.conftest import Sample

KILLED = 137
STAGES_HERE = [stage for stage in STAGES if stage != "langlinks"]
MOMENTS = ("before the name", "after the name", "in mid-write", "in the work")
BEFORE_MANIFEST = "before the manifest"


def _die(*_: object, **__: object) -> None:
    os._exit(KILLED)


def _nth(number: int, then: Callable[..., Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """A function that does what another does, but for its n-th call."""
    calls = Counter[str]()

    def call(*arguments: Any, **options: Any) -> Any:
        calls["n"] += 1
        return (then if calls["n"] == number else otherwise)(*arguments, **options)

    return call


def _build_and_die(arguments: list[str], moment: str, number: int) -> None:
    """In a process of its own: a build that ends at the n-th step of its kind."""
    from leia_beam import storage
    from leia_beam.storage import LocalStorage
    from leia_beam.tables import TableWriter

    if moment == "before the name":
        storage.os.replace = _nth(number, _die, os.replace)  # type: ignore[attr-defined]
    elif moment == "after the name":
        replace = os.replace

        def replace_and_die(*names: Any) -> None:
            replace(*names)
            os._exit(KILLED)

        storage.os.replace = _nth(number, replace_and_die, replace)  # type: ignore[attr-defined]
    elif moment == "in mid-write":
        copy = shutil.copyfile

        def copy_half(source: str, target: str) -> None:
            content = Path(source).read_bytes()
            Path(target).write_bytes(content[: len(content) // 2])
            os._exit(KILLED)

        storage.shutil.copyfile = _nth(number, copy_half, copy)  # type: ignore[attr-defined]
    elif moment == "in the work":
        TableWriter.write = _nth(30 * number, _die, TableWriter.write)  # type: ignore[method-assign]
    else:
        write = LocalStorage.write

        def die_at_manifest(self: LocalStorage, path: str, content: bytes) -> None:
            if path.endswith(MANIFEST_NAME):
                os._exit(KILLED)
            write(self, path, content)

        LocalStorage.write = die_at_manifest  # type: ignore[method-assign]
    os._exit(main(arguments))


def _run(arguments: list[str], moment: str, number: int) -> int:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["leia_beam.cli", "pipelines.commands", "tests.test_resume"])
    process = context.Process(target=_build_and_die, args=(arguments, moment, number))
    process.start()
    process.join(600)
    assert process.exitcode is not None, "a build that hangs"
    return process.exitcode


@pytest.fixture(scope="module")
def arguments(sample: Sample) -> list[str]:
    """The Japanese sample in some twenty units, without its output."""
    given = sample.build_arguments("jawiki", Path("-"))
    return [*given[: given.index("--output")], "--range-bytes", "8KiB", "--workers", "1", "--quiet"]


@pytest.fixture(scope="module")
def undisturbed(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Path → SHA-256 of all that is kept."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main([*arguments, "--output", str(folder)]) == 0
    return kept_files(folder)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_build_that_is_killed_again_and_again_ends_with_the_same_bytes(
    arguments: list[str], undisturbed: dict[str, str], tmp_path: Path, moment: str
) -> None:
    """Nothing that a kill leaves is taken for finished; what was committed is not done again; counts add up."""
    output, kills, committed = tmp_path / "out", 0, {}
    for attempt in range(40):
        code = _run([*arguments, "--output", str(output)], moment, 1 + attempt * 7 % 11 + attempt)
        if code == 0:
            break
        assert code == KILLED
        kills += 1
        _check_that_nothing_half_done_is_seen(output, undisturbed)
        for path in output.rglob("_done/*.json"):
            committed.setdefault(path, path.stat().st_mtime_ns)
    assert code == 0 and kills >= 3
    assert {path for path, changed in committed.items() if path.stat().st_mtime_ns != changed} == set()
    remove(find_leftovers(output, now_s=1e12))
    assert kept_files(output) == undisturbed
    assert validate(output).violations == [] and not list(output.rglob("*.tmp"))
    for stage in STAGES_HERE:
        assert conservation_errors(read_manifest(output / stage).counters) == []


def test_a_build_that_dies_before_its_manifest_is_finished_by_hand(
    arguments: list[str], undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """`leia-beam finish` writes it from the records, and the build goes on."""
    output = ["--output", str(tmp_path / "out")]
    assert _run([*arguments, *output], BEFORE_MANIFEST, 0) == KILLED
    _check_that_nothing_half_done_is_seen(tmp_path / "out", undisturbed)
    assert main(["finish", str(tmp_path / "out")]) == 0
    assert read_manifest(tmp_path / "out/sitelinks").rows_of("sitelinks") > 0
    assert main([*arguments, *output]) == 0
    assert kept_files(tmp_path / "out") == undisturbed


def _check_that_nothing_half_done_is_seen(output: Path, undisturbed: dict[str, str]) -> None:
    """Every file under a final name is as it will be at the end; a stage without its manifest cannot be read."""
    found = kept_files(output) if output.is_dir() else {}
    assert found.items() <= undisturbed.items()
    for stage in STAGES_HERE:
        if f"{stage}/{MANIFEST_NAME}" not in found:
            with pytest.raises(UsageError, match=r"not finished|no such folder"):
                read_manifest(output / stage)

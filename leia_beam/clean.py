"""From a build's folder to the files in it that nothing needs: what a kill or another build left behind.

A running build never removes anything but what it replaces, and nothing is removed while one runs: its stage is locked.
Half-copied files count as left over once they have not
changed for a while, since another process may be writing them; and a stage that is not finished keeps all files of its
own build, which a resume takes up.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from leia_beam.commits import RECORDS_FOLDER, read_record
from leia_beam.errors import LeiaError, UsageError
from leia_beam.finish import read_finished
from leia_beam.manifest import MANIFEST_NAME, Manifest, read_manifest
from leia_beam.plans import PLAN_NAME, STAGE_ENTRIES, StagePlan, read_plan
from leia_beam.stage_locks import all_locked
from leia_beam.storage import LocalStorage
from leia_beam.validate import STAGES

_HALF = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_DATA = re.compile(r"-\d{5}-of-\d{5}-([0-9a-f]{8})\.\w+$")
"""The names that the builder gives, and nobody else's."""
QUIET_S = 600.0
"""How long a half-copied file must have been left alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftover:
    """A file that nothing needs, and why."""

    path: Path
    size_bytes: int
    reason: str


def find_leftovers(folder: str | Path, now_s: float | None = None) -> list[Leftover]:
    """What may be removed from a build's folder, or from a stage's.

    Raises: UsageError if it is neither.
    """
    root, now_s = Path(folder), time.time() if now_s is None else now_s
    stages = [root] if _is_stage(root) else [root / stage for stage in STAGES if _is_stage(root / stage)]
    if not stages:
        raise UsageError(f"{folder}: holds no build and no stage of one (no {MANIFEST_NAME}, no {PLAN_NAME})")
    found = [each for stage in stages for each in _of_stage(stage)]
    places = {root, root / "_run", *stages, *(stage / entry for stage in stages for entry in STAGE_ENTRIES)}
    for path in sorted(path for place in places if place.is_dir() for path in place.iterdir()):
        changed_s = _changed_s(path) if _HALF.fullmatch(path.name) else None
        if changed_s is not None and now_s - changed_s > QUIET_S:
            found += _leftover(path, "half-copied when its process was ended")
    return found


def _changed_s(path: Path) -> float | None:
    """When a file changed; None where it is gone or no file."""
    try:
        return path.stat().st_mtime if path.is_file() else None
    except OSError:
        return None


def remove(leftovers: list[Leftover]) -> None:
    """Remove them."""
    for leftover in leftovers:
        leftover.path.unlink(missing_ok=True)


@contextmanager
def no_build_running(folder: str | Path) -> Iterator[None]:
    """Hold a build's folder, or that of a stage, so that what is found left over is that when it is removed.

    Raises: MissingResource where a build is at work there.
    """
    root = Path(folder).resolve()
    builds = [root.parent, root.parent.parent] if _is_stage(root) else [root]  # entities/_titles is two deep
    with ExitStack() as held:
        for build in builds:
            held.enter_context(all_locked(build))
        yield


def _is_stage(folder: Path) -> bool:
    return (folder / MANIFEST_NAME).is_file() or (folder / PLAN_NAME).is_file()


def _leftover(path: Path, reason: str) -> Iterator[Leftover]:
    with suppress(FileNotFoundError):  # a build that runs has taken it away meanwhile
        yield Leftover(path=path, size_bytes=path.stat().st_size, reason=reason)


def _of_stage(folder: Path) -> Iterator[Leftover]:
    storage = LocalStorage()
    plan = read_plan(storage, str(folder))
    if plan is None:
        return  # a stage that was copied away: only its manifest says what belongs to it
    manifest = read_finished(storage, str(folder), plan.fingerprint)
    if manifest is None and (folder / MANIFEST_NAME).is_file():
        try:
            read_manifest(folder)
        except LeiaError:
            return  # damaged: nothing says what belongs to the build
    for path in _kept_files(folder):
        reason = _reason(path, folder, plan, manifest)
        if reason is not None:
            yield from _leftover(path, reason)
    for path in sorted((folder / RECORDS_FOLDER).glob("*.json")):
        unit = path.stem
        if not unit.isdecimal() or read_record(storage, str(folder), int(unit), plan.fingerprint) is None:
            yield from _leftover(path, "commit record of another build, or damaged")


def _kept_files(folder: Path) -> Iterator[Path]:
    for entry in STAGE_ENTRIES:
        if (folder / entry).is_dir() and entry not in (RECORDS_FOLDER, "tokenizer"):
            for path in sorted((folder / entry).rglob("*")):
                if path.is_file() and not path.name.startswith("."):
                    yield path


def _reason(path: Path, folder: Path, plan: StagePlan, manifest: Manifest | None) -> str | None:
    name = _DATA.search(path.name)
    if name is None:
        return None  # not a build's
    if name.group(1) != plan.fingerprint[:8]:
        return "file of another build"
    if manifest is not None and path.relative_to(folder).as_posix() not in {file.path for file in manifest.files}:
        return "file of this build that its manifest does not list"
    return None

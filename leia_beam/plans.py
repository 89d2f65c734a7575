"""From a stage's inputs, options and versions to its fingerprint, and from a folder to whose build it holds.

The plan is written into the stage's folder before any work is done. A folder with another plan holds another build and
is left alone unless the user says `--overwrite`; the refusal names what differs.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from leia_beam.errors import DamagedInput, OtherBuild, UsageError
from leia_beam.manifest import MANIFEST_NAME
from leia_beam.schema import SCHEMA_VERSION
from leia_beam.sealed_json import seal, unseal
from leia_beam.storage import LocalStorage, Storage

PLAN_NAME = "_plan.json"
STAGE_ENTRIES = ("data", "lookup", "lists", "rejects", "tokenizer", "_done", PLAN_NAME, MANIFEST_NAME)
"""All that a build puts into a stage's folder: what `--overwrite` removes, and nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StagePlan:
    """What a stage will do. `identity` decides the bytes and is fingerprinted; `details` goes into the manifest."""

    stage: str
    identity: Mapping[str, Any]
    unit_count: int
    end_marker: str = ""
    """For units that are byte ranges of dumps, which must meet without gap: what closes each dump."""
    required_counter: str = ""
    """What must have been counted at least once: an input without any is not what it was taken for."""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the identity, in hex."""
        content = json.dumps(self.identity, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


def identity_of(
    stage: str, inputs: list[dict[str, Any]], options: Mapping[str, Any], packages: tuple[str, ...]
) -> dict[str, Any]:
    """What decides a stage's bytes: inputs by name and size (or by their manifest's sum), options, versions."""
    return {
        "stage": stage,
        "inputs": inputs,
        "options": json.loads(json.dumps(dict(options))),  # as it is read back: lists for tuples
        "versions": current_versions(packages),
        "schema_version": SCHEMA_VERSION,
    }


def current_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The versions, here and now, of what shapes a stage's bytes: packages by name, and Python's Unicode tables."""
    return {name: unicodedata.unidata_version if name == "unicodedata" else _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def read_plan(storage: Storage, folder: str) -> StagePlan | None:
    """The plan of the build that a stage's folder holds, or None if it holds none.

    Raises: DamagedInput if it cannot be read.
    """
    content = storage.read(f"{folder}/{PLAN_NAME}")
    if content is None:
        return None
    try:
        return StagePlan(**unseal(content))
    except (ValueError, TypeError) as error:
        raise DamagedInput(f"{folder}/{PLAN_NAME}: damaged ({error}); replace this stage with --overwrite") from error


def claim_folder(storage: Storage, folder: str, plan: StagePlan, overwrite: bool) -> StagePlan:
    """Make the folder this build's: write the plan, or find that it is there already. Returns the plan that stands there.

    A plan of the same fingerprint may say other things that decide no byte of data (the tokenizer's folder); what stands
    in the folder counts, so that the manifest is the same whoever writes it.

    Raises: OtherBuild if it holds another build (with what differs) or files that no build wrote.
    """
    try:
        found = read_plan(storage, folder)
    except DamagedInput:
        if not overwrite:
            raise
        found = None
    if found is not None and found.fingerprint == plan.fingerprint:
        return found
    if found is None:
        foreign = [name for name in storage.list(folder) if not name.startswith((".", "_"))]
        if foreign and not overwrite:
            raise OtherBuild(
                f"{folder}: holds files but no plan of a build ({', '.join(foreign[:3])}); give another --output"
            )
    elif not overwrite:
        differences = "; ".join(describe_differences(found.identity, plan.identity)[:3])
        raise OtherBuild(
            f"{folder}: holds another build ({differences}); give another --output, or --overwrite to replace this stage"
        )
    clear_folder(storage, folder)
    content = {
        "stage": plan.stage,
        "identity": dict(plan.identity),
        "unit_count": plan.unit_count,
        "end_marker": plan.end_marker,
        "required_counter": plan.required_counter,
        "details": dict(plan.details),
    }
    storage.write(f"{folder}/{PLAN_NAME}", seal(content))
    return plan


def clear_folder(storage: Storage, folder: str) -> None:
    """Remove a stage's files: the manifest first, so that no reader takes the rest for finished."""
    for name in reversed(STAGE_ENTRIES):
        storage.remove(f"{folder}/{name}")


def describe_differences(found: Any, wanted: Any, where: str = "") -> list[str]:
    """Where two identities differ, one phrase each.

    >>> describe_differences({"options": {"wiki": "jawiki"}}, {"options": {"wiki": "eswiki"}})
    ['options.wiki: jawiki there, eswiki here']
    """
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = sorted(set(found) | set(wanted))
        return [
            line
            for key in keys
            for line in describe_differences(found.get(key), wanted.get(key), f"{where}.{key}" if where else str(key))
        ]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return [
            line
            for number, (one, other) in enumerate(zip(found, wanted, strict=True))
            for line in describe_differences(one, other, f"{where}[{number}]")
        ]
    return [] if found == wanted else [f"{where}: {_short(found)} there, {_short(wanted)} here"]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def upstream(folder: str, stage: str, storage: Storage | None = None) -> dict[str, Any]:
    """A finished stage as an input of the next: by the sum of its manifest, which holds the sums of its files.

    Raises: UsageError if the stage is not finished.
    """
    content = (storage or LocalStorage()).read(f"{folder}/{MANIFEST_NAME}")
    if content is None:
        raise UsageError(
            f"{folder}: the stage {stage} is not finished; run `leia-beam {stage}` with this --output first"
        )
    return {"name": stage, "manifest_sha256": hashlib.sha256(content).hexdigest()}

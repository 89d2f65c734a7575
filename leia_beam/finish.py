"""From the commit records of a stage to its manifest, if nothing is missing.

The manifest is not written while a unit is missing or failed, while two neighbouring ranges do not meet, while a dump's
end was not seen, while a count is not conserved, or while too many records were rejected. It is a function of the
records and the plan, so the pipeline's own last step and `leia-beam finish` write the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leia_beam.commits import (
    DONE,
    FAILED,
    CommitRecord,
    conservation_errors,
    read_stage_records,
    record_path,
    sum_counters,
    top_tallies,
)
from leia_beam.coverage import STRICT, Tolerance, bad_block_warnings, check_coverage, last_whole
from leia_beam.errors import DamagedInput, Interrupted, LeiaError, TooManyRejects, UsageError
from leia_beam.manifest import MANIFEST_NAME, Manifest, manifest_bytes, parse_manifest
from leia_beam.plans import StagePlan
from leia_beam.storage import Storage, sha256_of

MIN_REJECT_LIMIT = 20
MAX_SAMPLES = 20
MAX_TALLIED_NAMES = 100
"""How many names of each kind of tally the manifest lists."""


@dataclass(frozen=True, slots=True)
class MaxRejects:
    """How many records of a stage may be rejected: a share of those read but never fewer than 20, or a count."""

    share: float | None = None
    count: int | None = None

    @classmethod
    def parse(cls, text: str) -> MaxRejects:
        """From '0.1%' or '50'.

        Raises: UsageError.

        >>> MaxRejects.parse("0.1%").limit(1_000_000), MaxRejects.parse("0.1%").limit(10), MaxRejects.parse("3").limit(10)
        (1000, 20, 3)
        """
        try:
            if text.endswith("%"):
                share = float(text[:-1]) / 100
                if 0 <= share <= 1:
                    return cls(share=share)
            elif int(text) >= 0:
                return cls(count=int(text))
        except ValueError:
            pass
        raise UsageError(f"--max-rejects {text}: give a share such as 0.1% or a count such as 50")

    def limit(self, read: int) -> int:
        """The largest number of rejects that is let pass among `read` records."""
        if self.count is not None:
            return self.count
        return max(MIN_REJECT_LIMIT, int(read * (self.share or 0.0)))


def read_finished(storage: Storage, folder: str, fingerprint: str) -> Manifest | None:
    """The manifest of a stage if it is finished and of this build."""
    content = storage.read(f"{folder}/{MANIFEST_NAME}")
    if content is None:
        return None
    try:
        manifest = parse_manifest(content, f"{folder}/{MANIFEST_NAME}")
    except DamagedInput:
        return None  # it is a function of the records and is written again
    if manifest.fingerprint != fingerprint:
        return None
    sizes = storage.sizes(folder)
    is_whole = all(sizes.get(file.path) == file.size_bytes for file in manifest.files)
    return manifest if is_whole else None  # the units whose files are gone or cut are done again


def drop_damaged_units(storage: Storage, folder: str, plan: StagePlan) -> int:
    """Take back the commits of units whose files have another SHA-256 than recorded; how many there are.

    Reads every file of a stage on a local disk. Where a unit lacks its record, or has it no more, the manifest goes too.
    """
    records = read_stage_records(storage, folder, plan.unit_count, plan.fingerprint)
    damaged = [
        unit
        for unit, record in enumerate(records)
        if record is not None and any(sha256_of(f"{folder}/{file.path}") != file.sha256 for file in record.files)
    ]
    if damaged or None in records:
        storage.remove(f"{folder}/{MANIFEST_NAME}")
    for unit in damaged:
        storage.remove(record_path(folder, unit))
    return len(damaged)


def finish_stage(
    storage: Storage, folder: str, plan: StagePlan, max_rejects: MaxRejects, tolerance: Tolerance = STRICT
) -> Manifest:
    """Write the manifest of a stage whose units are all done.

    Raises: the error of a failed unit; DamagedInput; TooManyRejects; Interrupted if units are missing.
    """
    manifest = manifest_of(storage, folder, plan, max_rejects, tolerance)
    storage.write(f"{folder}/{MANIFEST_NAME}", manifest_bytes(manifest))
    return manifest


def manifest_of(
    storage: Storage, folder: str, plan: StagePlan, max_rejects: MaxRejects, tolerance: Tolerance
) -> Manifest:
    """The manifest that the plan and the commit records make.

    Raises: as `finish_stage`.
    """
    records = _complete_records(storage, folder, plan)
    partial = check_coverage(records, plan.end_marker, tolerance) if plan.end_marker else []
    counters = sum_counters(records)
    broken = conservation_errors(counters)
    if broken:
        raise LeiaError(
            f"{folder}: counts do not add up ({'; '.join(broken)}); this is a fault of the program, please report it"
        )
    if plan.required_counter and not counters.get(plan.required_counter):
        names = ", ".join(str(entry["name"]) for entry in plan.identity["inputs"])
        found = ", ".join(f"{name} {count:,}" for name, count in counters.items()) or "nothing at all"
        raise DamagedInput(
            f"{names}: no {plan.required_counter} among what was read ({found}); is this the right file?"
        )
    samples = [sample for record in records for sample in record.reject_samples]
    _check_rejects(folder, counters, samples, max_rejects)
    return Manifest(
        stage=plan.stage,
        fingerprint=plan.fingerprint,
        schema_version=plan.identity["schema_version"],
        versions=plan.identity["versions"],
        inputs=tuple(plan.identity["inputs"]),
        options=plan.identity["options"],
        files=tuple(file for record in records for file in record.files),
        counters=counters,
        reject_samples=tuple(samples[:MAX_SAMPLES]),
        warnings=(*partial, *bad_block_warnings(records), *(text for record in records for text in record.warnings)),
        details=_details(plan, records, partial),
    )


def _details(plan: StagePlan, records: Sequence[CommitRecord], partial: list[str]) -> dict[str, Any]:
    """The stage's own details, with what is missing from the input and the names that were counted most."""
    details = dict(plan.details)
    if partial:
        details["partial"] = partial
    most = top_tallies(records, MAX_TALLIED_NAMES)
    if most:  # as lists: JSON's keys are sorted, these stand by their number
        details["most_frequent"] = {
            kind: [[name, count] for name, count in names.items()] for kind, names in most.items()
        }
    statistics = [{"unit": record.unit, **record.statistics} for record in records if record.statistics]
    if statistics:
        details["statistics"] = statistics
    return details


def _complete_records(storage: Storage, folder: str, plan: StagePlan) -> list[CommitRecord]:
    records: list[CommitRecord] = []
    failed: list[CommitRecord] = []
    missing: list[int] = []
    for unit, record in enumerate(read_stage_records(storage, folder, plan.unit_count, plan.fingerprint)):
        if record is None:
            missing.append(unit)
        elif record.status == FAILED:
            failed.append(record)
        else:
            records.append(record)
    if failed:
        more = f" (and {len(failed) - 1} more units failed)" if len(failed) > 1 else ""
        first = failed[0]
        name = first.input.get("name")
        before = [record for record in records if record.unit < first.unit and record.input.get("name") == name]
        raise _error_of(first.exit_code, f"{first.error}{last_whole([*before, first])}{more}")
    if missing:
        raise Interrupted(
            f"{folder}: {len(missing):,} of {plan.unit_count:,} units are not done (the first is {missing[0]}); "
            "run the same command again, it does only what is missing"
        )
    assert all(record.status == DONE for record in records)
    return records


def _error_of(exit_code: int, message: str) -> LeiaError:
    kinds: Mapping[int, type[LeiaError]] = {kind.exit_code: kind for kind in (UsageError, DamagedInput)}
    return kinds.get(exit_code, LeiaError)(message)


def _check_rejects(
    folder: str, counters: Mapping[str, int], samples: Sequence[Mapping[str, object]], max_rejects: MaxRejects
) -> None:
    for name, read in counters.items():
        thing, _, last = name.rpartition("/")
        if last != "read":
            continue
        prefix = f"{thing}/rejected/"
        reasons = {key.removeprefix(prefix): n for key, n in counters.items() if key.startswith(prefix)}
        rejected, limit = sum(reasons.values()), max_rejects.limit(read)
        if rejected > limit:
            top = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items(), key=lambda item: -item[1])[:5])
            first = f"; the first: {_where(samples[0])}" if samples else ""
            raise TooManyRejects(
                f"{folder}: {rejected:,} of {read:,} {thing} rejected ({top}){first}; see {folder}/rejects, "
                f"and raise --max-rejects (now {limit:,}) if that is acceptable"
            )


def _where(sample: Mapping[str, object]) -> str:
    byte = f" byte {sample['byte']:,}" if sample.get("byte") is not None else f" place {sample['place']}"
    return f"{sample['file']}{byte}" + (f" ({sample['id']})" if sample.get("id") else "")

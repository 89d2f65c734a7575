"""From the commit records of a stage to its manifest, if nothing is missing.

The manifest is not written while a unit is missing or failed, while two neighbouring ranges do not meet, while a dump's
end was not seen, while a count is not conserved, or while too many records were rejected. It is a function of the
records and the plan, so the pipeline's own last step and `leia-beam finish` write the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from leia_beam.commits import (
    DONE,
    FAILED,
    CommitRecord,
    conservation_errors,
    read_done_record,
    read_record,
    sum_counters,
)
from leia_beam.errors import DamagedInput, Interrupted, LeiaError, TooManyRejects, UsageError
from leia_beam.manifest import MANIFEST_NAME, Manifest, manifest_bytes, parse_manifest
from leia_beam.plans import StagePlan
from leia_beam.schema import SCHEMA_VERSION
from leia_beam.storage import Storage
from leia_beam.stream_checks import first_broken

MIN_REJECT_LIMIT = 20
MAX_SAMPLES = 20


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """Which damage of a dump is let pass: see `bz2_blocks.read_records`."""

    max_bad_blocks: int = 0
    salvage: bool = False


STRICT = Tolerance()


def read_finished(storage: Storage, folder: str, fingerprint: str) -> Manifest | None:
    """The manifest of a stage if it is finished and of this build."""
    content = storage.read(f"{folder}/{MANIFEST_NAME}")
    if content is None:
        return None
    try:
        manifest = parse_manifest(content, f"{folder}/{MANIFEST_NAME}")
    except DamagedInput:
        return None  # it is a function of the records and is written again
    return manifest if manifest.fingerprint == fingerprint else None


def finish_stage(
    storage: Storage, folder: str, plan: StagePlan, max_rejects: MaxRejects, tolerance: Tolerance = STRICT
) -> Manifest:
    """Write the manifest of a stage whose units are all done.

    Raises: the error of a failed unit; DamagedInput; TooManyRejects; Interrupted if units are missing.
    """
    records = _complete_records(storage, folder, plan)
    partial = _check_coverage(records, plan.end_marker, tolerance) if plan.end_marker else []
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
    manifest = Manifest(
        stage=plan.stage,
        fingerprint=plan.fingerprint,
        schema_version=SCHEMA_VERSION,
        versions=plan.identity["versions"],
        inputs=tuple(plan.identity["inputs"]),
        options=plan.identity["options"],
        files=tuple(file for record in records for file in record.files),
        counters=counters,
        reject_samples=tuple(samples[:MAX_SAMPLES]),
        warnings=(*partial, *_bad_block_warnings(records), *(text for record in records for text in record.warnings)),
        details={**plan.details, "partial": partial} if partial else plan.details,
    )
    storage.write(f"{folder}/{MANIFEST_NAME}", manifest_bytes(manifest))
    return manifest


def _complete_records(storage: Storage, folder: str, plan: StagePlan) -> list[CommitRecord]:
    records: list[CommitRecord] = []
    failed: list[CommitRecord] = []
    missing: list[int] = []
    for unit in range(plan.unit_count):
        record = read_done_record(storage, folder, unit, plan.fingerprint)
        if record is not None:
            records.append(record)
            continue
        record = read_record(storage, folder, unit, plan.fingerprint)
        if record is not None and record.status == FAILED:
            failed.append(record)
        else:
            missing.append(unit)
    if failed:
        more = f" (and {len(failed) - 1} more units failed)" if len(failed) > 1 else ""
        first = failed[0]
        name = first.input.get("name")
        before = [record for record in records if record.unit < first.unit and record.input.get("name") == name]
        raise _error_of(first.exit_code, f"{first.error}{_last_whole([*before, first])}{more}")
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


def _check_coverage(records: Sequence[CommitRecord], end_marker: str, tolerance: Tolerance) -> list[str]:
    """The ranges of each input meet, its streams are whole, one range reads to its end, and what closes it was seen.

    Returns what is missing where `tolerance` lets it pass.
    """
    partial = []
    for name, group in groupby(records, key=lambda record: record.input["name"]):
        units = list(group)
        _check_places(name, units)
        _check_blocks(name, units, tolerance.max_bad_blocks)
        missing = _missing_end(name, units, end_marker)
        if missing is None:
            continue
        if not tolerance.salvage:
            raise DamagedInput(f"{missing}; download it again{_last_whole(units)}")
        partial.append(f"{missing}; kept is what is whole{_last_whole(units)}")
    return partial


def _check_places(name: str, units: Sequence[CommitRecord]) -> None:
    filled = [record for record in units if record.start is not None]
    for before, after in pairwise(filled):
        if before.end != after.start:
            raise DamagedInput(
                f"{name}: unit {before.unit} ends at {before.end} but unit {after.unit} begins at {after.start}; "
                "remove this stage with --overwrite and build it again"
            )


def _check_blocks(name: str, units: Sequence[CommitRecord], max_bad_blocks: int) -> None:
    """The blocks that were skipped are few enough; where there are none, all blocks of each stream were read once."""
    bad = sorted({tuple(block) for record in units for block in record.bad_blocks})
    if len(bad) > max_bad_blocks:
        raise DamagedInput(
            f"{name}: {len(bad)} bzip2 blocks do not decode, more than --max-bad-blocks {max_bad_blocks}; the first is at "
            f"byte {bad[0][0]:,}; download it again"
        )
    checked = [record for record in units if record.stream_check is not None]
    broken = None if bad else first_broken(record.stream_check for record in checked if record.stream_check)
    if broken is not None:
        raise DamagedInput(
            f"{name}: the bzip2 stream that ends in unit {checked[broken].unit} "
            f"(bytes {checked[broken].input['start']:,} to {checked[broken].input['end']:,}) has another checksum than the "
            "blocks that were read; remove this stage with --overwrite and build it again"
        )


def _missing_end(name: str, units: Sequence[CommitRecord], end_marker: str) -> str | None:
    """What shows that a dump is not there up to its end; None if it is."""
    salvaged = next((record.salvaged for record in units if record.salvaged), None)
    if salvaged is not None:
        return salvaged.partition(";")[0]
    seen = [record.end_marker for record in units if record.end_marker is not None]
    if sum(record.ends_input for record in units) == 1 and seen and seen[-1]:
        return None
    return f"{name}: ends early at byte {units[-1].input['size_bytes']:,}: no {end_marker} after its last record"


def _last_whole(units: Sequence[CommitRecord]) -> str:
    """A message's words on the last record that was read whole, or ''."""
    last = next((record.last_id for record in reversed(units) if record.last_id), None)
    return f"; the last whole one is {last}" if last else ""


def _bad_block_warnings(records: Sequence[CommitRecord]) -> list[str]:
    bad = sorted({(record.input["name"], *block) for record in records for block in record.bad_blocks})
    return [
        f"{name}: the bzip2 block at bytes {first:,} to {last:,} does not decode; the records that touch it are lost"
        for name, first, last in bad
    ]


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

"""From the commit records of a stage over dumps to whether the dumps were read whole.

The ranges of each file meet, the blocks that they read give each bzip2 stream's checksum, one range reads to the file's
end, and what closes the dump is the last thing in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from leia_beam.commits import CommitRecord
from leia_beam.errors import DamagedInput
from leia_beam.stream_checks import first_broken


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """Which damage of a dump is let pass: see `bz2_blocks.read_records`."""

    max_bad_blocks: int = 0
    salvage: bool = False


STRICT = Tolerance()


def check_coverage(records: Sequence[CommitRecord], end_marker: str, tolerance: Tolerance) -> list[str]:
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
            raise DamagedInput(f"{missing}; download it again{last_whole(units)}")
        partial.append(f"{missing}; kept is what is whole{last_whole(units)}")
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


def last_whole(units: Sequence[CommitRecord]) -> str:
    """A message's words on the last record that was read whole, or ''."""
    last = next((record.last_id for record in reversed(units) if record.last_id), None)
    return f"; the last whole one is {last}" if last else ""


def bad_block_warnings(records: Sequence[CommitRecord]) -> list[str]:
    """A line for each block that was skipped."""
    bad = sorted({(record.input["name"], *block) for record in records for block in record.bad_blocks})
    return [
        f"{name}: the bzip2 block at bytes {first:,} to {last:,} does not decode; the records that touch it are lost"
        for name, first, last in bad
    ]

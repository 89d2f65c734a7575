"""From a build's folder, or a stage's that was copied away, to everything in it that is not as it was written.

Looked at are: each manifest's own checksum, and that the commit records and the plan make the same one; each file's size
and SHA-256; files that no manifest lists; the stages' sums of one another; columns and rows of every table; and of the
shards each row. So a bit that is flipped anywhere is found, but in `_run/` and the log, which nothing reads.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from leia_beam.commits import RECORDS_FOLDER, conservation_errors
from leia_beam.console import Counter as Progress
from leia_beam.console import Tell
from leia_beam.coverage import Tolerance
from leia_beam.errors import LeiaError, UsageError
from leia_beam.finish import MaxRejects, manifest_of
from leia_beam.manifest import MANIFEST_NAME, Manifest, StageFile, check_file, manifest_bytes, read_manifest
from leia_beam.plans import PLAN_NAME, STAGE_ENTRIES, read_plan
from leia_beam.schema import TABLES
from leia_beam.shard_checks import Expectations, RowSums, broken_rows, count_rows
from leia_beam.storage import LocalStorage, sha256_of
from leia_beam.tokenization import added_ids_of

STAGES = ("sitelinks", "langlinks", "articles", "entities/_titles", "entities/_redirects", "entities", "shards")
BATCH_ROWS = 1024
_ANYTHING = Tolerance(max_bad_blocks=1 << 62, salvage=True)
"""What was let pass when the stage was finished is no fault now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """What is wrong, in which file, and in which row of it, where it is in a row."""

    path: str
    rule: str
    row: int | None = None

    def __str__(self) -> str:
        return f"{self.path}: " + (f"row {self.row:,}: " if self.row is not None else "") + self.rule


@dataclass(kw_only=True)
class Validation:
    """What was looked at, and what was found."""

    stages: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    files: int = 0
    rows: int = 0
    size_bytes: int = 0
    violations: list[Violation] = field(default_factory=list)

    def add(self, path: Path | str, rule: str, row: int | None = None) -> None:
        """Note a violation."""
        self.violations.append(Violation(path=str(path), rule=rule, row=row))

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def validate(folder: str | Path, tell: Tell | None = None) -> Validation:
    """Look at all stages of a build's folder, or at a stage's folder by itself; `tell` is told how far it is.

    Raises: UsageError if it is neither.
    """
    root = Path(folder)
    validation = Validation()
    if _is_stage(root):
        _validate_stage(root, validation, tell)
        return validation
    for stage in STAGES:
        if _is_stage(root / stage):
            _validate_stage(root / stage, validation, tell)
    if not validation.stages and not validation.unfinished:
        raise UsageError(f"{folder}: holds no build and no stage of one (no {MANIFEST_NAME}, no {PLAN_NAME})")
    _check_chain(root, validation)
    return validation


def _is_stage(folder: Path) -> bool:
    return (folder / MANIFEST_NAME).is_file() or (folder / PLAN_NAME).is_file()


def _validate_stage(folder: Path, validation: Validation, tell: Tell | None) -> None:
    if not (folder / MANIFEST_NAME).is_file():
        validation.unfinished.append(str(folder))
        return
    validation.stages.append(str(folder))
    try:
        manifest = read_manifest(folder)
    except LeiaError as error:
        validation.add(folder / MANIFEST_NAME, _without_path(str(error), folder / MANIFEST_NAME))
        return
    _check_records(folder, manifest, validation)
    for broken in conservation_errors(manifest.counters):
        validation.add(folder / MANIFEST_NAME, f"counts do not add up: {broken}")
    progress = Progress(tell, manifest.stage, _bytes_to_read(manifest), "bytes")
    whole = [file for file in manifest.files if _is_whole(folder, file, validation, progress)]
    for path in _unlisted(folder, manifest):
        validation.add(
            path, "the manifest does not list it; remove it, or let `leia-beam clean` do so where a build left it"
        )
    for file in whole:
        if _is_table(file):
            _check_table(folder, file, validation)
            progress.advance(file.size_bytes)
    if manifest.stage == "shards":
        _check_shards(folder, manifest, whole, validation, progress)


def _is_table(file: StageFile) -> bool:
    return file.table in TABLES and file.path.endswith(".parquet")


def _bytes_to_read(manifest: Manifest) -> int:
    """Each file is read for its sum, tables for their rows, and the rows of shards once more for what they promise."""
    sizes = sum(file.size_bytes * (1 + _is_table(file)) for file in manifest.files)
    return sizes + sum(file.size_bytes for file in manifest.files_of("train") if manifest.stage == "shards")


def _without_path(message: str, path: Path) -> str:
    return message.removeprefix(f"{path}: ")


def _check_records(folder: Path, manifest: Manifest, validation: Validation) -> None:
    """That the plan and the commit records make this very manifest; a stage that was copied away may lack them."""
    if not (folder / PLAN_NAME).is_file():
        if (folder / RECORDS_FOLDER).is_dir():
            validation.add(folder / PLAN_NAME, "missing, but there are commit records")
        return
    try:
        plan = read_plan(LocalStorage(), str(folder))
        assert plan is not None
        made = manifest_of(LocalStorage(), str(folder), plan, MaxRejects(share=1.0), _ANYTHING)
    except LeiaError as error:
        validation.add(folder, f"its plan and commit records do not make a manifest: {error}")
        return
    if manifest_bytes(made) != manifest_bytes(manifest):
        validation.add(folder / MANIFEST_NAME, "is not what the plan and the commit records make")
    records = {f"{unit:05d}.json" for unit in range(plan.unit_count)}
    for path in sorted((folder / RECORDS_FOLDER).iterdir()):
        if path.name not in records:
            validation.add(path, "belongs to no unit of this build; `leia-beam clean` removes what is left over")


def _is_whole(folder: Path, file: StageFile, validation: Validation, progress: Progress) -> bool:
    progress.advance(file.size_bytes)
    try:
        check_file(folder, file)
    except LeiaError as error:
        validation.add(folder / file.path, _without_path(str(error), folder / file.path))
        return False
    validation.files += 1
    validation.size_bytes += file.size_bytes
    return True


def _unlisted(folder: Path, manifest: Manifest) -> Iterator[Path]:
    listed = {file.path for file in manifest.files}
    tokenizer = manifest.details.get("tokenizer") or {}
    listed |= {path for path in (tokenizer.get("path"), tokenizer.get("config_path")) if path}
    for entry in STAGE_ENTRIES:
        if (folder / entry).is_dir() and entry != RECORDS_FOLDER:
            for path in sorted((folder / entry).rglob("*")):
                if (
                    path.is_file()
                    and not path.name.startswith(".")
                    and path.relative_to(folder).as_posix() not in listed
                ):
                    yield path


def _check_table(folder: Path, file: StageFile, validation: Validation) -> None:
    path = folder / file.path
    try:
        with pq.ParquetFile(path) as parquet:
            found, rows = parquet.schema_arrow, parquet.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        validation.add(path, f"is no Parquet file ({str(error).splitlines()[0]})")
        return
    validation.rows += rows
    if not found.equals(TABLES[file.table]):
        validation.add(path, f"its columns are not those of the table {file.table}")
    if rows != file.rows:
        validation.add(path, f"{rows:,} rows, the manifest says {file.rows:,}")


def _check_shards(
    folder: Path, manifest: Manifest, whole: list[StageFile], validation: Validation, progress: Progress
) -> None:
    expected = _expectations(folder, manifest, validation)
    if expected is None:
        return
    sums = RowSums(counts=Counter(), page_ids=[])
    places: list[tuple[Path, int]] = []
    shards = [file for file in whole if file.table == "train"]
    for file in shards:
        path, row = folder / file.path, 0
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            if not parquet.schema_arrow.equals(TABLES["train"]):
                return  # told already
            for batch in parquet.iter_batches(BATCH_ROWS):
                for rule, rows in broken_rows(batch, expected):
                    for number in rows.tolist():
                        validation.add(path, rule, row + number)
                count_rows(batch, sums)
                places.append((path, row))
                row += len(batch)
        progress.advance(file.size_bytes)
    _check_page_ids(sums, places, validation)
    if len(shards) == len(manifest.files_of("train")):
        for name in ("articles/emitted", "tokens/emitted", "anchors/emitted", "mentions/emitted"):
            if sums.counts[name] != manifest.counters.get(name, 0):
                said = manifest.counters.get(name, 0)
                validation.add(folder / MANIFEST_NAME, f"{name} is {said:,}, the rows come to {sums.counts[name]:,}")


def _expectations(folder: Path, manifest: Manifest, validation: Validation) -> Expectations | None:
    """What the rows must agree with, after the tokenizer's files were found to be the recorded ones."""
    tokenizer = manifest.details.get("tokenizer") or {}
    for path_name, sum_name in (("path", "sha256"), ("config_path", "config_sha256")):
        relative = tokenizer.get(path_name)
        if relative is None:
            continue
        path = folder / relative
        if not path.is_file():
            validation.add(path, "missing, but the manifest lists it")
            return None
        if sha256_of(str(path)) != tokenizer.get(sum_name):
            validation.add(path, "SHA-256 mismatch; copy it again")
            return None
    if "path" not in tokenizer:
        validation.add(folder / MANIFEST_NAME, "says nothing of the tokenizer")
        return None
    return Expectations(
        wiki=manifest.options["wiki"],
        vocabulary_size=tokenizer["vocabulary_size"],
        document_start_ids=tokenizer["document_start_ids"],
        document_end_ids=tokenizer["document_end_ids"],
        added_ids=added_ids_of((folder / tokenizer["path"]).read_bytes()),
    )


def _check_page_ids(sums: RowSums, places: list[tuple[Path, int]], validation: Validation) -> None:
    """Each page is one row of one shard."""
    if not sums.page_ids:
        return
    page_ids = np.concatenate(sums.page_ids)
    begins = np.cumsum([0, *(len(each) for each in sums.page_ids)])
    _, first, counts = np.unique(page_ids, return_index=True, return_counts=True)
    for number in np.flatnonzero(np.isin(page_ids, page_ids[first[counts > 1]])).tolist():
        at = int(np.searchsorted(begins, number, side="right")) - 1
        path, row = places[at]
        validation.add(
            path, f"page id {int(page_ids[number])} stands in more than one row", row + number - int(begins[at])
        )


def _check_chain(root: Path, validation: Validation) -> None:
    """That each stage was made from the others as they are now."""
    for stage in STAGES:
        try:
            manifest = read_manifest(root / stage)
        except LeiaError:
            continue  # told already, or not there
        for entry in manifest.inputs:
            path = _stage_of_input(root, str(entry["name"])) / MANIFEST_NAME
            wanted = entry.get("manifest_sha256")
            if entry["name"] in ("sitelinks", "langlinks"):
                continue  # they may lie in another folder, and another build's beside this one
            if wanted and path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
                validation.add(
                    root / stage / MANIFEST_NAME, f"was made from another {entry['name']} than the one beside it"
                )


def _stage_of_input(root: Path, name: str) -> Path:
    return root / {"titles": "entities/_titles", "redirects": "entities/_redirects"}.get(name, name)

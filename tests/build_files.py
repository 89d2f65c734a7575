"""Readers of a build's folder for tests: whole tables as rows, and all files with their sums."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from leia_beam.manifest import read_manifest

STAGES = ("sitelinks", "articles", "entities/_titles", "entities/_redirects", "entities", "shards")


def rows_of(build: Path, stage: str, table: str) -> list[dict[str, Any]]:
    """All rows of a table, in the order of the units."""
    folder = build / stage
    return [
        row for file in read_manifest(folder).files_of(table) for row in pq.read_table(folder / file.path).to_pylist()
    ]


def kept_files(build: Path) -> dict[str, str]:
    """Path → SHA-256 of all that must not depend on how a build ran: data, lookup, records, manifests."""
    return {
        str(path.relative_to(build)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(build.rglob("*"))
        if path.is_file()
        and not path.relative_to(build).parts[0].startswith(("_run", "build.log"))
        and not path.name.endswith(".tmp")  # what a kill may leave; no reader or resume looks at it
    }

"""validate: a whole build is found whole; each broken promise is found, with file and row; every flipped bit is."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leia_beam.cli import main
from leia_beam.console import Measure
from leia_beam.errors import UsageError
from leia_beam.manifest import MANIFEST_NAME, manifest_bytes, read_manifest
from leia_beam.schema import SHARDS
from leia_beam.storage import sha256_of
from leia_beam.tables import TableWriter
from leia_beam.validate import STAGES, validate
from tests.conftest import Sample

TABLE_FILE = "data/train"


@pytest.fixture(scope="module")
def build(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of many small units, with EOS behind each article."""
    folder = tmp_path_factory.mktemp("validate") / "build"
    assert main([*sample.build_arguments("jawiki", folder), "--range-bytes", "4KiB", "--eos", "--quiet"]) == 0
    return folder


def copy_of(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def rules(folder: Path) -> list[tuple[str, str, int | None]]:
    """(path within the folder, rule, row) of all violations."""
    return [(str(Path(each.path).relative_to(folder)), each.rule, each.row) for each in validate(folder).violations]


def test_a_whole_build_has_no_violation(build: Path) -> None:
    """All stages, all files, all rows were looked at."""
    found = validate(build)
    assert (found.violations, found.unfinished) == ([], [])
    assert len(found.stages) == 6 and found.files > 40
    files = sum(len(read_manifest(build / stage).files) for stage in STAGES if (build / stage / MANIFEST_NAME).exists())
    assert found.files == files


def test_how_far_it_is_ends_at_the_whole_of_each_stage(build: Path) -> None:
    """Every byte that is read counts, and nothing twice."""
    told: list[Measure] = []
    validate(build, told.append)
    last = {measure.stage: measure for measure in told}
    assert len(last) == sum((build / stage).is_dir() for stage in STAGES) > 4
    for measure in last.values():
        assert measure.done == pytest.approx(measure.total) and measure.unit == "bytes"
    assert len(told) > 50


def test_shards_that_were_copied_away_stand_by_themselves(build: Path, tmp_path: Path) -> None:
    """Without records, plan, or the stages before: manifest, data and tokenizer alone."""
    for name in ("data", "tokenizer"):
        shutil.copytree(build / "shards" / name, tmp_path / "away" / name)
    shutil.copy(build / "shards" / MANIFEST_NAME, tmp_path / "away")
    found = validate(tmp_path / "away")
    assert found.violations == [] and found.rows == read_manifest(build / "shards").rows_of("train") > 50


def test_a_flipped_bit_in_any_file_is_found(build: Path, tmp_path: Path) -> None:
    """One in every file that a reader or a resume may look at: data, lookup, records, plans, manifests, tokenizer."""
    rng, tried = random.Random(3), 0
    folder = copy_of(build, tmp_path)
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if not path.is_file() or inside.parts[0] in ("_run", "build.log"):
            continue
        stage = folder / (
            inside.parts[0] if inside.parts[1] not in ("_titles", "_redirects") else Path(*inside.parts[:2])
        )
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        assert validate(stage).violations, inside
        path.write_bytes(content)
        tried += 1
    assert tried > 80
    assert validate(folder).violations == []


@pytest.mark.parametrize("damage", ["missing", "truncated", "grown", "swapped", "extra"])
def test_a_shard_that_is_not_what_was_written_is_named(build: Path, tmp_path: Path, damage: str) -> None:
    """By its path, with what is wrong."""
    folder = copy_of(build, tmp_path) / "shards"
    first, second = (folder / file.path for file in read_manifest(folder).files_of("train")[:2])
    if damage == "missing":
        first.unlink()
    elif damage == "truncated":
        first.write_bytes(first.read_bytes()[:-10])
    elif damage == "grown":
        first.write_bytes(first.read_bytes() + b"x")
    elif damage == "swapped":
        one, other = first.read_bytes(), second.read_bytes()
        first.write_bytes(other)
        second.write_bytes(one)
    else:
        shutil.copy(first, first.with_name("train-00000-of-00002-deadbeef.parquet"))
    found = rules(folder)
    wanted = {
        "missing": ("missing, but the manifest lists it", 1),
        "truncated": ("bytes, the manifest says", 1),
        "grown": ("bytes, the manifest says", 1),
        "swapped": ("the manifest says", 2),
        "extra": ("the manifest does not list it", 1),
    }
    phrase, count = wanted[damage]
    of_shards = [(path, rule) for path, rule, _ in found if path.startswith(TABLE_FILE)]
    assert len(of_shards) == count and all(phrase in rule for _, rule in of_shards), found


BAD_ROWS = [
    ("the wiki is not jawiki", {"wiki": lambda v: "enwiki"}),
    ("the page id is not positive", {"page_id": lambda v: 0}),
    ("the title is empty", {"title": lambda v: ""}),
    ("the qid is none", {"qid": lambda v: "X5"}),
    ("a token id is outside the vocabulary", {"input_ids": lambda v: [*v[:2], 10**6, *v[3:]]}),
    ("a token id is outside the vocabulary", {"input_ids": lambda v: [*v[:2], -1, *v[3:]]}),
    ("a text has an added token of the tokenizer", {"input_ids": lambda v: [*v[:2], v[0], *v[3:]]}),
    ("the text does not begin or end with the document's own tokens", {"input_ids": lambda v: v[1:]}),
    ("the text does not begin or end with the document's own tokens", {"input_ids": lambda v: [*v, 7]}),
    ("the lists about entities have different lengths", {"entity_qids": lambda v: v[:-1]}),
    ("the lists about entities have different lengths", {"entity_ordinals": lambda v: [*v, 99]}),
    ("a span is empty", {"entity_end_positions": lambda v: [*v[:-1], 1]}),
    ("a span is outside the text", {"entity_end_positions": lambda v: [*v[:-1], 10**6]}),
    ("a span is outside the text", {"entity_start_positions": lambda v: [0, *v[1:]]}),
    ("spans overlap or are not sorted", {"entity_end_positions": lambda v: [v[1], *v[1:]]}),
    ("an ordinal is negative", {"entity_ordinals": lambda v: [-1, *v[1:]]}),
    ("two entities have one ordinal", {"entity_ordinals": lambda v: [v[1], *v[1:]]}),
    ("a name has no token", {"alternative_entity_input_ids": lambda v: [[], *v[1:]]}),
    ("a name's token id is outside the vocabulary", {"alternative_entity_input_ids": lambda v: [[10**6], *v[1:]]}),
    ("a name has an added token of the tokenizer", {"alternative_entity_input_ids": lambda v: [[1], *v[1:]]}),
    ("entity_edges has an unknown value", {"entity_edges": lambda v: ["odd", *v[1:]]}),
    ("entity_kinds has an unknown value", {"entity_kinds": lambda v: ["odd", *v[1:]]}),
    ("entity_blocks has an unknown value", {"entity_blocks": lambda v: ["odd", *v[1:]]}),
    ("entity_name_sources has an empty value", {"entity_name_sources": lambda v: ["", *v[1:]]}),
    ("an entity's qid is none", {"entity_qids": lambda v: ["Q0", *v[1:]]}),
]


@pytest.mark.parametrize(
    ("rule", "changes"), BAD_ROWS, ids=[f"{n}-{rule[:30]}" for n, (rule, _) in enumerate(BAD_ROWS)]
)
def test_a_row_that_breaks_a_rule_is_found_with_its_number(
    build: Path, tmp_path: Path, rule: str, changes: dict
) -> None:
    """In a shard whose sums are right: a builder that wrote it so."""
    folder = copy_of(build, tmp_path) / "shards"
    shutil.rmtree(folder / "_done")
    (folder / "_plan.json").unlink()
    file, row = rewrite(
        folder, lambda rows, at: rows[at].update({name: f(rows[at][name]) for name, f in changes.items()})
    )
    found = [(path, broken, number) for path, broken, number in rules(folder) if number is not None]
    assert (file, rule, row) in found
    assert {(path, number) for path, _, number in found} == {(file, row)}


def test_a_page_that_stands_twice_is_found_at_both_places(build: Path, tmp_path: Path) -> None:
    """page_id is unique within a wiki."""
    folder = copy_of(build, tmp_path) / "shards"
    shutil.rmtree(folder / "_done")
    (folder / "_plan.json").unlink()
    file, row = rewrite(folder, lambda rows, at: rows[at].update(page_id=rows[at - 1]["page_id"]))
    assert [(path, number) for path, broken, number in rules(folder) if "more than one row" in broken] == [
        (file, row - 1),
        (file, row),
    ]


def test_rows_that_are_not_what_was_counted_are_found(build: Path, tmp_path: Path) -> None:
    """A row more than the counters and the manifest's number of rows say."""
    folder = copy_of(build, tmp_path) / "shards"
    shutil.rmtree(folder / "_done")
    (folder / "_plan.json").unlink()
    rewrite(folder, lambda rows, at: rows.append({**rows[at], "page_id": 10**9}), rows_too=False)
    found = {broken.split(",")[0] for _, broken, _ in rules(folder)}
    assert any("rows" in broken for broken in found) and any(
        broken.startswith("articles/emitted is") for broken in found
    )


def rewrite(folder: Path, change, rows_too: bool = True) -> tuple[str, int]:
    """Change the row with the most entities of the largest shard, and make the manifest fit. Returns (file, row)."""
    manifest = read_manifest(folder)
    file = max(manifest.files_of("train"), key=lambda each: each.rows)
    rows = pq.read_table(folder / file.path).to_pylist()
    at = max(range(1, len(rows)), key=lambda number: len(rows[number]["entity_ordinals"]))
    assert len(rows[at]["entity_ordinals"]) > 2
    change(rows, at)
    with TableWriter(str(folder / file.path), SHARDS) as table:
        for row in rows:
            table.write(row, 100)
    path = folder / file.path
    fitting = replace(file, size_bytes=path.stat().st_size, sha256=sha256_of(str(path)))
    if rows_too:
        fitting = replace(fitting, rows=len(rows))
    files = tuple(fitting if each == file else each for each in manifest.files)
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(replace(manifest, files=files)))
    return file.path, at


def test_a_manifest_that_the_records_do_not_make_is_found(build: Path, tmp_path: Path) -> None:
    """Somebody's own counters, under a checksum that is right."""
    folder = copy_of(build, tmp_path) / "articles"
    manifest = read_manifest(folder)
    counters = {**manifest.counters, "pages/read": manifest.counters["pages/read"] + 1, "pages/filtered/x": 1}
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(replace(manifest, counters=counters)))
    assert rules(folder) == [(MANIFEST_NAME, "is not what the plan and the commit records make", None)]


def test_a_stage_made_from_another_is_found(build: Path, tmp_path: Path) -> None:
    """The sums that stages hold of one another."""
    folder = copy_of(build, tmp_path)
    manifest = read_manifest(folder / "articles")
    (folder / "articles" / MANIFEST_NAME).write_bytes(manifest_bytes(replace(manifest, warnings=("other",))))
    found = {(path, rule) for path, rule, _ in rules(folder) if "was made from another" in rule}
    assert {path for path, _ in found} == {f"entities/_titles/{MANIFEST_NAME}", f"shards/{MANIFEST_NAME}"}


def test_a_table_with_other_columns_is_found(build: Path, tmp_path: Path) -> None:
    """By its Arrow schema."""
    folder = copy_of(build, tmp_path) / "articles"
    shutil.rmtree(folder / "_done")
    (folder / "_plan.json").unlink()
    manifest = read_manifest(folder)
    file = manifest.files_of("articles")[0]
    path = folder / file.path
    table = pq.read_table(path)
    pq.write_table(table.append_column("more", pa.array([1] * len(table))), path)
    fitting = replace(file, size_bytes=path.stat().st_size, sha256=sha256_of(str(path)))
    files = tuple(fitting if each == file else each for each in manifest.files)
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(replace(manifest, files=files)))
    assert rules(folder) == [(file.path, "its columns are not those of the table articles", None)]


def test_the_command_lists_what_it_found_and_ends_with_3(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zero and a line for a whole build; the violations and exit code 3 for another; 2 for no build."""
    assert main(["validate", str(build)]) == 0
    assert "all as they were written" in capsys.readouterr().out
    folder = copy_of(build, tmp_path)
    first = folder / "shards" / read_manifest(folder / "shards").files_of("train")[0].path
    first.write_bytes(first.read_bytes()[:-1])
    assert main(["validate", str(folder), "--json", str(tmp_path / "found.json")]) == 3
    output = capsys.readouterr()
    assert str(first) in output.out and "violations in" in output.err and output.err.count("\n") == 1
    assert str(first) in (tmp_path / "found.json").read_text()
    assert main(["validate", str(tmp_path)]) == 2
    assert "holds no build" in capsys.readouterr().err


def test_a_stage_that_is_not_finished_is_said_to_be_so(build: Path, tmp_path: Path) -> None:
    """It is no fault, and not looked at."""
    folder = copy_of(build, tmp_path)
    (folder / "shards" / MANIFEST_NAME).unlink()
    found = validate(folder)
    assert (found.violations, found.unfinished) == ([], [str(folder / "shards")])


def test_a_folder_without_a_build_is_a_usage_error(tmp_path: Path) -> None:
    """Rather than a build without faults."""
    with pytest.raises(UsageError, match="holds no build and no stage of one"):
        validate(tmp_path)

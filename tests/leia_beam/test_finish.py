"""finish: a manifest is written only for a stage that is whole, and is the same whoever writes it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from leia_beam.commits import DONE, FAILED, CommitRecord, write_record
from leia_beam.errors import DamagedInput, Interrupted, LeiaError, TooManyRejects, UsageError
from leia_beam.finish import MAX_SAMPLES, MAX_TALLIED_NAMES, MaxRejects, finish_stage, read_finished
from leia_beam.manifest import MANIFEST_NAME, StageFile, read_manifest
from leia_beam.plans import StagePlan, identity_of
from leia_beam.storage import LocalStorage

STORAGE = LocalStorage()
PLAN = StagePlan(
    stage="articles",
    identity=identity_of("articles", [{"name": "x.bz2", "size_bytes": 300}], {"wiki": "jawiki"}, ("pyarrow",)),
    unit_count=3,
    end_marker="</mediawiki>",
    details={"more": 1},
)
STRICT = MaxRejects(count=0)
PLACES = [(0, 0), (800, 5), (1600, 7), (2400, 9)]


def record(unit, **changes):
    """The record of one of three units of a dump, whole."""
    fields = {
        "stage": "articles",
        "fingerprint": PLAN.fingerprint,
        "unit": unit,
        "unit_count": 3,
        "status": DONE,
        "input": {"name": "x.bz2", "size_bytes": 300, "start": unit * 100, "end": unit * 100 + 100},
        "files": [StageFile(path=f"data/{unit}", table="articles", unit=unit, rows=unit, size_bytes=unit, sha256="0")],
        "counters": {"pages/read": 10, "pages/emitted/article": 8, "pages/filtered/other namespace": 2},
        "start": PLACES[unit],
        "end": PLACES[unit + 1],
        "ends_input": unit == 2,
        "end_marker": unit == 2,
        "warnings": [f"warning {unit}"],
    }
    return CommitRecord(**{**fields, **changes})


def put(folder, records):
    for one in records:
        for file in one.files:
            STORAGE.write(f"{folder}/{file.path}", b"x" * file.size_bytes)
        write_record(STORAGE, str(folder), one)


def finish(folder, records=None, plan=PLAN, max_rejects=STRICT):
    put(folder, [record(unit) for unit in range(3)] if records is None else records)
    return finish_stage(STORAGE, str(folder), plan, max_rejects)


def not_written(folder):
    return STORAGE.read(f"{folder}/{MANIFEST_NAME}") is None


def test_a_whole_stage_gets_its_manifest(tmp_path):
    """Files and warnings in the order of units, counters summed, the plan's own parts."""
    manifest = finish(tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert [file.path for file in manifest.files] == ["data/0", "data/1", "data/2"]
    assert manifest.counters == {"pages/emitted/article": 24, "pages/filtered/other namespace": 6, "pages/read": 30}
    assert manifest.warnings == ("warning 0", "warning 1", "warning 2")
    assert (manifest.stage, manifest.fingerprint, manifest.options, manifest.details) == (
        "articles",
        PLAN.fingerprint,
        {"wiki": "jawiki"},
        {"more": 1},
    )
    assert read_finished(STORAGE, str(tmp_path), PLAN.fingerprint) == manifest
    assert read_finished(STORAGE, str(tmp_path), "other") is None


def test_the_names_counted_most_are_listed(tmp_path):
    """Over all units, by number and then by name, a hundred of each kind; a record keeps them as it is read back."""
    many = {f"name {number:03d}": 1 for number in range(150)}
    records = [
        record(0, tallies={"templates": {"sfn": 3, "cite web": 5}}),
        record(1, tallies={"templates": {"sfn": 3, "reflist": 5}}),
        record(2, tallies={"templates": many, "end matter": {"references": 1}}),
    ]
    manifest = finish(tmp_path, records)
    most = read_manifest(tmp_path).details["most_frequent"]
    assert most == manifest.details["most_frequent"]
    assert most["end matter"] == [["references", 1]]
    assert most["templates"][:5] == [["sfn", 6], ["cite web", 5], ["reflist", 5], ["name 000", 1], ["name 001", 1]]
    assert len(most["templates"]) == MAX_TALLIED_NAMES
    assert manifest.details["more"] == 1


def test_the_bytes_do_not_depend_on_the_order_in_which_units_were_done(tmp_path):
    """All orders of three units, and a second writing, give the same bytes."""
    contents = set()
    for order in itertools.permutations(range(3)):
        folder = tmp_path / "".join(map(str, order))
        finish(folder, [record(unit) for unit in order])
        finish_stage(STORAGE, str(folder), PLAN, STRICT)
        contents.add((folder / MANIFEST_NAME).read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize(("there", "first"), [([], 0), ([0], 1), ([0, 2], 1), ([1, 2], 0)])
def test_missing_units_are_counted_and_the_exit_code_is_75(tmp_path, there, first):
    """How many of how many, the first of them, and that the same command goes on."""
    message = (
        rf": {3 - len(there)} of 3 units are not done \(the first is {first}\); "
        "run the same command again, it does only what is missing$"
    )
    with pytest.raises(Interrupted, match=message) as caught:
        finish(tmp_path, [record(unit) for unit in there])
    assert caught.value.exit_code == 75 and not_written(tmp_path)


def test_a_unit_whose_file_is_gone_is_missing(tmp_path):
    """A record alone is no unit."""
    put(tmp_path, [record(unit) for unit in range(3)])
    STORAGE.remove(f"{tmp_path}/data/1")
    with pytest.raises(Interrupted, match=r"1 of 3 units are not done \(the first is 1\)"):
        finish_stage(STORAGE, str(tmp_path), PLAN, STRICT)


def test_records_of_another_build_are_missing(tmp_path):
    """They are no part of this one."""
    with pytest.raises(Interrupted, match="1 of 3 units"):
        finish(tmp_path, [record(0), record(1, fingerprint="other"), record(2)])


@pytest.mark.parametrize(("exit_code", "kind"), [(3, DamagedInput), (2, UsageError), (1, LeiaError), (99, LeiaError)])
def test_a_failed_unit_ends_with_its_own_error(tmp_path, exit_code, kind):
    """The first one's message and exit code, how many more; before any that is missing."""
    failed = {"status": FAILED, "files": [], "error": "x.bz2: bad block at byte 5", "exit_code": exit_code}
    with pytest.raises(kind, match=r"^x\.bz2: bad block at byte 5 \(and 1 more units failed\)$") as caught:
        finish(tmp_path, [record(1, **failed), record(2, **{**failed, "error": "another"})])
    assert type(caught.value) is kind and not_written(tmp_path)
    with pytest.raises(kind, match=r"^x\.bz2: bad block at byte 5$"):
        finish(tmp_path, [record(0), record(1, **failed), record(2)])


@pytest.mark.parametrize(("unit", "end"), [(0, (800, 6)), (0, (801, 5)), (1, (0, 0)), (1, (2400, 9))])
def test_ranges_that_do_not_meet_are_damage(tmp_path, unit, end):
    """A gap or an overlap between two units: both places, what to do."""
    records = [record(0), record(1), record(2)]
    records[unit] = replace(records[unit], end=end)
    message = (
        rf"^x\.bz2: unit {unit} ends at \({end[0]}, {end[1]}\) but unit {unit + 1} begins at "
        rf"\({PLACES[unit + 1][0]}, {PLACES[unit + 1][1]}\); remove this stage with --overwrite and build it again$"
    )
    with pytest.raises(DamagedInput, match=message):
        finish(tmp_path, records)
    assert not_written(tmp_path)


def test_a_unit_that_owns_no_record_is_passed_over(tmp_path):
    """A range within one long record: its neighbours meet."""
    records = [record(0), record(1, start=None, end=None), record(2, start=PLACES[1])]
    assert finish(tmp_path, records).rows_of("articles") == 3


@pytest.mark.parametrize(
    "changes", [{"end_marker": False}, {"ends_input": False}, {"end_marker": False, "ends_input": False}]
)
def test_a_dump_whose_end_was_not_seen_is_damage(tmp_path, changes):
    """A truncated download is never a finished stage: the file, its size, what is missing."""
    message = r"^x\.bz2: ends early at byte 300: no </mediawiki> after its last record; download it again$"
    with pytest.raises(DamagedInput, match=message) as caught:
        finish(tmp_path, [record(0), record(1), record(2, **changes)])
    assert caught.value.exit_code == 3 and not_written(tmp_path)


def test_each_of_several_dumps_must_have_its_end(tmp_path):
    """Two files, two ends; that of the other file does not count."""
    first = {"input": {"name": "a.bz2", "size_bytes": 77}}
    ends = {"ends_input": True, "end_marker": True}
    whole = [record(0, **first, **ends), record(1, start=(0, 0)), record(2)]
    assert finish(tmp_path / "whole", whole).stage == "articles"
    with pytest.raises(DamagedInput, match=r"^a\.bz2: ends early at byte 77"):
        finish(tmp_path / "cut", [record(0, **first), record(1, start=(0, 0)), record(2)])


def test_a_stage_without_an_end_marker_has_no_ranges(tmp_path):
    """Buckets and shards need no places."""
    records = [record(unit, start=None, end=None, ends_input=False, end_marker=False) for unit in range(3)]
    assert finish(tmp_path, records, replace(PLAN, end_marker="")).stage == "articles"


def test_counts_that_do_not_add_up_are_a_fault_of_the_program(tmp_path):
    """Summed over all units, and said as such."""
    message = r"counts do not add up \(pages: 30 read, but 23 emitted \+ 6 filtered \+ 0 rejected\); this is a fault"
    broken = {"pages/read": 10, "pages/emitted/article": 7, "pages/filtered/other namespace": 2}
    with pytest.raises(LeiaError, match=message) as caught:
        finish(tmp_path, [record(0), record(1), record(2, counters=broken)])
    assert caught.value.exit_code == 1 and not_written(tmp_path)


def rejecting(unit, reasons, read=10):
    rejected = {f"pages/rejected/{reason}": count for reason, count in reasons.items()}
    sample = {"reason": "x", "file": "x.bz2", "place": [80, unit]}
    counters = {"pages/read": read, "pages/emitted/article": read - sum(reasons.values()), **rejected}
    return record(unit, counters=counters, reject_samples=[sample] * 9)


def test_too_many_rejects_are_told_with_their_reasons(tmp_path):
    """How many of how many, the most frequent reasons first, where the first is, the limit, exit code 4."""
    records = [rejecting(0, {"no title": 1}), rejecting(1, {"no id": 4, "no title": 1}), rejecting(2, {})]
    message = (
        r": 6 of 30 pages rejected \(no id 4, no title 2\); the first: x\.bz2 place \[80, 0\]; "
        r"see .*/rejects, and raise --max-rejects \(now 5\) if that is acceptable$"
    )
    with pytest.raises(TooManyRejects, match=message) as caught:
        finish(tmp_path, records, max_rejects=MaxRejects(count=5))
    assert caught.value.exit_code == 4 and not_written(tmp_path)
    manifest = finish(tmp_path, records, max_rejects=MaxRejects(count=6))
    assert len(manifest.reject_samples) == MAX_SAMPLES


def test_a_reason_with_a_slash_is_told_whole(tmp_path):
    """As `no <page> before </page>`, which is a reason of the stage `articles`."""
    with pytest.raises(TooManyRejects, match=r"\(no <page> before </page> 3\)"):
        finish(tmp_path, [record(0), record(1), rejecting(2, {"no <page> before </page>": 3})])


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("0.1%", {0: 20, 10: 20, 20_000: 20, 30_000: 30, 1_000_000: 1000}),
        ("0%", {0: 20, 1_000_000: 20}),
        ("100%", {10: 20, 1000: 1000}),
        ("50", {0: 50, 1_000_000: 50}),
        ("0", {0: 0, 1_000_000: 0}),
    ],
)
def test_the_limit_is_a_share_but_never_fewer_than_twenty_or_a_count(text, limits):
    """As the option's help says."""
    assert {read: MaxRejects.parse(text).limit(read) for read in limits} == limits


@pytest.mark.parametrize("text", ["", "%", "x", "-1", "-1%", "101%", "nan%", "inf%", "0.1", "1 %x"])
def test_what_is_no_limit_is_a_usage_error(text):
    """Both forms are named."""
    with pytest.raises(UsageError, match=r"^--max-rejects .*: give a share such as 0\.1% or a count such as 50$"):
        MaxRejects.parse(text)


def test_a_damaged_manifest_can_be_written_again(tmp_path):
    """Its message says "run `leia-beam finish` again", so a damaged one must not stand in the way of that."""
    finish(tmp_path)
    content = (tmp_path / MANIFEST_NAME).read_bytes()
    (tmp_path / MANIFEST_NAME).write_bytes(content[:50])
    assert read_finished(STORAGE, str(tmp_path), PLAN.fingerprint) is None
    finish_stage(STORAGE, str(tmp_path), PLAN, STRICT)
    assert (tmp_path / MANIFEST_NAME).read_bytes() == content

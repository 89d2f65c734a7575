"""plans: equal work has an equal fingerprint, other work another, and a folder is never taken from another build."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_beam.errors import LeiaError, OtherBuild, UsageError
from leia_beam.manifest import MANIFEST_NAME
from leia_beam.plans import (
    PLAN_NAME,
    StagePlan,
    claim_folder,
    clear_folder,
    current_versions,
    describe_differences,
    identity_of,
    read_plan,
    upstream,
)
from leia_beam.storage import LocalStorage

STORAGE = LocalStorage()


def plan(stage="articles", options=None, inputs=None, packages=("pyarrow", "unicodedata"), **fields):
    inputs = inputs or [{"name": "jawiki.xml.bz2", "size_bytes": 100}]
    identity = identity_of(stage, inputs, options or {"wiki": "jawiki", "range_bytes": 5}, packages)
    return StagePlan(stage=stage, identity=identity, **{"unit_count": 3, **fields})


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_fingerprint_does_not_depend_on_the_order_of_keys():
    """Nor on tuples or lists, nor on the way through a file."""
    one = plan(options={"a": 1, "b": {"c": (1, 2), "d": 3}})
    other = plan(options={"b": {"d": 3, "c": [1, 2]}, "a": 1})
    assert one.fingerprint == other.fingerprint and len(one.fingerprint) == 64
    again = StagePlan(stage="articles", identity=json.loads(json.dumps(one.identity)), unit_count=3)
    assert again.fingerprint == one.fingerprint


def test_the_fingerprint_differs_with_anything_that_shapes_bytes():
    """Stage, each option, each input's name and size, the order of inputs, the packages' versions."""
    two = [{"name": "a", "size_bytes": 1}, {"name": "b", "size_bytes": 1}]
    plans = [
        plan(),
        plan(stage="sitelinks"),
        plan(options={"wiki": "eswiki", "range_bytes": 5}),
        plan(options={"wiki": "jawiki", "range_bytes": 6}),
        plan(options={"wiki": "jawiki", "range_bytes": "5"}),
        plan(options={"wiki": "jawiki"}),
        plan(options={"wiki": "jawiki", "range_bytes": 5, "tables": False}),
        plan(inputs=[{"name": "jawiki.xml.bz2", "size_bytes": 101}]),
        plan(inputs=[{"name": "Jawiki.xml.bz2", "size_bytes": 100}]),
        plan(inputs=two),
        plan(inputs=two[::-1]),
        plan(packages=("pyarrow",)),
    ]
    assert len({plan.fingerprint for plan in plans}) == len(plans)
    assert plan(details={"x": 1}, unit_count=9).fingerprint == plan().fingerprint


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, derandomize=True)
@given(
    st.dictionaries(st.text(max_size=3), VALUES, max_size=4), st.dictionaries(st.text(max_size=3), VALUES, max_size=4)
)
def test_fingerprints_are_equal_exactly_where_identities_are(one, other):
    """And the differences are told exactly where there are any."""
    prints = [StagePlan(stage="x", identity=identity, unit_count=1).fingerprint for identity in (one, other)]
    shuffled = StagePlan(stage="x", identity=dict(reversed(one.items())), unit_count=1)
    assert shuffled.fingerprint == prints[0]
    assert (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)) == (prints[0] == prints[1])
    if not describe_differences(one, other):
        assert all(one.get(key) == other.get(key) for key in {*one, *other})


def test_versions_are_those_of_here_and_now():
    """By package name; Python's own Unicode tables count as one."""
    import unicodedata

    import pyarrow

    assert current_versions(("pyarrow", "unicodedata")) == {
        "pyarrow": pyarrow.__version__,
        "unicodedata": unicodedata.unidata_version,
    }


def test_a_plan_comes_back_from_its_folder(tmp_path):
    """With everything that `finish` needs."""
    made = plan(end_marker="</mediawiki>", details={"tokenizer": {"name": "x"}})
    assert read_plan(STORAGE, str(tmp_path)) is None
    claim_folder(STORAGE, str(tmp_path), made, overwrite=False)
    found = read_plan(STORAGE, str(tmp_path))
    assert (found, found.fingerprint) == (made, made.fingerprint)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"stage": "x"}', b'{"more": 1}'])
def test_a_damaged_plan_is_one_line(tmp_path, content):
    """Cut short or of another version: an error of ours, not a traceback."""
    STORAGE.write(f"{tmp_path}/{PLAN_NAME}", content)
    with pytest.raises(LeiaError, match=PLAN_NAME):
        read_plan(STORAGE, str(tmp_path))


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_same_build_finds_its_folder_again(tmp_path, overwrite):
    """A resume removes nothing, with `--overwrite` too."""
    claim_folder(STORAGE, str(tmp_path), plan(), overwrite=False)
    for name in ("data/x.parquet", "_done/00000.json", MANIFEST_NAME):
        STORAGE.write(f"{tmp_path}/{name}", b"1")
    before = names(tmp_path)
    claim_folder(STORAGE, str(tmp_path), plan(), overwrite=overwrite)
    assert names(tmp_path) == before == {"data/x.parquet", "_done/00000.json", MANIFEST_NAME, PLAN_NAME}


def test_another_build_is_left_alone_with_what_differs(tmp_path):
    """Exit code 6, the options by name, both values; nothing is touched."""
    claim_folder(STORAGE, str(tmp_path), plan(), overwrite=False)
    STORAGE.write(f"{tmp_path}/data/x.parquet", b"1")
    other = plan(options={"wiki": "eswiki", "range_bytes": 5})
    message = (
        r"holds another build \(options\.wiki: jawiki there, eswiki here\); give another --output, "
        r"or --overwrite to replace this stage$"
    )
    with pytest.raises(OtherBuild, match=message) as caught:
        claim_folder(STORAGE, str(tmp_path), other, overwrite=False)
    assert caught.value.exit_code == 6
    assert names(tmp_path) == {"data/x.parquet", PLAN_NAME}
    assert read_plan(STORAGE, str(tmp_path)) == plan()


def test_a_folder_of_somebody_s_files_is_left_alone(tmp_path):
    """A folder without a plan but with files is not ours to fill."""
    for name in ("b.txt", "a.txt", "sub/c.txt", "d.txt"):
        STORAGE.write(f"{tmp_path}/{name}", b"1")
    with pytest.raises(
        OtherBuild, match=r"holds files but no plan of a build \(a\.txt, b\.txt, d\.txt\); give another --output$"
    ):
        claim_folder(STORAGE, str(tmp_path), plan(), overwrite=False)
    assert names(tmp_path) == {"a.txt", "b.txt", "sub/c.txt", "d.txt"}


def test_overwrite_clears_what_a_build_writes_and_nothing_else(tmp_path):
    """All entries of the stage go, files of others stay, and the new plan stands there."""
    claim_folder(STORAGE, str(tmp_path), plan(), overwrite=False)
    ours = ("data/x", "lookup/x", "rejects/x", "tokenizer/x", "_done/00000.json", MANIFEST_NAME)
    theirs = ("notes.txt", "data.txt", "sub/data/x", ".hidden", "_titles/data/x")
    for name in (*ours, *theirs):
        STORAGE.write(f"{tmp_path}/{name}", b"1")
    other = plan(options={"wiki": "eswiki"})
    claim_folder(STORAGE, str(tmp_path), other, overwrite=True)
    assert names(tmp_path) == {*theirs, PLAN_NAME}
    assert read_plan(STORAGE, str(tmp_path)) == other


def test_the_manifest_goes_first(tmp_path):
    """So that no reader takes what is left for a finished stage."""
    removed = []

    class Recorder(LocalStorage):
        def remove(self, path):
            removed.append(path.rpartition("/")[2])

    clear_folder(Recorder(), str(tmp_path))
    assert removed[0] == MANIFEST_NAME and {"data", "_done", PLAN_NAME} < set(removed)


@pytest.mark.parametrize(
    ("found", "wanted", "lines"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {}, ["a: 1 there, null here"]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}, ["a.b: 1 there, 3 here"]),
        ({"i": [{"n": 1}, {"n": 2}]}, {"i": [{"n": 1}, {"n": 3}]}, ["i[1].n: 2 there, 3 here"]),
        ({"i": [1]}, {"i": [1, 2]}, ["i: [1] there, [1, 2] here"]),
        ({"a": "x" * 90}, {"a": "y"}, [f"a: {'x' * 57}... there, y here"]),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, ["a: 1 there, 2 here", "b: 1 there, 2 here"]),
    ],
)
def test_differences_are_named_by_their_place(found, wanted, lines):
    """One phrase each, sorted, long values cut."""
    assert describe_differences(found, wanted) == lines


def test_a_finished_stage_is_an_input_by_its_manifest(tmp_path):
    """Another manifest is another input; without one the message names the command."""
    with pytest.raises(
        UsageError, match=r"the stage articles is not finished; run `leia-beam articles` with this --output first$"
    ):
        upstream(str(tmp_path), "articles")
    found = []
    for content in (b"1", b"2"):
        STORAGE.write(f"{tmp_path}/{MANIFEST_NAME}", content)
        found.append(upstream(str(tmp_path), "articles"))
    assert [entry["name"] for entry in found] == ["articles", "articles"]
    assert found[0]["manifest_sha256"] != found[1]["manifest_sha256"]
    assert (
        replace(plan(), identity={"inputs": found}).fingerprint
        == replace(plan(), identity={"inputs": found}).fingerprint
    )

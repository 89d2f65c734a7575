"""sums and dump_dates: what stands beside a dump, and in its name, is compared with what is there."""

from __future__ import annotations

import hashlib

import pytest

from leia_beam.dump_dates import dates_apart, dump_date
from leia_beam.dumps import find_dump
from leia_beam.errors import DamagedInput, UsageError
from leia_beam.sums import check_sum, stated_sum


def test_the_strongest_sum_of_the_lists_beside_a_dump_is_taken(tmp_path):
    """Lists by any of the usual names; names with folders or an asterisk; other files' lines are not its own."""
    path = tmp_path / "x-pages.xml"
    path.write_bytes(b"<mediawiki/>")
    dump = find_dump(str(path))
    sums = {name: hashlib.new(name, b"<mediawiki/>").hexdigest() for name in ("md5", "sha1", "sha256")}
    with pytest.raises(UsageError, match=r"--verify-inputs: no list of sums in .* names x-pages\.xml"):
        stated_sum(dump)
    (tmp_path / "x-md5sums.txt").write_text(f"{sums['md5']}  x-pages.xml\n")
    assert stated_sum(dump) == f"md5:{sums['md5']}"
    (tmp_path / "sha1sums.txt").write_text(
        f"{'0' * 40}  y.xml\n# a remark\n{sums['sha1'].upper()} *dumps/x-pages.xml\r\n"
    )
    assert stated_sum(dump) == f"sha1:{sums['sha1']}"
    (tmp_path / "SHA256SUMS").write_text(f"{sums['sha256']}  x-pages.xml\n")
    assert stated_sum(dump) == f"sha256:{sums['sha256']}"
    for name, value in sums.items():
        check_sum(dump, f"{name}:{value}")
    with pytest.raises(
        DamagedInput, match=rf"x-pages\.xml: SHA1 is {sums['sha1']}, the list of sums beside it says 00; down"
    ):
        check_sum(dump, "sha1:00")


def test_dates_stand_in_the_names_of_dumps():
    """With and without hyphens; numbers that are no date are none."""
    names = ["swwiki-20260301-pages.xml.bz2", "2026-03-01.json", "jawiki-20261301-x", "enwiki-p10p30302-x", "x20260301"]
    assert [str(dump_date(name) or "") for name in names] == ["2026-03-01", "2026-03-01", "", "", "2026-03-01"]


def test_dumps_of_one_month_raise_no_question():
    """45 days are near enough; of several files the worst pair is told; without a date nothing is."""
    assert dates_apart(["a-20260101-x"], ["b-20260215-x"]) is None
    assert dates_apart(["a-20260101-x", "a-20260301-x"], ["b-20260216-x"]) == (
        "the wiki is of 2026-01-01, Wikidata of 2026-02-16, 46 days apart"
    )
    assert dates_apart(["a"], ["b-20260216-x"]) is None

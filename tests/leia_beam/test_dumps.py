"""A dump of any format gives the same records for any cut, and says what is wrong with it."""

import bz2
import gzip
import random
from itertools import pairwise

import pytest

from leia_beam.dumps import BZ2, GZIP, PLAIN, byte_ranges, find_dump, read_range
from leia_beam.errors import DamagedInput, UsageError
from leia_beam.ranges import Place, RangeReport


def _all_records(path, cuts, delimiter, limit=1 << 30):
    """The records of all ranges between `cuts`, and the reports."""
    dump = find_dump(str(path))
    edges = [0, *sorted(set(cuts)), dump.size_bytes]
    records, reports = [], []
    for start, end in pairwise(edges):
        if start == end:
            continue
        report = RangeReport()
        records += list(read_range(dump, start, end, delimiter, report, limit))
        reports.append(report)
    return records, reports


def test_records_of_a_plain_file_do_not_depend_on_the_cuts(tmp_path):
    """Any set of cuts, also inside delimiters and long records, gives the sequential reading; places meet."""
    random.seed(1)
    straddled = 0
    for delimiter in (b"\n", b"</page>"):
        body = [b"x" * random.choice((0, 1, 5, 700, 40_000)) + b"%d" % i for i in range(200)]
        for tail in (b"", b"</mediawiki>"):
            content = delimiter.join(body) + delimiter + tail
            path = tmp_path / "plain.txt"
            path.write_bytes(content)
            expected = content.split(delimiter)
            if not expected[-1]:
                expected.pop()
            for _ in range(60):
                cuts = [random.randrange(1, len(content)) for _ in range(random.choice((0, 1, 3, 50)))]
                cuts += [content.find(delimiter, cut) + random.randrange(9) for cut in cuts[::2]]
                cuts = [cut for cut in cuts if 0 < cut < len(content)]
                straddled += sum(content[max(0, cut - 3) : cut + 4].find(delimiter) >= 0 for cut in cuts)
                records, reports = _all_records(path, cuts, delimiter)
                assert [record.data for record in records] == expected
                filled = [report for report in reports if report.start is not None]
                assert all(a.end == b.start for a, b in pairwise(filled))
                assert [report.ends_file for report in filled] == [False] * (len(filled) - 1) + [True]
    assert straddled > 20


def test_the_three_formats_give_the_same_records(tmp_path):
    """The format is told by content, whatever the file is called."""
    content = b"".join(b'{"id":"Q%d"},\n' % i for i in range(30_000))
    formats = {}
    for name, data in (("a", content), ("b", bz2.compress(content, 1)), ("c", gzip.compress(content))):
        path = tmp_path / name
        path.write_bytes(data)
        formats[find_dump(str(path)).format] = [record.data for record in _all_records(path, [], b"\n")[0]]
    assert set(formats) == {PLAIN, BZ2, GZIP}
    assert formats[PLAIN] == formats[BZ2] == formats[GZIP] == content.split(b"\n")[:-1]


def test_a_record_over_the_limit_keeps_its_size_and_its_first_bytes(tmp_path):
    """What is too large is not read into memory, and the records beside it are whole."""
    path = tmp_path / "plain.txt"
    path.write_bytes(b"small\n" + b"L" * 3_000_000 + b"\nafter\n")
    records, _ = _all_records(path, [1_000_000], b"\n", limit=1000)
    assert [(record.place, record.data[:3], len(record.data), record.size_bytes) for record in records] == [
        (Place(0, 0), b"sma", 5, 5),
        (Place(0, 6), b"LLL", 200, 3_000_000),
        (Place(0, 3_000_007), b"aft", 5, 5),
    ]


def test_a_gzip_file_is_one_range(tmp_path):
    """What cannot be cut is not cut."""
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress(b"a\n" * 100_000))
    dump = find_dump(str(path))
    assert byte_ranges(dump, 10) == [(0, dump.size_bytes)]


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
def test_a_truncated_gzip_file_is_an_error_with_its_byte(tmp_path, cut):
    """A download that stopped is never taken for a whole dump."""
    data = gzip.compress(random.Random(1).randbytes(3_000_000))
    path = tmp_path / "x.gz"
    path.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(DamagedInput, match=r"x\.gz: gzip stream damaged or ends early near byte [\d,]+"):
        _all_records(path, [], b"\n")


def test_what_is_no_dump_is_said(tmp_path):
    """Missing, empty, an error page under a dump's name, another compression."""
    cases = {
        "empty.bz2": (b"", "empty file"),
        "page.xml.bz2": (b"<html><body>404", "an HTML page"),
        "text.bz2": (b"hello", "not bz2 data"),
        "x.xz": (b"\xfd7zXZ\0....", "xz data is not read"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DamagedInput, match=message):
            find_dump(str(tmp_path / name))
    with pytest.raises(UsageError, match="no such file"):
        find_dump(str(tmp_path / "nothing.bz2"))
    with pytest.raises(UsageError, match="is a folder"):
        find_dump(str(tmp_path))


def test_a_file_that_grows_during_the_build_is_an_error(tmp_path):
    """A download that still runs is found by its size."""
    path = tmp_path / "x.json"
    path.write_bytes(b"a\n" * 10)
    dump = find_dump(str(path))
    path.write_bytes(b"a\n" * 11)
    with pytest.raises(DamagedInput, match="22 bytes, but 20 when the build began"):
        list(read_range(dump, 0, 20, b"\n", RangeReport(), 100))

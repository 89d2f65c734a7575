"""A dump of any format gives the same records for any cut, and says what is wrong with it."""

import bz2
import gzip
import io
import random
import threading
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import pytest
import zstandard

from leia_beam.dumps import Dump, DumpReader, ReadOptions, byte_ranges, find_dump
from leia_beam.errors import DamagedInput, MissingResource, TruncatedInput
from leia_beam.ranges import Place, RangeReport
from leia_beam.storage import LocalStorage
from leia_beam.streams import BZ2, GZIP, PIECE_BYTES, PLAIN, UTF_16, ZSTD


def read_ranges(dump, ranges, delimiter, limit=1 << 30, salvage=False):
    """The records of ranges, read in their order by one reader, and the reports."""
    records, reports = [], []
    with DumpReader(dump, delimiter, ReadOptions(max_record_bytes=limit, salvage=salvage)) as reader:
        for start, end in ranges:
            report = RangeReport()
            records += list(reader.records(start, end, report))
            reports.append(report)
    return records, reports


def _all_records(path, cuts, delimiter, limit=1 << 30):
    """The records of all ranges between `cuts`, and the reports."""
    dump = find_dump(str(path))
    edges = [0, *sorted(set(cuts)), dump.size_bytes]
    return read_ranges(dump, [(a, b) for a, b in pairwise(edges) if a < b], delimiter, limit)


def compressors():
    """Format → how a file of it is made; two members each, but for the plain one."""

    def halves(compress):
        return lambda data: compress(data[: len(data) // 2]) + compress(data[len(data) // 2 :])

    return {
        PLAIN: bytes,
        BZ2: halves(bz2.compress),
        GZIP: halves(lambda data: gzip.compress(data, 1)),
        ZSTD: halves(zstandard.ZstdCompressor(level=1, write_checksum=True).compress),
    }


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


def test_all_formats_give_the_same_records(tmp_path):
    """The format is told by content, whatever the file is called."""
    content = b"".join(b'{"id":"Q%d"},\n' % i for i in range(30_000))
    for format_, compress in compressors().items():
        path = tmp_path / f"{format_} file"
        path.write_bytes(compress(content))
        dump = find_dump(str(path))
        assert dump.format == format_ and dump.is_sequential == (format_ in (GZIP, ZSTD))
        assert [record.data for record in _all_records(path, [], b"\n")[0]] == content.split(b"\n")[:-1]


@pytest.mark.parametrize("format_", [GZIP, ZSTD])
@pytest.mark.parametrize("delimiter", [b"\n", b"</page>"])
def test_ranges_of_a_sequential_file_partition_its_records(tmp_path, format_, delimiter):
    """Any ranges of whole pieces, also some left out, also read by a reader of their own: the same records each time."""
    rng = random.Random(3)
    body = [rng.randbytes(rng.choice((0, 3, 900, 9_000, 400_000))).hex().encode() for _ in range(150)]
    content = delimiter.join(body) + delimiter + b"</mediawiki>"
    path = tmp_path / "x"
    path.write_bytes(compressors()[format_](content))
    dump = find_dump(str(path))
    ranges = byte_ranges(dump, PIECE_BYTES)
    assert len(ranges) > 20 and all(start % PIECE_BYTES == 0 for start, _ in ranges)
    records, reports = read_ranges(dump, ranges, delimiter)
    assert [record.data for record in records] == content.split(delimiter)
    filled = [report for report in reports if report.start is not None]
    assert all(a.end == b.start for a, b in pairwise(filled)) and 10 < len(filled) <= len(ranges)
    assert [report.ends_file for report in filled] == [False] * (len(filled) - 1) + [True]
    by_range = {report.start: report.end for report in filled}
    for _ in range(15):
        some = sorted(rng.sample(ranges, rng.randrange(1, len(ranges))))
        found, partial = read_ranges(dump, some, delimiter)
        assert {report.start: report.end for report in partial if report.start}.items() <= by_range.items()
        expected = [
            record
            for record in records
            if any(report.start <= record.place < report.end for report in partial if report.start)
        ]
        assert found == expected
    wide = byte_ranges(dump, 5 * PIECE_BYTES + 17)
    assert len(wide) < len(ranges) / 4
    assert read_ranges(dump, wide, delimiter)[0] == records


def test_utf_16_is_read_as_one_range_of_utf_8(tmp_path):
    """With either byte order and any compression, surrogate pairs and pieces that cut a character among it."""
    text = "東京😀é</page>" * 30_000
    for encoding in ("utf-16-le", "utf-16-be"):
        mark = "\ufeff".encode(encoding)
        for format_, compress in compressors().items():
            path = tmp_path / f"{encoding} {format_}"
            path.write_bytes(compress(mark + text.encode(encoding)))
            dump = find_dump(str(path))
            assert (dump.encoding, dump.format, dump.is_sequential) == (UTF_16, format_, True)
            assert byte_ranges(dump, 1000) == [(0, dump.size_bytes)]
            records = _all_records(path, [], b"</page>")[0]
            assert [record.data.decode() for record in records] == ["東京😀é"] * 30_000
    path.write_bytes(b"\xff\xfe" + b"\x00\xd8" * 10)
    with pytest.raises(DamagedInput, match="not UTF-16 near byte "):
        _all_records(path, [], b"</page>")


def test_a_reader_that_is_left_early_leaves_no_thread(tmp_path):
    """Decoding ahead ends with the reader."""
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(random.Random(5).randbytes(8 << 20).hex().encode(), 1))
    before = threading.active_count()
    with DumpReader(find_dump(str(path)), b"\n", ReadOptions(max_record_bytes=10)) as reader:
        assert next(iter(reader.records(0, path.stat().st_size, RangeReport()))).size_bytes == 16 << 20
        assert threading.active_count() <= before + 1
    assert threading.active_count() == before


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


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("format_", [GZIP, ZSTD])
def test_a_truncated_stream_is_an_error_with_its_byte_and_can_be_salvaged(tmp_path, cut, format_):
    """A download that stopped is never taken for a whole dump; with salvage its whole records are kept."""
    content = b"".join(b"%d\n" % number for number in random.Random(1).choices(range(10**15), k=200_000))
    data = compressors()[format_](content)
    path = tmp_path / "x"
    path.write_bytes(data[: int(len(data) * cut)])
    dump = find_dump(str(path))
    ranges = byte_ranges(dump, PIECE_BYTES)
    with pytest.raises(
        TruncatedInput, match=rf"x: {format_} stream ends early at byte {dump.size_bytes:,}; download it"
    ):
        read_ranges(dump, ranges, b"\n")
    records, reports = read_ranges(dump, ranges, b"\n", salvage=True)
    assert reports[-1].salvaged and not any(report.ends_file for report in reports)
    found = b"".join(record.data + b"\n" for record in records)
    assert content.startswith(found) and len(found) > (cut - 0.3) * len(content)


def test_a_damaged_gzip_file_is_an_error_wherever_the_damage_is(tmp_path):
    """Every flipped bit is found, by the decoder or by the checksum; never are other records given without an error."""
    content = b"".join(b"%d\n" % number for number in random.Random(1).choices(range(10**15), k=3_000))
    whole = gzip.compress(content, 9, mtime=0)
    rng = random.Random(2)
    damaged = 0
    for _ in range(150):
        blob = bytearray(whole)
        bit = rng.randrange(80, len(blob) * 8)
        blob[bit // 8] ^= 1 << bit % 8
        (tmp_path / "x").write_bytes(blob)
        try:
            records, _ = _all_records(tmp_path / "x", [], b"\n")
        except DamagedInput as error:
            damaged += "gzip" in str(error)
        else:
            assert b"".join(record.data + b"\n" for record in records) == content
    assert damaged > 140


@pytest.mark.parametrize("format_", [GZIP, ZSTD])
@pytest.mark.parametrize(
    ("tail", "kind"), [(b"\0" * 99, "zero padding"), (b"\x1f", "data that is no"), (b"<x>" * 400_000, "no")]
)
def test_what_stands_after_the_last_member_is_a_warning(tmp_path, format_, tail, kind):
    """The records are exact; the range that ends the file says where, also where the tail covers further ranges."""
    content = b"a\nb\n"
    data = compressors()[format_](content)
    path = tmp_path / "x"
    path.write_bytes(data + tail)
    dump = find_dump(str(path))
    records, reports = read_ranges(dump, byte_ranges(dump, PIECE_BYTES), b"\n")
    assert [record.data for record in records] == [b"a", b"b"]
    warnings = [warning for report in reports for warning in report.warnings]
    assert len(warnings) == 1 and f"{len(tail):,} bytes of" in warnings[0] and kind in warnings[0]
    assert f"at byte {len(data):,}" in warnings[0] and sum(report.ends_file for report in reports) == 1


@pytest.mark.parametrize("format_", [BZ2, GZIP, ZSTD])
def test_a_bomb_is_read_in_bounded_memory(tmp_path, format_):
    """300 MB of zeros in a few kilobytes, and then a good line: the record is too large, its size is told, all else is whole."""
    compress = {BZ2: bz2.compress, GZIP: gzip.compress, ZSTD: zstandard.ZstdCompressor().compress}[format_]
    path = tmp_path / "x"
    path.write_bytes(compress(b"\0" * (300 << 20)) + compress(b"\ngood\n"))
    tracemalloc.start()
    try:
        records, _ = _all_records(path, [], b"\n", limit=1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(record.size_bytes, record.data[:4]) for record in records] == [(300 << 20, b"\0\0\0\0"), (4, b"good")]
    assert 1 << 20 < peak < 160 << 20, f"{peak:,}"


class FailingStorage(LocalStorage):
    """A disk that gives up after some bytes."""

    def open(self, path):
        class Failing(io.FileIO):
            def read(self, size=-1):
                if self.tell() > 300_000:
                    raise OSError(5, "Input/output error")
                return super().read(min(size, 100_000))

        return Failing(path)


@pytest.mark.parametrize("format_", [PLAIN, BZ2, GZIP, ZSTD])
def test_a_dump_that_cannot_be_read_on_is_the_environments_fault(tmp_path, format_):
    """The dump is named, not the scratch folder; it may pass on retry, so it is no damage."""
    path = tmp_path / "x"
    path.write_bytes(compressors()[format_](random.Random(1).randbytes(1 << 20).hex().encode()))
    with pytest.raises(MissingResource, match=r"x: cannot be read \(Input/output error\); run the same command again$"):
        read_ranges(replace(find_dump(str(path)), storage=FailingStorage()), [(0, path.stat().st_size)], b"\n")
    if format_ == BZ2:  # whose first block is large
        with pytest.raises(MissingResource, match=r"x: cannot be read \(Input/output error\)"):
            find_dump(str(path), FailingStorage())


def test_a_file_that_grows_during_the_build_is_an_error(tmp_path):
    """A download that still runs is found by its size, one that was replaced by its time, one that is gone as such."""
    path = tmp_path / "x.json"
    path.write_bytes(b"a\n" * 10)
    dump = find_dump(str(path))
    read_ranges(dump, [(0, 20)], b"\n")
    path.write_bytes(b"a\n" * 11)
    with pytest.raises(DamagedInput, match="22 bytes, but 20 when the build began"):
        read_ranges(dump, [(0, 20)], b"\n")
    path.write_bytes(b"b\n" * 10)
    with pytest.raises(DamagedInput, match=r"x\.json: replaced since the build began"):
        read_ranges(dump, [(0, 20)], b"\n")
    path.unlink()
    with pytest.raises(DamagedInput, match=r"x\.json: has gone since the build began"):
        read_ranges(dump, [(0, 20)], b"\n")


class Dribble(io.FileIO):
    """Gives fewer bytes than were asked for, as remote files do."""

    def read(self, size=-1):
        return super().read(min(size, 1_234) if size >= 0 else size)


class DribblingStorage(LocalStorage):
    """Opens such files."""

    def open(self, path):
        return Dribble(path)


@pytest.mark.parametrize("format_", [PLAIN, BZ2, GZIP, ZSTD])
def test_short_reads_change_nothing(tmp_path, format_):
    """A file that gives less than was asked for has the same records and places."""
    content = b"".join(b"%d\n" % number for number in random.Random(1).choices(range(10**15), k=200_000))
    path = tmp_path / "x"
    path.write_bytes(compressors()[format_](content))
    dump = find_dump(str(path))
    slow = find_dump(str(path), DribblingStorage())
    assert slow == dump and isinstance(slow, Dump)
    ranges = byte_ranges(dump, 2 * PIECE_BYTES)
    assert len(ranges) > 1
    assert read_ranges(slow, ranges, b"\n") == read_ranges(dump, ranges, b"\n")

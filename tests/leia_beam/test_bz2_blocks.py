"""bz2_blocks: what ranges yield together is the sequential read, for any file and cuts, or an error says why not."""

from __future__ import annotations

import bz2
import io
import itertools
import pickle
import random
import shutil
import subprocess
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leia_beam import bz2_bits
from leia_beam.bz2_bits import BLOCK_MAGIC, STREAM_END_MAGIC, fold_crc
from leia_beam.bz2_blocks import read_records
from leia_beam.errors import DamagedInput
from leia_beam.ranges import Place, RangeReport, Record, split_points

EMPTY_STREAM = bz2.compress(b"")


# ---- files to read: built block by block, so that a few hundred bytes have many blocks at all bit offsets


class Bits(NamedTuple):
    """A compressed block as bits, and its CRC."""

    value: int
    size: int
    crc: int


def block_of(piece: bytes) -> Bits:
    """The only block of the stream that bz2 makes of a short piece."""
    stream = bz2.compress(piece)
    value, total = int.from_bytes(stream, "big"), len(stream) * 8
    for padding in range(8):
        crc = value >> padding & 0xFFFFFFFF
        if value >> (padding + 32) & (1 << 48) - 1 == STREAM_END_MAGIC:
            count = total - 32 - 80 - padding
            return Bits(value >> (padding + 80) & (1 << count) - 1, count, crc)
    raise AssertionError("no stream end")


def one_stream(blocks: Iterable[Bits | bytes], level: int = 9, combined: int | None = None) -> bytes:
    """One stream whose blocks are these, or are those of these pieces; with another combined CRC where one is given."""
    value, count, folded = int.from_bytes(b"BZh%d" % level, "big"), 32, 0
    for block in blocks:
        bits = block_of(block) if isinstance(block, bytes) else block
        value, count = value << bits.size | bits.value, count + bits.size
        folded = fold_crc(folded, bits.crc)
    value, count = value << 80 | STREAM_END_MAGIC << 32 | (folded if combined is None else combined), count + 80
    padding = -count % 8
    return (value << padding).to_bytes((count + padding) // 8, "big")


def cut_into(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Pieces of these sizes, again and again until the data ends."""
    pieces, at, i = [], 0, 0
    while at < len(data):
        pieces.append(data[at : at + sizes[i % len(sizes)]])
        at, i = at + sizes[i % len(sizes)], i + 1
    return pieces


def lines(rng: random.Random, total: int, mean: int) -> bytes:
    """Lines of hexadecimal digits, so that blocks do not compress to nothing."""
    made = []
    while total > 0:
        line = rng.randbytes(int(rng.expovariate(2 / mean))).hex().encode()
        made.append(line)
        total -= len(line) + 1
    return b"\n".join(made) + b"\n"


def pages(rng: random.Random, count: int, mean: int) -> bytes:
    page = (b" <page>\n%s</page>\n" % lines(rng, mean, mean) for _ in range(count))
    return b"<mediawiki>\n" + b"".join(page) + b"</mediawiki>\n"


# ---- reading them


def sequential(blob: bytes, delimiter: bytes) -> list[bytes]:
    records = bz2.decompress(blob).split(delimiter)
    return records if records[-1] else records[:-1]


def read_range(
    blob: bytes, start: int, end: int, delimiter: bytes = b"\n", chunk: int = 1 << 16, limit: int | None = None
) -> tuple[list[Record], RangeReport]:
    report = RangeReport()
    reader = read_records(
        io.BytesIO(blob), "x.bz2", start, end, delimiter, report, chunk_bytes=chunk, max_record_bytes=limit
    )
    return list(reader), report


def ranges_of(size: int, cuts: Iterable[int]) -> list[tuple[int, int]]:
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < size}), size]
    return list(itertools.pairwise(edges))


def read_union(
    blob: bytes, cuts: Iterable[int], delimiter: bytes = b"\n", chunk: int = 1 << 16
) -> tuple[list[bytes], list[RangeReport]]:
    """What all ranges yield together; on the way, that their reports fit together as RangeReport promises."""
    union: list[Record] = []
    reports = []
    for start, end in ranges_of(len(blob), cuts):
        records, report = read_range(blob, start, end, delimiter, chunk)
        if records:
            assert records[0].place == report.start
        assert all(start * 8 <= bit < end * 8 for bit, _ in report.block_crcs)
        assert len(report.block_crcs) == report.blocks_owned
        assert all(record.size_bytes == len(record.data) for record in records)
        union += records
        reports.append(report)
    assert_places_meet(reports)
    places = [record.place for record in union]
    assert places == sorted(set(places))
    assert [report.ends_file for report in reports].count(True) == 1
    assert_stream_crcs_fold(reports)
    return [record.data for record in union], reports


def assert_places_meet(reports: Iterable[RangeReport]) -> None:
    owners = [report for report in reports if report.start is not None]
    for report, following in itertools.pairwise(owners):
        assert report.end == following.start
    assert all(report.start and report.end and report.start <= report.end for report in owners)
    assert not owners or owners[-1].ends_file


def assert_stream_crcs_fold(reports: Iterable[RangeReport]) -> None:
    events = sorted(
        [(bit, "block", crc) for report in reports for bit, crc in report.block_crcs]
        + [(bit, "end", crc) for report in reports for bit, crc in report.stream_ends]
    )
    combined = 0
    for _, kind, crc in events:
        if kind == "block":
            combined = fold_crc(combined, crc)
        else:
            assert combined == crc
            combined = 0
    assert events and events[-1][1] == "end"


def assert_union_is_sequential(
    blob: bytes, cut_sets: Iterable[Iterable[int]], delimiter: bytes = b"\n", chunk: int = 1 << 16
) -> list[RangeReport]:
    wanted, raw_size = sequential(blob, delimiter), len(bz2.decompress(blob))
    seen = []
    for cuts in cut_sets:
        cuts = list(cuts)
        found, reports = read_union(blob, cuts, delimiter, chunk)
        assert found == wanted, f"cuts {cuts}"
        assert sum(report.decoded_bytes for report in reports) == raw_size
        assert not any(report.warnings or report.false_magics for report in reports)
        seen += reports
    return seen


def random_cut_sets(rng: random.Random, size: int, count: int) -> list[list[int]]:
    return [[rng.randrange(size + 1) for _ in range(rng.choice([1, 2, 3, 8, 40]))] for _ in range(count)]


def block_bytes(blob: bytes) -> list[int]:
    """The bytes at which the blocks begin."""
    return [bit // 8 for bit, _ in read_range(blob, 0, len(blob))[1].block_crcs]


# ---- the union is the sequential read


@pytest.mark.parametrize(("mean", "total"), [(3, 110_000), (60, 500_000), (4_000, 500_000), (150_000, 700_000)])
@pytest.mark.parametrize("trailing", [True, False], ids=["ends-in-delimiter", "no-last-delimiter"])
def test_union_is_sequential_for_real_blocks(mean: int, total: int, trailing: bool) -> None:
    """Files as bzip2 makes them, with levels 1-9, one or many streams, empty streams; at random cuts."""
    rng = random.Random(mean)
    data = lines(rng, total, mean)
    data = data if trailing else data[:-1] + b"x"
    halves = cut_into(data, [len(data) // 2 + 1])
    files = [
        bz2.compress(data, 1),
        b"".join(bz2.compress(piece, 1 + i % 9) for i, piece in enumerate(cut_into(data, [50_000, 130_000, 7]))),
        EMPTY_STREAM * 2 + bz2.compress(halves[0], 1) + EMPTY_STREAM + bz2.compress(halves[1], 2) + EMPTY_STREAM * 3,
        b"".join(bz2.compress(piece) for piece in cut_into(data[:600], [3])) + bz2.compress(data[600:], 9),
    ]
    owners = Counter[int]()
    for blob in files:
        assert bz2.decompress(blob) == data
        reports = assert_union_is_sequential(blob, [[], *random_cut_sets(rng, len(blob), 4)])
        owners.update(report.blocks_owned for report in reports)
    assert owners[0] > 0 and owners[1] > 0 and sum(owners.values()) - owners[0] - owners[1] > 0


def test_union_is_sequential_at_every_cut_near_a_block_edge() -> None:
    """Every single cut from 9 bytes before to 9 bytes after each block of a stream of several real blocks."""
    data = lines(random.Random(2), 330_000, 700)
    blob = bz2.compress(data, 1)
    starts = block_bytes(blob)
    cuts = {at + shift for at in [*starts, len(blob)] for shift in range(-9, 10)}
    assert_union_is_sequential(blob, [[cut] for cut in cuts])
    assert_union_is_sequential(blob, [cuts])
    assert len(starts) >= 4 and len(cuts) > 60


def test_union_is_sequential_at_every_cut_of_small_blocks() -> None:
    """Every single cut, and all cuts at once, of streams whose blocks begin at all eight bit offsets."""
    rng = random.Random(3)
    data = lines(rng, 900, 25)
    pieces = cut_into(data, [1, 40, 90, 3, 17])
    bits = set()
    for blob in (
        one_stream(pieces),
        b"".join(one_stream(pieces[i : i + 4], 1 + i % 9) + EMPTY_STREAM * (i % 3) for i in range(0, len(pieces), 4)),
    ):
        reports = assert_union_is_sequential(blob, [[cut] for cut in range(1, len(blob))], chunk=512)
        assert_union_is_sequential(blob, [range(len(blob))], chunk=512)
        bits |= {bit % 8 for report in reports for bit, _ in report.block_crcs}
    assert bits == set(range(8))


@pytest.mark.parametrize("delimiter", [b"\n", b"</page>", b"ab"])
def test_union_is_sequential_for_any_small_file(delimiter: bytes) -> None:
    """Hypothesis builds pieces out of parts of delimiters, the streams they go to, the cuts, the size of reads."""
    seen = Counter[str]()
    part = st.sampled_from([delimiter, delimiter[:1], delimiter[:-1], delimiter[1:], b"<", b"xyz", b"a" * 300])
    piece = st.lists(part, min_size=1, max_size=5).map(b"".join).filter(len)
    streams = st.lists(st.lists(piece, max_size=6), min_size=1, max_size=4)

    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(streams, st.lists(st.floats(0, 1), max_size=12), st.sampled_from([1, 7, 100, 5_000]))
    def check(streams: list[list[bytes]], cuts: list[float], chunk: int) -> None:
        blob = b"".join(one_stream(pieces, 1 + i % 9) for i, pieces in enumerate(streams))
        cut_bytes = [int(cut * len(blob)) for cut in cuts]
        reports = assert_union_is_sequential(blob, [cut_bytes], delimiter, chunk)
        pieces = [piece for stream in streams for piece in stream]
        data = b"".join(pieces)
        seen["straddles"] += data.count(delimiter) > sum(piece.count(delimiter) for piece in pieces)
        seen["ranges without a block"] += any(not report.blocks_owned for report in reports)
        seen["blocks without a delimiter"] += any(report.blocks_owned and report.start is None for report in reports)
        seen["no record"] += not data
        seen["no last delimiter"] += not data.endswith(delimiter)

    check()
    if len(delimiter) == 1:
        del seen["straddles"]
    assert min(seen.values()) > 5 and len(seen) == 5 - (len(delimiter) == 1), seen


def test_records_of_many_blocks_are_whole() -> None:
    """Records that span dozens of blocks, with several whole ranges in the middle of one record."""
    rng = random.Random(5)
    data = b"\n".join(rng.randbytes(size).hex().encode() for size in (9_000, 20, 30_000, 1, 5)) + b"\n"
    blob = one_stream(cut_into(data, [700]))
    reports = assert_union_is_sequential(blob, random_cut_sets(rng, len(blob), 60))
    assert sum(report.blocks_owned > 1 and report.start is None for report in reports) > 20


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8])
def test_delimiters_that_straddle_blocks_belong_to_the_first(size: int) -> None:
    """`</page>` cut after every byte, down to blocks of one byte, at every cut."""
    data = b"<page>one</page><page>two</page></page></page\n</pag</page>the end</page"
    for first in range(1, size + 1):
        pieces = [data[:first], *cut_into(data[first:], [size])]
        blob = b"".join(bz2.compress(piece) for piece in pieces)
        found, _ = read_union(blob, [], b"</page>")
        assert found == [b"<page>one", b"<page>two", b"", b"</page\n</pag", b"the end</page"]
        assert_union_is_sequential(blob, [range(0, len(blob), 13), range(len(blob))], b"</page>", chunk=4_000)
        assert sum(piece.count(b"</page>") for piece in pieces) < 4


def test_pages_of_a_dump() -> None:
    rng = random.Random(6)
    data = pages(rng, 400, 1_500)
    blob = b"".join(bz2.compress(piece, 1) for piece in cut_into(data, [150_003, 42, 12_345]))
    reports = assert_union_is_sequential(blob, random_cut_sets(rng, len(blob), 12), b"</page>")
    records, _ = read_range(blob, 0, len(blob), b"</page>")
    assert len(records) == 401 and records[-1].data == b"\n</mediawiki>\n"
    assert len(reports) > 50


@pytest.mark.parametrize("tool", ["bzip2", "lbzip2", "pbzip2"])
def test_files_of_the_usual_tools(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    rng = random.Random(7)
    data = lines(rng, 1_200_000, 900)
    for options in (["-1"], ["-9"]):
        blob = subprocess.run([tool, *options, "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
        reports = assert_union_is_sequential(blob, random_cut_sets(rng, len(blob), 5))
        assert sum(report.blocks_owned for report in reports) > 5


def test_blocks_that_decode_to_megabytes() -> None:
    """Run-length coding lets a block of 900 kB stand for 45 MB: 12 MB of one byte are one block and one record."""
    blob = bz2.compress(b"a" * 12_000_000 + b"\nb\n")
    records, report = read_range(blob, 0, len(blob))
    assert [record.size_bytes for record in records] == [12_000_000, 1]
    assert report.blocks_owned == 1 and report.decoded_bytes == 12_000_003


@pytest.mark.parametrize("streams", [1, 2, 5])
def test_a_file_of_empty_streams_has_no_record(streams: int) -> None:
    blob = EMPTY_STREAM * streams
    found, reports = read_union(blob, range(len(blob)))
    assert found == [] and reports[0].ends_file
    assert sum(len(report.stream_ends) for report in reports) == streams
    assert all(report.start is None and report.end is None for report in reports)


def test_places_are_named_by_the_byte_before_them() -> None:
    """The place between two blocks is (first block, its length), whichever range names it."""
    blob = bz2.compress(b"one\ntwo\n") + bz2.compress(b"three\nfo") + bz2.compress(b"ur")
    first, second, third = (bit for bit, _ in read_range(blob, 0, len(blob))[1].block_crcs)
    records, report = read_range(blob, 0, 5)
    assert records == [
        Record(Place(first, 0), b"one", 3),
        Record(Place(first, 4), b"two", 3),
        Record(Place(first, 8), b"three", 5),
    ]
    assert (report.start, report.end, report.ends_file) == (Place(first, 0), Place(second, 6), False)
    assert report.blocks_owned == 1 and report.decoded_bytes == 8
    records, report = read_range(blob, 5, len(blob))
    assert records == [Record(Place(second, 6), b"four", 4)]
    assert (report.start, report.end, report.ends_file) == (Place(second, 6), Place(third, 2), True)
    assert report.blocks_owned == 2 and report.decoded_bytes == 10
    assert [bit for bit, _ in report.stream_ends] > [second]


def test_the_owner_of_only_the_last_delimiter_ends_the_file() -> None:
    """It yields nothing, and still meets the range before it: so a range that missed its records would be noticed."""
    blob = bz2.compress(b"one\n") + bz2.compress(b"two\n")
    _, second = block_bytes(blob)
    assert read_range(blob, 0, second)[1].end == read_range(blob, second, len(blob))[1].start
    records, report = read_range(blob, second, len(blob))
    assert records == [] and report.start == report.end and report.ends_file


# ---- what a range reads and keeps


class CountingFile(io.BytesIO):
    furthest = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.furthest = max(self.furthest, self.tell())
        return data


def test_a_range_reads_past_its_end_only_to_finish_its_last_record() -> None:
    rng = random.Random(8)
    blob = one_stream(cut_into(lines(rng, 200_000, 60), [1_000]))
    read_beyond = []
    for start, end in split_points(len(blob), 10_000)[:-1]:
        file = CountingFile(blob)
        list(read_records(file, "x.bz2", start, end, b"\n", RangeReport(), chunk_bytes=64))
        read_beyond.append(file.furthest - end)
    assert max(read_beyond) < 3_000 and len(read_beyond) > 5


def test_memory_does_not_grow_with_the_record() -> None:
    """One line of 4 MB under a limit of 10 kB: the size is told, 200 bytes are kept, the rest is never held."""
    rng = random.Random(9)
    line = rng.randbytes(2_000_000).hex().encode()
    blob = bz2.compress(b"short\n" + line + b"\nlast\n", 1)
    tracemalloc.start()
    records, _ = read_range(blob, 0, len(blob), chunk=1 << 14, limit=10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(record.data, record.size_bytes) for record in records] == [
        (b"short", 5),
        (line[:200], 4_000_000),
        (b"last", 4),
    ]
    assert peak < 2_000_000


@pytest.mark.parametrize("size", [0, 199, 200, 201, 300, 301, 5_000])
@pytest.mark.parametrize("block", [1, 150, 10_000])
def test_oversized_records_keep_their_first_bytes(size: int, block: int) -> None:
    """A record of at most the limit is whole; a longer one keeps 200 bytes, within one block or over many."""
    record = (b"0123456789" * 500)[:size]
    data = b"before\n" + record + b"\nafter"
    blob = one_stream(cut_into(data, [block]))
    records, _ = read_range(blob, 0, len(blob), limit=300)
    kept = record if size <= 300 else record[:200]
    assert [found[1:] for found in records] == [(b"before", 6), (kept, size), (b"after", 5)]


# ---- damage is never silent


def union_or_damage(blob: bytes, cuts: Iterable[int], delimiter: bytes = b"\n") -> tuple[str, list[bytes]]:
    """What a run over all ranges ends in; a range that fails does not keep the others from being read."""
    records: list[bytes] = []
    failed = ""
    for start, end in ranges_of(len(blob), cuts):
        try:
            records += [record.data for record in read_range(blob, start, end, delimiter, chunk=4_096)[0]]
        except DamagedInput as error:
            failed = failed or str(error)
    return failed, records


@pytest.mark.parametrize("streams", [1, 6])
def test_every_flipped_bit_is_an_error_or_harmless(streams: int) -> None:
    """Each bit of a small file, with random cuts and with a cut at the block: never other records without an error."""
    rng = random.Random(10)
    pieces = cut_into(lines(rng, 350, 30), [60])
    per_stream = -(-len(pieces) // streams)
    blob = b"".join(one_stream(pieces[i : i + per_stream], 5) for i in range(0, len(pieces), per_stream))
    wanted = sequential(blob, b"\n")
    starts = block_bytes(blob)
    outcomes = Counter[str]()
    for bit in range(len(blob) * 8):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 0x80 >> bit % 8
        for cuts in (starts, [rng.randrange(len(blob)) for _ in range(rng.choice([0, 1, 6]))]):
            failed, found = union_or_damage(bytes(damaged), cuts)
            assert failed or found == wanted, f"bit {bit}, cuts {cuts}"
            assert not failed or (failed.startswith("x.bz2: ") and "byte " in failed and "\n" not in failed)
            outcomes["error" if failed else "equal"] += 1
    # Harmless are the level's digit, the padding, and a stream's checksum where cuts divide it: block CRCs hold.
    assert outcomes["error"] > 20 * outcomes["equal"] / (1 if streams == 1 else 5) and outcomes["equal"] > 0


def test_damage_of_real_blocks_is_an_error() -> None:
    """Flips, zeroed and doubled pages and lost bytes in a file of several real blocks, with cuts at its blocks."""
    rng = random.Random(11)
    blob = bz2.compress(lines(rng, 450_000, 400), 1)
    starts = block_bytes(blob)
    kinds = Counter[str]()
    for i in range(60):
        at = rng.randrange(8, len(blob) - 600)
        kind = ("flip", "zeros", "lost", "doubled")[i % 4]
        middle = {
            "flip": bytes([blob[at] ^ 1 << rng.randrange(8)]) + blob[at + 1 : at + 512],
            "zeros": bytes(512),
            "lost": b"",
            "doubled": blob[at : at + 512] * 2,
        }[kind]
        damaged = blob[:at] + middle + blob[at + 512 :]
        failed, _ = union_or_damage(damaged, starts if i % 2 else [rng.randrange(len(blob)) for _ in range(5)])
        assert failed, f"{kind} at byte {at}"
        kinds[kind] += 1
    assert len(kinds) == 4 and len(starts) > 3


def test_a_lost_or_doubled_block_within_one_range_breaks_the_stream_checksum() -> None:
    blocks = [block_of(b"line %d\n" % i) for i in range(5)]
    combined = 0
    for block in blocks:
        combined = fold_crc(combined, block.crc)
    for other in (blocks[:2] + blocks[3:], blocks[:2] + blocks[1:], blocks[::-1]):
        forged = one_stream(other, combined=combined)
        with pytest.raises(DamagedInput, match=rf"damaged: the stream that ends at byte \d+ has .* {combined:08x}"):
            read_range(forged, 0, len(forged))
    assert read_range(one_stream(blocks, combined=combined), 0, 1 << 20)[1].stream_ends[0][1] == combined


@pytest.mark.parametrize("streams", [1, 5])
def test_every_truncation_is_an_error_except_between_streams(streams: int) -> None:
    """A file that ends between two streams is a whole .bz2 file (its XML or JSON is not); any other end is noticed."""
    rng = random.Random(12)
    pieces = cut_into(lines(rng, 500, 30), [70])
    per_stream = -(-len(pieces) // streams)
    parts = [one_stream(pieces[i : i + per_stream]) for i in range(0, len(pieces), per_stream)]
    blob = b"".join(parts)
    whole_ends = {sum(map(len, parts[: i + 1])) for i in range(len(parts))}
    errors = 0
    for size in range(len(blob)):
        cut_off = blob[:size]
        for cuts in ([], [rng.randrange(size + 1) for _ in range(4)], range(0, size, 9)):
            failed, found = union_or_damage(cut_off, cuts)
            if size in whole_ends:
                assert not failed and found == sequential(cut_off, b"\n")
            else:
                assert failed, f"{size} bytes, cuts {cuts}"
                errors += "ends early" in failed
    assert errors > 2.9 * (len(blob) - len(whole_ends)) - 10


def test_truncated_real_blocks_are_errors() -> None:
    rng = random.Random(13)
    blob = bz2.compress(lines(rng, 350_000, 300), 1)
    for share in (0.1, 0.5, 0.99):
        size = int(len(blob) * share)
        failed, _ = union_or_damage(blob[:size], [size // 2, size - 100])
        assert f"ends early at byte {size:,}: the bzip2 block that begins at byte " in failed
    with pytest.raises(DamagedInput, match=r"^x\.bz2: ends early at byte [\d,]+, inside the end of the stream \(byte "):
        read_range(blob[:-3], 0, len(blob))


@pytest.mark.parametrize(
    ("tail", "kind"),
    [
        (bytes(1), "1 bytes of zero padding"),
        (bytes(100_000), "100,000 bytes of zero padding"),
        (b"garbage", "7 bytes of data that is no bzip2"),
        (b"BZ!", "3 bytes of data that is no bzip2"),
        (b"BZh0 and more", "13 bytes of data that is no bzip2"),
        (bytes(500) + b"\n", "501 bytes of data that is no bzip2"),
        (random.Random(14).randbytes(50_000), "50,000 bytes of data that is no bzip2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_stands_after_the_last_stream_is_a_warning(tail: bytes, kind: str) -> None:
    """The records are exact for every cut, also in the tail; exactly one range warns, and says where."""
    rng = random.Random(15)
    whole = one_stream(cut_into(lines(rng, 3_000, 30), [500])) + bz2.compress(b"the last\n")
    blob = whole + tail
    for cuts in ([], [len(whole)], [len(whole) - 1, len(whole) + 1], [rng.randrange(len(blob)) for _ in range(9)]):
        found, reports = read_union(blob, cuts, chunk=1_000)
        assert found == sequential(whole, b"\n")
        warnings = [warning for report in reports for warning in report.warnings]
        assert warnings == [f"x.bz2: {kind} after the last stream at byte {len(whole):,}; ignored"]


def test_a_tail_that_begins_like_a_stream_must_be_one() -> None:
    whole = bz2.compress(b"one\n")
    for tail in (b"B", b"BZ", b"BZh", b"BZh9", b"BZh1hello, this is no stream", bz2.compress(b"two\n")[:-1]):
        with pytest.raises(DamagedInput, match=r"^x\.bz2: (ends early|damaged) at byte "):
            read_range(whole + tail, 0, len(whole + tail))
    assert [record.data for record in read_range(whole + EMPTY_STREAM, 0, 99)[0]] == [b"one"]


def test_bzip2_data_behind_garbage_is_an_error_for_the_range_that_ends_the_file() -> None:
    """A file written over a longer one, two files with padding between, or a last stream with its beginning damaged."""
    first, second = bz2.compress(b"one\n"), one_stream([b"two\n", b"three\n", b"four\n"])
    for between in (bytes(512), b"?"):
        for rest in (second, second[7:], second[30:], bytes(14) + bz2.compress(b"five\n")[14:]):
            blob = first + between + rest
            for cuts in ([], [len(first)], [len(first + between) - 1], range(0, len(blob), 5)):
                failed, _ = union_or_damage(blob, cuts)
                assert (
                    f"bytes that are no bzip2 at byte {len(first)}, after the end of a stream, then bzip2 data at"
                    in failed
                )


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (b"", r"is empty \(0 bytes\), no bzip2 file; download it again"),
        (b"\x1f\x8b\x08\0 gzip", r"is no bzip2 file: it looks like gzip data \(byte 0: b'\\x1f"),
        (b"\n <!DOCTYPE HTML><title>404</title>", "is no bzip2 file: it looks like an HTML page, perhaps an error"),
        (b"<mediawiki xmlns=", "is no bzip2 file: it looks like uncompressed XML"),
        (b"[\n{", "is no bzip2 file: it looks like uncompressed JSON"),
        (bytes(3_000), "is no bzip2 file: it looks like zeros, as in a download that was never filled"),
        (b"\xfd7zXZ\0 xz", "is no bzip2 file: it looks like xz data"),
        (b"BZh0", "is no bzip2 file: byte 0 has b'BZh0' instead of b'BZh'; download it again"),
        (b"Hello", "is no bzip2 file: byte 0 has b'Hello' instead of b'BZh'; download it again"),
        (b"BZ", r"ends early at byte 2, inside the header of the first stream \(byte 0\); download it again"),
        (b"BZh9", r"ends early at byte 4, where a block or the end of the stream should stand \(byte 4\); download"),
        (b"BZh9 something else", "damaged at byte 4: neither a bzip2 block nor the end of a stream; download it again"),
    ],
)
def test_what_is_no_bzip2_file_is_told_by_its_first_bytes(first: bytes, message: str) -> None:
    for start, end in split_points(len(first), 1_000)[:1]:
        with pytest.raises(DamagedInput, match=r"^x\.bz2: " + message) as caught:
            read_range(first, start, end)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_damaged_first_block_fails_in_the_range_before_it() -> None:
    """In its own range it looks like a false magic; the range whose record reaches into it names it."""
    pieces = [b"one\ntw", b"o\nthree\nfo", b"ur\nfive\n"]
    blob = one_stream(pieces)
    _, second, third = (bit for bit, _ in read_range(blob, 0, len(blob))[1].block_crcs)
    damaged = bytearray(blob)
    damaged[second // 8 + 20] ^= 4
    with pytest.raises(DamagedInput, match=rf"the bzip2 block at byte {second // 8} \(bit {second}\) does not decode"):
        read_range(bytes(damaged), 0, second // 8)
    records, report = read_range(bytes(damaged), second // 8, len(blob))
    assert [record.data for record in records] == [b"five"]
    assert report.false_magics == 1 and report.start == Place(third, 3)


# ---- false magics


def test_false_magics_that_the_scanner_reports_are_tried_and_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hits that are not there, at fixed bits of the file, within blocks and at the start of ranges."""
    rng = random.Random(16)
    blob = bz2.compress(lines(rng, 330_000, 500), 1)
    wanted = sequential(blob, b"\n")
    total = len(blob) * 8
    fakes = sorted(rng.randrange(100, total - 100) for _ in range(40))
    find_magics = bz2_bits.find_magics
    numbers = {bit: int.from_bytes(blob, "big") >> (total - bit - 48) & (1 << 48) - 1 for bit in fakes}

    def find_more(data: bytes, patterns: tuple[bz2_bits.MagicPattern, ...] = bz2_bits.BLOCK_PATTERNS) -> list[int]:
        found = find_magics(data, patterns)
        if patterns is bz2_bits.BLOCK_PATTERNS:
            for number in numbers.values():
                found += find_magics(data, bz2_bits._magic_patterns(number))
        return sorted(set(found))

    monkeypatch.setattr(bz2_bits, "find_magics", find_more)
    false_magics = 0
    for cuts in ([], [bit // 8 for bit in fakes], random_cut_sets(rng, len(blob), 1)[0]):
        found, reports = read_union(blob, cuts)
        assert found == wanted
        false_magics += sum(report.false_magics for report in reports)
    assert false_magics > 20


def bzip2_crc(data: bytes) -> int:
    """CRC-32 with the most significant bit first, by way of zlib's."""
    reverse = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))
    return int(f"{zlib.crc32(data.translate(reverse)):032b}"[::-1], 2)


def block_of_symbols(symbols: bytes) -> Bits:
    """A valid block whose entropy-coded bits are these bytes, then 255.

    With 254 bytes in use the alphabet has 256 symbols; where each has a code of 8 bits, the code of a symbol is itself:
    0 and 1 are run lengths, 255 ends the block, any other is a position of the move-to-front list. Every sequence is
    the Burrows-Wheeler transform of something, for decoders do not ask whether its permutation is one cycle.
    """
    front = list(range(254))
    column = bytearray()
    run, weight = 0, 1
    for symbol in (*symbols, 255):
        if symbol < 2:
            run, weight = run + weight * (symbol + 1), weight * 2
            continue
        column += bytes([front[0]]) * run
        run, weight = 0, 1
        if symbol < 255:
            front.insert(0, front.pop(symbol - 1))
            column.append(front[0])
    following = sorted(range(len(column)), key=column.__getitem__)
    at, encoded = following[0], bytearray()
    for _ in column:
        encoded.append(column[at])
        at = following[at]
    decoded = bytes(encoded)
    if any(bytes([byte]) * 4 in decoded for byte in set(decoded)):
        raise ValueError("four equal bytes would be the start of a coded run: choose other symbols")
    crc = bzip2_crc(decoded)
    selectors = -(-(len(symbols) + 1) // 50)
    used = (1 << 256) - 1 - 0b11
    value, count = 0, 0
    table = (0b01000 << 256, 5 + 256)  # begin at length 8, and no symbol changes it
    for number, bits in (
        (BLOCK_MAGIC, 48),
        (crc, 32),
        (0, 1),  # not randomised
        (0, 24),  # the row of the original
        (0xFFFF, 16),
        (used, 256),
        (2, 3),  # tables
        (selectors, 15),
        (0, selectors),
        table,
        table,
        (int.from_bytes(symbols + b"\xff", "big"), len(symbols) * 8 + 8),
    ):
        value, count = value << bits | number, count + bits
    return Bits(value, count, crc)


def quiet_symbols(rng: random.Random, size: int) -> bytes:
    """Symbols without coded runs, so that four equal bytes are rare."""
    return bytes(rng.randrange(2, 255) for _ in range(size))


def block_hiding(rng: random.Random, hidden: bytes, size: int) -> Bits:
    """A valid block with these bytes in its coded bits; the others are drawn again where they make a run of four."""
    while True:
        try:
            return block_of_symbols(quiet_symbols(rng, size) + hidden + quiet_symbols(rng, size))
        except ValueError:
            continue


def test_real_block_magics_within_coded_bits_are_no_blocks() -> None:
    """Valid streams, accepted by bz2 itself, with the 48 bits of the magic inside a block, at all bit offsets."""
    rng = random.Random(17)
    magic = BLOCK_MAGIC.to_bytes(6, "big")
    offsets = Counter[int]()
    false_magics = records = 0
    for size in range(200, 1_000, 25):
        hidden = magic * 3 if size % 100 else magic + STREAM_END_MAGIC.to_bytes(6, "big") + magic
        blob = one_stream([b"a first\nblock\n", block_hiding(rng, hidden, size), b"and\na last\n"])
        data = bz2.decompress(blob)
        true = {bit for bit, _ in read_range(blob, 0, len(blob))[1].block_crcs}
        fake = [bit for bit in bz2_bits.find_magics(blob) if bit not in true]
        assert len(true) == 3 and len(fake) >= 2
        records += data.count(b"\n")
        offsets.update(bit % 8 for bit in fake)
        for cuts in ([], *([bit // 8 + shift] for bit in fake for shift in (-1, 0, 1)), [bit // 8 for bit in fake]):
            found, reports = read_union(blob, cuts)
            assert found == sequential(blob, b"\n")
            false_magics += sum(report.false_magics for report in reports)
    assert len(offsets) == 8 and false_magics > 100 and records > 100


def test_thousands_of_false_magics_are_passed_in_linear_time() -> None:
    """6,000 magics in one block: each end is not tried by decoding up to it (that would take minutes)."""
    rng = random.Random(18)
    magic = BLOCK_MAGIC.to_bytes(6, "big")
    hidden = b"".join(magic + quiet_symbols(rng, 3) for _ in range(6_000))
    blob = one_stream([b"first\n", block_hiding(rng, hidden, 20), b"last\n"])
    assert len(bz2_bits.find_magics(blob)) >= 6_002
    assert read_union(blob, [])[0] == sequential(blob, b"\n")


def test_a_whole_block_hidden_in_a_block_is_noticed() -> None:
    """Made to deceive: its CRC holds. Either the blocks after it do not chain, or the places of ranges do not meet."""
    rng = random.Random(19)
    noticed = Counter[str]()
    while sum(noticed.values()) < 20:
        inner = one_stream([b"%d\nfalse\nrecords %d\n" % (rng.randrange(99), i) for i in range(3)])[4:]
        if 255 in inner or 0 in inner[:1]:
            continue
        outer = block_hiding(rng, inner, 100)
        blob = one_stream([b"first\n", outer, b"last\nof all\n"])
        fakes = [bit // 8 for bit in bz2_bits.find_magics(blob)]
        cuts = [*rng.sample(fakes, 2), fakes[2]]
        wanted, failed, reports, found = sequential(blob, b"\n"), False, [], []
        for start, end in ranges_of(len(blob), cuts):
            try:
                records, report = read_range(blob, start, end)
            except DamagedInput:
                failed = True
                continue
            found += [record.data for record in records]
            reports.append(report)
        if failed:
            noticed["error"] += 1
        elif found == wanted:
            noticed["equal"] += 1
        else:
            with pytest.raises(AssertionError):
                assert_places_meet(reports)
            noticed["places"] += 1
    assert noticed["error"] + noticed["places"] > 10


# ---- arguments


def test_split_points_cover_the_file_in_equal_ranges() -> None:
    for size, range_bytes in ((0, 5), (1, 5), (5, 5), (6, 5), (1_000_003, 4_096), (100, 1)):
        ranges = split_points(size, range_bytes)
        assert ranges[0][0] == 0 and ranges[-1][1] == size
        assert all(left[1] == right[0] for left, right in itertools.pairwise(ranges))
        sizes = {end - start for start, end in ranges}
        assert max(sizes) - min(sizes) <= 1 and max(sizes) <= range_bytes
    for wrong in ((-1, 5), (5, 0)):
        with pytest.raises(ValueError, match="must"):
            split_points(*wrong)


@pytest.mark.parametrize(
    ("start", "end", "options", "message"),
    [
        (5, 5, {}, "a range needs 0 <= start < end, not start 5 and end 5"),
        (-1, 5, {}, "a range needs 0 <= start < end"),
        (0, 5, {"delimiter": b""}, "a delimiter must not be empty nor overlap itself"),
        (0, 5, {"delimiter": b"aba"}, "a delimiter must not be empty nor overlap itself, which b'aba' does"),
        (0, 5, {"chunk": 0}, "chunk_bytes must be at least 1, not 0"),
        (0, 5, {"limit": -1}, "max_record_bytes must not be negative, not -1"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(start: int, end: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_range(EMPTY_STREAM, start, end, **options)


def test_a_range_beyond_the_file_yields_nothing() -> None:
    blob = bz2.compress(b"one\n")
    assert read_range(blob, len(blob) + 10, 1 << 60) == ([], RangeReport())
    assert [record.data for record in read_range(blob, 0, 1 << 60)[0]] == [b"one"]


# ---- damage that is let pass


def records_apart_from(pieces: Sequence[bytes], bad: Iterable[int], delimiter: bytes) -> list[bytes]:
    """The records of which neither the bytes nor the delimiters beside them stand in one of the bad pieces."""
    data = b"".join(pieces)
    begins = list(itertools.accumulate((len(piece) for piece in pieces), initial=0))
    lost = [(begins[number], begins[number + 1]) for number in bad]
    kept, begin = [], 0
    while begin < len(data):
        at = data.find(delimiter, begin)
        end = len(data) if at < 0 else at
        first = max(0, begin - len(delimiter)) if begin else 0
        last = end if at < 0 else at + len(delimiter)
        if not any(first < stop and start < last for start, stop in lost):
            kept.append(data[begin:end])
        begin = end + len(delimiter)
    return kept


@pytest.mark.parametrize("delimiter", [b"\n", b"</page>"])
def test_bad_blocks_that_may_be_skipped_cost_the_records_that_touch_them(delimiter: bytes) -> None:
    """For any blocks, damage and cuts: exactly the other records are given, places meet, each bad block is reported."""
    seen = {"skipped": 0, "two in a row": 0, "reported by two ranges": 0, "last of the file": 0, "lost": 0}

    @settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
    @given(
        pieces=st.lists(
            st.sampled_from([b"ab", b"x", b"\n", b"</page>", b"</pa", b"ge>", b"y" * 30]), min_size=1
        ).flatmap(
            lambda parts: st.lists(st.integers(1, 9), min_size=1, max_size=6).map(
                lambda sizes: cut_into(b"".join(parts), sizes)
            )
        ),
        stream_sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
        bad=st.sets(st.integers(0, 30), min_size=1, max_size=3),
        cuts=st.lists(st.integers(0, 3_000), max_size=6),
    )
    def check(pieces: list[bytes], stream_sizes: list[int], bad: set[int], cuts: list[int]) -> None:
        sizes = itertools.cycle(stream_sizes)
        streams, rest = [], pieces
        while rest:
            count = next(sizes)
            streams.append(rest[:count])
            rest = rest[count:]
        blob = bytearray(b"".join(one_stream(stream) for stream in streams))
        blocks = read_range(bytes(blob), 0, len(blob))[1].block_crcs
        assert len(blocks) == len(pieces)
        bad = {number % len(pieces) for number in bad}
        for number in bad:
            bit = blocks[number][0] + 48 + 3  # in the block's CRC, so that nothing else looks changed
            blob[bit // 8] ^= 0x80 >> bit % 8
        union, reports = [], []
        for start, end in ranges_of(len(blob), cuts):
            report = RangeReport()
            options = {"max_bad_blocks": len(bad)}
            file = io.BytesIO(bytes(blob))
            union += [record.data for record in read_records(file, "x.bz2", start, end, delimiter, report, **options)]
            reports.append(report)
        wanted = records_apart_from(pieces, bad, delimiter)
        assert union == wanted
        assert_places_meet(reports)
        named = [bit for report in reports for bit, _ in report.bad_blocks]
        assert set(named) <= {blocks[number][0] for number in bad}
        seen["skipped"] += len(set(named))
        seen["reported by two ranges"] += len(named) > len(set(named))
        seen["two in a row"] += any(number + 1 in bad for number in bad)
        seen["last of the file"] += len(pieces) - 1 in bad
        seen["lost"] += len(wanted) < len(sequential(b"".join(one_stream(stream) for stream in streams), delimiter))

    check()
    assert min(count for name, count in seen.items() if name != "reported by two ranges") > 20, seen


def test_more_bad_blocks_than_may_be_skipped_are_an_error() -> None:
    """The one that is too many is named as without the option."""
    blob = bytearray(one_stream([b"one\n", b"two\n", b"three\n", b"four\n"]))
    blocks = [bit for bit, _ in read_range(bytes(blob), 0, len(blob))[1].block_crcs]
    for bit in (blocks[1] + 50, blocks[2] + 50):
        blob[bit // 8] ^= 0x80 >> bit % 8
    report = RangeReport()
    with pytest.raises(
        DamagedInput, match=rf"bzip2 block at byte {blocks[2] // 8:,} \(bit {blocks[2]:,}\) does not decode"
    ):
        list(read_records(io.BytesIO(bytes(blob)), "x.bz2", 0, len(blob), b"\n", report, max_bad_blocks=1))
    assert report.bad_blocks == [(blocks[1], blocks[2])]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_salvage_gives_all_records_before_the_end_of_a_truncated_file(share: float) -> None:
    """The whole blocks' records, for any cuts; each range that meets the end says why, none claims the file's end."""
    rng = random.Random(14)
    whole = bz2.compress(lines(rng, 900_000, 300), 1)
    blob = whole[: int(len(whole) * share)]
    blocks = [bit for bit, _ in read_range(whole, 0, len(whole))[1].block_crcs]
    count = sum(bit + 8 * 2 < len(blob) * 8 for bit in blocks) - 1  # the last one that begins is not whole
    decoded = bz2.decompress(whole)
    size = len(decoded) if count < 0 else sum(len(block) for block in itertools.islice(_decoded_blocks(whole), count))
    wanted = decoded[:size].split(b"\n")[:-1]
    for cuts in ([], [len(blob) // 2], random_cut_sets(rng, len(blob), 1)[0]):
        found, reports = [], []
        for start, end in ranges_of(len(blob), cuts):
            report = RangeReport()
            records = read_records(io.BytesIO(blob), "x.bz2", start, end, b"\n", report, salvage=True)
            found += [record.data for record in records]
            reports.append(report)
        assert found == wanted
        assert any(report.salvaged for report in reports) and not any(report.ends_file for report in reports)
        assert all(f"ends early at byte {len(blob):,}" in report.salvaged for report in reports if report.salvaged)


def _decoded_blocks(blob: bytes) -> Iterable[bytes]:
    window = bz2_bits.Window(io.BytesIO(blob), 0, 1 << 20)
    for bit, _ in read_range(blob, 0, len(blob))[1].block_crcs:
        block = bz2_bits.decode_block(window, bit)
        assert block is not None
        yield block.data

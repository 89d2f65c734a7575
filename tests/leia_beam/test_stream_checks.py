"""stream_checks: what units keep of their blocks proves every stream, for any cut of the file into units."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from leia_beam.bz2_bits import fold_crc
from leia_beam.stream_checks import first_broken, stream_check

CRCS = st.integers(0, 2**32 - 1)


def units_of(streams, cuts):
    """Per unit: its blocks and the stream ends behind them, as (position, CRC)."""
    events = []
    for stream in streams:
        combined = 0
        for crc in stream:
            combined = fold_crc(combined, crc)
            events.append(("block", crc))
        events.append(("end", combined))
    positioned = list(enumerate(events))
    units, open_ = [], []
    for position, (kind, crc) in positioned:
        if kind == "block" and position in cuts:
            units.append(open_)
            open_ = []
        open_.append((position, kind, crc))
    units.append(open_)
    return [
        (
            [(position, crc) for position, kind, crc in unit if kind == "block"],
            [(position, crc) for position, kind, crc in unit if kind == "end"],
        )
        for unit in units
    ]


@given(
    st.lists(st.lists(CRCS, max_size=40), min_size=1, max_size=6),
    st.sets(st.integers(0, 120), max_size=12),
    st.data(),
)
def test_any_cut_of_whole_streams_fits_and_any_change_is_found(streams, cuts, data):
    """Empty streams, units of many streams and streams of many units; then one block's checksum is another one."""
    units = units_of(streams, cuts)
    assert first_broken(stream_check(blocks, ends) for blocks, ends in units) is None
    whole = [number for number, (blocks, _) in enumerate(units) if blocks]
    if not whole:
        return
    number = data.draw(st.sampled_from(whole))
    blocks, ends = units[number]
    check = stream_check(blocks, ends)
    if check.end_crc is None or blocks[0][0] < ends[0][0]:  # else its first block begins a stream that is checked there
        position, crc = blocks[0]
        changed = [(position, crc ^ data.draw(st.integers(1, 2**32 - 1))), *blocks[1:]]
        broken = first_broken(stream_check(*unit) for unit in [*units[:number], (changed, ends), *units[number + 1 :]])
        assert broken is not None and broken >= number


def test_units_of_more_blocks_than_a_checksum_has_bits_fit():
    """A rotation goes round: units of 31, 32, 33 and 64 blocks after one another."""
    streams = [[(number * 2_654_435_761 + 5) % 2**32 for number in range(170)]]
    units = [stream_check(*unit) for unit in units_of(streams, {10, 41, 73, 106})]
    assert [unit.head_blocks for unit in units] == [10, 31, 32, 33, 64] and first_broken(units) is None


def test_a_lost_doubled_or_swapped_unit_is_found():
    """A stream of nine blocks in three units."""
    streams = [[(number * 2_654_435_761 + 5) % 2**32 for number in range(9)]]
    units = [stream_check(*unit) for unit in units_of(streams, {3, 6})]
    assert first_broken(units) is None and len(units) == 3
    for changed in ([units[0], units[2]], [units[0], units[1], units[1], units[2]], [units[1], units[0], units[2]]):
        assert first_broken(changed) == len(changed) - 1

"""From a stream of decoded bytes to its records, range after range, each record once.

The bytes are searched as they come; what lies before the open record is let go, and of a record that is too large only
its first bytes are kept. A range's end may become known only while it is read, as in a compressed stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from leia_beam.ranges import KEPT_BYTES_OF_OVERSIZED, Place, RangeReport, Record

AT_FILE_START = -1
"""What opens the first record of a file, where every other one is opened by a delimiter."""


class RecordScanner:
    """Cuts a stream into records. One scanner may read several ranges that follow one another.

    `read` gives the next bytes, b"" where there are none for now, None at the stream's end. `position` is the offset of
    the first of them; `opened_by` is AT_FILE_START where a record begins there, None where a delimiter must come first.
    """

    def __init__(self, read: Callable[[], bytes | None], position: int, opened_by: int | None, delimiter: bytes):
        self._read = read
        self._delimiter = delimiter
        self._data = b""
        self._base = position  # offset of the first byte of _data
        self._opened_by = opened_by  # offset of the delimiter that opened the current record
        self._record_start = self._scan_from = position
        self._head = b""  # the first bytes of a record that is too large to keep
        self._at_end = False

    def records(self, end: Callable[[], int | None], report: RangeReport, max_record_bytes: int) -> Iterator[Record]:
        """The records opened by delimiters that begin before `end()`, which is None as long as it lies further on.

        The report's places have block 0. Its last place is where the next range goes on.
        """
        if self._opened_by is not None:
            if self._is_beyond(end, self._opened_by):
                return
            report.start = report.end = Place(0, self._record_start)
        while True:
            at = self._data.find(self._delimiter, self._scan_from - self._base)
            if at < 0:
                if self._at_end:
                    break
                self._scan_from = max(self._scan_from, self._end - len(self._delimiter) + 1)
                if self._opened_by is None and self._is_beyond(end, self._scan_from):
                    return
                self._read_on(max_record_bytes)
                continue
            at += self._base
            record = self._close_record(at, max_record_bytes)
            self._opened_by = at
            self._record_start = self._scan_from = at + len(self._delimiter)
            is_beyond = self._is_beyond(end, at)
            if record is not None or not is_beyond:
                report.end = Place(0, self._record_start)
                report.start = report.start or report.end
            if record is not None:
                yield record
            if is_beyond:
                return
        if self._opened_by is not None:
            report.ends_file = True
            report.end = Place(0, self._end)
            last = self._close_record(self._end, max_record_bytes)
            self._opened_by = None
            if last is not None and last.size_bytes:
                yield last

    @property
    def _end(self) -> int:
        return self._base + len(self._data)

    @staticmethod
    def _is_beyond(end: Callable[[], int | None], offset: int) -> bool:
        limit = end()
        return limit is not None and offset >= limit

    def _read_on(self, max_record_bytes: int) -> None:
        """More bytes; what is not needed of the old ones goes."""
        kept_from = self._scan_from
        if self._opened_by is not None:
            if self._scan_from - self._record_start <= max_record_bytes:
                kept_from = self._record_start
            else:
                self._head = self._head or self._between(
                    self._record_start, self._record_start + KEPT_BYTES_OF_OVERSIZED
                )
        more = self._read()
        if more is None:
            self._at_end = True
        elif more:
            self._data = self._data[kept_from - self._base :] + more
            self._base = kept_from

    def _close_record(self, end: int, max_record_bytes: int) -> Record | None:
        """The record that ends at `end`, or None where none is open."""
        if self._opened_by is None:
            return None
        begin, size_bytes = self._record_start, end - self._record_start
        kept_end = end if size_bytes <= max_record_bytes else min(end, begin + KEPT_BYTES_OF_OVERSIZED)
        data = self._head or self._between(begin, kept_end)
        self._head = b""
        return Record(Place(0, begin), data, size_bytes)

    def _between(self, begin: int, end: int) -> bytes:
        return self._data[begin - self._base : end - self._base]

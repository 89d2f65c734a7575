"""From a line of an SQL dump to the rows that it inserts.

Read is what mysqldump and mariadb-dump write: `INSERT INTO … VALUES (…),(…);` on one line, or a row a line behind it.
Values are numbers, NULL, strings in single quotes with MySQL's escapes, and hexadecimal strings. Whatever is not of this
form, and a statement that is cut, is an error: nothing of it is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Value = int | float | bytes | None

_INSERT = re.compile(rb"INSERT\s+(?:IGNORE\s+)?INTO\s+`?(\w+)`?\s*(?:\(([^()]*)\)\s*)?VALUES\s*", re.IGNORECASE)
_VALUE = re.compile(
    rb"\s*(?:(?:_binary\s+)?'(?P<text>(?:[^'\\]++|\\.|'')*+)'|(?P<null>NULL)|0x(?P<hex>(?:[0-9a-f]{2})*)"
    rb"|(?P<number>-?\d+(?:\.\d+)?(?:e[-+]?\d+)?))\s*",
    re.IGNORECASE | re.DOTALL,
)
_ESCAPE = re.compile(rb"\\(.)|''", re.DOTALL)
_ESCAPED = {b"0": b"\0", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"Z": b"\x1a"}


class DamagedSql(ValueError):
    """A line that is not what a dump has. The message says what was found."""


def inserted_rows(line: bytes, table: str) -> Iterator[tuple[Value, ...]]:
    """The rows that a line inserts into a table; none for a line of another kind, such as a comment.

    Raises: DamagedSql; also for a statement about another table.

    >>> list(inserted_rows(rb"INSERT INTO `t` VALUES (1,'a\\'b',NULL),(-2,'',3.5);", "t"))
    [(1, b"a'b", None), (-2, b'', 3.5)]
    >>> list(inserted_rows(b"(7,'x'),", "t")), list(inserted_rows(b"-- a comment", "t"))
    ([(7, b'x')], [])
    """
    text = line.strip()
    statement = _INSERT.match(text)
    if statement is None:
        if not text.startswith(b"("):
            if text[:6].upper() == b"INSERT":
                raise DamagedSql(f"an INSERT that is not understood: {_start(text)}")
            return
        at = 0
    else:
        if statement.group(1).decode("utf-8", "replace") != table:
            raise DamagedSql(f"rows of the table {statement.group(1).decode('utf-8', 'replace')!r}, not of {table!r}")
        at = statement.end()
    while at < len(text):
        row, at = _row(text, at)
        yield row
        at = _skip_space(text, at)
        ending = text[at : at + 1]
        if ending == b";" and not text[at + 1 :].strip():
            return
        if ending != b",":
            raise DamagedSql(f"a statement that ends early: …{_start(text[max(0, at - 40) :])}")
        at = _skip_space(text, at + 1)


def inserts_into(line: bytes) -> tuple[str, ...] | None:
    """The columns that an INSERT names, () where it names none; None for a line of another kind.

    >>> inserts_into(b"INSERT INTO `t` (`a`, b) VALUES (1,2);"), inserts_into(b"(1,2);")
    (('a', 'b'), None)
    """
    statement = _INSERT.match(line.strip())
    if statement is None:
        return None
    names = (statement.group(2) or b"").decode("utf-8", "replace")
    return tuple(name.strip(' `"') for name in names.split(",") if name.strip())


def _row(text: bytes, at: int) -> tuple[tuple[Value, ...], int]:
    """(the row that begins at `at`, where it ends)."""
    if text[at : at + 1] != b"(":
        raise DamagedSql(f"no row where one should begin: {_start(text[at:])}")
    at += 1
    values: list[Value] = []
    while True:
        match = _VALUE.match(text, at)
        if match is None:
            raise DamagedSql(f"a value that is none, or is cut: {_start(text[at:])}")
        values.append(_value(match))
        at = match.end() + 1
        ending = text[at - 1 : at]
        if ending == b")":
            return tuple(values), at
        if ending != b",":
            raise DamagedSql(f"a row that ends early: …{_start(text[max(0, at - 40) :])}")


def _skip_space(text: bytes, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at


def _value(match: re.Match[bytes]) -> Value:
    text = match.group("text")
    if text is not None:
        return _ESCAPE.sub(_unescaped, text) if b"\\" in text or b"'" in text else text
    number = match.group("number")
    if number is not None:
        return int(number) if number.lstrip(b"-").isdigit() else float(number)
    return None if match.group("null") else bytes.fromhex(match.group("hex").decode())


def _unescaped(match: re.Match[bytes]) -> bytes:
    letter: bytes | None = match.group(1)
    return b"'" if letter is None else _ESCAPED.get(letter, letter)


def _start(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "backslashreplace"))

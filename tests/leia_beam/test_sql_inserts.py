"""sql_inserts: rows come out as they were dumped, and a line that is cut anywhere is an error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_beam.sql_inserts import DamagedSql, inserted_rows, inserts_into

ESCAPES = {0: b"\\0", 10: b"\\n", 13: b"\\r", 26: b"\\Z", 34: b'\\"', 39: b"\\'", 92: b"\\\\"}


def dumped(value):
    """A value as mysqldump writes it."""
    if value is None:
        return b"NULL"
    if isinstance(value, int):
        return str(value).encode()
    return b"'" + b"".join(ESCAPES.get(byte, bytes([byte])) for byte in value) + b"'"


def statement(rows):
    return b"INSERT INTO `t` VALUES " + b",".join(b"(" + b",".join(map(dumped, row)) + b")" for row in rows) + b";"


def rows_of(line, table="t"):
    return list(inserted_rows(line, table))


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        (rb"INSERT INTO `t` VALUES (1,'a');", [(1, b"a")]),
        (rb"insert into t values (1 , 'a') , ( 2,'b' ) ; ", [(1, b"a"), (2, b"b")]),
        (rb"INSERT IGNORE INTO `t` (`a`, `b`) VALUES (1,'a');", [(1, b"a")]),
        (rb"INSERT INTO `t` VALUES", []),
        (rb"(1,'a'),", [(1, b"a")]),
        (rb"(1,'a');", [(1, b"a")]),
        (rb"(1,'it''s \'x\' \\ \n \0 \Z \% \"q\"');", [(1, b"it's 'x' \\ \n \0 \x1a % \"q\"")]),
        (rb"(1,'a),(2,''b'');');", [(1, b"a),(2,'b');")]),
        (b"(1,_binary '\xe6\x9d\xb1',NULL,-2,3.5,0x4142,1e3);", [(1, "東".encode(), None, -2, 3.5, b"AB", 1000.0)]),
        (b"", []),
        (b"-- Dump completed on 2026-01-01", []),
        (b"/*!40000 ALTER TABLE `t` DISABLE KEYS */;", []),
        (b"CREATE TABLE `t` (", []),
        (b") ENGINE=InnoDB;", []),
        (b"LOCK TABLES `t` WRITE;", []),
    ],
)
def test_a_line_gives_its_rows(line, rows):
    """One line or a row a line, quotes and commas inside strings, all kinds of values, lines of other kinds."""
    assert rows_of(line) == rows


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"INSERT INTO `page` VALUES (1,'a');", "^rows of the table 'page', not of 't'$"),
        (b"INSERT INTO `t` SELECT 1;", "^an INSERT that is not understood"),
        (b"INSERT INTO `t` VALUES 1;", "^no row where one should begin: '1;'$"),
        (b"(1,x);", "^a value that is none, or is cut: 'x"),
        (b"(1,'a'", "^a row that ends early"),
        (b"(1,'a", "^a value that is none, or is cut"),
        (b"(1 'a');", "^a row that ends early"),
        (b"(1,'a')(2,'b');", "^a statement that ends early"),
        (b"(1,'a')", "^a statement that ends early"),
        (b"(1,'a'); (2,'b');", "^a statement that ends early"),
        (b"();", "^a value that is none"),
        (b"(1,);", "^a value that is none"),
    ],
)
def test_what_is_no_row_is_an_error(line, message):
    """With what stands there."""
    with pytest.raises(DamagedSql, match=message):
        rows_of(line)


VALUE = st.one_of(st.none(), st.integers(), st.binary(max_size=12), st.text("'\\,();%_", max_size=6).map(str.encode))


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.lists(st.lists(VALUE, min_size=1, max_size=4).map(tuple), min_size=1, max_size=6))
def test_any_rows_come_back(rows):
    """Whatever bytes are in them."""
    assert rows_of(statement(rows)) == rows


def test_a_line_that_is_cut_anywhere_is_an_error():
    """But between two rows, where it reads like a line that goes on: the dump's last line is missed then."""
    rows = [(1, b"it's", None), (22, b"\\", 3), (3, b"),(", 4)]
    line = statement(rows)
    between = [at + 1 for at in range(len(line)) if line[at : at + 3] in (b"),(",) and line.count(b"'", 0, at) % 2 == 0]
    start, cut = len(b"INSERT INTO `t` VALUES "), 0
    for end in range(start + 1, len(line)):
        try:
            found = rows_of(line[:end])
        except DamagedSql:
            cut += 1
            continue
        assert line[:end].endswith(b"),") and found == rows[: len(found)], line[:end]
    assert cut > 30 and between


def test_the_columns_that_are_named():
    """In any quotes; none for a statement without."""
    assert inserts_into(b'INSERT INTO t (`a`,b, "c") VALUES (1,2,3);') == ("a", "b", "c")
    assert inserts_into(b"INSERT INTO t VALUES (1,2,3);") == ()
    assert inserts_into(b"-- x") is None


def test_the_time_is_linear():
    """A string of a million quotes or backslashes is no trap."""
    for text in (b"''" * 500_000, b"\\\\" * 500_000, b"\\'" * 500_000):
        assert len(rows_of(b"(1,'" + text + b"');")[0][1]) == 500_000
        with pytest.raises(DamagedSql):
            rows_of(b"(1,'" + text)

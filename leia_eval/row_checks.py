"""From a raw row of an evaluation set to its fields, each checked; a message is one line and ends with the place."""

from collections.abc import Sequence

from leia_beam.errors import DamagedInput


class CheckedRow:
    """A raw row whose fields are read with checks; every message ends in one line with the place."""

    def __init__(self, row: object, place: str, fields: Sequence[str], name: str = "the item"):
        self.place = place
        if not isinstance(row, dict):
            raise self.damaged(f"{name} must be an object with {', '.join(fields)}, found {shown(row)}")
        missing = [field for field in fields if field not in row]
        if missing:
            raise self.damaged(f"{name} has no {missing[0]!r}; found {sorted(row)}")
        self.row = row

    def damaged(self, rule: str) -> DamagedInput:
        """The error about this row, with its place."""
        return DamagedInput(f"damaged item at {self.place}: {rule}")

    def text(self, field: str, *, empty: bool = False) -> str:
        """A field that must hold text; `empty`: it may be blank."""
        return self.text_of(self.row[field], f"'{field}'", empty=empty)

    def text_of(self, value: object, name: str, *, empty: bool = False) -> str:
        """The same of any value, called `name` in the message."""
        if not isinstance(value, str) or not (empty or value.strip()):
            raise self.damaged(f"{name} must be text, found {shown(value)}")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self.damaged(f"{name} holds half a surrogate pair, {shown(value)}") from error
        return value

    def name(self, field: str) -> str:
        """An id: text or a number."""
        value = self.row[field]
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else self.text(field)

    def index(self, field: str, length: int) -> int:
        """A field that must be a whole number from 0 to `length` - 1, or its digits."""
        value = self.row[field]
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < length:
            raise self.damaged(f"'{field}' must be a whole number from 0 to {length - 1}, found {shown(value)}")
        return value

    def texts(self, value: object, name: str, *, at_least: int = 1) -> list[str]:
        """A list of texts."""
        if not isinstance(value, list) or len(value) < at_least:
            many = "two or more" if at_least == 2 else "one or more"
            raise self.damaged(f"{name} must be a list of {many}, found {shown(value)}")
        return [self.text_of(text, f"an entry of {name}") for text in value]

    def rows(self, field: str) -> list[object]:
        """A list of rows that are checked on their own."""
        value = self.row[field]
        if not isinstance(value, list):
            raise self.damaged(f"'{field}' must be a list, found {shown(value)}")
        return value


def shown(value: object, limit: int = 60) -> str:
    """`value` as a message shows it, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"

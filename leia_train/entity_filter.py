"""From conditions like `blocks=prose` or `qids!=Q17` to which entities may get their names.

Every column that the shards have for entities can be asked for: kinds, blocks, edges, name_languages, name_sources, qids,
ordinals. Several values are a choice (`blocks=prose,list`), several conditions must hold together; `ordinals` takes
ranges too (`ordinals=0-4`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leia_beam.errors import UsageError
from leia_train.store import Store
from leia_train.store_columns import NO_QID

Bools = NDArray[np.bool_]

COLUMNS = ("kinds", "blocks", "edges", "name_languages", "name_sources", "qids", "ordinals")
_CONDITION = re.compile(r"([a-z_]+)(!?=)(.+)")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def kept_entities(store: Store, conditions: Sequence[str], chosen: slice) -> Bools:
    """Which entities of a range fulfil all conditions.

    Raises: UsageError for an unknown column, or a value that no entity of these shards has.
    """
    kept = np.ones(len(store.entity_ordinals[chosen]), bool)
    for condition in conditions:
        column, sign, values = parse_condition(condition)
        kept &= _among(store, column, values, condition, chosen) == (sign == "=")
    return kept


def parse_condition(condition: str) -> tuple[str, str, list[str]]:
    """The column, the sign and the values of a condition.

    >>> parse_condition("blocks!=table,caption")
    ('blocks', '!=', ['table', 'caption'])

    Raises: UsageError.
    """
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise UsageError(f"--entities {condition!r}: must be of the form column=value or column!=value")
    column, sign, values = match.groups()
    column = column.removeprefix("entity_")
    if column not in COLUMNS:
        near = difflib.get_close_matches(column, COLUMNS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"--entities {condition!r}: no column {column!r} (there are {', '.join(COLUMNS)}){hint}")
    return column, sign, [value.strip() for value in values.split(",")]


def _among(store: Store, column: str, values: list[str], condition: str, chosen: slice) -> Bools:
    """Which entities of a range have one of the values."""
    if column == "qids":
        return np.isin(store.entity_qids[chosen], [_qid_number(value, condition) for value in values])
    if column == "ordinals":
        ordinals = store.entity_ordinals[chosen]
        found = np.zeros(len(ordinals), bool)
        for value in values:
            first, last = _ordinal_range(value, condition)
            found |= (ordinals >= first) & (ordinals <= last)
        return found
    category = store.categories[f"entity_{column}"]
    codes, words = category.codes[chosen], category.words
    unknown = [value for value in values if value not in words]
    if unknown:
        raise UsageError(
            f"--entities {condition!r}: no entity of these shards has {unknown[0]!r} (there are {', '.join(words)})"
        )
    return np.isin(codes, [words.index(value) for value in values])


def _qid_number(value: str, condition: str) -> int:
    if value == "none":
        return NO_QID
    if not re.fullmatch(r"Q\d{1,18}", value):
        raise UsageError(f"--entities {condition!r}: {value!r} is no qid (Q and a number, or none)")
    return int(value[1:])


def _ordinal_range(value: str, condition: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(value)
    if match is None:
        raise UsageError(f"--entities {condition!r}: {value!r} is no number or range like 0-4")
    first = int(match.group(1))
    return first, int(match.group(2) or first)

"""Small JSON files that tell whether they are whole: the last line's checksum is over all that stands before it.

There is one way to write a content, and only that is read, so a bit that is flipped anywhere is found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_SEAL = "~sha256"
"""Sorted behind all other keys."""


def seal(content: Mapping[str, Any]) -> bytes:
    """The bytes of a content: sorted keys, UTF-8, one trailing newline.

    >>> print(seal({"b": 1, "a": "東京"}).decode())
    {
     "a": "東京",
     "b": 1,
     "~sha256": "24b0aca76789c5bee819ffd95df5185edf3b74343252df2e21b9f41e9951d1f2"
    }
    <BLANKLINE>
    """
    plain = _dump(content)
    return _dump({**content, _SEAL: hashlib.sha256(plain).hexdigest()})


def unseal(content: bytes) -> dict[str, Any]:
    """The content of `seal`.

    Raises: ValueError if it is anything else.
    """
    loaded = json.loads(content)
    if not isinstance(loaded, dict) or _SEAL not in loaded:
        raise ValueError("no checksum")
    del loaded[_SEAL]
    if seal(loaded) != content:
        raise ValueError("its checksum is another")
    return loaded


def _dump(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode("utf-8", "surrogatepass")

"""From a name that nobody knows to a hint at the one that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: object, names: Iterable[str]) -> str:
    """A hint at the nearest of several names, or ''.

    >>> nearest("--tokeniser", ["--tokenizer", "--output"])
    "; did you mean '--tokenizer'?"
    """
    near = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""

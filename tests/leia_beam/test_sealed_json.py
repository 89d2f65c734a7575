"""sealed_json: what was written comes back, and nothing else is taken for it."""

from __future__ import annotations

import json

import pytest

from leia_beam.sealed_json import seal, unseal

CONTENT = {"b": [1, None, "東京\u2028"], "a": {"é": -1.5, "": True}, "~": "x"}


def test_a_content_comes_back():
    """The same bytes for the same content, in whatever order its keys came."""
    assert unseal(seal(CONTENT)) == CONTENT
    assert seal(dict(reversed(CONTENT.items()))) == seal(CONTENT)
    assert seal(CONTENT).endswith(b'"\n}\n') and "東京" in seal(CONTENT).decode()


def test_every_flipped_bit_is_found():
    """In keys, values, white space and the checksum itself."""
    sealed = seal(CONTENT)
    for at in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(ValueError):
            unseal(bytes(flipped))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"7",
        b"null",
        b"\xff",
        json.dumps(CONTENT).encode(),
        seal(CONTENT)[:-1],
        seal(CONTENT) + b"\n",
    ],
)
def test_what_was_not_sealed_is_refused(content):
    """Cut, grown, or JSON of another origin."""
    with pytest.raises(ValueError):
        unseal(content)


def test_the_same_content_in_another_form_is_refused():
    """There is one way to write it."""
    loaded = json.loads(seal(CONTENT))
    with pytest.raises(ValueError, match="checksum"):
        unseal(json.dumps(loaded, ensure_ascii=False, sort_keys=True).encode())

"""dump_mirrors: where each mirror may have a file, and by which ways what it says can be believed."""

from __future__ import annotations

import pytest

from leia_beam.dump_mirrors import DUMPS, ENTITIES, OTHER, find_mirror, is_trusted_way
from leia_beam.errors import UsageError


def test_mirrors_by_name_and_by_address() -> None:
    """Wikimedia has all under one address; others keep `other` beside the dumps, and Wikidata within it."""
    primary = find_mirror("wikimedia")
    assert primary.urls(DUMPS, "jawiki/") == ["https://dumps.wikimedia.org/jawiki/"]
    assert primary.urls(OTHER, "x") == ["https://dumps.wikimedia.org/other/x"]
    accum = find_mirror("accum")
    assert accum.urls(OTHER, "x")[1] == "https://mirror.accum.se/mirror/wikimedia.org/other/x"
    assert accum.urls(ENTITIES, "20260105/")[-1] == (
        "https://mirror.accum.se/mirror/wikimedia.org/other/wikibase/wikidatawiki/20260105/"
    )
    own = find_mirror("http://127.0.0.1:8000/dumps/")
    assert own.urls(DUMPS, "a") == ["http://127.0.0.1:8000/dumps/a"] and own.host == "127.0.0.1:8000"


@pytest.mark.parametrize(
    "given",
    ["", "wikimedai", "ftp://x.org", "https://", "https://x.org/?a=b", "https://a b", "https://me:secret@x.org"],
)
def test_what_is_neither_is_refused(given: str) -> None:
    """With the names that there are."""
    with pytest.raises(UsageError, match=r"neither an address .* nor one of wikimedia, accum, your\.org") as error:
        find_mirror(given)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://example.org", True),
        ("http://example.org", False),
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:80/x", True),
        ("http://localhost:80", True),
        ("http://127.0.0.1.example.org", False),
        ("http://localhost.example.org", False),
        ("http://10.0.0.1", False),
    ],
)
def test_a_way_on_which_nobody_else_can_change_what_comes(url: str, trusted: bool) -> None:
    """HTTPS, or this machine: not a host whose name only begins so."""
    assert is_trusted_way(url) is trusted

"""From a mirror's name or address to where it may have a file.

All mirrors have the same files, under three areas: the dumps of wikis, what Wikimedia calls `other`, and Wikidata's entities,
which lie in `other` with a second name among the dumps. A mirror's layout above them is its own, so each area has several
candidates, which are tried in their order.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from leia_beam.errors import UsageError
from leia_beam.suggestions import nearest

DUMPS, OTHER, ENTITIES = "dumps", "other", "entities"
PRIMARY_NAME = "wikimedia"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirror:
    """A server of dumps; `bases` by area, without a slash at their end."""

    name: str
    dumps: tuple[str, ...]
    other: tuple[str, ...]
    entities: tuple[str, ...]

    def bases(self, area: str) -> tuple[str, ...]:
        """Where the area may be."""
        return {DUMPS: self.dumps, OTHER: self.other, ENTITIES: self.entities}[area]

    def urls(self, area: str, path: str) -> list[str]:
        """The addresses that a file of an area may have."""
        return [f"{base}/{path}" for base in self.bases(area)]

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.dumps[0]).netloc

    @property
    def is_private(self) -> bool:
        """Whether nothing lies between us and it that could change what it says: HTTPS, or this machine."""
        return all(is_trusted_way(base) for base in self.dumps)


def is_trusted_way(url: str) -> bool:
    """Whether what comes from an address is what its server sent: by HTTPS, or from this machine.

    >>> is_trusted_way("https://example.org/x"), is_trusted_way("http://127.0.0.1:8000"), is_trusted_way("http://x.org")
    (True, True, False)
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"


def mirror_at(base: str, name: str = "") -> Mirror:
    """The mirror at any base address: that of the folder with `jawiki/` and the others in it.

    Raises: UsageError for what is no address.
    """
    if not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", base):
        shown = re.sub("//[^/]*@", "//…@", base[:100])  # no password on a screen
        raise UsageError(
            f"--mirror {shown}: neither an address (https://…) nor one of {', '.join(MIRRORS)}"
            f"{nearest(base, list(MIRRORS))}"
        )
    base = base.rstrip("/")
    above = base.rpartition("/")[0]
    others = (f"{base}/other", *([f"{above}/other"] if urlsplit(above).netloc else []))
    return Mirror(
        name=name or base,
        dumps=(base,),
        other=others,
        entities=(f"{base}/wikidatawiki/entities", *(f"{other}/wikibase/wikidatawiki" for other in others)),
    )


MIRRORS = {
    PRIMARY_NAME: "https://dumps.wikimedia.org",
    "accum": "https://mirror.accum.se/mirror/wikimedia.org/dumps",
    "your.org": "https://dumps.wikimedia.your.org",
}
"""By name, the address of the folder of all wikis' dumps."""


def find_mirror(given: str) -> Mirror:
    """A mirror by its name, or by any base address.

    Raises: UsageError.
    """
    return mirror_at(MIRRORS.get(given, given), given if given in MIRRORS else "")

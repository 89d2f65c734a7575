"""From evaluation items and what is trained on to which items the texts hold, question and answer apart.

The texts are a build's shards and the sources of `leia-train train --mix`, which the trainer's own readers read. A source is
read whole, though a run may see a part of it alone.

Texts are compared by n-grams: of words, or of characters for scripts without spaces, after NFKC and case folding and
without punctuation. A part of an item is seen when at least half of its n-grams occur somewhere in the shards; a part
that is shorter than n is one gram of its own length. The grams of the items are few, so they are kept and the corpus
streams by, once for all tasks: the units of an article become 64-bit numbers, every window of a length is hashed at
once by prefix sums (sum of unit j times q^j, modulo 2^64), and what hits is compared letter by letter, so a collision
counts for nothing.
"""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leia_beam.console import Counter, Tell
from leia_beam.errors import UsageError

if TYPE_CHECKING:
    from leia_train.text_sources import TextSource

SEEN_SHARE = 0.5
WORDS, CHARACTERS = 8, 13
"""The default n. 13 characters of Japanese are about 8 tokens; 8 words are a clause."""
UNSPACED = ("ja", "zh", "th")
PARTS = ("question", "answer")

_UNITS_OF_WORDS = re.compile(r"\w+")
_Q = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_Q_INVERSE = np.uint64(pow(int(_Q), -1, 1 << 64))

_NUMBERS_KEPT = 2_000_000

Gram = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Item:
    """The two texts of an evaluation item that are looked for."""

    id: str
    question: str
    answer: str


def units_of(text: str, *, characters: bool) -> list[str]:
    """The words of a text, or its characters without spaces and punctuation.

    >>> units_of("The Cat, sat!", characters=False), units_of("東京 は、", characters=True)
    (['the', 'cat', 'sat'], ['東', '京', 'は'])
    """
    words: list[str] = _UNITS_OF_WORDS.findall(unicodedata.normalize("NFKC", text).casefold())
    return list("".join(words)) if characters else words


def grams_of(text: str, n: int, *, characters: bool) -> set[Gram]:
    """The n-grams of a text; of a shorter one the whole."""
    units = units_of(text, characters=characters)
    if len(units) <= n:
        return {tuple(units)} if units else set()
    return {tuple(units[i : i + n]) for i in range(len(units) - n + 1)}


class GramFinder:
    """Which of given grams occur in texts that stream by."""

    def __init__(self, grams: Iterable[Gram], *, characters: bool):
        self._characters = characters
        self._wanted: dict[int, dict[int, set[Gram]]] = {}  # length → hash → grams
        self._numbers: dict[str, int] = {}
        self.found: set[Gram] = set()
        for gram in set(grams):
            value = _windows(*self._prefix_sums(gram), len(gram))[0]
            self._wanted.setdefault(len(gram), {}).setdefault(int(value), set()).add(gram)
        self._sorted = {length: np.array(sorted(of), dtype=np.uint64) for length, of in self._wanted.items()}

    def read(self, text: str) -> None:
        """Looks at one text of the corpus."""
        units = units_of(text, characters=self._characters)
        sums, inverse = self._prefix_sums(units)
        for length, hashes in self._sorted.items():
            if len(units) < length:
                continue
            windows = _windows(sums, inverse, length)
            nearest = np.minimum(np.searchsorted(hashes, windows), len(hashes) - 1)
            for at in np.flatnonzero(hashes[nearest] == windows).tolist():
                gram = tuple(units[at : at + length])
                if gram in self._wanted[length][int(windows[at])]:
                    self.found.add(gram)

    def _prefix_sums(self, units: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The sums of unit j times q^j before each place, and the powers of 1 / q."""
        numbers = np.fromiter(map(self._number, units), dtype=np.uint64, count=len(units))
        powers = np.cumprod(np.full(len(units), _Q), dtype=np.uint64)
        inverse = np.cumprod(np.full(len(units), _Q_INVERSE), dtype=np.uint64)
        sums = np.zeros(len(units) + 1, dtype=np.uint64)
        np.cumsum(numbers * powers, dtype=np.uint64, out=sums[1:])
        return sums, inverse

    def _number(self, unit: str) -> int:
        if (number := self._numbers.get(unit)) is None:
            if len(self._numbers) > _NUMBERS_KEPT:
                self._numbers.clear()
            number = self._numbers[unit] = _number_of(unit)
        return number


def _windows(sums: np.ndarray, inverse: np.ndarray, length: int) -> np.ndarray:
    """The hash of every window of a length: the same for the same units, wherever they stand."""
    windows: np.ndarray = (sums[length:] - sums[:-length]) * inverse[: len(sums) - length]
    return windows


def _number_of(unit: str) -> int:
    return int.from_bytes(hashlib.blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class Search:
    """The items of one task, and which of them texts hold."""

    def __init__(self, items: Sequence[Item], *, language: str | None, n: int | None = None):
        self._items = items
        self._characters = language in UNSPACED
        self._n = (CHARACTERS if self._characters else WORDS) if n is None else n
        if self._n < 1:
            raise UsageError(f"--n {n} must be 1 or more")
        self._grams = {
            (item.id, part): grams_of(getattr(item, part), self._n, characters=self._characters)
            for item in items
            for part in PARTS
        }

    @property
    def characters(self) -> bool:
        """Whether grams are of characters."""
        return self._characters

    @property
    def grams(self) -> set[Gram]:
        """All that is looked for."""
        return {gram for of in self._grams.values() for gram in of}

    def result(self, found: Collection[Gram]) -> dict[str, Any]:
        """The share and the ids of items whose question, and whose answer, texts with the grams `found` hold."""
        ids = {part: [item.id for item in self._items if self._is_seen(item, part, found)] for part in PARTS}
        return {
            "items": len(self._items),
            "n": self._n,
            "unit": "characters" if self._characters else "words",
            "seen": ids,
            "share": {part: len(ids[part]) / len(self._items) for part in PARTS},
        }

    def _is_seen(self, item: Item, part: str, found: Collection[Gram]) -> bool:
        wanted = self._grams[item.id, part]
        return bool(wanted) and sum(gram in found for gram in wanted) >= SEEN_SHARE * len(wanted)


Grams = dict[bool, set[Gram]]
"""Those that were found: True → of characters, False → of words."""


def find_grams(searches: Sequence[Search], texts: Iterable[str]) -> Grams:
    """The grams of the searches that texts hold, in one pass: each is cut into units once for all languages of a kind."""
    finders = {
        characters: GramFinder(
            (gram for search in searches if search.characters == characters for gram in search.grams),
            characters=characters,
        )
        for characters in sorted({search.characters for search in searches})
    }
    for text in texts:
        for finder in finders.values():
            finder.read(text)
    return {characters: finder.found for characters, finder in finders.items()}


def look_for(searches: Sequence[Search], texts: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
    """The result of every search over all texts; where they are of several sources, with the shares of each by its name."""
    found = {name: find_grams(searches, of_source) for name, of_source in texts.items()}
    results = []
    for search in searches:
        grams = {name: of_source[search.characters] for name, of_source in found.items()}
        result = search.result(set().union(*grams.values()))
        if len(grams) > 1:
            result["share_of_sources"] = {name: search.result(of_source)["share"] for name, of_source in grams.items()}
        results.append(result)
    return results


def item_of(document: dict[str, Any]) -> Item:
    """The texts of a document. What is asked is the passage where there is one, else the question."""
    question = document["question"]
    if isinstance(question, dict):
        choices = question["choices"]
        answer = choices["text"][choices["label"].index(document["answerKey"])]
        return Item(id=document["id"], question=question["stem"] or answer, answer=answer)
    if "premise" in document:
        answer = document[f"choice{document['label'] + 1}"]
        return Item(id=document["id"], question=document["premise"], answer=answer)
    return Item(id=document["id"], question=document["context"] or question, answer=document["answers"][0])


def shard_texts(folder: Path, *, rows_at_once: int = 256, tell: Tell | None = None) -> Iterator[str]:
    """The text of every row of a build's shards, decoded from its tokens without special ones.

    `tell` is told how far it is.

    Raises: UsageError for a folder without shards, DamagedInput for a shard that is not what its manifest says.
    """
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer

    from leia_beam.manifest import check_file, read_manifest

    folder = folder / "shards" if (folder / "shards").is_dir() else folder
    manifest = read_manifest(folder)
    if manifest.stage != "shards":
        raise UsageError(
            f"--shards {folder} is the stage {manifest.stage!r}; give the folder of shards, or of the build"
        )
    tokenizer = Tokenizer.from_file(str(folder / manifest.details["tokenizer"]["path"]))
    progress = Counter(tell, "texts", manifest.rows_of("train"), "rows")
    for file in manifest.files_of("train"):
        with pq.ParquetFile(check_file(folder, file)) as shard:
            for batch in shard.iter_batches(rows_at_once, columns=["input_ids"]):
                yield from tokenizer.decode_batch(batch.column(0).to_pylist(), skip_special_tokens=True)
                progress.advance(batch.num_rows)


def training_texts(shards: Path, mix: Sequence[str], tell: Tell | None = None) -> dict[str, Iterator[str]]:
    """By name the texts of a build's shards and of each source beside them; two of one name are told apart by a number.

    Sources that differ in their shares and settings alone are read once, those without a share not at all.

    Raises: UsageError for a source that is not there, DamagedInput for an empty file.
    """
    from leia_train.mix_sources import MAIN, read_source
    from leia_train.opening import is_of_shards
    from leia_train.text_sources import open_texts

    found = {MAIN: shard_texts(shards, tell=tell)}
    seen = set()
    for source in map(read_source, mix):
        reads = (source.path, source.column, source.documents)
        if not source.share or reads in seen:
            continue
        seen.add(reads)
        number = sum(name.partition(" ")[0] == source.name for name in found) + 1
        name = source.name if number == 1 else f"{source.name} {number}"
        is_shards = is_of_shards(source)
        found[name] = shard_texts(Path(source.path), tell=tell) if is_shards else source_texts(open_texts(source), tell)
    return found


def source_texts(source: "TextSource", tell: Tell | None = None) -> Iterator[str]:
    """The documents of a source of plain text, JSON lines or Parquet."""
    from leia_train.text_sources import read_records

    progress = Counter(tell, source.name, sum(file.size_bytes for file in source.files), "bytes")
    before = 0
    for file in source.files:
        for text, position in read_records(source, file):
            progress.advance(before + position - progress.done)
            yield text
        before += file.size_bytes

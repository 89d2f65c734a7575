"""From text to token ids with the characters of each, and from a name to the ids that it has in running text.

Encoded is with a copy of the tokenizer that has no added tokens, so that a literal `</s>` or `<think>` in an article is
ordinary text (`encode_special_tokens` still turns Qwen3's `<think>` into one token). What the tokenizer itself puts
before a document is put there by id. Batches are encoded in one thread: Beam's processes use the cores already.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice, pairwise
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer

from leia_beam.errors import UsageError
from leia_beam.token_offsets import piece_lengths
from leia_beam.tokenizer_identity import TokenizerFiles, TokenizerIdentity, identify

NAME_SPACES = ("auto", "yes", "no")
DOCUMENT_STARTS = ("auto", "bos", "eos", "none")

PIECE_CHARACTERS = 1 << 20
"""Longer texts are encoded in pieces that end with a line: a tokenizer takes some hundred bytes of memory a character."""

_PROBE_NAMES = ("Tokyo", "Japan", "Paris", "Water", "Albert Einstein", "1984")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodingOptions:
    """What stands around a document, and whether a space stands before a name."""

    name_space: str = "auto"
    document_start: str = "auto"
    eos: bool = False
    """Whether the end-of-text token stands after each article."""

    def __post_init__(self) -> None:
        if self.name_space not in NAME_SPACES:
            raise UsageError(f"name space {self.name_space!r}: give one of {', '.join(NAME_SPACES)}")
        if self.document_start not in DOCUMENT_STARTS:
            raise UsageError(f"document start {self.document_start!r}: give one of {', '.join(DOCUMENT_STARTS)}")


class EncodedText(NamedTuple):
    """Ids (T,) int32 of a text and, for each token, its characters [start, end) in the text, (T, 2) int32."""

    ids: np.ndarray
    offsets: np.ndarray


class EncodedName(NamedTuple):
    """The ids of a name, and whether it would be cut into other pieces if it stood alone."""

    ids: tuple[int, ...]
    is_cut_otherwise_alone: bool
    has_added_token: bool


class TextEncoder:
    """Encodes articles and names with one tokenizer."""

    def __init__(self, files: TokenizerFiles, options: EncodingOptions):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        identity = identify_once(files)
        self.document_start_ids = _document_start(files, identity, options.document_start)
        self.document_end_ids = _document_end(files, identity, options.eos)
        self.added_ids = added_ids_of(files.tokenizer_json)
        self._is_added = np.zeros(max(identity.vocabulary_size, int(self.added_ids.max(initial=0)) + 1), bool)
        self._is_added[self.added_ids] = True
        self._tokenizer = without_added_tokens(files.tokenizer_json)
        self._within = without_added_tokens(files.tokenizer_json, within_text=True)
        self._piece_lengths = piece_lengths(files.tokenizer_json)
        self._spaced_in_text = _names_take_a_space(self._tokenizer)
        self.spaced_names = self._spaced_in_text if options.name_space == "auto" else options.name_space == "yes"
        self.encode_name = lru_cache(maxsize=1 << 16)(self._encode_name)

    def encode(self, text: str, cuts: Sequence[int] = ()) -> EncodedText:
        """A text as `encode_batch` gives it."""
        return self.encode_batch([text], [cuts])[0]

    def encode_batch(self, texts: Sequence[str], cuts: Sequence[Sequence[int]]) -> list[EncodedText]:
        """Each text with a token boundary at each of its cuts, which are sorted characters of it.

        A piece behind a cut is encoded as it stands within a text: no space is put before it.
        """
        bounds = [_bounds(text, of_text) for text, of_text in zip(texts, cuts, strict=True)]
        firsts = self._encode_pieces(self._tokenizer, [text[: of[1]] for text, of in zip(texts, bounds, strict=True)])
        within = [text[a:b] for text, of in zip(texts, bounds, strict=True) for a, b in pairwise(of[1:])]
        others = iter(self._encode_pieces(self._within, within))
        return [_joined([first, *islice(others, len(of) - 2)], of) for first, of in zip(firsts, bounds, strict=True)]

    def _encode_pieces(self, tokenizer: Tokenizer, pieces: Sequence[str]) -> Iterator[EncodedText]:
        if self._piece_lengths is None:
            for encoding in tokenizer.encode_batch(pieces, add_special_tokens=False):
                yield EncodedText(np.array(encoding.ids, dtype=np.int32), _offsets(encoding))
            return
        for piece, encoding in zip(pieces, tokenizer.encode_batch_fast(pieces, add_special_tokens=False), strict=True):
            ids = np.array(encoding.ids, dtype=np.int32)
            offsets = self._piece_lengths.offsets(ids, piece)
            if offsets is None:
                offsets = _offsets(tokenizer.encode(piece, add_special_tokens=False))
            yield EncodedText(ids, offsets)

    def added_in(self, ids: np.ndarray) -> list[int]:
        """The ids of added tokens among a text's ids: there must be none."""
        found = self._is_added[ids]
        return np.unique(ids[found]).tolist() if found.any() else []

    def _encode_name(self, name: str) -> EncodedName:
        """A name's ids as it stands in running text: with its word-initial pieces, without special tokens."""
        alone = self._tokenizer.encode(name, add_special_tokens=False)
        spaced = self._tokenizer.encode(" " + name, add_special_tokens=False)
        ends_alone = {end for _, end in alone.offsets}
        ends_in_text = {end - 1 for _, end in spaced.offsets if end > 1} if self._spaced_in_text else ends_alone
        ids = tuple((spaced if self.spaced_names else alone).ids)
        return EncodedName(ids, ends_in_text != ends_alone, bool(self.added_in(np.array(ids, np.int32))))


def _bounds(text: str, cuts: Sequence[int]) -> list[int]:
    """0, the cuts within the text, its length: with more of them where a piece is too long."""
    bounds = [0]
    for end in (*cuts, len(text)):
        while end - bounds[-1] > PIECE_CHARACTERS:
            limit = bounds[-1] + PIECE_CHARACTERS
            bounds.append(_last_line_start(text, bounds[-1], limit) or limit)
        if end > bounds[-1] or len(bounds) == 1:
            bounds.append(end)
    return bounds


def _last_line_start(text: str, start: int, limit: int) -> int | None:
    """Where the last line begins that has a letter first: there no tokenizer known to us has a token on both sides."""
    at = text.rfind("\n", start, limit)
    while at >= start:
        if not text[at + 1].isspace():
            return at + 1
        at = text.rfind("\n", start, at)
    return None


def _joined(pieces: Sequence[EncodedText], starts: Sequence[int]) -> EncodedText:
    """A text of its pieces, of which each begins at a character of it."""
    if len(pieces) == 1:
        return pieces[0]
    offsets = [piece.offsets + np.int32(start) for piece, start in zip(pieces, starts)]
    return EncodedText(np.concatenate([piece.ids for piece in pieces]), np.concatenate(offsets))


def _offsets(encoding: Encoding) -> np.ndarray:
    pairs = encoding.offsets
    return np.fromiter(chain.from_iterable(pairs), dtype=np.int32, count=2 * len(pairs)).reshape(-1, 2)


@lru_cache(maxsize=4)
def identify_once(files: TokenizerFiles) -> TokenizerIdentity:
    """`identify`, once a process: with a vocabulary of 150,000 it takes a second."""
    return identify(files)


def without_added_tokens(tokenizer_json: bytes, within_text: bool = False) -> Tokenizer:
    """The tokenizer without its added tokens, post-processor, truncation and padding.

    `within_text`: nor does it put a space before a text.
    """
    content = json.loads(tokenizer_json)
    _hide_pieces(content["model"], set(added_ids_of(tokenizer_json).tolist()))
    content.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    if within_text:
        content["normalizer"] = _without_prefix(content.get("normalizer"))
        content["pre_tokenizer"] = _without_prefix(content.get("pre_tokenizer"))
    return Tokenizer.from_str(json.dumps(content))


def _without_prefix(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """A normalizer or pre-tokenizer that puts nothing before a text."""
    if part is None or part["type"] == "Prepend":
        return None
    if part["type"] == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        kept = [each for each in map(_without_prefix, part[key]) if each is not None]
        return {**part, key: kept} if kept else None
    if part["type"] == "Metaspace":
        return {**{k: v for k, v in part.items() if k != "add_prefix_space"}, "prepend_scheme": "never"}
    return {**part, "add_prefix_space": False} if "add_prefix_space" in part else part


def _hide_pieces(model: dict[str, Any], ids: set[int]) -> None:
    """Give pieces that a model would find by their text a name that no text has, or take away the merges that yield them."""
    if model["type"] == "BPE":
        pieces = {piece for piece, number in model["vocab"].items() if number in ids}
        model["merges"] = [merge for merge in model["merges"] if _merged(merge) not in pieces]
    elif model["type"] == "Unigram":
        for number in ids:
            if number < len(model["vocab"]):
                model["vocab"][number][0] = f"\ue000{number}"
    elif model["type"] in ("WordLevel", "WordPiece"):
        kept = {
            piece: number
            for piece, number in model["vocab"].items()
            if number not in ids or piece == model.get("unk_token")
        }
        hidden = {f"\ue000{number}": number for number in model["vocab"].values() if number not in kept.values()}
        model["vocab"] = kept | hidden


def _merged(merge: str | list[str]) -> str:
    return merge.replace(" ", "") if isinstance(merge, str) else "".join(merge)


def added_ids_of(tokenizer_json: bytes) -> np.ndarray:
    """The ids that no text may come to: all added tokens but the one for unknown letters, and but for white space.

    Some tokenizers (Gemma's) list runs of line ends and spaces among their added tokens, which are pieces of text.
    """
    content = json.loads(tokenizer_json)
    model, added = content["model"], content.get("added_tokens") or ()
    unknown = model.get("unk_id")
    if unknown is None and isinstance(model.get("unk_token"), str):
        vocabulary = model["vocab"] if isinstance(model["vocab"], dict) else {}
        of_added = {token["content"]: token["id"] for token in added}
        unknown = of_added.get(model["unk_token"], vocabulary.get(model["unk_token"]))
    of_text = {t["id"] for t in added if not t.get("special") and not t["content"].replace("▁", " ").strip()}
    return np.array(sorted({token["id"] for token in added} - {unknown} - of_text), dtype=np.int32)


def _document_start(files: TokenizerFiles, identity: TokenizerIdentity, document_start: str) -> tuple[int, ...]:
    if document_start == "none":
        return ()
    if document_start in ("auto", "bos") and identity.document_start_ids:
        return identity.document_start_ids
    if document_start in ("auto", "eos") and identity.eos_id is not None:
        return (identity.eos_id,)
    if document_start == "auto":
        return ()
    raise UsageError(
        f"--document-start {document_start}: the tokenizer {files.name} has no such token; give none or auto"
    )


def _document_end(files: TokenizerFiles, identity: TokenizerIdentity, eos: bool) -> tuple[int, ...]:
    if not eos:
        return ()
    if identity.eos_id is None:
        raise UsageError(f"--eos: the tokenizer {files.name} has no end-of-text token; leave --eos out")
    return (identity.eos_id,)


def _names_take_a_space(tokenizer: Tokenizer) -> bool:
    """Whether a name needs a space before it to get the pieces that it has within a sentence."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    before = ids("in")
    alone = spaced = 0
    for name in _PROBE_NAMES:
        within = ids("in " + name)
        if within[: len(before)] != before:
            continue
        alone += ids(name) == within[len(before) :]
        spaced += ids(" " + name) == within[len(before) :]
    return spaced > alone

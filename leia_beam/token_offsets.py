"""From token ids to the characters of each token, by how many bytes of text each piece of the vocabulary stands for.

The library's own offsets cost as much as its ids again: an object a token. Where a tokenizer leaves the text as it is but
for its spaces, as byte-level BPE and byte-fallback BPE do, the pieces' lengths say the same, and their sum must be the
text's length, which is looked at each time. Where it is not, the library is asked.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import numpy as np

_SPACE = "▁"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_UNKNOWN = 1 << 24
"""The length of a piece that stands for no certain text: no sum with it is a text's length."""


class PieceLengths:
    """Bytes of text for each id of a vocabulary."""

    def __init__(self, lengths: np.ndarray, is_composed: bool):
        self._lengths = lengths
        self._is_composed = is_composed

    def offsets(self, ids: np.ndarray, text: str) -> np.ndarray | None:
        """The characters [start, end) of each token, (T, 2) int32, as the library gives them; None where it must be asked.

        A space that the tokenizer put before the text belongs to the text's first character.
        """
        if not len(ids) or (self._is_composed and not unicodedata.is_normalized("NFC", text)):
            return None
        encoded = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
        ends = np.cumsum(self._lengths[ids], dtype=np.int64)
        put_before = int(ends[-1]) - len(encoded)
        if put_before not in (0, 1):
            return None
        ends -= put_before
        starts = np.concatenate([[0], ends[:-1]])
        if put_before and ends[0] == 0:
            ends[0] = 1
        if len(encoded) == len(text):
            return np.stack([starts, ends], axis=1).astype(np.int32)
        character_of_byte = np.cumsum((encoded & 0xC0) != 0x80, dtype=np.int32) - 1
        return np.stack([character_of_byte[starts], character_of_byte[ends - 1] + 1], axis=1).astype(np.int32)


def piece_lengths(tokenizer_json: bytes) -> PieceLengths | None:
    """The lengths of a tokenizer's pieces, or None where its ids do not say what text they stand for."""
    content = json.loads(tokenizer_json)
    model = content["model"]
    normalizers = _parts(content.get("normalizer"), "normalizers")
    pre_tokenizers = _parts(content.get("pre_tokenizer"), "pretokenizers")
    if model["type"] != "BPE" or not all(map(_keeps_text, normalizers)):
        return None
    if len(pre_tokenizers) > 1 and any(
        part["type"] == "Metaspace" or part.get("add_prefix_space") for part in pre_tokenizers
    ):
        return None  # a space may be put before each word
    if any(part["type"] == "ByteLevel" for part in pre_tokenizers):
        length = _byte_level_length
    elif model.get("byte_fallback"):
        length = _fallback_length
    else:
        return None
    lengths = np.full(max(model["vocab"].values(), default=0) + 1, _UNKNOWN, dtype=np.int32)
    unknown = model.get("unk_token")
    for piece, number in model["vocab"].items():
        if piece != unknown:
            lengths[number] = length(piece)
    return PieceLengths(lengths, any(part["type"] == "NFC" for part in normalizers))


def _parts(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return [leaf for each in part[key] for leaf in _parts(each, key)] if part["type"] == "Sequence" else [part]


def _keeps_text(normalizer: dict[str, Any]) -> bool:
    if normalizer["type"] == "Replace":
        return normalizer.get("pattern") == {"String": " "} and normalizer.get("content") == _SPACE
    return normalizer["type"] == "NFC" or (normalizer["type"] == "Prepend" and normalizer.get("prepend") == _SPACE)


def _byte_level_length(piece: str) -> int:
    return len(piece)  # a letter of the byte-level alphabet is a byte


def _fallback_length(piece: str) -> int:
    return 1 if _BYTE.fullmatch(piece) else len(piece.replace(_SPACE, " ").encode("utf-8", "surrogatepass"))

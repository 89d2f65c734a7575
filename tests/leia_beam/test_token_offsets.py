"""token_offsets: the characters of each token are those that the library says, or the library is asked."""

from __future__ import annotations

import json
import random
from collections import Counter

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from leia_beam.token_offsets import piece_lengths
from leia_beam.tokenization import without_added_tokens
from tests.leia_beam.test_tokenization import NAMES, REAL, TRAINED, files, random_text

ODD = (
    "",
    " ",
    "  ",
    " lead",
    "trail ",
    "▁",
    "a▁b",
    "e\u0301x",
    "\u0344",
    "🗼x",
    "\n\n x",
    "\u3000x",
    "</s>",
    "\x00",
    "é",
    "e\u0301 and \u0344, e\u0301",  # composed, two bytes less and two more
)


@pytest.fixture(params=NAMES)
def name(request):
    if request.param not in TRAINED and not (REAL / request.param / "tokenizer.json").is_file():
        pytest.skip(f"the tokenizer {request.param} is not in shared/data/tokenizers")
    return request.param


@pytest.mark.parametrize("within_text", [False, True])
def test_offsets_are_those_of_the_library(name, within_text):
    """On random texts in ten languages and odd ones: equal, or left to the library; most are not."""
    lengths = piece_lengths(files(name).tokenizer_json)
    assert (lengths is None) == (name == "unigram")
    if lengths is None:
        return
    tokenizer = without_added_tokens(files(name).tokenizer_json, within_text)
    rng, seen = random.Random(f"offsets {name} {within_text}"), Counter()
    for text in (*ODD, *(random_text(rng) for _ in range(600))):
        encoding = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids == encoding.ids
        found = lengths.offsets(np.array(encoding.ids, np.int32), text)
        seen["asked" if found is None else "computed"] += 1
        if found is not None:
            assert (found.dtype, found.tolist()) == (np.int32, [list(pair) for pair in encoding.offsets]), text
    assert seen["computed"] > 400 and seen["asked"] >= 1, seen


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.NFKC(),
        normalizers.Lowercase(),
        normalizers.Strip(),
        normalizers.Replace("x", "▁"),
        normalizers.Prepend("x"),
        normalizers.Sequence([normalizers.NFC(), normalizers.NFD()]),
    ],
)
def test_a_tokenizer_that_changes_the_text_is_left_to_the_library(normalizer):
    """Its pieces do not say which text they stand for."""
    changed = Tokenizer.from_str(json.dumps(json.loads(files("byte-level").tokenizer_json)))
    changed.normalizer = normalizer
    assert piece_lengths(changed.to_str().encode()) is None


def test_ids_that_are_of_another_text_are_left_to_the_library():
    """The sum of the pieces is not the text's length."""
    lengths = piece_lengths(files("byte-level").tokenizer_json)
    tokenizer = without_added_tokens(files("byte-level").tokenizer_json)
    ids = np.array(tokenizer.encode("Tokyo is", add_special_tokens=False).ids, np.int32)
    assert lengths.offsets(ids, "Tokyo is") is not None
    assert lengths.offsets(ids, "Tokyo is here") is lengths.offsets(ids, "Tokyo") is None


@pytest.mark.parametrize(
    "splitter", [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(), pre_tokenizers.Punctuation()]
)
def test_spaces_that_may_be_put_before_each_word_are_left_to_the_library(splitter):
    """Their number and that of the spaces dropped may be the same."""
    changed = Tokenizer.from_str(files("byte-level").tokenizer_json.decode())
    changed.pre_tokenizer = pre_tokenizers.Sequence([splitter, pre_tokenizers.ByteLevel(add_prefix_space=True)])
    assert piece_lengths(changed.to_str().encode()) is None

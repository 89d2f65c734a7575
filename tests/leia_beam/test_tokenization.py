"""tokenization: a span that is called exact is exactly its anchor, and no text ever gives an added token."""

from __future__ import annotations

import itertools
import json
import random
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from leia_beam.alignment import (
    EDGE,
    END_REFUSED,
    EXACT,
    NO_TOKEN,
    NOT_ON_EDGES,
    SHARED_TOKEN,
    START_WIDENED,
    START_WIDENED_END_REFUSED,
    STRICT,
    TokenSpan,
    align_spans,
)
from leia_beam.errors import UsageError
from leia_beam.tokenization import EncodingOptions, TextEncoder
from leia_beam.tokenizer_identity import TokenizerFiles, find_tokenizer

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "tokenizers"
SENTENCES = (
    "Tokyo is the capital of Japan, and its largest city.",
    "東京は日本の首都であり、人口が最も多い都市である。",
    "北京是中华人民共和国的首都，位于华北平原。",
    "서울은 대한민국의 수도이자 최대 도시이다.",
    "Москва — столица России, город федерального значения.",
    "القاهرة هي عاصمة جمهورية مصر العربية وأكبر مدنها.",
    "नई दिल्ली भारत की राजधानी है और यमुना के किनारे बसा है।",
    "กรุงเทพมหานครเป็นเมืองหลวงและนครที่มีประชากรมากที่สุด",
    "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.",
    "İstanbul, Türkiye'nin en kalabalık şehridir; naïve café, Ÿ.",
)
LITERALS = (
    "</s>",
    "<s>",
    "<unk>",
    "<translate>",
    "</translate>",
    "<|im_start|>",
    "<|endoftext|>",
    "<think>",
    "</think>",
    "[INST]",
    "<pad>",
)
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen: bytes, words with the space before them, no document start."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|endoftext|>", "</s>"])
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


def sentencepiece_bpe() -> Tokenizer:
    """As Llama 2 and Mistral: a prepended ▁, bytes for what is not known, BOS before a document."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    # Words, so that no piece crosses a space: the finished tokenizer has no pre-tokenizer, as Mistral's.
    words = [word for sentence in SENTENCES[:4] * 3 for word in sentence.split()]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in SPECIAL]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def unigram() -> Tokenizer:
    """As T5 and XLM-R: a unigram model over ▁ words, EOS after a document."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return tokenizer


TRAINED = {"byte-level": byte_level, "sentencepiece": sentencepiece_bpe, "unigram": unigram}
NAMES = [*TRAINED, "qwen3", "mistral-7b-v0.1"]


@cache
def files(name: str) -> TokenizerFiles:
    if name in TRAINED:
        return TokenizerFiles(name=name, tokenizer_json=TRAINED[name]().to_str().encode(), config_json=None)
    return find_tokenizer(str(REAL / name))


@cache
def encoder(name: str) -> TextEncoder:
    return TextEncoder(files(name), EncodingOptions())


@pytest.fixture(params=NAMES)
def name(request):
    if request.param not in TRAINED and not (REAL / request.param / "tokenizer.json").is_file():
        pytest.skip(f"the tokenizer {request.param} is not in shared/data/tokenizers")
    return request.param


def random_text(rng: random.Random) -> str:
    """Pieces of ten languages with odd white space, emoji, marks and literals of special tokens between them."""
    parts = []
    for _ in range(rng.randrange(1, 7)):
        sentence = rng.choice(SENTENCES)
        start = rng.randrange(len(sentence))
        parts.append(sentence[start : start + rng.randrange(1, 30)])
        parts.append(
            rng.choice(("", " ", "  ", "\n", "\n\n", "\t", "。", "👨‍👩‍👧", "🗼", "e\u0301", "1234", "\u00a0", "\u3000"))
        )
    return "".join(parts)


def random_spans(rng: random.Random, text: str) -> list[tuple[int, int]]:
    """Sorted, apart or touching, none empty."""
    cuts = sorted(rng.sample(range(len(text) + 1), min(len(text) + 1, 2 * rng.randrange(1, 6))))
    spans = [(start, end) for start, end in itertools.pairwise(cuts) if rng.random() < 0.7]
    # A wiki's text is composed (NFC) and no anchor ends within a letter: no cut between a letter and its mark.
    spans = [span for span in spans if not any(text[at : at + 1] == "\u0301" for at in span)]
    # Whole words as well: the anchors of running text.
    if rng.random() < 0.5:
        at, spans = 0, []
        for word in text.split(" "):
            if word:
                spans.append((at, at + len(word)))
            at += len(word) + 1
    return spans


def same(decoded: str, anchor: str) -> bool:
    """Equal but for the normalizer's composition and one space that the first piece took in."""
    decoded, anchor = unicodedata.normalize("NFC", decoded), unicodedata.normalize("NFC", anchor)
    return decoded.lstrip() == anchor.lstrip()


def test_every_exact_span_is_its_anchor(name):
    """On random texts in ten languages with random spans: what is called exact decodes to the anchor's own text."""
    rng, edges = random.Random(f"spans {name}"), Counter()
    tokenizer = encoder(name)._tokenizer
    for _ in range(400):
        text = random_text(rng)
        ids, offsets = encoder(name).encode(text)
        assert (ids.dtype, offsets.dtype, offsets.shape) == (np.int32, np.int32, (len(ids), 2))
        spans = random_spans(rng, text)
        aligned = align_spans(offsets, text, spans, EDGE)
        strict = align_spans(offsets, text, spans, STRICT)
        assert len(aligned) == len(strict) == len(spans)
        end = 0
        for (start_char, end_char), span, strict_span in zip(spans, aligned, strict, strict=True):
            edges[span.edge if isinstance(span, TokenSpan) else span] += 1
            if not isinstance(span, TokenSpan):
                assert span in (NO_TOKEN, SHARED_TOKEN)
                continue
            assert end <= span.start < span.end <= len(ids)
            end = span.end
            assert offsets[span.start][0] < end_char and offsets[span.end - 1][1] > start_char
            if span.edge == EXACT:
                assert strict_span in (span, SHARED_TOKEN)
                piece = ids[span.start : span.end]
                if 0 in piece and name == "unigram":
                    edges["unknown"] += 1  # <unk> has no text to compare
                else:
                    assert same(tokenizer.decode(piece.tolist()), text[start_char:end_char]), (
                        text,
                        start_char,
                        end_char,
                    )
            else:
                assert strict_span == NOT_ON_EDGES
    assert edges[EXACT] > 200 and edges[END_REFUSED] + edges[START_WIDENED] > 5, edges


def test_the_offsets_are_in_order_and_cover_the_text(name):
    """What `align_spans` relies on: starts and ends never fall, and no character is left out."""
    rng = random.Random(f"offsets {name}")
    for _ in range(200):
        text = random_text(rng)
        _, offsets = encoder(name).encode(text)
        assert (np.diff(offsets[:, 0]) >= 0).all() and (np.diff(offsets[:, 1]) >= 0).all()
        covered = np.zeros(len(text) + 1, bool)
        for start, end in offsets.tolist():
            covered[start:end] = True
        missing = {text[at] for at in np.flatnonzero(~covered[: len(text)])}
        assert all(unicodedata.combining(letter) or letter.isspace() for letter in missing), missing


def test_no_text_gives_an_added_token(name):
    """Literals of special and other added tokens, alone, together and within sentences, are ordinary text."""
    added = set(encoder(name).added_ids.tolist())
    assert added
    decoder = Tokenizer.from_buffer(files(name).tokenizer_json).get_added_tokens_decoder()
    literals = {*LITERALS, *(token.content for token in decoder.values())}
    texts = [*literals, *(f"Tokyo {text} is" for text in literals), "".join(sorted(literals))]
    texts += [f"東京{text}は" for text in literals]
    unknown = {Tokenizer.from_buffer(files(name).tokenizer_json).token_to_id("<unk>")} if name == "unigram" else set()
    found = {text: set(encoder(name).encode(text)[0].tolist()) & added - unknown for text in texts}
    assert {text: ids for text, ids in found.items() if ids} == {}
    names = {text: set(encoder(name).encode_name(text).ids) & added - unknown for text in literals}
    assert {text: ids for text, ids in names.items() if ids} == {}


def test_added_ids_in_a_text_are_found():
    """The last line of defence says which ids."""
    made = encoder("sentencepiece")
    assert made.added_in(np.array([5, 3, 7, 1, 3], np.int32)) == [1, 3]
    assert made.added_in(np.array([5, 7, 300], np.int32)) == made.added_in(np.array([], np.int32)) == []


@pytest.mark.parametrize(
    ("tokenizer", "entity", "pieces"),
    [
        ("qwen3", "Tokyo", ["ĠTokyo"]),
        ("qwen3", "Albert Einstein", ["ĠAlbert", "ĠEinstein"]),
        ("mistral-7b-v0.1", "Tokyo", ["▁Tokyo"]),
        ("mistral-7b-v0.1", "Albert Einstein", ["▁Albert", "▁Einstein"]),
    ],
)
def test_a_name_has_the_pieces_that_it_has_in_running_text(tokenizer, entity, pieces):
    """Word-initial, one space, no special token."""
    if not (REAL / tokenizer).is_dir():
        pytest.skip(f"the tokenizer {tokenizer} is not in shared/data/tokenizers")
    ids = encoder(tokenizer).encode_name(entity).ids
    assert [encoder(tokenizer)._tokenizer.id_to_token(number) for number in ids] == pieces


def test_a_name_is_encoded_as_it_stands_within_a_sentence(name):
    """The ids after those of the words before it."""
    before = encoder(name).encode("in")[0].tolist()
    compared = 0
    for entity in ("Tokyo", "Japan", "Paris", "Albert Einstein", "Türkiye"):
        within = encoder(name).encode(f"in {entity}")[0].tolist()
        if within[: len(before)] == before:
            assert list(encoder(name).encode_name(entity).ids) == within[len(before) :]
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize(("name_space", "spaced"), [("auto", True), ("yes", True), ("no", False)])
def test_the_space_before_a_name_is_an_option(name_space, spaced):
    """`auto` finds what running text has."""
    made = TextEncoder(files("byte-level"), EncodingOptions(name_space=name_space))
    decoded = made._tokenizer.decode(made.encode_name("Tokyo").ids)
    assert (made.spaced_names, decoded) == (spaced, " Tokyo" if spaced else "Tokyo")
    assert not encoder("sentencepiece").spaced_names


@pytest.mark.parametrize(
    ("tokenizer", "document_start", "ids"),
    [
        ("sentencepiece", "auto", (1,)),
        ("sentencepiece", "bos", (1,)),
        ("sentencepiece", "eos", (2,)),
        ("sentencepiece", "none", ()),
        ("unigram", "auto", (2,)),
        ("unigram", "eos", (2,)),
        ("qwen3", "auto", (151645,)),
        ("qwen3", "none", ()),
        ("mistral-7b-v0.1", "auto", (1,)),
        ("mistral-7b-v0.1", "eos", (2,)),
    ],
)
def test_what_stands_before_a_document(tokenizer, document_start, ids):
    """What the tokenizer's own post-processor puts there, else EOS."""
    if tokenizer not in TRAINED and not (REAL / tokenizer).is_dir():
        pytest.skip(f"the tokenizer {tokenizer} is not in shared/data/tokenizers")
    assert TextEncoder(files(tokenizer), EncodingOptions(document_start=document_start)).document_start_ids == ids


def test_a_document_start_that_the_tokenizer_has_not_is_a_usage_error():
    """`bos` where the post-processor puts none."""
    with pytest.raises(
        UsageError, match="--document-start bos: the tokenizer unigram has no such token; give none or auto"
    ):
        TextEncoder(files("unigram"), EncodingOptions(document_start="bos"))


def test_an_empty_text_has_no_tokens(name):
    """And no span in it."""
    ids, offsets = encoder(name).encode("")
    assert (ids.shape, offsets.shape, align_spans(offsets, "", [], EDGE)) == ((0,), (0, 2), [])


TOKENS = np.array([[0, 2], [2, 5], [5, 6], [6, 6], [6, 9], [9, 10], [9, 10]])
TEXT = "ab cde fgh"  # tokens: ab| cd|e|| fg|h|h


@pytest.mark.parametrize(
    ("span", "expected", "strict"),
    [
        ((0, 2), TokenSpan(start=0, end=1, edge=EXACT), None),
        ((3, 5), TokenSpan(start=1, end=2, edge=EXACT), None),
        ((2, 5), TokenSpan(start=1, end=2, edge=EXACT), None),
        ((0, 5), TokenSpan(start=0, end=2, edge=EXACT), None),
        ((3, 6), TokenSpan(start=1, end=3, edge=EXACT), None),
        ((9, 10), TokenSpan(start=5, end=7, edge=EXACT), None),
        ((7, 10), TokenSpan(start=4, end=7, edge=EXACT), None),
        ((0, 1), TokenSpan(start=0, end=1, edge=END_REFUSED), NOT_ON_EDGES),
        ((1, 2), TokenSpan(start=0, end=1, edge=START_WIDENED), NOT_ON_EDGES),
        ((4, 5), TokenSpan(start=1, end=2, edge=START_WIDENED), NOT_ON_EDGES),
        ((3, 4), TokenSpan(start=1, end=2, edge=END_REFUSED), NOT_ON_EDGES),
        ((1, 4), TokenSpan(start=0, end=2, edge=START_WIDENED_END_REFUSED), NOT_ON_EDGES),
        ((0, 3), TokenSpan(start=0, end=2, edge=END_REFUSED), NOT_ON_EDGES),
        ((10, 12), NO_TOKEN, None),
    ],
)
def test_the_edges_of_one_span(span, expected, strict):
    """Exact, widened, refused, both; white space that the first token took in is no bad edge."""
    assert align_spans(TOKENS, TEXT, [span], EDGE) == [expected]
    assert align_spans(TOKENS, TEXT, [span], STRICT) == [strict or expected]


def test_a_token_belongs_to_the_first_anchor_that_has_it():
    """Two anchors in one token: the first keeps it in `edge`, neither in `strict`."""
    assert align_spans(TOKENS, TEXT, [(0, 1), (1, 2), (3, 5)], EDGE) == [
        TokenSpan(start=0, end=1, edge=END_REFUSED),
        SHARED_TOKEN,
        TokenSpan(start=1, end=2, edge=EXACT),
    ]
    assert align_spans(TOKENS, TEXT, [(0, 1), (1, 2), (3, 5)], STRICT) == [
        NOT_ON_EDGES,
        NOT_ON_EDGES,
        TokenSpan(start=1, end=2, edge=EXACT),
    ]


@pytest.mark.parametrize("at", range(len(TEXT) + 1))
def test_an_empty_span_has_no_token(at):
    """There is nothing that a token could cover."""
    assert align_spans(TOKENS, TEXT, [(at, at)], EDGE) == [NO_TOKEN]


def test_no_tokens_have_no_spans():
    """A text that came to nothing."""
    assert align_spans(np.empty((0, 2), np.int32), "x", [(0, 1)], EDGE) == [NO_TOKEN]

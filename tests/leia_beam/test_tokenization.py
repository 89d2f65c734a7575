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

from leia_beam import tokenization
from leia_beam.alignment import (
    EDGE,
    END_REFUSED,
    EXACT,
    NO_TOKEN,
    NOT_ON_EDGES,
    SHARED_TOKEN,
    SPLIT,
    START_WIDENED,
    START_WIDENED_END_REFUSED,
    STRICT,
    TokenSpan,
    align_spans,
    cuts_of,
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


def test_split_puts_a_boundary_at_every_edge(name):
    """Every span is exact and decodes to its anchor, whatever the tokenizer; what the text says stays the same."""
    rng, seen = random.Random(f"split {name}"), Counter()
    tokenizer = encoder(name)._tokenizer
    for _ in range(400):
        text = random_text(rng)
        spans = random_spans(rng, text)
        ids, offsets = encoder(name).encode(text, cuts_of(text, spans))
        plain = encoder(name).encode(text)
        seen["more tokens"] += len(ids) > len(plain.ids)
        aligned = align_spans(offsets, text, spans, SPLIT)
        was = align_spans(plain.offsets, text, spans, STRICT)
        for (start, end), span, before in zip(spans, aligned, was, strict=True):
            if not isinstance(span, TokenSpan):
                seen[span] += 1
                continue
            seen[span.edge] += 1
            seen["gained"] += before == NOT_ON_EDGES and span.edge == EXACT
            piece = ids[span.start : span.end]
            if not (0 in piece and name == "unigram"):
                assert same(tokenizer.decode(piece.tolist()), text[start:end]), (text, start, end)
        if "▁" not in text and name != "unigram":
            assert same(tokenizer.decode(ids.tolist()), text), text
    assert seen[EXACT] > 200 and seen["gained"] > 20 and seen["more tokens"] > 20
    assert seen[SHARED_TOKEN] == 0 and seen[EXACT] >= 0.99 * sum(seen[edge] for edge in ALL_EDGES), seen


ALL_EDGES = (EXACT, START_WIDENED, END_REFUSED, START_WIDENED_END_REFUSED)


def test_a_cut_changes_nothing_where_a_boundary_is(name):
    """Cut at the edges of exact spans, a sentence has the ids that it has uncut."""
    rng, compared = random.Random(f"cuts {name}"), 0
    for _ in range(300):
        text = rng.choice(SENTENCES)
        plain = encoder(name).encode(text)
        words = [(at, at + len(word)) for at, word in words_of(text)]
        aligned = align_spans(plain.offsets, text, words, STRICT)
        exact = [span for span, tokens in zip(words, aligned, strict=True) if isinstance(tokens, TokenSpan)]
        if name == "sentencepiece" or not exact:
            continue  # pieces of words that it was trained on may cross a space
        chosen = sorted(rng.sample(exact, min(len(exact), 3)))
        cut = encoder(name).encode(text, cuts_of(text, chosen))
        if name != "unigram":  # its best path is over the whole word
            assert cut.ids.tolist() == plain.ids.tolist(), (text, chosen)
        assert cut.offsets.tolist()[-1] == plain.offsets.tolist()[-1]
        compared += 1
    assert compared > 200 or name == "sentencepiece"


def words_of(text: str) -> list[tuple[int, str]]:
    at, found = 0, []
    for word in text.split(" "):
        if word:
            found.append((at, word))
        at += len(word) + 1
    return found


def test_a_batch_is_its_texts_one_by_one(name):
    """With and without cuts, empty texts among them."""
    rng = random.Random(f"batch {name}")
    texts = ["", *(random_text(rng) for _ in range(40)), ""]
    cuts = [cuts_of(text, random_spans(rng, text)) if number % 2 else [] for number, text in enumerate(texts)]
    batch = encoder(name).encode_batch(texts, cuts)
    for text, of_text, encoded in zip(texts, cuts, batch, strict=True):
        single = encoder(name).encode(text, of_text)
        assert (encoded.ids.tolist(), encoded.offsets.tolist()) == (single.ids.tolist(), single.offsets.tolist())
    assert encoder(name).encode_batch([], []) == []


def test_a_long_text_is_encoded_in_pieces_without_a_trace(name, monkeypatch):
    """Lines of ten languages: the ids and offsets of the whole, with pieces of a few lines."""
    rng = random.Random(f"long {name}")
    text = "\n".join(rng.choice(SENTENCES) for _ in range(60))
    whole = encoder(name).encode(text)
    monkeypatch.setattr(tokenization, "PIECE_CHARACTERS", 300)
    assert len(tokenization._bounds(text, ())) > 8
    pieces = encoder(name).encode(text)
    assert pieces.ids.tolist() == whole.ids.tolist() and pieces.offsets.tolist() == whole.offsets.tolist()
    one_line = "東京" * 1000
    monkeypatch.setattr(tokenization, "PIECE_CHARACTERS", 64)
    encoded = encoder(name).encode(one_line, [7])
    assert encoded.offsets[-1][1] == len(one_line) and (np.diff(encoded.offsets[:, 0]) >= 0).all()


@pytest.mark.parametrize(
    ("text", "cuts", "bounds"),
    [
        ("", (), [0, 0]),
        ("abc", (), [0, 3]),
        ("abc", (1, 3), [0, 1, 3]),
        ("abcdef", (), [0, 4, 6]),
        ("a\nbcdef", (), [0, 2, 6, 7]),
        ("a\n\nbcdef", (), [0, 3, 7, 8]),
        ("ab\n cdef", (), [0, 4, 8]),
        ("abcdefgh", (2, 7), [0, 2, 6, 7, 8]),
    ],
)
def test_where_a_text_is_cut(monkeypatch, text, cuts, bounds):
    """At its cuts, and where a piece would be too long: before a line that begins with a letter, if there is one."""
    monkeypatch.setattr(tokenization, "PIECE_CHARACTERS", 4)
    assert tokenization._bounds(text, cuts) == bounds


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


@pytest.mark.parametrize(("tokenizer", "eos", "ids"), [("sentencepiece", True, (2,)), ("sentencepiece", False, ())])
def test_what_stands_behind_a_document(tokenizer, eos, ids):
    """EOS by option."""
    assert TextEncoder(files(tokenizer), EncodingOptions(eos=eos)).document_end_ids == ids


def test_an_end_that_the_tokenizer_has_not_is_a_usage_error():
    """Words alone have no end-of-text token."""
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    bare = TokenizerFiles(name="bare", tokenizer_json=words.to_str().encode(), config_json=None)
    with pytest.raises(UsageError, match="--eos: the tokenizer bare has no end-of-text token"):
        TextEncoder(bare, EncodingOptions(eos=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"name_space": "maybe"}, "name space 'maybe'"), ({"document_start": "x"}, "document start 'x'")],
)
def test_unknown_options_are_usage_errors(options, message):
    """With what there is."""
    with pytest.raises(UsageError, match=f"{message}: give one of auto"):
        EncodingOptions(**options)


def test_names_that_are_cut_otherwise_alone_are_told():
    """By where their pieces end, not by the space that the first one has."""
    if not (REAL / "qwen3").is_dir():
        pytest.skip("the tokenizer qwen3 is not in shared/data/tokenizers")
    made, alone = encoder("qwen3"), TextEncoder(files("qwen3"), EncodingOptions(name_space="no"))
    names = ("Tokyo", "Sapporo", "Kyushu", "Honda", "Osaka", "Nagoya", "Kamakura", "Wikipedia", "Honshu", "Shikoku")
    for entity in names:
        in_text, by_itself = made.encode_name(entity), alone.encode_name(entity)
        pieces = [
            [tokenizer.id_to_token(number).lstrip("Ġ") for number in ids]
            for tokenizer, ids in ((made._tokenizer, in_text.ids), (alone._tokenizer, by_itself.ids))
        ]
        assert in_text.is_cut_otherwise_alone == by_itself.is_cut_otherwise_alone == (pieces[0] != pieces[1])
    told = [made.encode_name(entity).is_cut_otherwise_alone for entity in names]
    assert any(told) and not all(told)


def gemma_like() -> TokenizerFiles:
    """Runs of line ends and markup among the added tokens, which its own merges yield too."""
    content = json.loads(byte_level().to_str())
    vocabulary = content["model"]["vocab"]
    for first, second in (("Ċ", "Ċ"), ("<", "b"), ("<b", ">")):
        vocabulary.setdefault(first + second, len(vocabulary) + 50)
        content["model"]["merges"].insert(0, [first, second])
    content["model"]["merges"].sort(key=lambda merge: merge not in (["Ċ", "Ċ"], ["<", "b"]))
    added = [("\n", vocabulary["Ċ"]), ("\n\n", vocabulary["ĊĊ"]), ("<b>", vocabulary["<b>"])]
    content["added_tokens"] += [
        {
            "id": number,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": False,
        }
        for text, number in added
    ]
    content["added_tokens"].sort(key=lambda token: token["id"])
    return TokenizerFiles(name="gemma-like", tokenizer_json=json.dumps(content).encode(), config_json=None)


def test_white_space_among_the_added_tokens_is_text_and_markup_is_cut():
    """An article with line ends is an ordinary one; `<b>` comes to other ids than the added token's."""
    made = TextEncoder(gemma_like(), EncodingOptions())
    vocabulary = json.loads(gemma_like().tokenizer_json)["model"]["vocab"]
    ids = made.encode("a <b>c\n\n").ids
    assert vocabulary["ĊĊ"] in ids and made.added_in(ids) == []
    assert vocabulary["<b>"] not in ids and vocabulary["<b>"] in made.added_ids
    assert made._tokenizer.decode(ids.tolist()) == "a <b>c\n\n"

"""The evaluation loss counts every token once and divides by the bytes of the text."""

import math

import numpy as np
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer

from leia_train.config import ModelConfig
from leia_train.evaluation import evaluate, pack_windows, windows_of
from leia_train.markers import add_markers
from leia_train.model import load_model
from leia_train.store import open_shards, open_store


def test_windows_predict_each_token_once():
    """All tokens but the first are the label of exactly one window, for every length."""
    for size in range(12):
        for length in range(2, 14):
            windows = windows_of(np.arange(size), length)
            assert [token for window in windows for token in window[1:]] == list(range(1, size))
            assert all(len(window) <= length for window in windows)


def test_rows_hold_whole_windows():
    """Rows are filled in order; one window may be a row."""
    windows = [np.array([1, 2, 3]), np.array([4, 5]), np.array([6, 7, 8, 9])]
    rows = [[part.tolist() for part in row] for row in pack_windows(windows, 5)]
    assert rows == [
        [[1, 2, 3, 4, 5], [0, 1, 2, 0, 1], [-100, 2, 3, -100, 5]],
        [[6, 7, 8, 9], [0, 1, 2, 3], [-100, 7, 8, 9]],
    ]


def test_bits_per_byte_equal_those_of_each_article_alone(tmp_path, shards):
    """Packed or not, the loss is that of the model over each whole article; bytes are those of the decoded text."""
    folders = open_shards([str(shards)])
    store = open_store(folders, tmp_path)
    tokenizer = add_markers(store.tokenizer, "special")
    config = ModelConfig(model="tiny-llama", tiny_hidden_size=16, tiny_heads=2, tiny_kv_heads=1)
    model = load_model(config, store.tokenizer, tokenizer, 512, 0).model
    documents = np.array([3, 11, 0])
    nats, size_bytes, tokens = 0.0, 0, 0
    decoder = Tokenizer.from_buffer(store.tokenizer.tokenizer_json)
    for document in documents:
        ids = store.documents.tokens[slice(*store.documents.token_offsets[document : document + 2])].tolist()
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss
        nats += loss.item() * (len(ids) - 1)
        tokens += len(ids) - 1
        size_bytes += len(decoder.decode(ids[1:]).encode())
    for share_rows in (True, False):
        found = evaluate(model, store, documents, 512, Accelerator(cpu=True), share_rows=share_rows)
        assert (found.documents, found.tokens, found.size_bytes) == (3, tokens, size_bytes)
        assert math.isclose(found.bits_per_byte, nats / math.log(2) / size_bytes, rel_tol=1e-5)
    assert evaluate(model, store, documents[:0], 512, Accelerator(cpu=True), share_rows=True) is None

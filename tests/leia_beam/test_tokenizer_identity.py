"""tokenizer_identity: the same tokenizer is the same by any road, another one never is, and markers count for nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from leia_beam.errors import UsageError
from leia_beam.tokenizer_identity import MARKERS, TokenizerFiles, find_tokenizer, identify

TEXTS = ["Tokyo is the capital of Japan.", "東京は日本の首都である。", "Paris, Москва, القاهرة"] * 3


def trained(special=("<s>", "</s>")):
    """A small byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def files_of(tokenizer, config=None):
    config_json = None if config is None else json.dumps(config).encode()
    return TokenizerFiles(name="small", tokenizer_json=tokenizer.to_str().encode(), config_json=config_json)


def identity(tokenizer, config=None):
    return identify(files_of(tokenizer, config))


PLAIN = identity(trained())


def test_training_again_gives_the_same_identity():
    """A pure function of vocabulary and rules."""
    assert identity(trained()) == PLAIN
    assert (PLAIN.vocabulary_size, len(PLAIN.fingerprint), len(PLAIN.probe_fingerprint)) == (320, 64, 64)


@pytest.mark.parametrize("special", [True, False])
def test_the_markers_count_for_nothing(special):
    """A checkpoint's tokenizer, with the two markers added, is the build's."""
    tokenizer = trained()
    tokenizer.add_tokens([AddedToken(marker, special=special, normalized=False) for marker in MARKERS])
    assert identity(tokenizer) == PLAIN


def test_the_form_of_the_json_counts_for_nothing():
    """Indentation and the order of keys are no part of a tokenizer."""
    content = json.loads(trained().to_str())
    again = json.dumps(dict(reversed(content.items())), indent=4).encode()
    assert identify(replace(files_of(trained()), tokenizer_json=again)) == PLAIN


def test_any_other_token_counts():
    """One more token, special or not, is another tokenizer."""
    prints = {PLAIN.fingerprint}
    for token in (AddedToken("<x>", special=True), AddedToken("<x>", special=False), AddedToken("<y>", special=True)):
        tokenizer = trained()
        tokenizer.add_tokens([token])
        prints.add(identity(tokenizer).fingerprint)
    assert len(prints) == 4


def test_the_special_ids_count():
    """The same vocabulary with another special token is another tokenizer."""
    content = json.loads(trained().to_str())
    content["added_tokens"][0]["special"] = False
    assert (
        identify(replace(files_of(trained()), tokenizer_json=json.dumps(content).encode())).fingerprint
        != PLAIN.fingerprint
    )


def test_an_exchange_of_two_ids_counts():
    """The vocabulary is compared with its ids."""
    content = json.loads(trained().to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    found = identify(replace(files_of(trained()), tokenizer_json=json.dumps(content).encode()))
    assert found.fingerprint != PLAIN.fingerprint and found.probe_fingerprint != PLAIN.probe_fingerprint


def test_other_rules_with_the_same_vocabulary_are_told_by_the_probe():
    """The second fingerprint is over ids of texts, so it sees the pre-tokenizer."""
    tokenizer = trained()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    found = identity(tokenizer)
    assert found.fingerprint == PLAIN.fingerprint and found.probe_fingerprint != PLAIN.probe_fingerprint


def test_what_stands_before_a_document_is_the_post_processor_s():
    """BOS, several tokens, none; what comes after the text is not before it."""
    templates = {"$A": (), "<s> $A": (0,), "<s> $A </s>": (0,), "$A </s>": (), "</s> <s> $A": (1, 0)}
    found = {}
    for template in templates:
        tokenizer = trained()
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
        )
        found[template] = identity(tokenizer).document_start_ids
    assert found == templates


def test_padding_and_truncation_count_for_nothing():
    """They are settings of a caller, which many tokenizer.json files keep; padding is no document start."""
    tokenizer = trained()
    tokenizer.enable_padding(direction="left", length=12, pad_id=0, pad_token="<s>")
    tokenizer.enable_truncation(3)
    assert identity(tokenizer) == PLAIN


@pytest.mark.parametrize(
    ("special", "config", "eos_id"),
    [
        (("<s>", "</s>"), None, 1),
        (("<s>", "</s>"), {}, 1),
        (("<s>", "</s>"), {"eos_token": "<s>"}, 0),
        (("<s>", "</s>"), {"eos_token": {"content": "<s>", "special": True}}, 0),
        (("<s>", "</s>"), {"eos_token": None}, 1),
        (("<s>", "</s>"), {"eos_token": "<nosuch>"}, 1),
        (("<|im_end|>", "<|endoftext|>"), None, 1),
        (("<s>",), None, None),
    ],
)
def test_the_end_of_text_is_what_the_configuration_says(special, config, eos_id):
    """Else the first of the well-known tokens that is there, else none."""
    assert identity(trained(special), config).eos_id == eos_id


def test_a_tokenizer_is_found_as_a_file_or_a_folder(tmp_path):
    """With its configuration where it stands beside it, named for the folder."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    content = trained().to_str().encode()
    (folder / "tokenizer.json").write_bytes(content)
    bare = TokenizerFiles(name="my-model", tokenizer_json=content, config_json=None)
    assert find_tokenizer(str(folder)) == find_tokenizer(str(folder / "tokenizer.json")) == bare
    (folder / "tokenizer_config.json").write_bytes(b'{"eos_token": "</s>"}')
    assert find_tokenizer(str(folder)) == replace(bare, config_json=b'{"eos_token": "</s>"}')


def test_a_tokenizer_that_is_not_there_is_a_usage_error(tmp_path):
    """A path that cannot be a name on the hub is not looked for there."""
    with pytest.raises(UsageError, match=r"nothing: no such file or folder with a tokenizer\.json$"):
        find_tokenizer(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no such file or folder"):
        find_tokenizer(str(tmp_path / "empty"))


def test_a_file_that_is_no_tokenizer_is_a_usage_error(tmp_path):
    """One line with the path."""
    for content in (b"", b"{}", b"[]", b'{"model": 5}', b"\xff"):
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(UsageError, match=r"tokenizer\.json: not a tokenizer\.json that `tokenizers` can read"):
            find_tokenizer(str(tmp_path))


@pytest.mark.parametrize("config", [b'{"eos_token":', b"[]", b"\xff", b'"x"'])
def test_a_damaged_configuration_is_a_usage_error(config):
    """tokenizer_config.json cut short is one line, no traceback."""
    with pytest.raises(UsageError, match="tokenizer_config"):
        identify(replace(files_of(trained()), config_json=config))


def test_an_id_that_does_not_fit_int32_is_refused():
    """At the start, not at the first row that has it."""
    content = json.loads(trained().to_str())
    content["model"]["vocab"]["zzz"] = 2**31
    with pytest.raises(UsageError, match=r"token id 2,147,483,648 does not fit the int32 of the shards"):
        identify(replace(files_of(trained()), tokenizer_json=json.dumps(content).encode()))

"""Shards are checked when they are opened, and the store holds what they hold."""

import shutil

import numpy as np
import pytest
from list_reference import make_documents, make_store
from shard_fixture import Article, Entity, make_articles, write_shards, write_tokenizer

from leia_beam.errors import DamagedInput, UsageError
from leia_beam.manifest import MANIFEST_NAME
from leia_beam.sealed_json import seal, unseal
from leia_train import store as store_module
from leia_train.insertion import Documents
from leia_train.shard_folders import open_shards
from leia_train.store import open_store


def opened(tmp_path, *folders):
    """The store of some folders of shards."""
    return open_store(open_shards([str(folder) for folder in folders]), tmp_path / "output")


def dealt(articles, files=2):
    """The articles in the order in which the fixture's files hold them."""
    return [article for unit in range(files) for article in articles[unit::files]]


def as_lists(documents):
    """All columns as lists."""
    return {name: getattr(documents, name).tolist() for name in Documents.__slots__}


def edit_manifest(folder, change):
    """Change the manifest of a copy, which is then sealed again, as by who wrote it."""
    content = unseal((folder / MANIFEST_NAME).read_bytes())
    change(content)
    (folder / MANIFEST_NAME).write_bytes(seal(content))


@pytest.fixture
def copy(shards, tmp_path):
    """A copy of the shards that a test may damage."""
    return shutil.copytree(shards, tmp_path / "copy")


def test_the_store_holds_all_rows_of_two_wikis(tmp_path, tokenizer_folder):
    """Every column of two folders, over files and row groups, and of any subset, in its order."""
    ja, sw = make_articles(tokenizer_folder, 11), make_articles(tokenizer_folder, 5, first_page=3)
    folders = [
        write_shards(tmp_path / "ja", tokenizer_folder, ja, "jawiki"),
        write_shards(tmp_path / "sw", tokenizer_folder, sw, "swwiki", files=3),
    ]
    found = opened(tmp_path, *folders)
    pairs = [("jawiki", article) for article in dealt(ja)] + [("swwiki", article) for article in dealt(sw, 3)]
    expected = make_store(pairs, 1)
    assert as_lists(found.documents) == as_lists(expected.documents)
    for name in ("entity_ordinals", "page_ids", "wiki_keys", "entity_qids"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name
    for name, category in expected.categories.items():
        words = [found.categories[name].words[code] for code in found.categories[name].codes]
        assert words == [category.words[code] for code in category.codes], name
    assert (found.entity_qids < 0).any() and (found.entity_qids > 0).any()
    again = store_module.reopen_store(tmp_path / "output", found.fingerprint)
    assert again.tokenizer == found.tokenizer and as_lists(again.documents) == as_lists(found.documents)
    picked = np.array([12, 0, 7, 12])
    documents, entities = found.subset(picked)
    assert as_lists(documents) == as_lists(make_documents([pairs[index][1] for index in picked]))
    assert len(entities) == sum(len(pairs[index][1].entities) for index in picked) > 0


def test_the_store_is_built_once_and_again_where_it_was_damaged(tmp_path, shards, monkeypatch):
    """A second opening reads no Parquet; a flipped bit in a column brings a new store with the right content."""
    builds = []
    build = store_module._build
    monkeypatch.setattr(store_module, "_build", lambda *args: (builds.append(1), build(*args)))
    first = as_lists(opened(tmp_path, shards).documents)
    assert as_lists(opened(tmp_path, shards).documents) == first
    assert len(builds) == 1
    column = next((tmp_path / "output").glob("store-*/tokens.bin"))
    flip_bit(column, 9)
    assert as_lists(opened(tmp_path, shards).documents) == first
    assert len(builds) == 2


def test_an_article_without_entities_and_an_empty_shard_are_fine(tmp_path, tokenizer_folder):
    """Empty columns are mapped too."""
    articles = [Article(page_id=4, input_ids=(0, 5, 6), entities=())]
    found = opened(tmp_path, write_shards(tmp_path / "shards", tokenizer_folder, articles, files=3))
    assert as_lists(found.documents) == as_lists(make_documents(articles))


def flip_bit(path, place):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_one_flipped_bit_in_a_shard_is_refused_at_open(copy):
    """Wherever it is; the message names the file."""
    shard = sorted(copy.glob("data/*.parquet"))[1]
    flip_bit(shard, shard.stat().st_size // 2)
    with pytest.raises(DamagedInput, match=r"train-00001-of-00002-0123abcd.parquet: SHA-256 mismatch"):
        open_shards([str(copy)])


def test_a_truncated_and_a_missing_shard_are_refused(copy):
    """Both sizes, or that the file is not there."""
    first, second = sorted(copy.glob("data/*.parquet"))
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(DamagedInput, match="bytes, the manifest says"):
        open_shards([str(copy)])
    first.unlink()
    with pytest.raises(DamagedInput, match="missing, but the manifest lists it"):
        open_shards([str(copy)])
    assert second.exists()


def test_a_changed_tokenizer_file_is_refused(copy):
    """The tokenizer beside the shards is part of them."""
    flip_bit(copy / "tokenizer/tokenizer.json", 20)
    with pytest.raises(DamagedInput, match=r"tokenizer.json: SHA-256 mismatch"):
        open_shards([str(copy)])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda content: content.update(stage="articles"), UsageError, "a build's stage 'articles', not shards"),
        (lambda content: content.update(schema_version="99.0"), UsageError, "built with schema 99.0"),
        (lambda content: content["details"].clear(), DamagedInput, "details.tokenizer is not as expected"),
    ],
)
def test_manifests_of_something_else_are_refused(copy, change, error, message):
    """Another stage, another schema, no tokenizer."""
    edit_manifest(copy, change)
    with pytest.raises(error, match=message):
        open_shards([str(copy)])


def test_unfinished_shards_are_refused(tmp_path):
    """A folder without a manifest."""
    with pytest.raises(UsageError, match="the stage is not finished"):
        open_shards([str(tmp_path)])


def test_two_builds_with_different_tokenizers_are_refused(tmp_path, shards):
    """Both fingerprints are in the message."""
    other = write_tokenizer(tmp_path / "other", vocabulary_size=300)
    second = write_shards(tmp_path / "second", other, make_articles(other, 2), "swwiki")
    with pytest.raises(UsageError, match=r"second: built with tokenizer other .* with tiny"):
        open_shards([str(shards), str(second)])


def test_the_same_wiki_twice_is_refused(tmp_path, shards):
    """Its draws would be the same, and its validation articles no longer kept apart."""
    with pytest.raises(UsageError, match="of jawiki is there twice"):
        opened(tmp_path, shards, shards)
    assert not list((tmp_path / "output").iterdir())


@pytest.mark.parametrize(
    ("article", "message"),
    [
        (Article(page_id=8, input_ids=(0, 400), entities=()), r"token id 400 outside of the tokenizer's 3\d\d ids"),
        (
            Article(page_id=8, input_ids=(0, 5), entities=(Entity(start=1, end=3, name_ids=(5,)),)),
            r"page id 8: .*\[1, 3\)",
        ),
        (
            Article(page_id=8, input_ids=(0, 5), entities=(Entity(start=1, end=1, name_ids=(5,)),)),
            r"page id 8: .*\[1, 1\)",
        ),
        (
            Article(
                page_id=8,
                input_ids=(0, 5, 6, 7),
                entities=(Entity(start=1, end=3, name_ids=(5,)), Entity(start=2, end=4, name_ids=(5,))),
            ),
            r"page id 8: .*\[2, 4\)",
        ),
    ],
)
def test_rows_that_break_the_contract_are_refused(tmp_path, tokenizer_folder, article, message):
    """Ids outside of the vocabulary; spans that are outside, empty, or overlap."""
    folder = write_shards(tmp_path / "shards", tokenizer_folder, [article], files=1)
    with pytest.raises(DamagedInput, match=message):
        opened(tmp_path, folder)
    assert not list((tmp_path / "output").iterdir())


def test_fewer_rows_than_the_manifest_says_are_refused(tmp_path, copy):
    """A manifest of other rows with the right sums."""
    edit_manifest(copy, lambda content: content["files"][0].update(rows=11))
    with pytest.raises(DamagedInput, match="10 rows, the manifest says 11"):
        opened(tmp_path, copy)

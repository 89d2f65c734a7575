"""Draws depend on what they are drawn for, and on nothing else."""

import numpy as np
from list_reference import key, mix, uniform

from leia_train import draws


def test_document_keys_equal_the_hash_on_python_integers():
    """Seeds and pages up to 63 bits give the keys of a scalar implementation."""
    cases = [(1, 0, 0, "jawiki", 1), (2, 2**63 - 1, 7, "swwiki", 2**40), (3, 42, 1, "jawiki", 1)]
    found = [
        int(draws.document_keys(np.array([draws.wiki_key(wiki)], np.uint64), np.array([page]), purpose, seed, epoch)[0])
        for purpose, seed, epoch, wiki, page in cases
    ]
    assert found == [key(*case) for case in cases]


def test_entity_draws_go_by_ordinal_not_by_place():
    """Dropping an entity from an article leaves the draws of the others as they were."""
    keys = np.array([5, 6], np.uint64)
    whole = draws.entity_draws(keys, np.array([3, 1]), np.array([0, 1, 2, 0], np.int32))
    without = draws.entity_draws(keys, np.array([2, 1]), np.array([0, 2, 0], np.int32))
    assert whole[[0, 2, 3]].tolist() == without.tolist()
    assert whole.tolist() == [uniform(mix(5 ^ 0)), uniform(mix(5 ^ 1)), uniform(mix(5 ^ 2)), uniform(mix(6))]


def test_draws_of_neighbouring_pages_are_uniform():
    """Each tenth of [0, 1) gets a tenth of 100,000 consecutive pages within 3 %, for every purpose."""
    pages = np.arange(100_000)
    wikis = np.full(len(pages), draws.wiki_key("jawiki"), np.uint64)
    for purpose in (draws.INSERTION, draws.ORDER, draws.VALIDATION):
        counts = np.histogram(draws.uniform(draws.document_keys(wikis, pages, purpose)), bins=10, range=(0, 1))[0]
        assert np.abs(counts / 10_000 - 1).max() < 0.03, (purpose, counts)

"""Hypothesis strategies for articles with sorted, separate, sometimes touching entities."""

from __future__ import annotations

from hypothesis import strategies as st
from shard_fixture import Article, Entity

from leia_train.insertion import EDGE_BITS

NAMES = st.lists(st.integers(50, 69), max_size=4).map(tuple)  # an empty one is never inserted


@st.composite
def articles(draw: st.DrawFn, page_id: int = 1, min_tokens: int = 0) -> Article:
    """An article of up to 12 tokens (ids below 50) with any number of entities, at its very ends too."""
    tokens = draw(st.lists(st.integers(1, 49), min_size=min_tokens, max_size=12))
    cuts = draw(st.lists(st.integers(0, len(tokens)), max_size=8).map(sorted))
    spans = [(start, end) for start, end in zip(cuts[::2], cuts[1::2]) if start < end]
    entities = [
        Entity(start=start, end=end, name_ids=draw(NAMES), edge=draw(st.sampled_from(list(EDGE_BITS))))
        for start, end in spans
    ]
    return Article(page_id=page_id, input_ids=tuple(tokens), entities=tuple(entities))


@st.composite
def wikis(draw: st.DrawFn) -> list[tuple[str, Article]]:
    """A few articles of two wikis, some with the same page id; the first is never empty."""
    count = draw(st.integers(1, 6))
    return [
        (draw(st.sampled_from(["jawiki", "swwiki"])) if page else "jawiki", draw(articles(page + 1, int(page == 0))))
        for page in range(count)
    ]

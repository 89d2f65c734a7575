"""Items are found in texts by n-grams, exactly as a slow search finds them."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from leia_eval.contamination import GramFinder, Item, Search, grams_of, units_of

LETTERS = st.text(alphabet="あいう東、 ", max_size=40)


@given(st.lists(LETTERS, min_size=1, max_size=5), LETTERS, st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_found_grams_are_those_of_a_slow_search(texts, wanted, n):
    """Every gram of the item, by looking at every window of every text."""
    grams = grams_of(wanted, n, characters=True)
    finder = GramFinder(grams, characters=True)
    for text in texts:
        finder.read(text)
    streams = ["".join(units_of(text, characters=True)) for text in texts]
    assert finder.found == {gram for gram in grams if any("".join(gram) in stream for stream in streams)}


def find_seen(items: list[Item], texts: list[str], language: str) -> dict:
    """What one search finds."""
    search = Search(items, language=language)
    for text in texts:
        search.read(text)
    return search.result()


def test_question_and_answer_are_counted_apart():
    """A question in the corpus, an answer in it, neither, and both."""
    words = [f"w{i}" for i in range(300)]
    draw = random.Random(0)
    questions = [" ".join(draw.sample(words, 10)) for _ in range(4)]
    items = [Item(id=str(i), question=question, answer=f"answer{i}") for i, question in enumerate(questions)]
    corpus = [f"x {questions[0]} y", "the answer1 is", f"{questions[3]}, Answer3!"]
    found = find_seen(items, corpus, language="es")
    assert found["seen"] == {"question": ["0", "3"], "answer": ["1", "3"]}
    assert (found["n"], found["unit"], found["share"]["question"]) == (8, "words", 0.5)


def test_less_than_half_of_the_grams_is_not_seen():
    """A text that shares its first third with the corpus is clean."""
    letters = [chr(0x4E00 + i) for i in range(90)]
    item = Item(id="a", question="".join(letters), answer="z")
    assert find_seen([item], ["".join(letters[:40])], language="ja")["seen"]["question"] == []
    assert find_seen([item], ["".join(letters[:60])], language="ja")["seen"]["question"] == ["a"]

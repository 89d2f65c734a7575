"""Items are found in texts by n-grams, exactly as a slow search finds them."""

import json
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_beam.cli import main as build_shards
from leia_eval.cli import main
from leia_eval.contamination import GramFinder, Item, Search, grams_of, look_for, units_of
from tests.build_files import rows_of

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
    (found,) = look_for([Search(items, language=language)], texts)
    return found


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


@pytest.fixture(scope="module")
def build(sample, tmp_path_factory) -> Path:
    """The bundled Japanese sample as shards."""
    output = tmp_path_factory.mktemp("build")
    assert build_shards([*sample.build_arguments("jawiki", output), "--workers", "1", "--quiet"]) == 0
    return output


def paragraphs_of(build: Path) -> dict[str, str]:
    """A paragraph of each article that is in the shards, by title."""
    articles = {row["page_id"]: row["text"] for row in rows_of(build, "articles", "articles")}
    in_shards = {row["page_id"]: row["title"] for row in rows_of(build, "shards", "train")}
    longest = {title: max(articles[page_id].split("\n"), key=len) for page_id, title in in_shards.items()}
    return {title: text for title, text in longest.items() if len(text) >= 40}


def test_jsquad_made_of_the_training_text_is_found_in_its_shards(build, tmp_path, capsys):
    """A set in JSQuAD's form: passages of the shards are all seen, others none, and the set is marked as Wikipedia's."""
    found = paragraphs_of(build)
    assert len(found) >= 30
    foreign = {f"無{i}": "".join(random.Random(i).choices("春夏秋冬天地人和海山川空", k=80)) for i in range(20)}
    articles = [
        {
            "title": title,
            "paragraphs": [
                {
                    "context": f"{title} [SEP] {text}",
                    "qas": [{"id": f"{title}-0", "question": f"{title}とは？", "answers": [{"text": text[:14]}]}],
                }
            ],
        }
        for title, text in {**found, **foreign}.items()
    ]
    data = tmp_path / "data"
    data.mkdir()
    (data / "valid-v1.3.json").write_text(json.dumps({"data": articles}), encoding="utf-8")
    output = tmp_path / "seen.json"
    arguments = ["--shards", str(build), "--tasks", "leia_jsquad", "--data-dir", str(data), "--output", str(output)]
    assert main(["contamination", *arguments]) == 0
    result = json.loads(output.read_text())["tasks"]["leia_jsquad"]
    assert result["seen"]["question"] == [f"{title}-0" for title in found]
    assert result["seen"]["answer"] == [f"{title}-0" for title in found]
    assert (result["n"], result["unit"], result["from_wikipedia"]) == (13, "characters", True)
    line = capsys.readouterr().out
    share = 100 * len(found) / (len(found) + 20)
    assert f"question seen {share:.1f} %" in line and "(made from Wikipedia)" in line


def test_several_tasks_are_looked_for_in_one_pass_and_each_has_its_own_result(build, tmp_path, capsys):
    """Words and characters side by side give what each gives alone."""
    data = Path(__file__).parents[1] / "data/sample/eval"
    results = {}
    for tasks in ("leia_sample_ja", "leia_sample_es", "leia_sample_ja,leia_sample_es"):
        output = tmp_path / f"{tasks}.json"
        arguments = ["--shards", str(build / "shards"), "--data-dir", str(data), "--output", str(output), "--n", "3"]
        assert main(["contamination", "--tasks", tasks, *arguments]) == 0
        results[tasks] = json.loads(output.read_text())["tasks"]
    assert results["leia_sample_ja,leia_sample_es"] == {**results["leia_sample_ja"], **results["leia_sample_es"]}
    assert 0 < results["leia_sample_ja"]["leia_sample_ja"]["share"]["question"] < 1
    assert results["leia_sample_es"]["leia_sample_es"]["unit"] == "words"


def test_bad_input_is_a_line(build, tmp_path, capsys):
    """No shards, another stage, a damaged shard, a task of lm-eval's own, n of nothing."""
    data = str(Path(__file__).parents[1] / "data/sample/eval")
    task = ["--tasks", "leia_sample_ja", "--data-dir", data]
    broken = Path(shutil.copytree(build / "shards", tmp_path / "broken"))
    shard = next((broken / "data").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-9])
    for arguments, code, message in (
        (["--shards", str(tmp_path / "none"), *task], 2, "none"),
        (["--shards", str(build / "articles"), *task], 2, "is the stage 'articles'; give the folder of shards"),
        (["--shards", str(broken), *task], 3, shard.name),
        (["--shards", str(build), "--tasks", "leia_belebele"], 2, "is lm-eval's own"),
        (["--shards", str(build), *task, "--n", "0"], 2, "--n 0 must be 1 or more"),
        (["--tasks", "leia_sample_ja"], 2, "--shards must be given"),
    ):
        assert main(["contamination", *arguments]) == code, message
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1 and message in captured.err
        assert captured.out == ""

"""Items are found in texts by n-grams, exactly as a slow search finds them."""

import gzip
import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
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
    (found,) = look_for([Search(items, language=language)], {"shards": texts})
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


LETTERS_OF_ITEMS = "いろはにほへとちりぬるをわか春夏秋冬"


@pytest.fixture
def items_data(tmp_path) -> Path:
    """Six items whose questions are no wiki's."""
    stems = ["".join(random.Random(i).choices(LETTERS_OF_ITEMS, k=40)) for i in range(6)]
    choices = {"label": ["A", "B"], "text": ["無", "有"]}
    items = [
        {
            "id": f"i{i}", "lang": "ja", "cluster": f"c{i}", "answerKey": "A",
            "question": {"stem": stem, "choices": choices},
        }
        for i, stem in enumerate(stems)
    ]  # fmt: skip
    (tmp_path / "data").mkdir()
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    (tmp_path / "data/jawiki.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path / "data"


@pytest.fixture
def sources(items_data, tmp_path) -> dict[str, Path]:
    """A source of each form, with one question in it."""
    questions = [json.loads(line)["question"]["stem"] for line in (items_data / "jawiki.jsonl").open(encoding="utf-8")]
    (tmp_path / "plain.txt").write_text(f"前\n\n{questions[0]}\n", encoding="utf-8")
    with gzip.open(tmp_path / "lines.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"body": f"あ {questions[1]}。"}) + "\n")
    pq.write_table(pa.table({"text": ["x", questions[2]]}), tmp_path / "rows.parquet")
    return {name: tmp_path / name for name in ("plain.txt", "lines.jsonl.gz", "rows.parquet")}


def test_mixed_sources_are_searched_too(build, items_data, sources, tmp_path, capsys):
    """Plain text, JSON lines, Parquet and other shards: what any of them holds is seen; the share of each is told."""
    plain, lines, rows = (str(path) for path in sources.values())
    mix = [f"a={plain}:0.1", f"b={lines}:10%,column=body", f"c={rows}:0.1", f"d={build / 'shards'}:0.1"]
    arguments = ["--shards", str(build), "--tasks", "leia_sample_ja", "--data-dir", str(items_data)]
    output = ["--output", str(tmp_path / "seen.json")]
    assert main(["contamination", *arguments, *output]) == 0
    alone = json.loads((tmp_path / "seen.json").read_text())["tasks"]["leia_sample_ja"]
    assert alone["seen"]["question"] == [] and "share_of_sources" not in alone
    capsys.readouterr()
    assert main(["contamination", *arguments, *output, "--mix", *mix, f"a={plain}:0.3", f"off={plain}:0"]) == 0
    seen = json.loads((tmp_path / "seen.json").read_text())["tasks"]["leia_sample_ja"]
    assert seen["seen"]["question"] == ["i0", "i1", "i2"]
    shares = {name: share["question"] for name, share in seen["share_of_sources"].items()}
    assert shares == {"shards": 0, "a": 1 / 6, "b": 1 / 6, "c": 1 / 6, "d": 0}
    said = capsys.readouterr().out
    assert "question seen 50.0 %" in said and "  in b: question 16.7 %, answer " in said
    assert main(["contamination", *arguments, "--mix", "a=nowhere.txt:0.1"]) == 2
    assert "--mix a: nowhere.txt: no such file or folder" in capsys.readouterr().err


def test_a_recipes_sources_are_those_of_all_its_arms(build, items_data, sources, tmp_path, capsys):
    """Two shares of one source are one source; `contamination_mix: none` searches the shards alone."""
    plain, lines, _ = sources.values()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"corpus: {{output: {build}}}\n"
        f"training: {{mix: ['a={plain}:0.1']}}\n"
        f"evaluation: {{tasks: leia_sample_ja, data_dir: {items_data}}}\n"
        "arms:\n  base: {evaluation: {model: m}}\n  leia: {}\n"
        f"  more: {{training: {{mix: ['a={plain}:0.2', 'b={lines}:0.1,column=body']}}}}\n"
    )
    assert main(["contamination", "-c", str(recipe)]) == 0
    said = capsys.readouterr().out
    assert "question seen 33.3 %" in said and said.count("  in ") == 3
    assert main(["contamination", "-c", str(recipe), "--set", "evaluation.contamination_mix=none"]) == 0
    assert "question seen 0.0 %" in (said := capsys.readouterr().out) and "  in " not in said


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

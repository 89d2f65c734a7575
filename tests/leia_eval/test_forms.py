"""Each published form is read with checks, from files and from the hub's rows alike."""

import json

import pytest

from leia_beam.errors import DamagedInput, MissingResource, UsageError
from leia_eval.documents import SHOT_SPLIT, SPLIT, HubSet, Source, load_dataset, read_items, read_source
from leia_eval.forms import XNLI_WORDS

NIILC = """<?xml version='1.0' encoding="UTF-8"?>
<questions><question id="n-1"><text>首都は？</text><answers><answer>東京</answer><answer>江戸</answer></answers>
<meta><E.3>日本</E.3></meta></question>
<question id="n-2"><text>答えは？</text><answers><answer>-</answer></answers><meta><E.3></E.3></meta></question>
</questions>"""
JCOMMONSENSE = {
    "q_id": 7,
    "question": "空の色は？",
    **{f"choice{i}": c for i, c in enumerate("赤青緑黒白")},
    "label": 1,
}
JSQUAD = {
    "data": [
        {
            "title": "山",
            "paragraphs": [
                {
                    "context": "山 [SEP] 富士山は高い。",
                    "qas": [{"id": "a1", "question": "高いのは？", "answers": [{"text": "富士山", "answer_start": 5}]}],
                }
            ],
        }
    ]
}
JEMHOPQA = [{"qid": "q1", "question": "どちら？", "answer": "YES", "page_ids": ["9", "10"]}]
XCOPA = {"premise": "P.", "choice1": "A.", "choice2": "B.", "question": "cause", "label": 1, "idx": 3, "changed": False}
JAQKET = {
    "qid": "j1",
    "question": "誰？",
    "answers": {"text": ["太郎"], "answer_start": [-1]},
    "ctxs": {"title": list("abcdef"), "text": list("一二三四五六"), "has_answer": [False, True, *[False] * 4]},
}
XNLI = (
    "language\tgold_label\tsentence1\tsentence2\tpromptID\tpairID\n"
    "fr\tneutral\tIl dort.\tIl rêve.\t1\t2\nde\tentailment\tEr schläft.\tEr ruht.\t1\t2\n"
)


def converted(tmp_path, form: str, content: str, languages=("ja",)):
    """The items of a file with this content."""
    path = tmp_path / "x"
    path.write_text(content, encoding="utf-8")
    return read_items(path, form, languages)


def test_every_form_gives_whole_documents(tmp_path):
    """One item of each, with all that its prompt reads."""
    found = converted(tmp_path, "niilc", NIILC)
    asked = {"id": "n-1", "lang": "ja", "cluster": "日本", "question": "首都は？", "context": ""}
    assert (found.documents, found.without_answer) == ([{**asked, "answers": ["東京,江戸"]}], 1)
    (item,) = converted(tmp_path, "jcommonsenseqa", json.dumps(JCOMMONSENSE)).documents
    assert (item["id"], item["answerKey"], item["question"]["choices"]["text"]) == ("7", "B", list("赤青緑黒白"))
    (item,) = converted(tmp_path, "jsquad", json.dumps(JSQUAD)).documents
    assert (item["cluster"], item["context"], item["answers"]) == ("山", "富士山は高い。", ["富士山"])
    (item,) = converted(tmp_path, "jemhopqa", json.dumps(JEMHOPQA)).documents
    assert (item["cluster"], item["answers"]) == ("10+9", ["YES"])
    (item,) = converted(tmp_path, "xcopa", json.dumps(XCOPA), ("it",)).documents
    assert (item["id"], item["lang"], item["label"]) == ("3", "it", 1)
    (item,) = converted(tmp_path, "jaqket", json.dumps(JAQKET)).documents
    assert (item["context"], item["shot_context"]) == ("一\n二\n三\n四\n五", "二")
    found = converted(tmp_path, "xnli", XNLI, ("de",))
    (item,) = found.documents
    texts = item["question"]["choices"]["text"]
    assert texts[0] == "Er schläft., richtig? Ja, Er ruht." and item["answerKey"] == "entailment"
    assert (len(texts), found.without_answer, item["cluster"]) == (3, 1, "1")


def test_xnli_has_words_for_all_its_languages():
    """A question word and three distinct answers each."""
    assert len(XNLI_WORDS) == 15
    assert all(len(set(words)) == 4 for words in XNLI_WORDS.values())


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        ("niilc", NIILC.replace("</text>", "", 1), r"x:\d+: not XML"),
        ("niilc", f"<!DOCTYPE a [<!ENTITY b 'c'>]>{NIILC[43:]}", "declares entities"),
        ("niilc", NIILC.replace("首都は？", ""), r"x, question 1: 'text' must be text"),
        (
            "jcommonsenseqa",
            json.dumps({**JCOMMONSENSE, "label": 5}),
            r"x:1: 'label' must be a whole number from 0 to 4",
        ),
        ("jsquad", json.dumps({"data": [{"title": "山"}]}), r"x, article 1: the article has no 'paragraphs'"),
        ("jsquad", "[1", r"x: not a JSON object"),
        ("jemhopqa", "{}", "must hold a JSON list"),
        ("jemhopqa", '[{"qid": "a"}]', r"x, entry 1: the item has no 'question'"),
        ("xcopa", json.dumps({**XCOPA, "question": "why"}), r"x:1: 'question' must be cause or effect"),
        ("xnli", XNLI + "fr\tneutral\n", r"x:4: 2 cells where the header has 6"),
        ("xnli", XNLI.replace("neutral", "maybe"), r"x:2: 'gold_label' must be entailment"),
    ],
)
def test_a_damaged_item_is_named_with_its_place(tmp_path, form, content, message):
    """File, and line, entry, question or article."""
    with pytest.raises(DamagedInput, match=message):
        converted(tmp_path, form, content, ("fr",))


def test_a_set_of_the_hub_goes_through_the_same_checks(tmp_path, monkeypatch):
    """`datasets` reads a local folder as it reads the hub: both splits, names and shots as from files."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for split, idx in (("test", 3), ("validation", 4)):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / f"set/{split}.jsonl").write_text(json.dumps({**XCOPA, "idx": idx}) + "\n")
    hub = {"path": str(tmp_path / "set"), "name": None, "split": "test", "shot_split": "validation"}
    kwargs = {"form": "xcopa", "languages": ["it"], "data_files": [], "hub": hub}
    splits = load_dataset(version=1.0, **kwargs)
    assert [list(splits[name]["id"]) for name in (SPLIT, SHOT_SPLIT)] == [["3"], ["4"]]
    data = read_source(Source.of(kwargs), None, "t")
    assert data.items.places == [f"hub:{tmp_path / 'set'}/test:1"]
    nowhere = Source(form="xcopa", data_files=("f",), hub=HubSet(path="no/such-set", name="it", split="test"))
    with pytest.raises(
        MissingResource, match=r"cannot read no/such-set \(it\), split test, from the hub .*; give --data"
    ):
        read_source(nowhere, None, "t")
    (tmp_path / "scripted").mkdir()
    (tmp_path / "scripted/scripted.py").write_text("1 / 0")
    scripted = Source(
        form="xcopa", data_files=("f",), hub=HubSet(path=str(tmp_path / "scripted"), name=None, split="test")
    )
    with pytest.raises(MissingResource, match=r"scripts are no longer supported.*; give --data-dir DIR with f"):
        read_source(scripted, None, "t")
    with pytest.raises(UsageError, match="reads local files"):
        read_source(Source(form="niilc", data_files=("f",), get_from="somebody"), None, "t")

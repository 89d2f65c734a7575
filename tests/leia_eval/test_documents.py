"""Items are read whole and checked, and the first damaged one is named with its line."""

import copy
import hashlib
import json

import pytest
from eval_fixtures import make_items, write_items

from leia_beam.errors import DamagedInput, UsageError
from leia_eval.documents import find_data_file, load_dataset, read_items


def changed(**changes) -> dict:
    """A good item with changes at dotted paths (with __ for the dot); a value of ... deletes."""
    item = copy.deepcopy(make_items(1)[0])
    for path, value in changes.items():
        *parents, last = path.split("__")
        holder = item
        for parent in parents:
            holder = holder[parent]
        if value is ...:
            del holder[last]
        else:
            holder[last] = value
    return item


def test_reads_all_items_with_their_lines_and_the_files_hash(tmp_path):
    """Blank lines are passed over, lines are counted from 1, and U+2028 in a text ends no line."""
    items = make_items(3)
    items[1]["question"]["stem"] = "one\u2028two"
    lines = [json.dumps(item, ensure_ascii=False) for item in items]
    content = f"\ufeff{lines[0]}\n\n{lines[1]}\r\n{lines[2]}".encode()
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    found = read_items(path)
    assert found.documents == items
    assert found.places == [f"{path}:{line}" for line in (1, 3, 4)]
    assert found.sha256 == hashlib.sha256(content).hexdigest()


def test_other_fields_are_left_out(tmp_path):
    """An item keeps the schema's fields and no others."""
    item = make_items(1)[0]
    more = {**item, "source": "x", "question": {**item["question"], "concept": "y"}}
    assert read_items(write_items(tmp_path / "x.jsonl", [more])).documents == [item]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (changed(id=...), "no 'id'"),
        (changed(id=True), "'id' must be text, found True"),
        (changed(id=" "), "'id' must be text"),
        (changed(lang=...), "no 'lang'"),
        (changed(question="x"), "'question' must be an object with stem, choices, found 'x'"),
        (changed(question__stem=...), "'question' has no 'stem'"),
        (changed(question__stem=None), "'question.stem' must be text"),
        (changed(question__stem="\ud800"), "half a surrogate pair"),
        (changed(question__choices=[]), "'choices' must be an object"),
        (changed(question__choices__text=["a"]), "'choices.text' must be a list of two or more"),
        (changed(question__choices__text=["a", "b", "c", "d"]), "5 labels for 4 choices"),
        (changed(question__choices__text=["a", "b", "c", "d", 5]), "a choice's text must be text, found 5"),
        (changed(question__choices__label=["A", "B", "C", "D", "A"]), "are not distinct"),
        (changed(answerKey="Z"), "answerKey 'Z' is not among the labels"),
        (changed(answerKey=...), "no 'answerKey'"),
        (changed(answerKey=1), "'answerKey' must be text"),
        (changed(lang="es"), "lang 'es' where the task is in 'ja' or 'jap'"),
        ([1], "the item must be an object"),
    ],
)
def test_a_damaged_item_is_named_with_file_and_line(tmp_path, item, message):
    """Each rule of the schema has its message, with the place."""
    path = write_items(tmp_path / "x.jsonl", [make_items(2)[1]])
    with path.open("a") as file:
        file.write(json.dumps(item) + "\n")
    with pytest.raises(DamagedInput) as raised:
        read_items(path, languages=("ja", "jap"))
    assert f"damaged item at {path}:2: " in str(raised.value)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("line", [b'{"id": ', b"\xff\xfe", b"[" * 100_000, b"nonsense"])
def test_a_line_that_is_no_json_is_damaged(tmp_path, line):
    """Broken JSON, wrong encoding and endless nesting are damage, not a crash."""
    (tmp_path / "x.jsonl").write_bytes(b"\n" * 8 + line)
    with pytest.raises(DamagedInput, match=r"damaged item at .*x.jsonl:9"):
        read_items(tmp_path / "x.jsonl")


def test_an_id_used_twice_names_both_lines(tmp_path):
    """Ids are unique in a file."""
    path = write_items(tmp_path / "x.jsonl", [*make_items(2), make_items(1)[0]])
    with pytest.raises(DamagedInput, match=r"'item-0000' at .*x.jsonl:3 was already used at .*x.jsonl:1"):
        read_items(path)


def test_an_empty_file_is_damaged(tmp_path):
    """A file without items is no data."""
    (tmp_path / "x.jsonl").write_text("\n\n")
    with pytest.raises(DamagedInput, match="holds no items"):
        read_items(tmp_path / "x.jsonl")


def test_data_is_found_under_any_of_its_names_but_under_one_only(tmp_path):
    """What is missing is named with all places looked at, and two candidates are refused."""
    names = ("a.jsonl", "sub/b.jsonl")
    with pytest.raises(UsageError, match=r"no data for task 't': looked for .*a.jsonl, .*sub/b.jsonl"):
        find_data_file(tmp_path, names, "t")
    with pytest.raises(UsageError, match="is not a folder"):
        find_data_file(tmp_path / "none", names, "t")
    path = write_items(tmp_path / "sub/b.jsonl", make_items(1))
    assert find_data_file(tmp_path, names, "t") == path
    write_items(tmp_path / "a.jsonl", make_items(1))
    with pytest.raises(UsageError, match="two data files for task 't'"):
        find_data_file(tmp_path, names, "t")


def test_the_dataset_is_the_file_as_it_is_now(tmp_path):
    """No cache answers for a file that has changed under the same name."""
    for seed in (0, 1):
        items = make_items(4, seed=seed)
        write_items(tmp_path / "x.jsonl", items)
        loaded = load_dataset(data_dir=str(tmp_path), form="xcsr", data_files=["x.jsonl"], version=1.0)
        assert list(loaded["validation"]) == items


def test_plain_lm_eval_without_a_data_folder_is_told_how_to_give_one():
    """The message names lm-eval's own option."""
    with pytest.raises(UsageError, match=r"""lm-eval --metadata '\{"data_dir": "DIR"\}'"""):
        load_dataset(form="xcsr", data_files=["x.jsonl"])

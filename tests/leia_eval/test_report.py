"""Stored runs are read back checked, compared item by item, and shown with everything escaped."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from eval_fixtures import make_items, write_items
from lxml import html

from leia_beam.errors import DamagedInput, UsageError
from leia_beam.svg_charts import interval_svg
from leia_eval import report, stats
from leia_eval.cli import main
from leia_eval.comparison import compare_runs
from leia_eval.run_folder import read_run, to_json, write_file, write_run

SCRIPT = "<script>alert('x')</script>"


class Tags(HTMLParser):
    """All tags of a page, and whether each that opens is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in ("meta", "br", "wbr", "line", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("meta", "br", "wbr", "line", "circle"):
            assert self.open.pop() == tag


def test_pages_escape_what_comes_from_data(model_dir, tmp_path):
    """A script in a question, choice, id or label, and in the names of model and runs, stays text on both pages."""
    items = make_items(8)
    for number, item in enumerate(items):
        item["id"] = f"{SCRIPT}{number}"
        item["question"]["stem"] = f"{SCRIPT}|{number}"
        item["question"]["choices"]["text"][1] = f"{SCRIPT}&{number}"
        item["question"]["choices"]["label"] = [f"<b>{label}" for label in "ABCDE"]
        item["answerKey"] = f"<b>{item['answerKey']}"
    write_items(tmp_path / "data/jawiki.jsonl", items)
    model = Path(shutil.copytree(model_dir, tmp_path / "<script>model"))
    output = tmp_path / "out"
    arguments = ["--tasks", "leia_sample_ja", "--data-dir", str(tmp_path / "data"), "--output", str(output)]
    assert main(["run", "--model", str(model), *arguments]) == 0
    other = tmp_path / "other"
    changed_answers(output, other)
    named = [f"{SCRIPT}a={output}", f"b|b={other}"]
    assert main(["compare", *named, "--output", str(tmp_path / "c.html")]) == 0
    assert main(["compare", *named, "--output", str(tmp_path / "c.md")]) == 0
    for page in (output / "report.html", tmp_path / "c.html"):
        text = page.read_text(encoding="utf-8")
        tags = Tags(text)
        assert tags.open == []
        assert "script" not in tags.seen
        assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in text
        assert not re.search(r"<[^>]*\s(?:src|href)\s*=", text), "the page must not fetch anything"
    for page in (output / "report.md", tmp_path / "c.md"):
        assert "<script>" not in page.read_text(encoding="utf-8")
    assert {
        line.replace("\\|", "").count("|") for line in (tmp_path / "c.md").read_text().splitlines()[:5] if line
    } == {17}


def changed_answers(run: Path, copy: Path) -> None:
    """A copy of a run in which every item's right and wrong are swapped, stored as a run stores it."""
    import hashlib

    shutil.copytree(run, copy)
    results = json.loads((run / "results.json").read_text())
    for task in results["tasks"]:
        path = copy / f"samples/{task['name']}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        content = "".join(json.dumps({**row, "acc": 1 - row["acc"]}) + "\n" for row in rows).encode()
        path.write_bytes(content)
        task["samples_sha256"] = hashlib.sha256(content).hexdigest()
    write_file(copy / "results.json", to_json(results))


def test_a_comparison_is_the_paired_statistics_of_the_stored_items(finished_run, other_run):
    """Each row of two tasks and three metrics equals stats over the samples' columns, with the ids won and lost."""
    base, other = read_run(finished_run), read_run(other_run)
    found = compare_runs([("base", base), ("leia", other)], seed=7)
    assert [(row["task"], row["metric"]) for row in found["rows"]] == [
        (task, metric) for task in ("leia_sample_ja", "leia_sample_es") for metric in ("acc", "acc_norm", "acc_bytes")
    ]
    for row in found["rows"]:
        first = np.array([sample[row["metric"]] for sample in base.samples[row["task"]]])
        second = np.array([sample[row["metric"]] for sample in other.samples[row["task"]]])
        expected = stats.compare_items(first, second, seed=7)
        assert {name: row[name] for name in vars(expected)} == vars(expected)
        ids = [sample["id"] for sample in base.samples[row["task"]]]
        assert row["only_base_ids"] == [ids[i] for i in np.flatnonzero(first > second)]
        assert len(row["only_other_ids"]) == row["only_other"]
    assert any(row["only_base"] and row["only_other"] for row in found["rows"])
    assert found["notes"][0].startswith("One checkpoint an arm (base, leia)")


def test_the_command_writes_the_comparison_in_three_forms(capsys, finished_run, other_run, tmp_path):
    """Markdown on stdout is the .md file; the .json holds the rows; the same command gives the same bytes."""
    runs = ["compare", f"base={finished_run}", f"leia={other_run}"]
    assert main(runs) == 0
    markdown = capsys.readouterr().out
    assert markdown.count("\n| leia_sample_ja | leia | base | all | ") == 3
    for name in ("c.md", "c.html", "c.json"):
        assert main([*runs, "--output", str(tmp_path / "new" / name)]) == 0
        again = tmp_path / "new" / f"again-{name}"
        assert main([*runs, "--output", str(again)]) == 0
        assert again.read_bytes() == (tmp_path / "new" / name).read_bytes()
    assert (tmp_path / "new/c.md").read_text() == markdown
    assert main([*runs, "--output", str(tmp_path / "folder")]) == 0
    written = {path.suffix: path.read_bytes() for path in (tmp_path / "folder").iterdir() if path.stem == "comparison"}
    assert written == {suffix: (tmp_path / f"new/c{suffix}").read_bytes() for suffix in (".md", ".html", ".json")}
    assert len(json.loads((tmp_path / "new/c.json").read_text())["rows"]) == 6
    assert "only leia right" in (tmp_path / "new/c.html").read_text()


def test_a_run_compared_with_itself_differs_in_nothing_and_says_so(finished_run):
    """Difference 0, p 1, and a note that the weights are the same."""
    run = read_run(finished_run)
    found = compare_runs([("a", run), ("b", run)], seed=0)
    assert {(row["difference"], row["low"], row["high"], row["p_mcnemar"]) for row in found["rows"]} == {(0, 0, 0, 1)}
    assert "a and b have the same weights." in found["notes"]


def copied(run: Path, copy: Path, change) -> Path:
    """A copy of a run whose results.json went through `change`."""
    shutil.copytree(run, copy)
    results = json.loads((copy / "results.json").read_text())
    change(results)
    (copy / "results.json").write_text(json.dumps(results))
    return copy


@pytest.mark.parametrize("field", ["data_sha256", "prompts_sha256"])
def test_runs_on_other_data_or_prompts_are_not_compared(capsys, finished_run, tmp_path, field):
    """Exit code 2, with what differs and on which task."""
    other = copied(finished_run, tmp_path / "o", lambda results: results["tasks"][1].update({field: "x"}))
    assert main(["compare", f"a={finished_run}", f"b={other}"]) == 2
    assert f"a and b cannot be compared on leia_sample_es: {field} differ;" in capsys.readouterr().err


def test_runs_in_other_dtypes_are_not_compared_and_other_versions_are_noted(finished_run, tmp_path):
    """The compute dtype must agree; a library's version, batch size or stored dtype is named beside the numbers."""
    base = read_run(finished_run)
    other = copied(finished_run, tmp_path / "dtype", lambda results: results["model"].update(computed_dtype="bfloat16"))
    with pytest.raises(UsageError, match="a was computed in float32 and b in bfloat16; run both with one --dtype"):
        compare_runs([("a", base), ("b", read_run(other))], seed=0)

    def change(results):
        results["versions"]["torch"] = "1.0"
        results["options"]["batch_size"] = 3
        results["model"]["stored_dtypes"] = ["BF16"]

    notes = compare_runs([("a", base), ("b", read_run(copied(finished_run, tmp_path / "n", change)))], seed=0)["notes"]
    assert f"torch: a ran with {base.results['versions']['torch']}, b with 1.0." in notes
    assert "a and b differ in batch_size: 8 and 3." in notes
    assert "a and b differ in stored_dtypes: F32 and BF16." in notes


def test_only_shared_tasks_are_compared(finished_run, tmp_path):
    """A task that one run lacks is left out and named; no task in common is an error."""
    base = read_run(finished_run)
    less = read_run(copied(finished_run, tmp_path / "o", lambda results: results["tasks"].pop()))
    found = compare_runs([("a", base), ("b", less)], seed=0)
    assert {row["task"] for row in found["rows"]} == {"leia_sample_ja"}
    assert "Not in all runs, left out: leia_sample_es of a." in found["notes"]
    none = read_run(copied(finished_run, tmp_path / "n", lambda results: results["tasks"].clear()))
    with pytest.raises(UsageError, match="the runs a, b have no task in common"):
        compare_runs([("a", base), ("b", none)], seed=0)


def test_a_damaged_run_folder_is_refused(capsys, finished_run, tmp_path):
    """Samples that are gone or changed, and results that are cut short, are exit code 3; another format is 2."""
    gone = Path(shutil.copytree(finished_run, tmp_path / "gone"))
    (gone / "samples/leia_sample_es.jsonl").unlink()
    with pytest.raises(DamagedInput, match=r"cannot read the samples .*leia_sample_es.jsonl"):
        read_run(gone)
    changed = Path(shutil.copytree(finished_run, tmp_path / "changed"))
    with (changed / "samples/leia_sample_es.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(DamagedInput, match=r"SHA-256 differs"):
        read_run(changed)
    cut = Path(shutil.copytree(finished_run, tmp_path / "cut"))
    (cut / "results.json").write_text((cut / "results.json").read_text()[:100])
    assert main(["compare", f"a={finished_run}", f"b={cut}"]) == 3
    assert f"{cut / 'results.json'} is damaged" in capsys.readouterr().err
    with pytest.raises(DamagedInput, match="no 'versions'"):
        read_run(copied(finished_run, tmp_path / "part", lambda results: results.pop("versions")))
    with pytest.raises(UsageError, match="has format 9; this leia-eval reads format 3"):
        read_run(copied(finished_run, tmp_path / "format", lambda results: results.update(format=9)))


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """When the rename fails, the old content stays and no temporary file is left."""
    path = tmp_path / "x.json"
    write_file(path, b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_file(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]
    assert path.read_bytes() == b"old"


def test_an_overwrite_that_fails_half_way_leaves_no_results(finished_run, tmp_path, monkeypatch):
    """New samples beside the old results.json would be a mixture: the old one goes first."""
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    results, samples = read_run(folder).results, read_run(folder).samples
    (folder / "samples/stale.jsonl").touch()
    assert write_run(folder, results, samples, {"report.md": b""}, {}) == results
    assert read_run(folder).samples == samples
    assert not (folder / "samples/stale.jsonl").exists()
    with pytest.raises(TypeError):
        write_run(folder, results, samples, {"report.md": None}, {})
    assert not (folder / "results.json").exists()


def test_a_run_that_fails_half_way_leaves_no_results(model_dir, data_dir, tmp_path, monkeypatch):
    """When writing the reports fails, there is no results.json: the folder is an unfinished run."""
    monkeypatch.setattr(report, "run_html", lambda *_: 1 / 0)
    arguments = ["--model", str(model_dir), "--data-dir", str(data_dir), "--output", str(tmp_path / "out")]
    assert main(["run", "--tasks", "leia_sample_es", "--limit", "2", *arguments]) == 1
    assert not (tmp_path / "out/results.json").exists()


def test_the_page_of_a_run_says_what_it_was_computed_from(finished_run):
    """Weights, profile, data and prompts of each task, versions."""
    page = (finished_run / "report.html").read_text()
    results = read_run(finished_run).results
    assert f"weights {results['model']['weights_sha256'][:12]}." in page
    assert "Profile standard. Shots: each task&#x27;s own." in page
    for task in results["tasks"]:
        hashes = task["data_sha256"][:12], task["prompts_sha256"][:12]
        assert f"{task['name']}: {task['data_file']} (SHA-256 {hashes[0]}), prompts {hashes[1]}, 0 shots." in page
    assert f"lm_eval {results['versions']['lm_eval']}" in page


def test_the_first_items_show_what_is_right_and_what_was_said(finished_run):
    """Of each task the first five, with the right choice marked, and a sign for right and wrong that needs no colour."""
    run = read_run(finished_run)
    tree = html.document_fromstring((finished_run / "report.html").read_text())
    for task in run.results["tasks"]:
        shown = tree.xpath(f"//section[h2='First items of {task['name']}']/div")
        assert len(shown) == 5
        for item, row in zip(shown, run.samples[task["name"]], strict=False):
            assert item.xpath("string(p[1])") == f"{row['id']} {row['stem']}"
            assert item.xpath("ul/li[@class='gold']/b/text()") == [row["answer"]]
            sign = "✓" if row["acc"] else "✗"
            assert item.xpath("string(p[2]/span[2])") == f"model: {row['prediction']} {sign}"
            assert item.xpath("ul/li/bdi/@lang") == [task["language"]] * len(row["choices"])


def test_an_interval_is_drawn_inside_its_frame():
    """Ends beyond the axis are cut to it, and the marks stand where they should."""
    svg = interval_svg(-0.5, 0.5, 2.0, mark=0.25, span=(0.0, 1.0))
    assert svg.count('x1="4.0" x2="176.0"') == 1
    assert 'cx="90.0"' in svg
    assert 'x1="47.0"' in svg

"""Arms of several runs are compared by what their samples hold, with the primary endpoint, the floor and seen items."""

import copy
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from leia_beam.errors import UsageError
from leia_beam.recipe import read_recipe
from leia_eval import stats
from leia_eval.cli import main
from leia_eval.comparison import CompareOptions, Primary, compare_arms
from leia_eval.comparison_report import comparison_html, comparison_markdown
from leia_eval.recipe import primary_of
from leia_eval.run_folder import StoredRun, read_run


def noisy(run: StoredRun, seed: int, gain: float = 0.0) -> StoredRun:
    """A run whose accuracies are drawn anew."""
    draw = np.random.default_rng(seed)
    samples = {
        task: [{**row, "acc": int(draw.random() < 0.4 + gain)} for row in rows] for task, rows in run.samples.items()
    }
    return StoredRun(folder=run.folder, results=run.results, samples=samples)


@pytest.fixture(scope="module")
def arms(finished_run) -> list[tuple[str, list[StoredRun]]]:
    """A base of one run, and plain and leia of three each, with a gain for leia."""
    run = read_run(finished_run)
    return [
        ("base", [noisy(run, 0)]),
        ("plain", [noisy(run, seed) for seed in (1, 2, 3)]),
        ("leia", [noisy(run, seed, 0.4) for seed in (4, 5, 6)]),
    ]


def test_the_primary_endpoint_is_leia_minus_plain_over_languages(arms):
    """Mean over both tasks of the means over seeds; two-level p; not among Holm's."""
    found = compare_arms(arms, CompareOptions(seed=3))
    primary = found["primary"]
    by_name = dict(arms)

    def mean(name, task):
        return np.mean([row["acc"] for run in by_name[name] for row in run.samples[task]])

    tasks = ("leia_sample_ja", "leia_sample_es")
    assert primary["difference"] == pytest.approx(np.mean([mean("leia", t) - mean("plain", t) for t in tasks]))
    assert primary["low"] > 0.2 and primary["p"] < 0.001 and primary["seeds"] == [3, 3]
    assert len(found["rows"]) == 2 * 3 * 3
    contrasts = {(row["against"], row["run"]) for row in found["rows"]}
    assert contrasts == {("base", "plain"), ("base", "leia"), ("plain", "leia")}
    assert [row["p_holm"] for row in found["rows"]] == stats.holm([row["p"] for row in found["rows"]])
    assert found["notes"][0].startswith("One checkpoint an arm (base)")
    assert all(row["test"] == "bootstrap" and row["only_base"] is None for row in found["rows"])


def test_the_page_shows_the_primary_pair_first_and_what_was_compared(arms):
    """A table a pair of arms and metric, one more interval for the primary endpoint, hashes and versions below."""
    comparison = compare_arms(arms, CompareOptions(seed=3))
    page = comparison_html(comparison, {name: runs[0].samples for name, runs in arms})
    heads = re.findall("<h2>(.*?)</h2>", page)
    assert heads[:4] == ["leia minus plain", "plain minus base", "leia minus base", "What was compared"]
    assert page.index("Primary endpoint.") < page.index("plain minus base")
    assert page.count("<svg") == len(comparison["rows"]) + 1
    assert page.count("<details>") == 3
    for facts in comparison["tasks"].values():
        assert f"data {facts['data_sha256'][:12]}, prompts {facts['prompts_sha256'][:12]}." in page
    model = arms[0][1][0].results["model"]
    assert f"weights {model['weights_sha256'][:12]}, computed in float32" in page
    assert "lm_eval 0." in page
    primary = comparison["primary"]
    assert f"{100 * primary['difference']:+.1f} [{100 * primary['low']:+.1f}, {100 * primary['high']:+.1f}]" in page


def renamed(run: StoredRun, old: str, new: str, language: str) -> StoredRun:
    """A run whose task has another name and language."""
    results = copy.deepcopy(run.results)
    for task in results["tasks"]:
        if task["name"] == old:
            task |= {"name": new, "language": language, "group": new.rpartition("_")[0]}
    samples = {new if name == old else name: rows for name, rows in run.samples.items()}
    return StoredRun(folder=run.folder, results=results, samples=samples)


def test_a_comparison_without_english_says_so_and_one_with_it_marks_the_row(finished_run, other_run):
    """The line names the English tasks of the groups at hand; with one there is no line."""
    runs = [read_run(finished_run), read_run(other_run)]
    named = [("base", [runs[0]]), ("leia", [runs[1]])]
    (note,) = (note for note in compare_arms(named, CompareOptions())["notes"] if note.startswith("No English task"))
    assert note.endswith("run every arm on leia_xcsqa_en too.")
    codah = [(name, [renamed(of[0], "leia_sample_es", "leia_xcodah_es", "es")]) for name, of in named]
    assert any("on leia_xcodah_en too." in note for note in compare_arms(codah, CompareOptions())["notes"])
    english = [(name, [renamed(of[0], "leia_sample_es", "leia_xcsqa_en", "en")]) for name, of in named]
    found = compare_arms(english, CompareOptions())
    assert not any("No English task" in note for note in found["notes"])
    assert "leia_xcsqa_en (regression)" in comparison_markdown(found)


def test_english_is_no_part_of_the_primary_endpoint_and_sets_share_no_clusters(finished_run):
    """A gain in English alone changes nothing; two groups with items of the same ids are drawn apart."""
    run = read_run(finished_run)

    def with_accuracy(run: StoredRun, of: dict[str, float]) -> StoredRun:
        draw = np.random.default_rng(0)
        samples = {
            task: [{**row, "acc": int(draw.random() < of[task]), "cluster": str(i % 30)} for i, row in enumerate(rows)]
            for task, rows in run.samples.items()
        }
        return StoredRun(folder=run.folder, results=run.results, samples=samples)

    english = renamed(run, "leia_sample_es", "leia_xcsqa_en", "en")
    plain = with_accuracy(english, {"leia_sample_ja": 0.3, "leia_xcsqa_en": 0.2})
    leia = with_accuracy(english, {"leia_sample_ja": 0.3, "leia_xcsqa_en": 0.9})
    primary = compare_arms([("plain", [plain]), ("leia", [leia])], CompareOptions())["primary"]
    assert (primary["difference"], primary["tasks"]) == (0.0, ["leia_sample_ja"])
    widths = []
    for name in ("leia_xcodah_es", "leia_sample_es"):
        pair = [renamed(run, "leia_sample_es", name, "es")] * 2
        arms = [
            (arm, [with_accuracy(of, {"leia_sample_ja": accuracy, name: accuracy})])
            for arm, of, accuracy in zip(("plain", "leia"), pair, (0.3, 0.5), strict=True)
        ]
        for _, (stored,) in arms:  # the same 30 items in both tasks
            stored.samples["leia_sample_ja"] = [dict(row) for row in stored.samples[name]]
        spaced = compare_arms(arms, CompareOptions())["primary"]
        widths.append(spaced["high"] - spaced["low"])
    assert widths[0] == pytest.approx(widths[1] / np.sqrt(2), rel=0.08), "apart, half the variance of together"


def test_a_metric_that_one_run_lacks_is_left_out_and_named(finished_run, other_run):
    """JaSQuAD's scores need packages: a run without them is compared by the others, the main metric too."""
    base, less = read_run(finished_run), read_run(other_run)
    for task in less.results["tasks"]:
        del task["scores"]["acc"]
    found = compare_arms([("base", [base]), ("less", [less])], CompareOptions())
    assert {row["metric"] for row in found["rows"]} == {"acc_norm", "acc_bytes"}
    assert "Not in all runs, left out: acc of leia_sample_ja of base." in found["notes"]
    assert found["tasks"]["leia_sample_ja"]["metric"] == "acc_norm"
    with pytest.raises(UsageError, match="the primary endpoint's metric 'acc' is none of leia_sample_ja's in all runs"):
        compare_arms([("plain", [base]), ("leia", [less])], CompareOptions())


def test_without_the_arms_there_is_no_primary_endpoint_and_it_is_said(arms):
    """No leia, or only English tasks."""
    found = compare_arms(arms[:2], CompareOptions())
    assert found["primary"] is None
    assert any(note.startswith("No primary endpoint") for note in found["notes"])
    with pytest.raises(UsageError, match="the primary endpoint's metric 'char_f1' is none of leia_sample_ja's in all"):
        compare_arms(arms, CompareOptions(primary=Primary(metric="char_f1")))


def test_clean_and_seen_items_are_also_compared_apart(arms):
    """Their numbers add up to all, and their means are those of their items."""
    ids = [row["id"] for row in arms[0][1][0].samples["leia_sample_ja"]]
    seen = frozenset(ids[:30])
    found = compare_arms(arms[:2], CompareOptions(seen={"leia_sample_ja": seen}))
    rows = {row["items"]: row for row in found["rows"] if row["task"] == "leia_sample_ja" and row["metric"] == "acc"}
    assert {name: row["n"] for name, row in rows.items()} == {"all": 100, "clean": 70, "seen": 30}
    base = arms[0][1][0].samples["leia_sample_ja"]
    assert rows["seen"]["base"] == pytest.approx(np.mean([row["acc"] for row in base if row["id"] in seen]))


def test_the_command_takes_arms_a_recipe_a_floor_and_what_was_seen(
    capsys, finished_run, other_run, model_dir, data_dir, tmp_path
):
    """Everything through the command line, from stored folders alone, in all three forms."""
    floor = tmp_path / "floor"
    options = ["--model", str(model_dir), "--data-dir", str(data_dir), "--output", str(floor), "--untrained", "7"]
    assert main(["run", "--tasks", "leia_sample_ja,leia_sample_es", *options]) == 0
    assert json.loads((floor / "results.json").read_text())["model"]["name"].endswith("(untrained, seed 7)")
    third = Path(shutil.copytree(other_run, tmp_path / "third"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("primary: {arm: new, against: old, groups: [leia_sample]}\n")
    sha = json.loads((finished_run / "results.json").read_text())["tasks"][0]["data_sha256"]
    seen = {"tasks": {"leia_sample_ja": {"data_sha256": sha, "seen": {"question": ["item-0000", "item-0001"]}}}}
    (tmp_path / "seen.json").write_text(json.dumps(seen))
    more = ["-c", str(recipe), "--floor", str(floor), "--contamination", str(tmp_path / "seen.json")]
    runs = [f"old={finished_run}", f"new={other_run},{third}"]
    assert main(["compare", *runs, *more, "--output", str(tmp_path / "c")]) == 0
    found = json.loads((tmp_path / "c/comparison.json").read_text())
    assert found["primary"]["tasks"] == ["leia_sample_ja", "leia_sample_es"]
    assert {row["items"] for row in found["rows"]} == {"all", "clean", "seen"}
    assert all(row["floor"] is not None for row in found["rows"])
    assert "Primary endpoint." in (tmp_path / "c/comparison.md").read_text()
    assert "Primary endpoint." in (tmp_path / "c/comparison.html").read_text()
    capsys.readouterr()
    seen["tasks"]["leia_sample_ja"]["data_sha256"] = "other"
    (tmp_path / "seen.json").write_text(json.dumps(seen))
    assert main(["compare", *runs, *more]) == 2
    assert "is about other data of leia_sample_ja" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("primary: {arms: leia}", r"r.yaml:1: unknown name 'primary.arms'; did you mean 'arm'\?"),
        ("primary: 3", "must be a mapping"),
        ("- 1", "is a mapping with the parts"),
        ("primary: {arm: [leia, plain]}", r"r.yaml:1: primary.arm is one text, not a list"),
        ("primary: {arm: {leia: 1}}", "must be a value or a list of values"),
        ("primary: !!python/object:os.system {}", "the tag .* is not taken"),
    ],
)
def test_a_bad_recipe_is_refused(tmp_path, text, message):
    """Unknown keys, wrong kinds, and YAML that would build objects (fault S4)."""
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        primary_of(read_recipe(str(tmp_path / "r.yaml")))


def test_a_report_is_written_again_from_the_samples_alone(finished_run, tmp_path, capsys):
    """The same bytes, with the model gone."""
    copy = Path(shutil.copytree(finished_run, tmp_path / "copy"))
    before = {name: (copy / name).read_bytes() for name in ("report.md", "report.html")}
    for name in before:
        (copy / name).unlink()
    assert main(["report", str(copy)]) == 0
    assert {name: (copy / name).read_bytes() for name in before} == before
    assert main(["report"]) == 2

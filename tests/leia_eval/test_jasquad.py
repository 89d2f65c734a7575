"""JaSQuAD's scores are those of the published rule, and where their packages are missing that is said."""

import json

import pytest
from eval_fixtures import save_tiny_model

from leia_beam.errors import MissingResource
from leia_eval import jasquad
from leia_eval.cli import main
from leia_eval.preparing import PromptOptions, prepare_tasks

# (answer, gold, match, F1): computed by the published rule, written apart from this package, with emoji 2.16.0,
# fugashi 1.5.2, neologdn 0.5.6 and unidic-lite 1.0.8
KNOWN = [
    ("東京", "東京", 1, 1.0), ("東京都", "東京", 0, 2 / 3), ("東京都庁舎", "東京都", 0, 0.4), ("ＮＨＫ", "NHK", 1, 1.0),
    ("1964年10月10日", "1964年", 0, 0.5), ("「吾輩は猫である」", "吾輩は猫である", 0, 1.0), ("福沢諭吉。", "福沢諭吉", 0, 1.0),
    ("富士山です", "富士山", 0, 0.8), ("スーーパー", "スーパー", 1, 1.0), ("ﾃﾚﾋﾞ", "テレビ", 1, 1.0), ("東京😀", "東京", 1, 1.0),
    ("", "", 1, 0.0), ("", "東京", 0, 0.0), ("。", "東京", 0, 0.0), ("Tokyo Tower", "tokyo tower", 0, 0.0),
    ("日本 の 首都", "日本の首都", 1, 1.0), ("約3,776メートル", "3776メートル", 0, 1 / 3), ("〈東京〉", "東京", 0, 0.5),
    ("a b a", "a a b", 0, 1.0), ("2〜3年", "2~3年", 1, 1.0), ("ジョン・レノン", "ジョンレノン", 0, 0.0),
]  # fmt: skip

needs_packages = pytest.mark.skipif(
    not jasquad.is_installed(), reason=f"needs {', '.join(jasquad.PACKAGES)} ({jasquad.INSTALL})"
)


@needs_packages
@pytest.mark.parametrize(("given", "gold", "match", "f1"), KNOWN)
def test_scores_are_those_of_the_published_rule(given, gold, match, f1):
    """Widths, long vowels, emoji, punctuation within words and as words, case, order."""
    assert jasquad.score(given, [gold]) == {"jasquad_match": match, "jasquad_f1": pytest.approx(f1)}


@needs_packages
def test_the_best_gold_answer_counts_for_each_score():
    """One answer matches, another has the better F1 of none."""
    assert jasquad.score("東京都", ["大阪", "東京", "東京都"]) == {"jasquad_match": 1.0, "jasquad_f1": 1.0}
    assert jasquad.score("東京都", ["大阪", "東京"])["jasquad_f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("given", "gold", "f1"),
    [
        ("東京 都", "東京", 2 / 3),
        ("a b a", "a a b", 1.0),
        ("a a", "a", 2 / 3),
        ("。 、", "。 、", 0.0),
        ("a .. b", "a .. b", 1.0),
        ("", "", 0.0),
    ],
)
def test_f1_is_of_bags_of_words_without_single_punctuation(given, gold, f1):
    """By hand; a word of two stops is a word."""
    assert jasquad.word_f1(given.split(), gold.split()) == pytest.approx(f1)
    assert jasquad.word_f1(gold.split(), given.split()) == pytest.approx(f1)


def jsquad_data(folder):
    """Two articles of two questions, as published, for items and for shots."""
    for name in ("valid-v1.3.json", "train-v1.3.json"):
        articles = [
            {
                "title": title,
                "paragraphs": [
                    {
                        "context": f"{title} [SEP] {title}は{i}番である。",
                        "qas": [
                            {"id": f"{name}-{title}-{q}", "question": f"{title}は何番？ {q}", "answers": [{"text": f"{i}番"}]}
                            for q in range(2)
                        ],
                    }
                ],
            }
            for i, title in enumerate(("山", "川", "海"))
        ]  # fmt: skip
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps({"data": articles}), encoding="utf-8")
    return folder


def test_missing_packages_are_said_and_the_reference_profile_refuses(tmp_path, monkeypatch, capsys):
    """`standard` leaves the two scores out and says how to have them; `reference` is exit code 5 before a model."""
    monkeypatch.setattr(jasquad, "is_installed", lambda: False)
    data = jsquad_data(tmp_path / "data")
    model = save_tiny_model(tmp_path / "model", seed=0)
    options = ["--tasks", "leia_jsquad", "--data-dir", str(data), "--model", str(model), "--limit", "2"]
    assert main(["run", *options, "--output", str(tmp_path / "out")]) == 0
    assert "JaSQuAD's scores need packages that are not installed: pip install 'leia-lm[japanese]'." in (
        capsys.readouterr().out
    )
    (task,) = json.loads((tmp_path / "out/results.json").read_text())["tasks"]
    assert set(task["scores"]) == {"exact_match", "char_f1"} and task["clusters"] <= 2
    with pytest.raises(MissingResource, match="JaSQuAD's rule, whose packages are not installed; pip install"):
        prepare_tasks(PromptOptions(tasks=("leia_jsquad",), data_dir=data, profile="reference"))


@needs_packages
def test_a_run_has_both_scores_and_the_reference_profile_shows_the_match(tmp_path):
    """Items from `sample(train, 4)`, as long as the gold answer; the packages' versions are in the result."""
    data = jsquad_data(tmp_path / "data")
    model = save_tiny_model(tmp_path / "model", seed=0, max_length=4096)
    options = ["--tasks", "leia_jsquad", "--data-dir", str(data), "--model", str(model), "--profile", "reference"]
    assert main(["run", *options, "--output", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    (task,) = results["tasks"]
    assert (task["metric"], task["n"], task["clusters"], task["left_out"]) == ("jasquad_match", 6, 3, "")
    assert set(task["scores"]) == {"exact_match", "char_f1", "jasquad_match", "jasquad_f1"}
    assert {"fugashi", "neologdn", "unidic_lite", "emoji"} <= set(results["versions"])

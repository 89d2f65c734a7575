"""Generated answers are cut, scored and marked as the Japanese sets' own scorers do."""

import pytest

from leia_eval.answers import char_f1, exact_match, first_line, flags, process_results, score_answer


@pytest.mark.parametrize(
    ("prediction", "gold", "score"),
    [
        ("東京", "東京", 1.0),
        ("", "", 1.0),
        ("", "東京", 0.0),
        ("東京都", "東京", 0.8),  # 2·2 of 5 characters
        ("ＹＥＳ", "yes", 1.0),  # NFKC and lower case
        ("b a", "a b", 1.0),  # words are sorted
        ("4年。", "4年", 1.0),  # punctuation is space
        ("4年です", "4年", 0.67),  # whole percent
        # and what fuzzywuzzy 0.18.0 itself gives, over difflib, in the order of its arguments
        ("大鏡,今鏡,水鏡,増鏡", "大鏡、増鏡、今鏡", 0.84),
        ("ジョン・レノン（ボーカル・ギター）", "ジョン・レノン", 0.61),
        ("Ångström café", "Angstrom cafe", 0.61),  # U+0080 to U+00FF are taken out
        ("naïve", "nave", 1.0),
        ("１０２４ＫＢ", "1024 kb", 0.92),
        ("TACS,HiCAP,PDC", "PDC,TACS", 0.73),
        ("北緯38度線", "北緯38度", 0.91),
        ("A_b", "a b", 0.67),
        ("x" * 250 + "東京" + "y" * 50, "東京" + "x" * 100, 0.5),
        ("東京" * 150, "東京" * 120 + "大阪", 0.89),  # difflib passes over letters that are frequent in a long text
        ("、。", "・", 1.0),
        ("  東京  ", "東京", 1.0),
    ],
)
def test_char_f1_is_the_token_sort_ratio(prediction, gold, score):
    """Known values, by hand from the rule and by the library that the published scores came from."""
    assert char_f1(prediction, gold) == score


def test_markers_are_taken_out_and_reported():
    """An inserted name goes with its markers before scoring (fault E3); the answer ends at the line."""
    generated = "東京<translate>Tokyo</translate>\n次の質問"
    assert first_line(generated) == "東京"
    assert process_results({"answers": ["大阪", "東京"]}, [generated]) == {"exact_match": 1.0, "char_f1": 1.0}
    found = flags(generated, ended=True, language="ja", question="首都は？", gold=["東京"])
    assert found == {"wrong_script": False, "english_name": False, "marker": True, "no_end": False}


@pytest.mark.parametrize(
    ("generated", "gold", "language", "raised"),
    [
        ("Tokyo", ["東京"], "ja", {"wrong_script", "english_name"}),
        ("Tokyo", ["Tokyo"], "ja", set()),
        ("WHOです", ["世界保健機関"], "ja", {"wrong_script", "english_name"}),
        ("Москва", ["Madrid"], "es", {"wrong_script"}),
        ("Madrid", ["París"], "es", set()),
    ],
)
def test_wrong_script_and_english_names(generated, gold, language, raised):
    """Against the gold answer's own letters; English names cannot be told from other Latin ones."""
    found = flags(generated, ended=True, language=language, question="?", gold=gold)
    assert {name for name, is_so in found.items() if is_so} == raised


def test_exact_match_ignores_width_case_and_space():
    """And nothing else."""
    assert exact_match("ＡＢ 東京", "ab東京") == 1.0
    assert exact_match("東京。", "東京") == 0.0
    assert score_answer("x", ["y", "x"])["exact_match"] == 1.0


def test_the_reference_keeps_the_name_between_markers():
    """It decoded without special tokens, the markers among them, and scored what was left."""
    generated = "東京<translate>Tokyo</translate>です\n次"
    assert first_line(generated) == "東京です"
    assert first_line(generated, keep_names=True) == "東京Tokyoです"

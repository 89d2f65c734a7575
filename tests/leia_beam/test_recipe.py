"""recipe: texts as they are written, each with its place; what is no recipe is one line with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leia_beam.errors import UsageError
from leia_beam.recipe import Recipe, read_recipe

RECIPE = """\
name: Norwegian
description: a test
variables:
  language: no
  size: 1b
folder: work/${language}/${size}
corpus:
  wiki: ${language}
  pages: [a, "b c"]
  name-languages: [en, de]
  max_length: null
  workers: 010
training:
  model: m
  learning_rate: 5e-6
  names: true
  output_note: $${kept}
  eval_text: ${folder}/en.txt
evaluation: {tasks: "leia_xcsqa_${language}"}
arms:
  plain: {training: {strategy: none, learning-rate: null}}
  leia: {}
  base: {evaluation: {model: big}}
seeds: [3, 1]
primary: {arm: leia, against: plain, groups: [a, b]}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write recipe.yaml into the working folder; its name."""
    monkeypatch.chdir(tmp_path)

    def write_text(text: str) -> str:
        Path("recipe.yaml").write_text(text, encoding="utf-8")
        return "recipe.yaml"

    return write_text


def values(recipe: Recipe, section: str, arm: str | None = None) -> dict[str, object]:
    """The values of a section without their places."""
    return {name: setting.value for name, setting in recipe.section(section, arm).items()}


def test_texts_stay_as_they_are_written(write):
    """`no` is no boolean and 010 no octal; variables are filled in, null is not given, dashes are underscores."""
    recipe = read_recipe(write(RECIPE))
    assert values(recipe, "corpus") == {
        "wiki": "no",
        "pages": ("a", "b c"),
        "name_languages": ("en", "de"),
        "workers": "010",
    }
    assert values(recipe, "training") == {
        "model": "m",
        "learning_rate": "5e-6",
        "names": "true",
        "output_note": "${kept}",
        "eval_text": "work/no/1b/en.txt",
    }
    assert values(recipe, "evaluation") == {"tasks": "leia_xcsqa_no"}
    assert (recipe.name, recipe.description, recipe.seeds) == ("Norwegian", "a test", (3, 1))
    assert {name: setting.value for name, setting in recipe.primary.items()} == {
        "arm": "leia",
        "against": "plain",
        "groups": ("a", "b"),
    }
    assert recipe.section("corpus")["pages"].place == "recipe.yaml:9"


def test_an_arm_changes_the_sections_values(write):
    """Its own count more, its null takes one away; an arm with a model of its own is not trained."""
    recipe = read_recipe(write(RECIPE))
    assert values(recipe, "training", "plain") == {
        "model": "m",
        "names": "true",
        "strategy": "none",
        "output_note": "${kept}",
        "eval_text": "work/no/1b/en.txt",
    }
    assert values(recipe, "training", "leia") == values(recipe, "training")
    assert [name for name, arm in recipe.arms.items() if arm.is_trained] == ["plain", "leia"]
    assert recipe.arm() == "leia" and recipe.arm("plain") == "plain" and recipe.seed() == 3


def test_folders_follow_from_the_recipes_folder_where_they_are_not_given(write):
    """FOLDER/dumps, corpus, training/ARM-SEED, evaluation/ARM-SEED, report; the corpus' own output counts more."""
    recipe = read_recipe(write(RECIPE))
    found = [
        recipe.dumps_folder(),
        recipe.corpus_folder(),
        recipe.run_folder("leia", 3),
        recipe.scores_folder("leia", 3),
        recipe.scores_folder("base", 3),
        recipe.report_folder(),
    ]
    assert [setting.value for setting in found if setting] == [
        "work/no/1b/dumps",
        "work/no/1b/corpus",
        "work/no/1b/training/leia-3",
        "work/no/1b/evaluation/leia-3",
        "work/no/1b/evaluation/base",
        "work/no/1b/report",
    ]
    assert found[0] is not None and found[0].place == "derived from folder, recipe.yaml:6"
    given_output = read_recipe("recipe.yaml", ["corpus.output=elsewhere"]).corpus_folder()
    assert given_output is not None and given_output.value == "elsewhere"
    assert read_recipe(None).corpus_folder() is None


def test_settings_are_put_into_the_recipe(write):
    """A variable, a value, a list, an arm's value; the place is the setting itself, and dashes meet underscores."""
    settings = (
        *("language=sw", "training.learning-rate=1e-3", "corpus.pages=[x, y]", "corpus.wiki=no", "seeds=[7]"),
        *("arms.plain.training.steps=5", "training.names=", 'training.note="a: b"', "training.plain=a: b"),
    )
    recipe = read_recipe(write(RECIPE), settings)
    assert values(recipe, "corpus")["pages"] == ("x", "y") and values(recipe, "corpus")["wiki"] == "no"
    training = recipe.section("training", "plain")
    assert {name: setting.value for name, setting in training.items()} == {
        "model": "m",
        "strategy": "none",
        "steps": "5",
        "note": "a: b",
        "plain": "a: b",
        "output_note": "${kept}",
        "eval_text": "work/sw/1b/en.txt",
    }
    assert training["steps"].place == "--set arms.plain.training.steps=5"
    assert values(recipe, "training")["learning_rate"] == "1e-3"
    assert recipe.seeds == (7,) and values(recipe, "evaluation") == {"tasks": "leia_xcsqa_sw"}
    assert values(read_recipe(None, ["training.model=x"]), "training") == {"model": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", r"recipe.yaml:1: a recipe is a mapping with the parts name,"),
        ("", r"-c recipe.yaml: is empty"),
        ("a: {", r"recipe.yaml:1: no YAML \("),
        (
            "corpus: {wiki: a-${language}, x: y}",
            r"recipe.yaml:1: no YAML \(.*; between brackets write \"\$\{name\}\" with",
        ),
        ("name: a\n---\nname: b", r"recipe.yaml:2: no YAML"),
        ("\nname: a\ntrainning: {}", r"recipe.yaml:3: unknown part 'trainning'; did you mean 'training'\?"),
        ("zzz: 1", r"recipe.yaml:1: unknown part 'zzz' \(there are name, description, "),
        ("name: a\nname: b", r"recipe.yaml:2: 'name' stands here a second time; its first place is recipe.yaml:1"),
        ("training:\n  a: 1\n  b: 2\n  a: 3", r"recipe.yaml:4: 'a' stands here a second time; .* recipe.yaml:2"),
        ("training:\n  a-b: 1\n  a_b: 3", r"recipe.yaml:3: 'a_b' stands here a second time; .* recipe.yaml:2"),
        (
            "optimization: {steps: 1}",
            r"recipe.yaml:1: 'optimization' is no part .* any more; .* straight in 'training'",
        ),
        ("build: {}", r"'build' is no part of a recipe any more; its values stand straight in 'corpus'"),
        ("eval: {}", r"'eval' is no part of a recipe any more; its values stand straight in 'evaluation'"),
        ("training: [1]", r"recipe.yaml:1: 'training' must be a mapping of names to values"),
        ("training:\n  model: {a: 1}", r"recipe.yaml:2: 'training.model' must be a value or a list of values"),
        ("training:\n  a:\n  - b\n  - [c]", r"recipe.yaml:4: a list holds texts and numbers alone"),
        ("training:\n  a:\n  - b\n  - null", r"recipe.yaml:4: a list holds texts and numbers alone"),
        (
            "training: {a: !!python/object/apply:os.system ['touch owned']}",
            r"recipe.yaml:1: the tag .*os.system is not",
        ),
        ("training: {a: !!binary aGk=}", r"the tag tag:yaml.org,2002:binary is not taken"),
        ("training: !!set {a, b}", r"the tag tag:yaml.org,2002:set is not taken"),
        ("training:\n  <<: {a: 1}", r"recipe.yaml:2: '<<' is not taken"),
        ("training: {1.5: {2: 3}}", r"'training.1.5' must be a value"),
        ("training: {[a]: 1}", r"recipe.yaml:1: a name must be a text"),
        ("training: {null: 1}", r"recipe.yaml:1: a name must be a text"),
        ("training: &x {a: *x}", r"recipe.yaml:1: nested too deeply"),
        ("name: [a]", r"'name' is one text, not a list"),
        ("variables: {a: null}", r"recipe.yaml:1: the variable 'a' has no value; give it one with --set a="),
        ("variables: {a: [b]}", r"the variable 'a' is one text"),
        ("variables: {folder: b}", r"a variable cannot be called 'folder'"),
        ("variables: {seeds: b}", r"a variable cannot be called 'seeds'"),
        ("variables: {a b: c}", r"a variable cannot be called 'a b'"),
        ("variables: {a: '${b}', b: c}", r"recipe.yaml:1: unknown variable 'b'; the recipe has none"),
        ("variables: {abc: c}\nname: ${abd}", r"recipe.yaml:2: unknown variable 'abd'; did you mean 'abc'\?"),
        ("variables: {abc: c}\nname: ${HOME}", r"unknown variable 'HOME' \(there are abc\)"),
        ("name: ${a", r"recipe.yaml:1: '\$\{' has no closing brace; write \$\$\{"),
        ("arms: {a: {corpus: {}}}", r"an arm has values of training and evaluation, not of 'corpus'"),
        ("arms: {a: {trainig: {}}}", r"not of 'trainig'; did you mean 'training'"),
        ("arms: {a-1: {}}", r"an arm cannot be called 'a-1'"),
        ("arms: {'a/b': {}}", r"an arm cannot be called 'a/b'"),
        ("seeds: [a]", r"recipe.yaml:1: seeds: 'a' is no whole number of 0 or more"),
        ("seeds: [-1]", r"seeds: '-1' is no whole number"),
        ("seeds: [1, 1]", r"recipe.yaml:1: seeds: each is given once"),
    ],
)
def test_what_is_no_recipe_is_one_line_with_its_place(write, tmp_path, text, message):
    """The file, the line, the nearest name; no tag makes an object."""
    with pytest.raises(UsageError, match=message) as caught:
        read_recipe(write(text))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.steps", r"--set training.steps: must be of the form NAME=VALUE"),
        ("training.=3", r"must be of the form"),
        ("=3", r"must be of the form"),
        ("langauge=sw", r"the recipe has no variable 'langauge'; did you mean 'language'\?"),
        ("optimization.steps=3", r"--set optimization.steps=3: 'optimization' is no part of a recipe any more"),
        ("traning.steps=3", r"--set traning.steps=3: unknown part 'traning'; did you mean 'training'\?"),
        ("training.model.x=3", r"--set training.model.x=3: 'training.model' is a value, not a section"),
        ("corpus.pages=[a", r"--set corpus.pages=\[a:1: no YAML"),
        ("corpus.pages=[a, [b]]", r"a list holds texts and numbers alone"),
        ("training=3", r"'training' must be a mapping"),
        ("language=", r"the variable 'language' has no value"),
    ],
)
def test_a_setting_that_means_nothing_is_named(write, setting, message):
    """As it was typed."""
    with pytest.raises(UsageError, match=message):
        read_recipe(write(RECIPE), [setting])


def test_a_variable_may_have_the_name_of_an_old_section(write):
    """`model` is a good name for a variable; without it the setting is one of an old recipe."""
    path = write("variables: {model: a}\ntraining: {model: '${model}'}")
    assert values(read_recipe(path, ["model=b"]), "training") == {"model": "b"}
    with pytest.raises(UsageError, match=r"'data' is no part of a recipe any more"):
        read_recipe(path, ["data=b"])


def test_an_arm_must_be_one_of_the_recipes(write):
    """The nearest is named; without arms there is leia alone; with several others one must be said."""
    recipe = read_recipe(write(RECIPE))
    with pytest.raises(UsageError, match=r"--arm plian: the recipe has plain, leia, base; did you mean 'plain'\?"):
        recipe.arm("plian")
    with pytest.raises(UsageError, match=r"--arm plain: the recipe has no arms but leia"):
        read_recipe(None).arm("plain")
    assert read_recipe(None).arm() == "leia"
    assert read_recipe(write("arms: {only: {}}")).arm() == "only"
    with pytest.raises(UsageError, match=r"recipe.yaml: has the arms a, b; say with --arm which one is meant"):
        read_recipe(write("arms: {a: {}, b: {}}")).arm()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """Missing, a folder, not UTF-8."""
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    for name, message in (("missing.yaml", "No such file"), ("", "Is a directory"), ("latin.yaml", "utf-8")):
        with pytest.raises(UsageError, match=message):
            read_recipe(str(tmp_path / name))


def test_deep_nesting_is_refused(write):
    """A hundred thousand brackets are one line too."""
    with pytest.raises(UsageError, match="no YAML"):
        read_recipe(write("a: " + "[" * 100_000))


@given(st.text(max_size=60))
def test_no_text_is_anything_but_a_recipe_or_a_usage_error(text):
    """Whatever stands in the file, or behind --set."""
    for settings in ([text], [f"training.model={text}"]):
        try:
            recipe = read_recipe(None, settings)
        except UsageError as error:
            assert "\n" not in str(error) or "\n" in text
            continue
        for setting in recipe.section("training").values():
            assert isinstance(setting.value, (str, tuple))


def test_a_training_with_a_seed_of_its_own_is_found_under_it_by_all_commands(tmp_path: Path) -> None:
    """Without a list of seeds; with one its first counts."""
    path = tmp_path / "recipe.yaml"
    path.write_text("folder: work\ntraining: {seed: 7}\n")
    recipe = read_recipe(str(path))
    assert recipe.seed() == 7
    path.write_text("folder: work\nseeds: [3, 4]\ntraining: {seed: 7}\n")
    assert read_recipe(str(path)).seed() == 3


def test_an_empty_folder_is_not_the_root_of_the_disk(tmp_path: Path) -> None:
    """Nor one whose variable is empty."""
    path = tmp_path / "recipe.yaml"
    for text in ('folder: ""\n', 'variables: {root: ""}\nfolder: ${root}\n'):
        path.write_text(text)
        with pytest.raises(UsageError, match=rf"recipe.yaml:{text.count(chr(10))}: 'folder' is empty"):
            read_recipe(str(path))


def test_a_folder_with_a_comma_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    """`compare` parts the folders of several runs by commas."""
    path = tmp_path / "recipe.yaml"
    path.write_text('folder: "work,2"\n')
    with pytest.raises(UsageError, match=r"recipe.yaml:1: 'folder' has a comma"):
        read_recipe(str(path))

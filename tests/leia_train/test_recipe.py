"""A recipe gives a run its configuration, each value of its field's type, and says where a wrong one stands."""

import re

import pytest

from leia_beam.configuration import parse
from leia_beam.errors import UsageError
from leia_train.cli import main
from leia_train.command_line import make_config, make_parser
from leia_train.recipe import train_config

RECIPE = """
name: an example
folder: work
primary: {arm: leia}
training:
  shards: [a, b]
  names: true
  probability_buckets: [0, 0.5, 1]
  cross_document: yes
  model: tiny-llama
  learning_rate: 5e-6
  steps: 7
arms:
  plain: {training: {strategy: none}}
  leia: {}
seeds: [3, 4]
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Write a recipe; its path."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
        return "recipe.yaml"

    return write


def test_a_recipe_gives_each_field_its_type(recipe):
    """Lists become tuples, 5e-6 a number though YAML takes it for text, true the word; what follows from folder and seeds."""
    config = train_config(recipe(RECIPE))
    assert config.data.shards == ("a", "b") and config.data.names == "true" and config.data.cross_document is True
    assert config.data.probability_buckets == (0.0, 0.5, 1.0)
    assert (config.optimization.learning_rate, config.optimization.steps, config.optimization.seed) == (5e-6, 7, 3)
    assert (config.data.probability, config.data.strategy) == (0.5, "right")
    assert config.run.output == "work/training/leia-3"


def test_an_arm_and_a_seed_are_another_run_in_another_folder(recipe):
    """The arm's values count more; so does a seed that is typed or set; shards follow from the corpus."""
    path = recipe(RECIPE)
    config = train_config(path, arm="plain", seed=4)
    assert (config.data.strategy, config.optimization.seed, config.run.output) == ("none", 4, "work/training/plain-4")
    set_seed = train_config(path, ["training.seed=0", "training.shards="])
    assert (set_seed.optimization.seed, set_seed.run.output) == (0, "work/training/leia-0")
    assert set_seed.data.shards == ("work/corpus/shards",)
    assert train_config(path, ["corpus.output=c/", "training.shards="]).data.shards == ("c/shards",)


def test_flags_win_over_settings_and_settings_over_the_recipe(recipe):
    """And defaults come last."""
    words = ["train", "-c", recipe(RECIPE), "--set", "training.seed=4", "-s", "training.steps=9", "--seed", "5"]
    config = make_config(parse(make_parser(), words))
    assert (config.optimization.seed, config.optimization.steps, config.optimization.warmup) == (5, 9, 0)
    words = ["train", "-c", "recipe.yaml", "--no-cross-document", "--probability-buckets", "1", "0"]
    config = make_config(parse(make_parser(), words))
    assert (config.data.cross_document, config.data.probability_buckets) == (False, (1.0, 0.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "training:\n  probabilty: 1",
            r"recipe.yaml:2: unknown name 'training.probabilty'; did you mean 'probability'\?",
        ),
        ("training: {zzz: 1}", r"recipe.yaml:1: unknown name 'training.zzz' \(an option of leia-train that"),
        ("arms: {leia: {training: {stepz: 1}}}", r"unknown name 'arms.leia.training.stepz'; did you mean 'steps'\?"),
        ("training:\n  probability: often", r"recipe.yaml:2: training.probability: 'often' is no number"),
        ("training: {steps: 1.5}", r"training.steps: '1.5' is no whole number"),
        ("training: {steps: true}", r"training.steps: 'true' is no whole number"),
        ("training: {steps: [1, 2]}", r"training.steps: takes one value, not a list"),
        ("training: {cross_document: 1}", r"training.cross_document: '1' is not true or false"),
        ("training: {strategy: rihgt}", r"training.strategy: 'rihgt' is none of right, left, .*; did you mean 'right'"),
        ("training: {probability_buckets: [0, x]}", r"training.probability_buckets: 'x' is no number"),
        (
            "training: {shards: [x], model: m, output: o, probability: 2}",
            r"--probability 2.0: must be .* \(from recipe.yaml:1\)",
        ),
        ("training: {shards: [x]}", r"arguments are required: --model, --output, which recipe.yaml does not give"),
        ("optimization: {steps: 1}", r"'optimization' is no part of a recipe any more"),
    ],
)
def test_what_is_wrong_in_a_recipe_exits_2_with_its_place(recipe, capsys, text, message):
    """The file, the line, the name, the nearest one."""
    assert main(["train", "-c", recipe(text)]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1


def test_a_value_that_is_typed_is_not_blamed_on_the_recipe(recipe, capsys):
    """The place is added only where the value stands in the recipe."""
    path = recipe(RECIPE)
    assert main(["train", "-c", path, "--probability", "2"]) == 2
    assert "recipe.yaml" not in capsys.readouterr().err
    assert main(["train", "-c", path, "--set", "training.probability=2"]) == 2
    assert "(from --set training.probability=2)" in capsys.readouterr().err


def test_export_and_exposures_take_the_run_from_the_recipe(recipe, capsys):
    """Where the arm was trained with the recipe's first seed, or another that is set."""
    path = recipe(RECIPE)
    assert main(["export", "-c", path, "--arm", "plain", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "  output: work/training/plain-3  # derived" in printed and "  exported: work/exported/plain-3" in printed
    assert main(["exposures", "-c", path, "--set", "training.seed=9", "--print-config"]) == 0
    assert "  output: work/training/leia-9  # derived" in capsys.readouterr().out
    assert main(["bake", "-c", path, "--print-config"]) == 0
    assert "  baked: work/baked/leia-3  # derived" in capsys.readouterr().out


def test_one_arm_must_be_meant(recipe):
    """Two arms, none of them leia and no primary endpoint."""
    with pytest.raises(UsageError, match="has the arms a, b; say with --arm which one"):
        train_config(recipe("folder: f\ntraining: {model: m}\narms: {a: {}, b: {}}"))


def test_an_arm_with_a_model_of_its_own_is_not_trained(recipe):
    """It is scored as it is."""
    path = recipe("folder: f\ntraining: {model: m}\narms: {base: {evaluation: {model: big}}, leia: {}}")
    with pytest.raises(UsageError, match=r"--arm base: has a model of its own to score, and is not trained"):
        train_config(path, arm="base")


def test_the_report_of_a_recipe_shows_all_its_runs(recipe, capsys):
    """Arms by seeds, without those that are not trained."""
    path = recipe("folder: f\narms: {base: {evaluation: {model: big}}, plain: {}, leia: {}}\nseeds: [1, 2]")
    assert main(["report", "-c", path, "--print-config"]) == 0
    printed = capsys.readouterr().out
    runs = ", ".join(f"f/training/{arm}-{seed}" for seed in (1, 2) for arm in ("plain", "leia"))
    assert f"  reported: [{runs}]  # derived" in printed and "  training_report: f/report/training.html" in printed

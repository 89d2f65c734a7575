"""Recipes are typed, safe, and say what they do not know."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leia_beam.errors import UsageError
from leia_train import cli
from leia_train.cli import main
from leia_train.config import GROUPS
from leia_train.recipe import read_recipe

RECIPE = """
name: an example
primary: {arm: leia}
data:
  shards: [a, b]
  names: true
  probability_buckets: [0, 0.5, 1]
  cross_document: yes
model: {model: tiny-llama}
optimization: {learning_rate: 5e-6, steps: 7.0, seed: 3}
run: {output: out}
"""


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe; its path."""

    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def config_of(*arguments):
    """The configuration of a `train` command."""
    return cli.make_config(cli.make_parser().parse_args(["train", *arguments]))


def test_a_recipe_gives_each_field_its_type(recipe):
    """Lists become tuples, 5e-6 a number though YAML takes it for text, true the word; other sections are left alone."""
    config = config_of("-c", recipe(RECIPE))
    assert config.data.shards == ("a", "b") and config.data.names == "true" and config.data.cross_document is True
    assert config.data.probability_buckets == (0.0, 0.5, 1.0)
    assert (config.optimization.learning_rate, config.optimization.steps, config.optimization.seed) == (5e-6, 7, 3)
    assert config.data.probability == 0.5


def test_flags_win_over_settings_and_settings_over_the_recipe(recipe):
    """And defaults come last."""
    path = recipe(RECIPE)
    config = config_of("-c", path, "--set", "optimization.seed=4", "--set", "optimization.steps=9", "--seed", "5")
    assert (config.optimization.seed, config.optimization.steps, config.optimization.warmup) == (5, 9, 0)
    assert config_of("-c", path, "--set", "data.shards=[x]").data.shards == ("x",)
    assert config_of("-c", path, "--set", "data.shards=y").data.shards == ("y",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {probabilty: 1}", r"unknown name 'data.probabilty'; did you mean 'probability'\?"),
        ("dtaa: {}", r"unknown section 'dtaa'; did you mean 'data'\?"),
        ("data: {probability: often}", r"data.probability: 'often' is no number"),
        ("optimization: {steps: 1.5}", r"optimization.steps: 1.5 is no whole number"),
        ("optimization: {steps: true}", r"optimization.steps: True is no whole number"),
        ("data: {cross_document: 1}", r"data.cross_document: 1 is no true or false"),
        ("data: [1]", r"section 'data' must be a mapping"),
        ("[1, 2]", r"must be a mapping of sections"),
        ("data: {shards: !!python/object/apply:os.system ['touch owned']}", r"no YAML \(could not determine a constr"),
        ("data: {", r"no YAML"),
        (
            "data: {probability: 2}\nmodel: {model: x}\nrun: {output: o}",
            r"--shards|--probability 2.0: must be from 0 to 1",
        ),
    ],
)
def test_what_is_wrong_in_a_recipe_exits_2_with_its_place(recipe, capsys, tmp_path, monkeypatch, text, message):
    """The file, the name, the nearest one; no tag makes an object."""
    import re

    monkeypatch.chdir(tmp_path)
    assert main(["train", "-c", recipe(text)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "setting", ["steps=3", "optimization.steps", "optimization.=3", "a.b=1", "data.probability=[1]"]
)
def test_a_setting_that_means_nothing_exits_2(setting, capsys):
    """Named as it was given."""
    assert main(["train", "--set", setting]) == 2
    assert setting.partition("=")[0].partition(".")[0] in capsys.readouterr().err


@given(st.text(max_size=40))
def test_no_text_makes_anything_but_values_or_a_usage_error(text):
    """Whatever stands after the sign."""
    try:
        values = read_recipe(None, [f"model.model={text}"], GROUPS)
    except UsageError:
        return
    assert isinstance(values["model"]["model"], str)

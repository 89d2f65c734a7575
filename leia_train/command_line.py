"""From the command line of `leia-train` to its options, and from those to its groups' dataclasses.

Flags are made from the dataclasses' fields. A value comes from its flag, else from `--set`, else from the recipe, else from
what follows from the recipe's folder, else from its default (leia_beam/configuration.py).
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

from leia_beam.arguments import Parser, Switch, names, new_command, whole_numbers
from leia_beam.completion import PrintCompletion
from leia_beam.configuration import Options, add_recipe_options
from leia_beam.recipe import TRAINING
from leia_beam.recipe_use import RecipeUse
from leia_beam.version import ShowVersion
from leia_train import derived
from leia_train.command_configs import BakeConfig, ExportConfig, ExposuresConfig, PlanConfig, ReportConfig, StudyConfig
from leia_train.config import GROUPS, TrainConfig
from leia_train.data_config import DataConfig
from leia_train.optimization_config import OptimizationConfig

PROGRAM = "leia-train"
_PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "tokenizers", "pyarrow", "flash-attn")


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A command: its summary, an example, the groups of its flags, and what it takes from a recipe."""

    summary: str
    example: str
    groups: Mapping[str, type]
    positional: str | None = None
    recipe: RecipeUse | None = None
    needed: bool = True
    """Whether options without a default must be given."""


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(prog=PROGRAM, description="Train a causal language model on LEIA's shards.")
    parser.add_argument("--version", action=ShowVersion, packages=_PACKAGES)
    parser.add_argument("--print-completion", action=PrintCompletion)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        made = new_command(commands, name, command.summary, command.example)
        for group_name, config_class in command.groups.items():
            group = made.add_argument_group(group_name)
            types = typing.get_type_hints(config_class)
            for each in fields(config_class):
                _add_flag(group, each, types[each.name], each.name == command.positional)
        if not command.needed:
            for action in made._actions:
                action.required = False
        if command.recipe is not None:
            add_recipe_options(made, command.recipe)
    return parser


def _add_flag(group: Any, each: Field[Any], kind: Any, positional: bool) -> None:
    """The flag of one field: its type, its choices and its default."""
    required = each.default is MISSING
    flag = "--" + each.name.replace("_", "-")
    help_text = each.metadata["help"].replace("%", "%%")
    if positional:
        several = "+" if typing.get_origin(kind) is tuple else None
        metavar = each.metadata["metavar"] or each.name.upper()
        group.add_argument(each.name, nargs=several, metavar=metavar, help=help_text)
        return
    common: dict[str, Any] = {"help": help_text, "required": required, "default": None if required else each.default}
    if kind is bool:
        group.add_argument(flag, action=Switch, **common)
    elif typing.get_origin(kind) is tuple:
        item, metavar = typing.get_args(kind)[0], each.metadata["metavar"]
        if each.metadata["commas"]:
            group.add_argument(flag, type=whole_numbers if item is int else names, metavar=metavar, **common)
        else:
            action = "extend" if each.metadata["repeated"] else "store"
            group.add_argument(flag, action=action, nargs="+", type=item, metavar=metavar, **common)
    else:
        choices, metavar = each.metadata["choices"], each.metadata["metavar"] or _METAVARS.get(kind, "TEXT")
        group.add_argument(flag, type=kind, choices=choices, metavar=None if choices else metavar, **common)


_METAVARS: dict[Any, str] = {int: "N", float: "X"}


def make_groups(options: Options) -> dict[str, Any]:
    """The configurations of a command's groups, by group.

    Raises: UsageError for a value that is out of its range.
    """
    assert options.command is not None
    made = {}
    for group, config_class in COMMANDS[options.command].groups.items():
        values = {each.name: getattr(options, each.name) for each in fields(config_class)}
        made[group] = config_class(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})
    return made


def make_config(options: Options) -> TrainConfig:
    """The configuration that the flags and the recipe say.

    Raises: UsageError for a value that is missing or out of its range.
    """
    groups = make_groups(options)
    return TrainConfig(**{name: groups[name] for name in GROUPS})


COMMANDS: Mapping[str, Command] = {
    "train": Command(
        summary="train on finished shards; the same command again resumes from the newest whole checkpoint",
        example="leia-train train --shards build/ja/shards --model my-model --output runs/ja\n"
        "  leia-train train -c recipe.yaml --arm leia --seed 2",
        groups=GROUPS,
        recipe=RecipeUse(section=TRAINING, derive=derived.for_train, has_arms=True),
    ),
    "study": Command(
        summary="train, score and compare all arms and seeds of a recipe; run again, it does what is missing",
        example="leia-train study -c recipe.yaml --set language=sw",
        groups={"study": StudyConfig},
        recipe=RecipeUse(section=TRAINING, names=derived.NAMES_OF_STUDY, prints=False),
    ),
    "plan": Command(
        summary="print what `train` with these options would do",
        example="leia-train plan -c recipe.yaml --gpus 8xH100\n"
        "  leia-train plan -c recipe.yaml --gpus H100 --accelerate-config recipes/accelerate/fsdp2-2x8gpu.yaml",
        groups={**GROUPS, "plan": PlanConfig},
        recipe=RecipeUse(section=TRAINING, derive=derived.for_train, has_arms=True),
    ),
    "bake": Command(
        summary="write the rows that `train` would read, for any other trainer",
        example="leia-train bake --shards build/ja/shards --form axolotl --output baked/ja",
        groups={"data": DataConfig, "optimization": OptimizationConfig, "bake": BakeConfig},
        recipe=RecipeUse(section=TRAINING, names=derived.NAMES_OF_BAKE, derive=derived.for_bake, has_arms=True),
    ),
    "export": Command(
        summary="write a checkpoint as a model in Hugging Face form, by choice in another type",
        example="leia-train export runs/ja --dtype bfloat16 --output models/ja",
        groups={"export": ExportConfig},
        positional="checkpoint",
        recipe=RecipeUse(section=TRAINING, names=derived.NAMES_OF_EXPORT, derive=derived.for_export, has_arms=True),
    ),
    "exposures": Command(
        summary="count for each entity how often a run saw it, and how often with its name",
        example="leia-train exposures runs/ja --output exposures.parquet",
        groups={"exposures": ExposuresConfig},
        positional="run",
        recipe=RecipeUse(
            section=TRAINING, names=derived.NAMES_OF_EXPOSURES, derive=derived.for_exposures, has_arms=True
        ),
    ),
    "report": Command(
        summary="write one page of a run's curves, figures, exposures and configuration, or of several runs'",
        example="leia-train report runs/plain runs/leia --output report.html",
        groups={"report": ReportConfig},
        positional="runs",
        recipe=RecipeUse(section=TRAINING, names=derived.NAMES_OF_REPORT, derive=derived.for_report),
    ),
    "doctor": Command(
        summary="say what training would find on this machine; with a run's options, whether it can run here",
        example="leia-train doctor\n  leia-train doctor -c recipe.yaml --set language=sw",
        groups=GROUPS,
        needed=False,
        recipe=RecipeUse(section=TRAINING, derive=derived.for_train, has_arms=True),
    ),
}

"""What a command takes from a recipe: which section, under which names, and what follows from the recipe's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from leia_beam.recipe import Recipe, Settings


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What is known of a command line when the rest is derived: the recipe, its arm, and the values given so far."""

    recipe: Recipe
    arm: str
    values: Mapping[str, Any]
    """By destination: what is typed or stands in the recipe."""


@dataclass(frozen=True, kw_only=True)
class RecipeUse:
    """A command's part of a recipe.

    `names` maps an option's destination to its name in the section, where commands of one section mean two things by one
    option (`--output` of fetch is `dumps`); '' for one that no recipe has. `derive` gives what follows from the folder, by
    destination; it counts less than what is given. With `has_arms` there is an `--arm`, whose values count more than the
    section's.
    """

    section: str
    names: Mapping[str, str] = field(default_factory=dict)
    derive: Callable[[Chosen], Settings] = lambda chosen: {}
    has_arms: bool = False
    prints: bool = True
    """Whether there is a `--print-config`: not where a command is several runs of others."""
    also: tuple[str, ...] = ()
    """Parts of the recipe that the command reads beside its section."""

    def name_of(self, destination: str) -> str:
        """What an option is called in the section."""
        return self.names.get(destination, destination)

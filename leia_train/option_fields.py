"""From what an option is, its help, unit and choices, to a field of a frozen dataclass, and to the checks of its value."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from leia_beam.errors import UsageError


def option(
    help_text: str,
    *,
    default: Any = None,
    choices: tuple[str, ...] | None = None,
    required: bool = False,
    metavar: str | None = None,
    commas: bool = False,
    repeated: bool = False,
) -> Any:
    """A field with what the command line says of it; `commas`: a list that is one word; `repeated`: flags that add up."""
    metadata = {"help": help_text, "choices": choices, "required": required, "metavar": metavar}
    metadata |= {"commas": commas, "repeated": repeated}
    return field(metadata=metadata) if required else field(default=default, metadata=metadata)


def check(holds: bool, flag: str, value: object, rule: str) -> None:
    """What must hold of an option's value, in words that go on after `must be`.

    Raises: UsageError that names the flag, its value and the rule.
    """
    if not holds:
        raise UsageError(f"--{flag} {value}: must be {rule}")


def check_choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    """A value must be one of its choices.

    Raises: UsageError with all of them.
    """
    check(value in choices, flag, value, f"one of {', '.join(choices)}")

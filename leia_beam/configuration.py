"""From a command line and a recipe to the values of a command's options, each with where it came from.

A value comes from its flag, else from `--set`, else from the recipe, else it follows from the recipe's folder, else from the
profile, else it is the default. The recipe's texts go through the parser of the option as if they had been typed, so there is
one check and one message for both. What `--print-config` prints is a recipe again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

from leia_beam.arguments import Parser, names, said
from leia_beam.errors import LeiaError, UsageError
from leia_beam.recipe import Recipe, Setting, Settings, read_recipe
from leia_beam.recipe_use import Chosen, RecipeUse
from leia_beam.suggestions import nearest

_OWN = ("help", "version", "recipe", "settings", "arm", "training_seed", "print_config", "command")
"""Options of the command line alone."""
_TRUE, _FALSE = ("true", "yes", "on", "y"), ("false", "no", "off", "n")
_PLAIN = re.compile(r"[A-Za-z0-9_/.][A-Za-z0-9_/.+-]*")
_NO_TEXT = ("null", "~", "")


class Options(argparse.Namespace):
    """The options of a command by destination. `origins` says of each where it came from, `recipe` is what was read."""

    command: str | None
    origins: Mapping[str, str]
    recipe_read: Recipe
    parser: Parser


def add_recipe_options(parser: argparse.ArgumentParser, use: RecipeUse) -> argparse._ArgumentGroup:
    """Let a command take the values of its section from a recipe; the group of the options for it."""
    assert isinstance(parser, Parser)
    parser.recipe_use = use
    group = parser.add_argument_group("the recipe")
    group.add_argument("-c", "--recipe", metavar="FILE", help=f"YAML whose section {use.section!r} holds these options")
    group.add_argument(
        *("--set", "-s"),
        dest="settings",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a variable of the recipe, or a value such as training.steps=50; may be given several times",
    )
    if use.has_arms:
        group.add_argument("--arm", metavar="NAME", help="the recipe's arm (default: that of its primary endpoint)")
    if not use.prints:
        return group
    group.add_argument(
        "--print-config", action="store_true", help="print each value and where it came from, as a recipe, and end"
    )
    return group


def parse(parser: Parser, arguments: Sequence[str], typed: Mapping[str, Any] | None = None) -> Options:
    """All options of a command line; `typed` are values that were given in another way than by a flag.

    Raises: UsageError for an unknown option or name (with the nearest), a wrong value (with the line of the recipe), or
    what is missing. SystemExit after --help and --version.
    """
    command = next((word for word in arguments if not word.startswith("-")), "")
    chosen = parser.command_parsers().get(command, parser)
    _check_known(parser, chosen, arguments)
    given = {**_typed(parser, chosen, arguments), **(typed or {})}
    origins = {name: _flag(chosen, name) for name in given}
    recipe = Recipe()
    defaults = _defaults(chosen)
    values: dict[str, Any] = {}
    use = chosen.recipe_use
    if use is not None:
        recipe = read_recipe(given.get("recipe"), given.get("settings", ()))
        _check_names(parser, recipe, use.section)
        arm = recipe.arm(given.get("arm")) if use.has_arms else ""
        section = recipe.section(use.section, arm)
        by_name = {use.name_of(action.dest): action.dest for action in _from_recipes(chosen)}
        found = {by_name[name]: setting for name, setting in section.items() if name in by_name}
        values = _converted(chosen, use, found)
        destinations = {action.dest for action in chosen._actions}
        derived = {
            name: setting
            for name, setting in use.derive(Chosen(recipe=recipe, arm=arm, values={**values, **given})).items()
            if name in destinations
        }
        found = {**derived, **found}
        values = {**_converted(chosen, use, derived), **values}
        origins = {name: setting.place for name, setting in found.items() if name in values} | origins
    said_so_far: dict[str, Any] = {**defaults, **values, **given}
    profile = str(said_so_far.get("profile", ""))
    changed = {name: value for name, value in chosen.profiles.get(profile, {}).items() if name in defaults}
    options = Options(**{"command": None, **defaults, **changed, **values, **given})
    options.origins = {
        **dict.fromkeys(defaults, "default"),
        **dict.fromkeys(changed, f"profile {profile}"),
        **origins,
    }
    options.recipe_read, options.parser = recipe, chosen
    missing = [
        _name_of(action) for action in chosen._actions if action.required and action.dest not in {**values, **given}
    ]
    if missing:
        hint = "" if use is None else _missing_hint(recipe)
        chosen.error(f"the following arguments are required: {', '.join(missing)}{hint}")
    return options


def _missing_hint(recipe: Recipe) -> str:
    return "" if recipe.path is None else f", which {recipe.path} does not give"


def _check_known(parser: Parser, chosen: Parser, arguments: Sequence[str]) -> None:
    """Before what is missing is complained of: a misspelt required option is the most frequent mistake.

    Raises: UsageError.
    """
    flags = [flag for action in chosen._actions for flag in action.option_strings]
    for word in arguments:
        name = word.partition("=")[0]
        if name.startswith("--") and name not in flags and name not in parser._option_string_actions:
            raise UsageError(f"unknown argument {name!r}{nearest(name, flags)} (see {chosen.prog} --help)")


def _typed(parser: Parser, chosen: Parser, arguments: Sequence[str]) -> dict[str, Any]:
    """What is typed alone, by destination: parsed without defaults, and with nothing required."""
    if {"-h", "--help"} & set(arguments):  # before the defaults are gone
        chosen.print_help()
        chosen.exit()
    before = [(action, action.default, action.required, action.nargs) for action in chosen._actions]
    takes_recipe = chosen.recipe_use is not None
    for action in chosen._actions:
        action.default, action.required = argparse.SUPPRESS, chosen is parser and action.required
        if takes_recipe and not action.option_strings:
            action.nargs = "?" if action.nargs is None else "*"
    try:
        found, unknown = parser.parse_known_args(list(arguments))
    finally:
        for action, default, required, nargs in before:
            action.default, action.required, action.nargs = default, required, nargs
    if unknown:
        raise UsageError(f"unknown argument {unknown[0]!r} (see {chosen.prog} --help)")
    return vars(found)


def _defaults(chosen: Parser) -> dict[str, Any]:
    """The values of options that are not given."""
    return {
        action.dest: chosen._get_value(action, action.default) if isinstance(action.default, str) else action.default
        for action in chosen._actions
        if action.default is not argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)
    }


def _from_recipes(chosen: Parser) -> Iterator[argparse.Action]:
    """The options that may stand in a recipe."""
    use = chosen.recipe_use or RecipeUse(section="")
    for action in chosen._actions:
        if action.dest not in _OWN and not isinstance(action, argparse._SubParsersAction) and use.name_of(action.dest):
            yield action


def _check_names(parser: Parser, recipe: Recipe, section: str) -> None:
    """Every name of the section is an option of one of its commands.

    Raises: UsageError.
    """
    known: dict[str, None] = {}
    for other in parser.command_parsers().values():
        if other.recipe_use is not None and other.recipe_use.section == section:
            known |= {other.recipe_use.name_of(action.dest): None for action in _from_recipes(other)}
    parts = {section: recipe.sections[section]}
    parts |= {f"arms.{name}.{section}": arm.sections.get(section, {}) for name, arm in recipe.arms.items()}
    for part, settings in parts.items():
        for name, setting in settings.items():
            if name not in known:
                hint = nearest(name, known) or f" (an option of {parser.prog} that takes {section!r} from recipes)"
                raise UsageError(f"{setting.place}: unknown name '{part}.{name}'{hint}")


def _converted(chosen: Parser, use: RecipeUse, settings: Settings) -> dict[str, Any]:
    """The settings as the values that their options would have."""
    actions = {action.dest: action for action in chosen._actions}
    values = {}
    for destination, setting in settings.items():
        name = f"{use.section}.{use.name_of(destination)}"
        try:
            values[destination] = _value(chosen, actions[destination], setting)
        except argparse.ArgumentError as error:
            reason = said(str(error)).partition(": ")[2]
            raise UsageError(f"{setting.place}: {name}: {reason}") from error
        except UsageError as error:
            raise UsageError(f"{setting.place}: {name}: {error}") from error
    return values


def _value(chosen: Parser, action: argparse.Action, setting: Setting) -> Any:
    if action.nargs in ("+", "*"):
        return [_typed_value(chosen, action, text) for text in setting.texts]
    if isinstance(setting.value, tuple) and action.type is not names:
        raise UsageError("takes one value, not a list")
    text = ",".join(setting.texts)
    if action.nargs == 0:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise UsageError(f"{text!r} is not true or false")
        return text.lower() in _TRUE
    return _typed_value(chosen, action, text)


def _typed_value(chosen: Parser, action: argparse.Action, text: str) -> Any:
    value = chosen._get_value(action, text)
    chosen._check_value(action, value)
    return value


def _name_of(action: argparse.Action) -> str:
    return "/".join(action.option_strings) or str(action.metavar or action.dest)


def _flag(chosen: Parser, destination: str) -> str:
    """The flag by which a typed value was given."""
    for action in chosen._actions:
        if action.dest == destination and action.option_strings:
            return next((flag for flag in action.option_strings if flag.startswith("--")), action.option_strings[0])
    return "the command line"


@contextmanager
def told_where(options: Options) -> Iterator[None]:
    """Add to an error that begins with a flag the place of its value, where that was not typed.

    Raises: the same error.
    """
    try:
        yield
    except LeiaError as error:
        flag = re.match(r"--([a-z0-9-]+)", str(error))
        origin = options.origins.get(flag.group(1).replace("-", "_"), "") if flag else ""
        if not origin or origin == "default" or (origin.startswith("--") and not origin.startswith("--set ")):
            raise
        said_from = origin if origin.startswith("derived") else f"from {origin}"
        raise type(error)(f"{error} ({said_from})") from error


def config_lines(options: Options) -> list[str]:
    """The values of a command's options as a recipe, each with its origin as a comment."""
    chosen, use = options.parser, options.parser.recipe_use
    assert use is not None
    lines = [f"# {chosen.prog}: what it would take, and where each value came from", f"{use.section}:"]
    for action in _from_recipes(chosen):
        text = _yaml(action, getattr(options, action.dest))
        lines.append(f"  {use.name_of(action.dest)}: {text}  # {_comment(options.origins[action.dest])}")
    for part in use.also:
        settings: Settings = getattr(options.recipe_read, part)
        if settings:
            lines.append(f"{part}:")
            lines += [f"  {name}: {_yaml_setting(each)}  # {_comment(each.place)}" for name, each in settings.items()]
    return lines


def _comment(origin: str) -> str:
    """An origin on one line, without what steers a terminal."""
    return "".join(char if char.isprintable() else "?" for char in origin)


def _yaml(action: argparse.Action, value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_yaml_text(_text_of(each)) for each in value)}]"
    return _yaml_text(_text_of(value))


def _yaml_setting(setting: Setting) -> str:
    if setting.value is None or isinstance(setting.value, str):
        return "null" if setting.value is None else _yaml_text(setting.value)
    return f"[{', '.join(map(_yaml_text, setting.value))}]"


def _text_of(value: Any) -> str:
    """A typed value as the text that gives it."""
    return str(value) if isinstance(value, (str, int, PurePath)) else repr(value)


def _yaml_text(text: str) -> str:
    """A text as a YAML scalar that is read as this text."""
    escaped = text.replace("${", "$${")
    if _PLAIN.fullmatch(escaped) and escaped.lower() not in _NO_TEXT:
        return escaped
    import yaml

    line: str = yaml.safe_dump(escaped, default_style='"', allow_unicode=True, width=1 << 30)
    return line.rstrip("\n")

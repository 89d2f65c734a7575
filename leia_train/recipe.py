"""From a YAML recipe and `--set section.name=value` to the values of the sections' fields, each of its field's type.

    data: {shards: [build/shards], probability: 0.5}
    optimization: {steps: 50, learning_rate: 5.0e-6}

Sections of other programs (FOREIGN_SECTIONS) are left to them; any other unknown name is an error with the nearest one.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from leia_beam.errors import UsageError

FOREIGN_SECTIONS = ("build", "fetch", "primary", "evaluation", "eval", "arms", "name", "description")
Values = dict[str, dict[str, Any]]


def read_recipe(path: str | None, settings: Sequence[str], sections: Mapping[str, type]) -> Values:
    """By section, the values that a recipe and the settings give; settings win.

    Raises: UsageError for a file that is no recipe, an unknown name, or a value of another type.
    """
    values: Values = {section: {} for section in sections}
    if path is not None:
        _take_all(_load(path), path, sections, values)
    for setting in settings:
        name, separator, text = setting.partition("=")
        section, dot, field = name.partition(".")
        if not separator or not dot:
            raise UsageError(f"--set {setting}: must be of the form section.name=value")
        _take_all({section: {field: _parse(text, f"--set {setting}")}}, f"--set {setting}", sections, values)
    return values


def _load(path: str) -> Mapping[Any, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"-c {path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    content = _parse(text, f"-c {path}")
    if not isinstance(content, dict):
        raise UsageError(f"-c {path}: must be a mapping of sections ({', '.join(FOREIGN_SECTIONS[:2])}, data, …)")
    return content


def _parse(text: str, where: str) -> Any:
    """YAML without any tag that makes objects."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: no YAML ({' '.join(str(error).split())})") from error


def _take_all(content: Mapping[Any, Any], where: str, sections: Mapping[str, type], values: Values) -> None:
    for section, entries in content.items():
        if section in FOREIGN_SECTIONS:
            continue
        if section not in sections:
            raise UsageError(f"{where}: unknown section {section!r}{_nearest(section, sections)}")
        if not isinstance(entries, dict):
            raise UsageError(f"{where}: section {section!r} must be a mapping of names to values")
        types = typing.get_type_hints(sections[section])
        known = [field.name for field in fields(sections[section])]
        for name, value in entries.items():
            if name not in known:
                raise UsageError(f"{where}: unknown name '{section}.{name}'{_nearest(name, known)}")
            values[section][name] = _typed(value, types[name], f"{where}: {section}.{name}")


def _nearest(name: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f" (there are {', '.join(known)})"


def _typed(value: Any, kind: Any, where: str) -> Any:
    """The value as its field's type; numbers may be integers or text like 5e-6, which YAML takes for text."""
    if typing.get_origin(kind) is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_typed(item, typing.get_args(kind)[0], where) for item in items)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, (str, bool, int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if kind in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value) if kind is float else int(value)
        except ValueError:
            number = None
        if number is not None and (kind is float or not isinstance(value, float) or value == number):
            return number
    raise UsageError(f"{where}: {value!r} is no {_TYPE_NAMES[kind]}")


_TYPE_NAMES: Mapping[Any, str] = {bool: "true or false", str: "text", int: "whole number", float: "number"}

"""From a text of YAML to a tree of texts, each with the place where it stands.

Scalars stay the text that stands in the file, so they mean what they mean on a command line: `wiki: no` is the Norwegian
wiki and not false. `null`, or nothing, means that a value is not given. No tag makes an object.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leia_beam.errors import UsageError

if TYPE_CHECKING:
    import yaml

_SCALARS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "value")
)
_NULL, _MERGE = "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of the file, or a mapping of more entries; and the place of its name."""

    value: str | tuple[str, ...] | dict[str, Entry] | None
    place: str


Tree = dict[str, Entry]


def read_tree(path: str) -> str | tuple[str, ...] | Tree | None:
    """What a file of YAML holds; None where it is empty.

    Raises: UsageError with file and line for what is no plain YAML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"-c {path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return _tree_of(text, path, 0)


def read_word(text: str, place: str) -> str | tuple[str, ...] | Tree | None:
    """What a word of a command line is: the text as it is typed; what begins with a bracket or a quotation mark is YAML.

    Raises: UsageError with the place for what is no plain YAML.
    """
    if text in ("", "~", "null"):
        return None
    return _tree_of(text, place, 1) if text[0] in "['\"" else text


def _tree_of(text: str, where: str, depth: int) -> str | tuple[str, ...] | Tree | None:
    node = _compose(text, where)
    return None if node is None else _value(node, where, depth)


def _compose(text: str, where: str) -> yaml.Node | None:
    """The YAML nodes of a text; nothing is made of them.

    Raises: UsageError.
    """
    import yaml

    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        hint = '; between brackets write "${name}" with quotation marks' if "${" in text else ""
        raise UsageError(f"{where}{line}: no YAML ({' '.join(str(error.problem or error).split())}{hint})") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{where}: no YAML ({' '.join(str(error).split())[:200]})") from error


def _value(node: yaml.Node, where: str, depth: int) -> str | tuple[str, ...] | Tree | None:
    import yaml

    place = f"{where}:{node.start_mark.line + 1}" if depth or isinstance(node, yaml.MappingNode) else where
    if depth > _DEEPEST:
        raise UsageError(f"{place}: nested too deeply for a recipe")
    if isinstance(node, yaml.ScalarNode):
        return _text(node, place)
    if isinstance(node, yaml.SequenceNode):
        if node.tag != "tag:yaml.org,2002:seq":
            raise UsageError(f"{place}: the tag {node.tag} is not taken; write plain values")
        items = []
        for item in node.value:
            text = _text(item, place) if isinstance(item, yaml.ScalarNode) else None
            if text is None:
                raise UsageError(f"{where}:{item.start_mark.line + 1}: a list holds texts and numbers alone")
            items.append(text)
        return tuple(items)
    if node.tag != "tag:yaml.org,2002:map":
        raise UsageError(f"{place}: the tag {node.tag} is not taken; write plain values")
    tree: Tree = {}
    for key_node, value_node in node.value:
        here = f"{where}:{key_node.start_mark.line + 1}"
        if key_node.tag == _MERGE:
            raise UsageError(f"{here}: '<<' is not taken; write the values out, or use arms")
        key = _text(key_node, here) if isinstance(key_node, yaml.ScalarNode) else None
        if not key:
            raise UsageError(f"{here}: a name must be a text")
        if key in tree:
            raise UsageError(f"{here}: {key!r} stands here a second time; its first place is {tree[key].place}")
        tree[key] = Entry(_value(value_node, where, depth + 1), here)
    return tree


def _text(node: Any, place: str) -> str | None:
    if node.tag not in _SCALARS:
        raise UsageError(f"{place}: the tag {node.tag} is not taken; write plain values")
    return None if node.tag == _NULL else str(node.value)

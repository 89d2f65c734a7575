"""From files that say how to compare, a recipe and what `contamination` found, to a comparison's options.

# recipe.yaml
primary: {arm: leia, against: plain, metric: acc, groups: [leia_xcsqa]}
"""

import json
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from leia_beam.errors import DamagedInput, UsageError
from leia_eval.catalog import nearest
from leia_eval.comparison import Primary
from leia_eval.run_folder import StoredRun


def read_primary(path: Path) -> Primary:
    """The primary endpoint of a recipe; other sections of it are for other programs.

    Raises: UsageError for a file that is no YAML mapping, and for an unknown key, with the nearest one.
    """
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the recipe {path}: {' '.join(str(error).split())}") from error
    section = loaded.get("primary", {}) if isinstance(loaded, dict) else None
    if not isinstance(section, dict):
        raise UsageError(
            f"the recipe {path} must be a mapping, and its 'primary' one with arm, against, metric, groups"
        )
    known = [field.name for field in fields(Primary)]
    unknown = [key for key in section if key not in known]
    if unknown:
        raise UsageError(f"{path}: unknown key 'primary.{unknown[0]}'; {nearest(str(unknown[0]), known, str(path))}")
    values: dict[str, Any] = {**section, "groups": section.get("groups") or ()}
    groups = values["groups"]
    texts = [values[key] for key in ("arm", "against", "metric") if values.get(key) is not None]
    if isinstance(groups, str) or not all(isinstance(text, str) for text in [*texts, *groups]):
        raise UsageError(f"{path}: 'primary' takes text for arm, against and metric, and a list of texts for groups")
    return Primary(**{**values, "groups": tuple(groups)})


def read_seen(path: Path, run: StoredRun) -> dict[str, Collection[str]]:
    """By task, the ids of items whose question was found in the shards.

    Raises: UsageError for results about other data than the run's.
    """
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        found = {name: (of["data_sha256"], frozenset(of["seen"]["question"])) for name, of in tasks.items()}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedInput(f"{path} is no output of `leia-eval contamination` ({error}); run it again") from error
    seen: dict[str, Collection[str]] = {}
    for task in run.results["tasks"]:
        if task["name"] in found:
            sha256, ids = found[task["name"]]
            if sha256 != task["data_sha256"]:
                raise UsageError(f"{path} is about other data of {task['name']} than the runs; run contamination again")
            seen[task["name"]] = ids
    return seen

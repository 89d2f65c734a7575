"""From a recipe, and from what `contamination` found, to the options of a run or a comparison.

# recipe.yaml
primary: {arm: leia, against: plain, metric: acc, groups: [leia_xcsqa]}
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from leia_beam.configuration import parse
from leia_beam.errors import DamagedInput, UsageError
from leia_beam.recipe import Recipe
from leia_beam.suggestions import nearest
from leia_eval.catalog import read_catalog, select_tasks
from leia_eval.command_line import build_parser, model_options, prompt_options
from leia_eval.comparison import Primary
from leia_eval.run_folder import StoredRun

if TYPE_CHECKING:
    from leia_eval.model_options import ModelOptions
    from leia_eval.preparing import PromptOptions


def run_options(
    path: str, settings: Sequence[str] = (), *, arm: str | None = None, training_seed: int | None = None
) -> tuple["PromptOptions", "ModelOptions", Path]:
    """Prompts, model and output folder of `leia-eval run -c PATH --set SETTING… --arm ARM --training-seed SEED`.

    Raises: UsageError for what is wrong in the recipe, with its line, or missing.
    """
    words = ["run", "-c", path, *(f"--set={setting}" for setting in settings)]
    words += [] if arm is None else ["--arm", arm]
    words += [] if training_seed is None else ["--training-seed", str(training_seed)]
    options = parse(build_parser(), words)
    missing = [name for name in ("tasks", "model", "output") if getattr(options, name) is None]
    if missing:
        raise UsageError(f"{path}: evaluation.{missing[0]} is not given, and does not follow from a folder")
    return prompt_options(options), model_options(options), options.output


def primary_of(recipe: Recipe) -> Primary:
    """The primary endpoint of a recipe.

    Raises: UsageError for an unknown name, arm, task or tag, with the nearest one, and for a list where one text is meant.
    """
    known = [field.name for field in fields(Primary)]
    given = {name: setting for name, setting in recipe.primary.items() if setting.texts}
    for name, setting in recipe.primary.items():
        if name not in known:
            raise UsageError(f"{setting.place}: unknown name 'primary.{name}'{nearest(name, known)}")
        if name != "groups" and isinstance(setting.value, tuple):
            raise UsageError(f"{setting.place}: primary.{name} is one text, not a list")
    texts = {name: setting.texts[0] for name, setting in given.items() if name != "groups"}
    for name in ("arm", "against"):
        if name in texts and recipe.arms and texts[name] not in recipe.arms:
            raise UsageError(
                f"{given[name].place}: primary.{name}: the recipe has no arm {texts[name]!r}{nearest(texts[name], recipe.arms)}"
            )
    if "groups" in given:
        try:
            select_tasks(given["groups"].texts, read_catalog())
        except UsageError as error:
            raise UsageError(f"{given['groups'].place}: primary.groups: {error}") from error
    return Primary(groups=given["groups"].texts if "groups" in given else (), **texts)


def read_seen(path: Path, run: StoredRun) -> dict[str, Collection[str]]:
    """By task, the ids of items whose question was found in the shards.

    Raises: UsageError for results about other data than the run's, or that cannot be read; DamagedInput for another file.
    """
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        found = {name: (of["data_sha256"], frozenset(of["seen"]["question"])) for name, of in tasks.items()}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; `leia-eval contamination` writes it") from error
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

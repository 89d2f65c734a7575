"""From a recipe's folder to the values that follow from it for the commands of evaluation, where they are not given.

FOLDER/training/ARM-SEED/checkpoint-final    what is scored
FOLDER/evaluation/ARM-SEED                   its scores
FOLDER/report                                the comparison of all arms
"""

from leia_beam.recipe import DEFAULT_ARM, TRAINING, Recipe, Setting
from leia_beam.recipe_use import Chosen

CHECKPOINT = "checkpoint-final"

NAMES_OF_RUN = {"check": ""}
NAMES_OF_COMPARE = {"output": "report", "seed": "bootstrap_seed"}
NAMES_OF_CONTAMINATION = {"output": "contamination", "n": "contamination_n", "mix": "contamination_mix"}
"""What options are called in a recipe whose name `run` or `compare` has for something else."""


def for_run(chosen: Chosen) -> dict[str, Setting]:
    """Model and output of an arm and a seed."""
    recipe, given = chosen.recipe, chosen.values.get("training_seed")
    seed = recipe.seed() if given is None else given
    run = recipe.run_folder(chosen.arm, seed)
    found = {"output": recipe.scores_folder(chosen.arm, seed)}
    if run is not None:
        found["model"] = Setting(value=f"{run.texts[0].rstrip('/')}/{CHECKPOINT}", place=run.place)
    return {name: setting for name, setting in found.items() if setting is not None}


def for_compare(chosen: Chosen) -> dict[str, Setting]:
    """The runs of all arms, and where the report goes."""
    recipe = chosen.recipe
    folders = scores_folders(recipe)
    found = {"output": recipe.report_folder()}
    if folders and recipe.folder is not None:
        runs = tuple(f"{arm}={','.join(paths)}" for arm, paths in folders.items())
        found["runs"] = Setting(value=runs, place=f"derived from folder, arms and seeds, {recipe.folder.place}")
    return {name: setting for name, setting in found.items() if setting is not None}


def for_contamination(chosen: Chosen) -> dict[str, Setting]:
    """The corpus, and what is mixed with it in any arm."""
    recipe = chosen.recipe
    mixes = [
        recipe.section(TRAINING, arm).get("mix") for arm in recipe.arms or (DEFAULT_ARM,) if recipe.is_trained(arm)
    ]
    given = [mix for mix in mixes if mix is not None]
    found = {"shards": recipe.corpus_folder()}
    if given:
        texts = dict.fromkeys(text for mix in given for text in mix.texts)
        found["mix"] = Setting(value=tuple(texts), place=f"training.mix of all arms, {given[0].place}")
    return {name: setting for name, setting in found.items() if setting is not None}


def for_report(chosen: Chosen) -> dict[str, Setting]:
    """The runs of all arms."""
    recipe = chosen.recipe
    folders = [path for paths in scores_folders(recipe).values() for path in paths]
    if not folders or recipe.folder is None:
        return {}
    return {"runs": Setting(value=tuple(folders), place=f"derived from folder, {recipe.folder.place}")}


def scores_folders(recipe: Recipe) -> dict[str, list[str]]:
    """By arm, where its runs are scored: one a seed, or one alone for an arm that is not trained."""
    found: dict[str, list[str]] = {}
    for arm in recipe.arms or (DEFAULT_ARM,):
        settings = [recipe.scores_folder(arm, seed) for seed in recipe.seeds or (recipe.seed(),)]
        paths = [setting.texts[0] for setting in settings if setting is not None]
        if paths:
            found[arm] = list(dict.fromkeys(paths))
    return found

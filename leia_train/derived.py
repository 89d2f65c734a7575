"""From a recipe's folder to the values that follow from it for the commands of training, where they are not given.

FOLDER/corpus/shards           what is trained on
FOLDER/training/ARM-SEED       a run
FOLDER/sources                 the tokens of the texts of `mix`, for all runs
FOLDER/baked/ARM-SEED          the rows of a run for another trainer
FOLDER/exported/ARM-SEED       its model for others
"""

from __future__ import annotations

from leia_beam.errors import UsageError
from leia_beam.recipe import DEFAULT_ARM, TRAINING, Recipe, Setting
from leia_beam.recipe_use import Chosen

NAMES_OF_STUDY = {"arms": "", "seeds": "", "dry_run": ""}
NAMES_OF_BAKE = {"output": "baked"}
NAMES_OF_EXPORT = {
    "checkpoint": "output",
    "output": "exported",
    "form": "export_form",
    "dtype": "export_dtype",
    "base": "export_base",
}
NAMES_OF_EXPOSURES = {"run": "output", "output": "exposures", "step": "exposures_step"}
NAMES_OF_REPORT = {"runs": "reported", "output": "training_report", "exposures": "report_exposures"}
"""What options are called in a recipe whose name `train` has for something else."""


def shards_of(recipe: Recipe) -> Setting | None:
    """The shards that the recipe's corpus has."""
    corpus = recipe.corpus_folder()
    if corpus is None:
        return None
    return Setting(value=(f"{corpus.texts[0].rstrip('/')}/shards",), place=corpus.place)


def seed_of(chosen: Chosen) -> int | str:
    """The seed of the run that is meant: the one that is given, else the recipe's first."""
    if "seed" in chosen.values:
        return str(chosen.values["seed"])
    given = chosen.recipe.section(TRAINING, chosen.arm).get("seed")
    return chosen.recipe.seed() if given is None else given.texts[0]


def for_train(chosen: Chosen) -> dict[str, Setting]:
    """Shards, output, seed, and where the sources of a mix are kept.

    Raises: UsageError for an arm that is scored as it is.
    """
    recipe = chosen.recipe
    if not recipe.is_trained(chosen.arm):
        raise UsageError(f"--arm {chosen.arm}: has a model of its own to score, and is not trained")
    found = {"shards": shards_of(recipe), "output": recipe.run_folder(chosen.arm, seed_of(chosen))}
    if "mix" in chosen.values:
        found["mix_store"] = recipe.below_folder("sources")
    if recipe.seeds:
        found["seed"] = Setting(value=str(recipe.seed()), place=f"first of seeds, {recipe.seeds_place}")
    return {name: setting for name, setting in found.items() if setting is not None}


def for_bake(chosen: Chosen) -> dict[str, Setting]:
    """Shards, output and seed."""
    output = chosen.recipe.below_folder(f"baked/{chosen.arm}-{seed_of(chosen)}")
    found = {name: setting for name, setting in for_train(chosen).items() if name != "output"}
    return found if output is None else {**found, "output": output}


def for_export(chosen: Chosen) -> dict[str, Setting]:
    """The run, and where its model goes."""
    seed = seed_of(chosen)
    found = {
        "checkpoint": chosen.recipe.run_folder(chosen.arm, seed),
        "output": chosen.recipe.below_folder(f"exported/{chosen.arm}-{seed}"),
    }
    return {name: setting for name, setting in found.items() if setting is not None}


def for_exposures(chosen: Chosen) -> dict[str, Setting]:
    """The run."""
    run = chosen.recipe.run_folder(chosen.arm, seed_of(chosen))
    return {} if run is None else {"run": run}


def for_report(chosen: Chosen) -> dict[str, Setting]:
    """The runs of all arms and seeds, and where their page goes."""
    recipe = chosen.recipe
    output = recipe.below_folder("report/training.html")
    runs = [
        run.texts[0]
        for seed in recipe.seeds or (recipe.seed(),)
        for arm in recipe.arms or (DEFAULT_ARM,)
        if recipe.is_trained(arm) and (run := recipe.run_folder(arm, seed)) is not None
    ]
    if output is None or not runs:
        return {}
    return {"runs": Setting(value=tuple(runs), place=output.place), "output": output}

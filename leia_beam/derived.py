"""From a recipe's folder to the values that follow from it for the commands over a corpus.

FOLDER/dumps     what `fetch` writes, with a lock file that names the dumps
FOLDER/corpus    what `build` writes
"""

from __future__ import annotations

import os

from leia_beam.recipe import Setting
from leia_beam.recipe_use import Chosen

LOCK_NAME = "dumps.lock.json"
"""What `fetch` leaves (dump_lock, which is not imported here: it takes time that a command line has not)."""


def output_of_build(chosen: Chosen) -> dict[str, Setting]:
    """Where the corpus is."""
    output = chosen.recipe.below_folder("corpus")
    return {} if output is None else {"output": output}


def folders_of_build(chosen: Chosen) -> dict[str, Setting]:
    """Where the corpus is, and where the dumps are: unless others are given, which may be without having fetched any."""
    found, dumps = output_of_build(chosen), chosen.recipe.below_folder("dumps")
    if dumps is not None and ("pages" not in chosen.values or os.path.isfile(f"{dumps.texts[0]}/{LOCK_NAME}")):
        found["dumps"] = dumps
    return found


def output_of_fetch(chosen: Chosen) -> dict[str, Setting]:
    """Where the dumps go."""
    output = chosen.recipe.below_folder("dumps")
    return {} if output is None else {"output": output}

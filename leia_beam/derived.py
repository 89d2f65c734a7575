"""From a recipe's folder to the values that follow from it for the commands over a corpus.

FOLDER/dumps     what `fetch` writes, with a lock file that names the dumps
FOLDER/corpus    what `build` writes
"""

from __future__ import annotations

from leia_beam.recipe import Setting
from leia_beam.recipe_use import Chosen


def output_of_build(chosen: Chosen) -> dict[str, Setting]:
    """Where the corpus is."""
    output = chosen.recipe.below_folder("corpus")
    return {} if output is None else {"output": output}


def dumps_and_output(chosen: Chosen) -> dict[str, Setting]:
    """Where the corpus is, and where the dumps are unless the wiki's are named."""
    values = output_of_build(chosen)
    if not chosen.values.get("pages"):
        values |= dumps_of_fetch(chosen)
    return values


def dumps_of_fetch(chosen: Chosen) -> dict[str, Setting]:
    """Where the dumps go."""
    dumps = chosen.recipe.below_folder("dumps")
    return {} if dumps is None else {"dumps": dumps}

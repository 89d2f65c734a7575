"""From a recipe's folder to the values that follow from it for the commands over a corpus.

FOLDER/dumps     what `fetch` writes, with a lock file that names the dumps
FOLDER/corpus    what `build` writes
"""

from __future__ import annotations

import os
from collections.abc import Collection

from leia_beam.recipe import CORPUS, Setting
from leia_beam.recipe_use import Chosen

LOCK_NAME = "dumps.lock.json"
"""What `fetch` leaves (dump_lock, which is not imported here: it takes time that a command line has not)."""


NOTHING = Setting(value=None, place="")


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


def dumps_of_stage(chosen: Chosen, kinds: Collection[str]) -> dict[str, Setting]:
    """Where the corpus is, and the dumps of these kinds, once they were fetched."""
    return {**output_of_build(chosen), **fetched_dumps(chosen, kinds)}


def fetched_dumps(chosen: Chosen, kinds: Collection[str]) -> dict[str, Setting]:
    """The dumps of these kinds that the lock in the recipe's folder of dumps names.

    Raises: UsageError where they are not whole.
    """
    folder = chosen.recipe.dumps_folder()
    wiki = chosen.values.get("wiki") or "".join(chosen.recipe.section(CORPUS).get("wiki", NOTHING).texts)
    if folder is None or not wiki or not os.path.isfile(f"{folder.texts[0]}/{LOCK_NAME}"):
        return {}
    from leia_beam.dump_lock import LANGLINKS, PAGES, WIKIDATA, WIKIDATA_WIKI, fetched_paths, read_lock
    from leia_beam.wikis import wiki_code

    lock = read_lock(folder.texts[0])
    wikis = {PAGES: wiki_code(wiki), LANGLINKS: wiki_code(wiki), WIKIDATA: WIKIDATA_WIKI}
    return {
        kind: Setting(value=tuple(fetched_paths(folder.texts[0], kind, code)), place=f"fetched, {folder.place}")
        for kind, code in wikis.items()
        if kind in kinds and lock is not None and kind not in chosen.values and lock.of(kind, code)
    }


def output_of_fetch(chosen: Chosen) -> dict[str, Setting]:
    """Where the dumps go."""
    output = chosen.recipe.below_folder("dumps")
    return {} if output is None else {"output": output}

"""The tasks' files are complete, and a name that is none gets the nearest ones."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from leia_beam.errors import UsageError
from leia_eval.catalog import TASKS_FOLDER, read_catalog, select_tasks

LANGUAGES = ["ar", "de", "en", "es", "fr", "hi", "it", "ja", "nl", "pl", "pt", "ru", "sw", "ur", "vi", "zh"]


def test_every_language_has_both_sets_of_x_csr_and_the_files_are_named_after_their_tasks():
    """16 languages of X-CSQA and X-CODAH, 15 of XNLI, 11 of XCOPA, five Japanese sets, and the sample's two."""
    catalog = {name: entry for name, entry in read_catalog().items() if entry.source}
    expected = [f"leia_{kind}_{code}" for kind in ("xcodah", "xcsqa") for code in LANGUAGES]
    expected += [f"leia_{name}" for name in ("jaqket_v2", "jcommonsenseqa", "jemhopqa", "jsquad", "niilc")]
    expected += ["leia_sample_es", "leia_sample_ja"]
    others = [name for name in catalog if name.startswith(("leia_xnli", "leia_xcopa"))]
    assert len(others) == 15 + 11
    assert list(catalog) == sorted([*expected, *others])
    assert all(entry.path.stem == name for name, entry in catalog.items())
    coded = [entry for entry in catalog.values() if entry.tags != ("leia_ja",)]
    assert all(entry.name.rsplit("_", 1)[1] in entry.languages for entry in coded)
    assert catalog["leia_xcsqa_ja"].data_files == ("xcsqa_ja.jsonl", "X-CSQA/jap/dev.jsonl")
    assert str(catalog["leia_xcodah_ja"].source.hub) == "INK-USC/xcsr (X-CODAH-jap)"


def test_what_the_groups_name_is_in_the_installed_lm_eval():
    """Each member of a group is a task or a group of lm-eval's own, and plain lm-eval sees our groups."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=TASKS_FOLDER)
    named = [entry.name for entry in read_catalog().values() if entry.source is None]
    assert len(named) > 50
    assert set(named) <= set(manager.all_tasks)
    assert {"leia_belebele", "leia_mgsm", "leia_ja_leaderboard"} <= set(manager.all_groups)


def test_the_tasks_files_are_packaged():
    """An installed package holds every file under tasks/: each matches a pattern of pyproject's package data."""
    path = Path(__file__).parents[2] / "pyproject.toml"
    if not path.is_file():
        pytest.skip("no pyproject.toml beside the tests")
    patterns = tomllib.loads(path.read_text())["tool"]["setuptools"]["package-data"]["leia_eval"]
    for file in TASKS_FOLDER.rglob("*"):
        name = file.relative_to(TASKS_FOLDER.parent).as_posix()
        alike = [p for p in patterns if fnmatch(name, p) and ("**" in p or p.count("/") == name.count("/"))]
        assert alike or file.is_dir(), f"{name} is in none of {patterns}"


def test_the_catalog_and_lm_eval_see_the_same_tasks():
    """lm-eval's own index of the folder holds these tasks and tags and nothing else."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=TASKS_FOLDER, include_defaults=False)
    own = [entry for entry in read_catalog().values() if entry.source]
    assert manager.all_subtasks == sorted(entry.name for entry in own)
    assert manager.all_tags == sorted({tag for entry in own for tag in entry.tags})


def test_a_tag_stands_for_its_tasks_and_each_is_taken_once():
    """Order as given, no task twice."""
    names = [entry.name for entry in select_tasks(["leia_sample_ja", "leia_sample"], read_catalog())]
    assert names == ["leia_sample_ja", "leia_sample_es"]


def test_an_unknown_task_gets_the_nearest_names():
    """The message suggests, or says where the list is."""
    with pytest.raises(UsageError, match=r"unknown task 'leia_xcsqa_jp'; did you mean leia_xcsqa_"):
        select_tasks(["leia_xcsqa_jp"], read_catalog())
    with pytest.raises(UsageError, match=r"unknown task 'qqq'; `leia-eval ls` lists"):
        select_tasks(["qqq"], read_catalog())
    with pytest.raises(UsageError, match="no task was named"):
        select_tasks([], read_catalog())

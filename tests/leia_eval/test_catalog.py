"""The tasks' files are complete, and a name that is none gets the nearest ones."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from leia_beam.errors import UsageError
from leia_eval.catalog import TASKS_FOLDER, read_catalog, select_tasks

LANGUAGES = ["ar", "de", "en", "es", "fr", "hi", "it", "ja", "nl", "pl", "pt", "ru", "sw", "ur", "vi", "zh"]


def test_every_language_of_x_csqa_has_a_task_and_the_sample_has_two():
    """16 languages, two sample tasks, each file named after its task."""
    catalog = read_catalog()
    assert list(catalog) == ["leia_sample_es", "leia_sample_ja", *(f"leia_xcsqa_{code}" for code in LANGUAGES)]
    assert all(entry.path.stem == name for name, entry in catalog.items())
    assert all(entry.name.rsplit("_", 1)[1] in entry.languages for entry in catalog.values())
    assert catalog["leia_xcsqa_ja"].data_files == ("xcsqa_ja.jsonl", "X-CSQA/jap/dev.jsonl")
    assert catalog["leia_sample_es"].data_files == ("eswiki.jsonl",)


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
    assert manager.all_subtasks == sorted(read_catalog())
    assert manager.all_tags == ["leia_sample", "leia_xcsqa"]


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

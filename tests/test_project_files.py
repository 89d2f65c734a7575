"""The files around the code agree with one another: extras, pins, type checker, hooks, workflow, Makefile."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = CONFIGURATION["project"]
PACKAGES = ("leia_beam", "leia_train", "leia_eval", "pipelines")


CUDA_EXTRAS = ("flash", "liger")
APART = ("deepspeed",)
"""Pinned, and tested in an environment by itself (`make test-deepspeed`)."""


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    found = {str(canonicalize_name(name)): version for name, version in pins}
    assert len(found) == len(pins), "a package is pinned twice"
    return found


def test_each_dependency_is_pinned_within_its_range() -> None:
    """Of the base and of each extra but those that are not installed here."""
    pins = _pins()
    extras = {name: needed for name, needed in PROJECT["optional-dependencies"].items() if name not in CUDA_EXTRAS}
    for needed in [PROJECT["dependencies"], *extras.values()]:
        for text in needed:
            requirement = Requirement(text)
            name = str(canonicalize_name(requirement.name))
            if name != "leia-lm":
                assert name in pins, f"{text} has no line in constraints.txt"
                assert requirement.specifier.contains(pins[name]), f"{text}, but constraints.txt has {pins[name]}"


def test_all_is_every_extra_that_installs_without_cuda() -> None:
    """`all` names the others, but for what is kept apart."""
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(Requirement(everything).extras) == set(PROJECT["optional-dependencies"]) - {"all", *CUDA_EXTRAS, *APART}


def test_the_base_needs_no_torch() -> None:
    """What Beam's workers install."""
    names = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert not names & {"torch", "transformers", "accelerate", "datasets", "lm-eval"}


def test_every_package_is_typed_checked_and_shipped() -> None:
    """py.typed in each, mypy over all, one configuration of each tool."""
    assert CONFIGURATION["tool"]["mypy"]["files"] == list(PACKAGES)
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
        assert "py.typed" in CONFIGURATION["tool"]["setuptools"]["package-data"][package]
    shipped = set(CONFIGURATION["tool"]["setuptools"]["packages"])
    assert shipped == {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    for other in ("mypy.ini", ".mypy.ini", "ruff.toml", ".ruff.toml", "setup.cfg", "tox.ini", ".flake8", "pytest.ini"):
        assert not (ROOT / other).exists(), f"{other}: the configuration is in pyproject.toml"


def test_the_classifiers_are_the_pythons_that_it_takes() -> None:
    """requires-python and the list of versions."""
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    requirement = Requirement(f"python{PROJECT['requires-python']}")
    assert versions == [f"3.{minor}" for minor in range(30) if requirement.specifier.contains(f"3.{minor}.0")]


def _targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))


def test_ci_and_hooks_run_what_the_makefile_has() -> None:
    """The workflow calls .ci/run, .ci/run calls targets, hooks are of this tree and fetch nothing."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    called = re.findall(r"^make ([\w-]+)$", script, re.MULTILINE)
    assert called == ["test", "test-processes", "test-deepspeed", "packaging", "test-runners"] and set(
        called
    ) <= _targets(makefile)
    assert re.search(r"^test: .*\blint\b", makefile, re.MULTILINE)
    lint = makefile.partition("\nlint: ")[2].partition("\n\n")[0]
    assert "ruff check" in lint and "ruff format --check" in lint and "mypy" in lint
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in hooks["repos"]] == ["local"]
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system" and hook["entry"].startswith(".venv/bin/")


def test_targets_that_make_no_file_are_phony() -> None:
    """Else a folder `docs` would make `make docs` do nothing."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert _targets(makefile) <= set(listed.split())

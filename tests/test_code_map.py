"""CONTRIBUTING.md names each module of the tree once, and no other."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.test_boundaries import imports_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("leia_beam", "leia_beam/markup", "pipelines", "leia_train", "leia_eval")


def named_modules(page: str, package: str) -> Counter[str]:
    """How often the first column of the package's table names each module."""
    section = page.partition(f"\n### {package}: ")[2].partition("\n### ")[0]
    rows = re.findall(r"^\|((?: `\w+`)+) \|", section, re.MULTILINE)
    return Counter(name for row in rows for name in re.findall(r"\w+", row))


def test_each_module_stands_in_the_map_once() -> None:
    """Packages by their sections."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for package in PACKAGES:
        modules = {path.stem for path in (ROOT / package).glob("*.py") if not path.stem.startswith("__")}
        assert named_modules(page, package) == Counter(modules), package


def test_a_module_that_is_missing_or_named_twice_is_seen() -> None:
    """The comparison can fail."""
    page = (
        "\n### one: a package\n| modules | what |\n|---|---|\n| `a` `b` | x |\n| `a` | y |\n\n### two: b\n| `c` | z |\n"
    )
    assert named_modules(page, "one") == {"a": 2, "b": 1} != Counter({"a", "b"})
    assert named_modules(page, "two") == {"c": 1}


def test_the_map_of_the_builder_is_in_the_order_of_its_imports() -> None:
    """A module imports only from lines above it or from its own."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("\n### leia_beam: ")[2].partition("\n### ")[0]
    rows = re.findall(r"^\|((?: `\w+`)+) \|", section, re.MULTILINE)
    line_of = {name: number for number, row in enumerate(rows) for name in re.findall(r"\w+", row)}
    backwards = []
    for module, line in line_of.items():
        source = (ROOT / "leia_beam" / f"{module}.py").read_text(encoding="utf-8")
        imported = {name.split(".")[1] for name in imports_of(source) if re.match(r"leia_beam\.\w", name)}
        imported = {"wikitext" if name == "markup" else name for name in imported}
        backwards += [f"{module} imports {name}" for name in imported if line_of.get(name, 0) > line]
    assert not backwards

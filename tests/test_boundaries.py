"""Who may import whom: pure modules know nothing of Beam or torch, and data flows one way."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("leia_beam", "leia_train", "leia_eval", "pipelines")

BEAM_MODULES = {"leia_beam.sources", "leia_beam.transforms"}
"""The modules of leia_beam that may import Beam; all of pipelines may."""
CONTRACT = {f"leia_beam.{name}" for name in ("errors", "schema", "manifest", "tokenizer_identity", "tokenization")}
"""What the trainer may import of the builder's data; `tokenization`, so that other texts have the articles' rules."""
COMMAND_LINE = {
    f"leia_beam.{name}"
    for name in (
        "arguments",
        "completion",
        "configuration",
        "recipe",
        "recipe_tree",
        "recipe_use",
        "suggestions",
        "termination",
        "version",
    )
}
"""What all three command lines share."""
SHARED = {f"leia_beam.{name}" for name in ("chatter", "console", "findings")}
"""What all three say things with."""
DOCTOR = {f"leia_beam.{name}" for name in ("hub_checks", "machine_checks", "package_checks")}
"""What the doctors of the builder and the trainer share."""
PAGES = {f"leia_beam.{name}" for name in ("html_bars", "html_pages", "svg_charts")}
"""What all pages of HTML are made of; plain Python, for all packages."""
READERS = {f"leia_train.{name}" for name in ("mix_sources", "opening", "text_sources")}
"""What leia_eval's search for seen items reads the trainer's other sources with, so that it reads what was trained on."""
TORCHLESS = {
    f"leia_train.{name}"
    for name in (
        *(
            "config",
            "data_config",
            "document_turns",
            "insertion",
            "mix_sources",
            "mixture",
            "opening",
            "packing",
            "plan",
            "row_turns",
        ),
        *("store", "text_sources", "text_store"),
    )
}


def imports_of(source: str) -> set[str]:
    """All modules that a source imports, also inside functions; `from a import b` counts as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _modules() -> dict[str, set[str]]:
    """Module → what it imports, for all packages."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            modules[name] = imports_of(path.read_text(encoding="utf-8"))
    return modules


MODULES = _modules()


def reached_from(module: str, modules: dict[str, set[str]]) -> set[str]:
    """All that importing a module brings in, through our own modules."""
    reached, open_ = set(), [module]
    while open_:
        for name in modules.get(open_.pop(), set()):
            if name not in reached:
                reached.add(name)
                open_.append(name)
    return reached


def _uses(imported: set[str], package: str) -> bool:
    return any(name == package or name.startswith(package + ".") for name in imported)


def test_only_the_transforms_import_beam() -> None:
    """The logic is plain functions; Beam schedules it."""
    users = {name for name, imported in MODULES.items() if _uses(imported, "apache_beam")}
    assert {name for name in users if name.startswith("leia_")} == BEAM_MODULES
    assert users - BEAM_MODULES and all(name.startswith("pipelines.") for name in users - BEAM_MODULES)


def test_the_builder_knows_nothing_of_torch_or_the_other_packages() -> None:
    """What Beam's workers install has no torch in it."""
    for name, imported in MODULES.items():
        if name.startswith(("leia_beam", "pipelines")):
            for package in ("torch", "transformers", "accelerate", "datasets", "lm_eval", "leia_train", "leia_eval"):
                assert not _uses(imported, package), (name, package)


def test_only_the_command_line_knows_the_pipelines() -> None:
    """Everything else of leia_beam is below them."""
    users = {name for name, imported in MODULES.items() if _uses(imported, "pipelines") and name.startswith("leia_")}
    assert users == {"leia_beam.cli"}


def test_the_trainer_takes_the_contract_alone_from_the_builder() -> None:
    """leia_train reads shards by schema, manifest and tokenizer identity; leia_eval shares the errors, and looks for seen
    items in shards by their manifest, in other sources by the trainer's readers."""
    own = set(MODULES)
    for name, imported in MODULES.items():
        taken = {module for module in imported & own if module.startswith("leia_beam.")}
        if name.startswith("leia_train"):
            doctors = DOCTOR if name == "leia_train.doctor" else set()
            assert taken <= CONTRACT | COMMAND_LINE | SHARED | PAGES | doctors, name
            assert not _uses(imported, "apache_beam") and not _uses(imported, "leia_eval")
        if name.startswith("leia_eval"):
            allowed = {
                "leia_beam.errors",
                *SHARED,
                *COMMAND_LINE,
                *PAGES,
                *(["leia_beam.manifest"] if name == "leia_eval.contamination" else []),
            }
            assert taken <= allowed, name
            readers = READERS if name == "leia_eval.contamination" else set()
            assert {module for module in imported & own if module.startswith("leia_train")} <= readers, name


@pytest.mark.parametrize("module", sorted(TORCHLESS))
def test_the_data_side_of_the_trainer_needs_no_torch(module: str) -> None:
    """Store, plan, insertion and packing are numpy alone, so that they can be tested and baked without a model."""
    assert module in MODULES
    reached = reached_from(module, MODULES)
    assert not _uses(reached, "torch") and not _uses(reached, "transformers") and not _uses(reached, "accelerate")


def test_the_command_lines_share_what_needs_nothing() -> None:
    """Recipes are read with the standard library and YAML, which a command without a recipe does not import either."""
    for name in COMMAND_LINE:
        outside = {each.partition(".")[0] for each in reached_from(name, MODULES)} - {"leia_beam"}
        assert outside <= set(sys.stdlib_module_names) | {"yaml", "shtab"}, name


def test_modules_import_one_another_without_a_cycle() -> None:
    """A module imports only what stands before it."""
    for name in MODULES:
        assert name not in reached_from(name, MODULES), f"{name} is part of an import cycle"


def test_package_files_are_empty() -> None:
    """Importing a package costs nothing and exports nothing twice."""
    for package in PACKAGES:
        assert (ROOT / package / "__init__.py").read_text().strip() == ""


def test_these_tests_can_fail() -> None:
    """A forbidden import is found, also inside a function and through another module."""
    modules = {
        "leia_beam.a": imports_of("def f():\n    from leia_beam import b\n"),
        "leia_beam.b": imports_of("import torch.nn as nn\n"),
    }
    assert _uses(reached_from("leia_beam.a", modules), "torch")
    assert not _uses(imports_of("import torchaudio"), "torch")

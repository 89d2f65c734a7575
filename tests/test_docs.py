"""The documentation does what it says: its blocks are run, its commands exist, its pages build without a warning."""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from leia_beam.cli import main as build
from leia_beam.recipe import read_recipe
from tests.conftest import Sample
from tests.docs_blocks import (
    ROOT,
    PageFailed,
    beginning_of,
    environment_for,
    kind_of,
    pages,
    read_blocks,
    run_page,
    steps_of,
)
from tests.docs_commands import NoSuchCommand, check_code_span, check_script, code_spans
from tests.docs_folders import beginning, prepare_built, prepare_dumps

PAGES = pages()
BY_NAME = {str(page.relative_to(ROOT)): page for page in PAGES}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of the pages' commands."""
    return environment_for(tmp_path_factory.mktemp("bin"))


@pytest.fixture(scope="module")
def folder_of(
    sample: Sample, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Path], None]:
    """Fills a page's folder; what is built for several pages is built once."""
    made: dict[str, Path] = {}

    def fill(name: str, folder: Path) -> None:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            prepare_dumps(made[name], sample.folder)
            if name == "built":
                prepare_built(made[name], environment)
        shutil.copytree(made[name], folder, symlinks=True)

    return fill


@pytest.mark.parametrize("name", BY_NAME)
def test_what_a_page_shows_is_what_its_blocks_print(
    name: str, environment: dict[str, str], folder_of: Callable[[str, Path], None], tmp_path: Path
) -> None:
    """Each block of the page, in order, in a folder of its own."""
    page = BY_NAME[name]
    if not any(kind_of(block) == "run" or block.marks for block in read_blocks(page)):
        return
    folder, begins = tmp_path / "page", beginning_of(page)
    folder_of(begins, folder)
    with beginning("dumps" if begins == "built" else begins, folder, environment) as mirrored:
        wrong = [difference.message for difference in run_page(page, folder, mirrored)]
    assert not wrong, "\n".join([*wrong, f"right as it is? python tests/docs_blocks.py {name}"])


@pytest.mark.parametrize("name", BY_NAME)
def test_commands_that_are_not_run_are_commands(name: str) -> None:
    """Blocks that say why they are not run, and code within sentences."""
    for block in read_blocks(BY_NAME[name]):
        if kind_of(block) == "checked":
            assert len(block.marks["not run"]) > 10, f"{block.where}: say why it is not run"
            script = block.text if block.language == "sh" else "\n".join(step.command for step in steps_of(block))
            assert check_script(script), f"{block.where}: no command in it"
    for span in code_spans(BY_NAME[name]):
        check_code_span(span)


def test_no_block_is_neither_run_nor_checked() -> None:
    """All that could be a command is counted; the numbers only grow unless somebody looks here."""
    counts = Counter(kind_of(block) for page in PAGES for block in read_blocks(page))
    commands = Counter(
        "run" if kind_of(block) == "run" else "checked"
        for page in PAGES
        for block in read_blocks(page)
        if block.language == "console"
        for _ in steps_of(block)
    )
    spans = sum(check_code_span(span) for page in PAGES for span in code_spans(page))
    print(f"blocks {dict(counts)}, commands {dict(commands)}, commands within sentences {spans}")
    assert counts["run"] >= 40 and counts["checked"] >= 12 and spans >= 70


@pytest.mark.parametrize(
    "script",
    [
        "leia-beam bild --pages FILE",
        "leia-beam build --tokeniser DIR",
        "leia-beam build --align edges",
        "leia-train train --stepz 5",
        "leia-eval run --task X",
        "make sandwich",
        "pip install '.[training]'",
        "pip install leia",
        "docker build -f deploy/nowhere/Dockerfile .",
        "python recipes/demo/walk.py",
        "frobnicate --all",
    ],
)
def test_a_command_that_is_gone_is_found(script: str) -> None:
    """The check of commands can fail."""
    with pytest.raises(NoSuchCommand):
        check_script(script)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("```console\n$ echo a\nb\n```\n", None),
        ("```console\n$ exit 3\n```\n", "exit code 3, not 0"),
        ("```python\nprint('a')\n```\n\n<!-- printed -->\n```text\nb\n```\n", None),
        ("```python\nprint('a')\n```\n", "nothing shows what"),
        ("```python\nraise SystemExit(1)\n```\n", "exit code 1, not 0"),
        ("```sh\nfalse\n```\n", "exit code 1, not 0"),
    ],
)
def test_a_page_that_shows_something_else_is_found(
    content: str, message: str | None, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The comparison can fail, and so can each kind of block."""
    monkeypatch.setattr("tests.docs_blocks.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(content, encoding="utf-8")
    if message is None:
        assert len(list(run_page(page, tmp_path, environment))) == 1
    else:
        with pytest.raises(PageFailed, match=message):
            list(run_page(page, tmp_path, environment))


def test_the_page_of_recipes_names_each_and_what_they_share() -> None:
    """Every recipe of the tree, with three seeds, a primary endpoint, and the arms that the page promises."""
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(recipes/\S+)` \|", page, re.MULTILINE))
    files = [path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name != "accelerate"]
    assert named == {str(path.relative_to(ROOT)) for path in files}
    for name in named:
        recipe = read_recipe(str(ROOT / name))
        assert {"plain", "leia", "permuted"} <= set(recipe.arms), name
        assert len(recipe.seeds) == 3 and recipe.primary, name


def test_the_picture_is_what_a_build_of_the_sample_gives(sample: Sample, tmp_path: Path) -> None:
    """Drawn again, byte for byte; and its functions are as their examples say."""
    spec = importlib.util.spec_from_file_location("make_picture", ROOT / "docs" / "make_picture.py")
    assert spec is not None and spec.loader is not None
    picture = importlib.util.module_from_spec(spec)
    sys.modules["make_picture"] = picture
    spec.loader.exec_module(picture)
    assert doctest.testmod(picture).failed == 0
    assert build([*sample.build_arguments("jawiki", tmp_path / "ja"), "--workers", "1", "--quiet"]) == 0
    drawn = picture.draw(tmp_path / "ja")
    assert drawn == picture.PICTURE.read_text(encoding="utf-8"), "draw it again: python docs/make_picture.py"
    for text in ("東京", "Q17", "Japan", "&lt;translate&gt;"):
        assert text in drawn


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation."""
    if importlib.util.find_spec("sphinx") is None or importlib.util.find_spec("myst_parser") is None:
        if os.environ.get("CI"):
            pytest.fail("the extra 'docs' is not installed: pip install -c constraints.txt '.[docs]'")
        pytest.skip("the extra 'docs' is not installed")
    output = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-b", "html"]
    result = subprocess.run(
        [*command, "-d", str(output / "doctrees"), str(ROOT / "docs"), str(output / "html")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return output / "html"


class _Links(HTMLParser):
    """What a page loads, what it links to, and the places in it."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.loads += [value for name in ("src", "srcset", "data") if (value := values.get(name))]
        href = values.get("href")
        if href is not None:
            (self.links if tag == "a" else self.loads).append(href)
        if (place := values.get("id")) is not None:
            self.places.add(place)


def test_the_pages_build_strictly_and_load_nothing_from_elsewhere(site: Path) -> None:
    """Each page of docs/ is there; scripts, styles and pictures are files of the site; links lead somewhere."""
    found = {}
    for file in sorted(site.glob("*.html")):
        found[file.name] = _Links()
        found[file.name].feed(file.read_text(encoding="utf-8"))
    assert {f"{page.stem}.html" for page in PAGES if page.parent.name == "docs"} <= set(found)
    for name, page in found.items():
        for load in page.loads:
            assert not re.match(r"(https?:)?//", load), f"{name} loads {load}"
            if not load.startswith(("data:", "#")):
                assert (site / load.partition("?")[0].partition("#")[0]).exists(), f"{name} loads {load}"
        for link in page.links:
            target, _, place = link.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            assert not target or target in found, f"{name} links to {link}"
            if place and name not in ("genindex.html", "search.html"):
                assert place in found[target or name].places, f"{name} links to {link}"

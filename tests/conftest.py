"""Fixtures that several test folders share: the packed sample and builds of it."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.engines import Space

# The same examples in every run, so that a test of chance never stops somebody else's change. To look for new ones:
# pytest --hypothesis-profile=search
# No limit on time: a loaded machine is no fault of what is tested.
_ALL: dict[str, Any] = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fixed", derandomize=True, **_ALL)
settings.register_profile("search", **_ALL)
settings.register_profile("few", derandomize=True, max_examples=20, **_ALL)  # other Pythons
settings.load_profile("fixed")

# Of help and tables, which else are as wide as the terminal that the tests were started in.
os.environ["COLUMNS"] = "80"
# What is on this machine is asked without the proxy that a machine may have; requests and urllib read the small letters first.
for _name in ("NO_PROXY", "no_proxy"):
    os.environ[_name] = ",".join(filter(None, [os.environ.get(_name), "127.0.0.1", "localhost"]))

SAMPLE_SOURCES = Path(__file__).parent / "data" / "sample"
ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def own_host() -> str:
    """This machine's name, which no output may hold; where it is a plain word, which texts hold anyway, a name of nobody."""
    name = os.uname().nodename
    return name if len(name) >= 8 and re.search(r"[-.0-9]", name) else "no name that could be looked for"


OTHER_HOST = "host-of-the-test"
"""The machine's name where a test asks for `other_host`: no text holds it by chance."""


@pytest.fixture
def other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has another name, whichever way this process asks."""
    here = os.uname()
    named = os.uname_result((here.sysname, OTHER_HOST, here.release, here.version, here.machine))
    monkeypatch.setattr(os, "uname", lambda: named)
    monkeypatch.setattr(socket, "gethostname", lambda: OTHER_HOST)
    monkeypatch.setattr(platform, "node", lambda: OTHER_HOST)


@pytest.fixture
def in_named_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is one whose name, `folder-of-the-test`, no text holds by chance."""
    monkeypatch.chdir(tmp_path_factory.mktemp("folder-of-the-test"))


@dataclass(frozen=True)
class Sample:
    """The bundled sample as dump files."""

    folder: Path

    def pages(self, wiki: str) -> str:
        """The wiki's dump."""
        return str(self.folder / f"{wiki}-20260101-pages-articles-multistream.xml.bz2")

    @property
    def wikidata(self) -> str:
        """The Wikidata dump of both wikis."""
        return str(self.folder / "wikidata-20260101-all.json.bz2")

    @property
    def tokenizer(self) -> str:
        """The folder of the small tokenizer."""
        return str(self.folder / "tokenizer")

    def build_arguments(self, wiki: str, output: Path) -> list[str]:
        """`leia-beam build …` of one wiki."""
        return [
            "build",
            *("--pages", self.pages(wiki)),
            *("--wikidata", self.wikidata),
            *("--wiki", wiki),
            *("--tokenizer", self.tokenizer),
            *("--output", str(output)),
        ]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """The sample, packed once a session."""
    spec = importlib.util.spec_from_file_location("sample_pack", SAMPLE_SOURCES / "pack.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)

    sys.modules["sample_pack"] = module
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("sample")
    module.pack_sample(folder)
    return Sample(folder)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's output folder, after a run with few steps as a newcomer starts it."""
    output = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, str(ROOT / "recipes/demo/run.py"), "--output", str(output), "--steps", "4"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Open {output / 'index.html'} in a browser." in result.stdout
    return output


@pytest.fixture
def shared_data() -> Path:
    """The folder of real dumps beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real dumps of ../shared/data are not here")
    return SHARED_DATA


@pytest.fixture(scope="module")
def space() -> Iterator[Space]:
    """A network name space with loopback alone, for what opens ports."""
    from tests.engines import network_space

    with network_space() as made:
        yield made

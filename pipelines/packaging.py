"""From the installed packages, wherever they came from, to the folder that Beam's `--setup_file` takes.

A checkout has a setup.py, an installed wheel has none, and a checkout's would bring the trainer and its dependencies
along. So a folder is made of what workers import, with a setup.py that asks for nothing: the dependencies are in the
worker's image. Version and name are the installed ones, which workers compare with the launcher's.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path

DISTRIBUTION = "leia-lm"
PACKAGES = ("leia_beam", "pipelines")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")
_SETUP = '''"""What workers import, without dependencies: those are in their image."""

from setuptools import find_packages, setup

setup(
    name={name!r},
    version={version!r},
    packages=find_packages(),
    package_data={{"leia_beam": ["data/*", "py.typed"], "pipelines": ["py.typed"]}},
)
'''


def write_source_folder(folder: Path) -> Path:
    """Copy the packages and write a setup.py beside them; its path."""
    for package in PACKAGES:
        with as_file(files(package)) as source:
            shutil.copytree(source, folder / package, ignore=_LEFT_OUT)
    setup = folder / "setup.py"
    setup.write_text(_SETUP.format(name=DISTRIBUTION, version=version(DISTRIBUTION)), encoding="utf-8")
    # Only what setup.py names goes into the archive unless this says more.
    (folder / "MANIFEST.in").write_text("recursive-include leia_beam/data *\n", encoding="utf-8")
    (folder / "README.md").write_text("What workers import of leia-lm.\n", encoding="utf-8")
    return setup

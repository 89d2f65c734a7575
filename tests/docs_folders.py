"""From the bundled sample to the folder that a page of the documentation begins with."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs_blocks import ROOT

OF_THE_PROJECT = ("tests", "recipes", "benchmarks", "docs", "deploy", "Makefile", "constraints.txt", "pyproject.toml")
"""What a page's commands may name of the clone in which a reader runs them."""


def prepare_dumps(folder: Path, sample: Path) -> None:
    """A clone as a reader has it, with the sample packed into dumps/."""
    for name in OF_THE_PROJECT:
        os.symlink(ROOT / name, folder / name)
    shutil.copytree(sample, folder / "dumps")


def prepare_built(folder: Path, environment: dict[str, str]) -> None:
    """What the quick start makes: a build, two trained models, their scores, a comparison.

    Raises: subprocess.CalledProcessError.
    """
    for command in BUILT:
        subprocess.run(["bash", "-c", command], cwd=folder, env=environment, check=True, capture_output=True, text=True)


@contextmanager
def beginning(name: str, folder: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Bring a folder with dumps to what a page begins with; the environment of the page's commands."""
    if name == "built":
        prepare_built(folder, environment)
    if name != "mirror":
        yield environment
        return
    from tests.local_mirror import serving, write_mirror

    with tempfile.TemporaryDirectory() as mirror, serving(write_mirror(Path(mirror))) as server:
        yield {**environment, "MIRROR": server.address.rstrip("/")}


BUILT = (
    "leia-beam build --pages dumps/jawiki-20260101-pages-articles-multistream.xml.bz2 "
    "--wikidata dumps/wikidata-20260101-all.json.bz2 --wiki jawiki --tokenizer dumps/tokenizer --output work/ja/corpus",
    *(
        f"leia-train train --shards work/ja/corpus/shards --model tiny-llama --strategy {strategy} --steps 4 --batch 8 "
        "--max-length 256 --learning-rate 3e-3 --validation-share 0.05 "
        f"--output work/ja/training/{arm}-1 && "
        f"leia-eval run --model work/ja/training/{arm}-1/checkpoint-final --tasks leia_sample_ja "
        f"--data-dir tests/data/sample/eval --output work/ja/evaluation/{arm}-1"
        for arm, strategy in (("plain", "none"), ("leia", "right"))
    ),
)
"""The quick start's results without its recipe, so that one thing that breaks does not break every page."""

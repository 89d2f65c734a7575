"""From the bundled sample to the folder that a page of the documentation begins with."""

from __future__ import annotations

import os
import shutil
import subprocess
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

"""The demo: from the bundled sample's sources to one page that shows what LEIA does, with the commands that users type.

Packs the sample as dumps, builds the shards of both wikis, trains a tiny model from random weights for a few steps with
plain text and with inserted names, scores both, and writes OUTPUT/index.html. No network, no GPU, no hub. The model is far
too small and too little trained to know anything: the scores show that the path works, not what LEIA is worth.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SAMPLE = ROOT / "tests" / "data" / "sample"
WIKIS = ("jawiki", "eswiki")
ARMS = {"plain": "none", "leia": "right"}
TASKS = "leia_sample_ja,leia_sample_es"


def main() -> int:
    """Run all steps; each command is printed as it is run. Returns the exit code of the first that fails."""
    parser = argparse.ArgumentParser(description="The sample's dumps to shards, models, scores and one page.")
    parser.add_argument("--output", default="demo", help="folder for all results (default: demo)")
    parser.add_argument("--steps", type=int, default=20, help="training steps of each arm (default: 20)")
    options = parser.parse_args()
    output = Path(options.output)
    began = time.monotonic()
    for title, command in steps(output, options.steps):
        print(f"\n── {title}\n   {shlex.join(shown(command))}", flush=True)
        code = subprocess.run(command, check=False, env=environment()).returncode
        if code != 0:
            print(
                f"demo: this step ended with exit code {code}; what is finished is kept, run it again", file=sys.stderr
            )
            return code
    elapsed_s = time.monotonic() - began
    page = output / "index.html"
    page.write_text(_page(output, options.steps, elapsed_s), encoding="utf-8")
    print(f"\nThe demo took {elapsed_s:.0f} s. Open {page} in a browser.")
    return 0


def environment() -> dict[str, str]:
    """One thread a process, so that two cores are not fought over, and no look at the hub."""
    return {**os.environ, "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def steps(output: Path, training_steps: int) -> list[tuple[str, list[str]]]:
    """(title, command) of each step."""
    dumps = output / "dumps"
    commands = [("the sample as dumps", [sys.executable, str(SAMPLE / "pack.py"), str(dumps)])]
    for wiki in WIKIS:
        first = wiki == WIKIS[0]
        wikidata = dumps / "wikidata-20260101-all.json.bz2" if first else output / "build" / WIKIS[0] / "sitelinks"
        command = [
            *("leia-beam", "build"),
            *("--pages", str(dumps / f"{wiki}-20260101-pages-articles-multistream.xml.bz2")),
            *("--wikidata", str(wikidata)),
            *("--wiki", wiki, "--name-languages", "en"),
            *("--tokenizer", str(dumps / "tokenizer")),
            *("--output", str(output / "build" / wiki)),
        ]
        commands.append((f"dumps to shards: {wiki}", _module(command)))
    for arm, strategy in ARMS.items():
        command = [
            *("leia-train", "train"),
            *("--shards", *(str(output / "build" / wiki / "shards") for wiki in WIKIS)),
            *("--model", "tiny-llama", "--strategy", strategy, "--steps", str(training_steps)),
            *("--learning-rate", "3e-3", "--max-length", "256", "--batch", "16", "--validation-share", "0.03"),
            *("--output", str(output / "train" / arm)),
        ]
        commands.append((f"training: {arm}", _module(command)))
    for arm in ARMS:
        command = [
            *("leia-eval", "run"),
            *("--model", str(output / "train" / arm / "checkpoint-final")),
            *("--tasks", TASKS, "--data-dir", str(SAMPLE / "eval")),
            *("--output", str(output / "eval" / arm)),
        ]
        commands.append((f"evaluation: {arm}", _module(command)))
    comparison = [
        *("leia-eval", "compare"),
        *(f"{arm}={output / 'eval' / arm}" for arm in ARMS),
        *("--output", str(output / "eval" / "comparison")),
    ]
    commands.append(("comparison", _module(comparison)))
    return commands


def _module(command: list[str]) -> list[str]:
    """A console script as `python -m`, so that the demo runs in the environment that runs it."""
    return [sys.executable, "-m", command[0].replace("-", "_"), *command[1:]]


def shown(command: list[str]) -> list[str]:
    """A command as a user types it."""
    command = [os.path.relpath(part, ROOT) if part.startswith(f"{ROOT}{os.sep}") else part for part in command]
    if command[1] == "-m":
        return [command[2].replace("_", "-"), *command[3:]]
    return ["python", *command[1:]]


def _page(output: Path, training_steps: int, elapsed_s: float) -> str:
    sys.path.insert(0, str(HERE))
    import page

    return page.demo_page(
        builds={wiki: output / "build" / wiki for wiki in WIKIS},
        metrics={arm: _metrics(output / "train" / arm) for arm in ARMS},
        results={arm: json.loads((output / "eval" / arm / "results.json").read_bytes()) for arm in ARMS},
        comparison=output / "eval" / "comparison" / "comparison.json",
        commands=[shlex.join(shown(command)) for _, command in steps(output, training_steps)],
        elapsed_s=elapsed_s,
    )


def _metrics(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


if __name__ == "__main__":
    sys.exit(main())

"""The demo: from the bundled sample's sources to one page that shows what LEIA does, with the commands that users type.

Packs the sample as dumps, builds the shards of both wikis, and runs the study of recipe.yaml: a tiny model from random weights
is trained for a few steps with plain text and with inserted names, and both are scored and compared. OUTPUT/index.html shows
it all. No network, no GPU, no hub. The model is far too small and too little trained to know anything: the scores show that
the path works, not what LEIA is worth.
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
RECIPE = HERE / "recipe.yaml"
WIKIS = ("jawiki", "eswiki")
ARMS, SEED = ("plain", "leia"), 1
DEFAULTS = {"output": "demo", "training.steps": "20"}
"""What the recipe has, and need not be said."""


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
    settings = {"output": str(output), "sample": str(SAMPLE), "training.steps": str(training_steps)}
    recipe = ["-c", str(RECIPE)]
    for name, value in settings.items():
        if value != DEFAULTS.get(name):
            recipe += ["--set", f"{name}={value}"]
    first = output / "build" / WIKIS[0] / "sitelinks"
    return [
        ("the sample as dumps", [sys.executable, str(SAMPLE / "pack.py"), str(output / "dumps")]),
        (f"dumps to shards: {WIKIS[0]}", _module(["leia-beam", "build", *recipe])),
        (
            f"dumps to shards: {WIKIS[1]}, with the Wikidata that was read for {WIKIS[0]}",
            _module(["leia-beam", "build", *recipe, "--set", f"wiki={WIKIS[1]}", "--wikidata", str(first)]),
        ),
        (
            "training, scores, comparison",
            _module(["leia-train", "study", *recipe, "--arms", ",".join(ARMS), "--seeds", str(SEED)]),
        ),
    ]


def _module(command: list[str]) -> list[str]:
    """A console script as `python -m`, so that the demo runs in the environment that runs it."""
    return [sys.executable, "-m", command[0].replace("-", "_"), *command[1:]]


def shown(command: list[str]) -> list[str]:
    """A command as a user types it in the repository."""
    command = [part.replace(f"{ROOT}{os.sep}", "") for part in command if part != f"sample={SAMPLE}"]
    command = [part for part, after in zip(command, [*command[1:], ""]) if part != "--set" or "=" in after]
    if command[1] == "-m":
        return [command[2].replace("_", "-"), *command[3:]]
    return ["python", *command[1:]]


def _page(output: Path, training_steps: int, elapsed_s: float) -> str:
    sys.path.insert(0, str(HERE))
    import page

    runs = {arm: f"{arm}-{SEED}" for arm in ARMS}
    return page.demo_page(
        builds={wiki: output / "build" / wiki for wiki in WIKIS},
        metrics={arm: _metrics(output / "training" / run) for arm, run in runs.items()},
        scores={arm: output / "evaluation" / run for arm, run in runs.items()},
        comparison=output / "report" / "comparison.json",
        commands=[shlex.join(shown(command)) for _, command in steps(output, training_steps)],
        elapsed_s=elapsed_s,
    )


def _metrics(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


if __name__ == "__main__":
    sys.exit(main())

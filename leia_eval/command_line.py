"""From the command line of `leia-eval` to its options, and from those of `run` to the dataclasses of a run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from leia_beam.arguments import Parser, add_output_of_progress, names, new_command
from leia_beam.completion import PrintCompletion
from leia_beam.configuration import Options, add_recipe_options
from leia_beam.recipe import EVALUATION
from leia_beam.recipe_use import RecipeUse
from leia_beam.version import ShowVersion
from leia_eval import derived

if TYPE_CHECKING:
    from leia_eval.model_options import ModelOptions
    from leia_eval.preparing import PromptOptions

PROGRAM = "leia-eval"
_PACKAGES = ("lm-eval", "torch", "transformers", "tokenizers", "datasets", "numpy", "vllm")


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog=PROGRAM, description="Scores language models on choices and on generated answers, and compares them."
    )
    parser.add_argument("--version", action=ShowVersion, packages=_PACKAGES)
    parser.add_argument("--print-completion", action=PrintCompletion)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_ls(commands)
    _add_run(commands)
    _add_compare(commands)
    _add_report(commands)
    _add_contamination(commands)
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def _add_ls(commands: _Commands) -> None:
    ls = new_command(
        commands,
        "ls",
        "list the tasks",
        description="Lists the tasks and the data that they read.",
        example="leia-eval ls --data-dir data",
    )
    ls.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with the data; says which task's is there")
    add_recipe_options(ls, RecipeUse(section=EVALUATION))


def _add_run(commands: _Commands) -> None:
    run = new_command(
        commands,
        "run",
        "score a model on tasks",
        description="Scores a Hugging Face checkpoint; writes results.json, samples, a report. An interrupted run goes on.",
        example="leia-eval run --model runs/ja/checkpoint-final --tasks leia_xcsqa_ja --data-dir data --output scores/ja\n"
        "  leia-eval run -c recipe.yaml --arm leia --training-seed 2",
    )
    group = run.add_argument_group("what is scored")
    group.add_argument("--model", metavar="DIR", help="checkpoint: a folder, or a name on the hub (required)")
    group.add_argument(
        "--tasks",
        type=names,
        metavar="A,B",
        help="tasks, tags or groups, with commas; `leia-eval ls` lists them (required)",
    )
    group.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder with the tasks' data files (default: from the hub)"
    )
    group.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the results (required, but not with --dry-run)"
    )
    group.add_argument("--overwrite", action="store_true", help="replace the results of another run in --output")
    group.add_argument("--dry-run", action="store_true", help="print three full prompts a task; loads no model")
    group.add_argument(
        "--check",
        action="store_true",
        help="print as JSON what scores depend on beside the model, and whether those in --output do; scores nothing",
    )
    add_output_of_progress(group)
    group = run.add_argument_group("prompts and items")
    group.add_argument(
        "--profile", default="standard", metavar="NAME", help="standard, or reference: the paper's own rules"
    )
    group.add_argument(
        "--shots", type=int, metavar="N", help="solved items before each (default: 0, or the paper's in reference)"
    )
    group.add_argument("--seed", type=int, default=42, metavar="N", help="seed that chooses the shots")
    group.add_argument("--pmi", action="store_true", help="also score each choice after nothing, for PMI")
    group.add_argument(
        "--limit", type=int, metavar="N", help="score N items of each task, drawn by their ids (default: all)"
    )
    group.add_argument("--limit-seed", type=int, default=42, metavar="N", help="seed that draws them")
    group = run.add_argument_group("how it is computed")
    group.add_argument(
        "--batch-size",
        type=int,
        default=8,
        metavar="N",
        help="requests at once, for vllm some hundred; halved when memory runs out",
    )
    group.add_argument(
        "--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:N, mps, or auto: spread over all GPUs"
    )
    group.add_argument(
        "--dtype", default="float32", metavar="NAME", help="float32, bfloat16, float16, or auto: as stored"
    )
    group.add_argument("--backend", default="hf", metavar="NAME", help="hf, or vllm where it is installed")
    group.add_argument("--untrained", type=int, metavar="SEED", help="random weights of the same shape: a task's floor")
    group.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder of answers, shared by runs (default: OUTPUT/cache)"
    )
    add_recipe_options(
        run, RecipeUse(section=EVALUATION, names=derived.NAMES_OF_RUN, derive=derived.for_run, has_arms=True)
    ).add_argument(
        "--training-seed", type=int, metavar="N", help="the seed of the arm's training (default: the recipe's first)"
    )


def _add_compare(commands: _Commands) -> None:
    compare = new_command(
        commands,
        "compare",
        "compare arms item by item",
        description="Compares arms of one or more runs with the first arm: paired differences, intervals and tests.",
        example="leia-eval compare plain=scores/plain-1,scores/plain-2 leia=scores/leia-1,scores/leia-2 --output report\n"
        "  leia-eval compare -c recipe.yaml",
    )
    compare.add_argument(
        "runs", nargs="*", default=[], metavar="ARM=DIR[,DIR]", help="an arm and its runs (seeds); the base first"
    )
    compare.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="a file .md, .html or .json, or a folder for all three (default: Markdown on stdout)",
    )
    compare.add_argument("--floor", type=Path, metavar="DIR", help="a run with --untrained, shown beside chance")
    compare.add_argument("--contamination", type=Path, metavar="FILE", help="also compare clean and seen items apart")
    compare.add_argument("--seed", type=int, default=42, metavar="N", help="seed of the bootstrap")
    add_recipe_options(
        compare,
        RecipeUse(section=EVALUATION, names=derived.NAMES_OF_COMPARE, derive=derived.for_compare, also=("primary",)),
    )


def _add_report(commands: _Commands) -> None:
    report = new_command(
        commands,
        "report",
        "write a run's report again",
        description="Writes report.md and report.html from the samples alone.",
        example="leia-eval report scores/ja",
    )
    report.add_argument(
        "runs", nargs="*", default=[], type=Path, metavar="DIR", help="the --output folder of a finished run"
    )
    add_recipe_options(report, RecipeUse(section=EVALUATION, names={"runs": "reported"}, derive=derived.for_report))


def _add_contamination(commands: _Commands) -> None:
    contamination = new_command(
        commands,
        "contamination",
        "find evaluation items in the training text",
        description="Says which items' questions and answers occur in a build's shards, and in what is mixed with them in "
        "training, by n-grams.",
        example="leia-eval contamination --shards build/ja/shards --tasks leia_jsquad --data-dir data --output seen.json\n"
        "  leia-eval contamination -c recipe.yaml",
    )
    contamination.add_argument("--shards", type=Path, metavar="DIR", help="a build, or its shards (required)")
    contamination.add_argument(
        "--mix",
        nargs="+",
        action="extend",
        metavar="SOURCE",
        default=[],
        help="sources beside them as `leia-train train --mix` has them, read whole (default: those of all arms of the recipe); "
        "none: the shards alone",
    )
    contamination.add_argument("--tasks", type=names, metavar="A,B", help="tasks or tags, with commas (required)")
    contamination.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder with the data (default: from the hub)"
    )
    contamination.add_argument(
        "--n", type=int, metavar="N", help="length of the grams (default: 8 words, or 13 characters)"
    )
    contamination.add_argument("--output", type=Path, metavar="FILE", help="JSON for `compare --contamination`")
    add_output_of_progress(contamination)
    add_recipe_options(
        contamination,
        RecipeUse(section=EVALUATION, names=derived.NAMES_OF_CONTAMINATION, derive=derived.for_contamination),
    )


def prompt_options(options: Options) -> "PromptOptions":
    """What decides the prompts of a `run`."""
    from leia_eval.preparing import PromptOptions

    return PromptOptions(
        tasks=options.tasks,
        data_dir=options.data_dir,
        shots=options.shots,
        limit=options.limit,
        limit_seed=options.limit_seed,
        seed=options.seed,
        profile=options.profile,
        pmi=options.pmi,
    )


def model_options(options: Options) -> "ModelOptions":
    """What decides the scores of given prompts in a `run`."""
    from leia_eval.model_options import ModelOptions

    return ModelOptions(
        model=options.model,
        batch_size=options.batch_size,
        device=options.device,
        dtype=options.dtype,
        backend=options.backend,
        untrained_seed=options.untrained,
        cache_dir=options.cache,
    )

"""From a command line to a run, a comparison or a list of tasks, and to an exit code.

Nothing heavy is imported before the options are known to be good: ``--help`` takes the time of Python and argparse.
"""

import argparse
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from leia_beam.errors import LeiaError, MissingResource, UsageError, exit_code_of

PROGRAM = "leia-eval"
OUTPUT_FORMS = (".md", ".html", ".json")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (0 done, 2 usage, 3 damaged input, 5 environment, 6 other output)."""
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except LeiaError as error:
        return _fail(error, str(error))
    except KeyboardInterrupt as error:
        return _fail(error, "interrupted; the same command starts again")
    except MemoryError as error:
        return _fail(error, "out of memory; lower --batch-size")
    except BrokenPipeError:
        sys.stdout = None  # whoever read us has gone: say nothing more
        return 0
    except ModuleNotFoundError as error:
        missing = MissingResource(f"the package '{error.name}' is not installed; pip install 'leia-lm[eval]'")
        return _fail(missing, str(missing))
    except OSError as error:
        failed = MissingResource(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        return _fail(failed, str(failed))
    except Exception as error:  # noqa: BLE001, a fault of the program itself: said here, not passed over
        traceback.print_exc()
        return _fail(error, f"unexpected {type(error).__name__}: {error}; please report it with the lines above")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(prog=PROGRAM, description="Scores language models on multiple-choice tasks, and compares them.")
    parser.add_argument("--version", action="store_true", help="print the version and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    ls = commands.add_parser("ls", help="list the tasks", description="Lists the tasks and the data files they read.")
    ls.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with the data; says which task's is there")

    run = commands.add_parser(
        "run",
        help="score a model on tasks",
        description="Scores a local Hugging Face checkpoint through lm-eval; writes results.json, samples, a report.",
    )
    _add(run, "--model", type=Path, metavar="DIR", help="checkpoint: config.json, tokenizer.json, weights (required)")
    _add(run, "--tasks", metavar="A,B", help="tasks or tags, separated by commas; `leia-eval ls` lists them (required)")
    _add(run, "--data-dir", type=Path, metavar="DIR", help="folder with the tasks' data files (required)")
    _add(run, "--output", type=Path, metavar="DIR", help="folder for the results (required, but not with --dry-run)")
    _add(run, "--shots", type=int, default=0, metavar="N", help="solved items before each item, fixed per item")
    _add(run, "--limit", type=int, metavar="N", help="score the first N items of each task (default: all)")
    _add(run, "--seed", type=int, default=42, metavar="N", help="seed that chooses the shots")
    _add(run, "--batch-size", type=int, default=8, metavar="N", help="choices scored at once")
    _add(run, "--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:N or mps")
    _add(run, "--dtype", default="float32", metavar="NAME", help="float32, bfloat16, float16, or auto: as stored")
    _add(run, "--overwrite", action="store_true", help="replace the results of another run in --output")
    _add(run, "--dry-run", action="store_true", help="print three full prompts a task; loads no model")

    compare = commands.add_parser(
        "compare",
        help="compare runs item by item",
        description="Compares finished runs with the first one: paired differences with intervals and tests.",
    )
    compare.add_argument("runs", nargs="*", metavar="NAME=DIR", help="a run's name and folder; the base first")
    _add(
        compare,
        "--output",
        type=Path,
        metavar="PATH",
        help="a file .md, .html or .json, or a folder for all three (default: Markdown on stdout)",
    )
    _add(compare, "--seed", type=int, default=42, metavar="N", help="seed of the bootstrap")
    return parser


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of ending the process, and takes no abbreviations."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def _add(parser: argparse.ArgumentParser, flag: str, **options: Any) -> None:
    """A flag whose help ends with its default."""
    if options.get("default") is not None:
        options["help"] += f" (default: {options['default']})"
    parser.add_argument(flag, **options)


def _dispatch(arguments: list[str]) -> int:
    parser = build_parser()
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction)).choices
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if command is not None and command not in commands:
        raise UsageError(f"unknown command '{command}'; {_nearest(command, commands, PROGRAM)}")
    try:
        options, unknown = parser.parse_known_args(arguments)
    except SystemExit as ended:  # --help
        return int(ended.code or 0)
    if unknown:
        known = commands[command] if command else parser
        flag = unknown[0].split("=")[0]
        flags = [option for option in known._option_string_actions if option.startswith("--")]
        raise UsageError(f"unknown option '{flag}'; {_nearest(flag, flags, known.prog)}")
    if options.version:
        from leia_eval.runner import own_version

        print(f"{PROGRAM} {own_version()}")
        return 0
    if command is None:
        parser.print_help()
        return 0
    {"ls": _ls, "run": _run, "compare": _compare}[command](options)
    sys.stdout.flush()
    return 0


def _ls(options: argparse.Namespace) -> None:
    from leia_eval.catalog import read_catalog
    from leia_eval.documents import find_data_file

    catalog = read_catalog()
    if options.data_dir is not None and not options.data_dir.is_dir():
        raise UsageError(f"--data-dir {options.data_dir} is not a folder")
    width = max(map(len, catalog))
    for entry in catalog.values():
        note = " or ".join(entry.data_files)
        if options.data_dir is not None:
            try:
                note = f"data: {find_data_file(options.data_dir, entry.data_files, entry.name)}"
            except UsageError:
                note = f"no data: {note}"
        print(f"{entry.name:<{width}}  tag {','.join(entry.tags)}  version {entry.version}  {note}")


def _run(options: argparse.Namespace) -> None:
    from leia_eval import runner

    required = ("tasks", "data_dir") if options.dry_run else ("tasks", "data_dir", "model", "output")
    missing = [f"--{name.replace('_', '-')}" for name in required if getattr(options, name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be given; see `{PROGRAM} run --help`")
    prompts = runner.PromptOptions(
        tasks=tuple(name.strip() for name in options.tasks.split(",") if name.strip()),
        data_dir=options.data_dir,
        shots=options.shots,
        limit=options.limit,
        seed=options.seed,
    )
    if options.dry_run:
        print(runner.dry_run(prompts))
        return
    model = runner.ModelOptions(
        model=options.model, batch_size=options.batch_size, device=options.device, dtype=options.dtype
    )
    results = runner.run(prompts, model, options.output, overwrite=options.overwrite)

    from leia_eval.report import run_markdown

    print(run_markdown(results), end="")
    print(f"\nResults: {options.output / 'results.json'}, page: {options.output / 'report.html'}")


def _compare(options: argparse.Namespace) -> None:
    named: dict[str, Path] = {}
    for argument in options.runs:
        name, equals, folder = argument.partition("=")
        if not (name and equals and folder):
            raise UsageError(f"'{argument}' is not NAME=DIR; for example: {PROGRAM} compare base=DIR leia=DIR")
        if name in named:
            raise UsageError(f"two runs are named '{name}'; give each its own name")
        named[name] = Path(folder)
    if len(named) < 2:
        raise UsageError(f"{len(named)} runs to compare; give two or more: {PROGRAM} compare base=DIR leia=DIR")
    if options.seed < 0:
        raise UsageError(f"--seed {options.seed} must be 0 or more")
    if options.output is not None and options.output.suffix not in (*OUTPUT_FORMS, ""):
        raise UsageError(f"--output {options.output} must end in {', '.join(OUTPUT_FORMS)}, or in nothing for a folder")

    from leia_eval import report
    from leia_eval.comparison import compare_runs
    from leia_eval.run_folder import read_run, to_json, write_file

    runs = [(name, read_run(folder)) for name, folder in named.items()]
    comparison = compare_runs(runs, seed=options.seed)
    if options.output is None:
        print(report.comparison_markdown(comparison), end="")
        return
    fragment = report.comparison_html(comparison, {name: run.samples for name, run in runs})
    contents = {
        ".md": report.comparison_markdown(comparison).encode(),
        ".html": report.page("leia-eval compare", fragment).encode(),
        ".json": to_json(comparison),
    }
    if options.output.suffix:
        write_file(options.output, contents[options.output.suffix])
    else:
        for suffix, content in contents.items():
            write_file(options.output / f"comparison{suffix}", content)
    print(f"Comparison: {options.output}")


def _nearest(name: str, known: Iterable[str], prog: str) -> str:
    from leia_eval.catalog import nearest

    return nearest(name, known, f"{prog} --help")


def _fail(error: BaseException, message: str) -> int:
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return exit_code_of(error)

"""From a command line to a run, a comparison, a report, a search for seen items or a list, and to an exit code.

Nothing heavy is imported before the options are known to be good: ``--help`` takes the time of Python and argparse.
"""

import argparse
import sys
import traceback
import unicodedata
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
        return _fail(error, "interrupted; what was answered is kept, and the same command goes on")
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
    parser = _Parser(
        prog=PROGRAM, description="Scores language models on choices and on generated answers, and compares them."
    )
    parser.add_argument("--version", action="store_true", help="print the version and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    ls = commands.add_parser("ls", help="list the tasks", description="Lists the tasks and the data that they read.")
    ls.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with the data; says which task's is there")

    run = commands.add_parser(
        "run",
        help="score a model on tasks",
        description="Scores a Hugging Face checkpoint; writes results.json, samples, a report. An interrupted run goes on.",
    )
    _add(run, "--model", metavar="DIR", help="checkpoint: a folder, or a name on the hub (required)")
    _add(run, "--tasks", metavar="A,B", help="tasks, tags or groups, with commas; `leia-eval ls` lists them (required)")
    _add(run, "--data-dir", type=Path, metavar="DIR", help="folder with the tasks' data files (default: from the hub)")
    _add(run, "--output", type=Path, metavar="DIR", help="folder for the results (required, but not with --dry-run)")
    _add(run, "--profile", default="standard", metavar="NAME", help="standard, or reference: the paper's own rules")
    _add(
        run, "--shots", type=int, metavar="N", help="solved items before each (default: 0, or the paper's in reference)"
    )
    _add(run, "--pmi", action="store_true", help="also score each choice after nothing, for PMI")
    _add(run, "--limit", type=int, metavar="N", help="score N items of each task, drawn by their ids (default: all)")
    _add(run, "--limit-seed", type=int, default=42, metavar="N", help="seed that draws them")
    _add(run, "--seed", type=int, default=42, metavar="N", help="seed that chooses the shots")
    _add(
        run,
        "--batch-size",
        type=int,
        default=8,
        metavar="N",
        help="requests at once, for vllm some hundred; halved when memory runs out",
    )
    _add(run, "--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:N, mps, or auto: spread over all GPUs")
    _add(run, "--dtype", default="float32", metavar="NAME", help="float32, bfloat16, float16, or auto: as stored")
    _add(run, "--backend", default="hf", metavar="NAME", help="hf, or vllm where it is installed")
    _add(run, "--untrained", type=int, metavar="SEED", help="random weights of the same shape: a task's floor")
    _add(run, "--cache", type=Path, metavar="DIR", help="folder of answers, shared by runs (default: OUTPUT/cache)")
    _add(run, "--overwrite", action="store_true", help="replace the results of another run in --output")
    _add(run, "--dry-run", action="store_true", help="print three full prompts a task; loads no model")

    compare = commands.add_parser(
        "compare",
        help="compare arms item by item",
        description="Compares arms of one or more runs with the first arm: paired differences, intervals and tests.",
    )
    compare.add_argument("runs", nargs="*", metavar="ARM=DIR[,DIR]", help="an arm and its runs (seeds); the base first")
    _add(
        compare,
        "--output",
        type=Path,
        metavar="PATH",
        help="a file .md, .html or .json, or a folder for all three (default: Markdown on stdout)",
    )
    _add(
        compare,
        "-c",
        "--recipe",
        type=Path,
        metavar="FILE",
        help="YAML with the primary endpoint (default: leia - plain)",
    )
    _add(compare, "--floor", type=Path, metavar="DIR", help="a run with --untrained, shown beside chance")
    _add(compare, "--contamination", type=Path, metavar="FILE", help="also compare clean and seen items apart")
    _add(compare, "--seed", type=int, default=42, metavar="N", help="seed of the bootstrap")

    report = commands.add_parser(
        "report",
        help="write a run's report again",
        description="Writes report.md and report.html from the samples alone.",
    )
    report.add_argument("runs", nargs="*", type=Path, metavar="DIR", help="the --output folder of a finished run")

    contamination = commands.add_parser(
        "contamination",
        help="find evaluation items in the training text",
        description="Says which items' questions and answers occur in a build's shards, by n-grams.",
    )
    _add(contamination, "--shards", type=Path, metavar="DIR", help="a build, or its shards (required)")
    _add(contamination, "--tasks", metavar="A,B", help="tasks or tags, with commas (required)")
    _add(contamination, "--data-dir", type=Path, metavar="DIR", help="folder with the data (default: from the hub)")
    _add(contamination, "--n", type=int, metavar="N", help="length of the grams (default: 8 words, or 13 characters)")
    _add(contamination, "--output", type=Path, metavar="FILE", help="JSON for `compare --contamination`")
    return parser


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of ending the process, and takes no abbreviations."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def _add(parser: argparse.ArgumentParser, *flags: str, **options: Any) -> None:
    """A flag whose help ends with its default."""
    if options.get("default") is not None:
        options["help"] += f" (default: {options['default']})"
    parser.add_argument(*flags, **options)


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
    handlers = {"ls": _ls, "run": _run, "compare": _compare, "report": _report, "contamination": _contamination}
    handlers[command](options)
    sys.stdout.flush()
    return 0


def _ls(options: argparse.Namespace) -> None:
    from leia_eval.catalog import read_catalog
    from leia_eval.documents import find_data_file

    catalog = read_catalog()
    if options.data_dir is not None and not options.data_dir.is_dir():
        raise UsageError(f"--data-dir {options.data_dir} is not a folder")
    width = max(map(len, catalog))
    lines = []
    for entry in catalog.values():
        rank = 2
        if entry.source is None:
            note = "lm-eval's own, from the hub"
        else:
            note = " or ".join([*entry.data_files, *([f"hub: {entry.source.hub}"] if entry.source.hub else [])])
            if entry.source.shot_files:
                note += f"; shots: {' or '.join(entry.source.shot_files)}"
            rank = 1
            if options.data_dir is not None:
                try:
                    note = f"data: {find_data_file(options.data_dir, entry.data_files, entry.name)}"
                    rank = 0
                except UsageError:
                    note = f"no data: {note}"
        lines.append((rank, f"{entry.name:<{width}}  tag {','.join(entry.tags)}  version {entry.version}  {note}"))
    for _, line in sorted(lines, key=lambda line: line[0]):  # what can be run now, then our own, then lm-eval's
        print(line)


def _run(options: argparse.Namespace) -> None:
    from leia_eval import preparing, runner
    from leia_eval.chatter import chatter_to

    required = ("tasks",) if options.dry_run else ("tasks", "model", "output")
    _require(options, required, "run")
    prompts = preparing.PromptOptions(
        tasks=_names(options.tasks),
        data_dir=options.data_dir,
        shots=options.shots,
        limit=options.limit,
        limit_seed=options.limit_seed,
        seed=options.seed,
        profile=options.profile,
        pmi=options.pmi,
    )
    if options.dry_run:
        if options.data_dir is not None:
            runner.go_offline()
        with chatter_to(None):
            text = preparing.dry_run(prompts)
        print(_visible(text))
        return
    model = runner.ModelOptions(
        model=options.model,
        batch_size=options.batch_size,
        device=options.device,
        dtype=options.dtype,
        backend=options.backend,
        untrained_seed=options.untrained,
        cache_dir=options.cache,
    )
    results = runner.run(prompts, model, options.output, overwrite=options.overwrite)
    if results is None:  # not the first of several processes
        return

    from leia_eval.report import run_markdown

    print(run_markdown(results), end="")
    print(f"\nResults: {options.output / 'results.json'}, page: {options.output / 'report.html'}")


def _compare(options: argparse.Namespace) -> None:
    named: dict[str, list[Path]] = {}
    for argument in options.runs:
        name, equals, folders = argument.partition("=")
        if not (name and equals and all(folders.split(","))):
            raise UsageError(f"'{argument}' is not NAME=DIR; for example: {PROGRAM} compare base=DIR leia=DIR,DIR")
        if name in named:
            raise UsageError(f"two runs are named '{name}'; give each its own name")
        named[name] = [Path(folder) for folder in folders.split(",")]
    if len(named) < 2:
        raise UsageError(f"{len(named)} runs to compare; give two or more: {PROGRAM} compare base=DIR leia=DIR")
    if options.seed < 0:
        raise UsageError(f"--seed {options.seed} must be 0 or more")
    if options.output is not None and options.output.suffix not in (*OUTPUT_FORMS, ""):
        raise UsageError(f"--output {options.output} must end in {', '.join(OUTPUT_FORMS)}, or in nothing for a folder")

    from leia_eval import comparison_report, recipe
    from leia_eval.comparison import CompareOptions, Primary, compare_arms
    from leia_eval.run_folder import read_run, to_json, write_file

    arms = [(name, [read_run(folder) for folder in folders]) for name, folders in named.items()]
    compare_options = CompareOptions(
        seed=options.seed,
        primary=recipe.read_primary(options.recipe) if options.recipe else Primary(),
        floor=read_run(options.floor) if options.floor else None,
        seen=recipe.read_seen(options.contamination, arms[0][1][0]) if options.contamination else {},
    )
    comparison = compare_arms(arms, compare_options)
    if options.output is None:
        print(comparison_report.comparison_markdown(comparison), end="")
        return
    samples = {name: runs[0].samples for name, runs in arms}
    contents = {
        ".md": comparison_report.comparison_markdown(comparison).encode(),
        ".html": comparison_report.comparison_page(comparison, samples).encode(),
        ".json": to_json(comparison),
    }
    if options.output.suffix:
        write_file(options.output, contents[options.output.suffix])
    else:
        for suffix, content in contents.items():
            write_file(options.output / f"comparison{suffix}", content)
    print(f"Comparison: {options.output}")


def _report(options: argparse.Namespace) -> None:
    if not options.runs:
        raise UsageError(f"no run was given; {PROGRAM} report DIR")
    from leia_eval import report
    from leia_eval.run_folder import read_run, write_file

    for folder in options.runs:
        run = read_run(folder)
        text = report.run_markdown(run.results)
        write_file(folder / "report.md", text.encode())
        write_file(folder / "report.html", report.run_page(run.results, run.samples).encode())
        print(text, end="")


def _contamination(options: argparse.Namespace) -> None:
    _require(options, ("shards", "tasks"), "contamination")
    from leia_eval import contamination
    from leia_eval.catalog import read_catalog, select_tasks
    from leia_eval.documents import read_source
    from leia_eval.run_folder import to_json, write_file

    entries = select_tasks(_names(options.tasks), read_catalog())
    searches = []
    for entry in entries:
        if entry.source is None:
            raise UsageError(f"{entry.name} is lm-eval's own; contamination reads the tasks of this project")
        items = read_source(entry.source, options.data_dir, entry.name).items
        asked = [contamination.item_of(document) for document in items.documents]
        searches.append((entry, items, contamination.Search(asked, language=entry.language, n=options.n)))
    results = contamination.look_for([search for _, _, search in searches], contamination.shard_texts(options.shards))
    found = {}
    for (entry, items, _), seen in zip(searches, results, strict=True):
        from_wikipedia = bool(entry.metadata.get("from_wikipedia"))
        found[entry.name] = {**seen, "data_sha256": items.sha256, "from_wikipedia": from_wikipedia}
        question, answer = (f"{100 * seen['share'][part]:.1f} %" for part in contamination.PARTS)
        made = "  (made from Wikipedia)" if from_wikipedia else ""
        print(
            f"{entry.name}: {seen['items']} items; question seen {question}, answer seen {answer}; "
            f"n = {seen['n']} {seen['unit']}{made}"
        )
    if options.output is not None:
        write_file(options.output, to_json({"tasks": found}))


def _require(options: argparse.Namespace, names: Sequence[str], command: str) -> None:
    missing = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be given; see `{PROGRAM} {command} --help`")


def _visible(text: str) -> str:
    """Text of data for a terminal: what would steer it, or turn the reading order, is written as an escape (S3)."""
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in ("Cc", "Cf") else f"\\u{ord(char):04x}"
        for char in text
    )


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def _nearest(name: str, known: Iterable[str], prog: str) -> str:
    from leia_eval.catalog import nearest

    return nearest(name, known, f"{prog} --help")


def _fail(error: BaseException, message: str) -> int:
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return exit_code_of(error)

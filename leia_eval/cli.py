"""From a command line to a run, a comparison, a report, a search for seen items or a list, and to an exit code.

Nothing heavy is imported before the options are known to be good: ``--help`` takes the time of Python and argparse.
"""

import sys
import traceback
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from leia_beam.configuration import Options, config_lines, parse, told_where
from leia_beam.console import Console
from leia_beam.errors import LeiaError, MissingResource, UsageError, exit_code_of
from leia_beam.termination import end_with_parent, termination_as_interrupt
from leia_eval.command_line import PROGRAM, build_parser, model_options, prompt_options

NO_MIX = "none"
OUTPUT_FORMS = (".md", ".html", ".json")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (0 done, 2 usage, 3 damaged input, 5 environment, 6 other output)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console(PROGRAM, quiet="--quiet" in arguments, as_json="--log-json" in arguments)
    try:
        with termination_as_interrupt():
            end_with_parent()
            return _dispatch(arguments, console)
    except LeiaError as error:
        return _fail(console, error, str(error))
    except KeyboardInterrupt as error:
        kept = str(error) or "interrupted; what was answered is kept, and the same command goes on"
        console.interrupted(kept, exit_code_of(error))
        return exit_code_of(error)
    except MemoryError as error:
        return _fail(console, error, "out of memory; lower --batch-size")
    except BrokenPipeError:
        sys.stdout = None  # whoever read us has gone: say nothing more
        return 0
    except ModuleNotFoundError as error:
        missing = MissingResource(f"the package '{error.name}' is not installed; pip install 'leia-lm[eval]'")
        return _fail(console, missing, str(missing))
    except OSError as error:
        failed = MissingResource(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        return _fail(console, failed, str(failed))
    except Exception as error:  # noqa: BLE001, a fault of the program itself: said here, not passed over
        traceback.print_exc()
        return _fail(
            console, error, f"unexpected {type(error).__name__}: {error}; please report it with the lines above"
        )
    finally:
        console.clear()


def _dispatch(arguments: list[str], console: Console) -> int:
    parser = build_parser()
    try:
        options = parse(parser, arguments)
    except SystemExit as ended:  # --help and the like
        return int(ended.code or 0)
    if options.command is None:
        parser.print_help()
        return 0
    handlers = {"ls": _ls, "run": _run, "compare": _compare, "report": _report, "contamination": _contamination}
    options.console = console
    console.settle(quiet=getattr(options, "quiet", False), as_json=getattr(options, "log_json", False))
    with told_where(options):
        if options.print_config:
            _check(options)
            print("\n".join(config_lines(options)))
        else:
            handlers[options.command](options)
    sys.stdout.flush()
    return 0


def _check(options: Options) -> None:
    """Refuse at once what a command with these options would refuse after the training: its tasks, its primary endpoint."""
    from leia_eval import recipe
    from leia_eval.catalog import read_catalog, select_tasks

    if getattr(options, "tasks", None):
        select_tasks(options.tasks, read_catalog())
    if options.command == "compare":
        recipe.primary_of(options.recipe_read)


def _ls(options: Options) -> None:
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


def _run(options: Options) -> None:
    from leia_beam.chatter import chatter_to
    from leia_eval import preparing, runner

    required = ("tasks",) if options.dry_run else ("tasks", "model", "output")
    _require(options, required, "run")
    prompts = prompt_options(options)
    if options.check:
        _require(options, ("tasks", "model", "output"), "run")
        _check_conditions(options)
        return
    if options.dry_run:
        if options.data_dir is not None:
            runner.go_offline()
        with chatter_to(None):
            text = preparing.dry_run(prompts)
        print(_visible(text))
        return
    results = runner.run(
        prompts, model_options(options), options.output, overwrite=options.overwrite, console=options.console
    )
    if results is None:  # not the first of several processes
        return

    from leia_eval.report import run_markdown

    print(run_markdown(results), end="")
    print(f"\nResults: {options.output / 'results.json'}, page: {options.output / 'report.html'}")


def _check_conditions(options: Options) -> None:
    import json

    from leia_eval.conditions import check_results, conditions, differences

    found = conditions(prompt_options(options), model_options(options))
    differing = differences(found, options.output)
    if not options.overwrite:
        check_results(differing, options.output)
    print(json.dumps({**found, "differing": differing}, ensure_ascii=False, sort_keys=True))


def _compare(options: Options) -> None:
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
    from leia_eval.comparison import CompareOptions, compare_arms
    from leia_eval.run_folder import read_run, to_json, write_file

    arms = [(name, [read_run(folder) for folder in folders]) for name, folders in named.items()]
    compare_options = CompareOptions(
        seed=options.seed,
        primary=recipe.primary_of(options.recipe_read),
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


def _report(options: Options) -> None:
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


def _contamination(options: Options) -> None:
    _require(options, ("shards", "tasks"), "contamination")
    from leia_eval import contamination
    from leia_eval.catalog import read_catalog, select_tasks
    from leia_eval.documents import read_source
    from leia_eval.run_folder import to_json, write_file

    entries = select_tasks(options.tasks, read_catalog())
    searches = []
    for entry in entries:
        if entry.source is None:
            raise UsageError(f"{entry.name} is lm-eval's own; contamination reads the tasks of this project")
        items = read_source(entry.source, options.data_dir, entry.name).items
        asked = [contamination.item_of(document) for document in items.documents]
        searches.append((entry, items, contamination.Search(asked, language=entry.language, n=options.n)))
    mix = [] if options.mix == [NO_MIX] else options.mix
    results = contamination.look_for(
        [search for _, _, search in searches],
        contamination.training_texts(options.shards, mix, options.console.progress),
    )
    options.console.clear()
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
        for name, share in seen.get("share_of_sources", {}).items():
            print(f"  in {name}: question {100 * share['question']:.1f} %, answer {100 * share['answer']:.1f} %")
    if options.output is not None:
        write_file(options.output, to_json({"tasks": found}))


def _require(options: Options, names: Sequence[str], command: str) -> None:
    missing = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be given; see `{PROGRAM} {command} --help`")


def _visible(text: str) -> str:
    """Text of data for a terminal: what would steer it, or turn the reading order, is written as an escape (S3)."""
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in ("Cc", "Cf") else f"\\u{ord(char):04x}"
        for char in text
    )


def _fail(console: Console, error: BaseException, message: str) -> int:
    console.error(" ".join(message.split()), exit_code_of(error))
    return exit_code_of(error)

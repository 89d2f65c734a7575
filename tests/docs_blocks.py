"""From a page of the documentation to its blocks, and from a block to what it printed.

A page is Markdown. What it shows is run in a folder of the test, in the order of the page:

    ```console      commands after `$ `, each with what it prints (both streams, as in a pipe)
    ```sh           commands whose output is not shown; they must succeed
    ```python       a program of its own; its standard output stands in the block `<!-- printed -->` behind it

Comments before a block say more:

    <!-- not run: REASON -->    the commands are checked against the parsers, the Makefile, the files and extras they name
    <!-- file: NAME -->         the block is written to that file
    <!-- printed -->            what the Python block before it prints
    <!-- shows: NAME -->        lines of that file, as the commands so far made it
    <!-- exit: N -->            the last command of the block ends with this code
    <!-- varies: REGEX -->      what it matches is not compared, beside what VARYING lists
    <!-- begins: built -->      the page's folder holds what the quick start makes, not the sample's dumps alone
    <!-- begins: mirror -->     a mirror of the sample is served; the page calls it MIRROR_SHOWN

A line `[…]` stands for any number of lines. `python tests/docs_blocks.py PAGE…` runs pages and writes what they printed
into them where it is another.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ELISION = "[…]"
MIRROR_SHOWN = "http://127.0.0.1:8765"
"""The mirror's address in pages; a test has another port."""
COMMANDS = ("leia-beam", "leia-train", "leia-eval", "leia-beam-worker")
DATA_LANGUAGES = ("text", "yaml", "json", "toml", "svg")
COMMAND_TIMEOUT_S = 1800

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)$")
_COMMENT = re.compile(r"^ *<!-- (?P<name>not run|file|printed|shows|exit|varies|begins)(?:: (?P<value>.*?))? -->$")

VARYING = (
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"), "DATE"),
    (re.compile(r"[~≈]?\b\d[\d,.]*(?: (?:to|min|h) \d[\d,.]*)* ?(?:ms|s|min|h|seconds|minutes)\b(?!\w)"), "TIME"),
    (re.compile(r"\b\d+:\d\d(?::\d\d)?\b"), "TIME"),
    (re.compile(r"\b\d[\d,.]*(?: ?[kKMGT]i?B?)?(?: ?[a-zA-Z]+)?/s\b"), "RATE"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{8,64}\b"), "HASH"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"leia-lm \d[\w.+-]*"), "leia-lm VERSION"),
)
"""What differs from run to run or machine to machine: times, rates, hashes (they hold versions), ports."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: `first` and `last` are the numbers of the lines within the fence, half-open, from 0."""

    page: Path
    first: int
    last: int
    language: str
    lines: tuple[str, ...]
    marks: dict[str, str] = field(default_factory=dict)
    varies: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """PAGE:LINE, as editors take it."""
        return f"{self.page.relative_to(ROOT)}:{self.first + 1}"

    @property
    def text(self) -> str:
        """The lines, with a newline behind each."""
        return "".join(f"{line}\n" for line in self.lines)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of a console block, as one shell line or several, and the lines that it prints."""

    command: str
    output: tuple[str, ...]


def pages() -> list[Path]:
    """All pages whose blocks are run: README.md, CONTRIBUTING.md, and docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def read_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, with the comments before them.

    Raises: ValueError for a fence that is not closed, or a comment without a block.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    blocks: list[Block] = []
    marks: dict[str, str] = {}
    varies: list[str] = []
    at = 0
    while at < len(lines):
        line, at = lines[at], at + 1
        comment = _COMMENT.match(line)
        fence = _FENCE.match(line)
        if comment and comment["name"] == "begins":
            continue
        if comment and comment["name"] == "varies":
            varies.append(comment["value"])
        elif comment:
            marks[comment["name"]] = comment["value"] or ""
        elif fence:
            closing = f"{fence['indent']}{fence['ticks']}"
            end = next((n for n in range(at, len(lines)) if lines[n] == closing), None)
            if end is None:
                raise ValueError(f"{page}:{at}: a block that is not closed")
            indent = len(fence["indent"])
            blocks.append(
                Block(
                    page=page,
                    first=at,
                    last=end,
                    language=fence["info"].strip(),
                    lines=tuple(text[indent:] for text in lines[at:end]),
                    marks=marks,
                    varies=tuple(varies),
                )
            )
            marks, varies, at = {}, [], end + 1
        elif line.strip() and (marks or varies):
            raise ValueError(f"{page}:{at}: a comment for a block, but no block follows")
    return blocks


def beginning_of(page: Path) -> str:
    """What the page begins with: `dumps`, `built` or `mirror`."""
    for line in page.read_text(encoding="utf-8").splitlines():
        comment = _COMMENT.match(line)
        if comment and comment["name"] == "begins":
            return comment["value"]
    return "dumps"


def kind_of(block: Block) -> str:
    """run, checked, or data.

    Raises: ValueError for a block that would be neither run nor checked.
    """
    if block.language in ("console", "python", "sh"):
        if block.language == "console" and not steps_of(block):
            raise ValueError(f"{block.where}: a console block without a command")
        return "checked" if "not run" in block.marks else "run"
    if block.language.startswith("{"):  # a directive of the generator
        return "data"
    if block.language not in DATA_LANGUAGES:
        raise ValueError(
            f"{block.where}: language {block.language!r} is none of console, sh, python, {', '.join(DATA_LANGUAGES)}"
        )
    for line in block.lines:
        if re.match(rf"\s*(\$ |{'|'.join(COMMANDS)}\b|make |pip |python )", line):
            raise ValueError(f"{block.where}: a command in a block that is neither run nor checked: {line}")
    return "data"


def steps_of(block: Block) -> list[Step]:
    """The commands of a console block with what is printed behind each."""
    steps: list[Step] = []
    command: list[str] = []
    output: list[str] = []
    continued = False
    for line in block.lines:
        if continued or line.startswith("$ "):
            if not continued and command:
                steps.append(Step(command="\n".join(command), output=tuple(output)))
                command, output = [], []
            command.append(line if continued else line[2:])
            continued = line.endswith("\\")
        elif not command:
            raise ValueError(f"{block.where}: output before the first command: {line!r}")
        else:
            output.append(line)
    if command:
        steps.append(Step(command="\n".join(command), output=tuple(output)))
    return steps


def normal(line: str, varies: Sequence[str] = ()) -> str:
    """A line as it is compared.

    >>> normal("built in 12.5 s at 2,3 MB/s")
    'built in TIME at RATE'
    """
    for pattern in varies:
        line = re.sub(pattern, "~", line)
    for known, name in VARYING:
        line = known.sub(name, line)
    return line.rstrip()


def matches(shown: Sequence[str], printed: Sequence[str], varies: Sequence[str] = ()) -> bool:
    """Whether what a page shows is what was printed.

    >>> matches(["a", "[…]", "d"], ["a", "b", "c", "d"]), matches(["a", "[…]"], ["b"]), matches(["1 s"], ["2 s"])
    (True, False, True)
    """
    want = [normal(line, varies) for line in shown]
    have = [normal(line, varies) for line in printed]
    reachable = {0}
    for line in want:
        if line.strip() == ELISION:
            reachable = set(range(min(reachable), len(have) + 1)) if reachable else set()
        else:
            reachable = {at + 1 for at in reachable if at < len(have) and have[at] == line}
    return len(have) in reachable


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A block that shows other than what was printed: `lines` are those that it should show."""

    block: Block
    lines: tuple[str, ...]
    message: str


class PageFailed(Exception):
    """A command of a page ended otherwise than the page says."""


def run_page(page: Path, folder: Path, environment: dict[str, str]) -> Iterator[Difference]:
    """Run the blocks of a page in a folder; what they show wrongly. The mirror's address is MIRROR in the environment.

    Raises: PageFailed for a command that ends with another exit code.
    """
    printed: list[str] | None = None
    for block in read_blocks(page):
        if "file" in block.marks:
            target = folder / block.marks["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_with_mirror(block.text, environment), encoding="utf-8")
        if kind_of(block) == "run" and block.language == "console":
            yield from _run_console(block, folder, environment)
        elif kind_of(block) == "run" and block.language == "sh":
            expected = int(block.marks.get("exit", "0"))
            _run(["bash", "-c", f"set -euo pipefail\n{block.text}"], block, folder, environment, expected)
        elif kind_of(block) == "run":
            if printed:
                raise PageFailed(f"{block.where}: the Python block before it prints, and nothing shows what")
            printed = _run([sys.executable, "-c", block.text], block, folder, environment, 0)
        elif "printed" in block.marks:
            if printed is None:
                raise PageFailed(f"{block.where}: no Python block before it")
            yield from _compared(block, tuple(printed))
            printed = None
        elif "shows" in block.marks:
            content = (folder / block.marks["shows"]).read_text(encoding="utf-8").splitlines()
            yield from _compared(block, tuple(content))
    if printed:
        raise PageFailed(f"{page.name}: the last Python block prints, and nothing shows what")


def _compared(block: Block, printed: tuple[str, ...]) -> Iterator[Difference]:
    if not matches(block.lines, printed, block.varies):
        yield Difference(block=block, lines=printed, message=_both(block.where, block.lines, printed))


def _run_console(block: Block, folder: Path, environment: dict[str, str]) -> Iterator[Difference]:
    lines: list[str] = []
    wrong: list[str] = []
    steps = steps_of(block)
    for step in steps:
        expected = int(block.marks.get("exit", "0")) if step is steps[-1] else 0
        shell = ["bash", "-c", f"set -euo pipefail\n{step.command}"]
        printed = _run(shell, block, folder, environment, expected)
        fits = matches(step.output, printed, block.varies)
        if not fits:
            wrong.append(_both(f"{block.where}: {step.command}", step.output, printed))
        lines += [f"$ {step.command}".replace("\n", "\n"), *(step.output if fits else printed)]
    if wrong:
        flat = tuple("\n".join(lines).split("\n"))
        yield Difference(block=block, lines=flat, message="\n".join(wrong))


def _with_mirror(text: str, environment: dict[str, str]) -> str:
    return text.replace(MIRROR_SHOWN, environment.get("MIRROR", MIRROR_SHOWN))


def _run(command: list[str], block: Block, folder: Path, environment: dict[str, str], expected: int) -> list[str]:
    result = subprocess.run(
        [_with_mirror(part, environment) for part in command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if block.language == "python" else subprocess.STDOUT,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    output = result.stdout.decode("utf-8", "replace").replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "")
    output = output.replace(environment.get("MIRROR", MIRROR_SHOWN), MIRROR_SHOWN)
    if result.returncode != expected:
        output += (result.stderr or b"").decode("utf-8", "replace")
        raise PageFailed(f"{block.where}: exit code {result.returncode}, not {expected}: {command[-1]}\n{output}")
    return [line.rsplit("\r", 1)[-1].rstrip() for line in output.splitlines()]


def _both(where: str, shown: Sequence[str], printed: Sequence[str]) -> str:
    return "\n".join(
        [where, "  the page shows:", *(f"    {s}" for s in shown), "  printed was:", *(f"    {p}" for p in printed)]
    )


def environment_for(bin_folder: Path) -> dict[str, str]:
    """The environment of a page's commands: our console scripts as `python -m` of this tree, no hub, one thread.

    `bin_folder` is filled with the scripts.
    """
    bin_folder.mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        module = "pipelines.worker" if name == "leia-beam-worker" else name.replace("-", "_")
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    python = bin_folder / "python"
    python.unlink(missing_ok=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")}
    return {
        **kept,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
        "COLUMNS": "100",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(bin_folder / "hub"),
        "NO_COLOR": "1",
        "LEIA": str(ROOT),
    }


def write_differences(differences: Sequence[Difference]) -> None:
    """Put what was printed into the pages, from the last block of a page to its first."""
    for difference in sorted(differences, key=lambda d: (d.block.page, -d.block.first)):
        page = difference.block.page
        lines = page.read_text(encoding="utf-8").splitlines()
        lines[difference.block.first : difference.block.last] = difference.lines
        page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(names: Sequence[str]) -> int:
    """Run pages and write into them what their blocks printed; 1 where a command failed."""
    import tempfile

    sys.path.insert(0, str(ROOT))
    from tests import docs_folders
    from tests.data.sample import pack

    chosen = [ROOT / name for name in names] or pages()
    with tempfile.TemporaryDirectory() as made:
        environment = environment_for(Path(made) / "bin")
        sample = Path(made) / "sample"
        pack.pack_sample(sample)
        for page in chosen:
            folder = Path(made) / page.stem / "page"
            folder.mkdir(parents=True)
            docs_folders.prepare_dumps(folder, sample)
            try:
                with docs_folders.beginning(beginning_of(page), folder, environment) as mirrored:
                    differences = list(run_page(page, folder, mirrored))
            except PageFailed as error:
                print(error, file=sys.stderr)
                return 1
            write_differences(differences)
            print(f"{page.relative_to(ROOT)}: {len(differences)} blocks written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

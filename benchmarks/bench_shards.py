"""From articles to shards on one core: against the tokenizer alone, and what memory grows with; and the whole builder.

    python benchmarks/bench_shards.py --mb 10                   time, with each dump and tokenizer
    python benchmarks/bench_shards.py --memory 10 100 1000      peak memory of a process over so many MB of texts
    python benchmarks/bench_shards.py --build 300               dumps of so many MB each (raw) to shards, two processes

The yardstick is the tokenizer alone on the same texts in the same run: `encode_batch` of the `tokenizers` library, with
the ids taken, in one thread. Pages are those of the real dumps under `--data` or, where that folder is not, of the bundled
sample, repeated under new titles and ids until they are enough. Wikidata is made for them: of the titles that they link
to, every third but one has an item with an English title (the reference's paper names a name for about so many).
"""

from __future__ import annotations

import argparse
import bz2
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from leia_beam.manifest import StageFile, manifest_bytes, read_manifest
from leia_beam.schema import ARTICLES
from leia_beam.stage_shards import ShardsStage
from leia_beam.tables import TableWriter
from leia_beam.tokenization import without_added_tokens
from leia_beam.tokenizer_identity import find_tokenizer
from leia_beam.units import run_unit

ROOT = Path(__file__).resolve().parent.parent
DUMPS = {"ja": "jawiki-20190601-head.xml.bz2", "en": "enwiki-p10p30302-excerpt.xml.bz2"}
BATCH_TEXTS = 64
UNIT_TEXT_BYTES = 50_000_000
"""About what a range of 48 MiB of a .bz2 has."""
_PAGE = re.compile(rb"<page>.*?</page>", re.DOTALL)
_LINK = re.compile(r"\[\[([^\[\]|#{}]+)")


def sources(data: Path, scratch: Path) -> tuple[dict[str, Path], list[Path]]:
    """(language → dump, tokenizers): the real ones, or those of the bundled sample."""
    if data.is_dir():
        return {code: data / name for code, name in DUMPS.items()}, sorted((data / "tokenizers").iterdir())
    subprocess.run([sys.executable, ROOT / "tests/data/sample/pack.py", scratch], check=True, capture_output=True)
    return {path.name[:2]: path for path in sorted(scratch.glob("*.xml.bz2"))}, [scratch / "tokenizer"]


def write_dumps(dump: Path, language: str, wiki_bytes: int, wikidata_bytes: int, folder: Path, compress: bool) -> None:
    """Dumps of about so many bytes: the pages of a real one repeated, and items for what they link to."""
    content = bz2.decompress(dump.read_bytes())
    head = content[: content.index(b"<page>")]
    pages = [match.group() for match in _PAGE.finditer(content)]
    suffix, opened = (".bz2", bz2.open) if compress else ("", open)
    with opened(folder / f"{language}wiki-20260101-pages-articles.xml{suffix}", "wb") as wiki:
        wiki.write(head)
        for page in _repeated(pages, wiki_bytes):
            wiki.write(page + b"\n")
        wiki.write(b"</mediawiki>\n")
    targets = {target.strip() for page in pages for target in _LINK.findall(page.decode("utf-8", "replace"))}
    targets = {target for target in targets if target and ":" not in target}
    with opened(folder / f"wikidata-20260101-all.json{suffix}", "wb") as wikidata:
        wikidata.write(b"[\n")
        for item in _items(sorted(targets), f"{language}wiki", wikidata_bytes):
            wikidata.write(item)
        wikidata.write(b'{"type": "property", "id": "P1"}\n]\n')


def _repeated(pages: Sequence[bytes], wanted: int) -> Iterator[bytes]:
    """The pages again and again; from the second time on under other titles and ids."""
    number = written = 0
    while written < wanted:
        for page in pages:
            number += 1
            again = number > len(pages)
            made = re.sub(rb"<id>\d+</id>", b"<id>%d</id>" % number, page, count=1)
            if again:
                made = re.sub(rb"</title>", b" %d</title>" % number, made, count=1)
            written += len(made)
            yield made


def _items(targets: Sequence[str], wiki: str, wanted: int) -> Iterator[bytes]:
    """Items with two thirds of the targets, then others, each with claims that nobody reads."""
    written = number = 0
    claim = {
        "mainsnak": {"snaktype": "value", "property": "P31", "datavalue": {"value": {"id": "Q5"}}},
        "rank": "normal",
    }
    while written < wanted or number < len(targets):
        title = targets[number] if number < len(targets) else f"Other {number}"
        name = f"Name {hashlib.sha256(title.encode()).hexdigest()[:6]}" if wiki != "enwiki" else title
        number += 1
        links = {wiki: {"site": wiki, "title": title}, "enwiki": {"site": "enwiki", "title": name}}
        if number % 3 == 0:
            links = {"dewiki": {"site": "dewiki", "title": title}}
        item = {
            "type": "item",
            "id": f"Q{number}",
            "labels": {"en": {"language": "en", "value": name}},
            "claims": {f"P{n}": [claim] * 3 for n in range(31, 46)},
            "sitelinks": links,
        }
        line = json.dumps(item, ensure_ascii=False).encode() + b",\n"
        written += len(line)
        yield line


def command(*arguments: str) -> list[str]:
    """`leia-beam` of this checkout."""
    return [sys.executable, "-m", "leia_beam", *arguments]


def prepare(folder: Path, language: str, workers: int = 2) -> None:
    """The stages before `shards`."""
    output = ("--output", str(folder / "build"), "--workers", str(workers), "--quiet")
    pages = next(folder.glob("*.xml*"))
    for arguments in (
        ("sitelinks", "--wikidata", str(next(folder.glob("*.json*"))), *output),
        ("articles", "--pages", str(pages), "--wiki", language, *output, "--range-bytes", "64MiB"),
        ("entities", "--wiki", language, *output),
    ):
        subprocess.run(command(*arguments), check=True, cwd=ROOT)


def shards_stage(folder: Path, language: str, tokenizer: Path, name: str) -> ShardsStage:
    """The stage as `leia-beam shards` makes it."""
    return ShardsStage(
        folder=str(folder / name),
        articles_folder=str(folder / "build/articles"),
        entities_folder=str(folder / "build/entities"),
        wiki_code=f"{language}wiki",
        siteinfo=None,
        name_wikis=("enwiki",),
        tokenizer=find_tokenizer(str(tokenizer)),
    )


def texts_of(folder: Path) -> Iterator[list[str]]:
    """The texts of all articles, some at a time."""
    for file in read_manifest(folder / "build/articles").files_of("articles"):
        with pq.ParquetFile(folder / "build/articles" / file.path) as parquet:
            for batch in parquet.iter_batches(BATCH_TEXTS, columns=["text"]):
                yield batch.column(0).to_pylist()


def tokenizer_alone(folder: Path, tokenizer: Path) -> tuple[float, int, int]:
    """(CPU seconds, tokens, bytes of text) of the tokenizer on the texts of all articles; reading them is not counted."""
    encoder = without_added_tokens(find_tokenizer(str(tokenizer)).tokenizer_json)
    seconds, tokens, size = 0.0, 0, 0
    for texts in texts_of(folder):
        size += sum(len(text.encode()) for text in texts)
        began = time.process_time()
        tokens += sum(len(encoding.ids) for encoding in encoder.encode_batch(texts, add_special_tokens=False))
        seconds += time.process_time() - began
    return seconds, tokens, size


def bench_time(options: argparse.Namespace, scratch: Path) -> None:
    """Articles → shards in this process, beside the tokenizer alone, in turn."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    dumps, tokenizers = sources(options.data, scratch / "sample")
    print("wiki, tokenizer | text MB | tokens M | names | links | alone CPU s | shards CPU s | ratio | start-up CPU s")
    for language, dump in dumps.items():
        folder = scratch / language
        folder.mkdir()
        write_dumps(dump, language, int(options.mb * 1e6), 0, folder, compress=False)
        prepare(folder, language)
        for tokenizer in tokenizers:
            best: tuple[float, float] | None = None
            startups = []
            for turn in range(options.rounds):
                began = time.process_time()
                stage = shards_stage(folder, language, tokenizer, f"{tokenizer.name}-{turn}")
                _ = stage.plan  # opens the tokenizer
                startups.append(time.process_time() - began)
                alone, tokens, size = tokenizer_alone(folder, tokenizer)
                began = time.process_time()
                records = [run_unit(stage, unit, stage.process) for unit in stage.units()]
                shards = time.process_time() - began
                if best is None or shards / alone < best[1] / best[0]:
                    best = (alone, shards)
            assert best is not None
            counts = {
                name: sum(r.counters.get(name, 0) for r in records) for name in ("anchors/emitted", "anchors/read")
            }
            print(
                f"{language}, {tokenizer.name} | {size / 1e6:.1f} | {tokens / 1e6:.2f} | {counts['anchors/emitted']:,} | "
                f"{counts['anchors/read']:,} | {best[0]:.2f} | {best[1]:.2f} | {best[0] / best[1]:.2f} | {startups[0]:.2f}"
            )


def bench_memory(options: argparse.Namespace, scratch: Path) -> None:
    """Peak memory of a process that makes shards of more and more articles."""
    dumps, tokenizers = sources(options.data, scratch / "sample")
    language, dump = next(iter(dumps.items()))
    small = scratch / "small"
    small.mkdir()
    write_dumps(dump, language, int(10e6), 0, small, compress=False)
    prepare(small, language)
    print("texts MB | units | peak MiB of the process | peak MiB before its first unit | CPU s")
    for megabytes in options.memory:
        folder = scratch / f"memory-{megabytes:g}"
        size = enlarge(small / "build", folder / "build", int(megabytes * 1e6))
        code = (
            "import sys; sys.path.insert(0, 'benchmarks'); import time; from pathlib import Path; import bench_shards as b\n"
            f"stage = b.shards_stage(Path({str(folder)!r}), {language!r}, Path({str(tokenizers[0])!r}), 'shards')\n"
            "stage.plan; before = b.peak_mib(); units = stage.units()\n"
            "for unit in units: b.run_unit(stage, unit, stage.process)\n"
            "print(len(units), b.peak_mib(), before, time.process_time())"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
        units, peak, before, seconds = done.stdout.split()
        print(
            f"{size / 1e6:,.0f} | {units} | {float(peak):,.0f} | {float(before):,.0f} | {float(seconds):,.0f}",
            flush=True,
        )
        shutil.rmtree(folder)


def enlarge(build: Path, larger: Path, wanted: int) -> int:
    """A build whose stage `articles` has so many bytes of text: its articles again and again, in units as a dump's are.

    Returns the bytes of text. The larger build's units are one file under several names, which no reader minds.
    """
    shutil.copytree(build / "entities", larger / "entities")
    (larger / "articles/data").mkdir(parents=True)
    manifest = read_manifest(build / "articles")
    rows = pa.concat_tables(pq.read_table(build / "articles" / file.path) for file in manifest.files_of("articles"))
    size = sum(len(text.encode()) for text in rows.column("text").to_pylist())
    repeated = max(1, min(wanted, UNIT_TEXT_BYTES) // size)
    units = max(1, round(wanted / (repeated * size)))
    first = larger / "articles/data/articles-00000.parquet"
    with TableWriter(str(first), ARTICLES) as table:
        for _ in range(repeated):
            table.write_table(rows.cast(ARTICLES), size // len(rows))
    files = []
    for unit in range(units):
        path = first.with_name(f"articles-{unit:05d}.parquet")
        if unit:
            os.link(first, path)
        files.append(
            StageFile(
                path=f"data/{path.name}",
                table="articles",
                unit=unit,
                rows=repeated * len(rows),
                size_bytes=path.stat().st_size,
                sha256="",
            )
        )
    (larger / "articles/_manifest.json").write_bytes(manifest_bytes(replace(manifest, files=tuple(files))))
    return units * repeated * size


def peak_mib() -> float:
    """The most memory that this process ever held, as the kernel has it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1024  # type: ignore[union-attr]


def bench_build(options: argparse.Namespace, scratch: Path) -> None:
    """The whole builder on two processes, against decompression and the tokenizer alone."""
    dumps, tokenizers = sources(options.data, scratch / "sample")
    language, dump = next(iter(dumps.items()))
    wanted = int(options.build * 1e6)
    write_dumps(dump, language, wanted, wanted, scratch, compress=True)
    pages, wikidata = next(scratch.glob("*.xml.bz2")), next(scratch.glob("*.json.bz2"))
    print(f"{pages.stat().st_size / 1e6:.1f} MB and {wikidata.stat().st_size / 1e6:.1f} MB compressed")
    decompressed = 0.0
    for path in (pages, wikidata):
        began = os.times()
        subprocess.run(["bzip2", "-dc", path], check=True, stdout=subprocess.DEVNULL)
        decompressed += children_s(began)
    began, wall = os.times(), time.monotonic()
    given = ("--pages", str(pages), "--wikidata", str(wikidata), "--wiki", language, "--tokenizer", str(tokenizers[0]))
    subprocess.run(
        command("build", *given, "--output", str(scratch / "build"), "--workers", "2", "--range-bytes", "4MiB"),
        check=True,
        cwd=ROOT,
    )
    wall, cpu = time.monotonic() - wall, children_s(began)
    alone, tokens, size = tokenizer_alone(scratch, tokenizers[0])
    print(f"{size / 1e6:.1f} MB of text, {tokens / 1e6:.1f} M tokens of {tokenizers[0].name}")
    print(
        f"decompression alone {decompressed:.1f} s CPU, tokenizer alone {alone:.1f} s CPU, together {decompressed + alone:.1f}"
    )
    print(
        f"build: {wall:.1f} s wall on two processes, {cpu:.1f} s CPU; ratio {(decompressed + alone) / cpu:.2f} by CPU, "
        f"{(decompressed + alone) / 2 / wall:.2f} by wall"
    )


def children_s(began: os.times_result) -> float:
    """CPU seconds of ended children since then."""
    now = os.times()
    return now.children_user + now.children_system - began.children_user - began.children_system


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--mb", type=float, metavar="MB", help="raw MB of each wiki's dump")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", type=float, nargs="*", default=[], metavar="MB")
    parser.add_argument("--build", type=float, metavar="MB")
    parser.add_argument("--folder", help="where the files go (default: the system's folder for temporary files)")
    options = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("tokenizers", "pyarrow", "apache-beam"))
    print(f"Python {platform.python_version()}, {packages}; {os.cpu_count()} cores\n")
    for wanted, bench in ((options.mb, bench_time), (options.memory, bench_memory), (options.build, bench_build)):
        if wanted:
            with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
                (Path(scratch) / "sample").mkdir()
                bench(options, Path(scratch))


if __name__ == "__main__":
    main()

"""Which decoder takes bzip2 blocks apart fastest, and which reader takes the links out of a Wikidata line?

    python benchmarks/bench_decoders.py [--raw-mb 60] [--rounds 3] [--dump FILE.bz2]

Blocks: of a generated Wikidata dump, each as a stream of one block in memory, as leia_beam decodes them; the yardstick is
the standard library. indexed_bzip2, rapidgzip and cramjam are measured where they are installed, which nothing else
needs. Lines: the same dump's, to what `parse_item` keeps; the yardstick is a full parse by ujson. CPU seconds, the best
of some rounds. Gzip: the same dump by isal, fed pieces of two sizes.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import importlib
import io
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import ujson
from bench_reading import write_wikidata
from isal import igzip_lib

from leia_beam import entities
from leia_beam.bz2_bits import CRC_BITS, MAGIC_BITS, STREAM_END_BITS, STREAM_END_MAGIC, Window, find_magics
from leia_beam.streams import CHUNK_BYTES
from leia_beam.wikis import wikipedia_codes


def single_blocks(packed: bytes) -> list[bytes]:
    """All blocks but the last, each as a stream of its own."""
    window = Window(io.BytesIO(packed), 0, len(packed))
    window.reach(len(packed))
    bits = find_magics(packed)
    streams = []
    for bit, end_bit in itertools.pairwise(bits):
        count = end_bit - bit
        crc = window.bits(bit + MAGIC_BITS, CRC_BITS)
        number = (window.bits(bit, count) << STREAM_END_BITS | STREAM_END_MAGIC << CRC_BITS | crc) << (-count % 8)
        streams.append(b"BZh9" + number.to_bytes((count + STREAM_END_BITS + 7) // 8, "big"))
    return streams


def block_decoders() -> dict[str, Callable[[bytes], Any]]:
    """Name → how a stream is decoded, for those that are installed."""
    found: dict[str, Callable[[bytes], Any]] = {"bz2 (standard library)": bz2.decompress}
    ways: dict[str, Callable[[Any, bytes], Any]] = {
        "indexed_bzip2": lambda module, data: module.open(io.BytesIO(data), parallelization=1).read(),
        "rapidgzip": lambda module, data: module.IndexedBzip2File(io.BytesIO(data), parallelization=1).read(),
        "cramjam": lambda module, data: bytes(module.bzip2.decompress(data)),
    }
    for name, way in ways.items():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        found[f"{name} {version(name)}"] = lambda data, way=way, module=module: way(module, data)
    return found


def decode_pieces(packed: bytes, piece_bytes: int) -> int:
    """All of a gzip file, piece after piece, in chunks as `streams` has them. Returns how many bytes it gives."""
    decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    size = 0
    for at in range(0, len(packed), piece_bytes):
        size += len(decoder.decompress(packed[at : at + piece_bytes], CHUNK_BYTES))
        while not (decoder.needs_input or decoder.eof):
            size += len(decoder.decompress(b"", CHUNK_BYTES))
    return size


def best_cpu_s(work: Callable[[Any], Any], inputs: Iterable[Any], rounds: int) -> float:
    """The least CPU time in which all inputs are worked on."""
    inputs = list(inputs)
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        for each in inputs:
            work(each)
        times.append(time.process_time() - begin)
    return min(times)


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw-mb", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--dump", type=Path, help="a .bz2 file whose blocks are decoded in place of the generated ones'"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wikidata.json"
        write_wikidata(path, options.raw_mb * 1_000_000)
        raw = path.read_bytes()
    streams = single_blocks(bz2.compress(bz2.decompress(options.dump.read_bytes()) if options.dump else raw))
    size = sum(len(bz2.decompress(stream)) for stream in streams)
    print("| block decoder | MB/s raw | ratio to the standard library |\n|---|---|---|")
    yardstick = 0.0
    for name, decode in block_decoders().items():
        assert decode(streams[0]) == bz2.decompress(streams[0])
        seconds = best_cpu_s(decode, streams, options.rounds)
        yardstick = yardstick or seconds
        print(f"| {name} | {size / seconds / 1e6:.1f} | {yardstick / seconds:.2f} |")
    contents = [content for content, _ in map(entities.entity_json, raw.split(b"\n")) if content]
    parts = entities.ItemParts(wikis=wikipedia_codes(), label_languages=frozenset({"en"}))
    with_claims = replace(parts, properties=frozenset({"P31"}))

    def ours(content: bytes, parts: entities.ItemParts = parts) -> Any:
        try:
            return entities.parse_item(content, parts)
        except entities.FilteredLine:
            return None

    print("\n| reader of a line | MB/s raw | ratio to ujson |\n|---|---|---|")
    yardstick = 0.0
    readers: dict[str, Callable[[bytes], Any]] = {
        "ujson.loads, all of the line": ujson.loads,
        "parse_item, by simdjson": ours,
        "the same with the claims of P31": lambda content: ours(content, with_claims),
        "simdjson.Parser.parse alone": lambda content: bool(entities._PARSER.parse(content)),
    }
    for name, read in readers.items():
        seconds = best_cpu_s(read, contents, options.rounds)
        yardstick = yardstick or seconds
        print(f"| {name} | {len(raw) / seconds / 1e6:.0f} | {yardstick / seconds:.2f} |")

    print("\n| gzip by isal, pieces of | MB/s raw |\n|---|---|")
    packed = gzip.compress(raw, 6)
    for size in (64 << 10, 256 << 10):
        seconds = best_cpu_s(lambda piece_bytes: decode_pieces(packed, piece_bytes), [size], options.rounds)
        print(f"| {size >> 10} KiB | {len(raw) / seconds / 1e6:.0f} |")


if __name__ == "__main__":
    main()

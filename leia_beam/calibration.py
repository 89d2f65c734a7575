"""From a build of a small sample on this machine to the rates that a plan needs.

The sample is built as a user's dumps are, by a process of its own with one worker, so its times hold all that a build
does. What a stage takes whatever its input (a pipeline's start) is taken off, as the time of a build with next to none.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from leia_beam.errors import MissingResource
from leia_beam.manifest import read_manifest
from leia_beam.planning import Rates
from leia_beam.sample_dumps import write_sample

START_S = 3.0
"""A worker process, its imports among them."""
REDIRECTS_S_A_TITLE = 15e-6
"""benchmarks/bench_entities.py: a sample is too small to measure it."""
_STAGES = ("sitelinks", "articles", "entities/_titles", "entities/_redirects", "entities", "shards")
_NAMES = {"entities/_titles": "titles", "entities/_redirects": "redirects"}
_TINY_BYTES = 30_000


def calibrate(raw_bytes: int, wikidata_format: str, tokenizer: str | None) -> Rates:
    """Build a sample of `raw_bytes` of either dump and see what it took.

    Raises: MissingResource if that build fails.
    """
    with tempfile.TemporaryDirectory(prefix="leia-plan-") as scratch:
        folder = Path(scratch)
        given = tokenizer or str(_train_tokenizer(folder))
        tiny = _timed_build(folder / "tiny", _TINY_BYTES, wikidata_format, given)
        timed = _timed_build(folder / "sample", raw_bytes, wikidata_format, given)
        seconds = {stage: max(0.1 * timed[stage], timed[stage] - tiny[stage]) for stage in timed}
        return _rates(folder / "sample", seconds)


def _rates(folder: Path, seconds: Mapping[str, float]) -> Rates:
    output = folder / "out"
    [pages] = folder.glob("enwiki-*")
    [wikidata] = folder.glob("wikidata-*")
    page_bytes, wikidata_bytes = pages.stat().st_size, wikidata.stat().st_size
    sizes = {
        _NAMES.get(stage, stage): sum(file.size_bytes for file in read_manifest(output / stage).files)
        for stage in _STAGES
    }
    titles = read_manifest(output / "entities/_titles").rows_of("titles-rows")
    of_stage = {"sitelinks": wikidata_bytes, "articles": page_bytes, "shards": page_bytes}
    return Rates(
        reading_s={stage: seconds[stage] / size for stage, size in of_stage.items()},
        titles_s=seconds["titles"] / titles,
        redirects_s=REDIRECTS_S_A_TITLE,
        entities_s=seconds["entities"] / titles,
        titles_a_byte=titles / page_bytes,
        written={stage: size / of_stage.get(stage, page_bytes) for stage, size in sizes.items()},
        start_s=START_S,
        peak_bytes=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    )


def _timed_build(folder: Path, raw_bytes: int, wikidata_format: str, tokenizer: str) -> dict[str, float]:
    """Seconds by stage of a build of a sample."""
    folder.mkdir()
    pages, wikidata = write_sample(folder, raw_bytes, wikidata_format)
    command = [
        *(sys.executable, "-m", "leia_beam", "build", "--workers", "1", "--quiet"),
        *("--pages", str(pages), "--wikidata", str(wikidata), "--wiki", "enwiki", "--name-languages", "de"),
        *("--tokenizer", tokenizer, "--output", str(folder / "out")),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = next(iter(done.stderr.strip().splitlines()[-1:]), f"exit code {done.returncode}")
        raise MissingResource(f"the calibration's build failed ({last}); see if `leia-beam build` works here")
    [notes] = (folder / "out/_run").glob("*.json")
    return {stage["stage"]: stage["elapsed_s"] for stage in json.loads(notes.read_text())["stages"]}


def _train_tokenizer(folder: Path) -> Path:
    """A small one, where none is given: its speed is much like that of a large one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4_000,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    wiki, _ = write_sample(folder, 200_000, "bz2")
    import bz2

    tokenizer.train_from_iterator(bz2.decompress(wiki.read_bytes()).decode().splitlines(), trainer)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path

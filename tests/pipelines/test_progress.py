"""progress: what is done is read from commit records, so that it is right after a resume as well."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from leia_beam.storage import LocalStorage
from leia_beam.units import Unit
from pipelines.progress import Progress, progress_line


@dataclass
class _Stage:
    folder: str
    name: str = "articles"
    storage: LocalStorage = field(default_factory=LocalStorage)

    @property
    def plan(self):
        @dataclass
        class Plan:
            stage: str = "articles"

        return Plan()


def test_lines_count_records_and_rates_count_this_run_alone(tmp_path):
    """Units that were done before add to what is done, not to the rate."""
    stage = _Stage(str(tmp_path))
    units = [Unit(number=number, count=4, path="x", start=0, end=10**9) for number in range(4)]
    said: list[str] = []
    seen = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        if "2 of 4" in line:
            seen.set()

    stage.storage.write(f"{tmp_path}/_done/00000.json", b"{}")
    with Progress(stage, units, say, interval_s=0.01):
        stage.storage.write(f"{tmp_path}/_done/00003.json", b"{}")
        assert seen.wait(20)
    assert said[-1].startswith("articles   2 of 4 units, 2,000 of 4,000 MB")
    sizes = {"0": 10**9, "1": 10**9, "2": 10**9}
    line = progress_line(name="shards", sizes=sizes, done={"0", "1"}, done_before={"0"}, elapsed_s=100)
    assert line == "shards     2 of 3 units, 2,000 of 3,000 MB, 10.0 MB/s, 1 min 40 s left"
    assert (
        progress_line(name="x", sizes={"0": 0}, done={"0"}, done_before=set(), elapsed_s=5) == "x          1 of 1 units"
    )

"""From steps to `metrics.jsonl` and progress lines.

A resumed run removes the lines of steps that it does again, so the file reads like an undisturbed run's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

METRICS_NAME = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMetrics:
    """One update. Counts are over all processes; `loss` is in nats a label."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    label_tokens: int
    inserted_tokens: int
    epoch: int
    seconds: float

    def line(self, steps: int) -> str:
        """What a terminal shows."""
        rate = self.tokens / max(self.seconds, 1e-9)
        left_s = (steps - self.step) * self.seconds
        return (
            f"step {self.step}/{steps}  loss {self.loss:.4f}  lr {self.learning_rate:.2e}  "
            f"|g| {self.gradient_norm:.3f}  inserted {self.inserted_tokens:,}  {rate:,.0f} tokens/s  {left_s:.0f} s left"
        )


class MetricsLog:
    """The file `metrics.jsonl` of a run, from step `first_step` on."""

    def __init__(self, output: Path, first_step: int):
        self.path = output / METRICS_NAME
        kept = [record for record in read_metrics(output) if record["step"] <= first_step and "loss" in record]
        temporary = output / f".tmp-{METRICS_NAME}"
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        os.replace(temporary, self.path)

    def write(self, record: StepMetrics | Mapping[str, Any]) -> None:
        """Append one line."""
        content = asdict(record) if isinstance(record, StepMetrics) else dict(record)
        with self.path.open("a") as stream:
            stream.write(json.dumps(content) + "\n")


def read_metrics(output: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's log (a killed run may have left half a line at its end)."""
    path = output / METRICS_NAME
    if not path.is_file():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records

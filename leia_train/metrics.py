"""From steps to `metrics.jsonl` and progress lines.

A resumed run removes the lines of steps that it does again, so the file reads like an undisturbed run's.
"""

from __future__ import annotations

import json
import os
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leia_beam.console import Measure, Rate, duration

METRICS_NAME = "metrics.jsonl"
_MEDIAN_OF = 20
_MIN_LOSSES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMetrics:
    """One update. Counts are over all processes; losses are in nats a label; `name_loss` is that of inserted names.

    By source in a run of several, `source_tokens` and `source_losses`.
    `mean_segment` is the length of the stretch in which a token sees others, on average over the first process's tokens.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    label_tokens: int
    inserted_tokens: int
    target_tokens: int
    name_label_tokens: int
    name_loss: float | None
    mean_segment: float
    epoch: int
    moved_share: float | None
    seconds: float
    waited_s: float
    source_tokens: dict[str, int] | None = None
    source_losses: dict[str, float | None] | None = None

    def values(self) -> dict[str, Any]:
        """What trackers take: numbers by name."""
        values = asdict(self)
        for name in ("source_tokens", "source_losses"):
            values |= {f"{name}/{source}": number for source, number in (values.pop(name) or {}).items()}
        return values

    def measure(self, steps: int, utilisation: float | None = None, pace: Rate | None = None) -> Measure:
        """How far a run of `steps` is; what is left by the last minute's pace, else by this step's."""
        rate, left_s = (None, None) if pace is None else (pace.a_second, pace.left_s)
        left_s = (steps - self.step) * self.seconds if left_s is None else left_s
        return Measure(
            stage="training",
            done=self.step,
            total=steps,
            unit="steps",
            text=self.line(steps, left_s, utilisation),
            rate=rate,
            left_s=left_s,
            last=self.step == steps,
        )

    def line(self, steps: int, left_s: float, utilisation: float | None = None) -> str:
        """What people read of it."""
        rate = self.tokens / max(self.seconds, 1e-9)
        name = "" if self.name_loss is None else f"  names {self.name_loss:.4f}"
        used = "" if utilisation is None else f"  MFU {utilisation:.1%}"
        return (
            f"step {self.step}/{steps}  {rate:,.0f} tokens/s  {duration(left_s)} left  loss {self.loss:.4f}{name}  "
            f"lr {self.learning_rate:.2e}  |g| {self.gradient_norm:.3f}  inserted {self.inserted_tokens:,}{used}  "
            f"waited {self.waited_s / max(self.seconds, 1e-9):.1%}"
        )


class MetricsLog:
    """The file `metrics.jsonl` of a run, from step `first_step` on."""

    def __init__(self, output: Path, first_step: int):
        self.path = output / METRICS_NAME
        kept = [record for record in read_metrics(output) if record["step"] <= first_step and "final" not in record]
        temporary = output / f".tmp-{METRICS_NAME}"
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        os.replace(temporary, self.path)

    def write(self, record: StepMetrics | Mapping[str, Any]) -> None:
        """Append one line."""
        content = asdict(record) if isinstance(record, StepMetrics) else dict(record)
        if content.get("source_tokens", ...) is None:
            del content["source_tokens"], content["source_losses"]
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


class SpikeWatch:
    """Finds losses that are far above the median of those before them."""

    def __init__(self, factor: float):
        self._factor = factor
        self._losses: deque[float] = deque(maxlen=_MEDIAN_OF)

    def warning(self, step: int, loss: float) -> str | None:
        """What to say of a step's loss, if anything; the loss is remembered."""
        line = None
        if self._factor and len(self._losses) >= _MIN_LOSSES:
            median = statistics.median(self._losses)
            if loss > self._factor * median > 0:
                line = (
                    f"warning: step {step}: loss {loss:.4f} is {loss / median:.1f} times the median of the last "
                    f"{len(self._losses)} steps ({median:.4f})"
                )
        self._losses.append(loss)
        return line

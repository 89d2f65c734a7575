"""From a plan to the rows of each step, made by a thread while the step before is computed.

The rows come out of memory-mapped columns at tens of millions of tokens a second, so one thread is enough and there is
nothing to configure. How long a step waited for its rows is measured. A thread that died is an error at once.
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from leia_beam.errors import LeiaError
from leia_train.mixture import MixedPlan
from leia_train.packing import PackedRows
from leia_train.plan import TrainingPlan

_DEPTH = 2
_LOOK_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRows:
    """The rows of this process for one step, the epoch in which the step begins, and the time that it was waited for."""

    step: int
    rows: PackedRows
    epoch: int
    waited_s: float


class RowLoader:
    """The rows of the steps [first_step, steps), in order; a context that ends its thread."""

    def __init__(
        self,
        plan: TrainingPlan | MixedPlan,
        *,
        batch: int,
        process: int,
        processes: int,
        first_step: int,
        steps: int,
    ):
        self._plan = plan
        self._batch = batch
        self._count = batch // processes
        self._offset = process * self._count
        self._steps = range(first_step, steps)
        self._made: queue.Queue[tuple[int, PackedRows, int] | BaseException] = queue.Queue(_DEPTH)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="leia-rows", daemon=True)

    def __enter__(self) -> RowLoader:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        while self._thread.is_alive():
            self._drop_one()
            self._thread.join(0.01)

    def _drop_one(self) -> None:
        with suppress(queue.Empty):
            self._made.get_nowait()

    def _work(self) -> None:
        try:
            for step in self._steps:
                if self._ended.is_set():
                    return
                first = step * self._batch
                rows = self._plan.rows(first + self._offset, self._count)
                self._made.put((step, rows, self._plan.epoch_of_row(first)))
        except BaseException as error:  # noqa: BLE001, it is raised again where the rows are waited for
            self._made.put(error)

    def next(self) -> StepRows:
        """The rows of the next step.

        Raises: LeiaError where they could not be made, or the thread is gone.
        """
        started_s = time.perf_counter()
        while True:
            try:
                made = self._made.get(timeout=_LOOK_S)
                break
            except queue.Empty:
                if not self._thread.is_alive() and self._made.empty():
                    raise LeiaError("the thread that makes the rows died; run the same command again") from None
        if isinstance(made, LeiaError):
            raise made
        if isinstance(made, BaseException):
            raise LeiaError(f"the rows of the next step could not be made: {made!r}") from made
        step, rows, epoch = made
        return StepRows(step=step, rows=rows, epoch=epoch, waited_s=time.perf_counter() - started_s)

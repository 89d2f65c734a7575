"""From the launcher's environment to this process's part of the work: one process, or one of several under torchrun.

``torchrun -m leia_eval run …`` sets RANK and WORLD_SIZE (`accelerate launch --cpu` starts one process whatever is asked).
lm-eval's own wrapper ignores processes on CPUs; here batches are dealt by rank, on any device, through accelerate's
PartialState.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

_LONGEST_WAIT = timedelta(days=2)


@dataclass(frozen=True)
class Processes:
    """This process's place among all of them."""

    rank: int
    world_size: int
    local_rank: int
    _state: Any = None

    @property
    def is_first(self) -> bool:
        """The one that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def device_of(self, device: str) -> str:
        """``cuda`` is each process's own GPU."""
        return f"cuda:{self.local_rank}" if device == "cuda" and self.world_size > 1 else device


def join(device: str) -> Processes:
    """This process, after it has found the others."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Processes(0, 1, 0)
    from accelerate import PartialState

    # one may have much more left to answer than another after an interruption, and NCCL gives up after ten minutes
    state = PartialState(cpu=device == "cpu", timeout=_LONGEST_WAIT)
    return Processes(state.process_index, state.num_processes, state.local_process_index, state)

"""From options to where a run goes, what it says, over which processes, and what it is scored on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from leia_train.option_fields import check, check_choice, option

TRACKERS = ("auto", "none", "tensorboard", "wandb", "trackio")
DEVICES = ("auto", "cpu")
EVAL_PROFILES = ("standard", "reference")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Where a run goes and what it says; none of it changes the weights."""

    output: str = option("folder of the run; the same command goes on from its newest checkpoint", required=True)
    save_every: int = option(
        "steps between two checkpoints to resume from; 0 for none but at an interruption", default=500
    )
    keep: int = option("checkpoints to resume from that are kept", default=2)
    device: str = option("auto takes a GPU where there is one", default="auto", choices=DEVICES)
    nproc: int = option(
        "processes on this machine, started here; under a launcher: how many there must be (0: any; for torchrun, which "
        "takes the flag for its own, write --set training.nproc=N)",
        default=0,
    )
    share_optimizer: bool = option(
        "each process keeps the optimizer's state of a part of the weights alone, which changes nothing else",
        default=False,
    )
    shard_model: bool = option(
        "each process holds a part of the weights, the gradients and the optimizer's state alone (FSDP2); also asked for by "
        "accelerate's configuration file",
        default=False,
    )
    eval_every: int = option("steps between two evaluations; 0 for one at the end", default=0)
    eval_text: tuple[str, ...] = option(
        "text files (UTF-8) that are evaluated too, like English to see forgetting", default=(), metavar="FILE"
    )
    eval_shards: tuple[str, ...] = option("folders of shards that are evaluated too", default=(), metavar="DIR")
    eval_inserted: bool = option("the validation articles with names inserted as a second figure", default=True)
    eval_tasks: tuple[str, ...] = option(
        "tasks of leia-eval that the final model is scored on; see leia-eval ls", default=(), metavar="TASK"
    )
    eval_tasks_every: int = option("steps between two scorings of --eval-tasks; 0 for one at the end", default=0)
    eval_tasks_data: str = option("folder of the tasks' data; empty for the hub", default="")
    eval_tasks_profile: str = option("leia-eval's own rules, or the paper's", default="standard", choices=EVAL_PROFILES)
    eval_tasks_shots: int = option("solved items before each; -1 for the profile's own", default=-1)
    eval_tasks_limit: int = option("first items of each task that are scored; 0 for all", default=0)
    eval_tasks_batch: int = option("requests that are answered at once", default=8)
    tracker: str = option("where metrics go too; auto: TensorBoard if installed", default="auto", choices=TRACKERS)
    spike: float = option(
        "warn of a loss above so many times the median of the last 20 steps; 0 for never", default=2.0
    )
    accept_other_code: bool = option("go on with a run that another version of this code began", default=False)
    quiet: bool = option("no notes and no progress: warnings and the error alone", default=False)
    log_json: bool = option("on standard error one JSON object a line, for collectors of logs", default=False)

    def __post_init__(self) -> None:
        check(self.output != "", "output", "''", "a folder")
        check(self.save_every >= 0, "save-every", self.save_every, "0 or above")
        check(self.keep >= 1, "keep", self.keep, "at least 1")
        check(self.nproc >= 0, "nproc", self.nproc, "0 or above")
        check(self.eval_every >= 0, "eval-every", self.eval_every, "0 or above")
        check(self.eval_tasks_every >= 0, "eval-tasks-every", self.eval_tasks_every, "0 or above")
        check_choice("eval-tasks-profile", self.eval_tasks_profile, EVAL_PROFILES)
        check(self.eval_tasks_shots >= -1, "eval-tasks-shots", self.eval_tasks_shots, "-1 or above")
        check(self.eval_tasks_limit >= 0, "eval-tasks-limit", self.eval_tasks_limit, "0 or above")
        check(self.eval_tasks_batch >= 1, "eval-tasks-batch", self.eval_tasks_batch, "at least 1")
        check(math.isfinite(self.spike) and self.spike >= 0, "spike", self.spike, "0 or above")
        check_choice("tracker", self.tracker, TRACKERS)
        check_choice("device", self.device, DEVICES)

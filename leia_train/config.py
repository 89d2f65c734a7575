"""From the parts of a run's options to the whole: what parts say together, and what a resumed run must share.

Each part is a frozen dataclass that is checked when it is made; each field carries its own help and unit, so that the
command line and the recipe are made from that one place. The defaults are the paper's (8 processes x 256 rows x 2,048
tokens, 50 steps, learning rate 5e-6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from leia_train.command_configs import BakeConfig
from leia_train.data_config import DataConfig
from leia_train.model_config import ModelConfig
from leia_train.optimization_config import OptimizationConfig
from leia_train.option_fields import check
from leia_train.run_config import RunConfig

__all__ = ["BakeConfig", "DataConfig", "ModelConfig", "OptimizationConfig", "RunConfig", "TrainConfig"]

NOT_IN_PARTS = (
    "0 with --shard-model or DeepSpeed; each process holds the whole frozen model, --weights bfloat16 halves it"
)
_OF_LORA = ("lora", "lora_alpha", "lora_dropout", "lora_targets")
_ROUNDING_ALONE = (
    *("micro_batch", "attention", "loss_chunk", "activation_checkpointing", "activation_offload", "compile", "liger"),
    "trust_remote_code",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """All of a run."""

    data: DataConfig
    model: ModelConfig
    optimization: OptimizationConfig
    run: RunConfig

    def __post_init__(self) -> None:
        check(not (self.model.lora and self.run.shard_model), "lora", self.model.lora, NOT_IN_PARTS)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the run before: all that changes the weights, but no paths of shards.

        What changes rounding alone is left out (it is what one changes after running out of memory, or on another
        machine): the size of a micro-batch, the kernels, recomputation.
        """
        content = {**self.data.identity(), **asdict(self.model), **asdict(self.optimization)}
        content["lora_alpha"] = self.model.scale  # given or not
        for name in (*_ROUNDING_ALONE, *(("rounding",) if self.model.lora else _OF_LORA)):
            del content[name]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in content.items()}


GROUPS: Mapping[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "optimization": OptimizationConfig,
    "run": RunConfig,
}
"""The parts of a TrainConfig by field; in a recipe all their values stand in `training`."""

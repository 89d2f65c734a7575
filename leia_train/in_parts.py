"""What a model in parts does alike, whoever moves the parts: FSDP2 (`fully_sharded`) or DeepSpeed (`zero3`)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from leia_train.config import TrainConfig
from leia_train.loss import TokenLoss
from leia_train.markers import CheckpointTokenizer
from leia_train.parallelism import Held
from leia_train.sharded_checkpoints import save_model


class InParts:
    """The part of `parallelism.Parallelism` that does not depend on who gathers and sums."""

    sharded = True
    held: Held
    token_loss: TokenLoss

    def __init__(self, config: TrainConfig, accelerator: Accelerator):
        self._config = config
        self._accelerator = accelerator

    @property
    def described(self) -> Mapping[str, Any]:
        """The options say all."""
        return {}

    def accumulating(self, *, last: bool) -> AbstractContextManager[Any]:
        """Those of each micro-batch are summed over processes at once: whole ones would not fit beside each other."""
        return nullcontext()

    def save_model(self, output: Path, name: str, tokenizer: CheckpointTokenizer) -> None:
        """The first process writes one weight after the other, each gathered for it."""
        save_model(output, name, self.token_loss.model, tokenizer, self._accelerator, held=self.held)

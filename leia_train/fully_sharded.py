"""A part of every weight in each process, by FSDP2 (`sharding`): weights, gradients and the optimizer's state alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from leia_train import sharding
from leia_train.asked_parallelism import Sharding
from leia_train.checkpoints import Checkpoint, load_training
from leia_train.config import TrainConfig
from leia_train.in_parts import InParts
from leia_train.loss import TokenLoss
from leia_train.markers import CheckpointTokenizer
from leia_train.optimizer import make_optimizer, ordered_weights, set_learning_rate
from leia_train.parallelism import Held
from leia_train.shard_folders import BuildTokenizer
from leia_train.sharded_checkpoints import Training, save_parts
from leia_train.sharded_model import empty_loss, fill_model
from leia_train.sharding import Parts, clip_together, local, names_of, parts_again, shard


class FullySharded(InParts):
    """`parallelism.Parallelism` with weights in FSDP2's parts."""

    held: Held = sharding
    optimizer: Optimizer

    def __init__(self, config: TrainConfig, accelerator: Accelerator, sharding: Sharding):
        super().__init__(config, accelerator)
        self._sharding = sharding
        self._parts: Parts | None = None

    @property
    def model(self) -> Any:
        """FSDP2 hooks into the modules themselves."""
        return self.token_loss

    @property
    def parts(self) -> Parts:
        """What this process has of each trained weight."""
        assert self._parts is not None, "before the first forward pass FSDP has not settled where they lie"
        return self._parts

    def load(
        self,
        build: BuildTokenizer,
        tokenizer: CheckpointTokenizer,
        checkpoint: Checkpoint | None,
        report: Callable[[str], None],
    ) -> TokenLoss:
        """No process ever has the whole model."""
        config, accelerator = self._config, self._accelerator
        self.token_loss = empty_loss(config, build, tokenizer, checkpoint, report)
        shard(self.token_loss, self._sharding, config, accelerator)
        fill_model(self.token_loss.model, config, build, tokenizer, checkpoint, accelerator)
        report(f"each of {accelerator.num_processes} processes holds a part of the weights (FSDP2)")
        return self.token_loss

    def without_backward(self) -> AbstractContextManager[None]:
        """The embeddings would stay gathered."""
        return parts_again(self.token_loss)

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """AdamW of this process's rows."""
        config = self._config
        weights = ordered_weights(self.token_loss)
        parts = self._parts = Parts(weights)
        self.optimizer = make_optimizer(
            parts,
            config.optimization,
            weights=config.model.weights,
            rounding=config.model.rounding,
            wholes=parts.wholes(),
        )
        if checkpoint is not None:
            names = names_of(self.token_loss.model, weights)
            load_training(checkpoint, self.optimizer, list(parts.rows), names, parts.ranges())

    def backward(self, loss: Tensor) -> None:
        """FSDP2 takes the mean over the processes."""
        self._accelerator.backward(loss * self._accelerator.num_processes)

    def clip(self, limit: float) -> float:
        """The norm is of all processes' parts."""
        weights = self.token_loss.parameters()
        return clip_together([local(weight.grad) for weight in weights if weight.grad is not None], limit)

    def update(self, learning_rate: float) -> None:
        """Each process moves its own rows."""
        set_learning_rate(self.optimizer, learning_rate)
        self.parts.take_gradients()
        self.optimizer.step()
        self.parts.zero_grad()

    def local_weights(self) -> Sequence[Tensor]:
        """This process's rows of each."""
        return [local(weight.detach()) for weight in self.token_loss.parameters() if weight.requires_grad]

    def save_checkpoint(
        self, output: Path, name: str, tokenizer: CheckpointTokenizer, step: int, more: Mapping[str, Tensor]
    ) -> None:
        """Each process writes its rows."""
        training = Training(optimizer=self.optimizer, parts=self.parts, step=step, more=more)
        save_parts(output, name, self.token_loss.model, tokenizer, training, self._accelerator)

"""All weights in every process: one process alone, or several that sum their gradients (DistributedDataParallel).

The optimizer's state is in every process too, or shared between them (`shares`). The first process writes what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from leia_train import sharding
from leia_train.checkpoints import Checkpoint, OptimizerState, load_training, save_checkpoint
from leia_train.config import TrainConfig
from leia_train.lora import add_adapter, describe
from leia_train.lora_files import Base, read_adapter, write_alone, write_whole
from leia_train.loss import TokenLoss
from leia_train.markers import CheckpointTokenizer
from leia_train.optimizer import make_optimizer, ordered_weights, set_learning_rate
from leia_train.packing import IGNORED
from leia_train.parallelism import Held
from leia_train.processes import on_main
from leia_train.shard_folders import BuildTokenizer
from leia_train.sharding import names_of
from leia_train.shares import Shares
from leia_train.typed_model import load_typed

_LOW_RATE = 2e-5


class Replicated:
    """`parallelism.Parallelism` with whole weights."""

    sharded = False
    base: Base | None = None
    held: Held = sharding
    token_loss: TokenLoss
    model: Any
    optimizer: Optimizer

    def __init__(self, config: TrainConfig, accelerator: Accelerator):
        self._config = config
        self._accelerator = accelerator
        self._shares: Shares | None = None

    @property
    def described(self) -> Mapping[str, Any]:
        """What an adapter is trained on, which is in no checkpoint."""
        return {} if self.base is None else {"base": asdict(self.base)}

    def load(
        self,
        build: BuildTokenizer,
        tokenizer: CheckpointTokenizer,
        checkpoint: Checkpoint | None,
        report: Callable[[str], None],
    ) -> TokenLoss:
        """Every process reads the whole model, also where a checkpoint has an adapter alone."""
        config, source = self._config, self._config.model
        if checkpoint is not None and not source.lora:
            source = replace(source, model=str(checkpoint.path))
        loaded = load_typed(source, build, tokenizer, config.data.max_length, config.optimization.seed)
        for warning in loaded.warnings:
            report(f"warning: {warning}")
        self.token_loss = self.model = TokenLoss(loaded.model)
        if source.lora:
            add_adapter(loaded.model, source, tokenizer.marker_ids, config.optimization.seed)
        self.token_loss.model.to(self._accelerator.device)
        if source.lora:
            self._settle_adapter(checkpoint, report)
        return self.token_loss

    def _settle_adapter(self, checkpoint: Checkpoint | None, report: Callable[[str], None]) -> None:
        """The adapter as a checkpoint has it, if any; what it is trained on."""
        if checkpoint is not None:
            read_adapter(self.token_loss.model, checkpoint.path)
        self.base = Base.of(self.token_loss.model, self._config.model)
        report(f"lora: {describe(self.token_loss.model)}")
        rate = self._config.optimization.learning_rate
        if rate < _LOW_RATE:
            report(
                f"warning: --learning-rate {rate:g} is one for all weights; adapters take about ten times that, 1e-4 or so"
            )

    def without_backward(self) -> AbstractContextManager[None]:
        """Nothing is gathered."""
        return nullcontext()

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """AdamW of all weights, or of this process's share of them."""
        config, several = self._config, self._accelerator.num_processes > 1
        self.model = self._accelerator.prepare(self.token_loss)
        weights = ordered_weights(self.model)
        if config.run.share_optimizer and several:
            self._shares = Shares(weights, self._accelerator)
        self.optimizer = make_optimizer(
            self.model,
            config.optimization,
            weights="float32" if config.model.lora else config.model.weights,
            rounding=config.model.rounding,
            mine=None if self._shares is None else self._shares.mine(),
        )
        if several:
            place_gradients(self.model, self._accelerator)
        if checkpoint is not None:
            load_training(checkpoint, self.optimizer, weights, names_of(self.token_loss.model, weights))

    def accumulating(self, *, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange their gradients in the last backward pass alone."""
        if last:
            return nullcontext()
        context: AbstractContextManager[Any] = self._accelerator.no_sync(self.model)
        return context

    def backward(self, loss: Tensor) -> None:
        """DistributedDataParallel takes the mean over the processes."""
        self._accelerator.backward(loss * self._accelerator.num_processes)

    def clip(self, limit: float) -> float:
        """Each process has the gradients of all."""
        return float(self._accelerator.clip_grad_norm_(self.model.parameters(), limit))

    def update(self, learning_rate: float) -> None:
        """Those that share the state hand each other the weights that they moved."""
        set_learning_rate(self.optimizer, learning_rate)
        self.optimizer.step()
        if self._shares is not None:
            self._shares.exchange()
        # Several processes keep the gradients where they exchange them: memory of their own would come on top of it.
        self.model.zero_grad(set_to_none=self._accelerator.num_processes == 1)

    def local_weights(self) -> Sequence[Tensor]:
        """All of them."""
        return [weight.detach() for weight in self.model.parameters() if weight.requires_grad]

    def save_checkpoint(
        self, output: Path, name: str, tokenizer: CheckpointTokenizer, step: int, more: Mapping[str, Tensor]
    ) -> None:
        """The whole state comes to the first process."""
        state: OptimizerState
        if self._shares is not None:
            state = self._shares.gather(self.optimizer)
        else:
            state = self.optimizer.state_dict()["state"]
        model = self.token_loss.model
        write = None if self.base is None else partial(write_alone, model=model, base=self.base, tokenizer=tokenizer)
        on_main(
            self._accelerator,
            lambda: save_checkpoint(output, name, model, tokenizer, (state, step), more, write),
        )

    def save_model(self, output: Path, name: str, tokenizer: CheckpointTokenizer) -> None:
        """As transformers writes it, or the adapter put into it."""
        model = self.token_loss.model
        write = None if self.base is None else partial(write_whole, model=model, base=self.base, tokenizer=tokenizer)
        on_main(self._accelerator, lambda: save_checkpoint(output, name, model, tokenizer, None, None, write))


def place_gradients(model: nn.Module, accelerator: Accelerator) -> None:
    """Put the gradients into the memory in which processes exchange them, before any other is taken for them.

    DistributedDataParallel does so with the first gradients that it exchanges; those of the micro-batches before them would
    lie beside it, a second copy of all of them. So those of two tokens without a label are exchanged first, then zeroed;
    twice, because after the first time it orders its memory anew.
    """
    ids = torch.zeros((1, 2), dtype=torch.int64, device=accelerator.device)
    for _ in range(2):
        with accelerator.autocast():
            losses = model(ids, torch.arange(2, device=accelerator.device)[None], torch.full_like(ids, IGNORED))
        accelerator.backward(losses.sum())
    for weight in model.parameters():
        if weight.grad is not None:
            weight.grad.zero_()

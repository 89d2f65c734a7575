"""A part of every weight in each process, by DeepSpeed's ZeRO-3: weights, gradients and the optimizer's state alike.

DeepSpeed's engine itself, as FSDP2 itself in `fully_sharded`. The engine gathers weights around each module, sums gradients
and moves parts; all else is this trainer's own: precision, learning rate, norm, clipping, checkpoints. Weights are float32.
In bfloat16 the matrices of linear layers are gathered in it, and their gradients summed in it (DeepSpeed's torch_autocast;
FSDP2 sums in float32). DeepSpeed puts a function of its own in place of torch.nn.functional.linear, for the whole process, which
gathers a matrix again in the backward pass.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from leia_beam.errors import MissingResource
from leia_train import zero3_parts
from leia_train.asked_parallelism import FSDP2_HINT, ZeroSettings
from leia_train.checkpoints import Checkpoint, training_tensors
from leia_train.config import TrainConfig
from leia_train.in_parts import InParts
from leia_train.loss import TokenLoss
from leia_train.markers import CheckpointTokenizer
from leia_train.optimizer import make_optimizer, ordered_weights, set_learning_rate
from leia_train.parallelism import Held
from leia_train.shard_folders import BuildTokenizer
from leia_train.sharded_checkpoints import Gathered, save_distributed, write_rows
from leia_train.sharded_model import empty_loss, fill_model
from leia_train.sharding import clip_together, named_tensors, names_of, place_weights

_COMM_TYPE = "comm_dtype"
"""Where DeepSpeed notes on a weight in which type it is gathered, and its gradient summed."""


class Zero3(InParts):
    """`parallelism.Parallelism` with weights in DeepSpeed's parts."""

    held: Held = zero3_parts
    model: Any

    def __init__(self, config: TrainConfig, accelerator: Accelerator, settings: ZeroSettings):
        super().__init__(config, accelerator)
        os.environ.setdefault("LOCAL_RANK", str(accelerator.local_process_index))  # DeepSpeed asks for no other name
        self._deepspeed = _imported(accelerator.device)
        self._told = {
            "train_micro_batch_size_per_gpu": 1,  # not used: the loop cuts the batch
            "managed_gradient_accumulation": False,  # a step ends where `update` is called
            "gradient_clipping": 0.0,  # clipped here, where the norm is told before the weights move
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": 3, **settings.tuning},
            "torch_autocast": {"enabled": config.model.dtype == "bfloat16", "dtype": "bfloat16"},
        }

    def load(
        self,
        build: BuildTokenizer,
        tokenizer: CheckpointTokenizer,
        checkpoint: Checkpoint | None,
        report: Callable[[str], None],
    ) -> TokenLoss:
        """No process ever has the whole model. The engine is made here: without its hooks there is no forward pass."""
        config, accelerator = self._config, self._accelerator
        loss = self.token_loss = empty_loss(config, build, tokenizer, checkpoint, report)
        place_weights(loss, accelerator.device, self._partitioned)
        fill_model(loss.model, config, build, tokenizer, checkpoint, accelerator, self.held)
        self._weights = ordered_weights(loss, self.held)
        self._optimizer = make_optimizer(loss, config.optimization, held=self.held)
        self.model = self._deepspeed.initialize(
            model=loss, optimizer=self._optimizer, config=self._told, dist_init_required=False
        )[0]
        table = loss.model.get_input_embeddings().weight
        if table is getattr(loss.model.get_output_embeddings(), "weight", None):
            vars(table).pop(_COMM_TYPE, None)  # as a lookup it is no linear layer's
        report(f"each of {accelerator.num_processes} processes holds a part of the weights (DeepSpeed ZeRO-3)")
        return loss

    def _partitioned(self, weight: nn.Parameter) -> nn.Parameter:
        """A weight of the meta device as one that has its part in each process."""
        alone = nn.Module()
        alone.weight = nn.Parameter(torch.zeros_like(weight, device=self._accelerator.device), weight.requires_grad)
        self._deepspeed.zero.Init(module=alone, config_dict_or_path=self._told, dtype=torch.float32)
        return alone.weight

    @contextmanager
    def without_backward(self) -> Iterator[None]:
        """The engine keeps what it takes to be used again soon; afterwards it is told that it is not."""
        try:
            yield
        finally:
            self.model.empty_partition_cache()

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """AdamW is there already; of a checkpoint its state."""
        if checkpoint is None:
            return
        for flat in self.model.optimizer.fp32_partitioned_groups_flat:
            self._optimizer.state[flat] = {
                "step": torch.zeros((), device=flat.device if flat.is_cuda else "cpu"),
                "exp_avg": torch.zeros_like(flat),
                "exp_avg_sq": torch.zeros_like(flat),
            }
        for number, key, files, name in training_tensors(checkpoint, names_of(self.token_loss.model, self._weights)):
            weight = self._weights[number]
            state = self._state(weight)[key]
            if key == "step":
                state.copy_(files.whole(name))
            else:
                own = zero3_parts.own_numbers(weight, partial(files.rows, name))
                state[: len(own)].copy_(own)

    def _state(self, weight: Any) -> dict[str, Tensor]:
        """AdamW's state of a weight: the count of steps, and the moments of what this process has, padding too."""
        zero = self.model.optimizer
        group, first, size = zero.grad_position[zero.get_param_id(weight)]
        state = self._optimizer.state.get(zero.fp32_partitioned_groups_flat[group], {})
        return {key: value[first : first + size] if value.ndim else value for key, value in state.items()}

    def backward(self, loss: Tensor) -> None:
        """The engine takes the mean over the processes."""
        self.model.backward(loss * self._accelerator.num_processes)

    def clip(self, limit: float) -> float:
        """The norm is of all processes' parts; the engine moves the weights by what is left of the gradients here."""
        return clip_together(self._gradients(), limit)

    def update(self, learning_rate: float) -> None:
        """Each process moves its own parts."""
        set_learning_rate(self._optimizer, learning_rate)
        self.model.step()
        # Else a weight that the next step's backward pass does not reach would be moved by this step's gradient again.
        for gradient in self._gradients():
            gradient.zero_()

    def _gradients(self) -> list[Tensor]:
        """This process's part of each weight's gradient, in the engine's own memory."""
        from deepspeed.utils import safe_get_local_grad

        return [safe_get_local_grad(weight) for weight in self._weights]

    def local_weights(self) -> Sequence[Tensor]:
        """This process's numbers of each."""
        return [zero3_parts.numbers(weight) for weight in self._weights]

    def save_checkpoint(
        self, output: Path, name: str, tokenizer: CheckpointTokenizer, step: int, more: Mapping[str, Tensor]
    ) -> None:
        """Each process writes some rows of each weight, which are gathered one after the other: FSDP2's form."""
        model = self.token_loss.model
        tensors = {
            f"model.{key}": self._gathered(tensor, zero3_parts.numbers(tensor))
            for key, tensor in named_tensors(model).items()
        }
        for weight, key in zip(self._weights, names_of(model, self._weights), strict=True):
            for kind, part in self._state(weight).items():
                tensors[f"optimizer.{key}.{kind}"] = self._gathered(weight, part)
        write = partial(write_rows, tensors=tensors, accelerator=self._accelerator)
        save_distributed(output, name, model, tokenizer, (step, more), self._accelerator, write, self.held)

    def _gathered(self, tensor: Any, part: Tensor) -> Gathered:
        """A tensor of a weight's shape, of which this process has a part; a scalar, or a buffer, is whole."""
        if not zero3_parts.is_sharded(tensor) or not part.ndim:
            return Gathered(dtype=part.dtype, shape=tuple(part.shape), sharded=False, gather=lambda: part)
        shape, padded = zero3_parts.shape_of(tensor), tensor.ds_tensor.ds_numel

        def gather() -> Tensor:
            whole_part = part.new_zeros(padded)
            whole_part[: len(part)] = part
            return zero3_parts.whole_of(tensor, whole_part)

        return Gathered(dtype=part.dtype, shape=shape, sharded=True, gather=gather)


def _imported(device: torch.device) -> Any:
    """DeepSpeed on the training's device, in the training's processes, without its notes between our lines."""
    os.environ["DS_ACCELERATOR"] = device.type
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    try:
        import deepspeed
    except Exception as error:  # whatever it looks for on a machine: compilers, CUDA's own files
        raise MissingResource(f"deepspeed cannot be imported ({' '.join(str(error).split())}); {FSDP2_HINT}") from error
    deepspeed.utils.logger.setLevel(logging.ERROR)
    # On CPUs it would else compile an exchange of its own at each first start, and wait for ever where that was killed once.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    return deepspeed
